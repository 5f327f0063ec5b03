"""
Releases of a Django project: its files on the host, checked, its database and static files made
ready, and the link to the one that is served.

Two ways lead to a release. Where the pillar names a ``project:source``, its files are copied to
``PATH/releases/ID``: beside its place first, flushed to the disk, then renamed, so that a release
is whole or not there; it belongs to root and never changes again. Where it names none, the
project is a tree that somebody copied to ``PATH``, and runs from there. In both, the ID is a
fingerprint of the content, so that the same files are the same release on every host, and
another file is another release.

What outlives releases is in one directory of the site's user, :py:func:`directories`; the
project learns it from two environment variables, ``DJANGO_DATA_DIR`` and ``DJANGO_STATIC_ROOT``,
and the site's names from a third, ``DJANGO_ALLOWED_HOSTS``. A project that does not look there and keeps its SQLite file, its uploads or its collected static files
beside its code finds links to that directory there (only where the release is a copy).

.. versionadded:: 0.1.0
"""

import contextlib
import errno
import fnmatch
import glob
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import stat
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError
from salt.loader.dunder import __opts__

from _nud import durable_file, program, uwsgi_ini

__virtualname__ = "django_release"

log = logging.getLogger(__name__)

# Seconds. A migration of a large table takes long, and being killed does not make it shorter.
_FACTS_TIMEOUT = 120
_PREPARE_TIMEOUT = 7200
_LOCK_TIMEOUT = 1800
_MESSAGE_LINES = 60

# Not part of a release: what tools and the running site write into a tree.
_EXCLUDED_FOLDERS = {
    ".git",
    ".hg",
    ".svn",
    ".tox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "node_modules",
}
_EXCLUDED_FILES = ("*.pyc", "*.pyo", "*.sqlite3", "*.sqlite3-*", "*.log", "*.pid", "*.swp")

# Runs in the site's own Python, as the site's user, in the release. What the project prints goes
# to standard error; the answer alone is on standard output.
_DRIVER = r"""
import filecmp, gc, grp, importlib, importlib.util, json, os, pwd, shutil, sys, time
import traceback, zlib

# To look for garbage while Django is imported takes a tenth of the time, and there is none.
gc.disable()
request = json.loads(sys.stdin.readline())
answer = {"step": "settings"}
channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path[0] = os.getcwd()


def facts():
    from django.conf import settings

    answer["static_root"] = str(getattr(settings, "STATIC_ROOT", None) or "")
    answer["media_root"] = str(getattr(settings, "MEDIA_ROOT", None) or "")
    answer["collects"] = "django.contrib.staticfiles" in settings.INSTALLED_APPS
    from django.http.request import validate_host

    # As HttpRequest.get_host decides.
    allowed = list(settings.ALLOWED_HOSTS)
    if settings.DEBUG and not allowed:
        allowed = [".localhost", "127.0.0.1", "[::1]"]
    answer["allowed_hosts"] = [str(pattern) for pattern in allowed]
    answer["refused_hosts"] = [
        host for host in request["hosts"] if not validate_host(host, allowed)
    ]
    answer["databases"] = [
        str(database["NAME"])
        for database in settings.DATABASES.values()
        if database.get("ENGINE", "").endswith(("sqlite3", "spatialite")) and database.get("NAME")
    ]
    answer["debug"] = bool(settings.DEBUG)
    answer["holds"] = list(holds(settings))


def holds(settings):
    # What no directory of collected files may hold, and where it is.
    if answer["media_root"]:
        yield "MEDIA_ROOT", answer["media_root"]
    for database in answer["databases"]:
        yield "a database", database
    modules = [request["wsgi"].partition(":")[0], settings.SETTINGS_MODULE]
    for top in sorted({str(each).split(".")[0] for each in [*modules, *settings.INSTALLED_APPS]}):
        try:
            spec = importlib.util.find_spec(top)
        except ValueError:
            continue
        if spec is not None:
            for place in spec.submodule_search_locations or [spec.origin]:
                yield "the code of %s" % top, str(place)
    for engine in settings.TEMPLATES:
        for folder in engine.get("DIRS", ()):
            yield "templates", str(folder)
    for folder in getattr(settings, "STATICFILES_DIRS", ()):
        yield "STATICFILES_DIRS", str(folder[1] if isinstance(folder, (list, tuple)) else folder)


def described(path):
    status = os.stat(path)
    names = []
    for find, number in ((pwd.getpwuid, status.st_uid), (grp.getgrgid, status.st_gid)):
        try:
            names.append(find(number)[0])
        except KeyError:
            names.append(str(number))
    where = os.path.realpath(path)
    return "%s (of %s, mode %04o)" % (where, ":".join(names), status.st_mode & 0o7777)


def unwritable():
    # As the kernel decides for this user, access lists and all.
    def refused(path):
        if os.path.lexists(path) and not os.path.exists(path):
            # A link whose target is not made yet.
            path = os.path.realpath(path)
        while not os.path.exists(path):
            path = os.path.dirname(path)
        wanted = os.W_OK | os.R_OK | (os.X_OK if os.path.isdir(path) else 0)
        return None if os.access(path, wanted) else path

    for database in answer["databases"]:
        if database.startswith((":memory:", "file:")):
            continue
        where = os.path.realpath(database)
        if not os.path.isdir(os.path.dirname(where)):
            yield "the database %s has no directory %s" % (database, os.path.dirname(where))
            continue
        # SQLite writes its journal beside the file.
        for path in (where, os.path.dirname(where)):
            found = refused(path)
            if found:
                yield "the database %s: %s" % (database, described(found))
                break
    media = answer["media_root"]
    if media and os.path.isabs(media):
        found = refused(media)
        if found:
            yield "MEDIA_ROOT %s: %s" % (media, described(found))
            return
        for folder, below, _ in os.walk(media):
            for each in below:
                found = refused(os.path.join(folder, each))
                if found:
                    yield "MEDIA_ROOT %s: %s" % (media, described(found))
                    return


def lock(connection, patience):
    # One host of a fleet at a time. The server lets go when the connection ends, however it does.
    # (PostgreSQL's key is the database's own, MySQL's the whole server's.)
    from django.core.management import CommandError

    question = {
        "postgresql": "SELECT pg_try_advisory_lock(%s)",
        "mysql": "SELECT GET_LOCK(%s, 0)",
    }.get(connection.vendor)
    if question is None:
        # SQLite is one host's, and locks its file itself.
        return
    key = "django migrate " + str(connection.settings_dict["NAME"])
    number = zlib.crc32(key.encode())
    key = number if connection.vendor == "postgresql" else "django migrate %d" % number
    deadline = time.monotonic() + patience
    while True:
        with connection.cursor() as cursor:
            cursor.execute(question, [key])
            if cursor.fetchone()[0]:
                return
        if time.monotonic() > deadline:
            raise CommandError(
                "another host has been migrating this database for %d seconds" % patience
            )
        time.sleep(1)


def for_good(operations):
    # What Migration.unapply() refuses, and those of SeparateDatabaseAndState that fail in it.
    for operation in operations:
        if not operation.reversible:
            yield operation.describe()
        yield from for_good(getattr(operation, "database_operations", ()))


def prepare():
    if request["told"]:
        # What the settings say is told, and what is to be done comes back.
        facts()
        print(json.dumps(answer), file=channel, flush=True)
        request.update(json.loads(sys.stdin.readline()))
        answer["step"] = "write"
        wrong = list(unwritable()) if request["data"] else []
        if wrong:
            from django.core.management import CommandError

            raise CommandError("\n".join([*wrong, request["ways"]]))
    answer["step"] = "import"
    module, _, path = request["wsgi"].partition(":")
    found = importlib.import_module(module)
    for part in (path or "application").split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError("%s is not callable" % request["wsgi"])
    import django
    from django.apps import apps
    from django.core.management import CommandError, call_command

    if not apps.ready:
        # The callable is one of the project's own, which has no use for it; as manage.py does.
        django.setup()
    answer["step"] = "check"
    if request["deploy"]:
        try:
            call_command("check", deploy=True, fail_level=request["deploy"])
        except CommandError:
            # What a plain check refuses, too, has nothing to do with --deploy.
            call_command("check")
            answer["step"] = "deploy"
            raise
    else:
        call_command("check")
    if request["models"]:
        answer["step"] = "makemigrations"
        try:
            call_command(
                "makemigrations", check_changes=True, dry_run=True, interactive=False, verbosity=1
            )
        except SystemExit as left:
            if left.code:
                raise CommandError("there are models that no migration makes so")
    gc.enable()
    answer["step"] = "migrate"
    from django.db import connections

    connection = connections["default"]

    def plan():
        executor = MigrationExecutor(connection)
        found = executor.migration_plan(executor.loader.graph.leaf_nodes())
        return ["%s.%s" % (item.app_label, item.name) for item, _ in found]

    answer["pending"], answer["migrations"] = [], {}
    if connection.settings_dict["ENGINE"] != "django.db.backends.dummy":
        from django.db.migrations.executor import MigrationExecutor

        answer["pending"] = plan()
        for (app, name), migration in MigrationExecutor(connection).loader.disk_migrations.items():
            answer["migrations"]["%s.%s" % (app, name)] = {
                "for_good": sorted(for_good(migration.operations)),
                "replaces": ["%s.%s" % replaced for replaced in migration.replaces],
            }
        if answer["pending"] and request["migrate"]:
            # A connection of the lock's own: what migrate does to the other one is migrate's.
            holder = connection.copy()
            lock(holder, request["patience"])
            # Another host may have done it meanwhile.
            answer["pending"] = plan()
            if answer["pending"]:
                call_command("migrate", interactive=False, verbosity=1)
            holder.close()
    if request["collect"] and not (answer["pending"] and request["elsewhere"]):
        answer["step"] = "collectstatic"
        # For whichever server hands them out; they are public.
        os.umask(0o022)
        call_command("collectstatic", interactive=False, verbosity=1)
        if request["public"]:
            publish()
        # Its record is flushed to the disk, and must not be there before the files are.
        os.sync()
    answer["step"] = None
    # This process ends without Python's own tidying up; SQLite's log is merged on closing.
    connections.close_all()


def put(source, target):
    # Whole or not there, and as the same file twice: it takes no room.
    folder, name = os.path.split(target)
    beside = os.path.join(folder, ".%s.new" % name)
    if os.path.lexists(beside):
        os.unlink(beside)
    try:
        os.link(source, beside)
    except OSError:
        # Another file system, or one without.
        shutil.copy2(source, beside)
    os.replace(beside, target)


def files_of(folder):
    for below, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(below, name)
            if not name.startswith(".") or not name.endswith(".new"):
                yield path, os.path.relpath(path, folder)


def publish():
    # From where one release has them to where all that are kept have: what was there before is
    # what served pages ask for, and is replaced only once the release serves.
    answer["step"] = "publish"
    os.umask(0o022)
    for path, name in files_of(request["collected"]):
        public = os.path.join(request["public"], name)
        if not os.path.lexists(public):
            os.makedirs(os.path.dirname(public), exist_ok=True)
            put(path, public)
        elif not os.path.islink(public) and filecmp.cmp(path, public, shallow=False):
            if not os.path.samefile(path, public):
                put(public, path)
        elif request["replace"]:
            put(path, public)


def withdraw():
    # What only releases have that go.
    answer["step"] = "withdraw"
    for going in request["going"]:
        for path, name in files_of(going):
            public = os.path.join(request["public"], name)
            others = [os.path.join(other, name) for other in request["staying"]]
            others = [other for other in others if os.path.exists(other)]
            if not os.path.exists(public) or not filecmp.cmp(path, public, shallow=False):
                continue
            if not others:
                os.unlink(public)
            elif not any(filecmp.cmp(public, other, shallow=False) for other in others):
                put(others[0], public)
        shutil.rmtree(going)


try:
    actions = {"prepare": prepare, "publish": publish, "withdraw": withdraw}
    actions[request["do"]]()
    answer["done"] = True
except BaseException as error:
    answer["done"] = False
    if type(error).__name__ in ("SystemCheckError", "CommandError"):
        print(error, file=sys.stderr)
    elif not (isinstance(error, SystemExit) and error.code in (0, None)):
        traceback.print_exc()
sys.stdout.flush()
sys.stderr.flush()
print(json.dumps(answer), file=channel, flush=True)
os._exit(0)
"""

# What a release is called, and what a run that died leaves of one.
_ID = re.compile(r"[0-9a-f]{12}")
_CURRENT = re.compile(r"releases/[0-9a-f]{12}")
_UNFINISHED = re.compile(r"\.[0-9a-f]{12}\.(?:partial|removed)")

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
}


def __virtual__() -> str:
    return __virtualname__


def _once(what: tuple[str, str], look: Callable[[], Any]) -> Any:
    """:py:func:`host_survey.once` without Salt's loader, which takes longer than most looks here."""
    memory = __context__.get("host_survey")
    return look() if memory is None else memory.once(what, look)


def _site(name: str) -> dict[str, Any]:
    return _once(("site", name), lambda: __salt__["site_pillar.site"](name))


def _key(name: str, rest: str) -> str:
    return f"nginx_uwsgi_django:sites:{name}:{rest}"


# --- Fingerprints ----------------------------------------------------------------------------


def _excluded(relative: str, patterns: list[str]) -> bool:
    base = os.path.basename(relative)
    return any(
        fnmatch.fnmatchcase(relative, pattern.rstrip("/"))
        or fnmatch.fnmatchcase(base, pattern.rstrip("/"))
        for pattern in patterns
    )


def _files(
    root: str, patterns: list[str], outside: set[str], only: set[str] | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """
    The files and links of a tree that are part of a release: relative path and status, sorted.

    ``outside`` are paths within the tree that are not; ``only``, where given, are the ones that
    can be.
    """

    def there(relative: str) -> bool:
        return only is None or relative in only

    def folder(relative: str) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(os.path.join(root, relative)) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        names = {entry.name for entry in entries}
        if relative and "pyvenv.cfg" in names and there(f"{relative}/pyvenv.cfg"):
            return
        for entry in entries:
            path = os.path.join(relative, entry.name)
            if path in outside or _excluded(path, patterns):
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name in _EXCLUDED_FOLDERS or path in (".venv", "venv"):
                    continue
                # Uploads; but a Python package may have that name.
                if path == "media" and not os.path.exists(
                    os.path.join(root, "media", "__init__.py")
                ):
                    continue
                yield from folder(path)
            elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                if there(path) and not _excluded(entry.name, list(_EXCLUDED_FILES)):
                    yield path, entry.stat(follow_symlinks=False)

    yield from folder("")


def _entry(root: str, relative: str, status: os.stat_result) -> str:
    """One line of the fingerprint: what this file is."""
    path = os.path.join(root, relative)
    if stat.S_ISLNK(status.st_mode):
        kind, content = "link", os.readlink(path)
    else:
        kind = "program" if status.st_mode & 0o100 else "file"
        with open(path, "rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
        content = digest.hexdigest()
    return json.dumps([relative, kind, content])


def _manifest(
    root: str, patterns: list[str], outside: set[str], only: set[str] | None = None
) -> dict[str, str]:
    """Every file of a tree with its line. Contents are read again only where a status changed."""
    files = list(_files(root, patterns, outside, only))
    signature = [
        (
            path,
            status.st_ino,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        for path, status in files
    ]
    cache = __context__.setdefault("django_release.manifests", {})
    known = cache.get(root)
    if known is None or known[0] != signature:
        known = (signature, {path: _entry(root, path, status) for path, status in files})
        cache[root] = known
    return known[1]


def _fingerprint(manifest: dict[str, str]) -> str:
    text = "\n".join(manifest[path] for path in sorted(manifest))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _written_by_site(name: str, root: str) -> set[str]:
    """What the settings, when last read, said that the site itself writes inside a tree."""
    facts = __salt__["release_record.read"](name, "facts.json") or {}
    found = set()
    for path in (facts.get("static_root"), facts.get("media_root"), *facts.get("databases", [])):
        if path and os.path.isabs(path):
            relative = os.path.relpath(os.path.normpath(path), root)
            if relative != os.curdir and relative.split(os.sep)[0] != os.pardir:
                found.add(relative)
                found.update(relative + end for end in ("-journal", "-wal", "-shm"))
    return found


# --- Sources ---------------------------------------------------------------------------------


def _source(name: str, refresh: bool = False) -> tuple[str, dict[str, str]]:
    """Where the project's files are now, and the manifest of them."""
    return _once(("source", name), lambda: _found(name, refresh))


def _found(name: str, refresh: bool) -> tuple[str, dict[str, str]]:
    project = _site(name)["project"]
    patterns = list(project["exclude"])
    pinned = _pinned(name)
    if pinned:
        return _stored_release(name, *pinned)
    if project["source"]:
        root, manifest = _offered(name, refresh)
        staying = __salt__["release_record.held"](name)
        if staying and _fingerprint(manifest) in staying["left"]:
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


def _offered(name: str, refresh: bool = False) -> tuple[str, dict[str, str]]:
    """What the source of a site has."""
    found = __salt__["release_source.obtain"](name, refresh)
    only = None if found["only"] is None else set(found["only"])
    patterns = list(_site(name)["project"]["exclude"])
    return found["root"], _manifest(found["root"], patterns, set(), only)


# The releases that this process takes for the desired ones at the moment, by site.
_ASIDE = "django_release.aside"


@contextlib.contextmanager
def _taken_for_desired(name: str, release: str) -> Iterator[None]:
    """Let a release on the host be the desired one; its source is not asked for anything."""
    aside = __context__.setdefault(_ASIDE, {})
    aside[name] = release
    try:
        yield
    finally:
        del aside[name]


def _pinned(name: str) -> tuple[str, str] | None:
    """The release to have whatever the source has, and who says so."""
    release = _site(name)["project"]["release"]
    if release:
        return release, _key(name, "project:release")
    release = __context__.get(_ASIDE, {}).get(name)
    return (release, "django_release.rollback") if release else None


def _stored_release(name: str, identity: str, key: str) -> tuple[str, dict[str, str]]:
    """A release that is named, which has no source but itself."""
    where = os.path.join(_releases(name), identity)
    if not os.path.isdir(where):
        there = ", ".join(stored(name)) or "none"
        raise CommandExecutionError(
            f"the release {identity} ({key}) is not on this host; there are: {there}"
        )
    manifest = _made_as(name, where)
    if _fingerprint(manifest) != identity:
        raise CommandExecutionError(
            f"{where} ({key}) is not what it was made as: it was changed by hand, and only its "
            "source can restore it"
        )
    return where, manifest


def desired(name: str, refresh: bool = False) -> dict[str, Any]:
    """
    The release that a site is to run. Reads only (from the source into Salt's cache, where there
    is one).

    name
        the site
    refresh
        ask the source again, where it was asked before by this process

    Returns ``{"id", "path", "source"}``: 12 hexadecimal digits over the content, the directory
    that it runs from, and a directory that holds the same files now, before the release is on
    the host too.

    Raises CommandExecutionError when the project is not there.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.desired mysite
    """
    return _once(("release", name), lambda: _desired(name, refresh))


def _desired(name: str, refresh: bool) -> dict[str, Any]:
    project = _site(name)["project"]
    root, manifest = _source(name, refresh)
    identity = _fingerprint(manifest)
    path = os.path.join(project["path"], "releases", identity) if project["source"] else root
    return {"id": identity, "path": path, "source": root}


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
    places = _places(name)
    project = _site(name)["project"]
    if not project["source"]:
        facts = __salt__["release_record.read"](name, "facts.json") or {}
        static = os.path.normpath(facts.get("static_root") or os.sep)
        # Whatever else the project's code says, a web server does not hand out /etc.
        if facts.get("collects") and static.startswith(project["path"].rstrip(os.sep) + os.sep):
            places["static"] = static
    return places


def _places(name: str) -> dict[str, str]:
    """The directories that the formula makes for a site."""
    return dict(_once(("places", name), lambda: _placed(name)))


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


# Others may pass through to the static files and uploads, which a web server hands out, but not
# list what is there; the data is the site's alone.
_MODES = {"shared": "0751", "data": "0750", "static": "0755", "media": "0755"}


def environment(name: str) -> dict[str, str]:
    """
    The environment of everything that runs for a site: its uWSGI and its management commands.
    May hold secrets.

    name
        the site

    Returns a dictionary; the pillar's ``project:env`` has the last word, before ``env =`` of the
    project's own uWSGI ini (``uwsgi:ini``).

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.environment mysite
    """

    def look() -> dict[str, str]:
        venv = __salt__["python_venv.desired"](name)["path"]
        return _environment(name, venv, desired(name)["id"])

    return dict(_once(("environment", name), look))


def own_ini(name: str) -> tuple[str, str] | None:
    """
    The uWSGI ini that a site's project brings along.

    name
        the site

    Returns its text and the path that it has in the release; None where the pillar names none
    (``uwsgi:ini``).

    Raises CommandExecutionError when it cannot be read, or is a link out of the project.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.own_ini mysite
    """
    ini = _site(name)["uwsgi"]["ini"]
    if not ini:
        return None
    release = desired(name)
    # Root reads it, and the site's group may read what comes of it: a link must not lead to
    # what only root may see.
    source = os.path.realpath(os.path.join(release["source"], ini))
    if not source.startswith(os.path.realpath(release["source"]) + "/"):
        raise CommandExecutionError(
            f"{_key(name, 'uwsgi:ini')}: {ini} leads out of the project, to {source}"
        )
    try:
        with open(source, encoding="utf-8") as stream:
            return stream.read(), os.path.join(release["path"], ini)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandExecutionError(
            f"{source} ({_key(name, 'uwsgi:ini')}) cannot be read: {error}"
        ) from error


def _said_by_the_project(name: str) -> dict[str, str]:
    """The variables that the project's own uWSGI ini sets."""
    own = own_ini(name)
    if own is None:
        return {}
    try:
        return dict(uwsgi_ini.environment(*own))
    except SaltInvocationError as error:
        raise CommandExecutionError(f"{_key(name, 'uwsgi:ini')}: {error}") from error


def _allowed_hosts(site: dict[str, Any]) -> dict[str, str]:
    """What ALLOWED_HOSTS has to have, as a variable; none where that cannot be written there."""
    names = [*site["server_names"], site["health"]["host"]]
    # https://docs.djangoproject.com/en/5.2/ref/settings/#allowed-hosts has no word for these.
    if any(name == "_" or name.endswith(".*") for name in names):
        return {}
    allowed = dict.fromkeys(name.removeprefix("*") for name in names)
    covered = tuple(name for name in allowed if name.startswith("."))
    kept = [name for name in allowed if name.startswith(".") or not name.endswith(covered)]
    return {"DJANGO_ALLOWED_HOSTS": ",".join(kept)}


def _collected(name: str, release: str) -> str | None:
    """
    Where the static files of a release are collected, if they are: a manifest of hashed names is
    one release's, and must be as it was when that is gone back to.
    """
    project = _site(name)["project"]
    if not project["source"] or not project["static"]["collect"]:
        return None
    return os.path.join(_places(name)["shared"], "collected", release)


def _environment(name: str, venv: str, release: str) -> dict[str, str]:
    project = _site(name)["project"]
    places = _places(name)
    return {
        "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": __salt__["system_account.home"](name),
        "USER": project["user"],
        "LOGNAME": project["user"],
        "LANG": "C.UTF-8",
        # The code is not the site's to write, compiled or not.
        "PYTHONDONTWRITEBYTECODE": "1",
        "DJANGO_DATA_DIR": places["data"],
        "DJANGO_STATIC_ROOT": _collected(name, release) or places["static"],
        **_allowed_hosts(_site(name)),
        **_said_by_the_project(name),
        "DJANGO_SETTINGS_MODULE": project["settings"],
        **{
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in project["env"].items()
        },
    }


# --- The files on the host ---------------------------------------------------------------------


def _releases(name: str) -> str:
    return os.path.join(_site(name)["project"]["path"], "releases")


def _links_out(root: str, shared: str) -> set[str]:
    """The links in a release that lead to the site's own directory, by their path in it."""
    shared += os.sep
    found = set()
    for folder, folders, files in os.walk(root):
        for entry in (*folders, *files):
            path = os.path.join(folder, entry)
            if os.path.islink(path) and os.readlink(path).startswith(shared):
                found.add(os.path.relpath(path, root))
    return found


def _made_as(name: str, path: str, shared: str | None = None) -> dict[str, str]:
    """The files of a release, with those that a link out of it took the place of."""
    links = _links_out(path, shared or _places(name)["shared"])
    known = __salt__["release_record.of_release"](name, os.path.basename(path))
    replaced = {
        relative: line
        for relative, line in known.get("replaced", {}).items()
        if any(relative.startswith(link + os.sep) for link in links)
    }
    return {**replaced, **_manifest(path, [], links)}


def _differences(name: str, path: str, wanted: dict[str, str]) -> list[str]:
    """The paths in which a release on the host is not what it was made as."""
    # What the pillar excludes from the source is not expected here, and would be found: no
    # patterns.
    there = _made_as(name, path)
    return sorted(
        relative for relative in {*there, *wanted} if there.get(relative) != wanted.get(relative)
    )


def _unreadable(name: str, root: str, manifest: dict[str, str]) -> str | None:
    """The first path of a tree that the site's user cannot read, if any."""
    project = _site(name)["project"]
    uid, gid = _ids(name)
    groups = set(os.getgrouplist(project["user"], gid))

    def allowed(path: str, bits: int) -> bool:
        status = os.stat(path)
        mode = status.st_mode
        if status.st_uid == uid:
            mode >>= 6
        elif status.st_gid in groups:
            mode >>= 3
        return mode & bits == bits

    parts = root.strip(os.sep).split(os.sep)
    ways = [os.sep + os.sep.join(parts[: count + 1]) for count in range(len(parts))]
    folders = sorted({os.path.dirname(relative) for relative in manifest})
    doubtful = [path for path in ways if not allowed(path, 1)]
    # Python lists the directories of packages (namespace packages, migrations).
    doubtful += [
        os.path.join(root, folder) for folder in folders if not allowed(f"{root}/{folder}", 5)
    ]
    for relative in sorted(manifest):
        path = os.path.join(root, relative)
        # A link with no target is nothing that could be read by anybody.
        if os.path.exists(path) and not allowed(path, 4):
            doubtful.append(path)
    # Access lists can allow what the mode does not show: only the system knows.
    for start in range(0, len(doubtful), 500):
        done = program.run_as(
            project["user"],
            project["group"],
            [
                "/usr/bin/find",
                "-L",
                *doubtful[start : start + 500],
                *("-maxdepth", "0", "("),
                *("(", "-type", "d", "!", "-executable", ")"),
                *("-o", "(", "!", "-type", "d", "!", "-readable", ")"),
                *(")", "-print", "-quit"),
            ],
            "/",
            {"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            60,
            merge=False,
        )
        if done["stdout"].strip():
            return done["stdout"].splitlines()[0]
        if done["retcode"]:
            return doubtful[start]
    return None


def held(name: str) -> dict[str, Any] | None:
    """
    The rollback by :py:func:`rollback` that is in force: the source still has a release that was
    gone back from.

    name
        the site

    Returns ``{"release", "at", "offered"}``: the release that stays, since when, and what the
    source has; None when there is no such rollback.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.held mysite
    """
    if not _site(name)["project"]["source"] or _pinned(name):
        return None
    staying = __salt__["release_record.held"](name)
    if not staying:
        return None
    offered = _fingerprint(_offered(name)[1])
    if offered not in staying["left"]:
        return None
    return {"release": staying["release"], "at": staying["at"], "offered": offered}


def stays(name: str) -> str | None:
    """
    What is to be said where a rollback is in force, see :py:func:`held`.

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
        f"it stays by the rollback of {staying['at']}, although the source has "
        f"{staying['offered']}: until the source has what was not gone back from, or by "
        f"django_release.rollback {name} {staying['offered']}"
    )


def lacking(name: str, refresh: bool = False) -> list[str]:
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

        salt '*' django_release.lacking mysite
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
        unreadable = _unreadable(name, wanted["path"], _source(name)[1])
        if unreadable:
            raise CommandExecutionError(
                f"the site's user {project['user']} cannot read {unreadable}, and the project "
                f"runs from where it is ({_key(name, 'project:path')}): give it leave (e.g. "
                f"chgrp -R {project['group']} {wanted['path']} && chmod -R g+rX "
                f"{wanted['path']}), or have it copied by {_key(name, 'project:source')}"
            )
    for kind, path in _places(name).items():
        # The home of the site's user comes with the account.
        if not known_user or (not project["source"] and kind == "shared"):
            continue
        if not _directory_is_right(name, kind, path):
            sentences.append(f"the directory {path} is to be made")
    return sentences


def _ids(name: str) -> tuple[int, int]:
    return _once(("ids", name), lambda: _asked_ids(name))


def _asked_ids(name: str) -> tuple[int, int]:
    project = _site(name)["project"]
    user = __salt__["host_survey.user"](project["user"])
    group = __salt__["host_survey.group"](project["group"])
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
    return sorted(os.path.join(folder, entry) for entry in entries if _UNFINISHED.fullmatch(entry))


def fetch(name: str) -> list[str]:
    """
    Make the desired release complete on the host: copied whole where it has a source, and the
    site's own directories made.

    name
        the site

    Returns what was done, as :py:func:`lacking` names it.

    Raises CommandExecutionError as :py:func:`lacking` does, and when the source changed while it
    was copied; a release is never half there.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.fetch mysite
    """
    with __salt__["release_record.alone"](name, "django_release.fetch"):
        return _fetch(name)


def _fetch(name: str) -> list[str]:
    lacks = lacking(name)
    if not lacks:
        _discard(name, prunable(name))
        return []
    project = _site(name)["project"]
    user, group = project["user"], project["group"]
    directory = durable_file.directory
    if project["source"]:
        wanted = desired(name)
        _discard(name, prunable(name))
        __salt__["release_record.add_place"](name, project["path"])
        directory(_releases(name), group=group, mode="0750")
        for path in _complete(name):
            __salt__["system_account.regroup"](path, group)
        for left in _unfinished(name):
            if os.path.islink(left):
                os.unlink(left)
            else:
                shutil.rmtree(left)
        root, manifest = _source(name)
        if os.path.islink(wanted["path"]):
            os.unlink(wanted["path"])
        if not os.path.isdir(wanted["path"]):
            _copy(name, root, manifest, wanted)
            found = __salt__["release_source.obtain"](name)
            origin = {key: found[key] for key in ("source", "revision")}
            __salt__["release_record.add_to_release"](name, wanted["id"], **origin)
        else:
            _restore(name, root, manifest, wanted["path"])
    for kind, path in _places(name).items():
        if project["source"] and kind == "shared":
            if os.path.isdir(path):
                __salt__["system_account.adopt"](path, user, group)
            directory(path, user=user, group=group, mode=_MODES[kind])
        elif not _directory_is_right(name, kind, path):
            _make_inside(name, _places(name)["shared"], kind, int(_MODES[kind], 8))
    return lacks


def _make_inside(name: str, folder: str, relative: str, mode: int) -> None:
    """
    Make a directory of the site's user inside one that is not root's, with no link followed on
    the way: there, one could lie anywhere.
    """
    uid, gid = _ids(name)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    handle = os.open(folder, flags)
    try:
        for part in relative.split(os.sep):
            made = False
            try:
                os.mkdir(part, 0o700, dir_fd=handle)
                made = True
            except FileExistsError:
                pass
            try:
                below = os.open(part, flags, dir_fd=handle)
            except OSError as error:
                raise CommandExecutionError(
                    f"{os.path.join(folder, relative)} is to be a directory of the site's, and "
                    f"{part} in it is none: {error.strerror}"
                ) from error
            os.fsync(handle)
            os.close(handle)
            handle = below
            if made:
                os.fchown(handle, uid, gid)
                os.fchmod(handle, mode)
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
    finally:
        os.close(handle)


def _copy_file(source: str, target: str, gid: int) -> None:
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        os.chown(target, 0, gid, follow_symlinks=False)
        return
    with open(source, "rb") as stream:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
            os.fchown(handle, 0, gid)
            os.fchmod(handle, 0o750 if status.st_mode & 0o100 else 0o640)
            copy.flush()
            os.fsync(handle)


def _folders(manifest: dict[str, str]) -> list[str]:
    """The directories that the files of a manifest need, parents first."""
    found = set()
    for relative in manifest:
        parent = os.path.dirname(relative)
        while parent:
            found.add(parent)
            parent = os.path.dirname(parent)
    return sorted(found)


def _copy(name: str, root: str, manifest: dict[str, str], wanted: dict[str, Any]) -> None:
    group = _site(name)["project"]["group"]
    folder = _releases(name)
    partial = os.path.join(folder, f".{wanted['id']}.partial")
    directory = durable_file.directory
    try:
        directory(partial, group=group, mode="0750")
        gid = os.stat(partial).st_gid
        for below in _folders(manifest):
            directory(os.path.join(partial, below), group=group, mode="0750")
        for relative in manifest:
            _copy_file(os.path.join(root, relative), os.path.join(partial, relative), gid)
        if _fingerprint(_manifest(partial, [], set())) != wanted["id"]:
            raise CommandExecutionError(
                f"{root} changed while it was copied to {folder}: apply again"
            )
        for below in [*_folders(manifest), ""]:
            _sync(os.path.join(partial, below))
        os.rename(partial, wanted["path"])
        _sync(folder)
    except BaseException as error:
        if os.path.lexists(partial):
            shutil.rmtree(partial)
        if isinstance(error, OSError):
            # A full disk does not say which.
            taken = _taken(name) if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise CommandExecutionError(
                f"{wanted['path']} cannot be copied from {root}: {error}{taken}"
            ) from error
        raise


def _taken(name: str) -> str:
    """What a site takes of a disk that is full."""
    venvs = os.path.dirname(__salt__["python_venv.desired"](name)["path"])
    places = {"releases": _releases(name), "environments": venvs, **_places(name)}
    sizes = {}
    for what in ("releases", "environments", "data", "media", "static"):
        blocks = 0
        for folder, _, files in os.walk(places[what]):
            for each in files:
                with contextlib.suppress(FileNotFoundError):
                    blocks += os.lstat(os.path.join(folder, each)).st_blocks
        sizes[what] = f"{what} {blocks // 2048} MiB in {places[what]}"
    return (
        f"; {name} has {', '.join(sizes.values())}. {_key(name, 'project:keep')} is "
        f"{_site(name)['project']['keep']}: fewer releases take less room"
    )


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _restore(name: str, root: str, manifest: dict[str, str], path: str) -> None:
    """Bring a release that was edited by hand back to what its name says, file by file."""
    group = _site(name)["project"]["group"]
    for relative in _differences(name, path, manifest):
        target = os.path.join(path, relative)
        if relative not in manifest:
            os.unlink(target)
            continue
        source = os.path.join(root, relative)
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        durable_file.directory(os.path.dirname(target), group=group, mode="0750")
        if os.path.islink(source):
            durable_file.link(target, os.readlink(source))
            continue
        with open(source, "rb") as stream:
            content = stream.read()
        mode = "0750" if os.stat(source).st_mode & 0o100 else "0640"
        durable_file.write(target, content, group=group, mode=mode)


# --- Checked and prepared ----------------------------------------------------------------------


def marker(name: str) -> str:
    """
    The name of what a site was prepared for: its release, its virtual environment, its process
    environment and what the pillar says of preparing.

    name
        the site

    Returns 12 hexadecimal digits.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.marker mysite
    """
    project = _site(name)["project"]
    parts = [
        desired(name)["id"],
        desired(name)["path"],
        __salt__["python_venv.desired"](name)["digest"],
        environment(name),
        project["wsgi"],
        project["user"],
        project["group"],
        project["migrate"],
        project["static"]["collect"],
        # Whether data is looked at is no part of what was prepared.
        {key: value for key, value in project["check"].items() if key != "data"},
        _hosts(name),
    ]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_prepared(name: str) -> bool:
    """
    Whether the desired release was checked and prepared on this host as the pillar asks now.
    Starts no process: migrations that somebody added or undid in the database since are not
    noticed here, but by :py:func:`pending`.

    name
        the site

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.is_prepared mysite
    """
    record = __salt__["release_record.read"](name, f"{marker(name)}.json")
    if record is None:
        return False
    # What a restored or emptied disk shows for the price of a look.
    if not all(os.path.exists(path) for path in record["made"]):
        return False
    # Where somebody changed who may write, it is tried again; an older formula did not try.
    standing = record.get("standing", None if _site(name)["project"]["check"]["data"] else {})
    return standing is not None and all(
        before is None or _owned(path) == before for path, before in standing.items()
    )


def _hidden(name: str, text: str) -> str:
    """Text with every value of the site's own environment that could be a secret blanked."""
    secrets = set()
    for key, value in _site(name)["project"]["env"].items():
        value = value if isinstance(value, str) else json.dumps(value)
        if _is_address(key, value):
            continue
        secrets |= {value, repr(value)[1:-1]}
        try:
            password = urllib.parse.urlsplit(value).password
        except ValueError:
            password = None
        if password:
            secrets |= {password, urllib.parse.unquote(password)}
    # Blanking `1`, `True` or `en` would hide nothing and make the rest unreadable.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 4 and secret.lower() not in ("false", "debug"):
            text = text.replace(secret, "**********")
    return text


def _is_address(key: str, value: str) -> bool:
    """Whether a variable is a path or a host by its name and its value: without it, no message helps."""
    path = bool(re.fullmatch(r"/[A-Za-z0-9._/-]*", value))
    if re.search(r"(?i)(?:HOST|PORT|ADDR)$", key):
        return path or bool(re.fullmatch(r"[A-Za-z0-9.:-]+", value))
    return path and bool(re.search(r"(?i)(?:DIR|PATH|FILE|ROOT|SOCKET|HOME)$", key))


def blanked(name: str, text: str) -> str:
    """
    What a site's program said, with the values of ``project:env`` that could be secrets blanked.

    name
        the site
    text
        what it said

    Returns text.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.blanked mysite 'no access with hunter2'
    """
    return _hidden(name, text)


def _ask(
    name: str,
    do: str,
    timeout: int,
    reply: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    **request: Any,
) -> dict[str, Any]:
    project = _site(name)["project"]
    wanted = desired(name)
    venv = __salt__["python_venv.desired"](name)

    def answered(line: str) -> str:
        told = json.loads(line)
        # Where the settings fail, what comes first is the last word.
        return "" if reply is None or "done" in told else json.dumps(reply(told)) + "\n"

    done = program.run_as(
        project["user"],
        project["group"],
        [venv["binary"], "-c", _DRIVER],
        wanted["path"],
        environment(name),
        timeout,
        stdin=json.dumps({"do": do, "wsgi": project["wsgi"], "told": bool(reply), **request})
        + "\n",
        merge=False,
        reply=None if reply is None else answered,
        patience=_FACTS_TIMEOUT,
    )
    said = "\n".join(_hidden(name, done["stderr"]).strip().splitlines()[-_MESSAGE_LINES:])
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
            f"{what} {how}, as {project['user']} in {wanted['path']}:\n{said}"
            + (_ways_past_deploy(name, said) if step == "deploy" else "")
        )
    answer["said"] = said
    return answer


def _ways_past_deploy(name: str, said: str) -> str:
    """What an operator can do about a refusal of `check --deploy`, from what Django said."""
    level = _site(name)["project"]["check"]["deploy"]
    # Django prints what is below the level, too; by custom the letter of an id is its level's.
    letters = "DIWEC"["DIWEC".index(level[0]) :]
    found = ", ".join(sorted(set(re.findall(rf"\((\w+\.[{letters}]\d+)\)", said))))
    return (
        f"\nA plain manage.py check passes. Mend the settings{f' for {found}' if found else ''}, or "
        "name the check in SILENCED_SYSTEM_CHECKS, or change "
        f"{_key(name, 'project:check:deploy')}: now {level}; a higher level lets more pass, null "
        "leaves --deploy out"
    )


def _inside(path: str, root: str) -> str | None:
    """A path as it is called in a directory; None where it is not below it."""
    relative = os.path.relpath(os.path.normpath(path), root)
    return None if relative.split(os.sep)[0] in (os.curdir, os.pardir) else relative


def _link_out(name: str, path: str, target: str) -> None:
    """
    Make a path inside a release, or beside it at the project's path, lead to the site's own
    directory, unless it is there.
    """
    where = os.path.normpath(path)
    if _inside(where, _site(name)["project"]["path"]) is None:
        return
    if os.path.lexists(where) and not (
        os.path.islink(where) and os.readlink(where).startswith(_places(name)["shared"])
    ):
        return
    group = _site(name)["project"]["group"]
    folder = os.path.dirname(where)
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    if _inside(folder + os.sep + "x", _places(name)["shared"]):
        # What is made there is the site's to make.
        return
    for each in reversed(missing):
        durable_file.directory(each, group=group, mode="0750")
    durable_file.link(where, target)


# Runs as the site's user: uploads that a release brings are put among those that are there.
_BRING = r"""
import os, shutil, sys
source, target = sys.argv[1:]
for folder, _, names in os.walk(source):
    to = os.path.join(target, os.path.relpath(folder, source))
    os.makedirs(to, exist_ok=True)
    for name in names:
        if not os.path.lexists(os.path.join(to, name)):
            shutil.copyfile(os.path.join(folder, name), os.path.join(to, name))
"""


def _take_out(name: str, path: str, target: str) -> None:
    """
    Where a release brings its MEDIA_ROOT, with a placeholder or with first uploads, put these into
    the site's own directory and a link in its place.
    """
    wanted = desired(name)
    release = wanted["path"]
    relative = _inside(path, release)
    where = os.path.normpath(path)
    if relative is None or not _is_directory(where):
        return
    brought = {
        each: line
        for each, line in _made_as(name, release).items()
        if each.startswith(relative + os.sep)
    }
    code = sorted(each for each in brought if each.endswith(".py"))
    if code:
        raise CommandExecutionError(
            f"MEDIA_ROOT in the settings {_site(name)['project']['settings']} is {where}, which "
            f"holds code of the release ({code[0]}): set it to a directory of its own, e.g. to "
            'os.environ["DJANGO_DATA_DIR"] + "/media"'
        )
    done = _run(
        name,
        [__salt__["python_venv.desired"](name)["binary"], "-c", _BRING, where, target],
        _PREPARE_TIMEOUT,
        "/",
        environment(name),
        umask=0o022,
    )
    if done["retcode"]:
        raise CommandExecutionError(
            f"what the release brings in {where} cannot be put into {target}:\n{done['stdout']}"
        )
    # First what tells that the release is whole without them.
    __salt__["release_record.add_to_release"](name, wanted["id"], replaced=brought)
    aside = os.path.join(_releases(name), f".{wanted['id']}.removed")
    if os.path.lexists(aside):
        shutil.rmtree(aside)
    os.rename(where, aside)
    durable_file.link(where, target)
    shutil.rmtree(aside)


def _make_room(name: str, facts: dict[str, Any]) -> None:
    """What the settings say that the site writes beside its code gets a place where it can."""
    project = _site(name)["project"]
    places = _places(name)
    release = desired(name)["path"]
    if project["source"]:
        collected = _collected(name, desired(name)["id"])
        if collected and facts["collects"]:
            below = os.path.relpath(collected, places["shared"])
            _make_inside(name, places["shared"], below, 0o750)
        if facts["static_root"]:
            _link_out(name, facts["static_root"], collected or places["static"])
        if facts["media_root"]:
            _take_out(name, facts["media_root"], places["media"])
            _link_out(name, facts["media_root"], places["media"])
        for database in facts["databases"]:
            if os.path.isabs(database):
                target = os.path.join(places["data"], os.path.basename(database))
                _link_out(name, database, target)
        return
    # The tree is its owner's. What is added to it are the directories that the project's own
    # settings name for collected files and for uploads.
    wanted = [facts["static_root"]] if facts["collects"] and project["static"]["collect"] else []
    for path in (*wanted, facts["media_root"]):
        relative = _inside(path, release) if os.path.isabs(path) else None
        if relative and not os.path.lexists(os.path.join(release, relative)):
            _make_inside(name, release, relative, 0o755)


def _left_behind(name: str, facts: dict[str, Any]) -> list[str]:
    """The databases that would be new and empty, each with one that would be left behind."""
    project = _site(name)["project"]
    if not project["check"]["data"]:
        return []
    release, root = desired(name)["path"], _source(name)[0]
    before = __salt__["release_record.read"](name, "facts.json") or {}
    earlier = before.get("kept", before.get("databases", []))
    wrong = []
    new = {each: _kept_at(name, each) for each in facts["databases"] if os.path.isabs(each)}
    for database, target in new.items():
        if os.path.exists(target) and os.path.getsize(target):
            continue
        lost = [each for each in earlier if os.path.realpath(each) not in new.values()]
        if project["source"]:
            relative = _inside(database, release) or os.path.basename(database)
            lost += [os.path.join(place, relative) for place in (root, project["path"])]
        there = [each for each in lost if os.path.isfile(each) and os.path.getsize(each)]
        if there and os.path.realpath(there[0]) != target:
            user, group = project["user"], project["group"]
            wrong.append(
                f"the database {database} would be new and empty, and {there[0]} is there: copy "
                f"it while nothing writes to it (install -o {user} -g {group} -m 640 {there[0]} "
                f"{target}), or set {_key(name, 'project:check:data')} to false to begin with an "
                "empty one"
            )
    return wrong


def _kept_at(name: str, database: str) -> str:
    """Where a SQLite database will be."""
    where = os.path.normpath(database)
    if _site(name)["project"]["source"] and _inside(where, desired(name)["path"]):
        if not os.path.lexists(where) or os.path.islink(where):
            return os.path.join(_places(name)["data"], os.path.basename(where))
    return os.path.realpath(where)


def _ways_to_write(name: str) -> str:
    project = _site(name)["project"]
    user = project["user"]
    ways = [
        f"let {user} write there (chown -R {user}:{project['group']})",
        f"have the settings put it below DJANGO_DATA_DIR ({_places(name)['data']})",
        f"set {_key(name, 'project:check:data')} to false",
    ]
    if project["source"]:
        ways.insert(0, f"leave what the release brings out by {_key(name, 'project:exclude')}")
    else:
        ways.insert(0, f"name its owner in {_key(name, 'project:user')}")
    return f"{user} cannot write there: {', '.join(ways[:-1])}, or {ways[-1]}"


def _standing(facts: dict[str, Any]) -> dict[str, list[int] | None]:
    """Who may write what the site writes, as far as a look shows it."""
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


def _remarks(name: str, facts: dict[str, Any]) -> list[str]:
    settings = _site(name)["project"]["settings"]
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
    What there is to say of a release that is checked and prepared.

    name
        the site

    Returns a list of sentences, mostly empty.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.remarks mysite
    """
    record = __salt__["release_record.read"](name, f"{marker(name)}.json") or {}
    return record.get("remarks", [])


def _migrates(name: str) -> tuple[bool, str | None]:
    """Whether this host migrates, and else which one of the fleet does, if the pillar says so."""
    migrate = _site(name)["project"]["migrate"]
    if not isinstance(migrate, dict):
        return migrate, None
    here = migrate["host"] == __opts__["id"]
    return here, None if here else migrate["host"]


def _hosts(name: str) -> dict[str, str]:
    """The names that the project has to answer to, each with the pillar path that says so."""
    site = _site(name)
    if not site["project"]["check"]["hosts"]:
        return {}
    found = {}
    for number, each in enumerate(site["server_names"]):
        # Of a name with an asterisk, and of the one for any name, a project may allow a part.
        if "*" not in each and each != "_":
            found[each.lstrip(".").lower()] = _key(name, f"server_names:{number}")
    # DisallowedHost is an answer of 400, which can be the one that is waited for.
    if 400 not in site["health"]["status"]:
        found.setdefault(site["health"]["host"].lower(), _key(name, "health:host"))
    return found


def _check_settings(name: str, facts: dict[str, Any]) -> None:
    """What the settings have to say for what the pillar asks for."""
    project = _site(name)["project"]
    hosts = _hosts(name)
    wrong = []
    if facts["refused_hosts"]:
        refused = ", ".join(f"{host} ({hosts[host]})" for host in facts["refused_hosts"])
        allowed = _hidden(name, ", ".join(facts["allowed_hosts"])) or "nothing"
        wrong.append(
            f"ALLOWED_HOSTS in the settings {project['settings']} refuses {refused}; it allows "
            f"{allowed}: add the name there, take it out of the pillar, or set "
            f"{_key(name, 'project:check:hosts')} to false"
        )
    if project["static"]["collect"] and facts["collects"] and not facts["static_root"]:
        wrong.append(
            f"STATIC_ROOT in the settings {project['settings']} is not set, and "
            f"{_key(name, 'project:static:collect')} is true: set the one, e.g. to "
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
    wrong += _left_behind(name, facts)
    if wrong:
        raise CommandExecutionError("\n".join(wrong))


def prepare(name: str) -> dict[str, Any]:
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

    Returns ``{"migrated", "pending", "for_good", "collected"}``: migrations applied, migrations
    that the pillar leaves to somebody else, those of both that Django cannot undo, each with the
    operations in it that are to blame, and the directory of static files (None where there is
    none).

    Raises CommandExecutionError with the failing step's own words, secrets of the pillar blanked.
    The release that is served is not touched by any of it, the database is.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.prepare mysite
    """
    with __salt__["release_record.alone"](name, "django_release.prepare"):
        return _prepare(name)


def _prepare(name: str) -> dict[str, Any]:
    project = _site(name)["project"]
    migrate, elsewhere = _migrates(name)

    def told(facts: dict[str, Any]) -> dict[str, Any]:
        _check_settings(name, facts)
        kept = {key: facts[key] for key in ("static_root", "media_root", "databases", "collects")}
        kept["kept"] = [_kept_at(name, each) for each in facts["databases"] if os.path.isabs(each)]
        # Before anything is written where it says: from here on those places are not code.
        __salt__["release_record.write"](name, "facts.json", kept)
        _make_room(name, facts)
        return {
            "collect": bool(project["static"]["collect"] and facts["collects"]),
            "collected": facts["static_root"],
            "public": _places(name)["static"] if project["source"] else None,
            "data": project["check"]["data"],
            "ways": _ways_to_write(name),
        }

    answer = _ask(
        name,
        "prepare",
        _PREPARE_TIMEOUT,
        reply=told,
        hosts=list(_hosts(name)),
        deploy=project["check"]["deploy"],
        models=project["check"]["migrations"],
        migrate=migrate,
        elsewhere=elsewhere,
        patience=_LOCK_TIMEOUT,
        replace=False,
    )
    collected = bool(project["static"]["collect"] and answer["collects"])
    if elsewhere and answer["pending"]:
        raise CommandExecutionError(
            f"the release {desired(name)['id']} needs migrations that the database has not had: "
            f"{', '.join(answer['pending'])}. They are for {elsewhere} to apply "
            f"({_key(name, 'project:migrate:host')}), and this is {__opts__['id']}: apply there "
            "first, then here again"
        )
    __salt__["release_record.add_to_release"](
        name, desired(name)["id"], migrations=answer["migrations"]
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
    # Asked again: the fingerprint of a tree leaves out what the facts just named.
    __salt__["release_record.write"](
        name,
        f"{marker(name)}.json",
        {
            "release": desired(name)["id"],
            "venv": __salt__["python_venv.desired"](name)["digest"],
            "made": [
                path
                for path in (result["collected"], *answer["databases"])
                if path and os.path.isabs(path) and os.path.exists(path)
            ],
            "standing": _standing(answer) if project["check"]["data"] else {},
            "remarks": _remarks(name, answer),
            **result,
        },
    )
    return result


def pending(name: str) -> list[str]:
    """
    The migrations of the desired release that the database has not had, asked of the database
    itself. Nothing is applied.

    name
        the site, prepared

    Returns ``app.migration`` names in the order of the plan.

    Raises CommandExecutionError when the release does not import or the database does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.pending mysite
    """
    nothing: dict[str, Any] = {"deploy": None, "models": False, "migrate": False, "collect": False}
    return _ask(name, "prepare", _FACTS_TIMEOUT, **nothing)["pending"]


def to_migrate(name: str) -> list[str]:
    """
    The migrations that :py:func:`prepare` would apply on this host.

    name
        the site; its release and virtual environment must be complete

    Returns ``app.migration`` names; none where the pillar says that another host, or somebody
    else, migrates.

    Raises as :py:func:`pending` does.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.to_migrate mysite
    """
    return pending(name) if _migrates(name)[0] else []


def run(
    name: str, argv: list[str], timeout: int, folder: str, more: dict[str, str] | None = None
) -> dict[str, Any]:
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
        variables beside the site's own

    Returns as :py:func:`system_account.run`, with the values of ``project:env`` blanked.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.run mysite '["id"]' 10 /
    """
    return _run(name, argv, timeout, folder, {**environment(name), **(more or {})})


def _run(
    name: str,
    argv: list[str],
    timeout: int,
    folder: str,
    environ: dict[str, str],
    umask: int = 0o027,
) -> dict[str, Any]:
    project = _site(name)["project"]
    user, group = project["user"], project["group"]
    done = program.run_as(user, group, argv, folder, environ, timeout, umask)
    return {**done, "stdout": _hidden(name, done["stdout"])}


def manage(name: str, command: str, timeout: int = 3600) -> dict[str, Any]:
    """
    Run a management command of Django's, as the site's user with the site's environment, in the
    release that is live (before one is, in the desired one).

    name
        the site
    command
        what would stand after ``manage.py``, with a shell's quotes; no shell is involved
    timeout
        seconds; then the command is killed

    Returns ``{"retcode", "stdout"}``: its exit code, which is the function's too
    (``salt-call --retcode-passthrough``), and what it printed on either channel, with the values
    of ``project:env`` blanked.

    Raises CommandExecutionError when the command is none, or takes too long.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.manage mysite 'showmigrations --plan'
    """
    try:
        words = shlex.split(str(command))
    except ValueError as error:
        raise CommandExecutionError(f"the command cannot be taken apart: {error}") from error
    if not words:
        raise CommandExecutionError("there is no command: name one, like 'showmigrations --plan'")
    project = _site(name)["project"]
    venv = __salt__["python_venv.desired"](name)["path"]
    where, release = desired(name)["path"], desired(name)["id"]
    live, history = current(name), __salt__["release_record.history"](name)
    if project["source"] and live and history:
        where, release = os.path.join(_releases(name), live), live
        if not project["venv"]:
            venv = os.path.join(os.path.dirname(venv), history[-1]["venv"])
    # What manage.py does, wherever it is and whatever it is called.
    argv = [os.path.join(venv, "bin", "python"), "-m", "django", *words]
    # As uWSGI runs the site: what either writes, the web server may hand out.
    done = _run(name, argv, timeout, where, _environment(name, venv, release), umask=0o022)
    said = done["stdout"]
    if done["timed_out"]:
        raise CommandExecutionError(
            f"manage.py {words[0]} took longer than {timeout} seconds and was stopped:\n{said}"
        )
    __context__["retcode"] = done["retcode"]
    return {"retcode": done["retcode"], "stdout": said}


# --- Live, kept and removed --------------------------------------------------------------------


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
    The releases in a directory that this formula made: the record says so, or else the content,
    whose fingerprint is the name. Anything else that lies there is never removed.
    """
    folder = os.path.join(place, "releases")
    try:
        there = [entry for entry in os.listdir(folder) if _ID.fullmatch(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    noted = set(__salt__["release_record.entries"](name))
    return [
        each
        for each in sorted(there)
        if _is_directory(path := os.path.join(folder, each))
        and (
            f"release-{each}.json" in noted
            or _fingerprint(_made_as(name, path, os.path.join(place, "shared"))) == each
        )
    ]


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


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
    inside = path.rstrip(os.sep) + os.sep
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            for link in ("cwd", "exe", "root"):
                if (os.readlink(f"/proc/{process}/{link}") + os.sep).startswith(inside):
                    return True
            with open(f"/proc/{process}/maps", encoding="utf-8", errors="replace") as maps:
                if inside in maps.read():
                    return True
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # It ended meanwhile, or is a thread of the kernel.
            continue
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


def superfluous(name: str, ahead: bool = False) -> list[str]:
    """
    The releases that may go: not live, not desired, not in use, and not among those that were
    live last (``project:keep`` of them). One that never was live did not get there, and keeps no
    place that a good one needs.

    name
        the site
    ahead
        those that may go once the desired release is live, and what ran before it has ended

    Returns IDs.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.superfluous mysite
    """
    wanted = desired(name)["id"]
    if ahead:
        keep = _site(name)["project"]["keep"]
        live = [wanted, *(each for each in _recent(name, "release") if each != wanted)][:keep]
        return [each for each in stored(name) if each not in {wanted, *live}]
    staying = {current(name), wanted, *_recent(name, "release")}
    return [
        each
        for each in stored(name)
        if each not in staying and not in_use(os.path.join(_releases(name), each))
    ]


def _recent(name: str, what: str) -> list[str]:
    """The releases (or their environments) that were live last, as many as the pillar keeps."""
    return __salt__["release_record.recent"](name, what, _site(name)["project"]["keep"])


def switch(name: str) -> dict[str, Any]:
    """
    Make ``current`` point at the desired release, note that it was live, and remove releases and
    virtual environments that nothing needs any more.

    name
        the site

    Returns what was done, as :py:func:`to_switch` names it.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.switch mysite
    """
    with __salt__["release_record.alone"](name, "django_release.switch"):
        return _switch(name)


def _switch(name: str) -> dict[str, Any]:
    todo = to_switch(name)
    project = _site(name)["project"]
    wanted = desired(name)
    if "current" in todo:
        if not os.path.isdir(wanted["path"]):
            raise CommandExecutionError(f"the release {wanted['path']} is not there")
        durable_file.link(
            os.path.join(project["path"], "current"), os.path.join("releases", wanted["id"])
        )
    if "live" in todo:
        back = bool(_pinned(name) or held(name))
        __salt__["release_record.note_live"](name, **todo["live"]["new"], back=back)
        if not back or project["release"]:
            # Another release is told, by the source or by the pillar.
            __salt__["release_record.let_go"](name)
    if "published" in todo:
        _ask(
            name,
            "publish",
            _PREPARE_TIMEOUT,
            collected=_collected(name, wanted["id"]),
            public=_places(name)["static"],
            replace=True,
        )
    # Now that the live one is another, more may be superfluous.
    gone = _superfluous(name)
    _discard(name, gone)
    if "collected" in gone:
        _ask(
            name,
            "withdraw",
            _PREPARE_TIMEOUT,
            going=[_collected(name, each) for each in gone["collected"]["old"]],
            staying=[_collected(name, each) for each in stored(name)],
            public=_places(name)["static"],
        )
    _forget(name)
    return {**todo, **gone}


def prunable(name: str) -> dict[str, Any]:
    """
    What may go before another release is copied and built: releases that failed or are more than
    ``project:keep``, and the environments that only those need.

    name
        the site

    Returns a dictionary of ``{"old", "new"}`` with any of ``releases`` and ``venvs``.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.prunable mysite
    """
    releases = superfluous(name)
    found: dict[str, Any] = {"releases": {"old": releases, "new": None}} if releases else {}
    try:
        return {**found, **_superfluous_venvs(name)}
    except CommandExecutionError as error:
        # A release without its requirements: the state of the environment says it.
        log.info("%s", error)
        return found


def _discard(name: str, gone: dict[str, Any]) -> None:
    for each in gone.get("releases", {}).get("old", []):
        path = os.path.join(_releases(name), each)
        aside = os.path.join(_releases(name), f".{each}.removed")
        os.rename(path, aside)
        shutil.rmtree(aside)
    if "venvs" in gone:
        __salt__["python_venv.prune"](name, _recent(name, "venv"))


def _forget(name: str) -> None:
    """Drop the records of releases that are neither live nor a way back nor on the host."""
    staying = {desired(name)["id"], *_recent(name, "release"), *stored(name)}
    for entry in __salt__["release_record.entries"](name):
        record = __salt__["release_record.read"](name, entry)
        if isinstance(record, dict) and record.get("release", desired(name)["id"]) not in staying:
            __salt__["release_record.forget"](name, entry)


def to_switch(name: str) -> dict[str, Any]:
    """
    What :py:func:`switch` would do.

    name
        the site

    Returns a dictionary of ``{"old", "new"}``, empty when there is nothing to do: ``current``
    (IDs), ``live`` (release and virtual environment), ``published`` (static files that are not
    yet those of the release, where the web server has them from), ``releases``, ``venvs`` and
    ``collected`` (what nothing needs any more and goes; of the last, its static files).

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.to_switch mysite
    """
    wanted = desired(name)
    todo: dict[str, Any] = {}
    before = current(name)
    if _site(name)["project"]["source"] and before != wanted["id"]:
        todo["current"] = {"old": before, "new": wanted["id"]}
    note = {"release": wanted["id"], "venv": __salt__["python_venv.desired"](name)["digest"]}
    history = __salt__["release_record.history"](name)
    last = {key: history[-1][key] for key in note} if history else None
    if last != note:
        todo["live"] = {"old": last, "new": note}
    unpublished = _unpublished(name)
    if unpublished:
        todo["published"] = {"old": None, "new": unpublished}
    # A dry run tells of what the switch, which it has not made, leaves without a use.
    return {**todo, **_superfluous(name, ahead=bool(__opts__["test"] and "live" in todo))}


def _unpublished(name: str) -> list[str]:
    """The static files of the desired release that the web server does not have as they are."""
    collected = _collected(name, desired(name)["id"])
    if not collected:
        return []
    if os.path.islink(collected):
        raise CommandExecutionError(
            f"{collected} is a link, in the place of a release's static files: remove it"
        )
    public = _places(name)["static"]
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


def _superfluous(name: str, ahead: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    releases = superfluous(name, ahead)
    if releases:
        found["releases"] = {"old": releases, "new": None}
    staying = {*stored(name), desired(name)["id"]} - {*releases}
    folder = os.path.join(_places(name)["shared"], "collected")
    if _site(name)["project"]["source"] and os.path.isdir(folder):
        collected = sorted(set(filter(_ID.fullmatch, os.listdir(folder))) - staying)
        if collected:
            found["collected"] = {"old": collected, "new": None}
    return {**found, **_superfluous_venvs(name)}


def _superfluous_venvs(name: str) -> dict[str, Any]:
    if _site(name)["project"].get("venv"):
        return {}
    venvs = __salt__["python_venv.prune"](name, _recent(name, "venv"), test=True)
    return {"venvs": {"old": venvs, "new": None}} if venvs else {}


# --- Back ----------------------------------------------------------------------------------------


def serving(name: str) -> str | None:
    """
    The release that the site's uWSGI runs, whatever ``current`` says.

    name
        the site

    Returns its ID, or that of ``current`` when none runs.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.serving mysite
    """
    for generation in __salt__["uwsgi_generation.list"](name):
        if generation["state"] == "active" and generation["enabled"]:
            return generation["release"]
    return current(name)


def _served_before(name: str, live: str | None) -> str | None:
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
    The migrations that the database has had and a release does not know, each with its
    operations that Django cannot undo.
    """
    records = __salt__["release_record.of_release"]
    staying = __salt__["release_record.held"](name) or {"left": []}
    known: set[str] = set()
    for migration, what in records(name, release).get("migrations", {}).items():
        known |= {migration, *what["replaces"]}
    found = {}
    for other in sorted({serving(name) or release, *staying["left"]}):
        for migration, what in records(name, other).get("migrations", {}).items():
            squashed = what["replaces"] and set(what["replaces"]) <= known
            if migration not in known and not squashed:
                found[migration] = what["for_good"]
    return found


def _why_not(name: str, release: str, for_good: bool = False) -> str | None:
    """What stands against going back to a release, if anything."""
    if release == serving(name):
        return "it serves"
    if release not in stored(name):
        return "it is not on this host any more"
    if release not in [entry["release"] for entry in __salt__["release_record.history"](name)]:
        return "it never served here"
    try:
        with _taken_for_desired(name, release):
            desired(name)
            lacks = __salt__["python_venv.lacking"](name)
    except CommandExecutionError as error:
        return str(error)
    if lacks:
        return (
            f"its virtual environment is gone ({lacks}), and a rollback builds nothing: set "
            f"{_key(name, 'project:release')} to {release} and apply"
        )
    past = None if for_good else irreversible(name, release)
    if past:
        return f"{past}. Where the release can live with that, say for_good=True"
    return None


def irreversible(name: str, release: str) -> str | None:
    """
    What the database of a site has had that Django cannot undo, and that a release does not know.

    name
        the site
    release
        the release's ID

    Returns a sentence with the migrations and their operations; None when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.irreversible mysite 4f2a9c01d7e3
    """
    past = {migration: why for migration, why in _beyond(name, release).items() if why}
    if not past:
        return None
    told = "; ".join(f"{migration} ({', '.join(past[migration])})" for migration in past)
    return f"the database has had what Django cannot undo and this release does not know: {told}"


def releases(name: str) -> list[dict[str, Any]]:
    """
    The releases of a site on this host, and which of them :py:func:`rollback` can go back to.

    name
        the site

    Returns dictionaries, the one that serves first, then the one that served last before and so
    on: ``release`` (its ID), ``since`` (when it last became live; None: never), ``source`` and
    ``revision`` (where it was fetched from, as far as that is known), ``why_not`` (None: it can
    be gone back to).

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.releases mysite
    """
    live = serving(name)
    since = {
        entry["release"]: entry.get("at") for entry in __salt__["release_record.history"](name)
    }
    answer = []
    newest_first = stored(name)[::-1]
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
    name: str, release: str | None = None, for_good: bool = False, test: bool = False
) -> dict[str, Any]:
    """
    Go back to a release that served before, by the steps and the checks of a ``state.apply``:
    what was prepared is not prepared again, nothing is fetched or built, and the source is not
    asked. The database is not touched: what the release does not know stays in it.

    The release stays, also through the next ``state.apply``, until the source has something that
    was not gone back from, or until this function is told another release.

    name
        the site
    release
        its ID, from :py:func:`releases`; by default the release that served before the one that
        serves. What was gone back from, and what never served, is never the default
    for_good
        go back although the database has had migrations that Django cannot undo and that the
        release does not know
    test
        only say what would be done

    Returns ``release`` (``{"old", "new"}``), ``changes``, and ``beyond``, the migrations that stay
    in the database although the release does not know them.

    Raises CommandExecutionError when there is nothing to go back to, the release cannot be gone
    back to, does not pass its checks or does not answer as the pillar's ``health`` says, and when
    somebody else is changing the site or a run of states is under way. Then what served still does,
    and nothing is remembered.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.rollback mysite
    """
    if test:
        return _way_to(name, release, for_good)
    # A run of states does not hold the site between two of them.
    under_way = __salt__["state.running"]()
    if under_way:
        raise CommandExecutionError(
            f"{' '.join(under_way)}. Nothing was done here: try again when that has ended"
        )
    with __salt__["release_record.alone"](name, "django_release.rollback"):
        return _rollback(name, _way_to(name, release, for_good))


def _way_to(name: str, release: str | None, for_good: bool) -> dict[str, Any]:
    """What a rollback would do; raises where there is no way."""
    project = _site(name)["project"]
    if not project["source"]:
        raise CommandExecutionError(
            f"{name} runs from the tree at {project['path']}, of which there is no older copy here"
        )
    if project["release"]:
        raise CommandExecutionError(
            f"the pillar says {_key(name, 'project:release')}: {project['release']}, and the next "
            "state.apply would go back there: change it, or take it out"
        )
    live = serving(name)
    target = release or _served_before(name, live)
    if target is None:
        raise CommandExecutionError(
            f"there is no release of {name} that served before "
            f"{live or 'anything'} on this host and was not gone back from"
        )
    refused = _why_not(name, target, for_good)
    if refused:
        raise CommandExecutionError(f"no way back to the release {target} of {name}: {refused}")
    return {
        "release": {"old": live, "new": target},
        "beyond": sorted(_beyond(name, target)),
        "changes": {},
    }


def _rollback(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    live, target = answer["release"]["old"], answer["release"]["new"]
    before = __salt__["release_record.held"](name)
    forth = before is not None and target in before["left"]
    with _taken_for_desired(name, target):
        # First what is meant: should this be killed, the next run finishes it.
        __salt__["release_record.hold"](name, target, None if forth else live)
        try:
            if not is_prepared(name):
                _hooks(name, "before_migrate", answer)
                prepare(name)
                _hooks(name, "after_migrate", answer)
            _hooks(name, "before_switch", answer)
            answer["changes"].update(__salt__["uwsgi_generation.switch"](name)["changes"])
        except BaseException:
            # An old generation that would not stop has failed the switch, and not undone it.
            if serving(name) != target:
                __salt__["release_record.put_back"](name, before)
            raise
        answer["changes"].update(switch(name))
        _hooks(name, "after_switch", answer)
        companions = __salt__["site_companion.bring"](name)
        answer["changes"].update(companions["changes"])
    if companions["errors"]:
        told = "; ".join(f"{each}: {why}" for each, why in companions["errors"].items())
        raise CommandExecutionError(f"the release {target} serves, but not its companions: {told}")
    return answer


def _hooks(name: str, point: str, answer: dict[str, Any]) -> None:
    for ran, printed in __salt__["release_hook.run"](name, [point]).items():
        answer["changes"][ran] = {"old": None, "new": printed}


# --- Gone ----------------------------------------------------------------------------------------


def data_may_go() -> bool:
    """
    Whether the pillar allows removing what cannot be made again: releases, databases, uploads.

    Returns True when ``nginx_uwsgi_django:clean:data`` is true.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.data_may_go
    """
    return __salt__["site_pillar.settings"]()["clean"]["data"] is True


def removable(name: str) -> list[str]:
    """
    What of a site on this host this formula made and :py:func:`remove` takes away: its releases
    and its shared data in every directory that the record or the pillar names, and what is known
    of them.

    name
        the site

    Returns absolute paths. A project's tree that somebody copied is never among them, nor is
    anything in ``releases`` that this formula did not make.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.removable mysite
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
        made += [os.path.join(folder, each) for each in entries if _UNFINISHED.fullmatch(each)]
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
    Remove a site's releases, its data and what is known of them.

    name
        the site

    Returns the paths that were removed.

    CLI Example:

    .. code-block:: bash

        salt '*' django_release.remove mysite
    """
    places = _held_places(name)
    paths = removable(name)
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
