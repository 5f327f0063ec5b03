"""
Files that are whole or not there.

Every file that the formula writes on a host goes through this module: written beside its
target, flushed to the disk, then renamed over it, so that a run killed or a host reset at any
instant leaves the old file or the new one. ``file.managed`` flushes nothing and leaves an empty
file plus its temporary sibling behind when it is killed while creating one.

A symbolic link at the path itself is replaced, never followed.
"""

import contextlib
import grp
import os
import pwd
import re
import stat
import tempfile

from salt.exceptions import CommandExecutionError

from _nud_cache import refuse_change

# The name of a temporary sibling: hidden, so that neither `include dir/*.conf` nor a reader of
# the directory takes it for the real thing, and recognisable, so that a later write sweeps it.
_TEMPORARY = ".{name}.durable-"


def _uid(user: str | int) -> int:
    if isinstance(user, int):
        return user
    if user == "root":
        # What nearly every file is: to ask takes as long as to read one.
        return 0
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise CommandExecutionError(f"the user {user!r} does not exist") from None


def _gid(group: str | int) -> int:
    if isinstance(group, int):
        return group
    if group == "root":
        return 0
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise CommandExecutionError(f"the group {group!r} does not exist") from None


def _bits(mode: str) -> int:
    if not isinstance(mode, str) or not re.fullmatch(r"0?[0-7]{3,4}", mode):
        raise CommandExecutionError(f"a mode is a quoted octal string like '0644', not {mode!r}")
    return int(mode, 8)


def flush_directory(directory: str) -> None:
    """Flush the entries of a directory to the disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(path: str) -> None:
    """
    Remove what a killed write of a file left behind; a next write of it does so by itself.

    path
        the absolute path of the file
    """
    folder, name = os.path.split(path)
    prefix = _TEMPORARY.format(name=name)
    if not os.path.isdir(folder):
        return
    for entry in os.listdir(folder):
        if entry.startswith(prefix):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, entry))


def read(path: str) -> bytes | None:
    """
    The content of a regular file.

    path
        an absolute path; a symbolic link there is not followed

    Returns the bytes, or None when there is no regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if os.path.islink(path):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        # Python's own streams take longer than most files that are read here.
        return b"".join(iter(lambda: os.read(handle, 1 << 20), b""))
    finally:
        os.close(handle)


def differs(
    path: str,
    contents: str | bytes,
    user: str | int = "root",
    group: str | int = "root",
    mode: str = "0644",
) -> bool:
    """
    Whether a file is not yet what :py:func:`write` would make of it.

    An owner or a group that does not exist yet counts as a difference.

    path, contents, user, group, mode
        as in :py:func:`write`

    Returns True or False.
    """
    wanted = contents.encode() if isinstance(contents, str) else contents
    if read(path) != wanted:
        return True
    status = os.lstat(path)
    try:
        owner = (_uid(user), _gid(group))
    except CommandExecutionError:
        return True
    return (status.st_uid, status.st_gid) != owner or stat.S_IMODE(status.st_mode) != _bits(mode)


def write(
    path: str,
    contents: str | bytes,
    user: str | int = "root",
    group: str | int = "root",
    mode: str = "0644",
) -> bool:
    """
    Make a file be exactly this, at once and durably.

    path
        an absolute path whose directory exists
    contents
        the whole content; text is written as UTF-8
    user, group
        a name or a numeric id
    mode
        a quoted octal string, e.g. ``'0640'``

    Returns True when the file was written, False when it was right already and nothing was
    touched.

    Raises CommandExecutionError when the user or the group does not exist, or the mode is not an
    octal string; OSError as the system says it (no space, read-only).
    """
    uid, gid, bits = _uid(user), _gid(group), _bits(mode)
    if not differs(path, contents, uid, gid, mode):
        return False
    refuse_change(f"write {path}")
    folder, name = os.path.split(path)
    sweep(path)
    handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY.format(name=name), dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(contents.encode() if isinstance(contents, str) else contents)
            # Owner before mode: chown clears set-id bits, and until here only root reads it.
            os.fchown(handle, uid, gid)
            os.fchmod(handle, bits)
            stream.flush()
            os.fsync(handle)
        os.rename(temporary, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:
            # A full disk does not say which.
            error.filename = path
        raise
    flush_directory(folder)
    return True


def link(path: str, target: str) -> bool:
    """
    Make a symbolic link point at a target, replacing a link or a file that is there.

    path
        the absolute path of the link
    target
        what the link says

    Returns True when the link was made, False when it was right already.

    Raises OSError when a directory is in the way.
    """
    if os.path.islink(path) and os.readlink(path) == target:
        return False
    refuse_change(f"link {path}")
    folder, name = os.path.split(path)
    sweep(path)
    temporary = os.path.join(folder, _TEMPORARY.format(name=name) + str(os.getpid()))
    os.symlink(target, temporary)
    try:
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    flush_directory(folder)
    return True


def directory(
    path: str, user: str | int = "root", group: str | int = "root", mode: str = "0755"
) -> bool:
    """
    Make a directory be there with this owner and mode; its parents are made as root's, 0755.

    path
        an absolute path
    user, group, mode
        as in :py:func:`write`

    Returns True when something was changed.

    Raises CommandExecutionError when something that is not a directory, or a symbolic link, is
    in the way.
    """
    uid, gid, bits = _uid(user), _gid(group), _bits(mode)
    changed = False
    if not os.path.lexists(path):
        refuse_change(f"make {path}")
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            directory(parent)
        os.mkdir(path, 0o700)
        flush_directory(parent)
        changed = True
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise CommandExecutionError(f"{path} is in the way: {error.strerror}") from error
    try:
        status = os.fstat(handle)
        if (status.st_uid, status.st_gid) != (uid, gid):
            refuse_change(f"change the owner of {path}")
            os.fchown(handle, uid, gid)
            changed = True
        if stat.S_IMODE(os.fstat(handle).st_mode) != bits:
            refuse_change(f"change the mode of {path}")
            os.fchmod(handle, bits)
            changed = True
    finally:
        os.close(handle)
    return changed


def remove(path: str) -> bool:
    """
    Remove a file or a link, durably, with what a killed write of it left behind.

    path
        an absolute path; a link is removed, not what it points at

    Returns True when something was removed, False when nothing was there.

    Raises OSError when it is a directory.
    """
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        return False
    if os.path.lexists(path):
        refuse_change(f"remove {path}")
    sweep(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    flush_directory(folder)
    return True
