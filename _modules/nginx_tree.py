"""
nginx's configuration tree, changed as a whole or not at all.

Everything that the formula owns under ``/etc/nginx`` is one transaction: the ``user`` directive of
the distribution's own ``nginx.conf``, one file and one link for each site, the distribution's
default site taken out, the certificates that the formula keeps, and one file of it in ``conf.d``.

1. The future tree is compared with the live one, byte by byte.  When they are equal nothing else
   happens: no process is started, no file is touched.
2. The installed nginx judges the future tree: it is unpacked on a tmpfs mounted over ``/etc/nginx``
   in a mount namespace of its own, so that every path is the real one and nothing of it is left
   behind, not even by a run that is killed.  The directories that ``nginx -t`` would create, or
   give to another user (it does that to its temporary directories, under the feet of the running
   workers), are covered in the same way.
3. The live tree is hard-linked into a directory beside it, the changed files are replaced there,
   everything is flushed to the disk, and the two directories change places in one system call
   (``renameat2``, ``RENAME_EXCHANGE``).  An untouched file keeps its inode and its times.
   Where that call is not possible (a mount point; a directory of a lower overlayfs layer), and
   where there is only one thing to change anyway, the files are renamed one by one, in an order in
   which nginx accepts every step, asked of it before, and renamed back when one of them fails.

The part of a site (its file, its link, its certificate) changes only when the release that the
pillar asks for is live, see :py:func:`nginx_site.unproven`. Until then the part stays as it is, and
a site that nginx does not name yet is left out, so that whatever answers its names goes on.

A tree that somebody else has broken is noticed as soon as one of our own changes is due, and
by :py:mod:`nginx_process <_modules.nginx_process>`, which finds it newer than the running workers.

.. versionadded:: 0.1.0
"""

import contextlib
import ctypes
import difflib
import errno
import fcntl
import glob
import grp
import hashlib
import io
import json
import os
import posixpath
import pwd
import re
import resource
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Container, Iterable, Iterator
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError

from _nud import durable_file, nginx_language, pem_text

__virtualname__ = "nginx_tree"


# What a directory of ours beside or inside the tree is called.  The dot keeps it out of nginx's
# `include sites-enabled/*`: glob(3) does not match a leading dot.
_STAGE = ".nginx_uwsgi_django-"


# The first words of a file that is the formula's.  A file without them is somebody else's.
_MARKER = b"Managed by the Salt formula nginx_uwsgi_django"


_COMMON = "conf.d/nginx_uwsgi_django.conf"


# What the formula found and will give back: one JSON object in a comment of _COMMON, so that it
# comes and goes in the same transaction as what it speaks of.
_RECORD = "# Found here before: "


# How a file ends that the formula has kept aside, because its place was wanted for a site.
_ASIDE = ".nginx_uwsgi_django"


# The trees that nginx has accepted in this run.
_ACCEPTED = "nginx_tree.accepted"


# The sites that the last change of the tree in this run has left as they were, and why.
_HELD = "nginx_tree.held"


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C"}


# `nginx -t` reads files and resolves the names of upstreams; a name server that does not answer
# costs it up to half a minute.
_TEST_TIMEOUT = 120
_LOCK_TIMEOUT = 120


# Runs in the private mount namespace.  "staged" tells nginx's own failure from one before it.  Few
# programs: that each is started takes as long as nginx needs for a dozen sites.
_MODULES = "/usr/lib/nginx/modules"
_TEST_SCRIPT = """
nginx=$1 modules=$2; shift 2
[ -z "$modules" ] || mount --bind "$modules" MODULES || exit 1
while [ "$1" != -- ]; do
    mount -t tmpfs -o mode=0755 nginx_tree "$1" || exit 1
    shift
done
shift
tar -x -p --numeric-owner -f - -C / || exit 1
echo staged
exec "$nginx" -t "$@"
""".replace("MODULES", _MODULES)


class Wanted(NamedTuple):
    """What is to be at a path of the tree: a file, a link, a directory, or nothing."""

    kind: str  # "file", "link", "directory", "absent"
    contents: bytes = b""
    target: str = ""
    # Not for a diff, a log or a report.
    secret: bool = False
    # Mode and group of a file of root's; None leaves a file that is there what it has.
    access: tuple[int, int] | None = None


class _Raced(Exception):
    """Somebody else wrote to the tree while it was being changed."""


def __virtual__() -> str:
    return __virtualname__


def _with_user(text: str, arguments: list[str]) -> tuple[str, list[str] | None]:
    """
    nginx.conf with this ``user`` directive and every other byte as it was.

    Returns the text and the arguments that were there (None: no such directive).
    """
    for directive in nginx_language.directives(text):
        if directive.depth == 0 and directive.words[0] == "user":
            before = list(directive.words[1:])
            if _user_meaning(before) == _user_meaning(arguments):
                return text, before
            new = " ".join(nginx_language.quote(argument) for argument in arguments)
            if len(directive.spans) == 1:
                end = directive.spans[0][1]
                return text[:end] + " " + new + text[end:], before
            start, end = directive.spans[1][0], directive.spans[-1][1]
            return text[:start] + new + text[end:], before
    line = "user " + " ".join(nginx_language.quote(argument) for argument in arguments) + ";"
    newline = "\r\n" if "\r\n" in text else "\n"
    # The packages of nginx.org's source tarball ship "#user  nobody;": the place people look at.
    commented = re.search(r"^[ \t]*#[ \t]*user[ \t][^\n]*\n?", text, re.MULTILINE)
    if commented:
        place = commented.end()
        gap = "" if commented.group().endswith("\n") else newline
        return text[:place] + gap + line + newline + text[place:], None
    return line + newline + text, None


def _without_user(text: str) -> str:
    """nginx.conf without the line that :py:func:`_with_user` added."""
    for directive in nginx_language.directives(text):
        if directive.depth == 0 and directive.words[0] == "user":
            start, end = directive.spans[0][0], directive.end
            rest = re.match(r"[ \t]*\r?\n", text[end:])
            return text[:start] + text[end + (rest.end() if rest else 0) :]
    return text


def _user_meaning(arguments: list[str]) -> tuple[str, ...]:
    # ngx_set_user(): without a second argument the group is the one of the user's own name.
    return (arguments[0], arguments[0]) if len(arguments) == 1 else tuple(arguments)


def user() -> list[str] | None:
    """
    The user that the main configuration on the disk gives to nginx's workers.

    Returns a list of the user's name and the group's, as nginx takes the directive ``user``; None
    where the file or the directive is missing.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.user
    """
    for directive in nginx_language.directives(_text(_read(os.path.join(_base(), "nginx.conf")))):
        if directive.depth == 0 and directive.words[0] == "user" and len(directive.words) > 1:
            return list(_user_meaning(list(directive.words[1:])))
    return None


def temporary() -> list[str]:
    """
    The directories in which nginx's workers keep bodies of requests and answers for a moment: those
    that nginx was built with and those of the configuration on the disk.

    Returns the absolute paths of those that are there, sorted.

    Raises CommandExecutionError when nginx is not installed.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.temporary
    """
    paths, base = compiled(), _base()
    found = {path for name, path in paths.items() if name.startswith("http-") and "temp" in name}
    for pattern in ("nginx.conf", "conf.d/*.conf", "sites-enabled/*"):
        for file in glob.glob(os.path.join(glob.escape(base), pattern)):
            for directive in nginx_language.directives(_text(_read(os.path.realpath(file)))):
                if directive.words[0].endswith("_temp_path") and len(directive.words) > 1:
                    found.add(directive.words[1])
    prefix = paths.get("prefix", "/usr/share/nginx")
    absolute = {os.path.realpath(os.path.join(prefix, path)) for path in found}
    return sorted(path for path in absolute if os.path.isdir(path))


# --- what the tree is to be --------------------------------------------------------------------
def _lookup() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()["lookup"]


def _base() -> str:
    """The tree, as a path without links: what is mounted over and what changes places."""
    return os.path.realpath(_lookup()["nginx_dir"])


def _shown() -> str:
    return str(_lookup()["nginx_dir"]).rstrip("/")


def _read(path: str) -> bytes | None:
    return durable_file.read(path)


def _text(contents: bytes | None) -> str:
    # surrogateescape: a stranger's bytes come back out as they went in.
    return (contents or b"").decode("utf-8", "surrogateescape")


def _owned(contents: bytes | None) -> bool:
    # A page's comment begins in another way.
    return (contents or b"").removeprefix(b"<!-- ").removeprefix(b"# ").startswith(_MARKER)


def _user_arguments(user: str) -> list[str]:
    try:
        group = grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return [user]
    return [user] if group == user else [user, group]


def _foreseen(due: dict[str, Wanted], warnings: list[str]) -> dict[str, Wanted]:
    """
    What a dry run lets nginx judge.

    In a run the workers' user is made before the tree is; in a dry run it may be missing still,
    and nginx would refuse the tree for that alone.
    """
    user = __salt__["site_pillar.settings"]()["nginx"]["user"]
    try:
        pwd.getpwnam(user)
    except KeyError:
        warnings.append(f"the user {user} does not exist yet: judged with the one there is")
        return {path: wanted for path, wanted in due.items() if path != "nginx.conf"}
    return due


def _conffile_is_pristine(path: str) -> bool:
    """Whether a configuration file is byte by byte the one of its Debian package."""
    contents = _read(path)
    if contents is None:
        return False
    digest = hashlib.md5(contents, usedforsecurity=False).hexdigest()
    try:
        with open("/var/lib/dpkg/status", encoding="utf-8", errors="replace") as status:
            return any(line.split()[:2] == [path, digest] for line in status if path in line)
    except FileNotFoundError:
        return False


def _record(common: bytes | None) -> dict[str, Any]:
    for line in _text(common).splitlines():
        if line.startswith(_RECORD):
            try:
                record = json.loads(line[len(_RECORD) :])
            except ValueError:
                return {}
            return record if isinstance(record, dict) else {}
    return {}


def _set_elsewhere(base: str, nginx_conf: list[nginx_language.Directive]) -> set[str]:
    """The http-level directives of nginx.conf and of the other files in conf.d."""
    found = {d.words[0] for d in nginx_conf if d.block == ("http",)}
    for path in glob.glob(os.path.join(glob.escape(base), "conf.d", "*.conf")):
        if os.path.join(base, _COMMON) != path:
            found |= {
                d.words[0] for d in nginx_language.directives(_text(_read(path))) if d.depth == 0
            }
    return found


def _strangers(base: str, ours: set[str]) -> list[nginx_language.Directive]:
    """The directives of the files that nginx.conf includes and that are not ours."""
    found: list[nginx_language.Directive] = []
    for pattern in ("conf.d/*.conf", "sites-enabled/*"):
        for path in glob.glob(os.path.join(glob.escape(base), pattern)):
            if path not in ours and path != os.path.join(base, _COMMON):
                found += nginx_language.directives(_text(_read(os.path.realpath(path))))
    return found


def _defaulted(base: str, ours: set[str]) -> list[list[str]]:
    """Where a server of somebody else's is the default: address (* for all of IPv4) and port."""
    found = []
    for directive in _strangers(base, ours):
        if directive.words[0] == "listen" and "default_server" in directive.words:
            address, _, port = directive.words[1].rpartition(":")
            host = "*" if address in ("", "0.0.0.0") else address.lower()
            found.append([host, port])
    return found


def _includes(directives: list[nginx_language.Directive], base: str, shown: str) -> set[str]:
    """What the http block of nginx.conf includes, relative to the tree."""
    found = set()
    for directive in directives:
        if directive.block == ("http",) and directive.words[0] == "include" and directive.words[1:]:
            path = directive.words[1]
            for prefix in (shown, base, "/etc/nginx"):
                if path.startswith(prefix + "/"):
                    path = path[len(prefix) + 1 :]
            found.add(path)
    return found


def _link_target(base: str, path: str) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(os.path.join(base, path))
    return None


def _points_at(base: str, shown: str, link: str, path: str) -> bool:
    """Whether a link of the tree leads to a path of the tree, written in whichever way."""
    target = _link_target(base, link)
    if target is None:
        return False
    absolute = posixpath.normpath(posixpath.join(shown, posixpath.dirname(link), target))
    wanted = posixpath.join(shown, path)
    return absolute == wanted or os.path.realpath(absolute) == os.path.join(base, path)


def _entries(base: str, directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(os.path.join(base, directory)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{directory}/{name}" for name in names if not name.startswith(".")]


def _is_secret(path: str) -> bool:
    """Whether a file of ours that goes may hold secrets: its name is all that is left to ask."""
    return not path.endswith((".conf", ".html"))


def _wanted(text: str, secret: bool = False, mode: str = "", group: str = "") -> Wanted:
    """A file as :py:func:`nginx_site.files` describes it."""
    access = None
    if mode:
        try:
            gid = grp.getgrnam(group).gr_gid if group else 0
        except KeyError:
            gid = 0  # the group of a user that a dry run has not made
        access = (int(mode, 8), gid)
    return Wanted("file", text.encode(), secret=secret, access=access)


def _plan(
    saltenv: str, version: str | None = None, held: Container[str] = ()
) -> tuple[dict[str, Wanted], list[str]]:
    """
    What is to be where, and which of the paths in sites-enabled are not the formula's.

    version
        of the nginx that it is written for; by default the installed one's
    held
        the sites whose part of the tree stays as it is
    """
    with __salt__["host_survey.begun"]():
        return _planned(saltenv, version, held)


def _proven_plan(
    saltenv: str, version: str | None = None, unproven: bool = False
) -> tuple[dict[str, Wanted], list[str], dict[str, str]]:
    """
    As :py:func:`_plan`, and the sites whose release is not live, with the reason: their part of the
    tree stays as it is.

    Only the sites whose part would change are asked for, so that a run with nothing to do asks for
    none.

    unproven
        whether the part of such a site changes all the same; no site is asked for then
    """
    plan, strangers = _plan(saltenv, version)
    held = {} if unproven else _unproven_sites(_due(_base(), plan))
    if held:
        plan, strangers = _plan(saltenv, version, held)
    return plan, strangers, held


def _sites_of(due: Iterable[str]) -> set[str]:
    """The pillar's sites, but for absent ones, that some paths of the tree are a part of."""
    sites = __salt__["site_pillar.settings"]()["sites"]
    names = {
        posixpath.basename(path).partition(".")[0]
        for path in due
        if posixpath.dirname(path) in ("sites-available", "sites-enabled")
    }
    return {name for name in names if name in sites and not sites[name]["absent"]}


def _unproven_sites(due: Iterable[str]) -> dict[str, str]:
    """The sites whose part of the tree would change before their release is live, and why it is not."""
    names = sorted(_sites_of(due))
    if not names:
        return {}
    with __salt__["host_survey.begun"]():
        told = {name: __salt__["nginx_site.unproven"](name) for name in names}
    return {name: why for name, why in told.items() if why}


def _aside(path: str) -> str:
    """Where a file of the tree is kept: where nginx reads nothing, whatever it includes."""
    mark = ".enabled" if posixpath.dirname(path) == "sites-enabled" else ""
    return f"sites-available/{posixpath.basename(path)}{mark}{_ASIDE}"


def _keep_aside(base: str, shown: str, plan: dict[str, Wanted], record: dict[str, Any]) -> None:
    """
    Plan to keep what is in the place of a site's file or link and is not the formula's, and record
    what it was.
    """
    new = set()
    for path, wanted in list(plan.items()):
        full = os.path.join(base, path)
        if wanted.kind not in ("file", "link") or posixpath.dirname(path) not in (
            "sites-available",
            "sites-enabled",
        ):
            continue
        target = _link_target(base, path)
        if target is not None:
            available = f"sites-available/{posixpath.basename(path)}"
            ours = wanted.kind == "link" and _points_at(base, shown, path, available)
            # A link to a file that is kept aside comes back with it, as it was written.
            if not ours or available in new:
                new.add(path)
                record.setdefault("replaced", {}).setdefault(path, {"link": target})
        elif os.path.isfile(full) and not _owned(contents := _read(full)):
            seen = os.lstat(full)
            new.add(path)
            record.setdefault("replaced", {}).setdefault(path, {"file": _aside(path)})
            plan[_aside(path)] = Wanted(
                "file",
                contents or b"",
                secret=_is_secret(path),
                access=(stat.S_IMODE(seen.st_mode), seen.st_gid),
            )


def _give_back(base: str, plan: dict[str, Wanted], record: dict[str, Any], name: str = "") -> None:
    """
    Plan to put back what was kept aside, where the plan takes away what the formula had put in its
    place; what is given back is struck off the record.

    name
        the site whose files these are; every site's by default
    """
    for path, was in list(record.get("replaced", {}).items()):
        if name and posixpath.basename(path).partition(".")[0] != name:
            continue
        there = os.path.lexists(os.path.join(base, path))
        if there and (path not in plan or plan[path].kind != "absent"):
            continue  # not the formula's any more
        if "link" in was:
            plan[path] = Wanted("link", target=was["link"])
        else:
            full = os.path.join(base, was["file"])
            contents = _read(full)
            if contents is None:
                continue
            seen = os.lstat(full)
            access = (stat.S_IMODE(seen.st_mode), seen.st_gid)
            plan[path] = Wanted("file", contents, secret=_is_secret(path), access=access)
            plan[was["file"]] = Wanted("absent", secret=_is_secret(path))
        del record["replaced"][path]
    if not record.get("replaced", True):
        del record["replaced"]


def _standing(base: str, held: Container[str]) -> dict[str, str]:
    """The files of the held sites that nginx names already, by site: they stay."""
    found = {}
    for path in _entries(base, "sites-available"):
        name = posixpath.basename(path).removesuffix(".conf")
        if name in held and path.endswith(".conf"):
            contents = _read(os.path.join(base, path))
            if _owned(contents) and os.path.lexists(
                os.path.join(base, f"sites-enabled/{name}.conf")
            ):
                found[name] = _text(contents)
    return found


def _as_standing(text: str) -> dict[str, Any]:
    """What the http level has to know of a site whose file stays, from that file."""
    found: dict[str, Any] = {"names": [], "plain": [], "encrypted": []}
    for directive in nginx_language.directives(text):
        name, words = directive.words[0], list(directive.words[1:])
        if name == "server_name":
            found["names"] += words
        elif name == "listen" and words:
            kind = "encrypted" if "ssl" in words else "plain"
            flag = " default_server" if "default_server" in words else ""
            found[kind].append(words[0] + flag)
        elif name in ("ssl_certificate", "ssl_certificate_key", "uwsgi_pass") and words:
            found.setdefault(name, words[0])
    return found


def _formats_kept(
    common: bytes | None, standing: Iterable[str], known: Container[str]
) -> list[str]:
    """The log formats that files which stay write with and the pillar does not have any more."""
    used = {
        directive.words[2]
        for text in standing
        for directive in nginx_language.directives(text)
        if directive.words[0] == "access_log" and len(directive.words) > 2
    }
    text = _text(common)
    return [
        text[directive.line : directive.end]
        for directive in nginx_language.directives(text)
        if directive.words[0] == "log_format"
        and directive.words[1] in used
        and directive.words[1] not in known
    ]


def _planned(
    saltenv: str, version: str | None, held: Container[str]
) -> tuple[dict[str, Wanted], list[str]]:
    settings = __salt__["site_pillar.settings"]()
    base, shown = _base(), _shown()
    standing = _standing(base, held)
    wanted = [name for name, site in settings["sites"].items() if not site.get("absent")]
    # Those that nginx names with this plan, and those of them that are written by it.
    sites = [name for name in wanted if name not in held or name in standing]
    written = [name for name in wanted if name not in held]
    # Where no site is named yet nothing else of the tree is touched for those that are to come.
    waits = bool(wanted) and not sites
    plan: dict[str, Wanted] = {}

    conf = _read(os.path.join(base, "nginx.conf"))
    if conf is None:
        raise CommandExecutionError(f"{shown}/nginx.conf is not there: is nginx installed?")
    text = _text(conf)
    directives = nginx_language.directives(text)
    includes = _includes(directives, base, shown)
    if not includes & {"conf.d/*.conf", "conf.d/*"}:
        raise CommandExecutionError(
            f"the http block of {shown}/nginx.conf does not include conf.d/*.conf, where the "
            f"formula keeps its own settings: add 'include {shown}/conf.d/*.conf;' to it"
        )
    common = _read(os.path.join(base, _COMMON))
    record = _record(common)

    user = _user_arguments(settings["nginx"]["user"])
    edited, before = _with_user(text, user)
    if edited != text and not waits:
        record.setdefault("user", before)
        plan["nginx.conf"] = Wanted("file", edited.encode("utf-8", "surrogateescape"))

    if not waits:
        for directory in ("sites-available", "sites-enabled", "conf.d"):
            plan[directory] = Wanted("directory")

    if sites:
        default = "sites-enabled/default"
        if _points_at(base, shown, default, "sites-available/default"):
            record["default_link"] = _link_target(base, default)
            plan[default] = Wanted("absent")
        stock = os.path.join(base, "conf.d/default.conf")
        if os.path.lexists(stock) and _conffile_is_pristine(stock):
            record["default_conf"] = True
            plan["conf.d/default.conf"] = Wanted("absent")
            plan["conf.d/default.conf.nginx_uwsgi_django"] = Wanted("file", _read(stock) or b"")

    certificates = _served_certificates(base, shown)
    for path, file in __salt__["nginx_site.files"](saltenv, version, held, certificates).items():
        plan[path] = _wanted(**file)
    for name in written:
        plan[f"sites-enabled/{name}.conf"] = Wanted(
            "link", target=f"{shown}/sites-available/{name}.conf"
        )

    _keep_aside(base, shown, plan, record)

    # By the pillar's contract a site goes when it is called absent, and with `purge` also when it
    # is not named any more.  What is not the formula's is never touched.
    strangers = []
    going = set()
    forgotten = 0
    for path in _entries(base, "sites-available"):
        name = posixpath.basename(path).partition(".")[0]
        if path in plan or name in held or not _owned(_read(os.path.join(base, path))):
            continue
        if name in settings["sites"] or settings["purge"]:
            going.add(path)
            plan[path] = Wanted("absent", secret=_is_secret(path))
        elif path.endswith(".conf"):
            forgotten += 1
    for path in _entries(base, "sites-enabled"):
        if path in plan:
            continue
        if any(_points_at(base, shown, path, file) for file in going):
            plan[path] = Wanted("absent")
        elif not _owned(_read(os.path.realpath(os.path.join(base, path)))):
            strangers.append(path)
    for path in sorted(going):
        _give_back(base, plan, record, posixpath.basename(path).partition(".")[0])

    if waits:
        return plan, strangers
    elsewhere = _set_elsewhere(base, directives)
    lines = [f"# {_MARKER.decode()}.", "# Changes made here are overwritten."]
    if record:
        lines.append(_RECORD + json.dumps(record, sort_keys=True))
    defaulted = _defaulted(base, {base + "/" + path for path in plan})
    lines += _formats_kept(common, standing.values(), settings["nginx"]["log_formats"])
    as_it_is = {name: _as_standing(text) for name, text in standing.items()}
    shared = __salt__["nginx_site.http"](
        sorted(elsewhere),
        saltenv,
        defaulted,
        forgotten,
        version,
        {name: as_it_is.get(name) for name in wanted if name not in written},
    )
    lines.append(shared.rstrip("\n"))
    if not any(posixpath.dirname(path) == "sites-enabled" for path in includes):
        lines.append(f"include {nginx_language.quote(shown)}/sites-enabled/*.conf;")
    plan[_COMMON] = Wanted("file", ("\n".join(lines) + "\n").encode())
    return plan, strangers


def _plan_removed() -> dict[str, Wanted]:
    """The tree without the formula."""
    base, shown = _base(), _shown()
    plan: dict[str, Wanted] = {}
    ours = [
        path
        for path in _entries(base, "sites-available")
        if _owned(_read(os.path.join(base, path)))
    ]
    for path in ours:
        plan[path] = Wanted("absent", secret=_is_secret(path))
    for path in _entries(base, "sites-enabled"):
        if any(_points_at(base, shown, path, file) for file in ours):
            plan[path] = Wanted("absent")
    common = _read(os.path.join(base, _COMMON))
    if not _owned(common):
        return plan
    plan[_COMMON] = Wanted("absent")
    record = _record(common)
    _give_back(base, plan, record)
    conf = _read(os.path.join(base, "nginx.conf"))
    if "user" in record and conf is not None:
        text = _text(conf)
        edited = _with_user(text, record["user"])[0] if record["user"] else _without_user(text)
        if edited != text:
            plan["nginx.conf"] = Wanted("file", edited.encode("utf-8", "surrogateescape"))
    link = "sites-enabled/default"
    available = os.path.lexists(os.path.join(base, "sites-available/default"))
    if record.get("default_link") and available and not os.path.lexists(os.path.join(base, link)):
        plan[link] = Wanted("link", target=record["default_link"])
    aside = "conf.d/default.conf.nginx_uwsgi_django"
    contents = _read(os.path.join(base, aside))
    if record.get("default_conf") and contents is not None:
        plan[aside] = Wanted("absent")
        if not os.path.lexists(os.path.join(base, "conf.d/default.conf")):
            plan["conf.d/default.conf"] = Wanted("file", contents)
    return plan


def _due(base: str, plan: dict[str, Wanted]) -> dict[str, Wanted]:
    """The part of a plan that the live tree does not fulfil yet."""
    due = {}
    for folder in sorted({posixpath.dirname(path) for path in plan}):
        full = os.path.normpath(os.path.join(base, folder))
        # Staged and live paths are only the same while nothing on the way is a link.
        if os.path.lexists(full) and os.path.realpath(full) != full:
            raise CommandExecutionError(
                f"{folder} in {base} is a link; the formula writes only to directories of the "
                "tree itself"
            )
    for path, wanted in plan.items():
        full = os.path.join(base, path)
        if wanted.kind == "file":
            done = _read(full) == wanted.contents and _accessed(full, wanted)
            if os.path.isdir(full) and not os.path.islink(full):
                raise CommandExecutionError(f"{full} is in the way: it is a directory")
        elif wanted.kind == "link":
            done = os.path.islink(full) and os.readlink(full) == wanted.target
            if os.path.isdir(full) and not os.path.islink(full):
                raise CommandExecutionError(f"{full} is in the way: it is a directory")
        elif wanted.kind == "directory":
            done = os.path.isdir(full) and not os.path.islink(full)
            if not done and os.path.lexists(full):
                raise CommandExecutionError(f"{full} is in the way: it is not a directory")
        else:
            done = not os.path.lexists(full)
        if not done:
            due[path] = wanted
    return due


def _accessed(full: str, wanted: Wanted) -> bool:
    """Whether a file has the owner, group and mode that are wanted of it."""
    if wanted.access is None:
        return True
    seen = os.lstat(full)
    return (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) == (
        wanted.access[0],
        0,
        wanted.access[1],
    )


def _changes(base: str, shown: str, due: dict[str, Wanted]) -> dict[str, Any]:
    """What a change is, for a person: a unified diff of each file, old and new of each link."""
    changes: dict[str, Any] = {}
    for path, wanted in sorted(due.items()):
        full, name = os.path.join(base, path), f"{shown}/{path}"
        if wanted.kind == "directory":
            changes[name] = {"old": None, "new": "a directory"}
        elif wanted.kind == "link" or os.path.islink(full):
            old = f"a link to {os.readlink(full)}" if os.path.islink(full) else None
            if old is None and os.path.lexists(full):
                old = "a file"
            new = f"a link to {wanted.target}" if wanted.kind == "link" else None
            changes[name] = {"old": old, "new": new if wanted.kind != "file" else "a file"}
        elif wanted.kind == "absent" and not os.path.isfile(full):
            changes[name] = {"old": "not a regular file", "new": None}
        elif wanted.secret:
            old = "a file" if os.path.lexists(full) else None
            new = "a file (not shown)" if wanted.kind == "file" else None
            if path.endswith(".pem"):
                # A certificate and its key: of the former there is something to tell.
                old = pem_text.describe(_read(full))
                new = new and pem_text.describe(wanted.contents)
            changes[name] = {"old": old, "new": new}
        elif wanted.kind == "file" and _read(full) == wanted.contents:
            changes[name] = {"mode": oct(wanted.access[0])} if wanted.access else {}
        else:
            now, then = _read(full), wanted.contents if wanted.kind == "file" else None
            changes[name] = "".join(
                line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
                for line in difflib.unified_diff(
                    _shown_text(now).splitlines(keepends=True),
                    _shown_text(then).splitlines(keepends=True),
                    name if now is not None else "/dev/null",
                    name if then is not None else "/dev/null",
                )
            )
    return changes


def _shown_text(contents: bytes | None) -> str:
    return (contents or b"").decode("utf-8", "backslashreplace")


# --- what is served ----------------------------------------------------------------------------
def _servers(base: str, shown: str, tree: dict[str, Wanted]) -> list[dict[str, Any]]:
    """The servers of a tree, see :py:func:`nginx_servers.read`; ``own``: of a file of the formula's."""

    def contents(path: str) -> bytes:
        entry = tree[path]
        if entry.kind != "link":
            return entry.contents
        full = posixpath.normpath(posixpath.join(shown, posixpath.dirname(path), entry.target))
        for prefix in (shown, base):
            inside = full.removeprefix(prefix + "/")
            if inside in tree and tree[inside].kind == "file":
                return tree[inside].contents
        return _read(os.path.realpath(full)) or b""

    def parse(path: str) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
        text = _text(contents(path))
        return [
            (text.count("\n", 0, directive.line) + 1, directive.block, directive.words)
            for directive in nginx_language.directives(text)
        ]

    paths = [path for path, entry in tree.items() if entry.kind in ("file", "link")]
    # nginx also takes /etc/nginx for what the pillar's lookup calls by another name.
    servers = __salt__["nginx_servers.read"](paths, parse, [shown, base, "/etc/nginx"])
    for server in servers:
        server["own"] = _owned(contents(server["path"]))
    return servers


def _packaged(base: str, shown: str, path: str) -> bool:
    """Whether a file is the distribution's welcome page, as it was installed."""
    if path == "sites-enabled/default" and _points_at(base, shown, path, "sites-available/default"):
        return _conffile_is_pristine(os.path.join(base, "sites-available/default"))
    return path == "conf.d/default.conf" and _conffile_is_pristine(os.path.join(base, path))


def _served_certificates(base: str, shown: str) -> dict[str, dict[str, Any]]:
    """
    The certificates that nginx has for the names of sites that wait for their first one from an
    authority: ``certificate``, ``key``, and whether plain HTTP is redirected. They stay until then.
    """
    waiting = {}
    for name, site in __salt__["site_pillar.settings"]()["sites"].items():
        if not site["absent"] and site["tls"]["source"] == "acme":
            own = _read(os.path.join(base, f"sites-available/{name}.pem"))
            if own is None or not __salt__["site_certificate.trusted"](own):
                waiting[name] = {word.lower() for word in site["server_names"]}
    found: dict[str, dict[str, Any]] = {}
    servers = _servers(base, shown, _tree(base)) if waiting else []
    for name, names in waiting.items():
        theirs = [server for server in servers if names & set(server["names"])]
        for server in theirs:
            files = [server["certificate"], server["key"]]
            if (
                server["encrypted"]
                and all(files)
                and f"{shown}/sites-available/{name}.pem" not in files
            ):
                if all(os.path.isfile(os.path.join(base, file)) for file in files):
                    redirects = any(each["redirects"] for each in theirs)
                    found[name] = {
                        "certificate": files[0],
                        "key": files[1],
                        "redirect": redirects,
                    }
                    break
    return found


def _losses(base: str, shown: str, due: dict[str, Wanted]) -> list[dict[str, Any]]:
    """
    What nginx answers now and would not with a change of the tree.

    Not counted: the distribution's welcome page, a site that the pillar takes away by ``absent`` or
    ``purge``, and what the nginx that runs does not listen on.
    """
    if not any(
        posixpath.dirname(path) in ("conf.d", "sites-enabled", "sites-available") for path in due
    ):
        return []
    master = int(_service().get("MainPID") or 0)
    listening = _listening()
    ports = {f"{listening[inode][2]}" for inode in listening.keys() & _sockets(master)}
    tree = _tree(base)
    gone = {
        posixpath.basename(path)
        for path, wanted in due.items()
        if path in tree and _owned(tree[path].contents) and not _owned(wanted.contents)
    }
    now = [
        server
        for server in _servers(base, shown, tree)
        if server["path"] != _COMMON
        and not (server["own"] and posixpath.basename(server["path"]) in gone)
        and not _packaged(base, shown, server["path"])
    ]
    for server in now:
        server["addresses"] = [
            address
            for address in server["addresses"]
            if address.startswith("unix:") or address.rpartition(":")[2] in ports
        ]
    return __salt__["nginx_servers.losses"](now, _servers(base, shown, _future(base, due)))


def _allowed(shown: str, losses: list[dict[str, Any]]) -> list[str]:
    """
    Sentences for what the pillar lets go; what it does not let go is an error with all of it.
    """
    allowed = __salt__["site_pillar.settings"]()["nginx"]["allow_loss"]
    told = {
        loss["what"]: f"{loss['what']} ({shown}/{loss['path']}, line {loss['line']})"
        for loss in losses
    }
    refused = [what for what in told if what not in allowed]
    if refused:
        raise CommandExecutionError(
            "nginx answers this now, and would not with the tree of the pillar; nothing was changed:"
            + "".join(f"\n  {told[what]}" for what in refused)
            + "\nName it in the pillar (listen, server_names, tls), or let it go:\n"
            f"  nginx_uwsgi_django:nginx:allow_loss: {json.dumps(refused)}"
        )
    return [f"no longer answered, by nginx:allow_loss: {words}" for words in told.values()]


def _whose_server(tree: dict[str, Wanted], path: str) -> str:
    """To whom a server belongs that has a name of a site's, and the ways out."""
    name = posixpath.basename(path).partition(".")[0]
    available = f"sites-available/{name}.conf"
    if available in tree and _owned(tree[available].contents):
        if name not in __salt__["site_pillar.settings"]()["sites"]:
            return (
                f"a site of this formula's that the pillar does not name: give it back its name in "
                f"the pillar, or take it off the host by `absent: true` under sites:{name}"
            )
        return f"the pillar's sites:{name}"
    return "not this formula's: take the name out of it, or remove it, and reload nginx"


def shadowed(saltenv: str | None = None) -> dict[str, list[str]]:
    """
    The sites whose visitors get the answers of another server: nginx has a server for the same name
    and address that counts before the site's own.

    saltenv
        look at the tree as it would be with the pillar and the templates of this environment of the
        fileserver; by default at the one on the disk

    Returns by site sentences with file and line; nothing of a site that its visitors reach.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.shadowed
    """
    base, shown = _base(), _shown()
    due = {} if saltenv is None else _due(base, _plan(saltenv)[0])
    tree = _future(base, due)
    if "nginx.conf" not in tree:
        return {}
    servers = _servers(base, shown, tree)
    own = {server["path"] for server in servers if server["own"]}
    sites = {
        f"sites-enabled/{name}.conf": name
        for name, site in __salt__["site_pillar.settings"]()["sites"].items()
        if not site["absent"]
    }
    found = __salt__["nginx_servers.shadowing"](servers, own & set(sites))
    return {
        sites[path]: [
            f"{other['name']} on {other['address']} is answered by {shown}/{other['path']}, "
            f"line {other['line']} ({_whose_server(tree, other['path'])})"
            for other in others
        ]
        for path, others in found.items()
    }


def held(saltenv: str = "base") -> dict[str, str]:
    """
    The sites whose part of the tree is not the one of the pillar because their release is not live.

    saltenv
        the fileserver's environment to take templates from

    Returns by site the reason. Right after :py:func:`apply` in the same run, what that has found.

    Raises CommandExecutionError when a site cannot be rendered.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.held
    """
    known: dict[str, str] | None = __context__.pop(_HELD, None)
    return _proven_plan(saltenv)[2] if known is None else known


# --- nginx's judgement -------------------------------------------------------------------------
def _binary() -> str | None:
    return shutil.which("nginx", path=_PATH)


def _run_nginx(*arguments: str, binary: str | None = None) -> subprocess.CompletedProcess[str]:
    binary = binary or _binary()
    if binary is None:
        raise CommandExecutionError("nginx is not installed")
    return subprocess.run(
        [binary, *arguments],
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_TEST_TIMEOUT,
        check=False,
    )


def version(binary: str | None = None) -> str:
    """
    The version of nginx, as ``nginx -v`` says it.

    binary
        a path; by default the installed nginx

    Returns e.g. ``1.22.1``.

    Raises CommandExecutionError when nginx is not installed or does not say.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.version
    """
    result = _run_nginx("-v", binary=binary)
    found = re.search(r"nginx/(\S+)", result.stderr)
    if result.returncode or not found:
        raise CommandExecutionError(f"nginx -v: {result.stderr.strip() or result.returncode}")
    return found.group(1)


def compiled(binary: str | None = None) -> dict[str, str]:
    """
    The paths that nginx was built with.

    binary
        as in :py:func:`version`

    Returns a dictionary: ``{"pid-path": "/run/nginx.pid", "error-log-path": …}``.

    Raises CommandExecutionError when nginx is not installed.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.compiled
    """
    result = _run_nginx("-V", binary=binary)
    if result.returncode:
        raise CommandExecutionError(f"nginx -V: {result.stderr.strip() or result.returncode}")
    return dict(re.findall(r"--([a-z-]+-path|prefix)=(\S+)", result.stderr))


def _service() -> dict[str, str]:
    """What nginx's unit says about the process: its limits, its global directives."""
    unit = _lookup()["nginx_service"]
    properties = ["LimitNOFILESoft", "LimitNOFILE", "ExecStart", "MainPID"]
    try:
        shown = __salt__["systemd_unit.show"]([f"{unit}.service"], properties)
    except CommandExecutionError:
        # No systemd answers (a chroot in which an image is being built): the judgement is then
        # made with this process's own limits.
        return {}
    return shown.get(f"{unit}.service", {})


def _limits(service: dict[str, str]) -> tuple[int, int] | None:
    """
    How many files the tested nginx may open, soft and hard.

    A reload opens every log of the new configuration while those of the old one are still open:
    what the running master has open is not there to be used.  A test in a root's shell knows
    neither, and says yes to a configuration that the reload then silently drops.
    """
    pid = service.get("MainPID", "0")
    if pid.isdigit() and int(pid):
        with contextlib.suppress(OSError):
            soft, hard = resource.prlimit(int(pid), resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{pid}/fd"))
            if soft != resource.RLIM_INFINITY:
                # Its listening sockets are taken over, the test opens them anew; 8 is for what
                # any nginx has open before it reads a line.
                soft = max(16, soft - used + 8)
            return soft, hard
    soft_text, hard_text = service.get("LimitNOFILESoft", ""), service.get("LimitNOFILE", "")
    if soft_text.isdigit() and hard_text.isdigit():
        return int(soft_text), int(hard_text)
    return None


def _global_directives(service: dict[str, str]) -> list[str]:
    """The unit's own ``-g``: a directive given there and in nginx.conf is a duplicate."""
    found = re.search(
        r"argv\[\]=\S+ (?:.* )?-g (.*?) ; ignore_errors=", service.get("ExecStart", "")
    )
    return ["-g", found.group(1)] if found else []


def _covered(
    directives: list[nginx_language.Directive], paths: dict[str, str], prefix: str
) -> list[str]:
    """
    The directories that ``nginx -t`` would write to.

    It makes temporary and cache directories and gives them to the configured user
    (ngx_create_paths()): with a new user that takes them away from the workers that run.
    It also creates each log file that is not there.
    """
    found = {path for name, path in paths.items() if name.startswith("http-") and "temp" in name}
    logs = {path for name, path in paths.items() if name.endswith("log-path")}
    for directive in directives:
        name = directive.words[0]
        if len(directive.words) > 1:
            if name.endswith(("_temp_path", "_cache_path")):
                found.add(directive.words[1])
            elif name in ("access_log", "error_log"):
                logs.add(directive.words[1])
    found |= {os.path.dirname(path) for path in logs if path.startswith("/")}
    absolute = {os.path.realpath(os.path.join(prefix, path)) for path in found}
    never = {"/", "/dev", "/proc", "/sys", "/run", "/tmp", "/var", "/etc", "/usr", "/srv", "/home"}
    covered = {path for path in absolute - never if os.path.isdir(path)}
    # To cover one starts a program: /var/lib/nginx once for all of them, where nothing else is in it.
    alone = set()
    for above in {os.path.dirname(path) for path in covered} - never:
        inside = {os.path.join(above, name) for name in os.listdir(above)}
        if len(inside) > 1 and inside <= covered:
            alone.add(above)
    return _outermost(covered | alone)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Those of some directories that are in no other of them."""
    chosen: list[str] = []
    for path in sorted(paths):
        if not any(path == above or path.startswith(above + "/") for above in chosen):
            chosen.append(path)
    return chosen


def _tree(base: str) -> dict[str, Wanted]:
    """The tree as it is, parents first; what is neither a file nor a link nor a directory: "other"."""
    tree = {}
    for path, status in _walk(base):
        if stat.S_ISDIR(status.st_mode):
            tree[path] = Wanted("directory")
        elif stat.S_ISLNK(status.st_mode):
            target = _link_target(base, path)
            if target is None:
                raise _Raced(path)
            tree[path] = Wanted("link", target=target)
        elif stat.S_ISREG(status.st_mode):
            contents = _read(os.path.join(base, path))
            if contents is None:
                raise _Raced(path)
            tree[path] = Wanted("file", contents)
        else:
            tree[path] = Wanted("other")
    return tree


def _future(base: str, due: dict[str, Wanted]) -> dict[str, Wanted]:
    """The tree as it would be, parents first."""
    tree = _tree(base) | due
    return {path: tree[path] for path in sorted(tree) if tree[path].kind != "absent"}


def _digest(tree: dict[str, Wanted]) -> str:
    """What tells a tree from another: all that a master process, which is root's, can see of it."""
    digest = hashlib.sha256()
    for path, entry in sorted(tree.items()):
        row = (path, entry.kind, entry.target, len(entry.contents))
        digest.update(json.dumps(row).encode() + b"\n" + entry.contents)
    return digest.hexdigest()


def _pack(
    archive: tarfile.TarFile,
    base: str,
    tree: dict[str, Wanted],
    due: Container[str] = (),
    below: str = "",
) -> None:
    """
    Put a tree into an archive.

    due
        what of it is not there yet; the rest gets the owner, mode and times that it has
    below
        its directory in the archive
    """
    for path, entry in tree.items():
        name = os.path.join(below, path)
        found = None if path in due else archive.gettarinfo(os.path.join(base, path), name)
        if found is None and entry.kind == "other":
            continue  # a socket
        member = found or tarfile.TarInfo(name)
        if found is None:
            member.mode, member.gid = entry.access or (0o644, 0)
            member.mtime = int(time.time())
        # What was read, whatever has come there since.
        if entry.kind == "directory":
            member.type = tarfile.DIRTYPE
            member.mode = found.mode if found else 0o755
        elif entry.kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, entry.target
        elif entry.kind == "file":
            member.type, member.linkname = tarfile.REGTYPE, ""
        member.size = len(entry.contents)
        archive.addfile(member, io.BytesIO(entry.contents))


def _pack_directories(archive: tarfile.TarFile, top: str) -> None:
    """
    Put a directory into an archive, with those below it on the same file system and no file.

    The directory itself keeps its owner and mode.  One that goes meanwhile is left out: nginx is
    shown where it may make its files, not what is there.
    """
    device = None
    for folder, folders, _ in os.walk(top):
        with contextlib.suppress(FileNotFoundError):
            seen = os.lstat(folder)
            device = device or seen.st_dev
            if seen.st_dev != device:
                folders.clear()
            member = tarfile.TarInfo(folder.lstrip("/"))
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, int(seen.st_mtime)
            if folder == top:
                member.mode, member.uid, member.gid = (
                    stat.S_IMODE(seen.st_mode),
                    seen.st_uid,
                    seen.st_gid,
                )
            archive.addfile(member)


def _walk(base: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything in the tree but our own leftovers: relative path and status, parents first."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(base, folder)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if not folder and entry.name.startswith(_STAGE):
                continue
            path = os.path.join(folder, entry.name)
            status = entry.stat(follow_symlinks=False)
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)


class _Verdict(NamedTuple):
    tested: bool  # False: this host does not let a mount namespace be made
    ok: bool
    output: str  # nginx's words, or why there was no test
    master: int | None  # the running nginx
    parsed: dict[str, list[nginx_language.Directive]]  # what the future tree says, by path


def _judge(
    base: str, due: dict[str, Wanted], binary: str | None = None, modules: str | None = None
) -> _Verdict:
    """Let nginx, the installed one or another, test the future tree where it will be."""
    binary = binary or _binary()
    if binary is None:
        raise CommandExecutionError("nginx is not installed")
    service = _service()
    paths = compiled(binary)
    prefix = paths.get("prefix", "/usr/share/nginx")
    outside, tree = __salt__["nginx_process.outside"](), _future(base, due)
    parsed = {
        path: nginx_language.directives(_text(entry.contents))
        for path, entry in tree.items()
        if 0 < len(entry.contents) < 4 << 20
    }
    directives = [directive for found in parsed.values() for directive in found]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as packed:
        _pack(packed, base, tree, due, base.lstrip("/"))
        # The tree itself has all that is in it.
        covered = _outermost([base, *_covered(directives, paths, prefix)])
        for path in covered:
            if path != base:
                _pack_directories(packed, path)
    pid_files = [d.words[1] for d in directives if d.words[0] == "pid" and len(d.words) > 1]
    pid_file = os.path.join(prefix, (pid_files or [paths.get("pid-path", "/run/nginx.pid")])[0])
    had_pid_file = os.path.lexists(pid_file)
    command = ["unshare", "--mount", "--propagation", "private", "--"]
    bound = modules if modules and os.path.isdir(_MODULES) else ""
    command += ["sh", "-c", _TEST_SCRIPT, "sh", binary, bound, *covered, "--"]
    command += _global_directives(service)
    limits = _limits(service)
    with subprocess.Popen(
        command,
        cwd="/",
        env=_ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            if limits:
                # Now, while it waits for the archive: later it is nginx.
                with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
                    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
            stdout, stderr = process.communicate(archive.getvalue(), timeout=_TEST_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise CommandExecutionError(
                f"nginx -t gave no answer within {_TEST_TIMEOUT} s"
            ) from None
        finally:
            if not had_pid_file:
                # nginx -t creates an empty one, which is not its business.
                with contextlib.suppress(FileNotFoundError):
                    if os.lstat(pid_file).st_size == 0:
                        os.unlink(pid_file)
    output = stderr.decode("utf-8", "replace").strip()
    master = int(service.get("MainPID") or 0) or None
    if not stdout.startswith(b"staged"):
        return _Verdict(False, False, output or f"exit code {process.returncode}", master, parsed)
    if process.returncode == 0 and not modules:
        key = (binary, _digest(tree))
        __context__.setdefault(_ACCEPTED, {})[key] = (_program(binary), outside)
    return _Verdict(True, process.returncode == 0, output, master, parsed)


def _program(binary: str) -> list[int]:
    seen = os.stat(binary)
    return [seen.st_dev, seen.st_ino, seen.st_size, seen.st_ctime_ns]


def accepted() -> bool:
    """
    Whether the installed nginx has accepted, in this run, exactly the tree that is on the disk, and
    what it reads from elsewhere was not changed since.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.accepted
    """
    base, binary, known = _base(), _binary(), __context__.get(_ACCEPTED)
    if not known or binary is None:
        return False
    try:
        tree = _tree(base)
    except (_Raced, FileNotFoundError):
        return False
    judged = known.get((binary, _digest(tree)))
    return judged == (_program(binary), __salt__["nginx_process.outside"]())


def _listens_at(word: str) -> tuple[str, int] | None:
    """The address and the port of a ``listen``; None for a unix socket or a name."""
    parts = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|\*|\d+\.\d+\.\d+\.\d+):)?(\d+)", word)
    if not parts:
        return None
    address = (parts.group(1) or "*").strip("[]")
    return "0.0.0.0" if address == "*" else address, int(parts.group(2))


def _addresses(directives: list[nginx_language.Directive]) -> list[tuple[str, str, int]]:
    """The addresses and ports of ``listen``: as written, the address, the port."""
    words = [
        directive.words[1]
        for directive in directives
        if directive.words[0] == "listen" and len(directive.words) > 1
    ]
    return [(word, *place) for word in words if (place := _listens_at(word))]


def _as_kernel(family: int, address: str) -> str:
    """An address as proc(5) writes it: words of the machine's own order."""
    packed = socket.inet_pton(family, address)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def _listening() -> dict[str, tuple[int, str, int]]:
    """The sockets that listen: family, address and port by inode (proc(5), /proc/net/tcp)."""
    found = {}
    for family, path in ((socket.AF_INET, "/proc/net/tcp"), (socket.AF_INET6, "/proc/net/tcp6")):
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as rows:
            for row in rows:
                fields = row.split()
                if fields[3] == "0A":
                    address, _, port = fields[1].rpartition(":")
                    found[fields[9]] = (int(family), address, int(port, 16))
    return found


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open; none of one that has gone."""
    try:
        return __salt__["nginx_socket.inodes"](pid)
    except OSError:
        return set()


def _holders(port: int, listening: dict[str, tuple[int, str, int]]) -> str:
    """The processes that listen on a port: of each socket the lowest pid."""
    inodes = {inode for inode, row in listening.items() if row[2] == port}
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if inodes & (theirs := _sockets(pid)):
            inodes -= theirs
            found.append(f"process {pid} ({_comm(pid)})")
    return ", ".join(found) or "another process"


def _holder(address: str, port: int, listening: dict[str, tuple[int, str, int]]) -> str | None:
    """Who keeps an address and port from nginx; None where it is free."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As nginx does before it binds.  Bound only: nobody can connect to it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            # nginx -t is the judge of an address that is not the host's.
            if error.errno == errno.EADDRINUSE:
                return f"{_holders(port, listening)} holds that port"
    return None


def occupied() -> list[str]:
    """
    The addresses of the pillar's sites that other processes hold, on a host that has no nginx yet.

    Returns a sentence for each, which names the process.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.occupied
    """
    listening = _listening()
    found = []
    for name, site in __salt__["site_pillar.settings"]()["sites"].items():
        if site["absent"]:
            continue
        for listen in [*site["listen"], *(site["tls"]["listen"] if site["tls"]["source"] else [])]:
            word = str(listen).split()[0]
            place = _listens_at(word)
            if place and (holder := _holder(*place, listening)):
                found.append(f"listen {word}: {holder} (from the pillar's sites:{name})")
    return found


def _conflicts(base: str, plan: dict[str, Wanted], verdict: _Verdict) -> list[str]:
    """
    The addresses of our sites that somebody else holds, or that nginx itself is in the way of.

    ``nginx -t`` says nothing of them, a reload drops the configuration for them, and after the next
    restart there may be no nginx at all.
    """
    wanted = [
        (path[len("sites-available/") : -len(".conf")], *listen)
        for path, entry in plan.items()
        if path.startswith("sites-available/") and entry.kind == "file"
        for listen in _addresses(verdict.parsed.get(path, []))
    ]
    strangers = _addresses(_strangers(base, {f"{base}/{path}" for path in plan}))
    everywhere = {
        (":" in address, port)
        for _, address, port in [*(row[1:] for row in wanted), *strangers]
        if address in ("0.0.0.0", "::")
    }
    listening = _listening()
    # Its own, and those that systemd keeps for it; what else systemd listens on is somebody else's.
    own = {listening[inode] for inode in listening.keys() & _sockets(verdict.master or 0)}
    of_systemd = {listening[inode] for inode in listening.keys() & _sockets(1)}
    kept = set()
    if {port for _, _, port in of_systemd} & {port for *_, port in wanted}:
        kept = {int(address.rpartition(":")[2]) for address in __salt__["nginx_socket.held"]()}
    own = own - of_systemd | {row for row in of_systemd if row[2] in kept}
    found = []
    for site, word, address, port in wanted:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        mine = {host for kind, host, number in own if (kind, number) == (int(family), port)}
        every = (":" in address, port) in everywhere
        # nginx binds all addresses of a port once, whichever of them have listens of their own.
        future = _as_kernel(family, "::" if ":" in address else "0.0.0.0") if every else ""
        future = future or _as_kernel(family, address)
        if future in mine:
            continue
        if mine and (every or any(set(host) == {"0"} for host in mine)):
            # Those of before are closed when the new ones are open.
            first = "call nginx_socket.remove, then " if port in kept else ""
            found.append(
                f"listen {word}: nginx has port {port} open on "
                f"{'some addresses' if every else 'all addresses'}, which cannot be open beside it, "
                f"so that no reload does that; {first}`systemctl stop "
                f"{_lookup()['nginx_service']}.service`, and apply again "
                f"(from the pillar's sites:{site})"
            )
            continue
        if holder := _holder(address, port, listening):
            found.append(f"listen {word}: {holder} (from the pillar's sites:{site})")
    return found


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return "gone"


def _messages(output: str) -> tuple[list[str], list[str]]:
    """nginx's errors and warnings, without its own name and its two lines of good news."""
    errors, warnings = [], []
    for line in output.splitlines():
        # Before its log is open nginx writes to the terminal, after that as it would to the log.
        line = re.sub(r"^nginx: ", "", line.strip())
        line = re.sub(r"^[\d/]+ [\d:]+ (\[\w+\]) \d+#\d+: ", r"\1 ", line)
        good_news = re.search(r"syntax is ok$|test is successful$|test failed$", line)
        if not line or good_news or line in errors or line in warnings:
            continue
        if line.startswith(("[warn]", "[notice]", "[info]")):
            warnings.append(line)
        else:
            errors.append(line)
    return errors, warnings


def _raw(lines: list[str], line: int) -> str:
    """The raw text of the pillar that a line of a file stands in: its path and line there."""
    for number in range(min(line, len(lines)) - 1, -1, -1):
        if lines[number].startswith("# The end of ") and number < line - 1:
            return ""
        begins = re.fullmatch(r"# As it stands in the pillar: (\S+)", lines[number])
        if begins:
            return f"{begins.group(1)}, line {line - number - 1}: {lines[line - 1].strip()}"
    return ""


def _whose(base: str, plan: dict[str, Wanted], message: str) -> str:
    """Where a message of nginx comes from, in the words of the pillar."""
    shown = _shown()
    files = {path for path, wanted in plan.items() if wanted.kind == "file"}
    place = re.search(r" in (\S+?):(\d+)$", message)
    if place:
        path, line = place.group(1), int(place.group(2))
        for prefix in (shown, base):
            if path.startswith(prefix + "/"):
                path = path[len(prefix) + 1 :]
        name = posixpath.basename(path)
        own = f"sites-available/{name}"
        if posixpath.dirname(path) in ("sites-enabled", "sites-available") and own in files:
            lines = plan[own].contents.decode().splitlines()
            raw = _raw(lines, line)
            if raw:
                return f"{message} (from the pillar's {raw})"
            quoted = f", line {line}: {lines[line - 1].strip()}" if line <= len(lines) else ""
            return f"{message} (from the pillar's sites:{name[: -len('.conf')]}{quoted})"
        if path == _COMMON and _COMMON in files:
            raw = _raw(plan[_COMMON].contents.decode().splitlines(), line)
            if raw:
                return f"{message} (from the pillar's {raw})"
            return f"{message} (a file of the formula)"
        if path == "nginx.conf" and "nginx.conf" in files:
            return f"{message} (nginx.conf; of it the formula writes only `user`: nginx:user)"
        return f"{message} (a file that is not the formula's)"
    for quoted in re.findall(r'"([^"]+)"', message):
        sites = [
            path[len("sites-available/") : -len(".conf")]
            for path in files
            if path.startswith("sites-available/") and quoted.encode() in plan[path].contents
        ]
        if len(sites) == 1:
            return f"{message} (from the pillar's sites:{sites[0]})"
        if quoted == __salt__["site_pillar.settings"]()["nginx"]["user"]:
            return f"{message} (from the pillar's nginx:user)"
    return message


def foresee(
    binary: str, modules: str | None = None, gone: list[str] | None = None, saltenv: str = "base"
) -> dict[str, Any]:
    """
    Let an nginx that is not installed yet test the tree, written as both it and the installed one
    understand it.

    binary, modules
        where that nginx and the directory of its modules are
    gone
        paths in the tree that will not be there any more
    saltenv
        the fileserver's environment to take templates from

    Returns ``{"tested": bool, "errors": […], "version": the older of both}``; ``tested`` is False
    where a mount namespace may not be made, or that nginx cannot be run yet; ``errors`` then say why.

    Raises CommandExecutionError when a site cannot be rendered.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.foresee /root/unpacked/usr/sbin/nginx
    """
    base = _base()
    try:
        older = min(
            version(), version(binary), key=lambda text: [int(n) for n in re.findall(r"\d+", text)]
        )
    except (CommandExecutionError, OSError) as error:
        return {"tested": False, "errors": [f"{error}"], "version": version()}
    plan = _proven_plan(saltenv, older)[0]
    due = _due(base, plan) | {path: Wanted("absent") for path in gone or []}
    verdict = _judge(base, due, binary, modules)
    if not verdict.tested:
        return {"tested": False, "errors": [verdict.output], "version": older}
    errors = [] if verdict.ok else _messages(verdict.output)[0] or ["nginx -t failed"]
    told = [_whose(base, plan, message) for message in errors]
    return {"tested": True, "errors": told, "version": older}


def check() -> dict[str, Any]:
    """
    Let the installed nginx test the tree as it is on the disk.

    Unlike a bare ``nginx -t`` this writes nothing, and tests with the service's own limits.

    Returns ``{"ok": bool, "tested": bool, "errors": […], "warnings": […]}``; ``tested`` is False
    where a mount namespace may not be made, and a bare ``nginx -t`` was the judge.

    Raises CommandExecutionError when nginx is not installed.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.check
    """
    base = _base()
    verdict = _judge(base, {})
    ok, output = verdict.ok, verdict.output
    if not verdict.tested:
        result = _run_nginx("-t")
        ok, output = result.returncode == 0, result.stderr
    errors, warnings = _messages(output)
    if not ok:
        plan = {
            path: Wanted("file", _read(os.path.join(base, path)) or b"")
            for path in _entries(base, "sites-available")
            if _owned(_read(os.path.join(base, path)))
        }
        errors = [_whose(base, plan, message) for message in errors] or ["nginx -t failed"]
    return {"ok": ok, "tested": verdict.tested, "errors": errors, "warnings": warnings}


# --- putting it in place -----------------------------------------------------------------------
def _renameat2(old: str, new: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)


def _flush(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _copy_attributes(source: str, target: str) -> None:
    """Access lists and security labels."""
    for name in os.listxattr(source, follow_symlinks=False):
        try:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            # trusted.* and security.* of another namespace are not ours to set.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENODATA, errno.EINVAL):
                raise


def _place(full: str, wanted: Wanted, like: str | None = None) -> None:
    """Make a file or a link where there is none; ``like`` lends owner, mode and labels."""
    if wanted.kind == "link":
        os.symlink(wanted.target, full)
        return
    handle = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(wanted.contents)
        mode, uid, gid = 0o644, 0, 0
        if wanted.access is not None:
            mode, gid = wanted.access
        elif like is not None and os.path.isfile(like) and not os.path.islink(like):
            status = os.lstat(like)
            mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
            _copy_attributes(like, full)
        os.fchown(handle, uid, gid)
        os.fchmod(handle, mode)
        stream.flush()
        os.fsync(handle)


_Snapshot = dict[str, tuple[int, ...]]


def _snapshot(base: str) -> _Snapshot:
    """
    The identity of everything in the tree.

    Without the change time: a hard link changes it.
    """
    return {
        path: (
            status.st_dev,
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            # Of a directory the entries count, and they have rows of their own.
            *(() if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)),
        )
        for path, status in _walk(base)
    }


def _same(seen: _Snapshot, now: _Snapshot) -> bool:
    """Whether two snapshots show one tree; a directory of the stage has an inode of its own."""
    if seen.keys() != now.keys():
        return False
    return all(
        (row[2:] if stat.S_ISDIR(row[2]) else row)
        == (now[path][2:] if stat.S_ISDIR(now[path][2]) else now[path])
        for path, row in seen.items()
    )


def _stage(base: str, stage: str, due: dict[str, Wanted]) -> None:
    """Fill a new directory with the future tree."""
    directories: list[tuple[str, os.stat_result | None]] = [("", os.lstat(base))]
    touched = {os.path.dirname(path) for path in due}
    for path, status in _walk(base):
        full = os.path.join(base, path)
        target = os.path.join(stage, path)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(target, 0o700)
            directories.append((path, status))
        elif path not in due:
            os.link(full, target, follow_symlinks=False)
    for path, wanted in sorted(due.items()):
        target = os.path.join(stage, path)
        if wanted.kind == "directory":
            os.mkdir(target, 0o755)
            directories.append((path, None))
        elif wanted.kind != "absent":
            _place(target, wanted, os.path.join(base, path))
    # Children before parents: writing into a directory changes its time.
    for path, found in sorted(directories, reverse=True, key=lambda item: item[0]):
        target = os.path.join(stage, path)
        if found is not None:
            os.chown(target, found.st_uid, found.st_gid)
            os.chmod(target, stat.S_IMODE(found.st_mode))
            _copy_attributes(os.path.join(base, path), target)
            if path not in touched:
                os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
        else:
            os.chmod(target, 0o755)
        _flush(target)


def _exchange(base: str, due: dict[str, Wanted], seen: _Snapshot) -> None:
    """Put the future tree in the place of the live one, in one step."""
    parent = os.path.dirname(base)
    stage = tempfile.mkdtemp(prefix=_STAGE, dir=parent)
    try:
        _stage(base, stage, due)
        if not _same(seen, _snapshot(base)):
            raise _Raced
        _renameat2(stage, base, _RENAME_EXCHANGE)
        # From here on `stage` is the old tree.  Whoever wrote to it after the look above wrote to
        # what is about to be removed.
        if not _same(seen, _snapshot(stage)):
            _renameat2(stage, base, _RENAME_EXCHANGE)
            raise _Raced
        _flush(parent)
    finally:
        shutil.rmtree(stage)


# The order in which single renames are likely to be safe: what nginx does not read yet, the formula's
# settings, the links that go (before another site may claim what they claim), the files behind links,
# the new links, and last what no link leads to any more.
def _rank(base: str, path: str, wanted: Wanted) -> int:
    if wanted.kind == "directory":
        return 0
    folder = posixpath.dirname(path)
    if wanted.kind == "absent":
        return 7 if folder == "sites-available" else 3
    if wanted.kind == "link":
        return 6
    if folder == "sites-available":
        linked = os.path.lexists(os.path.join(base, "sites-enabled", posixpath.basename(path)))
        return 5 if linked else 1
    if folder == "conf.d" and not path.endswith(".conf"):
        return 1  # kept for whoever gives it back
    # nginx.conf before conf.d when the former is what the latter was written for.
    return 2 if path == _COMMON else 4


def _ranked(base: str, due: dict[str, Wanted]) -> list[str]:
    return sorted(due, key=lambda path: (_rank(base, path, due[path]), path))


def _accepted(base: str, due: dict[str, Wanted], warnings: list[str]) -> list[str]:
    """
    What is due, in an order of which nginx accepts every step: one that comes too early waits.

    A log format is made before, and goes after, what uses it.  There may be no such order (one that
    gets another name): then that is a warning.
    """
    order: list[str] = []
    waiting = _ranked(base, due)
    unread = {path for path in due if _rank(base, path, due[path]) in (0, 1)}
    while len(waiting) > 1:
        for path in waiting:
            verdict = None
            if path not in unread:
                verdict = _judge(base, {done: due[done] for done in [*order, path]})
            if verdict is None or verdict.ok:
                break
        else:
            warnings.append(
                "file by file there is no order in which nginx accepts every step; a host that "
                "is reset in the next moment has a tree that it refuses until the next run"
            )
            return order + waiting
        order.append(path)
        waiting.remove(path)
    return order + waiting


def _one_by_one(
    base: str, due: dict[str, Wanted], seen: _Snapshot, order: list[str], accept: Any = None
) -> None:
    """
    Rename what is due into place, file by file; all of it back when one does not go in.

    accept
        is called when all is in place; what it raises undoes everything
    """
    stage = tempfile.mkdtemp(prefix=_STAGE, dir=base)
    done: list[tuple[str, str | None]] = []
    folders: set[str] = set()
    try:
        for number, path in enumerate(order):
            wanted, full = due[path], os.path.join(base, path)
            if wanted.kind in ("file", "link"):
                _place(os.path.join(stage, f"{number}.new"), wanted, full)
            if os.path.lexists(full):
                os.link(full, os.path.join(stage, f"{number}.old"), follow_symlinks=False)
        _flush(stage)
        for number, path in enumerate(order):
            wanted, full = due[path], os.path.join(base, path)
            row = seen.get(path)
            now = os.lstat(full) if os.path.lexists(full) else None
            if (row is None) != (now is None) or (
                row is not None and now is not None and row[1:] != (now.st_ino, *_identity(now))
            ):
                raise _Raced(path)
            old = os.path.join(stage, f"{number}.old") if now is not None else None
            if wanted.kind == "directory":
                os.mkdir(full, 0o755)
                os.chmod(full, 0o755)
            elif wanted.kind == "absent":
                os.unlink(full)
            else:
                os.rename(os.path.join(stage, f"{number}.new"), full)
            done.append((full, old))
            folders.add(os.path.dirname(full))
            _flush(os.path.dirname(full))
        if accept is not None:
            accept()
    except BaseException:
        for full, old in reversed(done):
            if old is not None:
                os.rename(old, full)
            elif os.path.isdir(full) and not os.path.islink(full):
                os.rmdir(full)
            else:
                os.unlink(full)
        for folder in folders:
            if os.path.isdir(folder):
                _flush(folder)
        raise
    finally:
        shutil.rmtree(stage)
        _flush(base)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    row: tuple[int, ...] = (status.st_mode, status.st_uid, status.st_gid)
    if not stat.S_ISDIR(status.st_mode):
        row += (status.st_size, status.st_mtime_ns)
    return row


# What says "not here" to an exchange of directories: another file system, a mount point, a kernel
# or a file system without it, no hard links.
_NOT_HERE = (errno.EXDEV, errno.EBUSY, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EMLINK)


def _swap(base: str, due: dict[str, Wanted], seen: _Snapshot, warnings: list[str]) -> str:
    """Put what is due in place; returns how."""
    if len(due) > 1:
        try:
            _exchange(base, due, seen)
            return "exchange"
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    _one_by_one(base, due, seen, _accepted(base, due, warnings))
    return "renames"


def _leftovers(base: str) -> list[str]:
    """What a killed run left beside and in the tree."""
    found = []
    for folder in (os.path.dirname(base), base):
        if os.path.isdir(folder):
            found += [
                os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(_STAGE)
            ]
    return found


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One run at a time: two would take each other for a third party."""
    path = "/run/nginx_uwsgi_django-nginx_tree.lock"
    # Not to be read by others: whoever can open it can hold the lock.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "ab") as lock:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CommandExecutionError(
                        f"another run has been changing nginx's tree for {_LOCK_TIMEOUT} s"
                    ) from None
                time.sleep(0.2)
        yield


def _refuse(base: str, plan: dict[str, Wanted], output: str) -> None:
    errors, _ = _messages(output)
    told = [_whose(base, plan, message) for message in errors] or [output or "nginx -t failed"]
    limits = _limits(_service())
    if limits and "Too many open files" in output:
        unit = f"{_lookup()['nginx_service']}.service"
        told.append(
            "a reload opens the new logs while the old ones are open: `prlimit "
            f"--nofile={limits[1]}: --pid $(systemctl show -P MainPID {unit})` gives the running "
            f"nginx more at once, LimitNOFILE= of {unit} one that starts"
        )
    raise CommandExecutionError("nginx refuses the tree as it would be:\n" + "\n".join(told))


def _transact(make_plan: Any, test: bool, strict: bool) -> tuple[dict[str, Any], dict[str, Wanted]]:
    """
    Bring the tree to a plan; what was done, and the plan.

    strict
        refuse it where it would end what nginx answers, but for what the pillar lets go
    """
    base, shown = _base(), _shown()
    for _ in range(5):
        plan, strangers, held = make_plan()
        due = _due(base, plan)
        report: dict[str, Any] = {
            "changes": {},
            "warnings": [],
            "strangers": [f"{shown}/{path}" for path in strangers],
            "held": held,
            "kept": [],
            "tested": None,
            "how": None,
        }
        left = _leftovers(base)
        if not due and (test or not left):
            return report, plan
        with contextlib.ExitStack() as held:
            if not test:
                held.enter_context(_alone())
                for path in _leftovers(base):
                    shutil.rmtree(path)
                if not due:
                    return report, plan
            try:
                report["changes"] = _changes(base, shown, due)
                report["kept"] = _kept(shown, due)
                if strict:
                    report["kept"] += _allowed(shown, _losses(base, shown, due))
                seen = _snapshot(base)
                verdict = _judge(base, _foreseen(due, report["warnings"]) if test else due)
                report["tested"] = verdict.tested
                if verdict.tested:
                    report["warnings"] += _messages(verdict.output)[1]
                if verdict.tested and not verdict.ok:
                    _refuse(base, plan, verdict.output)
                conflicts = _conflicts(base, plan, verdict)
                if conflicts:
                    raise CommandExecutionError(
                        "nginx could not listen as it should:\n" + "\n".join(conflicts)
                    )
                if test:
                    if not verdict.tested:
                        report["warnings"].append(f"not tested before: {verdict.output}")
                    return report, plan
                # What was compared and tested is what must still be there.
                if not _same(seen, _snapshot(base)):
                    raise _Raced
                if verdict.tested:
                    report["how"] = _swap(base, due, seen, report["warnings"])
                else:
                    report["how"] = _unproven(base, plan, due, seen, report["warnings"])
            except (_Raced, FileNotFoundError) as error:
                # FileNotFoundError: an entry went between being listed and being read.
                if isinstance(error, FileNotFoundError) and not os.path.isdir(base):
                    raise
                continue
            rest = _due(base, plan)
            if rest:
                raise CommandExecutionError(
                    f"this did not stay in place: {', '.join(sorted(rest))}"
                )
            return report, plan
    raise CommandExecutionError(
        f"somebody else kept writing to {shown} while it was to be changed; nothing was changed"
    )


def _unproven(
    base: str,
    plan: dict[str, Wanted],
    due: dict[str, Wanted],
    seen: _Snapshot,
    warnings: list[str],
) -> str:
    """Where no namespace may be made: in, test, and out again when nginx refuses."""

    def accept() -> None:
        result = _run_nginx("-t")
        if result.returncode:
            _refuse(base, plan, result.stderr)
        warnings.extend(_messages(result.stderr)[1])

    _one_by_one(base, due, seen, _ranked(base, due), accept)
    return "renames, tested afterwards"


# --- what was applied --------------------------------------------------------------------------
def _note_path() -> str:
    return f"{_lookup()['state_dir']}/nginx_tree.json"


def _as_is(base: str, path: str, contents: bytes | None = None) -> str | None:
    """
    An entry of the tree in a word: where a link leads, the digest of a file, None for nothing.

    contents
        what is in the file, where that is known
    """
    target = _link_target(base, path)
    if target is not None:
        return f"-> {target}"
    contents = _read(os.path.join(base, path)) if contents is None else contents
    return None if contents is None else hashlib.sha256(contents).hexdigest()


def _note(plan: dict[str, Wanted]) -> None:
    """
    Note what of the tree is the formula's, as it is just now that it was brought there.

    plan
        what it was brought to: none of its files has to be read again
    """
    base, shown = _base(), _shown()
    noted = {}
    # Not the certificates: certbot renews them between two runs.
    for path in [*_entries(base, "sites-available"), _COMMON]:
        if path.endswith(".pem"):
            continue
        contents = plan[path].contents if path in plan else _read(os.path.join(base, path))
        if _owned(contents):
            noted[path] = _as_is(base, path, contents)
    leads = {f"-> {shown}/{path}" for path in noted}
    for path in _entries(base, "sites-enabled"):
        if (now := _as_is(base, path)) in leads:
            noted[path] = now
    if not noted:
        durable_file.remove(_note_path())
        return
    durable_file.directory(os.path.dirname(_note_path()))
    durable_file.write(_note_path(), json.dumps(noted, indent=1) + "\n", mode="0600")


def drift() -> dict[str, str]:
    """
    What of the formula's own files and links somebody else has changed since the formula was last
    applied, whatever the pillar says by now.  Of a file only the content counts, and certificates
    do not: certbot renews them.

    Returns by path what has become of it; empty also where the formula was never applied.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.drift
    """
    base, shown = _base(), _shown()
    try:
        noted = json.loads(_read(_note_path()) or b"{}")
    except ValueError as error:
        return {_note_path(): f"cannot be read: {error}"}
    found = {}
    for path, was in noted.items():
        now = _as_is(base, path)
        if now is None:
            found[f"{shown}/{path}"] = "is gone"
        elif now != was:
            leads = now.startswith("-> ")
            found[f"{shown}/{path}"] = f"leads to {now[3:]}" if leads else "was edited"
    return found


def _kept(shown: str, due: dict[str, Wanted]) -> list[str]:
    """What is kept aside and what is given back, in sentences."""
    told = []
    for path, wanted in due.items():
        if not path.endswith(_ASIDE) or posixpath.dirname(path) != "sites-available":
            continue
        name = posixpath.basename(path).removesuffix(_ASIDE)
        place = f"sites-available/{name}"
        if name.endswith(".enabled"):
            place = f"sites-enabled/{name.removesuffix('.enabled')}"
        if wanted.kind == "file":
            told.append(
                f"{shown}/{place} is not this formula's: it is kept as {shown}/{path}, and comes "
                "back when the site goes"
            )
        elif place in due:
            told.append(f"{shown}/{place} is again what it was before the formula")
    return told


def _noted(make_plan: Any, test: bool, strict: bool = False) -> dict[str, Any]:
    report, plan = _transact(make_plan, test, strict)
    if not test:
        _note(plan)
    return report


def due(saltenv: str = "base") -> dict[str, Any]:
    """
    What :py:func:`apply` would change once the releases of all sites are live, without asking nginx
    for its judgement.  Writes nothing.

    saltenv
        the fileserver's environment to take templates from

    Returns the changes: per file a unified diff, per link old and new.

    Raises CommandExecutionError when a site cannot be rendered.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.due
    """
    base = _base()
    return _changes(base, _shown(), _due(base, _plan(saltenv)[0]))


def apply(
    saltenv: str = "base",
    test: bool = False,
    version: str | None = None,
    unproven: bool = False,
) -> dict[str, Any]:
    """
    Bring the tree to what the pillar wants: all of it, or nothing. The part of a site whose release
    is not live stays as it is.

    saltenv
        the fileserver's environment to take templates from
    test
        judge the future tree, change nothing
    version
        write it as for this version of nginx, an older one than the installed
    unproven
        change the part of every site, also where its release is not live: nginx then answers 502
        for it

    Returns ``{"changes": …, "warnings": nginx's, "strangers": enabled but not the formula's,
    "held": by site, why its part stays as it is, "kept": what is kept aside or given back, in
    sentences, "tested": by nginx before it went in, "how": exchange or renames}``. With ``test`` the changes are those of a run in which every release
    comes up; ``held`` has the sites that this is still to be seen of.

    Raises CommandExecutionError with nginx's own words, and the pillar's path that they are about,
    when nginx refuses, and with every address and name that nginx answers now and would not any more,
    unless the pillar lets it go (``nginx:allow_loss``); the tree is then as it was.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.apply test=True
    """

    def make_plan() -> tuple[dict[str, Wanted], list[str], dict[str, str]]:
        plan, strangers, held = _proven_plan(saltenv, version, unproven)
        if test and held:
            # In a run the releases come first.
            plan, strangers = _plan(saltenv, version)
        return plan, strangers, held

    __context__.pop(_HELD, None)
    report = _noted(make_plan, test, strict=True)
    __context__[_HELD] = report["held"]
    return report


def remove(test: bool = False) -> dict[str, Any]:
    """
    Take everything of the formula out of the tree, and give back what it took out.

    test
        judge the future tree, change nothing

    Returns what :py:func:`apply` returns.

    Raises CommandExecutionError as :py:func:`apply` does.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.remove test=True
    """
    return _noted(lambda: (_plan_removed(), [], {}), test)


def keep(path: str) -> None:
    """
    Write the whole tree, as it is, into one file that :py:func:`restore` takes.

    path
        an absolute path whose directory exists; the file is root's alone, as there may be keys in
        the tree

    Raises CommandExecutionError when somebody else kept writing to the tree; OSError as the system
    says it.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.keep /root/nginx.tar
    """
    base = _base()
    for _ in range(5):
        seen = _snapshot(base)
        try:
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as packed:
                _pack(packed, base, _tree(base))
        except (_Raced, FileNotFoundError):
            continue
        if _same(seen, _snapshot(base)):
            durable_file.write(path, archive.getvalue(), mode="0600")
            return
    raise CommandExecutionError(f"somebody else kept writing to {base} while it was to be kept")


def _plan_kept(path: str) -> dict[str, Wanted]:
    """The tree that is in a file of :py:func:`keep`, and nothing besides but directories."""
    contents = _read(path)
    if contents is None:
        raise CommandExecutionError(f"{path} is not there: no tree was kept")
    base = _base()
    plan: dict[str, Wanted] = {}
    with tarfile.open(fileobj=io.BytesIO(contents)) as archive:
        for member in archive:
            if member.isdir():
                plan[member.name] = Wanted("directory")
            elif member.issym():
                plan[member.name] = Wanted("link", target=member.linkname)
            elif (stream := archive.extractfile(member)) is not None:
                there = os.path.lexists(os.path.join(base, member.name))
                plan[member.name] = Wanted(
                    "file",
                    stream.read(),
                    secret=_is_secret(member.name),
                    access=None if there else (member.mode, member.gid),
                )
    for found, status in _walk(base):
        if found not in plan and not stat.S_ISDIR(status.st_mode):
            plan[found] = Wanted("absent", secret=_is_secret(found))
    return plan


def restore(path: str, test: bool = False) -> dict[str, Any]:
    """
    Bring back the whole tree that :py:func:`keep` wrote, by the same judgement as any other change.

    What anybody else changed in the tree since then is undone too; a directory that came since then
    stays.

    path
        the file
    test
        judge the future tree, change nothing

    Returns what :py:func:`apply` returns.

    Raises CommandExecutionError as :py:func:`apply` does, and when there is no such file.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.restore /root/nginx.tar test=True
    """
    return _noted(lambda: (_plan_kept(path), [], {}), test)
