"""
What a virtual environment's name is made of, when it counts, and how it is handed to root.
"""

import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest
from salt.exceptions import CommandExecutionError


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/srv", prefix="unit-") as made:
        os.chmod(made, 0o755)
        yield pathlib.Path(made)


@pytest.fixture
def tree(folder):
    root = folder / "mysite"
    (root / "requirements").mkdir(parents=True)
    (root / "manage.py").write_text("")
    (root / "requirements.txt").write_text("-r requirements/base.txt\nDjango>=5.2\n")
    (root / "requirements/base.txt").write_text("-c pins.txt\nrequests\n")
    (root / "requirements/pins.txt").write_text("requests==2.32.0\n")
    return root


@pytest.fixture
def loaded(modules, folder, tree):
    def load(uwsgi=None, **project):
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
                            "uwsgi": uwsgi or {},
                        }
                    },
                }
            }
        )
        # The pillar refuses the accounts that every machine has, and no other is on this one.
        resolved = m.site_pillar.settings()
        resolved["sites"]["mysite"]["project"].update(user="games", group="games")
        m.salt["site_pillar.settings"] = lambda: resolved
        m.salt["site_pillar.site"] = lambda name: resolved["sites"][name]
        return m.python_venv

    return load


@pytest.fixture
def interpreter(folder):
    """Something that looks like a Python 3.11 of a distribution and fails when it is started."""
    path = folder / "python3.11"
    path.write_text("#!/bin/sh\nexit 99\n")
    path.chmod(0o755)
    link = folder / "python3"
    link.symlink_to(path)
    return link


def test_its_name_tells_all_that_it_is_made_of(loaded, tree, folder, interpreter):
    def digest(**more):
        return loaded(**{"python": str(interpreter), **more}).desired("mysite")["digest"]

    seen = [digest()]
    assert len(seen[0]) == 12 and int(seen[0], 16) >= 0
    (tree / "manage.py").write_text("another")
    assert digest() == seen[0]
    for name in ("requirements.txt", "requirements/base.txt", "requirements/pins.txt"):
        with (tree / name).open("a") as stream:
            stream.write("# more\n")
        seen.append(digest())
    seen.append(digest(requirements=None))
    seen.append(digest(requirements="requirements/base.txt"))
    seen.append(digest(uwsgi={"package": "uwsgi==2.0.31"}))
    seen.append(digest(uwsgi={"package": "distro"}))
    other = folder / "python3.12"
    other.write_text("#!/bin/sh\nexit 99\n")
    other.chmod(0o755)
    interpreter.unlink()
    interpreter.symlink_to(other)
    seen.append(digest())
    assert len(set(seen)) == len(seen)


def test_an_interpreter_whose_name_does_not_tell_is_asked(loaded, folder):
    script = folder / "python"
    script.write_text("#!/bin/sh\necho 3.12.1\n")
    script.chmod(0o755)
    first = loaded(python=str(script)).desired("mysite")["digest"]
    script.write_text("#!/bin/sh\necho 3.12.2\n")
    assert loaded(python=str(script)).desired("mysite")["digest"] != first
    script.write_text("#!/bin/sh\necho 2.7.18\n")
    with pytest.raises(CommandExecutionError, match="is no Python 3"):
        loaded(python=str(script)).desired("mysite")
    with pytest.raises(CommandExecutionError, match="sites:mysite:project:python"):
        loaded(python=str(folder / "nowhere")).desired("mysite")


def test_a_shim_of_pyenvs_is_no_interpreter(loaded, folder, interpreter):
    shim, real = folder / "shims/python3.11", folder / "versions/3.11.2/bin/python3.11"
    for path in (shim, real):
        path.parent.mkdir(parents=True)
        shutil.copy(interpreter, path)
    interpreter.unlink()
    interpreter.symlink_to(shim)
    with pytest.raises(CommandExecutionError) as refused:
        loaded(python=str(interpreter)).desired("mysite")
    assert f"{interpreter} (nginx_uwsgi_django:sites:mysite:project:python) is a shim" in str(
        refused.value
    )
    assert f"Name the interpreter itself, one of {real}" in str(refused.value)
    assert loaded(python=str(real)).desired("mysite")["digest"]


def test_a_package_inside_the_project_ties_it_to_the_release(loaded, tree, interpreter):
    for line in ("-e .", ".", "./vendor/a.tar.gz", "file:///srv/a", "a @ file:///srv/a", ".[x]"):
        (tree / "requirements.txt").write_text(f"{line}\n")
        before = loaded(python=str(interpreter)).desired("mysite")["digest"]
        (tree / "manage.py").write_text(f"edited for {line}")
        assert loaded(python=str(interpreter)).desired("mysite")["digest"] != before, line
    (tree / "requirements.txt").write_text("django-environ\n-r requirements/base.txt\n")
    before = loaded(python=str(interpreter)).desired("mysite")["digest"]
    (tree / "manage.py").write_text("edited once more")
    assert loaded(python=str(interpreter)).desired("mysite")["digest"] == before


def test_nothing_is_started_to_find_out_that_nothing_is_to_be_done(
    loaded, folder, interpreter, monkeypatch
):
    venv = loaded(python=str(interpreter))
    path = pathlib.Path(venv.desired("mysite")["path"])
    path.mkdir(parents=True)
    for each in (path, path.parent):
        shutil.chown(each, 0, "games")
    (path / ".complete").write_text(json.dumps({"digest": path.name}))

    def started(*_args, **_more):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    assert venv.diff("mysite") is None
    assert venv.ensure("mysite") is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-r nowhere.txt\n", "no requirements file nowhere.txt"),
        ("--requirement=requirements/nowhere.txt", "included by requirements.txt"),
        ("-c ../../etc/passwd", "outside the project"),
        ("-r /etc/passwd", "outside the project"),
    ],
)
def test_an_include_that_cannot_be_followed_is_named(loaded, tree, interpreter, text, words):
    (tree / "requirements.txt").write_text(text)
    with pytest.raises(CommandExecutionError) as caught:
        loaded(python=str(interpreter)).desired("mysite")
    assert words in str(caught.value)


def test_a_missing_requirements_file_names_the_pillar(loaded, tree, interpreter):
    (tree / "requirements.txt").unlink()
    with pytest.raises(CommandExecutionError) as caught:
        loaded(python=str(interpreter)).desired("mysite")
    assert "nginx_uwsgi_django:sites:mysite:project:requirements" in str(caught.value)


def test_files_that_include_each_other_come_to_an_end(loaded, tree, interpreter):
    (tree / "requirements/base.txt").write_text("-r ../requirements.txt\nrequests\n")
    (tree / "requirements.txt").write_text("-r requirements/base.txt\n-r https://a.example/b.txt\n")
    assert loaded(python=str(interpreter)).desired("mysite")["digest"]


@pytest.mark.parametrize(
    ("uwsgi", "path"),
    [
        ({}, "{venv}/bin/pyuwsgi"),
        ({"package": "PyUWSGI>=2.0.28"}, "{venv}/bin/pyuwsgi"),
        ({"package": "uwsgi==2.0.31"}, "{venv}/bin/uwsgi"),
        ({"package": "distro"}, "/usr/bin/uwsgi"),
        ({"package": None, "binary": "/opt/uwsgi"}, "/opt/uwsgi"),
    ],
)
def test_where_the_uwsgi_executable_is(loaded, interpreter, uwsgi, path):
    wanted = loaded(python=str(interpreter), uwsgi=uwsgi).desired("mysite")
    assert wanted["uwsgi"] == path.format(venv=wanted["path"])


def test_it_counts_only_when_root_said_so_for_this_directory(loaded, folder, interpreter):
    venv = loaded(python=str(interpreter))
    path = pathlib.Path(venv.desired("mysite")["path"])
    assert "to be built" in venv.diff("mysite")
    path.mkdir(parents=True)
    marker = path / ".complete"
    assert "half built" in venv.diff("mysite")
    for text in ("", "{}", "[]", json.dumps({"digest": "0" * 12})):
        marker.write_text(text)
        assert "half built" in venv.diff("mysite"), text
    marker.write_text(json.dumps({"digest": path.name}))
    assert "the group's that the site has now" in venv.diff("mysite")
    for each in (path, path.parent):
        shutil.chown(each, 0, "games")
    assert venv.diff("mysite") is None
    for target in (marker, path):
        shutil.chown(target, "games")
        assert "half built" in venv.diff("mysite")
        shutil.chown(target, 0)
    marker.rename(folder / "away")
    marker.symlink_to(folder / "away")
    assert "half built" in venv.diff("mysite")


def hand_over(venv, path):
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        venv._hand_over(handle, 65534, str(path))
    finally:
        os.close(handle)


def test_handed_to_root_it_is_nobody_elses_to_write_and_no_link_is_followed(loaded, folder):
    path = folder / "venv"
    (path / "bin").mkdir(parents=True)
    victim = folder / "victim"
    victim.write_text("secret")
    victim.chmod(0o600)
    (path / "bin/tool").write_text("x")
    (path / "bin/tool").chmod(0o6777)
    (path / "data").write_text("x")
    (path / "data").chmod(0o666)
    (path / "to-victim").symlink_to(victim)
    (path / "to-folder").symlink_to(folder)
    for each in (path, path / "bin", path / "bin/tool", path / "data"):
        os.chown(each, 65534, 65534)
    before = folder.stat()
    hand_over(loaded(), path)
    assert {
        (name, (path / name).stat().st_uid, oct((path / name).stat().st_mode & 0o7777))
        for name in ("", "bin", "bin/tool", "data")
    } == {
        ("", 0, "0o750"),
        ("bin", 0, "0o750"),
        ("bin/tool", 0, "0o750"),
        ("data", 0, "0o640"),
    }
    assert (victim.stat().st_gid, victim.stat().st_mode & 0o777) == (0, 0o600)
    assert (folder.stat().st_gid, folder.stat().st_mode) == (before.st_gid, before.st_mode)


def test_another_name_of_a_file_outside_is_not_handed_over(loaded, folder):
    path = folder / "venv"
    path.mkdir()
    victim = folder / "shadow"
    victim.write_text("secret")
    victim.chmod(0o600)
    os.link(victim, path / "innocent")
    with pytest.raises(CommandExecutionError, match="innocent has a second name"):
        hand_over(loaded(), path)
    assert (victim.stat().st_gid, victim.stat().st_mode & 0o777) == (0, 0o600)
    (path / "innocent").unlink()
    os.mkfifo(path / "pipe")
    with pytest.raises(CommandExecutionError, match="neither a file nor a directory"):
        hand_over(loaded(), path)


def test_one_kept_by_hand_is_known_by_its_configuration_and_its_packages(loaded, folder):
    path = folder / "byhand"
    packages = path / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (path / "bin").mkdir()
    with pytest.raises(CommandExecutionError, match="it has no pyvenv.cfg"):
        loaded(venv=str(path)).desired("mysite")
    (path / "pyvenv.cfg").write_text("version = 3.11.2\n")
    (path / "bin/python").write_text("#!/bin/sh\n")
    (path / "bin/python").chmod(0o755)
    first = loaded(venv=str(path)).desired("mysite")
    assert (first["path"], first["by_hand"]) == (str(path), True)
    (packages / "django-5.2.dist-info").mkdir()
    second = loaded(venv=str(path)).desired("mysite")
    assert second["digest"] != first["digest"]
    # Installed once more, the same version.
    os.utime(packages, (1, 1))
    third = loaded(venv=str(path)).desired("mysite")
    assert third["digest"] != second["digest"]
    (path / "pyvenv.cfg").write_text("version = 3.11.3\n")
    assert loaded(venv=str(path)).desired("mysite")["digest"] != third["digest"]


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.seen = []

    def emit(self, record):
        self.seen.append((record.levelname, record.getMessage()))


def test_a_step_that_takes_long_tells_so_where_warnings_are_read(loaded, monkeypatch):
    venv = loaded(
        indexes=[{"url": "https://a.example/", "user": "ann", "password": "hunter2-secret"}]
    )
    monkeypatch.setattr(venv, "_PATIENCE", 1)
    # One of its own: Salt keeps what warnings are logged before its logging is set up.
    heard, logger = Lines(), logging.Logger("heard", "INFO")
    logger.addHandler(heard)
    monkeypatch.setattr(venv, "log", logger)
    argv = ["/bin/sh", "-c", "echo one hunter2-secret; sleep 2.5; echo two; exit 3"]
    with pytest.raises(CommandExecutionError, match="working ended with 3:\none [*]+\ntwo"):
        venv._step("mysite", argv, "/", "/tmp", 60, "working")
    assert ("INFO", "mysite: one **********") in heard.seen
    assert ("INFO", "mysite: two") in heard.seen
    told = [words for level, words in heard.seen if level == "WARNING"]
    assert re.fullmatch(r"mysite: working for \d seconds so far: one [*]+", told[0])
    assert "hunter2" not in str(heard.seen)


def test_another_lock_is_another_environment(loaded, tree, interpreter):
    (tree / "uv.lock").write_text('[[package]]\nname = "x"\nsource = { virtual = "." }\n')
    (tree / "pyproject.toml").write_text("[project]\n")
    seen = set()

    def digest(**more):
        found = loaded(python=str(interpreter), **more).desired("mysite")["digest"]
        seen.add(found)
        return found

    first = digest(requirements="uv.lock")
    digest(requirements="pyproject.toml")
    digest(requirements="uv.lock", extras=["a"])
    digest(requirements="uv.lock", groups=["a"])
    assert len(seen) == 4
    # Where it comes from is no part of what it is.
    assert digest(requirements="uv.lock", indexes=[{"url": "https://a.example/"}]) == first
    (tree / "manage.py").write_text("edited")
    assert digest(requirements="uv.lock") == first
    for name, text in (
        ("uv.lock", 'source = { editable = "." }\n'),
        ("pyproject.toml", "[build-system]\n"),
    ):
        (tree / name).write_text(text)
        before = digest(requirements=name)
        (tree / "manage.py").write_text(f"edited for {name}")
        assert digest(requirements=name) != before
    (tree / "pyproject.toml").unlink()
    with pytest.raises(CommandExecutionError, match=r"pyproject.toml .* included by uv.lock"):
        digest(requirements="uv.lock")


@pytest.mark.parametrize(
    ("encoding", "head"),
    [("utf-16", ""), ("utf-8-sig", ""), ("latin-1", "# -*- coding: latin-1 -*-\n")],
)
def test_requirements_are_read_as_pip_reads_them(loaded, tree, encoding, head):
    """`pip freeze >` of PowerShell writes UTF-16, with its line ends."""
    text = f"{head}# für Besucher\r\n-r requirements/base.txt\r\n"
    (tree / "requirements.txt").write_bytes(text.encode(encoding))
    read = loaded()._lock("mysite", str(tree)).texts
    assert read["requirements.txt"] == text.replace("\r\n", "\n")
    assert set(read) == {"requirements.txt", "requirements/base.txt", "requirements/pins.txt"}
