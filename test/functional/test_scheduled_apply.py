"""
A host that applies the formula by itself: switched on, it heals a drift; switched off, it is gone.

The sites are all absent ones, so that a run is nginx's and short: the timer runs the whole formula.
"""

import json
import time

import pytest

from ..hosts.salts import program

UNIT = "nginx-uwsgi-django-apply"
DIRECTORY = "/etc/systemd/system"
STATE = "schedule: timer"


def pillar(**schedule):
    formula = {"sites": {"gone": {"absent": True}}}
    if schedule:
        formula["schedule"] = schedule
    return {"nginx_uwsgi_django": formula}


def units(host):
    """Every unit file of the schedule and what systemd has of the timer."""
    listed = host.run(f"find {DIRECTORY} -name '{UNIT}*' -printf '%p %i %C@\\n' | sort").stdout
    return listed + host.run("systemctl", "is-active", f"{UNIT}.timer", check=False).stdout


@pytest.fixture(scope="module")
def scheduled(host):
    run = host.apply(pillar=pillar(minutes=60, splay=5), cold=True)
    assert run.ok, run
    assert f"{DIRECTORY}/{UNIT}.timer" in run.by_id[STATE].changes
    return host


def test_the_timer_is_set_and_a_second_run_changes_nothing(scheduled):
    before = units(scheduled)
    assert before.endswith("\nactive\n")
    show = scheduled.salt_call("systemd_unit.show", f"{UNIT}.timer", ["UnitFileState"])
    assert show[f"{UNIT}.timer"]["UnitFileState"] == "enabled"
    run = scheduled.apply()
    assert run.ok and run.changed == [], run.changed
    assert units(scheduled) == before
    verify = scheduled.run("systemd-analyze", "verify", f"{DIRECTORY}/{UNIT}.timer", check=False)
    assert UNIT not in verify.stdout + verify.stderr
    assert scheduled.salt_call("scheduled_apply.last") == {
        "scheduled": True,
        "running": False,
        "began": None,
        "ended": None,
        "result": None,
        "states": 0,
        "changed": [],
        "failed": {},
        "errors": [],
    }


def test_the_timer_itself_heals_a_drift_and_the_report_says_so(scheduled):
    wanted = scheduled.read("/etc/nginx/nginx.conf")
    scheduled.write("/etc/nginx/nginx.conf", wanted.replace("user deploy;", "user www-data;"))
    # The real timer, in a second and not in an hour.
    scheduled.run("mkdir", "-p", f"/run/systemd/system/{UNIT}.timer.d")
    scheduled.write(
        f"/run/systemd/system/{UNIT}.timer.d/now.conf",
        "[Timer]\nOnActiveSec=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=1s\n",
    )
    scheduled.run(f"systemctl daemon-reload && systemctl restart {UNIT}.timer")
    deadline = time.monotonic() + 240
    report = scheduled.salt_call("scheduled_apply.last")
    while report["ended"] is None and time.monotonic() < deadline:
        time.sleep(1)
        report = scheduled.salt_call("scheduled_apply.last")
    scheduled.run(f"rm -r /run/systemd/system/{UNIT}.timer.d && systemctl daemon-reload")
    assert scheduled.read("/etc/nginx/nginx.conf") == wanted
    assert (report["result"], report["failed"], report["errors"]) == (True, {}, [])
    assert report["changed"][0] == "nginx: configuration tree"
    assert report["states"] > 5
    assert report["began"] <= report["ended"]
    assert scheduled.run(f"stat -c %a /run/{UNIT}").stdout == "700\n", "reports are root's"
    # The run left the schedule that it is part of as it was.
    assert units(scheduled).endswith("\nactive\n")


def test_beside_another_run_it_is_refused_and_says_so(scheduled):
    scheduled.run("mkdir -p /srv/salt")
    scheduled.write("/srv/salt/slow.sls", "slow:\n  cmd.run:\n    - name: sleep 60\n")
    folder = scheduled.salt_config()
    salt_call = scheduled.salt_call("scheduled_apply.command")[0]
    scheduled.run(
        f"systemd-run --quiet --unit=other {salt_call} --local --config-dir={folder} "
        "state.apply slow && until pgrep -x sleep >/dev/null; do sleep 0.2; done"
    )
    started = scheduled.run("systemctl", "start", f"{UNIT}.service", check=False, timeout=240)
    report = scheduled.salt_call("scheduled_apply.last")
    scheduled.run("systemctl", "stop", "other.service")
    assert started.returncode != 0
    assert report["result"] is False
    assert "is running as PID" in report["errors"][0]
    assert report["scheduled"] is True


def test_what_fails_is_in_the_report(scheduled):
    scheduled.set_pillar({"nginx_uwsgi_django": {"sites": {}}})
    started = scheduled.run("systemctl", "start", f"{UNIT}.service", check=False, timeout=240)
    report = scheduled.salt_call("scheduled_apply.last")
    assert started.returncode != 0
    assert report["result"] is False
    assert list(report["failed"]) == ["nginx_uwsgi_django: pillar validated"]
    # Before Salt could say anything at all, systemd's words have to do.
    config = f"{scheduled.salt_config()}/minion"
    text = scheduled.read(config)
    scheduled.write(config, "[\n")
    scheduled.run("systemctl", "start", f"{UNIT}.service", check=False, timeout=240)
    scheduled.write(config, text)
    report = scheduled.salt_call("scheduled_apply.last")
    assert report["result"] is False
    assert report["failed"] == {}
    assert report["errors"][0].startswith(f"{UNIT}.service: exit-code")
    assert len(report["errors"]) > 1, "and the journal's"


def test_an_interval_is_changed_in_the_running_timer(scheduled):
    dry = scheduled.apply("nginx_uwsgi_django.schedule", pillar=pillar(minutes=30), test=True)
    assert dry.by_id[STATE].result is None
    assert "60min" in scheduled.read(f"{DIRECTORY}/{UNIT}.timer")
    run = scheduled.apply("nginx_uwsgi_django.schedule")
    assert run.ok and run.by_id[STATE].changes, run
    asked = scheduled.salt_call("systemd_unit.show", f"{UNIT}.timer", ["TimersMonotonic"])
    assert "OnUnitInactiveUSec=30min" in asked[f"{UNIT}.timer"]["TimersMonotonic"]
    # A run killed before systemd read the file is finished by the next.
    scheduled.run(
        f"sed -i s/RandomizedDelaySec=10min/RandomizedDelaySec=9min/ {DIRECTORY}/{UNIT}.timer"
    )
    scheduled.run("systemctl", "daemon-reload")
    scheduled.run(
        f"sed -i s/RandomizedDelaySec=9min/RandomizedDelaySec=10min/ {DIRECTORY}/{UNIT}.timer"
    )
    run = scheduled.apply("nginx_uwsgi_django.schedule")
    assert run.by_id[STATE].changes == {
        "timer": {"old": "of an older unit file", "new": "of the one on disk"}
    }
    asked = scheduled.salt_call("systemd_unit.show", f"{UNIT}.timer", ["RandomizedDelayUSec"])
    assert asked[f"{UNIT}.timer"]["RandomizedDelayUSec"] == "10min"


@pytest.mark.parametrize("how", ["off", "clean"])
def test_switched_off_nothing_of_it_is_left(scheduled, how):
    assert scheduled.apply("nginx_uwsgi_django.schedule", pillar=pillar(minutes=60)).ok
    if how == "off":
        run = scheduled.apply("nginx_uwsgi_django.schedule", pillar=pillar())
        again = scheduled.apply("nginx_uwsgi_django.schedule")
    else:
        run = scheduled.apply("nginx_uwsgi_django.schedule.clean")
        again = scheduled.apply("nginx_uwsgi_django.schedule.clean")
    assert run.ok and len(run.changed) == 1, run
    assert units(scheduled) == "inactive\n"
    assert not scheduled.exists(f"/run/{UNIT}")
    assert scheduled.run(f"systemctl list-units --all '{UNIT}*' --no-legend").stdout == ""
    assert again.ok and again.changed == [], again


def test_a_run_by_the_timer_that_finds_itself_switched_off_ends_well(scheduled):
    assert scheduled.apply("nginx_uwsgi_django.schedule", pillar=pillar(minutes=60)).ok
    scheduled.set_pillar(pillar())
    scheduled.run("systemctl", "start", f"{UNIT}.service", timeout=240)
    assert units(scheduled) == "inactive\n"
    report = scheduled.salt_call("scheduled_apply.last")
    assert report["scheduled"] is False


@pytest.mark.long
def test_bin_apply_leaves_the_timer_what_it_needs(host):
    apply, lasting = "/srv/formula/bin/apply", "/var/lib/nginx_uwsgi_django/apply"
    host.run("ln", "-sf", program("3008", "salt-call"), "/usr/local/bin/salt-call")
    host.write("/root/pillar.sls", json.dumps(pillar(minutes=60)))
    host.run(apply, "--test", "/root/pillar.sls", timeout=240)
    assert not host.exists(lasting), "a dry run decides nothing"
    host.run(apply, "/root/pillar.sls", timeout=240)
    # The file that it was given may go, as the configuration of that run has.
    host.run("rm", "/root/pillar.sls")
    assert f"--config-dir={lasting} " in host.read(f"{DIRECTORY}/{UNIT}.service")
    assert host.run(f"stat -c %a {lasting}").stdout == "700\n", "a pillar has secrets"
    conf = host.read("/etc/nginx/nginx.conf")
    host.write("/etc/nginx/nginx.conf", conf.replace("user deploy;", "user www-data;"))
    host.run("systemctl", "start", f"{UNIT}.service", timeout=240)
    assert host.read("/etc/nginx/nginx.conf") == conf
    host.write("/root/pillar.sls", json.dumps(pillar()))
    host.run(apply, "/root/pillar.sls", timeout=240)
    assert not host.exists(lasting)
    assert units(host) == "inactive\n"


def test_a_unit_of_somebody_else_stays(scheduled):
    scheduled.write(f"{DIRECTORY}/{UNIT}.timer", "[Timer]\nOnBootSec=1h\n")
    for one in ("nginx_uwsgi_django.schedule", "nginx_uwsgi_django.schedule.clean"):
        run = scheduled.apply(one, pillar=pillar(minutes=60))
        assert [state.function.partition(".")[0] for state in run.failed] == ["scheduled_apply"]
        assert "not this formula's" in run.failed[0].comment
    assert scheduled.read(f"{DIRECTORY}/{UNIT}.timer") == "[Timer]\nOnBootSec=1h\n"
