"""
What served a site before the formula goes when the site is proven, and comes back when the site goes.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "takeover"


def __virtual__() -> str:
    return __virtualname__


def settled(name: str) -> dict[str, Any]:
    """
    The units of the pillar's ``takeover`` are stopped and disabled, and their sockets are put aside.

    name
        a label

    A unit goes on while its site's release is not live: the comment says why, and another state of the
    run has failed for it. It fails for a site that is live and whose visitors do not get its own answers,
    and for a site that :py:func:`takeover.revert` has given back. What runs without the operator's
    consent is a warning.

    .. code-block:: yaml

        'takeover: former services stopped':
          takeover.settled:
            - name: sites

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    lines, failed = [], False
    try:
        reverted = __salt__["takeover.reverted"]()
        lines += reverted.values()
        failed = bool(reverted)
        for site, changes in __salt__["takeover.lacks"]().items():
            if site in reverted:
                continue
            if test:
                ret["changes"][site] = changes
                lines.append(f"{site}: stopped once the site is proven: {', '.join(changes)}")
                continue
            try:
                if held := __salt__["nginx_site.unproven"](site):
                    lines.append(f"{site}: {', '.join(changes)} goes on: {held}")
                    continue
                ret["changes"][site] = __salt__["takeover.ensure"](site)
                lines.append(f"{site}: {', '.join(changes)} served it before, and is stopped")
                left = __salt__["takeover.lacks"]().get(site)
                if left:
                    raise CommandExecutionError(f"this did not stay in place: {', '.join(left)}")
            except (CommandExecutionError, OSError) as error:
                failed = True
                lines.append(f"{site}: {error}")
        ret["warnings"] = __salt__["takeover.remains"]()
    except (CommandExecutionError, OSError) as error:
        failed = True
        lines.append(f"{error}")
    if failed:
        ret["result"] = False
    elif ret["changes"] and test:
        ret["result"] = None
    ret["comment"] = "\n".join(lines) or "no server that was taken over is left"
    return ret


def returned(name: str, everything: bool = False) -> dict[str, Any]:
    """
    What a site had replaced runs again, where the site goes. To come before nginx's tree changes.

    name
        a label
    everything
        all sites go, not only those that the pillar calls absent

    .. code-block:: yaml

        'takeover: former services running':
          takeover.returned:
            - name: sites
            - everything: True

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    lines = []
    try:
        due = __salt__["takeover.returning"](everything)
        for site, units in due.items():
            lines.append(f"{site}: {', '.join(units)}")
            if __opts__["test"]:
                ret["changes"][site] = units
                ret["result"] = None
            else:
                try:
                    ret["changes"][site] = __salt__["takeover.give_back"](site)
                except (CommandExecutionError, OSError) as error:
                    ret["result"] = False
                    lines.append(f"{site}: {error}; `takeover.forget {site}` gives up the way back")
    except (CommandExecutionError, OSError) as error:
        ret["result"] = False
        lines.append(f"{error}")
    ret["comment"] = "\n".join(lines) or "no site goes that had replaced a server"
    return ret


def forgotten(name: str, everything: bool = False) -> dict[str, Any]:
    """
    Nothing is kept of what sites had replaced that are gone. To come after nginx has gone back to it.

    name, everything
        as in :py:func:`returned`

    .. code-block:: yaml

        'takeover: kept files removed':
          takeover.forgotten:
            - name: sites

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        due = __salt__["takeover.forgotten"](everything)
        pending = __salt__["takeover.returning"](everything)
        for site in due:
            if site in pending and not __opts__["test"]:
                ret["result"] = False
                ret["comment"] += f"{site}: {', '.join(pending[site])} does not run yet\n"
                continue
            ret["changes"][site] = {"old": "a record of what served it before", "new": None}
            if not __opts__["test"]:
                __salt__["takeover.forget"](site)
    except (CommandExecutionError, OSError) as error:
        ret["result"] = False
        ret["comment"] += f"{error}"
    if ret["changes"] and __opts__["test"] and ret["result"]:
        ret["result"] = None
    ret["comment"] = ret["comment"].rstrip() or "no record is left of a site that goes"
    return ret
