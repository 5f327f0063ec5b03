"""
States of a site's companions: its workers and timers.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "site_companion"


def __virtual__() -> str:
    return __virtualname__


def running(name: str) -> dict[str, Any]:
    """
    The companions that the pillar gives a site run, or have their timer, and no others.

    name
        the site

    Compares the host with what is asked for: a companion of the release, environment and unit
    that it should have is left alone, however it was started. Any other is asked to finish its
    work, and started anew. One that does not stay up is a failure with the journal's last lines;
    what the site serves is not touched.

    .. code-block:: yaml

        "mysite: companions":
          site_companion.running:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        if not __salt__["site_pillar.site"](name)["companions"]:
            if not __salt__["site_companion.leftovers"](name):
                ret["comment"] = "it has none"
                return ret
        else:
            awaits = __salt__["release_source.awaits"](name) if __opts__["test"] else None
            if awaits:
                ret.update(result=None, changes={"companions": {"old": None, "new": awaits}})
                ret["comment"] = f"would be done {awaits}"
                return ret
        done = before = __salt__["site_companion.diff"](name)
        if not __opts__["test"] and before["changes"]:
            done = __salt__["site_companion.ensure"](name)
        left = __salt__["site_companion.diff"](name)["changes"] if not __opts__["test"] else {}
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["changes"] = done["changes"]
    errors = dict(done["errors"])
    for companion in left:
        errors.setdefault(companion, f"done, and yet not as it should be: {left[companion]}")
    if errors:
        ret["result"] = False
        ret["comment"] = "\n".join(f"{each}: {errors[each]}" for each in sorted(errors))
    elif __opts__["test"] and ret["changes"]:
        ret["result"] = None
        ret["comment"] = f"would be brought up or removed: {', '.join(ret['changes'])}"
    else:
        ret["comment"] = "all of them are as they should be"
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    No companion of a site runs, and their files are gone.

    name
        the site

    .. code-block:: yaml

        "mysite: companions removed":
          site_companion.absent:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        found = __salt__["site_companion.leftovers"](name)
        if not found:
            ret["comment"] = "there is none"
            return ret
        ret["changes"] = {"removed": {"old": found, "new": []}}
        if __opts__["test"]:
            ret.update(result=None, comment="all companions would be stopped and removed")
            return ret
        __salt__["site_companion.remove"](name)
        left = __salt__["site_companion.leftovers"](name)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
        return ret
    if left:
        ret.update(result=False, comment="removed, and yet there: " + ", ".join(left))
        return ret
    ret["comment"] = "no companion is left"
    return ret
