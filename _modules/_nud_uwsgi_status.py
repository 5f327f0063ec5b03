"""
What systemd has of the sites' generations.
"""

import os
import time
from typing import Any, NamedTuple

from _nud_cache import active, entries, once
from _nud_process_facts import has_open
from _nud_systemd import seconds
from _nud_systemd_units import glance as glance_at
from _nud_systemd_units import show
from _nud_uwsgi_files import Store
from _nud_uwsgi_unit import PATTERN, UNIT, named, paths

_PROPERTIES = [
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "MainPID",
    "ExecMainStartTimestamp",
    "InvocationID",
    "DropInPaths",
]

# The units of all sites, sockets and generations.
_ALL = "uwsgi-*"

_UP = ("active", "activating", "reloading", "deactivating")


class Status(NamedTuple):
    """
    A generation on the host.

    unit
        the name of its unit
    state
        as systemd calls it
    enabled
        whether it starts with the host
    pid
        of its master; None when a glance does not tell, 0 when it does not run
    since
        when it was started, in seconds since 1970; None when it does not run
    reload
        whether systemd has an older unit file than the one on the disk
    drop_ins
        the paths of the unit's drop-ins
    """

    unit: str
    state: str
    enabled: bool
    pid: int | None
    since: float | None
    reload: bool
    drop_ins: list[str]

    @property
    def active(self) -> bool:
        """Whether it runs."""
        return self.state == "active"

    @property
    def up(self) -> bool:
        """Whether it has processes: it runs, starts or stops."""
        return self.state in _UP


def is_up(state: str) -> bool:
    """
    Whether a unit in a state has processes.

    state
        systemd's ActiveState

    Returns True or False.
    """
    return state in _UP


def glance() -> dict[str, dict[str, Any]]:
    """
    The loaded units of all sites, by one question to systemd; one for a whole cache session.

    Returns what :py:func:`_nud_systemd_units.glance` returns.
    """
    found: dict[str, dict[str, Any]] = once(("glance", _ALL), lambda: glance_at(_ALL))
    return found


def unit_files(lookup: dict[str, str], name: str | None = None) -> list[str]:
    """
    The units of generations that have a file.

    lookup
        the pillar's directories
    name
        a site; None for all sites

    Returns names of units.
    """
    return [
        entry
        for entry in entries(lookup["unit_dir"])
        if (match := UNIT.fullmatch(entry)) and name in (None, match[1])
    ]


def generations(lookup: dict[str, str], name: str) -> dict[str, Status]:
    """
    The generations of a site that are on the host. In a cache session one glance serves all sites,
    and tells as much as is needed to see that nothing is to be done.

    lookup
        the pillar's directories
    name
        the site

    Returns them by digest.

    Raises CommandExecutionError when systemd does not answer.
    """
    if active():
        seen: dict[str, dict[str, Status]] = once(("generations",), lambda: _glanced(lookup))
        return seen.get(name, {})
    units = [*unit_files(lookup, name), named(name, "*")]
    return _by_site(lookup, show(units, _PROPERTIES)).get(name, {})


def with_units(
    lookup: dict[str, str], name: str, units: list[str]
) -> tuple[dict[str, Status], list[str]]:
    """
    The generations of a site, and the state of further units, by one question to systemd.

    lookup, name
        as for :py:func:`generations`
    units
        names

    Returns the generations by digest, and those of the units that are not active.

    Raises CommandExecutionError when systemd does not answer.
    """
    shown = show([*units, *unit_files(lookup, name), named(name, "*")], _PROPERTIES)
    inactive = [unit for unit in units if shown[unit]["ActiveState"] != "active"]
    return _by_site(lookup, shown).get(name, {}), inactive


def _by_site(
    lookup: dict[str, str], units: dict[str, dict[str, str]]
) -> dict[str, dict[str, Status]]:
    found: dict[str, dict[str, Status]] = {}
    for unit, shown in units.items():
        match = UNIT.fullmatch(unit)
        if not match:
            continue
        running = shown["ActiveState"] == "active"
        found.setdefault(match[1], {})[match[2]] = Status(
            unit=unit,
            state=shown["ActiveState"],
            enabled=os.path.lexists(paths(lookup, match[1], match[2])["link"]),
            pid=int(shown["MainPID"] or 0),
            since=seconds(shown["ExecMainStartTimestamp"]) if running else None,
            reload=shown["NeedDaemonReload"] == "yes",
            drop_ins=shown["DropInPaths"].split(),
        )
    return found


def _glanced(lookup: dict[str, str]) -> dict[str, dict[str, Status]]:
    """The generations of all sites, by site and digest."""
    seen = glance()
    files = unit_files(lookup)
    if any(shown["stale"] for shown in seen.values()):
        return _by_site(lookup, show([*files, PATTERN], _PROPERTIES))
    found: dict[str, dict[str, Status]] = {}
    for unit in {*files, *seen}:
        match = UNIT.fullmatch(unit)
        if not match:
            continue
        shown = seen.get(unit, {"ActiveState": "inactive", "since": None})
        found.setdefault(match[1], {})[match[2]] = Status(
            unit=unit,
            state=shown["ActiveState"],
            enabled=os.path.lexists(paths(lookup, match[1], match[2])["link"]),
            pid=None,
            since=shown["since"],
            reload=False,
            drop_ins=[],
        )
    return found


def is_outdated(store: Store, digest: str, status: Status, log: str | None) -> bool:
    """
    Whether a running generation is older than a file that it was made from, or writes to a log file
    that was moved or removed.

    store
        the files of the site's generations
    digest, status
        the generation
    log
        uWSGI's log file; None for the journal

    Returns True or False.
    """
    where = store.paths(digest)
    made_from = [where["ini"], where["env"], where["unit"], *status.drop_ins]
    newest = max((os.stat(path).st_ctime for path in made_from if os.path.lexists(path)), default=0)
    if newest > (status.since or 0):
        return True
    if log is None:
        return False
    pid = status.pid
    if pid is None:
        pid = int(show(status.unit, ["MainPID"])[status.unit]["MainPID"])
    writes = has_open(pid, log)
    return not os.path.exists(log) if writes is None else not writes


def elsewhere(store: Store, path: str) -> list[str]:
    """
    The sockets other than the pillar's that a site's generations listen on.

    store
        the files of the site's generations
    path
        the socket of the pillar

    Returns their paths.

    Raises CommandExecutionError when systemd does not answer.
    """
    others = {
        digest: socket
        for digest in store.digests("ini")
        if (socket := store.socket(digest)) is not None and socket != path
    }
    # Usually empty, and systemd need not be asked.
    found = generations(store.lookup, store.name) if others else {}
    return sorted(
        {socket for digest, socket in others.items() if digest in found and found[digest].up}
    )


def timestamp(moment: float | None) -> str | None:
    """
    A moment as people read it.

    moment
        seconds since 1970

    Returns it in the host's time zone by ISO 8601; None for None.
    """
    if moment is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment))
