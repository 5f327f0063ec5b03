"""
What served in nginx before the formula's sites, and where nginx passes requests to now.

.. versionadded:: 0.2.0
"""

import os
import posixpath
from typing import Any

from _nud import (
    backends,
    durable_file,
    nginx_files,
    nginx_kept,
    nginx_language,
    nginx_servers,
)

__virtualname__ = "nginx_before"


def __virtual__() -> str:
    return __virtualname__


def _shown() -> str:
    return str(__salt__["site_pillar.settings"]()["lookup"]["nginx_dir"]).rstrip("/")


def _record(base: str) -> dict[str, Any]:
    return nginx_kept.record_of(durable_file.read(os.path.join(base, nginx_files.COMMON)))


def passes() -> list[dict[str, Any]]:
    """
    Where the servers on the disk pass requests to.

    Returns a list of dictionaries: ``path`` and ``line`` of the directive, ``address``
    (``unix:/run/uwsgi/mysite.sock``, ``127.0.0.1:8000``; an upstream stands for its servers) and
    ``own``: whether the file is the formula's.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_before.passes
    """
    shown = _shown()
    base = os.path.realpath(shown)
    tree = nginx_files.live(base)
    if "nginx.conf" not in tree:
        return []
    return [
        {
            "path": f"{shown}/{found.path}",
            "line": found.line,
            "address": found.address,
            "own": nginx_files.is_owned(nginx_servers.contents_of(base, shown, tree, found.path)),
        }
        for found in backends.passes(nginx_servers.rows_of(base, shown, tree))
    ]


def user() -> list[str] | None:
    """
    The arguments of nginx's ``user`` line before the formula changed it.

    Returns a list; None where it was not changed, or there was no such line.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_before.user
    """
    before: list[str] | None = _record(os.path.realpath(_shown())).get("user")
    return before


def replaced() -> dict[str, dict[str, dict[str, Any]]]:
    """
    What served the sites of the formula in nginx before, and was replaced.

    Returns by site and path of the file in nginx's tree: ``link`` (where a link led) or ``file``
    (where the file is kept), and ``passes``: pairs of a directive and the address that it passed
    requests to.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_before.replaced
    """
    shown = _shown()
    base = os.path.realpath(shown)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path, was in _record(base).get("replaced", {}).items():
        kept = was.get("file") or posixpath.join(posixpath.dirname(path), was["link"])
        contents = durable_file.read(os.path.realpath(os.path.join(base, kept)))
        text = "" if nginx_files.is_owned(contents) else nginx_files.text_of(contents)
        rows = [
            (path, 0, directive.block, directive.words)
            for directive in nginx_language.directives(text)
        ]
        found.setdefault(nginx_kept.site_of(path, was), {})[f"{shown}/{path}"] = {
            **({"file": f"{shown}/{was['file']}"} if "file" in was else {"link": was["link"]}),
            "passes": sorted({(each.directive, each.address) for each in backends.passes(rows)}),
        }
    return found
