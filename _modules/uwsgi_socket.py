"""
The listening socket of a site, held by systemd.

systemd listens, every generation of uWSGI only inherits: that is what lets two generations share
one socket, and what makes a restart lose nothing (a connection made meanwhile waits in the
socket's queue).

.. versionadded:: 0.1.0
"""

import contextlib
import ctypes
import grp
import os
import pwd
import re
import socket
import stat
import subprocess
from typing import Any

from salt.exceptions import CommandExecutionError

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import durable_file, systemd

__virtualname__ = "uwsgi_socket"

# pidfd_getfd(2), since Linux 5.6, the same number on every architecture that Debian releases.
_PIDFD_GETFD = 438

# Where anybody may put a file, so that somebody else's socket may be there first.
_PUBLIC = ("/tmp/", "/var/tmp/", "/dev/shm/")


# The lines of a socket's unit that say who may connect, and what they are called in the pillar.
_ACCESS = re.compile(r"^Socket(User|Group|Mode)=(.*)$", re.MULTILINE)
_KEYS = {"User": "owner", "Group": "group", "Mode": "mode"}

# The units of all sites, generations among them.
_PATTERN = "uwsgi-*"

_NOT_THERE: dict[str, Any] = {
    "owner": None,
    "group": None,
    "mode": None,
    "backlog": None,
    "listening": False,
}


def __virtual__() -> str:
    return __virtualname__


def names(site: str) -> dict[str, str]:
    """
    The names of the units that hold a site's socket.

    site
        the site's name

    Returns ``socket`` (the listening socket) and ``anchor`` (the service that it activates, which
    is also the name that an operator starts, stops and restarts).

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.names mysite
    """
    return {"socket": f"uwsgi-{site}.socket", "anchor": f"uwsgi-{site}.service"}


def unit_files(site: str) -> dict[str, str]:
    """
    The unit files that hold a site's socket, as they shall be.

    site
        the site's name

    Returns a dictionary by path of the files' text.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.unit_files mysite
    """
    wanted = _wanted(site)
    directory = __salt__["site_pillar.settings"]()["lookup"]["unit_dir"]
    unit = names(site)
    path = systemd.escape(wanted["path"])
    return {
        f"{directory}/{unit['socket']}": f"""\
[Unit]
Description=Listening socket of the Django site "{site}"

[Socket]
ListenStream={path}
SocketUser={wanted["owner"]}
SocketGroup={wanted["group"]}
SocketMode={wanted["mode"]}
DirectoryMode=0755
# The kernel caps it at net.core.somaxconn.
Backlog={wanted["backlog"]:d}
RemoveOnStop=yes
# Not the application, see there.
Service={unit["anchor"]}

[Install]
WantedBy=sockets.target
""",
        f"{directory}/{unit['anchor']}": f"""\
[Unit]
Description=Django site "{site}"
# A connection activates this unit, which stays active: so systemd does not watch the socket
# itself and never starts a stopped generation.  The enabled generation, uwsgi-{site}@*.service,
# is part of this unit: it is started, stopped and restarted with it.
Requires={unit["socket"]}
After={unit["socket"]}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true

[Install]
WantedBy=multi-user.target
""",
    }


def _wanted(site: str) -> dict[str, Any]:
    """The socket as it has to be now: the pillar's, see :py:mod:`socket_access` for who may connect."""
    socket = __salt__["site_pillar.site"](site)["socket"]
    owner = _written(site).get("owner")
    return {**socket, **__salt__["socket_access.wanted"](site, owner)}


def _unit_path(site: str) -> str:
    directory = __salt__["site_pillar.settings"]()["lookup"]["unit_dir"]
    return f"{directory}/{names(site)['socket']}"


def _written(site: str) -> dict[str, str]:
    """Owner, group and mode in the unit file that is there; empty without one."""
    text = durable_file.read(_unit_path(site)) or b""
    found = _ACCESS.findall(text.decode("utf-8", "replace"))
    return {_KEYS[word]: value for word, value in found}


def status(site: str) -> dict[str, Any]:
    """
    How a site's socket is on the host now.

    site
        the site's name

    Returns a dictionary: ``path`` (where systemd listens, None when it does not), ``owner``,
    ``group`` and ``mode`` of the socket's file (None without one), ``backlog`` (the length of the
    queue that the listening socket really has, None when it is not known), ``listening``,
    ``active`` and ``enabled`` (of both units together) and ``anchor`` (active or not).

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.status mysite
    """
    return _status(site, units(site))


def units(site: str) -> dict[str, dict[str, str]]:
    """
    What systemd says of a site's socket and its anchor.

    site
        the site's name

    Returns properties (see :py:func:`systemd_unit.show`) by unit.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.units mysite
    """
    return __salt__["systemd_unit.show"](
        list(names(site).values()), ["LoadState", "ActiveState", "Listen", "NeedDaemonReload"]
    )


def _status(site: str, shown: dict[str, dict[str, str]]) -> dict[str, Any]:
    unit = names(site)
    held, anchor = shown[unit["socket"]], shown[unit["anchor"]]
    active = held.get("ActiveState") == "active"
    found = re.match(r"(/.*) \(Stream\)$", held.get("Listen", "").split("\n")[0])
    path = found[1] if found and active else None
    return {
        "path": path,
        **(_seen(path) if path else _NOT_THERE),
        "active": active,
        "anchor": anchor.get("ActiveState") == "active",
        "enabled": all(map(os.path.lexists, links(site))),
    }


def lacks(site: str, shown: dict[str, dict[str, str]] | None = None) -> dict[str, dict[str, Any]]:
    """
    What of a site's socket is not yet as the pillar says.

    site
        the site's name
    shown
        what :py:func:`units` says, where it was asked already

    Returns a dictionary of ``old`` and ``new`` by what it is, empty when all is as it should be.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.lacks mysite
    """
    written = _unwritten(site)
    if shown is None and not written and __salt__["host_survey.going_on"]():
        now = _glanced(site, __salt__["site_pillar.site"](site)["socket"]["path"])
        if now is not None:
            return _differences(site, now)
    return {**written, **_lacks(site, units(site) if shown is None else shown)}


def _unwritten(site: str) -> dict[str, dict[str, Any]]:
    """The unit files that are not as they shall be."""
    changes: dict[str, dict[str, Any]] = {}
    for path, text in unit_files(site).items():
        if durable_file.differs(path, text):
            there = os.path.lexists(path)
            changes[path] = {"old": "other content" if there else None, "new": "written"}
    return changes


def _lacks(site: str, shown: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """What is not yet as the pillar says of what systemd tells."""
    changes: dict[str, dict[str, Any]] = {}
    if any(unit.get("NeedDaemonReload") == "yes" for unit in shown.values()):
        changes["systemd"] = {"old": "older unit files", "new": "reloaded"}
    return {**changes, **_differences(site, _status(site, shown))}


def _differences(site: str, now: dict[str, Any]) -> dict[str, dict[str, Any]]:
    wanted = _wanted(site)
    anchor = names(site)["anchor"]
    changes: dict[str, dict[str, Any]] = {}
    if now["path"] != wanted["path"]:
        changes["path"] = {"old": now["path"], "new": wanted["path"]}
    elif not now["listening"]:
        changes["listening"] = {"old": False, "new": True}
    if now["mode"] is not None and now["path"] == wanted["path"]:
        for key in ("owner", "group", "mode"):
            new = f"{int(wanted[key], 8):04o}" if key == "mode" else wanted[key]
            if now[key] != new:
                changes[key] = {"old": now[key], "new": new}
        backlog = min(wanted["backlog"], somaxconn())
        if now["backlog"] is not None and now["backlog"] != backlog:
            changes["backlog"] = {"old": now["backlog"], "new": backlog}
    if not now["anchor"]:
        changes[anchor] = {"old": "inactive", "new": "active"}
    if not now["enabled"]:
        changes["enabled"] = {"old": False, "new": True}
    return changes


def glance() -> dict[str, dict[str, Any]]:
    """
    The loaded units of all sites, sockets and generations, see :py:func:`systemd_unit.glance`.

    Returns what that returns; within a survey systemd is asked once.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.glance
    """
    look = __salt__["host_survey.once"]
    return look(("glance", _PATTERN), lambda: __salt__["systemd_unit.glance"](_PATTERN))


def _glanced(site: str, path: str) -> dict[str, Any] | None:
    """
    As :py:func:`status`, of a socket whose unit files are right: as much as tells whether all is as
    it should be. None where there is more to know than a glance shows.
    """
    unit = names(site)
    seen = glance()
    held, anchor = seen.get(unit["socket"]), seen.get(unit["anchor"])
    if held is None or anchor is None or held["stale"] or held["ActiveState"] != "active":
        return None
    return {
        "path": path,
        "anchor": anchor["ActiveState"] == "active",
        "enabled": all(map(os.path.lexists, links(site))),
        **_seen(path),
    }


def remarks(site: str) -> list[str]:
    """
    What there is to say of a site's socket even when it is as the pillar says.

    site
        the site's name

    Returns a list of sentences, empty when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.remarks mysite
    """
    answer = [f"insecure: {why}" for why in insecure(site)]
    backlog, limit = __salt__["site_pillar.site"](site)["socket"]["backlog"], somaxconn()
    if backlog > limit:
        answer.append(f"the kernel caps the backlog of {backlog} at net.core.somaxconn = {limit}")
    for user in shared(site):
        answer.append(f"it lets in {user} as well, as which nginx runs or would start")
    return answer


def links(site: str) -> dict[str, str]:
    """
    The links by which a site's units start with the system, as their ``[Install]`` sections say.

    site
        the site's name

    Returns a dictionary from a link's path to where it leads.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.links mysite
    """
    unit = names(site)
    directory = __salt__["site_pillar.settings"]()["lookup"]["unit_dir"]
    return {
        f"{directory}/sockets.target.wants/{unit['socket']}": f"{directory}/{unit['socket']}",
        f"{directory}/multi-user.target.wants/{unit['anchor']}": f"{directory}/{unit['anchor']}",
    }


def _seen(path: str) -> dict[str, Any]:
    """What the file system and the kernel say of a socket."""
    answer = dict(_NOT_THERE)
    with contextlib.suppress(FileNotFoundError):
        entry = os.lstat(path)
        if stat.S_ISSOCK(entry.st_mode):
            answer["owner"] = __salt__["host_survey.name_of"]("user", entry.st_uid)
            answer["group"] = __salt__["host_survey.name_of"]("group", entry.st_gid)
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

    return __salt__["host_survey.once"](("listeners",), look).get(path, [])


def _queue(path: str) -> tuple[int, int] | None:
    """What waits in a listening socket's queue and its length, by ss(8); without ss, None."""
    return __salt__["host_survey.once"](("queues",), _queues).get(path)


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


def queue(path: str) -> int:
    """
    How many connections wait at a socket.

    path
        the path that it was bound to, also when that leads elsewhere by now

    Returns a number; 0 where nobody listens, and where the host has no ss(8) to tell.

    Raises CommandExecutionError when ss does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.queue /run/uwsgi/mysite.sock
    """
    return (_queue(path) or (0, 0))[0]


def somaxconn() -> int:
    """
    The longest queue of connections that the kernel allows (net.core.somaxconn).

    Returns a number.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.somaxconn
    """

    def look() -> int:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as limit:
            return int(limit.read())

    return __salt__["host_survey.once"](("somaxconn",), look)


def insecure(site: str) -> list[str]:
    """
    What makes a site's socket, as the pillar has it, open to more than nginx.

    site
        the site's name

    Returns a list of sentences, empty when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.insecure mysite
    """
    wanted = __salt__["site_pillar.site"](site)["socket"]
    answer = []
    if int(wanted["mode"], 8) & 0o002:
        answer.append(
            f"mode {wanted['mode']} lets every local user talk to uWSGI as nginx does "
            "(and pose as any logged-in visitor)"
        )
    if wanted["path"].startswith(_PUBLIC):
        answer.append(
            f"{wanted['path']} is in a directory where any local user may put a socket first"
        )
    return answer


def lead(site: str, path: str) -> bool:
    """
    Let whoever asks at the pillar's path of a site's socket come to another one. If systemd
    listens there and no generation does, it stops.

    site
        the site's name
    path
        a socket that a generation listens on

    Returns True when something was changed.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.lead mysite /run/uwsgi/old.sock
    """
    wanted = __salt__["site_pillar.site"](site)["socket"]["path"]
    if status(site)["path"] == wanted:
        __salt__["systemd_unit.stop"](list(names(site).values()), alone=True)
    durable_file.directory(os.path.dirname(wanted))
    return durable_file.link(wanted, path)


def listen(site: str, shown: dict[str, dict[str, str]] | None = None) -> None:
    """
    Let systemd listen for a site as the pillar says, whatever is to be done for that. On another
    path nobody answers before a generation is started there; one that runs keeps the old socket.

    site
        the site's name
    shown
        what :py:func:`units` says, where it was asked already

    Raises CommandExecutionError when the owner or the group is not on this host (nothing is changed
    then), when systemd does not obey, or the kernel lets a live socket's backlog not be changed.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.listen mysite
    """
    missing = __salt__["socket_access.missing"](site)
    if missing:
        raise CommandExecutionError("\n".join(missing))
    wanted = _wanted(site)
    shown = units(site) if shown is None else shown
    changes = _lacks(site, shown)
    unit = names(site)
    anew = "path" in changes or "listening" in changes
    moves = anew and __salt__["uwsgi_generation.elsewhere"](site)
    if anew and not moves:
        # A generation without a socket is of no use to anybody.  And systemd does not start a
        # socket whose service is active (core/socket.c).
        stop = __salt__["site_pillar.site"](site)["uwsgi"]["stop_timeout"]
        there = [each for each in unit.values() if shown[each]["LoadState"] == "loaded"]
        if there:
            __salt__["systemd_unit.stop"](there, timeout=stop + 30)
            __salt__["systemd_unit.reset_failed"](there)
    for path, text in unit_files(site).items():
        durable_file.write(path, text)
    # At a path that is not the unit's any more systemd closes its side of the socket and leaves the
    # file (socket_deserialize_item() in core/socket.c).
    # One that it did not know it reads when it is to start it.
    if any(each["LoadState"] != "not-found" for each in shown.values()):
        __salt__["systemd_unit.read_anew"](list(unit.values()))
    if moves:
        __salt__["systemd_unit.stop"](list(unit.values()), alone=True)
    if "enabled" in changes:
        # Not by systemctl, which has systemd read every unit of the host anew.
        for link, target in links(site).items():
            durable_file.directory(os.path.dirname(link))
            durable_file.link(link, target)
    if not anew:
        # Twice for a socket that has just been made by an old unit; nothing for a right one.
        set_owner(wanted["path"], wanted["owner"], wanted["group"], wanted["mode"])
        if "backlog" in changes and not set_backlog(wanted["path"], wanted["backlog"]):
            raise CommandExecutionError(
                "the kernel does not let the backlog of a live socket be changed here: "
                f"systemctl restart {unit['socket']} does it, and stops the site for that time"
            )
    __salt__["systemd_unit.start"](list(unit.values()))


def shared(site: str) -> list[str]:
    """
    The users besides the pillar's that a site's socket has to let in now, because nginx runs as
    them or has them in its configuration on disk.

    site
        the site's name

    Returns their names.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.shared mysite
    """
    return __salt__["socket_access.others"](site, _written(site).get("owner"))


def opened(site: str, narrow: bool = False) -> dict[str, dict[str, str]]:
    """
    What of a site's socket has to change for nginx to connect, or for nobody else to.

    site
        the site's name
    narrow
        also what lets in more users than nginx connects as by now

    Returns a dictionary of ``old`` and ``new`` by ``owner``, ``group`` and ``mode``; empty when
    nothing is to be done, and where systemd holds no socket of that site.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.opened mysite narrow=True
    """
    written = _written(site)
    if not written:
        return {}
    live = {key: value for key, value in _seen(_bound(site)).items() if value and key in written}
    wanted = __salt__["socket_access.wanted"](site, written.get("owner"))
    changes: dict[str, dict[str, str]] = {}
    for now in (written, live):
        if not now or not (narrow or __salt__["socket_access.shuts_out"](site, now)):
            continue
        for key, new in wanted.items():
            same = int(now[key], 8) == int(new, 8) if key == "mode" else now[key] == new
            if not same:
                changes[key] = {"old": now[key], "new": new}
    return changes


def _bound(site: str) -> str:
    """The path in the unit file, on which systemd listens; it may not be the pillar's yet."""
    text = (durable_file.read(_unit_path(site)) or b"").decode("utf-8", "replace")
    found = re.search(r"^ListenStream=(.*)$", text, re.MULTILINE)
    # systemd's word for a percent sign, the only one that systemd_unit.escape puts into a path.
    return found[1].replace("%%", "%") if found else ""


def admit(sites: list[str]) -> None:
    """
    Let in the users that nginx connects as, and no others, at the sockets of some sites: in the
    units, and at the live sockets. Nothing else of them changes, and no connection is lost.

    sites
        names of sites whose socket's unit is there

    Raises CommandExecutionError when systemd does not obey, or an account is not on this host.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.admit '[mysite]'
    """
    for site in sites:
        missing = __salt__["socket_access.missing"](site)
        if missing:
            raise CommandExecutionError("\n".join(missing))
    access = {
        site: __salt__["socket_access.wanted"](site, _written(site).get("owner")) for site in sites
    }
    for site, wanted in access.items():
        text = (durable_file.read(_unit_path(site)) or b"").decode("utf-8", "replace")
        for word, key in _KEYS.items():
            # Names of accounts and octal numbers: nothing in them is a reference to a group.
            text = re.sub(rf"^Socket{word}=.*$", f"Socket{word}={wanted[key]}", text, flags=re.M)
        durable_file.write(_unit_path(site), text)
    __salt__["systemd_unit.read_anew"]([names(site)["socket"] for site in sites])
    for site, wanted in access.items():
        path = _bound(site)
        if _seen(path)["mode"] is not None:
            set_owner(path, **wanted)


def remains(site: str) -> dict[str, str]:
    """
    What is on the host of a site's socket.

    site
        the site's name; the pillar need not have it any more

    Returns a dictionary: the paths of its unit files (``there``), and its units that are not down
    with their state as systemd calls it.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.remains mysite
    """
    directory = __salt__["site_pillar.settings"]()["lookup"]["unit_dir"]
    seen = glance() if __salt__["host_survey.going_on"]() else units(site)
    found = {}
    for unit in names(site).values():
        if os.path.lexists(f"{directory}/{unit}"):
            found[f"{directory}/{unit}"] = "there"
        state = seen[unit]["ActiveState"] if unit in seen else "inactive"
        if state not in ("inactive", "failed"):
            found[unit] = state
    return found


def remove(site: str) -> None:
    """
    Make systemd let go of a site's socket, and remove its units. What the socket's queue holds is
    lost: :py:func:`uwsgi_generation.remove` comes first, and before it nginx lets go.

    site
        the site's name; the pillar need not have it any more

    Raises CommandExecutionError when a unit does not stop.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.remove mysite
    """
    directory = __salt__["site_pillar.settings"]()["lookup"]["unit_dir"]
    # Stop and disable in one go: a connection between the two would activate the anchor again.
    loaded = [unit for unit, shown in units(site).items() if shown["LoadState"] == "loaded"]
    if loaded:
        __salt__["systemd_unit.stop"](loaded)
        __salt__["systemd_unit.reset_failed"](loaded)
    # systemctl refuses to disable a unit without a file, as a killed run may have left one of them
    # in systemd's memory.
    there = [unit for unit in loaded if os.path.lexists(f"{directory}/{unit}")]
    if there:
        __salt__["systemd_unit.disable"](there, later=True)
    for unit in names(site).values():
        durable_file.remove(f"{directory}/{unit}")
    __salt__["systemd_unit.daemon_reload"](later=True)


def set_owner(path: str, owner: str, group: str, mode: str) -> bool:
    """
    Give a live socket's file another owner, group and mode. No connection is lost.

    path
        the socket
    owner, group
        names, or a number of an account that is gone
    mode
        a quoted octal string

    Returns True.

    Raises CommandExecutionError when there is no socket, or no such user or group.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.set_owner /run/uwsgi/mysite.sock root www-data '0660'
    """
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
    return True


def set_backlog(path: str, backlog: int) -> bool:
    """
    Give a live listening socket a longer or a shorter queue. No connection is lost.

    listen(2) may be called again on a listening socket; systemd, which holds it, has no word for
    that, so its descriptor is borrowed for the call.

    path
        the socket
    backlog
        how many connections may wait; the kernel caps it at net.core.somaxconn

    Returns True when it was done, False when the kernel did not lend the descriptor.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.set_backlog /run/uwsgi/mysite.sock 4096
    """
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
