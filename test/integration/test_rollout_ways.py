"""Other ways into a rollout, and what happens around it: orchestration, draining, the master gone."""

import contextlib
import json
import os
import pty
import subprocess
import threading
import time
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


def test_the_bar_on_a_terminal_and_the_events_for_others(edge: Fleet) -> None:
    edge.set_pillar(pillar(uwsgi={"processes": 6}))
    tag = "nginx_uwsgi_django/rollout/*"
    watch = edge.runner_command("state.event", f"tagmatch={tag}")
    ours, theirs = pty.openpty()
    lines: list[str] = []

    def listen(stream: Any) -> None:
        for line in stream:
            lines.append(line)

    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as others:
        try:
            heard = threading.Thread(target=listen, args=(others.stdout,))
            heard.start()
            # It listens when an event of somebody else's has come through.
            for _ in range(30):
                if not lines:
                    edge.runner("rollout_jobs.fire", "nginx_uwsgi_django/rollout/test", "{}")
            assert lines
            with subprocess.Popen(
                edge.runner_command("rollout.apply", HOST), stdout=subprocess.PIPE, stderr=theirs
            ) as run:
                os.close(theirs)
                shown = b""
                with contextlib.suppress(OSError):
                    # The end of a terminal is an error, not an end of file.
                    while piece := os.read(ours, 4096):
                        shown += piece
                said = json.loads(run.communicate()[0])
            deadline = time.monotonic() + 30
            while f"{said['id']}/ret" not in "".join(lines) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            others.terminate()
            heard.join()
            os.close(ours)
    assert said["hosts"] == {HOST: "done"}, said
    text = shown.decode()
    # Each line takes the bar away and puts it below again.
    assert f"\r\x1b[K{HOST}: changed and well\r\n[{'#' * 24}] 1/1  1 done, 0 failed, 0 left" in text
    assert f"\r\n[{'.' * 24}] 0/1  0 done, 0 failed, 1 left\r\x1b[K" in text
    found = [line.partition("\t")[0].rpartition("/")[2] for line in lines if said["id"] in line]
    assert found == ["new", "dry", "batch", "host", "ret"]
    host = next(line for line in lines if f"{said['id']}/host" in line)
    assert json.loads(host.partition("\t")[2])["host"] == HOST


def test_a_host_that_is_cut_off_is_named_and_put_back_when_it_is_there_again(edge: Fleet) -> None:
    before = edge.call("nginx_uwsgi_django.report")[HOST]["sites"]["mysite"]["generation"]
    edge.set_pillar(pillar(uwsgi={"processes": 7}))
    host = edge.hosts[HOST]
    with subprocess.Popen(
        edge.runner_command("rollout.apply", HOST, "timeout=120", ping=10),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None and run.stdout is not None
        for line in run.stderr:
            if "changing " in line:
                host.unplug()
                break
        rest = run.stderr.read()
        said = json.loads(run.stdout.read())
    host.plug_in()
    assert (run.returncode, said["hosts"]) == (1, {HOST: "revert failed"}), (said, rest)
    assert said["failure"]["host"] == HOST
    assert "did not answer to state.apply within 120 s" in said["failure"]["reason"]
    deadline = time.monotonic() + 120
    while not edge.runner("rollout_jobs.find", HOST)[1][HOST] and time.monotonic() < deadline:
        time.sleep(1)
    code, said, lines = edge.runner("rollout.revert")
    assert (code, said["status"]) == (0, "reverted"), (said, lines)
    assert edge.call("nginx_uwsgi_django.report")[HOST]["sites"]["mysite"]["generation"] == before


def test_a_host_that_does_not_answer_ends_it_before_anything_changes(edge: Fleet) -> None:
    edge.daemons[HOST].terminate()
    code, said, lines = edge.runner("rollout.apply", HOST, ping=5)
    assert (code, said["status"]) == (1, "failed"), (said, lines)
    assert said["failure"]["host"] == HOST
    assert "did not answer within 5 s" in said["failure"]["reason"]
    assert "no host was changed" in lines
