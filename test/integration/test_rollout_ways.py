"""Other ways into a rollout, and what happens around it: orchestration, draining, the master gone."""

import json
import subprocess
from typing import Any

import pytest

from ..hosts.fleet import Fleet
from .test_rollout import pillar

# Its host is not called as those of test_rollout.py: both may run at the same time.
HOST = "edge1"
PROBE = """
def note(when):
    with open("/run/hooks", "a") as stream:
        stream.write("%s %s\\n" % (when, __salt__["host_drain.status"]()["draining"]))


def before():
    note("before")


def after():
    note("after")
"""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def edge(fleet: Fleet) -> Fleet:
    fleet.add(HOST, salt="3008", release="trixie")
    fleet.set_pillar(pillar())
    fleet.write_state("_modules/hook_probe.py", PROBE)
    return fleet


def orchestrate(edge: Fleet, **words: Any) -> tuple[int, Any, str]:
    return edge.runner(
        "state.orchestrate",
        "nginx_uwsgi_django.orch.rollout",
        pillar={"rollout": {"tgt": HOST, **words}},
    )


def test_an_orchestration_does_the_same(edge: Fleet) -> None:
    code, said, lines = orchestrate(edge)
    assert code == 0, (said, lines)
    record = edge.runner("rollout.show")[1]
    assert (record["status"], record["hosts"][HOST]["state"]) == ("done", "done")


def test_an_orchestration_fails_when_the_rollout_does(edge: Fleet) -> None:
    code, said, lines = orchestrate(edge, silent="no")
    assert code == 1, (said, lines)
    assert "silent is stop or skip" in json.dumps(said)


def test_a_host_is_drained_and_asked_before_and_after(edge: Fleet) -> None:
    edge.set_pillar(pillar(uwsgi={"processes": 3}))
    code, said, lines = edge.runner(
        "rollout.apply", HOST, drain=1, before="hook_probe.before", after="hook_probe.after"
    )
    assert (code, said["hosts"]) == (0, {HOST: "done"}), (said, lines)
    assert edge.hosts[HOST].run("cat", "/run/hooks").stdout == "before True\nafter True\n"
    assert edge.call("host_drain.status")[HOST]["draining"] is False


def test_who_is_drained_for_another_reason_stays_so(edge: Fleet) -> None:
    edge.call("host_drain.start", "new kernel")
    edge.set_pillar(pillar(uwsgi={"processes": 4}))
    code, said, lines = edge.runner("rollout.apply", HOST, drain=0)
    assert (code, said["hosts"]) == (0, {HOST: "done"}), (said, lines)
    assert edge.call("host_drain.status")[HOST]["reason"] == "new kernel"


def test_a_master_that_is_restarted_in_the_middle_is_waited_for(edge: Fleet) -> None:
    edge.set_pillar(pillar(uwsgi={"processes": 5}))
    with subprocess.Popen(
        edge.runner_command("rollout.apply", HOST),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None and run.stdout is not None
        for line in run.stderr:
            if "changing " in line:
                edge.master.terminate()
                edge.master.start()
                break
        rest = run.stderr.read()
        said = json.loads(run.stdout.read())
    assert said["hosts"] == {HOST: "done"}, (said, rest)
    assert run.returncode == 0


def test_a_host_that_does_not_answer_ends_it_before_anything_changes(edge: Fleet) -> None:
    edge.daemons[HOST].terminate()
    code, said, lines = edge.runner("rollout.apply", HOST, ping=5)
    assert (code, said["status"]) == (1, "failed"), (said, lines)
    assert said["failure"]["host"] == HOST
    assert "did not answer within 5 s" in said["failure"]["reason"]
    assert "no host was changed" in lines
