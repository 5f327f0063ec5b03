"""
Listening unix sockets: what the file system and the kernel say of them, and changes of a live one.
"""

import contextlib
import ctypes
import grp
import os
import pwd
import socket
import stat
import subprocess
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud_accounts import name_of
from _nud_cache import once, refuse_change

# pidfd_getfd(2), since Linux 5.6, the same number on every architecture that Debian releases.
_PIDFD_GETFD = 438

#: What is seen where no socket is.
NOT_THERE: dict[str, Any] = {
    "owner": None,
    "group": None,
    "mode": None,
    "backlog": None,
    "listening": False,
}


def seen(path: str) -> dict[str, Any]:
    """
    What the file system and the kernel say of a socket.

    path
        of the socket

    Returns ``owner``, ``group`` and ``mode`` of the file (None without one), ``listening`` (True or
    False) and ``backlog`` (the length of its queue; None when unknown).

    Raises CommandExecutionError when ss(8) does not answer.
    """
    answer = dict(NOT_THERE)
    with contextlib.suppress(FileNotFoundError):
        entry = os.lstat(path)
        if stat.S_ISSOCK(entry.st_mode):
            answer["owner"] = name_of("user", entry.st_uid)
            answer["group"] = name_of("group", entry.st_gid)
            answer["mode"] = f"{stat.S_IMODE(entry.st_mode):04o}"
            answer["listening"] = bool(_listeners(path))
            answer["backlog"] = (_queue(path) or (0, None))[1]
    return answer


def _listeners(path: str) -> list[int]:
    """The inodes of the sockets that listen on a path, from proc(5): flag 0x10000, __SO_ACCEPTCON."""

    def look() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            next(table)
            for line in table:
                fields = line.rstrip("\n").split(maxsplit=7)
                if len(fields) == 8 and int(fields[3], 16) & 0x10000:
                    found.setdefault(fields[7], []).append(int(fields[6]))
        return found

    found: dict[str, list[int]] = once(("listeners",), look)
    return found.get(path, [])


def _queue(path: str) -> tuple[int, int] | None:
    """What waits in a listening socket's queue and its length, by ss(8); without ss, None."""
    found: dict[str, tuple[int, int]] = once(("queues",), _queues)
    return found.get(path)


def _queues() -> dict[str, tuple[int, int]]:
    command = ["ss", "--no-header", "--listening", "--unix"]
    try:
        found = subprocess.run(
            command,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=30,
            check=False,
        )
    except FileNotFoundError:
        return {}
    except subprocess.TimeoutExpired:
        raise CommandExecutionError("ss gave no answer within 30 s") from None
    queues: dict[str, tuple[int, int]] = {}
    for line in found.stdout.splitlines():
        fields = line.split()
        if len(fields) > 4:
            queues.setdefault(fields[4], (int(fields[2]), int(fields[3])))
    return queues


def waiting(path: str) -> int:
    """
    How many connections wait at a socket.

    path
        the path that it was bound to, also when another socket is there by now

    Returns a number; 0 without a listening socket, and on a host without ss(8).

    Raises CommandExecutionError when ss does not answer.
    """
    return (_queue(path) or (0, 0))[0]


def somaxconn() -> int:
    """
    The longest queue of connections that the kernel allows (net.core.somaxconn).

    Returns a number.
    """

    def look() -> int:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as limit:
            return int(limit.read())

    return int(once(("somaxconn",), look))


def set_owner(path: str, owner: str, group: str, mode: str) -> None:
    """
    Give a live socket's file another owner, group and mode. No connection is lost.

    path
        the socket
    owner, group
        names, or a number of an account that is gone
    mode
        a quoted octal string

    Raises CommandExecutionError when there is no socket, or no such user or group.
    """
    refuse_change(f"change the owner of {path}")
    try:
        uid = int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid
        gid = grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise CommandExecutionError(str(error.args[0])) from None
    # By way of a handle, so that it is this socket and not what a link puts in its place.
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise CommandExecutionError(f"{path} is not a socket")
        os.chown(f"/proc/self/fd/{handle}", uid, gid)
        os.chmod(f"/proc/self/fd/{handle}", int(mode, 8))
    finally:
        os.close(handle)


def set_backlog(path: str, backlog: int) -> bool:
    """
    Give a live listening socket a longer or a shorter queue. No connection is lost.

    listen(2) may be called again on a listening socket. systemd, which holds it, has no command for
    that: its descriptor is borrowed for the call.

    path
        the socket
    backlog
        how many connections may wait; the kernel caps it at net.core.somaxconn

    Returns True when it was done, False when the kernel did not lend the descriptor.
    """
    refuse_change(f"change the backlog of {path}")
    wanted = {f"socket:[{inode}]" for inode in _listeners(path)}
    library = ctypes.CDLL(None, use_errno=True)
    holder = os.pidfd_open(1)
    try:
        for entry in os.listdir("/proc/1/fd"):
            try:
                target = os.readlink(f"/proc/1/fd/{entry}")
            except FileNotFoundError:
                continue
            if target not in wanted:
                continue
            borrowed = library.syscall(_PIDFD_GETFD, holder, int(entry), 0)
            if borrowed < 0:
                return False
            with socket.socket(fileno=borrowed) as listening:
                listening.listen(backlog)
            return True
    except PermissionError:
        return False
    finally:
        os.close(holder)
    return False
