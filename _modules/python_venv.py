"""
Virtual environments by content: one directory per interpreter and requirements, made once and
never changed.

A site's environment lives at ``STATE_DIR/venvs/SITE/DIGEST``. Releases that need the same things
share it, a rollback finds the old one as it was, and a process that still runs from an old one
is not disturbed. Scripts inside name their interpreter by its full path, so it is built where it
will stay; it counts only once ``.complete`` is there, written last by root after everything else
is on the disk. Without it the directory is the remains of a run that died, and is built anew.

What an environment is made of comes from the project's own file (:py:mod:`_nud_lock_files`). One
installer, the pip that the interpreter brings, does all the installing.

Building runs as the site's user (the ``setup.py`` of a source distribution is a program from the
network), with nothing of Salt's environment; afterwards everything belongs to root and the site's
group reads it, so that the site cannot change its own code.

.. versionadded:: 0.1.0
"""

import glob
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import accounts, cache, durable_file, lock_files, program, site_plan

__virtualname__ = "python_venv"

_key = site_plan.pillar_path

log = logging.getLogger(__name__)

_COMPLETE = ".complete"
_BUILD = ".build"
# Seconds. Compiling uWSGI takes one to two minutes on a small host; a slow index many more.
_VENV_TIMEOUT = 300
_PIP_TIMEOUT = 3600
_ASK_TIMEOUT = 30
# A change of how an environment is made gives all of them new digests.
_FORMAT = 1
_MESSAGE_LINES = 40
_LOG_TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:,]+ ")
# pip/_internal/exceptions.py, InstallationSubprocessError as a log file has it.
_FAILED_COMMAND = re.compile(r"\[present-rich\] .* exited with -?\d+$")
# A step that takes longer tells so this often where a log of warnings is read.
_PATIENCE = 60
_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]*")


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    return cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))


def _parent(name: str) -> str:
    return __salt__["django_release.environments"](name)


def _environment(name: str, scratch: str) -> dict[str, str]:
    project = _site(name)["project"]
    account = project["user"]
    sources = {}
    indexes = project["indexes"]
    if indexes:
        urls = [index["url"] for index in indexes]
        # Also with one alone: an index that the host's pip.conf adds could have a package of any
        # name, and pip would take it from there.
        more = {"PIP_EXTRA_INDEX_URL": " ".join(urls[1:] or urls), "PIP_NO_INDEX": "0"}
        sources = {"PIP_INDEX_URL": urls[0], **more}
    elif indexes is None:
        sources = {"PIP_NO_INDEX": "1"}
    if project["wheels"]:
        root = __salt__["django_release.desired"](name)["path"]
        sources["PIP_FIND_LINKS"] = " ".join(os.path.join(root, each) for each in project["wheels"])
    return {
        **sources,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        # Not the home of the site's user: what the site left there (a pip.conf, a .pth file) has
        # no say in what is installed. The host's own /etc/pip.conf has.
        "HOME": os.path.join(scratch, "home"),
        "TMPDIR": os.path.join(scratch, "tmp"),
        "USER": account,
        "LOGNAME": account,
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
    }


def _interpreter(name: str, path: str) -> tuple[str, str]:
    """The interpreter's real path and its version as far as an environment depends on it."""
    real = os.path.realpath(path)
    if not os.access(real, os.X_OK) or os.path.isdir(real):
        raise CommandExecutionError(
            f"the interpreter {path} ({_key(name, 'project:python')}) is not there or not "
            "executable: install it, or name another"
        )
    if os.path.basename(os.path.dirname(real)) == "shims":
        raise CommandExecutionError(
            f"{path} ({_key(name, 'project:python')}) is a shim: a script that looks for the "
            "interpreter which pyenv has for the directory, the user and the moment. Name the "
            f"interpreter itself, {_behind(real)}"
        )
    # /usr/bin/python3 is a link to python3.11: its name tells what an environment depends on
    # (a patch release keeps the ABI and the paths) without starting it.
    match = re.fullmatch(r"python(3\.[0-9]+)", os.path.basename(real))
    if match:
        return real, match.group(1)
    ask = [real, "-I", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]
    done = program.run(ask, {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, _ASK_TIMEOUT)
    if done["timed_out"]:
        raise CommandExecutionError(
            f"the interpreter {path} does not start within {_ASK_TIMEOUT} s"
        )
    if done["retcode"] or not re.fullmatch(r"3\.[0-9]+\.[0-9]+\s*", done["stdout"]):
        raise CommandExecutionError(
            f"the interpreter {path} ({_key(name, 'project:python')}) is no Python 3: "
            f"{(done['stderr'] or done['stdout']).strip()}"
        )
    return real, done["stdout"].strip()


def _behind(shim: str) -> str:
    """The interpreters that a shim of pyenv's may start."""
    # PYENV_ROOT/shims/python3.12 and PYENV_ROOT/versions/3.12.9/bin/python3.12, see `pyenv help rehash`.
    root = os.path.dirname(os.path.dirname(shim))
    there = sorted(glob.glob(f"{glob.escape(root)}/versions/*/bin/{os.path.basename(shim)}"))
    return "one of " + ", ".join(there) if there else f"as {root}/versions/3.12.9/bin/python"


def _lock(name: str, source: str) -> lock_files.Requirements:
    key = _key(name, "project:requirements")
    return lock_files.lock(_site(name)["project"], source, key)


def _server(name: str) -> str | None:
    """The pip requirement that brings uWSGI, or None when it comes from elsewhere."""
    uwsgi = _site(name)["uwsgi"]
    if uwsgi.get("binary") or uwsgi.get("package") in (None, "distro"):
        return None
    return uwsgi["package"]


def _server_path(name: str, venv: str) -> str | None:
    uwsgi = _site(name)["uwsgi"]
    if uwsgi.get("binary"):
        return uwsgi["binary"]
    if uwsgi.get("package") == "distro":
        return "/usr/bin/uwsgi"
    server = _server(name)
    if server is None:
        return None
    match = _NAME.match(server)
    if match is None:
        raise CommandExecutionError(
            f"{_key(name, 'uwsgi:package')} is no requirement that begins with a package's name"
        )
    script = "pyuwsgi" if match.group().lower().replace("_", "-") == "pyuwsgi" else "uwsgi"
    return os.path.join(venv, "bin", script)


def _digest_by_hand(path: str) -> str | None:
    """Over an environment's packages, as far as their names and times tell; None: it is none."""
    try:
        with open(os.path.join(path, "pyvenv.cfg"), "rb") as stream:
            parts: list[Any] = [path, stream.read().decode(errors="replace")]
    except (FileNotFoundError, NotADirectoryError):
        return None
    for packages in sorted(glob.glob(os.path.join(path, "lib", "python3*", "site-packages"))):
        # pip renames directories into place here: an upgrade shows in the names (NAME-VERSION.
        # dist-info), a reinstallation in the time.
        parts.append([packages, sorted(os.listdir(packages)), os.stat(packages).st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _kept_by_hand(name: str, path: str) -> dict[str, Any]:
    """The description of an environment that the operator made and keeps."""
    digest = cache.once(("by hand", path), lambda: _digest_by_hand(path))
    if digest is None:
        raise CommandExecutionError(
            f"{path} ({_key(name, 'project:venv')}) is no virtual environment: it has no "
            "pyvenv.cfg. Make it, or set the key to null to have one made"
        )
    python = os.path.join(path, "bin", "python")
    if not os.access(python, os.X_OK):
        raise CommandExecutionError(f"{python} is not there or not executable")
    return {
        "digest": digest,
        "path": path,
        "binary": python,
        "uwsgi": _server_path(name, path),
        "by_hand": True,
    }


def desired(name: str, release: str | None = None) -> dict[str, Any]:
    """
    The virtual environment that a site is to run in, as told by the pillar and the project's
    files. Reads only, and starts no process where the interpreter's file is named
    ``python3.MINOR``.

    name
        the site
    release
        the ID of a release on the host to take instead of the desired one

    Returns ``{"digest", "path", "binary", "uwsgi", "by_hand"}``: 12 hexadecimal digits over the
    interpreter, the requirements with what they include, and the uWSGI package; the directory;
    its Python; the uWSGI executable (None when the pillar names none); whether the operator keeps
    it (then it is used as it is).

    Raises CommandExecutionError when the interpreter or a requirements file is missing.

    CLI Example:

    .. code-block:: bash

        salt '*' python_venv.desired mysite
    """
    what = ("venv", name, release or "")
    return cache.once(what, lambda: _desired(name, release))


def _desired(name: str, identity: str | None) -> dict[str, Any]:
    project = _site(name)["project"]
    if project.get("venv"):
        return _kept_by_hand(name, project["venv"])
    release = __salt__["django_release.desired"](name, release=identity)
    real, version = _interpreter(name, project["python"])
    lock = _lock(name, release["source"]) if project["requirements"] else None
    texts = sorted(lock.texts.items()) if lock else []
    parts: list[Any] = [_FORMAT, real, version, texts, _server(name)]
    if lock and lock.local:
        # A package inside the project: the project's content is part of the environment.
        parts.append([release["id"], release["path"]])
    if project["extras"] or project["groups"]:
        parts.append({"extras": project["extras"], "groups": project["groups"]})
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    path = os.path.join(_parent(name), digest)
    return {
        "digest": digest,
        "path": path,
        "binary": os.path.join(path, "bin", "python"),
        "uwsgi": _server_path(name, path),
        "by_hand": False,
    }


def complete(path: str) -> bool:
    """
    Whether an environment was finished.

    path
        its directory

    Returns True when root wrote its ``.complete`` for this very directory.

    CLI Example:

    .. code-block:: bash

        salt '*' python_venv.complete /var/lib/nginx_uwsgi_django/venvs/mysite/4f2a9c01d7e3
    """
    marker = os.path.join(path, _COMPLETE)
    text = durable_file.read(marker)
    if text is None:
        return False
    # While it is built the directory is the site user's, whose programs could put anything here.
    if os.lstat(marker).st_uid != 0 or os.lstat(path).st_uid != 0:
        return False
    try:
        return json.loads(text)["digest"] == os.path.basename(path)
    except (ValueError, KeyError, TypeError):
        return False


def diff(name: str, release: str | None = None) -> str | None:
    """
    What keeps a site's environment from being ready.

    name
        the site
    release
        as in :py:func:`desired`

    Returns None when it is ready, else a sentence.

    Raises CommandExecutionError as :py:func:`desired` does, and when an environment kept by hand
    lacks the uWSGI executable: nothing is ever installed into it.

    CLI Example:

    .. code-block:: bash

        salt '*' python_venv.diff mysite
    """
    wanted = desired(name, release)
    if wanted["by_hand"]:
        if _server(name) and not os.access(wanted["uwsgi"], os.X_OK):
            raise CommandExecutionError(
                f"{wanted['uwsgi']} is not there, and an environment kept by hand is used as it "
                f"is: install {_server(name)} into it, or set {_key(name, 'uwsgi:package')} to "
                f"distro or {_key(name, 'uwsgi:binary')} to a path"
            )
        return None
    if not os.path.isdir(wanted["path"]):
        return f"{wanted['path']} is to be built"
    if not complete(wanted["path"]):
        return f"{wanted['path']} was left half built and is to be built anew"
    if not _group_is_right(name):
        return f"{_parent(name)} is to be the group's that the site has now"
    return None


def _group_is_right(name: str) -> bool:
    """An account that was made anew may have another number."""
    group = accounts.group(_site(name)["project"]["group"])
    if group is None:
        return True  # It will be made, and then this is asked again.
    parent = _parent(name)
    # All of them: what the group's number stands for now is nobody who is to read old ones.
    paths = [parent, *(os.path.join(parent, digest) for digest in stored(name))]
    return all(os.lstat(each).st_gid == group.gr_gid for each in paths)


def _last_lines(text: str) -> str:
    lines = text.strip().splitlines()
    return "\n".join(lines[-_MESSAGE_LINES:])


def _without_passwords(name: str, text: str) -> str:
    """What a program of the build said; it could have read the password that pip needs."""
    for index in _site(name)["project"]["indexes"] or []:
        for secret in {index["password"], urllib.parse.quote(index["password"] or "", safe="")}:
            text = text.replace(secret, "**********") if secret else text
    return text


def _listener(name: str, what: str) -> Callable[[str], None]:
    """
    Tells the log what a step says, and at times where only warnings are read (a terminal with
    salt-call, by Salt's default) that it goes on.
    """
    began = told = time.monotonic()
    last = ""

    def listen(said: str) -> None:
        nonlocal told, last
        for line in _without_passwords(name, said).splitlines():
            if line.strip():
                last = line.strip()
                log.info("%s: %s", name, last)
        now = time.monotonic()
        if now - told >= _PATIENCE:
            told = now
            log.warning("%s: %s for %d seconds so far: %s", name, what, now - began, last)

    return listen


def _step(
    name: str,
    argv: list[str],
    cwd: str,
    scratch: str,
    timeout: int,
    what: str,
    stdin: str = "",
) -> None:
    project = _site(name)["project"]
    done = program.run_as(
        project["user"],
        project["group"],
        argv,
        cwd,
        _environment(name, scratch),
        timeout,
        stdin=stdin,
        listener=_listener(name, what),
    )
    message = _without_passwords(name, _last_lines(done["stdout"]))
    if done["timed_out"]:
        raise CommandExecutionError(
            f"{what} took longer than {timeout} seconds and was stopped:\n{message}"
        )
    if done["retcode"]:
        if "No module named ensurepip" in done["stdout"]:
            message = (
                f"{project['python']} has no ensurepip, which Debian and Ubuntu ship apart: install "
                f"python3-venv (or the python3.X-venv of that interpreter).\n{message}"
            )
        # env(1) ends so where it cannot start the program; pip never does.
        if done["retcode"] in (126, 127):
            message = f"it cannot be executed by {project['user']}: {message}"
        raise CommandExecutionError(f"{what} ended with {done['retcode']}:\n{message}")


def _hand_over(folder: int, gid: int, path: str) -> None:
    """
    Make a directory (an open descriptor) and all in it root's, read by the group, with no link
    followed: what is in it was written by programs of the site's user.
    """
    os.fchown(folder, 0, gid)
    os.fchmod(folder, 0o750)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for entry in names:
        status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            os.chown(entry, 0, gid, dir_fd=folder, follow_symlinks=False)
            continue
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            raise CommandExecutionError(f"{path}/{entry} is neither a file nor a directory")
        kind = os.O_DIRECTORY if stat.S_ISDIR(status.st_mode) else 0
        handle = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | kind, dir_fd=folder)
        try:
            if kind:
                _hand_over(handle, gid, os.path.join(path, entry))
                continue
            # The other name of a file could be one that the site's user must not read.
            if os.fstat(handle).st_nlink != 1:
                raise CommandExecutionError(f"{path}/{entry} has a second name somewhere")
            os.fchown(handle, 0, gid)
            os.fchmod(handle, 0o750 if status.st_mode & 0o100 else 0o640)
        finally:
            os.close(handle)


def ensure(name: str) -> bool:
    """
    Build a site's environment if it is not complete: ``python -m venv`` with the interpreter from
    the pillar, then pip, both as the site's user. Where the requirements carry hashes, all of
    them must (``--require-hashes``).

    name
        the site; its release must be on the host

    Returns True when it was built, False when it was complete.

    Raises CommandExecutionError with the tool's own words; then nothing is left of the attempt,
    and other environments are as they were.

    CLI Example:

    .. code-block:: bash

        salt '*' python_venv.ensure mysite
    """
    with __salt__["release_record.alone"](name, "python_venv.ensure"):
        return _build(name)


def _build(name: str) -> bool:
    if diff(name) is None:
        return False
    wanted = desired(name)
    path = wanted["path"]
    site = _site(name)
    user, group = site["project"]["user"], site["project"]["group"]
    parent = _parent(name)
    durable_file.directory(os.path.dirname(parent), mode="0755")
    durable_file.directory(parent, group=group, mode="0750")
    if os.path.lexists(path) and complete(path):
        for digest in stored(name):
            __salt__["system_account.regroup"](os.path.join(parent, digest), group)
        return True
    if os.path.lexists(path):
        shutil.rmtree(path)
    durable_file.directory(path, user=user, group=group, mode="0700")
    try:
        _fill(name, wanted)
        gid = os.lstat(parent).st_gid
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _hand_over(handle, gid, path)
        finally:
            os.close(handle)
        if wanted["uwsgi"] and _server(name) and not os.access(wanted["uwsgi"], os.X_OK):
            raise CommandExecutionError(
                f"{_server(name)} ({_key(name, 'uwsgi:package')}) was installed and brought no "
                f"{wanted['uwsgi']}"
            )
        # Thousands of small files: one flush of everything is far cheaper than one of each.
        os.sync()
        durable_file.write(
            os.path.join(path, _COMPLETE),
            json.dumps({"digest": wanted["digest"], "python": site["project"]["python"]}) + "\n",
            group=group,
            mode="0640",
        )
    except BaseException:
        shutil.rmtree(path)
        raise
    return True


def _fill(name: str, wanted: dict[str, Any]) -> None:
    site = _site(name)
    project = site["project"]
    path = wanted["path"]
    scratch = os.path.join(path, _BUILD)
    # By the site's user, not by root: inside a directory that is not root's a link could lie in
    # the way.
    folders = [scratch, os.path.join(scratch, "home"), os.path.join(scratch, "tmp")]
    _step(name, ["/bin/mkdir", *folders], path, scratch, _VENV_TIMEOUT, "making room to build")
    _step(
        name,
        [project["python"], "-m", "venv", "--without-pip", path],
        path,
        scratch,
        _VENV_TIMEOUT,
        f"making a virtual environment with {project['python']} ({_key(name, 'project:python')})",
    )
    # As venv would, which does not tell what this says.
    pip = [wanted["binary"], "-I", "-m", "ensurepip", "--upgrade", "--default-pip"]
    _step(name, pip, path, scratch, _VENV_TIMEOUT, "putting pip into the virtual environment")
    _tell_passwords(name, path, scratch)
    package = _server(name)
    server = [package] if package else []
    if project["requirements"]:
        server = _install_project(name, wanted, scratch, server)
    if server:
        _install(name, wanted, path, server, f"installing {server[0]}")
    shutil.rmtree(scratch)


def _install_project(
    name: str, wanted: dict[str, Any], scratch: str, server: list[str]
) -> list[str]:
    """Install what the project needs, and uWSGI where one call can do both; else it is returned."""
    project = _site(name)["project"]
    release = __salt__["django_release.desired"](name)["path"]

    def step(argv: list[str], cwd: str, what: str, stdin: str) -> None:
        _step(name, argv, cwd, scratch, _VENV_TIMEOUT, what, stdin=stdin)

    def install(words: list[str], cwd: str, what: str) -> None:
        _install(name, wanted, cwd, words, what)

    workshop = lock_files.Workshop(release, scratch, wanted["binary"], step, install)
    words, hashed, local = _lock(name, release).wanted(workshop)
    entry = os.path.normpath(project["requirements"])
    if hashed:
        # With one hash in the file pip wants one for every requirement of the call, and the
        # uWSGI package comes from the pillar: it has a call of its own.
        what = f"installing {entry}, whose hashes are enforced,"
        install(["--require-hashes", *words], release, what)
    else:
        # One call for both, so that a project which pins another version of uWSGI is told so
        # instead of getting two in turn.
        install([*words, *server], release, "installing " + " and ".join([entry, *server]))
        server = []
    if local:
        # The lock has installed what they need.
        install(["--no-deps", *local], release, "installing the packages in the project")
    return server


def _install(
    name: str, wanted: dict[str, Any], cwd: str, requirements: list[str], what: str
) -> None:
    pip = [
        wanted["binary"],
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        # Packages cached in the home of the site's user would be the site's to replace.
        "--no-cache-dir",
        "--progress-bar=off",
    ]
    scratch = os.path.join(wanted["path"], _BUILD)
    told = os.path.join(scratch, "pip.log")
    try:
        _step(name, [*pip, f"--log={told}", *requirements], cwd, scratch, _PIP_TIMEOUT, what)
    except CommandExecutionError as error:
        # That an index refuses the password, and what a build said, pip tells its log alone.
        project = _site(name)["project"]
        done = program.run_as(
            project["user"],
            project["group"],
            ["/usr/bin/tail", "--bytes=1000000", told],
            cwd,
            _environment(name, scratch),
            _VENV_TIMEOUT,
        )
        more = _told_by_log(done["stdout"]) if not done["retcode"] else ""
        raise CommandExecutionError(
            f"{error}\n{_without_passwords(name, more)}".rstrip()
        ) from error


def _told_by_log(text: str) -> str:
    """What pip's log has of a failure and its output has not: refusals, and a failed build's words."""
    lines = [_LOG_TIME.sub("", line).rstrip() for line in text.splitlines()]
    told = sorted(
        {found[0] for line in lines if (found := re.search("Could not fetch URL .*", line))}
    )
    # pip/_internal/utils/subprocess.py: the command, what it says, and the error.
    failed = [number for number, line in enumerate(lines) if _FAILED_COMMAND.search(line)]
    if failed:
        began = [n for n, line in enumerate(lines[: failed[-1]]) if "Running command " in line]
        words = [line.strip() for line in lines[began[-1] + 1 if began else 0 : failed[-1]]]
        told += [line for line in words if line][-_MESSAGE_LINES:]
    return "\n".join(told)


def _netrc(word: str) -> str:
    """A word of a .netrc; in quotes only where it has to be, as Python before 3.11 knows none."""
    if not re.search(r'[\s"\\]', word):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


def _tell_passwords(name: str, path: str, scratch: str) -> None:
    """
    Put the indexes' passwords where pip looks for them. In a URL they would be in the command
    lines of the pip that pip starts for a source distribution, which everybody can read.
    """
    lines = []
    for index in _site(name)["project"]["indexes"] or []:
        if index["password"]:
            # As pip's own library has it, in whatever case.
            host = urllib.parse.urlsplit(index["url"]).netloc.split(":")[0]
            user, password = _netrc(index["user"]), _netrc(index["password"])
            lines.append(f"machine {host} login {user} password {password}\n")
    if lines:
        file = os.path.join(scratch, "home", ".netrc")
        # Made by the site's user, and readable by nobody else before there is a word in it.
        touch = ["/usr/bin/install", "-m", "0600", "/dev/null", file]
        _step(name, touch, path, scratch, _VENV_TIMEOUT, "making room for passwords")
        dd = ["/bin/dd", "status=none", f"of={file}", "conv=notrunc"]
        _step(name, dd, path, scratch, _VENV_TIMEOUT, "telling pip", stdin="".join(lines))


def stored(name: str) -> list[str]:
    """
    The environments of a site that are on the host.

    name
        the site

    Returns their digests, sorted; half built ones and other things that lie there included.

    CLI Example:

    .. code-block:: bash

        salt '*' python_venv.stored mysite
    """
    try:
        return sorted(os.listdir(_parent(name)))
    except FileNotFoundError:
        return []


def prune(name: str, keep: list[str], test: bool = False, release: str | None = None) -> list[str]:
    """
    Remove the environments of a site that nothing needs.

    name
        the site
    keep
        digests that stay; so does the desired one, and any that a process runs from
    test
        only say which would go
    release
        as in :py:func:`desired`

    Returns the digests that were (or would be) removed.

    CLI Example:

    .. code-block:: bash

        salt '*' python_venv.prune mysite '["4f2a9c01d7e3"]' test=True
    """
    parent = _parent(name)
    staying = {*keep, desired(name, release)["digest"]} | {
        digest
        for digest in stored(name)
        if __salt__["django_release.in_use"](os.path.join(parent, digest))
    }
    going = [digest for digest in stored(name) if digest not in staying]
    if not test:
        for digest in going:
            _discard(os.path.join(parent, digest))
    return going


def _discard(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        # First what makes it count, so that a run that dies here leaves no half one that does.
        durable_file.remove(os.path.join(path, _COMPLETE))
        shutil.rmtree(path)
    else:
        os.unlink(path)


def remove(name: str) -> bool:
    """
    Remove all environments that were built for a site. One kept by hand stays.

    name
        the site

    Returns True when something was removed.

    CLI Example:

    .. code-block:: bash

        salt '*' python_venv.remove mysite
    """
    parent = _parent(name)
    if not os.path.lexists(parent):
        return False
    for digest in stored(name):
        _discard(os.path.join(parent, digest))
    os.rmdir(parent)
    return True
