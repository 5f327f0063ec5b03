"""
Companions of a site: the workers and timers that belong to it besides its uWSGI.

Each is a unit ``django-SITE.NAME.service`` (the dot cannot be part of a site's name) of the very
release, virtual environment, environment and sandbox that the site's generation has, by their
concrete paths; a scheduled one is a ``oneshot`` with a timer of the same name. A digest of all that
is in its description. Whether a companion is as it should be is read from the host: its unit's
text, and whether its process is younger than the files it was started from. So one whose digest is
the same is never restarted, and a run that was killed anywhere is finished by the next.

They come after the switch: a companion that does not come up is a failure of its own, and what is
served is not touched by it.

.. versionadded:: 0.1.0
"""

import hashlib
import json
import os
import re
import shlex
import time
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import cache, durable_file, executables, redaction, site_plan, systemd, uwsgi_unit

__virtualname__ = "site_companion"
__func_alias__ = {"list_": "list"}

# Goes into every digest: another number restarts every companion.
_FORMAT = 1

# Stands for the digest in the text that the digest is made of.
_DIGEST = "@DIGEST@"

_PROPERTIES = [
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "ExecMainStartTimestamp",
    "ExecMainStatus",
    "InvocationID",
    "DropInPaths",
    "Result",
    "NextElapseUSecRealtime",
]

# The longest that the pillar lets a companion take to stop; systemd keeps to each one's own.
_STOP_LIMIT = 3600


def __virtual__() -> str:
    return __virtualname__


# --- What shall be -----------------------------------------------------------------------------


def _lookup() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()["lookup"]


def _path(unit: str) -> str:
    return f"{_lookup()['unit_dir']}/{unit}"


def _environment_path(name: str) -> str:
    return f"{_lookup()['state_dir']}/companions/{name}.env"


def _argv(site: dict[str, Any], venv: str, release: str) -> dict[str, list[str]]:
    """The command lines, by companion: the first word is an absolute path."""
    found = {}
    for companion, wanted in site["companions"].items():
        command = wanted["command"]
        first, *rest = command if isinstance(command, list) else shlex.split(command)
        if first == "manage.py":
            # What manage.py does, wherever it is; the settings are in the environment.
            program = [os.path.join(venv, "bin", "python"), "-m", "django"]
        elif "/" in first:
            program = [os.path.join(release, first)]
        else:
            program = [os.path.join(venv, "bin", first)]
        found[companion] = [*program, *rest]
    return found


def _texts(
    plan: site_plan.Plan, companion: str, argv: list[str], confinement: list[str]
) -> dict[str, str]:
    """The units of a companion, by name."""
    site, release = plan.site, plan.release["path"]
    name, project, wanted = site["name"], site["project"], site["companions"][companion]
    escape = systemd.escape
    stem = f"django-{name}.{companion}"
    description = f'Description=Django site "{name}": {companion}, {_DIGEST}'
    if wanted["schedule"] is None:
        kind = ["Type=exec", "Restart=always", "RestartSec=5"]
    else:
        # What systemd takes for the time of a start is here the time of the whole run.
        kind = ["Type=oneshot", f"TimeoutStartSec={wanted['time_limit'] or 'infinity'}"]
    service = [
        "[Unit]",
        description,
        "After=network.target",
        "After=postgresql.service mariadb.service mysql.service redis-server.service",
        "After=rabbitmq-server.service",
        # It is tried for ever, so that a broker that comes back finds it.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *kind,
        f"User={project['user']}",
        f"Group={project['group']}",
        f"WorkingDirectory={escape(release)}",
        f"EnvironmentFile={escape(_environment_path(name))}",
        f"ExecStart={' '.join(escape(word, command=True) for word in argv)}",
        # The signal to the first process alone, which tells its children what they are to finish.
        "KillMode=mixed",
        f"KillSignal={wanted['stop_signal']}",
        f"TimeoutStopSec={wanted['stop_timeout']:d}",
        "OOMPolicy=continue",
        f"SyslogIdentifier={stem}",
        *confinement,
        "",
    ]
    if wanted["schedule"] is None:
        service += ["[Install]", "WantedBy=multi-user.target", ""]
        return {f"{stem}.service": "\n".join(service)}
    timer = [
        "[Unit]",
        description,
        "",
        "[Timer]",
        f"OnCalendar={escape(wanted['schedule'])}",
        "",
        "[Install]",
        "WantedBy=timers.target",
        "",
    ]
    return {f"{stem}.service": "\n".join(service), f"{stem}.timer": "\n".join(timer)}


def _environment(name: str, release: str | None) -> str:
    values = __salt__["site_plan.environment"](name, release)
    return uwsgi_unit.environment_file(values)


def _wanted(name: str, identity: str | None = None) -> dict[str, dict[str, Any]]:
    """
    The companions that the pillar asks for, of the desired release or of another one, each with its
    digest, its units and its program.
    """
    site = __salt__["site_pillar.site"](name)
    if not site["companions"]:
        return {}
    plan = __salt__["site_plan.of"](name, identity)
    release, venv = plan.release, plan.venv
    environment = hashlib.sha256(_environment(name, identity).encode()).hexdigest()
    confinement = __salt__["uwsgi_generation.confinement"]
    found = {}
    for companion, argv in _argv(site, venv["path"], release["path"]).items():
        limits = site["companions"][companion]["limits"]
        texts = _texts(plan, companion, argv, confinement(name, limits, identity))
        parts = [
            _FORMAT,
            texts,
            environment,
            release["id"],
            venv["digest"],
            [executables.content(argv[0]), executables.content(venv["binary"])],
        ]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        found[companion] = {
            "digest": digest,
            "program": argv[0],
            "venv": venv["path"],
            "units": {unit: text.replace(_DIGEST, digest) for unit, text in texts.items()},
            **site["companions"][companion],
        }
    return found


# --- What is -----------------------------------------------------------------------------------


def _named() -> dict[str, list[tuple[str, str]]]:
    """The unit files whose names are those of companions, by site."""
    pattern = re.compile(r"django-([^.]+)\.([a-z][a-z0-9_-]{0,30})\.(?:service|timer)")
    found: dict[str, list[tuple[str, str]]] = {}
    for unit in cache.entries(_lookup()["unit_dir"]):
        if match := pattern.fullmatch(unit):
            found.setdefault(match[1], []).append((unit, match[2]))
    return found


def _there(name: str, wanted: Any = ()) -> dict[str, list[str]]:
    """
    The units of companions on the host, by companion, a timer last.

    Raises CommandExecutionError when one of a wanted companion's is somebody else's.
    """
    found: dict[str, list[str]] = {}
    for unit, companion in cache.once(("companions",), _named).get(name, []):
        text = durable_file.read(_path(unit)) or b""
        if f'Django site "{name}"'.encode() in text:
            found.setdefault(companion, []).append(unit)
        elif companion in wanted:
            raise CommandExecutionError(
                f"{_path(unit)} is there and not this formula's; the companion {companion} "
                f"(nginx_uwsgi_django:sites:{name}:companions) needs a name that is free"
            )
    return found


def _digest_of(units: list[str]) -> str | None:
    """The digest that a companion on the host was made with."""
    for unit in units:
        text = (durable_file.read(_path(unit)) or b"").decode("utf-8", "replace")
        match = re.search(r"^Description=.*, ([0-9a-f]{12})$", text, re.MULTILINE)
        if match:
            return match[1]
    return None


def _outdated(name: str, unit: str, shown: dict[str, str]) -> bool:
    """Whether a process is older than a file that it was started from."""
    since = systemd.seconds(shown["ExecMainStartTimestamp"])
    files = [_path(unit), _environment_path(name), *shown["DropInPaths"].split()]
    return since is not None and any(
        os.stat(path).st_ctime > since for path in files if os.path.lexists(path)
    )


def _lacking(name: str, wanted: dict[str, Any], shown: dict[str, dict[str, str]]) -> str | None:
    """What a companion whose files are right is instead of what it should be."""
    units = list(wanted["units"])
    # A scheduled one's service runs when its timer says so, and to the end.
    first = shown[units[-1]]
    if first["ActiveState"] != "active":
        return first["ActiveState"]
    if any(shown[unit]["NeedDaemonReload"] == "yes" for unit in units):
        return "of an older unit"
    return "older than its files" if len(units) == 1 and _outdated(name, units[0], first) else None


def _compare(
    name: str, wanted: dict[str, dict[str, Any]], release: str | None = None
) -> dict[str, dict[str, Any]]:
    """
    What is to be done, by companion: ``old`` and ``new``, whether what is there has to go first
    (``retire``), and whether the new one is to be started anew (``start``).
    """
    there = _there(name, wanted)
    if not wanted and not there:
        return {}
    units = {unit for one in wanted.values() for unit in one["units"]}
    shown = __salt__["systemd_unit.show"](sorted(units), _PROPERTIES) if units else {}
    differs = durable_file.differs
    todo: dict[str, dict[str, Any]] = {}
    for companion in sorted({*wanted, *there}):
        files = there.get(companion, [])
        old = _digest_of(files)
        if companion not in wanted:
            todo[companion] = {"old": old, "new": None, "retire": True, "start": False}
            continue
        one = wanted[companion]
        # A worker that became a scheduled one, or the other way round.
        retire = bool(files) and set(files) != set(one["units"])
        right = not any(differs(_path(unit), text) for unit, text in one["units"].items())
        condition = _lacking(name, one, shown) if right else None
        start = condition is not None or not right
        if not start and shown[list(one["units"])[-1]]["UnitFileState"] != "enabled":
            condition = "not enabled"
        if start or condition:
            before = f"{old}, {condition}" if old and condition else old
            todo[companion] = {
                "old": before,
                "new": one["digest"],
                "retire": retire,
                "start": start,
            }
    if wanted and differs(_environment_path(name), _environment(name, release), mode="0600"):
        for companion in wanted:
            new = wanted[companion]["digest"]
            old = _digest_of(there.get(companion, []))
            todo.setdefault(companion, {"old": old, "new": new, "retire": False})["start"] = True
    return todo


def _missing(name: str, wanted: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Companions whose program is not there, with a sentence."""
    return {
        companion: f"{one['program']} is not there or not executable "
        f"(nginx_uwsgi_django:sites:{name}:companions:{companion}:command)"
        for companion, one in wanted.items()
        if os.path.isdir(one["venv"]) and not os.access(one["program"], os.X_OK)
    }


def diff(name: str) -> dict[str, Any]:
    """
    How the companions of a site differ from the pillar: those of the pillar, and no others, are to be
    enabled, and to run or have their timer.

    name
        the site

    Returns ``changes`` (a mapping from a companion to ``old`` and ``new``, digests; empty when nothing
    differs) and ``errors`` (a mapping from companions that cannot run to sentences).

    Raises CommandExecutionError when the project is not there, or a unit of that name is somebody
    else's.

    CLI Example:

    .. code-block:: bash

        salt '*' site_companion.diff mysite
    """
    wanted = _wanted(name)
    errors = _missing(name, wanted)
    return {"changes": _changes(_compare(name, wanted), errors), "errors": errors}


def _changes(todo: dict[str, dict[str, Any]], errors: dict[str, str]) -> dict[str, Any]:
    return {
        companion: {"old": one["old"], "new": one["new"]}
        for companion, one in todo.items()
        if companion not in errors
    }


def list_(name: str) -> list[dict[str, Any]]:
    """
    The companions of a site that are on the host.

    name
        the site

    Returns a list of dictionaries: ``companion``, ``unit``, ``digest``, ``state`` (of its service,
    as systemd calls it), ``result`` (of its last run: ``success``, or what went wrong) and
    ``next`` (when a scheduled one runs next; None for others).

    CLI Example:

    .. code-block:: bash

        salt '*' site_companion.list mysite
    """
    there = _there(name)
    if not there:
        return []
    units = [unit for files in there.values() for unit in files]
    shown = __salt__["systemd_unit.show"](units, _PROPERTIES)
    return [
        {
            "companion": companion,
            "unit": files[0],
            "digest": _digest_of(files),
            "state": shown[files[0]]["ActiveState"],
            "result": shown[files[0]]["Result"],
            "next": shown[files[-1]].get("NextElapseUSecRealtime") or None,
        }
        for companion, files in there.items()
    ]


# --- From what is to what shall be -------------------------------------------------------------


def ensure(name: str, release: str | None = None) -> dict[str, Any]:
    """
    Make the companions of a site run as the pillar asks, of the release that it asks for: the new
    ones are started, those whose digest differs are asked to finish their work and started anew,
    those that the pillar does not name are stopped and removed. What is right is left alone; a
    scheduled run that is under way ends by itself.

    name
        the site
    release
        the ID of a release on the host to run instead of the desired one

    Returns ``changes`` and ``errors``, as :py:func:`diff` does; an error says how a companion
    ended within its ``settle`` seconds, with its last lines of the journal. systemd goes on
    trying to start it.

    Raises CommandExecutionError as :py:func:`diff` does, or with the words of systemctl.

    CLI Example:

    .. code-block:: bash

        salt '*' site_companion.ensure mysite
    """
    with __salt__["release_record.alone"](name, "site_companion.ensure"):
        return _ensure(name, release)


def _ensure(name: str, release: str | None) -> dict[str, Any]:
    wanted = _wanted(name, release)
    todo = _compare(name, wanted, release)
    errors = _missing(name, wanted)
    changes = _changes(todo, errors)
    todo = {companion: todo[companion] for companion in changes}
    there = _there(name)
    _retire([unit for each, one in todo.items() if one["retire"] for unit in there[each]])
    coming = {companion: wanted[companion] for companion in todo if companion in wanted}
    write = durable_file.write
    if coming:
        path = _environment_path(name)
        durable_file.directory(os.path.dirname(path), mode="0700")
        write(path, _environment(name, release), mode="0600")
    for one in coming.values():
        for unit, text in one["units"].items():
            write(_path(unit), text)
    if not wanted:
        durable_file.remove(_environment_path(name))
    if coming:
        __salt__["systemd_unit.daemon_reload"]()
        leading = {list(one["units"])[-1]: companion for companion, one in coming.items()}
        __salt__["systemd_unit.enable"](list(leading))
        starting = {unit: each for unit, each in leading.items() if todo[each]["start"]}
        if starting:
            errors.update(_start(name, starting, coming))
    return {"changes": changes, "errors": errors}


def _start(name: str, leading: dict[str, str], coming: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Start services and timers anew, all at once; which companions do not stay up, and why."""
    limit = max(one["stop_timeout"] for one in coming.values()) + 60
    said = None
    try:
        __salt__["systemd_unit.restart"](list(leading), timeout=limit)
    except CommandExecutionError as error:
        said = error
    now = time.monotonic()
    until = {
        unit: now + (coming[companion]["settle"] if unit.endswith(".service") else 0)
        for unit, companion in leading.items()
    }
    errors = _watch(name, until, leading)
    if said and not errors:
        raise said
    return errors


def _watch(name: str, until: dict[str, float], leading: dict[str, str]) -> dict[str, str]:
    show = __salt__["systemd_unit.show"]
    env = __salt__["site_pillar.site"](name)["project"]["env"]
    first = show(list(until), _PROPERTIES)
    waiting, errors = dict(until), {}
    while waiting:
        shown = show(list(waiting), _PROPERTIES)
        now = time.monotonic()
        for unit in list(waiting):
            invocation = first[unit]["InvocationID"]
            if shown[unit]["ActiveState"] != "active" or shown[unit]["InvocationID"] != invocation:
                lines = __salt__["systemd_unit.journal"](unit, 20, invocation or None)
                journal = "\n".join(f"  {line}" for line in lines or ["(none)"])
                errors[leading[unit]] = (
                    f"{unit} does not stay up ({shown[unit]['Result']}, exit status "
                    f"{shown[unit].get('ExecMainStatus', '')}); systemd goes on trying.\n"
                    "The journal's last lines:\n" + redaction.redact(env, journal)
                )
                del waiting[unit]
            elif now > waiting[unit]:
                del waiting[unit]
        if waiting:
            time.sleep(0.2)
    return errors


def _retire(units: list[str], later: bool = False) -> None:
    """Stop units, as gently as each of them says, and remove them."""
    if not units:
        return
    __salt__["systemd_unit.disable"](units, later=later)
    # First the timers, so that none starts what is just being stopped.
    for kind in (".timer", ".service"):
        some = [unit for unit in units if unit.endswith(kind)]
        if some:
            __salt__["systemd_unit.stop"](some, timeout=_STOP_LIMIT + 60)
        for unit in some:
            durable_file.remove(_path(unit))
    __salt__["systemd_unit.daemon_reload"](force=True, later=later)
    __salt__["systemd_unit.reset_failed"](units)


# --- None at all -------------------------------------------------------------------------------


def leftovers(name: str) -> list[str]:
    """
    The files on the host that belong to a site's companions.

    name
        the site; the pillar need not have it any more

    Returns the paths of units and of the environment file, empty when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' site_companion.leftovers mysite
    """
    found = [_path(unit) for files in _there(name).values() for unit in files]
    path = _environment_path(name)
    return [*found, path] if os.path.lexists(path) else found


def remove(name: str) -> bool:
    """
    Stop all companions of a site, each with the time that it was given for it, and remove them.

    name
        the site

    Returns True when something was removed.

    Raises CommandExecutionError when one does not stop.

    CLI Example:

    .. code-block:: bash

        salt '*' site_companion.remove mysite
    """
    if not leftovers(name):
        return False
    _retire([unit for files in _there(name).values() for unit in files], later=True)
    durable_file.remove(_environment_path(name))
    return True
