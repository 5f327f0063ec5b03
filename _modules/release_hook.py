"""
Commands of an operator's at the steps of a release: before and after it is fetched, its virtual
environment is built, the database is migrated, and uWSGI switches to it.

They run where a step has something to do, and only there. A step that is begun with hooks after it
is noted first, so that these run, too, where a run dies between the two: in the next one.

.. versionadded:: 0.1.0
"""

import os
import time
from collections.abc import Sequence
from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "release_hook"

#: In the order of a release.
STEPS = ("fetch", "build", "migrate", "switch")
POINTS = tuple(f"{when}_{step}" for step in STEPS for when in ("before", "after"))

_PENDING = "hooks.json"
_MESSAGE_LINES = 60


def __virtual__() -> str:
    return __virtualname__


def commands(name: str, point: str) -> list[list[str]]:
    """
    The commands that the pillar has for a point.

    name
        the site
    point
        ``before_`` or ``after_`` and ``fetch``, ``build``, ``migrate`` or ``switch``

    Returns lists of words.

    Raises CommandExecutionError for another point.

    CLI Example:

    .. code-block:: bash

        salt '*' release_hook.commands mysite before_switch
    """
    if point not in POINTS:
        raise CommandExecutionError(f"{point!r} is no point of a release: {', '.join(POINTS)}")
    return __salt__["site_pillar.site"](name)["project"]["hooks"][point]


def _key(name: str, point: str, number: int) -> str:
    return f"nginx_uwsgi_django:sites:{name}:project:hooks:{point}:{number}"


def _begun(name: str, release: str | None) -> list[str]:
    """The points after steps that were begun for the release."""
    record = __salt__["release_record.read"](name, _PENDING) or {"release": None, "points": []}
    if record["release"] != __salt__["django_release.desired"](name, release=release)["id"]:
        # Another release came in between, and has its own.
        return []
    return record["points"]


def _note(name: str, points: list[str], release: str | None) -> None:
    if not points:
        __salt__["release_record.forget"](name, _PENDING)
        return
    identity = __salt__["django_release.desired"](name, release=release)["id"]
    __salt__["release_record.write"](name, _PENDING, {"release": identity, "points": points})


def _has_work(name: str, step: str, release: str | None) -> bool:
    """Whether a step of the release is yet to be done."""
    wanted = __salt__["django_release.desired"](name, release=release)
    if step == "fetch":
        return not os.path.isdir(wanted["path"])
    if step == "build":
        return __salt__["python_venv.diff"](name, release=release) is not None
    if step == "switch":
        return __salt__["uwsgi_generation.serving"](name) != wanted["id"]
    if __salt__["django_preparation.is_complete"](name, release):
        return False
    if __opts__["test"] and (
        __salt__["django_release.diff"](name) or __salt__["python_venv.diff"](name, release=release)
    ):
        # Nobody knows before it is on the host.
        return True
    return bool(__salt__["django_preparation.to_migrate"](name, release))


def due(name: str, points: Sequence[str] = POINTS, release: str | None = None) -> list[str]:
    """
    The points at which there is something to run now.

    name
        the site
    points
        in the order in which they are to be looked at; by default all
    release
        the ID of a release on the host to take instead of the desired one

    Returns those of them that have commands, and whose step is to be done (``before_``) or was
    begun (``after_``; in a dry run: would be).

    CLI Example:

    .. code-block:: bash

        salt '*' release_hook.due mysite '[before_switch]'
    """
    found = []
    for point in points:
        if not commands(name, point):
            continue
        when, _, step = point.partition("_")
        if when == "after" and point in _begun(name, release):
            found.append(point)
        elif (when == "before" or __opts__["test"]) and _has_work(name, step, release):
            found.append(point)
    return found


def run(name: str, points: list[str], release: str | None = None) -> dict[str, str]:
    """
    Run the hooks that are due, one after the other, until one fails: as the site's user, with the
    site's environment and ``HOOK`` and ``RELEASE`` (the point and the ID) in it, in the release
    (before it is fetched, in the home of the site's user), without a shell.

    name
        the site
    points, release
        as in :py:func:`due`

    Returns what each point's commands printed, secrets of the pillar blanked; it is also kept for
    :py:func:`last`.

    Raises CommandExecutionError with the command's own words when one fails, cannot be started or
    takes longer than ``project:hooks:timeout``.

    CLI Example:

    .. code-block:: bash

        salt '*' release_hook.run mysite '[after_switch]'
    """
    printed = {}
    for point in points:
        when, _, step = point.partition("_")
        after = f"after_{step}"
        begins = (
            when == "before"
            and after not in _begun(name, release)
            and bool(commands(name, after))
            and _has_work(name, step, release)
        )
        ready = due(name, [point], release)
        if not begins and not ready:
            continue
        with __salt__["release_record.alone"](name, f"the hook {point}"):
            if begins:
                _note(name, [*_begun(name, release), after], release)
            if ready:
                printed[point] = _run_all(name, point, release)
            if ready and when == "after":
                _note(name, [each for each in _begun(name, release) if each != point], release)
    return printed


def _run_all(name: str, point: str, release: str | None) -> str:
    wanted = __salt__["django_release.desired"](name, release=release)
    home = __salt__["system_account.home"](name)
    folder = wanted["path"] if os.path.isdir(wanted["path"]) else home
    timeout = __salt__["site_pillar.site"](name)["project"]["hooks"]["timeout"]
    lines: list[str] = []
    for number, command in enumerate(commands(name, point)):
        done = __salt__["django_command.run"](
            name, command, timeout, folder, {"HOOK": point, "RELEASE": wanted["id"]}, release
        )
        lines += done["stdout"].splitlines()
        failed = done["timed_out"] or done["retcode"] != 0
        outcome = {
            "release": wanted["id"],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "failed": failed,
            "output": lines[-_MESSAGE_LINES:],
        }
        __salt__["release_record.write"](name, f"hook-{point}.json", outcome)
        if failed:
            how = f"ended with {done['retcode']}"
            if done["timed_out"]:
                how = f"took longer than {timeout} seconds and was stopped"
            raise CommandExecutionError(
                f"the hook {_key(name, point, number)} {how}, in {folder}:\n"
                + "\n".join(lines[-_MESSAGE_LINES:])
            )
    return "\n".join(lines[-_MESSAGE_LINES:])


def last(name: str) -> dict[str, Any]:
    """
    What a site's hooks did when they last ran on this host.

    name
        the site

    Returns, by point, ``{"release", "at", "failed", "output"}``: for which release, when, whether
    one failed, and the last lines that they printed.

    CLI Example:

    .. code-block:: bash

        salt '*' release_hook.last mysite
    """
    answer = {}
    for point in POINTS:
        outcome = __salt__["release_record.read"](name, f"hook-{point}.json")
        if outcome:
            answer[point] = outcome
    return answer
