"""
Running programs: as root or as a site's user, with a given environment, within a time limit.

A program gets the environment that the caller names and nothing of Salt's own (the onedir packages set
LD_LIBRARY_PATH and PYTHON variables), and a session of its own, so that all of it can be ended.
"""

import codecs
import grp
import os
import pwd
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from typing import IO, Any, TypedDict, cast

from salt.exceptions import CommandExecutionError

# util-linux, which Debian and Ubuntu mark Essential.
_SETPRIV = "/usr/bin/setpriv"
# With this process killed, the program is killed too and does not go on writing beside the next run;
# and no set-uid program gives it more rights than it has.
_SETPRIV_OPTIONS = ("--pdeathsig", "KILL", "--no-new-privs")
_ENV = "/usr/bin/env"
# Seconds in which the output of a killed program has to arrive.
_LAST_WORDS = 5


class Done(TypedDict):
    """How a program ended."""

    retcode: int
    stdout: str
    stderr: str
    timed_out: bool


class _Talk:
    """
    What goes to a program and what comes from it: :py:meth:`subprocess.Popen.communicate` lets
    nothing that it says be answered.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stdin: str,
        listener: Callable[[str], None] | None,
        reply: Callable[[str], str] | None,
    ) -> None:
        self._process = process
        self._pending = stdin.encode()
        self._listener = listener
        self._reply = reply
        self._selector = selectors.DefaultSelector()
        self._heard: dict[Any, bytearray] = {}
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                self._heard[stream] = bytearray()
                self._selector.register(stream, selectors.EVENT_READ)
        self._entrance = cast(Any, process.stdin)
        os.set_blocking(self._entrance.fileno(), False)
        self._selector.register(self._entrance, selectors.EVENT_WRITE)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def hear(self, timeout: float, patience: float) -> bool:
        """
        Whether the program said all that it has to say, and ended, within some seconds, and what
        is replied to within that patience.
        """
        began = time.monotonic()
        while any(key.fileobj in self._heard for key in self._selector.get_map().values()):
            left = began + (patience if self._reply else timeout) - time.monotonic()
            if left <= 0:
                return False
            said = b""
            for key, _ in self._selector.select(min(1, left)):
                if key.fileobj is self._entrance:
                    self._write()
                else:
                    said += self._read(key.fileobj)
            if self._listener is not None:
                self._listener(self._decoder.decode(said))
        try:
            self._process.wait(max(0, began + timeout - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def said(self, stream: Any, errors: str) -> str:
        """All that has come from one of the program's streams, its lines as Python's are."""
        text = self._heard.get(stream, b"").decode(errors=errors)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def close(self) -> None:
        """Leave nothing open."""
        self._selector.close()
        for stream in (self._entrance, *self._heard):
            stream.close()

    def _write(self) -> None:
        try:
            written = os.write(self._entrance.fileno(), self._pending[: 1 << 16])
        except BrokenPipeError:
            # It does not want to know; what it says then tells why.
            written = len(self._pending)
        self._pending = self._pending[written:]
        if not self._pending:
            self._selector.unregister(self._entrance)
            if self._reply is None:
                self._entrance.close()

    def _read(self, stream: Any) -> bytes:
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            self._selector.unregister(stream)
        heard = self._heard[stream]
        heard += data
        if stream is not self._process.stdout:
            return b""
        if self._reply is not None and b"\n" in heard:
            reply, self._reply = self._reply, None
            self._pending = reply(heard.partition(b"\n")[0].decode(errors="replace")).encode()
            self._selector.register(self._entrance, selectors.EVENT_WRITE)
        return data


def _run(
    argv: list[str],
    env: dict[str, str],
    timeout: float,
    stdin: str,
    merge: bool,
    errors: str = "replace",
    listener: Callable[[str], None] | None = None,
    reply: Callable[[str], str] | None = None,
    patience: float | None = None,
    **more: Any,
) -> Done:
    try:
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            argv,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            start_new_session=True,
            **more,
        )
    except OSError as error:
        raise CommandExecutionError(f"{argv[0]} cannot be started: {error}") from error
    talk = _Talk(process, stdin, listener, reply)
    try:
        timed_out = not talk.hear(timeout, timeout if patience is None else patience)
        if timed_out:
            _kill(process)
            # What it said before. A child that left its process group may hold the pipe open.
            talk.hear(_LAST_WORDS, _LAST_WORDS)
        return {
            "retcode": process.wait(),
            "stdout": talk.said(process.stdout, errors),
            "stderr": talk.said(process.stderr, errors),
            "timed_out": timed_out,
        }
    except BaseException:
        _kill(process)
        process.wait()
        raise
    finally:
        talk.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started."""
    os.killpg(process.pid, signal.SIGKILL)


def run(
    argv: list[str],
    env: dict[str, str],
    timeout: float,
    cwd: str = "/",
    errors: str = "replace",
    outlives: bool = False,
) -> Done:
    """
    Run a program as root, with nothing on its standard input.

    argv
        the program and its arguments; no shell is involved
    env
        the whole environment
    timeout
        seconds; then the program and all in its process group is killed
    cwd
        the working directory
    errors
        how bytes that are not UTF-8 are decoded, as :py:meth:`bytes.decode` names it
    outlives
        let the program finish when this process is killed: for a program that changes files which
        it alone can bring to a consistent state

    Returns ``{"retcode", "stdout", "stderr", "timed_out"}``.

    Raises CommandExecutionError when the program cannot be started.
    """
    words = argv if outlives else [*_dying_with_this(), *argv]
    return _run(words, env, timeout, "", merge=False, errors=errors, cwd=cwd)


def start(
    argv: list[str], env: dict[str, str], cwd: str, stdin: IO[bytes]
) -> subprocess.Popen[bytes]:
    """
    Start a program as root whose output is read while it runs. It ends when this process is killed.

    argv, env, cwd
        as in :py:func:`run`
    stdin
        a file for its standard input

    Returns the process; its ``stdout`` is to be read.
    """
    return subprocess.Popen(
        [*_dying_with_this(), *argv],
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _dying_with_this() -> list[str]:
    return [_SETPRIV, *_SETPRIV_OPTIONS, "--"]


def run_as(
    user: str,
    group: str,
    argv: list[str],
    cwd: str,
    env: dict[str, str],
    timeout: float,
    umask: int = 0o027,
    stdin: str = "",
    merge: bool = True,
    listener: Callable[[str], None] | None = None,
    reply: Callable[[str], str] | None = None,
    patience: float | None = None,
) -> Done:
    """
    Run a program as a user. It ends when this process is killed.

    user, group
        names; the user's further groups are set as in a login
    argv, env, timeout
        as in :py:func:`run`
    cwd
        the working directory, which is entered as the user
    umask
        for the files it makes
    stdin
        text for its standard input
    merge
        put standard error into ``stdout``, in order
    listener
        is called with what the program has said since the last call, at least once a second
    reply
        is called with the program's first line; what it returns goes to the program's standard
        input, which is open until then
    patience
        seconds that the program has for that line; None: as many as ``timeout``

    Returns ``{"retcode", "stdout", "stderr", "timed_out"}``.

    Raises CommandExecutionError when the account does not exist. A program that cannot be started
    is a return code of 126 or 127, a directory that cannot be entered 125, with a sentence.
    """
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise CommandExecutionError(f"the user {user!r} does not exist") from None
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        raise CommandExecutionError(f"the group {group!r} does not exist") from None
    return _run(
        # The directory is entered as the user, not as root who may enter any.
        [*_dying_with_this(), _ENV, f"--chdir={cwd}", "--", *argv],
        env,
        timeout,
        stdin,
        merge,
        listener=listener,
        reply=reply,
        patience=patience,
        cwd="/",
        user=account.pw_uid,
        group=gid,
        extra_groups=os.getgrouplist(user, gid),
        umask=umask,
    )


def source(name: str) -> str:
    """
    Read a program of the library that another Python is to run (``python -c``).

    name
        ``django_driver`` or ``pyproject_reader``

    Returns its source.
    """
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"_nud_{name}.py")
    with open(path, encoding="utf-8") as stream:
        return stream.read()
