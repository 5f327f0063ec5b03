"""What a rollout takes for healthy: TLS, what only visitors by HTTPS see, what begins after a host has passed."""

import contextlib
import copy
import json
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest
import yaml

from ..hosts.fleet import Fleet
from ..hosts.host import Host
from ..hosts.paths import FORMULA

NAME = "www.example.org"
MINIONS = {"web1": ("3008", "bookworm"), "web2": ("3008", "trixie")}

pytestmark = pytest.mark.long


def pair() -> dict[str, str]:
    """A certificate and its key, as the pillar has them."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    command += ["-days", "30", "-keyout", "/dev/stdout", "-out", "/dev/stdout"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    start = text.index("-----BEGIN CERTIFICATE-----")
    return {"certificate": text[start:], "key": text[:start]}


TLS = pair()


def pillar(**site: Any) -> dict[str, Any]:
    whole: dict[str, Any] = copy.deepcopy(yaml.safe_load((FORMULA / "pillar.example").read_text()))
    mine = whole["nginx_uwsgi_django"]
    mine["rollout"] = {"window": 2, "slower": 10000}
    health = {"path": "/", "status": [200]}
    mine["sites"]["mysite"].update(
        server_names=[NAME], tls=TLS, health=health, listen=["80 default_server"]
    )
    mine["sites"]["mysite"].update(site)
    return whole


def page(host: Host, path: str = "/") -> int:
    """The status that a visitor gets by HTTPS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://{host.address}{path}", headers={"Host": NAME})
    try:
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def web(fleet: Fleet) -> Fleet:
    for name, (salt, release) in MINIONS.items():
        fleet.add(name, salt=salt, release=release)
    fleet.set_pillar(pillar())
    return fleet


def test_hosts_with_tls_are_brought_up_changed_and_kept(web: Fleet) -> None:
    for size in ("64M", "32M"):
        web.set_pillar(pillar(client_max_body_size=size))
        code, said, lines = web.runner("rollout.apply", "web*")
        assert (code, said["status"]) == (0, "done"), (said, lines)
        assert said["hosts"] == dict.fromkeys(MINIONS, "done")
    assert [page(host) for host in web.hosts.values()] == [200, 200]
    report = web.runner("rollout.report", "web*")[1]
    assert report["summary"] == {"well": 2}, report


def test_what_only_visitors_by_https_see_is_put_back(web: Fleet) -> None:
    broken = "if ($scheme = https) { return 503; }"
    # The statuses that a site has by default, with that of the redirect among them.
    web.set_pillar(pillar(snippet=broken, health={"path": "/"}))
    code, said, lines = web.runner("rollout.apply", "web*")
    assert (code, said["status"]) == (1, "failed"), lines
    assert (said["failure"]["host"], said["failure"]["site"]) == ("web1", "mysite")
    assert "https://" in said["failure"]["reason"] and "503" in said["failure"]["reason"]
    assert said["hosts"] == {"web1": "reverted", "web2": "pending"}
    assert [page(host) for host in web.hosts.values()] == [200, 200]


def test_sites_are_put_under_maintenance_and_back(web: Fleet) -> None:
    for keys, status in (({"maintenance": {}}, 503), ({}, 200)):
        web.set_pillar(pillar(**keys))
        code, said, lines = web.runner("rollout.apply", "web*")
        assert (code, said["hosts"]) == (0, dict.fromkeys(MINIONS, "done")), (said, lines)
        assert [page(host) for host in web.hosts.values()] == [status, status]


def test_a_host_that_fails_after_it_has_passed_stops_the_rollout(web: Fleet) -> None:
    web.set_pillar(pillar(snippet="location = /later { return 500; }"))
    over = threading.Event()

    def fail() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(OSError):
                page(web.hosts["web1"], "/later")

    visitor = threading.Thread(target=fail)
    with subprocess.Popen(
        web.runner_command("rollout.apply", "web*", batch=1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None and run.stdout is not None
        lines = []
        try:
            for line in run.stderr:
                lines.append(line)
                if "web1: changed and well" in line and not visitor.ident:
                    visitor.start()
            said = json.loads(run.stdout.read())
        finally:
            over.set()
    assert (run.returncode, said["status"]) == (1, "failed"), lines
    assert said["failure"]["host"] == "web1"
    assert "well after its change, and not now" in said["failure"]["reason"]
    assert said["hosts"] == {"web1": "reverted", "web2": "pending"}
