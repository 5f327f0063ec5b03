"""
A run killed at any moment, a full disk, two runs at once: the site is served, nginx accepts what is
on the disk, the next run finishes the work, and the one after it has nothing to do.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.host import Host
from .nginx_host import Salt, a_site, leftovers, pillar, prepare, processes, salt_words

pytestmark = pytest.mark.long

TREE = "/etc/nginx"
CALLS = ("rename", "renameat2", "link", "linkat", "symlink", "mkdir", "rmdir", "unlink", "unlinkat")

OLD = pillar({"mysite": a_site(), "old": a_site("old.example.org"), "new": {"absent": True}})
NEW = pillar(
    {
        "mysite": a_site(client_max_body_size="64m"),
        "old": {"absent": True},
        "new": a_site("new.example.org", listen=[80, 8081]),
    }
)


@pytest.fixture(scope="module")
def salt(host: Host) -> Iterator[Salt]:
    prepare(host)
    made = Salt(host)
    yield made
    made.close()


def converge(salt: Salt, wanted: dict[str, Any]) -> None:
    salt.pillar = wanted
    for function in ("nginx_tree.applied", "nginx_process.current"):
        done = salt.state(function)
        assert done["result"] is True, done["comment"]


def sites(host: Host) -> set[str]:
    return set(host.run("ls", f"{TREE}/sites-enabled").stdout.split())


def served(host: Host) -> None:
    # There is no uWSGI behind it: the site's own answer is nginx's 502.
    status, _, _ = host.get("/", host_header="x.compute.amazonaws.com")
    assert status == 502


def traced(host: Host, *options: str) -> "subprocess.CompletedProcess[str]":
    """One run of the tree's state as a process of its own, under strace."""
    words = salt_words(host, "state.single", fun="nginx_tree.applied", name="nginx")
    return host.run("strace", "-f", "-o", "/root/trace", *options, *words, check=False, timeout=240)


def ordinals(host: Host) -> list[tuple[str, int]]:
    """Each of the calls that change a directory under /etc: its name and which one of its name."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for line in host.read("/root/trace").splitlines():
        seen = re.match(r"(\d+) +(\w+)\((.*)", line)
        if seen and seen.group(2) in CALLS:
            pid, call, rest = seen.groups()
            counts[pid, call] = counts.get((pid, call), 0) + 1
            if "/etc/" in rest or "nginx_uwsgi_django" in rest or call in ("unlinkat", "rmdir"):
                found.append((call, counts[pid, call]))
    return found


def test_killed_at_each_change_of_a_directory(host: Host, salt: Salt, full: bool) -> None:
    converge(salt, OLD)
    host.set_pillar(NEW)
    done = traced(host, f"-etrace={','.join(CALLS)}")
    assert done.returncode == 0, done.stdout + done.stderr
    points = ordinals(host)
    exchange = [point for point in points if point[0] == "renameat2"]
    assert exchange and len(points) > 20, points
    if not full:
        # The exchange itself, the first and last of each kind around it, and one in the middle.
        chosen = {exchange[0], points[0], points[-1], points[len(points) // 2]}
        at = points.index(exchange[0])
        chosen |= {points[at - 1], points[at + 1]}
        points = [point for point in points if point in chosen]
    killed = 0
    for call, number in points:
        converge(salt, OLD)
        host.set_pillar(NEW)
        before = processes(host)
        done = traced(host, f"-etrace={call}", f"-einject={call}:signal=KILL:when={number}")
        killed += done.returncode != 0
        # Old or new, never in between; nobody was signalled; a reboot would bring it up.
        assert sites(host) in ({"mysite.conf", "old.conf"}, {"mysite.conf", "new.conf"})
        host.run("nginx", "-t")
        assert processes(host) == before
        served(host)
        converge(salt, NEW)
        assert sites(host) == {"mysite.conf", "new.conf"}
        assert not leftovers(host), (call, number)
        assert host.get("/", host_header="new.example.org", port=8081)[0] == 502
        for function in ("nginx_tree.applied", "nginx_process.current"):
            assert salt.state(function)["changes"] == {}, (call, number)
    # Salt's own calls before may be one more or less from run to run: a point may be missed.
    assert killed >= len(points) - 2, (killed, len(points))


def test_killed_while_nginx_tests(host: Host, salt: Salt) -> None:
    """The tested tree lives in a namespace: it goes with the process."""
    converge(salt, OLD)
    host.set_pillar(NEW)
    slow = '#!/bin/sh\ncase "$*" in *-t*) sleep 4 ;; esac\nexec /usr/sbin/nginx "$@"\n'
    host.write("/usr/local/sbin/nginx", slow, mode=0o755)
    beside = host.run("ls -a /etc").stdout
    words = salt_words(host, "state.single", fun="nginx_tree.applied", name="nginx")
    run = subprocess.Popen(
        [*host.enter(), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while host.run("pgrep", "-x", "sleep", check=False).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    host.run("kill -9 $(pgrep -f '[n]ginx_tree.applied')")
    assert run.wait(60) != 0
    assert sites(host) == {"mysite.conf", "old.conf"}
    assert host.run("ls -a /etc").stdout == beside
    assert "nginx_tree" not in host.read("/proc/1/mounts")
    host.run("rm /usr/local/sbin/nginx")
    converge(salt, NEW)
    assert salt.state("nginx_tree.applied")["changes"] == {}


@pytest.mark.parametrize("call", ["fsync", "renameat2", "linkat", "mkdir"])
def test_a_disk_that_is_full(host: Host, salt: Salt, call: str) -> None:
    converge(salt, OLD)
    host.set_pillar(NEW)
    before = processes(host)
    traced(host, f"-etrace={call}")
    # The run above has gone through: which of its calls was the first about the tree?
    seen: dict[str, int] = {}
    number = 0
    for line in host.read("/root/trace").splitlines():
        found = re.match(rf"(\d+) +{call}\((.*)", line)
        if found:
            pid = found.group(1)
            seen[pid] = seen.get(pid, 0) + 1
            if call == "fsync" or "nginx_uwsgi_django-" in found.group(2):
                number = seen[pid]
                break
    assert number
    converge(salt, OLD)
    host.set_pillar(NEW)
    before = processes(host)
    done = traced(host, f"-etrace={call}", f"-einject={call}:error=ENOSPC:when={number}+")
    assert done.returncode != 0
    assert "No space left on device" in done.stdout
    assert sites(host) == {"mysite.conf", "old.conf"}
    assert processes(host) == before
    assert not leftovers(host)
    converge(salt, NEW)
    assert salt.state("nginx_tree.applied")["changes"] == {}


def test_two_runs_at_once(host: Host, salt: Salt) -> None:
    converge(salt, OLD)
    host.set_pillar(NEW)
    words = salt_words(host, "nginx_tree.apply")
    runs = [
        subprocess.Popen(
            [*host.enter(), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for run in runs:
        stdout, stderr = run.communicate(timeout=240)
        assert run.returncode == 0, stdout + stderr
    assert sites(host) == {"mysite.conf", "new.conf"}
    assert not leftovers(host)
    converge(salt, NEW)
    assert salt.state("nginx_tree.applied")["changes"] == {}


def test_a_third_party_that_keeps_writing(host: Host, salt: Salt) -> None:
    """No write of theirs is lost, whether our change went in or not."""
    converge(salt, OLD)
    writer = (
        "import os, time, itertools\n"
        "for n in itertools.count():\n"
        f"    open('{TREE}/snippets/log', 'a').write(f'{{n}}\\n')\n"
        f"    open('{TREE}/snippets/new', 'w').write(f'{{n}}\\n')\n"
        f"    os.rename('{TREE}/snippets/new', '{TREE}/snippets/last')\n"
        "    time.sleep(0.15)\n"
    )
    host.write("/root/writer.py", writer)
    host.run("systemd-run --unit=writer python3 /root/writer.py && sleep 0.5")
    results = []
    for wanted in (NEW, OLD) * 3:
        salt.pillar = wanted
        results.append(salt.state("nginx_tree.applied"))
    host.run("systemctl is-active writer")
    host.run("systemctl stop writer")
    lines = host.read(f"{TREE}/snippets/log").split()
    assert lines == [str(n) for n in range(len(lines))]
    assert int(host.read(f"{TREE}/snippets/last")) >= int(lines[-1]) - 1
    assert any(result["result"] is True for result in results)
    for result in results:
        assert result["result"] is True or "somebody else kept writing" in result["comment"]
    converge(salt, NEW)
    assert not leftovers(host)
