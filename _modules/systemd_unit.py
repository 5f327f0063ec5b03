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
from collections.abc import Iterator
from typing import Any

from _nud import systemd_units

__virtualname__ = "systemd_unit"


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
    return systemd_units.show(units, properties)


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
    return systemd_units.glance(pattern)


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
    return systemd_units.runs(unit)


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
    return systemd_units.drop_ins(unit)


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
    return systemd_units.journal(unit, lines, invocation, output)


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
    return systemd_units.start(units, timeout)


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
    return systemd_units.stop(units, timeout, wait, alone)


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
    return systemd_units.restart(units, timeout)


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
    return systemd_units.reload(units, timeout)


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
    return systemd_units.kill(unit, signal, who, timeout)


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
    return systemd_units.enable(units, timeout)


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
    return systemd_units.disable(units, timeout, later)


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
    return systemd_units.reset_failed(units, timeout)


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
    return systemd_units.needs_reload(prefix)


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
    with systemd_units.reload_later():
        yield


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
    return systemd_units.read_anew(units)


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
    return systemd_units.daemon_reload(force, timeout, later)
