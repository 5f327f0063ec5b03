"""
nginx's listening sockets held by systemd: a restart and a reinstalled package refuse nobody.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.host import Host
from .nginx_host import Clients, Salt, a_site, leftovers, pillar, prepare, processes

DROP_IN = "/etc/systemd/system/nginx.service.d/zz-nginx_uwsgi_django.conf"
SITES = {"mysite": a_site(listen=[80, "[::]:80", 8081])}

pytestmark = pytest.mark.parametrize(
    "host",
    [
        "bookworm",
        pytest.param("trixie", marks=pytest.mark.long),
        pytest.param("forky", marks=pytest.mark.long),
    ],
    indirect=True,
    scope="module",
)


@pytest.fixture(scope="module")
def salt(host: Host) -> Iterator[Salt]:
    prepare(host)
    made = Salt(host)
    yield made
    made.close()


def converge(salt: Salt, sites: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    """The three states of nginx; the result of the last, which is green and stays."""
    salt.pillar = pillar(sites or SITES, **top)
    for function in ("nginx_tree.applied", "nginx_process.current", "nginx_socket.held"):
        done = salt.state(function)
        assert done["result"] is True, done["comment"]
    return done


def nothing_to_do(host: Host, salt: Salt) -> None:
    serving = processes(host)
    for function in ("nginx_tree.applied", "nginx_process.current", "nginx_socket.held"):
        for test in (True, False):
            again = salt.state(function, test=test)
            assert (again["result"], again["changes"]) == (True, {}), again
    assert processes(host) == serving
    assert not leftovers(host)


def blocking(host: Host) -> list[str]:
    """The listening sockets of nginx's master in which accept(2) would wait: proc_pid_fdinfo(5)."""
    script = """
import os, re, subprocess
pid = int(open("/run/nginx.pid").read())
shown = subprocess.run(["ss", "-Htlnp"], capture_output=True, text=True, check=True).stdout
for line in shown.splitlines():
    for fd in re.findall(rf"pid={pid},fd=(\\d+)", line):
        flags = re.search(r"flags:\\s+(\\d+)", open(f"/proc/{pid}/fdinfo/{fd}").read())[1]
        print("waits" if not int(flags, 8) & os.O_NONBLOCK else "goes on", line.split()[3])
"""
    listening = host.run("python3", "-c", script).stdout.splitlines()
    assert len(listening) == 3, listening
    return [line for line in listening if line.startswith("waits")]


def test_a_running_nginx_is_not_restarted_for_it(host: Host, salt: Salt) -> None:
    salt.pillar = pillar(SITES)
    assert salt.state("nginx_tree.applied")["result"] is True
    assert salt.state("nginx_process.current")["result"] is True
    serving = processes(host)
    dry = salt.state("nginx_socket.held", test=True)
    assert dry["result"] is None and DROP_IN in dry["changes"]
    assert not host.exists(DROP_IN) and processes(host) == serving
    done = converge(salt)
    assert "not in force yet for 0.0.0.0:80, 0.0.0.0:8081, [::]:80" in done["comment"]
    assert processes(host) == serving
    nothing_to_do(host, salt)
    host.run("systemctl restart nginx")
    done = converge(salt)
    assert "held by systemd: 0.0.0.0:80, 0.0.0.0:8081, [::]:80" in done["comment"]
    assert "not in force" not in done["comment"]
    assert set(salt.call("nginx_socket.held")) == {"0.0.0.0:80", "0.0.0.0:8081", "[::]:80"}
    assert blocking(host) == []
    nothing_to_do(host, salt)
    for function, program in (
        ("nginx_socket.held", "systemctl"),
        ("nginx_package.current", "dpkg-query"),
    ):
        with salt.traced("-f", "-e", "trace=execve"):
            assert salt.state(function)["changes"] == {}
        ran = host.run(f"grep -c 'execve.*{program}.* = 0$' /root/trace").stdout
        assert int(ran) == 1, f"{function} asks everything at once"
    # What tests or signals nginx knows nothing of the sockets.
    tested = host.run("nginx -t && systemctl reload nginx")
    assert "inherited" not in tested.stderr


@pytest.mark.parametrize(
    "event",
    [
        "systemctl restart nginx",
        "systemctl stop nginx; sleep 1; systemctl start nginx",
        "apt-get -q -y install --reinstall nginx nginx-common",
    ],
)
def test_nobody_is_refused(host: Host, salt: Salt, event: str) -> None:
    converge(salt)
    before = set(processes(host))
    with Clients(host, 80, 8081) as load:
        host.run(event, timeout=300)
    assert load.failures == [] and load.answered > 20
    assert not before & set(processes(host))
    assert salt.state("nginx_process.current")["result"] is True
    nothing_to_do(host, salt)


def test_a_replaced_binary_takes_them_over(host: Host, salt: Salt) -> None:
    converge(salt)
    host.run("cp -p /usr/sbin/nginx /usr/sbin/nginx.new && mv /usr/sbin/nginx.new /usr/sbin/nginx")
    with Clients(host, 80, 8081) as load:
        done = salt.state("nginx_process.current")
    assert set(done["changes"]) == {"binary"}, done["comment"]
    assert load.failures == [] and load.answered > 20
    nothing_to_do(host, salt)


@pytest.mark.long
def test_listens_come_and_go(host: Host, salt: Salt) -> None:
    """A new one is nginx's own until nginx is started next; one that went is let go."""
    converge(salt)
    with Clients(host, 80, 80) as load:
        done = converge(salt, {"mysite": a_site(listen=[80, "[::]:80", 8082])})
    assert load.failures == []
    assert "not in force yet for 0.0.0.0:8082" in done["comment"]
    assert set(salt.call("nginx_socket.held")) == {"0.0.0.0:80", "[::]:80"}
    with pytest.raises(ConnectionRefusedError):
        host.get("/", port=8081)
    assert host.get("/", host_header="x.compute.amazonaws.com", port=8082)[0] == 502
    host.run("systemctl restart nginx")
    assert "0.0.0.0:8082" in salt.call("nginx_socket.held")
    with Clients(host, 80, 8082) as load:
        host.run("systemctl restart nginx")
    assert load.failures == []
    # And back: nobody has held it meanwhile.
    converge(salt)
    nothing_to_do(host, salt)


@pytest.mark.long
def test_a_held_socket_that_nginx_does_not_have_is_no_obstacle(host: Host, salt: Salt) -> None:
    """A run was killed after a reload, before it let go; then the address is wanted again."""
    converge(salt)
    host.run("systemctl restart nginx")
    salt.pillar = pillar({"mysite": a_site(listen=[80])})
    for function in ("nginx_tree.applied", "nginx_process.current"):
        assert salt.state(function)["result"] is True
    assert "0.0.0.0:8081" in salt.call("nginx_socket.status")["unused"]
    converge(salt)
    assert host.get("/", host_header="x.compute.amazonaws.com", port=8081)[0] == 502
    # Of an nginx that was started right after a change, times do not tell whether it has read it.
    time.sleep(2.5)
    host.run("systemctl restart nginx")
    nothing_to_do(host, salt)


@pytest.mark.long
def test_removed_and_installed_again(host: Host, salt: Salt) -> None:
    """The package finds port 80 held when it comes back."""
    converge(salt)
    host.run("apt-get -q -y remove nginx nginx-common", timeout=300)
    assert processes(host) == {}
    host.run("apt-get -q -y --no-install-recommends install nginx", timeout=300)
    converge(salt)
    assert host.get("/", host_header="x.compute.amazonaws.com", port=8081)[0] == 502
    assert set(salt.call("nginx_socket.held")) == {"0.0.0.0:80", "0.0.0.0:8081", "[::]:80"}
    nothing_to_do(host, salt)


@pytest.mark.long
def test_a_unit_that_takes_no_sockets_is_told_and_left_alone(host: Host, salt: Salt) -> None:
    converge(salt)
    theirs = "/etc/systemd/system/nginx.service.d/theirs.conf"
    serving = processes(host)
    host.write(theirs, "[Service]\nExecStart=\nExecStart=-/usr/sbin/nginx\n")
    host.run("systemctl daemon-reload")
    try:
        done = converge(salt)
        assert "not in force: nginx.service is not started by one plain" in done["comment"]
        assert not host.exists(DROP_IN) and processes(host) == serving
        assert salt.call("nginx_socket.held") == {}
        nothing_to_do(host, salt)
    finally:
        host.run("rm", theirs)
        host.run("systemctl daemon-reload")
    converge(salt)
    host.run("systemctl restart nginx")
    nothing_to_do(host, salt)


def test_what_is_not_of_tcp_is_told(host: Host, salt: Salt) -> None:
    theirs, listens, told = "/etc/nginx/conf.d/theirs.conf", "", ""
    if host.release != "bookworm":
        # Debian 12's nginx does not speak QUIC.
        listens, told = "listen 8443 quic; ssl_reject_handshake on;", "0.0.0.0:8443 (UDP), "
    host.write(theirs, f"server {{ listen unix:/run/theirs.sock; {listens} return 204; }}\n")
    try:
        done = converge(salt)
        assert f"not in force for {told}unix:/run/theirs.sock: only TCP's" in done["comment"]
        nothing_to_do(host, salt)
    finally:
        host.run("rm", theirs)
    assert "not in force" not in converge(salt)["comment"]


@pytest.mark.long
def test_after_a_reboot(host: Host, salt: Salt) -> None:
    converge(salt)
    time.sleep(3)
    salt.close()
    host.reboot()
    assert host.get("/", host_header="x.compute.amazonaws.com", port=8081)[0] == 502
    salt.__init__(host)  # type: ignore[misc]
    salt.pillar = pillar(SITES)
    assert set(salt.call("nginx_socket.held")) == {"0.0.0.0:80", "0.0.0.0:8081", "[::]:80"}
    nothing_to_do(host, salt)


def test_another_socket_of_systemd_is_a_conflict(host: Host, salt: Salt) -> None:
    """systemd itself is the holder of the port, and not for nginx."""
    converge(salt)
    unit = "[Socket]\nListenStream=0.0.0.0:8083\nAccept=yes\n"
    host.write("/run/systemd/system/theirs.socket", unit)
    host.write("/run/systemd/system/theirs@.service", "[Service]\nExecStart=/bin/true\n")
    host.run("systemctl daemon-reload && systemctl start theirs.socket")
    try:
        salt.pillar = pillar({"mysite": a_site(listen=[80, 8083])})
        done = salt.state("nginx_tree.applied")
        assert done["result"] is False
        assert "listen 8083: process 1 (systemd) holds that port" in done["comment"]
    finally:
        host.run("systemctl stop theirs.socket && rm /run/systemd/system/theirs*")
        host.run("systemctl daemon-reload")


@pytest.mark.parametrize("how", [pytest.param("switched off", marks=pytest.mark.long), "cleaned"])
def test_as_packaged_again_and_back(host: Host, salt: Salt, how: str) -> None:
    converge(salt)
    serving = processes(host)
    with Clients(host, 80, 8081) as load:
        if how == "switched off":
            salt.pillar = pillar(SITES, nginx={"socket": False})
        function = "nginx_socket.held" if how == "switched off" else "nginx_socket.absent"
        dry = salt.state(function, test=True)
        assert dry["result"] is None and host.exists(DROP_IN)
        done = salt.state(function)
    assert done["result"] is True, done["comment"]
    assert done["changes"] == dry["changes"]
    assert load.failures == [] and processes(host) == serving
    assert salt.state(function)["changes"] == {}
    assert host.run("find /etc/systemd/system -name '*nginx*listen*' -o -name 'zz-*'").stdout == ""
    assert not host.exists(DROP_IN.rpartition("/")[0])
    assert host.run("systemctl list-units --all --no-legend 'nginx-listen*'").stdout == ""
    host.run("systemctl restart nginx")
    assert salt.call("nginx_socket.held") == {}
    converge(salt)
    host.run("systemctl restart nginx")
    assert "0.0.0.0:80" in salt.call("nginx_socket.held")
