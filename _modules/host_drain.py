"""
A host that goes on serving and asks to be sent no more: the mark that a health location of nginx
looks for.

While ``/run/nginx_uwsgi_django/drain`` is there, a load balancer's health question is answered with
503, and every other request as before. The mark is one file, so that a person, Salt, a unit that
runs at shutdown and the operator's own tools can all set it, and whoever sees 503 finds the reason
in it. ``/run`` is empty after a boot: a host that comes back is no longer draining.

Where the pillar says so (``nginx:health:drain``), a unit sets the mark when the host shuts down, and
has it wait before nginx and the sites are stopped.

.. versionadded:: 0.1.0
"""

import os
import time
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import durable_file, systemd_units

__virtualname__ = "host_drain"

_MARK = "/run/nginx_uwsgi_django/drain"
_UNIT = "nginx-uwsgi-django-drain.service"
_HEAD = "# Managed by the Salt formula nginx_uwsgi_django (its nginx:health:drain).\n"


def __virtual__() -> str:
    return __virtualname__


def mark() -> str:
    """
    The file that means: send no more.

    Returns its absolute path.

    CLI Example:

    .. code-block:: bash

        salt '*' host_drain.mark
    """
    return _MARK


def start(reason: str = "by hand") -> bool:
    """
    Ask to be sent no more requests; those that come are still served.

    reason
        one line for whoever wonders later

    Returns True when the mark was set, False when the host was draining already: the first reason
    and its time stay.

    Raises SaltInvocationError when the reason is not one line; OSError as the system says it.

    CLI Example:

    .. code-block:: bash

        salt web1 host_drain.start 'new kernel'
    """
    if not reason.strip() or not reason.isprintable():
        raise SaltInvocationError(f"the reason is one line of text, not {reason!r}")
    if os.path.lexists(_MARK):
        return False
    # Anybody may look: nginx's workers do.
    durable_file.directory(os.path.dirname(_MARK))
    return durable_file.write(_MARK, f"{reason.strip()}\n")


def stop() -> bool:
    """
    Take requests again.

    Returns True when the mark was taken away, False when there was none.

    Raises OSError when something that is no file has its name.

    CLI Example:

    .. code-block:: bash

        salt web1 host_drain.stop
    """
    return durable_file.remove(_MARK)


def status() -> dict[str, Any]:
    """
    Whether the host is draining.

    Returns ``draining`` (True or False), ``reason`` (text; None when it is not draining) and
    ``seconds`` (since when; None when it is not draining).

    CLI Example:

    .. code-block:: bash

        salt '*' host_drain.status
    """
    try:
        since = os.lstat(_MARK).st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return {"draining": False, "reason": None, "seconds": None}
    # A mark that `touch` made is empty.
    reason = (durable_file.read(_MARK) or b"").decode("utf-8", "replace").strip()
    return {"draining": True, "reason": reason, "seconds": int(max(0, time.time() - since))}


# --- When the host shuts down -----------------------------------------------------------------


def _path() -> str:
    return os.path.join(__salt__["site_pillar.settings"]()["lookup"]["unit_dir"], _UNIT)


def unit() -> str | None:
    """
    The unit that drains the host before it shuts down.

    Returns its text; None where the pillar does not ask for it (``nginx:health:drain``).

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' host_drain.unit
    """
    health = __salt__["site_pillar.settings"]()["nginx"]["health"]
    if not health or not health["drain"]:
        return None
    # After= the target, so that it is stopped first: what the target wants is started before it and
    # stopped after it, nginx and every generation of a site among it (man systemd.target, Default
    # Dependencies; an explicit order takes the place of the implicit one).
    return f"""{_HEAD}[Unit]
Description=Answer health questions with 503 before this host shuts down
After=multi-user.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/mkdir -p -m 0755 {os.path.dirname(_MARK)}
ExecStop=/bin/sh -c '[ -e {_MARK} ] || echo "the host shuts down" > {_MARK}'
ExecStop=/bin/sleep {health["drain"]}
TimeoutStopSec={health["drain"] + 30}

[Install]
WantedBy=multi-user.target
"""


def diff(keep: bool = True) -> dict[str, Any]:
    """
    What differs from the pillar of the unit that drains before a shutdown.

    keep
        False: the unit is to go, whatever the pillar says

    Returns a mapping from a path or ``unit`` to ``old`` and ``new``; empty when nothing differs.

    Raises CommandExecutionError when a unit of that name is not the formula's.

    CLI Example:

    .. code-block:: bash

        salt '*' host_drain.diff
    """
    text, path = unit() if keep else None, _path()
    there = os.path.lexists(path)
    old = (durable_file.read(path) or b"").decode() if there else None
    if old is not None and not old.startswith(_HEAD):
        raise CommandExecutionError(
            f"{path} is there and not this formula's; expected no unit of that name"
        )
    if text is None and not there and not systemd_units.runs(_UNIT):
        return {}
    found: dict[str, Any] = {}
    if old != text:
        found[path] = {"old": old, "new": text}
    asked = ["ActiveState", "UnitFileState", "NeedDaemonReload"]
    shown = systemd_units.show(_UNIT, asked)[_UNIT]
    state = f"{shown['UnitFileState'] or 'disabled'}, {shown['ActiveState']}"
    if text is not None and state != "enabled, active":
        found["unit"] = {"old": state, "new": "enabled, active"}
    elif text is not None and old == text and shown["NeedDaemonReload"] == "yes":
        found["unit"] = {"old": "of an older unit file", "new": "of the one on disk"}
    elif text is None and shown["ActiveState"] != "inactive":
        found["unit"] = {"old": state, "new": None}
    return found


def ensure(keep: bool = True) -> None:
    """
    Bring the unit to what the pillar says. That does not drain the host.

    keep
        as in :py:func:`diff`

    Raises CommandExecutionError with the message of systemctl, or as :py:func:`diff` does.

    CLI Example:

    .. code-block:: bash

        salt web1 host_drain.ensure
    """
    diff(keep)
    text, path = unit() if keep else None, _path()
    if text is not None:
        durable_file.write(path, text)
        systemd_units.daemon_reload()
        systemd_units.enable(_UNIT)
        systemd_units.start(_UNIT)
        return
    if os.path.lexists(path):
        systemd_units.disable(_UNIT)
        durable_file.remove(path)
    systemd_units.daemon_reload()
    # Only now: without its file, stopping it runs none of its commands.
    if systemd_units.show(_UNIT, ["ActiveState"])[_UNIT]["ActiveState"] != "inactive":
        systemd_units.stop(_UNIT)
