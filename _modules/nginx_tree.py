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
import glob
import grp
import hashlib
import json
import os
import posixpath
import pwd
import re
import shutil
import stat
from collections.abc import Container, Iterable
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import (
    durable_file,
    nginx_archive,
    nginx_files,
    nginx_judge,
    nginx_language,
    nginx_ports,
    nginx_program,
    nginx_swap,
    nginx_user,
    proc,
)

__virtualname__ = "nginx_tree"


# What the formula found and will give back: one JSON object in a comment of nginx_files.COMMON, so that it
# comes and goes in the same transaction as what it speaks of.
_RECORD = "# Found here before: "


# How a file ends that the formula has kept aside, because its place was wanted for a site.
_ASIDE = ".nginx_uwsgi_django"


# The sites that the last change of the tree in this run has left as they were, and why.
_HELD = "nginx_tree.held"


def __virtual__() -> str:
    return __virtualname__


# --- what the tree is to be --------------------------------------------------------------------
def _lookup() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()["lookup"]


def _base() -> str:
    """The tree, as a path without links: what is mounted over and what changes places."""
    return os.path.realpath(_lookup()["nginx_dir"])


def _shown() -> str:
    return str(_lookup()["nginx_dir"]).rstrip("/")


def _foreseen(
    due: dict[str, nginx_files.Wanted], warnings: list[str]
) -> dict[str, nginx_files.Wanted]:
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
    contents = durable_file.read(path)
    if contents is None:
        return False
    digest = hashlib.md5(contents, usedforsecurity=False).hexdigest()
    try:
        with open("/var/lib/dpkg/status", encoding="utf-8", errors="replace") as status:
            return any(line.split()[:2] == [path, digest] for line in status if path in line)
    except FileNotFoundError:
        return False


def _record(common: bytes | None) -> dict[str, Any]:
    for line in nginx_files.text_of(common).splitlines():
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
        if os.path.join(base, nginx_files.COMMON) != path:
            found |= {
                d.words[0]
                for d in nginx_language.directives(nginx_files.text_of(durable_file.read(path)))
                if d.depth == 0
            }
    return found


def _strangers(base: str, ours: set[str]) -> list[nginx_language.Directive]:
    """The directives of the files that nginx.conf includes and that are not ours."""
    found: list[nginx_language.Directive] = []
    for pattern in ("conf.d/*.conf", "sites-enabled/*"):
        for path in glob.glob(os.path.join(glob.escape(base), pattern)):
            if path not in ours and path != os.path.join(base, nginx_files.COMMON):
                found += nginx_language.directives(
                    nginx_files.text_of(durable_file.read(os.path.realpath(path)))
                )
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


def _wanted(text: str, secret: bool = False, mode: str = "", group: str = "") -> nginx_files.Wanted:
    """A file as :py:func:`nginx_site.files` describes it."""
    access = None
    if mode:
        try:
            gid = grp.getgrnam(group).gr_gid if group else 0
        except KeyError:
            gid = 0  # the group of a user that a dry run has not made
        access = (int(mode, 8), gid)
    return nginx_files.Wanted("file", text.encode(), secret=secret, access=access)


def _plan(
    saltenv: str, version: str | None = None, held: Container[str] = ()
) -> tuple[dict[str, nginx_files.Wanted], list[str]]:
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
) -> tuple[dict[str, nginx_files.Wanted], list[str], dict[str, str]]:
    """
    As :py:func:`_plan`, and the sites whose release is not live, with the reason: their part of the
    tree stays as it is.

    Only the sites whose part would change are asked for, so that a run with nothing to do asks for
    none.

    unproven
        whether the part of such a site changes all the same; no site is asked for then
    """
    plan, strangers = _plan(saltenv, version)
    held = {} if unproven else _unproven_sites(nginx_files.outstanding(_base(), plan))
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


def _keep_aside(
    base: str, shown: str, plan: dict[str, nginx_files.Wanted], record: dict[str, Any]
) -> None:
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
        target = nginx_files.link_target(base, path)
        if target is not None:
            available = f"sites-available/{posixpath.basename(path)}"
            ours = wanted.kind == "link" and nginx_files.points_at(base, shown, path, available)
            # A link to a file that is kept aside comes back with it, as it was written.
            if not ours or available in new:
                new.add(path)
                record.setdefault("replaced", {}).setdefault(path, {"link": target})
        elif os.path.isfile(full) and not nginx_files.is_owned(contents := durable_file.read(full)):
            seen = os.lstat(full)
            new.add(path)
            record.setdefault("replaced", {}).setdefault(path, {"file": _aside(path)})
            plan[_aside(path)] = nginx_files.Wanted(
                "file",
                contents or b"",
                secret=nginx_files.is_secret(path),
                access=(stat.S_IMODE(seen.st_mode), seen.st_gid),
            )


def _give_back(
    base: str, plan: dict[str, nginx_files.Wanted], record: dict[str, Any], name: str = ""
) -> None:
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
            plan[path] = nginx_files.Wanted("link", target=was["link"])
        else:
            full = os.path.join(base, was["file"])
            contents = durable_file.read(full)
            if contents is None:
                continue
            seen = os.lstat(full)
            access = (stat.S_IMODE(seen.st_mode), seen.st_gid)
            plan[path] = nginx_files.Wanted(
                "file", contents, secret=nginx_files.is_secret(path), access=access
            )
            plan[was["file"]] = nginx_files.Wanted("absent", secret=nginx_files.is_secret(path))
        del record["replaced"][path]
    if not record.get("replaced", True):
        del record["replaced"]


def _standing(base: str, held: Container[str]) -> dict[str, str]:
    """The files of the held sites that nginx names already, by site: they stay."""
    found = {}
    for path in nginx_files.entries(base, "sites-available"):
        name = posixpath.basename(path).removesuffix(".conf")
        if name in held and path.endswith(".conf"):
            contents = durable_file.read(os.path.join(base, path))
            if nginx_files.is_owned(contents) and os.path.lexists(
                os.path.join(base, f"sites-enabled/{name}.conf")
            ):
                found[name] = nginx_files.text_of(contents)
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
    text = nginx_files.text_of(common)
    return [
        text[directive.line : directive.end]
        for directive in nginx_language.directives(text)
        if directive.words[0] == "log_format"
        and directive.words[1] in used
        and directive.words[1] not in known
    ]


def _planned(
    saltenv: str, version: str | None, held: Container[str]
) -> tuple[dict[str, nginx_files.Wanted], list[str]]:
    settings = __salt__["site_pillar.settings"]()
    base, shown = _base(), _shown()
    standing = _standing(base, held)
    wanted = [name for name, site in settings["sites"].items() if not site.get("absent")]
    # Those that nginx names with this plan, and those of them that are written by it.
    sites = [name for name in wanted if name not in held or name in standing]
    written = [name for name in wanted if name not in held]
    # Where no site is named yet nothing else of the tree is touched for those that are to come.
    waits = bool(wanted) and not sites
    plan: dict[str, nginx_files.Wanted] = {}

    conf = durable_file.read(os.path.join(base, "nginx.conf"))
    if conf is None:
        raise CommandExecutionError(f"{shown}/nginx.conf is not there: is nginx installed?")
    text = nginx_files.text_of(conf)
    directives = nginx_language.directives(text)
    includes = _includes(directives, base, shown)
    if not includes & {"conf.d/*.conf", "conf.d/*"}:
        raise CommandExecutionError(
            f"the http block of {shown}/nginx.conf does not include conf.d/*.conf, where the "
            f"formula keeps its own settings: add 'include {shown}/conf.d/*.conf;' to it"
        )
    common = durable_file.read(os.path.join(base, nginx_files.COMMON))
    record = _record(common)

    user = nginx_user.arguments_of(settings["nginx"]["user"])
    edited, before = nginx_user.with_user(text, user)
    if edited != text and not waits:
        record.setdefault("user", before)
        plan["nginx.conf"] = nginx_files.Wanted("file", edited.encode("utf-8", "surrogateescape"))

    if not waits:
        for directory in ("sites-available", "sites-enabled", "conf.d"):
            plan[directory] = nginx_files.Wanted("directory")

    if sites:
        default = "sites-enabled/default"
        if nginx_files.points_at(base, shown, default, "sites-available/default"):
            record["default_link"] = nginx_files.link_target(base, default)
            plan[default] = nginx_files.Wanted("absent")
        stock = os.path.join(base, "conf.d/default.conf")
        if os.path.lexists(stock) and _conffile_is_pristine(stock):
            record["default_conf"] = True
            plan["conf.d/default.conf"] = nginx_files.Wanted("absent")
            plan["conf.d/default.conf.nginx_uwsgi_django"] = nginx_files.Wanted(
                "file", durable_file.read(stock) or b""
            )

    certificates = _served_certificates(base, shown)
    for path, file in __salt__["nginx_site.files"](saltenv, version, held, certificates).items():
        plan[path] = _wanted(**file)
    for name in written:
        plan[f"sites-enabled/{name}.conf"] = nginx_files.Wanted(
            "link", target=f"{shown}/sites-available/{name}.conf"
        )

    _keep_aside(base, shown, plan, record)

    # By the pillar's contract a site goes when it is called absent, and with `purge` also when it
    # is not named any more.  What is not the formula's is never touched.
    strangers = []
    going = set()
    forgotten = 0
    for path in nginx_files.entries(base, "sites-available"):
        name = posixpath.basename(path).partition(".")[0]
        if (
            path in plan
            or name in held
            or not nginx_files.is_owned(durable_file.read(os.path.join(base, path)))
        ):
            continue
        if name in settings["sites"] or settings["purge"]:
            going.add(path)
            plan[path] = nginx_files.Wanted("absent", secret=nginx_files.is_secret(path))
        elif path.endswith(".conf"):
            forgotten += 1
    for path in nginx_files.entries(base, "sites-enabled"):
        if path in plan:
            continue
        if any(nginx_files.points_at(base, shown, path, file) for file in going):
            plan[path] = nginx_files.Wanted("absent")
        elif not nginx_files.is_owned(
            durable_file.read(os.path.realpath(os.path.join(base, path)))
        ):
            strangers.append(path)
    for path in sorted(going):
        _give_back(base, plan, record, posixpath.basename(path).partition(".")[0])

    if waits:
        return plan, strangers
    elsewhere = _set_elsewhere(base, directives)
    lines = [f"# {nginx_files.MARKER.decode()}.", "# Changes made here are overwritten."]
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
    plan[nginx_files.COMMON] = nginx_files.Wanted("file", ("\n".join(lines) + "\n").encode())
    return plan, strangers


def _plan_removed() -> dict[str, nginx_files.Wanted]:
    """The tree without the formula."""
    base, shown = _base(), _shown()
    plan: dict[str, nginx_files.Wanted] = {}
    ours = [
        path
        for path in nginx_files.entries(base, "sites-available")
        if nginx_files.is_owned(durable_file.read(os.path.join(base, path)))
    ]
    for path in ours:
        plan[path] = nginx_files.Wanted("absent", secret=nginx_files.is_secret(path))
    for path in nginx_files.entries(base, "sites-enabled"):
        if any(nginx_files.points_at(base, shown, path, file) for file in ours):
            plan[path] = nginx_files.Wanted("absent")
    common = durable_file.read(os.path.join(base, nginx_files.COMMON))
    if not nginx_files.is_owned(common):
        return plan
    plan[nginx_files.COMMON] = nginx_files.Wanted("absent")
    record = _record(common)
    _give_back(base, plan, record)
    conf = durable_file.read(os.path.join(base, "nginx.conf"))
    if "user" in record and conf is not None:
        text = nginx_files.text_of(conf)
        edited = (
            nginx_user.with_user(text, record["user"])[0]
            if record["user"]
            else nginx_user.without_user(text)
        )
        if edited != text:
            plan["nginx.conf"] = nginx_files.Wanted(
                "file", edited.encode("utf-8", "surrogateescape")
            )
    link = "sites-enabled/default"
    available = os.path.lexists(os.path.join(base, "sites-available/default"))
    if record.get("default_link") and available and not os.path.lexists(os.path.join(base, link)):
        plan[link] = nginx_files.Wanted("link", target=record["default_link"])
    aside = "conf.d/default.conf.nginx_uwsgi_django"
    contents = durable_file.read(os.path.join(base, aside))
    if record.get("default_conf") and contents is not None:
        plan[aside] = nginx_files.Wanted("absent")
        if not os.path.lexists(os.path.join(base, "conf.d/default.conf")):
            plan["conf.d/default.conf"] = nginx_files.Wanted("file", contents)
    return plan


# --- what is served ----------------------------------------------------------------------------
def _servers(base: str, shown: str, tree: dict[str, nginx_files.Wanted]) -> list[dict[str, Any]]:
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
        return durable_file.read(os.path.realpath(full)) or b""

    def parse(path: str) -> list[tuple[int, tuple[str, ...], tuple[str, ...]]]:
        text = nginx_files.text_of(contents(path))
        return [
            (text.count("\n", 0, directive.line) + 1, directive.block, directive.words)
            for directive in nginx_language.directives(text)
        ]

    paths = [path for path, entry in tree.items() if entry.kind in ("file", "link")]
    # nginx also takes /etc/nginx for what the pillar's lookup calls by another name.
    servers = __salt__["nginx_servers.read"](paths, parse, [shown, base, "/etc/nginx"])
    for server in servers:
        server["own"] = nginx_files.is_owned(contents(server["path"]))
    return servers


def _packaged(base: str, shown: str, path: str) -> bool:
    """Whether a file is the distribution's welcome page, as it was installed."""
    if path == "sites-enabled/default" and nginx_files.points_at(
        base, shown, path, "sites-available/default"
    ):
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
            own = durable_file.read(os.path.join(base, f"sites-available/{name}.pem"))
            if own is None or not __salt__["site_certificate.trusted"](own):
                waiting[name] = {word.lower() for word in site["server_names"]}
    found: dict[str, dict[str, Any]] = {}
    servers = _servers(base, shown, nginx_files.live(base)) if waiting else []
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


def _losses(base: str, shown: str, due: dict[str, nginx_files.Wanted]) -> list[dict[str, Any]]:
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
    listening = proc.listening()
    ports = {
        f"{listening[inode].port}" for inode in listening.keys() & nginx_ports.sockets_of(master)
    }
    tree = nginx_files.live(base)
    gone = {
        posixpath.basename(path)
        for path, wanted in due.items()
        if path in tree
        and nginx_files.is_owned(tree[path].contents)
        and not nginx_files.is_owned(wanted.contents)
    }
    now = [
        server
        for server in _servers(base, shown, tree)
        if server["path"] != nginx_files.COMMON
        and not (server["own"] and posixpath.basename(server["path"]) in gone)
        and not _packaged(base, shown, server["path"])
    ]
    for server in now:
        server["addresses"] = [
            address
            for address in server["addresses"]
            if address.startswith("unix:") or address.rpartition(":")[2] in ports
        ]
    return __salt__["nginx_servers.losses"](
        now, _servers(base, shown, nginx_files.future(base, due))
    )


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


def _whose_server(tree: dict[str, nginx_files.Wanted], path: str) -> str:
    """To whom a server belongs that has a name of a site's, and the ways out."""
    name = posixpath.basename(path).partition(".")[0]
    available = f"sites-available/{name}.conf"
    if available in tree and nginx_files.is_owned(tree[available].contents):
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
    due = {} if saltenv is None else nginx_files.outstanding(base, _plan(saltenv)[0])
    tree = nginx_files.future(base, due)
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


def occupied() -> list[str]:
    """
    The addresses of the pillar's sites that other processes hold, on a host that has no nginx yet.

    Returns a sentence for each, which names the process.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.occupied
    """
    listening = proc.listening()
    found = []
    for name, site in __salt__["site_pillar.settings"]()["sites"].items():
        if site["absent"]:
            continue
        for listen in [*site["listen"], *(site["tls"]["listen"] if site["tls"]["source"] else [])]:
            word = str(listen).split()[0]
            place = nginx_ports.listens_at(word)
            if place and (holder := nginx_ports.holder(*place, listening)):
                found.append(f"listen {word}: {holder} (from the pillar's sites:{name})")
    return found


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
            nginx_program.version(),
            nginx_program.version(binary),
            key=lambda text: [int(n) for n in re.findall(r"\d+", text)],
        )
    except (CommandExecutionError, OSError) as error:
        return {"tested": False, "errors": [f"{error}"], "version": nginx_program.version()}
    plan = _proven_plan(saltenv, older)[0]
    due = nginx_files.outstanding(base, plan) | {
        path: nginx_files.Wanted("absent") for path in gone or []
    }
    verdict = _judged(base, due, binary, modules)
    if not verdict.tested:
        return {"tested": False, "errors": [verdict.output], "version": older}
    errors = [] if verdict.ok else nginx_judge.messages(verdict.output)[0] or ["nginx -t failed"]
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
    verdict = _judged(base, {})
    ok, output = verdict.ok, verdict.output
    if not verdict.tested:
        result = nginx_program.run("-t")
        ok, output = result.returncode == 0, result.stderr
    errors, warnings = nginx_judge.messages(output)
    if not ok:
        plan = {
            path: nginx_files.Wanted("file", durable_file.read(os.path.join(base, path)) or b"")
            for path in nginx_files.entries(base, "sites-available")
            if nginx_files.is_owned(durable_file.read(os.path.join(base, path)))
        }
        errors = [_whose(base, plan, message) for message in errors] or ["nginx -t failed"]
    return {"ok": ok, "tested": verdict.tested, "errors": errors, "warnings": warnings}


# --- changing it -------------------------------------------------------------------------------


def _judged(
    base: str,
    due: dict[str, nginx_files.Wanted],
    binary: str | None = None,
    modules: str | None = None,
) -> nginx_judge.Verdict:
    return nginx_judge.judge(base, due, _service(), __context__, binary, modules)


def _whose(base: str, plan: dict[str, nginx_files.Wanted], message: str) -> str:
    user = __salt__["site_pillar.settings"]()["nginx"]["user"]
    return nginx_judge.whose(base, _shown(), plan, user, message)


def _conflicts(
    base: str, plan: dict[str, nginx_files.Wanted], verdict: nginx_judge.Verdict
) -> list[str]:
    return nginx_ports.conflicts(
        plan,
        verdict.parsed,
        _strangers(base, {f"{base}/{path}" for path in plan}),
        verdict.master,
        _lookup()["nginx_service"],
        lambda: __salt__["nginx_socket.held"](),
    )


def _refuse(base: str, plan: dict[str, nginx_files.Wanted], output: str) -> None:
    errors, _ = nginx_judge.messages(output)
    told = [_whose(base, plan, message) for message in errors] or [output or "nginx -t failed"]
    limits = nginx_judge.limits_of(_service())
    if limits and "Too many open files" in output:
        unit = f"{_lookup()['nginx_service']}.service"
        told.append(
            "a reload opens the new logs while the old ones are open: `prlimit "
            f"--nofile={limits[1]}: --pid $(systemctl show -P MainPID {unit})` gives the running "
            f"nginx more at once, LimitNOFILE= of {unit} one that starts"
        )
    raise CommandExecutionError("nginx refuses the tree as it would be:\n" + "\n".join(told))


def _transact(
    make_plan: Any, test: bool, strict: bool
) -> tuple[dict[str, Any], dict[str, nginx_files.Wanted]]:
    """
    Bring the tree to a plan; what was done, and the plan.

    strict
        refuse it where it would end what nginx answers, but for what the pillar lets go
    """
    base, shown = _base(), _shown()
    for _ in range(5):
        plan, strangers, held = make_plan()
        due = nginx_files.outstanding(base, plan)
        report: dict[str, Any] = {
            "changes": {},
            "warnings": [],
            "strangers": [f"{shown}/{path}" for path in strangers],
            "held": held,
            "kept": [],
            "tested": None,
            "how": None,
        }
        left = nginx_swap.leftovers(base)
        if not due and (test or not left):
            return report, plan
        with contextlib.ExitStack() as held:
            if not test:
                held.enter_context(nginx_swap.alone())
                for path in nginx_swap.leftovers(base):
                    shutil.rmtree(path)
                if not due:
                    return report, plan
            try:
                report["changes"] = nginx_files.describe(base, shown, due)
                report["kept"] = _kept(shown, due)
                if strict:
                    report["kept"] += _allowed(shown, _losses(base, shown, due))
                seen = nginx_swap.snapshot(base)
                verdict = _judged(base, _foreseen(due, report["warnings"]) if test else due)
                report["tested"] = verdict.tested
                if verdict.tested:
                    report["warnings"] += nginx_judge.messages(verdict.output)[1]
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
                if not nginx_swap.same(seen, nginx_swap.snapshot(base)):
                    raise nginx_files.Raced
                if verdict.tested:
                    report["how"] = nginx_swap.swap(
                        base, due, seen, report["warnings"], lambda part: _judged(base, part).ok
                    )
                else:
                    report["how"] = _unproven(base, plan, due, seen, report["warnings"])
            except (nginx_files.Raced, FileNotFoundError) as error:
                # FileNotFoundError: an entry went between being listed and being read.
                if isinstance(error, FileNotFoundError) and not os.path.isdir(base):
                    raise
                continue
            rest = nginx_files.outstanding(base, plan)
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
    plan: dict[str, nginx_files.Wanted],
    due: dict[str, nginx_files.Wanted],
    seen: nginx_swap.Snapshot,
    warnings: list[str],
) -> str:
    """Where no namespace may be made: in, test, and out again when nginx refuses."""

    def accept() -> None:
        result = nginx_program.run("-t")
        if result.returncode:
            _refuse(base, plan, result.stderr)
        warnings.extend(nginx_judge.messages(result.stderr)[1])

    nginx_swap.one_by_one(base, due, seen, nginx_swap.ranked(base, due), accept)
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
    target = nginx_files.link_target(base, path)
    if target is not None:
        return f"-> {target}"
    contents = durable_file.read(os.path.join(base, path)) if contents is None else contents
    return None if contents is None else hashlib.sha256(contents).hexdigest()


def _note(plan: dict[str, nginx_files.Wanted]) -> None:
    """
    Note what of the tree is the formula's, as it is just now that it was brought there.

    plan
        what it was brought to: none of its files has to be read again
    """
    base, shown = _base(), _shown()
    noted = {}
    # Not the certificates: certbot renews them between two runs.
    for path in [*nginx_files.entries(base, "sites-available"), nginx_files.COMMON]:
        if path.endswith(".pem"):
            continue
        contents = (
            plan[path].contents if path in plan else durable_file.read(os.path.join(base, path))
        )
        if nginx_files.is_owned(contents):
            noted[path] = _as_is(base, path, contents)
    leads = {f"-> {shown}/{path}" for path in noted}
    for path in nginx_files.entries(base, "sites-enabled"):
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
        noted = json.loads(durable_file.read(_note_path()) or b"{}")
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


def _kept(shown: str, due: dict[str, nginx_files.Wanted]) -> list[str]:
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
    return nginx_files.describe(base, _shown(), nginx_files.outstanding(base, _plan(saltenv)[0]))


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

    def make_plan() -> tuple[dict[str, nginx_files.Wanted], list[str], dict[str, str]]:
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
        seen = nginx_swap.snapshot(base)
        try:
            archive = nginx_archive.whole(base)
        except (nginx_files.Raced, FileNotFoundError):
            continue
        if nginx_swap.same(seen, nginx_swap.snapshot(base)):
            durable_file.write(path, archive, mode="0600")
            return
    raise CommandExecutionError(f"somebody else kept writing to {base} while it was to be kept")


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
    contents = durable_file.read(path)
    if contents is None:
        raise CommandExecutionError(f"{path} does not exist: no tree was kept")
    return _noted(lambda: (nginx_archive.plan_of(contents, _base()), [], {}), test)
