"""
A master and minions of all supported Salt versions: the ground other tests stand on.
"""

import pytest

from ..hosts.fleet import Fleet
from ..hosts.salts import VERSIONS

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def minions(fleet: Fleet) -> Fleet:
    for salt in VERSIONS:
        fleet.add(f"fleet{salt}", salt=salt)
    return fleet


def test_minions_of_all_versions_answer(minions: Fleet) -> None:
    said = minions.call("test.version")
    assert said == {f"fleet{salt}": version for salt, version in VERSIONS.items()}


def test_a_minion_acts_inside_its_host(minions: Fleet) -> None:
    said = minions.call("file.write", "/root/here", "was here", target="fleet3006")
    assert list(said) == ["fleet3006"]
    assert minions.hosts["fleet3006"].read("/root/here").strip() == "was here"
    assert not minions.hosts["fleet3008"].exists("/root/here")


def test_pillar_and_states_come_from_the_master(minions: Fleet) -> None:
    minions.set_pillar({"word": "all"})
    minions.set_pillar({"only": 7}, target="fleet3007")
    minions.write_state("note.sls", "/root/note:\n  file.managed:\n    - contents_pillar: word\n")
    minions.set_top({"*": ["note"]})
    runs = minions.apply()
    assert {name: run.ok for name, run in runs.items()} == dict.fromkeys(minions.hosts, True)
    assert minions.hosts["fleet3007"].read("/root/note") == "all\n"
    top = minions.apply(target="fleet3007")
    assert list(top) == ["fleet3007"] and list(top["fleet3007"].by_id) == ["/root/note"]
    items = minions.call("pillar.items")
    assert {name: values.get("only") for name, values in items.items()} == {
        "fleet3006": None,
        "fleet3007": 7,
        "fleet3008": None,
    }
