"""
Programs that run as root or as another user: their environment, their limits, what they say.
"""

import ast
import os
import pathlib
import sys
import tempfile
import time

import pytest
from salt.exceptions import CommandExecutionError

from _nud import program

ENV = {"PATH": "/usr/bin:/bin", "GREETING": "hello"}


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield pathlib.Path(made)


def run(*argv, **more):
    settings = {"cwd": "/", "env": ENV, "timeout": 30, **more}
    return program.run_as("nobody", "nogroup", list(argv), **settings)


def test_a_program_gets_this_user_this_environment_and_nothing_else(folder, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/saltstack/salt/lib")
    done = run("/usr/bin/env")
    assert sorted(done["stdout"].split()) == ["GREETING=hello", "PATH=/usr/bin:/bin"]
    done = run("/bin/sh", "-c", "id -u; id -g; id -G; umask; pwd; cat", stdin="said")
    assert done["stdout"].split() == ["65534", "65534", "65534", "0027", "/", "said"]
    status = run("/bin/cat", "/proc/self/status")["stdout"]
    assert "NoNewPrivs:\t1" in status


def test_output_comes_in_order_or_apart():
    script = "echo a; echo b >&2; echo c; exit 3"
    assert run("/bin/sh", "-c", script)["stdout"] == "a\nb\nc\n"
    apart = run("/bin/sh", "-c", script, merge=False)
    assert (apart["retcode"], apart["stdout"], apart["stderr"]) == (3, "a\nc\n", "b\n")


def test_what_takes_too_long_is_killed_with_its_children():
    began = time.monotonic()
    done = run("/bin/sh", "-c", "sleep 61.25 & echo begun; wait", timeout=1)
    assert done["timed_out"] is True
    assert done["stdout"] == "begun\n"
    assert time.monotonic() - began < 20
    assert not [
        process
        for process in filter(str.isdigit, os.listdir("/proc"))
        if command_line(process) == b"sleep\x0061.25\x00"
    ]


def test_what_a_program_says_is_answered():
    script = 'read asked; echo "told $asked"; read reply; echo "$reply"; cat'
    done = run(
        *("/bin/sh", "-c", script),
        stdin="first\n",
        reply=lambda line: f"reply to <{line}>\nand all of it, ä\n",
    )
    assert done["stdout"] == "told first\nreply to <told first>\nand all of it, ä\n"
    assert done["retcode"] == 0


def test_what_goes_in_and_comes_out_may_be_longer_than_a_pipe():
    text = "ä" * 300_000 + "\n"
    script = "cat; printf 'x%.0s' $(seq 200000) >&2"
    done = run("/bin/sh", "-c", script, stdin=text, merge=False)
    assert done["stdout"] == text
    assert done["stderr"] == "x" * 200_000


def test_what_is_not_said_in_time_is_not_waited_for():
    done = run(
        *("/bin/sh", "-c", "echo before >&2; sleep 62.5; echo never"),
        merge=False,
        reply=lambda line: line,
        patience=1,
    )
    assert done["timed_out"] is True
    assert (done["stdout"], done["stderr"]) == ("", "before\n")


def test_an_answer_that_is_an_error_ends_the_program():
    def reply(line: str) -> str:
        raise CommandExecutionError(f"not so: {line}")

    with pytest.raises(CommandExecutionError, match="not so: told"):
        run("/bin/sh", "-c", "echo told; sleep 63.75", reply=reply)
    assert not [
        process
        for process in filter(str.isdigit, os.listdir("/proc"))
        if command_line(process) == b"sleep\x0063.75\x00"
    ]


def test_a_program_that_does_not_want_to_know_is_no_error():
    done = run("/bin/sh", "-c", "exec <&-; sleep 0.2; echo done", stdin="x" * 1_000_000)
    assert (done["retcode"], done["stdout"]) == (0, "done\n")


def test_one_that_leaves_its_group_is_not_waited_for_for_ever():
    began = time.monotonic()
    done = run("/bin/sh", "-c", "echo begun; setsid sleep 40 & wait", timeout=1)
    assert (done["timed_out"], done["stdout"]) == (True, "begun\n")
    assert time.monotonic() - began < 30


def command_line(process: str) -> bytes:
    try:
        return pathlib.Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_what_cannot_be_started_is_said(folder):
    done = run("/usr/bin/nowhere")
    assert done["retcode"] == 127
    assert "/usr/bin/nowhere" in done["stdout"]
    (folder / "closed").mkdir(mode=0o700)
    done = run("/bin/true", cwd=str(folder / "closed"))
    assert done["retcode"] == 125
    assert f"'{folder}/closed': Permission denied" in done["stdout"]
    with pytest.raises(CommandExecutionError, match="'nobody-at-all' does not exist"):
        program.run_as("nobody-at-all", "nogroup", ["/bin/true"], "/", {}, 1)


def test_root_runs_a_program_with_its_environment_alone(folder, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/saltstack/salt/lib")
    done = program.run(["/bin/sh", "-c", "pwd; env; echo said >&2; exit 4"], ENV, 30, str(folder))
    assert done["stdout"].split()[0] == str(folder)
    assert "LD_LIBRARY_PATH" not in done["stdout"] and "GREETING=hello" in done["stdout"]
    assert (done["retcode"], done["stderr"], done["timed_out"]) == (4, "said\n", False)


@pytest.mark.parametrize("outlives", [True, False])
def test_a_program_of_roots_ends_at_its_limit_with_its_children(outlives):
    script = "sleep 65.25 & echo begun; wait"
    done = program.run(["/bin/sh", "-c", script], ENV, 1, outlives=outlives)
    assert (done["timed_out"], done["stdout"]) == (True, "begun\n")
    assert not [
        process
        for process in filter(str.isdigit, os.listdir("/proc"))
        if command_line(process) == b"sleep\x0065.25\x00"
    ]


def test_a_program_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(CommandExecutionError, match="/usr/bin/nowhere cannot be started"):
        program.run(["/usr/bin/nowhere"], ENV, 30, outlives=True)
    assert "/usr/bin/nowhere" in program.run(["/usr/bin/nowhere"], ENV, 30)["stderr"]


def test_only_a_program_that_may_outlive_this_process_does():
    """prctl(PR_SET_PDEATHSIG), as the kernel tells it of the program itself."""
    ask = [
        *("/usr/bin/python3", "-c"),
        "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)",
    ]
    assert program.run(ask, ENV, 30)["stdout"] == "9\n"
    assert program.run(ask, ENV, 30, outlives=True)["stdout"] == "0\n"


@pytest.mark.parametrize("name", ["django_driver", "pyproject_reader"])
def test_a_program_for_another_python_needs_only_its_standard_library(name):
    """Django, or the environment's own tomllib, is imported inside of functions."""
    tree = ast.parse(program.source(name))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    assert found and found <= set(sys.stdlib_module_names)
