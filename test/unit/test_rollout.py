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
