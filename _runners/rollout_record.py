"""
What is known of each rollout, on the master's disk, and the lock that keeps two apart.

A record is one JSON file, written anew, flushed and renamed at every step, so that a master that is
reset in the middle has the state before or the state after. The lock is the kernel's (flock): it
goes with the process that holds it, so a rollout that was killed leaves none behind.

Both are in ``rollout_dir`` of the master's configuration, ``rollouts`` in its ``cachedir`` when that
says nothing.

.. versionadded:: 0.1.0
"""

import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
import time
import uuid
from typing import Any

from salt.exceptions import SaltInvocationError

__virtualname__ = "rollout_record"
__func_alias__ = {"list_": "list"}

_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")


def __virtual__() -> str:
    return __virtualname__


def folder() -> str:
    """
    Where the records are; made when missing.

    Returns an absolute path.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_record.folder
    """
    path = __opts__.get("rollout_dir") or os.path.join(__opts__["cachedir"], "rollouts")
    # Comments of failed states may quote what they should not.
    os.makedirs(path, mode=0o700, exist_ok=True)
    return str(path)


def now() -> str:
    """
    The time, as records have it.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_record.now
    """
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def new_id() -> str:
    """
    A name for a rollout that no other has; they sort by time.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_record.new_id
    """
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + uuid.uuid4().hex[:4]


def _path(rollout: str) -> str:
    if not _ID.fullmatch(str(rollout)):
        raise SaltInvocationError(f"{rollout!r} is not the ID of a rollout")
    return os.path.join(folder(), f"{rollout}.json")


def write(record: dict[str, Any]) -> None:
    """
    Put a record on the disk.

    record
        with its ``id``

    CLI Example:

    .. code-block:: bash

        salt-run rollout_record.write '{"id": "20261125-103000-4f2a"}'
    """
    put(_path(record["id"]), json.dumps(record, indent=1) + "\n")


def put(path: str, text: str) -> None:
    """
    Make a file hold a text, durably: whoever is interrupted leaves the old one or the new one.

    path
        of a directory that exists; a file that is there keeps its mode, a new one is its owner's
        alone
    text
        the whole of it

    Raises OSError as the system says it.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_record.put /root/note hello
    """
    home = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=".half-", dir=home)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as stream:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(handle, stat.S_IMODE(os.stat(path).st_mode))
            stream.write(text)
            stream.flush()
            os.fsync(handle)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(rollout: str | None = None) -> dict[str, Any]:
    """
    A record.

    rollout
        its ID; the newest when None

    Returns it; its ``status`` is ``interrupted`` when it says that it runs and no process does.

    Raises SaltInvocationError when there is none.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_record.read
    """
    if rollout is None:
        there = _ids()
        if not there:
            raise SaltInvocationError("there was no rollout yet")
        rollout = there[-1]
    try:
        with open(_path(rollout), encoding="utf-8") as stream:
            record: dict[str, Any] = json.load(stream)
    except FileNotFoundError:
        raise SaltInvocationError(f"there is no rollout {rollout}") from None
    if record["status"] == "running":
        holder = held_by()
        if holder is None or holder.get("id") != record["id"]:
            record["status"] = "interrupted"
    return record


def _ids() -> list[str]:
    names = [name.removesuffix(".json") for name in os.listdir(folder())]
    return sorted(name for name in names if _ID.fullmatch(name))


def list_() -> list[dict[str, Any]]:
    """
    All records, the oldest first.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_record.list
    """
    return [read(name) for name in _ids()]


def _lock_path() -> str:
    return os.path.join(folder(), "lock")


def held_by() -> dict[str, Any] | None:
    """
    Who holds the lock.

    Returns ``user``, ``since``, ``pid``, ``id`` and ``what`` of the rollout that is under way; None
    when none is.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_record.held_by
    """
    try:
        stream = open(_lock_path(), encoding="utf-8")
    except FileNotFoundError:
        return None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return _holder(stream.read())


def _holder(text: str) -> dict[str, Any]:
    try:
        holder: dict[str, Any] = json.loads(text)
        return holder
    except ValueError:
        # It has the lock and has not written yet who it is.
        return {}


@contextlib.contextmanager
def alone(holder: dict[str, Any]) -> Any:
    """
    Hold the lock, in a ``with`` statement.

    holder
        ``user``, ``since``, ``pid``, ``id`` and ``what`` for those who come meanwhile

    Raises SaltInvocationError, with who holds it and since when, when somebody does.

    CLI Example:

    .. code-block:: bash

        salt-run rollout.apply 'web*'
    """
    with open(_lock_path(), "a+", encoding="utf-8") as stream:
        os.chmod(_lock_path(), 0o600)
        deadline = time.monotonic() + 2
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Whoever only looks (held_by) holds it for an instant.
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                stream.seek(0)
                other = _holder(stream.read())
                raise SaltInvocationError(
                    f"another rollout is under way: {other.get('id')}, {other.get('what')}, by "
                    f"{other.get('user')} since {other.get('since')}, process {other.get('pid')}"
                ) from None
        stream.seek(0)
        stream.truncate()
        json.dump(holder, stream)
        stream.flush()
        yield
