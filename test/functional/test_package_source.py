"""
nginx's package source on a host that takes itself for Ubuntu, with a really signed archive.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.repository import SigningKey
from ..hosts.ubuntu import PPA, UbuntuHost
from .nginx_host import Clients, Salt, pillar, processes, rows

SOURCES = "/etc/apt/sources.list.d/nginx_uwsgi_django-ppa.sources"
KEYRING = "/etc/apt/keyrings/nginx_uwsgi_django-ppa.gpg"
PREFERENCES = "/etc/apt/preferences.d/nginx_uwsgi_django.pref"
ROOTS = ("/etc/apt", "/var/lib/apt/lists", "/var/cache/apt")


def with_source(host: UbuntuHost, repo: str = "ppa", **changed: Any) -> dict[str, Any]:
    source = {**host.ppa.source(), **changed}
    repos = {"ppa": source, "nginx.org": {**source, "components": ["main"]}}
    return pillar(nginx={"repo": repo, "ppa": PPA}, lookup={"repos": repos})


@pytest.fixture(scope="module")
def salt(ubuntu_host: UbuntuHost) -> Iterator[Salt]:
    ubuntu_host.salt_call("saltutil.sync_all", pillar=with_source(ubuntu_host))
    made = Salt(ubuntu_host)
    yield made
    made.close()


def present(salt: Salt, wanted: dict[str, Any], test: bool = False) -> dict[str, Any]:
    salt.pillar = wanted
    return salt.state("deb822_source.present", test=test)


def snapshot(host: UbuntuHost) -> dict[str, list[Any]]:
    # apt touches its locks; the directories' times go with them.
    return {
        path: row[:5] + row[7:] for path, row in rows(host, *ROOTS).items() if row[7] is not None
    }


def test_refused_sources_change_nothing(ubuntu_host: UbuntuHost, salt: Salt) -> None:
    host, stranger = ubuntu_host, SigningKey("a stranger")
    host.write("/root/stranger.asc", stranger.armored)
    both = stranger.armored.rstrip() + "\n" + host.ppa.key.armored
    host.write("/root/both.asc", both)
    host.write("/root/page.asc", "<!DOCTYPE html>\n")
    cases = {
        "another key": ({"key": "/root/stranger.asc"}, f"not pinned: {stranger.fingerprint}"),
        "one key more": ({"key": "/root/both.asc"}, f"not pinned: {stranger.fingerprint}"),
        "a web page": ({"key": "/root/page.asc"}, "not OpenPGP"),
        "no key": ({"key": "/root/none.asc"}, "No such file"),
        "no answer": ({"key": "http://127.0.0.1:9/key"}, "refused"),
        "no such suite": ({"suites": "warty"}, "has no suite warty for Ubuntu 24.04"),
        "no such component": ({"components": ["multiverse"]}, "multiverse"),
        "signed by another": (
            {"key": "/root/stranger.asc", "fingerprints": [stranger.fingerprint]},
            "NO_PUBKEY",
        ),
        "no archive": ({"uris": "http://127.0.0.1:9/ubuntu"}, "127.0.0.1"),
    }
    before = snapshot(host)
    try:
        for name, (changed, words) in cases.items():
            for test in (True, False) if name == "signed by another" else (False,):
                done = present(salt, with_source(host, **changed), test=test)
                assert done["result"] is False, name
                assert words in done["comment"], (name, done["comment"])
                assert done["changes"] == {}
            assert snapshot(host) == before, name
        assert host.run("ls /tmp").stdout.count("nginx_uwsgi_django") == 0
    finally:
        stranger.close()


def test_the_source_and_nginx_from_it(ubuntu_host: UbuntuHost, salt: Salt) -> None:
    host = ubuntu_host
    before = snapshot(host)
    dry = present(salt, with_source(host), test=True)
    assert dry["result"] is None, dry["comment"]
    assert set(dry["changes"]) == {SOURCES, KEYRING, PREFERENCES}
    assert host.ppa.fingerprint in dry["changes"][KEYRING]["new"]
    assert snapshot(host) == before
    done = present(salt, with_source(host))
    assert done["result"] is True, done["comment"]
    assert done["changes"] == dry["changes"]

    listing = host.run("gpg", "--show-keys", "--with-colons", KEYRING, check=False)
    if listing.returncode == 0:
        assert host.ppa.fingerprint in listing.stdout
    assert f"Signed-By: {KEYRING}\n" in host.read(SOURCES)
    assert not host.exists("/etc/apt/trusted.gpg")
    # apt knows its packages at once, and prefers them.
    policy = host.run("apt-cache", "policy", "nginx").stdout
    assert f"Candidate: {host.ppa.version}\n" in policy
    assert f"     {host.ppa.version} 900\n" in policy
    # No other source of the host was asked.
    assert "debian" not in host.run("ls /var/lib/apt/lists").stdout

    asked, seen = len(host.ppa.server.asked), rows(host, *ROOTS)
    again = present(salt, with_source(host))
    assert (again["result"], again["changes"]) == (True, {})
    assert len(host.ppa.server.asked) == asked, "asked the network without need"
    assert rows(host, *ROOTS) == seen

    host.install("nginx")
    assert salt.call("nginx_process.status")["version"]
    installed = host.run("dpkg-query", "-W", "-f", "${Version}", "nginx").stdout
    assert installed == host.ppa.version


def test_nginx_goes_back_to_the_distribution_and_nobody_notices(
    ubuntu_host: UbuntuHost, salt: Salt
) -> None:
    host = ubuntu_host
    host.run("useradd --system --shell /usr/sbin/nologin deploy")
    salt.pillar = with_source(host)
    for function in ("nginx_tree.applied", "nginx_process.current"):
        assert salt.state(function)["result"] is True
    assert present(salt, with_source(host, "distro"))["result"] is True
    serving = processes(host)
    with Clients(host, 80, 80) as load:
        done = salt.state("nginx_package.current")
    assert done["result"] is True, done["comment"]
    assert load.failures == [] and load.answered > 20
    installed = host.run("dpkg-query", "-W", "-f", "${Version}", "nginx").stdout
    assert done["changes"]["nginx"] == {"old": host.ppa.version, "new": installed}
    assert installed < host.ppa.version and not set(serving) & set(processes(host))


@pytest.mark.parametrize(
    "damage",
    [
        f"rm {KEYRING}",
        f"truncate -s -1 {KEYRING}",
        f"cat {KEYRING} >> {KEYRING}.2 && cat {KEYRING}.2 >> {KEYRING} && rm {KEYRING}.2",
        f"chmod 666 {KEYRING}",
        f"sed -i s/noble/jammy/ {SOURCES}",
        f"rm {SOURCES}",
        f"rm {PREFERENCES}",
    ],
)
def test_what_is_damaged_is_noticed_and_mended(
    ubuntu_host: UbuntuHost, salt: Salt, damage: str
) -> None:
    wanted = with_source(ubuntu_host)
    assert present(salt, wanted)["result"] is True
    good = {path: row[1:5] + row[7:] for path, row in rows(ubuntu_host, "/etc/apt").items()}
    ubuntu_host.run(damage)
    assert present(salt, wanted, test=True)["result"] is None
    done = present(salt, wanted)
    assert done["result"] is True, done["comment"]
    assert done["changes"]
    assert {p: r[1:5] + r[7:] for p, r in rows(ubuntu_host, "/etc/apt").items()} == good
    ubuntu_host.run("apt-get -q update -o APT::Update::Error-Mode=any")


def test_a_key_is_rotated(ubuntu_host: UbuntuHost, salt: Salt) -> None:
    host = ubuntu_host
    assert present(salt, with_source(host))["result"] is True
    successor = SigningKey("the successor")
    host.ppa.trust(successor)
    host.ppa.repository.publish(successor)
    url = host.ppa.key_url.replace(host.ppa.fingerprint, successor.fingerprint)
    rotated = with_source(host, fingerprints=[successor.fingerprint], key=url)
    try:
        done = present(salt, rotated)
        assert done["result"] is True, done["comment"]
        assert successor.fingerprint in done["changes"][KEYRING]["new"]
        assert host.ppa.fingerprint in done["changes"][KEYRING]["old"]
        host.run("apt-get -q update -o APT::Update::Error-Mode=any")
        assert present(salt, rotated)["changes"] == {}
    finally:
        host.ppa.repository.publish(host.ppa.key)
        successor.close()
    assert present(salt, with_source(host))["result"] is True


def test_a_key_from_the_fileserver(ubuntu_host: UbuntuHost, salt: Salt) -> None:
    host = ubuntu_host
    host.write("/srv/salt/keys/ppa.asc", host.ppa.key.armored)
    wanted = with_source(host, key="salt://keys/ppa.asc")
    assert present(salt, wanted)["result"] is True
    assert present(salt, wanted)["changes"] == {}


def test_kinds_replace_each_other(ubuntu_host: UbuntuHost, salt: Salt) -> None:
    host = ubuntu_host
    other = SOURCES.replace("-ppa", "-nginx.org")
    done = present(salt, with_source(host, "nginx.org"))
    assert done["result"] is True, done["comment"]
    assert host.exists(other) and not host.exists(SOURCES) and not host.exists(KEYRING)
    host.run("apt-get -q update -o APT::Update::Error-Mode=any")
    done = present(salt, with_source(host, "distro"))
    assert done["result"] is True, done["comment"]
    assert all(change["new"] is None for change in done["changes"].values())
    found = host.run("find /etc/apt -name '*nginx_uwsgi_django*'").stdout
    assert found == ""
    assert present(salt, with_source(host, "distro"))["changes"] == {}
    assert host.ppa.version not in host.run("apt-cache madison nginx").stdout


def test_absent(ubuntu_host: UbuntuHost, salt: Salt) -> None:
    host = ubuntu_host
    assert present(salt, with_source(host))["result"] is True
    dry = salt.state("deb822_source.absent", test=True)
    assert dry["result"] is None and set(dry["changes"]) == {SOURCES, KEYRING, PREFERENCES}
    assert host.exists(SOURCES)
    assert salt.state("deb822_source.absent")["changes"] == dry["changes"]
    assert host.run("find /etc/apt -name '*nginx_uwsgi_django*'").stdout == ""
    again = salt.state("deb822_source.absent")
    assert (again["result"], again["changes"]) == (True, {})
