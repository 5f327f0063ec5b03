"""
Which hosts a rollout changes, in which order and how many at a time. Decides only: asks nobody.

.. versionadded:: 0.1.0
"""

import re
from typing import Any

from salt.exceptions import SaltInvocationError

__virtualname__ = "rollout_plan"


def __virtual__() -> str:
    return __virtualname__


def size(words: int | str, total: int, what: str = "batch") -> int:
    """
    How many hosts a number or a percentage is.

    words
        ``3``, ``'3'`` or ``'25%'``
    total
        of how many hosts
    what
        the option's name, for the error

    Returns a number from 1 on: a percentage is rounded down, so that never more hosts are at risk
    than was said, but not to none.

    Raises SaltInvocationError for anything else.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_plan.size 25% 9
    """
    found = re.fullmatch(r"([0-9]{1,6})(%?)", str(words).strip())
    if isinstance(words, bool) or not found:
        raise SaltInvocationError(f"{what} is a number or a percentage, not {words!r}")
    number = int(found[1])
    if number < 1 or (found[2] and number > 100):
        raise SaltInvocationError(f"{what} is at least 1 and at most 100%, not {words!r}")
    return max(1, total * number // 100) if found[2] else number


def _natural(name: str) -> list[Any]:
    """web2 before web10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def order(hosts: dict[str, Any], first: list[str] | None = None) -> list[str]:
    """
    Hosts in the order in which they are changed.

    hosts
        their ids, and the value of the grain they are ordered by (None where there is none)
    first
        ids that go before all others, in this order

    Returns ids: those that go first, then group by group (a host without the grain at the end), and
    in each as people number hosts.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_plan.order '{"web2": "b", "web10": "a"}'
    """
    ahead = [name for name in dict.fromkeys(first or []) if name in hosts]
    rest = sorted(
        (name for name in hosts if name not in ahead),
        key=lambda name: (hosts[name] is None, _natural(f"{hosts[name]}"), _natural(name)),
    )
    return [*ahead, *rest]


def batches(
    hosts: dict[str, Any],
    canary: int | str = 1,
    batch: int | str = "25%",
    first: list[str] | None = None,
) -> list[list[str]]:
    """
    The batches of a rollout: first the canary, then the others.

    hosts
        as in :py:func:`order`
    canary
        how many hosts go alone before all others: a number, a percentage, 0 for none
    batch
        how many go together then: a number or a percentage of all hosts
    first
        as in :py:func:`order`

    Returns lists of ids. A batch never has hosts of two values of the grain in it: where they are
    zones, one zone at most is at risk at any time.

    Raises SaltInvocationError as :py:func:`size` does.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_plan.batches '{"web1": null, "web2": null}' batch=1
    """
    names = order(hosts, first)
    alone = 0 if str(canary).strip() in ("0", "0%") else size(canary, len(names), "canary")
    together = size(batch, len(names))
    made = [names[:alone]] if alone and names else []
    group: list[str] = []
    for name in names[alone:]:
        if group and (len(group) == together or hosts[group[0]] != hosts[name]):
            made.append(group)
            group = []
        group.append(name)
    return [*made, group] if group else made
