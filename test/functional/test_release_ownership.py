"""
What the formula did not make is never removed, on a real host: another deployment's releases, its
database and uploads. What it made goes whole where the pillar gives it up.
"""

import pytest

from .test_django_release import PROJECT, SITE, SOURCE, STATE_DIR, deploy, pillar, snapshot, state

SHOP = "/srv/shop"


@pytest.fixture(scope="module", autouse=True)
def _project(host):
    host.install("python3-venv")
    for name, text in PROJECT.items():
        host.write(f"{SOURCE}/{name}", text)
    host.salt_call("saltutil.sync_all", pillar=pillar())
    assert state(host, "system_account.present")["result"] is True


def valid(host):
    (done,) = host.salt_call("state.single", "site_pillar.valid", name="x").values()
    return done


def test_another_deployments_releases_are_refused_before_anything_changes(host):
    host.run(
        f"useradd --create-home deploy; cd /srv; mkdir -p shop/shared/media; "
        f"for each in 20240101120000 20241011123000; do mkdir -p shop/releases/$each; "
        f"echo data >shop/releases/$each/db.sqlite3; done; "
        f"ln -s {SHOP}/releases/20241011123000 shop/current; chown -R root: shop"
    )
    before = snapshot(host, SHOP)
    host.set_pillar(pillar(path=SHOP))
    refused = valid(host)
    assert refused["result"] is False
    assert "nginx_uwsgi_django:sites:mysite:project:path" in refused["comment"]
    for named in ("current", "releases/20240101120000", "shared/data", f"{SHOP}/current"):
        assert named in refused["comment"]
    assert snapshot(host, SHOP) == before
    # A directory that waits for the site's own data is none.
    host.run(f"rm -r {SHOP}/current {SHOP}/releases")
    assert valid(host)["result"] is True
    host.run(f"chown deploy {SHOP}/shared")
    refused = valid(host)
    assert refused["result"] is False and "shared (of deploy)" in refused["comment"]
    host.run(f"rm -r {SHOP}")


def test_only_releases_that_the_formula_made_are_pruned(host):
    host.set_pillar(pillar(keep=1))
    first = deploy(host)
    # Another's: two by their names, one of a form that the formula has, too.
    host.run(
        f"cd {SITE}/releases; mkdir 20240101120000 202401011200 backup .git; "
        "for each in 2* backup .git; do echo data >$each/db.sqlite3; done"
    )
    theirs = [f"{SITE}/releases/{each}" for each in ("20240101120000", "202401011200", "backup")]
    before = snapshot(host, *theirs, f"{SITE}/releases/.git")
    # An older formula noted no places; and what became of a record, the content tells.
    host.run(f"rm -f {STATE_DIR}/prepared/mysite/places.json")
    assert valid(host)["result"] is True
    assert state(host, "present")["changes"] == {}
    host.run(f"rm {STATE_DIR}/prepared/mysite/release-{first}.json")
    host.write(f"{STATE_DIR}/prepared/mysite/places.json", f'["{SITE}"]')
    host.write(f"{SOURCE}/shop/static/shop/a.css", "a { order: 1 }\n")
    for step in ("present", "python_venv.built", "prepared"):
        assert state(host, step)["result"] is True
    dry = state(host, "live", test=True)
    assert dry["changes"]["releases"] == {"old": [first], "new": None}
    second = deploy(host)
    assert sorted(host.run(f"ls -A {SITE}/releases").stdout.split()) == sorted(
        [second, ".git", "20240101120000", "202401011200", "backup"]
    )
    assert snapshot(host, *theirs, f"{SITE}/releases/.git") == before
    assert host.salt_call("django_release.stored", "mysite") == [second]


@pytest.mark.long
def test_what_failed_goes_before_the_next_release_is_copied(host):
    host.set_pillar(pillar(keep=1))
    live = deploy(host)
    venvs = f"{STATE_DIR}/venvs/mysite"
    kept, failed = host.run(f"ls {venvs}").stdout.split(), ""
    for number in (1, 2):
        host.write(f"{SOURCE}/requirements.txt", f"Django>=5.2,<5.3  # {number}\n")
        host.write(f"{SOURCE}/site_/urls.py", f"urlpatterns = {number}\n")
        dry = state(host, "present", test=True)
        if number == 2:
            assert dry["changes"]["releases"]["old"] == [failed]
            assert len(dry["changes"]["venvs"]["old"]) == 1
        for step in ("present", "python_venv.built"):
            done = state(host, step)
            assert done["result"] is True, done["comment"]
        assert state(host, "prepared")["result"] is False
        failed = host.salt_call("django_release.desired", "mysite")["id"]
        there = host.salt_call("django_release.stored", "mysite")
        assert sorted(there) == sorted([live, failed])
        assert len(host.run(f"ls {venvs}").stdout.split()) == len(kept) + 1
    for name in ("requirements.txt", "site_/urls.py"):
        host.write(f"{SOURCE}/{name}", PROJECT[name])
    assert deploy(host) == live
    assert host.run(f"ls {venvs}").stdout.split() == kept


@pytest.mark.long
def test_a_full_disk_is_told_with_what_takes_the_room(host):
    host.run("mkdir /srv/full; mount -t tmpfs -o size=24k,mode=755 tmpfs /srv/full")
    try:
        host.set_pillar(pillar(path="/srv/full"))
        full = state(host, "present")
        assert full["result"] is False
        assert "No space left" in full["comment"]
        for words in ("releases 0 MiB in /srv/full/releases", "environments ", "project:keep is 5"):
            assert words in full["comment"]
    finally:
        host.run("umount /srv/full; rmdir /srv/full")
    host.set_pillar(pillar())


def test_a_path_inside_the_releases_of_a_site_is_refused_and_what_lies_there_stays(host):
    before = snapshot(host, SITE)
    for inside in ("releases", "shared", "releases/other", "current"):
        host.set_pillar(pillar(path=f"{SITE}/{inside}"))
        refused = valid(host)
        assert refused["result"] is False
        assert f"deployed at '{SITE}'" in refused["comment"]
    assert snapshot(host, SITE) == before
    host.set_pillar(pillar())
    assert valid(host)["result"] is True


def test_an_absent_site_need_not_say_where_its_data_is(host):
    host.run(f"rm -r {SITE}/releases/[b2]* {SITE}/releases/.git; mkdir {SITE}/theirs")
    deploy(host)
    gone = {"sites": {"mysite": {"absent": True}}}
    host.set_pillar({"nginx_uwsgi_django": gone})
    kept = state(host, "absent")
    assert (kept["result"], kept["changes"]) == (True, {})
    for each in ("releases", "current", "shared"):
        assert f"{SITE}/{each}" in kept["comment"]
    host.set_pillar({"nginx_uwsgi_django": {**gone, "clean": {"data": True}}})
    dry = state(host, "absent", test=True)
    assert f"left to you: {SITE}" in dry["comment"]
    done = state(host, "absent")
    assert done["result"] is True, done["comment"]
    assert f"{SITE}/shared" in done["changes"]["removed"]["old"]
    assert f"left to you: {SITE}" in done["comment"]
    assert host.run(f"ls -A {SITE}").stdout == "theirs\n"
    again = state(host, "absent")
    assert (again["result"], again["changes"]) == (True, {})
    assert not host.exists(f"{STATE_DIR}/prepared/mysite")
