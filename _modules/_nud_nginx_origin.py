"""
The note of the package source that nginx came from, while another source is to replace it.

It is written before the source changes, and stays until nginx's package is from the new source: a
run that was killed is finished by the next one.
"""

import json
import os
from typing import Any

from _nud_durable_file import directory, read, write
from _nud_durable_file import remove as _remove


def _path(state_dir: str) -> str:
    return os.path.join(state_dir, "nginx_package.json")


def noted(state_dir: str) -> dict[str, Any]:
    """
    The note.

    state_dir
        ``lookup:state_dir`` of the pillar

    Returns ``from`` (as :py:func:`deb822_source.in_place` says it) and ``installing``, whether apt
    has begun to install the other package; empty without a note.
    """
    content = read(_path(state_dir))
    return json.loads(content) if content else {}


def note(state_dir: str, origin: str, installing: bool = False) -> None:
    """
    Write the note.

    state_dir
        as in :py:func:`noted`
    origin
        the source that nginx is from, as :py:func:`deb822_source.in_place` says it
    installing
        apt begins to install the other package
    """
    directory(os.path.dirname(_path(state_dir)))
    text = json.dumps({"from": origin, "installing": installing}, sort_keys=True)
    write(_path(state_dir), text + "\n")


def forget(state_dir: str) -> bool:
    """
    Remove the note: nginx then stays the package that it is.

    state_dir
        as in :py:func:`noted`

    Returns True when there was a note.
    """
    return bool(_remove(_path(state_dir)))
