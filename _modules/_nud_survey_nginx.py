"""
What a running nginx serves, read from its own dump (``nginx -T``): servers, what they pass requests
to, and which files they serve.

The dump has each file once, behind the line ``# configuration file PATH:``. nginx prints it only
when the configuration is valid.
"""

import fnmatch
import os
import posixpath
import re
import subprocess
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError

from _nud_nginx_language import tokens

_TIMEOUT = 60
_FILE = re.compile(r"^# configuration file (/.+):\n", re.MULTILINE)

PASSES = ("uwsgi_pass", "proxy_pass", "fastcgi_pass", "scgi_pass", "grpc_pass")


class Node(NamedTuple):
    """A directive: its words, its place, its text, and what is in its block (None: it has none)."""

    words: tuple[str, ...]
    path: str
    line: int
    text: str
    inside: "list[Node] | None"

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def source(self) -> str:
        return f"{self.path}:{self.line}"


def files(dump: str) -> dict[str, str]:
    """The files of a dump, by path, in the order in which nginx has read them."""
    pieces = _FILE.split(dump)
    # nginx adds one newline behind each file.
    return {
        path: text.removesuffix("\n") for path, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }


def parse(text: str, path: str) -> list[Node]:
    """The directives of a file, blocks nested, ``include`` as it stands."""
    top: list[Node] = []
    stack = [top]
    opened: list[tuple[int, tuple[str, ...], int]] = []
    words: list[Any] = []
    for token in tokens(text):
        if token.kind == "word":
            words.append(token)
            continue
        said = tuple(word.word for word in words)
        if token.kind in ";{" and words:
            start = words[0].start
            line = text.count("\n", 0, start) + 1
            block: list[Node] | None = [] if token.kind == "{" else None
            stack[-1].append(Node(said, path, line, text[start : token.end], block))
            if block is not None:
                opened.append((start, said, line))
                stack.append(block)
        elif token.kind == "}" and len(stack) > 1:
            inside = stack.pop()
            start, said, line = opened.pop()
            stack[-1][-1] = Node(said, path, line, text[start : token.end], inside)
        words = []
    return top


def tree(dump: str) -> list[Node]:
    """All directives in the order in which nginx reads them, with each ``include`` replaced."""
    texts = files(dump)
    if not texts:
        raise CommandExecutionError("nginx -T printed no configuration file")
    main = next(iter(texts))
    prefix = posixpath.dirname(main)

    def expanded(nodes: Iterable[Node], above: tuple[str, ...]) -> Iterator[Node]:
        for node in nodes:
            if node.name == "include" and len(node.words) > 1:
                for path in _matching(texts, posixpath.join(prefix, node.words[1])):
                    if path not in above:
                        yield from expanded(parse(texts[path], path), (*above, path))
            elif node.inside is not None:
                yield node._replace(inside=list(expanded(node.inside, above)))
            else:
                yield node

    return list(expanded(parse(texts[main], main), (main,)))


def _matching(paths: Iterable[str], pattern: str) -> list[str]:
    # glob(3), as nginx calls it: sorted, and no leading dot.
    folder, name = posixpath.split(pattern)
    return sorted(
        path
        for path in paths
        if posixpath.dirname(path) == folder
        and (not posixpath.basename(path).startswith(".") or path == pattern)
        and fnmatch.fnmatchcase(posixpath.basename(path), name)
    )


def all_of(nodes: Iterable[Node], name: str) -> list[Node]:
    """The directives of one name."""
    return [node for node in nodes if node.name == name]


def last(nodes: Iterable[Node], name: str) -> Node | None:
    """The last directive of a name, which is the one that counts."""
    return next(reversed(all_of(nodes, name)), None)


def endpoints(node: Node, upstreams: dict[str, Node]) -> list[str]:
    """
    Where a ``…_pass`` leads: ``unix:/PATH`` and ``tcp:HOST:PORT``; an upstream has several. Empty
    where a variable decides.
    """
    value = node.words[1] if len(node.words) > 1 else ""
    if "$" in value:
        return []
    value = re.sub(r"^[a-z]+://", "", value) if not value.startswith("unix:") else value
    if value.startswith("unix:"):
        # unix:/PATH:/URI of proxy_pass; unix:///PATH of older texts.
        path = value.removeprefix("unix:").partition(":")[0]
        return [f"unix:{posixpath.normpath('/' + path.lstrip('/'))}"]
    host = value.partition("/")[0]
    if host in upstreams:
        return [
            end
            for server in all_of(upstreams[host].inside or [], "server")
            for end in endpoints(server, {})
        ]
    name, _, port = host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "80")
    return [f"tcp:{name}:{port}"]


def servers(dump: str) -> dict[str, Any]:
    """
    The servers of a dump.

    Returns a dictionary: ``user`` (the workers' user and its source), ``servers`` (in nginx's order:
    ``path``, ``line``, ``source``, ``listens``, ``names``, ``nodes``, ``passes``), ``http`` (the
    directives of the level of http) and ``upstreams``.
    """
    top = tree(dump)
    http = [node for block in all_of(top, "http") for node in block.inside or []]
    upstreams = {node.words[1]: node for node in all_of(http, "upstream") if len(node.words) > 1}
    found = []
    for node in all_of(http, "server"):
        nodes = node.inside or []
        found.append(
            {
                "path": node.path,
                "line": node.line,
                "source": node.source,
                "listens": all_of(nodes, "listen"),
                "names": [
                    (word.lower(), one.source)
                    for one in all_of(nodes, "server_name")
                    for word in one.words[1:]
                ],
                "nodes": nodes,
                "passes": [
                    {"location": place, "node": one, "to": endpoints(one, upstreams)}
                    for place, one in _passes(nodes, None)
                ],
            }
        )
    user = last(top, "user")
    return {
        "user": (user.words[1], user.source) if user else None,
        "servers": found,
        "http": http,
        "upstreams": upstreams,
    }


def _passes(nodes: Iterable[Node], location: Node | None) -> Iterator[tuple[Node | None, Node]]:
    for node in nodes:
        if node.name in PASSES:
            yield location, node
        elif node.inside is not None:
            yield from _passes(node.inside, node if node.name == "location" else location)


def is_root(location: Node | None) -> bool:
    """Whether a location is that of all requests that have no other."""
    return location is not None and location.words[1:] in (("/",), ("^~", "/"))


def main_pass(server: dict[str, Any]) -> dict[str, Any] | None:
    """
    What a server passes its visitors' requests to: that of ``location /``, or of the named location
    that its ``try_files`` or ``error_page`` leads to; else the only one that it has.
    """
    for one in server["passes"]:
        if is_root(one["location"]):
            return dict(one)
    named = {
        word
        for place in [*server["nodes"], *all_of(server["nodes"], "location")]
        for node in ([place] if place.name in ("try_files", "error_page") else place.inside or [])
        if node.name in ("try_files", "error_page")
        for word in node.words[1:]
        if word.startswith("@")
    }
    for one in server["passes"]:
        if one["location"] is not None and one["location"].words[-1] in named:
            return dict(one)
    for one in server["passes"]:
        if one["location"] is None or one["location"].words[-1] in ("/", "^/"):
            return dict(one)
    ends = {tuple(one["to"]) for one in server["passes"]}
    return dict(server["passes"][0]) if len(ends) == 1 else None


def address(words: tuple[str, ...]) -> tuple[str, str] | None:
    """Address and port of a ``listen``, ``*`` for all of IPv4; None for a socket of Unix."""
    word = words[1]
    if word.startswith("unix:"):
        return None
    if word.isdigit():
        return "*", word
    host, _, port = word.rpartition(":") if re.search(r":\d+$", word) else (word, "", "80")
    host = {"0.0.0.0": "*", "localhost": "127.0.0.1"}.get(host.lower(), host.lower())
    return host, port


def is_challenge(node: Node) -> bool:
    """Whether a location is that of an ACME authority's questions."""
    return node.name == "location" and node.words[-1].startswith("/.well-known/acme-challenge")


def redirect(server: dict[str, Any]) -> str | None:
    """
    Where a server sends every request but an ACME authority's: the URL of its ``return``; None where it
    does more.
    """
    nodes = _flat(node for node in server["nodes"] if not is_challenge(node))
    wanted = [
        node for node in nodes if node.name == "return" and re.match(r"https?://", node.words[-1])
    ]
    more = server["passes"] or any(
        node.name in ("root", "alias", "try_files") for node in nodes if node not in server["nodes"]
    )
    return wanted[0].words[-1] if wanted and not more else None


def _flat(nodes: Iterable[Node]) -> list[Node]:
    found = []
    for node in nodes:
        found.append(node)
        found += _flat(node.inside or [])
    return found


def masters() -> list[int]:
    """The processes that are masters of an nginx."""
    found = []
    for entry in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as stream:
                words = stream.read()
        except OSError:
            continue  # it has ended
        if words.startswith(b"nginx: master process"):
            found.append(int(entry))
    return found


def dump() -> str:
    """
    The configuration of the nginx that runs, as its own binary reads it.

    Raises CommandExecutionError when no nginx runs, and with nginx's own words when the files on
    the disk are not valid.
    """
    found = masters()
    if not found:
        raise CommandExecutionError("no nginx runs on this host: there is nothing to take over")
    with open(f"/proc/{found[0]}/cmdline", "rb") as stream:
        # nginx writes its command line behind its title: "nginx: master process /usr/sbin/nginx -g …".
        title = stream.read().rstrip(b"\0").decode("utf-8", "replace")
    options = [
        word for flag, value in re.findall(r" (-[cp]) (\S+)", title) for word in (flag, value)
    ]
    binary = os.readlink(f"/proc/{found[0]}/exe").removesuffix(" (deleted)")
    done = subprocess.run(
        [binary, "-T", "-q", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise CommandExecutionError(
            f"nginx's configuration on the disk is not valid, so what it serves cannot be read: {said}"
        )
    return done.stdout.decode("utf-8", "replace")
