"""
The program that runs in a site's own Python: it loads the project's settings, checks the project,
migrates its database and collects its static files.

It is not imported by the formula: :py:mod:`_nud_django_question` sends this source to the site's Python
(``python -c``), which runs it as the site's user in the directory of a release. So it imports nothing
but the standard library and, inside of functions, Django; and it has to run on every Python that a
site may have.

It reads a request in JSON from standard input and writes its answer in JSON, on one line, to standard
output. What the project itself prints goes to standard error.
"""

from __future__ import annotations

import filecmp
import gc
import grp
import importlib
import importlib.util
import json
import os
import pwd
import shutil
import sys
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

request: dict[str, Any] = {}
answer: dict[str, Any] = {"step": "settings"}


# --- The settings ------------------------------------------------------------------------------


def read_settings() -> None:
    """Put what the formula has to know of the project's settings into the answer."""
    from django.conf import settings
    from django.http.request import validate_host

    answer["static_root"] = str(getattr(settings, "STATIC_ROOT", None) or "")
    answer["media_root"] = str(getattr(settings, "MEDIA_ROOT", None) or "")
    answer["collects"] = "django.contrib.staticfiles" in settings.INSTALLED_APPS
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
    answer["holds"] = list(not_for_visitors(settings))


def not_for_visitors(settings: Any) -> Iterator[tuple[str, str]]:
    """What a directory of collected files must not hold, each with its path."""
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
            for place in spec.submodule_search_locations or [str(spec.origin)]:
                yield f"the code of {top}", place
    for engine in settings.TEMPLATES:
        for folder in engine.get("DIRS", ()):
            yield "templates", str(folder)
    for folder in getattr(settings, "STATICFILES_DIRS", ()):
        yield "STATICFILES_DIRS", str(folder[1] if isinstance(folder, (list, tuple)) else folder)


# --- Whether the site can write its data ---------------------------------------------------------


def described(path: str) -> str:
    """A path with its owner and its mode."""
    status = os.stat(path)
    names = []
    for find, number in ((user_name, status.st_uid), (group_name, status.st_gid)):
        try:
            names.append(find(number))
        except KeyError:
            names.append(str(number))
    where = os.path.realpath(path)
    return f"{where} (of {':'.join(names)}, mode {status.st_mode & 0o7777:04o})"


def user_name(number: int) -> str:
    return pwd.getpwuid(number).pw_name


def group_name(number: int) -> str:
    return grp.getgrgid(number).gr_name


def refused(path: str) -> str | None:
    """The path, or its nearest parent, that this user cannot write; None: it can be written."""
    if os.path.lexists(path) and not os.path.exists(path):
        # A link whose target is not made yet.
        path = os.path.realpath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    wanted = os.W_OK | os.R_OK | (os.X_OK if os.path.isdir(path) else 0)
    # The kernel's own answer, which knows access lists.
    return None if os.access(path, wanted) else path


def unwritable() -> Iterator[str]:
    """Sentences about the data that this user cannot write."""
    for database in answer["databases"]:
        if database.startswith((":memory:", "file:")):
            continue
        where = os.path.realpath(database)
        if not os.path.isdir(os.path.dirname(where)):
            yield f"the database {database} has no directory {os.path.dirname(where)}"
            continue
        # SQLite writes its journal beside the file.
        found = refused(where) or refused(os.path.dirname(where))
        if found:
            yield f"the database {database}: {described(found)}"
    media = answer["media_root"]
    if media and os.path.isabs(media):
        found = refused(media) or next(filter(None, map(refused, folders_in(media))), None)
        if found:
            yield f"MEDIA_ROOT {media}: {described(found)}"


def folders_in(root: str) -> Iterator[str]:
    """All directories below a directory."""
    for folder, below, _ in os.walk(root):
        for each in below:
            yield os.path.join(folder, each)


# --- Checked, migrated, collected ----------------------------------------------------------------


def prepare() -> None:
    """Check the project, migrate its database, and collect its static files."""
    if request["told"]:
        # The formula reads the settings and says what is to be done.
        read_settings()
        print(json.dumps(answer), file=channel, flush=True)
        request.update(json.loads(sys.stdin.readline()))
        need_write_access()
    load_callable()
    import django
    from django.apps import apps

    if not apps.ready:
        # The WSGI callable is one of the project's own that does not set Django up; as manage.py does.
        django.setup()
    check()
    gc.enable()
    migrate()
    if request["collect"] and not (answer["pending"] and request["elsewhere"]):
        collect()
    answer["step"] = None
    # This process ends without Python's own tidying up; SQLite's log is merged on closing.
    from django.db import connections

    connections.close_all()


def need_write_access() -> None:
    """Raise CommandError when the site cannot write its data."""
    answer["step"] = "write"
    wrong = list(unwritable()) if request["data"] else []
    if wrong:
        from django.core.management import CommandError

        raise CommandError("\n".join([*wrong, request["ways"]]))


def load_callable() -> None:
    """Import the WSGI callable."""
    answer["step"] = "import"
    module, _, path = request["wsgi"].partition(":")
    found = importlib.import_module(module)
    for part in (path or "application").split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{request['wsgi']} is not callable")


def check() -> None:
    """Run ``check`` and, where it is asked for, ``makemigrations --check``."""
    from django.core.management import CommandError, call_command

    answer["step"] = "check"
    if request["deploy"]:
        try:
            call_command("check", deploy=True, fail_level=request["deploy"])
        except CommandError:
            # A failure of a plain check has nothing to do with --deploy.
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
                raise CommandError("there are models that no migration makes so") from left


def migrate() -> None:
    """Put the pending migrations into the answer, and apply them where that is asked for."""
    from django.db import connections

    answer["step"] = "migrate"
    answer["pending"], answer["migrations"] = [], {}
    connection = connections["default"]
    if connection.settings_dict["ENGINE"] == "django.db.backends.dummy":
        return
    from django.core.management import call_command
    from django.db.migrations.executor import MigrationExecutor

    answer["pending"] = pending(connection)
    for (app, name), migration in MigrationExecutor(connection).loader.disk_migrations.items():
        answer["migrations"][f"{app}.{name}"] = {
            "for_good": sorted(irreversible(migration.operations)),
            "replaces": ["{}.{}".format(*replaced) for replaced in migration.replaces],
        }
    if answer["pending"] and request["migrate"]:
        # A connection of the lock's own: `migrate` may close the other one.
        holder = connection.copy()
        lock(holder, request["patience"])
        # Another host may have migrated in the meantime.
        answer["pending"] = pending(connection)
        if answer["pending"]:
            call_command("migrate", interactive=False, verbosity=1)
        holder.close()


def pending(connection: Any) -> list[str]:
    """The migrations that a database has not had, in the order of the plan."""
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{item.app_label}.{item.name}" for item, _ in plan]


def irreversible(operations: Iterable[Any]) -> Iterator[str]:
    """
    The operations that Django cannot undo: Migration.unapply() refuses them, and those of a
    SeparateDatabaseAndState fail in it.
    """
    for operation in operations:
        if not operation.reversible:
            yield operation.describe()
        yield from irreversible(getattr(operation, "database_operations", ()))


def lock(connection: Any, patience: float) -> None:
    """
    Let one host of a fleet migrate at a time. The server releases the lock when the connection
    ends, however that ends. PostgreSQL's key belongs to one database, MySQL's to the whole server.
    """
    from django.core.management import CommandError

    question = {
        "postgresql": "SELECT pg_try_advisory_lock(%s)",
        "mysql": "SELECT GET_LOCK(%s, 0)",
    }.get(connection.vendor)
    if question is None:
        # SQLite belongs to one host, and locks its file itself.
        return
    name = "django migrate " + str(connection.settings_dict["NAME"])
    number = zlib.crc32(name.encode())
    key = number if connection.vendor == "postgresql" else f"django migrate {number}"
    deadline = time.monotonic() + patience
    while True:
        with connection.cursor() as cursor:
            cursor.execute(question, [key])
            if cursor.fetchone()[0]:
                return
        if time.monotonic() > deadline:
            raise CommandError(
                f"another host has been migrating this database for {patience:.0f} seconds"
            )
        time.sleep(1)


def collect() -> None:
    """Collect the static files, and publish them where that is asked for."""
    from django.core.management import call_command

    answer["step"] = "collectstatic"
    # They are public: the web server reads them as another user.
    os.umask(0o022)
    call_command("collectstatic", interactive=False, verbosity=1)
    if request["public"]:
        publish()
    # Their record is flushed to the disk, and must not be there before the files are.
    os.sync()


# --- Published and withdrawn ---------------------------------------------------------------------


def put(source: str, target: str) -> None:
    """Put a file at another path, whole, and as a second name of it: that takes no room."""
    folder, name = os.path.split(target)
    beside = os.path.join(folder, f".{name}.new")
    if os.path.lexists(beside):
        os.unlink(beside)
    try:
        os.link(source, beside)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copy2(source, beside)
    os.replace(beside, target)


def files_of(folder: str) -> Iterator[tuple[str, str]]:
    """The files below a directory: their path, and their path in it."""
    for below, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(below, name)
            if not name.startswith(".") or not name.endswith(".new"):
                yield path, os.path.relpath(path, folder)


def publish() -> None:
    """
    Copy the static files of one release to where the web server reads those of all releases that
    are kept. Pages that visitors have open ask for the files of the release before, so a file that
    is there is replaced only once the release serves (``request["replace"]``).
    """
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


def withdraw() -> None:
    """Remove the static files that only releases have which are being removed."""
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


def merge_uploads() -> None:
    """Put the uploads that a release contains among those of the site; none is overwritten."""
    answer["step"] = "uploads"
    os.umask(0o022)
    for folder, _, names in os.walk(request["source"]):
        to = os.path.join(request["target"], os.path.relpath(folder, request["source"]))
        os.makedirs(to, exist_ok=True)
        for name in names:
            if not os.path.lexists(os.path.join(to, name)):
                shutil.copyfile(os.path.join(folder, name), os.path.join(to, name))


def main() -> None:
    """Do what is asked for, and answer."""
    # To look for garbage while Django is imported takes a tenth of the time, and there is none.
    gc.disable()
    request.update(json.loads(sys.stdin.readline()))
    sys.path[0] = os.getcwd()
    actions = {
        "prepare": prepare,
        "publish": publish,
        "withdraw": withdraw,
        "merge_uploads": merge_uploads,
    }
    try:
        actions[request["do"]]()
        answer["done"] = True
    except BaseException as error:
        # Not swallowed: the formula raises it, with what is printed here.
        answer["done"] = False
        if type(error).__name__ in ("SystemCheckError", "CommandError"):
            print(error, file=sys.stderr)
        elif not (isinstance(error, SystemExit) and error.code in (0, None)):
            traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    print(json.dumps(answer), file=channel, flush=True)
    # A thread of the project must not keep this process.
    os._exit(0)


if __name__ == "__main__":
    # The answer alone is on standard output.
    channel: IO[str] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main()
