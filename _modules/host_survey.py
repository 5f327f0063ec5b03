"""
One look at the host for many sites.

To see that nothing is to be done takes the same facts over and over: which release a site is to
run, which accounts there are, what systemd has. While a survey goes on nothing is done to the host,
so each of them is looked up once and remembered; with its end all of it is forgotten.

.. versionadded:: 0.1.0
"""

import contextlib
import grp
import os
import pwd
import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

__virtualname__ = "host_survey"

_MEMORY = "host_survey"


class Memory(dict[Hashable, Any]):
    """What a survey has looked up so far."""

    def once(self, what: Hashable, look: Callable[[], Any]) -> Any:
        """As the function of that name."""
        if what not in self:
            self[what] = look()
        return self[what]


def __virtual__() -> str:
    return __virtualname__


@contextlib.contextmanager
def begun() -> Iterator[None]:
    """
    Remember what is looked up by :py:func:`once` until the block ends. Nothing in the block may
    change the host.

    CLI Example (from another module: a block does not outlive a call):

    .. code-block:: python

        with __salt__["host_survey.begun"]():
            ...
    """
    __context__[_MEMORY] = Memory()
    try:
        yield
    finally:
        del __context__[_MEMORY]


def going_on() -> bool:
    """
    Whether a survey goes on.

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' host_survey.going_on
    """
    return _MEMORY in __context__


def once(what: Hashable, look: Callable[[], Any]) -> Any:
    """
    What a look at the host sees; within a survey, what the first one saw.

    what
        tells this look from any other
    look
        does it

    Returns what ``look`` returns, for all to read and nobody to change.

    Raises what ``look`` raises; that is not remembered.

    CLI Example (from another module: functions are not written on command lines):

    .. code-block:: python

        __salt__["host_survey.once"](("units", pattern), lambda: list_units(pattern))
    """
    memory = __context__.get(_MEMORY)
    return look() if memory is None else memory.once(what, look)


def entries(directory: str) -> list[str]:
    """
    The names in a directory.

    directory
        an absolute path

    Returns them sorted, and none where there is no such directory.

    CLI Example:

    .. code-block:: bash

        salt '*' host_survey.entries /etc/systemd/system
    """

    def look() -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return []

    return list(once(("entries", directory), look))


def _local(database: str) -> dict[str, list[str]]:
    """
    The rows of /etc/passwd or /etc/group by name, while a survey goes on: glibc reads the whole file
    for every question, so that it takes a thousand sites a thousand times as long as one.

    Empty where nsswitch.conf(5) has other sources before the files.
    """
    if not going_on():
        return {}

    def look() -> dict[str, list[str]]:
        try:
            with open("/etc/nsswitch.conf", encoding="utf-8", errors="replace") as sources:
                if not re.search(rf"^\s*{database}:\s*files\b", sources.read(), re.MULTILINE):
                    return {}
            with open(f"/etc/{database}", encoding="utf-8", errors="surrogateescape") as table:
                rows = [line.rstrip("\n").split(":") for line in table]
        except FileNotFoundError:
            return {}
        width, last = {"passwd": (7, 4), "group": (4, 3)}[database]
        # As glibc does, the first of a name counts, and what is no row is passed over.
        return {
            row[0]: row
            for row in reversed(rows)
            if len(row) == width
            and row[0][:1] not in ("", "+", "-")
            and all(number.isdigit() for number in row[2:last])
        }

    return once(("local", database), look)


def user(name: str) -> pwd.struct_passwd | None:
    """
    A user of the host.

    name
        the user's name

    Returns its entry of passwd(5), None when there is none.

    CLI Example:

    .. code-block:: bash

        salt '*' host_survey.user www-data
    """

    def look() -> pwd.struct_passwd | None:
        row = _local("passwd").get(name)
        if row is not None:
            account, word, uid, gid, comment, home, shell = row
            return pwd.struct_passwd((account, word, int(uid), int(gid), comment, home, shell))
        try:
            return pwd.getpwnam(name)
        except KeyError:
            return None

    return once(("user", name), look)


def group(name: str) -> grp.struct_group | None:
    """
    A group of the host.

    name
        the group's name

    Returns its entry of group(5), None when there is none.

    CLI Example:

    .. code-block:: bash

        salt '*' host_survey.group www-data
    """

    def look() -> grp.struct_group | None:
        row = _local("group").get(name)
        if row is not None:
            group, word, gid, members = row
            return grp.struct_group((group, word, int(gid), members.split(",") if members else []))
        try:
            return grp.getgrnam(name)
        except KeyError:
            return None

    return once(("group", name), look)


def name_of(kind: str, number: int) -> str:
    """
    The name of a user or a group of the host.

    kind
        ``user`` or ``group``
    number
        its number

    Returns its name; the number itself, as text, where no account has it.

    CLI Example:

    .. code-block:: bash

        salt '*' host_survey.name_of user 33
    """

    def look() -> str:
        try:
            return pwd.getpwuid(number).pw_name if kind == "user" else grp.getgrgid(number).gr_name
        except KeyError:
            return str(number)

    return once(("name", kind, number), look)
