"""A change of a fleet by `salt-run rollout.apply`: from a real master to real hosts, under load."""

import contextlib
import copy
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ..hosts.fleet import Fleet
from ..hosts.host import Host
from ..hosts.paths import FORMULA

NAME = "a.compute.amazonaws.com"
MINIONS = {"web1": ("3006", "bookworm"), "web2": ("3008", "trixie"), "web3": ("3007", "bookworm")}
TEMPLATE = "nginx_uwsgi_django/files/default/site.conf.jinja"

pytestmark = pytest.mark.long


def pillar(**site: Any) -> dict[str, Any]:
    whole = copy.deepcopy(yaml.safe_load((FORMULA / "pillar.example").read_text()))
    mine = whole["nginx_uwsgi_django"]
    mine["rollout"] = {"window": 2, "slower": 10000}
    mine["sites"]["mysite"].update(site)
    return whole


@pytest.fixture(scope="module")
def web(fleet: Fleet) -> Fleet:
    for name, (salt, release) in MINIONS.items():
        fleet.add(name, salt=salt, release=release)
    fleet.set_pillar(pillar())
    return fleet


class Load:
    """Asks every host for its page, over and over; what is not a complete 200 is lost."""

    def __init__(self, hosts: dict[str, Host]) -> None:
        self.asked = dict.fromkeys(hosts, 0)
        self.lost: dict[str, list[str]] = {name: [] for name in hosts}
        self._hosts = hosts
        self._stop = threading.Event()

    def _work(self, name: str) -> None:
        while not self._stop.wait(0.05):
            self.asked[name] += 1
            try:
                status, _, body = self._hosts[name].get("/", NAME, timeout=60)
                if status != 200 or b"Congratulations" not in body:
                    self.lost[name].append(f"{status}")
            except OSError as error:
                self.lost[name].append(repr(error))

    @contextlib.contextmanager
    def on(self) -> Iterator["Load"]:
        threads = [threading.Thread(target=self._work, args=(name,)) for name in self._hosts]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


def generations(fleet: Fleet) -> dict[str, str]:
    said = fleet.call("nginx_uwsgi_django.status")
    return {name: status["sites"]["mysite"]["generation"] for name, status in said.items()}


def test_bare_hosts_are_brought_up_one_after_the_other(web: Fleet) -> None:
    code, said, lines = web.runner("rollout.apply", "web*", batch="50%")
    assert (code, said["status"]) == (0, "done"), lines[:6000]
    assert said["hosts"] == dict.fromkeys(MINIONS, "done")
    for name, host in web.hosts.items():
        assert host.get("/", NAME)[0] == 200, name
    assert "batch 1 of 3: web1" in lines and "web2 would change: " in lines
    record = web.runner("rollout.show", said["id"])[1]
    assert record["batches"] == [["web1"], ["web2"], ["web3"]]
    assert record["user"] and record["began"] and record["ended"]


def test_a_fleet_that_is_right_is_not_touched(web: Fleet) -> None:
    before = generations(web)
    code, said, _ = web.runner("rollout.apply", "web*")
    assert (code, said["status"]) == (0, "done")
    assert said["hosts"] == dict.fromkeys(MINIONS, "unchanged")
    assert generations(web) == before


def test_a_good_rollout_loses_no_request(web: Fleet) -> None:
    before = generations(web)
    web.set_pillar(pillar(uwsgi={"processes": 3}, client_max_body_size="64M"))
    with Load(web.hosts).on() as load:
        code, said, lines = web.runner("rollout.apply", "web*", batch=2)
    assert (code, said["hosts"]) == (0, dict.fromkeys(MINIONS, "done")), (said, lines)
    assert load.lost == {name: [] for name in MINIONS}
    assert min(load.asked.values()) > 50
    assert all(before[name] != now for name, now in generations(web).items())


def test_a_bad_release_stops_at_the_canary_and_loses_nothing_there_either(web: Fleet) -> None:
    before = generations(web)
    # What it answers no dry run can know: it has to be started for that.
    web.set_pillar(pillar(uwsgi={"processes": 4}, health={"path": "/", "status": [418]}))
    with Load(web.hosts).on() as load:
        code, said, lines = web.runner("rollout.apply", "web*")
    assert (code, said["status"]) == (1, "failed"), lines
    assert (said["failure"]["host"], said["failure"]["site"]) == ("web1", "mysite")
    assert "418" in said["failure"]["reason"]
    assert said["hosts"] == {"web1": "reverted", "web2": "pending", "web3": "pending"}
    assert load.lost == {name: [] for name in MINIONS}
    assert generations(web) == before


def test_what_only_the_gate_sees_is_put_back(web: Fleet) -> None:
    before = generations(web)
    trees = {
        name: host.run("sha256sum /etc/nginx/*/*.conf").stdout for name, host in web.hosts.items()
    }
    web.set_pillar(pillar(uwsgi={"processes": 4}, client_max_body_size="64M"))
    text = (FORMULA / TEMPLATE).read_text().replace("location / {", "location / {\n return 503;")
    web.write_state(TEMPLATE, text)
    try:
        code, said, lines = web.runner("rollout.apply", "web*")
    finally:
        web.write_state(TEMPLATE, (FORMULA / TEMPLATE).read_text())
    assert (code, said["status"]) == (1, "failed"), lines
    assert (said["failure"]["host"], said["failure"]["site"]) == ("web1", "mysite")
    assert "503" in said["failure"]["reason"]
    assert said["hosts"] == {"web1": "reverted", "web2": "pending", "web3": "pending"}
    assert generations(web) == before
    for name, host in web.hosts.items():
        assert host.run("sha256sum /etc/nginx/*/*.conf").stdout == trees[name]
        assert host.get("/", NAME)[0] == 200


def test_one_at_a_time_and_a_killed_one_is_resumed_or_reverted(web: Fleet) -> None:
    before = generations(web)
    web.set_pillar(pillar(uwsgi={"processes": 4}, client_max_body_size="64M"))
    with subprocess.Popen(
        web.runner_command("rollout.apply", "web*"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "changing web1" in line:
                break
        code, said, _ = web.runner("rollout.apply", "web*")
        assert (code, said["status"]) == (1, "refused")
        assert f"process {first.pid}" in said["reason"] and "since 20" in said["reason"]
        first.kill()
        first.communicate()
    # Nobody has to clear anything: the lock went with its holder.
    assert web.runner("rollout.list")[1][-1]["status"] == "interrupted"
    code, said, lines = web.runner("rollout.resume")
    assert (code, said["hosts"]) == (0, dict.fromkeys(MINIONS, "done")), (said, lines)
    assert all(before[name] != now for name, now in generations(web).items())

    code, said, lines = web.runner("rollout.revert")
    assert (code, said["status"]) == (0, "reverted"), (said, lines)
    assert generations(web) == before


def test_a_minion_that_dies_in_the_middle_is_finished_and_a_silent_one_left_out(web: Fleet) -> None:
    web.set_pillar(pillar(uwsgi={"processes": 5}))
    web.daemons["web3"].terminate()
    with subprocess.Popen(
        web.runner_command("rollout.apply", "web*", silent="skip", ping=5, ask=False),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None and run.stdout is not None
        for line in run.stderr:
            if "changing web1" in line:
                time.sleep(1)
                web.daemons["web1"].terminate()
                web.daemons["web1"].start()
                break
        rest = run.stderr.read()
        said = json.loads(run.stdout.read())
    assert said["hosts"] == {"web1": "done", "web2": "done", "web3": "skipped"}, (said, rest)
    assert "web1: its minion stopped in the middle of state.apply; it is back" in rest
    assert run.returncode == 0
