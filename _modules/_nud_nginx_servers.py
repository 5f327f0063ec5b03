"""
What a configuration tree of nginx serves: its servers in the order in which nginx reads them, with
their addresses, names and certificates; what one tree serves and another does not; and whose server
nginx takes for a name that two have.
"""

import fnmatch
import os
import posixpath
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from _nud_durable_file import read
from _nud_nginx_files import COMMON, Wanted, future, is_owned, live, points_at, text_of
from _nud_nginx_kept import pristine
from _nud_nginx_language import directives

# Line, blocks around it, words.
_Row = tuple[int, tuple[str, ...], tuple[str, ...]]


def _rows(
    paths: Iterable[str],
    parse: Callable[[str], list[_Row]],
    prefixes: Iterable[str],
    path: str,
    around: tuple[str, ...] = (),
    above: tuple[str, ...] = (),
) -> Iterator[tuple[str, int, tuple[str, ...], tuple[str, ...]]]:
    """Every directive that nginx reads, in its order, with the file that it stands in."""
    for line, block, words in parse(path):
        inside = around + block
        if words[0] != "include" or len(words) < 2:
            yield path, line, inside, words
            continue
        pattern = words[1]
        for prefix in prefixes:
            pattern = pattern.removeprefix(prefix.rstrip("/") + "/")
        for found in _included(paths, pattern):
            if found not in above and found != path:
                yield from _rows(paths, parse, prefixes, found, inside, (*above, path))


def _included(paths: Iterable[str], pattern: str) -> list[str]:
    # glob(3), as nginx calls it: sorted, and no leading dot.
    folder, name = posixpath.split(pattern)
    return sorted(
        path
        for path in paths
        if posixpath.dirname(path) == folder
        and not posixpath.basename(path).startswith(".")
        and fnmatch.fnmatchcase(posixpath.basename(path), name)
    )


def _address(word: str) -> str:
    """An address of ``listen`` in one way of writing it: ``*:80``, ``10.0.0.1:80``, ``[::]:80``."""
    if word.startswith("unix:"):
        return word
    if word.isdigit():
        return f"*:{word}"
    host, _, port = word.rpartition(":") if re.search(r":\d+$", word) else (word, "", "80")
    return f"{'*' if host == '0.0.0.0' else host.lower()}:{port}"


def servers_of(
    paths: list[str], parse: Callable[[str], list[_Row]], prefixes: list[str]
) -> list[dict[str, Any]]:
    """
    The servers of a tree, in the order in which nginx reads them.

    paths
        the files of the tree, relative to it, links among them
    parse
        gives the directives of one of them: line, the blocks around it, words
    prefixes
        what ``include`` may write before such a path

    Returns a list of dictionaries: ``path`` and ``line`` of the server's block, ``addresses``,
    ``encrypted`` (those with TLS), ``names`` (lower case), ``certificate`` and ``key`` (None
    without), and ``redirects`` (whether it sends any request to HTTPS).
    """
    servers: list[dict[str, Any]] = []
    for path, line, block, words in _rows(paths, parse, prefixes, "nginx.conf"):
        if block == ("http",) and words == ("server",):
            servers.append(
                {
                    "path": path,
                    "line": line,
                    "addresses": [],
                    "encrypted": [],
                    "names": [],
                    "certificate": None,
                    "key": None,
                    "redirects": False,
                }
            )
        elif block[:2] == ("http", "server") and words[0] == "return":
            servers[-1]["redirects"] |= words[-1].startswith("https://")
        elif block == ("http", "server") and len(words) > 1:
            server = servers[-1]
            if words[0] == "listen":
                address = _address(words[1])
                found = [address]
                if "ipv6only=off" in words and address.startswith("[::]:"):
                    found.append(f"*:{address.rpartition(':')[2]}")
                server["addresses"] += found
                server["encrypted"] += found if "ssl" in words else []
            elif words[0] == "server_name":
                server["names"] += [word.lower() for word in words[1:]]
            elif words[0] == "ssl_certificate" and server["certificate"] is None:
                server["certificate"] = words[1]
            elif words[0] == "ssl_certificate_key" and server["key"] is None:
                server["key"] = words[1]
    for server in servers:
        # What nginx takes where a server says nothing of it.
        server["addresses"] = server["addresses"] or ["*:80"]
    return servers


def _takes(address: str, other: str) -> bool:
    """Whether a socket on one address takes the connections to another."""
    host, _, port = address.rpartition(":")
    wanted, _, number = other.rpartition(":")
    if address == other:
        return True
    if port != number or other.startswith("unix:"):
        return False
    return host == ("[::]" if wanted.startswith("[") else "*")


def _has(server: dict[str, Any], name: str) -> bool:
    """Whether one of a server's names is this one or stands for it."""
    for word in server["names"]:
        if word == name:
            return True
        if word.startswith("~"):
            try:
                if re.search(word[1:].lstrip("*"), name):
                    return True
            except re.error:
                continue  # PCRE knows more than Python does
        elif word.startswith(("*.", ".")):
            end = word.removeprefix("*")
            if name.endswith(end) or (word.startswith(".") and name == end[1:]):
                return True
        elif word.endswith(".*") and name.startswith(word[:-1]):
            return True
    return False


def losses(now: list[dict[str, Any]], then: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    What the servers of one tree answer and those of another do not.

    now
        servers as :py:func:`servers_of` returns them, each also with ``own``: the file is the formula's, so
        that a name that it loses was taken out of the pillar
    then
        the servers that are to come

    Returns a list of dictionaries: ``what`` (``listen *:443``, ``name www.example.org on *:80``),
    ``path`` and ``line`` of the server that has it now.
    """
    found: dict[str, dict[str, Any]] = {}
    for server in now:
        for address in server["addresses"]:
            takers = [
                other
                for other in then
                if any(_takes(taken, address) for taken in other["addresses"])
            ]
            gone = []
            if not takers:
                gone = [f"listen {address}"]
            elif not server["own"]:
                gone = [
                    f"name {name} on {address}"
                    for name in server["names"]
                    if name not in ("", "_") and not any(_has(other, name) for other in takers)
                ]
            for what in gone:
                found.setdefault(
                    what, {"what": what, "path": server["path"], "line": server["line"]}
                )
    return list(found.values())


def shadowing(
    servers: list[dict[str, Any]], paths: Container[str]
) -> dict[str, list[dict[str, Any]]]:
    """
    The servers that nginx takes for names of some files' servers, in the place of those.

    servers
        as :py:func:`servers_of` returns them
    paths
        the files

    Returns by file a list of dictionaries: ``name``, ``address``, ``path`` and ``line`` of the server
    that has the name; nothing of a file whose names are its own.
    """
    by_name: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, server in enumerate(servers):
        for name in server["names"]:
            by_name.setdefault(name, []).append((number, server))
    found: dict[str, list[dict[str, Any]]] = {}
    for number, server in enumerate(servers):
        path = server["path"]
        if path not in paths:
            continue
        for name in set(server["names"]) - {"", "_"}:
            for other, rival in by_name[name]:
                if rival["path"] == path:
                    continue
                for address in _taken_from(server, rival, first=other < number):
                    found.setdefault(path, []).append(
                        {
                            "name": name,
                            "address": address,
                            "path": rival["path"],
                            "line": rival["line"],
                        }
                    )
    return found


def _taken_from(server: dict[str, Any], rival: dict[str, Any], first: bool) -> list[str]:
    """
    The addresses on which a server with the same name is taken in the place of another one.

    Of two on one address the first counts (ngx_http_add_names(), "conflicting server name"); an
    address of its own comes before all addresses, whatever the order.
    """
    return [
        taken
        for taken in rival["addresses"]
        if (first and taken in server["addresses"])
        or (
            taken not in server["addresses"]
            and any(_takes(address, taken) for address in server["addresses"])
        )
    ]


def contents_of(base: str, shown: str, tree: dict[str, Wanted], path: str) -> bytes:
    """
    What is in a file of a tree, through the link that it may be.

    base, shown
        the directory of the tree, without links and as the pillar names it
    tree
        as :py:func:`_nud_nginx_files.live` returns it
    path
        in the tree

    Returns the content.
    """
    entry = tree[path]
    if entry.kind != "link":
        return entry.contents
    full = posixpath.normpath(posixpath.join(shown, posixpath.dirname(path), entry.target))
    for prefix in (shown, base):
        inside = full.removeprefix(prefix + "/")
        if inside in tree and tree[inside].kind == "file":
            return tree[inside].contents
    return read(os.path.realpath(full)) or b""


def _parser(base: str, shown: str, tree: dict[str, Wanted]) -> Callable[[str], list[_Row]]:
    def parse(path: str) -> list[_Row]:
        text = text_of(contents_of(base, shown, tree, path))
        return [
            (text.count("\n", 0, directive.line) + 1, directive.block, directive.words)
            for directive in directives(text)
        ]

    return parse


def _files_of(tree: dict[str, Wanted]) -> list[str]:
    return [path for path, entry in tree.items() if entry.kind in ("file", "link")]


def of_tree(base: str, shown: str, tree: dict[str, Wanted]) -> list[dict[str, Any]]:
    """
    The servers of a tree.

    base, shown, tree
        as in :py:func:`contents_of`

    Returns what :py:func:`servers_of` returns, each also with ``own``: the file is the formula's.
    """
    # nginx also takes /etc/nginx for what the pillar's lookup calls by another name.
    prefixes = [shown, base, "/etc/nginx"]
    servers = servers_of(_files_of(tree), _parser(base, shown, tree), prefixes)
    for server in servers:
        server["own"] = is_owned(contents_of(base, shown, tree, server["path"]))
    return servers


def rows_of(
    base: str, shown: str, tree: dict[str, Wanted]
) -> list[tuple[str, int, tuple[str, ...], tuple[str, ...]]]:
    """
    The directives of a tree, in the order in which nginx reads them.

    base, shown, tree
        as in :py:func:`contents_of`

    Returns for each the file, the line, the blocks around it and its words.
    """
    prefixes = [shown, base, "/etc/nginx"]
    return list(_rows(_files_of(tree), _parser(base, shown, tree), prefixes, "nginx.conf"))


def _is_packaged(base: str, shown: str, path: str) -> bool:
    """Whether a file is the distribution's welcome page, as it was installed."""
    if path == "sites-enabled/default" and points_at(base, shown, path, "sites-available/default"):
        return pristine(os.path.join(base, "sites-available/default"))
    return path == "conf.d/default.conf" and pristine(os.path.join(base, path))


def certificates_for(
    base: str, shown: str, waiting: Mapping[str, set[str]]
) -> dict[str, dict[str, Any]]:
    """
    The certificates that nginx has for the names of sites that wait for their first one from an
    authority. They stay until then.

    base, shown
        the directory of the tree, without links and as the pillar names it
    waiting
        the names by site

    Returns by site ``certificate``, ``key``, and ``redirect``, whether plain HTTP is redirected.
    """
    found: dict[str, dict[str, Any]] = {}
    servers = of_tree(base, shown, live(base)) if waiting else []
    for name, names in waiting.items():
        own = f"{shown}/sites-available/{name}.pem"
        theirs = [server for server in servers if names & set(server["names"])]
        for server in theirs:
            files = [server["certificate"], server["key"]]
            usable = server["encrypted"] and all(files) and own not in files
            if usable and all(os.path.isfile(os.path.join(base, file)) for file in files):
                found[name] = {
                    "certificate": files[0],
                    "key": files[1],
                    "redirect": any(each["redirects"] for each in theirs),
                }
                break
    return found


def lost(
    base: str, shown: str, due: dict[str, Wanted], ports: Callable[[], Container[str]]
) -> list[dict[str, Any]]:
    """
    What nginx answers now and would not with a change of the tree.

    Not counted: the distribution's welcome page, a site that the pillar takes away by ``absent`` or
    ``purge``, and what the nginx that runs does not listen on.

    base, shown
        the directory of the tree, without links and as the pillar names it
    due
        the change
    ports
        asks for the ports, as text, that the running nginx has open

    Returns what :py:func:`losses` returns.
    """
    if not any(
        posixpath.dirname(path) in ("conf.d", "sites-enabled", "sites-available") for path in due
    ):
        return []
    opened = ports()
    tree = live(base)
    gone = {
        posixpath.basename(path)
        for path, wanted in due.items()
        if path in tree and is_owned(tree[path].contents) and not is_owned(wanted.contents)
    }
    now = [
        server
        for server in of_tree(base, shown, tree)
        if server["path"] != COMMON
        and not (server["own"] and posixpath.basename(server["path"]) in gone)
        and not _is_packaged(base, shown, server["path"])
    ]
    for server in now:
        server["addresses"] = [
            address
            for address in server["addresses"]
            if address.startswith("unix:") or address.rpartition(":")[2] in opened
        ]
    return losses(now, of_tree(base, shown, future(base, due)))
