"""`salt '*' state.apply` by a top file: one master, minions of every Salt, on Debian 12 and 13."""

import pytest
import yaml

from ..hosts.fleet import Fleet
from ..hosts.paths import FORMULA

PILLAR = yaml.safe_load((FORMULA / "pillar.example").read_text())
MINIONS = {
    "web3006": ("3006", "bookworm"),
    "web3007": ("3007", "bookworm"),
    "web3008": ("3008", "trixie"),
}


@pytest.fixture(scope="module")
def applied(fleet: Fleet) -> Fleet:
    for name, (salt, release) in MINIONS.items():
        fleet.add(name, salt=salt, release=release)
    fleet.set_pillar(PILLAR)
    fleet.set_top({"*": ["nginx_uwsgi_django"]})
    return fleet


def test_every_minion_serves_after_one_highstate_and_the_next_changes_nothing(
    applied: Fleet,
) -> None:
    first = applied.apply()
    assert {name: run.failed + run.errors for name, run in first.items()} == dict.fromkeys(
        MINIONS, []
    )
    for name, host in applied.hosts.items():
        status, _, body = host.get("/", "a.compute.amazonaws.com")
        assert (status, b"Congratulations" in body) == (200, True), name

    second = applied.apply()
    assert {name: run.ok for name, run in second.items()} == dict.fromkeys(MINIONS, True)
    assert {name: run.changed for name, run in second.items()} == dict.fromkeys(MINIONS, [])

    # Salt's states compile with the master's newest pillar; functions see what was fetched last.
    applied.call("saltutil.refresh_pillar", wait=True)
    said = applied.call("nginx_uwsgi_django.status")
    assert {name: type(status) for name, status in said.items()} == dict.fromkeys(MINIONS, dict), (
        said
    )
    assert {name: status["sites"]["mysite"]["status"] for name, status in said.items()} == (
        dict.fromkeys(MINIONS, 200)
    )
