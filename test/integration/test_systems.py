"""
The whole job on every system with every Salt (`test/matrix.py`): a bare host is brought up, releases
change and go back under load, nginx is replaced and restarted under load, and all is taken back and
applied again. systemd has nothing to warn of in the end.

The default run draws one row; `--full` runs them all.
"""

import os
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from ..conftest import SEED
from ..functional import uwsgi_load as load
from ..functional import uwsgi_site as site
from ..hosts.host import Host
from ..hosts.state_run import StateRun
from ..matrix import ROWS, Row

SOURCE = "/srv/salt/project"
NAME = "www.example.org"
SETTINGS = """
import os
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["www.example.org"]
ROOT_URLCONF = "mysite.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.staticfiles"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3",
                         "NAME": os.environ["DJANGO_DATA_DIR"] + "/db"}}
STATIC_URL = "/static/"
STATIC_ROOT = os.environ["DJANGO_STATIC_ROOT"]
"""
# Every kind of unit that the formula writes, but for those of certificates and drains.
PILLAR = {
    "nginx_uwsgi_django": {
        "nginx": {"repo": "distro", "user": "deploy"},
        "schedule": {"minutes": 10080},
        "sites": {
            "mysite": {
                "server_names": [NAME],
                "project": {
                    "source": {"salt": "salt://project"},
                    "wsgi": "mysite.wsgi:application",
                    "settings": "mysite.settings",
                    "env": {"SECRET_KEY": "a-key-that-is-long-enough-for-anybody-77aa55"},
                },
                "uwsgi": {"processes": 3, "limits": {"MemoryMax": "1G", "TasksMax": 200}},
                "companions": {
                    "worker": {
                        "command": "python -c 'import time; time.sleep(86400)'",
                        "settle": 1,
                    },
                    "sweep": {"command": "manage.py check", "schedule": "*-*-* 03:30:00"},
                },
            }
        },
    }
}
# Hosts have no controller for processes where the test machine mounts that of cgroup v1, and D-Bus may
# not raise its limits in a container.
NOT_OURS = re.compile(
    r"Failed to read pids\.max for control group|DBus.*Failed to set fd limit to \d+: Operation"
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All rows, or one of them: the whole job on the newest Debian is test_django_current.py's, too."""
    rows = list(ROWS)
    if not metafunc.config.getoption("--full"):
        chance = random.Random(f"{os.environ[SEED]} {metafunc.module.__name__}")
        rows = [chance.choice(rows)]
    metafunc.parametrize("made", rows, ids=str, indirect=True, scope="module")


class Made:
    """A host of a row, and the project that its site is made of."""

    def __init__(self, row: Row, host: Host) -> None:
        self.row, self.host = row, host
        self.number = 0

    def next(self) -> str:
        """Write the next version of the project; returns what its page says."""
        self.number += 1
        version = f"v{self.number}"
        site.project(self.host, version, path=SOURCE, settings=SETTINGS)
        return version

    def apply(self, sls: str = "nginx_uwsgi_django", **kwargs: Any) -> StateRun:
        run = self.host.apply(sls, pillar=PILLAR, salt=self.row.salt, timeout=900, **kwargs)
        assert run.ok, run.failed
        return run

    def call(self, function: str, *args: Any) -> Any:
        return self.host.salt_call(function, *args, salt=self.row.salt)

    def page(self) -> str:
        status, _, body = self.host.get("/", NAME)
        assert status == 200, body
        return body.decode()

    def under_load(self, act: Any) -> dict[str, Any]:
        """What came of the requests while something was done: none was lost."""
        told = load.under_load(self.host, load.NGINX, act)
        assert told["lost"] == []
        assert told["asked"] > 50
        return told


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    """A host of the row to which the formula was applied once."""
    row: Row = request.param
    name = f"systems-{row.system.release}-{Host.tag()}"
    with row.system.kind.create(name, release=row.system.release) as host:
        made = Made(row, host)
        host.write(f"{SOURCE}/requirements.txt", "Django>=5.2\n")
        version = made.next()
        made.apply(cold=True)
        assert made.page() == version
        yield made


def test_it_has_the_versions_that_the_matrix_says(made: Made) -> None:
    system, host = made.row.system, made.host
    assert f'PRETTY_NAME="{system.name.split()[0]}' in host.read("/etc/os-release")
    found = made.call("nginx_uwsgi_django.version")["nginx"]
    assert re.match(rf"{re.escape(system.nginx)}\.", found), found
    assert f"Python {system.python}." in host.run("/usr/bin/python3 --version").stdout
    assert host.run("systemctl --version").stdout.split()[1] == system.systemd


def test_a_second_run_changes_nothing(made: Made) -> None:
    assert [result.id for result in made.apply().changed] == []
    dry = made.apply(test=True)
    assert [result.id for result in dry.results if result.result is not True] == []


def test_a_release_and_a_rollback_lose_nothing(made: Made) -> None:
    before = made.page()
    version = made.next()

    def act() -> None:
        made.apply()
        assert made.page() == version
        made.call("site_rollback.rollback", "mysite")
        assert made.page() == before

    assert {before, version} <= set(made.under_load(act)["seen"])
    # The pillar's is the next release that differs from both.
    version = made.next()
    made.under_load(made.apply)
    assert made.page() == version


def test_nginx_is_replaced_and_restarted_without_a_lost_request(made: Made) -> None:
    host = made.host
    host.run("systemctl restart nginx")
    assert set(made.call("nginx_socket.held")) == {"0.0.0.0:80"}

    def act() -> None:
        host.run(
            "cp -p /usr/sbin/nginx /usr/sbin/nginx.new && mv /usr/sbin/nginx.new /usr/sbin/nginx"
        )
        (changed,) = made.apply().changed
        assert set(changed.changes) == {"binary"}
        # The old nginx finishes its requests. Debian's unit would kill it in a restart.
        masters = "pgrep --count --full '^nginx: master'"
        site.eventually(lambda: host.run(masters).stdout.strip() == "1", 30)
        host.run("systemctl restart nginx")

    made.under_load(act)
    assert made.apply().changed == []


def test_clean_and_again(made: Made) -> None:
    page = made.page()
    made.apply("nginx_uwsgi_django.clean")
    host = made.host
    left = host.run(
        "find /etc/systemd/system /etc/uwsgi /etc/nginx -name '*mysite*' -o -name 'nginx.service.d' "
        "-o -name '*nginx_uwsgi_django*' 2>/dev/null",
        check=False,
    ).stdout
    assert left == ""
    assert made.apply("nginx_uwsgi_django.clean").changed == []
    made.apply()
    assert made.page() == page
    assert made.apply().changed == []


def test_systemd_has_nothing_to_warn_of(made: Made) -> None:
    """Deprecated settings of units, above all; after all that was done before."""
    host = made.host
    host.reboot()
    site.eventually(lambda: host.run("systemctl is-active nginx", check=False).returncode == 0, 60)
    said = host.run("journalctl --quiet --no-pager -p warning -o cat").stdout
    assert [line for line in said.splitlines() if not NOT_OURS.search(line)] == []
