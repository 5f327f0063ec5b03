"""
A host that asks to be sent no more requests before it shuts down, or one that does not.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "host_drain"


def __virtual__() -> str:
    return __virtualname__


def at_shutdown(name: str) -> dict[str, Any]:
    """
    A shutdown first answers health questions with 503 for as long as the pillar's
    ``nginx:health:drain`` says; where it says nothing, there is no unit for it.

    name
        a label, ``nginx``

    .. code-block:: yaml

        'nginx: drain before shutdown':
          host_drain.at_shutdown:
            - name: nginx

    .. versionadded:: 0.1.0
    """
    return _brought(name, True)


def absent(name: str) -> dict[str, Any]:
    """
    A shutdown drains nothing, whatever the pillar says.

    name
        a label, ``nginx``

    .. code-block:: yaml

        'nginx: drain before shutdown removed':
          host_drain.absent:
            - name: nginx

    .. versionadded:: 0.1.0
    """
    return _brought(name, False)


def _brought(name: str, keep: bool) -> dict[str, Any]:
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        drains = keep and __salt__["host_drain.unit"]() is not None
        says = "a shutdown drains the host first" if drains else "a shutdown drains nothing"
        changes = __salt__["host_drain.diff"](keep)
        ret["comment"] = says
        if not changes:
            return ret
        if __opts__["test"]:
            ret.update(result=None, changes=changes, comment=f"would be: {says}")
            return ret
        __salt__["host_drain.ensure"](keep)
        still = __salt__["host_drain.diff"](keep)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["changes"] = {what: change for what, change in changes.items() if what not in still}
    if still:
        ret["result"] = False
        ret["comment"] = f"still not as the pillar says: {', '.join(sorted(still))}"
    return ret
