"""
What reaches Django of a request: a browser's form, with its Origin, through every kind of listen
(Django compares it with the Host), and all that nginx takes; and how the two agree on a key for TLS.
"""

import copy
import re
import urllib.parse

import pytest
import yaml

from test.hosts.paths import FORMULA

NAME = "www.example.org"
PILLAR = yaml.safe_load((FORMULA / "pillar.example").read_text())
PILLAR["nginx_uwsgi_django"]["sites"]["mysite"].update(
    server_names=[NAME],
    listen=[80, 8080, "127.0.0.2:8081", "[::1]:8082", "8083 default_server"],
    tls={
        "certificate": "/etc/ssl/mysite.pem",
        "key": "/etc/ssl/mysite.key",
        "listen": [443, 8443, "[::1]:8444"],
        "redirect": False,
    },
)
PLACES = {
    f"http://{NAME}": "127.0.0.1:80",
    f"http://{NAME}:8080": "127.0.0.1:8080",
    f"http://{NAME}:8081": "127.0.0.2:8081",
    f"http://{NAME}:8082": "[::1]:8082",
    f"http://{NAME}:8083": "127.0.0.1:8083",
    # By address, as on a machine that has no name yet.
    "http://127.0.0.1:8080": "127.0.0.1:8080",
    "http://[::1]:8082": "[::1]:8082",
    # A port that is forwarded to another one.
    f"http://{NAME}:9999": "127.0.0.1:8080",
    f"https://{NAME}": "127.0.0.1:443",
    f"https://{NAME}:8443": "127.0.0.1:8443",
    f"https://{NAME}:8444": "[::1]:8444",
}
ON_EACH = pytest.mark.parametrize(
    "host",
    ["bookworm", pytest.param("trixie", marks=pytest.mark.long)],
    indirect=True,
    scope="module",
)
_SAYS = re.compile(r"^\s*uwsgi_param\s+HTTP_HOST\s.*$", re.MULTILINE)


@pytest.fixture(scope="module")
def applied(host):
    """The bundled project at all of these places."""
    host.run(
        "apt-get update -qq && apt-get install -y -qq openssl curl >/dev/null && cd /etc/ssl"
        f" && openssl req -x509 -newkey rsa:2048 -nodes -subj /CN={NAME} -days 30"
        f" -addext subjectAltName=DNS:{NAME} -keyout mysite.key -out mysite.pem",
        timeout=300,
    )
    run = host.apply(pillar=PILLAR, cold=True)
    assert run.ok, run.failed
    return host


def sign(host, origin: str, place: str, *words: str) -> tuple[str, str]:
    """Fetch the form and send it as a browser does; the status and the version of HTTP."""
    parts = urllib.parse.urlsplit(origin)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    curl = ["curl", "-sS", "--cacert", "/etc/ssl/mysite.pem", "-b", "/root/jar", "-c", "/root/jar"]
    curl += ["-g", "--connect-to", f"{name}:{port}:{place}", *words]
    host.run("rm -f /root/jar")
    page = host.run(*curl, f"{origin}/entries/").stdout
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token, page
    answer = host.run(
        *(*curl, "-o", "/root/answer", "-w", "%{http_code} %{http_version}"),
        *("-H", f"Origin: {origin}", "-H", f"Referer: {origin}/entries/"),
        *("-F", f"csrfmiddlewaretoken={token[1]}", "-F", "message=hello", f"{origin}/entries/"),
    ).stdout
    status, version = answer.split()
    return status, version


@ON_EACH
@pytest.mark.parametrize("origin", PLACES)
def test_a_form_is_taken(applied, origin):
    assert sign(applied, origin, PLACES[origin])[0] == "302"


@ON_EACH
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_form_is_taken_over_each_version_of_http(applied, version):
    status, spoken = sign(applied, f"https://{NAME}:8443", "127.0.0.1:8443", version)
    assert (status, spoken) == ("302", {"--http1.1": "1.1", "--http2": "2"}[version])


@ON_EACH
def test_a_form_of_another_site_is_refused(applied):
    assert sign(applied, f"http://{NAME}:8080", PLACES[f"http://{NAME}:8080"])[0] == "302"
    page = applied.run(
        *("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-b", "/root/jar"),
        *("--connect-to", f"{NAME}:8080:127.0.0.1:8080", "-H", f"Origin: http://{NAME}:8081"),
        *("-F", "message=hello", f"http://{NAME}:8080/entries/"),
    ).stdout
    assert page == "403"


@ON_EACH
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        # nginx: large_client_header_buffers 4 8k; a URI of them is sent twice, whole and in parts.
        ("/?q=" + "x" * 8000, []),
        ("/nothing/" + "x" * 8000, []),
        ("/?q=" + "x" * 8000, [f"X-{letter}: " + letter * 8000 for letter in "abc"]),
        ("/", [f"X-{letter}: " + letter * 7000 for letter in "abc"]),
    ],
    ids=["a query", "a path", "a query and headers", "headers"],
)
def test_what_nginx_takes_uwsgi_takes(applied, path, headers):
    applied.write("/root/headers", "".join(f"{header}\n" for header in headers) or "X-A: a\n")
    status = applied.run(
        *("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {NAME}"),
        *("-H", "@/root/headers", f"http://127.0.0.1:8080{path}"),
    ).stdout
    assert status == ("404" if path.startswith("/nothing/") else "200")


@ON_EACH
@pytest.mark.parametrize("line", ["", "uwsgi_param HTTP_HOST $http_host;"])
def test_the_systems_own_parameters_decide_nothing(applied, line):
    """nginx.org's file has no such line, and Debian's had none before its security update."""
    host, path = applied, "/etc/nginx/uwsgi_params"
    before = host.read(path)
    try:
        host.write(path, _SAYS.sub("", before) + line + "\n")
        host.run("nginx -t && systemctl restart nginx")
        for origin in (f"http://{NAME}:8080", f"https://{NAME}:8443"):
            assert sign(host, origin, PLACES[origin])[0] == "302", origin
    finally:
        host.write(path, before)
        host.run("systemctl restart nginx")


@ON_EACH
def test_behind_a_load_balancer_too(applied):
    pillar = copy.deepcopy(PILLAR)
    pillar["nginx_uwsgi_django"]["sites"]["mysite"]["load_balancer"] = {
        "addresses": ["127.0.0.0/8"]
    }
    run = applied.apply(pillar=pillar)
    assert run.ok, run.failed
    # It has ended TLS, and hands on the Host that the browser sent.
    for origin in (f"https://{NAME}:9443", f"https://{NAME}"):
        port = origin.rpartition(":")[2] if origin.count(":") > 1 else "443"
        plain = f"http://{NAME}:{port}"
        host = ["-H", f"Host: {origin.removeprefix('https://')}"]
        words = [*host, "-H", "X-Forwarded-Proto: https"]
        applied.run("rm -f /root/jar")
        curl = ["curl", "-sS", "-b", "/root/jar", "-c", "/root/jar", *words]
        curl += ["--connect-to", f"{NAME}:{port}:127.0.0.1:8080"]
        page = applied.run(*curl, f"{plain}/entries/").stdout
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert token, page
        status = applied.run(
            *(*curl, "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Origin: {origin}"),
            *("-F", f"csrfmiddlewaretoken={token[1]}", "-F", "message=hello", f"{plain}/entries/"),
        ).stdout
        assert status == "302", origin


@ON_EACH
def test_the_key_exchange_is_left_to_openssl(applied):
    """A list in nginx's configuration turns off the groups that it does not name."""

    def agreed(*words: str) -> str:
        command = ("openssl", "s_client", "-brief", "-connect", "127.0.0.1:443", *words)
        return applied.run("sh", "-c", 'exec "$@" 2>&1 </dev/null', "sh", *command).stdout

    assert "TLSv1.3" in agreed("-groups", "P-521")
    if applied.release != "bookworm":
        # OpenSSL 3.5 and newer prefer it, as current browsers do.
        assert "X25519MLKEM768" in agreed()
