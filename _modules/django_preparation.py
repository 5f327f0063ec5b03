"""
A release made ready for traffic before it gets any: checked, its database migrated, its static files
collected. All of it runs as the site's user, with the site's environment, in the release
(:py:mod:`_nud_django_driver`).

A record per release, virtual environment and process environment says what was done, so that it is
done once.

.. versionadded:: 0.1.0
"""

import hashlib
import json
import os
import shutil
import stat
from typing import Any

from salt.exceptions import CommandExecutionError
from salt.loader.dunder import __opts__

from _nud import accounts, cache, django_question, durable_file, redaction, release_files, site_plan

__virtualname__ = "django_preparation"

Plan = site_plan.Plan
_key = site_plan.pillar_path


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    return cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))


def _plan(name: str, release: str | None) -> Plan:
    return __salt__["site_plan.of"](name, release)


# --- What was prepared -------------------------------------------------------------------------


def marker(name: str, release: str | None = None) -> str:
    """
    The name of the record of what a site was prepared for: its release, its virtual environment, its
    process environment and the pillar's settings of the preparation.

    name
        the site
    release
        the ID of a release on the host to take instead of the desired one

    Returns 12 hexadecimal digits.

    CLI Example:

    .. code-block:: bash

        salt '*' django_preparation.marker mysite
    """
    plan = _plan(name, release)
    project = plan.project
    parts = [
        plan.release["id"],
        plan.release["path"],
        plan.venv["digest"],
        plan.environment,
        project["wsgi"],
        project["user"],
        project["group"],
        project["migrate"],
        project["static"]["collect"],
        # Whether data is looked at is no part of what was prepared.
        {key: value for key, value in project["check"].items() if key != "data"},
        _hosts(plan.site),
    ]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_complete(name: str, release: str | None = None) -> bool:
    """
    Whether the desired release was checked and prepared on this host as the pillar asks now.
    Starts no process, so it does not notice migrations that were applied or undone in the database
    by other means: :py:func:`pending` does.

    name
        the site
    release
        as in :py:func:`marker`

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' django_preparation.is_complete mysite
    """
    record = __salt__["release_record.read"](name, f"{marker(name, release)}.json")
    if record is None:
        return False
    # A look shows a disk that was restored or emptied.
    if not all(os.path.exists(path) for path in record["made"]):
        return False
    # With other owners or modes it is tried again; an older formula did not try.
    standing = record.get("standing", None if _site(name)["project"]["check"]["data"] else {})
    return standing is not None and all(
        before is None or _owned(path) == before for path, before in standing.items()
    )


def _standing(facts: dict[str, Any]) -> dict[str, list[int] | None]:
    """The owners and modes of what the site writes."""
    paths = set()
    for path in facts["databases"]:
        if os.path.isabs(path):
            where = os.path.realpath(path)
            paths |= {where, os.path.dirname(where)}
    if os.path.isabs(facts["media_root"]):
        paths.add(os.path.realpath(facts["media_root"]))
    return {path: _owned(path) for path in sorted(paths)}


def _owned(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)]


def _remarks(plan: Plan, facts: dict[str, Any]) -> list[str]:
    settings = plan.project["settings"]
    told = []
    if facts["debug"]:
        told.append(
            f"DEBUG is True in the settings {settings}: visitors see tracebacks with settings and "
            "local variables"
        )
    if any(":memory:" in each or "mode=memory" in each for each in facts["databases"]):
        told.append(
            f"a database in the settings {settings} is in memory: each worker has its own, which "
            "is gone with it"
        )
    return told


def remarks(name: str) -> list[str]:
    """
    Warnings about the desired release, which is checked and prepared.

    name
        the site

    Returns a list of sentences, mostly empty.

    CLI Example:

    .. code-block:: bash

        salt '*' django_preparation.remarks mysite
    """
    record = __salt__["release_record.read"](name, f"{marker(name)}.json") or {}
    return record.get("remarks", [])


# --- The settings against the pillar -------------------------------------------------------------


def _migrates(name: str) -> tuple[bool, str | None]:
    """Whether this host migrates, and else which one of the fleet does, if the pillar says so."""
    migrate = _site(name)["project"]["migrate"]
    if not isinstance(migrate, dict):
        return migrate, None
    here = migrate["host"] == __opts__["id"]
    return here, None if here else migrate["host"]


def _hosts(site: dict[str, Any]) -> dict[str, str]:
    """The names that the project has to answer to, each with the pillar path that says so."""
    if not site["project"]["check"]["hosts"]:
        return {}
    found = {}
    for number, each in enumerate(site["server_names"]):
        # Of a name with an asterisk, and of the one for any name, a project may allow a part.
        if "*" not in each and each != "_":
            found[each.lstrip(".").lower()] = _key(site["name"], f"server_names:{number}")
    # DisallowedHost is an answer of 400, which can be the one that is waited for.
    if 400 not in site["health"]["status"]:
        found.setdefault(site["health"]["host"].lower(), _key(site["name"], "health:host"))
    return found


def _check_settings(plan: Plan, facts: dict[str, Any]) -> None:
    """Raise CommandExecutionError when the settings do not fit what the pillar asks for."""
    project = plan.project
    hosts = _hosts(plan.site)
    wrong = []
    if facts["refused_hosts"]:
        refused = ", ".join(f"{host} ({hosts[host]})" for host in facts["refused_hosts"])
        allowed = redaction.redact(project["env"], ", ".join(facts["allowed_hosts"])) or "nothing"
        wrong.append(
            f"ALLOWED_HOSTS in the settings {project['settings']} refuses {refused}; it allows "
            f"{allowed}: add the name there, take it out of the pillar, or set "
            f"{plan.key('project:check:hosts')} to false"
        )
    if project["static"]["collect"] and facts["collects"] and not facts["static_root"]:
        wrong.append(
            f"STATIC_ROOT in the settings {project['settings']} is not set, and "
            f"{plan.key('project:static:collect')} is true: set the one, e.g. to "
            'os.environ["DJANGO_STATIC_ROOT"], or the other to false'
        )
    static = os.path.realpath(facts["static_root"]) if facts["static_root"] else None
    if static and project["static"]["collect"] and facts["collects"]:
        inside = [
            f"{what} ({path})"
            for what, path in facts["holds"]
            if os.path.isabs(path)
            and (os.path.realpath(path) + os.sep).startswith(static.rstrip(os.sep) + os.sep)
        ]
        if inside:
            wrong.append(
                f"STATIC_ROOT in the settings {project['settings']} is {facts['static_root']}, and "
                f"the web server would hand out {inside[0]}: set it to a directory that holds "
                'nothing but collected files, e.g. to os.environ["DJANGO_STATIC_ROOT"]'
            )
    wrong += _left_behind(plan, facts)
    if wrong:
        raise CommandExecutionError("\n".join(wrong))


def _left_behind(plan: Plan, facts: dict[str, Any]) -> list[str]:
    """The databases that would be new and empty, each with one that would be left behind."""
    project = plan.project
    if not project["check"]["data"]:
        return []
    release, root = plan.release["path"], plan.release["source"]
    before = __salt__["release_record.read"](plan.site["name"], "facts.json") or {}
    earlier = before.get("kept", before.get("databases", []))
    wrong = []
    new = {each: _kept_at(plan, each) for each in facts["databases"] if os.path.isabs(each)}
    for database, target in new.items():
        if os.path.exists(target) and os.path.getsize(target):
            continue
        lost = [each for each in earlier if os.path.realpath(each) not in new.values()]
        if project["source"]:
            relative = release_files.inside(database, release) or os.path.basename(database)
            lost += [os.path.join(place, relative) for place in (root, project["path"])]
        there = [each for each in lost if os.path.isfile(each) and os.path.getsize(each)]
        if there and os.path.realpath(there[0]) != target:
            user, group = project["user"], project["group"]
            wrong.append(
                f"the database {database} would be new and empty, and {there[0]} is there: copy "
                f"it while nothing writes to it (install -o {user} -g {group} -m 640 {there[0]} "
                f"{target}), or set {plan.key('project:check:data')} to false to begin with an "
                "empty one"
            )
    return wrong


def _kept_at(plan: Plan, database: str) -> str:
    """Where a SQLite database will be."""
    where = os.path.normpath(database)
    if plan.project["source"] and release_files.inside(where, plan.release["path"]):
        if not os.path.lexists(where) or os.path.islink(where):
            return os.path.join(plan.places["data"], os.path.basename(where))
    return os.path.realpath(where)


def _ways_to_write(plan: Plan) -> str:
    project = plan.project
    user = project["user"]
    ways = [
        f"let {user} write there (chown -R {user}:{project['group']})",
        f"have the settings put it below DJANGO_DATA_DIR ({plan.places['data']})",
        f"set {plan.key('project:check:data')} to false",
    ]
    if project["source"]:
        ways.insert(0, f"leave what the release brings out by {plan.key('project:exclude')}")
    else:
        ways.insert(0, f"name its owner in {plan.key('project:user')}")
    return f"{user} cannot write there: {', '.join(ways[:-1])}, or {ways[-1]}"


# --- Room for what the site writes ---------------------------------------------------------------


def _make_room(plan: Plan, facts: dict[str, Any]) -> None:
    """Give what the site writes beside its code, by its settings, a place where it can write."""
    project, places, release = plan.project, plan.places, plan.release["path"]
    owner = _owner(project)
    if project["source"]:
        collected = plan.collected
        if collected and facts["collects"]:
            below = os.path.relpath(collected, places["shared"])
            release_files.make_inside(places["shared"], below, 0o750, owner)
        if facts["static_root"]:
            _link_out(plan, facts["static_root"], collected or places["static"])
        if facts["media_root"]:
            _take_out(plan, facts["media_root"], places["media"])
            _link_out(plan, facts["media_root"], places["media"])
        for database in facts["databases"]:
            if os.path.isabs(database):
                target = os.path.join(places["data"], os.path.basename(database))
                _link_out(plan, database, target)
        return
    # The tree belongs to its owner. Only the directories that the project's own settings name for
    # collected files and for uploads are added to it.
    wanted = [facts["static_root"]] if facts["collects"] and project["static"]["collect"] else []
    for path in (*wanted, facts["media_root"]):
        relative = release_files.inside(path, release) if os.path.isabs(path) else None
        if relative and not os.path.lexists(os.path.join(release, relative)):
            release_files.make_inside(release, relative, 0o755, owner)


def _owner(project: dict[str, Any]) -> tuple[int, int]:
    """The numbers of the site's user and group."""
    user = accounts.user(project["user"])
    group = accounts.group(project["group"])
    if user is None or group is None:
        raise CommandExecutionError(
            f"the account {project['user']}:{project['group']} of the site does not exist"
        )
    return user.pw_uid, group.gr_gid


def _link_out(plan: Plan, path: str, target: str) -> None:
    """
    Make a path inside a release, or beside it at the project's path, lead to the site's own
    directory, unless it is there.
    """
    where = os.path.normpath(path)
    if release_files.inside(where, plan.project["path"]) is None:
        return
    if os.path.lexists(where) and not (
        os.path.islink(where) and os.readlink(where).startswith(plan.places["shared"])
    ):
        return
    group = plan.project["group"]
    folder = os.path.dirname(where)
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    if release_files.inside(folder + os.sep + "x", plan.places["shared"]):
        # The site makes its own directories there.
        return
    for each in reversed(missing):
        durable_file.directory(each, group=group, mode="0750")
    durable_file.link(where, target)


def _take_out(plan: Plan, path: str, target: str) -> None:
    """
    Where a release brings its MEDIA_ROOT, with a placeholder or with first uploads, put these into
    the site's own directory and a link in its place.
    """
    release, identity = plan.release["path"], plan.release["id"]
    relative = release_files.inside(path, release)
    where = os.path.normpath(path)
    if relative is None or not release_files.is_directory(where):
        return
    name = plan.site["name"]
    replaced = __salt__["release_record.of_release"](name, identity).get("replaced", {})
    cache = __context__.setdefault("django_release.manifests", {})
    files = release_files.made_as(release, plan.places["shared"], replaced, cache)
    brought = {each: line for each, line in files.items() if each.startswith(relative + os.sep)}
    code = sorted(each for each in brought if each.endswith(".py"))
    if code:
        raise CommandExecutionError(
            f"MEDIA_ROOT in the settings {plan.project['settings']} is {where}, which "
            f"holds code of the release ({code[0]}): set it to a directory of its own, e.g. to "
            'os.environ["DJANGO_DATA_DIR"] + "/media"'
        )
    # As the site's user: the directory of uploads is the site's own.
    _ask(plan, "merge_uploads", django_question.PREPARE_TIMEOUT, source=where, target=target)
    # First the record that the release is complete without them.
    __salt__["release_record.add_to_release"](name, identity, replaced=brought)
    aside = os.path.join(os.path.dirname(release), f".{identity}.removed")
    if os.path.lexists(aside):
        shutil.rmtree(aside)
    os.rename(where, aside)
    durable_file.link(where, target)
    shutil.rmtree(aside)


# --- Prepared ------------------------------------------------------------------------------------


def _ask(plan: Plan, do: str, timeout: int, **more: Any) -> dict[str, Any]:
    return django_question.ask(
        plan.site,
        plan.venv["binary"],
        plan.release["path"],
        plan.environment,
        do,
        timeout,
        **more,
    )


def ensure(name: str, release: str | None = None) -> dict[str, Any]:
    """
    Check the desired release and make it ready for traffic, as the site's user with the site's
    environment, in the release: hold its settings against the pillar (ALLOWED_HOSTS,
    STATIC_ROOT), import the WSGI callable, ``check`` and ``makemigrations --check`` as
    ``project:check`` says, ``migrate`` where the plan is not empty, ``collectstatic`` where the
    project has static files. A host that ``project:migrate`` does not name applies no migration
    and refuses a release that lacks one; two hosts that may both migrate take turns, by a lock
    in the database. Static files are collected in a place of the release's own and put beside
    those of the releases that are kept, where the web server has them from: pages rendered before
    the switch find theirs.

    name
        the site; its release and virtual environment must be complete
    release
        as in :py:func:`marker`

    Returns ``{"migrated", "pending", "for_good", "collected"}``: migrations applied, migrations
    that the pillar leaves to the operator, those of both that Django cannot undo, each with the
    operations in it that are to blame, and the directory of static files (None where there is
    none).

    Raises CommandExecutionError with the failing step's own words, secrets of the pillar hidden.
    The release that is served is not touched by any of it, the database is.

    CLI Example:

    .. code-block:: bash

        salt '*' django_preparation.ensure mysite
    """
    with __salt__["release_record.alone"](name, "django_preparation.ensure"):
        return _prepare(name, release)


def _prepare(name: str, release: str | None) -> dict[str, Any]:
    plan = _plan(name, release)
    project = plan.project
    migrate, elsewhere = _migrates(name)

    def told(facts: dict[str, Any]) -> dict[str, Any]:
        _check_settings(plan, facts)
        kept = {key: facts[key] for key in ("static_root", "media_root", "databases", "collects")}
        kept["kept"] = [_kept_at(plan, each) for each in facts["databases"] if os.path.isabs(each)]
        # Before anything is written where it says: from here on those places are not code.
        __salt__["release_record.write"](name, "facts.json", kept)
        _make_room(plan, facts)
        return {
            "collect": bool(project["static"]["collect"] and facts["collects"]),
            "collected": facts["static_root"],
            "public": plan.places["static"] if project["source"] else None,
            "data": project["check"]["data"],
            "ways": _ways_to_write(plan),
        }

    answer = _ask(
        plan,
        "prepare",
        django_question.PREPARE_TIMEOUT,
        reply=told,
        hosts=list(_hosts(plan.site)),
        deploy=project["check"]["deploy"],
        models=project["check"]["migrations"],
        migrate=migrate,
        elsewhere=elsewhere,
        patience=django_question.LOCK_TIMEOUT,
        replace=False,
    )
    collected = bool(project["static"]["collect"] and answer["collects"])
    if elsewhere and answer["pending"]:
        raise CommandExecutionError(
            f"the release {plan.release['id']} needs migrations that the database has not had: "
            f"{', '.join(answer['pending'])}. They are for {elsewhere} to apply "
            f"({plan.key('project:migrate:host')}), and this is {__opts__['id']}: apply there "
            "first, then here again"
        )
    return _recorded(name, release, answer, migrate, collected)


def _recorded(
    name: str, release: str | None, answer: dict[str, Any], migrate: bool, collected: bool
) -> dict[str, Any]:
    """Note what was done, which is returned."""
    # Planned again: the fingerprint of a tree leaves out the places that the facts just named.
    plan = _plan(name, release)
    __salt__["release_record.add_to_release"](
        name, plan.release["id"], migrations=answer["migrations"]
    )
    result = {
        "migrated": answer["pending"] if migrate else [],
        "pending": [] if migrate else answer["pending"],
        "for_good": {
            migration: answer["migrations"][migration]["for_good"]
            for migration in answer["pending"]
            if answer["migrations"][migration]["for_good"]
        },
        "collected": answer["static_root"] if collected else None,
    }
    __salt__["release_record.write"](
        name,
        f"{marker(name, release)}.json",
        {
            "release": plan.release["id"],
            "venv": plan.venv["digest"],
            "made": [
                path
                for path in (result["collected"], *answer["databases"])
                if path and os.path.isabs(path) and os.path.exists(path)
            ],
            "standing": _standing(answer) if plan.project["check"]["data"] else {},
            "remarks": _remarks(plan, answer),
            **result,
        },
    )
    return result


def pending(name: str, release: str | None = None) -> list[str]:
    """
    The migrations of the desired release that the database has not had, asked of the database
    itself. Nothing is applied.

    name
        the site, prepared
    release
        as in :py:func:`marker`

    Returns ``app.migration`` names in the order of the plan.

    Raises CommandExecutionError when the release does not import or the database does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' django_preparation.pending mysite
    """
    nothing: dict[str, Any] = {"deploy": None, "models": False, "migrate": False, "collect": False}
    plan = _plan(name, release)
    return _ask(plan, "prepare", django_question.SETTINGS_TIMEOUT, **nothing)["pending"]


def to_migrate(name: str, release: str | None = None) -> list[str]:
    """
    The migrations that :py:func:`ensure` would apply on this host.

    name
        the site; its release and virtual environment must be complete
    release
        as in :py:func:`marker`

    Returns ``app.migration`` names; none where the pillar says that another host, or the
    operator, migrates.

    Raises as :py:func:`pending` does.

    CLI Example:

    .. code-block:: bash

        salt '*' django_preparation.to_migrate mysite
    """
    return pending(name, release) if _migrates(name)[0] else []
