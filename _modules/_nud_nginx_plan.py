"""
The plan of nginx's configuration tree: what is to be at which path, for the pillar's sites.
"""

import glob
import grp
import os
import posixpath
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError

from _nud_durable_file import read
from _nud_nginx_files import (
    COMMON,
    MARKER,
    Wanted,
    entries,
    is_owned,
    is_secret,
    points_at,
    text_of,
)
from _nud_nginx_kept import (
    displace_defaults,
    give_back,
    keep_aside,
    line_of,
    put_aside,
    record_of,
    replace_defaults,
)
from _nud_nginx_language import Directive, directives, quote
from _nud_nginx_servers import certificates_for
from _nud_nginx_user import arguments_of, with_user, without_user


class Order(NamedTuple):
    """What a plan is made from."""

    base: str  # the directory of the tree, without links
    shown: str  # and as the pillar names it
    settings: dict[str, Any]  # the pillar's
    held: Collection[str]  # the sites whose part of the tree stays as it is
    # Those of them that an operator has given back to what served them before.
    reverted: Collection[str]
    # The files of all sites, given the certificates that stay: as :py:func:`nginx_site.files`.
    files: Callable[[dict[str, dict[str, Any]]], dict[str, dict[str, Any]]]
    # The text of the http level: :py:func:`nginx_site.http`.
    http: Callable[..., str]
    # Whether a certificate is good for browsers: :py:func:`site_certificate.trusted`.
    trusted: Callable[[bytes], bool]


def taken_over(
    shown: str, sites: Mapping[str, dict[str, Any]], names: Iterable[str]
) -> dict[str, str]:
    """
    The files that served some sites before the formula (``takeover:files``).

    shown
        the directory of the tree, as the pillar names it
    sites
        the pillar's
    names
        some of them

    Returns the sites by the path of the file in the tree.
    """
    return {
        file.removeprefix(f"{shown}/"): name
        for name in names
        for file in sites[name]["takeover"]["files"]
    }


def planned(order: Order) -> tuple[dict[str, Wanted], list[str]]:
    """
    The plan of the tree.

    order
        what it is made from

    Returns what is to be where, and which of the paths in sites-enabled are not the formula's.

    Raises CommandExecutionError when nginx.conf is missing or does not read ``conf.d``.
    """
    base, shown, settings, held = order.base, order.shown, order.settings, order.held
    standing = _standing(base, set(held) - set(order.reverted))
    wanted = [name for name, site in settings["sites"].items() if not site.get("absent")]
    # Those that nginx names with this plan, and those of them that are written by it.
    sites = [name for name in wanted if name not in held or name in standing]
    written = [name for name in wanted if name not in held]
    # Where no site is named yet nothing else of the tree is touched for those that are to come.
    waits = bool(wanted) and not sites
    if waits and order.reverted:
        return removed(base, shown), []
    plan: dict[str, Wanted] = {}
    text = _nginx_conf(base, shown)
    common = read(os.path.join(base, COMMON))
    record = record_of(common)
    edited, before = with_user(text, arguments_of(settings["nginx"]["user"]))
    if edited != text and not waits:
        record.setdefault("user", before)
        plan["nginx.conf"] = Wanted("file", edited.encode("utf-8", "surrogateescape"))
    if not waits:
        for directory in ("sites-available", "sites-enabled", "conf.d"):
            plan[directory] = Wanted("directory")
    if sites:
        displace_defaults(base, shown, plan, record)
    certificates = certificates_for(base, shown, _waiting(order))
    for path, file in order.files(certificates).items():
        plan[path] = _wanted(**file)
    for name in written:
        target = f"{shown}/sites-available/{name}.conf"
        plan[f"sites-enabled/{name}.conf"] = Wanted("link", target=target)
    keep_aside(base, shown, plan, record)
    put_aside(base, shown, plan, record, taken_over(shown, settings["sites"], written))
    strangers, forgotten = _plan_leaving(order, plan, record)
    if waits:
        return plan, strangers
    texts = {name: _as_standing(content) for name, content in standing.items()}
    shared = order.http(
        taken=sorted(_set_elsewhere(base, directives(text), plan)),
        defaulted=_defaulted(base, {base + "/" + path for path in plan}),
        forgotten=forgotten,
        held={name: texts.get(name) for name in wanted if name not in written},
    )
    formats = _formats_kept(common, standing.values(), settings["nginx"]["log_formats"])
    reads_enabled = any(
        posixpath.dirname(path) == "sites-enabled"
        for path in _includes(directives(text), base, shown)
    )
    lines = [
        f"# {MARKER.decode()}.",
        "# Changes made here are overwritten.",
        *([line_of(record)] if record else []),
        *formats,
        shared.rstrip("\n"),
        *([] if reads_enabled else [f"include {quote(shown)}/sites-enabled/*.conf;"]),
    ]
    plan[COMMON] = Wanted("file", ("\n".join(lines) + "\n").encode())
    return plan, strangers


def _nginx_conf(base: str, shown: str) -> str:
    """The main configuration, which has to read the formula's own file."""
    conf = read(os.path.join(base, "nginx.conf"))
    if conf is None:
        raise CommandExecutionError(f"{shown}/nginx.conf is not there: is nginx installed?")
    text = text_of(conf)
    if not _includes(directives(text), base, shown) & {"conf.d/*.conf", "conf.d/*"}:
        raise CommandExecutionError(
            f"the http block of {shown}/nginx.conf does not include conf.d/*.conf, where the "
            f"formula keeps its own settings: add 'include {shown}/conf.d/*.conf;' to it"
        )
    return text


def _waiting(order: Order) -> dict[str, set[str]]:
    """The names of the sites that wait for their first certificate from an authority, by site."""
    waiting = {}
    for name, site in order.settings["sites"].items():
        if not site["absent"] and site["tls"]["source"] == "acme":
            own = read(os.path.join(order.base, f"sites-available/{name}.pem"))
            if own is None or not order.trusted(own):
                waiting[name] = {word.lower() for word in site["server_names"]}
    return waiting


def _plan_leaving(
    order: Order, plan: dict[str, Wanted], record: dict[str, Any]
) -> tuple[list[str], int]:
    """
    Plan to take out the sites that go; which paths of sites-enabled are not the formula's, and how
    many sites stay that the pillar does not name any more.

    By the pillar's contract a site goes when it is called absent, and with `purge` also when it is
    not named any more. What is not the formula's is never touched.
    """
    base, shown, settings = order.base, order.shown, order.settings
    strangers, going, forgotten = [], set(), 0
    for path in entries(base, "sites-available"):
        name = posixpath.basename(path).partition(".")[0]
        stays = name in order.held and name not in order.reverted
        if path in plan or stays or not is_owned(read(os.path.join(base, path))):
            continue
        if name in settings["sites"] or settings["purge"]:
            going.add(path)
            plan[path] = Wanted("absent", secret=is_secret(path))
        elif path.endswith(".conf"):
            forgotten += 1
    for path in entries(base, "sites-enabled"):
        if path in plan:
            continue
        if any(points_at(base, shown, path, file) for file in going):
            plan[path] = Wanted("absent")
        elif not is_owned(read(os.path.realpath(os.path.join(base, path)))):
            strangers.append(path)
    back = {posixpath.basename(path).partition(".")[0] for path in going} | set(order.reverted)
    for name in sorted(back):
        give_back(base, plan, record, name)
    return strangers, forgotten


def _set_elsewhere(base: str, nginx_conf: list[Directive], plan: Container[str]) -> set[str]:
    """The http-level directives of nginx.conf and of the other files in conf.d that stay there."""
    found = {d.words[0] for d in nginx_conf if d.block == ("http",)}
    for path in glob.glob(os.path.join(glob.escape(base), "conf.d", "*.conf")):
        if os.path.join(base, COMMON) != path and os.path.relpath(path, base) not in plan:
            found |= {d.words[0] for d in directives(text_of(read(path))) if d.depth == 0}
    return found


def others_of(base: str, ours: set[str]) -> list[Directive]:
    """
    The directives of the files that nginx.conf includes and that are not the formula's.

    base
        the directory of the tree
    ours
        absolute paths of files that do not count

    Returns a list of directives.
    """
    found: list[Directive] = []
    for pattern in ("conf.d/*.conf", "sites-enabled/*"):
        for path in glob.glob(os.path.join(glob.escape(base), pattern)):
            if path not in ours and path != os.path.join(base, COMMON):
                found += directives(text_of(read(os.path.realpath(path))))
    return found


def _defaulted(base: str, ours: set[str]) -> list[list[str]]:
    """Where a server of another owner is the default: address (* for all of IPv4) and port."""
    found = []
    for directive in others_of(base, ours):
        if directive.words[0] == "listen" and "default_server" in directive.words:
            address, _, port = directive.words[1].rpartition(":")
            host = "*" if address in ("", "0.0.0.0") else address.lower()
            found.append([host, port])
    return found


def _includes(every: list[Directive], base: str, shown: str) -> set[str]:
    """What the http block of nginx.conf includes, relative to the tree."""
    found = set()
    for directive in every:
        if directive.block == ("http",) and directive.words[0] == "include" and directive.words[1:]:
            path = directive.words[1]
            for prefix in (shown, base, "/etc/nginx"):
                if path.startswith(prefix + "/"):
                    path = path[len(prefix) + 1 :]
            found.add(path)
    return found


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


def _standing(base: str, held: Container[str]) -> dict[str, str]:
    """The files of the held sites that nginx names already, by site: they stay."""
    found = {}
    for path in entries(base, "sites-available"):
        name = posixpath.basename(path).removesuffix(".conf")
        if name in held and path.endswith(".conf"):
            contents = read(os.path.join(base, path))
            if is_owned(contents) and os.path.lexists(
                os.path.join(base, f"sites-enabled/{name}.conf")
            ):
                found[name] = text_of(contents)
    return found


def _as_standing(text: str) -> dict[str, Any]:
    """What the http level has to know of a site whose file stays, from that file."""
    found: dict[str, Any] = {"names": [], "plain": [], "encrypted": []}
    for directive in directives(text):
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
        for directive in directives(text)
        if directive.words[0] == "access_log" and len(directive.words) > 2
    }
    text = text_of(common)
    return [
        text[directive.line : directive.end]
        for directive in directives(text)
        if directive.words[0] == "log_format"
        and directive.words[1] in used
        and directive.words[1] not in known
    ]


def removed(base: str, shown: str) -> dict[str, Wanted]:
    """
    The plan of the tree without the formula.

    base, shown
        the directory of the tree, without links and as the pillar names it

    Returns what is to be where.
    """
    plan: dict[str, Wanted] = {}
    ours = [
        path
        for path in entries(base, "sites-available")
        if is_owned(read(os.path.join(base, path)))
    ]
    for path in ours:
        plan[path] = Wanted("absent", secret=is_secret(path))
    for path in entries(base, "sites-enabled"):
        if any(points_at(base, shown, path, file) for file in ours):
            plan[path] = Wanted("absent")
    common = read(os.path.join(base, COMMON))
    if not is_owned(common):
        return plan
    plan[COMMON] = Wanted("absent")
    record = record_of(common)
    give_back(base, plan, record)
    conf = read(os.path.join(base, "nginx.conf"))
    if "user" in record and conf is not None:
        text = text_of(conf)
        edited = with_user(text, record["user"])[0] if record["user"] else without_user(text)
        if edited != text:
            plan["nginx.conf"] = Wanted("file", edited.encode("utf-8", "surrogateescape"))
    replace_defaults(base, plan, record)
    return plan
