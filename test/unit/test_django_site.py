"""Which sites are worth a run, where there are so many that several processes look at them."""

import contextlib
import os
import signal

import pytest
from salt.exceptions import CommandExecutionError

from _nud import process_pool

NAMES = [f"s{number:03}" for number in range(100)]


@pytest.fixture
def looked_at(modules, monkeypatch):
    m = modules()
    monkeypatch.setattr(m.django_site, "wanted", lambda: list(NAMES))
    monkeypatch.setattr(m.django_site, "_served", lambda name: not name.endswith("7"))
    monkeypatch.setattr(process_pool, "processors", lambda: 4)
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


def left_over(m, monkeypatch, absent):
    """Two sites that go side by side: what comes to their last state, and what is returned."""
    sites = {name: {"absent": True} for name in ("one", "two")}
    m.opts["pillar"].update({"nginx_uwsgi_django": {"sites": sites}})
    monkeypatch.setattr(process_pool, "processors", lambda: 2)
    m.salt["django_site.left"] = lambda names, prepared: {name: ["a unit"] for name in names}
    m.salt["uwsgi_generation.finish"] = lambda names: None
    m.salt["systemd_unit.daemon_reload"] = lambda **_: True
    m.salt["systemd_unit.reload_later"] = contextlib.nullcontext
    well = {"result": True, "changes": {}, "comment": ""}
    last = []
    states = m.states.django_site.__states__
    for step in m.states.django_site._GOING:
        states[step.function] = lambda name: well
    states["python_venv.absent"] = lambda name: absent(name) or well
    states["system_account.absent"] = lambda name: last.append(name) or well
    return m.states.django_site.absent("sites"), last


def test_the_account_of_a_site_whose_process_was_killed_stays(modules, monkeypatch):
    def absent(name: str) -> None:
        if name == "one":
            os.kill(os.getpid(), signal.SIGKILL)

    ret, last = left_over(modules(), monkeypatch, absent)
    assert last == ["two"]
    assert ret["result"] is False
    assert ret["comment"] == "1 of 2 sites that are to go are gone\nfailed: one"


def test_what_was_done_before_systemd_fell_silent_is_told(modules, monkeypatch):
    m = modules()

    def silent(**_):
        raise CommandExecutionError("systemctl daemon-reload was not done within 90 s")

    ret, last = left_over(m, monkeypatch, lambda name: None)
    assert ret["result"] is True and last == ["one", "two"]
    m.salt["systemd_unit.daemon_reload"] = silent
    last.clear()
    ret = m.states.django_site.absent("sites")
    assert ret["result"] is False and last == []
    assert "not done within 90 s" in ret["comment"]
    assert {state["name"] for state in ret["sub_state_run"]} == {"one", "two"}


def report_of(m, close, **answers):
    """What is reported of a site that no generation serves, by label."""
    project = {"wsgi": "a.wsgi:app", "settings": "a.settings", "hooks": {"before_switch": [["x"]]}}
    sites = {"one": {"server_names": ["one.example.org"], "project": project}}
    m.opts["pillar"].update({"nginx_uwsgi_django": {"sites": sites}})
    m.salt["systemd_unit.needs_reload"] = lambda units: False
    m.salt["systemd_unit.reload_later"] = contextlib.nullcontext
    m.salt["django_site.look"] = lambda served: {"one": None}
    m.salt["django_site.remarks"] = lambda name: []
    m.salt["uwsgi_generation.serves"] = lambda name: False
    m.salt["uwsgi_generation.close"] = close
    module = m.states.django_site
    for step in module._STEPS:
        answer = {"result": True, "changes": {}, "comment": "", **answers.get(step.function, {})}
        module.__states__[step.function] = lambda name, answer=answer, **_: dict(answer)
    return {each["label"]: each for each in module.current("sites")["sub_state_run"]}


def test_what_was_not_reached_is_named_by_its_cause_and_not_reported(modules):
    told = report_of(
        modules(),
        lambda name: False,
        **{
            "python_venv.built": {"result": False, "comment": "no such package"},
            "uwsgi_log.kept": {"result": False, "comment": "no room"},
        },
    )
    assert {label: each["comment"] for label, each in told.items() if not each["result"]} == {
        "virtual environment": "no such package\n"
        "Not reached: hooks between build and migrate; checks, migrations and static files; "
        "hooks after migrate; hooks before the switch",
        "uWSGI log": "no room\n"
        "Not reached: uWSGI socket; uWSGI generation; current release; hooks after the switch; "
        "companions",
    }
    assert list(told)[-2:] == ["virtual environment", "uWSGI log"]


def test_a_socket_that_is_closed_is_reported_and_not_to_blame(modules):
    failure = {"django_release.prepared": {"result": False, "comment": "it does not migrate"}}
    cause = "checks, migrations and static files"
    told = report_of(modules(), lambda name: True, **failure)
    assert told["uWSGI socket"]["changes"] == {"listening": {"old": True, "new": False}}
    assert told["uWSGI socket"]["comment"] == ("closed: no generation of the site reads it")
    assert told[cause]["comment"].endswith("current release; hooks after the switch; companions")

    def silent(name):
        raise CommandExecutionError("systemctl stop was not done within 90 s")

    told = report_of(modules(), silent, **failure)
    assert told["uWSGI socket"]["comment"] == (
        "still open, and no generation of the site reads it: systemctl stop was not done within 90 s"
    )
    # A dry run changes nothing.
    told = report_of(modules(test=True), silent, **failure)
    assert "uWSGI socket" not in told
