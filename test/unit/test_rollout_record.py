"""Records and the lock of rollouts: files of a real process."""

import os
import subprocess
import sys
from typing import Any

import pytest
from salt.exceptions import SaltInvocationError

from _runners import rollout_record

HOLD = """
import json, sys, time
from _runners import rollout_record
rollout_record.__opts__ = {"rollout_dir": sys.argv[1], "cachedir": "/nonexistent"}
with rollout_record.alone({"id": "20261125-103000-4f2a", "user": "ann", "since": "then", "pid": 7,
                           "what": "all"}):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def record(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    opts = {"rollout_dir": os.fspath(tmp_path / "r"), "cachedir": "/nonexistent"}
    monkeypatch.setattr(rollout_record, "__opts__", opts, raising=False)
    return {"id": "20261125-103000-4f2a", "status": "running"}


def test_the_second_is_told_who_and_a_killed_holder_leaves_no_lock(record, monkeypatch):
    rollout_record.write(record)
    folder = rollout_record.folder()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert rollout_record.read()["status"] == "running"
        with pytest.raises(SaltInvocationError, match="by ann since then, process 7"):
            with rollout_record.alone({}):
                pass
        other.kill()
    assert rollout_record.held_by() is None
    assert rollout_record.read()["status"] == "interrupted"
    with rollout_record.alone({"id": record["id"]}):
        assert rollout_record.held_by() == {"id": record["id"]}


def test_only_whole_records_of_root_alone_are_left(record):
    for status in ("failed", "done"):
        rollout_record.write({**record, "status": status})
    folder = rollout_record.folder()
    assert os.listdir(folder) == [f"{record['id']}.json"]
    assert os.stat(f"{folder}/{record['id']}.json").st_mode & 0o777 == 0o600
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert rollout_record.read()["status"] == "done"


@pytest.mark.parametrize("name", ["../../etc/passwd", "x", ""])
def test_a_name_is_no_path(record, name):
    with pytest.raises(SaltInvocationError, match="not the ID"):
        rollout_record.read(name)


def test_no_rollout_is_said_so(record):
    with pytest.raises(SaltInvocationError, match="no rollout yet"):
        rollout_record.read()


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path):
    path = tmp_path / "page.html"
    rollout_record.put(f"{path}", "one")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    before = path.stat().st_ino
    rollout_record.put(f"{path}", "two \ud800")
    assert path.read_text() == "two ?"
    assert path.stat().st_mode & 0o777 == 0o644 and path.stat().st_ino != before
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(OSError):
        rollout_record.put(f"{tmp_path}/none/page.html", "three")
