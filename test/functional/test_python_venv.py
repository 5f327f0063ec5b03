"""
Virtual environments on a real host: built by the site's user, owned by root, whole or not there.
"""

import json
import re
import time

import pytest

from _nud import lock_files

from .uwsgi_site import eventually

VENVS = "/var/lib/nginx_uwsgi_django/venvs/mysite"

# A source distribution whose setup.py, a program from the network as pip sees it, tells who ran
# it and with what environment, and can be made slow.
SDIST = r"""
import io, tarfile
setup = '''
import json, os, pathlib, sys, time
from setuptools import setup
while pathlib.Path("/tmp/slow").exists():
    pathlib.Path("/tmp/begun").touch()
    time.sleep(0.1)
told = {"uid": os.getuid(), "groups": os.getgroups(), "env": dict(os.environ), "umask": os.umask(0)}
os.umask(told["umask"])
pathlib.Path("whoami.py").write_text("told = " + repr(told))
setup(name="whoami", version="1.0", py_modules=["whoami"])
'''
files = {"setup.py": setup, "PKG-INFO": "Metadata-Version: 2.1\nName: whoami\nVersion: 1.0\n"}
with tarfile.open("/srv/mysite/vendor/whoami-1.0.tar.gz", "w:gz") as archive:
    for name, text in files.items():
        info = tarfile.TarInfo("whoami-1.0/" + name)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
"""


def pillar(uwsgi=None, **project):
    site = {
        "server_names": ["mysite.example"],
        "project": {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings", **project},
        "uwsgi": uwsgi or {"package": "distro"},
    }
    return {"nginx_uwsgi_django": {"sites": {"mysite": site}}}


def state(host, test=False, function="python_venv.built", **more):
    (result,) = host.salt_call("state.single", function, name="mysite", test=test, **more).values()
    return result


def requirements(host, text, name="requirements.txt"):
    host.write(f"/srv/mysite/{name}", text)


def tree(host, path=VENVS):
    """Everything under a path with its owner, mode, size and times: what "untouched" means."""
    return host.run(
        f"if [ -e {path} ]; then find {path} -printf '%p %i %u:%g %m %s %T@ %C@\\n' | sort; fi"
    ).stdout


@pytest.fixture(scope="module", autouse=True)
def _project(host):
    host.salt_call("saltutil.sync_all", pillar=pillar())
    host.run("mkdir -p /srv/mysite/vendor")
    host.run("python3", "-c", SDIST)
    requirements(host, "sqlparse==0.5.3\n")
    state(host, function="system_account.present")


@pytest.fixture(scope="module")
def ensurepip(host):
    """For all tests but the first, which needs a host without it."""
    host.install("python3-venv")


def test_a_host_without_ensurepip_is_told_which_package_to_install(host):
    assert not host.run("find /usr/lib/python3* -name ensurepip -type d").stdout
    assert state(host, test=True)["result"] is None
    failed = state(host)
    assert failed["result"] is False
    assert "install python3-venv" in failed["comment"]
    assert host.run("ls", "-A", VENVS).stdout == ""


@pytest.mark.usefixtures("ensurepip")
def test_it_is_built_once_and_then_nothing_is_touched(host):
    dry = state(host, test=True)
    assert dry["result"] is None
    assert host.run("ls", "-A", VENVS, check=False).stdout == ""
    built = state(host)
    assert built["result"] is True, built["comment"]
    assert built["changes"] == dry["changes"]
    path = built["changes"]["venv"]["new"]
    assert path.rpartition("/")[0] == VENVS
    script = f"{path}/bin/python -c 'import sqlparse; print(sqlparse.__version__)'"
    run = host.run("su", "-s", "/bin/sh", "mysite", "-c", script)
    assert run.stdout.strip() == "0.5.3"

    assert host.run(f"find {path} ! -user root -o ! -group mysite").stdout == ""
    # Links have no mode of their own. Not the site's to write, not anybody's else to read.
    assert host.run(f"find {path} ! -type l -perm /027").stdout == ""
    denied = host.run("su", "-s", "/bin/sh", "mysite", "-c", f"echo > {path}/x", check=False)
    assert "Permission denied" in denied.stderr
    before = tree(host)
    again = state(host)
    assert (again["result"], again["changes"]) == (True, {})
    assert tree(host) == before


@pytest.mark.usefixtures("ensurepip")
def test_programs_of_source_distributions_run_as_the_site_and_know_nothing_of_salt(host):
    requirements(host, "./vendor/whoami-1.0.tar.gz\n")
    # What Salt's own onedir sets, and what a root shell may.
    host.write(
        "/usr/local/bin/leaky",
        "#!/bin/sh\nexport LD_LIBRARY_PATH=/nowhere PYTHONPATH=/nowhere PIP_INDEX_URL=http://no.invalid"
        ' SECRET=s3cret\nexec "$@"\n',
        0o755,
    )
    from test.hosts.salts import program

    done = host.run(
        *("leaky", program("3008", "salt-call"), "--local", "--config-dir=/etc/salt-3008"),
        *("--out=json", "state.single", "python_venv.built", "name=mysite"),
        timeout=300,
    )
    (built,) = json.loads(done.stdout)["local"].values()
    assert built["result"] is True, built["comment"]
    path = built["changes"]["venv"]["new"]
    told = json.loads(
        host.run(
            f"{path}/bin/python", "-c", "import json, whoami; print(json.dumps(whoami.told))"
        ).stdout
    )
    assert told["uid"] == int(host.run("id -u mysite").stdout)
    assert told["groups"] == [int(host.run("id -g mysite").stdout)]
    assert told["umask"] == 0o027
    for name in ("LD_LIBRARY_PATH", "PIP_INDEX_URL", "SECRET", "SUDO_USER"):
        assert name not in told["env"], name
    # pip's own build isolation sets PYTHONPATH; what the shell had is not in it.
    assert "/nowhere" not in json.dumps(told["env"])
    assert told["env"]["HOME"].startswith(path + "/")
    assert not host.exists(f"{path}/.build")


@pytest.mark.usefixtures("ensurepip")
def test_a_requirement_that_does_not_install_changes_nothing_and_says_why(host):
    before = tree(host)
    requirements(host, "sqlparse==99.99\n")
    failed = state(host)
    assert failed["result"] is False
    assert failed["changes"] == {}
    assert "No matching distribution found for sqlparse==99.99" in failed["comment"]
    assert [line for line in tree(host).splitlines() if f"{VENVS} " not in line] == [
        line for line in before.splitlines() if f"{VENVS} " not in line
    ]


@pytest.mark.usefixtures("ensurepip")
def test_why_a_package_does_not_build_is_in_the_state(host):
    # As pg_config's absence is told by psycopg2's setup.py, and a missing library by the linker.
    broken = SDIST.replace('setup(name="whoami"', 'sys.exit("whoami_config executable not found")#')
    broken = broken.replace("/whoami-1.0.tar.gz", "/broken-1.0.tar.gz")
    host.run("python3", "-c", broken)
    requirements(host, "./vendor/broken-1.0.tar.gz\n")
    failed = state(host)
    assert failed["result"] is False and failed["changes"] == {}
    assert "whoami_config executable not found" in failed["comment"], failed["comment"]
    assert "subprocess-exited-with-error" in failed["comment"]


@pytest.mark.usefixtures("ensurepip")
def test_hashes_are_enforced_where_the_file_has_them(host):
    host.run(
        f"set -- {VENVS}/*/bin/pip; $1 -q download --no-deps -d /tmp/wheel sqlparse==0.5.3",
        timeout=120,
    )
    right = host.run("sha256sum /tmp/wheel/*.whl").stdout.split()[0]
    # One hash asks for all: a requirement without one is refused.
    requirements(
        host, f"sqlparse==0.5.3 --hash=sha256:{right}\nasgiref==3.8.1\n", "requirements.txt"
    )
    failed = state(host)
    assert failed["result"] is False
    assert "asgiref==3.8.1 --hash" in failed["comment"]
    requirements(host, "-r more/base.txt\n")
    requirements(host, f"sqlparse==0.5.3 --hash=sha256:{right}\n", "more/base.txt")
    built = state(host)
    assert built["result"] is True, built["comment"]


@pytest.mark.usefixtures("ensurepip")
def test_a_half_built_one_is_built_anew(host):
    path = state(host)["comment"].split()[0]
    host.run(f"rm {path}/.complete {path}/bin/pip; chown mysite {path}")
    # What the site itself could have left there while it was the owner.
    host.run(f"su -s /bin/sh mysite -c 'echo {{}} > {path}/.complete'")
    dry = state(host, test=True)
    assert dry["result"] is None
    assert "half built" in dry["comment"]
    assert state(host)["result"] is True
    assert host.exists(f"{path}/bin/pip")
    assert host.run("stat", "-c", "%U %u", f"{path}/.complete").stdout == "root 0\n"


@pytest.mark.usefixtures("ensurepip")
def test_a_run_that_is_killed_leaves_no_builder_behind_and_the_next_one_finishes(host):
    from test.hosts.salts import program

    requirements(host, "./vendor/whoami-1.0.tar.gz\nsqlparse==0.5.2\n")
    host.run("touch /tmp/slow")
    host.run(
        f"systemd-run --unit=killed -p KillMode=process {program('3008', 'salt-call')} --local "
        "--config-dir=/etc/salt-3008 state.single python_venv.built name=mysite"
    )
    deadline = time.monotonic() + 90
    # Until pip waits for setup.py: while it still prints, it would die of the broken pipe alone.
    while not host.exists("/tmp/begun"):
        assert time.monotonic() < deadline, "setup.py never ran"
        time.sleep(0.3)
    host.run("systemctl kill --kill-whom=main --signal=KILL killed")
    deadline = time.monotonic() + 20
    while host.run("pgrep -u mysite -f 'pip install'", check=False).stdout:
        assert time.monotonic() < deadline, "pip goes on although Salt is dead"
        time.sleep(0.3)
    host.run("rm /tmp/slow")
    built = state(host)
    assert built["result"] is True, built["comment"]
    assert state(host)["changes"] == {}


@pytest.mark.usefixtures("ensurepip")
def test_an_environment_kept_by_hand_is_used_as_it_is(host):
    host.run("python3 -m venv /opt/byhand", timeout=120)
    before = tree(host, "/opt/byhand")
    wanted = pillar(venv="/opt/byhand")
    right = state(host, pillar=wanted)
    assert (right["result"], right["changes"]) == (True, {})
    assert tree(host, "/opt/byhand") == before
    desired = host.salt_call("python_venv.desired", "mysite")
    assert desired["binary"] == "/opt/byhand/bin/python"
    assert desired["uwsgi"] == "/usr/bin/uwsgi"
    host.run("/opt/byhand/bin/pip -q install sqlparse==0.5.3", timeout=120)
    assert host.salt_call("python_venv.desired", "mysite")["digest"] != desired["digest"]
    lacking = state(host, pillar=pillar(venv="/opt/byhand", uwsgi={"package": "pyuwsgi"}))
    assert lacking["result"] is False
    assert "install pyuwsgi into it" in lacking["comment"]


INDEX = r"""
import base64, functools, http.server
wanted = "Basic " + base64.b64encode(b"deploy:" + PASSWORD.encode()).decode()


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=index")
            self.end_headers()
            return
        super().do_GET()


handler = functools.partial(Handler, directory="/srv/index")
http.server.ThreadingHTTPServer(("127.0.0.1", 8071), handler).serve_forever()
"""
PASSWORD = 'swordfish "is\\my#secret'
# All that anybody may read of any process, as often as it goes.
SPY = "while :; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >> /tmp/spied; echo >> /tmp/spied; done"


@pytest.mark.long
@pytest.mark.usefixtures("ensurepip")
def test_a_private_index_is_asked_with_a_password_that_nobody_sees(host):
    from test.hosts.salts import program

    # With build requirements of its own, for which pip starts another pip.
    sdist = SDIST.replace("/srv/mysite/vendor", "/srv/index/simple/whoami")
    sdist = sdist.replace("files = {", f'files = {{"pyproject.toml": {BUILD!r}, ')
    host.run("mkdir -p /srv/index/simple/whoami")
    host.run("python3", "-c", sdist)
    host.write("/root/index.py", f"PASSWORD = {PASSWORD!r}\n{INDEX}", 0o600)
    host.run("systemd-run --quiet --unit=index python3 /root/index.py")
    (public,) = re.findall(r"^index-url *= *(\S+)", host.read("/etc/pip.conf"), re.MULTILINE)
    mine = {"url": "http://127.0.0.1:8071/simple/", "user": "deploy"}
    requirements(host, "whoami==1.0\n")
    wrong = state(
        host, pillar=pillar(indexes=[{**mine, "password": PASSWORD[:-1]}, {"url": public}])
    )
    assert wrong["result"] is False
    assert "401" in wrong["comment"], wrong["comment"]
    assert "swordfish" not in json.dumps(wrong)
    host.set_pillar(pillar(indexes=[{**mine, "password": PASSWORD}, {"url": public}]))
    host.write("/root/spy", SPY)
    host.run("systemd-run --quiet --unit=spy sh /root/spy; touch /tmp/slow; rm -f /tmp/begun")
    done = [
        "salt-call",
        "--local",
        "--config-dir=/etc/salt-3008",
        "--log-level=debug",
        "--out=json",
    ]
    done[0] = program("3008", "salt-call")
    host.run(
        *("systemd-run", "--quiet", "--unit=build", "-p", "StandardOutput=file:/root/said"),
        *("-p", "StandardError=file:/root/log", "-p", "RemainAfterExit=yes", *done),
        *("state.single", "python_venv.built", "name=mysite"),
    )
    assert eventually(lambda: host.exists("/tmp/begun"), 90)
    # While a program from the index runs: the site's alone to read, and gone with the build.
    secret = host.run(f"find {VENVS} -name .netrc -printf '%u %m\n'").stdout
    assert secret == "mysite 600\n"
    host.run("rm /tmp/slow")
    assert eventually(
        lambda: "exited" in host.run("systemctl", "show", "-P", "SubState", "build").stdout, 90
    )
    host.run("systemctl stop spy index build")
    (built,) = json.loads(host.read("/root/said"))["local"].values()
    assert built["result"] is True, built["comment"]
    spied = host.read("/tmp/spied")
    assert "pip install" in spied and "--ignore-installed" in spied
    assert "swordfish" not in spied
    found = host.run(
        "grep -rl swordfish /var /etc /run /root/said /root/log /srv/mysite", check=False
    )
    assert found.stdout == ""
    # What the operator reads meanwhile.
    assert re.search(r"mysite: .*Collecting whoami==1.0", host.read("/root/log"))


@pytest.mark.long
@pytest.mark.usefixtures("ensurepip")
def test_wheels_on_the_host_are_enough(host):
    host.run(f"set -- {VENVS}/*/bin/pip; $1 -q download --no-deps -d /srv/wheels sqlparse==0.5.1")
    requirements(host, "sqlparse==0.5.1\n")
    offline = pillar(indexes=None, wheels=["vendor", "/srv/wheels"])
    built = state(host, pillar=offline)
    assert built["result"] is True, built["comment"]
    requirements(host, "asgiref==3.8.1\n")
    failed = state(host, pillar=offline)
    assert failed["result"] is False
    assert "No matching distribution found for asgiref==3.8.1" in failed["comment"]


PYPROJECT = """
[project]
name = "mysite"
version = "1.0"
dependencies = ["sqlparse==0.5.3"]

[project.optional-dependencies]
More_Of-it = ["asgiref==3.8.1"]

[dependency-groups]
base = ["packaging==24.2"]
prod = [{include-group = "base"}]
dev = ["iniconfig==2.0.0"]
"""
BUILD = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
"""


def installed(host, path):
    return set(
        host.run(
            f"ls -d {path}/lib/python3*/site-packages/*.dist-info | xargs -n1 basename"
        ).stdout.split()
    )


@pytest.mark.long
@pytest.mark.usefixtures("ensurepip")
def test_a_pyproject_tells_what_is_needed_and_a_package_comes_itself(host):
    requirements(host, PYPROJECT, "pyproject.toml")
    requirements(host, "GREETING = 'hello'\n", "src/mysite_app/__init__.py")
    wanted = pillar(requirements="pyproject.toml", extras=["more-of-it"], groups=["prod"])
    built = state(host, pillar=wanted)
    assert built["result"] is True, built["comment"]
    plain = {"sqlparse-0.5.3.dist-info", "asgiref-3.8.1.dist-info", "packaging-24.2.dist-info"}
    there = installed(host, built["changes"]["venv"]["new"])
    assert there & {*plain, "iniconfig-2.0.0.dist-info", "mysite-1.0.dist-info"} == plain
    missing = state(host, pillar=pillar(requirements="pyproject.toml", groups=["nope"]))
    assert "there is no dependency group 'nope'; there are: base, prod, dev" in missing["comment"]
    requirements(host, PYPROJECT + BUILD, "pyproject.toml")
    host.set_pillar(wanted)
    package = state(host)
    assert package["result"] is True, package["comment"]
    path = package["changes"]["venv"]["new"]
    assert installed(host, path) >= {*plain, "mysite-1.0.dist-info"}
    said = host.run(f"cd / && {path}/bin/python -c 'import mysite_app; print(mysite_app.GREETING)'")
    assert said.stdout == "hello\n"
    assert not host.exists("/srv/mysite/src/mysite.egg-info")
    # The project's code is part of it now.
    requirements(host, "GREETING = 'bye'\n", "src/mysite_app/__init__.py")
    assert state(host)["changes"]["venv"]["new"] != path


@pytest.mark.long
@pytest.mark.usefixtures("ensurepip")
@pytest.mark.parametrize("package", [False, True])
def test_a_uv_lock_is_installed_as_it_is_with_its_hashes(host, package):
    (public,) = re.findall(r"^index-url *= *(\S+)", host.read("/etc/pip.conf"), re.MULTILINE)
    requirements(host, PYPROJECT + (BUILD if package else ""), "pyproject.toml")
    host.run(
        f"test -e /opt/uv || {{ python3 -m venv /opt/uv && /opt/uv/bin/pip -q install {lock_files.UV}; }}",
        timeout=300,
    )
    host.run(f"cd /srv/mysite && /opt/uv/bin/uv lock --quiet --default-index {public}", timeout=120)
    wanted = pillar(requirements="uv.lock", extras=["more-of-it"], groups=["prod"])
    built = state(host, pillar=wanted)
    assert built["result"] is True, built["comment"]
    plain = {"sqlparse-0.5.3.dist-info", "asgiref-3.8.1.dist-info", "packaging-24.2.dist-info"}
    if package:
        plain.add("mysite-1.0.dist-info")
    there = installed(host, built["changes"]["venv"]["new"])
    assert there & {*plain, "iniconfig-2.0.0.dist-info", "mysite-1.0.dist-info"} == plain
    lock = host.read("/srv/mysite/uv.lock")
    requirements(host, re.sub("sha256:....", "sha256:0000", lock), "uv.lock")
    failed = state(host)
    assert failed["result"] is False
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in failed["comment"]


@pytest.mark.usefixtures("ensurepip")
def test_they_go_with_the_site(host):
    assert tree(host)
    assert state(host, function="python_venv.absent", test=True)["result"] is None
    assert tree(host)
    assert state(host, function="python_venv.absent")["result"] is True
    assert not host.exists(VENVS)
    assert state(host, function="python_venv.absent")["changes"] == {}
