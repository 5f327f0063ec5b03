"""
nginx's configuration tree in a tar archive: for nginx to judge, and to be kept.
"""

import contextlib
import io
import os
import stat
import tarfile
import time
from collections.abc import Container

from _nud_nginx_files import Wanted, is_secret, live, walk


def pack(
    archive: tarfile.TarFile,
    base: str,
    tree: dict[str, Wanted],
    due: Container[str] = (),
    below: str = "",
) -> None:
    """
    Put a tree into an archive.

    archive
        open for writing
    base
        the directory of the tree
    tree
        as :py:func:`_nud_nginx_files.live` returns it
    due
        what of it is not there yet; the rest gets the owner, mode and times that it has
    below
        its directory in the archive
    """
    for path, entry in tree.items():
        name = os.path.join(below, path)
        found = None if path in due else archive.gettarinfo(os.path.join(base, path), name)
        if found is None and entry.kind == "other":
            continue  # a socket
        member = found or tarfile.TarInfo(name)
        if found is None:
            member.mode, member.gid = entry.access or (0o644, 0)
            member.mtime = int(time.time())
        # What was read, whatever has come there since.
        if entry.kind == "directory":
            member.type = tarfile.DIRTYPE
            member.mode = found.mode if found else 0o755
        elif entry.kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, entry.target
        elif entry.kind == "file":
            member.type, member.linkname = tarfile.REGTYPE, ""
        member.size = len(entry.contents)
        archive.addfile(member, io.BytesIO(entry.contents))


def pack_directories(archive: tarfile.TarFile, top: str) -> None:
    """
    Put a directory into an archive, with those below it on the same file system and no file.

    The directory itself keeps its owner and mode. A directory that goes meanwhile is left out: nginx
    is shown where it may make its files, not what is in them.

    archive
        open for writing
    top
        the absolute path of the directory
    """
    device = None
    for folder, folders, _ in os.walk(top):
        with contextlib.suppress(FileNotFoundError):
            seen = os.lstat(folder)
            device = device or seen.st_dev
            if seen.st_dev != device:
                folders.clear()
            member = tarfile.TarInfo(folder.lstrip("/"))
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, int(seen.st_mtime)
            if folder == top:
                member.mode, member.uid, member.gid = (
                    stat.S_IMODE(seen.st_mode),
                    seen.st_uid,
                    seen.st_gid,
                )
            archive.addfile(member)


def whole(base: str) -> bytes:
    """
    The tree as it is, in one file.

    base
        the directory of the tree

    Returns a tar archive of it.

    Raises Raced, or FileNotFoundError, when the tree changes meanwhile.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as packed:
        pack(packed, base, live(base))
    return archive.getvalue()


def plan_of(contents: bytes, base: str) -> dict[str, Wanted]:
    """
    The plan of the tree that is in an archive.

    contents
        as :py:func:`whole` returns it
    base
        the directory of the tree

    Returns a plan, in which what the archive does not have is absent, but for directories.
    """
    plan: dict[str, Wanted] = {}
    with tarfile.open(fileobj=io.BytesIO(contents)) as archive:
        for member in archive:
            if member.isdir():
                plan[member.name] = Wanted("directory")
            elif member.issym():
                plan[member.name] = Wanted("link", target=member.linkname)
            elif (stream := archive.extractfile(member)) is not None:
                there = os.path.lexists(os.path.join(base, member.name))
                plan[member.name] = Wanted(
                    "file",
                    stream.read(),
                    secret=is_secret(member.name),
                    access=None if there else (member.mode, member.gid),
                )
    for found, status in walk(base):
        if found not in plan and not stat.S_ISDIR(status.st_mode):
            plan[found] = Wanted("absent", secret=is_secret(found))
    return plan
