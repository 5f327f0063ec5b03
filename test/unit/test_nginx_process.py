"""
How nginx_process tells old from new: clocks, notes, references, logs.  No nginx runs here.
"""

import json
import os
import pathlib
import subprocess
import time
from typing import Any

import pytest

from _nud import nginx_inputs, nginx_log, nginx_workers, proc

from ..modules import Modules


class Host:
    """A tree, a master with one worker, and clocks that the test sets."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = folder / "nginx"
        self.base.mkdir()
        (self.base / "nginx.conf").write_text("events {}\n")
        pillar = {
            "lookup": {"nginx_dir": str(self.base)},
            "sites": {
                "mysite": {
                    "server_names": ["a.org"],
                    "project": {"wsgi": "a.wsgi:application", "settings": "a.settings"},
                }
            },
        }
        self.m = Modules(pillar={"nginx_uwsgi_django": pillar}).nginx_process
        self.read_at = time.time()
        self.clock_was_set = False
        self.master = [10, 1000]
        monkeypatch.setattr(self.m, "_NOTE", str(folder / "run" / "note.json"))
        monkeypatch.setattr(nginx_workers, "identity", lambda pid: self.master)
        monkeypatch.setattr(self.m, "_clock_was_set", lambda: self.clock_was_set)
        monkeypatch.setattr(nginx_workers, "workers", lambda pid: {11: self._ticks()})

    def _ticks(self) -> int:
        since_boot = self.read_at - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
        return int(since_boot * os.sysconf("SC_CLK_TCK"))

    def age(self, seconds: float) -> None:
        """Let the workers have been started so long after the last change."""
        newest = max(row[4] for row in self.inputs().values() if row) / 1e9
        self.read_at = newest + seconds

    def inputs(self) -> dict[str, list[int]]:
        return dict(nginx_inputs.inputs(str(self.base), {}))

    def note(self) -> None:
        self.m._write_note(self.m._fingerprint(), 10)

    @property
    def stale(self) -> Any:
        return self.m._stale(10)


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_times_alone(host: Host) -> None:
    host.age(3600)
    assert host.stale is None
    host.age(2.5)
    assert host.stale is None
    # A file may change while nginx reads the others, and clocks have grains.
    host.age(1.5)
    assert host.stale
    host.age(-10)
    assert host.stale


def test_a_clock_that_was_set_is_not_trusted(host: Host) -> None:
    host.age(3600)
    host.clock_was_set = True
    assert "clock" in host.stale
    # Once the reload was seen to work, the times do not matter.
    host.note()
    assert host.stale is None


def test_a_file_from_the_future_is_reloaded_for_once(host: Host) -> None:
    host.age(-3600)
    assert host.stale
    host.note()
    assert host.stale is None


def test_the_note_decides_while_its_process_runs(host: Host) -> None:
    host.age(3600)
    host.note()
    (host.base / "nginx.conf").write_text("events {} # changed\n")
    # The workers are younger than the change: one of them died and was replaced.
    host.age(3600)
    assert host.stale == "the configuration has changed"
    host.master = [10, 2000]
    assert host.stale is None, "another process: the note says nothing"


def test_the_note_knows_what_the_files_have_named(
    host: Host, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.conf"
    other.write_text("# one\n")
    (host.base / "nginx.conf").write_text(f"include {other};\n")
    host.note()
    monkeypatch.setattr(nginx_inputs, "_references", lambda *_: pytest.fail("a file was read"))
    host.m.__context__.clear()
    assert host.stale is None
    other.write_text("# two\n")
    assert host.stale == "the configuration has changed"


def test_a_note_of_before_that_is_good_as_well(host: Host, tmp_path: pathlib.Path) -> None:
    (tmp_path / "other.conf").write_text("")
    (host.base / "nginx.conf").write_text(f"include {tmp_path}/other.conf;\n")
    host.note()
    path = pathlib.Path(host.m._NOTE)
    path.write_text(json.dumps({**json.loads(path.read_text()), "named": None}))
    assert host.stale is None


def test_a_file_that_comes_to_name_another(host: Host, tmp_path: pathlib.Path) -> None:
    assert str(tmp_path / "other.conf") not in host.inputs()
    (host.base / "nginx.conf").write_text(f"include {tmp_path}/other.conf;\n")
    assert str(tmp_path / "other.conf") in host.inputs()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"master": null}', "null"])
def test_a_broken_note_is_no_note(host: Host, text: str) -> None:
    path = pathlib.Path(host.m._NOTE)
    path.parent.mkdir()
    path.write_text(text)
    host.age(3600)
    assert host.stale is None
    host.age(-1)
    assert host.stale


def test_no_worker_is_stale(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx_workers, "workers", lambda pid: {})
    assert "no worker" in host.stale


def changes(host: Host, before: Any) -> bool:
    return bool(host.m._fingerprint() != before)


def test_what_is_an_input(host: Host, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.conf").write_text(f"ssl_certificate {outside}/cert.pem;\n")
    (outside / "cert.pem").write_text("one")
    (outside / "target").write_text("one")
    (host.base / "nginx.conf").write_text(
        f"include {outside}/*.conf; # include {outside}/commented;\n"
        f'ssl_certificate_key "{outside}/key.pem";\nroot {outside}/root;\n'
    )
    (host.base / "link").symlink_to(outside / "target")
    rows = set(host.inputs())
    assert {f"{outside}/a.conf", f"{outside}/cert.pem", f"{outside} ->"} <= rows
    assert f"{outside}/key.pem" in rows, "a file that is not there may come"
    assert not {f"{outside}/commented", f"{outside}/root"} & rows

    def fingerprint() -> str:
        return str(host.m._fingerprint())

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    for path, text in (
        (outside / "cert.pem", "two"),
        (outside / "target", "two"),
        (outside / "key.pem", "new"),
        (outside / "b.conf", "new"),
        (host.base / "new", "new"),
    ):
        path.write_text(text)
        seen.append(fingerprint())
    (outside / "b.conf").unlink()
    seen.append(fingerprint())
    os.chmod(host.base / "new", 0o600)
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


def test_what_is_outside_of_the_tree(host: Host, tmp_path: pathlib.Path) -> None:
    for name in ("a.conf", "target"):
        (tmp_path / name).write_text("one")
    (host.base / "nginx.conf").write_text(f"include {tmp_path}/a.conf;\ninclude\n  b.conf;\n")
    for name, target in (
        ("elsewhere", tmp_path / "target"),
        ("dangling", tmp_path / "nothing"),
        ("again", host.base / "nginx.conf"),
        ("folder", host.base),
    ):
        (host.base / name).symlink_to(target)
    before = nginx_inputs.outside(str(host.base), {})
    assert set(before) == {
        f"{tmp_path}/a.conf",
        f"{host.base}/elsewhere ->",
        f"{host.base}/dangling ->",
    }
    assert before[f"{host.base}/dangling ->"] == []
    (host.base / "b.conf").write_text("")
    assert nginx_inputs.outside(str(host.base), {}) == before
    (tmp_path / "target").write_text("two")
    assert nginx_inputs.outside(str(host.base), {}) != before


def test_references_of_several_lines_and_none_of_a_comment(host: Host) -> None:
    text = "ssl_crl\n  a;ssl_dhparam 'b c' ; # include d;\n#\ninclude \"e\";# x;\nmy_include f;"
    text += "\ninclude g # of theirs\n;include $h; ssl_certificate data:i;"
    assert nginx_inputs._references(text, "/t") == {"/t/a", "/t/b c", "/t/e", "/t/g"}


def test_a_preserved_time_does_not_hide_a_change(host: Host) -> None:
    path = host.base / "nginx.conf"
    before, old = host.m._fingerprint(), os.stat(path)
    path.write_text("events {}#")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert changes(host, before)


def test_leftovers_are_no_input(host: Host) -> None:
    host.inputs()
    (host.base / ".nginx_uwsgi_django-x").mkdir()
    before = set(host.inputs())
    (host.base / ".nginx_uwsgi_django-x" / "nginx.conf").write_text("")
    assert set(host.inputs()) == before


def test_includes_that_go_in_a_circle_end(host: Host, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.conf").write_text(f"include {tmp_path}/b.conf;")
    (tmp_path / "b.conf").write_text(f"include {tmp_path}/a.conf;")
    (host.base / "nginx.conf").write_text(f"include {tmp_path}/a.conf;")
    assert f"{tmp_path}/b.conf" in host.inputs()


def test_stat_of_a_process(host: Host) -> None:
    name, parent, start = proc.process(os.getpid())
    assert parent == os.getppid()
    assert name
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK")
    assert 0 <= since_boot < 3600
    assert proc.process(2**22 + 1) is None


def test_a_process_with_an_ugly_name_and_a_dead_one(host: Host, tmp_path: pathlib.Path) -> None:
    script = tmp_path / "a) Z 1 (b"
    script.write_text("#!/bin/sh\necho up\nread x\n")
    script.chmod(0o755)
    with subprocess.Popen(
        [script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        name, parent, _ = proc.process(process.pid)
        assert (name, parent) == ("a) Z 1 (b", os.getpid())
        process.stdin.close()
        deadline = time.monotonic() + 10
        # Dead, but not yet waited for.
        while proc.process(process.pid) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert os.path.exists(f"/proc/{process.pid}")


def test_what_a_process_runs_that_was_replaced(host: Host, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "sleep"
    program.write_bytes(pathlib.Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        try:
            deadline = time.monotonic() + 10
            while os.readlink(f"/proc/{process.pid}/exe") != str(program):
                assert time.monotonic() < deadline
            assert nginx_workers.replaced(process.pid) == []
            copy = tmp_path / "copy"
            copy.write_bytes(program.read_bytes())
            copy.rename(program)
            assert nginx_workers.replaced(process.pid) == [str(program)]
            program.unlink()
            assert nginx_workers.replaced(process.pid) == [], "nothing to go over to"
        finally:
            process.kill()
    assert nginx_workers.replaced(2**22 + 1) == []


def test_the_log_since(host: Host, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "error.log"
    old = "2026/11/22 20:00:00 [emerg] 5#5: old trouble\n"
    path.write_text(old)
    log = nginx_log.Log(str(path))
    assert log.errors() == []
    bind = "bind() to 0.0.0.0:81 failed (98: Address already in use)"
    with path.open("a") as stream:
        stream.write("2026/11/22 20:00:01 [notice] 5#5: signal process started\n")
        stream.write("2026/11/22 20:00:01 [crit] 6#6: *9 connect() to unix:/x failed\n")
        stream.write("2026/11/22 20:00:01 [emerg] 6#6: *9 about a connection\n")
        stream.write(f"2026/11/22 20:00:01 [emerg] 5#5: {bind}\n" * 2)
    assert log.errors() == [bind]
    # Rotated: the new file is new from its beginning.
    path.rename(tmp_path / "error.log.1")
    path.write_text("2026/11/22 20:00:02 [emerg] 5#5: after the rotation\n")
    assert log.errors() == ["after the rotation"]
    assert nginx_log.Log(None).errors() == []
    assert nginx_log.Log(str(tmp_path / "none")).errors() == []


def test_tail(host: Host, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {n}\n" for n in range(10000)))
    assert nginx_log.tail(str(path), 2) == ["line 9998", "line 9999"]
    assert nginx_log.tail(None, 2) == nginx_log.tail(str(tmp_path / "none"), 2) == []
    assert nginx_log.tail(str(path), 0) == []


def test_the_note_is_whole(host: Host) -> None:
    host.note()
    text = pathlib.Path(host.m._NOTE).read_text()
    assert json.loads(text)["master"] == [10, 1000]


@pytest.mark.parametrize(
    ("main", "alive", "found"),
    [
        # systemd's main process; its child, to which it gave its workers; the child once the old
        # one has ended, which systemd notices a moment later; a stopped nginx and its old pid file.
        ("10", {10: ("nginx", 1)}, 10),
        ("10", {10: ("nginx", 1), 20: ("nginx", 10)}, 20),
        ("10", {20: ("nginx", 1)}, 20),
        ("10", {20: ("python3", 1)}, None),
        ("10", {}, None),
        ("0", {20: ("nginx", 1)}, None),
    ],
)
def test_the_master_is_found_at_each_moment_of_a_takeover(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    main: str,
    alive: dict[int, tuple[str, int]],
    found: int | None,
) -> None:
    (tmp_path / "pid").write_text("20\n")
    stats = {pid: proc.Process(name, parent, 1000) for pid, (name, parent) in alive.items()}
    monkeypatch.setattr(nginx_workers, "process", stats.get)
    assert nginx_workers.masters({"MainPID": main, "PIDFile": str(tmp_path / "pid")})[0] == found
