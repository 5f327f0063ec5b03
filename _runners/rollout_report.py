"""
What hosts say of themselves, for :py:func:`rollout.report`.

.. versionadded:: 0.1.0
"""

from typing import Any

__virtualname__ = "rollout_report"

# So many hosts are asked at the same time: each compiles its states, and fetches its pillar and files
# from the master.
_AT_ONCE = 50

# What a report says of a host in a word, the worst first.
_VERDICTS = ("error", "silent", "warning", "pending", "well", "unmanaged")


def __virtual__() -> str:
    return __virtualname__


def collect(
    names: list[str], dry_run: bool, ask: bool, refresh: bool, timeout: float
) -> dict[str, dict[str, Any]]:
    """
    Ask hosts for a report of themselves.

    names
        the hosts
    dry_run, ask, refresh
        as for :py:func:`rollout.report`
    timeout
        seconds for each host and each thing that it is asked for

    Returns by host what ``nginx_uwsgi_django.report`` says there; of a host that does not answer,
    ``verdict`` (``silent`` or ``error``) and ``errors``.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_report.collect '[web1]' False True True 300
    """
    progress = __salt__["rollout_progress.begin"](len(names))
    hosts: dict[str, dict[str, Any]] = {}

    def run(some: list[str], function: str, **keywords: Any) -> dict[str, Any]:
        said = __salt__["rollout_jobs.run"](some, function, [], keywords, timeout=timeout)
        for name, answer in said.items():
            if answer["error"]:
                verdict = "silent" if answer["lost"] else "error"
                hosts[name] = {"verdict": verdict, "errors": [answer["error"]]}
        return {name: answer["return"] for name, answer in said.items() if not answer["error"]}

    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        if refresh:
            some = list(run(some, "saltutil.sync_modules"))
            some = list(run(some, "saltutil.refresh_pillar", wait=True))
        hosts.update(run(some, "nginx_uwsgi_django.report", dry_run=dry_run, ask=ask))
        progress["done"] = len(hosts)
        __salt__["rollout_progress.show"](progress)
    __salt__["rollout_progress.end"](progress)
    return hosts


def worst_first(hosts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """
    Reports of hosts in the order in which a person reads them, the worst first.

    hosts
        by host what :py:func:`collect` returns

    Returns ``summary`` (how many hosts there are of each verdict) and ``hosts``.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_report.worst_first '{web1: {verdict: silent}}'
    """
    names = __salt__["rollout_plan.order"](dict.fromkeys(hosts))
    names.sort(key=lambda name: _VERDICTS.index(hosts[name]["verdict"]))
    verdicts = [hosts[name]["verdict"] for name in names]
    return {
        "summary": {one: verdicts.count(one) for one in _VERDICTS if one in verdicts},
        "hosts": {name: hosts[name] for name in names},
    }
