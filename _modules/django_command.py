"""
Programs that run as a site does: as its user, with its environment.

.. versionadded:: 0.1.0
"""

import os
import shlex
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import cache, program, redaction

__virtualname__ = "django_command"


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    return cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))


def run(
    name: str,
    argv: list[str],
    timeout: int,
    folder: str,
    more: dict[str, str] | None = None,
    release: str | None = None,
) -> program.Done:
    """
    Run a program as a site does: as its user, with its environment.

    name
        the site
    argv
        the program and its arguments; no shell is involved
    timeout
        seconds; then it and what it started is killed
    folder
        the working directory
    more
        variables besides the site's own
    release
        the ID of a release on the host whose environment is used instead of the desired one's

    Returns ``{"retcode", "stdout", "stderr", "timed_out"}``, with the values of ``project:env`` hidden.

    CLI Example:

    .. code-block:: bash

        salt '*' django_command.run mysite '["id"]' 10 /
    """
    environment = __salt__["site_plan.environment"](name, release)
    return _run(name, argv, timeout, folder, {**environment, **(more or {})}, 0o027)


def _run(
    name: str, argv: list[str], timeout: int, folder: str, environ: dict[str, str], umask: int
) -> program.Done:
    project = _site(name)["project"]
    user, group = project["user"], project["group"]
    done = program.run_as(user, group, argv, folder, environ, timeout, umask)
    return {**done, "stdout": redaction.redact(project["env"], done["stdout"])}


def manage(name: str, command: str, timeout: int = 3600) -> dict[str, Any]:
    """
    Run a management command of Django, as the site's user with the site's environment, in the
    release that is live (before one is, in the desired one).

    name
        the site
    command
        what would stand after ``manage.py``, with a shell's quotes; no shell is involved
    timeout
        seconds; then the command is killed

    Returns ``{"retcode", "stdout"}``: its exit code, which is the function's too
    (``salt-call --retcode-passthrough``), and what it printed on either channel, with the values
    of ``project:env`` hidden.

    Raises CommandExecutionError when the command is empty, or takes too long.

    CLI Example:

    .. code-block:: bash

        salt '*' django_command.manage mysite 'showmigrations --plan'
    """
    try:
        words = shlex.split(str(command))
    except ValueError as error:
        raise CommandExecutionError(f"the command cannot be split into words: {error}") from error
    if not words:
        raise CommandExecutionError("there is no command: name one, like 'showmigrations --plan'")
    project = _site(name)["project"]
    venv = __salt__["python_venv.desired"](name)["path"]
    wanted = __salt__["django_release.desired"](name)
    where, release = wanted["path"], wanted["id"]
    live = __salt__["django_release.current"](name)
    history = __salt__["release_record.history"](name)
    if project["source"] and live and history:
        where, release = os.path.join(project["path"], "releases", live), live
        if not project["venv"]:
            venv = os.path.join(os.path.dirname(venv), history[-1]["venv"])
    # What manage.py does, wherever it is and whatever it is called.
    argv = [os.path.join(venv, "bin", "python"), "-m", "django", *words]
    # As uWSGI runs the site: what either writes, the web server may hand out.
    environment = __salt__["site_plan.variables"](name, venv, release)
    done = _run(name, argv, timeout, where, environment, umask=0o022)
    said = done["stdout"]
    if done["timed_out"]:
        raise CommandExecutionError(
            f"manage.py {words[0]} took longer than {timeout} seconds and was stopped:\n{said}"
        )
    __context__["retcode"] = done["retcode"]
    return {"retcode": done["retcode"], "stdout": said}
