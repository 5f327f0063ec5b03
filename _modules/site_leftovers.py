"""
Sites that the formula made on this host and that the pillar does not name any more.

A pillar that has lost a site, by intent or by accident, removes nothing: what is left is found by
the marks of ownership on the host itself (units and nginx files say whose they are, accounts say
who made them), so that a run can report it, or remove it where the pillar says ``purge: true``.

.. versionadded:: 0.1.0
"""

import os
import pwd
import re
import subprocess
from collections.abc import Container
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import durable_file

__virtualname__ = "site_leftovers"

# The allow-list of site_pillar: no path is ever built of a name that does not match.
_NAME = r"[a-z][a-z0-9_-]{0,30}"
_UNIT = re.compile(rf"uwsgi-({_NAME})(@[0-9a-f]{{12}})?\.(?:service|socket)")
_COMPANION = re.compile(rf"django-({_NAME})\.{_NAME}\.(?:service|timer)")
_OWNER = re.compile(rf"nginx_uwsgi_django site ({_NAME})\n?")
_TOOL_TIMEOUT = 60


def __virtual__() -> str:
    return __virtualname__


def _lookup() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()["lookup"]


def _entries(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _text(path: str) -> str:
    return (durable_file.read(path) or b"").decode("utf-8", "replace")


def _units(named: Container[str]) -> list[tuple[str, str, str]]:
    """Unit files of the formula's sites that are not named: site, kind and path."""
    directory = _lookup()["unit_dir"]
    found = []
    for entry in _entries(directory):
        companion = _COMPANION.fullmatch(entry)
        match = companion or _UNIT.fullmatch(entry)
        path = f"{directory}/{entry}"
        # The sentence that uwsgi_socket, uwsgi_generation and site_companion write into each.
        if not match or match[1] in named:
            continue
        if f'Django site "{match[1]}"' in _text(path):
            kind = "companion" if companion else "generation" if match[2] else "socket"
            found.append((match[1], kind, path))
    return found


def _generations(named: Container[str]) -> list[tuple[str, str, str]]:
    """Directories that hold the files of generations, and nothing else."""
    directory = _lookup()["uwsgi_dir"]
    found = []
    for name in _entries(directory):
        path = f"{directory}/{name}"
        if name in named or not re.fullmatch(_NAME, name) or os.path.islink(path):
            continue
        files = [entry for entry in _entries(path) if not entry.startswith(".")]
        if files and all(_generations_file(path, file) for file in files):
            found.append((name, "generation", path))
    return found


def _generations_file(directory: str, file: str) -> bool:
    path = f"{directory}/{file}"
    if os.path.islink(path):
        # The link to the generation that ran before.
        return file == "previous" and bool(re.fullmatch(r"[0-9a-f]{12}\.json", os.readlink(path)))
    return bool(re.fullmatch(r"[0-9a-f]{12}\.(?:ini|env|json)", file))


def _nginx_files(named: Container[str]) -> list[tuple[str, str, str]]:
    directory = f"{_lookup()['nginx_dir']}/sites-available"
    found = []
    for entry in _entries(directory):
        name = entry.removesuffix(".conf")
        if name == entry or name in named or not re.fullmatch(_NAME, name):
            continue
        head = f"# Managed by the Salt formula nginx_uwsgi_django (site {name},"
        if _text(f"{directory}/{entry}").startswith(head):
            found.append((name, "nginx", f"{directory}/{entry}"))
    return found


def _logs(named: Container[str]) -> list[tuple[str, str, str]]:
    """The rotations of the sites' log files; the files themselves are data."""
    directory = "/etc/logrotate.d"
    found = []
    for entry in _entries(directory):
        match = re.fullmatch(rf"uwsgi-({_NAME})", entry)
        if not match or match[1] in named:
            continue
        head = f"# Managed by the Salt formula nginx_uwsgi_django (site {match[1]})"
        if _text(f"{directory}/{entry}").startswith(head):
            found.append((match[1], "log", f"{directory}/{entry}"))
    return found


def _accounts() -> list[tuple[str, str, str]]:
    """Users and groups that were made for a site and that no site of the pillar uses."""
    settings = __salt__["site_pillar.settings"]()
    projects = [site["project"] for site in settings["sites"].values()]
    users = {project["user"] for project in projects} | {settings["nginx"]["user"]}
    groups = {project["group"] for project in projects} | {settings["nginx"]["user"]}
    found = []
    for user in pwd.getpwall():
        made = _OWNER.fullmatch(user.pw_gecos)
        if made and user.pw_name not in users:
            found.append((made[1], "user", user.pw_name))
    directory = f"{settings['lookup']['state_dir']}/accounts"
    for entry in _entries(directory):
        group = entry.removeprefix("group-")
        made = _OWNER.fullmatch(_text(f"{directory}/{entry}"))
        if group != entry and made and group not in groups:
            found.append((made[1], "group", group))
    return found


def found() -> dict[str, dict[str, list[str]]]:
    """
    The sites on this host that the formula made and the pillar does not name.

    Returns a mapping from a site's name to what is there of it: any of ``companion``,
    ``generation`` and ``socket`` (files of its units), ``nginx`` and ``log`` (its file there),
    ``user`` and ``group`` (names). A site's
    data and its releases are no leftovers.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' site_leftovers.found
    """
    named = __salt__["site_pillar.settings"]()["sites"]
    left: dict[str, dict[str, list[str]]] = {}
    looks = (_nginx_files, _units, _generations, _logs)
    for name, kind, what in [*(one for look in looks for one in look(named)), *_accounts()]:
        if name not in named:
            left.setdefault(name, {}).setdefault(kind, []).append(what)
    return left


def remove_accounts(name: str) -> dict[str, str]:
    """
    Remove the user and the group that the formula made for a site which the pillar does not name.

    name
        the site

    Returns what was removed: ``user`` and ``group`` with their names.

    Raises CommandExecutionError when the pillar names the site, or with the words of userdel and
    groupdel, e.g. that a process still runs as the user.

    CLI Example:

    .. code-block:: bash

        salt '*' site_leftovers.remove_accounts oldsite
    """
    if name in __salt__["site_pillar.settings"]()["sites"]:
        raise CommandExecutionError(f"the pillar names the site {name}: it is no leftover")
    gone = {}
    for _, kind, account in [one for one in _accounts() if one[0] == name]:
        there = _tool("getent", "passwd" if kind == "user" else "group", account, may=(0, 2)) == 0
        if there:
            if kind == "user":
                # Its data stays, and is not to become another site's.
                __salt__["system_account.reserve"](name, account)
            # A group of the user's own name goes with it (USERGROUPS_ENAB, Debian's default).
            _tool("userdel" if kind == "user" else "groupdel", "--", account)
        if kind == "group":
            record = f"{_lookup()['state_dir']}/accounts/group-{account}"
            durable_file.remove(record)
        gone[kind] = account
    return gone


def _tool(*argv: str, may: tuple[int, ...] = (0,)) -> int:
    try:
        done = subprocess.run(
            argv,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TOOL_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandExecutionError(f"{argv[0]}: {error}") from error
    if done.returncode not in may:
        raise CommandExecutionError(
            f"{' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done.returncode
