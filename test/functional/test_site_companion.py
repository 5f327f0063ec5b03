"""
Companions of a site on a real host: started, drained and started anew, scheduled, removed.
"""

import json

import pytest

from .uwsgi_site import eventually

UNIT = "django-mysite.worker.service"
UNITS = "/etc/systemd/system"
SECRET = "a\"b'c`d\\e $HOME %d"
# Finishes what it is at when it is asked to end, and tells all that it was given.
WORKER = """
import json, os, pathlib, signal, sys, time

ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
place = pathlib.Path("/srv/mysite/data")
told = {"argv": sys.argv[1:], "cwd": os.getcwd(), "uid": os.getuid(), "env": dict(os.environ)}
(place / "told.json").write_text(json.dumps(told))
if os.path.exists("broken"):
    sys.exit("cannot work with " + os.environ["SECRET"])
while not ending:
    time.sleep(0.05)
time.sleep(0.5)
(place / "finished").write_text(sys.argv[1])
"""
NIGHTLY = """
import pathlib, time
place = pathlib.Path("/srv/mysite/data")
(place / "began").touch()
while not (place / "go").exists():
    time.sleep(0.05)
(place / "ended").touch()
"""
# What means something to a shell or to systemd.
WORDS = ["$HOME", "${HOME}", "%n", "a b", ";", "'", '"', "\\\\n", "", "*", "$(id)", "é"]


def pillar(companions, **project):
    site = {
        "server_names": ["mysite.example"],
        "project": {
            "wsgi": "mysite.wsgi:application",
            "settings": "mysite.settings",
            "venv": "/opt/venv",
            "exclude": ["data"],
            "env": {"SECRET": SECRET},
            **project,
        },
        "uwsgi": {"package": "distro"},
        "companions": companions,
    }
    return {"nginx_uwsgi_django": {"sites": {"mysite": site}}}


def worker(**more):
    command = ["python", "worker.py", "one", *WORDS]
    return {"worker": {"command": command, "settle": 1, "stop_timeout": 10, **more}}


def nightly(**more):
    # A time that does not come in this test.
    more = {"schedule": "2000-01-01", **more}
    return {"nightly": {"command": "bin/nightly", **more}}


def state(host, function="running", **more):
    done = host.salt_call("state.single", f"site_companion.{function}", name="mysite", **more)
    (result,) = done.values()
    return result


def shown(host, unit, *properties):
    return host.run("systemctl", "show", "-P", ",".join(properties), unit).stdout.split("\n")[:-1]


def pid(host, unit=UNIT):
    return int(shown(host, unit, "MainPID")[0])


def files(host):
    return host.run(
        "find /etc/systemd/system /var/lib/nginx_uwsgi_django/companions "
        "-printf '%p %i %u:%g %m %s %C@ %l\\n' | sort"
    ).stdout


@pytest.fixture(scope="module", autouse=True)
def _project(host):
    host.run("useradd --system --user-group --home-dir /nonexistent mysite")
    host.run("python3 -m venv --without-pip /opt/venv")
    host.write("/srv/mysite/worker.py", WORKER)
    host.write("/srv/mysite/bin/nightly", f"#!/opt/venv/bin/python{NIGHTLY}", 0o755)
    host.run("install -d -o mysite /srv/mysite/data")
    host.run("install -d -o mysite /var/lib/nginx_uwsgi_django/sites/mysite")
    host.salt_call("saltutil.sync_all", pillar=pillar(worker()))


@pytest.fixture
def up(host):
    """The worker, running, whatever a test before did."""
    host.run("rm -rf /srv/mysite/broken /srv/mysite/data/*")
    done = state(host, pillar=pillar(worker()))
    assert done["result"] is True, done["comment"]
    return host


def test_it_runs_with_its_words_and_the_sites_environment_and_no_more(host):
    dry = state(host, test=True, pillar=pillar(worker()))
    assert dry["result"] is None
    assert host.run(f"ls {UNITS} | grep ^django-", check=False).stdout == ""
    done = state(host)
    assert done["result"] is True, done["comment"]
    assert done["changes"] == dry["changes"]
    told = json.loads(host.read("/srv/mysite/data/told.json"))
    assert told["argv"] == ["one", *WORDS]
    assert told["cwd"] == "/srv/mysite"
    assert told["uid"] == int(host.run("id -u mysite").stdout)
    assert told["env"]["SECRET"] == SECRET
    assert told["env"]["DJANGO_SETTINGS_MODULE"] == "mysite.settings"
    assert SECRET not in host.run(f"cat {UNITS}/{UNIT}; systemctl show {UNIT}").stdout
    environment = "/var/lib/nginx_uwsgi_django/companions/mysite.env"
    assert host.run("stat", "-c", "%U %a", environment).stdout == "root 600\n"
    rating = host.run("systemd-analyze", "security", "--no-pager", UNIT).stdout
    assert float(rating.rsplit("exposure level for", 1)[1].split(":")[1].split()[0]) <= 2.0

    before = pid(host), files(host)
    again = state(host)
    assert (again["result"], again["changes"]) == (True, {})
    assert (pid(host), files(host)) == before
    assert shown(host, UNIT, "UnitFileState") == ["enabled"]


def test_another_release_starts_it_anew_when_it_has_finished(up):
    first = pid(up)
    up.run("echo '# two' >> /srv/mysite/worker.py")
    done = state(up)
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {"worker"}
    assert pid(up) != first
    assert up.read("/srv/mysite/data/finished") == "one"
    # What a run that died left: a file that is younger than the process.
    second = pid(up)
    up.run(f"touch {UNITS}/{UNIT}; systemctl daemon-reload")
    assert state(up)["changes"]["worker"]["old"].endswith("older than its files")
    assert pid(up) != second
    assert state(up)["changes"] == {}


@pytest.mark.long
def test_one_that_does_not_come_up_is_told_and_stays_red(up):
    up.write("/srv/mysite/broken", "")
    failed = state(up)
    assert failed["result"] is False
    assert "does not stay up" in failed["comment"]
    assert "cannot work with **********" in failed["comment"]
    assert state(up)["result"] is False
    up.run("rm /srv/mysite/broken")
    mended = state(up)
    assert mended["result"] is True, mended["comment"]
    # A program that is not there, and a unit of somebody else's, leave what runs alone.
    before = pid(up), files(up)
    absent = state(up, pillar=pillar(worker(command="celery -A mysite worker")))
    assert absent["result"] is False
    assert "/opt/venv/bin/celery is not there" in absent["comment"]
    assert "sites:mysite:companions:worker:command" in absent["comment"]
    assert (pid(up), files(up)) == before
    up.write(f"{UNITS}/django-mysite.other.service", "[Service]\nExecStart=/bin/true\n")
    theirs = state(up, pillar=pillar({**worker(), "other": {"command": "python"}}))
    assert theirs["result"] is False
    assert "not this formula's" in theirs["comment"]
    up.run(f"rm {UNITS}/django-mysite.other.service")


@pytest.mark.long
def test_a_scheduled_run_goes_on_to_its_end_while_all_else_is_replaced(up):
    done = state(up, pillar=pillar({**worker(), **nightly()}))
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {"nightly"}
    timer = "django-mysite.nightly.timer"
    assert shown(up, timer, "ActiveState", "UnitFileState") == ["active", "enabled"]
    up.run("systemctl start --no-block django-mysite.nightly.service")
    assert eventually(lambda: up.exists("/srv/mysite/data/began"))
    running = pid(up, "django-mysite.nightly.service")
    up.run("echo '# three' >> /srv/mysite/worker.py")
    switched = state(up)
    assert switched["result"] is True, switched["comment"]
    assert set(switched["changes"]) == {"nightly", "worker"}
    assert pid(up, "django-mysite.nightly.service") == running
    assert state(up)["changes"] == {}
    up.run("touch /srv/mysite/data/go")
    assert eventually(lambda: up.exists("/srv/mysite/data/ended"))
    assert eventually(
        lambda: shown(up, "django-mysite.nightly.service", "ActiveState") == ["inactive"]
    )
    listed = up.salt_call("site_companion.list", "mysite")
    assert [(one["companion"], one["state"]) for one in listed] == [
        ("nightly", "inactive"),
        ("worker", "active"),
    ]
    # A timer that fires starts it: another time is another unit, and nothing else.
    first = pid(up)
    soon = state(up, pillar=pillar({**worker(), **nightly(schedule="*:*:*")}))
    assert soon["result"] is True, soon["comment"]
    up.run("rm /srv/mysite/data/ended")
    # systemd has a minute's leave, AccuracySec=.
    assert eventually(lambda: up.exists("/srv/mysite/data/ended"), 90)
    assert pid(up) == first


@pytest.mark.long
def test_what_leaves_the_pillar_goes_and_all_go_with_the_site(up):
    assert state(up, pillar=pillar({**worker(), **nightly()}))["result"] is True
    gone = state(up, pillar=pillar(nightly()))
    assert gone["changes"]["worker"]["new"] is None
    assert up.read("/srv/mysite/data/finished") == "one"
    assert not up.exists(f"{UNITS}/{UNIT}")
    assert up.run("pgrep -f worker.py", check=False).stdout == ""
    # From a timer to a worker, which needs no other name.
    again = state(up, pillar=pillar(nightly(schedule=None, settle=1)))
    assert again["result"] is True, again["comment"]
    assert not up.exists(f"{UNITS}/django-mysite.nightly.timer")
    assert shown(up, "django-mysite.nightly.service", "ActiveState") == ["active"]
    assert state(up, "absent", test=True)["result"] is None
    assert state(up, "absent")["result"] is True
    assert up.run(f"find {UNITS} -name 'django-*'").stdout == ""
    assert up.run("pgrep -u mysite", check=False).stdout == ""
    assert state(up, "absent")["changes"] == {}
