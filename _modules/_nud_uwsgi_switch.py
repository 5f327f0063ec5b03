"""
The switch from one generation to another: the new one is started beside the old one and enabled, then
the old one finishes its requests and stops.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from salt.exceptions import CommandExecutionError

from _nud_durable_file import directory, link, read, remove, write
from _nud_systemd_units import (
    daemon_reload,
    kill,
    read_anew,
    reset_failed,
    restart,
    show,
    start,
    stop,
)
from _nud_unix_socket import waiting
from _nud_uwsgi_files import Generation, Store
from _nud_uwsgi_preflight import last_words
from _nud_uwsgi_status import Status, elsewhere, generations
from _nud_uwsgi_unit import named
from _nud_uwsgi_workers import may_be_paused, pause, wait


class Times(NamedTuple):
    """How many seconds the start of a generation may take, and its stop."""

    start: int
    stop: int


def bring_up(
    store: Store,
    generation: Generation,
    seen: Status | None,
    times: Times,
    log: Callable[[], list[str]] | None,
    ask: Callable[[], float] | None = None,
) -> float:
    """
    Start a generation beside the one that runs.

    store
        the files of the site's generations
    generation
        the generation
    seen
        what the host has of it; None without its unit, which systemd then reads at the start
    times
        time limits
    log
        returns the last lines of uWSGI's log file; None for the journal
    ask
        asks the health question of a generation that had no preflight; one that does not answer
        right is taken back

    Returns the seconds that the answer took, 0 without ``ask``.

    Raises CommandExecutionError, with the last words of the generation, when it does not run. If it
    did not run before, it is stopped again; its files go if they are new.
    """
    digest, name = generation.digest, store.name
    unit = named(name, digest)
    new = not os.path.lexists(store.paths(digest)["parts"])
    directory(store.lookup["uwsgi_dir"])
    directory(store.directory)
    for path, text, group, mode in store.files(generation):
        write(path, text, "root", group, mode)
    running = seen is not None and seen.up
    if seen is not None:
        read_anew(unit)
    try:
        if running:
            # The same digest cannot run twice.  The socket is systemd's: connections wait.
            _is_idle(store, digest, times.stop)
            restart(unit, times.stop + times.start + 15)
        else:
            start(unit, times.start + 15)
        wait(store.paths(digest)["stats"], unit, times.start)
        return ask() if ask else 0
    except CommandExecutionError as error:
        words = last_words(unit, log)
        if not running:
            stop(unit, times.stop + 15)
            reset_failed(unit)
        if new:
            store.forget(digest)
            daemon_reload()
        raise CommandExecutionError(
            f"the new generation {digest} does not run: {error}{words}"
        ) from error


def settle(store: Store, digest: str, found: dict[str, Status], socket: str, limit: int) -> None:
    """
    Enable a generation that is up, then let every other finish its requests and stop.

    store
        the files of the site's generations
    digest
        the generation
    found
        the site's generations before it was started
    socket
        the site's socket, as the pillar has it
    limit
        how many seconds a generation may take to stop

    Raises CommandExecutionError when one does not stop.
    """
    if set(found) - {digest}:
        found = generations(store.lookup, store.name)
    others = {other: status for other, status in found.items() if other != digest}
    where = store.paths(digest)
    directory(store.wants)
    before = [other for other, status in others.items() if status.enabled]
    if before:
        store.remember(before[0])
    # First the new link, then the old ones away: a host reset between the two has both.
    changed = link(where["link"], where["unit"])
    for other in others:
        changed |= remove(store.paths(other)["link"])
    store.sweep(digest, {other: status.up for other, status in others.items()})
    # Before anything is stopped: systemd would start again what it believes to be wanted.
    daemon_reload(force=changed, later=not others)
    _lead_over(store, socket, limit)
    for other, status in others.items():
        if status.up:
            if status.active and not _is_idle(store, other, limit):
                stop(status.unit, wait=False)
                kill(status.unit, "SIGKILL", "all")
            stop(status.unit, limit + 15)
    if others:
        reset_failed([status.unit for status in others.values()])


def drained(store: Store, digest: str, master: int, timeout: float) -> bool:
    """
    Let a running generation answer its requests and take no more: new connections stay in the
    socket's queue for another generation. It can only be stopped afterwards.

    store
        the files of the site's generations
    digest
        the generation
    master
        the number of its master process
    timeout
        seconds

    Returns True when it is idle, or needs no care (its workers have several threads), False when
    requests still run at the end of the time.

    Raises CommandExecutionError when its statistics socket does not answer.
    """
    where = store.paths(digest)
    if not may_be_paused(read(where["ini"]) or b""):
        return True
    return pause(where["stats"], master, timeout)


def _is_idle(store: Store, digest: str, timeout: float) -> bool:
    """Whether a generation may be stopped gracefully; False when its time is over."""
    unit = named(store.name, digest)
    shown = show(unit, ["ActiveState", "MainPID"])[unit]
    if shown["ActiveState"] != "active":
        return True
    try:
        return drained(store, digest, int(shown["MainPID"]), timeout)
    except CommandExecutionError:
        # It does not answer on its statistics socket, or has ended meanwhile.  Its stop is as
        # graceful as uWSGI's is, and systemd's time limit is on it.
        return True


def _lead_over(store: Store, socket: str, timeout: float) -> None:
    """
    Link the sockets that the site has left to the new one, for nginx until it reads the new path. The
    old generation takes the connections in the queue of the old socket.
    """
    for path in elsewhere(store, socket):
        link(path, socket)
        deadline = time.monotonic() + timeout
        # Only a connect(2) that was under way still adds to the queue.
        time.sleep(0.1)
        while waiting(path) and time.monotonic() < deadline:
            time.sleep(0.02)
