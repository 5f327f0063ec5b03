"""
The running nginx: is it the one that is on the disk?

``systemctl reload nginx`` returns 0 for a configuration that nginx then drops (a port that
somebody else holds, a limit of open files), and Salt's ``watch`` forgets a reload that a killed or
failed run still owed.  So nothing here relies on what a run did.  Both questions are asked of the
host:

- *The binary*: is the file that the master process runs, and each library and module that it has
  mapped, still the one at its path?
- *The configuration*: was the newest generation of workers started after the newest change of
  anything that nginx reads (the tree with its directories, so that a removed file counts, files
  that it includes from elsewhere, certificates)?

Times are compared only where they can be.  File times come from a clock that stands still for up
to a tick, a configuration may change while it is read, and the wall clock may have been set since
nginx started.  So after a reload that was seen to work, the inputs' fingerprint (taken before the
signal and still the same after it) and the master process that read them are noted in ``/run``, and
that note decides as long as that process runs.  A lost note costs one superfluous reload at the
most.

.. versionadded:: 0.1.0
"""

import json
import os
import re
import signal
import subprocess
import time
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import (
    durable_file,
    nginx_inputs,
    nginx_judge,
    nginx_log,
    nginx_program,
    nginx_workers,
    proc,
)

__virtualname__ = "nginx_process"

_NOTE = "/run/nginx_uwsgi_django/nginx_process.json"


# Within so many seconds of a start the times alone do not say whether a change was read: see above.
_CLOSE = 2.0

# A clock that was set by less than this is not told from one that was disciplined slowly.
_STEP = 1.0

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def __virtual__() -> str:
    return __virtualname__


# --- processes ---------------------------------------------------------------------------------


def _epoch(clock: int) -> float:
    """The wall clock's time at the zero of another clock, as it would be by today's setting."""
    return time.time() - time.clock_gettime(clock)


def _unit() -> str:
    return f"{__salt__['site_pillar.settings']()['lookup']['nginx_service']}.service"


_PROPERTIES = [
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "MainPID",
    "PIDFile",
    "Result",
    "ActiveEnterTimestamp",
    "ActiveEnterTimestampMonotonic",
]


def _show() -> dict[str, str]:
    return __salt__["systemd_unit.show"]([_unit()], _PROPERTIES).get(_unit(), {})


def _master(shown: dict[str, str]) -> int | None:
    return nginx_workers.masters(shown)[0]


# --- what is on the disk -----------------------------------------------------------------------


def _base() -> str:
    return os.path.realpath(__salt__["site_pillar.settings"]()["lookup"]["nginx_dir"])


# --- is it current? ----------------------------------------------------------------------------


def _fingerprint(noted: dict[str, list[str]] | None = None) -> str:
    """What nginx would read now; ``noted`` as :py:func:`_nud_nginx_inputs.inputs` takes it."""
    return nginx_inputs.fingerprint(nginx_inputs.inputs(_base(), __context__, noted))


def _read_note() -> dict[str, Any]:
    try:
        with open(_NOTE, encoding="utf-8") as stream:
            note = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(fingerprint: str, master: int) -> None:
    durable_file.directory(os.path.dirname(_NOTE), mode="0755")
    named = nginx_inputs.named(__context__)
    note = {"inputs": fingerprint, "master": nginx_workers.identity(master), "named": named}
    text = json.dumps(note, sort_keys=True)
    durable_file.write(_NOTE, text + "\n", mode="0644")


def sweep() -> None:
    """
    Remove what a run has left that was killed while it wrote its note.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.sweep
    """
    durable_file.sweep(_NOTE)


def _clock_was_set() -> bool:
    """
    Whether the wall clock was set since nginx started: times of files then say nothing.

    systemd knows that moment by both clocks.  By busctl: systemctl writes the time of the wall
    clock in words, in the zone of whoever asks.
    """
    path = "".join(c if c.isalnum() else f"_{ord(c):02x}" for c in _unit())
    command = ["busctl", "get-property", "org.freedesktop.systemd1"]
    command += [f"/org/freedesktop/systemd1/unit/{path}", "org.freedesktop.systemd1.Unit"]
    command += ["ActiveEnterTimestamp", "ActiveEnterTimestampMonotonic"]
    result = subprocess.run(
        command,
        env={"PATH": _PATH, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    found = re.findall(r"^t (\d+)$", result.stdout, re.MULTILINE)
    if result.returncode or len(found) != 2:
        raise CommandExecutionError(f"busctl get-property: {result.stderr.strip()}")
    wall, monotonic = (int(text) / 1e6 for text in found)
    return abs(_epoch(time.CLOCK_MONOTONIC) - (wall - monotonic)) > _STEP


def _stale(master: int) -> str | None:
    """Why the running configuration is not, or may not be, the one on the disk; None when it is."""
    workers = nginx_workers.workers(master)
    if not workers:
        return "no worker of it takes connections"
    note = _read_note()
    if note.get("master") == nginx_workers.identity(master):
        # Whatever this process has read since then was the same: a fingerprint with the change
        # times in it does not come back.  The same holds for what the files have named.
        if note.get("inputs") == _fingerprint(note.get("named")):
            return None
        return "the configuration has changed"
    rows = nginx_inputs.inputs(_base(), __context__)
    if _clock_was_set():
        return "the clock was set since nginx started, so that times do not tell what it has read"
    newest = max(row[4] for row in rows.values() if row)
    # The oldest of the workers: one that died is replaced by a younger one with the configuration
    # that the master has had all along.
    ticks = min(workers.values()) / os.sysconf("SC_CLK_TCK")
    if newest / 1e9 + _CLOSE < _epoch(time.CLOCK_BOOTTIME) + ticks:
        return None
    return "the configuration was changed after nginx read it"


def status(lines: int = 10) -> dict[str, Any]:
    """
    What is known about nginx: the questions that one asks ``systemctl`` and the logs by hand.

    lines
        how many of the error log's last lines

    Returns a dictionary: ``loaded``, ``enabled``, ``active`` and ``running`` (booleans), ``pid``,
    ``since`` (as systemd writes it), ``version`` (installed), ``config_current`` (None when it does
    not run), ``binary_current``, ``stale`` (why not), ``error_log`` with ``path`` and ``lines``.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.status
        salt '*' nginx_process.status lines=50
    """
    shown = _show()
    master = _master(shown)
    stale = _stale(master) if master else None
    replaced = nginx_workers.replaced(master) if master else []
    try:
        version: str | None = nginx_program.version()
    except CommandExecutionError:
        version = None
    path = nginx_log.path_of(master, _base())
    return {
        "loaded": shown.get("LoadState") == "loaded",
        "enabled": shown.get("UnitFileState") in ("enabled", "enabled-runtime"),
        "active": shown.get("ActiveState") == "active",
        "running": master is not None and shown.get("SubState") == "running",
        "pid": master,
        "since": shown.get("ActiveEnterTimestamp") or None,
        "version": version,
        "config_current": (stale is None) if master else None,
        "binary_current": (not replaced) if master else None,
        "stale": "; ".join([*([stale] if stale else []), *(f"{p} was replaced" for p in replaced)])
        or None,
        "error_log": {"path": path, "lines": nginx_log.tail(path, lines)},
    }


def pid() -> int | None:
    """
    nginx's master process, by one question to systemd and none to the disk.

    Returns its number; None when nginx does not run.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.pid
    """
    return _master(_show())


def diff() -> dict[str, str]:
    """
    What is to be done so that nginx runs, and runs what is on the disk.

    Returns a dictionary of reasons, empty when all is right: ``masked`` (nothing can be done),
    ``enable``, ``start``, ``upgrade`` (the binary was replaced), ``reload``.

    Raises CommandExecutionError when systemd does not answer or has no such unit.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.diff
    """
    shown = _show()
    if shown.get("LoadState") == "masked":
        return {"masked": f"{_unit()} is masked"}
    if shown.get("LoadState") != "loaded":
        raise CommandExecutionError(f"{_unit()}: {shown.get('LoadState', 'unknown to systemd')}")
    found = {}
    if shown.get("UnitFileState") not in ("enabled", "static", "generated", "indirect", "alias"):
        found["enable"] = f"{_unit()} is {shown.get('UnitFileState') or 'not enabled'}"
    master, predecessor = nginx_workers.masters(shown)
    if master is None:
        found["start"] = f"{_unit()} is {shown.get('ActiveState', 'not active')}"
        return found
    replaced = nginx_workers.replaced(master)
    if replaced:
        found["upgrade"] = f"{', '.join(replaced)} was replaced"
    elif predecessor:
        found["upgrade"] = f"process {predecessor}, which it has replaced, still takes connections"
    if "upgrade" in found:
        return found
    stale = _stale(master)
    if stale:
        found["reload"] = stale
    return found


# --- acting ------------------------------------------------------------------------------------


def _await(timeout: float, step: Any) -> Any:
    """Ask until there is an answer; None when the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        answer = step()
        if answer is not None:
            return answer
        now = time.monotonic()
        if now > deadline:
            return None
        # A look at all processes takes some milliseconds; two thirds of the time are for the others.
        time.sleep(max(0.01, 2 * (now - asked)))


def _taken_over(master: int, old: set[int], log: nginx_log.Log) -> Any:
    """
    After a signal: the new workers when they have taken over, nginx's errors when it gave up.

    A reload that succeeds starts all workers anew and tells the old ones to finish; one that fails
    leaves the old ones as they are.
    """
    seen: list[float] = []

    def step() -> Any:
        if proc.process(master) is None:
            return ["its master process is gone"]
        # All processes are looked at only where those of before say nothing against it.
        if not any(proc.title(pid) == nginx_workers.WORKER for pid in old):
            now = set(nginx_workers.workers(master))
            if now and not now & old:
                return now
        errors = log.errors()
        if not errors:
            return None
        seen.append(time.monotonic())
        # A port in use is tried five times, half a second apart (ngx_open_listening_sockets()):
        # the first error is not yet the end.
        if any("still could not bind" in error for error in errors):
            return errors
        return errors if seen[-1] - seen[0] > 4 else None

    return step


def _all_workers(master: int) -> list[int]:
    """The workers, once the last of them has been started: when their number stands still."""
    before = None
    while before != (now := sorted(nginx_workers.workers(master))):
        before = now
        time.sleep(0.1)
    return now


def reload(timeout: float = 60) -> dict[str, Any]:
    """
    Make nginx read its configuration again, and see that it did.

    timeout
        seconds that the new workers may take to come up

    Returns ``{"pid": the master's, "workers": […], those of the new generation}``.

    Raises CommandExecutionError when nginx is not running, the configuration does not pass its
    test, or the old workers are still the ones that serve; with what nginx wrote to its log.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.reload
    """
    # Not a second time in a run that has brought the tree to where it is.
    if not nginx_judge.accepted(_base(), __context__):
        _tested()
    # A held socket that this nginx does not have: it could not bind that address.
    __salt__["nginx_socket.let_go"]()
    for _ in range(3):
        master = _master(_show())
        if master is None:
            raise CommandExecutionError(f"{_unit()} is not running")
        fingerprint = _fingerprint()
        log = nginx_log.Log(nginx_log.path_of(master, _base()))
        old = set(nginx_workers.workers(master))
        step = _taken_over(master, old, log)
        __salt__["systemd_unit.reload"]([_unit()], timeout=timeout)
        answer = _await(timeout, step)
        if not isinstance(answer, set):
            told = "\n".join(answer) if answer else f"nothing in {log.path} says why"
            raise CommandExecutionError(
                f"nginx was told to reload and still runs its old configuration:\n{told}"
            )
        # nginx tells its old workers to finish when it has started all the new ones, and 100 ms have
        # passed (ngx_reconfigure in ngx_master_process_cycle(), src/os/unix/ngx_process_cycle.c).
        workers = sorted(answer) if old else _all_workers(master)
        if _fingerprint() == fingerprint:
            _write_note(fingerprint, master)
            return {"pid": master, "workers": workers}
        # It was written to while nginx read it: which half was read, nobody knows.
    raise CommandExecutionError("the configuration kept changing while nginx read it")


def _tested() -> None:
    verdict = __salt__["nginx_tree.check"]()
    if not verdict["ok"]:
        raise CommandExecutionError(
            "nginx refuses the tree that is on the disk:\n" + "\n".join(verdict["errors"])
        )


def start(timeout: float = 60) -> dict[str, Any]:
    """
    Start nginx, after its configuration has passed nginx's own test.

    timeout
        seconds

    Returns ``{"pid": the master's, "workers": […]}``.

    Raises CommandExecutionError with the reason when it does not come up.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.start
    """
    return _brought_up("start", timeout)


def restart(timeout: float = 60) -> dict[str, Any]:
    """
    Stop nginx and start it, after its configuration has passed nginx's own test.

    Only for what no reload can do: addresses that systemd does not hold refuse connections meanwhile
    (see :py:func:`nginx_socket.status`).

    timeout
        seconds

    Returns ``{"pid": the master's, "workers": […]}``.

    Raises CommandExecutionError with the reason when it does not come up.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.restart
    """
    return _brought_up("restart", timeout)


def _brought_up(verb: str, timeout: float) -> dict[str, Any]:
    _tested()
    fingerprint = _fingerprint()
    try:
        __salt__[f"systemd_unit.{verb}"]([_unit()], timeout=timeout)
    except CommandExecutionError as error:
        lines = __salt__["systemd_unit.journal"](_unit(), 5)
        raise CommandExecutionError("\n".join([f"{error}", *lines])) from error

    def up() -> int | None:
        master = _master(_show())
        return master if master and nginx_workers.workers(master) else None

    master = _await(timeout, up)
    if master is None:
        raise CommandExecutionError(f"{_unit()} was told to {verb} and has no workers")
    workers = _all_workers(master)
    if _fingerprint() == fingerprint:
        _write_note(fingerprint, master)
    return {"pid": master, "workers": workers}


def upgrade(timeout: float = 60) -> dict[str, Any]:
    """
    Let the binary that is on the disk take over from the one that runs; no connection is lost.

    As Debian's own ``/etc/init.d/nginx upgrade`` does it (https://nginx.org/en/docs/control.html):
    USR2 makes the master start the new binary, which inherits the listening sockets; when its
    workers are up the old master is told to finish (QUIT).  systemd follows to the new master by
    the unit's ``PIDFile=`` when the old one ends.

    timeout
        seconds for each step

    Returns ``{"pid": the new master, "workers": […]}``.

    Raises CommandExecutionError when the new binary does not take over; the old one then serves on.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.upgrade
    """
    _tested()
    shown = _show()
    old, predecessor = nginx_workers.masters(shown)
    if old is None:
        raise CommandExecutionError(f"{_unit()} is not running")
    pid_file = shown.get("PIDFile") or ""
    if not pid_file:
        raise CommandExecutionError(
            f"{_unit()} has no PIDFile=, so systemd would take the end of the old process for the "
            f"service's: restart it"
        )
    if predecessor:
        # A run was killed half-way: the new one is up, the old one was not yet told to finish.
        new, old, fingerprint = old, predecessor, ""
    else:
        fingerprint = _fingerprint()
        log = nginx_log.Log(nginx_log.path_of(old, _base()))
        os.kill(old, signal.SIGUSR2)

        def successor() -> Any:
            for pid, (title, _) in nginx_workers.children(old).items():
                up = title.startswith("nginx: master process") and nginx_workers.workers(pid)
                if up and nginx_workers.read_pid(pid_file) == pid:
                    return pid
            return log.errors() or None

        new = _await(timeout, successor)
        if not isinstance(new, int):
            told = "\n".join(new) if new else f"nothing in {log.path} says why"
            raise CommandExecutionError(f"the replaced nginx did not take over:\n{told}")
    workers = _all_workers(new)
    finishing = nginx_workers.identity(old)
    os.kill(old, signal.SIGQUIT)

    def finished() -> Any:
        if nginx_workers.identity(old) != finishing:
            # systemd goes over to the process in the pid file when the old one has ended.
            return True if _show().get("MainPID") == str(new) else None
        # A download may outlast the waiting; it takes no new connections.
        return None if nginx_workers.workers(old) else True

    if not _await(timeout, finished):
        raise CommandExecutionError(f"the old nginx, process {old}, does not finish")
    if fingerprint and _fingerprint() == fingerprint:
        _write_note(fingerprint, new)
    return {"pid": new, "workers": workers}
