"""
Programs that run as another user, and data that changes hands.
"""

import os
import pathlib
import tempfile
import time

import pytest
from salt.exceptions import CommandExecutionError

ENV = {"PATH": "/usr/bin:/bin", "GREETING": "hello"}


@pytest.fixture
def account(modules):
    return modules(pillar={"nginx_uwsgi_django": {"sites": {}}}).system_account


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield pathlib.Path(made)


def run(account, *argv, **more):
    settings = {"cwd": "/", "env": ENV, "timeout": 30, **more}
    return account.run("nobody", "nogroup", list(argv), **settings)


def test_a_program_gets_this_user_this_environment_and_nothing_else(account, folder, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/saltstack/salt/lib")
    done = run(account, "/usr/bin/env")
    assert sorted(done["stdout"].split()) == ["GREETING=hello", "PATH=/usr/bin:/bin"]
    done = run(account, "/bin/sh", "-c", "id -u; id -g; id -G; umask; pwd; cat", stdin="said")
    assert done["stdout"].split() == ["65534", "65534", "65534", "0027", "/", "said"]
    status = run(account, "/bin/cat", "/proc/self/status")["stdout"]
    assert "NoNewPrivs:\t1" in status


def test_output_comes_in_order_or_apart(account):
    script = "echo a; echo b >&2; echo c; exit 3"
    assert run(account, "/bin/sh", "-c", script)["stdout"] == "a\nb\nc\n"
    apart = run(account, "/bin/sh", "-c", script, merge=False)
    assert (apart["retcode"], apart["stdout"], apart["stderr"]) == (3, "a\nc\n", "b\n")


def test_what_takes_too_long_is_killed_with_its_children(account):
    began = time.monotonic()
    done = run(account, "/bin/sh", "-c", "sleep 61.25 & echo begun; wait", timeout=1)
    assert done["timed_out"] is True
    assert done["stdout"] == "begun\n"
    assert time.monotonic() - began < 20
    assert not [
        process
        for process in filter(str.isdigit, os.listdir("/proc"))
        if command_line(process) == b"sleep\x0061.25\x00"
    ]


def test_what_a_program_says_is_answered(account):
    script = 'read asked; echo "told $asked"; read reply; echo "$reply"; cat'
    done = run(
        *(account, "/bin/sh", "-c", script),
        stdin="first\n",
        reply=lambda line: f"reply to <{line}>\nand all of it, ä\n",
    )
    assert done["stdout"] == "told first\nreply to <told first>\nand all of it, ä\n"
    assert done["retcode"] == 0


def test_what_goes_in_and_comes_out_may_be_longer_than_a_pipe(account):
    text = "ä" * 300_000 + "\n"
    script = "cat; printf 'x%.0s' $(seq 200000) >&2"
    done = run(account, "/bin/sh", "-c", script, stdin=text, merge=False)
    assert done["stdout"] == text
    assert done["stderr"] == "x" * 200_000


def test_what_is_not_said_in_time_is_not_waited_for(account):
    done = run(
        *(account, "/bin/sh", "-c", "echo before >&2; sleep 62.5; echo never"),
        merge=False,
        reply=lambda line: line,
        patience=1,
    )
    assert done["timed_out"] is True
    assert (done["stdout"], done["stderr"]) == ("", "before\n")


def test_an_answer_that_is_an_error_ends_the_program(account):
    def reply(line: str) -> str:
        raise CommandExecutionError(f"not so: {line}")

    with pytest.raises(CommandExecutionError, match="not so: told"):
        run(account, "/bin/sh", "-c", "echo told; sleep 63.75", reply=reply)
    assert not [
        process
        for process in filter(str.isdigit, os.listdir("/proc"))
        if command_line(process) == b"sleep\x0063.75\x00"
    ]


def test_a_program_that_does_not_want_to_know_is_no_error(account):
    done = run(account, "/bin/sh", "-c", "exec <&-; sleep 0.2; echo done", stdin="x" * 1_000_000)
    assert (done["retcode"], done["stdout"]) == (0, "done\n")


def test_one_that_leaves_its_group_is_not_waited_for_for_ever(account):
    began = time.monotonic()
    done = run(account, "/bin/sh", "-c", "echo begun; setsid sleep 40 & wait", timeout=1)
    assert (done["timed_out"], done["stdout"]) == (True, "begun\n")
    assert time.monotonic() - began < 30


def command_line(process: str) -> bytes:
    try:
        return pathlib.Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_what_cannot_be_started_is_said(account, folder):
    done = run(account, "/usr/bin/nowhere")
    assert done["retcode"] == 127
    assert "/usr/bin/nowhere" in done["stdout"]
    (folder / "closed").mkdir(mode=0o700)
    done = run(account, "/bin/true", cwd=str(folder / "closed"))
    assert done["retcode"] == 125
    assert f"'{folder}/closed': Permission denied" in done["stdout"]
    with pytest.raises(CommandExecutionError, match="'nobody-at-all' does not exist"):
        account.run("nobody-at-all", "nogroup", ["/bin/true"], "/", {}, 1)


def test_what_root_keeps_for_a_group_is_given_to_another(account, folder):
    release = folder / "release"
    (release / "shop").mkdir(parents=True)
    (release / "shop/models.py").write_text("x")
    outside = folder / "outside"
    outside.write_text("x")
    (release / "link").symlink_to(outside)
    for path in (release, release / "shop", release / "shop/models.py"):
        os.chown(path, 0, 4242)
        path.chmod(0o750)
    # A run that died in the middle: the directory itself is the last.
    os.chown(release / "shop", 0, 65534)
    assert account.regroup(str(release), "nogroup") is True
    for path in (release, release / "shop", release / "shop/models.py"):
        assert (path.stat().st_uid, path.stat().st_gid) == (0, 65534)
        assert path.stat().st_mode & 0o777 == 0o750
    assert outside.stat().st_gid == 0
    assert account.regroup(str(release), "nogroup") is False


def test_data_changes_hands_whole_and_through_no_link(account, folder):
    home = folder / "home"
    (home / "data").mkdir(parents=True)
    for name in ("data/db", "data/of-root"):
        (home / name).write_text("x")
    outside = folder / "outside"
    outside.write_text("x")
    os.chown(outside, 4242, 4242)
    (home / "link").symlink_to(outside)
    for name in ("", "data", "data/db", "link"):
        os.chown(home / name, 4242, 4242, follow_symlinks=False)
    assert account.adopt(str(home), "nobody", "nogroup") == 4
    assert (home / "data/db").stat().st_uid == 65534
    assert (home / "data/of-root").stat().st_uid == 0
    assert os.lstat(home / "link").st_uid == 65534
    assert outside.stat().st_uid == 4242
    assert account.adopt(str(home), "nobody", "nogroup") == 0
