"""
Units, as systemd sees them.

What this adds to Salt's ``service``: any number of units' properties in one call (``service.status``
costs one fork per unit and per question, and reloads systemd behind the caller's back, which erases
the evidence that a running process is older than its unit file), a time limit on every action,
failures that carry the tool's own words, and a ``daemon-reload`` exactly when a unit file is newer
than what systemd has read.

.. versionadded:: 0.1.0
"""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import cache, systemd

__virtualname__ = "systemd_unit"


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


# Whether systemd is to be reloaded at the end of what is going on: None when nobody asked for it,
# True when it is to be in any case.
_LATER = "systemd_unit.later"


def __virtual__() -> str:
    return __virtualname__


def show(units: str | list[str], properties: list[str] | None = None) -> dict[str, dict[str, str]]:
    """
    Properties of units, all in one call of systemctl.

    units
        a name or a list of names with their suffix (``nginx.service``); a pattern
        (``uwsgi-mysite@*.service``) stands for the units that systemd has in memory
    properties
        names as in ``systemctl show``; by default the ones that say whether a unit is there,
        enabled and running

    Returns a dictionary by unit name of dictionaries by property of text, as systemd writes it
    (times of day to the microsecond and in UTC; a property of several lines keeps its newlines; a property that systemd does not know is
    missing). A unit that does not exist has ``LoadState`` ``not-found``.

    Raises CommandExecutionError when systemctl fails or does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.show nginx.service
        salt '*' systemd_unit.show '["nginx.service", "uwsgi-*.socket"]' '["ActiveState"]'
    """
    names = systemd.unit_names(units)
    wanted = list(properties if properties is not None else _PROPERTIES)
    # Names: systemctl prints plain names before the matches of patterns, whatever their order in
    # the command, and an alias under the name of its target (src/systemctl/systemctl-show.c).
    asked = ",".join(dict.fromkeys([*wanted, "Id", "Names"]))
    found: dict[str, dict[str, str]] = {}
    command = ["systemctl", "show", "--timestamp=us+utc", f"--property={asked}", "--", *names]
    for block in systemd.query(command).split("\n\n"):
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

    pattern
        e.g. ``uwsgi-*``

    Returns a dictionary by unit name of ``LoadState``, ``ActiveState``, ``SubState``; ``since``, a
    time at or shortly before which the unit was started, in seconds since 1970 (None for one that
    never was); and ``stale``: whether a unit file of that name is newer than what systemd has read,
    or a drop-in may apply, so that only :py:func:`show` tells more.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.glance 'uwsgi-*'
    """
    answer = systemd.query(
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

    unit
        a name with its suffix

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.runs nginx.service
    """
    return os.path.lexists(f"{_INVOCATIONS}{unit}")


def _started(unit: str) -> float | None:
    """When systemd gave a unit that runs its invocation ID (src/core/unit.c, unit_export_…)."""
    try:
        return os.lstat(f"{_INVOCATIONS}{unit}").st_mtime
    except FileNotFoundError:
        return None


def _may_have_drop_ins(prefix: str) -> bool:
    """Whether a directory is there that drop-ins of such units could be in (systemd.unit(5))."""
    for directory in _UNIT_PATH:
        try:
            entries = os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if any(
            entry.endswith(".d")
            and (entry in ("service.d", "socket.d") or entry.startswith(prefix))
            for entry in entries
        ):
            return True
    return False


def drop_ins(unit: str) -> list[str]:
    """
    The drop-ins that apply to a unit of a template by its own name or its template's, whether or
    not systemd knows the unit yet. Those for all units of its type are not among them.

    unit
        a name, like ``uwsgi-mysite@4f2a9c01d7e3.service``

    Returns the paths of their files in the order in which systemd reads them (systemd.unit(5)).

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.drop_ins uwsgi-mysite@4f2a9c01d7e3.service
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
    """
    The last lines that a unit wrote, and what systemd said about it.

    unit
        the unit's name with its suffix
    lines
        how many at most
    invocation
        an ``InvocationID``: only what belongs to that one start
    output
        a format of journalctl: ``cat`` (the message alone), ``short-iso`` (with time and host), …

    Returns a list of lines, oldest first; empty when there are none.

    Raises CommandExecutionError when journalctl fails.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.journal nginx.service 50 output=short-iso
    """
    # What a process wrote just before it died may still be on its way to the journal.
    systemd.query(["journalctl", "--sync"])
    which = [f"--unit={unit}"]
    if invocation:
        # The first is on what the unit's processes say, the second on what systemd says of it.
        which = [f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}"]
    text = systemd.query(
        ["journalctl", "--quiet", "--no-pager", f"--output={output}", f"--lines={lines:d}", *which]
    )
    return text.splitlines()[-lines:]


def start(units: str | list[str], timeout: float = 90) -> bool:
    """
    Start units and wait until they are up.

    units
        a name or a list of names with their suffix
    timeout
        seconds; the job is not cancelled when they are over (:py:func:`stop` does that)

    Returns True.

    Raises CommandExecutionError, with systemctl's own words, when a unit fails to start or the time
    is over.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.start nginx.service timeout=30
    """
    return systemd.act("start", units, timeout)


def stop(
    units: str | list[str], timeout: float = 90, wait: bool = True, alone: bool = False
) -> bool:
    """
    Stop units and wait until they are down.

    units, timeout
        as in :py:func:`start`
    wait
        False: only ask for it
    alone
        True: what depends on them, or is part of them, goes on

    Returns True, also when they were not running.

    Raises CommandExecutionError as :py:func:`start` does.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.stop nginx.service
    """
    options = [] if wait else ["--no-block"]
    return systemd.act(
        "stop", units, timeout, *options, *(["--job-mode=ignore-dependencies"] if alone else [])
    )


def restart(units: str | list[str], timeout: float = 90) -> bool:
    """
    Restart units (start those that are down) and wait until they are up.

    units, timeout
        as in :py:func:`start`

    Returns True.

    Raises CommandExecutionError as :py:func:`start` does.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.restart nginx.service
    """
    return systemd.act("restart", units, timeout)


def reload(units: str | list[str], timeout: float = 90) -> bool:
    """
    Ask units to read their configuration again (``ExecReload=``) and wait for the command's end.

    That the command ended well does not prove that the daemon took the configuration.

    units, timeout
        as in :py:func:`start`

    Returns True.

    Raises CommandExecutionError as :py:func:`start` does.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.reload nginx.service
    """
    return systemd.act("reload", units, timeout)


def kill(unit: str, signal: str = "SIGTERM", who: str = "main", timeout: float = 30) -> bool:
    """
    Send a signal to a unit's processes.

    unit
        a name with its suffix
    signal
        the signal's name
    who
        ``main``, ``control`` or ``all``
    timeout
        seconds

    Returns True.

    Raises CommandExecutionError as :py:func:`start` does.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.kill nginx.service SIGUSR1
    """
    # --kill-whom= is the newer name of --kill-who= (systemd 252); every version takes the old one.
    return systemd.act("kill", unit, timeout, f"--kill-who={who}", f"--signal={signal}")


def enable(units: str | list[str], timeout: float = 60) -> bool:
    """
    Make units start with the system, by their ``[Install]`` section. They are not started now.

    units, timeout
        as in :py:func:`start`

    Returns True.

    Raises CommandExecutionError as :py:func:`start` does.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.enable nginx.service
    """
    return systemd.act("enable", units, timeout, "--quiet")


def disable(units: str | list[str], timeout: float = 60, later: bool = False) -> bool:
    """
    Make units not start with the system. They are not stopped now.

    units, timeout
        as in :py:func:`start`
    later
        systemctl makes systemd read all units again after it; with True that is early enough at
        the end of :py:func:`reload_later`, if that is going on

    Returns True.

    Raises CommandExecutionError as :py:func:`start` does.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.disable nginx.service
    """
    if later and _LATER in __context__:
        __context__[_LATER] = True
        return systemd.act("disable", units, timeout, "--quiet", "--no-reload")
    return systemd.act("disable", units, timeout, "--quiet")


def reset_failed(units: str | list[str], timeout: float = 60) -> bool:
    """
    Forget that units failed, where systemd still has them in memory.

    units, timeout
        as in :py:func:`start`

    Returns True when there was something to forget.

    Raises CommandExecutionError as :py:func:`start` does.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.reset_failed nginx.service
    """
    # systemctl fails for a unit that is not loaded, so only the failed ones are named.
    failed = [
        name
        for name, unit in show(units, ["ActiveState"]).items()
        if unit.get("ActiveState") == "failed"
    ]
    return bool(failed) and systemd.act("reset-failed", failed, timeout)


def needs_reload(prefix: str = "") -> bool:
    """
    Whether a unit file is newer than what systemd has read.

    prefix
        how the names begin of those that are looked at, by default all

    Compares the change times of the administrator's unit files, drop-ins and their directories
    (so that a removed file counts) with the time of systemd's last reload: nothing has to be
    remembered, so a run that was killed between writing and reloading loses nothing.

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.needs_reload
    """
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

    A context manager, for other modules. A run that is killed in the block leaves unit files that
    are newer than what systemd has read, which :py:func:`needs_reload` shows.

    CLI Example (from another module: a block does not outlive a call):

    .. code-block:: python

        with __salt__["systemd_unit.reload_later"]():
            ...
    """
    __context__[_LATER] = None
    try:
        yield
    finally:
        forced = __context__.pop(_LATER)
        if forced is not None:
            daemon_reload(force=forced)


def read_anew(units: str | list[str]) -> bool:
    """
    Make systemd know units as their files are now. It reads the file of one that it does not have
    in memory when it is asked for it; only for others all of them have to be read again.

    units
        a name or a list of names with their suffix

    Returns True when systemd was reloaded, False when there was no need.

    Raises CommandExecutionError as :py:func:`daemon_reload` does.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.read_anew nginx.service
    """
    shown = show(units, ["NeedDaemonReload"])
    if all(unit["NeedDaemonReload"] == "no" for unit in shown.values()):
        return False
    return daemon_reload(force=True)


def daemon_reload(force: bool = False, timeout: float = 90, later: bool = False) -> bool:
    """
    Make systemd read the unit files again, when one is newer than what it has read.

    force
        do it in any case
    timeout
        seconds
    later
        it is early enough at the end of :py:func:`reload_later`, if that is going on

    Returns True when systemd was reloaded, False when there was no need.

    Raises CommandExecutionError, with systemctl's own words, when it fails or the time is over.

    CLI Example:

    .. code-block:: bash

        salt '*' systemd_unit.daemon_reload
    """
    if later and _LATER in __context__:
        # Whether there is a need is asked then: a look at all unit files, once.
        __context__[_LATER] = force or bool(__context__[_LATER])
        return False
    if not force and not needs_reload():
        return False
    cache.refuse_change("reload systemd")
    # File times come from a clock that stands still for up to a tick (4 to 10 ms): one written in
    # the tick of the reload would look older than it, or newer for ever.
    time.sleep(0.02)
    try:
        result = systemd.run(["systemctl", "daemon-reload"], timeout)
    except subprocess.TimeoutExpired:
        raise CommandExecutionError(
            f"systemctl daemon-reload was not done within {timeout:g} s"
        ) from None
    if result.returncode:
        raise CommandExecutionError(f"systemctl daemon-reload failed: {result.stderr.strip()}")
    return True
