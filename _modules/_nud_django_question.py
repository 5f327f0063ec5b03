"""
Asking a site's Django: runs the program of :py:mod:`_nud_django_driver` in the site's own Python.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud_program import run_as, source
from _nud_redaction import redact

#: Seconds that a project has to load its settings.
SETTINGS_TIMEOUT = 120
#: Seconds. A migration of a large table takes long, and killing it does not make it shorter.
PREPARE_TIMEOUT = 7200
#: Seconds to wait for another host that migrates the same database.
LOCK_TIMEOUT = 1800
_MESSAGE_LINES = 60

_STEPS = {
    "settings": "reading the settings {settings}",
    "write": "writing where the settings {settings} keep data",
    "import": "importing {wsgi}",
    "check": "manage.py check",
    "deploy": "manage.py check --deploy",
    "makemigrations": "manage.py makemigrations --check",
    "migrate": "manage.py migrate",
    "collectstatic": "manage.py collectstatic",
    "publish": "putting the static files where the web server has them from",
    "withdraw": "removing the static files of releases that went",
    "uploads": "putting the uploads of the release among those of the site",
}


def ask(
    site: dict[str, Any],
    python: str,
    release: str,
    environment: dict[str, str],
    do: str,
    timeout: int,
    reply: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    **request: Any,
) -> dict[str, Any]:
    """
    Have something done in a site's Python, as the site's user.

    site
        its settings
    python
        the interpreter of its virtual environment
    release
        the directory of the release, which is the working directory
    environment
        the whole environment
    do
        ``prepare``, ``publish``, ``withdraw`` or ``merge_uploads``
    timeout
        seconds
    reply
        is called with what the settings say; what it returns completes the request
    request
        what the action needs

    Returns the program's answer, and in ``said`` the last lines that the project printed.

    Raises CommandExecutionError with the failing step and the project's own words, secrets hidden.
    """
    project = site["project"]

    def answered(line: str) -> str:
        told = json.loads(line)
        # Where the settings fail, the first line is the last one.
        return "" if reply is None or "done" in told else json.dumps(reply(told)) + "\n"

    question = {"do": do, "wsgi": project["wsgi"], "told": bool(reply), **request}
    done = run_as(
        project["user"],
        project["group"],
        [python, "-c", source("django_driver")],
        release,
        environment,
        timeout,
        stdin=json.dumps(question) + "\n",
        merge=False,
        reply=None if reply is None else answered,
        patience=SETTINGS_TIMEOUT,
    )
    lines = redact(project["env"], done["stderr"]).strip().splitlines()
    said = "\n".join(lines[-_MESSAGE_LINES:])
    try:
        answer = json.loads(done["stdout"].splitlines()[-1])
    except (IndexError, ValueError):
        answer = {}
    if "done" not in answer:
        # It was ended before its last word.
        answer = {"done": False, "step": None}
    if not answer["done"]:
        step = answer["step"]
        what = _STEPS[step].format(**project) if step else f"the release's Python ({do})"
        if done["timed_out"]:
            how = f"took longer than {timeout} seconds and was stopped"
        elif step is None:
            how = f"ended with {done['retcode']}"
        else:
            how = "failed"
        raise CommandExecutionError(
            f"{what} {how}, as {project['user']} in {release}:\n{said}"
            + (_ways_past_deploy(site, said) if step == "deploy" else "")
        )
    answer["said"] = said
    return answer


def _ways_past_deploy(site: dict[str, Any], said: str) -> str:
    """What an operator can do about a refusal of `check --deploy`, from what Django said."""
    level = site["project"]["check"]["deploy"]
    # Django prints what is below the level, too; by custom the letter of an id is its level's.
    letters = "DIWEC"["DIWEC".index(level[0]) :]
    found = ", ".join(sorted(set(re.findall(rf"\((\w+\.[{letters}]\d+)\)", said))))
    return (
        f"\nA plain manage.py check passes. Mend the settings{f' for {found}' if found else ''}, or "
        "name the check in SILENCED_SYSTEM_CHECKS, or change "
        f"nginx_uwsgi_django:sites:{site['name']}:project:check:deploy: now {level}; a higher level "
        "lets more pass, null leaves --deploy out"
    )
