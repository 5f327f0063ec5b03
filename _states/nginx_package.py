"""
nginx's package is from the source of the pillar.

.. code-block:: yaml

    'nginx: package from the configured source':
      nginx_package.current:
        - name: nginx

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "nginx_package"


def __virtual__() -> str:
    return __virtualname__


def current(name: str) -> dict[str, Any]:
    """
    Where the pillar has come to name another source, nginx comes from there, and no request is lost.

    name
        a label, ``nginx``

    Returns the usual dictionary.  The result is False, and nothing has changed, where a package is on
    hold, a pin prefers another source, or the nginx from there refuses the tree.  A dry run downloads
    the packages, lets the nginx in them test the tree, and removes them; while the source itself is
    still to be put in place it cannot, and says so.
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        kind = __salt__["deb822_source.choice"]()["kind"]
        held = __salt__["nginx_package.held"]()
        if test and __salt__["deb822_source.in_place"]() != __salt__["deb822_source.wanted"](kind):
            return _source_first(ret, kind, held)
        report = __salt__["nginx_package.ensure"](saltenv=__env__, test=test)
    except CommandExecutionError as error:
        ret["result"], ret["comment"] = False, f"{error}"
        return ret
    except OSError as error:
        ret["result"], ret["comment"] = False, f"{error.filename}: {error.strerror}"
        return ret
    ret["changes"] = report["changes"]
    lines = list(report["warnings"])
    if not ret["changes"]:
        lines.insert(0, "Nothing asks for another nginx than the one that is installed")
    elif test:
        ret["result"] = None
        lines.insert(0, f"The nginx of {kind} accepts the tree, and would be installed")
    else:
        lines.insert(0, f"nginx is from {kind}")
        _take_over(ret, lines, name)
    if held:
        lines.append(f"on hold (apt-mark), and not touched: {', '.join(held)}")
    ret["comment"] = "\n".join(lines)
    return ret


def _source_first(ret: dict[str, Any], kind: str, held: list[str]) -> dict[str, Any]:
    """A dry run in which apt does not know the source yet."""
    if held:
        ret["result"] = False
        ret["comment"] = (
            f"nginx_uwsgi_django:nginx:repo is to be {kind}, and on hold (apt-mark) are: "
            f"{', '.join(held)}; 'apt-mark unhold {' '.join(held)}' lets nginx follow"
        )
        return ret
    ret["result"] = None
    ret["changes"] = {"nginx": {"old": "of another source", "new": f"what apt prefers of {kind}"}}
    ret["comment"] = f"nginx would come from {kind}, once apt knows that source"
    return ret


def _take_over(ret: dict[str, Any], lines: list[str], name: str) -> None:
    """The new package brought files, and a binary that does not run yet."""
    for function in ("nginx_tree.applied", "nginx_process.current"):
        done = __states__[function](name)
        ret["changes"].update(done["changes"])
        lines.append(done["comment"])
        if done["result"] is False:
            ret["result"] = False
            return
