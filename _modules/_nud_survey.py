"""
What a run has already looked at (:py:mod:`host_survey`), without a call through Salt's loader, which
takes longer than most looks.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def once(context: Mapping[str, Any], what: tuple[str, ...], look: Callable[[], T]) -> T:
    """
    Look at something, or remember it where a survey of the host is under way.

    context
        the caller's ``__context__``
    what
        names it
    look
        is called for it

    Returns what ``look`` returns, or returned.
    """
    memory = context.get("host_survey")
    return look() if memory is None else memory.once(what, look)
