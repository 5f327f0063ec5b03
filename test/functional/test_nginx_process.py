"""
The running nginx is the one on the disk: asked of the host, and proven after each signal.
"""

import re
import time
from collections.abc import Callable, Iterator
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
    sites,
    workers,
)

PROBE = "/etc/nginx/conf.d/probe.conf"
NOTE = "/run/nginx_uwsgi_django/nginx_process.json"


@pytest.fixture(scope="module")
def salt(host: Host) -> Iterator[Salt]:
    prepare(host)
    made = Salt(host)
    assert made.state("nginx_tree.applied")["result"] is True
    yield made
    made.close()


def master(host: Host) -> int:
    return int(host.run("systemctl", "show", "--value", "-p", "MainPID", "nginx").stdout)


def current(salt: Salt, **given: Any) -> dict[str, Any]:
    return salt.state("nginx_process.current", **given)


@pytest.fixture
def settled(host: Host, salt: Salt) -> dict[int, str]:
    """nginx runs what is on the disk, with a page of its own on port 8080; its processes."""
    salt.pillar = pillar()
    host.run("systemctl reset-failed nginx")
    host.write(PROBE, "server { listen 8080; return 200 one; }\n")
    done = salt.state("nginx_tree.applied")
    assert done["result"] is True, done["comment"]
    done = current(salt)
    assert done["result"] is True, done["comment"]
    # Old workers may take a moment to go.
    deadline = time.monotonic() + 10
    while any("shutting down" in title for title in processes(host).values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return processes(host)


def test_started_and_enabled(host: Host, salt: Salt) -> None:
    host.run("systemctl disable --now nginx")
    dry = current(salt, test=True)
    assert dry["result"] is None
    assert set(dry["changes"]) == {"enabled", "started"}
    assert host.run("systemctl is-active nginx", check=False).stdout.strip() == "inactive"
    assert not host.exists("/run/nginx.pid")
    done = current(salt)
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {"enabled", "started"}
    assert host.run("systemctl is-enabled nginx").stdout.strip() == "enabled"
    assert host.run("systemctl is-active nginx").stdout.strip() == "active"
    serving = processes(host)
    for test in (True, False):
        again = current(salt, test=test)
        assert (again["result"], again["changes"]) == (True, {})
    assert processes(host) == serving


def test_a_masked_unit(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    host.run("systemctl stop nginx && systemctl mask nginx")
    try:
        done = current(salt)
        assert done["result"] is False
        assert "masked" in done["comment"]
    finally:
        host.run("systemctl unmask nginx && systemctl start nginx")


def test_the_reload_that_a_killed_run_still_owes(
    host: Host, salt: Salt, settled: dict[int, str]
) -> None:
    salt.pillar = pillar({"mysite": a_site(charset="koi8-r")})
    dry = current(salt, test=True)
    assert dry["result"] is None and "its tree would change" in dry["comment"]
    # The run ends here, as if it had been killed.
    assert salt.state("nginx_tree.applied")["result"] is True
    assert processes(host) == settled
    dry = current(salt, test=True)
    assert dry["result"] is None and set(dry["changes"]) == {"configuration"}
    assert processes(host) == settled
    before = workers(host)
    with Load(host) as load:
        done = current(salt)
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {"configuration"}
    assert load.answers and not load.failures
    assert master(host) in settled
    assert workers(host) and not workers(host) & before
    serving, seen = processes(host), rows(host, "/etc/nginx", "/run/nginx_uwsgi_django")
    again = current(salt)
    assert (again["result"], again["changes"]) == (True, {})
    assert processes(host) == serving
    assert rows(host, "/etc/nginx", "/run/nginx_uwsgi_django") == seen


@pytest.mark.parametrize(
    "change",
    [
        f"echo 'server {{ listen 8080; return 200 two; }}' > {PROBE}",
        f"cp -p {PROBE} /root/p; sed -i s/one/two/ {PROBE}; touch -r /root/p {PROBE}",
        f"rm {PROBE}",
        "touch /etc/nginx/conf.d/new.conf && rm /etc/nginx/conf.d/new.conf",
        "mkdir -p /opt/x && touch /opt/x/a.conf && echo 'include /opt/x/*.conf;' > "
        "/etc/nginx/conf.d/x.conf",
        "touch /opt/x/a.conf",
        "touch /opt/x/b.conf",
        "rm /opt/x/b.conf",
        "rm /etc/nginx/conf.d/x.conf",
    ],
)
def test_what_counts_as_a_change(
    host: Host, salt: Salt, settled: dict[int, str], change: str
) -> None:
    host.run(change)
    done = current(salt)
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {"configuration"}
    assert current(salt)["changes"] == {}
    if "two" in change:
        assert host.get("/", port=8080)[2] == b"two"


def test_without_the_note(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    """The times of the files and of the workers are enough, but for the seconds around a start."""
    host.run(f"touch {PROBE} && systemctl reload nginx && rm {NOTE} && sleep 0.5")
    assert "reload" in salt.call("nginx_process.diff"), "too close to tell"
    time.sleep(3)
    host.run("systemctl reload nginx && sleep 0.5")
    assert salt.call("nginx_process.diff") == {}
    host.run("touch", PROBE)
    assert "reload" in salt.call("nginx_process.diff")
    time.sleep(3)
    host.run("nginx -s reload && sleep 0.5")
    assert salt.call("nginx_process.diff") == {}
    # A worker that died and was replaced has not read anything new.
    host.run("touch", PROBE)
    host.run("kill", "-9", str(min(workers(host))))
    time.sleep(2.5)
    assert "reload" in salt.call("nginx_process.diff")


def test_a_reload_by_hand_after_the_note(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    host.run("systemctl reload nginx && sleep 0.5")
    serving = processes(host)
    assert current(salt)["changes"] == {}
    assert processes(host) == serving


def test_a_broken_tree_is_red_every_time(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    host.write("/etc/nginx/conf.d/theirs.conf", "their_mistake;\n")
    try:
        for test in (False, True, False):
            done = current(salt, test=test)
            assert done["result"] is False
            assert done["changes"] == {}
            assert 'unknown directive "their_mistake"' in done["comment"]
            assert processes(host) == settled
    finally:
        host.run("rm /etc/nginx/conf.d/theirs.conf")
    assert current(salt)["result"] is True


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("between", "tests", "told"),
    [
        ("true", 1, ""),
        # Another time and inode, the same tree.
        (f"cp {PROBE} /root/probe; cp --remove-destination /root/probe {PROBE}", 1, ""),
        ("echo >/etc/nginx/conf.d/theirs.conf", 2, ""),
        ("echo '# theirs' >>/srv/outside.conf", 2, ""),
        (
            "cp -p /usr/sbin/nginx /usr/sbin/nginx.new; mv /usr/sbin/nginx.new /usr/sbin/nginx",
            2,
            "",
        ),
        ("echo 'their_mistake;' >/etc/nginx/conf.d/theirs.conf", 2, "their_mistake"),
    ],
)
def test_a_tree_is_judged_once(
    host: Host, salt: Salt, settled: dict[int, str], between: str, tests: int, told: str
) -> None:
    """In the run that puts it in place, unless somebody else was there before the reload."""
    host.write("/srv/outside.conf", "keepalive_requests 999;\n")
    host.write(PROBE, "include /srv/outside.conf;\nserver { listen 8080; return 200 one; }\n")
    salt.pillar = pillar({"mysite": a_site(charset="koi8-r")})
    host.set_pillar(salt.pillar)
    steps = [("nginx_tree", "applied", "nginx"), ("cmd", "run", between)]
    steps.append(("nginx_process", "current", "nginx"))
    high = {
        module: {module: [function, {"name": name}, {"order": order}]}
        for order, (module, function, name) in enumerate(steps, 1)
    }
    # There is no uWSGI on this host to prove the site.
    high["nginx_tree"]["nginx_tree"].append({"unproven": True})
    try:
        with salt.traced("-f", "-e", "trace=execve"):
            done = salt.call("state.high", data=high)
        trace = host.run("cat /root/trace").stdout
        assert (
            len(re.findall(r'execve\("/usr/sbin/nginx", \["/usr/sbin/nginx", "-t"', trace)) == tests
        )
        (last,) = (one for key, one in done.items() if key.startswith("nginx_process"))
        assert last["result"] is not bool(told), last["comment"]
        assert told in last["comment"]
    finally:
        host.run("rm -f /etc/nginx/conf.d/theirs.conf")
        host.write(PROBE, "server { listen 8080; return 200 one; }\n")
        assert current(salt)["result"] is True


def test_a_port_that_somebody_else_holds(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    """It passes `nginx -t`, `systemctl reload` returns 0, and nothing of it is in force."""
    host.run("systemd-run --unit=squatter python3 -m http.server 8081 && sleep 1")
    host.write("/etc/nginx/conf.d/theirs.conf", "server { listen 8081; return 200 mine; }\n")
    try:
        host.run("nginx -t")
        for _ in range(2):
            done = current(salt)
            assert done["result"] is False
            assert "bind() to 0.0.0.0:8081 failed" in done["comment"]
            assert "Address already in use" in done["comment"]
            assert processes(host) == settled
        host.run("systemctl stop squatter")
        done = current(salt)
        assert done["result"] is True, done["comment"]
        assert host.get("/", port=8081)[2] == b"mine"
    finally:
        host.run("rm /etc/nginx/conf.d/theirs.conf")


def replace_the_binary(host: Host) -> None:
    # As dpkg does it: a new file is renamed over the old one.
    host.run("cp -p /usr/sbin/nginx /usr/sbin/nginx.new && mv /usr/sbin/nginx.new /usr/sbin/nginx")


def test_a_replaced_binary_takes_over(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    old = master(host)
    replace_the_binary(host)
    assert "(deleted)" in host.run(f"readlink /proc/{old}/exe").stdout
    dry = current(salt, test=True)
    assert dry["result"] is None and set(dry["changes"]) == {"binary"}
    assert processes(host) == settled
    with Load(host) as load:
        done = current(salt)
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {"binary"}
    assert len(load.answers) > 10 and not load.failures
    new = master(host)
    assert new != old and f"{old}" not in host.run("pgrep nginx").stdout.split()
    assert host.run("cat /run/nginx.pid").stdout.strip() == str(new)
    assert "(deleted)" not in host.run(f"readlink /proc/{new}/exe").stdout
    assert host.run("systemctl is-active nginx").stdout.strip() == "active"
    assert host.run("journalctl -q -u nginx --since=-1min -p warning").stdout == ""
    assert current(salt)["changes"] == {}
    # systemd has followed: it still knows what to reload and to stop.
    host.run("systemctl reload nginx")
    host.run("systemctl stop nginx")
    assert not processes(host)
    host.run("systemctl start nginx")


@pytest.mark.parametrize("what", ["tree", "binary"])
def test_a_run_killed_at_any_of_its_calls(
    host: Host, salt: Salt, settled: dict[int, str], sample: Callable, what: str
) -> None:
    """Old or new, never in between; the next run finishes the work, the third has none."""
    old = kill.tree("one", old=a_site("old.example.org"), new={"absent": True})
    new = kill.tree("two", old={"absent": True}, new=a_site("new.example.org", listen=[80, 8081]))
    links = [{"mysite.conf", "old.conf"}, {"mysite.conf", "new.conf"}]

    def begin() -> None:
        salt.pillar = old
        kill.run(salt)
        if what == "binary":
            replace_the_binary(host)

    def survived() -> None:
        assert sites(host) in (links if what == "tree" else links[:1])

    kill.sweep(
        host, salt, begin, new if what == "tree" else old, lambda all_: sample(all_, 1), survived
    )
    assert sum("master process" in title for title in processes(host).values()) == 1


@pytest.mark.long
def test_an_upgrade_that_was_killed_half_way(
    host: Host, salt: Salt, settled: dict[int, str]
) -> None:
    old = master(host)
    replace_the_binary(host)
    host.run("kill", "-USR2", str(old))
    time.sleep(1)
    assert sum("master process" in title for title in processes(host).values()) == 2
    assert "upgrade" in salt.call("nginx_process.diff")
    # What came after it was started it has not read.
    host.write("/etc/nginx/conf.d/late.conf", "server { listen 8083; return 204; }\n")
    with Load(host) as load:
        done = current(salt)
    assert done["result"] is True, done["comment"]
    assert host.get("/", port=8083)[0] == 204
    assert load.answers and not load.failures
    host.run("rm", "/etc/nginx/conf.d/late.conf")
    assert "configuration" in current(salt)["changes"]
    assert sum("master process" in title for title in processes(host).values()) == 1
    assert master(host) != old
    assert current(salt)["result"] is True
    assert current(salt)["changes"] == {}


@pytest.mark.long
def test_a_replaced_library(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    old = master(host)
    find = f"awk '$6 ~ /libpcre2|libcrypto/ {{print $6; exit}}' /proc/{old}/maps"
    library = host.run(find).stdout.strip()
    assert library
    host.run(f"cp -p {library} {library}.new && mv {library}.new {library}")
    done = current(salt)
    assert done["result"] is True, done["comment"]
    assert library in str(done["changes"]["binary"])
    assert current(salt)["changes"] == {}


@pytest.mark.long
def test_an_upgrade_that_does_not_take_over(
    host: Host, salt: Salt, settled: dict[int, str]
) -> None:
    old = master(host)
    # A binary that tests well and does not start: it is told so by its environment.
    script = '#!/bin/sh\n[ -n "$NGINX" ] && exit 1\nexec /usr/sbin/nginx.real "$@"\n'
    host.write("/usr/sbin/nginx.new", script, mode=0o755)
    host.run("cd /usr/sbin && cp -p nginx nginx.real && mv nginx.new nginx")
    try:
        with Load(host) as load:
            done = current(salt, timeout=3)
        assert done["result"] is False
        assert "did not take over" in done["comment"]
        assert load.answers and not load.failures
        assert master(host) == old
    finally:
        host.run("mv /usr/sbin/nginx.real /usr/sbin/nginx")


def test_status(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    status = salt.call("nginx_process.status", lines=3)
    assert status["loaded"] and status["enabled"] and status["active"] and status["running"]
    assert status["pid"] == master(host)
    assert status["version"] in host.run("nginx -v 2>&1").stdout
    assert status["config_current"] is True and status["binary_current"] is True
    assert status["stale"] is None
    assert status["error_log"]["path"] == "/var/log/nginx/error.log"
    assert len(status["error_log"]["lines"]) <= 3
    host.run("touch", PROBE)
    status = salt.call("nginx_process.status")
    assert status["config_current"] is False and status["stale"]
    host.run("systemctl stop nginx")
    status = salt.call("nginx_process.status")
    assert not status["running"] and status["pid"] is None and status["config_current"] is None
    assert status["error_log"]["path"] == "/var/log/nginx/error.log"
    host.run("systemctl start nginx")


def test_after_a_reboot_nothing_is_due(host: Host, salt: Salt, settled: dict[int, str]) -> None:
    salt.close()
    # A change of the last seconds would be too close to the start to tell.
    time.sleep(3)
    host.reboot()
    deadline = time.monotonic() + 30
    while not workers(host):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not host.exists(NOTE)
    serving = processes(host)
    assert host.salt_call("nginx_process.diff", pillar=pillar()) == {}
    assert processes(host) == serving
    assert not leftovers(host)
