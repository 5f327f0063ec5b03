"""
The formula applied by a timer, or by none.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "scheduled_apply"


def __virtual__() -> str:
    return __virtualname__


def current(name: str) -> dict[str, Any]:
    """
    A timer applies the formula to this host as the pillar's ``schedule`` says; without
    ``schedule:minutes`` there is none, and one that was there is gone.

    A run that is under way, perhaps the one that this state is part of, is left to end.

    name
        a label, ``nginx_uwsgi_django``

    .. code-block:: yaml

        'the formula is applied by a timer where the pillar says so':
          scheduled_apply.current:
            - name: nginx_uwsgi_django

    .. versionadded:: 0.1.0
    """
    return _brought(name, True)


def absent(name: str) -> dict[str, Any]:
    """
    No timer applies the formula, whatever the pillar says; the report of the last run is gone too.

    name
        a label, ``nginx_uwsgi_django``

    .. code-block:: yaml

        'schedule: timer removed':
          scheduled_apply.absent:
            - name: nginx_uwsgi_django

    .. versionadded:: 0.1.0
    """
    return _brought(name, False)


def _brought(name: str, keep: bool) -> dict[str, Any]:
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        says = (
            "a timer applies the formula" if keep and _wanted() else "no timer applies the formula"
        )
        changes = __salt__["scheduled_apply.diff"](keep)
        ret["comment"] = says
        if not changes:
            return ret
        if __opts__["test"]:
            ret.update(result=None, changes=changes, comment=f"would be: {says}")
            return ret
        __salt__["scheduled_apply.ensure"](keep)
        still = __salt__["scheduled_apply.diff"](keep)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["changes"] = {what: change for what, change in changes.items() if what not in still}
    if still:
        ret["result"] = False
        ret["comment"] = f"still not as the pillar says: {', '.join(sorted(still))}"
    return ret


def _wanted() -> bool:
    return __salt__["scheduled_apply.wanted"]()
