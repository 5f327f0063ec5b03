"""
A site's database and uploads on a real host: tried as the site's user before traffic, never left
behind in silence, and never handed out with its static files.
"""

import pytest

from .test_django_release import (
    PROJECT,
    SETTINGS,
    SITE,
    SOURCE,
    STEPS,
    current,
    deploy,
    good,
    pillar,
    snapshot,
    state,
    steps,
    unchanged,
)

KEY = "nginx_uwsgi_django:sites:mysite:project"
RECORDS = "/var/lib/nginx_uwsgi_django/prepared/mysite"
MEDIA = 'MEDIA_ROOT = BASE_DIR / "media"'
STATIC = 'STATIC_ROOT = BASE_DIR / "public" / "static"'
DATABASE = '"NAME": BASE_DIR / "db.sqlite3"'


@pytest.fixture(scope="module", autouse=True)
def _project(host):
    host.install("python3-venv", "sqlite3")
    for name, text in PROJECT.items():
        host.write(f"{SOURCE}/{name}", text)
    host.salt_call("saltutil.sync_all", pillar=pillar())
    good(host, "system_account.present")
    host.run("useradd --create-home deploy")


@pytest.fixture
def changed(host):
    """Write files of the project, for one test."""
    written = []

    def write(name, text):
        host.run("mkdir", "-p", f"{SOURCE}/{name}".rpartition("/")[0])
        host.write(f"{SOURCE}/{name}", text)
        written.append(name)

    yield write
    host.set_pillar(pillar())
    for name in written:
        if name in PROJECT:
            host.write(f"{SOURCE}/{name}", PROJECT[name])
        else:
            host.run(f"rm {SOURCE}/{name}")


def refused(host):
    """What the preparing state says that fails; the run before it is good, and the next is red."""
    live = current(host) if host.exists(f"{SITE}/current") else None
    for _ in range(2):
        done = steps(host, *STEPS, "django_release.live")
        assert done["django_release.present"].result is True
        failed = done["django_release.prepared"]
        assert failed.result is False, failed.comment
        assert failed.changes == {}
        assert done["django_release.live"].result is False
    assert (current(host) if live else None) == live
    return failed.comment


def as_site(host, command):
    return host.run("su", "-s", "/bin/sh", "mysite", "-c", command, check=False)


def test_a_database_that_the_source_brings_is_not_left_behind_in_silence(host, changed):
    made = f"sqlite3 {SOURCE}/db.sqlite3 'create table people (name)'"
    host.run(made)
    said = refused(host)
    assert "db.sqlite3 would be new and empty" in said
    assert f"{KEY}:check:data" in said
    assert not host.exists(f"{SITE}/shared/data/db.sqlite3")
    command = said.partition("(install ")[2].partition(")")[0]
    assert command.endswith(f" {SITE}/shared/data/db.sqlite3")
    host.run(f"install {command}")
    deploy(host)
    tables = host.run(f"sqlite3 {SITE}/shared/data/db.sqlite3 .tables").stdout
    assert "people" in tables and "shop_item" in tables
    unchanged(host, *STEPS, "django_release.live")
    host.run(f"rm {SOURCE}/db.sqlite3")
    # By another name, beside one that is in use: a word allows it.
    changed("site_/settings.py", SETTINGS.replace("db.sqlite3", "new.sqlite3"))
    said = refused(host)
    assert "new.sqlite3 would be new and empty" in said
    assert f"{SITE}/shared/data/db.sqlite3 is there" in said
    host.set_pillar(pillar(check={"data": False}))
    deploy(host)
    assert host.exists(f"{SITE}/shared/data/new.sqlite3")
    host.set_pillar(pillar())
    unchanged(host, *STEPS)
    host.run(f"rm {SITE}/shared/data/new.sqlite3")


def test_what_the_site_cannot_write_is_red_until_it_can(host):
    deploy(host)
    data, media = f"{SITE}/shared/data", f"{SITE}/shared/media"
    for broken, mended, named in (
        (f"chown deploy {data}/db.sqlite3", f"chown mysite {data}/db.sqlite3", "deploy:mysite"),
        (f"chmod 440 {data}/db.sqlite3", f"chmod 640 {data}/db.sqlite3", "mode 0440"),
        (
            f"install -d -o deploy {media}/photos; chmod 775 {media}",
            f"chown mysite {media}/photos; chmod 755 {media}",
            f"{media}/photos (of deploy:root, mode 0755)",
        ),
    ):
        host.run(broken)
        dry = steps(host, *STEPS, test=True)
        assert dry["django_release.prepared"].result is None
        if "photos" in broken:
            # The directories' modes are the formula's, so it mends that one itself.
            host.run(
                f"chmod 750 {data}; rm -f /var/lib/nginx_uwsgi_django/prepared/mysite/*[0-9a-f].json"
            )
        said = refused(host)
        assert named in said, said
        for way in (f"{KEY}:check:data", "chown -R mysite:mysite", data):
            assert way in said
        host.run(mended)
        deploy(host)
        unchanged(host, *STEPS, "django_release.live")


def test_uploads_work_where_the_release_brings_their_directory(host, changed):
    changed(
        "site_/settings.py", SETTINGS.replace(MEDIA, 'MEDIA_ROOT = BASE_DIR / "shop" / "media"')
    )
    changed("shop/media/.gitkeep", "")
    changed("shop/media/first/photo.txt", "brought\n")
    release = deploy(host)
    there = f"{SITE}/current/shop/media"
    assert as_site(host, f"echo uploaded >{there}/first/new.txt").returncode == 0
    assert host.run(f"cat {SITE}/shared/media/first/*.txt").stdout == "uploaded\nbrought\n"
    assert host.run(f"stat -c %a {SITE}/shared/media/first/photo.txt").stdout == "644\n"
    before = snapshot(host, SITE)
    unchanged(host, *STEPS, "django_release.live")
    assert snapshot(host, SITE) == before
    # The next release brings them, too; what was uploaded stays, and both are whole.
    changed("shop/media/first/new.txt", "brought\n")
    changed("site_/urls.py", PROJECT["site_/urls.py"].replace("one", "two"))
    after = deploy(host)
    assert after != release
    assert host.run(f"cat {there}/first/new.txt").stdout == "uploaded\n"
    assert host.salt_call("django_release.stored", "mysite")[-2:] == [release, after]
    host.set_pillar(pillar(release=release))
    assert deploy(host) == release
    host.set_pillar(pillar())


def test_uploads_beside_the_releases_are_kept_with_the_sites_data(host, changed):
    changed("site_/settings.py", SETTINGS.replace(MEDIA, 'MEDIA_ROOT = BASE_DIR.parent / "media"'))
    deploy(host)
    assert as_site(host, f"touch {SITE}/releases/media/beside").returncode == 0
    assert host.exists(f"{SITE}/shared/media/beside")
    unchanged(host, *STEPS, "django_release.live")


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (MEDIA, 'MEDIA_ROOT = BASE_DIR / "shop"', "holds code of the release"),
        (STATIC, 'STATIC_ROOT = BASE_DIR / "shop"', "hand out the code of shop"),
        (STATIC, "STATIC_ROOT = BASE_DIR", "hand out MEDIA_ROOT"),
        (STATIC, 'STATIC_ROOT = BASE_DIR / "media"', "hand out MEDIA_ROOT"),
        (DATABASE, '"NAME": BASE_DIR / "shop" / "data.db"', f"{KEY}:exclude"),
        (MEDIA, 'MEDIA_ROOT = "/var/uploads"', "MEDIA_ROOT /var/uploads: /var (of root:root"),
    ],
)
def test_what_would_lose_or_publish_files_is_refused(host, changed, before, after, words):
    assert before in SETTINGS
    changed("site_/settings.py", SETTINGS.replace(before, after))
    if "data.db" in after:
        changed("shop/data.db", "not empty")
    assert words in refused(host)


def test_what_visitors_should_not_meet_is_told_in_every_run(host, changed):
    settings = SETTINGS.replace(DATABASE, '"NAME": ":memory:"') + "\nDEBUG = True\n"
    changed("site_/settings.py", settings)
    host.set_pillar(pillar(check={"data": False}))
    done = steps(host, *STEPS)["django_release.prepared"]
    assert done.result is True, done.comment
    for _ in range(2):
        for word in ("DEBUG is True", "in memory"):
            assert word in done.comment
        told = " ".join(host.salt_call("django_site.remarks", "mysite"))
        assert "DEBUG is True" in told and "in memory" in told
        done = steps(host, *STEPS)["django_release.prepared"]
        assert done.changes == {}


def test_a_callable_that_does_without_django_is_checked_all_the_same(host, changed):
    changed(
        "site_/wsgi.py",
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [b'plain']\n",
    )
    done = steps(host, *STEPS)["django_release.prepared"]
    assert done.result is True, done.comment


def test_what_a_management_command_writes_can_be_handed_out(host):
    deploy(host)
    code = f"open('{SITE}/shared/media/by-hand', 'w').close()"
    assert host.salt_call("django_command.manage", "mysite", f'shell -c "{code}"')["retcode"] == 0
    assert host.run(f"stat -c %a {SITE}/shared/media/by-hand").stdout == "644\n"


def test_a_tree_gets_no_static_files_among_its_code(host):
    tree = "/srv/copied"
    host.run(f"cp -r {SOURCE} {tree}; chown -R mysite: {tree}; echo key >{tree}/shop/secrets.json")
    host.write(
        f"{tree}/site_/settings.py", SETTINGS.replace(STATIC, 'STATIC_ROOT = BASE_DIR / "shop"')
    )
    host.set_pillar(pillar(source=False, path=tree))
    good(host, "present")
    good(host, "python_venv.built")
    said = state(host, "prepared")
    assert said["result"] is False and "hand out the code of shop" in said["comment"]
    places = host.salt_call("django_release.directories", "mysite")
    assert places["static"] != f"{tree}/shop"
    # Its uploads have a directory that the site can write.
    host.write(f"{tree}/site_/settings.py", SETTINGS)
    host.run(f"chown mysite: {tree}/site_/settings.py; chown root {tree}; chmod 775 {tree}")
    host.run(f"install -d -o deploy {tree}/media")
    said = state(host, "prepared")["comment"]
    assert f"{tree}/db.sqlite3 would be new and empty" in said
    host.run(f"install {said.partition('(install ')[2].partition(')')[0]}")
    said = state(host, "prepared")
    assert f"MEDIA_ROOT {tree}/media: {tree}/media (of deploy:root, mode 0755)" in said["comment"]
    assert f"{KEY}:user" in said["comment"]
    host.run(f"rmdir {tree}/media")
    good(host, "prepared")
    assert host.run(f"stat -c %U {tree}/media").stdout == "mysite\n"
