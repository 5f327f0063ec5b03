"""
System accounts: the user of nginx, and one for each site.

An account that this module makes says so in its comment field (GECOS), so that the record of who
made it is written in the same instant as the account itself, and :py:func:`remove` never touches
one that somebody else made. A group of its own name comes and goes with its user; a group of
another name is noted under ``STATE_DIR/accounts`` before it is made. There, too, are the numbers of
accounts that were removed while files of theirs stayed: they are given to no other site.

.. versionadded:: 0.1.0
"""

import grp
import json
import os
import pwd
import re
from typing import Any

from salt.exceptions import CommandExecutionError

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import accounts, durable_file, program

__virtualname__ = "system_account"

_NOLOGIN = "/usr/sbin/nologin"
# What useradd and its kin may take; they wait for a lock on /etc/passwd for a few seconds.
_TOOL_TIMEOUT = 60
_TOOL_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
# Debian's policy (9.2.2): 100 to 999 is for accounts of the system, 1000 to 59999 for people's.
_MORE_NUMBERS = [
    word
    for kind in ("UID", "GID")
    for word in ("--key", f"SYS_{kind}_MIN=1000", "--key", f"SYS_{kind}_MAX=59999")
]


def __virtual__() -> str:
    return __virtualname__


def _settings() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()


def _comment(name: str) -> str:
    # A colon would end the GECOS field, a comma its first part.
    return "nginx_uwsgi_django nginx" if name == "nginx" else f"nginx_uwsgi_django site {name}"


def _group_record(group: str) -> str:
    return os.path.join(_settings()["lookup"]["state_dir"], "accounts", f"group-{group}")


def _numbers_record(site: str) -> str:
    name = __salt__["site_pillar.named"](site)
    return os.path.join(_settings()["lookup"]["state_dir"], "accounts", f"numbers-{name}")


def _entries(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, entry) for entry in sorted(os.listdir(folder))]
    except FileNotFoundError:
        return []


def _noted(path: str) -> list[Any]:
    """A list that a record holds; an empty one where it is not there or damaged."""
    try:
        found = json.loads(durable_file.read(path) or b"[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _kept_numbers() -> set[int]:
    """The numbers of users and groups that files kept of some site belong to."""
    state_dir = _settings()["lookup"]["state_dir"]
    found: set[int] = set()
    for record in _entries(f"{state_dir}/accounts"):
        if os.path.basename(record).startswith("numbers-"):
            found.update(_noted(record))
    trees = _entries(f"{state_dir}/sites") + _entries(f"{state_dir}/venvs")
    for site in _entries(f"{state_dir}/prepared"):
        for place in _noted(f"{site}/places.json"):
            trees += [f"{place}/shared", f"{place}/releases"]
    for tree in trees:
        try:
            status = os.lstat(tree)
        except OSError:
            continue
        found |= {status.st_uid, status.st_gid}
    return found


def _system_range(kind: str) -> range:
    """The numbers for accounts of the system, the last first, as login.defs(5) has them."""
    text = (durable_file.read("/etc/login.defs") or b"").decode(errors="replace")
    ends = []
    for end, usual in (("MAX", 999), ("MIN", 100)):
        said = re.findall(rf"^\s*SYS_{kind}_{end}\s+([0-9]+)\s*$", text, re.MULTILINE)
        ends.append(int(said[-1]) if said else usual)
    return range(ends[0], ends[1] - 1, -1)


def _is_free(number: int) -> bool:
    for find in (pwd.getpwuid, grp.getgrgid):
        try:
            find(number)
        except KeyError:
            continue
        return False
    return True


def _number(kind: str, own: int | None) -> int | None:
    """
    The number for a new account: the one that its files have, where that is free, and none that
    files of another site have. None: any.
    """
    if own and _is_free(own):
        return own
    kept = _kept_numbers()
    if not kept:
        return None
    # Read once; of the first that is left, the accounts that no list names (LDAP) are asked.
    kept |= {each.pw_uid for each in pwd.getpwall()} | {each.gr_gid for each in grp.getgrall()}
    numbers = (*_system_range(kind), *range(59999, 999, -1))
    return next((each for each in numbers if each not in kept and _is_free(each)), None)


def _own_numbers(name: str) -> list[int]:
    """The numbers of the user and the group that a site had before."""
    noted = _noted(_numbers_record(name))
    if noted:
        return noted
    try:
        status = os.lstat(home(name))
    except FileNotFoundError:
        return []
    return [status.st_uid, status.st_gid]


def reserve(name: str, user: str) -> bool:
    """
    Note the numbers of a site's account, so that no other site's is made with them.

    name
        the site
    user
        the account

    Returns True when they were not noted before.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.reserve oldsite oldsite
    """
    account = _user(user)
    if account is None:
        return False
    record = _numbers_record(name)
    durable_file.directory(os.path.dirname(record), mode="0700")
    text = json.dumps([account.pw_uid, account.pw_gid]) + "\n"
    return durable_file.write(record, text, mode="0600")


def release_numbers(name: str) -> bool:
    """
    Undo :py:func:`reserve`: no file of the site's is left.

    name
        the site

    Returns True when its numbers were noted.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.release_numbers oldsite
    """
    return durable_file.remove(_numbers_record(name))


def _keeps(name: str) -> bool:
    """Whether files of a site are kept on the host, or its project is."""
    places = [
        home(name),
        os.path.join(_settings()["lookup"]["state_dir"], "prepared", name),
        __salt__["site_pillar.site"](name)["project"]["path"],
    ]
    return any(os.path.isdir(place) for place in places)


def _tool(*argv: str) -> None:
    # These rewrite /etc/passwd: an end in the middle would leave their lock.
    done = program.run(list(argv), _TOOL_ENV, _TOOL_TIMEOUT, outlives=True)
    if done["timed_out"]:
        raise CommandExecutionError(f"{argv[0]} had not ended after {_TOOL_TIMEOUT} seconds")
    if done["retcode"]:
        told = (done["stderr"] or done["stdout"]).strip()
        raise CommandExecutionError(f"{' '.join(argv)} ended with {done['retcode']}: {told}")


def _add(tool: str, *argv: str) -> None:
    """
    Make an account of the system. When all numbers for those are taken (a host with a thousand
    sites), it is one of the other numbers, which shadow's tools take from the end: far from people's.
    """
    try:
        _tool(tool, "--system", *argv)
    except CommandExecutionError as error:
        if "no more available" not in str(error):
            raise
        _tool(tool, "--system", *_MORE_NUMBERS, *argv)


def _user(name: str) -> pwd.struct_passwd | None:
    return accounts.user(name)


def _group(name: str) -> grp.struct_group | None:
    return accounts.group(name)


def home(name: str) -> str:
    """
    The home of a site's user: the directory for what the site keeps outside its code.

    name
        the site

    Returns an absolute path, ``STATE_DIR/sites/SITE``.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.home mysite
    """
    site = __salt__["site_pillar.named"](name)
    return os.path.join(_settings()["lookup"]["state_dir"], "sites", site)


def wanted(name: str) -> dict[str, Any]:
    """
    The account that the pillar asks for.

    name
        ``nginx`` for the user of nginx's workers, else a site

    Returns ``{"user", "group", "home", "comment"}``; ``home`` is None for nginx's user.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.wanted mysite
    """
    if name == "nginx":
        user = _settings()["nginx"]["user"]
        return {"user": user, "group": user, "home": None, "comment": _comment(name)}
    project = __salt__["site_pillar.site"](name)["project"]
    return {
        "user": project["user"],
        "group": project["group"],
        "home": home(name),
        "comment": _comment(name),
    }


def diff(name: str) -> dict[str, Any]:
    """
    What of an account is not on the host yet.

    name
        ``nginx`` or a site

    Returns a dictionary with any of ``user``, ``group`` and ``home`` (their names); empty when
    nothing is to be done. An account that exists is right as it is, whoever made it.

    Raises CommandExecutionError when the pillar asks for root: a site's code would run as root.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.diff mysite
    """
    account = wanted(name)
    user = _user(account["user"])
    if account["user"] == "root" or (user is not None and user.pw_uid == 0):
        raise CommandExecutionError(
            f"the user {account['user']!r} is root, and nothing is to run as root: name another "
            f"under nginx_uwsgi_django:"
            + ("nginx:user" if name == "nginx" else f"sites:{name}:project:user")
        )
    lacks = {}
    if user is None:
        lacks["user"] = account["user"]
    # The user of nginx may exist with a group of another name (www-data, nogroup): left as is.
    if _group(account["group"]) is None and (name != "nginx" or user is None):
        lacks["group"] = account["group"]
    if account["home"] and not _home_is_right(account):
        lacks["home"] = account["home"]
    return lacks


def _home_is_right(account: dict[str, Any]) -> bool:
    user, group = _user(account["user"]), _group(account["group"])
    try:
        status = os.lstat(account["home"])
    except FileNotFoundError:
        return False
    return (
        user is not None
        and group is not None
        and (status.st_uid, status.st_gid, status.st_mode) == (user.pw_uid, group.gr_gid, 0o40751)
    )


def ensure(name: str) -> dict[str, Any]:
    """
    Make what is missing of an account: a system user without a login shell or a password, its
    group, and for a site its home (0751: others pass through it to static files and uploads).

    name
        ``nginx`` or a site

    Returns what was made, as :py:func:`diff` named it.

    Raises CommandExecutionError with the words of useradd or groupadd.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.ensure mysite
    """
    account = wanted(name)
    lacks = diff(name)
    own_group = "user" in lacks and account["group"] == account["user"]
    uid, gid = ([] if name == "nginx" else _own_numbers(name)) or (None, None)
    if "group" in lacks and not own_group:
        record = _group_record(account["group"])
        durable_file.directory(os.path.dirname(record), mode="0700")
        durable_file.write(record, f"{account['comment']}\n", mode="0600")
        gid = _number("GID", gid)
        _add("groupadd", *(["--gid", str(gid)] if gid else []), "--", account["group"])
    if "user" in lacks:
        uid = _number("UID", uid)
        membership = (
            ["--user-group"]
            if own_group and "group" in lacks
            else ["--no-user-group", "--gid", account["group"]]
        )
        _add(
            "useradd",
            *membership,
            *(["--uid", str(uid)] if uid else []),
            "--no-create-home",
            "--home-dir",
            account["home"] or "/nonexistent",
            "--shell",
            _NOLOGIN,
            "--comment",
            account["comment"],
            "--",
            account["user"],
        )
    if account["home"] and not _home_is_right(account):
        # A home that outlived its account belongs to a number that may be anybody's by now.
        if os.path.isdir(account["home"]):
            adopt(account["home"], account["user"], account["group"])
        # The user could replace a directory inside its own by a link, but not this one: its
        # parents are root's.
        durable_file.directory(
            account["home"], user=account["user"], group=account["group"], mode="0751"
        )
    return lacks


def adopt(path: str, user: str, group: str) -> int:
    """
    Give what belonged to a directory's former owner to a user: data that outlived an account
    which was removed and made again with another number. Links are not followed; what belongs to
    anybody else stays.

    path
        the directory
    user, group
        the new owner

    Returns how many files and directories changed hands; 0 when the directory is the user's.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.adopt /srv/mysite/shared mysite mysite
    """
    account, primary = _user(user), _group(group)
    if account is None or primary is None:
        raise CommandExecutionError(f"the account {user}:{group} does not exist")
    old = os.lstat(path)
    # What is root's was not left by an account.
    if old.st_uid in (account.pw_uid, 0):
        return 0
    count = 0
    for _, folders, files, handle in os.fwalk(path, topdown=False, follow_symlinks=False):
        for entry in (*folders, *files):
            status = os.stat(entry, dir_fd=handle, follow_symlinks=False)
            if status.st_uid == old.st_uid:
                os.chown(
                    entry, account.pw_uid, primary.gr_gid, dir_fd=handle, follow_symlinks=False
                )
                count += 1
    # Last: with the directory itself given away, a run that died here would count as done.
    os.chown(path, account.pw_uid, primary.gr_gid, follow_symlinks=False)
    return count + 1


def regroup(path: str, group: str) -> bool:
    """
    Let a group read what root keeps for it: releases and environments that outlived an account
    which was removed and made again with another number. Modes stay, links are not followed.

    path
        a directory of root's
    group
        a name

    Returns True when something was changed, False when the directory is the group's.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.regroup /srv/mysite/releases/4f2a9c01d7e3 mysite
    """
    primary = _group(group)
    if primary is None:
        raise CommandExecutionError(f"the group {group!r} does not exist")
    if os.lstat(path).st_gid == primary.gr_gid:
        return False
    for _, folders, files, handle in os.fwalk(path, topdown=False, follow_symlinks=False):
        for entry in (*folders, *files):
            os.chown(entry, 0, primary.gr_gid, dir_fd=handle, follow_symlinks=False)
    # Last: it tells that all in it is done.
    os.chown(path, 0, primary.gr_gid, follow_symlinks=False)
    return True


def leftovers(name: str) -> dict[str, Any]:
    """
    What of an account was made by :py:func:`ensure` and is needed by nobody else.

    name
        ``nginx`` or a site

    Returns a dictionary with any of ``user`` and ``group``.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.leftovers mysite
    """
    settings = _settings()
    account = wanted(name)
    # Removing one site of several leaves alone what another one still uses. Where everything is
    # removed, no site is marked absent and the account that was made for this one goes with it.
    others = set()
    if name != "nginx" and settings["sites"][name]["absent"]:
        others = {
            field
            for other in settings["sites"].values()
            if not other["absent"]
            for field in (other["project"]["user"], other["project"]["group"])
        } | {settings["nginx"]["user"]}
    found = {}
    user = _user(account["user"])
    if user and user.pw_gecos == account["comment"] and account["user"] not in others:
        found["user"] = account["user"]
    if (
        account["group"] not in others
        and _group(account["group"])
        and os.path.isfile(_group_record(account["group"]))
    ):
        found["group"] = account["group"]
    return found


def remove(name: str) -> dict[str, Any]:
    """
    Remove what :py:func:`leftovers` names. The home is data and stays.

    name
        ``nginx`` or a site

    Returns what was removed.

    Raises CommandExecutionError with the words of userdel, e.g. that a process still runs as
    the user.

    CLI Example:

    .. code-block:: bash

        salt '*' system_account.remove mysite
    """
    found = leftovers(name)
    if "user" in found:
        # Its group of the same name goes with it (USERGROUPS_ENAB, Debian's default), unless it
        # has other members.
        if name != "nginx" and _keeps(name):
            reserve(name, found["user"])
        _tool("userdel", "--", found["user"])
    if "group" in found:
        if _group(found["group"]):
            _tool("groupdel", "--", found["group"])
        durable_file.remove(_group_record(found["group"]))
    return found
