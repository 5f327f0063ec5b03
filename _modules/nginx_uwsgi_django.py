"""
What an operator asks of a host: is it up, does it answer, what do the logs say.

.. versionadded:: 0.1.0
"""

import os
import re
import time
from typing import Any

import salt.utils.yaml
from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import cache, durable_file, nginx_program, systemd, unix_socket, uwsgi_protocol
from _nud import survey as live_server

__virtualname__ = "nginx_uwsgi_django"


# A certificate that ends within so many days is told of: those of an authority are renewed long
# before.
_DAYS = 14
# So many sites are asked at the same time, and so much is told of what one says, and of how many.
_AT_ONCE = 16
_WORDS = 400
_MOST = 50
# Of a dry run, when another run is at work: a number waits in all supported versions of Salt.
_QUEUE = 20

_UNIT = re.compile(r"uwsgi-([a-z][a-z0-9_-]{0,30}?)(?:@([0-9a-f]{12}))?\.(service|socket)")
_PROPERTIES = [
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "DropInPaths",
    "NRestarts",
    "ActiveEnterTimestamp",
]


def __virtual__() -> str:
    return __virtualname__


def version() -> dict:
    """
    The versions of what serves.

    Returns a dictionary: ``nginx`` (None when it is not installed), ``salt``, ``os``.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_uwsgi_django.version
    """
    return {
        "nginx": nginx_program.version(),
        "salt": __grains__["saltversion"],
        "os": f"{__grains__['os']} {__grains__['osrelease']}",
    }


def _where(name: str) -> str:
    """Where a site's log is: a file, or the command that shows it."""
    return __salt__["uwsgi_log.path"](name) or f"journalctl --unit='uwsgi-{name}@*'"


def status() -> dict:
    """
    Whether nginx and every site's uWSGI are loaded, active and running, and what each site answers.

    Returns a dictionary: ``nginx`` as ``nginx_process.status`` gives it; ``sites`` by name, each
    with ``socket`` and ``service`` (systemd's words for the socket and for the generation that
    serves), ``generation`` (its digest, None when none runs), ``enabled``, what
    :py:func:`site_health.ask` says (``healthy``, ``why``, ``uwsgi``, ``url``, ``host``, ``answer``,
    ``status``, ``visits`` and more), and ``log`` (the site's log file, or the command that shows its
    journal).

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_uwsgi_django.status
    """
    sites = {
        name: site
        for name, site in __salt__["site_pillar.settings"]()["sites"].items()
        if not site["absent"]
    }
    patterns = [f"uwsgi-{name}.socket" for name in sites]
    patterns += [f"uwsgi-{name}@*.service" for name in sites]
    units = (
        __salt__["systemd_unit.show"](
            patterns, ["LoadState", "ActiveState", "SubState", "UnitFileState"]
        )
        if sites
        else {}
    )

    def words(unit: dict) -> str:
        # As `systemctl` prints them in a row: loaded active running.
        return " ".join(
            unit.get(key, "") for key in ("LoadState", "ActiveState", "SubState")
        ).strip()

    found = {}
    for name in sites:
        running = {
            match[1]: unit
            for unit_name, unit in units.items()
            if (match := re.fullmatch(rf"uwsgi-{re.escape(name)}@([0-9a-f]+)\.service", unit_name))
            and unit.get("ActiveState") == "active"
        }
        generation = next(iter(running), None)
        found[name] = {
            "socket": words(units.get(f"uwsgi-{name}.socket", {})) or "not-found",
            "service": words(running[generation]) if generation else "not running",
            "generation": generation,
            "enabled": bool(generation) and running[generation].get("UnitFileState") == "enabled",
            "log": _where(name),
        }
    health = __salt__["site_health.ask"]([name for name in found if found[name]["generation"]])
    for name, seen in found.items():
        seen.update(health[name])
    return {"nginx": __salt__["nginx_process.status"](), "sites": found}


def logs(lines: int = 20) -> dict:
    """
    The last lines of nginx's error log and of every site's uWSGI.

    lines
        how many of each at most

    Returns a dictionary: ``nginx`` and the sites' names, each with ``where`` (the file, or the
    command that shows more) and ``lines``, oldest first.

    Raises CommandExecutionError when the pillar is not valid or the journal cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_uwsgi_django.logs
        salt '*' nginx_uwsgi_django.logs lines=100
    """
    error_log = __salt__["nginx_process.status"](lines=lines)["error_log"]
    answer = {"nginx": {"where": error_log["path"], "lines": error_log["lines"]}}
    for name, site in __salt__["site_pillar.settings"]()["sites"].items():
        if not site["absent"]:
            answer[name] = {
                "where": _where(name),
                "lines": __salt__["uwsgi_status.logs"](name, lines),
            }
    return answer


def survey(path: str | None = None, secrets: bool = False, force: bool = False) -> dict[str, Any]:
    """
    Read a live server that others have built, and write the pillar that takes its Django sites over
    as they are.

    nginx's own dump, the processes behind it, their units and each project's settings are read. But
    for the file at ``path``, nothing on the host is changed.

    path
        where the pillar is written, as an absolute path, readable for its owner alone; None: nowhere
    secrets
        True: the file has the values of variables that look like secrets. Else a text stands in the
        place of each, and a run is refused until it is replaced
    force
        True: a file that is there already is overwritten

    Returns a dictionary: ``report`` (what was found, with the file and line of each fact), ``pillar`` (its
    text, without secrets in any case), ``errors`` (what keeps the pillar from being valid with all
    secrets in it), ``secrets`` (the names of the variables that are left out) and ``written`` (the path,
    or None).

    Raises SaltInvocationError for a path that is not absolute or where a file is. Raises
    CommandExecutionError when nginx does not run, or its configuration on the disk is not valid.

    CLI Example:

    .. code-block:: bash

        salt web1 nginx_uwsgi_django.survey
        salt-call --local nginx_uwsgi_django.survey /root/adopted.sls secrets=True
    """
    if path is not None:
        if not os.path.isabs(path):
            raise SaltInvocationError(f"path: found {path!r}, expected an absolute path")
        if os.path.lexists(path) and not force:
            raise SaltInvocationError(
                f"path: found {path!r}, which is there already, expected a new one (or force=True)"
            )
    found = live_server.look()
    whole = live_server.pillar(found, secrets=True)
    shown = live_server.pillar(found, secrets=False)
    errors = []
    if found["sites"]:
        errors = __salt__["site_pillar.check"](salt.utils.yaml.safe_load(whole))
        if path is not None:
            durable_file.write(path, whole if secrets else shown, mode="0600")
    left = [] if secrets else live_server.left_out(found)
    return {
        "report": live_server.report(found),
        "pillar": shown,
        "errors": [
            f"{one['path']}: found {one['found']}, expected {one['expected']}"
            + (f" ({one['hint']})" if one["hint"] else "")
            for one in errors
        ],
        "secrets": left,
        "written": path if found["sites"] else None,
    }


# --- The host in short -----------------------------------------------------------------------------


def report(dry_run: bool = False, ask: bool = True, patience: float = 30) -> dict[str, Any]:
    """
    The host in short: what there is, what runs, how it does, and what is to be done about it.

    It costs one question to systemd for all sites, and with ``ask`` two requests for each, many at
    the same time. It works, too, on a host that the formula was never applied to and on one whose
    pillar is not valid; it then says so.

    dry_run
        make a dry run of the formula, too: the one thing that tells truly what a run would change
    ask
        False: the sites are not asked for anything
    patience
        seconds for all requests together

    Returns a dictionary: ``id``, ``salt``, ``os``; ``nginx`` (``version``, ``running``, ``current``:
    whether it runs what is on the disk); ``uwsgi`` (the versions that run); ``sites`` by name, each with
    ``generation`` and ``release`` (their digests), ``uwsgi``, ``since``, ``socket``, ``queue``
    (connections that wait), ``health`` (``nginx`` and ``socket``: the status that is answered there,
    or why none is; None when not asked), ``healthy`` and ``certificate`` (``not_after``,
    ``days_left``; None without TLS); ``leftovers`` (sites that the pillar does not name); ``pending``
    (None without ``dry_run``; else ``changes`` and ``failed``); ``drift`` (by path or unit, what
    somebody else changed since the formula was last applied); ``errors`` and ``warnings``
    (sentences), and ``verdict``: ``error``, ``warning``, ``pending``, ``well``, or ``unmanaged`` where
    neither the pillar nor the host has anything of the formula's.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_uwsgi_django.report
        salt '*' nginx_uwsgi_django.report dry_run=True
    """
    answer: dict[str, Any] = {
        "id": __grains__["id"],
        "salt": __grains__["saltversion"],
        "os": f"{__grains__['os']} {__grains__['osrelease']}",
        "nginx": {"version": None, "running": None, "current": None},
        "uwsgi": [],
        "sites": {},
        "leftovers": [],
        "pending": None,
        "drift": {},
        "errors": [],
        "warnings": [],
    }
    try:
        answer["nginx"]["version"] = nginx_program.version()
    except CommandExecutionError:
        answer["nginx"]["version"] = None
    try:
        sites = __salt__["site_pillar.settings"]()["sites"]
    except CommandExecutionError as error:
        said = "nginx_uwsgi_django" in __pillar__ or "_errors" in __pillar__
        answer["errors" if said else "warnings"].append(f"{error}")
        sites = None
    try:
        _look(answer, sites, ask, patience)
        if dry_run and sites is not None:
            _foretell(answer)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        answer["errors"].append(f"{error}")
    for kind in ("errors", "warnings"):
        more = len(answer[kind]) - _MOST
        answer[kind] = [_short(words) for words in answer[kind][:_MOST]]
        if more > 0:
            answer[kind].append(f"and {more} more")
    answer["verdict"] = _verdict(answer, unmanaged=sites is None)
    return answer


def _verdict(answer: dict[str, Any], unmanaged: bool) -> str:
    if answer["errors"]:
        return "error"
    if unmanaged:
        return "unmanaged"
    if answer["warnings"]:
        return "warning"
    return "pending" if (answer["pending"] or {}).get("changes") else "well"


def _short(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= _WORDS else line[: _WORDS - 1] + "…"


def _look(answer: dict[str, Any], sites: dict[str, Any] | None, ask: bool, patience: float) -> None:
    """Fill a report with what can be seen without a run."""
    units = _units_of_sites(sites or {})
    if sites is None:
        # What runs does so whatever becomes of the pillar.
        for name, there in units.items():
            if _running(there):
                answer["sites"][name] = _seen(there)
        if answer["sites"] and not answer["errors"]:
            answer["errors"].append("sites of the formula's run here, and it has no pillar")
        return
    present = {name: site for name, site in sites.items() if not site["absent"]}
    for name in present:
        answer["sites"][name] = _seen(units.get(name, {}))
    _look_at_nginx(answer, bool(present))
    _look_at_files(answer, present, units)
    if answer["nginx"]["version"] is not None:
        answer["errors"] += __salt__["takeover.reverted"]().values()
        answer["warnings"] += __salt__["takeover.remains"]()
    if ask:
        _look_at_health(answer, present, patience)
    for name, end in __salt__["site_certificate.ends"]().items():
        answer["sites"][name]["certificate"] = end
        if "error" in end:
            answer["errors"].append(f"{name}: {end['error']}")
        elif end["days_left"] < 0:
            answer["errors"] += __salt__["site_certificate.flaws"](name)
        elif end["placeholder"]:
            answer["warnings"].append(
                f"{name}: its certificate is self-signed, the first is to come"
            )
        elif end["days_left"] < _DAYS:
            answer["warnings"].append(f"{name}: its certificate ends at {end['not_after']}")
        if "error" not in end and end["days_left"] >= 0:
            answer["warnings"] += __salt__["site_certificate.flaws"](name)
        if withheld := __salt__["site_certificate.withheld"](name):
            answer["errors"].append(withheld)
    going = [name for name in sites if name not in present and name in units]
    answer["leftovers"] = sorted({*__salt__["site_leftovers.found"](), *going})
    if answer["leftovers"]:
        answer["warnings"].append(
            f"sites that are not to be here: {', '.join(answer['leftovers'])}"
        )


def _units_of_sites(sites: dict[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """The units of all sites: by site, by socket, anchor and digest."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    # A pattern stands for what systemd has in memory, and it forgets what is stopped.
    names = ["uwsgi-*.socket", "uwsgi-*.service", *(f"uwsgi-{name}.socket" for name in sites)]
    shown = __salt__["systemd_unit.show"](names, _PROPERTIES)
    for unit, properties in shown.items():
        match = _UNIT.fullmatch(unit)
        # Systemd knows the names of units, too, that others only speak of.
        if match and properties.get("LoadState") != "not-found":
            key = match[2] or {"socket": "socket", "service": "anchor"}[match[3]]
            found.setdefault(match[1], {})[key] = properties
    return found


def _generations(there: dict[str, dict[str, str]]) -> list[str]:
    return [key for key in there if key not in ("socket", "anchor")]


def _enabled(unit: dict[str, str]) -> bool:
    return unit.get("UnitFileState") in ("enabled", "enabled-runtime")


def _running(there: dict[str, dict[str, str]]) -> list[str]:
    """The generations of a site that run, the youngest last."""
    up = [key for key in _generations(there) if there[key].get("ActiveState") == "active"]
    return sorted(up, key=lambda key: _since(there[key]))


def _since(unit: dict[str, str]) -> float:
    return systemd.seconds(unit.get("ActiveEnterTimestamp", "")) or 0


def _seen(there: dict[str, dict[str, str]]) -> dict[str, Any]:
    up = _running(there)
    held = there.get("socket", {})
    since = _since(there[up[-1]]) if up else None
    return {
        "generation": up[-1] if up else None,
        "release": None,
        "uwsgi": None,
        "since": since and time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since)),
        "socket": held.get("ActiveState", "not there"),
        "queue": None,
        "health": {"nginx": None, "socket": None},
        "healthy": None,
        "certificate": None,
    }


def _look_at_nginx(answer: dict[str, Any], needed: bool) -> None:
    if answer["nginx"]["version"] is None:
        if needed:
            answer["errors"].append("nginx is not installed")
        return
    told = __salt__["nginx_process.status"](lines=0)
    current = told["config_current"] and told["binary_current"]
    answer["nginx"].update(running=told["running"], current=current)
    if needed and not told["running"]:
        answer["errors"].append("nginx does not run")
    elif needed and not told["enabled"]:
        answer["warnings"].append("nginx would not start after a reboot")
    if told["stale"]:
        answer["warnings"].append(f"nginx does not run what is on the disk: {told['stale']}")


def _look_at_files(
    answer: dict[str, Any], sites: dict[str, Any], units: dict[str, dict[str, dict[str, str]]]
) -> None:
    """What of the formula's somebody else has changed, and what runs other than it should."""
    drift = answer["drift"]
    if answer["nginx"]["version"] is not None:
        drift.update(__salt__["nginx_tree.drift"]())
    for name in sites:
        there, seen = units.get(name, {}), answer["sites"][name]
        digest = seen["generation"]
        if not there:
            answer["errors"].append(f"{name}: the formula has not made it here yet")
            continue
        if there.get("socket", {}).get("ActiveState") != "active":
            answer["errors"].append(f"{name}: systemd does not hold its socket")
        if digest is None:
            answer["errors"].append(f"{name}: no generation of uWSGI runs")
            # What was edited in the one that should may tell why.
            digest = next((key for key in _generations(there) if _enabled(there[key])), None)
        for key, unit in there.items():
            if key in ("socket", "anchor", digest) and unit.get("DropInPaths"):
                drift.update(dict.fromkeys(unit["DropInPaths"].split(), "changes a unit"))
        if digest is None:
            continue
        made = __salt__["uwsgi_status.made_of"](name, digest)
        seen["release"] = made["release"]
        drift.update(made["drift"])
        link = os.path.join(sites[name]["project"]["path"], "current")
        if sites[name]["project"]["source"] and made["release"]:
            live = os.path.basename(os.readlink(link)) if os.path.islink(link) else None
            if live != made["release"]:
                drift[link] = f"leads to {live}" if live else "is gone"
        if not all(_enabled(there.get(key, {})) for key in ("socket", "anchor", digest)):
            answer["warnings"].append(f"{name}: it would not start after a reboot")
        if len(_running(there)) > 1:
            answer["warnings"].append(f"{name}: {len(_running(there))} generations run")
        if there[digest].get("NRestarts", "0") != "0":
            answer["warnings"].append(
                f"{name}: its uWSGI has died and was started again, {there[digest]['NRestarts']} times"
            )
    if drift:
        answer["warnings"].append(
            f"changed by somebody else: {', '.join(f'{path} {what}' for path, what in drift.items())}"
        )


def _look_at_health(answer: dict[str, Any], sites: dict[str, Any], patience: float) -> None:
    names = [name for name in sites if answer["sites"][name]["generation"]]
    began = time.monotonic()
    stats = uwsgi_protocol.together(
        [
            {"socket_path": f"/run/uwsgi-{name}@{answer['sites'][name]['generation']}/stats.sock"}
            for name in names
        ],
        _AT_ONCE,
        patience,
    )
    for name, told in zip(names, stats, strict=True):
        answer["sites"][name]["uwsgi"] = told.get("version")
    answer["uwsgi"] = sorted({seen["uwsgi"] for seen in answer["sites"].values()} - {None})
    with cache.session():
        for name in names:
            path = sites[name]["socket"]["path"]
            answer["sites"][name]["queue"] = unix_socket.waiting(path)
    left = max(1, patience - (time.monotonic() - began))
    # Not those without a generation, where nobody answers, and their visitors wait.
    health = __salt__["site_health.ask"](names, left, only=names)
    for name in sites:
        seen = answer["sites"][name]
        seen["healthy"] = False
        if name not in health:
            continue
        asked = health[name]
        seen["health"] = {
            "nginx": asked["status"] or asked["answer"],
            "socket": asked["uwsgi"],
        }
        seen["healthy"] = asked["healthy"]
        # Where nginx does not run that is the error, once for all sites.
        if asked["why"] and (answer["nginx"]["running"] or not asked["uwsgi_healthy"]):
            answer["errors"].append(f"{name}: {asked['why']}")


def _foretell(answer: dict[str, Any]) -> None:
    """What a run of the formula would change."""
    returned = __salt__["state.apply"]("nginx_uwsgi_django", test=True, queue=_QUEUE)
    # A dry run that fails is an answer, not the failure of this job.
    __context__.pop("retcode", None)
    changes: list[str] = []
    failed: list[str] = []
    if isinstance(returned, dict):
        # By tag, STATE_|-ID_|-NAME_|-FUNCTION: a state that runs others gives them its own __id__,
        # and says no more of them than they do.
        rows = [
            (tag.split("_|-")[1], row) for tag, row in returned.items() if isinstance(row, dict)
        ]
        told = {row.get("__id__") for label, row in rows if row.get("__id__") != label}
        for label, row in sorted(rows, key=lambda one: one[1].get("__run_num__", 0)):
            if label in told:
                continue
            if row.get("result") is False:
                failed.append(_short(f"{label}: {row.get('comment', '')}"))
            elif row.get("result") is None or row.get("changes"):
                changes.append(label)
    else:
        failed = [_short(str(line)) for line in returned]
    answer["pending"] = {"changes": changes, "failed": failed}
    answer["errors"] += [f"a run would fail: {words}" for words in failed]
