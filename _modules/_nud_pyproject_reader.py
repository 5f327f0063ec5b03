"""
The program that reads a ``pyproject.toml``, in a site's own virtual environment and as the site's user:
Salt's Python may have no tomllib.

It is not imported by the formula: :py:mod:`_nud_lock_files` sends this source to the environment's
Python. It reads a request in JSON from standard input and writes lines of a requirements file.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any


def plain(name: str) -> str:
    """A name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def chosen(table: dict[str, list[Any]], names: Iterable[str], what: str) -> Iterator[Any]:
    """The entries of some lists of a table."""
    there = {plain(name): value for name, value in table.items()}
    for name in names:
        if plain(name) not in there:
            sys.exit(f"there is no {what} {name!r}; there are: {', '.join(table) or 'none'}")
        yield from there[plain(name)]


def group(
    groups: dict[str, list[Any]], names: Iterable[str], above: tuple[str, ...] = ()
) -> Iterator[str]:
    """The requirements of some dependency groups, with the groups that they include (PEP 735)."""
    for entry in chosen(groups, names, "dependency group"):
        if isinstance(entry, str):
            yield entry
            continue
        inner = plain(entry["include-group"])
        if inner in above:
            sys.exit("dependency groups include each other: " + ", ".join(above))
        yield from group(groups, [inner], (*above, inner))


def main() -> None:
    """Write the requirements that are asked for."""
    try:
        import tomllib
    except ImportError:
        from pip._vendor import tomli as tomllib
    wanted = json.load(sys.stdin)
    with open(wanted["path"], "rb") as stream:
        content = tomllib.load(stream)
    project = content.get("project", {})
    lines: list[str] = []
    if not wanted["package"]:
        if not project or "dependencies" in project.get("dynamic", []):
            sys.exit(
                "it has no [project] with dependencies, and no [build-system] that would know them"
            )
        lines += project.get("dependencies", [])
        lines += chosen(project.get("optional-dependencies", {}), wanted["extras"], "extra")
    lines += group(content.get("dependency-groups", {}), wanted["groups"])
    with open(wanted["to"], "w", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line in lines)


if __name__ == "__main__":
    main()
