"""
The listening socket of a site, held by systemd.

systemd listens, every generation of uWSGI only inherits: that is what lets two generations share
one socket, and what makes a restart lose nothing (a connection made meanwhile waits in the
socket's queue).

.. versionadded:: 0.1.0
"""

import os
import re
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import (
    cache,
    durable_file,
    systemd,
    systemd_units,
    unix_socket,
    uwsgi_files,
    uwsgi_status,
)

__virtualname__ = "uwsgi_socket"

# Every local user may put a socket there first.
_PUBLIC = ("/tmp/", "/var/tmp/", "/dev/shm/")


# The lines of a socket's unit that say who may connect, and what they are called in the pillar.
_ACCESS = re.compile(r"^Socket(User|Group|Mode)=(.*)$", re.MULTILINE)
_KEYS = {"User": "owner", "Group": "group", "Mode": "mode"}


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    found: dict[str, Any] = cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))
    return found


def _lookup() -> dict[str, str]:
    found: dict[str, str] = cache.once(
        ("lookup",), lambda: __salt__["site_pillar.settings"]()["lookup"]
    )
    return found


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
    The unit files that hold a site's socket, by the pillar.

    site
        the site's name

    Returns a dictionary by path of the files' text.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.unit_files mysite
    """
    wanted = _wanted(site)
    directory = _lookup()["unit_dir"]
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
    """The socket that the site needs now; :py:mod:`socket_access` says who may connect."""
    socket = _site(site)["socket"]
    owner = _written(site).get("owner")
    return {**socket, **__salt__["socket_access.wanted"](site, owner)}


def _unit_path(site: str) -> str:
    directory = _lookup()["unit_dir"]
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
    return systemd_units.show(
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
        **(unix_socket.seen(path) if path else unix_socket.NOT_THERE),
        "active": active,
        "anchor": anchor.get("ActiveState") == "active",
        "enabled": all(map(os.path.lexists, links(site))),
    }


def diff(site: str, shown: dict[str, dict[str, str]] | None = None) -> dict[str, dict[str, Any]]:
    """
    What of a site's socket differs from the pillar.

    site
        the site's name
    shown
        what :py:func:`units` says, where it was asked already

    Returns a dictionary of ``old`` and ``new`` by what it is, empty when nothing differs.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.diff mysite
    """
    written = _file_diff(site)
    if shown is None and not written and cache.active():
        now = _glanced(site, _site(site)["socket"]["path"])
        if now is not None:
            return _differences(site, now)
    return {**written, **_systemd_diff(site, units(site) if shown is None else shown)}


def _file_diff(site: str) -> dict[str, dict[str, Any]]:
    """The unit files that differ from the pillar."""
    changes: dict[str, dict[str, Any]] = {}
    for path, text in unit_files(site).items():
        if durable_file.differs(path, text):
            there = os.path.lexists(path)
            changes[path] = {"old": "other content" if there else None, "new": "written"}
    return changes


def _systemd_diff(site: str, shown: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """What differs from the pillar of what systemd tells."""
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
        backlog = min(wanted["backlog"], unix_socket.somaxconn())
        if now["backlog"] is not None and now["backlog"] != backlog:
            changes["backlog"] = {"old": now["backlog"], "new": backlog}
    if not now["anchor"]:
        changes[anchor] = {"old": "inactive", "new": "active"}
    if not now["enabled"]:
        changes["enabled"] = {"old": False, "new": True}
    return changes


def _glanced(site: str, path: str) -> dict[str, Any] | None:
    """
    As :py:func:`status`, of a socket whose unit files are right: enough to see that nothing differs.
    None where that takes more than a glance.
    """
    unit = names(site)
    seen = uwsgi_status.glance()
    held, anchor = seen.get(unit["socket"]), seen.get(unit["anchor"])
    if held is None or anchor is None or held["stale"] or held["ActiveState"] != "active":
        return None
    return {
        "path": path,
        "anchor": anchor["ActiveState"] == "active",
        "enabled": all(map(os.path.lexists, links(site))),
        **unix_socket.seen(path),
    }


def elsewhere(site: str) -> list[str]:
    """
    The sockets other than the pillar's that a site's generations listen on.

    site
        the site's name

    Returns a list of paths.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.elsewhere mysite
    """
    store = uwsgi_files.Store(_lookup(), site)
    return uwsgi_status.elsewhere(store, _site(site)["socket"]["path"])


def remarks(site: str) -> list[str]:
    """
    Remarks on a site's socket that does not differ from the pillar.

    site
        the site's name

    Returns a list of sentences, empty when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.remarks mysite
    """
    answer = [f"insecure: {why}" for why in insecure(site)]
    backlog, limit = _site(site)["socket"]["backlog"], unix_socket.somaxconn()
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
    directory = _lookup()["unit_dir"]
    return {
        f"{directory}/sockets.target.wants/{unit['socket']}": f"{directory}/{unit['socket']}",
        f"{directory}/multi-user.target.wants/{unit['anchor']}": f"{directory}/{unit['anchor']}",
    }


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
    wanted = _site(site)["socket"]
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
    Link the pillar's path of a site's socket to another socket. systemd stops to listen at the
    pillar's path.

    site
        the site's name
    path
        a socket that a generation listens on

    Returns True when something was changed.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.lead mysite /run/uwsgi/old.sock
    """
    wanted = _site(site)["socket"]["path"]
    if status(site)["path"] == wanted:
        systemd_units.stop(list(names(site).values()), alone=True)
    durable_file.directory(os.path.dirname(wanted))
    return durable_file.link(wanted, path)


def ensure(site: str, shown: dict[str, dict[str, str]] | None = None) -> None:
    """
    Make systemd listen for a site as the pillar says. On another path no process answers before a
    generation is started there; a running generation keeps the old socket.

    site
        the site's name
    shown
        what :py:func:`units` says, where it was asked already

    Raises CommandExecutionError when the owner or the group is not on this host (nothing is changed
    then), systemctl fails, or the kernel refuses to change the backlog of a live socket.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.ensure mysite
    """
    missing = __salt__["socket_access.missing"](site)
    if missing:
        raise CommandExecutionError("\n".join(missing))
    wanted = _wanted(site)
    shown = units(site) if shown is None else shown
    changes = _systemd_diff(site, shown)
    unit = names(site)
    anew = "path" in changes or "listening" in changes
    moves = anew and elsewhere(site)
    if anew and not moves:
        # A generation without a socket serves no request, and systemd does not start a socket whose
        # service is active (core/socket.c).
        stop = _site(site)["uwsgi"]["stop_timeout"]
        there = [each for each in unit.values() if shown[each]["LoadState"] == "loaded"]
        if there:
            systemd_units.stop(there, timeout=stop + 30)
            systemd_units.reset_failed(there)
    for path, text in unit_files(site).items():
        durable_file.write(path, text)
    # At a path that is not the unit's any more systemd closes its side of the socket and leaves the
    # file (socket_deserialize_item() in core/socket.c).
    # One that it did not know it reads when it is to start it.
    if any(each["LoadState"] != "not-found" for each in shown.values()):
        systemd_units.read_anew(list(unit.values()))
    if moves:
        systemd_units.stop(list(unit.values()), alone=True)
    if "enabled" in changes:
        # Not by systemctl, which has systemd read every unit of the host anew.
        for link, target in links(site).items():
            durable_file.directory(os.path.dirname(link))
            durable_file.link(link, target)
    if not anew:
        # Twice for a socket that has just been made by an old unit; nothing for a right one.
        unix_socket.set_owner(wanted["path"], wanted["owner"], wanted["group"], wanted["mode"])
        if "backlog" in changes and not unix_socket.set_backlog(wanted["path"], wanted["backlog"]):
            raise CommandExecutionError(
                "the kernel does not let the backlog of a live socket be changed here: "
                f"systemctl restart {unit['socket']} does it, and stops the site for that time"
            )
    systemd_units.start(list(unit.values()))


def shared(site: str) -> list[str]:
    """
    Users other than the pillar's that need access to a site's socket now, because nginx runs as
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
    live = {
        key: value
        for key, value in unix_socket.seen(_bound(site)).items()
        if value and key in written
    }
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

    Raises CommandExecutionError when systemctl fails, or an account is not on this host.

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
    systemd_units.read_anew([names(site)["socket"] for site in sites])
    for site, wanted in access.items():
        path = _bound(site)
        if unix_socket.seen(path)["mode"] is not None:
            unix_socket.set_owner(path, **wanted)


def leftovers(site: str) -> dict[str, str]:
    """
    What is on the host of a site's socket.

    site
        the site's name; the pillar need not have it any more

    Returns a dictionary: the paths of its unit files (``there``), and its units that are not down
    with their state as systemd calls it.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.leftovers mysite
    """
    directory = _lookup()["unit_dir"]
    seen = uwsgi_status.glance() if cache.active() else units(site)
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
    Close a site's socket and remove its units. The connections in its queue are lost: nginx's part
    of the site and :py:func:`uwsgi_generation.remove` come first.

    site
        the site's name; the pillar need not have it any more

    Raises CommandExecutionError when a unit does not stop.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_socket.remove mysite
    """
    directory = _lookup()["unit_dir"]
    # Stop and disable in one go: a connection between the two would activate the anchor again.
    loaded = [unit for unit, shown in units(site).items() if shown["LoadState"] == "loaded"]
    if loaded:
        systemd_units.stop(loaded)
        systemd_units.reset_failed(loaded)
    # systemctl refuses to disable a unit without a file, as a killed run may have left one of them
    # in systemd's memory.
    there = [unit for unit in loaded if os.path.lexists(f"{directory}/{unit}")]
    if there:
        systemd_units.disable(there, later=True)
    for unit in names(site).values():
        durable_file.remove(f"{directory}/{unit}")
    systemd_units.daemon_reload(later=True)
