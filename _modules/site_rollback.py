"""
Rolling a site back to a release that was live before, by the steps and the checks of a ``state.apply``.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import site_plan

__virtualname__ = "site_rollback"

_key = site_plan.pillar_path


def __virtual__() -> str:
    return __virtualname__


def _project(name: str) -> dict[str, Any]:
    return __salt__["site_pillar.site"](name)["project"]


def _served_before(name: str, live: str | None) -> str | None:
    """The release that was live before, without those that were rolled back from."""
    way = __salt__["release_record.way_back"](name)
    staying = __salt__["release_record.held"](name)
    if live in way and staying and staying["release"] == live:
        # A rollback that was killed before it was noted.
        while way[-1] != live:
            way.pop()
    older = [release for release in way if release != live]
    return older[-1] if older else None


def _beyond(name: str, release: str) -> dict[str, list[str]]:
    """
    The migrations that were applied to the database and that a release does not know, each with its
    operations that Django cannot undo.
    """
    records = __salt__["release_record.of_release"]
    staying = __salt__["release_record.held"](name) or {"left": []}
    known: set[str] = set()
    for migration, what in records(name, release).get("migrations", {}).items():
        known |= {migration, *what["replaces"]}
    found = {}
    for other in sorted({__salt__["uwsgi_generation.serving"](name) or release, *staying["left"]}):
        for migration, what in records(name, other).get("migrations", {}).items():
            squashed = what["replaces"] and set(what["replaces"]) <= known
            if migration not in known and not squashed:
                found[migration] = what["for_good"]
    return found


def _why_not(name: str, release: str, allow_irreversible: bool = False) -> str | None:
    """Why a site cannot be rolled back to a release; None: it can."""
    if release == __salt__["uwsgi_generation.serving"](name):
        return "it is already live"
    if release not in __salt__["django_release.stored"](name):
        return "it is not on this host"
    if release not in [entry["release"] for entry in __salt__["release_record.history"](name)]:
        return "it was never live on this host"
    try:
        __salt__["django_release.desired"](name, release=release)
        lacks = __salt__["python_venv.diff"](name, release=release)
    except CommandExecutionError as error:
        return str(error)
    if lacks:
        return (
            f"its virtual environment is gone ({lacks}), and a rollback builds nothing: set "
            f"{_key(name, 'project:release')} to {release} and apply"
        )
    past = None if allow_irreversible else irreversible(name, release)
    if past:
        return f"{past}. Pass allow_irreversible=True if the release works with them applied"
    return None


def irreversible(name: str, release: str) -> str | None:
    """
    The migrations of a site's database that Django cannot undo and that a release does not know.

    name
        the site
    release
        the release's ID

    Returns a sentence with the migrations and their operations; None when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' site_rollback.irreversible mysite 4f2a9c01d7e3
    """
    past = {migration: why for migration, why in _beyond(name, release).items() if why}
    if not past:
        return None
    told = "; ".join(f"{migration} ({', '.join(past[migration])})" for migration in past)
    return (
        "the database has migrations that Django cannot undo and that this release does not know: "
        f"{told}"
    )


def releases(name: str) -> list[dict[str, Any]]:
    """
    The releases of a site on this host, and which of them :py:func:`rollback` can roll back to.

    name
        the site

    Returns dictionaries, the live release first, then those that were live before, the latest
    first: ``release`` (its ID), ``since`` (when it last became live; None: never), ``source`` and
    ``revision`` (where it was fetched from, as far as that is known), ``why_not`` (why a rollback
    to it is refused; None: it is possible).

    CLI Example:

    .. code-block:: bash

        salt '*' site_rollback.releases mysite
    """
    live = __salt__["uwsgi_generation.serving"](name)
    since = {
        entry["release"]: entry.get("at") for entry in __salt__["release_record.history"](name)
    }
    answer = []
    newest_first = __salt__["django_release.stored"](name)[::-1]
    for release in sorted(newest_first, key=lambda each: (each != live, each not in since)):
        known = __salt__["release_record.of_release"](name, release)
        answer.append(
            {
                "release": release,
                "since": since.get(release),
                "source": known.get("source"),
                "revision": known.get("revision"),
                "why_not": _why_not(name, release),
            }
        )
    return answer


def rollback(
    name: str, release: str | None = None, allow_irreversible: bool = False, test: bool = False
) -> dict[str, Any]:
    """
    Roll a site back to a release that was live before, by the steps and the checks of a
    ``state.apply``: a release that was prepared is not prepared again, nothing is fetched or built,
    and the source is not asked. The database is not touched: migrations that the release does not
    know stay applied.

    The release stays, also through the next ``state.apply``, until the source has a release that was
    not rolled back from, or until this function is told another release.

    name
        the site
    release
        its ID, from :py:func:`releases`; by default the release that was live before. Releases that
        were rolled back from, or never went live, are never the default
    allow_irreversible
        roll back although the database has migrations that Django cannot undo and that the release
        does not know
    test
        only say what would be done

    Returns ``release`` (``{"old", "new"}``), ``changes``, and ``beyond``, the migrations that stay
    applied although the release does not know them.

    Raises CommandExecutionError when there is no such release, when it does not pass its checks or
    its health check, and when the site is being changed or a run of states is under way. Then the
    live release stays live, and nothing is remembered.

    CLI Example:

    .. code-block:: bash

        salt '*' site_rollback.rollback mysite
    """
    if test:
        return _way_to(name, release, allow_irreversible)
    # A run of states does not hold the site between two of them.
    under_way = __salt__["state.running"]()
    if under_way:
        raise CommandExecutionError(
            f"{' '.join(under_way)}. Nothing was done here: try again when that has ended"
        )
    with __salt__["release_record.alone"](name, "site_rollback.rollback"):
        return _rollback(name, _way_to(name, release, allow_irreversible))


def _way_to(name: str, release: str | None, allow_irreversible: bool) -> dict[str, Any]:
    """What a rollback would do; raises where it is refused."""
    project = _project(name)
    if not project["source"]:
        raise CommandExecutionError(
            f"{name} runs from the tree at {project['path']}, of which there is no older copy here"
        )
    if project["release"]:
        raise CommandExecutionError(
            f"the pillar says {_key(name, 'project:release')}: {project['release']}, and the next "
            "state.apply would deploy that: change it, or take it out"
        )
    live = __salt__["uwsgi_generation.serving"](name)
    target = release or _served_before(name, live)
    if target is None:
        raise CommandExecutionError(
            f"there is no earlier release of {name} on this host to roll back to (releases that "
            "were rolled back from are not candidates)"
        )
    refused = _why_not(name, target, allow_irreversible)
    if refused:
        raise CommandExecutionError(f"no rollback to the release {target} of {name}: {refused}")
    return {
        "release": {"old": live, "new": target},
        "beyond": sorted(_beyond(name, target)),
        "changes": {},
    }


def _rollback(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    live, target = answer["release"]["old"], answer["release"]["new"]
    changes = answer["changes"]
    before = __salt__["release_record.held"](name)
    forward = before is not None and target in before["left"]
    # First the intention: should this be killed, the next run finishes it.
    __salt__["release_record.hold"](name, target, None if forward else live)
    try:
        if not __salt__["django_preparation.is_complete"](name, target):
            changes.update(_hooks(name, "before_migrate", target))
            __salt__["django_preparation.ensure"](name, target)
            changes.update(_hooks(name, "after_migrate", target))
        changes.update(_hooks(name, "before_switch", target))
        changes.update(__salt__["uwsgi_generation.switch"](name, release=target)["changes"])
    except BaseException:
        # An old generation that would not stop has failed the switch, and not undone it.
        if __salt__["uwsgi_generation.serving"](name) != target:
            __salt__["release_record.put_back"](name, before)
        raise
    changes.update(__salt__["release_live.ensure"](name, target))
    changes.update(_hooks(name, "after_switch", target))
    companions = __salt__["site_companion.ensure"](name, target)
    changes.update(companions["changes"])
    if companions["errors"]:
        told = "; ".join(f"{each}: {why}" for each, why in companions["errors"].items())
        raise CommandExecutionError(f"the release {target} is live, but not its companions: {told}")
    return answer


def _hooks(name: str, point: str, release: str) -> dict[str, Any]:
    """Run the hooks of a point; what they printed, as changes."""
    ran = __salt__["release_hook.run"](name, [point], release)
    return {each: {"old": None, "new": printed} for each, printed in ran.items()}
