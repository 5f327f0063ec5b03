"""
The packages that are on the host, as dpkg knows them.

All of them are asked for at once, and again only when dpkg has written since: several states want to
know, and the question takes a process.

.. versionadded:: 0.1.0
"""

import os
import shutil
from typing import Any

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import apt

__virtualname__ = "dpkg_packages"

_MEMORY = "dpkg_packages"

# dpkg notes each step in a file of its own in `updates`, and puts them together in `status` from time
# to time (src/main/update.c, lib/dpkg/dbmodify.c).
_DATABASE = ("/var/lib/dpkg/status", "/var/lib/dpkg/updates")


def __virtual__() -> str | tuple[bool, str]:
    if not shutil.which("dpkg-query"):
        return False, "there is no dpkg-query on this system"
    return __virtualname__


def _written() -> list[tuple[int, int, int]]:
    """What changes with every write of dpkg's."""
    rows = []
    for path in _DATABASE:
        seen = os.stat(path)
        rows.append((seen.st_ino, seen.st_size, seen.st_mtime_ns))
    return rows


def on_host() -> dict[str, dict[str, Any]]:
    """
    The packages that are on the host, whole or not; those of which only configuration files are left
    are not.

    Returns by name ``version``, ``whole`` (unpacked and configured) and ``held`` (``apt-mark hold``).

    Raises CommandExecutionError when dpkg does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' dpkg_packages.on_host
    """
    written = _written()
    known = __context__.get(_MEMORY)
    if known is None or known[0] != written:
        __context__[_MEMORY] = known = (written, _asked())
    return known[1]


def _asked() -> dict[str, dict[str, Any]]:
    form = "${binary:Package}\\t${db:Status-Abbrev}\\t${Version}\\n"
    found = {}
    for line in apt.ask("dpkg-query", "--show", f"--showformat={form}").splitlines():
        name, status, version = line.split("\t")
        # dpkg-query(1): what is wanted, what is (n, c: no more than configuration files), errors.
        if status[1] not in "nc":
            found[name.partition(":")[0]] = {
                "version": version,
                "whole": status[1] == "i" and status[2] == " ",
                "held": status[0] == "h",
            }
    return found
