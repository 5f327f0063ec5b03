"""
A change of eight hosts, Debian 12 and 13 with minions of every Salt, under load on all of them; and
how they do in one table and on one page.
"""

import json
import pathlib
import subprocess
import time
from typing import Any

import pytest

from ..browser.chromium import Chromium
from ..hosts.fleet import Fleet
from ..hosts.host import Host
from ..hosts.paths import FORMULA
from .test_rollout import Load, generations, pillar

# Their names are not those of other files' hosts, which may run at the same time.
MINIONS = {
    "node1": ("3006", "bookworm"),
    "node2": ("3008", "trixie"),
    "node3": ("3007", "bookworm"),
    "node4": ("3006", "trixie"),
    "node5": ("3007", "trixie"),
    "node6": ("3008", "bookworm"),
    "node7": ("3006", "bookworm"),
    "node8": ("3008", "trixie"),
}
PAGE = "examples/mysite/guestbook/templates/guestbook/start.html"
VIEWS = "examples/mysite/guestbook/views.py"
# Eight hosts on a machine with two cores.
LONG = 2400

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def nodes(fleet: Fleet) -> Fleet:
    for name, (salt, release) in MINIONS.items():
        fleet.add(name, salt=salt, release=release)
    fleet.set_pillar(pillar())
    return fleet


def untouched(host: Host) -> str:
    """What a host that is not to be changed must keep: its files, and the processes that serve."""
    return host.run(
        "find /etc/nginx /etc/uwsgi /etc/systemd/system /srv/mysite -printf '%p %i %C@\\n' | sort;"
        " ps -eo pid,lstart,args --no-headers | grep -E '[u]wsgi --ini|[n]ginx: [mw]' | sort"
    ).stdout


def test_eight_bare_hosts_are_brought_up(nodes: Fleet) -> None:
    code, said, lines = nodes.runner("rollout.apply", "node*", batch="50%", timeout=LONG)
    assert (code, said["hosts"]) == (0, dict.fromkeys(MINIONS, "done")), (said, lines)
    record = nodes.runner("rollout.show", said["id"])[1]
    assert [len(batch) for batch in record["batches"]] == [1, 4, 3]


def test_a_good_release_loses_no_request_anywhere(nodes: Fleet) -> None:
    before = generations(nodes)
    text = (FORMULA / PAGE).read_text()
    nodes.write_state(PAGE, text.replace("</h1>", "</h1><p>The second release</p>"))
    with Load(nodes.hosts).on() as load:
        code, said, lines = nodes.runner("rollout.apply", "node*", batch="25%", timeout=LONG)
    assert (code, said["hosts"]) == (0, dict.fromkeys(MINIONS, "done")), (said, lines)
    print(f"a good release: asked {load.asked}, lost {load.lost}")
    assert load.lost == {name: [] for name in MINIONS}
    assert min(load.asked.values()) > 100
    assert all(before[name] != now for name, now in generations(nodes).items())
    for name, host in nodes.hosts.items():
        assert b"The second release" in host.get("/", "a.compute.amazonaws.com")[2], name


def test_a_bad_release_touches_the_canary_alone_and_loses_nothing_there(nodes: Fleet) -> None:
    before = generations(nodes)
    others = {name: untouched(host) for name, host in nodes.hosts.items() if name != "node1"}
    text = (FORMULA / VIEWS).read_text()
    bad = text.replace(
        'return render(request, "guestbook/start.html"',
        'raise OSError("no disk")\n    return render(request, "guestbook/start.html"',
    )
    assert bad != text
    nodes.write_state(VIEWS, bad)
    with Load(nodes.hosts).on() as load:
        code, said, lines = nodes.runner("rollout.apply", "node*", timeout=LONG)
    nodes.write_state(VIEWS, text)
    assert (code, said["status"]) == (1, "failed"), (said, lines)
    assert (said["failure"]["host"], said["failure"]["site"]) == ("node1", "mysite")
    assert "is answered with 500" in said["failure"]["reason"]
    assert said["hosts"] == {**dict.fromkeys(MINIONS, "pending"), "node1": "reverted"}
    print(f"a bad release: asked {load.asked}, lost {load.lost}")
    assert load.lost == {name: [] for name in MINIONS}
    assert min(load.asked.values()) > 50
    assert generations(nodes) == before
    assert {name: untouched(nodes.hosts[name]) for name in others} == others


def test_the_fleet_in_one_table_and_on_one_page(nodes: Fleet, tmp_path: pathlib.Path) -> None:
    page = tmp_path / "fleet.html"
    nodes.daemons["node7"].terminate()
    nodes.hosts["node5"].run("systemctl", "stop", "uwsgi-mysite.socket", "uwsgi-mysite.service")
    nodes.hosts["node3"].run("rm", "/etc/nginx/sites-enabled/mysite.conf")
    code, said, lines = nodes.runner(
        "rollout.report", "node*", html=str(page), ping=10, timeout=LONG
    )
    assert code == 0, (said, lines)
    assert said["summary"] == {"error": 1, "silent": 1, "warning": 1, "well": 5}
    assert list(said["hosts"]) == [
        "node5", "node7", "node3", "node1", "node2", "node4", "node6", "node8",
    ]  # fmt: skip
    assert said["hosts"]["node5"]["errors"] == [
        "mysite: systemd does not hold its socket",
        "mysite: no generation of uWSGI runs",
    ]
    assert said["hosts"]["node7"]["errors"] == ["its minion did not answer within 10 s"]
    assert said["hosts"]["node3"]["drift"] == {"/etc/nginx/sites-enabled/mysite.conf": "is gone"}
    known = {name: host for name, host in said["hosts"].items() if name != "node7"}
    assert {name: host["salt"][:4] for name, host in known.items()} == {
        name: MINIONS[name][0] for name in known
    }
    assert {host["os"] for host in known.values()} == {"Debian 12", "Debian 13"}

    words = nodes.runner_command("rollout.report", "node*", refresh=False, ping=10)
    words.remove("--out=json")
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONG, check=True)
    print(done.stdout)
    table = done.stdout.splitlines()
    assert table[0].split()[:3] == ["HOST", "STATE", "SITES"]
    assert table[1].split()[:3] == ["node5", "error", "0/1"]
    assert table[-1] == "8 hosts: 1 error, 1 silent, 1 warning, 5 well"
    assert max(map(len, table)) <= 100

    with Chromium(tmp_path) as browser:
        browser.open(page.as_uri())
        rows = "[...document.querySelector('tbody').rows].map(row => row.cells[0].textContent)"
        assert browser.run(rows) == list(said["hosts"])
        assert browser.told == []
    nodes.daemons["node7"].start()
    code, said, lines = nodes.runner("rollout.apply", "node*", timeout=LONG)
    assert code == 0, (said, lines)


def test_a_host_that_is_cut_off_in_the_middle_is_left_out_and_finished_later(nodes: Fleet) -> None:
    change: dict[str, Any] = {"processes": 3}
    nodes.set_pillar(pillar(uwsgi=change))
    cut = nodes.hosts["node2"]
    with Load({name: host for name, host in nodes.hosts.items() if name != "node2"}).on() as load:
        with subprocess.Popen(
            nodes.runner_command(
                "rollout.apply", "node*", "timeout=180", silent="skip", batch=3, ping=10
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as run:
            assert run.stderr is not None and run.stdout is not None
            for line in run.stderr:
                if "changing node2" in line:
                    cut.unplug()
                    break
            rest = run.stderr.read()
            said = json.loads(run.stdout.read())
    try:
        assert said["hosts"] == {**dict.fromkeys(MINIONS, "done"), "node2": "skipped"}, (said, rest)
        assert "node2: left out: it did not answer to state.apply within 180 s" in rest
        assert load.lost == {name: [] for name in load.lost}
    finally:
        cut.plug_in()
    deadline = time.monotonic() + 120
    while not nodes.runner("rollout_jobs.find", "node2")[1]["node2"]:
        assert time.monotonic() < deadline
    code, said, lines = nodes.runner("rollout.apply", "node*", timeout=LONG)
    assert (code, said["status"]) == (0, "done"), (said, lines)
    assert cut.get("/", "a.compute.amazonaws.com")[0] == 200
