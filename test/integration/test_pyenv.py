"""
A site in an interpreter of pyenv's: Debian's pyenv, and a Python that it has compiled itself.

The source is what python.org released, as Debian 12 keeps it (the checksum is pyenv's own); the host
is Debian 13, whose own Python is another.
"""

from typing import Any

import pytest

from ..hosts.host import Host

pytestmark = pytest.mark.long

NAME = "a.compute.amazonaws.com"
PYENV = "/opt/pyenv"
VERSION = "3.11.2"
INTERPRETER = f"{PYENV}/versions/{VERSION}/bin/python"
BUILT = "mysite: virtual environment"
INSTALL = f"""
set -e
cat >/etc/apt/sources.list.d/source.sources <<'END'
Types: deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
apt-get -q update
apt-get -qy --no-install-recommends install pyenv gcc make patch zlib1g-dev libssl-dev \\
    libsqlite3-dev libffi-dev
mkdir -p {PYENV}/cache
cd {PYENV}/cache
apt-get -q source --download-only python3.11
mv python3.11_{VERSION}.orig.tar.gz Python-{VERSION}.tar.gz
# pyenv prefers the .tar.xz, of which Debian has none.
grep tgz /usr/share/pyenv/plugins/python-build/share/python-build/{VERSION} >/root/{VERSION}
export PYENV_ROOT={PYENV} MAKE_OPTS=-j2
pyenv install /root/{VERSION}
pyenv global {VERSION}
pyenv rehash
# The pip that it brings knows other authorities than the host does.
sed -i '/^.global.$/a cert = /etc/ssl/certs/ca-certificates.crt' /etc/pip.conf
"""


def pillar(python: str) -> dict[str, Any]:
    return {
        "nginx_uwsgi_django": {
            "nginx": {"repo": "distro"},
            "sites": {
                "mysite": {
                    "server_names": ["*.compute.amazonaws.com"],
                    "project": {
                        "source": {"salt": "salt://examples/mysite"},
                        "wsgi": "mysite.wsgi:application",
                        "settings": "mysite.settings",
                        "python": python,
                    },
                    "uwsgi": {"package": "pyuwsgi==2.0.30.post1", "processes": 1},
                }
            },
        }
    }


@pytest.fixture(scope="module")
def pyenv_host(trixie_host: Host) -> Host:
    trixie_host.write("/root/install", INSTALL)
    trixie_host.run("sh /root/install >/root/install.log 2>&1", timeout=3600)
    return trixie_host


def test_a_shim_is_refused_with_the_interpreters_behind_it(pyenv_host: Host) -> None:
    shim = f"{PYENV}/shims/python3.11"
    pyenv_host.run(f"test -x {shim} && ln -sf {shim} /usr/local/bin/python3.11")
    for path in (shim, "/usr/local/bin/python3.11"):
        for test in (True, False):
            run = pyenv_host.apply(pillar=pillar(path), test=test, timeout=900)
            assert run.by_id[BUILT].result is False
            said = run.by_id[BUILT].comment
            assert f"{path} (nginx_uwsgi_django:sites:mysite:project:python) is a shim" in said
            assert f"one of {PYENV}/versions/{VERSION}/bin/python3.11" in said
    assert not pyenv_host.exists("/var/lib/nginx_uwsgi_django/venvs/mysite")


def test_one_that_the_sites_user_may_not_enter_is_told_so(pyenv_host: Host) -> None:
    # As pyenv's own installer puts it, below root's home.
    pyenv_host.run(f"chmod 0700 {PYENV}")
    try:
        run = pyenv_host.apply(pillar=pillar(INTERPRETER), timeout=900)
    finally:
        pyenv_host.run(f"chmod 0755 {PYENV}")
    said = run.by_id[BUILT].comment
    assert run.by_id[BUILT].result is False
    assert f"{INTERPRETER} (nginx_uwsgi_django:sites:mysite:project:python)" in said
    assert "it cannot be executed by mysite: " in said


def test_the_site_runs_in_the_interpreter_that_is_named(pyenv_host: Host) -> None:
    run = pyenv_host.apply(pillar=pillar(INTERPRETER), timeout=1200)
    assert run.ok, run
    assert pyenv_host.get("/", NAME)[0] == 200
    told = pyenv_host.salt_call(
        "django_command.manage", "mysite", 'shell -c "import sys; print(sys.version.split()[0])"'
    )
    assert told["retcode"] == 0 and told["stdout"].split()[-1] == VERSION, told
    unit = pyenv_host.salt_call("uwsgi_status.show", "mysite")["unit"]
    pid = pyenv_host.run("systemctl", "show", "-P", "MainPID", unit).stdout.strip()
    assert pyenv_host.run(f"readlink /proc/{pid}/exe").stdout.startswith(f"{PYENV}/versions/")


def test_what_pyenv_is_told_afterwards_changes_nothing(pyenv_host: Host) -> None:
    pyenv_host.run(f"PYENV_ROOT={PYENV} pyenv global system")
    # A name for the newest of a line, as operators (and pyenv's plugins) have it.
    pyenv_host.run(f"ln -sfn {VERSION} {PYENV}/versions/3.11")
    alias = pillar(f"{PYENV}/versions/3.11/bin/python")
    for wanted in (pillar(INTERPRETER), alias):
        again = pyenv_host.apply(pillar=wanted)
        assert again.ok, again
        assert [result.id for result in again.changed] == []
