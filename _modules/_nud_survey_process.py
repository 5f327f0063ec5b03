"""
Who answers behind a socket: the process that listens, its unit, its user and its environment.

Read from /proc and from systemd. Nothing is started but ``systemctl show``.
"""

import grp
import os
import pwd
import re
import shlex
from collections.abc import Iterable
from typing import Any, NamedTuple

from _nud_systemd import query

_LISTENS = "0A"
_ACCEPTS = 0x10000  # __SO_ACCEPTCON, the flags' column of /proc/net/unix
_PROPERTIES = (
    "Id,FragmentPath,SourcePath,DropInPaths,UnitFileState,ActiveState,User,Group,WorkingDirectory,"
    "EnvironmentFiles,TriggeredBy,Type"
)


class Line(NamedTuple):
    """A setting of a unit file, and where it stands."""

    section: str
    key: str
    value: str
    source: str


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _numbers() -> list[str]:
    return sorted(filter(str.isdigit, os.listdir("/proc")), key=int)


def listening() -> dict[str, set[str]]:
    """The inodes of the sockets that listen, by ``unix:/PATH`` and ``tcp:PORT``."""
    found: dict[str, set[str]] = {}
    for line in _read("/proc/net/unix").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _ACCEPTS:
            found.setdefault(f"unix:{fields[7]}", set()).add(fields[6])
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        for line in _read(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS:
                port = int(fields[1].rpartition(":")[2], 16)
                found.setdefault(f"tcp:{port}", set()).add(fields[9])
    return found


def holders() -> dict[str, list[int]]:
    """The processes that have a socket open, by its inode."""
    found: dict[str, list[int]] = {}
    for number in _numbers():
        try:
            handles = os.listdir(f"/proc/{number}/fd")
        except OSError:
            continue  # it has ended
        for handle in handles:
            try:
                target = os.readlink(f"/proc/{number}/fd/{handle}")
            except OSError:
                continue
            if target.startswith("socket:["):
                found.setdefault(target[8:-1], []).append(int(number))
    return found


def parent(pid: int) -> int:
    """The process that has started another."""
    return int(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])


def unit_of(cgroups: str) -> str | None:
    """
    The service that a process belongs to, by the text of its ``/proc/PID/cgroup``; None for a
    process of a login or of no unit.
    """
    paths = [line.split(":", 2) for line in cgroups.splitlines()]
    for _, kind, path in paths:
        if kind not in ("", "name=systemd"):
            continue
        steps = [step for step in path.split("/") if step.endswith(".service")]
        if "user.slice" in path:
            continue
        if steps:
            return steps[0]
    return None


def show(units: Iterable[str], properties: str = _PROPERTIES) -> list[dict[str, str]]:
    """What systemd says of units: one dictionary each."""
    text = query(["systemctl", "show", f"--property={properties}", "--", *units])
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in text.split("\n\n")
        if block.strip()
    ]


def unit_lines(paths: Iterable[str]) -> list[Line]:
    """The settings of unit files, in order; a line that ends in a backslash goes on in the next."""
    found = []
    for path in paths:
        section, held, start = "", "", 0
        for number, raw in enumerate(_read(path).split("\n"), 1):
            text = raw.strip()
            if held and text[:1] in ("#", ";"):
                continue
            start = start if held else number
            held += text
            if held.endswith("\\"):
                held = held[:-1] + " "
                continue
            if held.startswith("["):
                section = held.strip("[]")
            elif "=" in held and held[0] not in "#;":
                key, _, value = held.partition("=")
                found.append(Line(section, key.strip(), value.strip(), f"{path}:{start}"))
            held = ""
    return found


def split(value: str) -> list[str]:
    """The words of a setting; ExecStart's leading marks are no part of the command."""
    try:
        return shlex.split(value.lstrip("-@:+!"))
    except ValueError:
        return value.split()


def environment_file(path: str) -> list[tuple[str, str, str]]:
    """Names and values of an EnvironmentFile (systemd.exec(5)), each with its source."""
    found = []
    for number, raw in enumerate(_read(path).split("\n"), 1):
        text = raw.strip()
        name, equals, value = text.partition("=")
        if text[:1] in ("", "#", ";") or not equals:
            continue
        words = split(value) if value[:1] in "\"'" and value else [value]
        found.append((name.strip(), words[0] if words else "", f"{path}:{number}"))
    return found


def behind(
    endpoint: str, sockets: dict[str, set[str]], pids: dict[str, list[int]]
) -> dict[str, Any] | None:
    """
    What answers at an endpoint of nginx.

    endpoint
        ``unix:/PATH`` or ``tcp:HOST:PORT``
    sockets, pids
        what :py:func:`listening` and :py:func:`holders` return

    Returns a dictionary of texts, numbers, lists and None: ``endpoint``, ``pid``, ``command``,
    ``cwd``, ``executable``, ``user``, ``group``, ``unit`` (None: a process started by hand),
    ``unit_file``, ``drop_ins``, ``enabled`` (systemd's word), ``socket_unit`` (the unit that holds the
    socket), ``lines`` (the unit's settings) and ``environment`` (of the process). None where no
    process of this host listens there.
    """
    kind, _, where = endpoint.partition(":")
    key = endpoint if kind == "unix" else f"tcp:{where.rpartition(':')[2]}"
    if kind == "unix" and key not in sockets:
        key = f"unix:{os.path.realpath(where)}"
    if kind == "tcp" and where.rpartition(":")[0] not in (
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0.0.0.0",
    ):
        return None
    inodes = sockets.get(key, set())
    found = sorted({pid for inode in inodes for pid in pids.get(inode, [])})
    working = [pid for pid in found if pid != 1]
    if not working:
        return None
    try:
        first = next((pid for pid in working if parent(pid) not in working), working[0])
        return _described(endpoint, first, 1 in found)
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended in this moment


def _described(endpoint: str, pid: int, held: bool) -> dict[str, Any]:
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        command = [word.decode("utf-8", "replace") for word in stream.read().split(b"\0") if word]
    with open(f"/proc/{pid}/environ", "rb") as stream:
        pairs = stream.read().decode("utf-8", "replace").split("\0")
    # The master may be root's while the workers are the site's.
    user, group = _accounts(pid)
    for number in _numbers():
        try:
            if user == "root" and parent(int(number)) == pid:
                user, group = _accounts(int(number))
                break
        except (FileNotFoundError, ProcessLookupError):
            continue
    record: dict[str, Any] = {
        "endpoint": endpoint,
        "pid": pid,
        "command": command,
        "cwd": os.readlink(f"/proc/{pid}/cwd"),
        "executable": os.readlink(f"/proc/{pid}/exe"),
        "parent": parent(pid),
        "user": user,
        "group": group,
        "unit": unit_of(_read(f"/proc/{pid}/cgroup")),
        "unit_file": None,
        "drop_ins": [],
        "enabled": None,
        "socket_unit": None,
        "lines": [],
        "environment": dict(pair.split("=", 1) for pair in pairs if "=" in pair),
    }
    if record["unit"]:
        (shown,) = show([record["unit"]])
        record["unit_file"] = shown.get("SourcePath") or shown.get("FragmentPath") or None
        record["drop_ins"] = shown.get("DropInPaths", "").split()
        record["enabled"] = shown.get("UnitFileState") or None
        if held:
            record["socket_unit"] = next(
                (one for one in shown.get("TriggeredBy", "").split() if one.endswith(".socket")),
                None,
            )
        if shown.get("FragmentPath") and not shown.get("SourcePath"):
            record["lines"] = unit_lines([shown["FragmentPath"], *record["drop_ins"]])
    return record


def _accounts(pid: int) -> tuple[str, str]:
    """The names of a process's user and group; the numbers where no account has them."""
    status = dict(
        line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line
    )
    uid, gid = int(status["Uid"].split()[1]), int(status["Gid"].split()[1])
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return user, group


def command(record: dict[str, Any]) -> tuple[list[str], str]:
    """
    The command line of a process and where it was read. A program that has written a title over it
    (``gunicorn: master``, ``uWSGI master``) is asked by its unit.
    """
    words = record["command"]
    if words and not re.match(r"(?:gunicorn|uWSGI)[: ]", words[0]):
        for line in record["lines"]:
            if line.key == "ExecStart" and line.value:
                return words, line.source
        return words, f"/proc/{record['pid']}/cmdline"
    for line in record["lines"]:
        if line.key == "ExecStart" and line.value:
            return split(line.value), line.source
    return words, f"/proc/{record['pid']}/cmdline"
