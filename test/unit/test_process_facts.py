"""What proc(5) tells of a process."""

import os

import pytest

from _nud import process_facts

GONE = 2**22 + 1


def test_memory_of_a_process_is_told_in_bytes():
    assert process_facts.resident(os.getpid()) > 1 << 20
    assert process_facts.resident(GONE) == 0


def test_only_files_that_are_appended_to_are_told(tmp_path):
    (tmp_path / "read").write_text("one")
    with open(tmp_path / "log", "a") as log, open(tmp_path / "read"):
        log.write("line\n")
        log.flush()
        found = process_facts.appended_files(os.getpid())
        mine = {path: size for path, size in found.items() if path.startswith(f"{tmp_path}/")}
        assert mine == {f"{tmp_path}/log": 5}
    assert process_facts.appended_files(GONE) == {}


@pytest.mark.parametrize("moved", [False, True])
def test_a_file_that_was_moved_is_still_the_open_one(tmp_path, moved):
    path = tmp_path / "log"
    with open(path, "a"):
        if moved:
            path.rename(tmp_path / "log.1")
            path.write_text("a new file")
        assert process_facts.has_open(os.getpid(), str(path)) is not moved


def test_without_the_file_or_the_process_nothing_is_told(tmp_path):
    assert process_facts.has_open(os.getpid(), f"{tmp_path}/none") is None
    (tmp_path / "log").touch()
    assert process_facts.has_open(GONE, f"{tmp_path}/log") is None
