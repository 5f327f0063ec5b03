"""
Everything that nginx reads with its configuration: its tree, and the files that this names elsewhere.
"""

import glob
import hashlib
import json
import os
import re
import stat
from typing import Any

# What a run of Salt knows already.
Memory = dict[str, Any]


# In the memory of a run: what each file of the tree names, by path, with the row that it had then.
_NAMED = "nginx_process.named"


# Directives that name a file which nginx reads when it reads its configuration.
_READS = {
    "include",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_client_certificate",
    "ssl_crl",
    "ssl_dhparam",
    "ssl_password_file",
    "ssl_session_ticket_key",
    "ssl_stapling_file",
    "ssl_trusted_certificate",
    "uwsgi_ssl_trusted_certificate",
}
_REFERENCE = re.compile(
    rf"(?<![^;{{}}\s])(?:{'|'.join(sorted(_READS))})\s+(\"[^\"]*\"|'[^']*'|[^\s;]+)\s*;"
)
_COMMENT = re.compile(r"#[^\n]*")


def _references(text: str, base: str) -> set[str]:
    """The files that a configuration text names, those that nginx reads with it."""
    found = set()
    for match in _REFERENCE.finditer(_COMMENT.sub("", text)):
        path = match.group(1).strip("\"'")
        if not path.startswith(("data:", "engine:")) and "$" not in path:
            found.add(os.path.join(base, path))
    return found


def _row(seen: os.stat_result) -> list[int]:
    return [seen.st_dev, seen.st_ino, seen.st_mode, seen.st_size, seen.st_ctime_ns]


def _named(path: str, row: list[int], base: str, memory: Memory) -> list[str]:
    """The files that a file names; read once in a run, as long as it does not change."""
    known: dict[str, tuple[list[int], list[str]]] = memory.setdefault(_NAMED, {})
    if path not in known or known[path][0] != row:
        try:
            with open(path, "rb") as stream:
                text = stream.read(4 << 20).decode("utf-8", "replace")
        except OSError:
            return []
        known[path] = (row, sorted(_references(text, base)))
    return known[path][1]


def inputs(
    base: str, memory: Memory, noted: dict[str, list[str]] | None = None
) -> dict[str, list[int]]:
    """
    Everything that nginx reads with its configuration.

    base
        the directory of the tree
    memory
        what is known in this run of Salt (``__context__``): no file is read twice
    noted
        what files have named, by path; then none is read, and the answer is right if none of them
        has changed since

    Returns by path what says that it changed; an empty list for what does not exist.
    """
    rows: dict[str, list[int]] = {}
    # By device and inode: a site's file has a second name, by which nginx includes it.
    texts: set[tuple[int, int]] = set()

    def note(path: str, follow: bool) -> os.stat_result | None:
        key = path + (" ->" if follow else "")
        try:
            seen = os.stat(path) if follow else os.lstat(path)
        except OSError:
            # A dangling link, or a file that is not there: that too may change.
            rows[key] = []
            return None
        rows[key] = _row(seen)
        return seen

    def file(path: str) -> None:
        seen = note(path, False)
        if seen is not None and stat.S_ISLNK(seen.st_mode):
            seen = note(path, True)
        if seen is None or not stat.S_ISREG(seen.st_mode) or (seen.st_dev, seen.st_ino) in texts:
            return
        texts.add((seen.st_dev, seen.st_ino))
        names = _named(path, _row(seen), base, memory) if noted is None else noted.get(path, [])
        for named in names:
            pattern = glob.has_magic(named)
            for target in sorted(glob.glob(named)) if pattern else [named]:
                if not target.startswith(base + os.sep):
                    file(target)
            if pattern and not named.startswith(base + os.sep):
                note(os.path.dirname(named), True)

    for folder, folders, files in os.walk(base):
        # Leftovers of a killed run are about to be removed: nginx does not read them.
        folders[:] = [name for name in folders if not name.startswith(".nginx_uwsgi_django-")]
        note(folder, False)
        for name in files:
            file(os.path.join(folder, name))
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                note(path, False)
                note(path, True)
    return rows


def outside(base: str, memory: Memory) -> dict[str, list[int]]:
    """
    What nginx reads with its configuration that is not in its tree: files that the tree includes
    from elsewhere, certificates, what a link of the tree leads to.

    base, memory
        as in :py:func:`inputs`

    Returns by path what says that it changed; an empty list for what does not exist.
    """
    rows, below = inputs(base, memory), base + os.sep
    own = {path: row for path, row in rows.items() if f"{path}{os.sep}".startswith(below)}
    links = {path for path in own if path.endswith(" ->")}
    inside = {tuple(row[:2]) for path, row in own.items() if path not in links}
    return {
        path: row
        for path, row in rows.items()
        if (path in links or path not in own) and tuple(row[:2]) not in inside
    }


def named(memory: Memory) -> dict[str, list[str]]:
    """
    What the files that were read in this run name.

    memory
        as in :py:func:`inputs`

    Returns by path the files that it names; nothing of a file that names none.
    """
    return {path: names for path, (_, names) in memory.get(_NAMED, {}).items() if names}


def fingerprint(rows: dict[str, list[int]]) -> str:
    """
    A digest of what nginx reads.

    rows
        as :py:func:`inputs` returns them

    Returns a hexadecimal text.
    """
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
