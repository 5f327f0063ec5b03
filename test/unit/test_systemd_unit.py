"""Units: what is made of systemctl's words, and how values are spelled in unit files."""

import os
import subprocess

import pytest
from salt.exceptions import CommandExecutionError

from _modules import systemd_unit
from _nud import systemd, systemd_units


@pytest.fixture
def systemctl(monkeypatch):
    """Answers of systemctl by verb, in its place; what it was asked is kept."""
    asked = []
    answers = {}

    def run(argv, timeout):
        asked.append(argv)
        answer = answers.get(argv[1], "")
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, tuple):
            return subprocess.CompletedProcess(argv, answer[0], "", answer[1])
        return subprocess.CompletedProcess(argv, 0, answer, "")

    monkeypatch.setattr(systemd, "run", run)
    monkeypatch.setattr(systemd_units, "run", run)
    answers["asked"] = asked
    return answers


SHOWN = """\
Id=b.service
Names=b.service alias.service
ActiveState=active
ExecStart={ path=/bin/true ; argv[]=/bin/true A=1 }
ExecStart={ path=/bin/false ; argv[]=/bin/false }
StatusText=

Id=a.service
Names=a.service
ActiveState=inactive
StatusText=two words = here
"""


def test_every_unit_has_its_own_properties_whatever_the_order(systemctl):
    systemctl["show"] = SHOWN
    found = systemd_unit.show(["a.service", "alias.service"], ["ActiveState", "StatusText"])
    assert found == {
        "a.service": {"ActiveState": "inactive", "StatusText": "two words = here"},
        "alias.service": {"ActiveState": "active", "StatusText": ""},
    }
    assert len(systemctl["asked"]) == 1


def test_a_property_of_several_lines_keeps_them(systemctl):
    systemctl["show"] = SHOWN
    found = systemd_unit.show("b.service", ["ExecStart"])
    assert found["b.service"]["ExecStart"].count("\n") == 1


def test_what_a_pattern_finds_has_its_own_name(systemctl):
    systemctl["show"] = SHOWN
    assert set(systemd_unit.show("*.service", ["Id"])) == {"a.service", "b.service"}


def test_a_failure_carries_systemctls_own_words(systemctl):
    systemctl["start"] = (1, "Job for a.service failed.\n")
    with pytest.raises(CommandExecutionError, match="Job for a.service failed"):
        systemd_unit.start("a.service")


def test_a_time_limit_is_told(systemctl):
    systemctl["stop"] = subprocess.TimeoutExpired("systemctl", 3)
    with pytest.raises(CommandExecutionError, match="not done within 3 s"):
        systemd_unit.stop("a.service", timeout=3)


def test_no_unit_is_an_error_and_not_all_units(systemctl):
    with pytest.raises(CommandExecutionError):
        systemd_unit.stop([])
    assert systemctl["asked"] == []


def test_only_failed_units_are_forgotten(systemctl):
    systemctl["show"] = SHOWN.replace("inactive", "failed")
    assert systemd_unit.reset_failed(["a.service", "b.service"]) is True
    assert systemctl["asked"][-1] == ["systemctl", "reset-failed", "--", "a.service"]
    systemctl["show"] = SHOWN
    assert systemd_unit.reset_failed(["a.service", "b.service"]) is False


def loaded(monkeypatch, tmp_path, at: int) -> None:
    """Let systemd have read its files at a time, in nanoseconds."""
    mark = tmp_path.with_name("loaded")
    mark.touch()
    os.utime(mark, ns=(at, at))
    monkeypatch.setattr(systemd_units, "_LOADED", str(mark))


def test_systemd_is_reloaded_only_when_a_file_is_newer(systemctl, monkeypatch, tmp_path):
    monkeypatch.setattr(systemd_units, "_UNIT_DIRECTORIES", (str(tmp_path), str(tmp_path / "none")))
    (tmp_path / "a.service.d").mkdir()
    drop_in = tmp_path / "a.service.d" / "x.conf"
    drop_in.write_text("[Unit]\n")
    changed = drop_in.stat().st_ctime_ns
    loaded(monkeypatch, tmp_path, changed + 10_000_000)
    assert systemd_unit.daemon_reload() is False
    assert systemd_unit.daemon_reload(force=True) is True
    loaded(monkeypatch, tmp_path, changed - 10_000)
    assert systemd_unit.needs_reload("uwsgi-") is False
    assert systemd_unit.needs_reload("a") is True
    assert systemd_unit.daemon_reload() is True
    assert systemctl["asked"][-1] == ["systemctl", "daemon-reload"]


def test_a_reload_that_may_come_later_comes_once_at_the_end(systemctl, monkeypatch, tmp_path):
    monkeypatch.setattr(systemd_units, "_UNIT_DIRECTORIES", (str(tmp_path),))
    (tmp_path / "a.service").write_text("")
    loaded(monkeypatch, tmp_path, 0)
    reload = ["systemctl", "daemon-reload"]
    with systemd_unit.reload_later():
        assert systemd_unit.daemon_reload(later=True) is False
        assert systemd_unit.daemon_reload(force=True, later=True) is False
        assert reload not in systemctl["asked"]
        assert systemd_unit.daemon_reload() is True
    assert systemctl["asked"].count(reload) == 2
    assert systemd_unit.daemon_reload(later=True) is True
    with systemd_unit.reload_later():
        loaded(monkeypatch, tmp_path, 2**62)
        assert systemd_unit.daemon_reload(later=True) is False
    assert systemctl["asked"].count(reload) == 3


def test_no_trace_of_the_last_reload_is_a_need_for_one(monkeypatch, tmp_path):
    monkeypatch.setattr(systemd_units, "_LOADED", str(tmp_path / "none"))
    assert systemd_unit.needs_reload() is True


def test_a_removed_unit_file_counts_as_newer(systemctl, monkeypatch, tmp_path):
    monkeypatch.setattr(systemd_units, "_UNIT_DIRECTORIES", (str(tmp_path),))
    unit = tmp_path / "a.service"
    unit.write_text("")
    loaded(monkeypatch, tmp_path, tmp_path.stat().st_ctime_ns + 1000)
    assert systemd_unit.needs_reload() is False
    import time

    time.sleep(0.05)
    unit.unlink()
    assert systemd_unit.needs_reload() is True


@pytest.mark.parametrize(
    ("value", "how", "spelled"),
    [
        ("/srv/50%off", {}, "/srv/50%%off"),
        ("/srv/a b", {}, "/srv/a b"),
        ("/srv/a b", {"words": True}, '"/srv/a b"'),
        ("/srv/a", {"words": True}, "/srv/a"),
        ('a"b\\', {"words": True}, '"a\\"b\\\\"'),
        ("/srv/$x", {"words": True}, "/srv/$x"),
        ("/srv/$x", {"command": True}, "/srv/$$x"),
    ],
)
def test_values_are_spelled_for_the_unit_file(value, how, spelled):
    assert systemd.escape(value, **how) == spelled


@pytest.mark.parametrize("value", ["a\nExecStart=/bin/evil", "a\0", "a\t"])
def test_a_value_never_begins_a_new_line(value):
    with pytest.raises(CommandExecutionError):
        systemd.escape(value)


def test_times_of_day_are_compared_with_those_of_files():
    told = "Sun 2026-11-22 20:10:00.123456 UTC"
    assert systemd.seconds(told) == 1795378200.123456
    assert systemd.seconds("") is None


def test_what_is_disabled_is_told_systemd_at_the_end_too(systemctl, monkeypatch, tmp_path):
    reload = ["systemctl", "daemon-reload"]
    loaded(monkeypatch, tmp_path, 2**62)
    with systemd_unit.reload_later():
        systemd_unit.disable("a.service", later=True)
        systemd_unit.disable("b.service")
        assert [words[2:4] for words in systemctl["asked"]] == [
            ["--quiet", "--no-reload"],
            ["--quiet", "--"],
        ]
        assert reload not in systemctl["asked"]
    assert systemctl["asked"][-1] == reload
    systemd_unit.disable("a.service", later=True)
    assert "--no-reload" not in systemctl["asked"][-1]
