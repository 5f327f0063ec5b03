"""
Units: what systemd says of them, and what it is asked to do with them.

:py:mod:`systemd_unit <_modules.systemd_unit>` offers the same functions on the command line, and
describes their parameters.
"""

import contextlib
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud_cache import refuse_change
from _nud_systemd import act, query, run, unit_names

# Where an administrator's unit files live, the formula's among them.  A package brings its own
# daemon-reload along.
_UNIT_DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system")

# Where all of them are, and drop-ins for them.
_UNIT_PATH = (
    *_UNIT_DIRECTORIES,
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)

# The same, first of all what counts most.
_BY_PRECEDENCE = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    *_UNIT_DIRECTORIES,
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)

# Its time is when systemd began to read unit files the last time (manager_ready() in core/manager.c,
# the property UnitsLoadTimestamp; UnitsLoadStartTimestamp stays that of the boot).
_LOADED = "/run/systemd/systemd-units-load"

# A symbolic link for each unit that was started, made when it was.
_INVOCATIONS = "/run/systemd/units/invocation:"

# What a caller who names no property gets.
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "NeedDaemonReload",
    "MainPID",
    "Result",
    "InvocationID",
)


class _Later(threading.local):
    """Whether systemd is reloaded at the end of a :py:func:`reload_later` block of this thread."""

    active = False
    # Whether a reload was asked for, and whether it is forced.
    asked = False
    forced = False


_LATER = _Later()


def show(units: str | list[str], properties: list[str] | None = None) -> dict[str, dict[str, str]]:
    """Properties of units, all in one call of systemctl."""
    names = unit_names(units)
    wanted = list(properties if properties is not None else _PROPERTIES)
    # Names: systemctl prints plain names before the matches of patterns, whatever their order in
    # the command, and an alias under the name of its target (src/systemctl/systemctl-show.c).
    asked = ",".join(dict.fromkeys([*wanted, "Id", "Names"]))
    found: dict[str, dict[str, str]] = {}
    command = ["systemctl", "show", "--timestamp=us+utc", f"--property={asked}", "--", *names]
    for block in query(command).split("\n\n"):
        unit: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            name, separator, value = line.partition("=")
            if separator and re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
                key = name
                unit[key] = f"{unit[key]}\n{value}" if key in unit else value
            elif key:
                unit[key] += f"\n{line}"
        if "Id" not in unit:
            continue
        known = {unit["Id"], *unit.get("Names", "").split()}
        answer = {key: value for key, value in unit.items() if key in wanted}
        for name in known.intersection(names) or {unit["Id"]}:
            found[name] = answer
    return found


def glance(pattern: str) -> dict[str, dict[str, Any]]:
    """
    The loaded units whose names match a pattern, by one question for all of them:
    :py:func:`show` takes a millisecond of systemd's for each unit.
    """
    answer = query(
        [
            "busctl",
            "call",
            "--json=short",
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "ListUnitsByPatterns",
            "asas",
            "0",
            "1",
            pattern,
        ]
    )
    prefix = pattern.partition("*")[0]
    stale = needs_reload(prefix) or _may_have_drop_ins(prefix)
    found = {}
    # As org.freedesktop.systemd1(5) has it: name, description, load, active and sub state, …
    for name, _, load, active, sub, *_ in json.loads(answer)["data"][0]:
        found[name] = {
            "LoadState": load,
            "ActiveState": active,
            "SubState": sub,
            "since": _started(name),
            "stale": stale,
        }
    return found


def runs(unit: str) -> bool:
    """
    Whether a unit is up, or on its way there or from there. Starts no program: systemd keeps a link
    with the invocation's ID as long as it is (src/core/unit.c, unit_export_state_files()).
    """
    return os.path.lexists(f"{_INVOCATIONS}{unit}")


def _started(unit: str) -> float | None:
    """When systemd gave a unit that runs its invocation ID (src/core/unit.c, unit_export_…)."""
    try:
        return os.lstat(f"{_INVOCATIONS}{unit}").st_mtime
    except FileNotFoundError:
        return None


# For Debian's emperor, which no site can be named after (RESERVED_SITE): see socket_directory.
_FOREIGN = "uwsgi-emperor.service.d"


def _may_have_drop_ins(prefix: str) -> bool:
    """Whether a directory is there that drop-ins of such units could be in (systemd.unit(5))."""
    for directory in _UNIT_PATH:
        try:
            entries = os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if any(
            entry.endswith(".d")
            and entry != _FOREIGN
            and (entry in ("service.d", "socket.d") or entry.startswith(prefix))
            for entry in entries
        ):
            return True
    return False


def drop_ins(unit: str) -> list[str]:
    """
    The drop-ins that apply to a unit of a template by its own name or its template's, whether or
    not systemd knows the unit yet. Those for all units of its type are not among them.
    """
    stem, _, kind = unit.rpartition(".")
    template = stem.partition("@")[0] + "@"
    found: dict[str, str] = {}
    # Of files of one name the first counts: those for the instance, then by the place.
    for name in (f"{unit}.d", f"{template}.{kind}.d"):
        for directory in _BY_PRECEDENCE:
            folder = os.path.join(directory, name)
            for entry in os.listdir(folder) if os.path.isdir(folder) else []:
                if entry.endswith(".conf"):
                    found.setdefault(entry, os.path.join(folder, entry))
    return [found[entry] for entry in sorted(found)]


def journal(
    unit: str, lines: int = 20, invocation: str | None = None, output: str = "cat"
) -> list[str]:
    """The last lines that a unit wrote, and what systemd said about it."""
    # What a process wrote just before it died may still be on its way to the journal.
    query(["journalctl", "--sync"])
    which = [f"--unit={unit}"]
    if invocation:
        # The first is on what the unit's processes say, the second on what systemd says of it.
        which = [f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}"]
    text = query(
        ["journalctl", "--quiet", "--no-pager", f"--output={output}", f"--lines={lines:d}", *which]
    )
    return text.splitlines()[-lines:]


def start(units: str | list[str], timeout: float = 90) -> bool:
    """Start units and wait until they are up."""
    return act("start", units, timeout)


def stop(
    units: str | list[str], timeout: float = 90, wait: bool = True, alone: bool = False
) -> bool:
    """Stop units and wait until they are down."""
    options = [] if wait else ["--no-block"]
    return act(
        "stop", units, timeout, *options, *(["--job-mode=ignore-dependencies"] if alone else [])
    )


def restart(units: str | list[str], timeout: float = 90) -> bool:
    """Restart units (start those that are down) and wait until they are up."""
    return act("restart", units, timeout)


def reload(units: str | list[str], timeout: float = 90) -> bool:
    """Ask units to read their configuration again (``ExecReload=``) and wait for the command's end."""
    return act("reload", units, timeout)


def kill(unit: str, signal: str = "SIGTERM", who: str = "main", timeout: float = 30) -> bool:
    """Send a signal to a unit's processes."""
    # --kill-whom= is the newer name of --kill-who= (systemd 252); every version takes the old one.
    return act("kill", unit, timeout, f"--kill-who={who}", f"--signal={signal}")


def enable(units: str | list[str], timeout: float = 60) -> bool:
    """Make units start with the system, by their ``[Install]`` section. They are not started now."""
    return act("enable", units, timeout, "--quiet")


def disable(units: str | list[str], timeout: float = 60, later: bool = False) -> bool:
    """Make units not start with the system. They are not stopped now."""
    if later and _LATER.active:
        _LATER.asked = _LATER.forced = True
        return act("disable", units, timeout, "--quiet", "--no-reload")
    return act("disable", units, timeout, "--quiet")


def reset_failed(units: str | list[str], timeout: float = 60) -> bool:
    """Forget that units failed, where systemd still has them in memory."""
    # systemctl fails for a unit that is not loaded, so only the failed ones are named.
    failed = [
        name
        for name, unit in show(units, ["ActiveState"]).items()
        if unit.get("ActiveState") == "failed"
    ]
    return bool(failed) and act("reset-failed", failed, timeout)


def needs_reload(prefix: str = "") -> bool:
    """Whether a unit file is newer than what systemd has read."""
    try:
        loaded = os.stat(_LOADED).st_mtime_ns
    except FileNotFoundError:
        # An older systemd: one reload too many is better than one too few.
        return True
    return any(_changed(directory, prefix) >= loaded for directory in _UNIT_DIRECTORIES)


def _changed(directory: str, prefix: str = "") -> int:
    """
    The newest change time, in nanoseconds, of what is directly inside a directory, and, so that
    what is gone counts, of the directory itself.
    """
    newest = 0
    try:
        if not prefix:
            newest = os.stat(directory).st_ctime_ns
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.name.startswith(prefix):
                    continue
                newest = max(newest, entry.stat(follow_symlinks=False).st_ctime_ns)
                if entry.name.endswith(".d") and entry.is_dir(follow_symlinks=False):
                    newest = max(newest, _changed(entry.path))
    except FileNotFoundError:
        # Not there, or removed while it was read, which the directory's own time shows.
        return newest
    return newest


@contextlib.contextmanager
def reload_later() -> Iterator[None]:
    """
    While the block goes on, a :py:func:`daemon_reload` that may come later is left to the end of
    it: it takes systemd a millisecond and more for each unit that there is.
    """
    _LATER.active, _LATER.asked, _LATER.forced = True, False, False
    try:
        yield
    finally:
        _LATER.active = False
        if _LATER.asked:
            daemon_reload(force=_LATER.forced)


def read_anew(units: str | list[str]) -> bool:
    """
    Make systemd know units as their files are now. It reads the file of one that it does not have
    in memory when it is asked for it; only for others all of them have to be read again.
    """
    shown = show(units, ["NeedDaemonReload"])
    if all(unit["NeedDaemonReload"] == "no" for unit in shown.values()):
        return False
    return daemon_reload(force=True)


def daemon_reload(force: bool = False, timeout: float = 90, later: bool = False) -> bool:
    """Make systemd read the unit files again, when one is newer than what it has read."""
    if later and _LATER.active:
        # The need is looked at then: a look at all unit files, once.
        _LATER.asked = True
        _LATER.forced |= force
        return False
    if not force and not needs_reload():
        return False
    refuse_change("reload systemd")
    # File times come from a clock that stands still for up to a tick (4 to 10 ms): one written in
    # the tick of the reload would look older than it, or newer for ever.
    time.sleep(0.02)
    try:
        result = run(["systemctl", "daemon-reload"], timeout)
    except subprocess.TimeoutExpired:
        raise CommandExecutionError(
            f"systemctl daemon-reload was not done within {timeout:g} s"
        ) from None
    if result.returncode:
        raise CommandExecutionError(f"systemctl daemon-reload failed: {result.stderr.strip()}")
    return True
