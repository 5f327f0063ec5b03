"""
systemd holds nginx's listening sockets, so that a restart or a package upgrade refuses nobody.

.. code-block:: yaml

    'nginx: listening sockets':
      nginx_socket.held:
        - name: nginx

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "nginx_socket"


def __virtual__() -> str:
    return __virtualname__


def _remarks(now: dict[str, Any]) -> str:
    """Where it is in force, and where not."""
    lines = [f"held by systemd: {', '.join(now['held']) or 'none'}"]
    if now["own"]:
        lines.append(
            f"not in force yet for {', '.join(now['own'])}: nginx has bound it by itself; systemd "
            "takes it over when nginx is started next ('systemctl restart nginx', once)"
        )
    if now["several"]:
        lines.append(
            f"not in force for {', '.join(now['several'])}: a socket for each worker (reuseport)"
        )
    if now["others"]:
        lines.append(f"not in force for {', '.join(now['others'])}: only TCP's sockets are held")
    return "\n".join(lines)


def held(name: str) -> dict[str, Any]:
    """
    systemd holds the TCP sockets that the running nginx listens on (``nginx:socket: true``), or
    none (``false``).

    name
        a label, ``nginx``

    Returns the usual dictionary.  The comment names the addresses for which it is in force, and
    those for which it is not.  Where nginx's unit is not one that sockets can be handed to
    (see :py:func:`nginx_socket.obstacle`) none is held, and the comment says why.
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        if not __salt__["site_pillar.settings"]()["nginx"]["socket"]:
            return absent(name)
        obstacle = None
        with __salt__["host_survey.begun"]():
            now = __salt__["nginx_socket.status"]()
            if now["running"]:
                obstacle = __salt__["nginx_socket.obstacle"]()
                ret["changes"] = {} if obstacle else __salt__["nginx_socket.diff"](now)
        if not now["running"]:
            ret["result"] = None if __opts__["test"] else False
            ret["comment"] = "nginx does not run: what it listens on is not known"
            if __opts__["test"]:
                ret["changes"] = {"held": {"old": [], "new": "what nginx will listen on"}}
            return ret
        if obstacle:
            ret = absent(name)
            ret["comment"] = f"not in force: {obstacle}\n{ret['comment']}"
            return ret
        if ret["changes"] and __opts__["test"]:
            ret["result"] = None
            ret["comment"] = f"This would change; now {_remarks(now)}"
            return ret
        if ret["changes"]:
            if "held" in __salt__["nginx_socket.ensure"]():
                __salt__["nginx_process.restart"]()
            with __salt__["host_survey.begun"]():
                now = __salt__["nginx_socket.status"]()
                rest = __salt__["nginx_socket.diff"](now)
            if rest:
                raise CommandExecutionError(f"this did not stay in place: {', '.join(rest)}")
        ret["comment"] = _remarks(now)
    except CommandExecutionError as error:
        ret["result"], ret["comment"] = False, f"{error}"
    except OSError as error:
        ret["result"], ret["comment"] = False, f"{error.filename}: {error.strerror}"
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    nginx's unit is as packaged, and its sockets are its own.

    name
        a label, ``nginx``

    Returns the usual dictionary.  No request is lost: the running nginx keeps its sockets.
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        ret["changes"] = __salt__["nginx_socket.remove"](test=test)
        if ret["changes"] and not test and __salt__["nginx_socket.remove"](test=True):
            raise CommandExecutionError("it is still there")
    except CommandExecutionError as error:
        ret["result"], ret["comment"] = False, f"{error}"
        return ret
    except OSError as error:
        ret["result"], ret["comment"] = False, f"{error.filename}: {error.strerror}"
        return ret
    ret["comment"] = "systemd holds no socket of nginx"
    if ret["changes"] and test:
        ret["result"] = None
        ret["comment"] = "systemd would let go of nginx's sockets"
    return ret
