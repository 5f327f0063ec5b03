"""
The files of a release: which files of a project count, their fingerprint, and copying them.

A release is named by a fingerprint of its content. The same files are the same release on every host,
whatever their times and owners, and a different file makes a different release.
"""

import fnmatch
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator, MutableMapping
from typing import Any, TypedDict

from salt.exceptions import CommandExecutionError

from _nud_durable_file import directory, flush_directory, link, write
from _nud_program import run_as


class Release(TypedDict):
    """A release of a site."""

    #: 12 hexadecimal digits: the fingerprint of its content
    id: str
    #: the directory that it runs from
    path: str
    #: a directory that holds the same files now, also before the release is on the host
    source: str


#: A release's files: by their path in it, a line that says what each is.
Manifest = dict[str, str]
#: What was read of a tree, with the status that its files had then.
Cache = MutableMapping[str, tuple[list[Any], Manifest]]

#: The name of a release.
ID = re.compile(r"[0-9a-f]{12}")
#: What a run that died left of a release.
UNFINISHED = re.compile(r"\.[0-9a-f]{12}\.(?:partial|removed)")

# Not part of a release: what tools and the running site write into a tree.
_EXCLUDED_FOLDERS = {
    ".git",
    ".hg",
    ".svn",
    ".tox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "node_modules",
}
_EXCLUDED_FILES = ("*.pyc", "*.pyo", "*.sqlite3", "*.sqlite3-*", "*.log", "*.pid", "*.swp")


def _excluded(relative: str, patterns: list[str]) -> bool:
    base = os.path.basename(relative)
    return any(
        fnmatch.fnmatchcase(relative, pattern.rstrip("/"))
        or fnmatch.fnmatchcase(base, pattern.rstrip("/"))
        for pattern in patterns
    )


def _files(
    root: str, patterns: list[str], outside: set[str], only: set[str] | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """
    The files and links of a tree that are part of a release: relative path and status, sorted.

    ``outside`` are paths within the tree that are not; ``only``, where given, are the ones that
    can be.
    """

    def there(relative: str) -> bool:
        return only is None or relative in only

    def folder(relative: str) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(os.path.join(root, relative)) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        names = {entry.name for entry in entries}
        if relative and "pyvenv.cfg" in names and there(f"{relative}/pyvenv.cfg"):
            return
        for entry in entries:
            path = os.path.join(relative, entry.name)
            if path in outside or _excluded(path, patterns):
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name in _EXCLUDED_FOLDERS or path in (".venv", "venv"):
                    continue
                # Uploads; but a Python package may have that name.
                if path == "media" and not os.path.exists(
                    os.path.join(root, "media", "__init__.py")
                ):
                    continue
                yield from folder(path)
            elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                if there(path) and not _excluded(entry.name, list(_EXCLUDED_FILES)):
                    yield path, entry.stat(follow_symlinks=False)

    yield from folder("")


def _entry(root: str, relative: str, status: os.stat_result) -> str:
    """One line of the fingerprint: what this file is."""
    path = os.path.join(root, relative)
    if stat.S_ISLNK(status.st_mode):
        kind, content = "link", os.readlink(path)
    else:
        kind = "program" if status.st_mode & 0o100 else "file"
        with open(path, "rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
        content = digest.hexdigest()
    return json.dumps([relative, kind, content])


def manifest(
    root: str,
    patterns: list[str],
    outside: set[str],
    cache: Cache,
    only: set[str] | None = None,
) -> Manifest:
    """
    Read the files of a tree.

    root
        its directory
    patterns
        names and paths that do not count, with shell wildcards
    outside
        paths in the tree that do not count
    cache
        what was read before; contents are read again only where a file's status changed
    only
        the paths that can count; None: all

    Returns a line by the path of each file.
    """
    files = list(_files(root, patterns, outside, only))
    signature = [
        (
            path,
            status.st_ino,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        for path, status in files
    ]
    known = cache.get(root)
    if known is None or known[0] != signature:
        known = (signature, {path: _entry(root, path, status) for path, status in files})
        cache[root] = known
    return known[1]


def fingerprint(manifest: Manifest) -> str:
    """
    Name a release.

    manifest
        its files

    Returns 12 hexadecimal digits.
    """
    text = "\n".join(manifest[path] for path in sorted(manifest))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def links_out(root: str, shared: str) -> set[str]:
    """
    Find the links in a release that lead to the site's own directory.

    root
        the release's directory
    shared
        the site's own directory

    Returns their paths in the release.
    """
    shared += os.sep
    found = set()
    for folder, folders, files in os.walk(root):
        for entry in (*folders, *files):
            path = os.path.join(folder, entry)
            if os.path.islink(path) and os.readlink(path).startswith(shared):
                found.add(os.path.relpath(path, root))
    return found


def made_as(path: str, shared: str, replaced: Manifest, cache: Cache) -> Manifest:
    """
    Read the files of a release on the host as they were copied.

    path
        its directory
    shared
        the site's own directory
    replaced
        files that were replaced by links to that directory since
    cache
        as in :py:func:`manifest`

    Returns as :py:func:`manifest`.
    """
    links = links_out(path, shared)
    behind = {
        relative: line
        for relative, line in replaced.items()
        if any(relative.startswith(each + os.sep) for each in links)
    }
    return {**behind, **manifest(path, [], links, cache)}


def make_inside(folder: str, relative: str, mode: int, owner: tuple[int, int]) -> None:
    """
    Make a directory of the site's user inside a directory that does not belong to root. No link is
    followed on the way: its owner can put one anywhere.

    folder
        the directory that is there
    relative
        the path in it
    mode
        of the new directories
    owner
        the numbers of the site's user and group

    Raises CommandExecutionError when a part of the path is there and is not a directory.
    """
    uid, gid = owner
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    handle = os.open(folder, flags)
    try:
        for part in relative.split(os.sep):
            made = False
            try:
                os.mkdir(part, 0o700, dir_fd=handle)
                made = True
            except FileExistsError:
                pass
            try:
                below = os.open(part, flags, dir_fd=handle)
            except OSError as error:
                raise CommandExecutionError(
                    f"{os.path.join(folder, relative)} is to be a directory of the site's, and "
                    f"{part} in it is none: {error.strerror}"
                ) from error
            os.fsync(handle)
            os.close(handle)
            handle = below
            if made:
                os.fchown(handle, uid, gid)
                os.fchmod(handle, mode)
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
    finally:
        os.close(handle)


def copy_file(source: str, target: str, gid: int) -> None:
    """
    Copy one file or link of a release, which root owns and the site's group reads.

    source, target
        paths
    gid
        the number of the group
    """
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        os.chown(target, 0, gid, follow_symlinks=False)
        return
    with open(source, "rb") as stream:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            os.fchown(handle, 0, gid)
            os.fchmod(handle, 0o750 if status.st_mode & 0o100 else 0o640)
            copy.flush()
            os.fsync(handle)


def _folders(manifest: Manifest) -> list[str]:
    """The directories that the files of a manifest need, parents first."""
    found = set()
    for relative in manifest:
        parent = os.path.dirname(relative)
        while parent:
            found.add(parent)
            parent = os.path.dirname(parent)
    return sorted(found)


def copy(root: str, files: Manifest, target: str, group: str, cache: Cache) -> None:
    """
    Copy a release to the host: beside its place first, flushed to the disk, then renamed, so that a
    release is whole or not there.

    root
        the directory of the files
    files
        the files of the release
    target
        the release's directory; its name is the release's
    group
        the site's group, which reads the files
    cache
        as in :py:func:`manifest`

    Raises CommandExecutionError when the files changed meanwhile, and OSError; then nothing is left.
    """
    folder, identity = os.path.split(target)
    partial = os.path.join(folder, f".{identity}.partial")
    try:
        directory(partial, group=group, mode="0750")
        gid = os.stat(partial).st_gid
        for below in _folders(files):
            directory(os.path.join(partial, below), group=group, mode="0750")
        for relative in files:
            copy_file(os.path.join(root, relative), os.path.join(partial, relative), gid)
        if fingerprint(manifest(partial, [], set(), cache)) != identity:
            raise CommandExecutionError(
                f"{root} changed while it was copied to {folder}: apply again"
            )
        for below in [*_folders(files), ""]:
            flush_directory(os.path.join(partial, below))
        os.rename(partial, target)
        flush_directory(folder)
    except BaseException:
        if os.path.lexists(partial):
            shutil.rmtree(partial)
        raise


def restore(root: str, files: Manifest, path: str, changed: list[str], group: str) -> None:
    """
    Undo changes by hand in a release, file by file.

    root
        the directory of the files
    files
        the files of the release
    path
        the release's directory
    changed
        the paths in it that differ
    group
        the site's group
    """
    for relative in changed:
        target = os.path.join(path, relative)
        if relative not in files:
            os.unlink(target)
            continue
        source = os.path.join(root, relative)
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        directory(os.path.dirname(target), group=group, mode="0750")
        if os.path.islink(source):
            link(target, os.readlink(source))
            continue
        with open(source, "rb") as stream:
            content = stream.read()
        mode = "0750" if os.stat(source).st_mode & 0o100 else "0640"
        write(target, content, group=group, mode=mode)


def inside(path: str, root: str) -> str | None:
    """
    Name a path from a directory.

    path
        an absolute path
    root
        the directory

    Returns the relative path; None when it does not lie below the directory.
    """
    relative = os.path.relpath(os.path.normpath(path), root)
    return None if relative.split(os.sep)[0] in (os.curdir, os.pardir) else relative


def is_directory(path: str) -> bool:
    """Whether a path is a directory, and not a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def is_run_from(path: str) -> bool:
    """Whether a process runs from a directory, or has a file of it loaded."""
    below = path.rstrip(os.sep) + os.sep
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            for entry in ("cwd", "exe", "root"):
                if (os.readlink(f"/proc/{process}/{entry}") + os.sep).startswith(below):
                    return True
            with open(f"/proc/{process}/maps", encoding="utf-8", errors="replace") as maps:
                if below in maps.read():
                    return True
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # It ended meanwhile, or is a thread of the kernel.
            continue
    return False


def mib(paths: dict[str, str]) -> dict[str, int]:
    """
    Measure directories.

    paths
        by any key

    Returns by the same keys the MiB that each takes on its disk.
    """
    sizes = {}
    for key, path in paths.items():
        blocks = 0
        for folder, _, files in os.walk(path):
            for each in files:
                try:
                    blocks += os.lstat(os.path.join(folder, each)).st_blocks
                except FileNotFoundError:
                    continue
        sizes[key] = blocks // 2048
    return sizes


def unreadable(root: str, files: Manifest, user: str, group: str) -> str | None:
    """
    Find what a user cannot read of a tree.

    root
        the directory of the tree
    files
        the files that the user has to read
    user, group
        their names

    Returns the first path that cannot be read; None when all can be.
    """
    uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    groups = set(os.getgrouplist(user, gid))

    def allowed(path: str, bits: int) -> bool:
        status = os.stat(path)
        mode = status.st_mode
        if status.st_uid == uid:
            mode >>= 6
        elif status.st_gid in groups:
            mode >>= 3
        return mode & bits == bits

    parts = root.strip(os.sep).split(os.sep)
    ways = [os.sep + os.sep.join(parts[: count + 1]) for count in range(len(parts))]
    folders = sorted({os.path.dirname(relative) for relative in files})
    doubtful = [path for path in ways if not allowed(path, 1)]
    # Python lists the directories of packages (namespace packages, migrations).
    doubtful += [
        os.path.join(root, folder) for folder in folders if not allowed(f"{root}/{folder}", 5)
    ]
    for relative in sorted(files):
        path = os.path.join(root, relative)
        # Nobody can read a link without a target.
        if os.path.exists(path) and not allowed(path, 4):
            doubtful.append(path)
    # Access lists can allow what the mode does not show: only the system knows.
    for start in range(0, len(doubtful), 500):
        done = run_as(
            user,
            group,
            [
                "/usr/bin/find",
                "-L",
                *doubtful[start : start + 500],
                *("-maxdepth", "0", "("),
                *("(", "-type", "d", "!", "-executable", ")"),
                *("-o", "(", "!", "-type", "d", "!", "-readable", ")"),
                *(")", "-print", "-quit"),
            ],
            "/",
            {"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            60,
            merge=False,
        )
        if done["stdout"].strip():
            return done["stdout"].splitlines()[0]
        if done["retcode"]:
            return doubtful[start]
    return None
