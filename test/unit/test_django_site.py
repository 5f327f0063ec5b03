"""Which sites are worth a run, where there are so many that several processes look at them."""

import os
import signal

import pytest

NAMES = [f"s{number:03}" for number in range(100)]


@pytest.fixture
def looked_at(modules, monkeypatch):
    m = modules()
    monkeypatch.setattr(m.django_site, "wanted", lambda: list(NAMES))
    monkeypatch.setattr(m.django_site, "_served", lambda name: not name.endswith("7"))
    m.salt["side_by_side.processors"] = lambda: 4
    monkeypatch.setattr(m.side_by_side, "processors", lambda: 4)
    monkeypatch.setattr(m.django_site, "remarks", lambda name: [f"of {name}"])

    def by(prepared):
        monkeypatch.setattr(m.django_site, "_prepared", prepared)
        return m.django_site.look

    return by


def unsettled(seen):
    return [name for name, said in seen.items() if said is None]


def test_what_the_copies_of_this_process_find_is_in_the_order_of_the_pillar(looked_at):
    look = looked_at(lambda name: name not in ("s000", "s042"))
    left = [name for name in NAMES if name in ("s000", "s042") or name[-1] == "7"]
    seen = look()
    assert list(seen) == NAMES and unsettled(seen) == left
    assert all(said == [f"of {name}"] for name, said in seen.items() if name not in left)
    assert unsettled(look(served=False)) == ["s000", "s042"]


def test_what_a_copy_that_was_killed_did_not_say_is_looked_at_by_the_states(looked_at):
    def prepared(name: str) -> bool:
        if name == "s050":
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    found = unsettled(looked_at(prepared)(served=False))
    assert "s050" in found and "s000" not in found
    assert len(found) < len(NAMES)
