"""
Two hosts that may both migrate one database, with a real PostgreSQL and a real MariaDB.
"""

import json
import time
import zlib
from typing import ClassVar

import pytest

from test.hosts.salts import program

from .test_django_release import PROJECT, SETTINGS, SOURCE, good, pillar, steps

pytestmark = pytest.mark.long

SQLITE = '"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"'
KEY = zlib.crc32(b"django migrate shop")


class Postgres:
    """PostgreSQL, its database `shop` and the site's user in it."""

    package = "postgresql"
    requirement = "psycopg[binary]"
    settings = (
        '"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": "/var/run/postgresql"'
    )
    imports = ""
    # The server would not notice before its sleep is over that its client is gone.
    let_go = (
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    )
    is_held = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND granted"
    is_asked_for = (
        "SELECT count(*) > 0 FROM pg_stat_activity "
        "WHERE query LIKE 'SELECT pg_try_advisory%' AND usename = 'mysite'"
    )
    is_empty = "SELECT count(*) = 0 FROM pg_tables WHERE tablename LIKE 'shop_%'"
    hold: ClassVar = [
        *("--uid=postgres", "psql", "-d", "shop", "-c"),
        f"SELECT pg_advisory_lock({KEY}), pg_sleep(600)",
    ]

    def create(self, host):
        host.run("su postgres -c 'cd /; createuser mysite && createdb -O mysite shop'")

    def ask(self, host, question):
        done = host.run("su", "postgres", "-c", f'cd /; psql -Atd shop -c "{question}"')
        return done.stdout.strip()

    def says(self, host, question):
        return self.ask(host, question) == "t"


class MariaDB:
    """MariaDB, its database `shop` and the site's user in it."""

    package = "mariadb-server"
    requirement = "PyMySQL"
    settings = (
        '"ENGINE": "django.db.backends.mysql", "NAME": "shop", "USER": "mysite", '
        '"PASSWORD": "lock", "HOST": "/run/mysqld/mysqld.sock"'
    )
    imports = "import pymysql\npymysql.install_as_MySQLdb()\n"
    let_go = f"KILL (SELECT IS_USED_LOCK('django migrate {KEY}'))"
    is_held = f"SELECT IS_USED_LOCK('django migrate {KEY}') IS NOT NULL"
    # One connection is the migrations', the other one the lock's.
    is_asked_for = "SELECT count(*) > 1 FROM information_schema.processlist WHERE user = 'mysite'"
    is_empty = (
        "SELECT count(*) = 0 FROM information_schema.tables "
        "WHERE table_schema = 'shop' AND table_name LIKE 'shop\\_%'"
    )
    hold: ClassVar = ["mariadb", "-e", f"SELECT GET_LOCK('django migrate {KEY}', 0), SLEEP(600)"]

    def create(self, host):
        self.ask(host, "CREATE DATABASE shop CHARACTER SET utf8mb4")
        self.ask(host, "CREATE USER mysite@localhost IDENTIFIED BY 'lock'")
        self.ask(host, "GRANT ALL ON shop.* TO mysite@localhost")

    def ask(self, host, question):
        return host.run("mariadb", "--batch", "--skip-column-names", "-e", question).stdout.strip()

    def says(self, host, question):
        return self.ask(host, question) == "1"


def wait(condition, what):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.mark.parametrize("server", [Postgres(), MariaDB()], ids=["PostgreSQL", "MariaDB"])
def test_a_second_host_waits_for_the_first_and_finds_it_done(host, server):
    host.install("python3-venv", server.package)
    server.create(host)
    assert SQLITE in SETTINGS
    for name, text in PROJECT.items():
        host.write(f"{SOURCE}/{name}", text)
    host.write(f"{SOURCE}/requirements.txt", f"Django>=5.2,<5.3\n{server.requirement}\n")
    settings = server.imports + SETTINGS.replace(SQLITE, server.settings)
    host.write(f"{SOURCE}/site_/settings.py", settings)
    host.salt_call("saltutil.sync_all", pillar=pillar())
    good(host, "system_account.present")
    for name, result in steps(host, "django_release.present", "python_venv.built").items():
        assert result.result is True, f"{name}: {result.comment}"

    # The other host, in the midst of its migrations.
    host.run("systemd-run", "--unit=other", *server.hold)
    wait(lambda: server.says(host, server.is_held), "the lock was never taken")
    host.run("rm -f /tmp/here.json")
    host.run(
        "systemd-run --unit=here --collect "
        f"{program('3008', 'salt-call')} --local --config-dir=/etc/salt-3008 "
        "--out=json --out-file=/tmp/here.json state.single django_release.prepared name=mysite"
    )
    wait(lambda: server.says(host, server.is_asked_for), "nobody asked for the lock")
    time.sleep(3)
    assert server.says(host, server.is_empty), "it did not wait"
    server.ask(host, server.let_go)
    wait(
        lambda: host.exists("/tmp/here.json") and host.read("/tmp/here.json"), "it went on waiting"
    )
    (result,) = json.loads(host.read("/tmp/here.json"))["local"].values()
    assert result["result"] is True, result["comment"]
    assert "shop.0001_initial" in result["changes"]["migrated"]["new"]
    assert not server.says(host, server.is_empty)
    # The lock ended with whoever had it.
    assert not server.says(host, server.is_held)
    host.run("systemctl reset-failed other; true")
