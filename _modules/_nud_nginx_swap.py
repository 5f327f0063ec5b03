"""
The way in which a change of nginx's tree gets in place: all of it, or nothing.

The future tree is made beside the live one, of hard links and new files, and the two directories
change places in one system call. Where that is not possible the files are renamed one by one, in an
order of which nginx accepts every step.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import posixpath
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator

from salt.exceptions import CommandExecutionError

from _nud_nginx_files import COMMON, STAGE, Raced, Wanted, walk

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


_LOCK_TIMEOUT = 120


Snapshot = dict[str, tuple[int, ...]]

# Whether nginx accepts the tree with a part of the change.
Accepts = Callable[[dict[str, Wanted]], bool]


def _renameat2(old: str, new: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)


def _flush(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _copy_attributes(source: str, target: str) -> None:
    """Access lists and security labels."""
    for name in os.listxattr(source, follow_symlinks=False):
        try:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            # trusted.* and security.* of another namespace are not ours to set.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENODATA, errno.EINVAL):
                raise


def _place(full: str, wanted: Wanted, like: str | None = None) -> None:
    """Make a file or a link where there is none; ``like`` lends owner, mode and labels."""
    if wanted.kind == "link":
        os.symlink(wanted.target, full)
        return
    handle = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(wanted.contents)
        mode, uid, gid = 0o644, 0, 0
        if wanted.access is not None:
            mode, gid = wanted.access
        elif like is not None and os.path.isfile(like) and not os.path.islink(like):
            status = os.lstat(like)
            mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
            _copy_attributes(like, full)
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
        stream.flush()
        os.fsync(handle)


def snapshot(base: str) -> Snapshot:
    """
    The identity of everything in the tree, without change times: a hard link changes them.

    base
        the directory of the tree

    Returns a row of numbers by relative path.
    """
    return {
        path: (
            status.st_dev,
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            # Of a directory the entries count, and they have rows of their own.
            *(() if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)),
        )
        for path, status in walk(base)
    }


def same(seen: Snapshot, now: Snapshot) -> bool:
    """
    Whether two snapshots show one tree; a directory may have another inode, as in the stage.

    seen, now
        two snapshots

    Returns True or False.
    """
    if seen.keys() != now.keys():
        return False
    return all(
        (row[2:] if stat.S_ISDIR(row[2]) else row)
        == (now[path][2:] if stat.S_ISDIR(now[path][2]) else now[path])
        for path, row in seen.items()
    )


def _stage(base: str, stage: str, due: dict[str, Wanted]) -> None:
    """Fill a new directory with the future tree."""
    directories: list[tuple[str, os.stat_result | None]] = [("", os.lstat(base))]
    touched = {os.path.dirname(path) for path in due}
    for path, status in walk(base):
        full = os.path.join(base, path)
        target = os.path.join(stage, path)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(target, 0o700)
            directories.append((path, status))
        elif path not in due:
            os.link(full, target, follow_symlinks=False)
    for path, wanted in sorted(due.items()):
        target = os.path.join(stage, path)
        if wanted.kind == "directory":
            os.mkdir(target, 0o755)
            directories.append((path, None))
        elif wanted.kind != "absent":
            _place(target, wanted, os.path.join(base, path))
    # Children before parents: writing into a directory changes its time.
    for path, found in sorted(directories, reverse=True, key=lambda item: item[0]):
        target = os.path.join(stage, path)
        if found is not None:
            os.chown(target, found.st_uid, found.st_gid)
            os.chmod(target, stat.S_IMODE(found.st_mode))
            _copy_attributes(os.path.join(base, path), target)
            if path not in touched:
                os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
        else:
            os.chmod(target, 0o755)
        _flush(target)


def _exchange(base: str, due: dict[str, Wanted], seen: Snapshot) -> None:
    """Put the future tree in the place of the live one, in one step."""
    parent = os.path.dirname(base)
    stage = tempfile.mkdtemp(prefix=STAGE, dir=parent)
    try:
        _stage(base, stage, due)
        if not same(seen, snapshot(base)):
            raise Raced
        _renameat2(stage, base, _RENAME_EXCHANGE)
        # From here on `stage` is the old tree.  Whoever wrote to it after the look above wrote to
        # what is about to be removed.
        if not same(seen, snapshot(stage)):
            _renameat2(stage, base, _RENAME_EXCHANGE)
            raise Raced
        _flush(parent)
    finally:
        shutil.rmtree(stage)


# The order in which single renames are likely to be safe: what nginx does not read yet, the formula's
# settings, the links that go (before another site may claim what they claim), the files behind links,
# the new links, and last what no link leads to any more.
def _rank(base: str, path: str, wanted: Wanted) -> int:
    if wanted.kind == "directory":
        return 0
    folder = posixpath.dirname(path)
    if wanted.kind == "absent":
        return 7 if folder == "sites-available" else 3
    if wanted.kind == "link":
        return 6
    if folder == "sites-available":
        linked = os.path.lexists(os.path.join(base, "sites-enabled", posixpath.basename(path)))
        return 5 if linked else 1
    if folder == "conf.d" and not path.endswith(".conf"):
        return 1  # kept until it is given back
    # nginx.conf before conf.d when the former is what the latter was written for.
    return 2 if path == COMMON else 4


def ranked(base: str, due: dict[str, Wanted]) -> list[str]:
    """
    The order in which single renames are likely to be safe.

    base
        the directory of the tree
    due
        the change

    Returns the paths of the change.
    """
    return sorted(due, key=lambda path: (_rank(base, path, due[path]), path))


def _acceptable(
    base: str, due: dict[str, Wanted], warnings: list[str], accepts: Accepts
) -> list[str]:
    """
    What is due, in an order of which nginx accepts every step: one that comes too early waits.

    A log format is made before, and goes after, what uses it.  There may be no such order (one that
    gets another name): then that is a warning.
    """
    order: list[str] = []
    waiting = ranked(base, due)
    unread = {path for path in due if _rank(base, path, due[path]) in (0, 1)}
    while len(waiting) > 1:
        for path in waiting:
            if path in unread or accepts({done: due[done] for done in [*order, path]}):
                break
        else:
            warnings.append(
                "file by file there is no order in which nginx accepts every step; a host that "
                "is reset in the next moment has a tree that it refuses until the next run"
            )
            return order + waiting
        order.append(path)
        waiting.remove(path)
    return order + waiting


def one_by_one(
    base: str,
    due: dict[str, Wanted],
    seen: Snapshot,
    order: list[str],
    accept: Callable[[], None] | None = None,
) -> None:
    """
    Rename what is due into place, file by file; all of it back when one does not go in.

    base
        the directory of the tree
    due
        the change
    seen
        the tree as it was when the change was judged
    order
        the paths of the change
    accept
        is called when all is in place; what it raises undoes everything

    Raises Raced when the tree is not the seen one any more.
    """
    stage = tempfile.mkdtemp(prefix=STAGE, dir=base)
    done: list[tuple[str, str | None]] = []
    folders: set[str] = set()
    try:
        for number, path in enumerate(order):
            wanted, full = due[path], os.path.join(base, path)
            if wanted.kind in ("file", "link"):
                _place(os.path.join(stage, f"{number}.new"), wanted, full)
            if os.path.lexists(full):
                os.link(full, os.path.join(stage, f"{number}.old"), follow_symlinks=False)
        _flush(stage)
        for number, path in enumerate(order):
            wanted, full = due[path], os.path.join(base, path)
            row = seen.get(path)
            now = os.lstat(full) if os.path.lexists(full) else None
            if (row is None) != (now is None) or (
                row is not None and now is not None and row[1:] != (now.st_ino, *_identity(now))
            ):
                raise Raced(path)
            old = os.path.join(stage, f"{number}.old") if now is not None else None
            if wanted.kind == "directory":
                os.mkdir(full, 0o755)
                os.chmod(full, 0o755)
            elif wanted.kind == "absent":
                os.unlink(full)
            else:
                os.rename(os.path.join(stage, f"{number}.new"), full)
            done.append((full, old))
            folders.add(os.path.dirname(full))
            _flush(os.path.dirname(full))
        if accept is not None:
            accept()
    except BaseException:
        for full, old in reversed(done):
            if old is not None:
                os.rename(old, full)
            elif os.path.isdir(full) and not os.path.islink(full):
                os.rmdir(full)
            else:
                os.unlink(full)
        for folder in folders:
            if os.path.isdir(folder):
                _flush(folder)
        raise
    finally:
        shutil.rmtree(stage)
        _flush(base)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    row: tuple[int, ...] = (status.st_mode, status.st_uid, status.st_gid)
    if not stat.S_ISDIR(status.st_mode):
        row += (status.st_size, status.st_mtime_ns)
    return row


# What says "not here" to an exchange of directories: another file system, a mount point, a kernel
# or a file system without it, no hard links.
_NOT_HERE = (errno.EXDEV, errno.EBUSY, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EMLINK)


def swap(
    base: str, due: dict[str, Wanted], seen: Snapshot, warnings: list[str], accepts: Accepts
) -> str:
    """
    Put a change in place: all of it, or nothing.

    base
        the directory of the tree
    due
        the change
    seen
        the tree as it was when the change was judged
    warnings
        what a person should know is added to it
    accepts
        whether nginx accepts a part of the change by itself

    Returns ``exchange`` or ``renames``.

    Raises Raced when the tree is not the seen one any more.
    """
    if len(due) > 1:
        try:
            _exchange(base, due, seen)
            return "exchange"
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    one_by_one(base, due, seen, _acceptable(base, due, warnings, accepts))
    return "renames"


def leftovers(base: str) -> list[str]:
    """
    What a killed run left beside and in the tree.

    base
        the directory of the tree

    Returns the paths of directories.
    """
    found = []
    for folder in (os.path.dirname(base), base):
        if os.path.isdir(folder):
            found += [
                os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(STAGE)
            ]
    return found


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One run at a time: two would take each other for another program that writes to the tree."""
    path = "/run/nginx_uwsgi_django-nginx_tree.lock"
    # Not readable by others: a process that can open it can hold the lock.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "ab") as lock:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CommandExecutionError(
                        f"another run has been changing nginx's tree for {_LOCK_TIMEOUT} s"
                    ) from None
                time.sleep(0.2)
        yield
