"""
A client of the uwsgi protocol: asks a site what nginx would ask it, without nginx.
"""

import concurrent.futures
import contextlib
import json
import os
import re
import socket
import struct
import time
from typing import Any

from salt.exceptions import CommandExecutionError

# More of an answer is read to its end but not kept.
_KEEP = 1024 * 1024


def packet(variables: dict[str, str]) -> bytes:
    """
    A request of the uwsgi protocol: a header of 4 bytes (modifier 0, size, modifier 0), then every
    variable's name and value, each after its length in 2 bytes, little-endian
    (https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html).

    variables
        what nginx's ``uwsgi_params`` would say

    Returns bytes.

    Raises CommandExecutionError when it does not fit in 64 KiB.
    """
    body = bytearray()
    for name, value in variables.items():
        for text in (name, value):
            data = text.encode()
            if len(data) > 0xFFFF:
                raise CommandExecutionError(f"{name} is too long for the uwsgi protocol")
            body += struct.pack("<H", len(data)) + data
    if len(body) > 0xFFFF:
        raise CommandExecutionError("the request is too long for the uwsgi protocol")
    return struct.pack("<BHB", 0, len(body), 0) + bytes(body)


def get(
    socket_path: str,
    path: str = "/",
    host: str = "localhost",
    timeout: float = 30,
    method: str = "GET",
    variables: dict[str, str] | None = None,
    body: str = "",
) -> dict[str, Any]:
    """
    Ask a uWSGI for a page.

    socket_path
        the path of its unix socket
    path
        what to ask for, with a query after ``?``
    host
        the Host header
    timeout
        seconds for the whole exchange
    method
        the request's method
    variables
        further variables of the protocol, or others in place of the usual ones
    body
        the request's body

    Returns a dictionary of ``status`` (a number), ``headers`` (names in lower case; a header sent
    several times has its values joined by newlines), ``body`` (text, at most 1 MiB of it) and
    ``seconds``.

    Raises CommandExecutionError when nobody listens there, when the connection is closed without an
    answer (the application crashed), when the time is over, or when the answer is not HTTP.
    """
    data = body.encode()
    address, _, query = path.partition("?")
    request = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": path,
        "PATH_INFO": address,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": str(len(data)) if data else "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": host.rpartition(":")[0] or host,
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "0",
        "REQUEST_SCHEME": "http",
        "HTTP_HOST": host,
        "HTTP_USER_AGENT": "nginx_uwsgi_django",
        **(variables or {}),
    }
    started = time.monotonic()
    answer = _exchange(socket_path, packet(request) + data, timeout)
    return {**_http(answer, socket_path), "seconds": round(time.monotonic() - started, 3)}


def _exchange(socket_path: str, data: bytes, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout

    def left() -> float:
        rest = deadline - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        return rest

    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(left())
            connection.connect(socket_path)
            # An application that does not read the body answers, and closes, while we still send.
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(data)
            while True:
                connection.settimeout(left())
                piece = connection.recv(65536)
                if not piece:
                    return bytes(answer)
                if len(answer) < _KEEP:
                    answer += piece
    except TimeoutError:
        raise CommandExecutionError(f"no answer on {socket_path} within {timeout:g} s") from None
    except ConnectionResetError:
        if answer:
            return bytes(answer)
        raise CommandExecutionError(
            f"the connection to {socket_path} was reset before an answer"
        ) from None
    except OSError as error:
        raise CommandExecutionError(
            f"nobody answers on {socket_path}: {error.strerror or os.strerror(error.errno or 0)}"
        ) from error


def _http(answer: bytes, socket_path: str) -> dict[str, Any]:
    head, separator, body = answer.partition(b"\r\n\r\n")
    line, _, rest = head.partition(b"\r\n")
    found = re.match(rb"HTTP/1\.[01] (\d{3})(?: |$)", line)
    if not answer:
        raise CommandExecutionError(
            f"{socket_path} took the request and closed the connection without an answer"
        )
    if not found or not separator:
        raise CommandExecutionError(f"the answer on {socket_path} is not HTTP: {answer[:80]!r}")
    headers: dict[str, str] = {}
    for field in rest.split(b"\r\n") if rest else []:
        name, _, value = field.decode("latin-1").partition(":")
        key = name.strip().lower()
        headers[key] = f"{headers[key]}\n{value.strip()}" if key in headers else value.strip()
    return {
        "status": int(found[1]),
        "headers": headers,
        "body": body[:_KEEP].decode("utf-8", "replace"),
    }


def stats(socket_path: str, timeout: float = 10) -> dict[str, Any]:
    """
    What a uWSGI says about itself on its statistics socket.

    socket_path
        the path of the socket
    timeout
        seconds

    Returns uWSGI's dictionary: ``version``, ``listen_queue``, ``workers`` (each with ``pid``,
    ``status``, ``requests``, ``accepting``, …) and more.

    Raises CommandExecutionError when nobody answers there.
    """
    answer = _exchange(socket_path, b"", timeout)
    try:
        return json.loads(answer.decode("utf-8", "replace"))
    except ValueError:
        raise CommandExecutionError(
            f"what answers on {socket_path} is not uWSGI's statistics: {answer[:80]!r}"
        ) from None


def together(
    questions: list[dict[str, Any]], at_once: int = 16, patience: float = 60
) -> list[dict[str, Any]]:
    """
    Ask many uWSGIs at the same time.

    questions
        the arguments of :py:func:`get`, or of :py:func:`stats` where there is no ``path`` among them
    at_once
        how many are asked at the same time
    patience
        seconds for all of them

    Returns a list in the order of the questions: what each was answered, or ``error`` alone, why it
    was not.
    """
    deadline = time.monotonic() + patience

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        # The functions of this module as they are: by way of Salt's loader two threads would enter
        # one context (LazyLoader.run), which Python refuses.
        left = deadline - time.monotonic()
        if left <= 0:
            return {"error": f"not asked: {patience:g} s were not enough for all"}
        timeout = min(left, question.get("timeout", 10))
        try:
            answer = get if "path" in question else stats
            return answer(**{**question, "timeout": timeout})
        except CommandExecutionError as error:
            return {"error": str(error)}

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(ask, questions))
