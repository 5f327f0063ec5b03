"""
The processes of a running nginx: its master, its workers, and what they run.
"""

import os
from collections.abc import Mapping

from _nud_proc import ids, pids, process, title

# A worker that takes connections; one that is to finish adds "is shutting down" to it.
WORKER = "nginx: worker process"


def children(master: int) -> dict[int, tuple[str, int]]:
    """
    The processes of a master.

    master
        its number

    Returns by number the title, and the start in clock ticks since the boot.
    """
    found = {}
    for pid in pids():
        seen = process(pid)
        if seen is not None and seen.parent == master and seen.name == "nginx":
            words = title(pid)
            if words:
                found[pid] = (words, seen.start)
    return found


def workers(master: int) -> dict[int, int]:
    """
    The workers that take new connections.

    master
        the number of their master

    Returns by number the start in clock ticks since the boot.
    """
    return {pid: start for pid, (words, start) in children(master).items() if words == WORKER}


def identity(master: int) -> list[int] | None:
    """
    What tells a process from any other of this boot.

    master
        its number

    Returns its number and its start; None when it has ended.
    """
    seen = process(master)
    return [master, seen.start] if seen else None


def read_pid(path: str) -> int | None:
    """
    The number in a pid file.

    path
        the file

    Returns None where there is none.
    """
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read())
    except (FileNotFoundError, ValueError):
        return None


def masters(shown: Mapping[str, str]) -> tuple[int | None, int | None]:
    """
    The master process, and a process that it has replaced but that still takes connections.

    While a new binary takes over there are two: systemd's main process, and its child, whose
    number is in the pid file. Killed in the middle, it stays like that.

    shown
        ``MainPID`` and ``PIDFile`` of nginx's unit

    Returns two numbers; None for a process that does not exist.
    """
    text = shown.get("MainPID", "0")
    main = int(text) if text.isdigit() and int(text) else None
    if main is None:
        return None, None
    new = read_pid(shown.get("PIDFile") or "")
    if process(main) is None:
        # The old master has just ended, and systemd has not yet gone over to the one in the pid file.
        if new is not None and (seen := process(new)) and seen.name == "nginx" and workers(new):
            return new, None
        return None, None
    if new is not None and new != main:
        seen = process(new)
        if seen and seen.name == "nginx" and seen.parent == main and workers(new):
            return new, (main if workers(main) else None)
    return main, None


def replaced(master: int) -> list[str]:
    """
    The files that a process runs and that are no longer the ones at their paths.

    master
        its number

    Returns their paths; none where the program was removed: there is nothing to go over to.
    """
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
        return []
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and "x" in fields[1] and fields[5].endswith(gone):
            path = fields[5].removesuffix(gone)
            # Not files: shared memory.
            if not path.startswith(("/dev/", "/memfd:", "/SYSV")) and path not in found:
                found.append(path)
    return found


def accounts(master: int) -> dict[tuple[int, int, tuple[int, ...]], bool]:
    """
    The accounts that the workers of an nginx run as, those of a new binary that takes over included.

    master
        the number of the master process

    Returns by user, group and supplementary groups (numbers) whether only workers run as it that take
    no new connections.
    """
    found: dict[tuple[int, int, tuple[int, ...]], bool] = {}
    masters = [master]
    for each in masters:
        for pid, (words, _) in children(each).items():
            if words.startswith("nginx: master process"):
                # A new binary that takes over is the child of the one that it replaces.
                masters.append(pid)
            elif words.startswith(WORKER) and (numbers := ids(pid)):
                found[numbers] = found.get(numbers, True) and words != WORKER
    return found
