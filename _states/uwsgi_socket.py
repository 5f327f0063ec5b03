"""
States of the listening socket of a site, which systemd holds.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "uwsgi_socket"


def __virtual__() -> str:
    return __virtualname__


def listening(name: str) -> dict[str, Any]:
    """
    systemd listens for a site: path, owner, group, mode and backlog are the pillar's
    (``sites:SITE:socket``), now and after a reboot.

    No request is lost: owner, group, mode and backlog of a live socket are changed in place. To
    another path systemd goes over when the next generation has passed its preflight
    (:py:func:`uwsgi_generation.running`); until then, and for as long as none passes, the new path
    leads to the old, so that nginx may be told of it.

    name
        the site

    .. code-block:: yaml

        "mysite: uWSGI socket":
          uwsgi_socket.listening:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        wanted = __salt__["site_pillar.site"](name)["socket"]
        shown = __salt__["uwsgi_socket.units"](name)
        changes = __salt__["uwsgi_socket.diff"](name, shown)
        remarks = "".join(f"; {each}" for each in __salt__["uwsgi_socket.remarks"](name))
        if not changes:
            ret["comment"] = f"systemd listens on {wanted['path']}{remarks}"
            return ret
        ret["changes"] = changes
        missing = __salt__["socket_access.missing"](name, foreseen=bool(__opts__["test"]))
        if missing:
            ret.update(result=False, changes={}, comment="\n".join(missing))
            return ret
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = f"systemd would listen on {wanted['path']}{remarks}"
            return ret
        leaves = {"path", "listening"} & set(changes) and __salt__["uwsgi_socket.elsewhere"](name)
        if leaves:
            __salt__["uwsgi_socket.lead"](name, leaves[-1])
            ret["comment"] = (
                f"{wanted['path']} leads to {leaves[-1]} until the next generation is known to work; "
                f"with that systemd goes over to {wanted['path']}{remarks}"
            )
            return ret
        __salt__["uwsgi_socket.ensure"](name, shown)
        left = __salt__["uwsgi_socket.diff"](name)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    if left:
        ret["result"] = False
        ret["comment"] = "still not as the pillar says: " + ", ".join(
            f"{what} is {change['old']}, not {change['new']}" for what, change in left.items()
        )
        return ret
    ret["comment"] = f"systemd listens on {wanted['path']}{remarks}"
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    Nobody listens for a site any more, and the units are gone.

    name
        the site

    .. code-block:: yaml

        "mysite: the socket is gone":
          uwsgi_socket.absent:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        found = __salt__["uwsgi_socket.leftovers"](name)
        if not found:
            ret["comment"] = "there is no socket"
            return ret
        ret["changes"] = {each: {"old": state, "new": None} for each, state in found.items()}
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = "the socket would be removed"
            return ret
        __salt__["uwsgi_socket.remove"](name)
        left = __salt__["uwsgi_socket.leftovers"](name)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    if left:
        ret["result"] = False
        ret["comment"] = "still present after removal: " + ", ".join(left)
        return ret
    ret["comment"] = "the socket is gone"
    return ret
