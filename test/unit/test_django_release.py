"""
What a release is made of, what is hidden in its messages, and where its directories lead.
"""

import grp
import os
import pathlib
import pwd
import shutil
import tempfile

import pytest
from salt.exceptions import CommandExecutionError

from _nud import contract_resolve, redaction, release_files

USER, GROUP = "games", "games"


@pytest.fixture
def folder():
    """A directory that other users can enter, unlike tmp_path, and where a project may be."""
    with tempfile.TemporaryDirectory(dir="/srv", prefix="unit-") as made:
        os.chmod(made, 0o755)
        yield pathlib.Path(made)


@pytest.fixture
def tree(folder):
    root = folder / "mysite"
    for name, text in {
        "manage.py": "#!/usr/bin/env python3\n",
        "mysite/settings.py": "DEBUG = False\n",
        "mysite/wsgi.py": "application = print\n",
        "requirements.txt": "Django\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "manage.py").chmod(0o755)
    (root / "link.py").symlink_to("manage.py")
    return root


@pytest.fixture
def loaded(modules, folder, tree):
    """The modules for a site whose project is that tree; keywords go to the pillar's project."""

    def load(**project):
        m = modules(
            pillar={
                "nginx_uwsgi_django": {
                    "lookup": {"state_dir": str(folder / "state")},
                    "sites": {
                        "mysite": {
                            "server_names": ["mysite.example"],
                            "project": {
                                "path": str(tree),
                                "wsgi": "mysite.wsgi:application",
                                "settings": "mysite.settings",
                                **project,
                            },
                        }
                    },
                }
            }
        )
        # The pillar refuses the accounts that every machine has, and no other is on this one.
        resolved = m.site_pillar.settings()
        resolved["sites"]["mysite"]["project"].update(user=USER, group=GROUP)
        m.salt["site_pillar.settings"] = lambda: resolved
        m.salt["site_pillar.site"] = lambda name: resolved["sites"][name]
        return m

    return load


def identity(loaded, **project):
    return loaded(**project).django_release.desired("mysite")["id"]


def test_the_same_files_are_the_same_release_wherever_and_whenever(loaded, tree, folder):
    before = identity(loaded)
    assert len(before) == 12 and int(before, 16) >= 0
    moved = folder / "elsewhere"
    shutil.copytree(tree, moved, symlinks=True)
    for path in moved.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    (moved / "empty").mkdir()
    assert identity(loaded, path=str(moved)) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "mysite/settings.py").write_text("DEBUG = True \n"),
        lambda tree: (tree / "mysite/wsgi.py").rename(tree / "mysite/asgi.py"),
        lambda tree: (tree / "mysite/wsgi.py").rename(tree / "mysite/wsgj.py"),
        lambda tree: (tree / "mysite/new.py").write_text(""),
        lambda tree: (tree / "requirements.txt").unlink(),
        lambda tree: (tree / "manage.py").chmod(0o644),
        lambda tree: ((tree / "link.py").unlink(), (tree / "link.py").symlink_to("other")),
        lambda tree: (
            (tree / "link.py").unlink(),
            shutil.copy(tree / "manage.py", tree / "link.py"),
        ),
        # A package may have the name of a directory of uploads.
        lambda tree: (
            (tree / "media").mkdir(),
            (tree / "media/__init__.py").write_text(""),
            (tree / "media/models.py").write_text(""),
        ),
        lambda tree: ((tree / "mysite/media").mkdir(), (tree / "mysite/media/x.py").write_text("")),
    ],
)
def test_another_file_is_another_release(loaded, tree, change):
    before = identity(loaded)
    change(tree)
    assert identity(loaded) != before


def test_a_change_is_seen_by_a_process_that_looked_before(loaded, tree):
    m = loaded()
    before = m.django_release.desired("mysite")["id"]
    settings = tree / "mysite/settings.py"
    status = settings.stat()
    settings.write_text("DEBUG = Fals_\n")
    # Neither its size nor the time that anybody can set tells.
    os.utime(settings, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert m.django_release.desired("mysite")["id"] != before


@pytest.mark.parametrize(
    "name",
    [
        ".git/HEAD",
        "mysite/__pycache__/settings.cpython-311.pyc",
        "mysite/old.pyc",
        "db.sqlite3",
        "db.sqlite3-wal",
        "logs/error.log",
        "media/2026/a.py",
        ".venv/bin/python",
        "venv/lib/a.py",
        "frontend/node_modules/a.js",
    ],
)
def test_what_tools_and_the_site_leave_in_a_tree_is_no_part_of_a_release(loaded, tree, name):
    before = identity(loaded)
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text("x")
    assert identity(loaded) == before


def test_a_virtual_environment_of_any_name_is_no_part_of_a_release(loaded, tree):
    before = identity(loaded)
    (tree / "env311/lib").mkdir(parents=True)
    (tree / "env311/lib/a.py").write_text("x")
    assert identity(loaded) != before
    (tree / "env311/pyvenv.cfg").write_text("home = /usr/bin\n")
    assert identity(loaded) == before


def test_the_pillar_leaves_out_more(loaded, tree):
    before = identity(loaded)
    for name in ("notes.txt", "var/cache/a", "docs/deep/b.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    assert identity(loaded) != before
    assert identity(loaded, exclude=["*.txt", "var/"]) == identity(loaded, exclude=["*.txt", "var"])
    (tree / "requirements.txt").unlink()
    excluding = identity(loaded, exclude=["*.txt", "var"])
    for name in ("notes.txt", "docs/deep/b.txt"):
        (tree / name).write_text("another")
    assert identity(loaded, exclude=["*.txt", "var"]) == excluding


def test_collected_files_are_no_part_of_a_release_once_the_settings_were_read(loaded, tree):
    m = loaded()
    before = m.django_release.desired("mysite")["id"]
    (tree / "public/static").mkdir(parents=True)
    (tree / "public/static/a.css").write_text("a {}")
    (tree / "shop.db").write_text("")
    assert m.django_release.desired("mysite")["id"] != before
    m.salt["release_record.write"](
        "mysite",
        "facts.json",
        {
            "static_root": str(tree / "public/static"),
            "media_root": "",
            "databases": [str(tree / "shop.db")],
            "collects": True,
        },
    )
    assert m.django_release.desired("mysite")["id"] == before


def test_a_trees_static_files_are_where_its_settings_say_but_only_inside_the_tree(loaded, tree):
    m = loaded(requirements=None)
    place = m.django_release.directories("mysite")["static"]
    before = m.site_plan.environment("mysite")
    for told, taken in (
        (str(tree / "public/static"), str(tree / "public/static")),
        ("/etc", place),
        (f"{tree}-more/static", place),
        (str(tree), place),
        (f"{tree}/../../etc", place),
        ("", place),
    ):
        facts = {"static_root": told, "media_root": "", "databases": [], "collects": True}
        m.salt["release_record.write"]("mysite", "facts.json", facts)
        assert m.django_release.directories("mysite")["static"] == taken, told
        # What the project itself is told is the same before it was asked and after.
        assert m.site_plan.environment("mysite") == before


def test_a_missing_project_is_a_sentence_that_names_the_pillar(loaded, folder):
    with pytest.raises(CommandExecutionError) as caught:
        identity(loaded, path=str(folder / "nowhere"))
    assert "nginx_uwsgi_django:sites:mysite:project:path" in str(caught.value)
    (folder / "empty").mkdir()
    with pytest.raises(CommandExecutionError, match="holds no file"):
        identity(loaded, path=str(folder / "empty"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("s3cret-key", "KeyError: s3cret-key"),
        ("postgres://u:p%40ssw0rd@db/x", 'password "p@ssw0rd" for u'),
        ("postgres://u:p%40ssw0rd@db/x", "postgres://u:p%40ssw0rd@db/x refused"),
        ("back\\slash-y", "repr is 'back\\\\slash-y'"),
    ],
)
def test_a_value_of_the_environment_is_hidden_in_what_a_step_says(value, text):
    hidden = redaction.redact({"VALUE": value}, text)
    assert "**********" in hidden
    for part in (value, "p@ssw0rd", "p%40ssw0rd", "slash-y"):
        assert part not in hidden


def test_paths_and_hosts_of_the_environment_are_shown_where_they_are_no_secret():
    env = {"PGHOST": "/var/run/postgresql", "DB_HOST": "db1.example.net", "KEY_FILE": "/etc/key"}
    text = " ".join(env.values())
    assert redaction.redact(env, text) == text
    for key, value in (("API_KEY", "/abc/def+g"), ("TOKEN_HOST", "a b@c"), ("PATH_", "/secret")):
        assert value not in redaction.redact({key: value}, value)


def test_words_that_hide_nothing_stay_readable():
    env = {"DEBUG": "False", "LANG_": "en", "N": "1", "EMPTY": ""}
    text = "False is 1 of the values en"
    assert redaction.redact(env, text) == text


def test_the_environment_tells_the_project_where_its_data_is(loaded, folder):
    m = loaded(env={"LANG": "ko_KR.UTF-8", "SECRET": "x"}, requirements=None)
    home = str(folder / "state/sites/mysite")
    environment = m.site_plan.environment("mysite")
    assert environment["DJANGO_DATA_DIR"] == f"{home}/data"
    assert environment["DJANGO_STATIC_ROOT"] == f"{home}/static"
    assert environment["DJANGO_SETTINGS_MODULE"] == "mysite.settings"
    assert environment["LANG"] == "ko_KR.UTF-8"
    assert environment["SECRET"] == "x"
    assert not {"PYTHONPATH", "LD_LIBRARY_PATH", "SUDO_USER"} & set(environment)
    copied = loaded(source={"salt": "salt://x"}, path="/srv/other")
    assert copied.django_release.directories("mysite")["static"] == "/srv/other/shared/static"


@pytest.mark.parametrize(
    ("names", "health", "told"),
    [
        (["www.example.org", "*.example.net"], {}, "www.example.org,.example.net"),
        (["*.example.net", ".example.org"], {}, ".example.net,.example.org"),
        (["*.example.net", "a.example.net"], {}, ".example.net"),
        (["a.example"], {"host": "b.example"}, "a.example,b.example"),
        (["a.example", "_"], {}, None),
        (["a.example", "mail.*"], {}, None),
    ],
)
def test_the_environment_tells_the_project_its_names(loaded, names, health, told):
    m = loaded(requirements=None)
    site = m.site_pillar.settings()["sites"]["mysite"]
    site["server_names"] = names
    site["health"]["host"] = health.get("host", contract_resolve._concrete(names[0]))
    assert m.site_plan.environment("mysite").get("DJANGO_ALLOWED_HOSTS") == told
    m = loaded(requirements=None, env={"DJANGO_ALLOWED_HOSTS": "*"})
    assert m.site_plan.environment("mysite")["DJANGO_ALLOWED_HOSTS"] == "*"


def test_a_directory_inside_somebody_elses_is_made_through_no_link(tree, folder):
    owner = (pwd.getpwnam(USER).pw_uid, grp.getgrnam(GROUP).gr_gid)
    (folder / "etc").mkdir()
    (tree / "public").symlink_to(folder / "etc")
    with pytest.raises(CommandExecutionError, match="public in it is none"):
        release_files.make_inside(str(tree), "public/static", 0o755, owner)
    assert list((folder / "etc").iterdir()) == []
    (tree / "public").unlink()
    release_files.make_inside(str(tree), "public/static", 0o755, owner)
    assert (tree / "public/static").owner() == USER
    assert (tree / "public/static").stat().st_mode & 0o777 == 0o755


def test_a_source_that_changes_while_it_is_copied_is_no_release(loaded, tree, folder, monkeypatch):
    place = folder / "srv"
    m = loaded(source={"salt": "salt://mysite"}, path=str(place))
    only = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    m.salt["release_source.obtain"] = lambda name, refresh=False: {
        "root": str(tree),
        "only": sorted(only),
        "source": "salt://mysite",
        "revision": None,
    }
    copy = release_files.copy_file
    done = []

    def copy_and_edit(source, target, gid):
        if not done:
            (tree / "mysite/wsgi.py").write_text("edited = True\n")
        done.append(source)
        copy(source, target, gid)

    monkeypatch.setattr(release_files, "copy_file", copy_and_edit)
    with pytest.raises(CommandExecutionError, match="changed while it was copied"):
        m.django_release.ensure("mysite")
    assert list((place / "releases").iterdir()) == []
    monkeypatch.setattr(release_files, "copy_file", copy)
    m.django_release.ensure("mysite")
    assert m.django_release.diff("mysite") == []
    (made,) = (place / "releases").iterdir()
    assert (made / "mysite/wsgi.py").read_text() == "edited = True\n"
    assert (made / "mysite/wsgi.py").stat().st_mode & 0o777 == 0o640
    assert (made / "manage.py").stat().st_mode & 0o777 == 0o750


def test_a_path_that_the_user_of_the_site_cannot_read_is_named(loaded, tree, folder):
    m = loaded()
    m.system_account.ensure("mysite")
    assert (
        release_files.unreadable(str(tree), m.django_release._source("mysite")[1], USER, GROUP)
        is None
    )
    for path, mode in (
        (tree / "mysite/settings.py", 0o600),
        (tree / "mysite", 0o700),
        (folder, 0o700),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(CommandExecutionError) as caught:
            m.django_release.diff("mysite")
        assert f"{USER} cannot read {path}," in str(caught.value)
        path.chmod(before)
    # What is no part of the release may be anybody's secret.
    (tree / ".git").mkdir(mode=0o700)
    m.django_release.diff("mysite")


def test_a_directory_that_a_process_runs_in_is_in_use(loaded, folder, monkeypatch):
    m = loaded()
    place = folder / "releases" / "0123456789ab"
    place.mkdir(parents=True)
    assert not m.django_release.in_use(str(place))
    before = os.getcwd()
    os.chdir(place)
    try:
        assert m.django_release.in_use(str(place))
        assert not m.django_release.in_use(str(place)[:-1])
    finally:
        os.chdir(before)


def test_a_generation_that_starts_after_a_reboot_keeps_what_it_names(loaded, folder):
    m = loaded()
    lookup = m.salt["site_pillar.settings"]()["lookup"]
    lookup.update(uwsgi_dir=str(folder / "uwsgi"), unit_dir=str(folder / "units"))
    wants = folder / "units/uwsgi-mysite.service.wants"
    for path in (folder / "uwsgi/mysite", wants):
        path.mkdir(parents=True)
    ini = "[uwsgi]\nchdir = /srv/x/releases/0123456789ab\n"
    (folder / "uwsgi/mysite/aaaaaaaaaaaa.ini").write_text(ini)
    # Files alone keep nothing: how many releases stay is the pillar's to say.
    assert not m.django_release.in_use("/srv/x/releases/0123456789ab")
    (wants / "uwsgi-mysite@aaaaaaaaaaaa.service").symlink_to("/nowhere")
    assert m.django_release.in_use("/srv/x/releases/0123456789ab")
    assert not m.django_release.in_use("/srv/x/releases/0123456789a")
    assert not m.django_release.in_use("/srv/x/releases/ffffffffffff")


FACTS = {
    "collects": True,
    "static_root": "/x",
    "media_root": "",
    "databases": [],
    "holds": [],
    "allowed_hosts": ["a"],
    "refused_hosts": [],
}


def test_the_names_that_a_project_has_to_answer_to_are_those_of_the_pillar(loaded):
    m = loaded()
    site = m.salt["site_pillar.site"]("mysite")
    key = "nginx_uwsgi_django:sites:mysite"
    site["server_names"] = ["_", "*.a.example", "WWW.b.example", ".c.example", "d.*"]
    site["health"]["host"] = "health.a.example"
    assert m.django_preparation._hosts(site) == {
        "www.b.example": f"{key}:server_names:2",
        "c.example": f"{key}:server_names:3",
        "health.a.example": f"{key}:health:host",
    }
    # Where DisallowedHost is the answer that is waited for.
    site["health"]["status"] = [400]
    assert "health.a.example" not in m.django_preparation._hosts(site)
    site["project"]["check"]["hosts"] = False
    assert m.django_preparation._hosts(site) == {}


def test_settings_that_cannot_serve_the_site_are_told_all_at_once(loaded):
    m = loaded(env={"HOSTS": "hidden-host"}, requirements=None)
    plan = m.site_plan.of("mysite")
    m.django_preparation._check_settings(plan, FACTS)
    wrong = {
        "refused_hosts": ["mysite.example"],
        "allowed_hosts": ["hidden-host"],
        "static_root": "",
    }
    with pytest.raises(CommandExecutionError) as caught:
        m.django_preparation._check_settings(plan, {**FACTS, **wrong})
    hosts, static = str(caught.value).splitlines()
    assert "refuses mysite.example (nginx_uwsgi_django:sites:mysite:server_names:0)" in hosts
    assert "hidden-host" not in hosts
    assert "STATIC_ROOT in the settings mysite.settings is not set" in static
    # Nothing to collect: no STATIC_ROOT is needed.
    m.django_preparation._check_settings(plan, {**FACTS, "static_root": "", "collects": False})


def test_what_is_checked_is_part_of_what_a_site_was_prepared_for(loaded):
    before = loaded(requirements=None).django_preparation.marker("mysite")
    after = loaded(requirements=None, check={"deploy": "WARNING"}).django_preparation.marker(
        "mysite"
    )
    assert before != after


def test_only_the_named_host_migrates_and_another_knows_which(loaded):
    for told, migrates in (
        (True, (True, None)),
        (False, (False, None)),
        ({"host": "unit"}, (True, None)),
        ({"host": "web1"}, (False, "web1")),
    ):
        assert loaded(migrate=told).django_preparation._migrates("mysite") == migrates


@pytest.mark.parametrize("command", ["", "  ", "shell -c 'x"])
def test_a_management_command_that_is_none_is_refused(loaded, command):
    with pytest.raises(CommandExecutionError, match="command"):
        loaded().django_command.manage("mysite", command)
