"""
Throwaway hosts: what every other test on a host stands on.
"""

import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ..hosts import cgroup
from ..hosts.host import CommandFailed, Host, all_hosts, clean
from ..hosts.network import BRIDGE
from ..hosts.paths import FORMULA, HostError
from ..hosts.salts import VERSIONS


def module(*words: str) -> subprocess.CompletedProcess[str]:
    """``python3 -m test.hosts``."""
    return subprocess.run(
        [sys.executable, "-m", "test.hosts", *words],
        cwd=FORMULA,
        capture_output=True,
        text=True,
        check=False,
    )


def traces(name: str, slot: int) -> list[str]:
    """Whatever a host left on this machine."""
    found = [str(path) for path in cgroup.paths(name) if path.exists()]
    found += [str(path) for path in pathlib.Path("/run/netns").glob(f"*-{name}")]
    found += [str(path) for path in pathlib.Path("/sys/class/net").glob(f"nud????{slot}")]
    found += [
        line
        for line in pathlib.Path("/proc/mounts").read_text("utf-8").splitlines()
        if f"/hosts/{name}/" in line
    ]
    folder = Host({"name": name}).folder
    found += [str(folder)] if folder.exists() else []
    ps = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    found += [line for line in ps.stdout.splitlines() if f"/hosts/{name}/" in line]
    return found


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with Host.create(f"self-{Host.tag()}", release=request.param) as made:
        yield made


def test_it_is_a_debian_host_run_by_systemd(host: Host) -> None:
    assert host.run("systemctl", "is-system-running").stdout.strip() == "running"
    assert host.run("cat", "/proc/1/comm").stdout.strip() == "systemd"
    assert f"VERSION_CODENAME={host.release}" in host.read("/etc/os-release")
    assert host.run("hostname").stdout.strip() == host.name
    assert host.run("id", "-un").stdout.strip() == "root"


def test_commands(host: Host) -> None:
    assert host.run("printf '%s' $((6 * 7)); cat", input="!").stdout == "42!"
    with pytest.raises(CommandFailed, match=r"(?s)ended with 5 .*no-such-unit.service not found"):
        host.run("systemctl", "start", "no-such-unit.service")
    assert host.run("exit 3", check=False).returncode == 3
    with pytest.raises(HostError, match="did not end within 0.3 s"):
        host.run("sleep", "60", timeout=0.3)
    assert "sleep 60" not in host.run("ps -eo args").stdout


def test_the_environment_of_this_machine_stays_outside(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAK", "1")
    assert "LEAK" not in host.run("env").stdout


def test_files(host: Host) -> None:
    host.write("/srv/a b/ü.txt", "häh\n", mode=0o640)
    assert host.read("/srv/a b/ü.txt") == "häh\n"
    assert host.run("stat", "-c", "%a", "/srv/a b/ü.txt").stdout == "640\n"
    host.run("ln", "-s", "/nowhere", "/srv/dangling")
    assert host.exists("/srv/dangling") and not host.exists("/srv/nothing")
    assert (host.root / "srv/a b/ü.txt").read_text("utf-8") == "häh\n"


def test_the_checkout_is_there_and_cannot_be_written(host: Host) -> None:
    assert host.exists("/srv/formula/_modules/site_pillar.py")
    with pytest.raises(CommandFailed, match="Read-only file system"):
        host.run("touch", "/srv/formula/x")


@pytest.mark.parametrize("salt", VERSIONS)
@pytest.mark.long
def test_salt(host: Host, salt: str) -> None:
    assert host.salt_call("test.version", salt=salt) == VERSIONS[salt]
    assert host.salt_call("grains.get", "oscodename", salt=salt) == host.release
    word = "a # b: [c] {{ d }} 'e' \"f\"\n1"
    values = {
        "a": word,
        "b": "true",
        "c": "0123",
        "d": 7,
        "e": None,
        "f": ["x", {"y": "#"}],
        "g": "",
    }
    said = host.salt_call("test.kwarg", salt=salt, **values)
    assert {key: said[key] for key in values} == values
    # Not pillar.get: Salt 3008 masks what that shows.
    rendered = host.salt_call(
        "slsutil.renderer",
        salt=salt,
        pillar={"a": {"b": "c # d"}},
        string="{{ pillar | json }}",
    )
    assert rendered == {"a": {"b": "c # d"}}
    with pytest.raises(CommandFailed, match="no_such"):
        host.salt_call("no_such.function", salt=salt)


def test_a_run_of_states(host: Host) -> None:
    host.write(
        "/srv/salt/mix.sls",
        "good:\n  file.managed:\n    - name: /root/good\n    - contents: x\n"
        "bad:\n  test.fail_without_changes: []\n",
    )
    dry = host.apply("mix", test=True)
    assert dry.by_id["good"].result is None and not host.exists("/root/good")
    run = host.apply("mix")
    assert not run.ok
    assert [state.id for state in run.failed] == ["bad"]
    assert [state.id for state in run.changed] == ["good"]
    assert [state.function for state in run.results] == [
        "file.managed",
        "test.fail_without_changes",
    ]
    assert "bad (test.fail_without_changes)" in repr(run)
    host.write("/srv/salt/broken.sls", "a:\n  - b\n c: {{")
    broken = host.apply("broken")
    assert not broken.ok and broken.results == [] and "broken" in broken.errors[0]


@pytest.mark.long
def test_packages_come_from_the_mirrors_of_this_machine(host: Host) -> None:
    # As a fresh cloud image: an installation without a refresh fails.
    assert host.run("find /var/lib/apt/lists /var/cache/apt/archives -type f -size +0").stdout == ""
    host.install("nginx", "python3-venv")
    status, headers, body = host.get("/")
    assert status == 200 and headers["server"].startswith("nginx") and b"nginx" in body
    host.run("useradd --create-home visitor && mkdir /srv/v && chown visitor /srv/v")
    asvisitor = ("setpriv", "--reuid=visitor", "--regid=visitor", "--init-groups", "env", "-i")
    host.run(*asvisitor, "/usr/bin/python3", "-m", "venv", "/srv/v")
    host.run(*asvisitor, "/srv/v/bin/pip", "install", "sqlparse", timeout=300)


def test_a_reboot_is_a_reboot(host: Host) -> None:
    host.write(
        "/etc/systemd/system/mark.service", "[Service]\nType=oneshot\nExecStart=touch /run/m\n"
    )
    host.write("/etc/kept", "x")
    host.run("systemctl start mark")
    before = host.run("cat /proc/sys/kernel/random/boot_id; stat -c %Z /proc/1").stdout
    invocation = host.run("systemctl show -P InvocationID dbus.service").stdout
    host.reboot()
    assert host.read("/etc/kept") == "x"
    assert not host.exists("/run/m"), "/run is empty after a boot"
    assert host.run("systemctl show -P InvocationID dbus.service").stdout != invocation
    assert host.run("stat -c %Z /proc/1").stdout not in before
    assert host.run("systemctl", "is-system-running").stdout.strip() == "running"


def test_a_crash_and_a_power_off(host: Host) -> None:
    host.write("/etc/kept2", "x")
    host.crash()
    assert not host.alive()
    with pytest.raises(HostError, match="is not running"):
        host.run("true")
    host.boot()
    assert host.read("/etc/kept2") == "x"
    host.shutdown()
    assert not host.alive()
    host.boot()
    assert host.read("/etc/kept2") == "x"


def test_two_hosts_do_not_meddle_with_each_other(host: Host) -> None:
    with Host.create(f"other-{Host.tag()}", salt=False) as other:
        assert other.address != host.address
        for one in (host, other):
            one.run("systemd-run", "--unit=same", "sleep", "1000")
            one.write("/root/whose", one.name)
        host.run("systemctl", "kill", "--signal=KILL", "same")
        host.run("systemctl", "stop", "same", check=False)
        assert other.run("systemctl", "is-active", "same").stdout.strip() == "active"
        assert other.read("/root/whose") == other.name
        machine = {one.read("/etc/machine-id") for one in (host, other)}
        assert len(machine) == 2
        slot = other._record["slot"]
    assert traces(other.name, slot) == []


OWNER = """
import sys, time
from test.hosts.host import Host
host = Host.create(sys.argv[1], salt=False, keep=sys.argv[2] == "keep")
host.run("systemd-run", "--unit=left", "sleep", "1000")
print("up", flush=True)
time.sleep(1000)
"""


def owner(name: str, how: str = "own") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, name, how], cwd=FORMULA, stdout=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "up\n":
        assert line, "the owner ended before its host was up"


def test_the_bridge_keeps_its_address_whoever_comes_and_goes(host: Host) -> None:
    """Else a host that goes down cuts the others off from this machine for seconds."""
    address = pathlib.Path("/sys/class/net", BRIDGE, "address")
    before = address.read_text("ascii")
    # The lowest of all: what a bridge without an address of its own would take.
    port = ("ip", "link", "add", "nudlow", "address", "02:00:00:00:00:01", "master", BRIDGE)
    subprocess.run([*port, "type", "veth", "peer", "name", "nudlowpeer"], check=True)
    try:
        subprocess.run(["ip", "link", "set", "nudlow", "up"], check=True)
        assert address.read_text("ascii") == before
    finally:
        subprocess.run(["ip", "link", "delete", "nudlow"], check=True)
    assert address.read_text("ascii") == before


def test_a_killed_owner_leaves_nothing_after_the_next_run() -> None:
    for _ in range(4):
        name = f"orphan-{Host.tag()}"
        process = owner(name)
        wait_for(process)
        orphan = Host.find(name)
        slot = orphan._record["slot"]
        assert orphan.owned() and name not in clean(), "a host whose owner lives was taken away"
        assert len(traces(name, slot)) > 5, "nothing to clean: this test would prove nothing"
        process.send_signal(signal.SIGKILL)
        process.wait()
        # Any next host cleans up first, as does the command.
        said = module("clean").stdout
        assert traces(name, slot) == []
        if name in said:
            return
        # A host that somebody else made in this very moment was quicker.
    raise AssertionError("the command never took the orphan away itself")


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.1, 0.15, 0.3, 0.5])
def test_an_owner_killed_while_its_host_is_made_leaves_nothing(delay: float) -> None:
    name = f"half-{Host.tag()}"
    process = owner(name)
    deadline = time.monotonic() + 30
    while not Host({"name": name}).folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        slot = Host.find(name)._record["slot"]
    except HostError:
        slot = -1
    clean()
    assert traces(name, slot) == []


def test_a_kept_host_outlives_its_maker_and_goes_down_by_name() -> None:
    name = f"kept-{Host.tag()}"
    process = owner(name, "keep")
    wait_for(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    clean()
    kept = Host.find(name)
    assert kept.alive()
    inside = module("run", name, "--", "sh", "-c", "cat /etc/hostname; exit 7")
    assert (inside.stdout.strip(), inside.returncode) == (name, 7)
    assert f"{name}\tbookworm\t{kept.address}\tup\tkept" in module("list").stdout
    again = module("up", name)
    assert again.returncode == 1 and "there is a host named" in again.stderr
    assert module("down", name).returncode == 0
    assert traces(name, kept._record["slot"]) == []
    gone = module("down", name)
    assert gone.returncode == 1
    assert gone.stderr == f"test.hosts: there is no host named '{name}'\n"


def test_hosts_made_at_the_same_time_get_along() -> None:
    names = [f"race{number}-{Host.tag()}" for number in range(3)]
    owners = [owner(name) for name in names]
    try:
        for process in owners:
            wait_for(process)
        made = [host for host in all_hosts() if host.name in names]
        assert len({host.address for host in made}) == 3
        assert all(host.alive() for host in made)
    finally:
        for process in owners:
            process.kill()
            process.wait()
        clean()
    assert not {host.name for host in all_hosts()} & set(names)


def without_init(self: Host) -> None:
    for name in ("usr/lib/systemd/systemd", "usr/sbin/init"):
        (self.root / name).unlink()


def test_a_host_that_does_not_boot_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"broken-{Host.tag()}"
    # Both names that systemd-nspawn looks for.
    monkeypatch.setattr(Host, "_prepare", without_init)
    with pytest.raises(HostError, match=f"the host {name} stopped while booting"):
        Host.create(name, salt=False)
    assert traces(name, -1) == []


def test_a_bad_name_is_one_sentence() -> None:
    for name in ("", "A", "-a", "a" * 40, "a/b", "a_b", "a\n"):
        with pytest.raises(HostError, match="a host's name is"):
            Host.create(name)
