"""
nginx's configuration tree is the one of the pillar, or it is as it was.

.. code-block:: yaml

    'nginx: configuration tree':
      nginx_tree.applied:
        - name: nginx

The values come from the pillar ``nginx_uwsgi_django``, as data.  nginx itself judges the whole
future tree before a byte of the live one changes; see
:py:mod:`the execution module <_modules.nginx_tree>` for how.

.. versionadded:: 0.1.0
"""

import os
import shutil
from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "nginx_tree"


def __virtual__() -> str:
    return __virtualname__


def _installed() -> bool:
    return bool(shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin")) and os.path.exists(
        os.path.join(__salt__["site_pillar.settings"]()["lookup"]["nginx_dir"], "nginx.conf")
    )


def _told(report: dict[str, Any]) -> list[str]:
    lines = [*report["warnings"], *report["kept"]]
    held = "changes once its release is live" if __opts__["test"] else "stays as it is"
    lines += [f"{site}: its part {held}: {why}" for site, why in report["held"].items()]
    if report["strangers"]:
        lines.append(f"enabled, but not this formula's: {', '.join(report['strangers'])}")
    return lines


def _done(name: str, function: str, right: str, future: str, past: str, **given: Any) -> dict:
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        report = __salt__[function](test=test, **given)
    except CommandExecutionError as error:
        ret["result"], ret["comment"] = False, f"{error}"
        return ret
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        ret["result"], ret["comment"] = False, f"{where}{error.strerror}"
        return ret
    ret["changes"] = report["changes"]
    if not report["changes"]:
        lines = [right]
    elif test:
        ret["result"] = None
        lines = [future]
    else:
        lines = [past]
    ret["comment"] = "\n".join(lines + _told(report))
    return ret


def applied(name: str, unproven: bool = False) -> dict[str, Any]:
    """
    The tree under ``/etc/nginx`` holds the pillar's sites, links and ``user``, all at once.

    name
        a label, ``nginx``
    unproven
        change the part of every site, also where the release that the pillar asks for is not live

    The part of a site whose release is not live stays as it is, and a site that nginx does not name
    yet is left out: the comment says why. That is no failure of this state.

    Returns the usual dictionary: ``changes`` has one unified diff per file.  When nginx refuses
    the future tree the result is False with nginx's words and the pillar's path that they are
    about, nothing has changed, and it is False again in the next run while the cause stays.
    """
    try:
        installed = _installed()
    except CommandExecutionError as error:
        return {"name": name, "result": False, "changes": {}, "comment": f"{error}"}
    if not installed:
        if __opts__["test"]:
            taken = __salt__["nginx_tree.occupied"]()
            if taken:
                words = ["nginx could not listen as it should:", *taken]
                return {"name": name, "result": False, "changes": {}, "comment": "\n".join(words)}
            return {
                "name": name,
                "result": None,
                "changes": {name: {"old": None, "new": "the tree of the pillar"}},
                "comment": "nginx is not installed yet; once it is, it will judge the tree",
            }
        return {
            "name": name,
            "result": False,
            "changes": {},
            "comment": "nginx is not installed",
        }
    ret = _done(
        name,
        "nginx_tree.ensure",
        "The tree is the one of the pillar",
        "nginx accepts the tree as it would be; it would be put in place",
        "nginx accepted the tree, and it is in place",
        saltenv=__env__,
        unproven=unproven,
    )
    sites = __salt__["site_pillar.settings"]()["sites"]
    # nginx takes a certificate that no browser does.
    ret["warnings"] = [
        flaw
        for label, site in sites.items()
        if not site["absent"]
        for flaw in __salt__["site_certificate.flaws"](label)
    ]
    return ret


def removed(name: str) -> dict[str, Any]:
    """
    Nothing of the formula is left under ``/etc/nginx``, and what it took out is back.

    name
        a label, ``nginx``

    Returns the usual dictionary, as :py:func:`applied` does.
    """
    try:
        installed = _installed()
    except CommandExecutionError as error:
        return {"name": name, "result": False, "changes": {}, "comment": f"{error}"}
    if not installed:
        return {
            "name": name,
            "result": True,
            "changes": {},
            "comment": "nginx is not installed: there is no tree",
        }
    return _done(
        name,
        "nginx_tree.remove",
        "Nothing of this formula is in the tree",
        "The formula's files would be taken out of the tree",
        "The formula's files are out of the tree",
    )


def reached(name: str) -> dict[str, Any]:
    """
    The visitors of every site get the answers of its own server in nginx.

    name
        a label

    Fails for the sites that nginx does not name as the pillar says because their release is not live,
    and for those whose name nginx takes for another server: a file that comes before, an address of
    its own, a site that the pillar has lost. It fails in every run while the cause stays, with file
    and line, and changes nothing.

    .. code-block:: yaml

        'sites: reachable through nginx':
          nginx_tree.reached:
            - name: sites
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        if not _installed():
            ret["comment"] = "nginx is not installed yet"
            return ret
        shadowed = __salt__["nginx_tree.shadowed"](__env__ if test else None)
        held = {} if test else __salt__["nginx_tree.held"](__env__)
    except (CommandExecutionError, OSError) as error:
        ret["result"], ret["comment"] = False, f"{error}"
        return ret
    lines = [f"{site}: nginx's part of it stays as it is: {why}" for site, why in held.items()]
    lines += [f"{site}: {each}" for site, told in shadowed.items() for each in told]
    if lines:
        ret["result"] = False
    ret["comment"] = "\n".join(lines) or "no other server has a name of theirs"
    return ret
