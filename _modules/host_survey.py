"""
One look at the host for many sites.

To see that nothing is to be done takes the same facts over and over: which release a site is to
run, which accounts there are, what systemd has. While a survey goes on nothing is done to the host,
so each of them is looked up once and remembered; with its end all of it is forgotten.

.. versionadded:: 0.1.0
"""

import contextlib
import grp
import pwd
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from _nud import accounts, cache

__virtualname__ = "host_survey"

# For the modules that read the memory without Salt's loader.
_MEMORY = "host_survey"


def __virtual__() -> str:
    return __virtualname__


@contextlib.contextmanager
def begun() -> Iterator[None]:
    """
    Remember what is looked up by :py:func:`once` until the block ends. What
    changes the host through the library is refused in the block.

    Raises RuntimeError inside of another such block.

    CLI Example (from another module: a block does not outlive a call):

    .. code-block:: python

        with __salt__["host_survey.begun"]():
            ...
    """
    with cache.session() as memory:
        __context__[_MEMORY] = memory
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
    return cache.active()


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
    return cache.once(what, look)


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
    return cache.entries(directory)


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
    return accounts.user(name)


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
    return accounts.group(name)


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
    return accounts.name_of(kind, number)
