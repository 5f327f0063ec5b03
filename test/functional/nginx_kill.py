"""
nginx's part of a run, killed at any of its calls: what must hold then, asked of the host.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..hosts.host import Host
from .nginx_host import Killed, Load, Salt, a_site, calls_of, leftovers, pillar, processes

#: What changes a directory, starts a process, signals one, or waits.
CALLS = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat"),
    *("fork", "vfork", "clone", "clone3", "kill", "clock_nanosleep"),
)
STATES = ("nginx_tree.applied", "nginx_process.current")

#: An answer of nginx's own in a file of the formula's: there is no uWSGI behind it.
ALIVE = "location = /alive {\n    return 200 alive;\n}\n"
NAME = "x.compute.amazonaws.com"


def tree(log: str, **sites: Any) -> dict[str, Any]:
    """A pillar whose site answers, and may have a log format of its own."""
    own = {"access_log": {"path": "/var/log/nginx/own.log", "format": log}} if log else {}
    nginx = {"log_formats": {log: {"format": "$uri"}} if log else {}}
    return pillar({"mysite": a_site(snippet=ALIVE, **own), **sites}, nginx=nginx)


def run(salt: Salt) -> list[dict[str, Any]]:
    """What the states changed; each of them is True."""
    done = [salt.state(function) for function in STATES]
    assert all(one["result"] is True for one in done), [one["comment"] for one in done]
    return [one["changes"] for one in done]


def points(trace: str) -> list[tuple[str, int]]:
    """The calls of a trace that are about the host: name, and which one of its name."""
    # Not Salt's own cache, and of the waits every third.
    return [
        (call, number)
        for call, number, words in calls_of(trace, CALLS)
        if "/var/lib/salt-" not in words and not (call == "clock_nanosleep" and number % 3)
    ]


def sweep(
    host: Host,
    salt: Salt,
    old: Callable[[], None],
    new: dict[str, Any],
    draw: Callable[[Sequence[Any]], Sequence[Any]],
    survived: Callable[[], None],
) -> None:
    """
    Kill the run that brings the host from one state to a pillar, at each drawn one of its calls.

    old
        brings the host to where the run begins
    draw
        chooses among the calls
    survived
        asserts what must hold right after the kill
    """
    old()
    salt.pillar = new
    with salt.traced(f"-etrace={','.join(CALLS)}"):
        run(salt)
    found = points(host.read("/root/trace"))
    drawn, missed = list(draw(found)), []
    due = len(drawn)
    with Load(host, 80, "/alive", NAME) as load:
        for call, number in drawn:
            old()
            salt.pillar = new
            answered = len(load.answers)
            with salt.traced(f"-etrace={call}", f"-einject={call}:signal=KILL:when={number}"):
                try:
                    run(salt)
                    missed.append((call, number))
                    # Waits and threads are not always as many: an earlier one of them instead.
                    if number > 1:
                        drawn.append((call, number * 2 // 3))
                except Killed:
                    salt.start()
            assert len(load.answers) > answered, (call, number)
            # A reboot would bring it up.
            host.run("nginx", "-t")
            survived()
            run(salt)
            assert not leftovers(host), (call, number)
            before = processes(host)
            assert run(salt) == [{}, {}], (call, number)
            assert processes(host) == before
    print(len(found), due, missed, len(load.answers), load.failures)
    assert load.failures == []
    assert len(drawn) - len(missed) >= due * 0.8, missed
