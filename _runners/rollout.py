"""
A change of a fleet that stops itself: dry run, canary, batches, a gate after each, and on the first
failure everything that was switched is put back.

.. code-block:: bash

    salt-run rollout.apply 'web*' canary=1 batch=25%
    salt-run rollout.list
    salt-run rollout.show
    salt-run rollout.resume
    salt-run rollout.revert
    salt-run rollout.report 'web*' html=/srv/www/fleet.html

The master finds it by ``runner_dirs`` (the checkout's ``_runners``) or after
``salt-run saltutil.sync_runners``. It is one of several runner modules that the loader gives to each
other as ``__salt__``: what is decided (``rollout_plan``, ``rollout_gate``), what is remembered
(``rollout_record``), what is asked (``rollout_jobs``, ``site_visit``), what is shown (``rollout_progress``,
``rollout_report``, ``rollout_table``, ``rollout_page``).

.. versionadded:: 0.1.0
"""

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import salt.utils.user
from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "rollout"
__func_alias__ = {"list_": "list"}

_TAG = "nginx_uwsgi_django/rollout"
# So many hosts are asked for a dry run at the same time: each compiles its states, and fetches its
# pillar and files from the master.
_AT_ONCE = 50
# Of ``queue``: a number waits in all supported versions. ``True`` puts the run away in Salt 3008,
# where saltutil.find_job does not see it.
_QUEUE = 20

# States of a host in the record that a rollout has nothing more to do for.
_OVER = ("done", "unchanged", "skipped")


class _Stopped(Exception):
    """A rollout must not go on: host, site (None) and reason."""

    def __init__(self, host: str, site: str | None, reason: str) -> None:
        super().__init__(reason)
        self.failure = {"host": host, "site": site, "reason": reason}


def __virtual__() -> str:
    return __virtualname__


def _user() -> str:
    # The runner client puts it into the module: who calls through salt-api, say.
    user = str(globals().get("__user__") or "UNKNOWN")
    return str(salt.utils.user.get_specific_user()) if user == "UNKNOWN" else user


def _refused(error: Exception) -> dict[str, Any]:
    __context__["retcode"] = 1
    return {"status": "refused", "reason": str(error), "retcode": 1}


def _result(record: dict[str, Any]) -> dict[str, Any]:
    """What a command returns: short, with the exit code that salt-run takes."""
    good = record["status"] in ("done", "tested") or (
        record["status"] == "reverted" and record.get("asked_to_revert")
    )
    __context__["retcode"] = 0 if good else 1
    answer = {
        "id": record["id"],
        "status": record["status"],
        "hosts": {name: host["state"] for name, host in record["hosts"].items()},
        "retcode": __context__["retcode"],
    }
    if record["failure"]:
        answer["failure"] = record["failure"]
    return answer


class _Rollout:
    """A rollout that is under way: its record, and what a person sees of it."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.hosts: dict[str, dict[str, Any]] = record["hosts"]
        self.how: dict[str, Any] = record["how"]
        self.progress = __salt__["rollout_progress.begin"](len(self.hosts))

    def say(self, line: str | None = None, event: str | None = None, **data: Any) -> None:
        """Put all on the disk, show, and tell the event bus."""
        self._note(line)
        # First: whoever sees the line may kill the runner at once, and resume it.
        self.write()
        self._show(line, event, data)

    def tell(self, line: str, event: str, **data: Any) -> None:
        """
        Show, and tell the event bus: one of many lines, before or after which ``write`` is called.

        The record has all hosts; written for each of them, its bytes grow with their square.
        """
        self._note(line)
        self._show(line, event, data)

    def write(self) -> None:
        """Put all on the disk."""
        __salt__["rollout_record.write"](self.record)

    def _note(self, line: str | None) -> None:
        if line:
            self.record["log"].append(f"{__salt__['rollout_record.now']()} {line}")

    def _show(self, line: str | None, event: str | None, data: dict[str, Any]) -> None:
        states = [host["state"] for host in self.hosts.values()]
        self.progress["total"] = len(states)
        self.progress["done"] = sum(state in _OVER for state in states)
        self.progress["failed"] = sum("failed" in state for state in states)
        __salt__["rollout_progress.show"](self.progress, line)
        if event:
            tag = f"{_TAG}/{self.record['id']}/{event}"
            __salt__["rollout_jobs.fire"](tag, {"id": self.record["id"], "line": line, **data})

    def run(self, hosts: list[str], function: str, *arguments: Any, **keywords: Any) -> Any:
        """Run a function on hosts, within the time that a host has."""
        return __salt__["rollout_jobs.run"](
            hosts, function, list(arguments), keywords, timeout=self.how["timeout"]
        )

    def mark(self, name: str, state: str, **more: Any) -> None:
        """Note what a host is now."""
        self.hosts[name].update(state=state, **more)

    def lost(self, name: str, reason: str) -> None:
        """A host that does not answer: left out or the end, as was asked for."""
        if self.how["silent"] == "stop":
            self.mark(name, "failed", reason=reason)
            raise _Stopped(name, None, reason)
        self.mark(name, "skipped", reason=reason)
        self.say(f"{name}: left out: {reason}", "skipped", host=name, reason=reason)

    def answers(self, said: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What hosts returned; of those that did not, the policy for the silent or the end."""
        good = {}
        for name, answer in said.items():
            if answer["lost"]:
                self.lost(name, answer["error"])
            elif answer["error"]:
                self.mark(name, "failed", reason=answer["error"])
                raise _Stopped(name, None, answer["error"])
            else:
                good[name] = answer["return"]
        return good

    def alive(self, names: list[str]) -> list[str]:
        """Those that are still part of it."""
        return [name for name in names if self.hosts[name]["state"] not in _OVER]


# --- Before anything changes ---------------------------------------------------------------------


def _arguments(rollout: _Rollout, test: bool) -> tuple[list[Any], dict[str, Any]]:
    sls = rollout.how["sls"]
    words = [sls] if sls else []
    return words, {"queue": _QUEUE, **({"test": True} if test else {})}


def _find(rollout: _Rollout, target: Any, kind: str) -> list[str]:
    there = __salt__["rollout_jobs.find"](target, kind, rollout.how["ping"])
    if not there:
        raise SaltInvocationError(f"no accepted minion matches {target!r}")
    for name in there:
        rollout.hosts[name] = {"state": "asked", "reason": None}
    for name, answers in sorted(there.items()):
        if not answers:
            rollout.lost(name, f"its minion did not answer within {rollout.how['ping']:g} s")
    return rollout.alive(sorted(there))


def _foretell(rollout: _Rollout, names: list[str]) -> None:
    """Ask everybody for a dry run; the end when one says that it would fail."""
    words, keywords = _arguments(rollout, test=True)
    worst: _Stopped | None = None
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        # The functions of this formula, and the pillar that functions see, as the master has them.
        for function, more in (
            ("saltutil.sync_modules", {}),
            ("saltutil.refresh_pillar", {"wait": True}),
        ):
            some = sorted(rollout.answers(rollout.run(some, function, **more)))
        said = rollout.answers(rollout.run(some, "state.apply", *words, **keywords))
        for name, returned in sorted(said.items()):
            verdict = __salt__["rollout_gate.states"](returned)
            rollout.hosts[name]["changes"] = verdict["changes"]
            if verdict["failed"]:
                reason = f"its dry run fails: {verdict['failed'][0]}"
                rollout.mark(name, "failed", reason=reason)
                site = __salt__["rollout_gate.site_of"](verdict["failed"][0])
                worst = worst or _Stopped(name, site, reason)
                rollout.tell(f"{name}: {reason}", "dry", host=name, failed=verdict["failed"])
                continue
            rollout.mark(name, "pending" if verdict["changes"] else "unchanged")
            told = "; ".join(verdict["changes"]) or "nothing"
            rollout.tell(f"{name} would change: {told}", "dry", host=name, changes=told)
        rollout.write()
    if worst:
        raise worst


def _plan(rollout: _Rollout) -> None:
    names = [name for name, host in rollout.hosts.items() if host["state"] == "pending"]
    looks = rollout.answers(rollout.run(names, "rollout_host.look", grain=rollout.how["order"]))
    # Who migrates a database for all goes first: the others' new code needs what it makes.
    first = sorted(name for name, look in looks.items() if look["migrates"])
    rollout.record["batches"] = __salt__["rollout_plan.batches"](
        {name: look["grain"] for name, look in looks.items()},
        rollout.how["canary"],
        rollout.how["batch"],
        first,
    )


# --- One batch -----------------------------------------------------------------------------------


def _change(rollout: _Rollout, names: list[str]) -> None:
    """Bring a batch to the new state, and see that it is well."""
    kept = rollout.answers(rollout.run(names, "rollout_host.keep", rollout.record["id"]))
    looks = rollout.answers(rollout.run(rollout.alive(names), "rollout_host.look"))
    for name, look in looks.items():
        # What is to come is not there to be compared with.
        for label in [label for label in look["sites"] if not kept[name].get(label)]:
            del look["sites"][label]
    passed = _passed(rollout)
    before = _watched(rollout, {**passed, **looks})
    _stop_for(rollout, _later(_worse(rollout, passed, before)))
    for name in looks:
        # A host whose change was interrupted keeps what was measured before it.
        rollout.hosts[name].setdefault("before", before.get(name))
        rollout.mark(name, "changing", touched=True)
    rollout.say(f"changing {', '.join(looks)}", "batch", hosts=list(looks))
    _drain(rollout, list(looks))
    words, keywords = _arguments(rollout, test=False)
    said = _applied(rollout, list(looks), words, keywords)
    bad = None
    for name, answer in said.items():
        if answer["lost"]:
            continue
        returned = answer["return"] if not answer["error"] else [answer["error"]]
        failed = __salt__["rollout_gate.states"](returned)["failed"]
        if failed:
            site = __salt__["rollout_gate.site_of"](failed[0], list(looks[name]["sites"]))
            rollout.mark(name, "failed", reason=failed[0], site=site)
            bad = bad or _Stopped(name, site, failed[0])
    if bad:
        raise bad
    for name, answer in said.items():
        if answer["lost"]:
            rollout.lost(name, answer["error"])
    _gate(rollout, rollout.alive(list(looks)))
    _undrain(rollout, rollout.alive(list(looks)))
    for name in rollout.alive(list(looks)):
        rollout.mark(name, "done", ended=__salt__["rollout_record.now"]())
        rollout.tell(f"{name}: changed and well", "host", host=name, state="done")
    rollout.write()


def _applied(
    rollout: _Rollout, names: list[str], words: list[Any], keywords: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """
    Apply the states; a run that its host lost in the middle once more.

    What is applied compares the host with the pillar, so the second run finishes the first.
    """
    said = rollout.run(names, "state.apply", *words, **keywords)
    again = [name for name, answer in said.items() if answer["lost"]]
    if again:
        there = __salt__["rollout_jobs.find"](again, "list", rollout.how["ping"])
        back = [name for name in again if there.get(name)]
        for name in back:
            rollout.say(f"{name}: {said[name]['error']}; it is back, once more", "again", host=name)
        said.update(rollout.run(back, "state.apply", *words, **keywords))
    return said


def _watched(rollout: _Rollout, looks: dict[str, Any]) -> dict[str, Any]:
    windows = [look["limits"]["window"] for look in looks.values()]
    if not any(windows):
        return {}
    said = __salt__["rollout_jobs.watch"](looks, max(windows), rollout.how["ask"])
    return {name: told for name, told in said.items() if "error" not in told}


def _gate(rollout: _Rollout, names: list[str]) -> None:
    """The end where a host that was just changed is not well."""
    looks = rollout.answers(rollout.run(names, "rollout_host.look"))
    _stop_for(rollout, _unwell(rollout, looks))
    after = _watched(rollout, looks)
    for name in looks:
        rollout.hosts[name]["after"] = after.get(name)
    _stop_for(rollout, _worse(rollout, looks, after))


def _unwell(rollout: _Rollout, looks: dict[str, Any]) -> dict[str, tuple[str | None, str]]:
    """The hosts that are not well now, seen from inside, or else from here: site and reason."""
    found: dict[str, tuple[str | None, str]] = {}
    for name, look in looks.items():
        if bad := __salt__["rollout_gate.unwell"](look):
            found[name] = bad
    if rollout.how["ask"] and not found:
        found.update(__salt__["rollout_jobs.reach"](looks))
    return found


def _worse(
    rollout: _Rollout, looks: dict[str, Any], after: dict[str, Any]
) -> dict[str, tuple[str | None, str]]:
    """The hosts that do worse in a window than before they were changed: site and reason."""
    found: dict[str, tuple[str | None, str]] = {}
    for name, look in looks.items():
        before = rollout.hosts[name].get("before")
        if before and after.get(name):
            if bad := __salt__["rollout_gate.worse"](before, after[name], look["limits"]):
                found[name] = bad
    return found


def _stop_for(rollout: _Rollout, found: dict[str, tuple[str | None, str]]) -> None:
    for name, (site, reason) in found.items():
        rollout.mark(name, "failed", reason=reason, site=site)
    for name, (site, reason) in found.items():
        raise _Stopped(name, site, reason)


# --- The hosts that have passed ------------------------------------------------------------------


def _passed(rollout: _Rollout) -> dict[str, Any]:
    """
    Look again at the hosts that the rollout has changed and found well: what a release does after a
    while, no gate sees. The end where one is not well.
    """
    names = [
        name
        for name, host in rollout.hosts.items()
        if host["state"] == "done" and host.get("touched")
    ]
    looks = {}
    for name, answer in rollout.run(names, "rollout_host.look").items() if names else ():
        if answer["error"] and not (answer["lost"] and rollout.how["silent"] == "skip"):
            _stop_for(rollout, {name: (None, answer["error"])})
        elif answer["error"]:
            rollout.say(f"{name}: changed before, and now: {answer['error']}")
        else:
            looks[name] = answer["return"]
    _stop_for(rollout, _later(_unwell(rollout, looks)))
    return looks


def _later(found: dict[str, tuple[str | None, str]]) -> dict[str, tuple[str | None, str]]:
    """The findings, of hosts that had been well after their change."""
    return {
        name: (site, f"well after its change, and not now: {reason}")
        for name, (site, reason) in found.items()
    }


def _reason(rollout: _Rollout) -> str:
    return f"rollout {rollout.record['id']}"


def _drain(rollout: _Rollout, names: list[str]) -> None:
    """Take hosts out of what balances the load, before they are changed."""
    how = rollout.how
    if how["drain"] is not None:
        rollout.answers(rollout.run(names, "host_drain.start", _reason(rollout)))
    if how["before"]:
        rollout.answers(rollout.run(rollout.alive(names), how["before"]))
    if how["drain"]:
        time.sleep(how["drain"])


def _undrain(rollout: _Rollout, names: list[str]) -> None:
    how = rollout.how
    if how["after"]:
        rollout.answers(rollout.run(names, how["after"]))
    if how["drain"] is not None:
        marks = rollout.answers(rollout.run(rollout.alive(names), "host_drain.status"))
        # Whom somebody drains for a reason of their own, they put back themselves.
        ours = [name for name, mark in marks.items() if mark["reason"] == _reason(rollout)]
        rollout.answers(rollout.run(ours, "host_drain.stop"))


# --- From the first batch to the end, or back ----------------------------------------------------


def _roll(rollout: _Rollout) -> None:
    record = rollout.record
    for number, batch in enumerate(record["batches"]):
        names = rollout.alive(batch)
        if names:
            rollout.say(f"batch {number + 1} of {len(record['batches'])}: {', '.join(names)}")
            _change(rollout, names)
    changed = [name for name, host in rollout.hosts.items() if host.get("touched")]
    # Those of the only batch have just been looked at.
    if len(record["batches"]) > 1 and changed:
        passed = _passed(rollout)
        _stop_for(rollout, _later(_worse(rollout, passed, _watched(rollout, passed))))
    record["status"] = "done"


def _put_back(rollout: _Rollout) -> None:
    """Revert every host that was touched; one that cannot be keeps no other from it."""
    names = [name for name, host in rollout.hosts.items() if host.get("touched")]
    if not names:
        rollout.say("no host was changed", "revert", hosts=[])
        return
    rollout.say(f"putting back {', '.join(names)}", "revert", hosts=names)
    said = rollout.run(names, "rollout_host.revert", rollout.record["id"])
    for name, answer in said.items():
        errors = [answer["error"]] if answer["error"] else answer["return"]["errors"]
        rollout.hosts[name]["revert"] = answer["return"] or {"done": [], "errors": errors}
        rollout.mark(name, "revert failed" if errors else "reverted", touched=bool(errors))
        told = f"NOT as before: {'; '.join(errors)}" if errors else "as before"
        rollout.tell(f"{name}: {told}", "host", host=name, state=rollout.hosts[name]["state"])
    rollout.write()
    back = [name for name in names if rollout.hosts[name]["state"] == "reverted"]
    try:
        _undrain(rollout, back)
    except _Stopped as stopped:
        rollout.say(f"{stopped.failure['host']} is still drained: {stopped}")


def _guarded(rollout: _Rollout, act: Callable[[], None]) -> dict[str, Any]:
    """Do something of a rollout that may stop, and leave a record of how it ended."""
    record = rollout.record
    record.update(status="running", pid=os.getpid(), failure=None)
    try:
        rollout.say(None, "new", user=record["user"], what=record["what"])
        try:
            act()
        except _Stopped as stopped:
            record["failure"] = stopped.failure
            site = f", site {stopped.failure['site']}" if stopped.failure["site"] else ""
            rollout.say(
                f"STOP: {stopped.failure['host']}{site}: {stopped}", "stop", **stopped.failure
            )
            _put_back(rollout)
            record["status"] = "failed"
        record["ended"] = __salt__["rollout_record.now"]()
        rollout.say(f"{record['id']}: {record['status']}", "ret", status=record["status"])
    except BaseException as error:
        # Hosts stay as they are: whoever interrupted it decides between resume and revert.
        record["status"] = "interrupted"
        record["log"].append(f"{__salt__['rollout_record.now']()} interrupted: {error!r}")
        __salt__["rollout_record.write"](record)
        if isinstance(error, TypeError):
            # Salt would take it for wrong arguments, and for a success.
            raise RuntimeError(repr(error)) from error
        raise
    finally:
        __salt__["rollout_progress.end"](rollout.progress)
    return _result(record)


def _holder(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": record["id"],
        "what": record["what"],
        "user": _user(),
        "since": __salt__["rollout_record.now"](),
        "pid": os.getpid(),
    }


def apply(
    tgt: Any,
    tgt_type: str = "glob",
    sls: str | None = "nginx_uwsgi_django",
    canary: int | str = 1,
    batch: int | str = "25%",
    order: str | None = None,
    silent: str = "stop",
    timeout: float = 900,
    ping: float = 15,
    ask: bool = True,
    drain: float | None = None,
    before: str | None = None,
    after: str | None = None,
    test: bool = False,
) -> dict[str, Any]:
    """
    Bring hosts to what their pillar says: a few, then more, as long as all is well.

    tgt, tgt_type
        the hosts, as ``salt`` takes them; on a master of masters a list of names
    sls
        the states to apply; null for what the top file says
    canary
        how many hosts go alone before all others: a number or a percentage; 0 for none
    batch
        how many go together then: a number or a percentage of all
    order
        a grain, such as a zone: hosts are changed group by group, and no batch has two groups
    silent
        what becomes of a host that does not answer: ``stop`` ends the rollout, ``skip`` leaves it
        out
    timeout
        seconds for each host and each thing that it is asked for
    ping
        seconds to wait for hosts that do not answer at all
    ask
        False where the master cannot reach the sites: it then takes the hosts' word
    drain
        let a load balancer take each host out before: sets the mark for which nginx's health
        location answers 503, and waits so many seconds
    before, after
        execution functions to run on each host before it is changed and when it is well again
    test
        True: the dry run alone

    Returns ``id``, ``status`` (``done``; ``tested``; ``failed``: stopped, and what was switched is
    put back; ``refused``), ``hosts`` with the state of each, ``failure`` with host, site and
    reason, and ``retcode``, with which ``salt-run`` ends.

    CLI Example:

    .. code-block:: bash

        salt-run rollout.apply 'web*' canary=1 batch=25%
        salt-run rollout.apply 'web*' order=zone silent=skip drain=20 --out=json
    """
    how = {
        "sls": sls,
        "canary": canary,
        "batch": batch,
        "order": order,
        "silent": silent,
        "timeout": timeout,
        "ping": ping,
        "ask": ask,
        "drain": drain,
        "before": before,
        "after": after,
    }
    record = {
        "id": __salt__["rollout_record.new_id"](),
        "status": "running",
        "user": _user(),
        "began": __salt__["rollout_record.now"](),
        "what": f"{sls or 'the top file'} on {tgt}",
        "how": how,
        "failure": None,
        "batches": [],
        "hosts": {},
        "log": [],
    }
    try:
        if silent not in ("stop", "skip"):
            raise SaltInvocationError(f"silent is stop or skip, not {silent!r}")
        # Wrong words are refused before anybody is asked anything.
        __salt__["rollout_plan.batches"]({"any": None}, canary, batch)
        __salt__["rollout_jobs.named"](tgt, tgt_type)
        with __salt__["rollout_record.alone"](_holder(record)):
            rollout = _Rollout(record)

            def all_of_it() -> None:
                _foretell(rollout, _find(rollout, tgt, tgt_type))
                if test:
                    record["status"] = "tested"
                    return
                _plan(rollout)
                _roll(rollout)

            return _guarded(rollout, all_of_it)
    except (SaltInvocationError, CommandExecutionError) as error:
        return _refused(error)


def resume(rollout: str | None = None) -> dict[str, Any]:
    """
    Go on with a rollout that was interrupted, or that has failed and whose reason is gone: hosts
    that are done stay, all others are changed, in the order that it had.

    rollout
        its ID; the newest when it is not given

    Returns what :py:func:`apply` returns.

    CLI Example:

    .. code-block:: bash

        salt-run rollout.resume
    """
    try:
        record = __salt__["rollout_record.read"](rollout)
        with __salt__["rollout_record.alone"](_holder(record)):
            if record["status"] not in ("interrupted", "failed"):
                raise SaltInvocationError(
                    f"{record['id']} is {record['status']}: nothing to resume"
                )
            if not record["batches"]:
                raise SaltInvocationError(
                    f"{record['id']} ended before it had a plan, and nothing was changed: apply anew"
                )
            again = _Rollout(record)
            for name in (name for batch in record["batches"] for name in batch):
                if record["hosts"][name]["state"] != "done":
                    again.mark(name, "pending", reason=None)
            return _guarded(again, lambda: _roll(again))
    except (SaltInvocationError, CommandExecutionError) as error:
        return _refused(error)


def revert(rollout: str | None = None) -> dict[str, Any]:
    """
    Put every host that a rollout has changed back to where it was before.

    rollout
        its ID; the newest when it is not given

    Returns what :py:func:`apply` returns; ``status`` is ``reverted``, or ``failed`` when a host is
    not as before (its state is ``revert failed``; :py:func:`show` says why).

    CLI Example:

    .. code-block:: bash

        salt-run rollout.revert 20261125-103000-4f2a
    """
    try:
        record = __salt__["rollout_record.read"](rollout)
        with __salt__["rollout_record.alone"](_holder(record)):
            back = _Rollout(record)
            record["asked_to_revert"] = True

            def all_of_it() -> None:
                _put_back(back)
                states = [host["state"] for host in back.hosts.values()]
                record["status"] = "failed" if "revert failed" in states else "reverted"

            return _guarded(back, all_of_it)
    except (SaltInvocationError, CommandExecutionError) as error:
        return _refused(error)


def list_() -> list[dict[str, Any]]:
    """
    All rollouts, the oldest first.

    Returns a list of ``id``, ``status``, ``user``, ``began``, ``ended``, ``what`` and ``hosts``, how
    many there are in each state.

    CLI Example:

    .. code-block:: bash

        salt-run rollout.list
    """
    answer = []
    for record in __salt__["rollout_record.list"]():
        states = [host["state"] for host in record["hosts"].values()]
        answer.append(
            {
                **{
                    key: record.get(key)
                    for key in ("id", "status", "user", "began", "ended", "what")
                },
                "hosts": {state: states.count(state) for state in sorted(set(states))},
            }
        )
    return answer


def show(rollout: str | None = None) -> dict[str, Any]:
    """
    All that is known of a rollout: who, when, what, each host, each step.

    rollout
        its ID; the newest when it is not given

    CLI Example:

    .. code-block:: bash

        salt-run rollout.show
        salt-run rollout.show 20261125-103000-4f2a --out=json
    """
    try:
        record: dict[str, Any] = __salt__["rollout_record.read"](rollout)
        return record
    except SaltInvocationError as error:
        return _refused(error)


# --- How the fleet does --------------------------------------------------------------------------


def report(
    tgt: Any = "*",
    tgt_type: str = "glob",
    html: str | None = None,
    dry_run: bool = False,
    ask: bool = True,
    refresh: bool = True,
    timeout: float = 300,
    ping: float = 15,
) -> Any:
    """
    How hosts do, the worst first. Changes nothing but the minions' caches.

    tgt, tgt_type
        the hosts, as ``salt`` takes them
    html
        also write a page to this path of the master: one file, without need of a server or network
    dry_run
        let each host make a dry run, too, to tell what a run would change there
    ask
        False: the sites are not asked for anything
    refresh
        False: with the modules and the pillar that the minions have, be they old or none
    timeout
        seconds for each host and each thing that it is asked for
    ping
        seconds to wait for hosts that do not answer at all

    Returns a table for a person; with ``--out=json`` (or any other, or when it is not called by
    ``salt-run``) a dictionary: ``target``, ``at``, ``summary`` (how many hosts there are of each
    verdict) and ``hosts``, by id what ``nginx_uwsgi_django.report`` says there; of one that did not
    answer, ``verdict`` (``silent``) and ``errors``.

    CLI Example:

    .. code-block:: bash

        salt-run rollout.report
        salt-run rollout.report 'web*' dry_run=True --out=json
        salt-run rollout.report html=/srv/www/fleet.html
    """
    try:
        there = __salt__["rollout_jobs.find"](tgt, tgt_type, ping)
        if not there:
            raise SaltInvocationError(f"no accepted minion matches {tgt!r}")
        silent = f"its minion did not answer within {ping:g} s"
        hosts = {
            name: {"verdict": "silent", "errors": [silent]} for name in there if not there[name]
        }
        up = [name for name in there if there[name]]
        hosts.update(__salt__["rollout_report.collect"](up, dry_run, ask, refresh, timeout))
        told = {
            "target": f"{tgt}",
            "at": __salt__["rollout_record.now"](),
            **__salt__["rollout_report.worst_first"](hosts),
        }
        if html:
            __salt__["rollout_record.put"](html, __salt__["rollout_page.render"](told))
    except (SaltInvocationError, CommandExecutionError, OSError) as error:
        return _refused(error)
    # ``fun`` is in the options of a command line alone, ``output`` where that has an --out.
    if __opts__.get("fun") != "rollout.report" or __opts__.get("output"):
        return told
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 160)
    return {"outputter": "txt", "data": __salt__["rollout_table.render"](told, width)}
