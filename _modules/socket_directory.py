"""
The directories of the sites' sockets outlive other services that have them as their runtime directory.

``RuntimeDirectory=uwsgi`` makes systemd give ``/run/uwsgi``, and all that is in it, to the service's user
and group when it starts, and remove it when the service stops (systemd.exec(5); setup_exec_directory()
and path_chown_recursive() in systemd's source). Debian's ``uwsgi-emperor`` has it, and many a unit
written by hand. A drop-in for each such unit makes the directory, as systemd would, by a command that
leaves alone what is in it.

.. versionadded:: 0.1.0
"""

import os
import posixpath
import re

from _nud import durable_file, nginx_files

__virtualname__ = "socket_directory"

# Not the name of nginx_socket's drop-in.
_DROP_IN = "nginx_uwsgi_django-runtime.conf"

# What counts most comes first (systemd.unit(5)).
_UNIT_PATH = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)

# Debian's unit has these lines. It is known before it is installed: the package starts it at once.
_KNOWN = {
    "uwsgi": (
        "uwsgi-emperor.service",
        {"RuntimeDirectory": "uwsgi", "Group": "www-data", "RuntimeDirectoryMode": "0775"},
    )
}

_LINE = re.compile(
    r"^[ \t]*(RuntimeDirectory|RuntimeDirectoryMode|User|Group)[ \t]*=[ \t]*(.*?)[ \t]*$",
    re.MULTILINE,
)


def __virtual__() -> str:
    return __virtualname__


def _unit_dir() -> str:
    return str(__salt__["site_pillar.settings"]()["lookup"]["unit_dir"])


def _directories() -> set[str]:
    """What of /run the sites' sockets are in, as ``RuntimeDirectory=`` names it."""
    sites = __salt__["site_pillar.settings"]()["sites"].values()
    folders = {posixpath.dirname(site["socket"]["path"]) for site in sites if not site["absent"]}
    inside = {re.sub(r"\A(?:/var)?/run/", "", folder) for folder in folders}
    return {folder for folder in inside if not folder.startswith("/")}


def _settings_of(path: str) -> dict[str, str]:
    """What a unit file says of its runtime directories and of who they belong to."""
    text = (durable_file.read(os.path.realpath(path)) or b"").decode("utf-8", "replace")
    found: dict[str, str] = {}
    for key, value in _LINE.findall(text):
        # A list, which an empty value empties.
        more = key == "RuntimeDirectory" and value and key in found
        found[key] = f"{found[key]} {value}" if more else value
    return found


def _sharers(directories: set[str]) -> dict[str, dict[str, str]]:
    """The units in whose runtime directory one of these is, with what they say of it."""
    found = dict(_KNOWN[folder] for folder in sorted(directories & set(_KNOWN)))
    for place in reversed(_UNIT_PATH):
        try:
            names = os.listdir(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            path = os.path.join(place, name)
            if not name.endswith(".service") or not os.path.isfile(path):
                continue
            said = _settings_of(path)
            mine = [word.strip("/") + "/" for word in said.get("RuntimeDirectory", "").split()]
            if any(f"{folder}/".startswith(word) for folder in directories for word in mine):
                found[name] = said
    return found


def _text(said: dict[str, str]) -> str:
    """The drop-in of a unit."""
    paths = " ".join(f"/run/{word.strip('/')}" for word in said["RuntimeDirectory"].split())
    mode = said.get("RuntimeDirectoryMode") or "0755"
    owner = f"{said.get('User', '')}:{said.get('Group', '')}"
    lines = [
        f"# {nginx_files.MARKER.decode()}.",
        "# Sockets of Django sites are in this service's runtime directory: systemd would give them to",
        "# its user when it starts, and remove them when it stops.",
        "[Service]",
        "RuntimeDirectory=",
        f"Environment=RUNTIME_DIRECTORY={paths.replace(' ', ':')}",
        f"ExecStartPre=+/usr/bin/install -d -m {mode} {paths}",
    ]
    if owner != ":":
        # Without a group it is the user's own.
        lines.append(f"ExecStartPre=+/bin/chown {owner} {paths}")
    return "\n".join(lines) + "\n"


def _written() -> set[str]:
    """The units that have the drop-in."""
    try:
        entries = os.listdir(_unit_dir())
    except FileNotFoundError:
        return set()
    return {
        entry.removesuffix(".d")
        for entry in entries
        if entry.endswith(".service.d")
        and os.path.lexists(os.path.join(_unit_dir(), entry, _DROP_IN))
    }


def _path(unit: str) -> str:
    return os.path.join(_unit_dir(), f"{unit}.d", _DROP_IN)


def diff(everything: bool = False) -> dict[str, dict[str, str | None]]:
    """
    The drop-ins that are to be written or removed.

    everything
        as if no site were to stay

    Returns by path ``old`` and ``new``.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_directory.diff
    """
    return {path: change for path, (change, _) in _due(everything).items()}


def _due(everything: bool) -> dict[str, tuple[dict[str, str | None], str]]:
    folders = set() if everything else _directories()
    wanted = _sharers(folders) if folders else {}
    found: dict[str, tuple[dict[str, str | None], str]] = {}
    for unit, said in sorted(wanted.items()):
        text = _text(said)
        if durable_file.differs(_path(unit), text):
            old = "other content" if os.path.lexists(_path(unit)) else None
            found[_path(unit)] = ({"old": old, "new": "a drop-in"}, text)
    for unit in sorted(_written() - set(wanted)):
        found[_path(unit)] = ({"old": "a drop-in", "new": None}, "")
    return found


def ensure(everything: bool = False) -> dict[str, dict[str, str | None]]:
    """
    Write and remove drop-ins until :py:func:`diff` is empty.

    everything
        as in :py:func:`diff`

    Returns what :py:func:`diff` returned before.

    Raises CommandExecutionError when the pillar is not valid or systemd does not obey.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_directory.ensure
    """
    due = _due(everything)
    for path, (change, text) in due.items():
        if change["new"]:
            durable_file.directory(os.path.dirname(path))
            durable_file.write(path, text)
        else:
            durable_file.remove(path)
            if not os.listdir(os.path.dirname(path)):
                os.rmdir(os.path.dirname(path))
    if due:
        __salt__["systemd_unit.daemon_reload"](force=True)
    return {path: change for path, (change, _) in due.items()}
