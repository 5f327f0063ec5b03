"""
Releases of a Django project on the host: which one a site is to run, its files, and their removal.

Two ways lead to a release. Where the pillar names a ``project:source``, its files are copied to
``PATH/releases/ID``, as :py:mod:`_nud_release_files` describes; they belong to root and never change
again. Where it names none, the project is a tree that the operator copied to ``PATH``, and runs from
there. In both, the ID is a fingerprint of the content.

What outlives releases is in one directory of the site's user, :py:func:`directories`. A project that
keeps its SQLite file, its uploads or its collected static files beside its code finds links to that
directory there (only where the release is a copy).

.. versionadded:: 0.1.0
"""

import errno
import glob
import os
import re
import shutil
import stat
from typing import Any

from salt.exceptions import CommandExecutionError

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import accounts, cache, durable_file, release_files, site_plan

__virtualname__ = "django_release"

# The link to the live release.
_CURRENT = re.compile(r"releases/[0-9a-f]{12}")

_key = site_plan.pillar_path


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    return cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))


# --- Which release is desired -------------------------------------------------------------------


def _manifest(
    root: str, patterns: list[str], outside: set[str], only: set[str] | None = None
) -> release_files.Manifest:
    cache = __context__.setdefault("django_release.manifests", {})
    return release_files.manifest(root, patterns, outside, cache, only)


def _written_by_site(name: str, root: str) -> set[str]:
    """The paths in a tree that the site itself writes, by its settings when they were last read."""
    facts = __salt__["release_record.read"](name, "facts.json") or {}
    found = set()
    for path in (facts.get("static_root"), facts.get("media_root"), *facts.get("databases", [])):
        if path and os.path.isabs(path):
            relative = os.path.relpath(os.path.normpath(path), root)
            if relative != os.curdir and relative.split(os.sep)[0] != os.pardir:
                found.add(relative)
                found.update(relative + end for end in ("-journal", "-wal", "-shm"))
    return found


def _source(
    name: str, release: str | None = None, refresh: bool = False
) -> tuple[str, release_files.Manifest]:
    """Where the project's files are now, and the manifest of them."""
    what = ("source", name, release or "")
    return cache.once(what, lambda: _found(name, release, refresh))


def _found(name: str, release: str | None, refresh: bool) -> tuple[str, release_files.Manifest]:
    project = _site(name)["project"]
    patterns = list(project["exclude"])
    if release:
        return _stored_release(name, release, "which was asked for")
    if project["release"]:
        return _stored_release(name, project["release"], _key(name, "project:release"))
    if project["source"]:
        root, manifest = _offered(name, refresh)
        staying = __salt__["release_record.held"](name)
        if staying and release_files.fingerprint(manifest) in staying["left"]:
            return _stored_release(name, staying["release"], f"a rollback of {staying['at']}")
        return root, manifest
    root = project["path"]
    if not os.path.isdir(root):
        raise CommandExecutionError(
            f"there is no project at {root} ({_key(name, 'project:path')}): copy it there, name "
            f"another path, or set {_key(name, 'project:source')} to have it fetched"
        )
    manifest = _manifest(root, patterns, _written_by_site(name, root))
    if not manifest:
        raise CommandExecutionError(
            f"the directory {root} ({_key(name, 'project:path')}) holds no file of a project"
        )
    return root, manifest


def _offered(name: str, refresh: bool = False) -> tuple[str, release_files.Manifest]:
    """The files that the source of a site has."""
    found = __salt__["release_source.obtain"](name, refresh)
    only = None if found["only"] is None else set(found["only"])
    patterns = list(_site(name)["project"]["exclude"])
    return found["root"], _manifest(found["root"], patterns, set(), only)


def _stored_release(name: str, identity: str, key: str) -> tuple[str, release_files.Manifest]:
    """A release that is named: it has no source but itself."""
    where = os.path.join(_releases(name), identity)
    if not os.path.isdir(where):
        there = ", ".join(stored(name)) or "none"
        raise CommandExecutionError(
            f"the release {identity} ({key}) is not on this host; there are: {there}"
        )
    manifest = _made_as(name, where)
    if release_files.fingerprint(manifest) != identity:
        raise CommandExecutionError(
            f"{where} ({key}) was changed by hand, and only its source can restore it"
        )
    return where, manifest


def desired(name: str, refresh: bool = False, release: str | None = None) -> release_files.Release:
    """
    The release that a site is to run. Reads only (from the source into Salt's cache, where there
    is one).

    name
        the site
    refresh
        ask the source again, where it was asked before by this process
    release
        the ID of a release on the host to take instead of the desired one

    Returns ``{"id", "path", "source"}``: 12 hexadecimal digits over the content, the directory
    that it runs from, and a directory that holds the same files now, before the release is on
    the host too.

    Raises CommandExecutionError when the project is not there.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.desired mysite
    """
    what = ("release", name, release or "")
    return cache.once(what, lambda: _desired(name, refresh, release))


def _desired(name: str, refresh: bool, release: str | None) -> release_files.Release:
    project = _site(name)["project"]
    root, manifest = _source(name, release, refresh)
    identity = release_files.fingerprint(manifest)
    path = os.path.join(project["path"], "releases", identity) if project["source"] else root
    return {"id": identity, "path": path, "source": root}


def held(name: str) -> dict[str, Any] | None:
    """
    The rollback that is in force: the source still offers a release that was rolled back from
    (:py:func:`site_rollback.rollback`).

    name
        the site

    Returns ``{"release", "at", "offered"}``: the release that stays, since when, and what the
    source has; None when there is no such rollback.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.held mysite
    """
    project = _site(name)["project"]
    if not project["source"] or project["release"]:
        return None
    staying = __salt__["release_record.held"](name)
    if not staying:
        return None
    offered = release_files.fingerprint(_offered(name)[1])
    if offered not in staying["left"]:
        return None
    return {"release": staying["release"], "at": staying["at"], "offered": offered}


def stays(name: str) -> str | None:
    """
    The sentence about a rollback that is in force, see :py:func:`held`.

    name
        the site

    Returns a sentence, or None.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.stays mysite
    """
    staying = held(name)
    if not staying:
        return None
    return (
        f"pinned by the rollback of {staying['at']}; the source offers {staying['offered']}, which "
        "was rolled back from. A new release in the source ends this, or "
        f"site_rollback.rollback {name} {staying['offered']}"
    )


# --- The directories of a site -------------------------------------------------------------------


def directories(name: str) -> dict[str, str]:
    """
    Where a site keeps what outlives its releases.

    name
        the site

    Returns ``{"shared", "data", "static", "media"}``: the directory of it all, ``PATH/shared``
    for releases that are copies, else the home of the site's user; and the places for data that
    only the site reads, for collected static files and for uploads. Those are in it, except that
    a tree which is run where it is keeps its static files where its settings say, if that is
    within the tree.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.directories mysite
    """
    places = own_directories(name)
    project = _site(name)["project"]
    if not project["source"]:
        facts = __salt__["release_record.read"](name, "facts.json") or {}
        static = os.path.normpath(facts.get("static_root") or os.sep)
        # Whatever else the project's code says, a web server does not hand out /etc.
        if facts.get("collects") and static.startswith(project["path"].rstrip(os.sep) + os.sep):
            places["static"] = static
    return places


def own_directories(name: str) -> dict[str, str]:
    """
    The directories that the formula makes for a site.

    name
        the site

    Returns as :py:func:`directories`, whatever the project's settings say.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.own_directories mysite
    """
    return dict(cache.once(("places", name), lambda: _placed(name)))


def _placed(name: str) -> dict[str, str]:
    project = _site(name)["project"]
    shared = (
        os.path.join(project["path"], "shared")
        if project["source"]
        else __salt__["system_account.home"](name)
    )
    return {
        "shared": shared,
        "data": os.path.join(shared, "data"),
        "static": os.path.join(shared, "static"),
        "media": os.path.join(shared, "media"),
    }


def collected(name: str, release: str) -> str | None:
    """
    Where the static files of a release are collected. A manifest of hashed names belongs to one
    release, and a rollback needs it unchanged.

    name
        the site
    release
        its ID

    Returns a path; None where the project's tree runs from where it is, or nothing is collected.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.collected mysite 4f2a9c01d7e3
    """
    project = _site(name)["project"]
    if not project["source"] or not project["static"]["collect"]:
        return None
    return os.path.join(own_directories(name)["shared"], "collected", release)


# Others may pass through to the static files and uploads, which a web server hands out, but not
# list what is there; the data is the site's alone.
_MODES = {"shared": "0751", "data": "0750", "static": "0755", "media": "0755"}


def _releases(name: str) -> str:
    return os.path.join(_site(name)["project"]["path"], "releases")


def _made_as(name: str, path: str, shared: str | None = None) -> release_files.Manifest:
    """The files of a release, with those that were replaced by a link out of it."""
    known = __salt__["release_record.of_release"](name, os.path.basename(path))
    cache = __context__.setdefault("django_release.manifests", {})
    shared = shared or own_directories(name)["shared"]
    return release_files.made_as(path, shared, known.get("replaced", {}), cache)


def _differences(name: str, path: str, wanted: release_files.Manifest) -> list[str]:
    """The paths in which a release on the host differs from its source."""
    # What the pillar excludes from the source must not be here, so no patterns.
    there = _made_as(name, path)
    return sorted(
        relative for relative in {*there, *wanted} if there.get(relative) != wanted.get(relative)
    )


def diff(name: str, refresh: bool = False) -> list[str]:
    """
    What keeps the desired release from being complete on the host.

    name
        the site
    refresh
        as in :py:func:`desired`

    Returns sentences; none when it is complete.

    Raises CommandExecutionError when the project is not there, or its tree cannot be read by the
    site's user.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.diff mysite
    """
    project = _site(name)["project"]
    wanted = desired(name, refresh)
    sentences = []
    known_user = _has_account(name)
    if project["source"]:
        for entry in _unfinished(name):
            sentences.append(f"{entry} was left by a run that died, and is to be removed")
        if not os.path.isdir(wanted["path"]):
            sentences.append(f"{wanted['path']} is to be copied from {wanted['source']}")
        else:
            for path in _complete(name):
                if known_user and os.lstat(path).st_gid != _ids(name)[1]:
                    sentences.append(f"{path} is to be the group's that the site has now")
            changed = _differences(name, wanted["path"], _source(name)[1])
            if changed:
                sentences.append(
                    f"{len(changed)} files of {wanted['path']} were changed by hand and are to "
                    f"be restored: {', '.join(changed[:5])}"
                )
    elif known_user:
        unreadable = release_files.unreadable(
            wanted["path"], _source(name)[1], project["user"], project["group"]
        )
        if unreadable:
            raise CommandExecutionError(
                f"the site's user {project['user']} cannot read {unreadable}, and the project "
                f"runs from where it is ({_key(name, 'project:path')}): give it leave (e.g. "
                f"chgrp -R {project['group']} {wanted['path']} && chmod -R g+rX "
                f"{wanted['path']}), or have it copied by {_key(name, 'project:source')}"
            )
    for kind, path in own_directories(name).items():
        # The home of the site's user comes with the account.
        if not known_user or (not project["source"] and kind == "shared"):
            continue
        if not _directory_is_right(name, kind, path):
            sentences.append(f"the directory {path} is to be made")
    return sentences


def _ids(name: str) -> tuple[int, int]:
    return cache.once(("ids", name), lambda: _asked_ids(name))


def _asked_ids(name: str) -> tuple[int, int]:
    project = _site(name)["project"]
    user = accounts.user(project["user"])
    group = accounts.group(project["group"])
    if user is None or group is None:
        lost = f"user {project['user']}" if user is None else f"group {project['group']}"
        raise CommandExecutionError(f"the account of the site is missing: there is no {lost}")
    return user.pw_uid, group.gr_gid


def _has_account(name: str) -> bool:
    try:
        _ids(name)
    except CommandExecutionError:
        return False
    return True


def _directory_is_right(name: str, kind: str, path: str) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and (status.st_uid, status.st_gid) == _ids(name)
        and stat.S_IMODE(status.st_mode) == int(_MODES[kind], 8)
    )


def _complete(name: str) -> list[str]:
    return [os.path.join(_releases(name), each) for each in stored(name)]


def _unfinished(name: str) -> list[str]:
    folder = _releases(name)
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(
        os.path.join(folder, entry)
        for entry in entries
        if release_files.UNFINISHED.fullmatch(entry)
    )


def ensure(name: str) -> list[str]:
    """
    Make the desired release complete on the host: copied whole where it has a source, and the
    site's own directories made.

    name
        the site

    Returns what was done, as :py:func:`diff` names it.

    Raises CommandExecutionError as :py:func:`diff` does, and when the source changed while it
    was copied; a release is never half there.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.ensure mysite
    """
    with __salt__["release_record.alone"](name, "django_release.ensure"):
        return _ensure(name)


def _ensure(name: str) -> list[str]:
    lacks = diff(name)
    if not lacks:
        return []
    project = _site(name)["project"]
    if project["source"]:
        _ensure_copy(name)
    places = own_directories(name)
    for kind, path in places.items():
        if project["source"] and kind == "shared":
            if os.path.isdir(path):
                __salt__["system_account.adopt"](path, project["user"], project["group"])
            durable_file.directory(
                path, user=project["user"], group=project["group"], mode=_MODES[kind]
            )
        elif not _directory_is_right(name, kind, path):
            release_files.make_inside(places["shared"], kind, int(_MODES[kind], 8), _ids(name))
    return lacks


def _ensure_copy(name: str) -> None:
    project, wanted = _site(name)["project"], desired(name)
    group, path = project["group"], wanted["path"]
    __salt__["release_record.add_place"](name, project["path"])
    durable_file.directory(_releases(name), group=group, mode="0750")
    for each in _complete(name):
        __salt__["system_account.regroup"](each, group)
    for rest in _unfinished(name):
        if os.path.islink(rest):
            os.unlink(rest)
        else:
            shutil.rmtree(rest)
    root, manifest = _source(name)
    if os.path.islink(path):
        os.unlink(path)
    if os.path.isdir(path):
        changed = _differences(name, path, manifest)
        release_files.restore(root, manifest, path, changed, group)
        return
    cache = __context__.setdefault("django_release.manifests", {})
    try:
        release_files.copy(root, manifest, path, group, cache)
    except OSError as error:
        # A full disk does not say which one it is.
        taken = _taken(name) if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise CommandExecutionError(
            f"{path} cannot be copied from {root}: {error}{taken}"
        ) from error
    found = __salt__["release_source.obtain"](name)
    origin = {key: found[key] for key in ("source", "revision")}
    __salt__["release_record.add_to_release"](name, wanted["id"], **origin)


def _taken(name: str) -> str:
    """How much a site takes of a disk that is full."""
    places = {
        "releases": _releases(name),
        "environments": environments(name),
        **{kind: own_directories(name)[kind] for kind in ("data", "media", "static")},
    }
    sizes = release_files.mib(places)
    told = ", ".join(f"{what} {sizes[what]} MiB in {places[what]}" for what in places)
    return (
        f"; {name} has {told}. {_key(name, 'project:keep')} is "
        f"{_site(name)['project']['keep']}: fewer releases take less room"
    )


def environments(name: str) -> str:
    """
    The directory of the virtual environments that are built for a site.

    name
        the site

    Returns an absolute path, ``STATE_DIR/venvs/SITE``.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.environments mysite
    """
    state_dir = __salt__["site_pillar.settings"]()["lookup"]["state_dir"]
    return os.path.join(state_dir, "venvs", __salt__["site_pillar.named"](name))


# --- The releases on the host -------------------------------------------------------------------


def current(name: str) -> str | None:
    """
    The release that ``current`` points at.

    name
        the site

    Returns its ID, or None: no release was live yet, or the project is a tree that is run where
    it is.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.current mysite
    """
    link = os.path.join(_site(name)["project"]["path"], "current")
    if not os.path.islink(link):
        return None
    return os.path.basename(os.readlink(link))


def stored(name: str) -> list[str]:
    """
    The complete releases of a site on this host.

    name
        the site

    Returns IDs, those that were live first to last, then those that never were.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.stored mysite
    """
    if not _site(name)["project"]["source"]:
        return []
    there = _made_in(name, _site(name)["project"]["path"])
    order = [entry["release"] for entry in __salt__["release_record.history"](name)]
    return sorted(there, key=lambda each: (each not in order, _last(order, each), each))


def _made_in(name: str, place: str) -> list[str]:
    """
    The releases in a directory that this formula made, by the record, or by the content, whose
    fingerprint is the name. Anything else in it is never removed.
    """
    folder = os.path.join(place, "releases")
    try:
        there = [entry for entry in os.listdir(folder) if release_files.ID.fullmatch(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    noted = set(__salt__["release_record.entries"](name))
    return [
        each
        for each in sorted(there)
        if release_files.is_directory(path := os.path.join(folder, each))
        and (
            f"release-{each}.json" in noted
            or release_files.fingerprint(_made_as(name, path, os.path.join(place, "shared")))
            == each
        )
    ]


def _last(order: list[str], each: str) -> int:
    return len(order) - 1 - order[::-1].index(each) if each in order else -1


def in_use(path: str) -> bool:
    """
    Whether a process runs from a directory, or a uWSGI generation will after a reboot.

    path
        a release or a virtual environment

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.in_use /srv/mysite/releases/4f2a9c01d7e3
    """
    if release_files.is_run_from(path):
        return True
    for ini in _enabled_inis():
        text = durable_file.read(ini) or b""
        if re.search(re.escape(path.rstrip(os.sep)).encode() + rb"(?![\w.-])", text):
            return True
    return False


def _enabled_inis() -> list[str]:
    """The ini files of the generations that systemd starts after a reboot."""
    lookup = __salt__["site_pillar.settings"]()["lookup"]
    wanted = f"{glob.escape(lookup['unit_dir'])}/uwsgi-*.service.wants/uwsgi-*@*.service"
    names = [
        re.fullmatch(r"uwsgi-(.+)@(.+)\.service", os.path.basename(p)) for p in glob.glob(wanted)
    ]
    return [f"{lookup['uwsgi_dir']}/{name[1]}/{name[2]}.ini" for name in names if name]


# --- Removal -------------------------------------------------------------------------------------


def data_may_go() -> bool:
    """
    Whether the pillar allows removing what cannot be made again: releases, databases, uploads.

    Returns True when ``nginx_uwsgi_django:clean:data`` is true.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.data_may_go
    """
    return __salt__["site_pillar.settings"]()["clean"]["data"] is True


def leftovers(name: str) -> list[str]:
    """
    What :py:func:`remove` removes of a site: its releases and its shared data in every directory that
    the record or the pillar names, and the records of them.

    name
        the site

    Returns absolute paths. A project's tree that was copied to the host by hand is never among them, nor
    is anything in ``releases`` that this formula did not make.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.leftovers mysite
    """
    paths = [path for place in _held_places(name) for path in _made_at(name, place)]
    # Last: as long as the record is there, a run that was killed is finished by the next one.
    paths += [__salt__["system_account.home"](name), __salt__["release_record.directory"](name)]
    return [path for path in paths if os.path.lexists(path)]


def _held_places(name: str) -> list[str]:
    """
    The directories that hold releases of a site. An absent site need not say that it had a source:
    then it is the record, or the releases themselves, that tell.
    """
    places = __salt__["release_record.places"](name)
    path = _site(name)["project"]["path"]
    return places if path in places or not _made_in(name, path) else [*places, path]


def _made_at(name: str, place: str) -> list[str]:
    """What this formula made in a directory that holds releases."""
    folder = os.path.join(place, "releases")
    made = [os.path.join(folder, each) for each in _made_in(name, place)]
    if os.path.isdir(folder):
        entries = sorted(os.listdir(folder))
        made += [
            os.path.join(folder, each)
            for each in entries
            if release_files.UNFINISHED.fullmatch(each)
        ]
        if len(made) == len(entries):
            # Nothing else is in it.
            made = [folder]
    link = os.path.join(place, "current")
    if os.path.islink(link) and _CURRENT.fullmatch(os.readlink(link)):
        made.insert(0, link)
    return [*made, os.path.join(place, "shared")]


def left(name: str) -> list[str]:
    """
    What stays of a site's directory when :py:func:`remove` is done: files that this formula did
    not make.

    name
        the site

    Returns absolute paths of directories; none when nothing stays.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.left mysite
    """
    path = _site(name)["project"]["path"]
    places = dict.fromkeys([*_held_places(name), path])
    return [place for place in places if os.path.isdir(place) and _stays(name, place)]


def _stays(name: str, place: str) -> bool:
    going = _made_at(name, place) if place in _held_places(name) else []
    return bool(set(os.listdir(place)) - {os.path.relpath(path, place) for path in going})


def remove(name: str) -> list[str]:
    """
    Remove a site's releases, its data and the records of them.

    name
        the site

    Returns the paths that were removed.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.remove mysite
    """
    places = _held_places(name)
    paths = leftovers(name)
    for place in places:
        # The releases, which may be all that tells of it, go before the data.
        __salt__["release_record.add_place"](name, place)
    for path in paths:
        if os.path.islink(path):
            durable_file.remove(path)
        else:
            shutil.rmtree(path)
    for place in places:
        if os.path.isdir(place) and not os.listdir(place):
            os.rmdir(place)
    if not left(name):
        __salt__["system_account.release_numbers"](name)
    return paths
