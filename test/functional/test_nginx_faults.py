"""
A run killed at any moment, a full disk, two runs at once: the site is served, nginx accepts what is
on the disk, the next run finishes the work, and the one after it has nothing to do.
"""

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ..hosts.host import Host
from . import nginx_kill as kill
from .nginx_host import (
    Load,
    Salt,
    a_site,
    leftovers,
    pillar,
    prepare,
    processes,
    rows,
    salt_words,
    sites,
    workers,
)

pytestmark = pytest.mark.long

TREE = "/etc/nginx"

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
    prepare(host, "curl")
    made = Salt(host)
    yield made
    made.close()


def converge(salt: Salt, wanted: dict[str, Any]) -> None:
    salt.pillar = wanted
    for function in ("nginx_tree.applied", "nginx_process.current"):
        done = salt.state(function)
        assert done["result"] is True, done["comment"]


def traced(host: Host, *options: str) -> "subprocess.CompletedProcess[str]":
    """One run of the tree's state as a process of its own, under strace."""
    words = salt_words(host, "state.single", fun="nginx_tree.applied", name="nginx", unproven=True)
    return host.run("strace", "-f", "-o", "/root/trace", *options, *words, check=False, timeout=240)


def test_killed_at_any_call_where_files_go_in_one_by_one(host: Host, salt: Salt) -> None:
    """On a mount point, where each of the steps is one that nginx accepts."""
    host.run(f"cp -a {TREE} /root/tree && mount -t tmpfs tree {TREE} && cp -a /root/tree/. {TREE}")
    old = kill.tree("one", old=a_site("old.example.org"), new={"absent": True})
    # Its log format comes and goes, and so does who refuses unknown names.
    new = kill.tree("", old={"absent": True}, new={"absent": True})

    def steps(found: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        return [point for point in found if "fork" not in point[0] and "sleep" not in point[0]]

    try:
        for one, other in ((old, new), (new, old)):

            def begin(wanted: dict[str, Any] = one) -> None:
                salt.pillar = wanted
                kill.run(salt)

            kill.sweep(host, salt, begin, other, steps, lambda: None)
    finally:
        host.run(f"umount {TREE} && rm -r /root/tree")


@pytest.mark.parametrize("held", [False, True])
def test_one_address_in_the_place_of_all(host: Host, salt: Salt, held: bool) -> None:
    """Told before anything changes; what is told to be done is all that there is to do."""

    def listening(*listen: int | str) -> dict[str, Any]:
        gone = {"old": {"absent": True}, "new": {"absent": True}}
        site = a_site(snippet=kill.ALIVE, listen=list(listen))
        return pillar({"mysite": site, **gone}, nginx={"socket": held})

    def hold() -> None:
        done = salt.state("nginx_socket.held")
        assert done["result"] is True, done["comment"]
        # An nginx that serves keeps the sockets of its own: they go over when it is started next.  By
        # hand, so that times alone tell what it has read: not within two seconds of a change.
        host.run("sleep 2; systemctl restart nginx")
        assert ("0.0.0.0:80" in host.run("systemctl list-units '*.socket'").stdout) is (
            held and salt.pillar == listening(80)
        )

    def asked(address: str) -> str:
        words = ["curl", "-s", "-H", f"Host: {kill.NAME}", f"http://{address}/alive"]
        return str(host.run(*words, check=False).stdout)

    converge(salt, listening(80))
    hold()
    for listen in ("127.0.0.1:80", 80):
        serving, before = processes(host), rows(host)
        salt.pillar = listening(listen)
        for _ in range(2):
            failed = salt.state("nginx_tree.applied")
            assert failed["result"] is False, failed["comment"]
            assert (processes(host), rows(host)) == (serving, before)
            assert asked("127.0.0.1") == "alive"
        told = re.search(r"`(systemctl stop [^`]*)`", failed["comment"])
        assert told, failed["comment"]
        assert ("call nginx_socket.remove, then" in failed["comment"]) is held
        if held:
            salt.call("nginx_socket.remove")
            assert asked("127.0.0.1") == "alive"
        host.run(told[1])
        converge(salt, listening(listen))
        hold()
        assert asked("127.0.0.1") == "alive"
        assert asked(host.address) == ("alive" if listen == 80 else "")
        assert kill.run(salt) == [{}, {}]
    converge(salt, listening("127.0.0.1:80", 80))
    assert asked("127.0.0.1") == asked(host.address) == "alive"
    assert salt.state("nginx_socket.absent")["result"] is True


def test_six_hundred_sites(host: Host, salt: Salt) -> None:
    """One of them changed is one file, and one reload that is seen; a log of each needs files."""
    alive = {"mysite": a_site(snippet=kill.ALIVE), "old": {"absent": True}, "new": {"absent": True}}
    converge(salt, pillar(alive))
    many: dict[str, Any] = {
        f"site{n:03}": a_site(f"site{n:03}.example.org", f"www.site{n:03}.example.org")
        for n in range(600)
    }

    def changed() -> list[dict[str, Any]]:
        salt.pillar = pillar({**alive, **many})
        return kill.run(salt)

    with Load(host, 80, "/alive", kill.NAME) as load:
        tree, process = changed()
        assert len(tree) == 1201 and set(process) == {"configuration"}
        common = host.read(f"{TREE}/conf.d/nginx_uwsgi_django.conf")
        assert "server_names_hash_max_size 4096;" in common
        assert not re.search("could not build|conflicting", host.run("nginx -t 2>&1").stdout)
        assert changed() == [{}, {}]
        before, old = rows(host), workers(host)
        many["site299"]["client_max_body_size"] = "64m"
        tree, process = changed()
        path = f"{TREE}/sites-available/site299.conf"
        assert list(tree) == [path] and set(process) == {"configuration"}
        assert not workers(host) & old
        after = rows(host)
        assert {one for one in after if after[one] != before.get(one)} - {path} <= {
            TREE,
            f"{TREE}/sites-available",
        }
        assert host.get("/", host_header="site299.example.org")[0] == 502
        # 600 logs: those of the new configuration are opened beside those of the old.
        for name, site in many.items():
            site["access_log"] = {"path": f"/var/log/nginx/{name}.log"}
        changed()
        many["site299"]["client_max_body_size"] = "32m"
        salt.pillar = pillar({**alive, **many})
        failed = salt.state("nginx_tree.applied")
        assert failed["result"] is False and "Too many open files" in failed["comment"]
        told = re.search(r"`(prlimit [^`]*)`", failed["comment"])
        assert told
        host.run(told[1])
        assert [len(one) for one in changed()] == [1, 1]
        for name in many:
            many[name] = {"absent": True}
        changed()
        assert sites(host) == {"mysite.conf"}
    print(len(load.answers), load.failures)
    assert load.failures == []


def test_killed_while_nginx_tests(host: Host, salt: Salt) -> None:
    """The tested tree lives in a namespace: it goes with the process."""
    converge(salt, OLD)
    host.set_pillar(NEW)
    slow = '#!/bin/sh\ncase "$*" in *-t*) sleep 4 ;; esac\nexec /usr/sbin/nginx "$@"\n'
    host.write("/usr/local/sbin/nginx", slow, mode=0o755)
    beside = host.run("ls -a /etc").stdout
    words = salt_words(host, "state.single", fun="nginx_tree.applied", name="nginx", unproven=True)
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
    words = salt_words(host, "nginx_tree.ensure", unproven=True)
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
        assert result["result"] is True or "another program kept writing" in result["comment"]
    converge(salt, NEW)
    assert not leftovers(host)
