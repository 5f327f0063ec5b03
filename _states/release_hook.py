"""
States of the commands that an operator has at the steps of a release.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "release_hook"


def __virtual__() -> str:
    return __virtualname__


def ran(name: str, points: list[str]) -> dict[str, Any]:
    """
    The hooks of the pillar (``project:hooks``) at these points have run, where the step that they
    belong to has something to do: as the site's user, in the site's environment. A run with nothing
    to do runs none, a dry run only names them.

    name
        the site
    points
        of ``before_`` and ``after_`` each of ``fetch``, ``build``, ``migrate`` and ``switch``

    .. code-block:: yaml

        "mysite: hooks before the switch":
          release_hook.ran:
            - name: mysite
            - points: [before_switch]

    A hook that fails stops the run here, before the step that it stands before: what serves goes on
    serving. Hooks run again in the next run as long as their step is not done, and after it as long
    as they have not succeeded.

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": "none is due"}
    try:
        awaits = __salt__["release_source.awaits"](name) if __opts__["test"] else None
        if awaits:
            ret.update(result=None, changes={"hooks": {"old": None, "new": awaits}})
            ret["comment"] = f"would be seen {awaits}"
            return ret
        if __opts__["test"]:
            due = __salt__["release_hook.due"](name, points)
            if due:
                told = {
                    point: {"old": None, "new": __salt__["release_hook.commands"](name, point)}
                    for point in due
                }
                ret.update(result=None, changes=told, comment="would run: " + ", ".join(due))
            return ret
        printed = __salt__["release_hook.run"](name, points)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    if printed:
        ret["changes"] = {point: {"old": None, "new": text} for point, text in printed.items()}
        ret["comment"] = "ran: " + ", ".join(printed)
    return ret
