"""The client of the uwsgi protocol, against a server that answers what a test wants."""

import contextlib
import socket
import threading
import time

import pytest
from salt.exceptions import CommandExecutionError

from _nud import uwsgi_protocol


@pytest.fixture
def serve(tmp_path):
    """Listen, hand one connection to a function, and keep what was received."""
    path = str(tmp_path / "s")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    received = []

    def start(act):
        def work():
            connection, _ = listening.accept()
            # The client may have gone by then.
            with connection, contextlib.suppress(BrokenPipeError):
                received.append(connection.recv(100000))
                act(connection)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return path

    start.received = received
    yield start
    listening.close()


def read(packet):
    size = int.from_bytes(packet[1:3], "little")
    body, words = packet[4 : 4 + size], []
    while body:
        length = int.from_bytes(body[:2], "little")
        words.append(body[2 : 2 + length].decode())
        body = body[2 + length :]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_a_page_is_asked_for_as_nginx_does(serve):
    path = serve(
        lambda c: c.sendall(
            b"HTTP/1.1 200 OK\r\nA: 1\r\nSet-Cookie: x\r\nSet-Cookie: y\r\n\r\nh\xc3\xa9"
        )
    )
    answer = uwsgi_protocol.get(path, "/a/b?c=d", "www.example.org:81")
    assert answer["status"] == 200
    assert answer["headers"] == {"a": "1", "set-cookie": "x\ny"}
    assert answer["body"] == "hé"
    asked = read(serve.received[0])
    assert asked["HTTP_HOST"] == "www.example.org:81"
    assert (asked["PATH_INFO"], asked["QUERY_STRING"]) == ("/a/b", "c=d")
    assert asked["REQUEST_URI"] == "/a/b?c=d"


def test_variables_and_a_body_are_passed_on(serve):
    path = serve(lambda c: c.sendall(b"HTTP/1.1 204 No Content\r\n\r\n"))
    answer = uwsgi_protocol.get(path, method="POST", body="hello", variables={"HTTPS": "on"})
    assert answer["status"] == 204
    assert read(serve.received[0])["CONTENT_LENGTH"] == "5"
    assert read(serve.received[0])["HTTPS"] == "on"
    assert serve.received[0].endswith(b"hello")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "without an answer"),
        (b"SSH-2.0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: 1", "not HTTP"),
    ],
)
def test_an_answer_that_is_none_is_an_error(serve, said, words):
    path = serve(lambda c: c.sendall(said))
    with pytest.raises(CommandExecutionError, match=words):
        uwsgi_protocol.get(path)


def test_the_time_limit_is_for_the_whole_exchange(serve):
    def drip(connection):
        for _ in range(50):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            time.sleep(0.1)

    path = serve(drip)
    started = time.monotonic()
    with pytest.raises(CommandExecutionError, match="within 0.5 s"):
        uwsgi_protocol.get(path, timeout=0.5)
    assert time.monotonic() - started < 2


def test_nobody_listens(tmp_path):
    with pytest.raises(CommandExecutionError, match="nobody answers"):
        uwsgi_protocol.get(str(tmp_path / "none"))


def test_a_request_that_does_not_fit_is_refused():
    with pytest.raises(CommandExecutionError):
        uwsgi_protocol.packet({"A": "x" * 70000})
    with pytest.raises(CommandExecutionError):
        uwsgi_protocol.packet({"A": "x" * 40000, "B": "x" * 40000})


def test_many_are_asked_together_and_one_that_fails_keeps_no_other_from_it(serve, tmp_path):
    path = serve(lambda c: c.sendall(b"HTTP/1.1 204 No Content\r\n\r\n"))
    nobody = f"{tmp_path}/nobody"
    told = uwsgi_protocol.together(
        [
            {"socket_path": nobody, "path": "/"},
            {"socket_path": path, "path": "/", "host": "www.example.org", "timeout": 20},
            {"socket_path": nobody},
        ]
    )
    assert [one.get("status") for one in told] == [None, 204, None]
    assert "nobody answers" in told[0]["error"] and "nobody answers" in told[2]["error"]


def test_together_they_take_no_longer_than_was_said(serve):
    path = serve(lambda c: time.sleep(30))
    began = time.monotonic()
    told = uwsgi_protocol.together(
        [{"socket_path": path, "path": "/"}] * 3, at_once=1, patience=0.3
    )
    assert time.monotonic() - began < 15
    assert "no answer" in told[0]["error"]
    assert told[2] == {"error": "not asked: 0.3 s were not enough for all"}
