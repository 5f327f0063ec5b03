"""A master of masters, a master with a syndic below it, and hosts with the formula's site below that."""

from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.host import Host
from ..hosts.syndic import Tree
from .test_rollout import NAME, Load, pillar

# Of both masters and the syndic, and those of the minions: Salt wants no minion newer than its master.
TREES = {
    "3006": {"leaf1": ("3006", "bookworm"), "leaf2": ("3006", "trixie")},
    "3007": {"leaf1": ("3006", "bookworm"), "leaf2": ("3007", "trixie")},
}

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=TREES)
def tree(request: Any) -> Iterator[Tree]:
    made = Tree(f"tree{request.param}-{Host.tag()}", request.param)
    try:
        made.lower.set_pillar(pillar())
        for name, (salt, release) in TREES[request.param].items():
            made.add(name, salt, release)
        made.wait()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def names(tree: Tree) -> str:
    return ",".join(tree.minions)


def serving(tree: Tree) -> dict[str, str]:
    """The generation that each host runs, as the master below knows it."""
    said = tree.call(tree.lower, "*", "nginx_uwsgi_django.status")
    return {name: status["sites"]["mysite"]["generation"] for name, status in said.items()}


def test_the_master_below_rolls_out_as_any_master(tree: Tree) -> None:
    code, said, lines = tree.run(tree.lower, "rollout.apply", "leaf*")
    assert (code, said["hosts"]) == (0, dict.fromkeys(tree.minions, "done")), (said, lines)
    for name, host in tree.minions.items():
        assert host.get("/", NAME)[0] == 200, name


def test_the_master_on_top_has_the_formulas_functions_and_states(tree: Tree) -> None:
    said = tree.call(tree.top, "*", "nginx_uwsgi_django.report")
    assert {name: one["verdict"] for name, one in said.items()} == dict.fromkeys(
        tree.minions, "well"
    )
    said = tree.call(tree.top, "leaf*", "state.apply", "nginx_uwsgi_django", timeout=120)
    assert set(said) == set(tree.minions)
    for name, states in said.items():
        assert [one for one in states.values() if one["result"] is not True] == [], name
        assert [one for one in states.values() if one["changes"]] == [], name


@pytest.mark.parametrize("words", [("leaf*",), ("*",), ("os:Debian", "tgt_type=grain")])
def test_on_top_a_pattern_is_refused(tree: Tree, words: tuple[str, ...]) -> None:
    before = tree.run(tree.top, "rollout.list")[1]
    code, said, _ = tree.run(tree.top, "rollout.apply", *words)
    assert (code, said["status"]) == (1, "refused")
    assert "would miss those that are down; name them (tgt_type=list)" in said["reason"]
    assert tree.run(tree.top, "rollout.list")[1] == before
    code, said, _ = tree.run(tree.top, "rollout.report", *words)
    assert (code, said["status"]) == (1, "refused")


def test_on_top_a_change_of_named_hosts_loses_no_request(tree: Tree, names: str) -> None:
    before = serving(tree)
    tree.lower.set_pillar(pillar(uwsgi={"processes": 3}, client_max_body_size="64M"))
    with Load(tree.minions).on() as load:
        code, said, lines = tree.run(
            tree.top, "rollout.apply", names, "tgt_type=list", "canary=1", "batch=1"
        )
    assert (code, said["hosts"]) == (0, dict.fromkeys(tree.minions, "done")), (said, lines)
    assert load.lost == {name: [] for name in tree.minions}
    assert min(load.asked.values()) > 50
    assert all(before[name] != now for name, now in serving(tree).items())
    assert tree.run(tree.top, "rollout.show")[1]["batches"] == [["leaf1"], ["leaf2"]]


def test_on_top_a_bad_release_is_put_back_across_the_syndic(tree: Tree, names: str) -> None:
    before = serving(tree)
    tree.lower.set_pillar(pillar(uwsgi={"processes": 4}, health={"path": "/", "status": [418]}))
    with Load(tree.minions).on() as load:
        code, said, lines = tree.run(tree.top, "rollout.apply", names, "tgt_type=list")
    assert (code, said["status"]) == (1, "failed"), lines
    assert (said["failure"]["host"], said["failure"]["site"]) == ("leaf1", "mysite")
    assert said["hosts"] == {"leaf1": "reverted", "leaf2": "pending"}
    assert load.lost == {name: [] for name in tree.minions}
    assert serving(tree) == before


def test_on_top_what_is_done_is_reverted_on_demand(tree: Tree, names: str) -> None:
    before = serving(tree)
    tree.lower.set_pillar(pillar(uwsgi={"processes": 5}))
    code, said, lines = tree.run(
        tree.top, "rollout.apply", names, "tgt_type=list", "batch=2", canary=0
    )
    assert (code, said["status"]) == (0, "done"), lines
    assert all(before[name] != now for name, now in serving(tree).items())
    code, said, lines = tree.run(tree.top, "rollout.revert")
    assert (code, said["status"]) == (0, "reverted"), (said, lines)
    assert serving(tree) == before


def test_on_top_a_host_that_is_down_is_named_and_so_are_those_of_a_syndic_that_is(
    tree: Tree, names: str
) -> None:
    before = serving(tree)
    tree.minions["leaf2"].run("systemctl", "stop", "salt-minion")
    code, said, lines = tree.run(tree.top, "rollout.apply", names, "tgt_type=list", ping=10)
    assert (code, said["failure"]["host"]) == (1, "leaf2"), (said, lines)
    assert said["failure"]["reason"] == "its minion did not answer within 10 s"
    tree.minions["leaf2"].run("systemctl", "start", "salt-minion")

    tree.lower.run("systemctl", "stop", "salt-syndic")
    said = tree.run(tree.top, "rollout.report", names, "tgt_type=list", ping=10)[1]
    assert said["summary"] == {"silent": 2}
    code, said, lines = tree.run(
        tree.top, "rollout.apply", names, "tgt_type=list", silent="skip", ping=10
    )
    assert said["hosts"] == dict.fromkeys(tree.minions, "skipped"), (said, lines)
    assert serving(tree) == before
    tree.lower.run("systemctl", "start", "salt-syndic")
    tree.wait()


def test_a_syndic_of_salt_3008_answers_nobody_and_no_host_is_lost_without_a_word() -> None:
    # Its first message to the master on top waits, on the event loop, for that same event loop; when
    # this passes no more, a later 3008 does better, and docs/fleet.md has to say so.
    tree = Tree(f"tree3008-{Host.tag()}", "3008")
    try:
        tree.add("leaf8", "3008", "bookworm")
        for _ in range(20):
            if tree.call(tree.lower, "*", "test.ping", timeout=10) == {"leaf8": True}:
                break
        else:
            pytest.fail("leaf8 does not even answer its own master")
        assert tree.call(tree.top, "*", "test.ping", timeout=10) == {}
        code, said, lines = tree.run(tree.top, "rollout.apply", "leaf8", "tgt_type=list", ping=10)
        assert (code, said["failure"]["host"]) == (1, "leaf8"), (said, lines)
        code, said, _ = tree.run(tree.lower, "rollout_jobs.find", "leaf*")
        assert said == {"leaf8": True}
    finally:
        tree.close()


def test_a_syndic_of_salt_3007_serves_a_master_of_salt_3008() -> None:
    tree = Tree(f"tree3007-{Host.tag()}", "3007", top_salt="3008")
    try:
        tree.add("leaf7", "3007", "bookworm")
        tree.wait()
        code, said, lines = tree.run(tree.top, "rollout.report", "leaf7", "tgt_type=list")
        assert (code, said["summary"]) == (0, {"unmanaged": 1}), (said, lines)
    finally:
        tree.close()
