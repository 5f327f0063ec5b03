"""
Facts about the host that are looked up once while nothing changes.

To see that nothing is to be done for many sites takes the same facts over and over. Inside of a
:py:func:`session` each of them is looked up once; the end of the session forgets them all. A session
only looks: the functions that change the host refuse to work inside of one.

A session belongs to its thread, and to the processes that the thread forks.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any


class Memory(dict[Hashable, Any]):
    """What a session has looked up."""

    def once(self, key: Hashable, look: Callable[[], Any]) -> Any:
        """As the function of that name."""
        if key not in self:
            self[key] = look()
        return self[key]


class _Sessions(threading.local):
    current: Memory | None = None


_SESSIONS = _Sessions()


@contextlib.contextmanager
def session() -> Iterator[Memory]:
    """
    Remember what :py:func:`once` looks up until the block ends.

    Returns a context manager, whose value is the memory.

    Raises RuntimeError inside of another session.
    """
    if _SESSIONS.current is not None:
        raise RuntimeError("a cache session is already active")
    _SESSIONS.current = memory = Memory()
    try:
        yield memory
    finally:
        _SESSIONS.current = None


def active() -> bool:
    """
    Whether a session is active.

    Returns True or False.
    """
    return _SESSIONS.current is not None


def once(key: Hashable, look: Callable[[], Any]) -> Any:
    """
    The result of a look at the host; inside of a session, the result of the first one.

    key
        tells this look from any other
    look
        looks

    Returns what ``look`` returns; callers must not change it.

    Raises what ``look`` raises; that is not remembered.
    """
    memory = _SESSIONS.current
    return look() if memory is None else memory.once(key, look)


def entries(directory: str) -> list[str]:
    """
    The names in a directory.

    directory
        an absolute path

    Returns them sorted; an empty list without such a directory.
    """

    def look() -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return []

    return list(once(("entries", directory), look))


def refuse_change(what: str) -> None:
    """
    Called before the host is changed: a session would go on with facts that are not true any more.

    what
        the change, e.g. ``write /etc/motd``

    Raises RuntimeError inside of a session: that is an error of the formula.
    """
    if active():
        raise RuntimeError(f"cannot {what}: a cache session only looks at the host")
