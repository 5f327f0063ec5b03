"""
Who may connect to a site's socket: nginx, whatever user its workers have.

``nginx:user`` may change on a host that serves. Until the new tree is on disk and nginx has
reloaded it, workers of the old user connect; from then on workers of the new one. The two moments
are not one, a run may be killed between them, and nginx may refuse the new tree. So the socket, and
the unit that makes it after a reboot, let in both users as long as both are in use: the old user as
the socket's owner, the new one by its group. Which users are in use is read from the host, never
from what a run did.

.. versionadded:: 0.1.0
"""

import os
from typing import Any

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import accounts as local_accounts
from _nud import cache, contract_resolve, nginx_user, nginx_workers

__virtualname__ = "socket_access"


def __virtual__() -> str:
    return __virtualname__


def accounts() -> list[dict[str, Any]]:
    """
    The accounts that nginx's workers run as, read from the running processes.

    Returns a list of dictionaries, one for each account: ``user`` (a name, or a number where the
    account is gone), ``groups`` (names, supplementary groups among them), ``uid``, ``gid`` and
    ``finishing`` (True when only workers run as it that take no new connections). Empty when nginx
    does not run.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_access.accounts
    """
    unit = f"{__salt__['site_pillar.settings']()['lookup']['nginx_service']}.service"
    shown = __salt__["systemd_unit.show"]([unit], ["MainPID"]).get(unit, {})
    main = shown.get("MainPID", "0")
    found = nginx_workers.accounts(int(main)) if main.isdigit() and int(main) else {}
    name = local_accounts.name_of
    return [
        {
            "user": name("user", uid),
            "groups": sorted({name("group", each) for each in (gid, *more)}),
            "uid": uid,
            "gid": gid,
            "finishing": finishing,
        }
        for (uid, gid, more), finishing in sorted(found.items())
    ]


def connecting() -> list[dict[str, Any]]:
    """
    The accounts that nginx connects as on this host: those of its running workers, and the one of
    the configuration on disk, which nginx takes at its next start.

    Returns a list of dictionaries: ``user``, ``groups`` and ``finishing`` as
    :py:func:`accounts` has them.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_access.connecting
    """

    def look() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = accounts()
        tree = __salt__["site_pillar.settings"]()["lookup"]["nginx_dir"]
        on_disk = nginx_user.configured(os.path.realpath(tree))
        if on_disk:
            groups = contract_resolve.groups_of(*on_disk)
            found = [*found, {"user": on_disk[0], "groups": groups, "finishing": False}]
        return found

    return cache.once(("connecting",), look)


def desired() -> dict[str, Any]:
    """
    The account that nginx connects as once it runs as the pillar says.

    Returns a dictionary as those of :py:func:`connecting`.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_access.desired
    """

    def look() -> dict[str, Any]:
        user = __salt__["site_pillar.settings"]()["nginx"]["user"]
        groups = contract_resolve.groups_of(user)
        return {"user": user, "groups": groups, "finishing": False}

    return cache.once(("desired",), look)


def finishing() -> bool:
    """
    Whether nginx's workers of another user than the pillar's finish their requests: they end soon.

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_access.finishing
    """
    user = desired()["user"]
    return any(each["finishing"] and each["user"] != user for each in connecting())


def _plain(site: str) -> dict[str, str]:
    """Owner, group and mode as the pillar has them."""
    socket = __salt__["site_pillar.site"](site)["socket"]
    return {key: socket[key] for key in ("owner", "group", "mode")}


def _in_use(site: str) -> bool:
    """Whether nginx's tree on disk has the site: else no worker asks for it."""
    base = __salt__["site_pillar.settings"]()["lookup"]["nginx_dir"]
    return os.path.lexists(os.path.join(base, "sites-enabled", f"{site}.conf"))


def others(site: str, owner: str | None = None) -> list[str]:
    """
    The users that nginx connects as and that the pillar's owner, group and mode of a site's socket
    do not let in.

    site
        the site's name
    owner
        the user that the socket belongs to now: it is one of them until its last worker has ended,
        workers that only finish their requests among them

    Returns their names, those of workers that take new connections first.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_access.others mysite
    """
    if not _in_use(site):
        return []
    plain, found = _plain(site), []
    for account in sorted(connecting(), key=lambda each: bool(each["finishing"])):
        user = account["user"]
        counts = not account["finishing"] or user == owner
        if counts and not contract_resolve.may_connect(user, account["groups"], plain):
            found.append(user)
    return list(dict.fromkeys(found))


def wanted(site: str, owner: str | None = None) -> dict[str, str]:
    """
    Owner, group and mode that a site's socket has to have now: the pillar's, or, while nginx
    connects as another user than the pillar's, those that let in both.

    site
        the site's name
    owner
        as in :py:func:`others`

    Returns a dictionary: ``owner``, ``group`` and ``mode`` (a quoted octal string).

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_access.wanted mysite
    """
    plain = _plain(site)
    more = others(site, owner)
    if not more:
        return plain
    nginx = desired()
    group = plain["group"]
    if group not in nginx["groups"]:
        group = __salt__["site_pillar.settings"]()["nginx"]["group"]
    return {"owner": more[0], "group": group, "mode": f"{int(plain['mode'], 8) | 0o220:04o}"}


def shuts_out(site: str, socket: dict[str, str]) -> list[str]:
    """
    The users that nginx connects as, now or once it runs as the pillar says, and that cannot
    connect to a site's socket.

    site
        the site's name
    socket
        its ``owner``, ``group`` and ``mode`` (a quoted octal string)

    Returns their names.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_access.shuts_out mysite '{owner: root, group: web, mode: "0660"}'
    """
    if not _in_use(site):
        return []
    accounts = [each for each in connecting() if not each["finishing"]]
    may = contract_resolve.may_connect
    found = [
        each["user"]
        for each in [*accounts, desired()]
        if not may(each["user"], each["groups"], socket)
    ]
    return list(dict.fromkeys(found))


def missing(site: str, foreseen: bool = False) -> list[str]:
    """
    Which accounts of a site's socket are not on this host.

    site
        the site's name
    foreseen
        leave out those that the formula makes before it needs them: the users and groups of nginx
        and of the sites

    Returns a list of sentences with the pillar's path, empty when both are there.

    CLI Example:

    .. code-block:: bash

        salt '*' socket_access.missing mysite
    """
    settings = __salt__["site_pillar.settings"]()
    coming: dict[str, set[str]] = {"user": set(), "group": set()}
    if foreseen:
        nginx = settings["nginx"]["user"]
        projects = [each["project"] for each in settings["sites"].values() if not each["absent"]]
        coming["user"] = {nginx, *(each["user"] for each in projects)}
        coming["group"] = {nginx, *(each["group"] for each in projects)}
    plain, found = _plain(site), []
    for key, kind in (("owner", "user"), ("group", "group")):
        name = plain[key]
        if name not in coming[kind] and getattr(local_accounts, kind)(name) is None:
            found.append(
                f"nginx_uwsgi_django:sites:{site}:socket:{key}: found {name!r}, which is no {kind} "
                f"of this host; expected a {kind} that exists"
            )
    return found
