"""
What can happen to a release on its way, under load: the run is killed at any of its renames and
forks, a disk is full, a step fails. Whatever it is, the old release answers every request, the next
good run finishes the work, and the one after it has nothing to do.
"""

import subprocess

import pytest

from ..hosts.host import CommandFailed, Host
from . import uwsgi_load as load
from . import uwsgi_site as site
from .nginx_host import calls_of, salt_words

pytestmark = pytest.mark.long

SOURCE = "/srv/salt/project"
RUN = "nginx_uwsgi_django.uwsgi"
NAME = "www.example.org"
# Where a release leaves something; each gets a file system of its own, to be filled.
PLACES = {
    "/srv/mysite": "64m",
    "/var/lib/nginx_uwsgi_django": "400m",
    "/etc/uwsgi": "1m",
    "/etc/systemd/system": "4m",
    "/var/cache/sources": "16m",
}
CALLS = ("rename", "renameat", "renameat2", "fork", "vfork", "clone", "clone3")
# Each hook leaves a line.
HOOK = ["sh", "-c", 'echo "$HOOK $RELEASE $(id -un)" >>"$DJANGO_DATA_DIR/hooks"']

SETTINGS = """
import os
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["www.example.org"]
ROOT_URLCONF = "mysite.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = ["django.contrib.staticfiles", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3",
                         "NAME": os.environ["DJANGO_DATA_DIR"] + "/db"}}
STATIC_URL = "/static/"
STATIC_ROOT = os.environ["DJANGO_STATIC_ROOT"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
"""
MIGRATION = """
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("shop", "{before}")] if "{before}" else []
    operations = [migrations.RunPython({what})]
"""
NOTHING = "migrations.RunPython.noop, migrations.RunPython.noop"


def pillar(source=None, **project):
    return site.pillar(
        project={
            "path": "/srv/mysite",
            "source": source or {"salt": "salt://project"},
            "wsgi": "mysite.wsgi:application",
            "settings": "mysite.settings",
            "requirements": "requirements.txt",
            "venv": None,
            "exclude": [],
            "env": {"SECRET_KEY": "a-key-that-nobody-needs-to-know"},
            "hooks": {f"{when}_switch": [HOOK] for when in ("before", "after")},
            **project,
        },
        uwsgi={"package": "distro", "processes": 3, "start_timeout": 30},
    )


class Project:
    """The project's source, whose releases each have a migration and static files of their own."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.number = 0
        self.requirements = "Django>=5.2,<5.3\n"

    def write(self, name: str, text: str) -> None:
        self.host.write(f"{SOURCE}/{name}", text)

    def next(self) -> str:
        """Another release; what its page says."""
        before = f"{self.number:04d}" if self.number else ""
        self.number += 1
        version = f"v{self.number}"
        files = {
            "requirements.txt": self.requirements,
            "mysite/__init__.py": "",
            "mysite/settings.py": SETTINGS,
            "mysite/wsgi.py": site.WSGI,
            "mysite/urls.py": site.URLS.replace('"one"', f'"{version}"'),
            "shop/__init__.py": "",
            "shop/migrations/__init__.py": "",
            f"shop/migrations/{self.number:04d}.py": MIGRATION.format(before=before, what=NOTHING),
            "shop/static/shop/a.css": f"a {{ order: {self.number} }}\n",
        }
        for name, text in files.items():
            self.write(name, text)
        return version


@pytest.fixture(scope="module")
def project(host):
    """A host that serves the project through nginx."""
    host.install("strace", "git")
    for number, (place, size) in enumerate(PLACES.items()):
        host.run(
            f"mkdir -p {place} && cp -a {place} /root/{number} && "
            f"mount -t tmpfs -o size={size},mode=755 tmpfs {place} && "
            f"cp -a /root/{number}/. {place}/ && rm -r /root/{number}"
        )
    # Where Salt keeps what it has fetched is in a directory of its own.
    cache = "/var/lib/salt-3008/cache"
    host.run(f"mkdir -p {cache} && ln -s /var/cache/sources {cache}/nginx_uwsgi_django")
    made = Project(host)
    version = made.next()
    run = host.apply(pillar=pillar(), timeout=900)
    assert run.ok, run.failed
    assert served(host) == version
    return made


def served(host: Host) -> str:
    status, _, body = host.get("/", NAME)
    assert status == 200, body
    return body.decode()


def good(host: Host, version: str) -> None:
    """The next run brings the release, the third has nothing to do."""
    run = host.apply(RUN, pillar=pillar())
    assert run.ok, run.failed
    assert served(host) == version
    whole(host)
    again = host.apply(RUN)
    assert again.ok and again.changed == [], again.changed


def whole(host: Host) -> None:
    """Nothing that is half done is left, and what serves is what is called current."""
    assert host.run("ls -A /srv/mysite/releases | grep -v '^[0-9a-f]*$'", check=False).stdout == ""
    assert site.traces_of_preflight(host) == ""
    live = host.salt_call("uwsgi_generation.serving", "mysite")
    assert host.run("readlink /srv/mysite/current").stdout.strip() == f"releases/{live}"
    (unit,) = site.enabled(host)
    assert site.active(host) == unit
    ran = host.run("tail -n 3 /srv/mysite/shared/data/hooks").stdout.splitlines()
    before, after = (f"{when}_switch {live} mysite" for when in ("before", "after"))
    # Killed after a hook has run and before that is noted, it runs again.
    assert ran[-1] == after and before in ran, ran


def traced(host: Host, words: list[str], *options: str) -> "subprocess.CompletedProcess[str]":
    return host.run("strace", "-o", "/root/trace", *options, *words, check=False, timeout=300)


def points(host: Host, first: str, last: str | None = None) -> list[tuple[str, int]]:
    """The renames and forks of a run, from the first one that has this in it to one with that."""
    found: list[tuple[str, int]] = []
    begun = False
    for call, number, words in calls_of(host.read("/root/trace"), CALLS):
        begun = begun or first in words
        if begun and "CLONE_THREAD" not in words:
            found.append((call, number))
        if last and begun and last in words:
            break
    return found


def test_a_run_killed_at_any_rename_and_fork(host, project, sample):
    words = salt_words(host, "state.apply", mods=RUN)
    version = project.next()
    done = traced(host, words, f"-etrace={','.join(CALLS)}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert served(host) == version
    found = points(host, "/srv/mysite/releases")
    assert len(found) > 30 and {"rename", "renameat2"} & {call for call, _ in found}, found
    killed = 0

    def sweep():
        nonlocal killed
        for call, number in sample(found, 6):
            before, version = served(host), project.next()
            done = traced(
                host, words, f"-etrace={call}", f"-einject={call}:signal=KILL:when={number}"
            )
            killed += done.returncode != 0
            assert served(host) in (before, version), (call, number)
            good(host, version)

    told = load.under_load(host, load.NGINX, sweep)
    print(len(found), killed, {key: told[key] for key in ("asked", "lost", "longest")})
    assert told["lost"] == []
    # What comes before differs a little from run to run: a point may be missed.
    assert killed >= len(sample(found, 6)) * 0.8 - 1


def another(project: Project, number: int, package: str = "six==1") -> str:
    """A release that needs another environment: with one of the many releases of a small package."""
    project.requirements = f"Django>=5.2,<5.3\n{package}.{number}.0\n"
    return project.next()


def half_built(host: Host) -> list[str]:
    venvs = host.run("find /var/lib/nginx_uwsgi_django/venvs/mysite/* -maxdepth 0").stdout.split()
    return [path for path in venvs if not host.exists(f"{path}/.complete")]


def test_a_run_killed_while_it_builds_an_environment(host, project, sample):
    words = salt_words(host, "state.apply", mods=RUN)
    version = another(project, 16)
    done = traced(host, words, f"-etrace={','.join(CALLS)}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert served(host) == version
    found = points(host, "/srv/mysite/releases", "/.complete")
    # Making room, the environment itself, pip.
    assert len([call for call, _ in found if "rename" not in call]) >= 3, found
    killed = 0

    def sweep():
        nonlocal killed
        for turn, (call, number) in enumerate(sample(found, 3)):
            before, version = served(host), another(project, 15 - turn % 14)
            done = traced(
                host, words, f"-etrace={call}", f"-einject={call}:signal=KILL:when={number}"
            )
            killed += done.returncode != 0
            assert served(host) in (before, version), (call, number)
            assert site.eventually(lambda: "pip install" not in host.run("ps ax").stdout)
            good(host, version)
            assert half_built(host) == []

    told = load.under_load(host, load.NGINX, sweep)
    print(len(found), killed, {key: told[key] for key in ("asked", "lost", "longest")})
    assert told["lost"] == []
    assert killed >= len(sample(found, 3)) * 0.8 - 1
    project.requirements = "Django>=5.2,<5.3\n"


def archive(host: Host) -> dict[str, dict[str, str]]:
    """The project as an archive."""
    host.run(f"tar -C {SOURCE} -cf {SOURCE}.tar .")
    digest = host.run(f"sha256sum {SOURCE}.tar").stdout.split()[0]
    return {"archive": {"url": f"file://{SOURCE}.tar", "sha256": digest}}


@pytest.mark.parametrize("room", ["0", "3M"])
def test_a_full_disk_for_an_environment(host, project, room):
    # Of a package that no test before has built one with: one that is there takes no room.
    before = served(host)
    version = another(project, 9 if room == "0" else 8, "typing-extensions==4")
    full = "/var/lib/nginx_uwsgi_django/.full"

    def faulty():
        host.run(f"dd if=/dev/zero of={full} bs=4k", check=False)
        host.run(f"truncate -s -{room} {full}")
        try:
            for _ in range(2):
                run = host.apply(RUN, pillar=pillar())
                told = {result.function: result.comment for result in run.failed}
                assert "No space left on device" in " ".join(told.values()), told
                if room != "0":
                    # pip's own words.
                    assert "No space left on device" in told["python_venv.built"], told
                assert served(host) == before
                assert half_built(host) == []
        finally:
            host.run(f"rm {full}")
        good(host, version)

    told = load.under_load(host, load.NGINX, faulty)
    assert told["lost"] == [] and set(told["seen"]) == {before, version}
    project.requirements = "Django>=5.2,<5.3\n"


@pytest.mark.parametrize("place", ["/run", "/tmp"])
def test_a_full_file_system_of_what_does_not_last(host, project, place):
    before, version = served(host), project.next()
    # As large as it is, and the 16 MiB more that systemd wants to be free where it reloads.
    host.run(f"mountpoint -q {place} || mount -t tmpfs -o mode=1777 tmpfs {place}")
    used = int(host.run(f"df --output=used --block-size=1M {place} | tail -n 1").stdout)
    host.run(f"mount -o remount,size={used + 24}m {place}")

    def full():
        host.run(f"dd if=/dev/zero of={place}/.full bs=4k", check=False)
        try:
            for _ in range(2):
                run = host.apply(RUN, pillar=pillar())
                # Nothing of a release goes by /tmp.
                assert run.ok == (place == "/tmp"), run
                assert served(host) == (version if run.ok else before)
                if not run.ok:
                    told = " ".join(result.comment for result in run.failed)
                    assert "No space left on device: '/run/" in told, run
        finally:
            host.run(f"rm {place}/.full")
            host.run(f"mount -o remount,size=10% {place}")
        good(host, version)

    told = load.under_load(host, load.NGINX, full)
    assert told["lost"] == [] and set(told["seen"]) == {before, version}


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk(host, project, place):
    before, version = served(host), project.next()
    # What Salt's own file server sends is in Salt's own cache.
    wanted = pillar(source=archive(host)) if place == "/var/cache/sources" else pillar()

    def full():
        host.run(f"dd if=/dev/zero of={place}/.full bs=4k", check=False)
        try:
            for _ in range(2):
                run = host.apply(RUN, pillar=wanted)
                assert not run.ok
                told = " ".join(result.comment for result in run.failed)
                assert "No space left on device" in told or "disk is full" in told, told
                assert served(host) == before
        finally:
            host.run(f"rm {place}/.full")
        good(host, version)

    told = load.under_load(host, load.NGINX, full)
    assert told["lost"] == [] and set(told["seen"]) == {before, version}


def _migration(project, what):
    project.write(
        f"shop/migrations/{project.number:04d}.py",
        MIGRATION.format(before=f"{project.number - 1:04d}", what=what),
    )


def failing_migration(host, project):
    _migration(project, "lambda apps, schema: 1 / 0, migrations.RunPython.noop")
    return "ZeroDivisionError"


def failing_check(host, project):
    project.write("mysite/settings.py", SETTINGS + "\nSTATICFILES_DIRS = [STATIC_ROOT]\n")
    return "manage.py check"


def syntax_error_in_urls(host, project):
    project.write("mysite/urls.py", "urlpatterns = [\n")
    return "SyntaxError"


def answers_500(host, project):
    wrong = site.URLS.replace("return HttpResponse(VERSION)", "raise RuntimeError('boom')")
    project.write("mysite/urls.py", wrong)
    return "answered with 500"


def unreachable_index(host, project):
    project.write("requirements.txt", "Django>=5.2,<5.3\nsix\n")
    host.run("cp /etc/pip.conf /root/pip.conf")
    host.write("/etc/pip.conf", "[global]\nindex-url = http://127.0.0.1:9/\nretries = 0\n")
    return "Looking in indexes: http://127.0.0.1:9/"


def reachable_index(host):
    host.run("test ! -e /root/pip.conf || mv /root/pip.conf /etc/pip.conf")


def failing_hook(host, project):
    hooks = {"before_switch": [["sh", "-c", "echo not today $SECRET_KEY; exit 3"]]}
    host.set_pillar(pillar(hooks=hooks))
    return "hooks:before_switch:0 ended with 3, in /srv/mysite/releases"


def endless_hook(host, project):
    host.set_pillar(pillar(hooks={"before_migrate": [["sleep", "3600"]], "timeout": 2}))
    return "hooks:before_migrate:0 took longer than 2 seconds and was stopped"


def wrong_hash(host, project):
    source = archive(host)
    source["archive"]["sha256"] = "0" * 64
    host.set_pillar(pillar(source=source))
    return "not the 0000"


def wrong_revision(host, project):
    host.run(f"git init -q --bare {SOURCE}.git")
    git = {"url": f"file://{SOURCE}.git", "revision": "no-such-branch"}
    host.set_pillar(pillar(source={"git": git}))
    return "neither a branch nor a tag no-such-branch"


FAULTS = (
    failing_migration,
    failing_check,
    syntax_error_in_urls,
    answers_500,
    unreachable_index,
    failing_hook,
    endless_hook,
    wrong_hash,
    wrong_revision,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_step_that_fails(host, project, fault):
    before, version = served(host), project.next()

    def faulty():
        host.set_pillar(pillar())
        words = fault(host, project)
        for _ in range(2):
            run = host.apply(RUN)
            assert not run.ok
            told = " ".join(result.comment for result in run.failed)
            assert words in told, told
            assert "a-key-that-nobody" not in str(run.raw)
            assert served(host) == before
        project.number -= 1
        reachable_index(host)
        assert project.next() == version
        good(host, version)

    told = load.under_load(host, load.NGINX, faulty)
    assert told["lost"] == [] and set(told["seen"]) == {before, version}


def test_hooks_run_where_there_is_something_to_do_and_a_dry_run_only_names_them(host, project):
    points = [
        f"{when}_{step}" for step in ("fetch", "migrate", "switch") for when in ("before", "after")
    ]
    every = pillar(hooks={point: [HOOK] for point in points})
    host.run("rm /srv/mysite/shared/data/hooks")
    version = project.next()
    dry = host.apply(RUN, pillar=every, test=True)
    named = {
        key
        for result in dry.results
        if result.function == "release_hook.ran"
        for key in result.changes
    }
    assert named == set(points)
    assert not host.exists("/srv/mysite/shared/data/hooks")
    run = host.apply(RUN)
    assert run.ok, run.failed
    assert served(host) == version
    ran = [line.split() for line in host.read("/srv/mysite/shared/data/hooks").splitlines()]
    live = host.salt_call("uwsgi_generation.serving", "mysite")
    assert ran == [[point, live, "mysite"] for point in points]
    assert set(host.salt_call("release_hook.last", "mysite")) == set(points)
    again = host.apply(RUN)
    assert again.ok and again.changed == []
    # A rollback is a switch, too.
    back = host.salt_call("site_rollback.rollback", "mysite")["release"]["new"]
    ran = [line.split() for line in host.read("/srv/mysite/shared/data/hooks").splitlines()]
    assert ran[6:] == [["before_switch", back, "mysite"], ["after_switch", back, "mysite"]]


def test_a_rollback_under_load_loses_nothing_and_a_killed_one_is_finished(host, project, sample):
    words = salt_words(host, "site_rollback.rollback", name="mysite")
    old = served(host)
    new = project.next()
    good(host, new)
    killed = 0

    def sweep():
        nonlocal killed
        done = traced(host, words, f"-etrace={','.join(CALLS)}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert served(host) == old
        found = points(host, "/var/lib/nginx_uwsgi_django/prepared")
        assert len(found) > 10
        for call, number in sample(found[::3], 4):
            version = project.next()
            good(host, version)
            before = host.salt_call("uwsgi_generation.serving", "mysite")
            done = traced(
                host, words, f"-etrace={call}", f"-einject={call}:signal=KILL:when={number}"
            )
            killed += done.returncode != 0
            # What was meant is done, or nothing was begun.
            held = host.salt_call("release_record.held", "mysite")
            run = host.apply(RUN)
            assert run.ok, run.failed
            meant = held["release"] if held else before
            assert host.salt_call("uwsgi_generation.serving", "mysite") == meant, (call, number)
            whole(host)
            again = host.apply(RUN)
            assert again.ok and again.changed == [], (call, number)

    told = load.under_load(host, load.NGINX, sweep)
    assert killed
    print(killed, {key: told[key] for key in ("asked", "lost", "longest")})
    assert told["lost"] == []


def call(host: Host, unit: str, words: list[str]) -> int:
    """Start a call of Salt's in the background; its pid."""
    host.run("systemd-run", "--quiet", f"--unit={unit}", *words)
    return int(host.run("systemctl", "show", "-P", "MainPID", unit).stdout)


def test_a_rollback_and_whatever_else_there_is_take_turns(host, project):
    good(host, project.next())
    before = served(host)
    data = "/srv/mysite/shared/data"
    waits = f"touch {data}/waits; while test -e {data}/wait; do sleep 0.1; done"
    host.set_pillar(pillar(hooks={"before_switch": [["sh", "-c", waits]]}))

    def begun():
        return site.eventually(lambda: host.exists(f"{data}/waits"), 60)

    def refused(salt):
        with pytest.raises(CommandFailed) as told:
            host.salt_call("site_rollback.rollback", "mysite", salt=salt)
        return str(told.value)

    host.salt_call("saltutil.sync_all", salt="3006")
    # A rollback is under way.
    host.run(f"touch {data}/wait")
    first = call(host, "first", salt_words(host, "site_rollback.rollback", name="mysite"))
    assert begun()
    who = f"mysite is being changed by site_rollback.rollback (process {first}, since "
    assert who in refused("3008")
    assert who in refused("3006")
    project.next()
    run = host.apply(RUN)
    told = {result.function: result.comment for result in run.failed}
    assert who in told["django_release.present"], run
    assert served(host) == before
    # Killed, it holds nothing.
    host.run(f"kill -KILL {first}; rm {data}/wait {data}/waits")
    good(host, f"v{project.number}")

    # A run of states is, at a hook, where nothing of the release is being done.
    before, version = served(host), project.next()
    host.set_pillar(pillar(hooks={"before_switch": [["sh", "-c", waits]]}))
    host.run(f"touch {data}/wait; rm -f {data}/waits")
    second = call(host, "second", salt_words(host, "state.apply", mods=RUN))
    assert begun()
    assert f'The function "state.apply" is running as PID {second}' in refused("3008")
    # Another Salt does not know of it.
    assert f"changed by the hook before_switch (process {second}, since" in refused("3006")
    assert served(host) == before
    host.run(f"rm {data}/wait")
    ended = "systemctl show -P ActiveState second"
    assert site.eventually(lambda: host.run(ended).stdout == "inactive\n", 120)
    assert served(host) == version
    again = host.apply(RUN, pillar=pillar())
    assert again.ok and again.changed == [], again
