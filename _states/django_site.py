"""
The state of all sites together.

.. versionadded:: 0.1.0
"""

import contextvars
import datetime
import logging
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "django_site"

# As Salt's own: whoever follows a run by its log sees these steps as he sees the others.
log = logging.getLogger("salt.state")


def __virtual__() -> str:
    return __virtualname__


class Step(NamedTuple):
    """A state of a site: the end of its ID, its function, what has to have gone well before."""

    label: str
    function: str
    needs: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    # What else has to have gone well where no generation of the site is up.
    first: tuple[str, ...] = ()


def _hooks(when: str, needs: str, *points: str) -> Step:
    return Step(f"hooks {when}", "release_hook.ran", (needs,), points)


_ACCOUNT = "user and group"
_RELEASE = "release files"
_VENV = "virtual environment"
_PREPARED = "checks, migrations and static files"
_SOCKET = "uWSGI socket"
_LOG = "uWSGI log"
_GENERATION = "uWSGI generation"
_CERTIFICATE = "certificate"
_LIVE = "current release"

_NO_COMPANION = "companions removed"
_NO_GENERATION = "uWSGI stopped"
_STOPPING = (
    Step(_NO_COMPANION, "site_companion.absent"),
    Step(_NO_GENERATION, "uwsgi_generation.absent", (_NO_COMPANION,)),
    Step("uWSGI socket removed", "uwsgi_socket.absent", (_NO_GENERATION,)),
    Step("log rotation removed", "uwsgi_log.absent", (_NO_GENERATION,)),
)
_GOING = (
    *_STOPPING,
    Step("virtual environments removed", "python_venv.absent", (_NO_GENERATION,)),
    Step(
        "releases removed if the pillar says so",
        "django_release.absent",
        (_NO_GENERATION,),
    ),
)
# After all others of all sites: two may share an account, and a user of whom a process is left stays.
_ACCOUNT_GONE = Step(
    "user and group removed",
    "system_account.absent",
    tuple(step.label for step in _GOING),
)

# So many paths that stay are told of.
_NAMED = 20

# How the names of the sites' units begin.
_UNITS = "uwsgi-"

_STEPS = (
    Step(_ACCOUNT, "system_account.present"),
    _hooks("before the fetch", _ACCOUNT, "before_fetch"),
    Step(_RELEASE, "django_release.present", (_ACCOUNT, "hooks before the fetch")),
    _hooks("between fetch and build", _RELEASE, "after_fetch", "before_build"),
    Step(_VENV, "python_venv.built", (_RELEASE, "hooks between fetch and build")),
    _hooks("between build and migrate", _VENV, "after_build", "before_migrate"),
    Step(
        _PREPARED,
        "django_release.prepared",
        (_VENV, "hooks between build and migrate"),
    ),
    _hooks("after migrate", _PREPARED, "after_migrate"),
    Step(_LOG, "uwsgi_log.kept", (_ACCOUNT,)),
    _hooks("before the switch", "hooks after migrate", "before_switch"),
    # A release that fails leaves the socket of a live site to follow a change of nginx's user. Where
    # no generation is up it is opened once one is about to be: a socket that nobody reads keeps
    # every visitor waiting for a minute.
    Step(
        _SOCKET,
        "uwsgi_socket.listening",
        (_ACCOUNT,),
        first=(_LOG, _PREPARED, "hooks before the switch"),
    ),
    Step(
        _GENERATION,
        "uwsgi_generation.running",
        (_SOCKET, _LOG, _PREPARED, "hooks before the switch"),
    ),
    Step(_LIVE, "django_release.live", (_GENERATION,)),
    _hooks("after the switch", _LIVE, "after_switch"),
    # After the switch: whatever becomes of them, the new release is served.
    Step("companions", "site_companion.running", (_LIVE,)),
)


def current(name: str) -> dict[str, Any]:
    """
    Every site of the pillar is as it says, from its account to its companions; a site that fails
    keeps no other from its turn.

    name
        a label

    The host is compared with the pillar for all sites at once. A site that is as it should be is
    not mentioned; each of the others goes through its states, which are part of the run's report
    under their own names (``mysite: uWSGI generation``), as far as those that they
    need went well. From the virtual environment on, several sites do so at once, one more than there
    are processors; those of one tree one after the other:
    :py:func:`system_account.present <_states.system_account.present>`,
    :py:func:`django_release.present <_states.django_release.present>`,
    :py:func:`python_venv.built <_states.python_venv.built>`,
    :py:func:`django_release.prepared <_states.django_release.prepared>`,
    :py:func:`uwsgi_socket.listening <_states.uwsgi_socket.listening>`,
    :py:func:`uwsgi_log.kept <_states.uwsgi_log.kept>`,
    :py:func:`uwsgi_generation.running <_states.uwsgi_generation.running>`,
    :py:func:`django_release.live <_states.django_release.live>`,
    :py:func:`site_companion.running <_states.site_companion.running>`, and between them
    :py:func:`release_hook.ran <_states.release_hook.ran>` where the pillar has hooks.

    .. code-block:: yaml

        'sites: deployed and running':
          django_site.current:
            - name: sites

    .. versionadded:: 0.1.0
    """
    return _settled_by(name, _STEPS)


def prepared(name: str) -> dict[str, Any]:
    """
    The release that every site of the pillar is to run is on the host, built, checked and
    migrated, with its static files collected; nothing that is served changes.

    name
        a label

    As :py:func:`current`, which does this too, and goes on.

    .. code-block:: yaml

        'sites: releases prepared':
          django_site.prepared:
            - name: sites

    .. versionadded:: 0.1.0
    """
    return _settled_by(name, _STEPS[: [step.label for step in _STEPS].index(_LOG)])


def certified(name: str) -> dict[str, Any]:
    """
    Every site with ``tls:acme`` has the certificate of the authority, and nginx serves it.

    name
        a label

    A site whose certificate is good is not mentioned; of each of the others
    :py:func:`site_certificate.issued <_states.site_certificate.issued>` is part of the run's report.

    .. code-block:: yaml

        'acme: certificates':
          django_site.certified:
            - name: sites

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    asking = __salt__["django_site.asking"]()
    due = [site for site in asking if not __salt__["django_site.is_certified"](site)]
    # The authority would not find its challenge at a site of which nginx has not been told.
    waiting = [site for site in due if not __salt__["nginx_site.has_challenges"](site)]
    if not __opts__["test"]:
        due = [site for site in due if site not in waiting]
    failed = _bring(ret, due, (Step(_CERTIFICATE, "site_certificate.issued"),))
    good = len(asking) - len({*due, *waiting})
    lines = [f"{good} of {len(asking)} certificates are good"]
    lines += [f"{site}: asked for once its release is live" for site in waiting]
    if failed:
        lines.append(f"failed: {', '.join(failed)}")
    ret["comment"] = "\n".join(lines) if asking else "no site asks an authority for one"
    return ret


def absent(name: str, everything: bool = False) -> dict[str, Any]:
    """
    Of every site that the pillar calls absent nothing is on the host but its data, and that only
    where the pillar does not give it up (``nginx_uwsgi_django:clean:data``).

    name
        a label
    everything
        of all sites of the pillar, not only of those with ``absent: true``

    nginx has let go of the sites before. Their generations finish their requests and stop, many
    sites at once. A site of which nothing is left is not mentioned; of each of the others these are
    part of the run's report under their own names, as far as those that they need went well:
    :py:func:`site_companion.absent <_states.site_companion.absent>`,
    :py:func:`uwsgi_generation.absent <_states.uwsgi_generation.absent>`,
    :py:func:`uwsgi_socket.absent <_states.uwsgi_socket.absent>`,
    :py:func:`uwsgi_log.absent <_states.uwsgi_log.absent>`,
    :py:func:`python_venv.absent <_states.python_venv.absent>`,
    :py:func:`django_release.absent <_states.django_release.absent>` and, when all sites have come
    that far, :py:func:`system_account.absent <_states.system_account.absent>`.

    .. code-block:: yaml

        'sites: absent sites removed':
          django_site.absent:
            - name: sites

    .. versionadded:: 0.1.0
    """
    return _left_by(name, everything, _GOING, (_ACCOUNT_GONE,))


def stopped(name: str, everything: bool = False) -> dict[str, Any]:
    """
    Nothing serves the sites that the pillar calls absent: no companion, no generation of uWSGI, no
    socket. What they are made of stays.

    name, everything
        as in :py:func:`absent`, which does this too, and goes on

    .. code-block:: yaml

        'sites: uWSGI serves none':
          django_site.stopped:
            - name: sites
            - everything: True

    .. versionadded:: 0.1.0
    """
    return _left_by(name, everything, _STOPPING)


def _left_by(
    name: str, everything: bool, steps: Sequence[Step], last: Sequence[Step] = ()
) -> dict[str, Any]:
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        leaving = __salt__["django_site.leaving"](everything)
        going = list(__salt__["django_site.left"](leaving, prepared=bool(last)))
        kept = _kept(leaving) if last else []
    except (CommandExecutionError, SaltInvocationError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    reports: dict[str, list[dict[str, Any]]] = {site: [] for site in going}
    said = _let_go(reports, steps)
    if not said:
        reports = {site: _run(site, last, report) for site, report in reports.items()}
    failed = _tell(ret, reports)
    if said:
        ret["result"] = False
    still = going if said or __opts__["test"] else failed
    lines = [f"{len(leaving) - len(still)} of {len(leaving)} sites that are to go are gone", *said]
    if failed:
        lines.append(f"failed: {', '.join(failed)}")
    ret["comment"] = "\n".join(lines + kept) if leaving else "no site is to go"
    return ret


def _let_go(reports: dict[str, list[dict[str, Any]]], steps: Sequence[Step]) -> list[str]:
    """Let sites go through states, and then systemd know; what it has against that."""
    if not reports:
        return []
    if not __opts__["test"]:
        try:
            __salt__["uwsgi_generation.finish"](list(reports))
        except CommandExecutionError as error:
            # The state of the site that it is about tries again, and tells it.
            log.warning("%s", error)
    try:
        with __salt__["systemd_unit.reload_later"]():
            _go_on(reports, steps)
        # Before the last trace of a site goes: a run that is killed here comes back.
        if not __opts__["test"]:
            __salt__["systemd_unit.daemon_reload"]()
    except CommandExecutionError as error:
        return [str(error)]
    return []


def _kept(sites: list[str]) -> list[str]:
    """What stays on the host of sites that are gone, in a sentence."""
    if __salt__["django_release.data_may_go"]():
        return []
    paths = [path for site in sites for path in __salt__["django_release.leftovers"](site)]
    named = ", ".join(paths[:_NAMED])
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return [f"kept, as nginx_uwsgi_django:clean:data is not true: {named}{more}"] if paths else []


# What is done for one site after the other before the rest is done side by side: accounts are in one
# file, and Salt's connection to its master, which a release may come through, is for one process.
_IN_TURN = [step.label for step in _STEPS].index(_VENV)


def _settled_by(name: str, steps: Sequence[Step]) -> dict[str, Any]:
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    wanted = __salt__["django_site.wanted"]()
    if __salt__["systemd_unit.needs_reload"](_UNITS):
        # A run was killed before it came to that, or somebody edited a unit: a drop-in that is new
        # shows only then.
        ret["changes"]["systemd"] = {"old": "older unit files", "new": "reloaded"}
        if __opts__["test"]:
            ret["result"] = None
        else:
            __salt__["systemd_unit.daemon_reload"](force=True)
    said = __salt__["django_site.look"](served=steps is _STEPS)
    unsettled = [site for site in wanted if said[site] is None]
    with __salt__["systemd_unit.reload_later"]():
        failed = _bring(ret, unsettled, steps[:_IN_TURN], steps[_IN_TURN:])
    if unsettled and not __opts__["test"] and __salt__["systemd_unit.needs_reload"](_UNITS):
        # Of units that are new to it systemd has read the files, and not what they are wanted by.
        __salt__["systemd_unit.daemon_reload"](force=True)
    settled = len(wanted) - len(unsettled)
    lines = [f"{settled} of {len(wanted)} sites match the pillar"]
    if failed:
        lines.append(f"failed: {', '.join(failed)}")
    with __salt__["host_survey.begun"]():
        said.update((site, __salt__["django_site.remarks"](site)) for site in unsettled)
    lines += [f"{site}: {each}" for site in wanted for each in said[site]]
    ret["comment"] = "\n".join(lines)
    return ret


def _bring(
    ret: dict[str, Any], sites: list[str], steps: Sequence[Step], besides: Sequence[Step] = ()
) -> list[str]:
    """
    Run the states of some sites, tell of them in what is returned; the sites that failed.

    besides
        the further states, which several sites go through at once
    """
    begun = {site: _run(site, steps, []) for site in sites}
    if besides:
        _go_on(begun, besides)
    return _tell(ret, begun)


def _go_on(begun: dict[str, list[dict[str, Any]]], besides: Sequence[Step]) -> None:
    """Let sites, by what is reported of them so far, go through further states, several at once."""

    def go_on(lane: tuple[str, ...]) -> list[list[dict[str, Any]]]:
        return [_run(site, besides, begun[site]) for site in lane]

    # What is called by an execution module would find that one's __salt__, which has no states.
    context = contextvars.copy_context()
    told = __salt__["django_site.each"](_lanes(list(begun)), lambda lane: context.run(go_on, lane))
    for lane, reports in told.items():
        for number, site in enumerate(lane):
            if isinstance(reports, CommandExecutionError):
                failure = {"result": False, "changes": {}, "comment": str(reports)}
                begun[site].append(_reported(site, besides[0], failure, datetime.datetime.now(), 0))
            else:
                begun[site] = reports[number]


def _tell(ret: dict[str, Any], begun: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Tell of sites' states in what is returned; the sites that failed."""
    failed = []
    ret["sub_state_run"] = []
    for site, report in begun.items():
        for each in report:
            if each["unreached"]:
                each["comment"] += f"\nNot reached: {'; '.join(each['unreached'])}"
        ret["sub_state_run"] += report
        changed = [each["label"] for each in report if each["changes"]]
        if changed:
            ret["changes"][site] = changed
        results = [each["result"] for each in report]
        if False in results:
            failed.append(site)
        elif None in results:
            ret["result"] = None
    if failed:
        ret["result"] = False
    return failed


def _lanes(sites: list[str]) -> list[tuple[str, ...]]:
    """The sites, those of one tree together: they would write to the same files."""
    lanes: dict[str, list[str]] = {}
    for site in sites:
        path = __salt__["site_pillar.site"](site)["project"]["path"]
        lanes.setdefault(path, []).append(site)
    return [tuple(lane) for lane in lanes.values()]


def _run(
    site: str, steps: Sequence[Step], report: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """
    One site's states, each as Salt's `sub_state_run` takes it, after those that are reported.

    A state that needs one that failed is not reported itself: the one that failed names it.
    """
    hooked = __salt__["django_site.hooked"](site)
    report = list(report)
    # What failed or was not reached, and the report of the state that is to blame.
    bad: dict[str, dict[str, Any]] = {}
    for each in report:
        if each["result"] is False:
            bad.update(dict.fromkeys((each["label"], *each["unreached"]), each))
    for step in steps:
        if step.points and not hooked:
            continue
        missing = [label for label in step.needs if label in bad]
        unready = [label for label in step.first if label in bad]
        began = time.monotonic()
        now = datetime.datetime.now()
        told: dict[str, Any] | None
        cause = None
        if missing:
            told, cause = None, bad[missing[0]]
        elif unready and not __salt__["uwsgi_generation.serves"](site):
            told, cause = _closed(site), bad[unready[0]]
        else:
            told = _called(site, step)
        if told is not None:
            took = round((time.monotonic() - began) * 1000, 3)
            report.append(_reported(site, step, told, now, took))
            if told["result"] is False:
                bad[step.label] = cause or report[-1]
        elif cause is not None:
            cause["unreached"].append(step.label)
            bad[step.label] = cause
    return report


def _closed(site: str) -> dict[str, Any] | None:
    """
    The socket of a site of which no generation is up, and none is about to be, is not open; None
    where it was not.
    """
    told: dict[str, Any] = {"result": False, "changes": {}}
    if __opts__["test"]:
        return None
    try:
        if not __salt__["uwsgi_generation.close"](site):
            return None
        told["changes"] = {"listening": {"old": True, "new": False}}
        told["comment"] = "closed: no generation of the site reads it"
    except CommandExecutionError as error:
        told["comment"] = f"still open, and no generation of the site reads it: {error}"
    return told


def _reported(
    site: str, step: Step, told: dict[str, Any], began: datetime.datetime, took: float
) -> dict[str, Any]:
    state, function = step.function.split(".")
    return {
        "label": step.label,
        "name": site,
        "low": {"state": state, "fun": function, "name": site, "__id__": f"{site}: {step.label}"},
        "result": told["result"],
        "changes": told["changes"],
        "comment": told["comment"],
        "unreached": [],
        "duration": took,
        "start_time": began.time().isoformat(),
    }


def _called(site: str, step: Step) -> dict[str, Any]:
    given = {"points": list(step.points)} if step.points else {}
    full = f"{site}: {step.label}"
    log.info("Executing state %s for [%s]", step.function, full)
    began = time.monotonic()
    try:
        return __states__[step.function](name=site, **given)
    except Exception:
        # As Salt does with a state of its own: the other sites have their turn.
        comment = f"An exception occurred in this state: {traceback.format_exc()}"
        return {"result": False, "changes": {}, "comment": comment}
    finally:
        took = round((time.monotonic() - began) * 1000, 3)
        now = datetime.datetime.now().time()
        log.info("Completed state [%s] at time %s duration_in_ms=%s", full, now, took)
