"""
Which release is live: the link ``current``, the history, the static files that the web server has, and
pruning of the releases and environments that nothing needs any more.

.. versionadded:: 0.1.0
"""

import logging
import os
import shutil
from typing import Any

from salt.exceptions import CommandExecutionError
from salt.loader.dunder import __opts__

from _nud import cache, django_question, durable_file, release_files

__virtualname__ = "release_live"

log = logging.getLogger(__name__)


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    return cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))


def _releases(name: str) -> str:
    return os.path.join(_site(name)["project"]["path"], "releases")


def _collected(name: str, release: str) -> str | None:
    return __salt__["django_release.collected"](name, release)


def _stored(name: str) -> list[str]:
    return __salt__["django_release.stored"](name)


def _ask(name: str, release: str | None, do: str, **request: Any) -> None:
    plan = __salt__["site_plan.of"](name, release)
    django_question.ask(
        plan.site,
        plan.venv["binary"],
        plan.release["path"],
        plan.environment,
        do,
        django_question.PREPARE_TIMEOUT,
        public=plan.places["static"],
        **request,
    )


# --- Pruning -------------------------------------------------------------------------------------


def superfluous(name: str, ahead: bool = False, release: str | None = None) -> list[str]:
    """
    The releases that may go: not live, not desired, not in use, and not among those that were
    live last (``project:keep`` of them). A release that never went live does not count towards
    ``project:keep``.

    name
        the site
    ahead
        those that may go once the desired release is live, and the one before it has ended
    release
        the ID of a release on the host to take instead of the desired one

    Returns IDs.

    CLI Example:

    .. code-block:: bash

        salt '*' release_live.superfluous mysite
    """
    wanted = __salt__["django_release.desired"](name, release=release)["id"]
    if ahead:
        keep = _site(name)["project"]["keep"]
        live = [wanted, *(each for each in _recent(name, "release") if each != wanted)][:keep]
        return [each for each in _stored(name) if each not in {wanted, *live}]
    in_use = __salt__["django_release.in_use"]
    staying = {__salt__["django_release.current"](name), wanted, *_recent(name, "release")}
    return [
        each
        for each in _stored(name)
        if each not in staying and not in_use(os.path.join(_releases(name), each))
    ]


def _recent(name: str, what: str) -> list[str]:
    """The releases (or their environments) that were live last, as many as the pillar keeps."""
    return __salt__["release_record.recent"](name, what, _site(name)["project"]["keep"])


def leftovers(name: str) -> dict[str, Any]:
    """
    What :py:func:`prune` removes before another release is copied and built: releases that failed or
    are more than ``project:keep``, and the environments that only those need.

    name
        the site

    Returns a dictionary of ``{"old", "new"}`` with any of ``releases`` and ``venvs``.

    CLI Example:

    .. code-block:: bash

        salt '*' release_live.leftovers mysite
    """
    releases = superfluous(name)
    found: dict[str, Any] = {"releases": {"old": releases, "new": None}} if releases else {}
    try:
        return {**found, **_superfluous_venvs(name, None)}
    except CommandExecutionError as error:
        # The release lacks its requirements: the state of the environment says it.
        log.info("%s", error)
        return found


def prune(name: str) -> dict[str, Any]:
    """
    Remove what :py:func:`leftovers` names, so that there is room for another release.

    name
        the site

    Returns what was removed.

    CLI Example:

    .. code-block:: bash

        salt '*' release_live.prune mysite
    """
    with __salt__["release_record.alone"](name, "release_live.prune"):
        gone = leftovers(name)
        _discard(name, gone, None)
    return gone


def _discard(name: str, gone: dict[str, Any], release: str | None) -> None:
    for each in gone.get("releases", {}).get("old", []):
        path = os.path.join(_releases(name), each)
        aside = os.path.join(_releases(name), f".{each}.removed")
        os.rename(path, aside)
        shutil.rmtree(aside)
    if "venvs" in gone:
        __salt__["python_venv.prune"](name, _recent(name, "venv"), release=release)


def _forget(name: str, wanted: str) -> None:
    """Drop the records of releases that are neither live nor a rollback's target nor on the host."""
    staying = {wanted, *_recent(name, "release"), *_stored(name)}
    for entry in __salt__["release_record.entries"](name):
        record = __salt__["release_record.read"](name, entry)
        if isinstance(record, dict) and record.get("release", wanted) not in staying:
            __salt__["release_record.forget"](name, entry)


def _superfluous(name: str, release: str | None, ahead: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    releases = superfluous(name, ahead, release)
    if releases:
        found["releases"] = {"old": releases, "new": None}
    staying = {*_stored(name), __salt__["django_release.desired"](name, release=release)["id"]} - {
        *releases
    }
    folder = os.path.join(__salt__["django_release.own_directories"](name)["shared"], "collected")
    if _site(name)["project"]["source"] and os.path.isdir(folder):
        collected = sorted(set(filter(release_files.ID.fullmatch, os.listdir(folder))) - staying)
        if collected:
            found["collected"] = {"old": collected, "new": None}
    return {**found, **_superfluous_venvs(name, release)}


def _superfluous_venvs(name: str, release: str | None) -> dict[str, Any]:
    if _site(name)["project"].get("venv"):
        return {}
    venvs = __salt__["python_venv.prune"](name, _recent(name, "venv"), test=True, release=release)
    return {"venvs": {"old": venvs, "new": None}} if venvs else {}


# --- The live release ----------------------------------------------------------------------------


def diff(name: str, release: str | None = None) -> dict[str, Any]:
    """
    What :py:func:`ensure` would do.

    name
        the site
    release
        as in :py:func:`superfluous`

    Returns a dictionary of ``{"old", "new"}``, empty when there is nothing to do: ``current``
    (IDs), ``live`` (release and virtual environment), ``published`` (static files that are not
    yet those of the release, where the web server has them from), ``releases``, ``venvs`` and
    ``collected`` (what nothing needs any more and goes; of the last, its static files).

    CLI Example:

    .. code-block:: bash

        salt '*' release_live.diff mysite
    """
    wanted = __salt__["django_release.desired"](name, release=release)
    todo: dict[str, Any] = {}
    before = __salt__["django_release.current"](name)
    if _site(name)["project"]["source"] and before != wanted["id"]:
        todo["current"] = {"old": before, "new": wanted["id"]}
    venv = __salt__["python_venv.desired"](name, release=release)
    note = {"release": wanted["id"], "venv": venv["digest"]}
    history = __salt__["release_record.history"](name)
    last = {key: history[-1][key] for key in note} if history else None
    if last != note:
        todo["live"] = {"old": last, "new": note}
    unpublished = _unpublished(name, wanted["id"])
    if unpublished:
        todo["published"] = {"old": None, "new": unpublished}
    # A dry run names what is no longer needed after the switch, which it does not make.
    ahead = bool(__opts__["test"] and "live" in todo)
    return {**todo, **_superfluous(name, release, ahead)}


def _unpublished(name: str, release: str) -> list[str]:
    """The static files of a release that the web server does not have, or has otherwise."""
    collected = _collected(name, release)
    if not collected:
        return []
    if os.path.islink(collected):
        raise CommandExecutionError(
            f"{collected} is a link, in the place of a release's static files: remove it"
        )
    public = __salt__["django_release.own_directories"](name)["static"]
    found = []
    for folder, _, files in os.walk(collected):
        for each in files:
            if each.startswith(".") and each.endswith(".new"):
                # What a run that was killed left beside a file.
                continue
            mine = os.lstat(os.path.join(folder, each))
            relative = os.path.relpath(os.path.join(folder, each), collected)
            try:
                theirs = os.lstat(os.path.join(public, relative))
            except (FileNotFoundError, NotADirectoryError):
                found.append(relative)
                continue
            # The same file, or on another file system a copy of it.
            if not os.path.samestat(mine, theirs) and (
                (mine.st_size, mine.st_mtime_ns) != (theirs.st_size, theirs.st_mtime_ns)
            ):
                found.append(relative)
    return sorted(found)


def ensure(name: str, release: str | None = None) -> dict[str, Any]:
    """
    Make ``current`` point at the desired release, note that it was live, and remove releases and
    virtual environments that nothing needs any more.

    name
        the site
    release
        as in :py:func:`superfluous`

    Returns what was done, as :py:func:`diff` names it.

    CLI Example:

    .. code-block:: bash

        salt '*' release_live.ensure mysite
    """
    with __salt__["release_record.alone"](name, "release_live.ensure"):
        return _switch(name, release)


def _switch(name: str, release: str | None) -> dict[str, Any]:
    todo = diff(name, release)
    project = _site(name)["project"]
    wanted = __salt__["django_release.desired"](name, release=release)
    if "current" in todo:
        if not os.path.isdir(wanted["path"]):
            raise CommandExecutionError(f"the release {wanted['path']} is not there")
        durable_file.link(
            os.path.join(project["path"], "current"), os.path.join("releases", wanted["id"])
        )
    if "live" in todo:
        pinned = release or project["release"]
        back = bool(pinned or __salt__["django_release.held"](name))
        __salt__["release_record.note_live"](name, **todo["live"]["new"], back=back)
        if not back or project["release"]:
            # The source or the pillar asks for another release.
            __salt__["release_record.let_go"](name)
    if "published" in todo:
        collected = _collected(name, wanted["id"])
        _ask(name, release, "publish", collected=collected, replace=True)
    # With another release live, more may be superfluous.
    gone = _superfluous(name, release)
    _discard(name, gone, release)
    if "collected" in gone:
        going = [_collected(name, each) for each in gone["collected"]["old"]]
        staying = [_collected(name, each) for each in _stored(name)]
        _ask(name, release, "withdraw", going=going, staying=staying)
    _forget(name, wanted["id"])
    return {**todo, **gone}
