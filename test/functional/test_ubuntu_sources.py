"""
Which source nginx comes from on Ubuntu as it is: nginx/stable has no suite for any release that is
supported, other PPAs have some, nginx.org has none for a new release.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.repository import SigningKey
from ..hosts.state_run import StateRun
from ..hosts.ubuntu import PPA, Archive, UbuntuHost
from .nginx_host import pillar, rows

SOURCE, PACKAGE = (
    "nginx: package source",
    "nginx: package",
)
FILE = "/etc/apt/sources.list.d/nginx_uwsgi_django-ppa.sources"
# Nothing listens there: another answer than "no such suite".
DOWN = "http://127.0.0.9:9/ubuntu"


@pytest.fixture(scope="module")
def stable(ubuntu_host: UbuntuHost) -> Iterator[Archive]:
    """nginx/stable as it is, with suites up to focal's, signed by an RSA-1024 key."""
    origin = "LP-PPA-nginx-stable"
    archive = Archive(
        ubuntu_host.folder / "stable", "nginx/stable/ubuntu", "focal", "main", origin, "rsa1024"
    )
    archive.repository.publish(archive.key)
    yield archive
    archive.close()


def wants(archive: Archive, ppa: str = "nginx/stable", repo: str | None = None, **more: Any) -> Any:
    source = {**archive.source(), "suites": None, **more}
    nginx = {"ppa": ppa, **({"repo": repo} if repo else {})}
    return pillar(nginx=nginx, lookup={"repos": {"ppa": source, "nginx.org": source}})


def apply(host: UbuntuHost, wanted: Any, **more: Any) -> StateRun:
    return host.apply("nginx_uwsgi_django.package", pillar=wanted, **more)


def nginx(host: UbuntuHost) -> str:
    return host.run("dpkg-query", "-W", "-f", "${Version}", "nginx", check=False).stdout


@pytest.fixture
def bare(ubuntu_host: UbuntuHost) -> UbuntuHost:
    ubuntu_host.run(
        "apt-get -q -y autoremove --purge $(dpkg-query -W -f '${Package} ' nginx nginx-common"
        " 2> /dev/null); rm -rf /var/lib/nginx_uwsgi_django /etc/apt/*/nginx_uwsgi_django*"
    )
    assert nginx(ubuntu_host) == ""
    return ubuntu_host


@pytest.mark.few(2)
@pytest.mark.parametrize("repo", ["ppa", "nginx.org"])
@pytest.mark.parametrize("test", [True, False])
def test_a_source_without_the_suite_is_refused(
    bare: UbuntuHost, stable: Archive, repo: str, test: bool
) -> None:
    before = rows(bare, "/etc/apt")
    run = apply(bare, wants(stable, repo=repo), test=test)
    said = run.by_id[SOURCE]
    assert said.result is False and said.changes == {}
    name = "the PPA nginx/stable" if repo == "ppa" else "nginx.org"
    assert f"{name} ({stable.uri}) has no suite noble for Ubuntu 24.04" in said.comment
    for way in ("nginx:ppa: OWNER/NAME", "nginx:repo: distro"):
        assert way in said.comment
    assert ("nginx:repo: nginx.org" in said.comment) == (repo == "ppa")
    assert rows(bare, "/etc/apt") == before and nginx(bare) == ""


@pytest.mark.few(1)
@pytest.mark.parametrize("salt", ["3006", "3007", "3008"])
def test_without_a_word_nginx_comes_from_the_distribution(
    bare: UbuntuHost, stable: Archive, salt: str
) -> None:
    wanted = wants(stable)
    run = apply(bare, wanted, salt=salt)
    assert run.ok, run
    assert (
        f"the PPA nginx/stable ({stable.uri}) has no suite noble for Ubuntu 24.04: nginx comes from "
        "the distribution" in run.by_id[SOURCE].comment
    )
    assert nginx(bare) and not bare.exists(FILE)
    asked = len(stable.server.asked)
    again = apply(bare, wanted, salt=salt)
    assert again.ok and again.changed == [] and len(stable.server.asked) == asked


def test_without_a_word_the_ppa_that_has_the_suite(bare: UbuntuHost, stable: Archive) -> None:
    wanted = wants(bare.ppa, PPA)
    run = apply(bare, wanted)
    assert run.ok, run
    assert f"the PPA {PPA} has the suite noble" in run.by_id[SOURCE].comment
    assert nginx(bare) == bare.ppa.version
    # The choice is made: whether the archive answers is no question any more.
    asked = len(bare.ppa.server.asked)
    again = apply(bare, wanted)
    assert again.ok and again.changed == [] and len(bare.ppa.server.asked) == asked
    # Another PPA, which has nothing for this release: what serves stays.
    run = apply(bare, wants(stable))
    assert run.by_id[SOURCE].result is False and bare.ppa.uri in bare.read(FILE)
    assert nginx(bare) == bare.ppa.version


def test_an_archive_that_gives_no_answer(bare: UbuntuHost, stable: Archive) -> None:
    before = rows(bare, "/etc/apt")
    run = apply(bare, wants(stable, uris=DOWN))
    said = run.by_id[SOURCE]
    assert said.result is False and nginx(bare) == ""
    assert "whether the PPA nginx/stable has the suite noble cannot be known" in said.comment
    assert "127.0.0.9" in said.comment and "nginx:repo: distro" in said.comment
    run = apply(bare, wants(stable, repo="ppa", uris=DOWN))
    assert run.by_id[SOURCE].result is False and "gives no answer" in run.by_id[SOURCE].comment
    assert rows(bare, "/etc/apt") == before
    # A host that has nginx stays with it, whatever the archive does.
    assert apply(bare, wants(stable, repo="distro")).ok
    run = apply(bare, wants(stable, uris=DOWN))
    assert run.ok and run.changed == []
    assert "nginx is installed: it stays" in run.by_id[SOURCE].comment


def test_an_archive_that_is_signed_with_an_old_and_a_new_key(bare: UbuntuHost) -> None:
    old = SigningKey("the old one", "rsa1024")
    ppa = bare.ppa
    ppa.trust(old)
    ppa.key.sign_with(old)
    ppa.repository.publish(ppa.key)
    # The new key alone.
    run = apply(bare, wants(ppa, PPA, "ppa"))
    assert run.ok, run
    assert "RSA-1024" not in run.by_id[SOURCE].comment
    # Both are pinned, each fetched by its fingerprint: it works here, and the operator is told.
    bare.write("/root/both.asc", ppa.key.armored.rstrip() + "\n" + old.armored)
    pinned = {"fingerprints": [ppa.fingerprint, old.fingerprint], "key": "/root/both.asc"}
    run = apply(bare, wants(ppa, PPA, "ppa", **pinned))
    assert run.ok, run
    assert (
        f"RSA-1024 or DSA, which apt of Ubuntu 24.04 and newer refuses or soon will: {old.fingerprint}"
        in (run.by_id[SOURCE].comment)
    )
    assert "deb822_source.ppa OWNER/NAME" in run.by_id[SOURCE].comment
    old.close()
