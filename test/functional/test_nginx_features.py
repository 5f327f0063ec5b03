"""
What the pillar asks of nginx for a site, asked of a running nginx; gixy-ng, which nobody here
wrote, finds nothing in what is rendered.
"""

import json
import pathlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.host import Host
from .nginx_host import Salt, a_site, pillar, prepare

SHARED = "/srv/mysite/shared"
FEATURES: dict[str, Any] = {
    "redirects": [
        {"from": "/blog/*", "to": "/articles/*", "status": "308"},
        {"from": "/old", "to": "/new"},
    ],
    "files": [
        {"url": "/media/", "path": f"{SHARED}/media", "expires": "30d"},
        {"url": "/", "path": f"{SHARED}/public", "missing": "app"},
        {"url": "/icon.svg", "path": f"{SHARED}/public/icon.svg"},
        {"url": "/spa/", "path": f"{SHARED}/spa", "missing": "index.html"},
    ],
    "headers": {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"},
    "gzip": True,
    "timeouts": {"body": 30, "send": 30, "app": 99},
    "rate_limits": [
        {"path": "/login/", "rate": "1r/m", "burst": 1},
        {"path": "/", "rate": "100r/s", "burst": 1000},
    ],
    "access_log": {"path": "/var/log/nginx/mysite.access.log", "format": "short"},
    "error_log": {"path": "/var/log/nginx/mysite.error.log", "level": "warn"},
    "upload_buffering": False,
    "uwsgi": {"params": {"HTTP_X_REQUEST_ID": "$request_id", "TIER": "a b; $scheme"}},
    "load_balancer": {"addresses": ["127.0.0.0/8"]},
    "snippet": "location = /raw {\n    return 204;\n}\n",
}
NGINX = {
    "health": {"path": "/-/health"},
    "snippet": "map $host $kind { default 0; }\n",
    "timeouts": {"header": 2, "keepalive": 3},
    "log_formats": {
        "short": {"escape": "json", "format": '{"uri": "$uri", "agent": "$http_user_agent"}'}
    },
}
# openssl passwd -6 -salt saltsalt secret
HASHED = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"
GUARDED = {"realm": "Staging area", "users": {"ann": HASHED}, "except": ["127.0.0.9"]}
CLOSED = {"page": f"{SHARED}/closed.html", "except": ["127.0.0.9"]}
BOTH = {
    "mysite": a_site(**FEATURES),
    "other": a_site(
        "other.example.org",
        redirect_from=["former.example.org", "*.former.example.org"],
        basic_auth=GUARDED,
        headers={"X-Frame-Options": "DENY"},
    ),
}

# A uWSGI of a few lines: it answers with the variables that nginx passes.
APPLICATION = """
import os, socket, socketserver, sys, threading
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        head = self.rfile.read(4)
        rest, found = self.rfile.read(int.from_bytes(head[1:3], "little")), []
        while rest:
            size = int.from_bytes(rest[:2], "little")
            found.append(rest[2:2 + size].decode())
            rest = rest[2 + size:]
        with open("/run/uwsgi/asked", "a") as log:
            log.write(" ".join(found) + "\\n")
        self.rfile.read(int(dict(zip(found[::2], found[1::2])).get("CONTENT_LENGTH") or 0))
        body = "".join(f"{a}={b}\\n" for a, b in zip(found[::2], found[1::2])).encode()
        answer = b"HTTP/1.1 200 OK\\r\\nX-Frame-Options: SAMEORIGIN\\r\\nContent-Length: "
        self.wfile.write(answer + str(len(body)).encode() + b"\\r\\n\\r\\n" + body)
os.makedirs("/run/uwsgi", exist_ok=True)
os.umask(0)
for name in ("mysite", "other"):
    server = socketserver.ThreadingUnixStreamServer(f"/run/uwsgi/{name}.sock", Handler)
    threading.Thread(target=server.serve_forever).start()
"""


@pytest.fixture(scope="module")
def salt(host: Host) -> Iterator[Salt]:
    prepare(host, "curl")
    host.write("/root/app.py", APPLICATION)
    host.run("systemd-run --unit=app python3 /root/app.py")
    host.run(f"mkdir -p {SHARED}/media/.git {SHARED}/public {SHARED}/spa {SHARED}/data")
    for path in ("media/a.txt", "public/robots.txt", "public/icon.svg", "spa/index.html"):
        host.write(f"{SHARED}/{path}", f"{path}\n")
    for path in ("media/.env", "media/.git/config", "media/db.sqlite3", "media/a.py", "env"):
        host.write(f"{SHARED}/{path}", "SECRET\n")
    host.run(f"ln -s ../env {SHARED}/media/link && ln -s .. {SHARED}/media/up")
    made = Salt(host)
    made.pillar = pillar(BOTH, nginx=NGINX)
    for function in ("nginx_tree.applied", "nginx_process.current"):
        done = made.state(function)
        assert done["result"] is True, done["comment"]
    yield made
    made.close()


def ask(host: Host, path: str, *words: str, name: str = "x.compute.amazonaws.com") -> str:
    """Head and body of an answer, as curl prints them."""
    command = ["curl", "-sS", "-i", "--path-as-is", "-H", f"Host: {name}", *words]
    done = host.run(*command, f"http://127.0.0.1{path}", check=False)
    return str(done.stdout + done.stderr)


def test_a_second_run_changes_nothing(salt: Salt) -> None:
    assert salt.state("nginx_tree.applied")["changes"] == {}


def test_redirects(host: Host, salt: Salt) -> None:
    assert "301" in ask(host, "/old?a=1") and "Location: /new?a=1\n" in ask(host, "/old?a=1")
    for name in ("former.example.org", "a.former.example.org"):
        answer = ask(host, "/a%20b?c=d", name=name)
        assert " 301 " in answer and "Location: http://other.example.org/a%20b?c=d\n" in answer
    answer = ask(host, "/blog/x%20y/z?q=%0d%0aX:1")
    assert " 308 " in answer and "Location: /articles/x%20y/z?q=%0d%0aX:1\n" in answer


def test_files_and_what_is_none_of_them(host: Host, salt: Salt) -> None:
    answer = ask(host, "/media/a.txt")
    assert "200 OK" in answer and "max-age=2592000" in answer and "nosniff" in answer
    assert answer.endswith("media/a.txt\n")
    assert ask(host, "/robots.txt").endswith("public/robots.txt\n")
    assert ask(host, "/icon.svg").endswith("public/icon.svg\n")
    assert ask(host, "/spa/any/where").endswith("spa/index.html\n")
    assert "PATH_INFO=/page/" in ask(host, "/page/")
    assert " 404 " in ask(host, "/media/nothing")
    for path in (
        "/media/.env",
        "/media/.git/config",
        "/media/db.sqlite3",
        "/media/a.py",
        "/media/link",
        "/media/up/env",
        "/media../env",
        "/media/../env",
        "/media/%2e%2e/env",
    ):
        assert "SECRET" not in ask(host, path), path


def test_a_header_stands_once_and_is_the_pillars(host: Host, salt: Salt) -> None:
    for path in ("/page/", "/media/a.txt", "/media/nothing"):
        answer = ask(host, path)
        assert answer.count("X-Frame-Options: ") == 1 and "X-Frame-Options: DENY" in answer, path


def test_a_load_balancers_word(host: Host, salt: Salt) -> None:
    said = ask(host, "/p", "-H", "X-Forwarded-For: 203.0.113.7", "-H", "X-Forwarded-Proto: https")
    assert "REMOTE_ADDR=203.0.113.7" in said and "\nHTTPS=on" in said
    assert "HTTP_X_FORWARDED_PROTO=https" in said
    # From an address that is not trusted: the host's own, not loopback.
    address = host.run("hostname -I").stdout.split()[0]
    done = host.run(
        *("curl", "-sS", "-H", "Host: x.compute.amazonaws.com", "-H", "X-Forwarded-Proto: https"),
        *("-H", "X-Forwarded-For: 203.0.113.7", f"http://{address}/p"),
    ).stdout
    assert f"REMOTE_ADDR={address}" in done and "HTTPS=on" not in done
    assert "HTTP_X_FORWARDED_PROTO=http\n" in done


@pytest.mark.parametrize(
    "sent, seen",
    [
        ("x.compute.amazonaws.com", "x.compute.amazonaws.com"),
        ("x.compute.amazonaws.com:8080", "x.compute.amazonaws.com:8080"),
        ("X.Compute.amazonaws.com:8080", "X.Compute.amazonaws.com:8080"),
        ("x.compute.amazonaws.com.:8080", "x.compute.amazonaws.com.:8080"),
        # nginx takes the name and no port of it: what is no number is none.
        ("x.compute.amazonaws.com:http", "x.compute.amazonaws.com"),
    ],
)
def test_the_application_sees_the_host_as_it_was_sent(
    host: Host, salt: Salt, sent: str, seen: str
) -> None:
    said = ask(host, "/p", name=sent).splitlines()
    # The last one counts: uWSGI puts them into a dictionary in this order.
    assert [line for line in said if line.startswith("HTTP_HOST=")][-1] == f"HTTP_HOST={seen}"


def test_a_host_that_nginx_did_not_choose_the_site_by_is_not_passed_on(
    host: Host, salt: Salt
) -> None:
    name = "x.compute.amazonaws.com"
    absolute = ("--request-target", f"http://{name}/p")
    for words, sent, seen in (
        (absolute, "evil.example.org:8080", name),
        (absolute, f"{name}.evil.example.org", name),
        (absolute, f"{name}:8080@evil", name),
        (absolute, f"{name}:8080", f"{name}:8080"),
        # No Host at all, as HTTP/1.0 may: no site's name, so nginx closes the connection.
        (("--http1.0", "-H", "Host:"), "", ""),
    ):
        said = host.run(
            *("curl", "-sS", "-H", f"Host: {sent}", *words, "http://127.0.0.1/p"), check=False
        )
        hosts = [line for line in said.stdout.splitlines() if line.startswith("HTTP_HOST=")]
        assert hosts[-1:] == [f"HTTP_HOST={seen}"] * bool(seen), (words, sent, said)


def test_parameters_of_the_pillar(host: Host, salt: Salt) -> None:
    said = ask(host, "/p", "-H", "X-Request-Id: forged").splitlines()
    (identity,) = [line for line in said if line.startswith("HTTP_X_REQUEST_ID=")]
    assert re.fullmatch("HTTP_X_REQUEST_ID=[0-9a-f]{32}", identity)
    assert "TIER=a b; http" in said


def test_a_rate_limit(host: Host, salt: Salt) -> None:
    answers = [ask(host, "/login/in") for _ in range(4)]
    assert [("429" in answer.splitlines()[0]) for answer in answers] == [False, False, True, True]
    assert "PATH_INFO=/login/in" in answers[0] and "X-Frame-Options: DENY" in answers[3]
    # By itself, and not for what is next to it; nginx puts the slash where Django would.
    assert " 200 " in ask(host, "/page/") and " 200 " in ask(host, "/logins")
    assert "Location: /login/\n" in ask(host, "/login")


def test_logs(host: Host, salt: Salt) -> None:
    ask(host, "/logged", "-A", 'a "quoted" agent')
    (line,) = [
        json.loads(line)
        for line in host.read("/var/log/nginx/mysite.access.log").splitlines()
        if "/logged" in line
    ]
    assert line == {"uri": "/logged", "agent": 'a "quoted" agent'}
    assert "limiting requests" not in host.read("/var/log/nginx/error.log")
    assert "limiting requests" in host.read("/var/log/nginx/mysite.error.log")


def test_basic_authentication(host: Host, salt: Salt) -> None:
    def at_other(path: str, *words: str) -> str:
        return ask(host, path, *words, name="other.example.org")

    answer = at_other("/p")
    assert " 401 " in answer and 'WWW-Authenticate: Basic realm="Staging area"' in answer
    assert " 401 " in at_other("/p", "-u", "ann:wrong")
    assert "PATH_INFO=/p" in at_other("/p", "-u", "ann:secret")
    assert "PATH_INFO=/p" in at_other("/p", "--interface", "127.0.0.9")
    # The load balancer's question.
    assert " 200 " in at_other("/-/health")
    path = "/etc/nginx/sites-available/other.htpasswd"
    assert host.run("stat", "-c", "%U:%G %a", path).stdout == "root:deploy 640\n"
    before = salt.pillar
    try:
        with_bob = {**GUARDED, "users": {"ann": HASHED, "bob": HASHED}}
        salt.pillar = pillar(
            {**BOTH, "other": a_site("other.example.org", basic_auth=with_bob)}, nginx=NGINX
        )
        dry = salt.state("nginx_tree.applied", test=True)
        assert path in dry["changes"] and "$6$" not in json.dumps(dry)
        salt.pillar = pillar({**BOTH, "other": a_site("other.example.org")}, nginx=NGINX)
        assert salt.state("nginx_tree.applied")["result"] is True and not host.exists(path)
        assert salt.state("nginx_process.current")["result"] is True
        assert " 200 " in at_other("/p")
    finally:
        salt.pillar = before
        for function in ("nginx_tree.applied", "nginx_process.current"):
            assert salt.state(function)["result"] is True


@pytest.mark.parametrize("page", [True, False])
def test_maintenance(host: Host, salt: Salt, page: bool) -> None:
    host.write(f"{SHARED}/closed.html", "<p>Back soon\n")
    before = salt.pillar
    closed = CLOSED if page else {"except": CLOSED["except"]}
    try:
        site = a_site(**{**FEATURES, "maintenance": closed})
        salt.pillar = pillar({**BOTH, "mysite": site}, nginx=NGINX)
        for function in ("nginx_tree.applied", "nginx_process.current"):
            done = salt.state(function)
            assert done["result"] is True, done["comment"]
        for path, more in (("/page/", ()), ("/media/a.txt", ()), ("/form", ("-d", "a=b"))):
            answer = ask(host, path, *more)
            assert " 503 " in answer.splitlines()[0] and "Retry-After: 600\n" in answer
            assert ("Back soon" in answer) is page and answer.count("X-Frame-Options: DENY") == 1
        for path, more in (("/page/", ()), ("/media/a.txt", ())):
            assert " 200 " in ask(host, path, "--interface", "127.0.0.9", *more)
        assert " 200 " in ask(host, "/-/health")
        assert "Back soon" not in ask(
            host, "/.nginx_uwsgi_django/maintenance", "--interface", "127.0.0.9"
        )
        if page:
            # Its own file gone is no other answer.
            host.run("rm", f"{SHARED}/closed.html")
            assert " 503 " in ask(host, "/page/").splitlines()[0]
    finally:
        salt.pillar = before
        for function in ("nginx_tree.applied", "nginx_process.current"):
            assert salt.state(function)["result"] is True
    assert " 200 " in ask(host, "/page/")


def test_waits(host: Host, salt: Salt) -> None:
    def silent(said: bytes) -> float:
        with socket.create_connection((host.address, 80), timeout=30) as connection:
            connection.sendall(said)
            start = time.monotonic()
            while connection.recv(65536):
                start = time.monotonic() if not said.endswith(b"X: ") else start
            return time.monotonic() - start

    # Half a head, and an idle connection: nginx's own are 60 and 65 or 75 seconds.
    assert silent(b"GET / HTTP/1.1\r\nX: ") < 20
    assert silent(b"GET /page/ HTTP/1.1\r\nHost: x.compute.amazonaws.com\r\n\r\n") < 20


def test_a_slow_upload_waits_at_nginx_or_goes_through(host: Host, salt: Salt) -> None:
    """Buffered, it occupies no worker of the application before it is whole."""

    def asked(path: str) -> bool:
        return path in host.run("cat", "/run/uwsgi/asked").stdout

    for name, path, buffered in (
        ("x.compute.amazonaws.com", "/upload/through", False),
        ("other.example.org", "/upload/buffered", True),
    ):
        head = f"POST {path} HTTP/1.1\r\nHost: {name}\r\nContent-Length: 100000\r\n"
        # ann:secret
        head += "Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n"
        with socket.create_connection((host.address, 80), timeout=30) as connection:
            connection.sendall(head.encode() + b"x" * 20000)
            deadline = time.monotonic() + (1 if buffered else 20)
            while not asked(path) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert asked(path) is not buffered
            if buffered:
                connection.sendall(b"x" * 80000)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ") and asked(path)


def test_texts_are_compressed(host: Host, salt: Salt) -> None:
    host.write(f"{SHARED}/media/long.txt", "all the same " * 1000)
    answer = ask(
        host, "/media/long.txt", "-H", "Accept-Encoding: gzip", "-o", "/dev/null", "-D", "-"
    )
    assert "Content-Encoding: gzip" in answer and "Vary: Accept-Encoding" in answer
    assert "Content-Encoding" not in ask(host, "/media/long.txt")


def test_an_unknown_name_is_refused_but_for_the_health_question(host: Host, salt: Salt) -> None:
    assert "Empty reply" in ask(host, "/", name="unknown.example.org")
    for name in ("unknown.example.org", "x.compute.amazonaws.com", "10.0.0.1"):
        answer = ask(host, "/-/health", name=name)
        assert "HTTP_HOST=health.compute.amazonaws.com" in answer and "PATH_INFO=/\n" in answer
        assert "HTTPS=on\n" in answer and "HTTP_X_FORWARDED_PROTO=https\n" in answer
    host.run("mkdir -p /run/nginx_uwsgi_django && touch /run/nginx_uwsgi_django/drain")
    try:
        assert " 503 " in ask(host, "/-/health", name="10.0.0.1")
        assert " 200 " in ask(host, "/page/")
    finally:
        host.run("rm /run/nginx_uwsgi_django/drain")


def test_a_unit_drains_when_it_is_stopped_and_goes_without_draining(host: Host, salt: Salt) -> None:
    unit, mark = "nginx-uwsgi-django-drain.service", "/run/nginx_uwsgi_django/drain"
    path = f"/etc/systemd/system/{unit}"
    before = salt.pillar
    health = {**NGINX["health"], "drain": 300}
    try:
        assert salt.state("host_drain.at_shutdown")["changes"] == {}
        salt.pillar = pillar(BOTH, nginx={**NGINX, "health": health})
        dry = salt.state("host_drain.at_shutdown", test=True)
        assert dry["result"] is None and set(dry["changes"]) == {path, "unit"}
        assert not host.exists(path)
        done = salt.state("host_drain.at_shutdown")
        assert done["result"] is True and done["changes"] == dry["changes"], done["comment"]
        assert salt.state("host_drain.at_shutdown")["changes"] == {}
        assert not host.exists(mark)
        # As a shutdown does. Its order among the others is the business of test_cloud_init.
        host.run("systemctl", "stop", "--no-block", unit)
        host.run(f"until [ -e {mark} ]; do sleep 0.05; done", timeout=30)
        assert " 503 " in ask(host, "/-/health", name="10.0.0.1")
        assert " 200 " in ask(host, "/page/")
        shown = salt.call("systemd_unit.show", units=unit, properties=["ActiveState", "After"])
        assert shown[unit]["ActiveState"] == "deactivating", "it waits"
        assert "multi-user.target" in shown[unit]["After"].split()
        host.run(f"systemctl kill --signal=KILL {unit} && rm {mark}")
        host.run(f"until systemctl is-failed {unit}; do sleep 0.05; done", timeout=30)
        # A run killed before systemd knew is finished by the next.
        host.run(f"systemctl reset-failed {unit}")
        assert set(salt.state("host_drain.at_shutdown")["changes"]) == {"unit"}
        gone = salt.state("host_drain.absent")
        assert gone["result"] is True and set(gone["changes"]) == {path, "unit"}, gone["comment"]
        assert not host.exists(path) and not host.exists(mark)
        assert salt.state("host_drain.absent")["changes"] == {}
        host.write(path, "[Service]\nExecStart=/bin/true\n")
        assert "not this formula's" in salt.state("host_drain.absent")["comment"]
    finally:
        host.run("rm", "-f", path, mark)
        salt.pillar = before


def test_a_snippets_mistake_is_the_pillars(host: Host, salt: Salt) -> None:
    assert " 204 " in ask(host, "/raw")
    before = salt.pillar
    try:
        site = a_site(**{**FEATURES, "snippet": "# one\nno_such_directive yes;\n"})
        salt.pillar = pillar({**BOTH, "mysite": site}, nginx=NGINX)
        done = salt.state("nginx_tree.applied")
        assert done["result"] is False
        assert "sites:mysite:snippet, line 2: no_such_directive yes;" in done["comment"]
        salt.pillar = pillar(BOTH, nginx={**NGINX, "snippet": "no_such_directive yes;\n"})
        done = salt.state("nginx_tree.applied")
        assert done["result"] is False and "nginx:snippet, line 1" in done["comment"]
    finally:
        salt.pillar = before


def test_gixy_finds_nothing(host: Host, salt: Salt, tmp_path: pathlib.Path) -> None:
    closed = a_site("closed.example.org", maintenance=CLOSED)
    salt.pillar = pillar({**BOTH, "closed": closed}, nginx=NGINX)
    assert salt.state("nginx_tree.applied")["result"] is True
    dump = tmp_path / "nginx.conf"
    dump.write_text(host.run("nginx", "-T").stdout)
    gixy = pathlib.Path(sys.executable).parent / "gixy"
    done = subprocess.run([gixy, "-f", "json", dump], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    # Debian's own nginx.conf leaves the limit of files to the unit, and TLS to its sites.
    theirs = {"worker_rlimit_nofile_vs_connections", "weak_ssl_tls"}
    left = {one["plugin"]: one["path"] for one in found if one["plugin"] not in theirs}
    # About speed: an open_file_cache would go on serving a removed file for up to a minute.
    assert set(left) == {"try_files_is_evil_too"}
    assert found, "gixy found not even Debian's own: did it read anything?"
