"""
Debian 13's certbot; and Salt or certbot killed at any moment of getting a certificate: the site is
served, by the self-signed one or by the authority's, and the next run has the latter.
"""

import re
import time
from collections.abc import Iterator

import pytest

from ..hosts import pebble
from ..hosts.host import Host
from .nginx_host import Killed, Salt, leftovers, prepare, processes, workers
from .test_site_certificate import (
    ACME,
    BUNDLE,
    LINEAGE,
    NAME,
    acme,
    apply,
    curl,
    issued,
    own,
    renew,
    same,
    served,
)

pytestmark = pytest.mark.long

CALLS = ("mkdir", "symlink", "rename", "link", "unlink", "rmdir", "vfork", "clone", "clone3")
PLACES = ("/etc/letsencrypt/live", "/etc/letsencrypt/archive", "/etc/letsencrypt/renewal", BUNDLE)


@pytest.fixture(scope="module")
def host(trixie_host: Host) -> Host:
    return trixie_host


@pytest.fixture(scope="module")
def salt(host: Host) -> Iterator[Salt]:
    ACME.update(pebble.start(host, NAME))
    prepare(host, "certbot")
    made = Salt(host)
    made.pillar = acme()
    yield made
    made.close()


def begin(host: Host, salt: Salt) -> None:
    """No certificate but the self-signed one."""
    host.run(f"rm -rf /etc/letsencrypt/*/{LINEAGE}* {BUNDLE}")
    apply(salt)
    assert "self-signed until" in host.read(BUNDLE)


def live(host: Host) -> str:
    return own(host.read(f"/etc/letsencrypt/live/{LINEAGE}/fullchain.pem"))


def test_issued_and_renewed_by_its_timer(host: Host, salt: Salt) -> None:
    begin(host, salt)
    done = issued(salt)
    assert done["result"] is True and "Pebble" in done["changes"]["certificate"]["new"], done
    assert same(served(host), live(host))
    assert curl(host, f"http://{NAME}/").startswith("HTTP/1.1 301")
    assert issued(salt)["changes"] == {} and apply(salt) == {}
    before, old = served(host), workers(host)
    renew(host)
    assert not same(live(host), before)
    deadline = time.monotonic() + 20
    while not same(served(host), live(host)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not workers(host) & old
    assert "certbot.timer" in host.run("systemctl list-timers --no-pager").stdout
    assert salt.state("nginx_tree.applied")["changes"] == {}


def points(trace: str) -> list[tuple[str, int]]:
    """What is done to certificates, by whichever process: the call and which one of its process's."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for line in trace.splitlines():
        seen = re.match(r"(\d+) +(\w+)\((.*)", line)
        if seen and seen[2] in CALLS:
            counts[seen[1], seen[2]] = counts.get((seen[1], seen[2]), 0) + 1
            point = (seen[2], counts[seen[1], seen[2]])
            if any(place in seen[3] for place in PLACES) and point not in found:
                found.append(point)
    return found


def test_killed_while_the_certificate_comes(host: Host, salt: Salt) -> None:
    begin(host, salt)
    with salt.traced("-f", f"-etrace={','.join(CALLS)}"):
        assert issued(salt)["result"] is True
    found = points(host.read("/root/trace"))
    assert len(found) > 5, found
    # Salt itself, with certbot at work.
    found += [("vfork", 1), ("vfork", 3)]
    told = []
    for call, number in found:
        begin(host, salt)
        serving = processes(host)
        with salt.traced("-f", f"-etrace={call}", f"-einject={call}:signal=KILL:when={number}"):
            try:
                done = issued(salt)
                told.append((call, number, done["result"], done["comment"][-60:]))
            except Killed:
                told.append((call, number, "killed"))
                salt.start()
        host.run("nginx -t")
        assert host.read(BUNDLE) and served(host)
        assert min(serving) in processes(host), "its master"
        # What the run does before it comes to the certificate.
        apply(salt)
        done = issued(salt)
        assert done["result"] is True, (told[-1], done["comment"])
        assert same(served(host), live(host)), told[-1]
        assert issued(salt)["changes"] == {} and apply(salt) == {}, told[-1]
        assert not leftovers(host), told[-1]
    print(told)
    assert [one for one in told if one[2] != True], told  # noqa: E712  None, False or "killed"
