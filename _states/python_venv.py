"""
States of virtual environments.

.. versionadded:: 0.1.0
"""

import os
from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "python_venv"


def __virtual__() -> str:
    return __virtualname__


def built(name: str) -> dict[str, Any]:
    """
    The virtual environment that the site's project asks for is built and complete.

    name
        the site

    .. code-block:: yaml

        "mysite: the virtual environment is complete":
          python_venv.built:
            - name: mysite

    Where ``project:venv`` names an environment that the operator keeps, it is only looked at.
    A requirement that does not install is a failure with pip's own words and leaves everything
    as it was.

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    project = __salt__["site_pillar.site"](name)["project"]
    try:
        awaits = __salt__["release_source.awaits"](name) if __opts__["test"] else None
        if awaits:
            ret.update(result=None, changes={"venv": {"old": None, "new": awaits}})
            ret["comment"] = f"would be done {awaits}"
            return ret
        if (
            __opts__["test"]
            and not project.get("venv")
            and project["python"].startswith("/usr/bin/")
            and not os.path.exists(project["python"])
        ):
            ret["result"] = None
            ret["changes"] = {"venv": {"old": None, "new": "built"}}
            ret["comment"] = f"would be built with {project['python']}, once that is installed"
            return ret
        wanted = __salt__["python_venv.desired"](name)
        lacks = __salt__["python_venv.diff"](name)
        if lacks is None:
            ret["comment"] = f"{wanted['path']} is complete"
            return ret
        changes = {"venv": {"old": None, "new": wanted["path"]}}
        if __opts__["test"]:
            ret.update(result=None, changes=changes, comment=lacks)
            return ret
        __salt__["python_venv.ensure"](name)
        lacks = __salt__["python_venv.diff"](name)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["changes"] = changes
    if lacks is not None:
        ret.update(result=False, comment=f"built, and yet {lacks}")
        return ret
    ret["comment"] = f"built {wanted['path']}"
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    The environments that were built for a site are gone. They hold nothing that the next run does
    not build again, so they are not the data that ``nginx_uwsgi_django:clean:data`` speaks of.

    name
        the site

    .. code-block:: yaml

        "mysite: the virtual environments are gone":
          python_venv.absent:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    stored = __salt__["python_venv.stored"](name)
    if not stored:
        ret["comment"] = "there are none"
        return ret
    ret["changes"] = {"venvs": {"old": stored, "new": None}}
    if __opts__["test"]:
        ret.update(result=None, comment="would be removed")
        return ret
    try:
        __salt__["python_venv.remove"](name)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
        return ret
    still = __salt__["python_venv.stored"](name)
    if still:
        ret.update(result=False, comment=f"removed, and yet there: {', '.join(still)}")
        return ret
    ret["comment"] = "removed"
    return ret
