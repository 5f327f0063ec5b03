"""
Two hosts that may both migrate one database, with a real PostgreSQL.
"""

import json
import time
import zlib

import pytest

from test.hosts.salts import program

from .test_django_release import PROJECT, SETTINGS, SOURCE, good, pillar, steps

pytestmark = pytest.mark.long

SQLITE = '"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"'
POSTGRES = (
    '"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": "/var/run/postgresql"'
)


def ask(host, question):
    done = host.run("su", "postgres", "-c", f'cd /; psql -Atd shop -c "{question}"')
    return done.stdout.strip()


def wait(condition, what):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def test_a_second_host_waits_for_the_first_and_finds_it_done(host):
    host.run("apt-get install -qy python3-venv postgresql", timeout=400)
    host.run("su postgres -c 'cd /; createuser mysite && createdb -O mysite shop'")
    assert SQLITE in SETTINGS
    for name, text in PROJECT.items():
        host.write(f"{SOURCE}/{name}", text)
    host.write(f"{SOURCE}/requirements.txt", "Django>=5.2,<5.3\npsycopg[binary]\n")
    host.write(f"{SOURCE}/site_/settings.py", SETTINGS.replace(SQLITE, POSTGRES))
    host.salt_call("saltutil.sync_all", pillar=pillar())
    good(host, "system_account.present")
    for name, result in steps(host, "django_release.present", "python_venv.built").items():
        assert result.result is True, f"{name}: {result.comment}"

    # The other host, in the midst of its migrations.
    key = zlib.crc32(b"django migrate shop")
    hold = f"SELECT pg_advisory_lock({key}), pg_sleep(600)"
    host.run("systemd-run", "--unit=other", "--uid=postgres", "psql", "-d", "shop", "-c", hold)
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    wait(lambda: ask(host, held) == "1", "the lock was never taken")
    host.run(
        "systemd-run --unit=here --property=RemainAfterExit=yes "
        f"{program('3008', 'salt-call')} --local --config-dir=/etc/salt-3008 "
        "--out=json --out-file=/tmp/here.json state.single django_release.prepared name=mysite"
    )
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory%'"
    wait(lambda: ask(host, f"{asked} AND usename = 'mysite'") != "0", "nobody asked for the lock")
    assert ask(host, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'shop_%'") == "0"
    # The server would not notice before its sleep is over that its client is gone.
    ask(
        host,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted",
    )
    wait(
        lambda: host.exists("/tmp/here.json") and host.read("/tmp/here.json"), "it went on waiting"
    )
    (result,) = json.loads(host.read("/tmp/here.json"))["local"].values()
    assert result["result"] is True, result["comment"]
    assert "shop.0001_initial" in result["changes"]["migrated"]["new"]
    # The lock ended with whoever had it.
    assert ask(host, held) == "0"
