"""
The formula applied by a timer: a masterless host that nobody visits comes back to its pillar.

A ``oneshot`` service runs the salt-call that this very Salt belongs to, with the configuration in
use now, and a timer starts it. Two runs never overlap: systemd starts no service twice, and Salt
refuses a second state run over the same cache directory. What a run said lies in the service's
runtime directory until the next one, or until a boot, as what systemd knows of it does.

.. versionadded:: 0.1.0
"""

import datetime
import json
import os
import shutil
import sys
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import durable_file, systemd, systemd_units

__virtualname__ = "scheduled_apply"

_FORMULA = "nginx_uwsgi_django"
_UNIT = "nginx-uwsgi-django-apply"
_SERVICE = f"{_UNIT}.service"
_TIMER = f"{_UNIT}.timer"
_REPORT = f"/run/{_UNIT}/report.json"
_HEAD = f"# Managed by the Salt formula {_FORMULA} (its schedule).\n"
# What does not outlive the run: no timer can stand on it.
_FLEETING = ("/tmp/", "/var/tmp/", "/run/", "/dev/shm/")


def __virtual__() -> str:
    return __virtualname__


def _settings() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()


def wanted() -> bool:
    """
    Whether the pillar asks for runs by a timer (``schedule:minutes``).

    Returns True or False.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt-call scheduled_apply.wanted
    """
    return _settings()["schedule"]["minutes"] is not None


def _lasting(path: str, what: str) -> str:
    if os.path.realpath(path).startswith(_FLEETING):
        raise CommandExecutionError(
            f"schedule:minutes: {what} is {path}, which does not last; a timer needs a Salt and a "
            "configuration that stay (expected: a masterless minion's, as under /etc/salt)"
        )
    return path


def _salt_call() -> str:
    """The salt-call beside the program that runs now, be that salt-call or salt-minion."""
    # The order is the same for both programs, and so is the unit, whoever applies it.
    for program in (shutil.which(sys.argv[0]), sys.executable):
        if program:
            found = os.path.join(os.path.dirname(os.path.abspath(program)), "salt-call")
            if os.access(found, os.X_OK):
                return _lasting(found, "salt-call")
    raise CommandExecutionError(
        f"schedule:minutes: there is no salt-call beside {sys.argv[0]} or {sys.executable}, which "
        "run now; expected one for the timer to start"
    )


def command() -> list[str]:
    """
    What the service runs: this Salt's salt-call, with the configuration in use now.

    The option ``scheduled_apply_config`` of a minion's configuration names another directory to
    use: for a configuration that is written for one run, as that of ``bin/apply``.

    Returns a list of words.

    Raises CommandExecutionError when this minion takes its states from a master (whose rollouts a
    host that applies by itself would overtake), or when salt-call or the configuration is not
    there or does not last.

    CLI Example:

    .. code-block:: bash

        salt-call --local scheduled_apply.command
    """
    if __opts__.get("file_client") != "local":
        raise CommandExecutionError(
            "schedule:minutes: this minion takes its states from a master, which decides when a "
            "host changes; expected a masterless one (salt-call --local, or file_client: local)"
        )
    folder = __opts__.get("scheduled_apply_config")
    if not folder:
        folder = os.path.dirname(os.path.abspath(__opts__["conf_file"]))
        if not os.path.isfile(__opts__["conf_file"]):
            raise CommandExecutionError(
                f"schedule:minutes: this run has no configuration file, {__opts__['conf_file']} is "
                "not there; expected one that a later run finds, with file_roots and pillar_roots"
            )
    return [
        _salt_call(),
        "--local",
        f"--config-dir={_lasting(folder, 'the configuration')}",
        "--retcode-passthrough",
        "--log-level=warning",
        "--out=json",
        f"--out-file={_REPORT}",
        "state.apply",
        _FORMULA,
        # Whatever the configuration says: a run that waits is one that the timer would repeat.
        "queue=False",
    ]


def files() -> dict[str, str]:
    """
    The unit files that the pillar asks for.

    Returns a mapping from path to content: of the service and of the timer where the pillar has
    ``schedule:minutes``, else an empty one.

    Raises CommandExecutionError as :py:func:`command` does.

    CLI Example:

    .. code-block:: bash

        salt-call --local scheduled_apply.files
    """
    if not wanted():
        return {}
    schedule = _settings()["schedule"]
    escape = systemd.escape
    words = " ".join(escape(word, command=True) for word in command())
    # No UMask=: it would be that of everything the states make.
    # A run that hangs would hold the lock for ever; `oneshot` has no limit of its own.
    service = f"""{_HEAD}[Unit]
Description=Apply the Salt formula {_FORMULA} to this host
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={words}
RuntimeDirectory={_UNIT}
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
TimeoutStartSec=2h
"""
    # OnActiveSec= is for the first run since a boot, as no service has ended then.
    timer = f"""{_HEAD}[Unit]
Description=Apply the Salt formula {_FORMULA} to this host every {schedule["minutes"]} minutes

[Timer]
OnActiveSec={schedule["minutes"]}min
OnUnitInactiveSec={schedule["minutes"]}min
RandomizedDelaySec={schedule["splay"]}min

[Install]
WantedBy=timers.target
"""
    return {_path(_SERVICE): service, _path(_TIMER): timer}


def _path(unit: str) -> str:
    return os.path.join(_settings()["lookup"]["unit_dir"], unit)


def _check_owner(path: str) -> bool:
    """Whether the unit file is there; one of somebody else's is an error."""
    if not os.path.lexists(path):
        return False
    if not (durable_file.read(path) or b"").startswith(_HEAD.encode()):
        raise CommandExecutionError(
            f"{path} is there and not this formula's; expected no unit of that name"
        )
    return True


def diff(keep: bool = True) -> dict[str, Any]:
    """
    What of the schedule differs from the pillar.

    keep
        False: all of it is to go, whatever the pillar says

    Returns a mapping from a path or ``timer`` to ``old`` and ``new``; empty when nothing differs.

    Raises CommandExecutionError as :py:func:`command` does, or when a unit of that name is not the
    formula's.

    CLI Example:

    .. code-block:: bash

        salt-call --local scheduled_apply.diff
    """
    target = files() if keep else {}
    found: dict[str, Any] = {}
    for path in (_path(_SERVICE), _path(_TIMER)):
        there = _check_owner(path)
        if path not in target:
            if there:
                found[path] = {"old": "present", "new": None}
        elif durable_file.differs(path, target[path]):
            old = durable_file.read(path) if there else None
            found[path] = {"old": old.decode() if old else None, "new": target[path]}
    if not target and not found and not systemd_units.runs(_TIMER):
        return {}
    asked = ["LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload"]
    units = systemd_units.show([_SERVICE, _TIMER], asked)
    timer = units[_TIMER]
    state = f"{timer['UnitFileState'] or 'disabled'}, {timer['ActiveState']}"
    if target:
        if state != "enabled, active":
            found["timer"] = {"old": state, "new": "enabled, active"}
        elif any(unit["NeedDaemonReload"] == "yes" for unit in units.values()):
            found["timer"] = {"old": "of an older unit file", "new": "of the one on disk"}
    # A unit whose file a killed run has removed still runs its timer.
    elif timer["ActiveState"] != "inactive":
        found["timer"] = {"old": state, "new": None}
    return found


def ensure(keep: bool = True) -> None:
    """
    Bring the schedule to what the pillar says. A run that is under way, perhaps this very one,
    goes on to its end.

    keep
        as in :py:func:`diff`

    Raises CommandExecutionError with the message of systemctl, or as :py:func:`diff` does.

    CLI Example:

    .. code-block:: bash

        salt-call --local scheduled_apply.ensure
    """
    target = files() if keep else {}
    there = [path for path in (_path(_SERVICE), _path(_TIMER)) if _check_owner(path)]
    if target:
        for path, text in target.items():
            durable_file.write(path, text)
        systemd_units.daemon_reload()
        systemd_units.enable(_TIMER)
        systemd_units.start(_TIMER)
        return
    timer = systemd_units.show(_TIMER, ["ActiveState"])[_TIMER]
    if timer["ActiveState"] != "inactive":
        systemd_units.stop(_TIMER)
    if _path(_TIMER) in there:
        systemd_units.disable(_TIMER)
    running = _running()
    # The timer's last: with it gone, nothing of the schedule is left.
    for path in there:
        durable_file.remove(path)
    systemd_units.daemon_reload()
    if not running:
        systemd_units.reset_failed(_SERVICE)
        durable_file.remove(_REPORT)
        if os.path.isdir(os.path.dirname(_REPORT)):
            os.rmdir(os.path.dirname(_REPORT))


def _running() -> bool:
    state = systemd_units.show(_SERVICE, ["ActiveState"])[_SERVICE]["ActiveState"]
    return state == "activating"


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="seconds")


def last() -> dict[str, Any]:
    """
    What the last run by the timer did.

    Returns a dictionary: ``scheduled`` (whether the timer is set), ``running`` (whether a run is
    under way), ``began`` and ``ended`` (UTC, ISO 8601; None before the first run since the boot,
    ``ended`` also while one runs), ``result`` (True, False, None where there is none yet),
    ``states`` (how many), ``changed`` (their IDs), ``failed`` (IDs with their comments), ``errors``
    (what kept the states from running at all, in Salt's or systemd's words).

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt-call --local scheduled_apply.last
    """
    units = systemd_units.show(
        [_SERVICE, _TIMER],
        [
            "ActiveState",
            "ExecMainStartTimestamp",
            "ExecMainExitTimestamp",
            "InvocationID",
            "Result",
            "ExecMainStatus",
        ],
    )
    service = units[_SERVICE]
    seconds = systemd.seconds
    began = seconds(service.get("ExecMainStartTimestamp", ""))
    running = service["ActiveState"] == "activating"
    answer: dict[str, Any] = {
        "scheduled": units[_TIMER]["ActiveState"] == "active",
        "running": running,
        "began": _moment(began),
        "ended": None if running else _moment(seconds(service.get("ExecMainExitTimestamp", ""))),
        "result": None,
        "states": 0,
        "changed": [],
        "failed": {},
        "errors": [],
    }
    if began is None or running:
        return answer
    answer["result"] = service["Result"] == "success"
    said = _said(began)
    if isinstance(said, dict):
        states = sorted(said.items(), key=lambda item: item[1].get("__run_num__", 0))
        answer["states"] = len(states)
        for tag, state in states:
            # The tag is STATE_|-ID_|-NAME_|-FUNCTION; of a state that was not reached, or that
            # another one ran, it alone has the ID.
            title = tag.split("_|-")[1]
            if state.get("changes"):
                answer["changed"].append(title)
            if state.get("result") is False:
                answer["failed"][title] = str(state.get("comment", ""))
    elif said is not None:
        answer["errors"] = [str(one) for one in (said if isinstance(said, list) else [said])]
    else:
        end = f"{_SERVICE}: {service['Result']}, exit code {service.get('ExecMainStatus', '')}"
        answer["errors"] = [
            end,
            *systemd_units.journal(_SERVICE, 20, service["InvocationID"]),
        ]
    return answer


def _said(began: float) -> Any:
    """What the run that began then has printed; None when it ended without a word."""
    content = durable_file.read(_REPORT)
    # File times come from a clock that may be a tick (up to 10 ms) behind.
    if not content or os.lstat(_REPORT).st_mtime < began - 0.02:
        return None
    try:
        return json.loads(content)["local"]
    except (ValueError, KeyError, TypeError):
        return None
