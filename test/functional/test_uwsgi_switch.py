"""
No request is lost when a generation follows another.
"""

import re
import subprocess
import time

import pytest

from test.hosts.salts import program

from . import uwsgi_load as load
from . import uwsgi_site as site

pytestmark = pytest.mark.usefixtures("_site")

# Switches between two kept generations, many times in one process.
SWITCH = """
import sys, salt.client, salt.config
opts = salt.config.minion_config(sys.argv[1] + "/minion")
opts["file_client"] = "local"
caller = salt.client.Caller(mopts=opts)
for number in range(int(sys.argv[2])):
    done = caller.cmd("uwsgi_generation.switch", "mysite", sys.argv[3 + number % 2])
    assert isinstance(done, dict) and done["changes"], done
"""


@pytest.fixture(scope="module")
def _site(host):
    site.prepare(host)
    host.write("/root/switch.py", SWITCH)
    host.write("/root/ask.py", load.SOCKET + "\nasker(sys.argv[1])()\nprint('got it')\n")
    assert site.state(host, "uwsgi_socket.listening")["result"] is True


def two_generations(host, **uwsgi):
    """The digests of two generations that differ in an option of no effect; the first runs."""
    digests = []
    for number in (2, 1):
        host.set_pillar(
            site.pillar(uwsgi={"processes": 3, "options": {"harakiri": 60 + number}, **uwsgi})
        )
        done = site.running(host)
        assert done["result"] is True, done["comment"]
        digests.append(done["comment"].split()[1])
    return digests[::-1]


def switches(host, count, digests):
    python = program("3008", "python")
    host.run(
        python,
        "/root/switch.py",
        host.salt_config("3008"),
        str(count),
        *digests[::-1],
        timeout=3600,
    )


@pytest.mark.parametrize(("threads", "count"), [(1, 6), pytest.param(3, 3, marks=pytest.mark.long)])
def test_switches_under_load_lose_nothing(host, threads, count, full):
    digests = two_generations(host, threads=threads)
    told = load.under_load(
        host, load.SOCKET, lambda: switches(host, 100 if full else count, digests)
    )
    assert told["lost"] == []
    assert told["asked"] > 1000
    # No stall either: the longest that a request waited, the machine being busy with the tests.
    assert told["longest"] < 5


def test_a_request_longer_than_a_switch_is_answered(host):
    digests = two_generations(host, processes=1)
    host.run(
        "sed -i 's/sleep=1.5/sleep=6/' /root/ask.py; "
        "(python3 /root/ask.py slow >/root/slow 2>&1 &); sleep 0.5"
    )
    switches(host, 1, digests)
    assert host.read("/root/slow") == "got it\n"


@pytest.mark.long
def test_a_request_longer_than_the_pillars_time_does_not_hold_the_run(host):
    digests = two_generations(host, processes=1, stop_timeout=2)
    host.run(
        "sed 's/sleep=[0-9.]*/sleep=300/' /root/ask.py >/root/ask-long.py; "
        "(python3 /root/ask-long.py slow >/dev/null 2>&1 &); sleep 0.5"
    )
    started = time.monotonic()
    switches(host, 1, digests)
    assert time.monotonic() - started < 60
    assert site.generations(host).get(f"uwsgi-mysite@{digests[0]}.service") in (None, "inactive")
    assert host.run("systemctl --failed --no-legend").stdout == ""


# A worker that has taken a connection and not marked itself busy yet: uWSGI's own graceful stop
# drops the request there.  strace holds a worker in that gap, which is otherwise some
# microseconds wide.
GAP = """
strace -f -p {worker} -o /root/trace -e trace=accept4 -e inject=accept4:delay_exit=12000000 \\
    >/dev/null 2>&1 & STRACE=$!
until grep -q TracerPid:.[1-9] /proc/{worker}/status; do sleep 0.05; done
(python3 /root/ask.py fast >/root/answer 2>&1; echo $? >>/root/answer) & ASK=$!
sleep 0.3
{act}
wait $ASK
kill $STRACE
"""


@pytest.mark.parametrize(
    "how",
    [
        # What the gap is without us.
        pytest.param("uWSGI's own stop", marks=pytest.mark.long),
        pytest.param("uWSGI's own reload", marks=pytest.mark.long),
        "a switch",
        pytest.param("a reload", marks=pytest.mark.long),
    ],
)
def test_the_gap_in_uwsgis_graceful_stop_is_closed(host, how):
    digests = two_generations(host, processes=1)
    (worker,) = host.salt_call("uwsgi_status.show", "mysite")["workers"]
    unit = f"uwsgi-mysite@{digests[0]}"
    act = {
        "uWSGI's own stop": f"systemctl stop {unit}",
        "uWSGI's own reload": f"systemctl kill --kill-who=main --signal=HUP {unit}",
        # The new generation must not be the one that takes the request.
        "a switch": f"{program('3008', 'python')} /root/switch.py {host.salt_config('3008')} 1 "
        f"{digests[1]} {digests[0]}",
        "a reload": f"{program('3008', 'salt-call')} --local "
        f"--config-dir={host.salt_config('3008')} uwsgi_generation.reload mysite",
    }[how]
    host.run(
        "rm -f /root/answer; " + GAP.format(worker=worker["pid"], act=act),
        check=False,
        timeout=180,
    )
    answer = host.read("/root/answer")
    if how in ("a switch", "a reload"):
        assert answer == "got it\n0\n"
        # And it was done.
        assert digests[how == "a switch"] in site.active(host)
        assert worker["pid"] not in site.pids(host)
    else:
        # Were it ever otherwise, the care that drain() takes would not be needed any more.
        assert re.search("ConnectionReset|ValueError", answer)


@pytest.mark.long
def test_a_drained_generation_takes_nothing_more_and_drains_again(host):
    digests = two_generations(host, processes=2)
    assert host.salt_call("uwsgi_generation.drain", "mysite", digests[0]) is True
    # Once more, as a run does that follows a killed one: it must not wake up.
    assert host.salt_call("uwsgi_generation.drain", "mysite", digests[0]) is True
    asked = host.run("timeout 3 python3 /root/ask.py fast", check=False)
    assert asked.returncode == 124
    switches(host, 1, digests)
    assert site.ask(host)["status"] == 200


# --- Through nginx, as users come -----------------------------------------------------------------

OTHER_VENV = "/opt/other-venv"


@pytest.fixture(scope="module")
def web(host, _site):
    """The host with nginx in front, a second user to change to, and a port that is taken."""
    host.install("nginx", recommends=False)
    host.run("useradd --system --user-group --home-dir /nonexistent other")
    host.run("systemd-run --quiet python3 -m http.server 8099 --bind 127.0.0.1 --directory /srv")
    both(host)
    # The address that the load asks, and nothing else that the host could serve there.
    assert host.get("/", "www.example.org")[2] == b"one"
    return host


def pillar(**more):
    return site.pillar(**{**more, "uwsgi": {"processes": 3, **more.get("uwsgi", {})}})


def nginx(host):
    # These tests take no site further than its generation: nginx is not to wait for more.
    for function, more in (
        ("nginx_tree.applied", {"unproven": True}),
        ("nginx_process.current", {}),
    ):
        (done,) = host.salt_call("state.single", function, "nginx", **more).values()
        assert done["result"] is True, done["comment"]


def running(host):
    done = site.running(host)
    assert done["result"] is True, done["comment"]
    assert "generation" in done["changes"]


def both(host, **more):
    """The plain pillar, or this one, on the whole host."""
    host.set_pillar(pillar(**more))
    site.project(host)
    for function in ("uwsgi_socket.listening", "uwsgi_generation.running"):
        done = site.state(host, function)
        assert done["result"] is True, done["comment"]
    nginx(host)


def other_option(host, number):
    host.set_pillar(pillar(uwsgi={"options": {"harakiri": 100 + number}}))
    running(host)


def other_code(host, number):
    site.project(host, f"v{number}")
    running(host)
    assert host.get("/", "www.example.org")[2] == f"v{number}".encode()


def other_environment(host, number):
    """Also another release of uWSGI."""
    host.run(
        f"[ -e {OTHER_VENV} ] || {{ python3 -m venv {OTHER_VENV} && {OTHER_VENV}/bin/pip -q install "
        "'django~=5.2.0' pyuwsgi==2.0.28.post1; }",
        timeout=300,
    )
    host.set_pillar(pillar(project={"venv": (OTHER_VENV, site.VENV)[number % 2]}))
    running(host)
    version = ("2.0.28", "2.0.30")[number % 2]
    assert host.salt_call("uwsgi_status.show", "mysite")["version"].startswith(version)


def other_user(host, number):
    user = ("other", "mysite")[number % 2]
    host.set_pillar(pillar(project={"user": user, "group": user}))
    running(host)
    told = host.run("ps", "-o", "user=", "-p", ",".join(map(str, site.pids(host)))).stdout
    assert set(told.split()) == {user}


def rolled_back(host, number):
    if number == 0:
        other_option(host, 50)
    before = site.active(host)
    host.salt_call("uwsgi_generation.rollback", "mysite")
    assert site.active(host) != before


def reloaded(host, number):
    before = site.active(host), site.pids(host)
    assert host.salt_call("uwsgi_generation.reload", "mysite")["digest"] in before[0]
    assert site.active(host) == before[0] and not set(before[1]) & set(site.pids(host))


def with_nginx_at_the_same_time(host, number):
    host.set_pillar(
        pillar(
            uwsgi={"options": {"harakiri": 200 + number}}, client_max_body_size=f"{60 + number}m"
        )
    )
    words = [program("3008", "salt-call"), "--local", f"--config-dir={host.salt_config('3008')}"]
    switching = subprocess.Popen(
        [*host.enter(), *words, "--retcode-passthrough", "uwsgi_generation.switch", "mysite"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    nginx(host)
    said, _ = switching.communicate(timeout=120)
    assert switching.returncode == 0, said
    assert "generation" not in site.running(host)["changes"]


def the_live_socket(host, number):
    """Owner, group, mode and backlog: what no process has to be restarted for."""
    inode = host.run("stat", "-c", "%i", site.SOCKET).stdout
    group = ("other", "www-data")[number % 2]
    host.run("usermod", "--append", "--groups", "other", "www-data")
    host.set_pillar(
        pillar(
            socket={
                "owner": ("www-data", "root")[number % 2],
                "group": group,
                "mode": ("0660", "0666")[number % 2],
                "backlog": (2048, 4096)[number % 2],
            }
        )
    )
    done = site.state(host, "uwsgi_socket.listening")
    assert done["result"] is True, done["comment"]
    assert {"owner", "group"} <= set(done["changes"])
    assert host.run("stat", "-c", "%i %G", site.SOCKET).stdout.split() == [inode.strip(), group]


def many_switches(host, number):
    if number == 0:
        digests = two_generations(host)
        switches(host, 100, digests)


CHANGES = {
    "ini": other_option,
    "code": other_code,
    "environment and uWSGI": other_environment,
    "user": other_user,
    "rollback": rolled_back,
    "reload": reloaded,
    "nginx too": with_nginx_at_the_same_time,
    "socket": the_live_socket,
    "hundred switches": many_switches,
}


def test_a_change_under_load_loses_nothing(web, sample, full):
    cheap = [name for name in CHANGES if name not in ("environment and uWSGI", "hundred switches")]
    for name in list(CHANGES) if full else sample(cheap, 1):
        both(web)

        def repeated(change=CHANGES[name]):
            for number in range(3 if full else 1):
                change(web, number)

        told = load.under_load(web, load.NGINX, repeated)
        print(name, {key: told[key] for key in ("kinds", "lost", "longest", "reopened")})
        assert told["lost"] == [], name
        assert min(told["kinds"].values()) > 0 and told["asked"] > 100, name
        assert told["longest"] < 5, name


@pytest.mark.long
def test_another_path_of_the_socket_loses_nothing(web):
    both(web)
    for path in ("/run/uwsgi/other.sock", "/tmp/other.sock", site.SOCKET):
        change = {"socket": {"path": path}}
        told = load.under_load(web, load.NGINX, lambda change=change: both(web, **change))
        print(path, {key: told[key] for key in ("kinds", "longest", "reopened")}, told["lost"][:3])
        assert told["lost"] == []
        again = site.state(web, "uwsgi_socket.listening")
        assert (again["result"], again["changes"]) == (True, {})
    links = web.run("find /run/uwsgi /tmp -maxdepth 1 -type l -name '*.sock'").stdout.split()
    assert set(links) <= {"/run/uwsgi/other.sock", "/tmp/other.sock"}


# --- Killed -----------------------------------------------------------------------------------------

# Kills the first of these processes, waits until all are gone, tells when that was.
KILLER = """
import os, signal, sys, time
first, *others = map(int, sys.argv[1:])
os.kill(first, signal.SIGKILL)
while any(os.path.exists(f"/proc/{pid}") for pid in (first, *others)):
    time.sleep(0.001)
print(time.monotonic())
"""


def killed_worker(host):
    main, *workers = site.pids(host)
    return [workers[0]]


def killed_master(host):
    return site.pids(host)


def killed_nginx_worker(host):
    main = host.run("systemctl show -P MainPID nginx").stdout.strip()
    return [int(host.run("pgrep", "-P", main).stdout.split()[0])]


# Who is killed, and how many requests can be in it: one in a worker of uWSGI with one thread, and
# all of the load in one of nginx.
KILLED = {
    "worker": (killed_worker, 1),
    "master": (killed_master, 3),
    "nginx": (killed_nginx_worker, 7),
}


@pytest.mark.long
@pytest.mark.parametrize("who", KILLED)
def test_killed_under_load_only_what_was_in_it_is_lost(web, who):
    choose, most = KILLED[who]
    for _ in range(3):
        both(web)
        gone = []

        def kill(choose=choose, gone=gone):
            pids = choose(web)
            gone.append(float(web.run("python3", "-c", KILLER, *map(str, pids)).stdout))

        told = load.under_load(web, load.NGINX, kill)
        print(who, {key: told[key] for key in ("kinds", "lost", "longest", "reopened")})
        assert len(told["lost"]) <= most
        # A request that came later is answered, by another worker or when there is one again.
        assert [when for when in told["began"] if when > gone[0]] == []
        assert told["asked"] > 100 and told["longest"] < 10
        # As it was, without Salt; and Salt finds nothing to do.
        assert len(site.pids(web)) == 4
        assert site.running(web)["changes"] == {}


# --- Generations that cannot serve ----------------------------------------------------------------

REFUSED = {
    "does not import": ({"wsgi": "import no_such_module\n"}, {}, "no_such_module"),
    "answers 500": (
        {"urls": site.URLS.replace("return HttpResponse(VERSION)", "raise RuntimeError('boom')")},
        {},
        "answered with 500",
    ),
    "hangs at import": (
        {"wsgi": "import time\ntime.sleep(3600)\n"},
        {"start_timeout": 3},
        "did not pass its preflight",
    ),
    "a port is taken": (
        {"wsgi": "import socket\nsocket.create_server(('127.0.0.1', 8099))\n" + site.WSGI},
        {},
        "Address already in use",
    ),
    "out of memory": (
        {"wsgi": "hoard = bytearray(4 << 30)\n" + site.WSGI},
        {"limits": {"LimitAS": "1G"}},
        "MemoryError",
    ),
}


def test_a_refused_generation_costs_no_request(web, sample):
    for case in sample(list(REFUSED), 1):
        files, uwsgi, words = REFUSED[case]
        both(web)
        kept = site.pids(web), site.enabled(web), site.files(web)

        def refused_twice(files=files, uwsgi=uwsgi, words=words, kept=kept):
            site.project(web, **files)
            web.set_pillar(pillar(uwsgi=uwsgi))
            # Red as long as the cause is there.
            for _ in range(2):
                refused = site.running(web)
                assert refused["result"] is False
                assert words in refused["comment"] and "journal's last lines" in refused["comment"]
                assert site.traces_of_preflight(web) == ""
                assert (site.pids(web), site.enabled(web), site.files(web)) == kept

        told = load.under_load(web, load.NGINX, refused_twice)
        print(case, {key: told[key] for key in ("kinds", "lost", "longest")})
        assert told["lost"] == [] and told["seen"] == ["one"], case


@pytest.mark.long
def test_where_nothing_ran_a_refused_generation_lets_nobody_wait(web):
    both(web)
    assert site.state(web, "uwsgi_generation.absent")["result"] is True
    site.project(web, wsgi="import no_such_module\n")
    assert site.running(web)["result"] is False
    assert web.get("/", "www.example.org", timeout=10)[0] == 502
    enabled = web.run("systemctl is-enabled uwsgi-mysite.socket uwsgi-mysite.service", check=False)
    assert set(enabled.stdout.split()) == {"disabled"}
    both(web)
    assert web.get("/", "www.example.org")[2] == b"one"


# --- Limits ---------------------------------------------------------------------------------------

# A container finds the controllers of the old hierarchy read-only: on a machine that has them, the
# host's systemd is given a group of its own in each.
LEND = """
cd /sys/fs/cgroup
for one in memory pids; do
    [ -e $one ] || continue
    mount -o remount,bind,rw $one && mkdir $one/$HOSTNAME && mount --bind $one/$HOSTNAME $one
done
systemctl daemon-reexec
"""
TAKE_BACK = """
cd /sys/fs/cgroup
for one in memory pids; do
    [ -e $one ] || continue
    umount $one
    for pid in $(cat $(find $one/$HOSTNAME -name cgroup.procs)); do echo $pid >$one/cgroup.procs; done
    find $one/$HOSTNAME -depth -type d -exec rmdir {} +
    mount -o remount,bind,ro $one
done
systemctl daemon-reexec
"""


@pytest.fixture
def controlled(web):
    """The host, whose systemd has the kernel limit what units use."""
    web.run(LEND)
    yield web
    both(web)
    web.run(TAKE_BACK)


def controls(host, *names):
    """What the kernel holds the running generation to: by the first of these files that is there."""
    group = host.run("systemctl", "show", "-P", "ControlGroup", site.active(host)).stdout.strip()
    files = " ".join(
        f"/sys/fs/cgroup/{name.partition('/')[0]}{group}/{name.partition('/')[2]}" for name in names
    )
    return host.run(f"cat {files} 2>/dev/null | head -1", check=False).stdout.split()


@pytest.mark.long
def test_the_pillars_limits_are_in_force(controlled):
    limits = {"MemoryMax": "512M", "TasksMax": 60, "CPUQuota": "50%", "LimitNOFILE": 4096}
    controlled.set_pillar(pillar(uwsgi={"limits": limits}))
    running(controlled)
    of = controls(controlled, "/memory.max", "memory/memory.limit_in_bytes")
    assert of == [str(512 << 20)]
    assert controls(controlled, "/pids.max", "pids/pids.max") == ["60"]
    # Where cpu and cpuacct are mounted apart, systemd has no use for them.
    unit = site.active(controlled)
    assert controlled.run("systemctl", "show", "-P", "CPUQuotaPerSecUSec", unit).stdout == "500ms\n"
    open_files = controlled.run(
        f"grep 'open files' /proc/{site.pids(controlled)[-1]}/limits"
    ).stdout
    assert open_files.split()[-3:-1] == ["4096", "4096"]


@pytest.mark.long
def test_out_of_the_pillars_memory_the_old_generation_serves_on(controlled):
    hoard = {"wsgi": "hoard = b'x' * (300 << 20)\n" + site.WSGI}
    kept = site.pids(controlled), site.enabled(controlled), site.files(controlled)

    def refused_twice():
        site.project(controlled, **hoard)
        controlled.set_pillar(pillar(uwsgi={"limits": {"MemoryMax": "150M", "MemorySwapMax": 0}}))
        for _ in range(2):
            started = time.monotonic()
            refused = site.running(controlled)
            assert refused["result"] is False
            assert "killed" in refused["comment"] and "journal's last lines" in refused["comment"]
            # Well within start_timeout and what a busy machine adds.
            assert time.monotonic() - started < 10 + 20
            assert site.traces_of_preflight(controlled) == ""
            assert (site.pids(controlled), site.enabled(controlled), site.files(controlled)) == kept

    told = load.under_load(controlled, load.NGINX, refused_twice)
    print({key: told[key] for key in ("kinds", "lost", "longest")})
    assert told["lost"] == [] and told["seen"] == ["one"]
    # It was the limit.
    controlled.set_pillar(pillar(uwsgi={"limits": {"MemoryMax": "900M"}}))
    running(controlled)
