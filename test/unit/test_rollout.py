"""What a rollout does with many hosts."""

from typing import Any

import pytest

from _runners import rollout, rollout_gate, rollout_record


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the record said of each host, each time when it went to the disk."""
    found: list[str] = []

    def write(record: dict[str, Any]) -> None:
        found.append("".join(host["state"][0] for host in record["hosts"].values()))

    def run(hosts: list[str], function: str, *_: Any, **__: Any) -> dict[str, Any]:
        said = {"a_|-mysite: a_|-a_|-b": {"__id__": "mysite: a", "result": None, "changes": {}}}
        return {name: {"return": said, "error": None, "lost": False} for name in hosts}

    functions = {
        "rollout_gate.states": rollout_gate.states,
        "rollout_record.now": rollout_record.now,
        "rollout_record.write": write,
        "rollout_progress.begin": lambda total: {},
        "rollout_progress.show": lambda progress, line: None,
        "rollout_jobs.fire": lambda tag, data: None,
        "rollout_jobs.run": run,
    }
    monkeypatch.setattr(rollout, "__salt__", functions, raising=False)
    return found


def test_the_record_is_written_once_for_all_hosts_that_were_asked_together(written):
    names = [f"web{number}" for number in range(120)]
    record = {
        "id": "20261128-120000-4f2a",
        "hosts": {name: {"state": "asked"} for name in names},
        "how": {"timeout": 1, "silent": "stop", "sls": None},
        "log": [],
    }
    rollout._foretell(rollout._Rollout(record), names)
    # Fifty at a time; all of it is there at the end, and each host has its line.
    assert written == ["p" * 50 + "a" * 70, "p" * 100 + "a" * 20, "p" * 120]
    assert sum("would change: mysite: a" in line for line in record["log"]) == 120


def test_a_step_is_on_the_disk_before_anybody_sees_it(written, monkeypatch):
    seen: list[list[str]] = []
    shown = {
        "rollout_progress.show": lambda progress, line: seen.append(list(written)),
        "rollout_jobs.fire": lambda tag, data: seen.append(list(written)),
    }
    monkeypatch.setattr(rollout, "__salt__", {**rollout.__salt__, **shown})
    record = {"id": "20261128-120000-4f2a", "hosts": {"web1": {"state": "x"}}, "how": {}, "log": []}
    step = rollout._Rollout(record)
    step.mark("web1", "changing", touched=True)
    step.say("changing web1", "batch")
    assert seen == [["c"], ["c"]]


NAMES = ["web1", "web2", "web3"]
QUIET = {"requests": 0, "errors": 0, "sites": {}}


class Fleet:
    """Hosts that say what a test lets them say, and what was asked of them, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str]] = []
        self.why: dict[str, str] = {}
        self.errors: dict[str, int] = {}
        self.after: dict[str, Any] = {}
        functions = {
            "rollout_gate.states": rollout_gate.states,
            "rollout_gate.site_of": rollout_gate.site_of,
            "rollout_gate.unwell": rollout_gate.unwell,
            "rollout_gate.worse": rollout_gate.worse,
            "rollout_record.now": rollout_record.now,
            "rollout_record.write": lambda record: None,
            "rollout_progress.begin": lambda total: {},
            "rollout_progress.show": lambda progress, line: None,
            "rollout_progress.end": lambda progress: None,
            "rollout_jobs.fire": lambda tag, data: None,
            "rollout_jobs.run": self.run,
            "rollout_jobs.reach": lambda looks: {},
            "rollout_jobs.watch": self.watch,
        }
        monkeypatch.setattr(rollout, "__salt__", functions, raising=False)
        monkeypatch.setattr(rollout, "__context__", {}, raising=False)

    def _say(self, name: str, function: str) -> Any:
        site = {"generation": "1", "visits": [], "why": self.why.get(name)}
        limits = {"window": 1, "errors": 1, "slower": 100, "memory": 100}
        row = {"__id__": "nginx: a", "result": True, "changes": {"a": 1}}
        return {
            "rollout_host.keep": {"mysite": "1"},
            "rollout_host.look": {"limits": limits, "sites": {"mysite": site}},
            "rollout_host.revert": {"done": [], "errors": []},
            "state.apply": {"a_|-nginx: a_|-a_|-b": row},
            "host_drain.stop": None,
        }[function]

    def run(self, hosts: list[str], function: str, *_: Any, **__: Any) -> dict[str, Any]:
        self.asked += [(function, name) for name in hosts]
        if function == "state.apply":
            for name in hosts:
                for key, what in self.after.get(name, {}).items():
                    getattr(self, key).update(what)
        return {
            name: {"return": self._say(name, function), "error": None, "lost": False}
            for name in hosts
        }

    def watch(self, looks: dict[str, Any], seconds: float, ask: bool) -> dict[str, Any]:
        return {
            name: {**QUIET, "requests": 100, "errors": self.errors.get(name, 0)} for name in looks
        }

    def roll(self, batches: list[list[str]]) -> dict[str, Any]:
        names = [name for batch in batches for name in batch]
        record: dict[str, Any] = {
            "id": "20261128-120000-4f2a",
            "user": "root",
            "what": "a test",
            "hosts": {name: {"state": "pending"} for name in names},
            "batches": batches,
            "how": {
                "timeout": 1,
                "silent": "stop",
                "sls": None,
                "ask": True,
                "drain": None,
                "before": None,
                "after": None,
                "ping": 1,
            },
            "log": [],
        }
        made = rollout._Rollout(record)
        rollout._guarded(made, lambda: rollout._roll(made))
        return record

    def applied(self) -> list[str]:
        return [name for function, name in self.asked if function == "state.apply"]


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(monkeypatch)


def test_a_fleet_that_stays_well_is_done(fleet: Fleet) -> None:
    record = fleet.roll([["web1"], ["web2"], ["web3"]])
    assert record["status"] == "done" and fleet.applied() == NAMES


@pytest.mark.parametrize("fault", [{"why": {"web1": "503"}}, {"errors": {"web1": 50}}])
def test_a_host_that_fails_after_it_has_passed_stops_the_next_batch(
    fleet: Fleet, fault: dict[str, Any]
) -> None:
    # It begins while the second batch is at work.
    fleet.after["web2"] = fault
    record = fleet.roll([["web1"], ["web2"], ["web3"]])
    assert record["status"] == "failed"
    assert record["failure"]["host"] == "web1"
    assert "well after its change, and not now" in record["failure"]["reason"]
    assert fleet.applied() == ["web1", "web2"]
    states = {name: host["state"] for name, host in record["hosts"].items()}
    assert states == {"web1": "reverted", "web2": "reverted", "web3": "pending"}


@pytest.mark.parametrize("fault", [{"why": {"web1": "503"}}, {"errors": {"web1": 50}}])
def test_all_hosts_are_looked_at_once_more_at_the_end(fleet: Fleet, fault: dict[str, Any]) -> None:
    fleet.after["web3"] = fault
    record = fleet.roll([["web1"], ["web2"], ["web3"]])
    assert record["status"] == "failed" and record["failure"]["host"] == "web1"
    assert {host["state"] for host in record["hosts"].values()} == {"reverted"}
