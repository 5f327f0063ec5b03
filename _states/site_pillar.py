"""
The pillar is checked, whole, before anything changes.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "site_pillar"


def __virtual__() -> str:
    return __virtualname__


def valid(name: str) -> dict[str, Any]:
    """
    The pillar has no errors. Never changes anything, and is the same in a dry run.

    name
        the pillar key that is checked, ``nginx_uwsgi_django``

    The comment is the number of sites, or all errors, one a line.

    .. code-block:: yaml

        the pillar is valid:
          site_pillar.valid:
            - name: nginx_uwsgi_django

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    errors = __salt__["site_pillar.report"]()
    if errors:
        ret["result"] = False
        ret["comment"] = errors
        return ret
    try:
        sites = __salt__["site_pillar.settings"]()["sites"]
    except CommandExecutionError as error:
        ret["result"] = False
        ret["comment"] = str(error)
        return ret
    absent = sum(1 for site in sites.values() if site["absent"])
    ret["comment"] = f"{len(sites) - absent} site{'' if len(sites) - absent == 1 else 's'}"
    if absent:
        ret["comment"] += f", {absent} absent"
    return ret
