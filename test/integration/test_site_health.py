"""Whether a site is healthy as its visitors see it, on a real host: every form of listen, TLS, a load balancer."""

import http.client
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ..functional.nginx_host import Salt
from ..hosts.host import Host

NAME = "probe.test"
CERTIFICATE, KEY = "/etc/ssl/probe.pem", "/etc/ssl/private/probe.key"
TLS = {"certificate": CERTIFICATE, "key": KEY}
BROKEN = "location = / { return 503; }"
HASH = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
FILES = {
    "manage.py": """
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "probe.settings")
execute_from_command_line(sys.argv)
""",
    "requirements.txt": "django~=5.2.0\n",
    "probe/__init__.py": "",
    "probe/settings.py": """
import os
SECRET_KEY = "x"
ALLOWED_HOSTS = ["probe.test", "www.probe.test"]
ROOT_URLCONF = "probe.urls"
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = os.environ.get("SSL_REDIRECT") == "yes"
""",
    "probe/urls.py": """
import os, time
from django.http import HttpResponse
from django.urls import path

def home(request):
    time.sleep(float(request.GET.get("sleep", 0)))
    return HttpResponse(os.environ.get("VERSION", "one"))

urlpatterns = [path("", home)]
""",
    "probe/wsgi.py": """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "probe.settings")
application = get_wsgi_application()
""",
}


def pillar(env: dict[str, str] | None = None, **site: Any) -> dict[str, Any]:
    probe = {
        "server_names": [NAME],
        "project": {
            "source": {"salt": "salt://probe"},
            "wsgi": "probe.wsgi:application",
            "settings": "probe.settings",
            "migrate": False,
            "env": env or {},
        },
        "uwsgi": {"processes": 1},
        "health": {"status": [200], "timeout": 5},
        **site,
    }
    return {"nginx_uwsgi_django": {"nginx": {"repo": "distro"}, "sites": {"probe": probe}}}


def pair(host: Host, name: str) -> None:
    """A certificate and its key."""
    host.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 "
        f"-subj /CN={name} -addext subjectAltName=DNS:{name} -keyout {KEY} -out {CERTIFICATE}"
    )


@pytest.fixture(scope="module")
def web(host: Host) -> Iterator[tuple[Host, Salt]]:
    """A host that serves the probe."""
    for path, text in FILES.items():
        host.run("mkdir", "-p", f"/srv/salt/probe/{path}".rpartition("/")[0])
        host.write(f"/srv/salt/probe/{path}", text)
    run = host.apply(pillar=pillar())
    assert run.ok, run.failed
    host.install("openssl", "curl")
    pair(host, NAME)
    salt = Salt(host)
    yield host, salt
    salt.close()


def serve(host: Host, salt: Salt, whole: dict[str, Any]) -> dict[str, Any]:
    """Bring nginx to a pillar, whatever it listens on before; what the site's health is then."""
    # An address of a port cannot be opened beside all addresses of it.
    host.run("systemctl", "stop", "nginx")
    salt.pillar = whole
    for function in ("nginx_tree.applied", "nginx_process.current"):
        done = salt.state(function)
        assert done["result"] is True, done["comment"]
    health: dict[str, Any] = salt.call("site_health.ask")["probe"]
    return health


FORMS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "port": ({"listen": [80]}, ["http://127.0.0.1/"]),
    "text": ({"listen": ["80"]}, ["http://127.0.0.1/"]),
    "default": ({"listen": ["80 default_server"]}, ["http://127.0.0.1/"]),
    "other": ({"listen": ["8080 default_server"]}, ["http://127.0.0.1:8080/"]),
    "any": ({"listen": ["*:80"]}, ["http://127.0.0.1/"]),
    "zero": ({"listen": ["0.0.0.0:8080"]}, ["http://127.0.0.1:8080/"]),
    "six": ({"listen": ["[::]:80"]}, ["http://[::1]/"]),
    "six default": ({"listen": ["[::]:8080 default_server"]}, ["http://[::1]:8080/"]),
    "one": ({"listen": ["127.0.0.1:8080"]}, ["http://127.0.0.1:8080/"]),
    "one six": ({"listen": ["[::1]:8080"]}, ["http://[::1]:8080/"]),
    "both": ({"listen": [80, "[::]:80"]}, ["http://127.0.0.1/", "http://[::1]/"]),
    "tls": ({"tls": TLS}, ["https://127.0.0.1/"]),
    "tls both": (
        {"tls": {**TLS, "listen": [443, "[::]:443 default_server"]}},
        ["https://127.0.0.1/", "https://[::1]/"],
    ),
    "tls other": (
        {"listen": [8080], "tls": {**TLS, "listen": ["8443 default_server"]}},
        ["https://127.0.0.1:8443/"],
    ),
    "tls six": ({"tls": {**TLS, "listen": ["[::1]:8443"]}}, ["https://[::1]:8443/"]),
    "tls and plain": (
        {"tls": {**TLS, "redirect": False}},
        ["https://127.0.0.1/", "http://127.0.0.1/"],
    ),
    "balanced": ({"load_balancer": {"addresses": ["192.0.2.7"]}}, ["http://127.0.0.1/"]),
    "balanced tls": (
        {"tls": TLS, "load_balancer": {"addresses": ["192.0.2.7"]}},
        ["https://127.0.0.1/", "http://127.0.0.1/"],
    ),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("form", FORMS)
def test_a_site_is_asked_where_its_visitors_come(web: tuple[Host, Salt], form: str) -> None:
    host, salt = web
    keys, urls = FORMS[form]
    health = serve(host, salt, pillar(**keys))
    assert [one["url"] for one in health["visits"]] == urls
    assert (health["healthy"], health["why"], health["uwsgi"]) == (True, None, 200), health
    broken = serve(host, salt, pillar(**keys, snippet=BROKEN))
    assert broken["healthy"] is False and broken["uwsgi"] == 200
    assert broken["why"] == f"nginx: {urls[0]} for {NAME} is answered with 503, not one of 200"


def test_what_visitors_by_https_get_is_not_hidden_by_the_redirect(web: tuple[Host, Salt]) -> None:
    host, salt = web
    keys = {"tls": TLS, "health": {"timeout": 5}}
    assert serve(host, salt, pillar(**keys))["healthy"] is True
    snippet = "if ($scheme = https) { return 503; }"
    health = serve(host, salt, pillar(**keys, snippet=snippet))
    assert health["healthy"] is False and health["url"] == "https://127.0.0.1/"
    report = salt.call("nginx_uwsgi_django.report")
    assert report["verdict"] == "error" and "answered with 503" in report["errors"][0]
    status = salt.call("nginx_uwsgi_django.status")["sites"]["probe"]
    assert (status["healthy"], status["status"]) == (False, 503)
    assert "answered with 503" in salt.call("rollout_host.look")["sites"]["probe"]["why"]


STOLEN = """
import os, socketserver
class One(socketserver.StreamRequestHandler):
    def handle(self):
        self.request.recv(65536)
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\none")
path = "/run/uwsgi/probe.sock"
os.rename(path, path + ".held")
server = socketserver.ThreadingUnixStreamServer(path, One)
os.chmod(path, 0o666)
server.serve_forever()
"""


def test_a_good_answer_of_another_process_or_server_is_red(web: tuple[Host, Salt]) -> None:
    host, salt = web
    assert serve(host, salt, pillar())["healthy"] is True
    page = host.run("curl", "-si", "-H", f"Host: {NAME}", "http://127.0.0.1/").stdout.lower()
    assert "generation" not in page and "x-nginx-uwsgi-django" not in page
    asked = ("curl", "-si", "-H", f"Host: {NAME}", "-H", "X-Nginx-Uwsgi-Django: proof")
    page = host.run(*asked, "http://127.0.0.1/").stdout.lower()
    digest = salt.call("nginx_uwsgi_django.status")["sites"]["probe"]["generation"]
    assert f"x-nginx-uwsgi-django: {NAME}; generation={digest}; upstream=200" in page
    # Others than the host itself are not told.
    there = http.client.HTTPConnection(host.address, timeout=30)
    there.request("GET", "/", headers={"Host": NAME, "X-Nginx-Uwsgi-Django": "proof"})
    answer = there.getresponse()
    assert (answer.status, answer.getheader("X-Nginx-Uwsgi-Django")) == (200, None)
    there.close()
    # Another program on the path of the site's socket: nginx and the socket both answer 200.
    host.write("/root/stolen.py", STOLEN)
    host.run("systemd-run --unit=stolen python3 /root/stolen.py; sleep 1")
    try:
        health = salt.call("site_health.ask")["probe"]
        assert (health["uwsgi"], health["status"], health["healthy"]) == (200, 200, False), health
        assert "a process on the site's socket that is no uWSGI generation" in health["why"]
    finally:
        host.run("systemctl stop stolen; mv /run/uwsgi/probe.sock.held /run/uwsgi/probe.sock")
    assert salt.call("site_health.ask")["probe"]["healthy"] is True
    # Another server, where no directive of nginx says so: the packets go elsewhere.
    other = "server { listen 8081; return 200; }\n"
    host.write("/etc/nginx/conf.d/other.conf", other)
    host.install("nftables")
    host.run(
        "nginx -s reload; nft add table ip nat; "
        "nft 'add chain ip nat output { type nat hook output priority -100; }'; "
        "nft add rule ip nat output tcp dport 80 redirect to :8081; sleep 1"
    )
    try:
        health = salt.call("site_health.ask")["probe"]
        assert "is answered by another server than the one that nginx has" in health["why"], health
        assert salt.call("nginx_uwsgi_django.report")["verdict"] == "error"
    finally:
        host.run("nft delete table ip nat; rm /etc/nginx/conf.d/other.conf; nginx -s reload")
    assert salt.call("site_health.ask")["probe"]["healthy"] is True


def test_a_certificate_of_another_name_is_told_and_the_site_is_healthy(
    web: tuple[Host, Salt],
) -> None:
    host, salt = web
    pair(host, "other.test")
    curl = ("curl", "-sk", "-D", "-", "-H", f"Host: {NAME}", "https://127.0.0.1/")
    try:
        assert serve(host, salt, pillar(tls=TLS))["healthy"] is True
        words = f"probe: its certificate is for other.test, and not for {NAME}"
        for dry in (False, True):
            assert words in salt.state("nginx_tree.applied", test=dry)["warnings"]
        report = salt.call("nginx_uwsgi_django.report")
        assert words in report["warnings"] and report["errors"] == []
        page = host.run(*curl).stdout.lower()
        assert "200" in page and "strict-transport-security" not in page
    finally:
        pair(host, NAME)
    assert serve(host, salt, pillar(tls=TLS))["healthy"] is True
    assert salt.state("nginx_tree.applied")["warnings"] == []
    page = host.run(*curl).stdout.lower()
    assert "strict-transport-security: max-age=63072000" in page


def test_the_right_site_is_asked_among_several_at_one_address(web: tuple[Host, Salt]) -> None:
    host, salt = web
    # Whoever sends no name gets the default server, and another certificate.
    stranger = (
        f"server {{ listen 443 ssl default_server; ssl_certificate {CERTIFICATE}; "
        f"ssl_certificate_key {KEY}; return 500; }}\n"
    )
    host.write("/etc/nginx/conf.d/stranger.conf", stranger)
    try:
        assert serve(host, salt, pillar(tls=TLS))["healthy"] is True
    finally:
        host.run("rm", "/etc/nginx/conf.d/stranger.conf")


def test_a_503_or_a_401_that_the_pillar_wants_is_healthy(web: tuple[Host, Salt]) -> None:
    host, salt = web
    for keys, status in (
        ({"maintenance": {"retry_after": 77}}, 503),
        ({"basic_auth": {"realm": "Staging", "users": {"ann": HASH}}}, 401),
        ({"maintenance": {}, "tls": TLS}, 503),
    ):
        health = serve(host, salt, pillar(**keys))
        assert (health["healthy"], health["status"]) == (True, status), health
        assert "as the pillar says" in health["answer"]
        report = salt.call("nginx_uwsgi_django.report")
        assert report["errors"] == [] and report["sites"]["probe"]["healthy"] is True
        assert salt.call("rollout_host.look")["sites"]["probe"]["why"] is None
    # Those who are let in get what is broken.
    let_in = {"maintenance": {"except": ["127.0.0.1"]}}
    assert serve(host, salt, pillar(**let_in))["status"] == 200
    health = serve(host, salt, pillar(**let_in, snippet=BROKEN.replace("503", "500")))
    assert (health["healthy"], health["status"]) == (False, 500)


def test_a_site_under_maintenance_is_deployed(web: tuple[Host, Salt]) -> None:
    host, salt = web
    whole = pillar(env={"VERSION": "two"}, maintenance={})
    run = host.apply(pillar=whole)
    assert run.ok, run.failed
    assert "probe: uWSGI generation" in [result.id for result in run.changed]
    assert host.get("/", NAME)[0] == 503
    report = host.salt_call("nginx_uwsgi_django.report")
    assert (report["verdict"], report["errors"]) == ("well", [])
    run = host.apply(pillar=pillar(env={"VERSION": "two"}))
    assert run.ok and host.get("/", NAME)[2] == b"two", run.failed
    salt.call("saltutil.refresh_pillar")


def test_a_site_that_sends_everybody_to_https_needs_one_that_speaks_it(
    web: tuple[Host, Salt],
) -> None:
    host, salt = web
    redirecting = {"env": {"SSL_REDIRECT": "yes"}, "health": {"timeout": 5}}
    before = host.get("/", NAME)
    run = host.apply(pillar=pillar(**redirecting))
    assert not run.ok
    words = " ".join(result.comment for result in run.failed)
    assert f"is redirected to https://{NAME}/, and neither nginx (tls) nor a load balancer" in words
    assert host.get("/", NAME)[::2] == before[::2]
    for keys in (
        {"load_balancer": {"addresses": ["192.0.2.7"]}},
        {"load_balancer": {"addresses": ["127.0.0.0/8"]}},
        {"tls": {**TLS, "redirect": False}},
    ):
        run = host.apply(pillar=pillar(**redirecting, **keys))
        assert run.ok, run.failed
        health = host.salt_call("site_health.ask")["probe"]
        assert health["healthy"] is True, health
    # nginx has lost TLS, and nobody has told the application: visitors are sent to a closed port.
    health = serve(host, salt, pillar(**redirecting))
    assert health["healthy"] is False and "neither nginx (tls)" in health["why"]
    run = host.apply(pillar=pillar())
    assert run.ok, run.failed


def test_another_health_question_is_asked_in_the_same_run(web: tuple[Host, Salt]) -> None:
    host, _ = web
    assert host.apply(pillar=pillar()).ok
    wrong = pillar(health={"path": "/nope/", "status": [200]})
    for dry in (True, False, False):
        run = host.apply(pillar=wrong, test=dry)
        told = {result.id: result.comment for result in run.failed}
        words = told["probe: uWSGI generation"]
        assert "GET /nope/ for probe.test is answered with 404, not one of 200" in words
        assert run.changed == []
    assert host.get("/", NAME)[0] == 200
    run = host.apply(pillar=pillar(health={"path": "/?a=b", "status": [200]}))
    assert run.ok and run.changed == [], (run.failed, run.changed)


def test_those_who_wait_for_a_worker_are_counted(web: tuple[Host, Salt]) -> None:
    host, salt = web
    assert serve(host, salt, pillar())["healthy"] is True
    clients = [
        threading.Thread(target=host.get, args=("/?sleep=4", NAME), kwargs={"timeout": 120})
        for _ in range(5)
    ]
    for client in clients:
        client.start()
    try:
        # One is at the worker, the others wait, until all have been served.
        assert _eventually_waiting(host) >= 1
        assert salt.call("uwsgi_status.show", name="probe")["listen_queue"] >= 1
    finally:
        for client in clients:
            client.join()
    assert salt.call("uwsgi_status.show", name="probe")["listen_queue"] == 0


def _eventually_waiting(host: Host) -> int:
    for _ in range(50):
        # Netid, state, what waits, the queue's length, path.
        waiting = host.run("ss -Hlx | grep -F /run/uwsgi/probe.sock").stdout.split()[2]
        if int(waiting):
            return int(waiting)
    return 0


def test_a_dry_run_on_a_bare_host_names_the_process_that_holds_the_port(trixie_host: Host) -> None:
    bare = trixie_host
    bare.run("systemd-run --unit=squatter python3 -m http.server 80 && sleep 1")
    pid = bare.run("systemctl show --value -p MainPID squatter").stdout.strip()
    for path, text in FILES.items():
        bare.run("mkdir", "-p", f"/srv/salt/probe/{path}".rpartition("/")[0])
        bare.write(f"/srv/salt/probe/{path}", text)
    dry = bare.apply(pillar=pillar(listen=["80 default_server"]), test=True)
    told = {result.id: result.comment for result in dry.failed}
    words = told["nginx: configuration tree"]
    assert f"listen 80: process {pid} (python3) holds that port" in words
    assert "sites:probe" in words
    bare.run("systemctl", "stop", "squatter")
    dry = bare.apply(pillar=pillar(listen=["80 default_server"]), test=True)
    assert dry.ok, dry.failed
