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

import glob
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import time
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import durable_file

__virtualname__ = "nginx_process"

_NOTE = "/run/nginx_uwsgi_django/nginx_process.json"

# In __context__: what each file of the tree names, by path, with the row that it had then.
_NAMED = "nginx_process.named"

# Within so many seconds of a start the times alone do not say whether a change was read: see above.
_CLOSE = 2.0

# A clock that was set by less than this is not told from one that was disciplined slowly.
_STEP = 1.0

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A worker that takes connections; one that is to finish adds "is shutting down" to it.
_WORKER = "nginx: worker process"

# Directives that name a file which nginx reads when it reads its configuration.
_READS = {
    "include",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_client_certificate",
    "ssl_crl",
    "ssl_dhparam",
    "ssl_password_file",
    "ssl_session_ticket_key",
    "ssl_stapling_file",
    "ssl_trusted_certificate",
    "uwsgi_ssl_trusted_certificate",
}
_REFERENCE = re.compile(
    rf"(?<![^;{{}}\s])(?:{'|'.join(sorted(_READS))})\s+(\"[^\"]*\"|'[^']*'|[^\s;]+)\s*;"
)
_COMMENT = re.compile(r"#[^\n]*")


def __virtual__() -> str:
    return __virtualname__


# --- processes ---------------------------------------------------------------------------------


def _stat(pid: int) -> tuple[str, int, int] | None:
    """Name, parent and start (in clock ticks since the boot) of a process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stream:
            text = stream.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold any character: what follows starts after the last.
    fields = text[text.rindex(b")") + 2 :].split()
    name = text[text.index(b"(") + 1 : text.rindex(b")")].decode("utf-8", "replace")
    # proc(5): fields[0] is field 3, the state; 4 is the parent, 22 the start.
    return (name, int(fields[1]), int(fields[19])) if fields[0] not in b"ZX" else None


def _title(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _children(master: int) -> dict[int, tuple[str, int]]:
    """A master's processes: title and start (ticks) by pid."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            seen = _stat(int(entry))
            if seen is not None and seen[1] == master and seen[0] == "nginx":
                title = _title(int(entry))
                if title:
                    found[int(entry)] = (title, seen[2])
    return found


def _workers(master: int) -> dict[int, int]:
    """The workers that take new connections: start (ticks) by pid."""
    return {pid: start for pid, (title, start) in _children(master).items() if title == _WORKER}


def _identity(master: int) -> list[int] | None:
    """A process, told from any other of this boot: its pid and its start."""
    seen = _stat(master)
    return [master, seen[2]] if seen else None


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


def _read_pid(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read())
    except (FileNotFoundError, ValueError):
        return None


def _masters(shown: dict[str, str]) -> tuple[int | None, int | None]:
    """
    The master process, and one that it has replaced but that still takes connections.

    While a new binary takes over there are two: systemd's main process, and its child, whose
    number is in the pid file.  Killed in the middle, it stays like that.
    """
    text = shown.get("MainPID", "0")
    main = int(text) if text.isdigit() and int(text) else None
    if main is None:
        return None, None
    new = _read_pid(shown.get("PIDFile") or "")
    if not _stat(main):
        # The old master has just ended, and systemd has not yet gone over to the one in the pid file.
        if new is not None and (seen := _stat(new)) and seen[0] == "nginx" and _workers(new):
            return new, None
        return None, None
    if new is not None and new != main:
        seen = _stat(new)
        if seen and seen[0] == "nginx" and seen[1] == main and _workers(new):
            return new, (main if _workers(main) else None)
    return main, None


def _master(shown: dict[str, str]) -> int | None:
    return _masters(shown)[0]


# --- what is on the disk -----------------------------------------------------------------------


def _base() -> str:
    return os.path.realpath(__salt__["site_pillar.settings"]()["lookup"]["nginx_dir"])


def _references(text: str, base: str) -> set[str]:
    """The files that a configuration text names, those that nginx reads with it."""
    found = set()
    for match in _REFERENCE.finditer(_COMMENT.sub("", text)):
        path = match.group(1).strip("\"'")
        if not path.startswith(("data:", "engine:")) and "$" not in path:
            found.add(os.path.join(base, path))
    return found


def _row(seen: os.stat_result) -> list[int]:
    return [seen.st_dev, seen.st_ino, seen.st_mode, seen.st_size, seen.st_ctime_ns]


def _named(path: str, row: list[int], base: str) -> list[str]:
    """The files that a file names; read once in a run, as long as it does not change."""
    memory: dict[str, tuple[list[int], list[str]]] = __context__.setdefault(_NAMED, {})
    if path not in memory or memory[path][0] != row:
        try:
            with open(path, "rb") as stream:
                text = stream.read(4 << 20).decode("utf-8", "replace")
        except OSError:
            return []
        memory[path] = (row, sorted(_references(text, base)))
    return memory[path][1]


def _inputs(noted: dict[str, list[str]] | None = None) -> dict[str, list[int]]:
    """
    Everything that nginx reads with its configuration: path, and what says that it changed.

    noted
        what files have named, by path; then none is read, and the answer is right if none of them
        has changed since
    """
    base = _base()
    rows: dict[str, list[int]] = {}
    # By device and inode: a site's file has a second name, by which nginx includes it.
    texts: set[tuple[int, int]] = set()

    def note(path: str, follow: bool) -> os.stat_result | None:
        key = path + (" ->" if follow else "")
        try:
            seen = os.stat(path) if follow else os.lstat(path)
        except OSError:
            # A dangling link, or a file that is not there: that too may change.
            rows[key] = []
            return None
        rows[key] = _row(seen)
        return seen

    def file(path: str) -> None:
        seen = note(path, False)
        if seen is not None and stat.S_ISLNK(seen.st_mode):
            seen = note(path, True)
        if seen is None or not stat.S_ISREG(seen.st_mode) or (seen.st_dev, seen.st_ino) in texts:
            return
        texts.add((seen.st_dev, seen.st_ino))
        names = _named(path, _row(seen), base) if noted is None else noted.get(path, [])
        for named in names:
            pattern = glob.has_magic(named)
            for target in sorted(glob.glob(named)) if pattern else [named]:
                if not target.startswith(base + os.sep):
                    file(target)
            if pattern and not named.startswith(base + os.sep):
                note(os.path.dirname(named), True)

    for folder, folders, files in os.walk(base):
        # Leftovers of a killed run are about to be removed, and are nobody's configuration.
        folders[:] = [name for name in folders if not name.startswith(".nginx_uwsgi_django-")]
        note(folder, False)
        for name in files:
            file(os.path.join(folder, name))
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                note(path, False)
                note(path, True)
    return rows


def outside() -> dict[str, list[int]]:
    """
    What nginx reads with its configuration that is not in its tree: files that the tree includes
    from elsewhere, certificates, what a link of the tree leads to.

    Returns by path what says that it changed; an empty list for what is not there.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.outside
    """
    rows, below = _inputs(), _base() + os.sep
    own = {path: row for path, row in rows.items() if f"{path}{os.sep}".startswith(below)}
    links = {path for path in own if path.endswith(" ->")}
    inside = {tuple(row[:2]) for path, row in own.items() if path not in links}
    return {
        path: row
        for path, row in rows.items()
        if (path in links or path not in own) and tuple(row[:2]) not in inside
    }


def _fingerprint(rows: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _replaced(master: int) -> list[str]:
    """The files that a process runs and that are no longer the ones at their paths."""
    found = []
    gone = " (deleted)"
    try:
        binary = os.readlink(f"/proc/{master}/exe").removesuffix(gone)
        running = os.stat(f"/proc/{master}/exe")
        with open(f"/proc/{master}/maps", encoding="utf-8", errors="replace") as stream:
            maps = stream.read()
    except (FileNotFoundError, ProcessLookupError):
        return []
    try:
        installed = os.stat(binary)
        if (installed.st_dev, installed.st_ino) != (running.st_dev, running.st_ino):
            found.append(binary)
    except FileNotFoundError:
        # The package was removed: there is nothing to go over to.
        return []
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and "x" in fields[1] and fields[5].endswith(gone):
            path = fields[5].removesuffix(gone)
            # Not files: shared memory.
            if not path.startswith(("/dev/", "/memfd:", "/SYSV")) and path not in found:
                found.append(path)
    return found


# --- is it current? ----------------------------------------------------------------------------


def _read_note() -> dict[str, Any]:
    try:
        with open(_NOTE, encoding="utf-8") as stream:
            note = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(fingerprint: str, master: int) -> None:
    durable_file.directory(os.path.dirname(_NOTE), mode="0755")
    named = {path: names for path, (_, names) in __context__.get(_NAMED, {}).items() if names}
    note = {"inputs": fingerprint, "master": _identity(master), "named": named}
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
    workers = _workers(master)
    if not workers:
        return "no worker of it takes connections"
    note = _read_note()
    if note.get("master") == _identity(master):
        # Whatever this process has read since then was the same: a fingerprint with the change
        # times in it does not come back.  The same holds for what the files have named.
        if note.get("inputs") == _fingerprint(_inputs(note.get("named"))):
            return None
        return "the configuration has changed"
    rows = _inputs()
    if _clock_was_set():
        return "the clock was set since nginx started, so that times do not tell what it has read"
    newest = max(row[4] for row in rows.values() if row)
    # The oldest of the workers: one that died is replaced by a younger one with the configuration
    # that the master has had all along.
    ticks = min(workers.values()) / os.sysconf("SC_CLK_TCK")
    if newest / 1e9 + _CLOSE < _epoch(time.CLOCK_BOOTTIME) + ticks:
        return None
    return "the configuration was changed after nginx read it"


def _log_path(master: int | None) -> str | None:
    """Where nginx writes its errors: what the master has as its standard error."""
    if master is not None:
        try:
            path = os.readlink(f"/proc/{master}/fd/2")
        except OSError:
            path = ""
        if path.startswith("/") and not path.startswith("/dev/"):
            return path.removesuffix(" (deleted)")
    try:
        with open(os.path.join(_base(), "nginx.conf"), encoding="utf-8", errors="replace") as conf:
            found = re.search(r"^[ \t]*error_log[ \t]+(/[^\s;]+)", conf.read(), re.MULTILINE)
    except FileNotFoundError:
        return None
    if found:
        return found.group(1)
    try:
        path = __salt__["nginx_tree.compiled"]().get("error-log-path", "")
    except CommandExecutionError:
        return None
    return path if path.startswith("/") else None


def _tail(path: str | None, lines: int) -> list[str]:
    if path is None:
        return []
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 512 * lines))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


class _Log:
    """What is added to a log from now on."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.offset, self.inode = self._at()

    def _at(self) -> tuple[int, int]:
        try:
            seen = os.stat(self.path or "")
        except OSError:
            return 0, 0
        return seen.st_size, seen.st_ino

    def errors(self) -> list[str]:
        """The lines at which nginx gave up, once each, without their time and process."""
        if self.path is None:
            return []
        size, inode = self._at()
        # Rotated or truncated meanwhile: all of it is new.
        start = self.offset if inode == self.inode and size >= self.offset else 0
        try:
            with open(self.path, "rb") as stream:
                stream.seek(start)
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return []
        # "*" and a number: about a connection, not about the configuration.
        found = re.findall(r"\[emerg\] \d+#\d+: (?!\*\d)(.*)", text)
        return list(dict.fromkeys(found))


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
    replaced = _replaced(master) if master else []
    try:
        version: str | None = __salt__["nginx_tree.version"]()
    except CommandExecutionError:
        version = None
    path = _log_path(master)
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
        "error_log": {"path": path, "lines": _tail(path, lines)},
    }


def pid(shown: dict[str, str] | None = None) -> int | None:
    """
    nginx's master process, by one question to systemd and none to the disk.

    shown
        ``MainPID`` and ``PIDFile`` of its unit, where systemd was asked already

    Returns its number; None when nginx does not run.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.pid
    """
    return _master(_show() if shown is None else shown)


def accounts() -> list[dict[str, Any]]:
    """
    The accounts that nginx's workers run as, read from the running processes.

    Returns a list of dictionaries, one for each account: ``user`` (a name, or a number where the
    account is gone), ``groups`` (names, supplementary groups among them), ``uid``, ``gid`` and
    ``finishing`` (True when only workers run as it that take no new connections). Empty when nginx
    does not run.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.accounts
    """
    found: dict[tuple[int, int, tuple[int, ...]], bool] = {}
    main = _show().get("MainPID", "0")
    masters = [int(main)] if main.isdigit() and int(main) else []
    for master in masters:
        for pid, (title, _) in _children(master).items():
            if title.startswith("nginx: master process"):
                # A new binary that takes over is the child of the one that it replaces.
                masters.append(pid)
            elif title.startswith(_WORKER) and (numbers := _numbers(pid)):
                found[numbers] = found.get(numbers, True) and title != _WORKER
    name = __salt__["host_survey.name_of"]
    return [
        {
            "user": name("user", uid),
            "groups": sorted({name("group", each) for each in (gid, *more)}),
            "uid": uid,
            "gid": gid,
            "finishing": finishing,
        }
        for (uid, gid, more), finishing in sorted(found.items())
    ]


def _numbers(pid: int) -> tuple[int, int, tuple[int, ...]] | None:
    """A process's user, group and supplementary groups; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            fields = dict(line.rstrip("\n").partition(":")[::2] for line in stream)
    except (FileNotFoundError, ProcessLookupError):
        return None
    uid, gid = (int(fields[key].split()[1]) for key in ("Uid", "Gid"))
    return uid, gid, tuple(sorted(map(int, fields["Groups"].split())))


def due() -> dict[str, str]:
    """
    What is to be done so that nginx runs, and runs what is on the disk.

    Returns a dictionary of reasons, empty when all is right: ``masked`` (nothing can be done),
    ``enable``, ``start``, ``upgrade`` (the binary was replaced), ``reload``.

    Raises CommandExecutionError when systemd does not answer or has no such unit.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_process.due
    """
    shown = _show()
    if shown.get("LoadState") == "masked":
        return {"masked": f"{_unit()} is masked"}
    if shown.get("LoadState") != "loaded":
        raise CommandExecutionError(f"{_unit()}: {shown.get('LoadState', 'unknown to systemd')}")
    found = {}
    if shown.get("UnitFileState") not in ("enabled", "static", "generated", "indirect", "alias"):
        found["enable"] = f"{_unit()} is {shown.get('UnitFileState') or 'not enabled'}"
    master, predecessor = _masters(shown)
    if master is None:
        found["start"] = f"{_unit()} is {shown.get('ActiveState', 'not active')}"
        return found
    replaced = _replaced(master)
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


def _taken_over(master: int, old: set[int], log: _Log) -> Any:
    """
    After a signal: the new workers when they have taken over, nginx's errors when it gave up.

    A reload that succeeds starts all workers anew and tells the old ones to finish; one that fails
    leaves the old ones as they are.
    """
    seen: list[float] = []

    def step() -> Any:
        if _stat(master) is None:
            return ["its master process is gone"]
        # All processes are looked at only where those of before say nothing against it.
        if not any(_title(pid) == _WORKER for pid in old):
            now = set(_workers(master))
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
    while before != (now := sorted(_workers(master))):
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
    if not __salt__["nginx_tree.accepted"]():
        _tested()
    # A held socket that this nginx does not have: it could not bind that address.
    __salt__["nginx_socket.let_go"]()
    for _ in range(3):
        master = _master(_show())
        if master is None:
            raise CommandExecutionError(f"{_unit()} is not running")
        fingerprint = _fingerprint(_inputs())
        log = _Log(_log_path(master))
        old = set(_workers(master))
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
        if _fingerprint(_inputs()) == fingerprint:
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
    fingerprint = _fingerprint(_inputs())
    try:
        __salt__[f"systemd_unit.{verb}"]([_unit()], timeout=timeout)
    except CommandExecutionError as error:
        lines = __salt__["systemd_unit.journal"](_unit(), 5)
        raise CommandExecutionError("\n".join([f"{error}", *lines])) from error

    def up() -> int | None:
        master = _master(_show())
        return master if master and _workers(master) else None

    master = _await(timeout, up)
    if master is None:
        raise CommandExecutionError(f"{_unit()} was told to {verb} and has no workers")
    workers = _all_workers(master)
    if _fingerprint(_inputs()) == fingerprint:
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
    old, predecessor = _masters(shown)
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
        fingerprint = _fingerprint(_inputs())
        log = _Log(_log_path(old))
        os.kill(old, signal.SIGUSR2)

        def successor() -> Any:
            for pid, (title, _) in _children(old).items():
                up = title.startswith("nginx: master process") and _workers(pid)
                if up and _read_pid(pid_file) == pid:
                    return pid
            return log.errors() or None

        new = _await(timeout, successor)
        if not isinstance(new, int):
            told = "\n".join(new) if new else f"nothing in {log.path} says why"
            raise CommandExecutionError(f"the replaced nginx did not take over:\n{told}")
    workers = _all_workers(new)
    finishing = _identity(old)
    os.kill(old, signal.SIGQUIT)

    def finished() -> Any:
        if _identity(old) != finishing:
            # systemd goes over to the process in the pid file when the old one has ended.
            return True if _show().get("MainPID") == str(new) else None
        # A download may outlast the waiting; it takes no new connections.
        return None if _workers(old) else True

    if not _await(timeout, finished):
        raise CommandExecutionError(f"the old nginx, process {old}, does not finish")
    if fingerprint and _fingerprint(_inputs()) == fingerprint:
        _write_note(fingerprint, new)
    return {"pid": new, "workers": workers}
