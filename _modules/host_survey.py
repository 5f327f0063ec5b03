"""
One look at the host for many sites, for states: they cannot import the library.

.. versionadded:: 0.1.0
"""

from contextlib import AbstractContextManager
from typing import Any

from _nud import cache

__virtualname__ = "host_survey"


def __virtual__() -> str:
    return __virtualname__


def begun() -> AbstractContextManager[Any]:
    """
    Look each fact about the host up once until the block ends. What changes the host is refused in
    the block.

    Raises RuntimeError inside of another such block.

    CLI Example (for states: a block does not outlive a call):

    .. code-block:: python

        with __salt__["host_survey.begun"]():
            ...
    """
    return cache.session()
