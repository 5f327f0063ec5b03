"""
States of the log of a site's uWSGI.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "uwsgi_log"


def __virtual__() -> str:
    return __virtualname__


def kept(name: str) -> dict[str, Any]:
    """
    What a site's uWSGI writes is kept as the pillar says (``sites:SITE:uwsgi:log``): in the
    journal, or in a file that is there, the site's user's, and rotated.

    name
        the site

    .. code-block:: yaml

        "mysite: uWSGI log":
          uwsgi_log.kept:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        where = __salt__["uwsgi_log.path"](name) or "the journal"
        changes = __salt__["uwsgi_log.diff"](name)
        if not changes:
            ret["comment"] = f"kept in {where}"
            return ret
        ret["changes"] = changes
        if __opts__["test"]:
            ret.update(result=None, comment=f"would be kept in {where}")
            return ret
        __salt__["uwsgi_log.ensure"](name)
        left = __salt__["uwsgi_log.diff"](name)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
        return ret
    if left:
        ret.update(result=False, comment=f"still not as the pillar says: {', '.join(left)}")
        return ret
    ret["comment"] = f"kept in {where}"
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    A site's log is not rotated any more; its files go where the pillar says that data may go
    (``nginx_uwsgi_django:clean:data``), else they stay.

    name
        the site

    .. code-block:: yaml

        "mysite: log rotation removed":
          uwsgi_log.absent:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        data = __salt__["django_release.data_may_go"]()
        found = __salt__["uwsgi_log.leftovers"](name, data)
        if not found:
            ret["comment"] = "there is nothing to remove"
            return ret
        ret["changes"] = {"removed": {"old": found, "new": None}}
        if __opts__["test"]:
            ret.update(result=None, comment="would be removed")
            return ret
        __salt__["uwsgi_log.remove"](name, data)
        left = __salt__["uwsgi_log.leftovers"](name, data)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
        return ret
    if left:
        ret.update(result=False, comment="still present after removal: " + ", ".join(left))
        return ret
    ret["comment"] = "removed"
    return ret
