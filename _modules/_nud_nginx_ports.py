"""
The addresses that nginx is to listen on, and the processes that hold them.
"""

import errno
import re
import socket
from collections.abc import Callable, Container, Iterable, Mapping
from typing import NamedTuple

from _nud_nginx_files import Wanted
from _nud_nginx_language import Directive
from _nud_proc import Bound, listening, name, pids, sockets


def listens_at(word: str) -> tuple[str, int] | None:
    """
    The address and the port of a ``listen``.

    word
        its first parameter

    Returns None for a unix socket or a name.
    """
    parts = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|\*|\d+\.\d+\.\d+\.\d+):)?(\d+)", word)
    if not parts:
        return None
    address = (parts.group(1) or "*").strip("[]")
    return "0.0.0.0" if address == "*" else address, int(parts.group(2))


def addresses(directives: list[Directive]) -> list[tuple[str, str, int]]:
    """
    The addresses of the ``listen`` directives.

    directives
        of some files

    Returns a list: as written, the address, the port.
    """
    words = [
        directive.words[1]
        for directive in directives
        if directive.words[0] == "listen" and len(directive.words) > 1
    ]
    return [(word, *place) for word in words if (place := listens_at(word))]


def sockets_of(pid: int) -> set[str]:
    """
    The sockets of a process that may end meanwhile.

    pid
        its number

    Returns their inodes, as text; none of a process that has ended.
    """
    try:
        return sockets(pid)
    except OSError:
        return set()


def _holders(port: int, held: Mapping[str, Bound]) -> str:
    """The processes that listen on a port: of each socket the lowest pid."""
    inodes = {inode for inode, bound in held.items() if bound.port == port}
    found = []
    for pid in pids():
        if inodes & (theirs := sockets_of(pid)):
            inodes -= theirs
            found.append(f"process {pid} ({name(pid)})")
    return ", ".join(found) or "another process"


def holder(address: str, port: int, held: Mapping[str, Bound]) -> str | None:
    """
    The processes that keep an address and port from nginx.

    address, port
        what nginx is to bind
    held
        the sockets that listen, as :py:func:`_nud_proc.listening` returns them

    Returns a sentence; None where it is free.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As nginx does before it binds. It does not listen, so no client can connect to it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            # nginx -t is the judge of an address that is not the host's.
            if error.errno == errno.EADDRINUSE:
                return f"{_holders(port, held)} holds that port"
    return None


class _Listen(NamedTuple):
    """A ``listen`` of a site: the site's name, as it is written, the address, the port."""

    site: str
    word: str
    address: str
    port: int

    @property
    def family(self) -> int:
        return int(socket.AF_INET6 if ":" in self.address else socket.AF_INET)


def _own(
    master: int,
    wanted: list[_Listen],
    held: dict[str, Bound],
    of_nginx: Callable[[], Iterable[str]],
) -> tuple[set[Bound], set[int]]:
    """
    What nginx has open, and the ports of what systemd holds for it.

    What else systemd listens on is another service's.
    """
    own = {held[inode] for inode in held.keys() & sockets_of(master)}
    of_systemd = {held[inode] for inode in held.keys() & sockets_of(1)}
    kept: set[int] = set()
    if {bound.port for bound in of_systemd} & {listen.port for listen in wanted}:
        kept = {int(address.rpartition(":")[2]) for address in of_nginx()}
    return own - of_systemd | {bound for bound in of_systemd if bound.port in kept}, kept


def conflicts(
    plan: Mapping[str, Wanted],
    parsed: Mapping[str, list[Directive]],
    others: list[Directive],
    master: int | None,
    service: str,
    of_nginx: Callable[[], Iterable[str]],
) -> list[str]:
    """
    The addresses of our sites that another process holds, or that nginx itself is in the way of.

    ``nginx -t`` does not see them, a reload drops the configuration for them, and after the next
    restart there may be no nginx at all.

    plan
        what is to be where
    parsed
        the directives of the future tree, by path
    others
        the directives of files that nginx reads and that are not the formula's
    master
        the running nginx; None where none runs
    service
        the name of nginx's unit, without ``.service``
    of_nginx
        asks for the addresses that systemd holds for nginx

    Returns sentences.
    """
    wanted = [
        _Listen(path[len("sites-available/") : -len(".conf")], *listen)
        for path, entry in plan.items()
        if path.startswith("sites-available/") and entry.kind == "file"
        for listen in addresses(parsed.get(path, []))
    ]
    everywhere = {
        (":" in address, port)
        for _, address, port in [*(listen[1:] for listen in wanted), *addresses(others)]
        if address in ("0.0.0.0", "::")
    }
    held = listening()
    own, kept = _own(master or 0, wanted, held, of_nginx)
    told = [_conflict(listen, everywhere, held, own, kept, service) for listen in wanted]
    return [words for words in told if words]


def _conflict(
    listen: _Listen,
    everywhere: Container[tuple[bool, int]],
    held: Mapping[str, Bound],
    own: set[Bound],
    kept: Container[int],
    service: str,
) -> str | None:
    mine = {
        bound.host for bound in own if (bound.family, bound.port) == (listen.family, listen.port)
    }
    every = (":" in listen.address, listen.port) in everywhere
    # nginx binds all addresses of a port once, also where some have a listen of their own.
    all_hosts = "::" if ":" in listen.address else "0.0.0.0"
    # As the kernel's table is read: every address in its one shortest form.
    future = socket.inet_ntop(listen.family, socket.inet_pton(listen.family, listen.address))
    if (all_hosts if every else future) in mine:
        return None
    if mine and (every or all_hosts in mine):
        # The old sockets are closed when the new ones are open.
        first = "call nginx_socket.remove, then " if listen.port in kept else ""
        return (
            f"listen {listen.word}: nginx has port {listen.port} open on "
            f"{'some addresses' if every else 'all addresses'}, which cannot be open beside it, "
            f"so that no reload does that; {first}`systemctl stop {service}.service`, and apply again "
            f"(from the pillar's sites:{listen.site})"
        )
    if words := holder(listen.address, listen.port, held):
        return f"listen {listen.word}: {words} (from the pillar's sites:{listen.site})"
    return None
