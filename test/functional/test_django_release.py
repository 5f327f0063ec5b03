"""
Releases of a Django project on a real host: whole or not there, prepared as the site's user, kept
and removed by what was live.
"""

import json
import re
import time

import pytest

from test.hosts.host import HostError

STATE_DIR = "/var/lib/nginx_uwsgi_django"
SITE = "/srv/mysite"
SOURCE = "/srv/salt/project"

SETTINGS = """
import os
from pathlib import Path

# A project that knows nothing of where it runs: all it writes is beside its code.
BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.staticfiles", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "public" / "static"
MEDIA_ROOT = BASE_DIR / "media"
ROOT_URLCONF = "site_.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
"""
MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = []
    operations = [
        migrations.CreateModel("Item", [("id", models.BigAutoField(primary_key=True))]),
    ]
"""
SECOND = """
from django.db import migrations, models


def refuse(apps, schema_editor):
    import os
    raise RuntimeError("cannot migrate with " + os.environ["SECRET_KEY"])


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(refuse)]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("VERSION"))]
"""
PROJECT = {
    "requirements.txt": "Django>=5.2,<5.3\n",
    "site_/__init__.py": "",
    "site_/settings.py": SETTINGS,
    "site_/urls.py": URLS.replace("VERSION", "one"),
    "site_/wsgi.py": "from django.core.wsgi import get_wsgi_application\n"
    "application = get_wsgi_application()\n",
    "shop/__init__.py": "",
    "shop/models.py": "from django.db import models\n\n\nclass Item(models.Model):\n    pass\n",
    "shop/migrations/__init__.py": "",
    "shop/migrations/0001_initial.py": MIGRATION,
    "shop/static/shop/a.css": "a { color: red }\n",
}
SECRET = "hunter2-is-my-secret"


def pillar(source=True, **project):
    if source:
        project["source"] = {"salt": "salt://project"}
    site = {
        "server_names": ["mysite.example"],
        "project": {
            "wsgi": "site_.wsgi:application",
            "settings": "site_.settings",
            "env": {"SECRET_KEY": SECRET},
            **project,
        },
        "uwsgi": {"package": "distro"},
    }
    return {"nginx_uwsgi_django": {"nginx": {"user": "www-data"}, "sites": {"mysite": site}}}


def state(host, function, test=False, **more):
    name = f"django_release.{function}" if "." not in function else function
    (result,) = host.salt_call("state.single", name, name="mysite", test=test, **more).values()
    return result


def good(host, function, **more):
    result = state(host, function, **more)
    assert result["result"] is True, result["comment"]
    return result


# What the formula does for a site, accounts and uWSGI left out.
STEPS = ("django_release.present", "python_venv.built", "django_release.prepared")


def steps(host, *names, test=False, **more):
    """These states in one run, each only after the one before; its results by function."""
    sls = {}
    for before, name in zip((None, *names), names, strict=False):
        needs = [{"require": [{before.partition(".")[0]: f"the {before}"}]}] if before else []
        sls[f"the {name}"] = {name: [{"name": "mysite"}, *needs]}
    host.write("/srv/salt/steps.sls", f"#!json\n{json.dumps(sls)}\n")
    run = host.apply("steps", test=test, **more)
    return {name: run.by_id[f"the {name}"] for name in names}


def unchanged(host, *names):
    """Whether a run of these states succeeds and has nothing to do."""
    for name, result in steps(host, *(names or STEPS)).items():
        assert (result.result, result.changes) == (True, {}), f"{name}: {result.comment}"


def deploy(host):
    """A release, from its source to being live; returns its ID."""
    for name, result in steps(host, *STEPS, "django_release.live").items():
        assert result.result is True, f"{name}: {result.comment}"
    return current(host)


def current(host):
    return host.run(f"readlink {SITE}/current").stdout.strip().removeprefix("releases/")


def snapshot(host, *paths):
    """Everything under paths, with owner, mode, size and times; sockets of the moment apart."""
    words = " ".join(paths)
    shown = "%p %y %i %u:%g %m %s %T@ %C@ %l\\n"
    # Where Salt's file server has its files from: the checkout, in which somebody may be writing,
    # and what the tests themselves write.
    roots = "-path /srv/formula -prune -o -path /srv/salt -prune"
    command = f"find {words} {roots} -o -printf '{shown}' 2>/dev/null | sort"
    return host.run(command, check=False).stdout


@pytest.fixture(scope="module", autouse=True)
def _project(host):
    host.install("python3-venv")
    for name, text in PROJECT.items():
        host.write(f"{SOURCE}/{name}", text)
    host.salt_call("saltutil.sync_all", pillar=pillar())
    good(host, "system_account.present")


def test_a_dry_run_writes_nothing_outside_salts_cache(host):
    places = ("/srv", "/etc", STATE_DIR, "/var/lib/dpkg", "/home", "/usr/local")
    before = snapshot(host, *places)
    for name, dry in steps(host, *STEPS, "django_release.live", test=True).items():
        assert dry.result is None, (name, dry)
        assert dry.changes
    assert snapshot(host, *places) == before


def test_a_source_becomes_a_release_of_roots_that_the_site_can_only_read(host):
    made = good(host, "present")
    (release,) = host.run(f"ls -A {SITE}/releases").stdout.split()
    assert made["changes"]["release"]["new"] == f"{SITE}/releases/{release}"
    path = f"{SITE}/releases/{release}"
    assert host.run(f"find {path} ! -user root -o ! -group mysite").stdout == ""
    assert host.run(f"find {path} -perm /027").stdout == ""
    assert host.read(f"{path}/shop/static/shop/a.css") == PROJECT["shop/static/shop/a.css"]
    before = snapshot(host, "/srv/mysite")
    assert good(host, "present")["changes"] == {}
    assert snapshot(host, "/srv/mysite") == before


def test_a_half_release_is_swept_and_one_edited_by_hand_is_restored(host):
    (release,) = host.run(f"ls {SITE}/releases").stdout.split()
    path = f"{SITE}/releases/{release}"
    host.run(
        f"mkdir {SITE}/releases/.0123456789ab.partial; rm {path}/shop/models.py; "
        f"echo 'DEBUG = True' >> {path}/site_/settings.py; echo x > {path}/shop/extra.py; "
        f"mkdir {path}/shop/__pycache__; echo x > {path}/shop/__pycache__/a.pyc"
    )
    dry = state(host, "present", test=True)
    assert dry["result"] is None
    for named in (".0123456789ab.partial", "shop/models.py", "site_/settings.py", "shop/extra.py"):
        assert named in dry["comment"]
    good(host, "present")
    assert host.run(f"ls -A {SITE}/releases").stdout.split() == [release]
    assert host.read(f"{path}/site_/settings.py") == SETTINGS
    assert host.exists(f"{path}/shop/models.py") and not host.exists(f"{path}/shop/extra.py")
    assert good(host, "present")["changes"] == {}


def test_prepared_migrates_and_collects_as_the_site_into_what_outlives_the_release(host):
    good(host, "python_venv.built")
    done = good(host, "prepared")
    assert done["changes"]["migrated"]["new"] == [
        "contenttypes.0001_initial",
        "contenttypes.0002_remove_content_type_name",
        "shop.0001_initial",
    ]
    (release,) = host.run(f"ls {SITE}/releases").stdout.split()
    path = f"{SITE}/releases/{release}"
    # The project keeps its data beside its code, which is read-only: links lead out of there.
    assert host.run(f"readlink {path}/db.sqlite3 {path}/public/static {path}/media").stdout == (
        f"{SITE}/shared/data/db.sqlite3\n{SITE}/shared/collected/{release}\n{SITE}/shared/media\n"
    )
    assert host.run(f"find {SITE}/shared ! -user mysite").stdout == ""
    assert host.run(f"stat -c %a {SITE}/shared/data/db.sqlite3").stdout == "640\n"
    assert len(host.run(f"ls {SITE}/shared/static/shop").stdout.split()) == 2
    # A web server of another user hands the static files out, and sees no data.
    host.run(f"su -s /bin/sh nobody -c 'cat {SITE}/shared/static/shop/a.css'")
    assert host.run(f"su -s /bin/sh nobody -c 'ls {SITE}/shared'", check=False).returncode
    assert host.run(f"su -s /bin/sh nobody -c 'ls {SITE}/shared/data'", check=False).returncode

    before = snapshot(host, SITE, STATE_DIR)
    unchanged(host)
    assert snapshot(host, SITE, STATE_DIR) == before
    assert host.salt_call("django_preparation.pending", "mysite") == []


def test_nothing_is_started_when_nothing_changed(host):
    good(host, "live")
    host.install("strace")
    from test.hosts.salts import program

    unchanged(host)
    traced = host.run(
        *("strace", "-f", "-qq", "-e", "trace=execve", "-e", "signal=none"),
        *(program("3008", "salt-call"), "--local", "--config-dir=/etc/salt-3008"),
        *("state.apply", "steps"),
        timeout=300,
    )
    started = [line for line in traced.stderr.splitlines() if "execve(" in line]
    # Salt itself looks at the host (lscpu, systemctl …) for its grains.
    assert started, "strace saw nothing at all"
    for word in ("/venvs/", "setpriv", "manage.py", "pip"):
        assert not [line for line in started[1:] if word in line], word


def test_a_secret_of_the_environment_is_in_no_word_of_salts(host):
    host.write(f"{SOURCE}/shop/migrations/0002_refuse.py", SECOND)
    good(host, "present")
    live = current(host)
    failed = state(host, "prepared")
    assert failed["result"] is False
    assert failed["changes"] == {}
    assert "manage.py migrate failed" in failed["comment"]
    assert "cannot migrate with **********" in failed["comment"]
    assert SECRET not in str(failed)
    assert SECRET not in host.run("grep -r hunter2 /var/lib/salt-3008 || true").stdout
    assert host.run(f"grep -rl hunter2 {STATE_DIR} || true").stdout == ""
    # Red as long as the cause stays, and what is live stays live.
    assert state(host, "prepared")["result"] is False
    assert host.salt_call("django_preparation.pending", "mysite") == ["shop.0002_refuse"]
    assert current(host) == live
    host.run(f"rm {SOURCE}/shop/migrations/0002_refuse.py")
    unchanged(host)


def test_a_management_command_runs_as_the_site_in_the_live_release(host):
    live = current(host)
    # What is desired and not live yet has no say.
    host.write(f"{SOURCE}/site_/wsgi.py", "application = None\n")
    good(host, "present")
    code = (
        "import getpass, os, sys; print(getpass.getuser(), os.getcwd(), os.environ['SECRET_KEY']); "
        "sys.exit(3)"
    )
    done = host.salt_call("django_command.manage", "mysite", f'shell -c "{code}"')
    assert done["retcode"] == 3
    assert f"mysite {SITE}/releases/{live} **********" in done["stdout"]
    assert SECRET not in done["stdout"]
    checked = host.salt_call("django_command.manage", "mysite", "migrate --check")
    assert checked["retcode"] == 0, checked["stdout"]
    unknown = host.salt_call("django_command.manage", "mysite", "no-such-command")
    assert unknown["retcode"] == 1 and "Unknown command" in unknown["stdout"]
    host.write(f"{SOURCE}/site_/wsgi.py", PROJECT["site_/wsgi.py"])
    good(host, "present")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("site_/settings.py", SETTINGS + "\nimport nowhere_to_be_found\n", "nowhere_to_be_found"),
        ("site_/wsgi.py", "application = None\n", "site_.wsgi:application is not callable"),
        ("shop/models.py", "class Item(:\n", "SyntaxError"),
        ("site_/urls.py", "urlpatterns = 5\n", "manage.py check failed"),
        (
            "site_/settings.py",
            SETTINGS.replace('["*"]', '[".else.example"]'),
            "refuses mysite.example (nginx_uwsgi_django:sites:mysite:server_names:0); "
            "it allows .else.example",
        ),
        (
            "site_/settings.py",
            SETTINGS.replace('STATIC_ROOT = BASE_DIR / "public" / "static"', ""),
            "STATIC_ROOT in the settings site_.settings is not set, and "
            "nginx_uwsgi_django:sites:mysite:project:static:collect is true",
        ),
    ],
)
def test_what_does_not_work_is_refused_with_its_own_words(host, name, text, words):
    live = current(host)
    host.write(f"{SOURCE}/{name}", text)
    try:
        done = steps(host, *STEPS)
        assert done["django_release.present"].result is True
        failed = done["django_release.prepared"]
        assert failed.result is False
        assert words in failed.comment
        assert current(host) == live
    finally:
        host.write(f"{SOURCE}/{name}", PROJECT[name])


@pytest.mark.parametrize(
    ("check", "name", "text", "words"),
    [
        ({"deploy": "WARNING"}, "shop/models.py", PROJECT["shop/models.py"], "security.W"),
        (
            {"migrations": True},
            "shop/models.py",
            PROJECT["shop/models.py"].replace("pass", "name = models.TextField(default='')"),
            "manage.py makemigrations --check failed",
        ),
    ],
)
def test_the_pillar_asks_for_more_than_django_does(host, check, name, text, words):
    live = current(host)
    host.write(f"{SOURCE}/{name}", text)
    try:
        # Without that in the pillar it passes.
        assert steps(host, *STEPS)["django_release.prepared"].result is True
        failed = state(host, "prepared", pillar=pillar(check=check))
        assert failed["result"] is False
        assert words in failed["comment"]
        assert "Traceback" not in failed["comment"]
        assert current(host) == live
    finally:
        host.write(f"{SOURCE}/{name}", PROJECT[name])
    good(host, "present", pillar=pillar())


def test_only_the_host_that_the_pillar_names_migrates(host):
    live = current(host)
    second = "shop/migrations/0002_more.py"
    host.write(f"{SOURCE}/{second}", SECOND.replace("(refuse)", "(lambda apps, schema: None)"))
    elsewhere = pillar(migrate={"host": "another.example"})
    dry = steps(host, *STEPS, "django_release.live", test=True, pillar=elsewhere)
    assert {each.result for each in dry.values()} <= {None, True}
    for _ in range(2):
        # Red until that host has run, and whatever is live stays.
        failed = steps(host, *STEPS, pillar=elsewhere)["django_release.prepared"]
        assert failed.result is False
        assert "shop.0002_more" in failed.comment
        assert "for another.example to apply" in failed.comment
        assert "nginx_uwsgi_django:sites:mysite:project:migrate:host" in failed.comment
        assert host.salt_call("django_preparation.pending", "mysite") == ["shop.0002_more"]
        assert current(host) == live
    here = pillar(migrate={"host": host.salt_call("config.get", "id")})
    done = steps(host, *STEPS, pillar=here)["django_release.prepared"]
    assert done.changes["migrated"]["new"] == ["shop.0002_more"]
    # With nothing left of the plan, another host's release is as good as any.
    passed = steps(host, *STEPS, pillar=elsewhere)["django_release.prepared"]
    assert passed.result is True
    assert "migrated" not in passed.changes
    host.run(f"rm {SOURCE}/{second}")
    good(host, "present", pillar=pillar())


def styles(host):
    """What the web server has of the one style sheet, by its names."""
    told = host.run(f"cd {SITE}/shared/static/shop; grep -H . *").stdout
    return dict(line.split(":", 1) for line in told.splitlines())


@pytest.mark.long
def test_as_many_as_the_pillar_says_are_kept_and_one_in_use_for_longer(host):
    host.set_pillar(pillar(keep=2))
    first = deploy(host)
    # A process that still runs from the first one, as an old generation does.
    host.run(
        f"systemd-run --unit=old --uid=mysite -p WorkingDirectory={SITE}/releases/{first} sleep 600"
    )
    seen = [first]
    for number in range(3):
        host.write(f"{SOURCE}/shop/static/shop/a.css", f"a {{ order: {number} }}\n")
        # Before the switch a page of the old release finds all as it was, and of the new one
        # what a page of it asks for by its hash.
        for name, result in steps(host, *STEPS).items():
            assert result.result is True, f"{name}: {result.comment}"
        assert styles(host)["a.css"] == (
            f"a {{ order: {number - 1} }}" if number else "a { color: red }"
        )
        assert f"a {{ order: {number} }}" in styles(host).values()
        seen.append(deploy(host))
        assert styles(host)["a.css"] == f"a {{ order: {number} }}"
    assert len(set(seen)) == 4
    kept = host.run(f"ls -A {SITE}/releases").stdout.split()
    assert sorted(kept) == sorted([first, *seen[-2:]])
    # The static files are those of the releases that are kept; the manifest of each is its own.
    hashed = {text for name, text in styles(host).items() if name != "a.css"}
    assert hashed == {"a { color: red }", "a { order: 1 }", "a { order: 2 }"}
    collected = host.run(f"ls {SITE}/shared/collected").stdout.split()
    assert sorted(collected) == sorted(kept)
    names = host.run(f"cat {SITE}/shared/collected/*/staticfiles.json").stdout
    assert len(set(re.findall(r"shop/a\.[0-9a-f]{12}\.css", names))) == 3
    host.run("systemctl stop old")
    dry = state(host, "live", test=True)
    going = {"old": [first], "new": None}
    assert (dry["result"], dry["changes"]) == (None, {"releases": going, "collected": going})
    assert good(host, "live")["changes"] == dry["changes"]
    assert sorted(host.run(f"ls -A {SITE}/releases").stdout.split()) == sorted(seen[-2:])
    assert "a { color: red }" not in styles(host).values() and len(styles(host)) == 3
    assert good(host, "live")["changes"] == {}
    # Back to an older one: made of the same files it is the same release, and nothing is redone.
    host.write(f"{SOURCE}/shop/static/shop/a.css", "a { order: 1 }\n")
    unchanged(host)
    good(host, "live")
    assert current(host) == seen[-2]
    assert styles(host)["a.css"] == "a { order: 1 }" and len(styles(host)) == 3
    host.set_pillar(pillar())


# A release that is served, with the one command that a run ends in.
WHOLE = (
    *STEPS[:2],
    "django_release.prepared",
    "uwsgi_socket.listening",
    "uwsgi_generation.running",
    "django_release.live",
)


def serve(host, version, **files):
    """Another release from the source, as far as being served; its ID."""
    host.write(f"{SOURCE}/site_/urls.py", URLS.replace("VERSION", version))
    for name, result in steps(host, *WHOLE, **files).items():
        assert result.result is True, f"{name}: {result.comment}"
    assert answers(host) == version
    return current(host)


def answers(host):
    got = host.salt_call("uwsgi_request.get", "/run/uwsgi/mysite.sock", "/", "mysite.example")
    return (got["body"] if isinstance(got["body"], str) else got["body"].decode()).strip()


def rollback(host, *words, **more):
    return host.salt_call("site_rollback.rollback", "mysite", *words, **more)


def refused(host, *words, **more):
    """What a rollback says that is refused; nothing is changed by it."""
    records = f"cd {STATE_DIR}/prepared/mysite; tail -n +1 *"
    before = snapshot(host, SITE, "/etc/uwsgi"), host.run(records).stdout
    with pytest.raises(HostError) as caught:
        rollback(host, *words, **more)
    assert (snapshot(host, SITE, "/etc/uwsgi"), host.run(records).stdout) == before
    return str(caught.value)


@pytest.fixture(scope="module")
def served(host):
    """Three releases, served one after the other, and one that failed its check in between."""
    host.install("uwsgi-core", "uwsgi-plugin-python3")
    host.set_pillar(pillar(keep=4))
    first, second = serve(host, "v1"), serve(host, "v2")
    host.write(f"{SOURCE}/site_/urls.py", "urlpatterns = 5\n")
    assert steps(host, *WHOLE)["django_release.prepared"].result is False
    return first, second, serve(host, "v3")


def test_a_rollback_leads_to_what_served_before_and_what_was_left_stays_away(host, served):
    first, second, third = served
    told = {one["release"]: one for one in host.salt_call("site_rollback.releases", "mysite")}
    assert list(told)[:3] == [third, second, first]
    assert told[third]["why_not"] == "it is already live"
    assert told[second]["why_not"] is None and told[second]["source"] == "salt://project"
    assert told[third]["since"] > told[second]["since"]
    # What failed is no way back, and was swept by the one after it.
    assert None not in [one["since"] for one in told.values()]
    assert "not on this host" in refused(host, "0" * 12)

    before = snapshot(host, SITE, STATE_DIR, "/etc/uwsgi")
    assert rollback(host, test=True)["release"] == {"old": third, "new": second}
    assert snapshot(host, SITE, STATE_DIR, "/etc/uwsgi") == before
    back = rollback(host)
    assert back["release"] == {"old": third, "new": second}
    assert (current(host), answers(host)) == (second, "v2")
    # The source still has what was left, and says so to whoever applies.
    for test in (True, False):
        done = steps(host, *WHOLE, test=test)
        assert {(each.result, str(each.changes)) for each in done.values()} == {(True, "{}")}
        assert f"the source offers {third}" in done["django_release.present"].comment
    assert answers(host) == "v2"
    # Again: further back, and not to what was left or what failed.
    assert rollback(host)["release"] == {"old": second, "new": first}
    assert answers(host) == "v1"
    # By its ID, forth again; then the source's word counts.
    assert rollback(host, second)["release"] == {"old": first, "new": second}
    assert rollback(host, third)["release"] == {"old": second, "new": third}
    unchanged(host, *WHOLE)
    assert answers(host) == "v3"
    assert rollback(host)["release"] == {"old": third, "new": second}
    # Another content of the source is told enough, and the way back is what served.
    fourth = serve(host, "v4")
    assert rollback(host)["release"] == {"old": fourth, "new": second}


@pytest.mark.long
def test_a_rollback_without_its_source_and_one_that_is_no_good(host, served):
    _, second, _ = served
    fifth = serve(host, "v5")
    # There is one way back to a release; the other one is for uWSGI's settings.
    with pytest.raises(HostError, match=f"site_rollback.rollback mysite {second}"):
        host.salt_call("uwsgi_generation.rollback", "mysite")
    assert answers(host) == "v5"
    host.run(f"mv {SOURCE} {SOURCE}.away")
    try:
        assert rollback(host)["release"] == {"old": fifth, "new": second}
        assert answers(host) == "v2"
        assert state(host, "present")["result"] is False
    finally:
        host.run(f"mv {SOURCE}.away {SOURCE}")
    pinned = pillar(keep=4, release=fifth)
    for name, result in steps(host, *WHOLE, pillar=pinned).items():
        assert result.result is True, f"{name}: {result.comment}"
    assert answers(host) == "v5"
    assert "nginx_uwsgi_django:sites:mysite:project:release" in refused(host)
    # Health is asked as it is of any other generation, and what served still does.
    sick = pillar(keep=4)
    sick["nginx_uwsgi_django"]["sites"]["mysite"]["health"] = {"status": [204]}
    assert "did not pass its preflight" in refused(host, pillar=sick)
    assert answers(host) == "v5"
    host.set_pillar(pillar(keep=4))
    unchanged(host, *WHOLE)
    host.run(f"echo x >> {SITE}/releases/{second}/site_/wsgi.py")
    assert "changed by hand" in refused(host)
    host.run(f"rm -r {SITE}/releases/{second}")
    assert f"no rollback to the release {second}" in refused(host)


@pytest.mark.long
def test_what_django_cannot_undo_is_gone_back_from_only_when_told(host, served):
    before = serve(host, "v6")
    second = "shop/migrations/0002_more.py"
    # The one can be undone, the other cannot.
    host.write(f"{SOURCE}/{second}", SECOND.replace("(refuse)", "(print, print)"))
    undoable = serve(host, "v7")
    back = rollback(host)
    assert back["release"] == {"old": undoable, "new": before}
    assert back["beyond"] == ["shop.0002_more"]
    third = SECOND.replace("(refuse)", "(lambda apps, schema: None)")
    third = third.replace("0001_initial", "0002_more")
    host.write(f"{SOURCE}/shop/migrations/0003_ever.py", third)
    host.write(f"{SOURCE}/site_/urls.py", URLS.replace("VERSION", "v8"))
    done = steps(host, *WHOLE)
    comment = done["django_release.prepared"].comment
    assert "Django cannot undo" in comment and "shop.0003_ever (Raw Python operation)" in comment
    assert "0002_more (" not in comment
    after = current(host)
    said = refused(host)
    assert (
        "migrations that Django cannot undo" in said
        and "shop.0003_ever (Raw Python operation)" in said
    )
    told = {one["release"]: one for one in host.salt_call("site_rollback.releases", "mysite")}
    assert "shop.0003_ever" in told[before]["why_not"]
    back = rollback(host, allow_irreversible=True)
    assert back["release"] == {"old": after, "new": before}
    assert back["beyond"] == ["shop.0002_more", "shop.0003_ever"]
    assert answers(host) == "v6"
    unchanged(host, *WHOLE)
    host.run(f"rm {SOURCE}/{second} {SOURCE}/shop/migrations/0003_ever.py")
    serve(host, "v9")


@pytest.mark.long
def test_an_account_that_was_made_anew_gets_back_what_outlived_it(host):
    release = deploy(host)
    before = snapshot(host, f"{SITE}/shared/data")
    good(host, "uwsgi_generation.absent")
    good(host, "system_account.absent")
    # Somebody else has its numbers by now.
    uid, gid = host.run(f"stat -c '%u %g' {SITE}/shared").stdout.split()
    host.run(f"groupadd --gid {gid} other && useradd --uid {uid} --gid {gid} -M other")
    good(host, "system_account.present")
    deploy(host)
    assert current(host) == release
    assert host.run(f"find {SITE} {STATE_DIR} -user other -o -group other").stdout == ""
    shown = host.run(f"su -s /bin/sh mysite -c 'cd {SITE}/current/; ls; ls {SITE}/shared/data'")
    assert "db.sqlite3" in shown.stdout and "requirements.txt" in shown.stdout
    assert len(snapshot(host, f"{SITE}/shared/data").splitlines()) == len(before.splitlines())
    unchanged(host, *STEPS, "django_release.live")


def test_a_run_killed_while_it_copies_leaves_no_half_release(host):
    from test.hosts.salts import program

    host.run(f"mkdir -p {SOURCE}/big; for i in $(seq 800); do echo $i > {SOURCE}/big/$i; done")
    before = host.run(f"ls {SITE}/releases").stdout
    host.run(
        f"systemd-run --unit=killed {program('3008', 'salt-call')} --local "
        "--config-dir=/etc/salt-3008 state.single django_release.present name=mysite"
    )
    deadline = time.monotonic() + 60
    while not host.run(f"ls -d {SITE}/releases/.*.partial/big", check=False).stdout:
        assert time.monotonic() < deadline, "no copy was ever begun"
    host.run("systemctl kill --signal=KILL killed")
    assert host.run(f"ls {SITE}/releases").stdout == before
    assert host.run(f"ls -d {SITE}/releases/.*.partial").stdout
    good(host, "present")
    assert host.run(f"ls -A {SITE}/releases | grep -c partial", check=False).stdout == "0\n"
    assert good(host, "present")["changes"] == {}
    host.run(f"rm -r {SOURCE}/big")


def test_a_tree_is_run_where_it_is_and_nothing_of_its_owners_is_changed(host):
    tree = "/srv/copied"
    host.run(
        f"useradd --create-home ubuntu; cp -r {SOURCE} {tree}; mkdir -p {tree}/media {tree}/.git; "
        f"echo x > {tree}/.git/HEAD; chown -R ubuntu: {tree}; chmod -R go= {tree}"
    )
    # The database of the releases before is not to be this one's.
    wanted = pillar(source=False, path=tree, check={"data": False})
    refused = state(host, "present", pillar=wanted)
    assert refused["result"] is False
    assert f"the site's user mysite cannot read {tree}" in refused["comment"]
    assert state(host, "present", test=True)["result"] is False

    # An access list that the mode does not show is leave enough.
    host.install("acl")
    if host.run(f"setfacl -R -m u:mysite:rX {tree}", check=False).returncode == 0:
        good(host, "present")
        host.run(f"setfacl -R -b {tree}")
    host.run(f"chmod -R go=rX {tree}; chmod 600 {tree}/shop/models.py")
    refused = state(host, "present")
    assert refused["result"] is False
    assert f"cannot read {tree}/shop/models.py," in refused["comment"]
    host.run(f"chmod 644 {tree}/shop/models.py; chmod 700 {tree}/.git")

    before = snapshot(host, tree)
    assert f"complete in {tree}" in good(host, "present")["comment"]
    release = host.salt_call("django_release.desired", "mysite")["id"]
    # The database is the owner's: the site cannot make one there, and Django says so.
    failed = state(host, "prepared")
    assert failed["result"] is False
    assert "unable to open database file" in failed["comment"]
    # The one thing that was added: the empty directory that the settings name for static files.
    added = set(snapshot(host, tree).splitlines()) - set(before.splitlines())
    names = {line.split()[0] for line in added}
    assert names == {tree, f"{tree}/public", f"{tree}/public/static"}

    host.run(f"install -o mysite -g mysite -m 640 /dev/null {tree}/db.sqlite3; chmod o+w {tree}")
    done = good(host, "prepared")
    assert done["changes"]["collected"]["new"] == f"{tree}/public/static"
    # What it wrote itself is no other release.
    assert host.salt_call("django_release.desired", "mysite")["id"] == release
    unchanged(host)
    assert host.run(f"find {tree} -name __pycache__").stdout == ""
    host.run(f"echo '# edited' >> {tree}/shop/models.py")
    assert host.salt_call("django_release.desired", "mysite")["id"] != release
    good(host, "live")
    assert not host.exists(f"{tree}/current")

    missing = state(host, "present", pillar=pillar(source=False, path="/srv/nowhere"), test=True)
    assert missing["result"] is False
    assert "nginx_uwsgi_django:sites:mysite:project:path" in missing["comment"]


def test_data_goes_only_where_the_pillar_gives_it_up_and_a_copied_tree_never(host):
    wanted = pillar()
    before = snapshot(host, SITE)
    kept = state(host, "absent", pillar=wanted)
    assert (kept["result"], kept["changes"]) == (True, {})
    assert snapshot(host, SITE) == before
    wanted["nginx_uwsgi_django"]["clean"] = {"data": True}
    assert state(host, "absent", pillar=wanted, test=True)["result"] is None
    assert snapshot(host, SITE) == before
    good(host, "absent")
    assert not host.exists(SITE)
    assert not host.exists(f"{STATE_DIR}/sites/mysite")
    assert good(host, "absent")["changes"] == {}

    tree = snapshot(host, "/srv/copied")
    wanted = pillar(source=False, path="/srv/copied")
    wanted["nginx_uwsgi_django"]["clean"] = {"data": True}
    good(host, "absent", pillar=wanted)
    assert snapshot(host, "/srv/copied") == tree
