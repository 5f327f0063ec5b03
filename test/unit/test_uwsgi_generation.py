"""What a generation is made of, and what of it may be seen."""

import copy
import hashlib
import io
import os
import pathlib
import re
import shlex

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import (
    executables,
    systemd_units,
    uwsgi_files,
    uwsgi_protocol,
    uwsgi_status,
    uwsgi_unit,
    uwsgi_workers,
)

PILLAR = {
    "nginx_uwsgi_django": {
        "sites": {
            "mysite": {
                "server_names": ["www.example.org"],
                "project": {
                    "path": "/srv/mysite",
                    "wsgi": "mysite.wsgi:application",
                    "settings": "mysite.settings",
                    "env": {"SECRET": "hunter2"},
                },
                "uwsgi": {"limits": {"MemoryMax": "512M"}},
            }
        }
    }
}


@pytest.fixture
def made(modules, tmp_path):
    """The modules, with a project and a virtual environment that are there."""
    m = modules(pillar=PILLAR)
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    library = venv / "lib/python3.11/site-packages/pyuwsgi.cpython-311.so"
    library.parent.mkdir(parents=True)
    for path in (venv / "bin/pyuwsgi", venv / "bin/python", library):
        path.write_text("one")
    facts = {
        "release": {"id": "a" * 12, "path": "/srv/mysite", "source": "/srv/mysite"},
        "venv": {
            "digest": "b" * 12,
            "path": str(venv),
            "binary": str(venv / "bin/python"),
            "uwsgi": str(venv / "bin/pyuwsgi"),
        },
        "environment": {"SECRET": "hunter2", "DJANGO_SETTINGS_MODULE": "mysite.settings"},
    }
    m.salt["django_release.desired"] = lambda name, **more: facts["release"]
    m.salt["site_plan.environment"] = lambda name, release=None: facts["environment"]
    m.salt["django_release.directories"] = lambda name: {"shared": "/var/lib/50%off/mysite"}
    m.salt["python_venv.desired"] = lambda name, release=None: facts["venv"]
    m.facts, m.library = facts, library
    return m


def unit(made):
    return made.uwsgi_generation._wanted("mysite").unit


def test_the_same_things_make_the_same_generation(made, modules):
    first = made.uwsgi_generation.desired("mysite")
    made.context.clear()
    assert made.uwsgi_generation.desired("mysite") == first
    assert re.fullmatch(r"[0-9a-f]{12}", first["digest"])
    assert first["unit"] == f"uwsgi-mysite@{first['digest']}.service"


def change_release(m):
    m.facts["release"] = {**m.facts["release"], "id": "c" * 12}


def change_venv(m):
    m.facts["venv"] = {**m.facts["venv"], "digest": "c" * 12}


def change_environment(m):
    m.facts["environment"] = {**m.facts["environment"], "SECRET": "hunter3"}


def change_option(m):
    m.opts["pillar"]["nginx_uwsgi_django"]["sites"]["mysite"]["uwsgi"]["options"] = {"harakiri": 9}


def change_limit(m):
    m.opts["pillar"]["nginx_uwsgi_django"]["sites"]["mysite"]["uwsgi"]["limits"] = {"TasksMax": 9}


def change_library(m):
    m.library.write_text("two")


def change_interpreter(m):
    pathlib.Path(m.facts["venv"]["binary"]).write_text("two")


@pytest.mark.parametrize(
    "change",
    [
        change_release,
        change_venv,
        change_environment,
        change_option,
        change_limit,
        change_library,
        change_interpreter,
    ],
)
def test_anything_else_makes_another(made, modules, change):
    # The pillar of this module is everybody's.
    made.opts["pillar"] = copy.deepcopy(PILLAR)
    made.site_pillar.__pillar__ = made.opts["pillar"]
    made.context.clear()
    before = made.uwsgi_generation.desired("mysite")["digest"]
    change(made)
    made.context.pop("site_pillar", None)
    for key in list(made.context):
        if not key.startswith("uwsgi_generation"):
            del made.context[key]
    assert made.uwsgi_generation.desired("mysite")["digest"] != before


def test_a_file_touched_but_not_changed_makes_no_other(made):
    before = made.uwsgi_generation.desired("mysite")["digest"]
    made.library.write_text("one")
    assert made.uwsgi_generation.desired("mysite")["digest"] == before


def test_a_project_s_own_ini_is_not_read_through_a_link_out_of_the_project(modules, made, tmp_path):
    pillar = copy.deepcopy(PILLAR)
    pillar["nginx_uwsgi_django"]["sites"]["mysite"]["uwsgi"]["ini"] = "conf/own.ini"
    m = modules(pillar=pillar)
    m.salt.update(
        {key: made.salt[key] for key in made.salt if not key.startswith(("uwsgi_", "site_"))}
    )
    project = tmp_path / "project"
    project.mkdir()
    m.salt["django_release.desired"] = lambda name, **more: {
        "id": "a" * 12,
        "path": "/srv/mysite",
        "source": str(project),
    }
    m.salt["site_plan.own_ini"] = m.site_plan.own_ini
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own.ini").write_text("[uwsgi]\nsecret-of-root = true\n")
    (project / "conf").symlink_to(elsewhere)
    with pytest.raises(CommandExecutionError, match="sites:mysite:uwsgi:ini.*out of the project"):
        m.uwsgi_generation.desired("mysite")
    (project / "conf").unlink()
    (project / "conf").mkdir()
    (project / "conf/own.ini").write_text("[uwsgi]\nharakiri = 30\n")
    assert "harakiri = 30" in m.uwsgi_generation._wanted("mysite").ini


def test_a_secret_is_in_the_environment_file_alone(made):
    wanted = made.uwsgi_generation._wanted("mysite")
    assert 'SECRET="hunter2"\n' in wanted.environment
    assert "hunter2" not in wanted.ini + wanted.unit + str(wanted.parts)
    assert "hunter2" not in str(made.uwsgi_generation.desired("mysite"))


def test_the_unit_says_where_and_as_whom(made):
    text = unit(made)
    digest = made.uwsgi_generation.desired("mysite")["digest"]
    assert f"EnvironmentFile=/etc/uwsgi/mysite/{digest}.env\n" in text
    assert f"--ini /etc/uwsgi/mysite/{digest}.ini\n" in text
    assert "User=mysite\nGroup=mysite\n" in text
    assert "Sockets=uwsgi-mysite.socket\n" in text
    assert "MemoryMax=512M\n" in text
    # A percent sign of a path is doubled, wherever it is.
    writable = "-/srv/mysite -/var/lib/50%%off/mysite -/var/lib/nginx_uwsgi_django/sites/mysite"
    assert f"ReadWritePaths={writable}\n" in text
    assert "@DIGEST@" not in text


@pytest.mark.parametrize("program", ["/usr/bin/uwsgi", '/opt/50% "of" $x/b\\in/uwsgi'])
def test_what_a_kept_unit_starts_is_read_back(made, program):
    made.facts["venv"] = {**made.facts["venv"], "uwsgi": program}
    assert uwsgi_unit.program(unit(made)) == program


def test_homes_are_closed_unless_something_is_in_one(made):
    assert "ProtectHome=yes\n" in unit(made)
    made.facts["release"] = {**made.facts["release"], "path": "/home/dev/mysite"}
    assert "ProtectHome=read-only\n" in unit(made)


def test_a_log_file_is_opened_by_systemd_and_the_preflight_keeps_to_the_journal(made, modules):
    assert "StandardOutput" not in unit(made)
    pillar = copy.deepcopy(PILLAR)
    pillar["nginx_uwsgi_django"]["sites"]["mysite"]["uwsgi"]["log"] = {"to": "file"}
    m = modules(pillar=pillar)
    m.salt.update(
        {key: made.salt[key] for key in made.salt if key.startswith(("django_", "python_"))}
    )
    wanted = m.uwsgi_generation._wanted("mysite")
    output = "StandardOutput=append:/var/log/uwsgi/mysite/mysite.log\nStandardError=inherit\n"
    assert output in wanted.unit and "log-date = true\n" in wanted.ini
    twin = uwsgi_unit.twin_text("mysite", "d" * 12, wanted.unit, "/i", "/e", 7, [])
    assert "Standard" not in twin


def secluded(made):
    keys = ("TemporaryFileSystem", "BindPaths", "BindReadOnlyPaths", "InaccessiblePaths")
    pairs = [line.partition("=")[::2] for line in unit(made).splitlines()]
    return {key: value.split() for key, value in pairs if key in keys}


def test_where_sites_live_a_site_sees_its_own_alone(made):
    assert secluded(made) == {
        "TemporaryFileSystem": ["/srv:ro", "/var/lib/nginx_uwsgi_django/sites:ro"],
        # HOME is among them: libraries keep their caches there.
        "BindPaths": ["-/srv/mysite", "-/var/lib/nginx_uwsgi_django/sites/mysite"],
        "InaccessiblePaths": ["-/run/uwsgi"],
    }


ALLOWED = {
    "proc": ({"ProcSubset=pid"}, {"ProcSubset=all"}),
    "netlink": (
        {"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"},
        {"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"},
    ),
    "jit": ({"MemoryDenyWriteExecute=yes"}, set()),
    "resources": (
        {"SystemCallFilter=~@privileged @resources"},
        {"SystemCallFilter=~@privileged"},
    ),
    "devices": ({"PrivateDevices=yes", "DevicePolicy=closed"}, set()),
}


def with_sandbox(made, **sandbox):
    """The lines of the unit that a sandbox of the pillar's makes."""
    made.opts["pillar"] = copy.deepcopy(PILLAR)
    made.opts["pillar"]["nginx_uwsgi_django"]["sites"]["mysite"]["uwsgi"]["sandbox"] = sandbox
    made.site_pillar.__pillar__ = made.opts["pillar"]
    made.context.clear()
    wanted = made.uwsgi_generation._wanted("mysite")
    return set(wanted.unit.replace(wanted.digest, "DIGEST").splitlines())


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_by_name_is_all_that_the_sandbox_loses(made, name):
    closed, opened = ALLOWED[name]
    before, after = with_sandbox(made), with_sandbox(made, allow=[name])
    assert before - after == closed and after - before == opened


def test_more_directories_are_writable_and_in_sight(made):
    lines = with_sandbox(made, writable=["/mnt/efs/media", "/srv/uploads"])
    (writable,) = [line for line in lines if line.startswith("ReadWritePaths=")]
    assert writable.endswith(" -/mnt/efs/media -/srv/uploads")
    # Only what is where sites live has to be brought there.
    (bound,) = [line for line in lines if line.startswith("BindPaths=")]
    assert "-/srv/uploads" in bound and "/mnt" not in bound


def test_what_runs_the_site_stays_in_sight_where_sites_live(made, monkeypatch):
    links = {
        "/srv/venvs/mysite/bin/python": "../../../python/current/bin/python3",
        "/srv/python/current/bin/python3": "/srv/python/3.11/bin/python3.11",
    }
    islink, readlink, realpath = os.path.islink, os.readlink, os.path.realpath
    monkeypatch.setattr(os.path, "islink", lambda path: path in links or islink(path))
    monkeypatch.setattr(os, "readlink", lambda path: links.get(path) or readlink(path))
    real = {"/srv/venvs/mysite/bin/python": "/srv/python/3.11/bin/python3.11"}
    monkeypatch.setattr(os.path, "realpath", lambda path: real.get(path) or realpath(path))
    made.facts["venv"] = {
        "digest": "b" * 12,
        "path": "/srv/venvs/mysite",
        "binary": "/srv/venvs/mysite/bin/python",
        "uwsgi": "/srv/uwsgi",
    }
    assert secluded(made)["BindPaths"] == [
        "-/srv/mysite",
        "-/var/lib/nginx_uwsgi_django/sites/mysite",
    ]
    assert secluded(made)["BindReadOnlyPaths"] == [
        "-/srv/python/3.11",
        "-/srv/python/current",
        "-/srv/uwsgi",
        "-/srv/venvs/mysite",
    ]


def test_a_loop_of_links_is_left_to_the_one_who_starts_it(made, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.symlink_to(two)
    two.symlink_to(one)
    assert executables.installation(str(one))[:2] == [str(one), str(two)]


def test_the_twin_has_the_sandbox_and_nothing_of_the_site(made):
    whole = unit(made)
    twin = uwsgi_unit.twin_text("mysite", "d" * 12, whole, "/run/i", "/run/e", 7, [])
    kept = set(whole.splitlines()) - set(twin.splitlines())
    assert {line.partition("=")[0] for line in kept} == {
        "Description",
        "After",
        "PartOf",
        "Before",
        "StartLimitIntervalSec",
        "Sockets",
        "EnvironmentFile",
        "ExecStart",
        "KillSignal",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "Restart",
        "OOMPolicy",
        "RuntimeDirectory",
        "[Install]",
        "WantedBy",
    }
    assert "EnvironmentFile=/run/e\n" in twin and "TimeoutStartSec=7\n" in twin
    # To be killed in the end is no failure of it.
    assert "KillSignal=SIGKILL\nSuccessExitStatus=SIGKILL\n" in twin
    assert "SuccessExitStatus" not in whole
    assert twin.count("ExecStart=") == 1 and " --ini /run/i\n" in twin
    assert "uwsgi-mysite.socket" not in twin and "uwsgi-mysite.service" not in twin


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("plain", 'K="plain"\n'),
        ("", 'K=""\n'),
        ('a"b', 'K="a\\"b"\n'),
        ("a\\b", 'K="a\\\\b"\n'),
        ("$HOME `id` %d #x '", 'K="\\$HOME \\`id\\` %d #x \'"\n'),
        (" é漢 ", 'K=" é漢 "\n'),
    ],
)
def test_environment_values_are_quoted_for_systemd(value, line):
    text = uwsgi_unit.environment_file({"K": value})
    assert text == line
    # A shell reads a line in double quotes alike.
    assert shlex.split(text) == [f"K={value}"] or "`" in value


@pytest.mark.parametrize("value", ["a\nB=1", "a\rb", "a\0b"])
def test_values_on_two_lines_are_refused_and_not_told(value):
    with pytest.raises(SaltInvocationError) as error:
        uwsgi_unit.environment_file({"K": value})
    assert "B=1" not in str(error.value) and "K" in str(error.value)


@pytest.mark.parametrize("key", ["1A", "A B", "", "A=B", "A\n"])
def test_names_that_are_none_are_refused(key):
    with pytest.raises(SaltInvocationError):
        uwsgi_unit.environment_file({key: "x"})


@pytest.mark.parametrize("digest", ["../../etc/passwd", "ABCDEF012345", "abc", "0" * 12 + "\n"])
def test_only_a_digest_names_a_generation(digest):
    with pytest.raises(SaltInvocationError):
        uwsgi_files.Store({"uwsgi_dir": "/none", "unit_dir": "/none"}, "mysite").kept(digest)


def test_a_site_without_uwsgi_is_told_by_its_path(made):
    made.facts["venv"] = {**made.facts["venv"], "uwsgi": None}
    with pytest.raises(CommandExecutionError, match="sites:mysite:uwsgi"):
        made.uwsgi_generation.desired("mysite")


def test_a_program_that_is_not_there_yet_is_no_error_but_another_generation(made):
    before = made.uwsgi_generation.desired("mysite")["digest"]
    pathlib.Path(made.facts["venv"]["uwsgi"]).unlink()
    assert made.uwsgi_generation.desired("mysite")["digest"] != before


@pytest.mark.parametrize(
    ("call", "state"),
    [
        ("7 0x0 0x0 0x2710 0x0 0x0 0x0 0x7ffd 0x7f12", "paused"),
        ("232 0x9 0x7ffd 0x1 0xffffffffffffffff 0x0 0x0 0x7ffd 0x7f12", "waiting"),
        ("288 0x3 0x7ffd 0x7ffe 0x800 0x0 0x0 0x7ffd 0x7f12", "waiting"),
        ("23 0x0 0x0 0x0 0x0 0x7ffd 0x0 0x7ffd 0x7f12", "waiting"),
        ("running", "busy"),
    ],
)
def test_what_a_worker_does_is_told_by_its_system_call(monkeypatch, call, state):
    monkeypatch.setattr("builtins.open", lambda *a, **k: io.StringIO(call))
    assert uwsgi_workers.state(1) == state


def test_a_worker_that_is_gone():
    assert uwsgi_workers.state(2**22 + 1) == "gone"


@pytest.mark.parametrize("more", [{}, {"load_balancer": {"addresses": ["10.0.0.0/8"]}}])
def test_the_health_question_comes_as_visitors_do(modules, more, monkeypatch):
    """By HTTPS where they do: SECURE_SSL_REDIRECT would answer 301 to anything else."""
    pillar = copy.deepcopy(PILLAR)
    pillar["nginx_uwsgi_django"]["sites"]["mysite"].update(more)
    m, asked = modules(pillar=pillar), []

    def get(variables, **place):
        asked.append(variables)
        return {"status": 200, "headers": {}, "seconds": 0.1}

    monkeypatch.setattr(uwsgi_protocol, "get", get)
    m.uwsgi_health.ask("mysite")
    (variables,) = asked
    assert (variables or {}).get("HTTPS") == ("on" if more else None)


def test_what_somebody_edited_is_told_by_the_generation_itself(made, tmp_path):
    places = {"uwsgi_dir": f"{tmp_path}/uwsgi", "unit_dir": f"{tmp_path}/units"}
    store = uwsgi_files.Store(places, "mysite")
    wanted = made.uwsgi_generation._wanted("mysite")
    paths = store.paths(wanted.digest)
    for path, text, _, _ in store.files(wanted):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(text)
    told = store.made_of(wanted.digest)
    assert told["drift"] == {}
    assert told["release"] == wanted.parts["release"]["id"]
    for key in ("ini", "env", "unit"):
        text = pathlib.Path(paths[key]).read_text()
        pathlib.Path(paths[key]).write_text(text + "#")
        assert store.made_of(wanted.digest)["drift"] == {paths[key]: "was edited"}
        pathlib.Path(paths[key]).unlink()
        assert store.made_of(wanted.digest)["drift"] == {paths[key]: "is gone"}
        pathlib.Path(paths[key]).write_text(text)
    parts = pathlib.Path(paths["parts"])
    parts.write_text(parts.read_text().replace('"format": 1', '"format": 2'))
    told = store.made_of(wanted.digest)
    assert told == {"release": None, "venv": None, "drift": {paths["parts"]: "was edited"}}


def test_sites_finish_so_many_at_a_time_and_one_that_does_not_keeps_no_other(modules, monkeypatch):
    m = modules(pillar={"nginx_uwsgi_django": {"sites": {}}})
    names = [f"s{number:03}" for number in range(120)]
    glanced = {
        f"uwsgi-{name}{end}": {"ActiveState": state}
        for name in [*names, "other", "s000-x"]
        for end, state in [
            (".socket", "active"),
            ("@0123456789ab.service", "deactivating"),
            ("@ba9876543210.service", "failed"),
        ]
    }
    monkeypatch.setattr(uwsgi_status, "glance", lambda: glanced)
    stopped = []

    def stop(units, timeout):
        stopped.append(units)
        if len(stopped) == 1:
            raise CommandExecutionError("systemctl stop was not done within 75 s")

    monkeypatch.setattr(systemd_units, "stop", stop)
    with pytest.raises(CommandExecutionError, match="not done within 75 s"):
        m.uwsgi_generation.finish([*names, "gone"])
    assert [len(units) for units in stopped] == [100, 100, 40]
    assert {unit for units in stopped for unit in units} == {
        f"uwsgi-{name}{end}" for name in names for end in (".socket", "@0123456789ab.service")
    }
    m.uwsgi_generation.finish(["gone"])
    assert len(stopped) == 3


def test_an_upgrade_of_the_formula_changes_no_generation(made, tmp_path):
    """
    Whoever changes one of these changes the generation of every site: an upgrade of the formula then
    restarts them all. That is for the CHANGELOG to say.
    """
    wanted = made.uwsgi_generation._wanted("mysite")
    texts = {
        key: getattr(wanted, key).replace(str(tmp_path), "/golden").replace(wanted.digest, "DIGEST")
        for key in ("ini", "unit", "environment")
    }
    found = {
        key: hashlib.sha256(text.encode()).hexdigest()[:12]
        for key, text in {**texts, "parts": " ".join(wanted.parts)}.items()
    }
    assert found == {
        "ini": "56071e3ba7c4",
        "unit": "7ea9dca15755",
        "environment": "e6039579833c",
        "parts": "18514745b030",
    }
    parts = {"format": 1, "ini": "1" * 64, "release": {"id": "2" * 12, "path": "/srv/mysite"}}
    assert uwsgi_files.digest_of(parts) == "8dee12c07480"
