"""
The pillar's key `takeover`, what stands behind nginx, and the record.
"""

import os
import pathlib
import socket
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from _nud import backends, nginx_language, takeover_record

from ..modules import Modules

DEBIAN = {"os": "Debian", "os_family": "Debian", "osrelease": "12", "id": "web1"}


def errors(asked: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    site = {
        "server_names": ["www.example.org"],
        "project": {"wsgi": "a.wsgi:application", "settings": "a.settings"},
    }
    other = {**site, "server_names": ["other.example.org"], **more}
    sites = {"mysite": {**site, "takeover": asked}, "other": other}
    pillar = {"nginx_uwsgi_django": {"sites": sites}}
    found: list[dict[str, Any]] = Modules(pillar=pillar, grains=DEBIAN).site_pillar.check()
    return [error for error in found if "takeover" in error["path"]]


@pytest.mark.parametrize(
    ("takeover", "path", "found"),
    [
        ({"units": ["uwsgi"]}, "units", "uwsgi"),
        ({"units": ["nginx.service"]}, "units", "nginx.service"),
        ({"units": ["ssh.service"]}, "units", "ssh.service"),
        ({"units": ["uwsgi-other.service"]}, "units", "a unit that the formula runs"),
        ({"units": ["uwsgi-mysite@0123456789ab.service"]}, "units", "a unit that the formula runs"),
        ({"units": ["django-other.worker.service"]}, "units", "a unit that the formula runs"),
        ({"files": ["conf.d/old.conf"]}, "files", "conf.d/old.conf"),
        ({"files": ["/etc/apache2/old.conf"]}, "files", "not in /etc/nginx"),
        ({"files": ["/etc/nginx/nginx.conf"]}, "files", "cannot do without"),
        ({"files": ["/etc/nginx/conf.d/nginx_uwsgi_django.conf"]}, "files", "cannot do without"),
        ({"files": ["/etc/nginx/sites-available/old"]}, "files", "does not read"),
        ({"files": ["/etc/nginx/sites-enabled/other.conf"]}, "files", "the site other"),
        ({"sockets": ["/run/uwsgi/other.sock"]}, "sockets", "the socket of the site other"),
        ({"unit": ["uwsgi.service"]}, "unit", "did you mean units?"),
    ],
)
def test_what_is_not_to_be_taken_over(takeover: dict[str, Any], path: str, found: str) -> None:
    (error,) = errors(takeover)
    assert f"takeover:{path}" in error["path"].replace(".", ":")
    assert found in f"{error['found']} {error}"


def test_two_sites_may_share_a_unit_and_not_a_file() -> None:
    file = "/etc/nginx/conf.d/old.conf"
    both = {"units": ["uwsgi.service", "gunicorn.socket"], "files": [file]}
    (error,) = errors(both, takeover=both)
    assert "which the site mysite has too" in error["found"]
    assert errors({**both, "files": []}, takeover=both) == []


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("unix:///tmp/mysite.sock", "unix:/tmp/mysite.sock"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("http://unix:/run/gunicorn.sock", "unix:/run/gunicorn.sock"),
        ("http://unix:/run/gunicorn.sock:/app/", "unix:/run/gunicorn.sock"),
        ("http://127.0.0.1:8000/app/", "127.0.0.1:8000"),
        ("http://localhost", "localhost:80"),
        ("https://[::1]/", "[::1]:443"),
        ("127.0.0.1:3031", "127.0.0.1:3031"),
        ("uwsgi://127.0.0.1:3031", "127.0.0.1:3031"),
        ("http://$backend", None),
    ],
)
def test_where_requests_are_passed_to(word: str, wanted: str | None) -> None:
    assert backends.address(word) == wanted


def test_an_upstream_stands_for_its_servers() -> None:
    text = """
    upstream app { server unix:/run/a.sock fail_timeout=0; server 127.0.0.1:8001 backup; }
    server { location / { proxy_pass http://app; } location /x { uwsgi_pass 127.0.0.1:3031; } }
    """
    rows = [("a", 1, each.block, each.words) for each in nginx_language.directives(text)]
    assert [(each.directive, each.address) for each in backends.passes(rows)] == [
        ("proxy_pass", "unix:/run/a.sock"),
        ("proxy_pass", "127.0.0.1:8001"),
        ("uwsgi_pass", "127.0.0.1:3031"),
    ]


@pytest.mark.parametrize("family", ["unix", "relative", "link", "tcp"])
def test_who_listens_and_how_many_connections_are_open(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    path = tmp_path / "a.sock"
    server = socket.socket(socket.AF_INET if family == "tcp" else socket.AF_UNIX)
    if family == "tcp":
        server.bind(("127.0.0.1", 0))
        wanted = f"127.0.0.1:{server.getsockname()[1]}"
    else:
        monkeypatch.chdir(tmp_path)
        server.bind("a.sock" if family == "relative" else f"{path}")
        wanted = f"unix:{path}"
        if family == "link":
            (tmp_path / "link").symlink_to(tmp_path)
            wanted = f"unix:{tmp_path}/link/a.sock"
    assert backends.Table().at(wanted) == []
    server.listen()
    table = backends.Table()
    found = table.at(wanted)
    assert [each.inode for each in found] == [f"{os.fstat(server.fileno()).st_ino}"]
    assert table.holders(found)
    assert backends.connections(found) == 0
    client = socket.socket(server.family)
    client.connect(server.getsockname() if family == "tcp" else f"{path}")
    # It waits in the queue.
    assert backends.connections(found) == 1
    accepted = server.accept()[0]
    assert backends.connections(found) == 1
    client.close()
    accepted.close()
    assert backends.connections(found) == 0
    server.close()


def test_a_record_is_whole_or_an_error(tmp_path: pathlib.Path) -> None:
    where = f"{tmp_path}"
    assert takeover_record.read(where, "mysite")["units"] == {}
    wanted = {"at": "now", "units": {"a.service": {}}, "sockets": {}, "reverted": None}
    takeover_record.write(where, "mysite", wanted)
    assert takeover_record.read(where, "mysite") == wanted
    assert takeover_record.names(where) == ["mysite"]
    assert (tmp_path / "takeover/mysite.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "takeover/mysite.json").write_text("{")
    with pytest.raises(CommandExecutionError, match=r"mysite\.json is not the record"):
        takeover_record.read(where, "mysite")
    assert takeover_record.remove(where, "mysite")
    assert not takeover_record.remove(where, "mysite")


def test_a_socket_that_stays_is_renamed_and_nothing_else_is(tmp_path: pathlib.Path) -> None:
    takeover = Modules(pillar={}, grains=DEBIAN).takeover
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{tmp_path}/a.sock")
    takeover._move(f"{tmp_path}/a.sock", f"{tmp_path}/a.sock.aside")
    assert [path.name for path in tmp_path.iterdir()] == ["a.sock.aside"]
    (tmp_path / "a.sock").write_text("a file")
    takeover._move(f"{tmp_path}/a.sock", f"{tmp_path}/b")
    assert (tmp_path / "a.sock").read_text() == "a file"
    server.close()
