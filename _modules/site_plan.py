"""
What is to be deployed of a site: its release, the virtual environment, the process environment and the
directories, as one record that the steps of a deployment are given.

The project learns its directories from two environment variables, ``DJANGO_DATA_DIR`` and
``DJANGO_STATIC_ROOT``, and the site's names from a third, ``DJANGO_ALLOWED_HOSTS``.

.. versionadded:: 0.1.0
"""

import json
import os
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import cache, site_plan, uwsgi_ini

__virtualname__ = "site_plan"

_key = site_plan.pillar_path


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    return cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))


def of(name: str, release: str | None = None) -> site_plan.Plan:
    """
    What is to be deployed of a site.

    name
        the site
    release
        the ID of a release on the host to take instead of the desired one

    Returns ``site``, ``release``, ``venv``, ``environment`` (may hold secrets), ``places`` and
    ``collected``.

    Raises CommandExecutionError when the project, its requirements or the interpreter is not there.

    CLI Example:

    .. code-block:: bash

        salt '*' site_plan.of mysite
    """
    wanted = __salt__["django_release.desired"](name, release=release)
    return site_plan.Plan(
        site=_site(name),
        release=wanted,
        venv=__salt__["python_venv.desired"](name, release=release),
        environment=environment(name, release),
        places=__salt__["django_release.own_directories"](name),
        collected=__salt__["django_release.collected"](name, wanted["id"]),
    )


def environment(name: str, release: str | None = None) -> dict[str, str]:
    """
    The environment of everything that runs for a site: its uWSGI and its management commands.
    May hold secrets.

    name
        the site
    release
        as in :py:func:`of`

    Returns a dictionary; the pillar's ``project:env`` has the last word, before ``env =`` of the
    project's own uWSGI ini (``uwsgi:ini``).

    CLI Example:

    .. code-block:: bash

        salt '*' site_plan.environment mysite
    """

    def look() -> dict[str, str]:
        venv = __salt__["python_venv.desired"](name, release=release)["path"]
        wanted = __salt__["django_release.desired"](name, release=release)
        return variables(name, venv, wanted["id"], release)

    return dict(cache.once(("environment", name, release or ""), look))


def variables(name: str, venv: str, identity: str, release: str | None = None) -> dict[str, str]:
    """
    The environment of a site's processes that run in a certain virtual environment.

    name
        the site
    venv
        the directory of the virtual environment
    identity
        the ID of the release whose static files the processes use
    release
        as in :py:func:`of`: the release whose uWSGI ini (``uwsgi:ini``) has variables

    Returns a dictionary.

    CLI Example:

    .. code-block:: bash

        salt '*' site_plan.variables mysite /opt/venv 4f2a9c01d7e3
    """
    project = _site(name)["project"]
    places = __salt__["django_release.own_directories"](name)
    collected = __salt__["django_release.collected"](name, identity)
    return {
        "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": __salt__["system_account.home"](name),
        "USER": project["user"],
        "LOGNAME": project["user"],
        "LANG": "C.UTF-8",
        # The code is not the site's to write, compiled or not.
        "PYTHONDONTWRITEBYTECODE": "1",
        "DJANGO_DATA_DIR": places["data"],
        "DJANGO_STATIC_ROOT": collected or places["static"],
        **_allowed_hosts(_site(name)),
        **_said_by_the_project(name, release),
        "DJANGO_SETTINGS_MODULE": project["settings"],
        **{
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in project["env"].items()
        },
    }


def own_ini(name: str, release: str | None = None) -> tuple[str, str] | None:
    """
    The uWSGI ini that a site's project contains.

    name
        the site
    release
        as in :py:func:`of`

    Returns its text and the path that it has in the release; None where the pillar names none
    (``uwsgi:ini``).

    Raises CommandExecutionError when it cannot be read, or is a link out of the project.

    CLI Example:

    .. code-block:: bash

        salt '*' site_plan.own_ini mysite
    """
    ini = _site(name)["uwsgi"]["ini"]
    if not ini:
        return None
    wanted = __salt__["django_release.desired"](name, release=release)
    # Root reads it, and the site's group may read what comes of it: a link must not lead to
    # what only root may see.
    source = os.path.realpath(os.path.join(wanted["source"], ini))
    if not source.startswith(os.path.realpath(wanted["source"]) + "/"):
        raise CommandExecutionError(
            f"{_key(name, 'uwsgi:ini')}: {ini} leads out of the project, to {source}"
        )
    try:
        with open(source, encoding="utf-8") as stream:
            return stream.read(), os.path.join(wanted["path"], ini)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandExecutionError(
            f"{source} ({_key(name, 'uwsgi:ini')}) cannot be read: {error}"
        ) from error


def _said_by_the_project(name: str, release: str | None) -> dict[str, str]:
    """The variables that the project's own uWSGI ini sets."""
    own = own_ini(name, release)
    if own is None:
        return {}
    try:
        return dict(uwsgi_ini.environment(*own))
    except SaltInvocationError as error:
        raise CommandExecutionError(f"{_key(name, 'uwsgi:ini')}: {error}") from error


def _allowed_hosts(site: dict[str, Any]) -> dict[str, str]:
    """The variable for ALLOWED_HOSTS; empty where Django has no pattern for a name."""
    names = [*site["server_names"], site["health"]["host"]]
    # https://docs.djangoproject.com/en/5.2/ref/settings/#allowed-hosts has no word for these.
    if any(name == "_" or name.endswith(".*") for name in names):
        return {}
    allowed = dict.fromkeys(name.removeprefix("*") for name in names)
    covered = tuple(name for name in allowed if name.startswith("."))
    kept = [name for name in allowed if name.startswith(".") or not name.endswith(covered)]
    return {"DJANGO_ALLOWED_HOSTS": ",".join(kept)}
