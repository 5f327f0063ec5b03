"""
Generations of uWSGI on a real host with a real Django: started, switched, refused, finished after a
kill, found again after a reboot.
"""

import json
import time

import pytest

from test.hosts.salts import program

from . import uwsgi_site as site

pytestmark = pytest.mark.usefixtures("_site")

SECRETS = {
    "S_QUOTES": "a\"b'c`d\\e\\\\f\\n",
    "S_SIGNS": "100%d $HOME ${HOME} $(id) @(exec://id) %% #x ;y !z",
    "S_BLANKS": "  leading and trailing  ",
    "S_UTF8": "pässwörd 漢字 🦆",
    "S_LONG": 'k"$\\' * 1250,
    "S_EMPTY": "",
}


@pytest.fixture(scope="module")
def _site(host):
    site.prepare(host)
    assert site.state(host, "uwsgi_socket.listening")["result"] is True
    first = site.running(host)
    assert first["result"] is True, first["comment"]
    assert first["changes"]["generation"]["old"] is None
    return site.active(host)


@pytest.fixture
def good(host, _site):
    """The good project with the plain pillar, running, whatever a test before did."""
    baseline = _site
    host.set_pillar(site.pillar())
    site.project(host)
    if [unit for unit, how in site.generations(host).items() if how == "active"] != [baseline]:
        done = site.running(host)
        assert done["result"] is True, done["comment"]
        assert site.active(host) == baseline
    return host


@pytest.fixture
def up(host, _site):
    """Some generation running; the good project and the plain pillar to change."""
    host.set_pillar(site.pillar())
    site.project(host)
    return host


def test_the_first_generation_is_up_and_enabled_and_answers(good):
    unit = site.active(good)
    assert site.enabled(good) == [unit]
    answer = site.ask(good)
    assert (answer["status"], answer["body"]) == (200, "one")
    told = good.salt_call("uwsgi_status.show", "mysite")
    assert told["unit"] == unit and told["health"] == 200 and told["enabled"]
    assert [worker["pid"] in site.pids(good) for worker in told["workers"]] == [True, True]
    assert told["listen_queue"] == 0
    assert site.traces_of_preflight(good) == ""


def test_with_nothing_to_do_nothing_is_touched(good):
    before = site.pids(good), site.tree(good), site.last_reload(good)
    for _ in range(2):
        again = site.running(good)
        assert (again["result"], again["changes"]) == (True, {})
    assert (site.pids(good), site.tree(good), site.last_reload(good)) == before


def test_a_dry_run_tells_and_writes_nothing(good):
    before = site.pids(good), site.tree(good)
    good.set_pillar(site.pillar(uwsgi={"processes": 3}))
    told = site.running(good, test=True)
    assert told["result"] is None
    assert told["changes"]["generation"]["old"] in site.active(good)
    assert told["changes"]["because of"]["new"] == ["ini"]
    assert (site.pids(good), site.tree(good)) == before


def test_restarted_by_hand_is_recognised(good):
    before = site.pids(good)
    good.run("systemctl restart uwsgi-mysite.service")
    after = site.pids(good)
    assert after and not set(after) & set(before)
    again = site.running(good)
    assert (again["result"], again["changes"]) == (True, {})
    assert site.pids(good) == after


@pytest.mark.long
def test_started_anew_on_request(good):
    unit, before = site.active(good), site.pids(good)
    told = good.salt_call("uwsgi_generation.reload", "mysite")
    assert told["digest"] in unit
    assert site.active(good) == unit and not set(before) & set(site.pids(good))
    assert site.ask(good)["status"] == 200
    again = site.running(good)
    assert (again["result"], again["changes"]) == (True, {})


def test_stopped_by_hand_is_started(good):
    unit = site.active(good)
    good.run("systemctl", "stop", unit)
    done = site.running(good)
    assert done["result"] is True and done["changes"]
    assert site.active(good) == unit


@pytest.mark.long
def test_a_second_generation_started_by_hand_is_stopped(good):
    old = site.active(good)
    site.project(good, "two")
    site.running(good)
    new, new_pids = site.active(good), site.pids(good)
    good.run("systemctl", "enable", "--now", old)
    done = site.running(good)
    assert done["result"] is True
    assert (site.active(good), site.pids(good), site.enabled(good)) == (new, new_pids, [new])


@pytest.mark.long
def test_a_file_edited_by_hand_is_put_right_and_the_process_with_it(good):
    unit, before = site.active(good), site.pids(good)
    ini = f"/etc/uwsgi/mysite/{unit.split('@')[1].split('.')[0]}.ini"
    text = good.read(ini)
    good.run(f"echo 'processes = 3' >> {ini}; systemctl restart {unit}")
    assert len(site.pids(good)) == 4
    done = site.running(good)
    assert done["result"] is True, done["comment"]
    assert good.read(ini) == text
    assert site.active(good) == unit and len(site.pids(good)) == len(before)
    again = site.running(good)
    assert (again["result"], again["changes"]) == (True, {})


def test_rolled_back_and_forward(good):
    old = site.active(good)
    good.set_pillar(site.pillar(uwsgi={"processes": 1}))
    site.running(good)
    new = site.active(good)
    back = good.salt_call("uwsgi_generation.rollback", "mysite")
    assert back["digest"] in old
    assert (site.active(good), site.enabled(good)) == (old, [old])
    kept = site.running(good, digest=back["digest"])
    assert (kept["result"], kept["changes"]) == (True, {})
    assert site.running(good)["result"] is True
    assert site.active(good) == new
    listed = good.salt_call("uwsgi_generation.list", "mysite")
    assert {f"uwsgi-mysite@{one['digest']}.service": one["state"] for one in listed}[
        new
    ] == "active"
    # Where a rollback goes is part of what the site leaves behind.
    assert good.read("/etc/uwsgi/mysite/previous")
    lost = site.pillar()
    sites = lost["nginx_uwsgi_django"]["sites"]
    sites["another"] = sites.pop("mysite")
    left = good.salt_call("site_leftovers.found", pillar=lost)
    assert "/etc/uwsgi/mysite" in left["mysite"]["generation"]


def test_the_sandbox_lets_a_django_site_work_and_nothing_else(good):
    good.run(
        '(python3 -c \'import socket,time; s=socket.create_server(("127.0.0.1",2525)); '
        "time.sleep(60)' >/dev/null 2>&1 &)"
    )
    good.run("sleep 0.5")
    told = json.loads(site.ask(good, "/who")["body"])
    assert told.pop("uid") == int(good.run("id -u mysite").stdout)
    works = {
        "sqlite",
        "sqlite in the state directory",
        "upload",
        "temporary",
        "program",
        "tcp",
        "mail",
        "names",
        "ctypes",
    }
    assert {key: told[key] for key in works} == dict.fromkeys(works, "yes")
    assert "yes" not in {told[key] for key in set(told) - works}, told
    rating = good.run("systemd-analyze", "security", "--no-pager", site.active(good)).stdout
    assert float(rating.rsplit("exposure level for", 1)[1].split(":")[1].split()[0]) <= 2.0


def test_a_site_reaches_nothing_of_another(good):
    own = good.salt_call("django_release.directories", "mysite")
    two = site.pillar()
    sites = two["nginx_uwsgi_django"]["sites"]
    sites["nextdoor"] = {
        **sites["mysite"],
        "server_names": ["nextdoor.example.org"],
        "project": {**sites["mysite"]["project"], "path": "/srv/nextdoor"},
        # As careless as the pillar allows.
        "socket": {"group": "www-data", "mode": "0666"},
        "health": {"timeout": 5, "host": "www.example.org"},
    }
    unit, before = site.active(good), site.pids(good)
    good.run("id nextdoor || useradd --system --user-group --home-dir /nonexistent nextdoor")
    good.run("cp -r /srv/mysite /srv/nextdoor && chmod -R a+rX /srv/nextdoor")
    good.set_pillar(two)
    theirs = good.salt_call("django_release.directories", "nextdoor")
    for user, places in (("mysite", own), ("nextdoor", theirs)):
        good.run(f"install -d -m 0751 -o {user} {places['shared']}")
        good.run(f"install -d -m 0755 -o {user} {places['media']}")
        good.write(f"{places['media']}/upload", "x")
    try:
        for function in ("uwsgi_socket.listening", "uwsgi_generation.running"):
            done = site.state(good, function, site="nextdoor")
            assert done["result"] is True, done["comment"]
        (beside,) = good.run("ls /etc/uwsgi/nextdoor/*.env").stdout.split()
        main = good.run(
            *"systemctl show -P MainPID".split(),
            "uwsgi-nextdoor@" + beside.split("/")[-1].replace(".env", ".service"),
        ).stdout.strip()
        # Each of them is there, and the first four are anybody's but for the sandbox.
        for path in (
            "/srv/nextdoor",
            "/srv/nextdoor/mysite/settings.py",
            f"{theirs['media']}/upload",
            "/run/uwsgi/nextdoor.sock",
            theirs["shared"],
            beside,
            beside.replace(".env", ".ini"),
            f"/proc/{main}/environ",
        ):
            good.run("test", "-e", path)
            assert site.ask(good, f"/reach?path={path}")["body"] != "yes", path
        for path in ("/srv/mysite/mysite/settings.py", f"{own['media']}/upload"):
            assert site.ask(good, f"/reach?path={path}")["body"] == "yes", path
        # That the other came has changed nothing for this one.
        again = site.running(good)
        assert (again["result"], again["changes"]) == (True, {})
        assert (site.active(good), site.pids(good)) == (unit, before)
    finally:
        for function in ("uwsgi_generation.absent", "uwsgi_socket.absent"):
            site.state(good, function, site="nextdoor")
        good.set_pillar(site.pillar())
        good.run("rm", "-r", "/srv/nextdoor", theirs["shared"])


def test_the_processes_are_the_sites_and_in_the_sites_slice(good):
    users = good.run("ps", "-o", "user=", "-p", ",".join(map(str, site.pids(good)))).stdout.split()
    assert set(users) == {"mysite"}


@pytest.mark.long
def test_another_user_and_back(good):
    old = site.active(good)
    good.run("id other || useradd --system --user-group other")
    good.set_pillar(site.pillar(project={"user": "other", "group": "other"}))
    done = site.running(good)
    assert done["result"] is True, done["comment"]
    owners = good.run("ps", "-o", "user=", "-p", ",".join(map(str, site.pids(good)))).stdout
    assert set(owners.split()) == {"other"}
    back = site.running(good, digest=old.split("@")[1].split(".")[0])
    assert back["result"] is True, back["comment"]
    assert site.active(good) == old


def test_it_comes_back_after_a_reboot_without_salt(good):
    unit = site.active(good)
    good.reboot()
    assert site.eventually(
        lambda: unit in site.generations(good) and site.generations(good)[unit] == "active"
    )
    before = site.pids(good)
    assert site.ask(good)["body"] == "one"
    again = site.running(good)
    assert (again["result"], again["changes"]) == (True, {})
    assert site.state(good, "uwsgi_socket.listening")["changes"] == {}
    assert site.pids(good) == before


def test_a_crash_of_the_master_is_survived(good):
    unit = site.active(good)
    good.run("systemctl", "kill", "-s", "KILL", "--kill-who=main", unit)
    assert site.eventually(
        lambda: site.generations(good).get(unit) == "active" and site.ask(good)["status"] == 200
    )


def test_logs_are_the_sites(good):
    lines = good.salt_call("uwsgi_status.logs", "mysite", 20)
    assert 0 < len(lines) <= 20 and all(
        "uwsgi-mysite" in line or "systemd" in line for line in lines
    )


LOG = "/var/log/uwsgi/mysite/mysite.log"
OWNER = "mysite adm 640"


def filed(host, number):
    """A generation that writes to a file."""
    host.set_pillar(
        site.pillar(uwsgi={"log": {"to": "file", "keep": 3}, "options": {"harakiri": number}})
    )
    for function in ("uwsgi_log.kept", "uwsgi_generation.running"):
        done = site.state(host, function)
        assert done["result"] is True, done["comment"]
    return site.active(host)


def master(host, unit=None):
    return host.run("systemctl", "show", "-P", "MainPID", unit or site.active(host)).stdout.strip()


SAY = f"""
import socket, struct, sys
words, masters = sys.argv[1], set(sys.argv[2:])
values = {{"REQUEST_METHOD": "GET", "PATH_INFO": "/say", "QUERY_STRING": "words=" + words,
          "HTTP_HOST": "www.example.org", "SERVER_NAME": "x", "SERVER_PORT": "80"}}
data = b"".join(struct.pack("<H", len(t)) + t.encode() for pair in values.items() for t in pair)
while masters:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("{site.SOCKET}")
        one.sendall(struct.pack("<BHB", 0, len(data), 0) + data)
        answer = b""
        while piece := one.recv(65536):
            answer += piece
    masters.discard(answer.split()[-1].decode())
"""


def say(host, words, masters):
    """Have each of these generations write a line."""
    host.run("python3", "-c", SAY, words, *masters, timeout=30)


def test_a_log_file_is_rotated_under_two_generations_that_write_to_it(up):
    up.install("logrotate")
    old = filed(up, 71)
    assert up.run("stat", "-c", "%U %G %a", LOG).stdout.strip() == OWNER
    assert up.run("stat", "-c", "%U %a", "/var/log/uwsgi/mysite").stdout.strip() == "root 755"
    new = filed(up, 72)
    # As in the middle of a switch.
    up.run("systemctl", "start", old)
    masters = {master(up, unit) for unit in (old, new)}
    say(up, "before", masters)
    before = {f"{master} before" for master in masters}
    assert before <= set(up.read(LOG).splitlines())
    # What the host's own timer starts, with all that is in /etc/logrotate.d.
    up.run("logrotate", "--force", "/etc/logrotate.conf")
    (rotated,) = up.run(f"ls {LOG}-*").stdout.split()
    for path in (LOG, rotated):
        assert up.run("stat", "-c", "%U %G %a", path).stdout.strip() == OWNER
    assert before <= set(up.read(rotated).splitlines())
    say(up, "after", masters)
    after = {f"{master} after" for master in masters}
    assert after <= set(up.read(LOG).splitlines()) and not before & set(up.read(LOG).splitlines())
    assert after.isdisjoint(up.read(rotated).splitlines())
    lines = up.salt_call("uwsgi_status.logs", "mysite", 500)
    # The older file's end comes before the younger's.
    assert max(map(lines.index, before)) < min(map(lines.index, after))
    assert up.salt_call("nginx_uwsgi_django.logs")["mysite"]["where"] == LOG
    up.run("systemctl", "stop", old)
    again = site.running(up)
    assert (again["result"], again["changes"]) == (True, {})
    assert site.state(up, "uwsgi_log.kept")["changes"] == {}


@pytest.mark.long
def test_a_log_file_taken_away_by_hand_is_written_anew(up):
    """Else nobody could read what is written on."""
    filed(up, 75)
    up.run("mv", LOG, "/root/taken")
    assert site.state(up, "uwsgi_log.kept")["result"] is True
    done = site.running(up)
    assert done["result"] is True and "restarted" in done["changes"]["generation"]["new"]
    say(up, "anew", {master(up)})
    assert " anew" in up.read(LOG)


@pytest.mark.long
def test_a_log_goes_to_another_user_and_back_to_the_journal(up):
    filed(up, 73)
    up.run("id other || useradd --system --user-group other")
    own = {"user": "other", "group": "other"}
    up.set_pillar(site.pillar(uwsgi={"log": {"to": "file"}}, project=own))
    told = site.state(up, "uwsgi_log.kept", test=True)
    assert told["result"] is None and told["changes"][LOG]["new"] == "other:adm 0640"
    assert up.run("stat", "-c", "%U", LOG).stdout.strip() == "mysite"
    inode = up.run("stat", "-c", "%i", LOG).stdout
    assert site.state(up, "uwsgi_log.kept")["result"] is True
    assert site.running(up)["result"] is True
    assert up.run("stat", "-c", "%U %G %a", LOG).stdout.strip() == OWNER.replace("mysite", "other")
    assert up.run("stat", "-c", "%i", LOG).stdout == inode
    # A generation that does not start tells why, wherever it writes.
    site.project(up, wsgi="import no_such_module\n")
    assert "no_such_module" in site.running(up)["comment"]
    site.project(up)
    up.set_pillar(site.pillar())
    assert list(site.state(up, "uwsgi_log.kept")["changes"]) == ["/etc/logrotate.d/uwsgi-mysite"]
    assert site.running(up)["result"] is True
    say(up, "journal", {master(up)})
    assert any("journal" in line for line in up.salt_call("uwsgi_status.logs", "mysite"))
    # A site that the pillar loses leaves no rotation behind unseen; its log stays.
    filed(up, 74)
    lost = site.pillar()
    lost["nginx_uwsgi_django"]["sites"]["another"] = lost["nginx_uwsgi_django"]["sites"].pop(
        "mysite"
    )
    left = up.salt_call("site_leftovers.found", pillar=lost)
    assert left["mysite"]["log"] == ["/etc/logrotate.d/uwsgi-mysite"]
    assert site.state(up, "uwsgi_log.absent")["result"] is True
    assert up.exists(LOG) and not up.exists("/etc/logrotate.d/uwsgi-mysite")
    data = site.pillar()
    data["nginx_uwsgi_django"]["clean"] = {"data": True}
    up.set_pillar(data)
    assert site.state(up, "uwsgi_log.absent")["result"] is True
    assert not up.exists("/var/log/uwsgi/mysite")
    assert site.state(up, "uwsgi_log.absent")["changes"] == {}


def test_another_option_is_another_generation(up):
    old, old_pids = site.active(up), site.pids(up)
    up.set_pillar(site.pillar(uwsgi={"processes": 3, "options": {"harakiri": 50}}))
    done = site.running(up)
    assert done["result"] is True, done["comment"]
    new = site.active(up)
    assert new != old and site.enabled(up) == [new]
    assert not set(old_pids) & set(site.pids(up))
    assert len(site.pids(up)) == 4
    assert site.generations(up).get(old) in (None, "inactive")
    assert "harakiri = 50" in up.read(f"/etc/uwsgi/mysite/{done['comment'].split()[1]}.ini")
    assert site.traces_of_preflight(up) == ""


def test_other_code_is_another_generation(up):
    site.project(up, "two")
    done = site.running(up)
    assert "release" in done["changes"]["because of"]["new"]
    assert site.ask(up)["body"] == "two"


BROKEN = {
    "does not import": ({"wsgi": "import no_such_module\n"}, {}, "no_such_module"),
    "ends at import": ({"wsgi": "import os\nos._exit(3)\n"}, {}, "journal"),
    "answers 500": (
        {"urls": site.URLS.replace("return HttpResponse(VERSION)", "raise RuntimeError('boom')")},
        {},
        "answered with 500",
    ),
    "no such option": ({}, {"options": {"no-such-option": "1"}}, "no-such-option"),
    "unknown host": (
        {
            "wsgi": "import os\n"
            + site.WSGI.replace(
                "application = ",
                "from django.conf import "
                "settings\nsettings.ALLOWED_HOSTS = ['else.example']\napplication = ",
            )
        },
        {},
        "ALLOWED_HOSTS",
    ),
}


def test_a_generation_that_cannot_serve_never_does(up, sample):
    commonest = ["does not import", "answers 500"]
    for case in [*commonest, *sample([case for case in BROKEN if case not in commonest], 1)]:
        files, uwsgi, words = BROKEN[case]
        kept = site.pids(up), site.enabled(up), site.files(up)
        page = site.ask(up)
        site.project(up, **files)
        up.set_pillar(site.pillar(uwsgi=uwsgi))
        # Red as long as the cause is there.
        for _ in range(2 if case == commonest[0] else 1):
            refused = site.running(up)
            assert refused["result"] is False, case
            assert words in refused["comment"], case
            assert site.traces_of_preflight(up) == ""
            assert (site.pids(up), site.enabled(up), site.files(up)) == kept
        assert site.ask(up)["body"] == page["body"]
        site.project(up)


def test_one_that_was_not_asked_before_the_run_was_killed_is_asked_before_it_is_enabled(good):
    unit, before = site.active(good), site.pids(good)
    good.run(f"rm /etc/systemd/system/uwsgi-mysite.service.wants/{unit}")
    good.set_pillar(site.pillar(health={"path": "/nowhere"}))
    refused = site.running(good)
    assert refused["result"] is False
    assert "/nowhere" in refused["comment"] and "404" in refused["comment"]
    assert (site.enabled(good), site.pids(good)) == ([], before)
    good.set_pillar(site.pillar())
    done = site.running(good)
    assert (done["result"], set(done["changes"])) == (True, {"enabled"})
    assert (site.enabled(good), site.pids(good)) == ([unit], before)


def test_where_nothing_serves_one_that_answers_wrong_is_taken_back_and_the_socket_closed(good):
    unit = site.active(good)
    good.run("systemctl", "stop", unit)
    good.set_pillar(site.pillar(health={"path": "/nowhere"}))
    refused = site.running(good)
    assert refused["result"] is False
    assert "/nowhere" in refused["comment"] and "404" in refused["comment"]
    assert not [name for name, how in site.generations(good).items() if how == "active"]
    assert good.run("systemctl is-active uwsgi-mysite.socket", check=False).stdout == "inactive\n"
    good.set_pillar(site.pillar())
    assert site.state(good, "uwsgi_socket.listening")["result"] is True
    assert site.running(good)["result"] is True
    assert site.active(good) == unit


def test_a_hang_at_import_ends_within_the_pillars_time(up):
    before = site.pids(up)
    site.project(up, wsgi="import time\ntime.sleep(3600)\n")
    up.set_pillar(site.pillar(uwsgi={"start_timeout": 3}))
    started = time.monotonic()
    refused = site.running(up)
    # The machine may be busy: what counts is that it is not the hour.
    assert time.monotonic() - started < 3 + 20
    assert refused["result"] is False
    assert site.pids(up) == before
    assert site.traces_of_preflight(up) == ""


@pytest.mark.long
def test_a_view_that_hangs_ends_within_the_pillars_time(up):
    before = site.pids(up)
    site.project(up, urls=site.URLS.replace('"sleep", 0', '"sleep", 3600'))
    up.set_pillar(site.pillar(health={"timeout": 2}))
    started = time.monotonic()
    refused = site.running(up)
    assert time.monotonic() - started < 2 + 20
    assert refused["result"] is False and "within 2 s" in refused["comment"]
    assert site.pids(up) == before


def test_a_replaced_binary_is_another_generation(good):
    library = good.run(f"ls {site.VENV}/lib/python3*/site-packages/pyuwsgi*.so").stdout.strip()
    old = site.active(good)
    # The directory's own time is left as it was: it is the virtual environment's sign.
    replace = (
        f"touch -r $(dirname {library}) /root/time; {{}}; touch -r /root/time $(dirname {library})"
    )
    good.run(
        replace.format(
            f"cp -a {library} /root/library; cp {library} {library}.new; "
            f"printf x >>{library}.new; mv {library}.new {library}"
        )
    )
    try:
        done = site.running(good)
        assert done["result"] is True, done["comment"]
        assert done["changes"]["because of"]["new"] == ["programs"]
        assert site.active(good) != old
    finally:
        good.run(replace.format(f"cp -a /root/library {library}"))


@pytest.mark.long
def test_no_way_back_to_code_that_was_overwritten(good):
    old = site.active(good).split("@")[1].split(".")[0]
    site.project(good, "two")
    assert site.running(good)["result"] is True
    refused = site.running(good, digest=old)
    assert refused["result"] is False and "changed since" in refused["comment"]
    assert site.ask(good)["body"] == "two"


@pytest.mark.parametrize(
    "salt", [*(pytest.param(salt, marks=pytest.mark.long) for salt in ("3006", "3007")), "3008"]
)
def test_secrets_arrive_byte_for_byte_and_nowhere_else(up, salt):
    # Of each Salt another, so that each makes a generation of its own.
    secrets = {**SECRETS, "S_SALT": salt}
    up.set_pillar(site.pillar(project={"env": secrets}))
    up.salt_call("saltutil.sync_all", salt=salt)
    done = site.running(up, salt=salt)
    assert done["result"] is True, done["comment"]
    environ = json.loads(site.ask(up, "/environ")["body"])
    assert {key: environ[key] for key in secrets} == secrets
    assert environ["DJANGO_SETTINGS_MODULE"] == "mysite.settings"
    looked = [json.dumps(done)]
    looked.append(
        up.run(
            "systemctl show 'uwsgi-mysite*'; systemctl cat 'uwsgi-mysite*'; "
            "ps axww -o args; journalctl -b; cat /etc/uwsgi/mysite/*.ini "
            "/etc/uwsgi/mysite/*.json"
        ).stdout
    )
    looked.append(json.dumps(up.salt_call("uwsgi_generation.desired", "mysite", salt=salt)))
    for text in looked:
        assert "pässwörd" not in text and "leading and trailing" not in text
        assert 'k\\"$' not in text and 'k"$' not in text
    # Nor does Salt keep it anywhere: but for the pillar, only environment files have it.
    found = up.run("grep -rlF 'pässwörd' /etc /run /root /srv/mysite /tmp /var", check=False).stdout
    assert {path.rsplit(".", 1)[1] for path in found.split()} == {"env"}
    environment = up.run("sudo -u mallory cat /etc/uwsgi/mysite/*.env", check=False)
    assert environment.returncode


def test_a_secret_on_two_lines_is_refused_without_being_told(up):
    up.set_pillar(site.pillar(project={"env": {"KEY": "hunter2\nEVIL=1"}}))
    refused = site.running(up)
    assert refused["result"] is False and "KEY" in refused["comment"]
    assert "hunter2" not in refused["comment"]


def test_limits_reach_the_unit(up):
    limits = {"MemoryMax": "512M", "TasksMax": 60, "LimitNOFILE": 4096}
    up.set_pillar(site.pillar(uwsgi={"limits": limits}))
    assert site.running(up)["result"] is True
    shown = up.run("systemctl", "show", "-p", "MemoryMax,TasksMax", site.active(up)).stdout
    assert set(shown.split()) == {f"MemoryMax={512 << 20}", "TasksMax=60"}
    open_files = up.run(f"grep 'open files' /proc/{site.pids(up)[-1]}/limits").stdout
    assert open_files.split()[-3:-1] == ["4096", "4096"]


def test_a_projects_own_ini_is_brought_to_the_socket(up):
    own = (
        "# ours\n[uwsgi]\n; the port\nhttp = :8080\nchdir = /nowhere\nmodule = else.wsgi\n"
        "# three\nprocesses = 3\ndie-on-term = true\nuid = root\ndaemonize = /tmp/log\n"
        "pidfile = %d%n.pid\nchmod-socket\nprocname-append = -%n\n"
    )
    up.run("mkdir -p /srv/mysite/.config/uwsgi")
    up.write("/srv/mysite/.config/uwsgi/mysite.ini", own)
    up.set_pillar(site.pillar(uwsgi={"ini": ".config/uwsgi/mysite.ini"}))
    done = site.running(up)
    assert done["result"] is True, done["comment"]
    text = up.read(f"/etc/uwsgi/mysite/{done['comment'].split()[1]}.ini")
    assert text.startswith(
        "# ours\n[uwsgi]\n; the port\nsocket = /run/uwsgi/mysite.sock\n# three\nprocesses = 3\n"
        "procname-append = -mysite\n"
    )
    assert up.read("/srv/mysite/.config/uwsgi/mysite.ini") == own
    assert site.ask(up)["status"] == 200 and len(site.pids(up)) == 4
    up.run("rm -r /srv/mysite/.config")


@pytest.mark.long
def test_lazy_apps_of_a_projects_own_ini_are_covered_by_the_preflight(up):
    """With lazy-apps uWSGI calls itself ready before it has loaded anything."""
    own = "[uwsgi]\nlazy-apps = true\nprocname-append = @(exec://touch /srv/mysite/data/ran)\n"
    up.write("/srv/mysite/own.ini", own)
    up.set_pillar(site.pillar(uwsgi={"ini": "own.ini"}))
    # A dry run has uWSGI read it, and does not have it run what it says.
    assert site.running(up, test=True)["result"] is None
    assert not up.exists("/srv/mysite/data/ran")
    kept = site.pids(up), site.enabled(up), site.files(up)
    site.project(up, wsgi="import no_such_module\n")
    refused = site.running(up)
    assert refused["result"] is False and "no_such_module" in refused["comment"]
    assert (site.pids(up), site.enabled(up), site.files(up)) == kept
    # Nor is the old one let go before the new one's workers have loaded it.
    site.project(up, wsgi="import time\ntime.sleep(2)\n" + site.WSGI)
    assert site.running(up)["result"] is True
    told = up.salt_call("uwsgi_status.show", "mysite")
    assert told["health"] == 200 and {worker["status"] for worker in told["workers"]} == {"idle"}
    up.run("rm", "/srv/mysite/own.ini", "/srv/mysite/data/ran")


# A run killed anywhere: the phases of a switch, told apart by what is on the host when it is
# killed, and instants between them.
INSTANTS = ["preflight unit", "preflight up", "files", "both up", "enabled", 1.0, 2.0]
PHASES = {
    "preflight unit": "compgen -G '/run/systemd/system/uwsgi-mysite.preflight@*'",
    "preflight up": "systemctl is-active --quiet 'uwsgi-mysite.preflight@*'",
    "files": "[ $(ls /etc/systemd/system/uwsgi-mysite@*.service | wc -l) -gt $COUNT ]",
    "both up": "[ $(systemctl list-units --plain --no-legend --state=active 'uwsgi-mysite@*'"
    " | wc -l) -gt 1 ]",
    "enabled": "! [ -e $LINK ]",
}


# Starts the run, waits for the instant, kills the run.
KILL = """
COUNT=$(ls /etc/systemd/system/uwsgi-mysite@*.service | wc -l)
LINK=/etc/systemd/system/uwsgi-mysite.service.wants/{old}
{run} >/root/killed 2>&1 & RUN=$!
{wait}
kill -9 $RUN && echo killed
"""


def test_a_run_killed_anywhere_is_finished_by_the_next(up, sample):
    for instant in sample(INSTANTS, 3):
        kill_and_finish(up, instant)


def kill_and_finish(host, instant):
    for attempt in range(5):
        old = site.active(host)
        number = 200 + 10 * INSTANTS.index(instant) + attempt
        host.set_pillar(site.pillar(uwsgi={"options": {"harakiri": number}}))
        run = (
            f"{program('3008', 'salt-call')} --local --config-dir={host.salt_config('3008')} "
            "state.single uwsgi_generation.running mysite"
        )
        # A quick machine is done before the second is over, and a busy one may miss an instant.
        wait = f"sleep {instant / (attempt + 1)}" if isinstance(instant, float) else ""
        if instant in PHASES:
            wait = f"until {PHASES[instant]} || ! kill -0 $RUN; do sleep 0.01; done"
        killed = host.run(KILL.format(old=old, run=run, wait=wait), check=False, timeout=60)
        if "killed" in killed.stdout:
            break
    else:
        raise AssertionError(f"each run was over before the instant came: {instant}")
    assert site.ask(host)["status"] == 200
    finished = site.running(host)
    assert finished["result"] is True, finished["comment"]
    new = site.active(host)
    assert new != old and site.enabled(host) == [new]
    assert site.traces_of_preflight(host) == ""
    assert set(site.generations(host).values()) <= {"active", "inactive"}
    again = site.running(host)
    assert (again["result"], again["changes"]) == (True, {})


@pytest.mark.long
def test_five_generations_stay_on_the_host(good):
    # The tests before made more.
    for number in range(2):
        good.set_pillar(site.pillar(uwsgi={"options": {"harakiri": 100 + number}}))
        assert site.running(good)["result"] is True
    assert len(good.run("ls /etc/uwsgi/mysite/*.ini").stdout.split()) == 5
    assert len(good.run("ls /etc/uwsgi/mysite/*.*").stdout.split()) == 15
    assert len(good.run(f"ls {site.UNIT_DIR}/uwsgi-mysite@*").stdout.split()) == 5


@pytest.mark.long
def test_gone_without_a_trace_and_back_again(good):
    told = site.state(good, "uwsgi_generation.absent", test=True)
    assert told["result"] is None and site.active(good)
    gone = site.state(good, "uwsgi_generation.absent")
    assert gone["result"] is True, gone["comment"]
    assert "active" not in site.generations(good).values()
    assert (
        good.run("find /etc /run -name '*uwsgi-mysite@*' -o -path '/etc/uwsgi/mysite*'").stdout
        == ""
    )
    again = site.state(good, "uwsgi_generation.absent")
    assert (again["result"], again["changes"]) == (True, {})


DROP_IN = f"{site.UNIT_DIR}/uwsgi-mysite@.service.d"


def test_the_preflight_has_the_drop_ins_of_the_generation(up):
    up.run("install -d -o mysite /var/log/shop")
    # What is for the running generation alone leaves the preflight as it is.
    up.write(
        f"{DROP_IN}/log.conf",
        "[Unit]\nDescription=the shop\n[Service]\nReadWritePaths=/var/log/shop\n"
        "Environment=SHOP=1 \\\n  SHOP_LOG=/var/log/shop/log\nTimeoutStartSec=9\nRestart=always\n",
    )
    try:
        wsgi = "import os\nopen(os.environ['SHOP_LOG'], 'a').write('here')\n" + site.WSGI
        site.project(up, "logged", wsgi=wsgi)
        up.run("systemctl daemon-reload")
        done = site.running(up)
        assert done["result"] is True, done["comment"]
        assert site.ask(up)["body"] == "logged"
        again = up.salt_call("uwsgi_generation.reload", "mysite")
        assert isinstance(again, dict), again
        assert site.traces_of_preflight(up) == ""
    finally:
        up.run("rm", "-r", DROP_IN)
        up.run("systemctl daemon-reload")
