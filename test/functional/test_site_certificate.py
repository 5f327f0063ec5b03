"""
TLS on a real host: certificates of the pillar, and of a real ACME server (Debian's pebble).
"""

import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts import pebble
from ..hosts.host import Host
from .nginx_host import Salt, a_site, leftovers, pillar, prepare, processes, rows, workers

BUNDLE = "/etc/nginx/sites-available/mysite.pem"
SITE = "/etc/nginx/sites-available/mysite.conf"
LINEAGE = "nginx_uwsgi_django-mysite"
NAME = "www.example.org"
#: The pillar's `acme`, once the server is there.
ACME: dict[str, Any] = {}
_EC = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


@pytest.fixture(scope="module")
def salt(host: Host) -> Iterator[Salt]:
    ACME.update(pebble.start(host, NAME, "more.example.org"))
    prepare(host, "certbot")
    made = Salt(host)
    yield made
    made.close()


def pair(host: Host, *names: str) -> tuple[str, str]:
    """A certificate and its key."""
    text = host.run(
        f"openssl req -x509 {_EC} -subj /CN={names[0]} -days 30 -addext subjectAltName="
        + ",".join(f"DNS:{name}" for name in names)
        + " -keyout /dev/stdout -out /dev/stdout 2>/dev/null"
    ).stdout
    start = text.index("-----BEGIN CERTIFICATE-----")
    return text[start:], text[:start]


def apply(salt: Salt, test: bool = False) -> dict[str, Any]:
    """The tree, then the process; the changes of both."""
    changes = {}
    for function in ("nginx_tree.applied", "nginx_process.current"):
        done = salt.state(function, test=test)
        assert done["result"] in ((True, None) if test else (True,)), done["comment"]
        changes.update(done["changes"])
    return changes


def served(host: Host) -> str:
    """The certificate that nginx hands out, as PEM."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return ssl.get_server_certificate((host.address, 443), timeout=10)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def curl(host: Host, url: str) -> str:
    return str(host.run("curl", "-sk", "-o", "/dev/null", "-D", "-", url).stdout)


def same(one: str, other: str) -> bool:
    return ssl.PEM_cert_to_DER_cert(one) == ssl.PEM_cert_to_DER_cert(other)


def own(text: str) -> str:
    """The first certificate of a text."""
    end = "-----END CERTIFICATE-----\n"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]


def test_a_certificate_of_the_pillar(host: Host, salt: Salt) -> None:
    certificate, key = pair(host, NAME)
    secret = key.splitlines()[1]
    salt.pillar = pillar({"mysite": a_site(NAME, tls={"certificate": certificate, "key": key})})
    before, serving = rows(host), processes(host)
    dry = salt.state("nginx_tree.applied", test=True)
    assert dry["result"] is None, dry["comment"]
    assert (rows(host), processes(host)) == (before, serving)
    changes = apply(salt)
    assert changes[BUNDLE]["old"] is None and NAME in changes[BUNDLE]["new"]
    assert secret not in repr(changes) + repr(dry)
    assert host.run("stat", "-c", "%U:%G %a", BUNDLE).stdout.strip() == "root:root 600"
    assert secret not in host.run("nginx -T 2>&1; journalctl -q --no-pager").stdout
    assert same(served(host), certificate)
    assert apply(salt) == {}
    # Others may not read it: that is put right, too.
    host.run(f"chmod 0644 {BUNDLE}")
    assert set(apply(salt)) >= {BUNDLE}
    assert host.run("stat", "-c", "%a", BUNDLE).stdout.strip() == "600"


def test_another_certificate_is_a_reload_though_the_site_file_is_the_same(
    host: Host, salt: Salt
) -> None:
    site, old = host.run("stat", "-c", "%i %Z", SITE).stdout, workers(host)
    certificate, key = pair(host, NAME, "more.example.org")
    salt.pillar = pillar({"mysite": a_site(NAME, tls={"certificate": certificate, "key": key})})
    changes = apply(salt)
    assert set(changes) == {BUNDLE, "configuration"}
    assert host.run("stat", "-c", "%i", SITE).stdout.split()[0] == site.split()[0]
    assert not workers(host) & old
    assert same(served(host), certificate)
    serving = processes(host)
    assert apply(salt) == {}
    assert processes(host) == serving


def test_files_that_somebody_else_keeps(host: Host, salt: Salt) -> None:
    def write() -> str:
        certificate, key = pair(host, NAME)
        host.write("/etc/ssl/private/own.pem", certificate)
        host.write("/etc/ssl/private/own.key", key, mode=0o600)
        return certificate

    tls = {"certificate": "/etc/ssl/private/own.pem", "key": "/etc/ssl/private/own.key"}
    salt.pillar = pillar({"mysite": a_site(NAME, tls=tls)})
    # Not there yet: refused by nginx, in the words of the pillar, and nothing has changed.
    before = rows(host)
    failed = salt.state("nginx_tree.applied")
    assert failed["result"] is False and "sites:mysite" in failed["comment"]
    assert rows(host) == before
    write()
    assert BUNDLE in apply(salt), "the pillar's text is gone with its site's need of it"
    assert not host.exists(BUNDLE)
    again = write()
    assert set(apply(salt)) == {"configuration"}
    assert same(served(host), again)
    assert apply(salt) == {}


def test_what_is_spoken(host: Host, salt: Salt) -> None:
    answer = curl(host, f"http://{NAME}/a?b=c")
    assert answer.startswith("HTTP/1.1 301") and f"https://{NAME}/a?b=c" in answer
    answer = curl(host, f"https://{NAME}/").lower()
    assert answer.startswith("http/2 502")
    assert "strict-transport-security: max-age=63072000" in answer
    for protocol, works in (("tls1_1", False), ("tls1_2", True), ("tls1_3", True)):
        done = host.run(
            f"echo | openssl s_client -connect 127.0.0.1:443 -servername {NAME} -{protocol}"
            " -cipher 'ALL:@SECLEVEL=0'",
            check=False,
        )
        assert (done.returncode == 0) is works, protocol
    weak = "AES128-SHA:ECDHE-ECDSA-AES128-SHA"
    done = host.run(
        f"echo | openssl s_client -connect 127.0.0.1:443 -tls1_2 -cipher {weak}", check=False
    )
    assert done.returncode != 0


def acme(**more: Any) -> dict[str, Any]:
    return pillar({"mysite": a_site(NAME, tls={"acme": True}, **more)}, acme=ACME)


def issued(salt: Salt, test: bool = False) -> dict[str, Any]:
    return salt.state("site_certificate.issued", name="mysite", test=test)


def test_a_certificate_in_use_stays_until_the_first_of_acme(host: Host, salt: Salt) -> None:
    before = served(host)
    salt.pillar = acme()
    apply(salt)
    assert same(served(host), before)
    assert curl(host, f"http://{NAME}/").startswith("HTTP/1.1 301")


def test_a_certificate_by_acme(host: Host, salt: Salt) -> None:
    # A site that had none.
    salt.pillar = pillar({"mysite": a_site(NAME)})
    apply(salt)
    salt.pillar = acme()
    apply(salt)
    # nginx has something to start with, and sends nobody to it.
    assert "self-signed until" in host.read(BUNDLE)
    assert "301" not in curl(host, f"http://{NAME}/")
    dry = issued(salt, test=True)
    assert dry["result"] is None and "there is no certificate yet" in dry["comment"]
    assert not host.exists(f"/etc/letsencrypt/live/{LINEAGE}")
    done = issued(salt)
    assert done["result"] is True, done["comment"]
    assert "Pebble" in done["changes"]["certificate"]["new"]
    live = host.read(f"/etc/letsencrypt/live/{LINEAGE}/fullchain.pem")
    assert same(served(host), own(live))
    assert curl(host, f"http://{NAME}/").startswith("HTTP/1.1 301")
    serving = processes(host)
    assert issued(salt)["changes"] == {}
    assert apply(salt) == {}
    assert processes(host) == serving
    report = salt.call("site_certificate.report")["mysite"]
    assert report["source"] == "acme" and report["missing_names"] == []
    assert 80 < report["days_left"] <= 90 and not report["self_signed"]


def renew(host: Host) -> None:
    """As certbot's timer does."""
    # The command of the unit, which would wait until the end of the 90 days.
    host.run("mkdir -p /etc/systemd/system/certbot.service.d")
    host.write(
        "/etc/systemd/system/certbot.service.d/now.conf",
        "[Service]\nExecStart=\n"
        "ExecStart=/usr/bin/certbot -q renew --no-random-sleep-on-renew --force-renewal\n",
    )
    host.run("systemctl daemon-reload && systemctl start certbot.service")
    host.run("rm /etc/systemd/system/certbot.service.d/now.conf && systemctl daemon-reload")


def test_certbots_timer_renews_and_nginx_serves_it_without_salt(host: Host, salt: Salt) -> None:
    before, old = served(host), workers(host)
    renew(host)
    deadline = time.monotonic() + 20
    while same(served(host), before):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not workers(host) & old
    live = host.read(f"/etc/letsencrypt/live/{LINEAGE}/fullchain.pem")
    assert same(served(host), own(live))
    assert not host.run("find /etc/nginx -name '*.durable-*'").stdout
    # What the hook wrote is what a run would have written.
    assert salt.state("nginx_tree.applied")["changes"] == {}
    assert salt.state("nginx_process.current")["result"] is True
    assert apply(salt) == {}


def test_the_hook_takes_back_what_nginx_refuses(host: Host, salt: Salt) -> None:
    before = host.read(BUNDLE)
    host.run(
        "mkdir /opt/bad && echo rubbish > /opt/bad/fullchain.pem && cp /opt/bad/* /opt/bad/privkey.pem"
    )
    hook = "/var/lib/nginx_uwsgi_django/acme/deploy mysite"
    failed = host.run(f"RENEWED_LINEAGE=/opt/bad {hook}", check=False)
    assert failed.returncode != 0
    assert host.read(BUNDLE) == before
    host.run("nginx -t")
    assert not host.run("find /etc/nginx -name '*.durable-*'").stdout


def test_a_renewal_that_nginx_refuses_is_told(host: Host, salt: Salt) -> None:
    assert salt.call("site_certificate.withheld", name="mysite") is None
    before, conf = host.read(BUNDLE), "/etc/nginx/conf.d/broken.conf"
    host.write(conf, "no_such_directive;\n")
    try:
        # As its timer does; certbot's own exit code says nothing of the hook's.
        renew(host)
        told = salt.call("site_certificate.withheld", name="mysite")
        assert told.startswith("mysite: certbot has renewed its certificate, and nginx serves the")
        assert told in salt.call("nginx_uwsgi_django.report", ask=False)["errors"]
        journal = host.run("journalctl -t nginx_uwsgi_django -p err -o cat").stdout
        assert "site mysite: nginx refuses the certificate" in journal
        assert "no_such_directive" in journal
        assert host.read(BUNDLE) == before
    finally:
        host.run("rm", conf)
    apply(salt)
    assert host.read(BUNDLE) != before
    assert salt.call("site_certificate.withheld", name="mysite") is None


def test_what_a_killed_hook_left_goes_unless_certbot_is_at_work(host: Host, salt: Salt) -> None:
    left = "/etc/nginx/sites-available/.mysite.pem.durable-new"
    lock = "/etc/letsencrypt/.certbot.lock"
    host.write(left, "half a certificate")
    hold = f"import fcntl, time; f = open('{lock}', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(60)"
    host.run("systemd-run", "--quiet", "--unit=at-work", "python3", "-c", hold)
    host.run(f"until [ -e {lock} ]; do sleep 0.1; done; sleep 0.5")
    assert issued(salt)["changes"] == {}
    assert host.exists(left)
    host.run(f"systemctl stop at-work; rm {lock}")
    assert "prepare" in issued(salt)["changes"]
    assert not host.exists(left)
    assert issued(salt)["changes"] == {}


def test_other_names_are_another_certificate(host: Host, salt: Salt) -> None:
    """Also where requests for such a name are sent to another."""
    salt.pillar = acme(redirect_from=["more.example.org"])
    apply(salt)
    done = issued(salt)
    assert done["result"] is True, done["comment"]
    assert "more.example.org" in done["changes"]["certificate"]["new"]
    for scheme in ("http", "https"):
        answer = curl(host, f"{scheme}://more.example.org/a?b=c")
        assert " 301" in answer.splitlines()[0]
        assert f"location: https://{NAME}/a?b=c\n" in answer.lower()
    assert issued(salt)["changes"] == {}


def test_what_the_authority_refuses_is_told_and_the_site_serves_on(host: Host, salt: Salt) -> None:
    serving = served(host)
    salt.pillar = acme()
    salt.pillar["nginx_uwsgi_django"]["sites"]["mysite"]["server_names"].append("no.example.org")
    apply(salt)
    done = issued(salt)
    assert done["result"] is False and "no.example.org" in done["comment"]
    assert same(served(host), serving)
    assert issued(salt)["result"] is False


def test_a_site_that_goes_is_renewed_no_more_and_its_certificate_is_data(
    host: Host, salt: Salt
) -> None:
    both = {"mysite": {"absent": True}, "other": a_site("other.example.org")}
    salt.pillar = pillar(both, acme=ACME)
    apply(salt)
    assert not host.exists(BUNDLE)
    for test, result in ((True, None), (False, True)):
        done = salt.state("site_certificate.retired", name="x", test=test)
        assert done["result"] is result and LINEAGE in done["changes"], done["comment"]
    assert salt.state("site_certificate.retired", name="x")["changes"] == {}
    assert "autorenew = False" in host.read(f"/etc/letsencrypt/renewal/{LINEAGE}.conf")
    host.run("certbot renew --no-random-sleep-on-renew")
    salt.pillar = pillar(both, acme=ACME, clean={"data": True})
    done = salt.state("site_certificate.retired", name="x")
    assert done["result"] is True, done["comment"]
    assert not host.exists(f"/etc/letsencrypt/live/{LINEAGE}")
    done = salt.state("site_certificate.retired", name="x", everything=True)
    assert done["result"] is True, done["comment"]
    assert not host.exists("/var/lib/nginx_uwsgi_django/acme")
    assert not host.exists("/etc/systemd/system/certbot.service.d/nginx_uwsgi_django.conf")
    assert salt.state("site_certificate.retired", name="x", everything=True)["changes"] == {}
    assert not leftovers(host)
