"""
What stands behind nginx: the addresses that servers pass requests to, the sockets that listen there,
and the systemd units whose processes hold them.
"""

import posixpath
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from _nud_proc import Bound, listening, listening_unix, name, pids, sockets

_PASSES = ("proxy_pass", "uwsgi_pass", "fastcgi_pass", "scgi_pass", "grpc_pass")
# A row of a configuration: its file, its line, the blocks around it, its words.
Row = tuple[str, int, tuple[str, ...], tuple[str, ...]]

# include/net/tcp_states.h: a connection in which one side still has something to send or to read.
_OPEN = ("01", "02", "03", "04", "05", "08", "09", "0B")
_ACCEPTS = 0x10000


class Pass(NamedTuple):
    """A directive that passes requests on: where it stands, and what it says."""

    path: str
    line: int
    directive: str
    address: str


class Listener(NamedTuple):
    """A socket that listens: its inode, and its path or its TCP address."""

    inode: str
    place: str | Bound


def address(word: str, port: str = "80") -> str | None:
    """
    The address in an argument of ``proxy_pass``, ``uwsgi_pass`` and their like, or of an upstream's
    ``server``.

    word
        the argument
    port
        the port where it names none

    Returns ``unix:/path`` or ``host:port``; None where variables decide.
    """
    scheme, mark, rest = word.partition("://")
    if mark and scheme in ("http", "https", "grpc", "grpcs", "uwsgi", "suwsgi", "scgi"):
        word, port = rest, "443" if scheme in ("https", "grpcs") else port
    if "$" in word:
        return None
    if word.startswith("unix:"):
        # proxy_pass has the URI after a second colon.
        path = word.removeprefix("unix:").partition(":")[0]
        return "unix:" + re.sub(r"\A/+", "/", posixpath.normpath(path))
    host = word.partition("/")[0]
    return host if re.search(r":\d+\Z", host) else f"{host}:{port}"


def passes(rows: Iterable[Row]) -> list[Pass]:
    """
    Where the servers of a configuration pass requests to.

    rows
        its directives in nginx's order

    Returns one entry for each directive and address; an upstream stands for its servers.
    """
    upstreams: dict[str, list[str]] = {}
    found: list[tuple[str, int, str, str]] = []
    current = ""
    for path, line, block, words in rows:
        if words[0] == "upstream" and len(words) > 1:
            current = words[1]
            upstreams[current] = []
        elif block[-1:] == ("upstream",) and words[0] == "server" and len(words) > 1:
            if (there := address(words[1])) is not None:
                upstreams.setdefault(current, []).append(there)
        elif words[0] in _PASSES and len(words) > 1:
            found.append((path, line, words[0], words[1]))
    answer = []
    for path, line, directive, word in found:
        group = re.sub(r"\A[a-z]+://", "", word).partition("/")[0]
        there = address(word)
        targets = upstreams.get(group, [there] if there else [])
        answer += [Pass(path, line, directive, target) for target in targets]
    return answer


def _relative(place: str, holders: Iterable[int]) -> set[str]:
    """The paths that a socket's relative name may mean: bind(2) takes it from the working directory."""
    found = set()
    for pid in holders:
        try:
            found.add(
                posixpath.normpath(posixpath.join(posixpath.realpath(f"/proc/{pid}/cwd"), place))
            )
        except OSError:
            continue
    return found


class Table:
    """The listening sockets of the host and who holds them, read once."""

    def __init__(self) -> None:
        self._unix = listening_unix()
        self._tcp = listening()
        self._holders: dict[str, list[int]] = {}
        known = {*self._unix, *self._tcp}
        for pid in pids():
            try:
                mine = sockets(pid) & known
            except OSError:
                continue  # it has ended
            for inode in mine:
                self._holders.setdefault(inode, []).append(pid)

    def at(self, wanted: str) -> list[Listener]:
        """
        The sockets that take connections to an address.

        wanted
            as :py:func:`address` returns it
        """
        if wanted.startswith("unix:"):
            path = wanted.removeprefix("unix:")
            real = posixpath.realpath(path)
            return [
                Listener(inode, place)
                for inode, place in self._unix.items()
                if place in (path, real)
                or posixpath.realpath(place) == real
                or (
                    not place.startswith(("/", "@"))
                    and path in _relative(place, self._holders.get(inode, []))
                )
            ]
        host, _, port = wanted.rpartition(":")
        hosts = _resolved(host.strip("[]"))
        return [
            Listener(inode, bound)
            for inode, bound in self._tcp.items()
            if f"{bound.port}" == port and (bound.host in ("0.0.0.0", "::") or bound.host in hosts)
        ]

    def of(self, unit: str) -> list[Listener]:
        """
        The sockets that the processes of a unit listen on.

        unit
            its name
        """
        return [
            Listener(inode, self._unix.get(inode) or self._tcp[inode])
            for inode, holders in self._holders.items()
            if any(unit_of(pid) == unit for pid in holders)
        ]

    def holders(self, found: Iterable[Listener]) -> list[str]:
        """
        Who holds some sockets, in words: units, and processes that are in none.

        found
            the sockets
        """
        answer = set()
        for listener in found:
            for pid in self._holders.get(listener.inode, []):
                if pid != 1:
                    answer.add(unit_of(pid) or f"process {pid} ({name(pid)})")
        return sorted(answer)

    def units(self, found: Iterable[Listener]) -> dict[str, list[int]]:
        """
        The units that hold some sockets, with their processes. systemd itself, which holds those of
        ``.socket`` units, is not among them.

        found
            the sockets
        """
        answer: dict[str, list[int]] = {}
        for listener in found:
            for pid in self._holders.get(listener.inode, []):
                if pid != 1 and (unit := unit_of(pid)):
                    answer.setdefault(unit, []).append(pid)
        return {unit: sorted(set(found)) for unit, found in answer.items()}


def _resolved(host: str) -> set[str]:
    if host == "localhost":
        return {"127.0.0.1", "::1"}
    try:
        return {
            str(row[4][0]) for row in socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
        }
    except OSError:
        return set()  # a name: nginx has asked a name server, and this host is not the only answer


def unit_of(pid: int) -> str | None:
    """
    The system's unit that a process belongs to.

    pid
        its number

    Returns a name that ends in ``.service``; None for a login session, a user's own systemd, and a
    process that has ended.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in lines:
        number, kind, path = line.split(":", 2)
        if number != "0" and kind != "name=systemd":
            continue
        parts = path.split("/")
        if any(part.startswith("user@") for part in parts):
            continue
        services = [part for part in parts if part.endswith(".service")]
        if services:
            return services[-1]
    return None


def connections(found: Iterable[Listener]) -> int:
    """
    How many connections to some listening sockets are open, those that wait in a queue included.

    found
        the sockets

    Returns a number.
    """
    places = [listener.place for listener in found]
    paths = {place for place in places if isinstance(place, str)}
    ports = {place.port for place in places if isinstance(place, Bound)}
    count = 0
    if paths:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            for line in table.readlines()[1:]:
                fields = line.rstrip("\n").split(maxsplit=7)
                # The side that was accepted, or is to be, has the listener's path.
                if len(fields) == 8 and not int(fields[3], 16) & _ACCEPTS:
                    count += fields[7] in paths
    if ports:
        for name in ("tcp", "tcp6"):
            try:
                with open(f"/proc/net/{name}", encoding="ascii") as table:
                    rows = [line.split() for line in table.readlines()[1:]]
            except FileNotFoundError:
                continue
            count += sum(
                row[3] in _OPEN and int(row[1].rpartition(":")[2], 16) in ports for row in rows
            )
    return count
