"""
The files of nginx's configuration tree: what is there, what a plan wants, and how the two differ.
"""

import contextlib
import difflib
import hashlib
import json
import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError

from _nud_durable_file import read
from _nud_pem_text import describe as describe_pem


class Wanted(NamedTuple):
    """What is to be at a path of the tree: a file, a link, a directory, or nothing (``absent``)."""

    kind: str  # "file", "link", "directory", "absent"
    contents: bytes = b""
    target: str = ""
    # Not for a diff, a log or a report.
    secret: bool = False
    # Mode and group of a file of root's; None leaves a file that is there what it has.
    access: tuple[int, int] | None = None


class Raced(Exception):
    """Another program wrote to the tree while it was being changed."""


# What a directory of ours beside or inside the tree is called.  The dot keeps it out of nginx's
# `include sites-enabled/*`: glob(3) does not match a leading dot.
STAGE = ".nginx_uwsgi_django-"


# The first words of a file that is the formula's. A file without them is another owner's.
MARKER = b"Managed by the Salt formula nginx_uwsgi_django"


COMMON = "conf.d/nginx_uwsgi_django.conf"


def text_of(contents: bytes | None) -> str:
    """
    A file's content as text, from which the same bytes can be made again.

    contents
        its bytes; None for a file that does not exist

    Returns the text.
    """
    return (contents or b"").decode("utf-8", "surrogateescape")


def is_owned(contents: bytes | None) -> bool:
    """
    Whether a file is the formula's: it says so in its first words.

    contents
        its bytes; None for a file that does not exist

    Returns True or False.
    """
    # A page's comment begins in another way.
    return (contents or b"").removeprefix(b"<!-- ").removeprefix(b"# ").startswith(MARKER)


def link_target(base: str, path: str) -> str | None:
    """
    Where a link of the tree leads, as it is written.

    base
        the directory of the tree
    path
        of the link, relative to it

    Returns None for what is not a link.
    """
    with contextlib.suppress(OSError):
        return os.readlink(os.path.join(base, path))
    return None


def points_at(base: str, shown: str, link: str, path: str) -> bool:
    """
    Whether a link of the tree leads to a path of the tree, absolute or relative.

    base, shown
        the directory of the tree, without links and as the pillar names it
    link, path
        relative to it

    Returns True or False.
    """
    target = link_target(base, link)
    if target is None:
        return False
    absolute = posixpath.normpath(posixpath.join(shown, posixpath.dirname(link), target))
    wanted = posixpath.join(shown, path)
    return absolute == wanted or os.path.realpath(absolute) == os.path.join(base, path)


def entries(base: str, directory: str) -> list[str]:
    """
    The entries of a directory of the tree, but hidden ones.

    base
        the directory of the tree
    directory
        relative to it

    Returns their paths, relative to the tree, sorted; none of a directory that does not exist.
    """
    try:
        names = sorted(os.listdir(os.path.join(base, directory)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{directory}/{name}" for name in names if not name.startswith(".")]


def is_secret(path: str) -> bool:
    """
    Whether a file of the formula's may hold secrets, by its name.

    path
        relative to the tree

    Returns True or False.
    """
    return not path.endswith((".conf", ".html"))


def outstanding(base: str, plan: dict[str, Wanted]) -> dict[str, Wanted]:
    """
    The part of a plan that the live tree does not fulfil yet.

    base
        the directory of the tree
    plan
        what is to be where

    Returns a plan.

    Raises CommandExecutionError when a directory is in the way, or a link leads out of the tree.
    """
    due = {}
    for folder in sorted({posixpath.dirname(path) for path in plan}):
        full = os.path.normpath(os.path.join(base, folder))
        # Staged and live paths are only the same while nothing on the way is a link.
        if os.path.lexists(full) and os.path.realpath(full) != full:
            raise CommandExecutionError(
                f"{folder} in {base} is a link; the formula writes only to directories of the "
                "tree itself"
            )
    for path, wanted in plan.items():
        full = os.path.join(base, path)
        if wanted.kind == "file":
            done = read(full) == wanted.contents and _accessed(full, wanted)
            if os.path.isdir(full) and not os.path.islink(full):
                raise CommandExecutionError(f"{full} is in the way: it is a directory")
        elif wanted.kind == "link":
            done = os.path.islink(full) and os.readlink(full) == wanted.target
            if os.path.isdir(full) and not os.path.islink(full):
                raise CommandExecutionError(f"{full} is in the way: it is a directory")
        elif wanted.kind == "directory":
            done = os.path.isdir(full) and not os.path.islink(full)
            if not done and os.path.lexists(full):
                raise CommandExecutionError(f"{full} is in the way: it is not a directory")
        else:
            done = not os.path.lexists(full)
        if not done:
            due[path] = wanted
    return due


def _accessed(full: str, wanted: Wanted) -> bool:
    """Whether a file has the owner, group and mode that are wanted of it."""
    if wanted.access is None:
        return True
    seen = os.lstat(full)
    return (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) == (
        wanted.access[0],
        0,
        wanted.access[1],
    )


def describe(base: str, shown: str, due: dict[str, Wanted]) -> dict[str, Any]:
    """
    A change in the words of a state's ``changes``.

    base, shown
        the directory of the tree, without links and as the pillar names it
    due
        the change

    Returns by path a unified diff of each file, old and new of each link.
    """
    changes: dict[str, Any] = {}
    for path, wanted in sorted(due.items()):
        full, name = os.path.join(base, path), f"{shown}/{path}"
        if wanted.kind == "directory":
            changes[name] = {"old": None, "new": "a directory"}
        elif wanted.kind == "link" or os.path.islink(full):
            old = f"a link to {os.readlink(full)}" if os.path.islink(full) else None
            if old is None and os.path.lexists(full):
                old = "a file"
            new = f"a link to {wanted.target}" if wanted.kind == "link" else None
            changes[name] = {"old": old, "new": new if wanted.kind != "file" else "a file"}
        elif wanted.kind == "absent" and not os.path.isfile(full):
            changes[name] = {"old": "not a regular file", "new": None}
        elif wanted.secret:
            old = "a file" if os.path.lexists(full) else None
            new = "a file (not shown)" if wanted.kind == "file" else None
            if path.endswith(".pem"):
                # A certificate and its key: of the former there is something to tell.
                old = describe_pem(read(full))
                new = new and describe_pem(wanted.contents)
            changes[name] = {"old": old, "new": new}
        elif wanted.kind == "file" and read(full) == wanted.contents:
            changes[name] = {"mode": oct(wanted.access[0])} if wanted.access else {}
        else:
            now, then = read(full), wanted.contents if wanted.kind == "file" else None
            changes[name] = "".join(
                line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
                for line in difflib.unified_diff(
                    _shown_text(now).splitlines(keepends=True),
                    _shown_text(then).splitlines(keepends=True),
                    name if now is not None else "/dev/null",
                    name if then is not None else "/dev/null",
                )
            )
    return changes


def _shown_text(contents: bytes | None) -> str:
    return (contents or b"").decode("utf-8", "backslashreplace")


def walk(base: str) -> Iterator[tuple[str, os.stat_result]]:
    """
    Everything in the tree but what a killed run of the formula left there.

    base
        the directory of the tree

    Returns relative path and status, parents first.
    """
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(base, folder)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if not folder and entry.name.startswith(STAGE):
                continue
            path = os.path.join(folder, entry.name)
            status = entry.stat(follow_symlinks=False)
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)


def live(base: str) -> dict[str, Wanted]:
    """
    The tree as it is.

    base
        the directory of the tree

    Returns the entries by relative path, parents first; of kind ``other`` is what is neither a file
    nor a link nor a directory.

    Raises Raced when an entry was replaced meanwhile.
    """
    tree = {}
    for path, status in walk(base):
        if stat.S_ISDIR(status.st_mode):
            tree[path] = Wanted("directory")
        elif stat.S_ISLNK(status.st_mode):
            target = link_target(base, path)
            if target is None:
                raise Raced(path)
            tree[path] = Wanted("link", target=target)
        elif stat.S_ISREG(status.st_mode):
            contents = read(os.path.join(base, path))
            if contents is None:
                raise Raced(path)
            tree[path] = Wanted("file", contents)
        else:
            tree[path] = Wanted("other")
    return tree


def future(base: str, due: dict[str, Wanted]) -> dict[str, Wanted]:
    """
    The tree as it would be.

    base
        the directory of the tree
    due
        the change

    Returns as :py:func:`live` does.
    """
    tree = live(base) | due
    return {path: tree[path] for path in sorted(tree) if tree[path].kind != "absent"}


def digest_of(tree: dict[str, Wanted]) -> str:
    """
    A digest of all that nginx's master process, which is root's, can see of a tree.

    tree
        as :py:func:`live` returns it

    Returns a hexadecimal text.
    """
    digest = hashlib.sha256()
    for path, entry in sorted(tree.items()):
        row = (path, entry.kind, entry.target, len(entry.contents))
        digest.update(json.dumps(row).encode() + b"\n" + entry.contents)
    return digest.hexdigest()
