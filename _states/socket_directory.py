"""
The directories of the sites' sockets stay when another service stops.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "socket_directory"


def __virtual__() -> str:
    return __virtualname__


def _brought(name: str, everything: bool, right: str) -> dict[str, Any]:
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": right}
    try:
        if __opts__["test"]:
            ret["changes"] = __salt__["socket_directory.diff"](everything)
            if ret["changes"]:
                ret["result"] = None
        else:
            ret["changes"] = __salt__["socket_directory.ensure"](everything)
            rest = __salt__["socket_directory.diff"](everything)
            if rest:
                raise CommandExecutionError(f"this did not stay in place: {', '.join(rest)}")
    except CommandExecutionError as error:
        ret["result"], ret["comment"] = False, f"{error}"
    except OSError as error:
        ret["result"], ret["comment"] = False, f"{error.filename}: {error.strerror}"
    return ret


def kept(name: str) -> dict[str, Any]:
    """
    No service takes the directory of a site's socket away when it stops.

    name
        a label

    .. code-block:: yaml

        'sites: socket directory':
          socket_directory.kept:
            - name: sites
    """
    return _brought(name, False, "no service removes the directory of a socket")


def absent(name: str) -> dict[str, Any]:
    """
    No drop-in of the formula's is left for another service.

    name
        a label

    .. code-block:: yaml

        'sites: runtime directories of other services':
          socket_directory.absent:
            - name: sites
    """
    return _brought(name, True, "no other service has a drop-in of this formula's")
