"""
The record of what served a site before the formula: the units as they were before they were
stopped, and whether an operator has given the site back to them.
"""

import json
import os
from typing import Any

from salt.exceptions import CommandExecutionError

import _nud_durable_file as durable_file


def _path(state_dir: str, name: str) -> str:
    return os.path.join(state_dir, "takeover", f"{name}.json")


def names(state_dir: str) -> list[str]:
    """
    The sites of which there is a record.

    state_dir
        where the formula keeps its state

    Returns their names, sorted.
    """
    try:
        entries = os.listdir(os.path.join(state_dir, "takeover"))
    except FileNotFoundError:
        return []
    return sorted(entry.removesuffix(".json") for entry in entries if entry.endswith(".json"))


def read(state_dir: str, name: str) -> dict[str, Any]:
    """
    The record of a site.

    state_dir
        where the formula keeps its state
    name
        the site

    Returns ``at`` (when it was begun, UTC), ``units`` (by name what they were: ``enabled``,
    ``active``, ``file``, ``link``), ``sockets`` (by path where the socket is now) and ``reverted``
    (when an operator gave the site back, or None); all of them empty where there is no record.

    Raises CommandExecutionError when the file is not a record: the way back stands in it.
    """
    path = _path(state_dir, name)
    text = durable_file.read(path)
    empty: dict[str, Any] = {"at": None, "units": {}, "sockets": {}, "reverted": None}
    if text is None:
        return empty
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandExecutionError(
            f"{path} is not the record that the formula wrote: repair or remove it"
        )
    return {**empty, **found}


def write(state_dir: str, name: str, record: dict[str, Any]) -> None:
    """
    Replace the record of a site.

    state_dir
        where the formula keeps its state
    name
        the site
    record
        as :py:func:`read` returns it
    """
    path = _path(state_dir, name)
    durable_file.directory(os.path.dirname(path), mode="0700")
    durable_file.write(path, json.dumps(record, indent=1, sort_keys=True) + "\n", mode="0600")


def remove(state_dir: str, name: str) -> bool:
    """
    Remove the record of a site.

    state_dir
        where the formula keeps its state
    name
        the site

    Returns True when there was one.
    """
    return durable_file.remove(_path(state_dir, name))


def reverted(state_dir: str) -> set[str]:
    """
    The sites that an operator has given back to what served them before.

    state_dir
        the directory of the formula's state

    Returns their names.
    """
    return {name for name in names(state_dir) if read(state_dir, name)["reverted"]}
