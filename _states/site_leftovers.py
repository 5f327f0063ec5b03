"""
Sites that the formula made and the pillar has lost are reported, or removed where it says so.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "site_leftovers"


def __virtual__() -> str:
    return __virtualname__


def handled(name: str) -> dict[str, Any]:
    """
    No site is on the host that the pillar does not name, where the pillar says ``purge: true``;
    else such sites stay as they are, and the comment names them.

    name
        a label, ``nginx_uwsgi_django``

    What is removed is what ``absent: true`` would remove. Data stays in any case: only a site that
    the pillar names, with ``absent: true`` and ``clean:data``, is ever removed with it. nginx's
    files are removed by :py:func:`nginx_tree.applied`, before.

    .. code-block:: yaml

        'sites: orphans reported or purged':
          site_leftovers.handled:
            - name: nginx_uwsgi_django

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        purge = __salt__["site_pillar.settings"]()["purge"]
        left = __salt__["site_leftovers.found"]()
        if not left:
            ret["comment"] = "every site that this formula made is in the pillar"
        elif not purge:
            ret["comment"] = "\n".join(
                f"{site} is on this host and not in the pillar; it stays as it is ({_told(there)}): "
                f"`absent: true` under sites:{site} removes it, `purge: true` all such"
                for site, there in left.items()
            )
        elif __opts__["test"]:
            ret["result"] = None
            ret["changes"] = {site: {"old": there, "new": None} for site, there in left.items()}
            ret["comment"] = f"would be removed, their data apart: {', '.join(left)}"
        else:
            _purge(ret, left)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
    return ret


def _told(there: dict[str, list[str]]) -> str:
    return ", ".join(f"{kind} {what}" for kind, found in there.items() for what in found)


def _purge(ret: dict[str, Any], left: dict[str, dict[str, list[str]]]) -> None:
    wrong = []
    for site, there in left.items():
        # In this order, as `absent` does it; and only what is there, as a unit of that name may be
        # somebody else's.
        kinds = {
            "companion": "site_companion",
            "generation": "uwsgi_generation",
            "socket": "uwsgi_socket",
            "log": "uwsgi_log",
        }
        steps = [f"{kinds[kind]}.absent" for kind in kinds if kind in there]
        steps.append("python_venv.absent")
        failed = None
        for step in steps:
            done = __states__[step](site)
            if done["result"] is False:
                failed = f"{site}: {done['comment']}"
                break
        if failed is None:
            try:
                __salt__["site_leftovers.remove_accounts"](site)
            except CommandExecutionError as error:
                failed = f"{site}: {error}"
        if failed is not None:
            wrong.append(failed)
    still = __salt__["site_leftovers.found"]()
    for site, there in left.items():
        kept = still.get(site, {})
        gone = {
            kind: what
            for kind, found in there.items()
            if (what := [one for one in found if one not in kept.get(kind, [])])
        }
        if gone:
            ret["changes"][site] = {"old": gone, "new": None}
    if wrong or still:
        ret["result"] = False
        wrong += [f"{site} is still there: {_told(there)}" for site, there in still.items()]
        ret["comment"] = "\n".join(wrong)
        return
    ret["comment"] = f"removed, their data apart: {', '.join(left)}"
