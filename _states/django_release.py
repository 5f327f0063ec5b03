"""
States of a Django project's releases.

.. versionadded:: 0.1.0
"""

import logging
import os
from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "django_release"

log = logging.getLogger(__name__)


def __virtual__() -> str:
    return __virtualname__


def _ret(name: str) -> dict[str, Any]:
    return {"name": name, "result": True, "changes": {}, "comment": ""}


def _waits(name: str, ret: dict[str, Any]) -> bool:
    """Whether a dry run can say no more, as the source cannot be asked before an installation."""
    awaits = __salt__["release_source.awaits"](name) if __opts__["test"] else None
    if awaits:
        ret.update(
            result=None,
            changes={"release": {"old": None, "new": awaits}},
            comment=f"would be done {awaits}",
        )
    return bool(awaits)


def _going(name: str, lacks: list[str]) -> dict[str, Any]:
    """What goes before a release is copied or built, so that there is room for it."""
    try:
        if lacks or __salt__["python_venv.diff"](name):
            return __salt__["release_live.leftovers"](name)
    except CommandExecutionError as error:
        # The state of the environment meets it again, and says it.
        log.info("%s", error)
    return {}


def present(name: str) -> dict[str, Any]:
    """
    The release that the pillar asks for is complete on the host: copied from its source, or, where
    it has none, the tree at ``project:path`` is there and the site's user can read it. The tree
    is never changed.

    name
        the site

    .. code-block:: yaml

        "mysite: release files":
          django_release.present:
            - name: mysite

    A release on the host that was edited by hand is brought back to its content.

    After ``site_rollback.rollback`` the release that was rolled back to stays, as long as the source
    offers only releases that were rolled back from; the comment says so.

    .. versionadded:: 0.1.0
    """
    ret = _ret(name)
    try:
        if _waits(name, ret):
            return ret
        lacks = __salt__["django_release.diff"](name, refresh=True)
        wanted = __salt__["django_release.desired"](name)
        going = _going(name, lacks)
        if not lacks and not going:
            ret["comment"] = f"the release {wanted['id']} is complete in {wanted['path']}"
            stays = __salt__["django_release.stays"](name)
            ret["comment"] += f"; {stays}" if stays else ""
            return ret
        changes = {"release": {"old": None, "new": wanted["path"]}}
        if os.path.isdir(wanted["path"]):
            changes = {"done": {"old": None, "new": lacks}} if lacks else {}
        changes.update(going)
        if __opts__["test"]:
            ret.update(result=None, changes=changes, comment="\n".join(lacks or ["complete"]))
            return ret
        __salt__["release_live.prune"](name)
        __salt__["django_release.ensure"](name)
        still = __salt__["django_release.diff"](name)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["changes"] = changes
    if still:
        ret.update(result=False, comment="done, and yet:\n" + "\n".join(still))
        return ret
    ret["comment"] = f"the release {wanted['id']} is now complete in {wanted['path']}"
    return ret


def prepared(name: str) -> dict[str, Any]:
    """
    The release is checked and ready for traffic, before it gets any: its settings have STATIC_ROOT
    and allow the site's names, its WSGI callable imports, ``manage.py check --deploy`` passes
    (``project:check``), migrations are applied (``project:migrate``) where the plan is not empty,
    static files are collected (``project:static:collect``). All of it as the site's user, with
    the site's environment.

    name
        the site

    .. code-block:: yaml

        "mysite: the release is prepared":
          django_release.prepared:
            - name: mysite

    Done once for a release, a virtual environment and a process environment together; then
    nothing is started. What somebody else does to the database afterwards is not noticed here:
    ask with ``django_preparation.pending``.

    .. versionadded:: 0.1.0
    """
    ret = _ret(name)
    try:
        if _waits(name, ret):
            return ret
        if __opts__["test"] and (
            __salt__["django_release.diff"](name) or __salt__["python_venv.diff"](name)
        ):
            ret.update(
                result=None,
                changes={"prepared": {"old": None, "new": "once it is on the host"}},
                comment="would be checked and prepared once it is on the host",
            )
            return ret
        if __salt__["django_preparation.is_complete"](name):
            remarks = __salt__["django_preparation.remarks"](name)
            ret["comment"] = "; ".join(["checked and prepared", *remarks])
            return ret
        wanted = __salt__["django_release.desired"](name)
        if __opts__["test"]:
            ret.update(
                result=None,
                changes={"prepared": {"old": None, "new": wanted["id"]}},
                comment=f"the release {wanted['id']} would be checked and prepared",
            )
            return ret
        done = __salt__["django_preparation.ensure"](name)
        ready = __salt__["django_preparation.is_complete"](name)
        # A tree that collected static files for the first time has them left out from now on.
        wanted = __salt__["django_release.desired"](name)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["changes"]["prepared"] = {"old": None, "new": wanted["id"]}
    if done["migrated"]:
        ret["changes"]["migrated"] = {"old": None, "new": done["migrated"]}
    if done["collected"]:
        ret["changes"]["collected"] = {"old": None, "new": done["collected"]}
    if not ready:
        ret.update(result=False, comment="prepared, and yet the project changed meanwhile")
        return ret
    ret["comment"] = f"the release {wanted['id']} is checked and prepared"
    for remark in __salt__["django_preparation.remarks"](name):
        ret["comment"] += f"; {remark}"
    if done["pending"]:
        ret["comment"] += "; left to you (project:migrate is false): " + ", ".join(done["pending"])
    if done["for_good"]:
        told = (f"{each} ({', '.join(why)})" for each, why in done["for_good"].items())
        ret["comment"] += (
            "; Django cannot undo, so no rollback goes past it without being told to: "
            + ", ".join(told)
        )
    return ret


def live(name: str) -> dict[str, Any]:
    """
    ``current`` points at the release that is served, the last ones that were live are kept for a
    way back (``project:keep``), and what nothing needs any more is gone.

    name
        the site

    .. code-block:: yaml

        "mysite: current release":
          django_release.live:
            - name: mysite
            - require:
              - uwsgi_generation: "mysite: uWSGI generation"

    .. versionadded:: 0.1.0
    """
    ret = _ret(name)
    try:
        if _waits(name, ret):
            return ret
        todo = __salt__["release_live.diff"](name)
        wanted = __salt__["django_release.desired"](name)
        if not todo:
            ret["comment"] = f"the release {wanted['id']} is live"
            return ret
        if __opts__["test"]:
            ret.update(
                result=None, changes=todo, comment=f"the release {wanted['id']} would be live"
            )
            return ret
        ret["changes"] = __salt__["release_live.ensure"](name)
        still = __salt__["release_live.diff"](name)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    if still:
        ret.update(result=False, comment=f"switched, and yet to do: {', '.join(sorted(still))}")
        return ret
    ret["comment"] = f"the release {wanted['id']} is live"
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    A site's releases and data are gone, if the pillar says that data may go
    (``nginx_uwsgi_django:clean:data``); else they stay. A project's tree that somebody copied to
    the host stays always.

    name
        the site

    .. code-block:: yaml

        "mysite: its releases are gone":
          django_release.absent:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret = _ret(name)
    try:
        if not __opts__["test"]:
            # Nothing but what is fetched again.
            __salt__["release_source.remove"](name)
        found = __salt__["django_release.leftovers"](name)
        left = ", ".join(__salt__["django_release.left"](name))
        told = f"; not made by this formula and left to you: {left}" if left else ""
        if not found:
            ret["comment"] = f"there are none{told}"
            return ret
        if not __salt__["django_release.data_may_go"]():
            ret["comment"] = "kept, nginx_uwsgi_django:clean:data is not true: " + ", ".join(found)
            return ret
        ret["changes"] = {"removed": {"old": found, "new": None}}
        if __opts__["test"]:
            ret.update(result=None, comment=f"would be removed{told}")
            return ret
        __salt__["django_release.remove"](name)
        still = __salt__["django_release.leftovers"](name)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
        return ret
    if still:
        ret.update(result=False, comment="still present after removal: " + ", ".join(still))
        return ret
    ret["comment"] = f"removed{told}"
    return ret
