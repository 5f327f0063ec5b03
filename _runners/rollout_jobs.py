"""
Jobs on minions that are waited for whatever happens meanwhile: a minion that dies in the middle of
one, one that never answers, a master that is restarted.

Salt's own ``LocalClient.cmd`` waits for events alone; one that is lost with the master's event bus
is lost for good. Here each return counts whether it comes as an event or is found in the master's
job cache, and a minion that is silent is asked whether it still is at work (``saltutil.find_job``).

.. versionadded:: 0.1.0
"""

import concurrent.futures
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import salt.client
from salt.exceptions import (
    CommandExecutionError,
    SaltClientError,
    SaltInvocationError,
    SaltReqTimeoutError,
)

__virtualname__ = "rollout_jobs"

# Seconds: for a master that is being restarted, between two looks into its job cache, between two
# questions to a silent minion, and for an answer to such a question.
_MASTER = 300
_CACHE = 5
_ASK = 15
_ANSWER = 10
# So often a minion has to say that it is not at work before that is believed: a job needs a moment
# to begin, and its return one to arrive.
_DENIALS = 2

# How many sites the master asks at the same time.
_ASKERS = 64


def __virtual__() -> str:
    return __virtualname__


def _client() -> Any:
    if "rollout_jobs.client" not in __context__:
        __context__["rollout_jobs.client"] = salt.client.get_local_client(
            mopts=__opts__, auto_reconnect=True
        )
    return __context__["rollout_jobs.client"]


def _publish(
    target: Any, kind: str, function: str, arguments: list[Any], keywords: dict[str, Any]
) -> dict[str, Any]:
    """Publish a job, to a master that may just be restarting."""
    client = _client()
    words = [*arguments, *([{"__kwarg__": True, **keywords}] if keywords else [])]
    deadline = time.monotonic() + _MASTER
    while True:
        try:
            # Before it is published: a quick answer must find us listening.
            client.event.connect_pub(timeout=5)
            told = client.pub(target, function, words, tgt_type=kind, timeout=15)
            return told or {"jid": None, "minions": []}
        except (SaltClientError, SaltReqTimeoutError, OSError) as error:
            if time.monotonic() > deadline:
                raise CommandExecutionError(
                    f"the master has not taken a job for {_MASTER} s: {error or 'no answer'}"
                ) from error
            time.sleep(1)


def _next(wait: float) -> dict[str, Any] | None:
    """The next return of any job."""
    began = time.monotonic()
    event = _client().event.get_event(
        wait=wait, tag="salt/job/", match_type="startswith", full=True, auto_reconnect=True
    )
    if event is None:
        # At once where there is no bus to listen to, because the master is down.
        if time.monotonic() - began < wait / 2:
            time.sleep(wait)
        return None
    if event["tag"] == "salt/event/exit":
        # What Salt makes of a Ctrl-C while it waits.
        raise KeyboardInterrupt
    data: dict[str, Any] = event["data"]
    return data if "/ret/" in event["tag"] else None


def run(
    hosts: list[str],
    function: str,
    arguments: list[Any] | None = None,
    keywords: dict[str, Any] | None = None,
    timeout: float = 300,
    told: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """
    Run a function on hosts and wait for all of them.

    hosts
        ids
    function, arguments, keywords
        what to run; ``queue: true`` among the keywords of a state run lets it wait for another one
    timeout
        seconds for each of them
    told
        is called with the id of a host as soon as it has answered

    Returns by id: ``return``, and ``error``: None, or why there is no return to rely on (the
    function raised; the minion stopped working on it; it did not answer in time).
    ``lost`` is True when the host itself is in doubt, not what it said.

    Raises CommandExecutionError when the master takes no job for five minutes.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_jobs.run '["web1"]' test.ping
    """
    answers: dict[str, dict[str, Any]] = {}
    if not hosts:
        return answers
    job = _publish(hosts, "list", function, arguments or [], keywords or {})["jid"]
    deadline = time.monotonic() + timeout
    looked = asked = time.monotonic()
    denials = dict.fromkeys(hosts, 0)
    probe: str | None = None

    def take(name: str, returned: Any, failed: bool) -> None:
        if name in hosts and name not in answers:
            answers[name] = _answer(returned, failed)
            if told:
                told(name)

    while len(answers) < len(hosts):
        event = _next(1)
        if event and event.get("jid") == job and "id" in event:
            # A state run that failed has a return code too, and is an answer nevertheless.
            failed = event.get("success") is False and isinstance(event.get("return"), str)
            take(event["id"], event.get("return"), failed)
        elif event and event.get("jid") == probe and event.get("id") in denials:
            # It answers: with what it is at, or with nothing.
            denials[event["id"]] = 0 if event.get("return") else denials[event["id"]] + 1
        instant = time.monotonic()
        if instant - looked > _CACHE:
            looked = instant
            for name, entry in _cached(job).items():
                returned = entry.get("ret")
                take(name, returned, _raised(returned))
        missing = [name for name in hosts if name not in answers]
        for name in missing:
            if denials[name] >= _DENIALS:
                answers[name] = _lost(f"its minion stopped in the middle of {function}")
            elif instant > deadline:
                answers[name] = _lost(f"it did not answer to {function} within {timeout:g} s")
            if name in answers and told:
                told(name)
        if missing and instant - asked > _ASK:
            asked = instant
            probe = _publish(missing, "list", "saltutil.find_job", [job], {})["jid"]
    return answers


def _cached(job: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _client().get_cache_returns(job)
        return found
    except SaltClientError:
        # A cache that cannot be read now may be later; the events come in any case.
        return {}


def _raised(returned: Any) -> bool:
    """In the cache nothing but the words tells a function that raised."""
    return isinstance(returned, str) and (
        returned.startswith(("ERROR", "The minion function caused an exception", "Passed invalid"))
        or "is not available" in returned
    )


def _answer(returned: Any, failed: bool) -> dict[str, Any]:
    error = str(returned).strip() if failed or _raised(returned) else None
    return {"return": None if error else returned, "error": error, "lost": False}


def _lost(why: str) -> dict[str, Any]:
    return {"return": None, "error": why, "lost": True}


def named(target: Any, kind: str = "glob") -> list[str] | None:
    """
    The hosts that a target names one by one, as a master of masters needs them.

    Such a master (``order_masters``) has the keys of its syndics, not those of the hosts behind them.
    It knows these by their answers alone: of a pattern, a host that is down, or a whole syndic that is,
    would be passed over without a word.

    target, kind
        as ``salt`` takes them

    Returns ids; None on any other master, which has the keys of all its hosts.

    Raises SaltInvocationError on a master of masters for anything but a list.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_jobs.named web1,web2 list
    """
    if not __opts__.get("order_masters"):
        return None
    if kind != "list":
        raise SaltInvocationError(
            f"this is a master of masters: it does not know which hosts behind its syndics {target!r} "
            "means, and would miss those that are down; name them (tgt_type=list), or run this on the "
            "master that has their keys"
        )
    names = target.split(",") if isinstance(target, str) else target
    return list(dict.fromkeys(f"{name}".strip() for name in names if f"{name}".strip()))


def find(target: Any, kind: str = "glob", timeout: float = 15) -> dict[str, bool]:
    """
    The hosts that a target means, and which of them answer.

    target, kind
        as ``salt`` takes them
    timeout
        seconds to wait for those that do not answer

    Returns by id whether it answers.

    Raises what :py:func:`named` does.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_jobs.find 'web*'
    """
    names = named(target, kind)
    job = _publish(target if names is None else names, kind, "test.ping", [], {})
    there = dict.fromkeys(job["minions"] if names is None else names, False)
    if job["jid"] is None:
        return there
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and not all(there.values()):
        event = _next(1)
        if event and event.get("jid") == job["jid"] and "id" in event:
            there[event["id"]] = True
    for name in _cached(job["jid"]):
        there[name] = True
    return there


# --- Asking a site as its visitors do --------------------------------------------------------------


def watch(
    hosts: dict[str, dict[str, Any]], seconds: float, ask_sites: bool = True
) -> dict[str, dict[str, Any]]:
    """
    Watch hosts for a while: the requests that come to them, and the master's own to their sites.

    hosts
        what ``rollout_host.look`` said of each
    seconds
        how long
    ask_sites
        False leaves the master's own requests out

    Returns by id what ``rollout_host.measure`` says, each site also with ``asked``, ``lost`` and
    ``median`` (seconds) of the master's requests; ``error`` alone where the host did not say.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_jobs.watch '{}' 10
    """
    watched = [
        (name, label, site["visits"])
        for name, look in hosts.items()
        for label, site in look["sites"].items()
        if ask_sites and site["visits"] and site["generation"]
    ]
    # One call that has threads of its own: by way of Salt's loader two threads would enter one
    # context (LazyLoader.run), which Python refuses.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            __salt__["site_visit.watch"], [visits for *_, visits in watched], seconds, _ASKERS
        )
        said = run(list(hosts), "rollout_host.measure", [seconds], timeout=seconds + 120)
        told = future.result()
    measured: dict[str, dict[str, Any]] = {}
    for name, answer in said.items():
        measured[name] = {"error": answer["error"]} if answer["error"] else answer["return"]
    for (name, label, _), answers in zip(watched, told, strict=True):
        if "error" not in measured[name]:
            measured[name]["sites"].setdefault(label, {}).update(
                asked=len(answers),
                lost=sum(not answer["healthy"] for answer in answers),
                median=statistics.median(answer["seconds"] for answer in answers)
                if answers
                else None,
            )
    return measured


def reach(hosts: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """
    Ask every site of every host once at each of its addresses, as a visitor would, from here.

    hosts
        what ``rollout_host.look`` said of each

    Returns by id, where a site is not healthy: the site and why.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_jobs.reach '{}'
    """
    asked = [
        (name, label, visit)
        for name, look in hosts.items()
        for label, site in look["sites"].items()
        for visit in site["visits"]
    ]
    answers = __salt__["site_visit.together"]([visit for *_, visit in asked], _ASKERS)
    found: dict[str, tuple[str, str]] = {}
    for (name, label, _), answer in zip(asked, answers, strict=True):
        if not answer["healthy"]:
            why = f"asked by the master, {answer['url']} for {answer['host']} {answer['why']}"
            found.setdefault(name, (label, why))
    return found


def fire(tag: str, data: dict[str, Any]) -> None:
    """
    Tell those who watch the master's event bus.

    tag
        the event's tag
    data
        what happened

    CLI Example:

    .. code-block:: bash

        salt-run rollout_jobs.fire nginx_uwsgi_django/rollout/ID/done '{}'
    """
    # Without a master nobody is listening; the record has it anyway.
    if os.path.exists(os.path.join(__opts__["sock_dir"], "master_event_pull.ipc")):
        _client().event.fire_event(data, tag, timeout=5000)
