"""
The socket that systemd holds, on a real host.
"""

import random

import pytest
from salt.exceptions import SaltInvocationError

from _nud import uwsgi_ini

from . import uwsgi_site as site

pytestmark = pytest.mark.usefixtures("_site")


@pytest.fixture(scope="module")
def _site(trixie_host):
    site.prepare(trixie_host)
    first = site.state(trixie_host, "uwsgi_socket.listening")
    assert first["result"] is True, first["comment"]
    done = site.running(trixie_host)
    assert done["result"] is True, done["comment"]
    trixie_host.run("useradd --system visitor")


@pytest.fixture
def host(trixie_host):
    trixie_host.set_pillar(site.pillar())
    return trixie_host


def put_right(host):
    host.set_pillar(site.pillar())
    for function in ("uwsgi_socket.listening", "uwsgi_generation.running"):
        done = site.state(host, function)
        assert done["result"] is True, done["comment"]
    assert site.ask(host)["status"] == 200


@pytest.fixture
def changing(host):
    """For a test that leaves the socket otherwise than it was."""
    yield host
    put_right(host)


def facts(host, path=site.SOCKET):
    return host.run("stat", "-c", "%U %G %a %i", path).stdout.split()


def connects(host, user, path=site.SOCKET):
    script = f"import socket; socket.socket(socket.AF_UNIX).connect('{path}')"
    return host.run("sudo", "-u", user, "python3", "-c", script, check=False).returncode == 0


def test_it_listens_for_nginx_and_nobody_else(host):
    owner, group, mode, _ = facts(host)
    assert (owner, group, mode) == ("root", "www-data", "660")
    assert connects(host, "www-data")
    assert not connects(host, "mallory")
    assert not connects(host, "visitor")
    told = host.salt_call("uwsgi_socket.status", "mysite")
    assert told["listening"] and told["enabled"] and told["active"]
    assert told["backlog"] == 4096


def test_with_nothing_to_do_nothing_is_touched(host):
    before = facts(host), site.tree(host), site.last_reload(host), site.pids(host)
    again = site.state(host, "uwsgi_socket.listening")
    assert (again["result"], again["changes"]) == (True, {})
    assert (facts(host), site.tree(host), site.last_reload(host), site.pids(host)) == before


def test_owner_group_mode_and_backlog_of_a_live_socket(changing):
    before = facts(changing)[3], site.pids(changing)
    changing.set_pillar(
        site.pillar(socket={"group": "visitor", "mode": "0666", "owner": "mysite", "backlog": 512})
    )
    told = site.state(changing, "uwsgi_socket.listening", test=True)
    assert told["result"] is None, told["comment"]
    assert set(told["changes"]) >= {"owner", "group", "mode", "backlog"}
    assert facts(changing)[:3] == ["root", "www-data", "660"]
    done = site.state(changing, "uwsgi_socket.listening")
    assert done["result"] is True, done["comment"]
    assert "insecure: mode 0666" in done["comment"]
    assert facts(changing)[:3] == ["mysite", "visitor", "666"]
    assert changing.salt_call("uwsgi_socket.status", "mysite")["backlog"] == 512
    # The same socket, the same processes.
    assert (facts(changing)[3], site.pids(changing)) == before
    assert connects(changing, "mallory")
    again = site.state(changing, "uwsgi_socket.listening")
    assert (again["result"], again["changes"]) == (True, {})


def test_changed_by_hand_is_put_right(host):
    host.run("chmod", "0777", site.SOCKET)
    host.run("chown", "mallory", site.SOCKET)
    done = site.state(host, "uwsgi_socket.listening")
    assert done["changes"] == {
        "owner": {"old": "mallory", "new": "root"},
        "mode": {"old": "0777", "new": "0660"},
    }
    assert facts(host)[:3] == ["root", "www-data", "660"]


@pytest.mark.parametrize(("key", "kind"), [("owner", "user"), ("group", "group")])
def test_an_account_that_is_not_there_changes_nothing(changing, key, kind):
    before = facts(changing), site.tree(changing)
    # With this mode nginx could connect: the group is not the one that lets it in.
    changing.set_pillar(site.pillar(socket={key: "nobodyhere", "mode": "0666"}))
    for test in (True, False, False):
        refused = site.state(changing, "uwsgi_socket.listening", test=test)
        assert (refused["result"], refused["changes"]) == (False, {})
        assert f"sites:mysite:socket:{key}: found 'nobodyhere'" in refused["comment"]
        assert f"no {kind} of this host" in refused["comment"]
    assert (facts(changing), site.tree(changing)) == before
    # One that the formula makes in the same run is foreseen.
    changing.set_pillar(
        site.pillar(socket={key: "webby", "mode": "0666"}, project={"user": "webby"})
    )
    foreseen = site.state(changing, "uwsgi_socket.listening", test=True)
    assert foreseen["result"] is None and foreseen["changes"]


def test_a_backlog_above_the_kernels_limit_is_told(changing):
    limit = int(changing.run("cat /proc/sys/net/core/somaxconn").stdout)
    changing.set_pillar(site.pillar(socket={"backlog": 60000}))
    done = site.state(changing, "uwsgi_socket.listening")
    assert done["result"] is True
    assert f"somaxconn = {limit}" in done["comment"]
    again = site.state(changing, "uwsgi_socket.listening")
    assert (again["result"], again["changes"]) == (True, {})


def somaxconn(host, limit):
    """Set the limit of the host's own network: its /proc/sys is read-only, as in any container."""
    write = f"mount -t proc proc /mnt && echo {limit} >/mnt/sys/net/core/somaxconn"
    host.run("unshare", "--mount", "bash", "-c", write)


def test_a_raised_limit_of_the_kernel_reaches_the_live_socket(changing):
    limit = int(changing.run("cat /proc/sys/net/core/somaxconn").stdout)
    changing.set_pillar(site.pillar(socket={"backlog": 2 * limit}))
    assert site.state(changing, "uwsgi_socket.listening")["result"] is True
    before = facts(changing), site.pids(changing)
    somaxconn(changing, 2 * limit)
    try:
        done = site.state(changing, "uwsgi_socket.listening")
        assert done["changes"] == {"backlog": {"old": limit, "new": 2 * limit}}
        assert "somaxconn" not in done["comment"]
        assert changing.salt_call("uwsgi_socket.status", "mysite")["backlog"] == 2 * limit
        assert (facts(changing), site.pids(changing)) == before
    finally:
        somaxconn(changing, limit)


@pytest.mark.long
def test_another_path_is_told_and_done(changing):
    changing.set_pillar(site.pillar(socket={"path": "/tmp/mysite.sock"}))
    told = site.state(changing, "uwsgi_socket.listening", test=True)
    assert told["result"] is None, told["comment"]
    before = site.pids(changing)
    done = site.state(changing, "uwsgi_socket.listening")
    assert done["result"] is True, done["comment"]
    assert "insecure: /tmp/mysite.sock" in done["comment"]

    def answer() -> int:
        path, name = "/tmp/mysite.sock", "www.example.org"
        return changing.salt_call("uwsgi_request.get", path, "/", name)["status"]

    # It serves on at the old path, to which the new one leads as long as nothing else serves.
    assert site.pids(changing) == before and site.ask(changing)["status"] == answer() == 200
    site.project(changing, wsgi="import nothing_of_that_name")
    for _ in range(2):
        assert site.state(changing, "uwsgi_socket.listening")["result"] is True
        refused = site.running(changing)
        assert "nothing_of_that_name" in refused["comment"]
        assert site.pids(changing) == before and site.ask(changing)["status"] == answer() == 200
    site.project(changing)
    done = site.running(changing)
    assert done["result"] is True, done["comment"]
    assert changing.run("readlink", "/tmp/mysite.sock", check=False).stdout == ""
    assert answer() == 200
    assert site.state(changing, "uwsgi_socket.listening")["changes"] == {}
    # For nginx, until it is told.
    assert changing.run("readlink", site.SOCKET).stdout == "/tmp/mysite.sock\n"
    assert site.ask(changing)["status"] == 200


def test_a_lost_socket_file_is_made_anew(host):
    host.run("rm", site.SOCKET)
    done = site.state(host, "uwsgi_socket.listening")
    assert done["result"] is True, done["comment"]
    assert site.running(host)["result"] is True
    assert site.ask(host)["status"] == 200


def test_stopped_and_disabled_by_hand_is_put_right(host):
    host.run("systemctl disable --now uwsgi-mysite.socket uwsgi-mysite.service")
    done = site.state(host, "uwsgi_socket.listening")
    assert done["result"] is True, done["comment"]
    assert site.running(host)["result"] is True
    assert site.ask(host)["status"] == 200


def test_stopped_by_an_operator_it_is_started_by_the_next_request(host):
    unit = site.active(host)
    told = host.run("systemctl stop uwsgi-mysite 2>&1").stdout
    # systemd's own warning.
    assert "uwsgi-mysite.socket" in told
    assert "active" not in site.generations(host).values()
    assert site.ask(host)["status"] == 200
    assert site.active(host) == unit
    assert site.state(host, "uwsgi_socket.listening")["changes"] == {}


def test_stopped_with_its_socket_it_stays_down_until_it_is_started(host):
    unit = site.active(host)
    host.run("systemctl stop uwsgi-mysite.socket")
    assert "active" not in site.generations(host).values()
    # Nobody to connect to: nginx answers 502 at once.
    assert not host.exists(site.SOCKET)
    host.run("systemctl start uwsgi-mysite")
    assert site.ask(host)["status"] == 200
    assert site.active(host) == unit
    for function in ("uwsgi_socket.listening", "uwsgi_generation.running"):
        assert site.state(host, function)["changes"] == {}


def test_a_packet_of_nginxs_user_loads_no_file(host):
    """UWSGI_FILE names a file for uWSGI to load as an application; the place is taken."""
    host.write("/srv/evil.py", "open('/tmp/evil', 'w')\nopen('/srv/mysite/data/evil', 'w')\n")
    script = (
        "import sys; sys.path.insert(0, '/srv/formula/_modules'); sys.dont_write_bytecode = True\n"
        "import socket, struct\n"
        "def pack(values):\n"
        "    data = b''.join(struct.pack('<H', len(t)) + t.encode()\n"
        "                    for pair in values.items() for t in pair)\n"
        "    return struct.pack('<BHB', 0, len(data), 0) + data\n"
        "for extra in ({'UWSGI_FILE': '/srv/evil.py', 'UWSGI_APPID': '/x'},\n"
        "              {'UWSGI_FILE': '/srv/evil.py', 'SCRIPT_NAME': '/y'},\n"
        "              {'UWSGI_FILE': 'exec://touch /srv/mysite/data/evil', 'SCRIPT_NAME': '/z'},\n"
        "              {'UWSGI_MODULE': 'evil', 'SCRIPT_NAME': '/w', 'UWSGI_PYHOME': '/srv'}):\n"
        "    one = socket.socket(socket.AF_UNIX)\n"
        f"    one.connect('{site.SOCKET}')\n"
        "    one.sendall(pack({'REQUEST_METHOD': 'GET', 'PATH_INFO': '/', 'HTTP_HOST': 'x', **extra}))\n"
        "    print(one.recv(100))\n"
    )
    asked = host.run("sudo", "-u", "www-data", "python3", "-c", script)
    assert asked.stdout.count("\n") == 4
    assert not host.exists("/srv/mysite/data/evil")
    assert site.ask(host)["body"] == "one"
    journal = host.run("journalctl -b -t uwsgi-mysite").stdout
    assert "you cannot load more than 1 apps" in journal


def test_without_the_guard_the_packet_would_load_it(host):
    """The test above is able to fail."""
    host.write("/srv/evil.py", "open('/srv/mysite/data/evil', 'w')\n")
    ini = "/root/open.ini"
    unit = site.active(host)
    text = host.read(f"/etc/uwsgi/mysite/{unit.split('@')[1].split('.')[0]}.ini")
    kept = [
        line for line in text.splitlines() if not line.startswith(("max-apps", "stats", "socket"))
    ]
    host.write(ini, "\n".join([*kept, "socket = /root/open.sock"]) + "\n")
    host.run(
        f"cd /; DJANGO_SETTINGS_MODULE=mysite.settings {site.VENV}/bin/pyuwsgi --ini {ini} "
        ">/root/open.log 2>&1 & echo $! >/root/open.pid"
    )
    try:
        assert site.eventually(lambda: host.exists("/root/open.sock"))
        host.salt_call(
            "uwsgi_request.get",
            "/root/open.sock",
            "/",
            "www.example.org",
            variables={"UWSGI_FILE": "/srv/evil.py", "SCRIPT_NAME": "/y"},
        )
        assert site.eventually(lambda: host.exists("/srv/mysite/data/evil"))
    finally:
        host.run(
            "kill -9 -- $(cat /root/open.pid) $(pgrep -P $(cat /root/open.pid)); "
            "rm -f /srv/mysite/data/evil /srv/evil.py"
        )


@pytest.mark.long
def test_every_value_reaches_uwsgi_as_it_is(host):
    """What uwsgi_ini.escape() writes, real uWSGI reads back."""
    source = random.Random(20)
    letters = "ab%%%()$@=;#\"'\\ [],{}:/é漢-_0\t"
    values = ["50%", "%d%n", "%%", "100%%(", "#;", "= x", "\\", "a\tb", "[uwsgi]", "é漢🦆"]
    values += ["".join(source.choices(letters, k=source.randrange(1, 12))) for _ in range(400)]
    carried, lines = [], []
    for value in values:
        try:
            lines.append(f"add-header = {uwsgi_ini.escape(value)}")
        except SaltInvocationError:
            continue
        carried.append(value)
    assert len(carried) > 200
    host.write(
        "/root/values.ini",
        "\n".join(
            ["[uwsgi]", "strict = true", *lines, "show-config = true", "no-server = true", ""]
        ),
    )
    shown = host.run(f"{site.VENV}/bin/pyuwsgi --ini /root/values.ini 2>&1").stdout
    read = [
        line.removeprefix("add-header = ")
        for line in shown.splitlines()
        if line.startswith("add-header = ")
    ]
    assert read == carried


def test_it_comes_back_after_a_reboot(host):
    host.reboot()
    assert site.eventually(
        lambda: host.run("systemctl is-active uwsgi-mysite.socket", check=False).returncode == 0
    )
    assert facts(host)[:3] == ["root", "www-data", "660"]
    assert site.eventually(lambda: site.ask(host)["status"] == 200, 30)
    assert site.state(host, "uwsgi_socket.listening")["changes"] == {}


@pytest.mark.long
def test_gone_and_back_again(host):
    assert site.state(host, "uwsgi_socket.absent", test=True)["result"] is None
    assert host.exists(site.SOCKET)
    site.state(host, "uwsgi_generation.absent")
    gone = site.state(host, "uwsgi_socket.absent")
    assert gone["result"] is True, gone["comment"]
    assert not host.exists(site.SOCKET)
    assert host.run("find /etc/systemd -name '*uwsgi-mysite*'").stdout == ""
    again = site.state(host, "uwsgi_socket.absent")
    assert (again["result"], again["changes"]) == (True, {})
    put_right(host)
