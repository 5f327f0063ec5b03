"""
What Linux says of processes and their sockets: the reader of ``/proc`` (proc(5)).
"""

import os
import socket
import struct
from typing import NamedTuple

# include/net/tcp_states.h; 07 of a UDP socket: bound and not connected.
_LISTENING = "0A"
_UNCONNECTED = "07"

# __SO_ACCEPTCON in include/uapi/linux/net.h: a unix socket that listens.
_ACCEPTS = 0x10000


class Process(NamedTuple):
    """A process that runs: its name, its parent, its start in clock ticks since the boot."""

    name: str
    parent: int
    start: int


class Bound(NamedTuple):
    """Where a socket is bound."""

    family: int
    host: str
    port: int

    @property
    def address(self) -> str:
        """As nginx writes it: ``0.0.0.0:80``, ``[::]:80``."""
        host = f"[{self.host}]" if self.family == socket.AF_INET6 else self.host
        return f"{host}:{self.port}"


def process(pid: int) -> Process | None:
    """
    A process.

    pid
        its number

    Returns None when there is no such process, or it is dead and was not waited for yet.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stream:
            text = stream.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold any character: what follows starts after the last.
    fields = text[text.rindex(b")") + 2 :].split()
    name = text[text.index(b"(") + 1 : text.rindex(b")")].decode("utf-8", "replace")
    # proc(5): fields[0] is field 3, the state; 4 is the parent, 22 the start.
    return Process(name, int(fields[1]), int(fields[19])) if fields[0] not in b"ZX" else None


def pids() -> list[int]:
    """
    The processes that run now.

    Returns their numbers, sorted.
    """
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def title(pid: int) -> str:
    """
    The command line of a process, which a program may overwrite.

    pid
        its number

    Returns one line; an empty text for a process that has ended.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def name(pid: int) -> str:
    """
    The name of a process, for a message.

    pid
        its number

    Returns a word; ``gone`` for a process that has ended.
    """
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return "gone"


def ids(pid: int) -> tuple[int, int, tuple[int, ...]] | None:
    """
    The effective user and group of a process, and its supplementary groups.

    pid
        its number

    Returns three numbers or groups of numbers; None for a process that has ended.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            fields = dict(line.rstrip("\n").partition(":")[::2] for line in stream)
    except (FileNotFoundError, ProcessLookupError):
        return None
    uid, gid = (int(fields[key].split()[1]) for key in ("Uid", "Gid"))
    return uid, gid, tuple(sorted(map(int, fields["Groups"].split())))


def sockets(pid: int) -> set[str]:
    """
    The sockets that a process has open.

    pid
        its number

    Returns their inodes, as text.

    Raises OSError when there is no such process.
    """
    found = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[len("socket:[") : -1])
    return found


def _bound(table: str, family: int, state: str) -> dict[str, Bound]:
    found = {}
    try:
        with open(f"/proc/net/{table}", encoding="ascii") as rows:
            lines = rows.readlines()[1:]
    except FileNotFoundError:
        return {}
    for line in lines:
        fields = line.split()
        if fields[3] == state:
            number, _, port = fields[1].rpartition(":")
            # The kernel prints words of the machine's own order.
            words = [int(number[at : at + 8], 16) for at in range(0, len(number), 8)]
            host = socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
            found[fields[9]] = Bound(int(family), host, int(port, 16))
    return found


def listening() -> dict[str, Bound]:
    """
    The TCP sockets of this network namespace that listen.

    Returns where each is bound, by inode.
    """
    return {
        **_bound("tcp", socket.AF_INET, _LISTENING),
        **_bound("tcp6", socket.AF_INET6, _LISTENING),
    }


def bound_udp() -> dict[str, Bound]:
    """
    The UDP sockets of this network namespace that are bound and not connected.

    Returns where each is bound, by inode.
    """
    return {
        **_bound("udp", socket.AF_INET, _UNCONNECTED),
        **_bound("udp6", socket.AF_INET6, _UNCONNECTED),
    }


def listening_unix() -> dict[str, str]:
    """
    The unix sockets of this network namespace that listen and have a name.

    Returns the path (with ``@`` for an abstract name) by inode.
    """
    found = {}
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as rows:
        for line in rows.readlines()[1:]:
            fields = line.rstrip("\n").split(maxsplit=7)
            if len(fields) == 8 and int(fields[3], 16) & _ACCEPTS:
                found[fields[6]] = fields[7]
    return found
