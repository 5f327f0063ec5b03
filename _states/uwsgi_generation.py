"""
States of the uWSGI generations of a site.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "uwsgi_generation"


def __virtual__() -> str:
    return __virtualname__


def running(name: str, digest: str | None = None) -> dict[str, Any]:
    """
    The generation that the pillar and the project ask for runs and is enabled, and no other.

    Compares the host with what is asked for: a generation that runs already, however it was
    started, is left alone. Otherwise the new one has to answer the health path on a private
    socket, is started beside the old one on the shared socket, and the old one finishes its
    requests and stops. When it does not come up or does not answer right, the state fails with the
    journal's last lines, the old one still serves, and the next run fails again. Where the pillar has
    come to ask another health question, the generation that runs is asked it in the same run.

    name
        the site
    digest
        a generation that is still on the host, to stay with instead (a rollback that lasts)

    .. code-block:: yaml

        "mysite: uWSGI generation":
          uwsgi_generation.running:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        awaits = __salt__["release_source.awaits"](name) if __opts__["test"] else None
        if awaits:
            ret.update(result=None, changes={"generation": {"old": None, "new": awaits}})
            ret["comment"] = f"would be done {awaits}"
            return ret
        if __opts__["test"]:
            return _foretold(ret, name, digest)
        done = __salt__["uwsgi_generation.switch"](name, digest)
        if not done["changes"]:
            __salt__["uwsgi_health.prove"](name)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["changes"] = done["changes"]
    if done["left"]:
        ret["result"] = False
        ret["comment"] = f"still not as the pillar says: {done['left']}"
        return ret
    ret["comment"] = f"generation {done['digest']} runs"
    return ret


def _foretold(ret: dict[str, Any], name: str, digest: str | None) -> dict[str, Any]:
    due = __salt__["uwsgi_generation.diff"](name, digest)
    if not due["changes"]:
        __salt__["uwsgi_health.prove"](name, test=True)
        ret["comment"] = f"generation {due['digest']} runs"
        return ret
    ret.update(result=None, changes=due["changes"])
    ret["comment"] = f"generation {due['digest']} would run"
    why = "generation" in due["changes"] and __salt__["uwsgi_generation.refusal"](name, digest)
    if why:
        ret.update(result=False, changes={}, comment=why)
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    No generation of a site runs, and their files are gone.

    name
        the site

    .. code-block:: yaml

        "mysite: no generation of uWSGI is left":
          uwsgi_generation.absent:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        found = __salt__["uwsgi_generation.leftovers"](name)
        if not found:
            ret["comment"] = "there is no generation"
            return ret
        ret["changes"] = {"removed": {"old": found, "new": []}}
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = "all generations would be stopped and removed"
            return ret
        __salt__["uwsgi_generation.remove"](name)
        left = __salt__["uwsgi_generation.leftovers"](name)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    if left:
        ret["result"] = False
        ret["comment"] = "still present after removal: " + ", ".join(left)
        return ret
    ret["comment"] = "no generation is left"
    return ret
