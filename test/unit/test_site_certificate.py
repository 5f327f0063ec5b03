"""
What a site with TLS is made of; crossplane, which nobody here wrote, reads it.
"""

import pathlib
import subprocess
import time
from typing import Any

import pytest

from _nud import certbot, pem_text

from ..hosts.paths import FORMULA
from ..modules import Modules
from .test_nginx_tree import a_site, parsed, with_files, with_nginx
from .test_nginx_values import words

NAME = "www.example.org"


def pair(name: str = NAME, days: int = 30) -> tuple[str, str]:
    """A certificate and its key, as openssl makes them."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command += ["-days", f"{days}", "-keyout", "/dev/stdout", "-out", "/dev/stdout"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    start = text.index("-----BEGIN CERTIFICATE-----")
    return text[start:], text[:start]


PAIR = pair()
PROOF = ["X-Nginx-Uwsgi-Django", "$nginx_uwsgi_django_proof", "always"]
PLAIN_HEADERS = [["X-Content-Type-Options", "nosniff", "always"], PROOF]


def loaded(tmp_path: pathlib.Path, version: str = "1.26.3", **site: Any) -> Modules:
    (tmp_path / "nginx/sites-available").mkdir(parents=True, exist_ok=True)
    pillar = {
        "lookup": {"nginx_dir": f"{tmp_path}/nginx", "state_dir": f"{tmp_path}/state"},
        "acme": {"terms_agreed": True},
        "sites": {"mysite": a_site(**{"server_names": [NAME], **site})},
    }
    m = with_files(Modules(pillar={"nginx_uwsgi_django": pillar}), FORMULA)
    with_nginx(m, version)
    assert m.site_pillar.check() == []
    return m


def servers(m: Modules, tmp_path: pathlib.Path) -> list[list[dict[str, Any]]]:
    path = tmp_path / "site.conf"
    # crossplane 0.5.8 does not know this directive of nginx 1.25.1; its place is http and server.
    text = m.nginx_site.render("mysite").replace("    http2 on;\n", "    set $http2 on;\n")
    path.write_text(text, encoding="utf-8")
    return [one["block"] for one in parsed(path) if "comment" not in one]


@pytest.mark.parametrize(
    ("version", "listen", "http2"),
    [
        ("1.18.0", [["443", "ssl", "http2"]], []),
        ("1.25.0", [["443", "ssl", "http2"]], []),
        ("1.25.1", [["443", "ssl"]], [["$http2", "on"]]),
        ("1.31.0", [["443", "ssl"]], [["$http2", "on"]]),
    ],
)
def test_http2_in_the_words_of_the_version(
    tmp_path: pathlib.Path, version: str, listen: list[Any], http2: list[Any]
) -> None:
    m = loaded(tmp_path, version, tls={"certificate": "/x", "key": "/y"})
    _, encrypted = servers(m, tmp_path)
    assert words(encrypted, "listen") == listen
    assert words(encrypted, "set") == http2


def test_plain_http_is_redirected_to_the_port_that_speaks_tls(tmp_path: pathlib.Path) -> None:
    tls = {"certificate": "/x", "key": "/y", "listen": ["[::1]:8443"], "hsts": 0}
    plain, encrypted = servers(loaded(tmp_path, tls=tls), tmp_path)
    assert words(plain, "return") == [["301", "https://$host:8443$request_uri"]]
    assert words(plain, "uwsgi_pass") == words(plain, "ssl_certificate") == []
    assert words(encrypted, "listen") == [["[::1]:8443", "ssl"]]
    assert words(encrypted, "ssl_certificate") == [["/x"]]
    assert words(encrypted, "ssl_certificate_key") == [["/y"]]
    assert words(encrypted, "add_header") == PLAIN_HEADERS


def test_without_redirect_one_server_speaks_both_and_promises_nothing(
    tmp_path: pathlib.Path,
) -> None:
    tls = {"certificate": "/x", "key": "/y", "redirect": False}
    (both,) = servers(loaded(tmp_path, tls=tls), tmp_path)
    assert words(both, "listen") == [["80"], ["443", "ssl"]]
    # RFC 6797, 7.2: not over plain HTTP, which this server speaks too.
    assert words(both, "add_header") == PLAIN_HEADERS


def test_the_pillars_key_reaches_its_file_and_nothing_else(tmp_path: pathlib.Path) -> None:
    m = loaded(tmp_path, tls={"certificate": PAIR[0], "key": PAIR[1].replace("\n", "\r\n")})
    contents = m.site_certificate.bundle("mysite", None).decode()
    assert contents.endswith(PAIR[0].strip() + "\n" + PAIR[1].strip() + "\n")
    secret = PAIR[1].splitlines()[1]
    assert secret in contents
    assert secret not in m.nginx_site.render("mysite") + pem_text.describe(contents.encode())
    assert m.site_certificate.bundle("mysite", contents.encode()) == contents.encode()


def test_a_placeholder_stays_until_there_is_something_better(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = loaded(tmp_path, tls={"acme": True})
    module = m.site_certificate
    monkeypatch.setattr(certbot, "LETSENCRYPT", f"{tmp_path}/letsencrypt")
    first = module.bundle("mysite", None)
    assert not module.trusted(first)
    assert module.bundle("mysite", first) == first
    # Not for what somebody else put there.
    assert module.bundle("mysite", PAIR[0].encode()) not in (first, PAIR[0].encode())
    live = tmp_path / "letsencrypt/live/nginx_uwsgi_django-mysite"
    live.mkdir(parents=True)
    (live / "fullchain.pem").write_text(PAIR[0])
    # certbot replaces its files one by one: between them a key is another certificate's.
    (live / "privkey.pem").write_text(pair()[1])
    assert module.bundle("mysite", first) == first
    (live / "privkey.pem").write_text(PAIR[1])
    issued = module.bundle("mysite", first)
    assert module.trusted(issued) and issued.endswith((PAIR[0] + PAIR[1]).encode())
    # An authority's certificate that certbot has lost is still served.
    (live / "fullchain.pem").unlink()
    assert module.bundle("mysite", issued) == issued


def test_an_encrypted_key_is_told_from_a_wrong_one(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.pem").write_text(PAIR[0])
    key = subprocess.run(
        ["openssl", "pkey", "-aes256", "-passout", "pass:x"],
        input=PAIR[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "a.key").write_text(key)
    told = pem_text.mismatch(f"{tmp_path}/a.pem", f"{tmp_path}/a.key")
    assert "encrypted" in told


@pytest.mark.parametrize(
    ("word", "names", "covered"),
    [
        ("www.a.org", ["www.a.org"], True),
        ("WWW.a.org", ["www.a.org"], True),
        ("www.a.org", ["*.a.org"], True),
        ("a.b.a.org", ["*.a.org"], False),
        ("a.org", ["*.a.org"], False),
        ("*.a.org", ["*.a.org"], True),
        ("*.a.org", ["a.org"], False),
        (".a.org", ["a.org"], False),
        (".a.org", ["a.org", "*.a.org"], True),
        ("_", ["a.org"], True),
    ],
)
def test_which_names_a_certificate_is_for(word: str, names: list[str], covered: bool) -> None:
    assert Modules().site_certificate._covered(word, names) is covered


def test_the_report_has_the_days_left(tmp_path: pathlib.Path) -> None:
    for name, text in zip(("a.pem", "a.key"), PAIR, strict=True):
        (tmp_path / name).write_text(text)
    tls = {"certificate": f"{tmp_path}/a.pem", "key": f"{tmp_path}/a.key"}
    m = loaded(tmp_path, tls=tls, server_names=[NAME, "other.example.org"])
    report = m.site_certificate.report()["mysite"]
    assert report["days_left"] == 29 and report["self_signed"] is True
    assert report["missing_names"] == ["other.example.org"]
    (tmp_path / "a.pem").unlink()
    assert "no such file" in m.site_certificate.report()["mysite"]["error"]


@pytest.mark.parametrize(
    ("site", "top", "wanted"),
    [
        (a_site(server_names=[NAME], tls={"acme": True}), {}, {}),
        (a_site(), {}, {"nginx_uwsgi_django-mysite": "pause"}),
        ({"absent": True}, {}, {"nginx_uwsgi_django-mysite": "pause"}),
        ({"absent": True}, {"clean": {"data": True}}, {"nginx_uwsgi_django-mysite": "delete"}),
        # Served still, or data of a site that nobody names.
        (None, {"clean": {"data": True}}, {}),
        (None, {"purge": True, "clean": {"data": True}}, {"nginx_uwsgi_django-mysite": "pause"}),
    ],
)
def test_what_becomes_of_a_certificate_that_nobody_asks_for(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    site: dict[str, Any] | None,
    top: dict[str, Any],
    wanted: dict[str, str],
) -> None:
    sites = {"other": a_site(server_names=["other.example.org"])}
    if site is not None:
        sites["mysite"] = site
    pillar = {"sites": sites, "acme": {"terms_agreed": True}, **top}
    m = Modules(pillar={"nginx_uwsgi_django": pillar})
    monkeypatch.setattr(certbot, "LETSENCRYPT", f"{tmp_path}")
    (tmp_path / "renewal").mkdir()
    conf = tmp_path / "renewal/nginx_uwsgi_django-mysite.conf"
    conf.write_text("version = 2.1.0\n\n[renewalparams]\nserver = https://a/\n")
    (tmp_path / "renewal/theirs.conf").write_text("[renewalparams]\n")
    assert m.site_certificate.leftovers() == wanted
    if "pause" in wanted.values():
        m.site_certificate.retire("nginx_uwsgi_django-mysite", "pause")
        assert conf.read_text().endswith(
            "[renewalparams]\nautorenew = False\nserver = https://a/\n"
        )
        assert m.site_certificate.leftovers() == {}
        m.site_certificate.retire("nginx_uwsgi_django-mysite", "resume")
        assert conf.read_text().endswith("[renewalparams]\nserver = https://a/\n")


def test_a_promise_is_made_once_and_the_pillars_own_words_go_first(tmp_path: pathlib.Path) -> None:
    tls = {"certificate": "/x", "key": "/y"}
    _, encrypted = servers(loaded(tmp_path, tls=tls), tmp_path)
    promise = ["Strict-Transport-Security", "max-age=63072000", "always"]
    assert words(encrypted, "add_header") == [PLAIN_HEADERS[0], promise, PROOF]
    own = {"strict-transport-security": "max-age=5"}
    _, encrypted = servers(loaded(tmp_path, tls=tls, headers=own), tmp_path)
    assert words(encrypted, "add_header") == [
        ["strict-transport-security", "max-age=5", "always"],
        PROOF,
    ]


def test_behind_a_load_balancer_that_ended_tls_nothing_is_redirected_for_ever(
    tmp_path: pathlib.Path,
) -> None:
    tls = {"certificate": "/x", "key": "/y"}
    m = loaded(tmp_path, tls=tls, load_balancer={"addresses": ["10.0.0.0/8"]})
    text = m.nginx_site.render("mysite")
    assert text.count("server {") == 1
    assert "listen 80;" in text and "listen 443 ssl;" in text
    assert 'map "$site_mysite_scheme:$uri" $site_mysite_redirected {' in text
    assert "if ($site_mysite_redirected) {\n        return 301 https://$host$request_uri;" in text


def catch_all(tmp_path: pathlib.Path, version: str, **site: Any) -> str:
    """The servers of unknown names, of two sites with TLS."""
    m = loaded(tmp_path, version, tls={"certificate": "/x", "key": "/y"}, **site)
    sites = m.opts["pillar"]["nginx_uwsgi_django"]["sites"]
    sites["other"] = a_site(server_names=["o.org"], tls={"certificate": "/x2", "key": "/y2"})
    m.context.clear()
    return str(m.nginx_site.http([]))


def test_an_unknown_name_is_refused_by_the_handshake_where_nginx_can(
    tmp_path: pathlib.Path,
) -> None:
    text = catch_all(tmp_path, "1.22.1")
    assert "listen 80 default_server;" in text
    assert "listen 443 ssl http2 default_server;" in text
    assert "ssl_reject_handshake on;" in text and "ssl_certificate" not in text
    # nginx takes these from the default server.
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in text
    text = catch_all(tmp_path, "1.26.3")
    assert "listen 443 ssl default_server;" in text and "http2 on;" in text
    text = catch_all(tmp_path, "1.18.0")
    assert "ssl_reject_handshake" not in text and "ssl_certificate /x;" in text
    assert text.count("return 444;") == 2
    # A load balancer may name nobody in the handshake.
    text = catch_all(tmp_path, "1.26.3", load_balancer={"addresses": ["10.0.0.0/8"]})
    assert "ssl_reject_handshake" not in text and "ssl_certificate_key /y;" in text


@pytest.mark.parametrize("days", [30, 1, 30000])
def test_when_a_certificate_ends_is_read_as_openssl_reads_it(
    tmp_path: pathlib.Path, days: int
) -> None:
    path = tmp_path / "a.pem"
    path.write_text("a preface\n" + "".join(pair(days=days)))
    m = loaded(tmp_path, tls={"certificate": f"{path}", "key": f"{path}"})
    command = ["openssl", "x509", "-in", f"{path}", "-noout", "-enddate", "-dateopt", "iso_8601"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert m.site_certificate.ends() == {
        "mysite": {
            "not_after": told.strip().removeprefix("notAfter=").replace(" ", "T"),
            "days_left": days - 1,
            "placeholder": False,
        }
    }
    report = m.site_certificate.report()["mysite"]
    assert report["not_after"] == m.site_certificate.ends()["mysite"]["not_after"]


@pytest.mark.parametrize(
    "text", ["", "none", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"]
)
def test_what_is_no_certificate_is_a_sentence(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "a.pem"
    m = loaded(tmp_path, tls={"certificate": f"{path}", "key": f"{path}"})
    path.write_text(text)
    assert "certificate" in m.site_certificate.ends()["mysite"]["error"]
    path.unlink()
    assert m.site_certificate.ends()["mysite"]["error"] == f"there is no certificate in {path}"


@pytest.mark.parametrize(
    ("name", "age", "words", "refused"),
    [
        (NAME, 0, [], False),
        ("*.example.org", 0, [], False),
        (NAME, 31, ["mysite: its certificate ended at "], True),
        (
            "other.example.net",
            0,
            [f"mysite: its certificate is for other.example.net, and not for {NAME}"],
            True,
        ),
        ("other.example.net", 31, ["its certificate ended at", f"and not for {NAME}"], True),
    ],
)
def test_a_certificate_that_browsers_refuse_is_told_and_promises_nothing(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    age: int,
    words: list[str],
    refused: bool,
) -> None:
    path = tmp_path / "a.pem"
    path.write_text("".join(pair(name, days=30)))
    m = loaded(tmp_path, tls={"certificate": f"{path}", "key": f"{path}"})
    now = time.time() + age * 86400
    monkeypatch.setattr(m.site_certificate.time, "time", lambda: now)
    flaws = m.site_certificate.flaws("mysite")
    assert len(flaws) == len(words)
    assert all(word in flaw for word, flaw in zip(words, flaws, strict=True)), flaws
    assert m.site_certificate.refused("mysite") is refused
    text = m.nginx_site.render("mysite")
    assert ("Strict-Transport-Security" not in text) is refused
    # Plain HTTP is redirected as before.
    assert "return 301 https://" in text


def test_a_name_that_lacks_is_told_and_the_others_keep_their_promise(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "a.pem"
    path.write_text("".join(pair()))
    tls = {"certificate": f"{path}", "key": f"{path}"}
    m = loaded(tmp_path, tls=tls, redirect_from=["example.org"])
    assert m.site_certificate.flaws("mysite") == [
        f"mysite: its certificate is for {NAME}, and not for example.org"
    ]
    assert "Strict-Transport-Security" in m.nginx_site.render("mysite")
