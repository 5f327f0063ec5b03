"""
Files that are whole or not there: against the file system itself, and against a kill at any moment.
"""

import os
import pathlib
import signal
import stat
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

from _nud import durable_file

from ..hosts.paths import FORMULA

OWNER = {"user": os.getuid(), "group": os.getgid()}


def leftovers(folder: pathlib.Path) -> list[str]:
    return [name for name in os.listdir(folder) if ".durable-" in name]


def test_a_new_file_has_its_content_owner_and_mode(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.conf"
    assert durable_file.write(str(path), "häh\n", user=1234, group=4321, mode="0640") is True
    status = path.lstat()
    assert path.read_bytes() == "häh\n".encode()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o640)
    assert os.listdir(tmp_path) == ["a.conf"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_any_content_comes_back_and_the_second_write_touches_nothing(
    tmp_path: pathlib.Path, first: bytes, second: bytes
) -> None:
    path = str(tmp_path / "any")
    durable_file.write(path, first, **OWNER)
    assert durable_file.read(path) == first
    before = os.lstat(path)
    assert durable_file.differs(path, first, **OWNER) is False
    assert durable_file.write(path, first, **OWNER) is False
    after = os.lstat(path)
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert durable_file.differs(path, second, **OWNER) is (first != second)
    assert durable_file.write(path, second, **OWNER) is (first != second)
    assert durable_file.read(path) == second


@pytest.mark.parametrize("change", [{"mode": "0600"}, {"user": 1234}, {"group": 4321}])
def test_owner_and_mode_are_part_of_it(tmp_path: pathlib.Path, change: dict[str, str]) -> None:
    path = str(tmp_path / "a")
    durable_file.write(path, "x", **OWNER)
    wanted = {**OWNER, **change}
    assert durable_file.differs(path, "x", **wanted) is True
    assert durable_file.write(path, "x", **wanted) is True
    assert durable_file.differs(path, "x", **wanted) is False


def test_a_link_in_the_place_is_replaced_not_followed(tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "shadow"
    victim.write_text("secret")
    path = tmp_path / "a.conf"
    path.symlink_to(victim)
    assert durable_file.read(str(path)) is None
    # Even when what the link leads to is already just right.
    assert durable_file.differs(str(path), "secret", **OWNER) is True
    assert durable_file.write(str(path), "new", **OWNER) is True
    assert not path.is_symlink() and path.read_text() == "new"
    assert victim.read_text() == "secret"


def test_a_pipe_in_the_place_is_replaced_without_waiting_for_a_writer(
    tmp_path: pathlib.Path,
) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    # Waiting for a writer would be for ever: the alarm's default ends this process.
    signal.alarm(20)
    assert durable_file.read(path) is None
    signal.alarm(0)
    assert durable_file.write(path, "x", **OWNER) is True
    assert durable_file.read(path) == b"x"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(CommandExecutionError, match="'nosuchuser' does not exist"):
        durable_file.write(str(path), "new", user="nosuchuser")
    with pytest.raises(CommandExecutionError, match="quoted octal string like '0644', not 420"):
        durable_file.write(str(path), "new", mode=420)  # type: ignore[arg-type]
    with pytest.raises(CommandExecutionError, match="quoted octal"):
        durable_file.write(str(path), "new", mode="rw-r--r--")
    assert path.read_text() == "old"
    taken = tmp_path / "folder"
    taken.mkdir()
    with pytest.raises(IsADirectoryError):
        durable_file.write(str(taken), "new", **OWNER)
    assert sorted(os.listdir(tmp_path)) == ["a", "folder"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: pathlib.Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "small", str(tmp_path)], check=True)
    try:
        path = tmp_path / "a"
        path.write_text("old")
        with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
            durable_file.write(str(path), "x" * 100_000, **OWNER)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["a"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_a_killed_write_left_is_swept_and_nothing_else(tmp_path: pathlib.Path) -> None:
    for name in (".a.durable-xyz", ".b.durable-xyz", ".a.other", "a.durable-x"):
        (tmp_path / name).write_text("")
    durable_file.write(str(tmp_path / "a"), "x", **OWNER)
    assert sorted(os.listdir(tmp_path)) == [".a.other", ".b.durable-xyz", "a", "a.durable-x"]
    durable_file.link(str(tmp_path / "b"), "a")
    assert ".b.durable-xyz" not in os.listdir(tmp_path)
    (tmp_path / ".a.durable-xyz").write_text("")
    assert durable_file.remove(str(tmp_path / "a")) is True
    assert sorted(os.listdir(tmp_path)) == [".a.other", "a.durable-x", "b"]


def test_links(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "on"
    assert durable_file.link(str(path), "../there") is True
    assert os.readlink(path) == "../there"
    inode = path.lstat().st_ino
    assert durable_file.link(str(path), "../there") is False
    assert path.lstat().st_ino == inode
    assert durable_file.link(str(path), "elsewhere") is True
    assert os.readlink(path) == "elsewhere"
    (tmp_path / "file").write_text("x")
    assert durable_file.link(str(tmp_path / "file"), "y") is True
    assert os.readlink(tmp_path / "file") == "y"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        durable_file.link(str(tmp_path / "folder"), "y")
    assert leftovers(tmp_path) == []


def test_removing(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "target"
    target.write_text("stays")
    (tmp_path / "on").symlink_to(target)
    assert durable_file.remove(str(tmp_path / "on")) is True
    assert durable_file.remove(str(tmp_path / "on")) is False
    assert durable_file.remove(str(tmp_path / "nowhere" / "x")) is False
    assert target.read_text() == "stays"
    with pytest.raises(OSError):
        durable_file.remove(str(tmp_path))


def test_directories(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a" / "b"
    wanted = {"user": 1234, "group": 4321, "mode": "0750"}
    assert durable_file.directory(str(path), **wanted) is True
    status = path.lstat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o750)
    assert stat.S_IMODE((tmp_path / "a").lstat().st_mode) == 0o755
    assert durable_file.directory(str(path), **wanted) is False
    assert durable_file.directory(str(path), **{**wanted, "mode": "0700"}) is True
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(path)
    for name in ("file", "link"):
        with pytest.raises(CommandExecutionError, match=f"{name} is in the way"):
            durable_file.directory(str(tmp_path / name))
    assert path.lstat().st_uid == 1234


# -- killed at any moment

CALLS = ("openat", "write", "fchown", "fchmod", "fsync", "rename")
SCRIPT = "import sys; sys.path.append('_modules'); from _nud import durable_file as d; d.write(sys.argv[1], 'new' * 3000)"


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int]]:
    """Every system call of a write that changes or secures something: (its name, the how-many-eth)."""
    folder = tmp_path_factory.mktemp("trace")
    log = folder / "log"
    subprocess.run(
        ["strace", "-o", str(log), "-e", f"trace={','.join(CALLS)}", sys.executable, "-c", SCRIPT]
        + [str(folder / "a")],
        cwd=FORMULA,
        check=True,
    )
    seen: dict[str, int] = {}
    found = []
    for line in log.read_text().splitlines():
        name = line.partition("(")[0]
        if name in CALLS:
            seen[name] = seen.get(name, 0) + 1
            # Python opens hundreds of files of its own before.
            if name != "openat" or str(folder) in line:
                found.append((name, seen[name]))
    assert {name for name, _ in found} == set(CALLS), "the write does not do what it promises"
    return found


def test_it_reaches_the_disk_before_it_is_renamed_and_the_name_after(
    moments: list[tuple[str, int]],
) -> None:
    """Content synchronised, renamed, directory synchronised: else a power cut may leave it empty."""
    order = [name for name, _ in moments if name in ("write", "fsync", "rename")]
    assert order[-3:] == ["fsync", "rename", "fsync"]
    assert "write" in order[:-3]


@pytest.mark.parametrize("old", ["old", None])
def test_killed_at_any_moment_the_file_is_the_old_or_the_new(
    moments: list[tuple[str, int]], tmp_path: pathlib.Path, old: str | None
) -> None:
    states = set()
    for number, (call, count) in enumerate(moments):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "a"
        if old is not None:
            path.write_text(old)
        inject = f"inject={call}:signal=KILL:when={count}"
        done = subprocess.run(
            ["strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
            + [sys.executable, "-c", SCRIPT, str(path)],
            cwd=FORMULA,
            check=False,
        )
        assert done.returncode == -9 or done.returncode == 137, (call, count)
        left = path.read_text() if path.exists() else None
        assert left in (old, "new" * 3000), (call, count)
        states.add(left)
        # The next write finishes it and cleans up.
        durable_file.write(str(path), "new" * 3000)
        assert path.read_text() == "new" * 3000
        assert os.listdir(folder) == ["a"], (call, count)
    # Both outcomes were seen: the kills really fell before and after the rename.
    assert states == {old, "new" * 3000}
