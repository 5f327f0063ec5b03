"""
From nginx's servers of one site to the keys of a pillar that keep what they do.
"""

import os
import re
from typing import Any

from _nud_contract_patterns import HOST, PATH
from _nud_survey_nginx import (
    Node,
    address,
    all_of,
    is_challenge,
    is_root,
    last,
    main_pass,
    redirect,
)
from _nud_survey_pillar import Entry

# What the formula's own file says in another way, or what changes nothing for a visitor.
_OURS = set(
    "listen server_name location charset client_max_body_size access_log error_log gzip "
    "client_body_timeout send_timeout add_header set_real_ip_from real_ip_header real_ip_recursive "
    "http2 root index ssl_certificate ssl_certificate_key ssl_protocols ssl_ciphers ssl_dhparam "
    "ssl_prefer_server_ciphers ssl_session_cache ssl_session_timeout ssl_session_tickets "
    "ssl_ecdh_curve ssl_stapling ssl_stapling_verify ssl_trusted_certificate resolver server_tokens "
    "gzip_types gzip_vary gzip_proxied gzip_min_length gzip_comp_level uwsgi_read_timeout "
    "proxy_read_timeout uwsgi_request_buffering proxy_request_buffering".split()
)
_PASSED = set(
    "uwsgi_pass proxy_pass uwsgi_param proxy_set_header proxy_redirect proxy_http_version "
    "uwsgi_read_timeout proxy_read_timeout uwsgi_send_timeout proxy_send_timeout "
    "uwsgi_connect_timeout proxy_connect_timeout proxy_buffering uwsgi_buffering "
    "client_max_body_size charset try_files".split()
)
_GUARDS = ("auth_basic", "auth_basic_user_file", "allow", "deny", "satisfy", "auth_request")
# What names something that stands at the level of http, perhaps in a file that goes.
_NAMING = {
    "upstream": 1,
    "limit_req_zone": 0,
    "limit_conn_zone": 0,
    "map": 2,
    "geo": -1,
    "log_format": 1,
}


class Serving:
    """The servers of one site: their keys, and what no key takes."""

    def __init__(
        self, name: str, servers: list[dict[str, Any]], http: list[Node], django: dict[str, Any]
    ) -> None:
        self.name = name
        self.servers = servers
        self.http = http
        self.django = django
        self.entries: list[Entry] = []
        self.lost: list[tuple[str, str]] = []
        self.media: list[dict[str, str]] = []
        self.snippets: list[tuple[str, str]] = []
        self.static: tuple[str, str, str] | None = None
        main = [one for one in servers if main_pass(one)]
        tls = [one for one in main if last(one["nodes"], "ssl_certificate")]
        # Where HTTPS and HTTP have servers of their own, the encrypted one is what visitors get.
        self.main = (tls or main)[0]
        files = {one["path"] for one in servers}
        self.defined = {
            word: node.source
            for node in http
            if node.path in files and node.name in _NAMING
            for word in self._names(node)
        }

    @staticmethod
    def _names(node: Node) -> list[str]:
        zones = re.findall(r"zone=(\w+)", " ".join(node.words))
        if zones:
            return zones
        at = _NAMING[node.name]
        return [node.words[at]] if at and -len(node.words) <= at < len(node.words) else []

    def say(self, key: str, value: Any, comment: str) -> None:
        """A key of the site."""
        self.entries.append(Entry(("sites", self.name, *key.split(":")), value, comment))

    def lose(self, what: str, source: str) -> None:
        """What no key takes."""
        if (what, source) not in self.lost:
            self.lost.append((what, source))

    def nearest(self, name: str) -> Node | None:
        """The directive that holds for a request to the application."""
        found = main_pass(self.main)
        place = (found["location"].inside or []) if found and found["location"] else []
        return last(place, name) or last(self.main["nodes"], name) or last(self.http, name)

    def read(self) -> None:
        """All of it."""
        self._names_and_addresses()
        self._plain_values()
        self._locations()
        self._rest()
        if self.media:
            self.say(
                "files",
                self.media,
                "Files that nginx serves itself today; links in them are not followed.",
            )
        if self.snippets:
            sources = ", ".join(source for _, source in self.snippets)
            self.say(
                "snippet",
                "\n".join(text for text, _ in self.snippets),
                f"As it stands in {sources}.",
            )

    # --- names, addresses, TLS ---------------------------------------------------------------------
    def _names_and_addresses(self) -> None:
        wanted: dict[str, str] = {}
        moved: dict[str, str] = {}
        own = {word for server in self.servers if main_pass(server) for word, _ in server["names"]}
        for server in self.servers:
            into = wanted if main_pass(server) else moved
            for word, source in server["names"]:
                if word.startswith("~"):
                    self.lose(f"the server name {word}, a regular expression", source)
                elif re.fullmatch(rf"\.{HOST}", word):
                    into.setdefault(word[1:], source)
                    into.setdefault(f"*{word}", source)
                elif word not in ("", "_"):
                    into.setdefault(word, source)
        names = list(wanted) or ["_"]
        where = ", ".join(dict.fromkeys(wanted.values())) or self.main["source"]
        self.say(
            "server_names",
            names,
            f"{where}" if wanted else f"{where}: no name; _ is no visitor's word",
        )
        others = [word for word in moved if word not in own]
        if others:
            self.say("redirect_from", others, f"{moved[others[0]]}: answered by a redirect")
        plain: dict[Any, str] = {}
        encrypted: dict[Any, str] = {}
        for server in self.servers:
            for node in server["listens"]:
                self._listen(node, plain, encrypted)
            if not server["listens"]:
                plain.setdefault(80, f"{server['source']}: nginx's default")
        certificate = last(self.main["nodes"], "ssl_certificate") or last(
            self.http, "ssl_certificate"
        )
        key = last(self.main["nodes"], "ssl_certificate_key") or last(
            self.http, "ssl_certificate_key"
        )
        if plain:
            self.say("listen", list(plain), ", ".join(dict.fromkeys(plain.values())))
        elif encrypted:
            self.say(
                "listen",
                [80],
                "No plain HTTP today. The formula needs one address for it: this port is new.",
            )
        if encrypted and certificate and key:
            redirects = [
                one for one in self.servers if (redirect(one) or "").startswith("https://")
            ]
            inside = any(one.name == "if" and "https://" in one.text for one in self.main["nodes"])
            self.say("tls:certificate", certificate.words[1], certificate.source)
            self.say("tls:key", key.words[1], key.source)
            self.say("tls:listen", list(encrypted), ", ".join(dict.fromkeys(encrypted.values())))
            self.say(
                "tls:redirect",
                bool(redirects) or inside or not plain,
                f"{redirects[0]['source']} sends plain HTTP to HTTPS"
                if redirects
                else "plain HTTP is served today",
            )
            hsts = [
                node
                for node in all_of(self.main["nodes"], "add_header")
                if node.words[1].lower() == "strict-transport-security"
            ]
            age = re.search(r"max-age=(\d+)", hsts[0].text) if hsts else None
            self.say(
                "tls:hsts",
                int(age[1]) if age else 0,
                hsts[0].source
                if hsts
                else "nginx promises nothing today; the formula's own default is two years",
            )
        elif encrypted:
            self.lose("TLS without a certificate in the server", next(iter(encrypted.values())))

    def _listen(self, node: Node, plain: dict[Any, str], encrypted: dict[Any, str]) -> None:
        place = address(node.words)
        if place is None or place[0].startswith("$"):
            self.lose(f"listen {node.words[1]}", node.source)
            return
        host, port = place
        flags = set(node.words[2:])
        word: int | str = int(port) if host == "*" else f"{host}:{port}"
        both = [word, int(port)] if "ipv6only=off" in flags and host == "[::]" else [word]
        into = encrypted if "ssl" in flags else plain
        if len(both) > 1 and any(str(one).partition(" ")[0] == port for one in into):
            # Another listen has the same port of IPv4.
            both.pop()
        for one in both:
            into.setdefault(
                f"{one} default_server" if "default_server" in flags else one, node.source
            )
        unknown = flags - {"ssl", "http2", "default_server", "ipv6only=on", "ipv6only=off"}
        if unknown:
            self.lose(f"listen {' '.join(sorted(unknown))}", node.source)

    # --- values ------------------------------------------------------------------------------------
    def _plain_values(self) -> None:
        for key, name, default in (
            ("charset", "charset", "off"),
            ("client_max_body_size", "client_max_body_size", "1m"),
        ):
            node = self.nearest(name)
            self.say(
                key, node.words[1] if node else default, node.source if node else "nginx's default"
            )
        headers = {}
        for node in all_of(self.main["nodes"], "add_header"):
            name, value = node.words[1], node.words[2]
            if name.lower() == "strict-transport-security":
                continue
            if "$" in value:
                self.lose(f"the header {name} with a variable of nginx", node.source)
            else:
                headers[name] = value
        self.say("headers", headers, "" if headers else "nginx adds none; Django's own stay")
        gzip = last(self.main["nodes"], "gzip")
        if gzip:
            self.say("gzip", gzip.words[1] == "on", gzip.source)
        for key, names in (
            ("body", ("client_body_timeout",)),
            ("send", ("send_timeout",)),
            ("app", ("uwsgi_read_timeout", "proxy_read_timeout")),
        ):
            node = next(filter(None, map(self.nearest, names)), None)
            if node is None or node in self.http:
                continue
            found = re.fullmatch(r"(\d+)([smh]?)", node.words[1])
            if found:
                seconds = int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
                self.say(f"timeouts:{key}", seconds, node.source)
        for name in ("uwsgi_request_buffering", "proxy_request_buffering"):
            node = self.nearest(name)
            if node and node.words[1] == "off":
                self.say("upload_buffering", False, node.source)
        for name in ("access_log", "error_log"):
            node = last(self.main["nodes"], name)
            if node is None:
                continue
            ok = re.fullmatch(r"/var/log/nginx/[A-Za-z0-9_][A-Za-z0-9._-]*\.log", node.words[1])
            if node.words[1] == "off" and name == "access_log":
                self.say("access_log:path", None, node.source)
            elif ok and (len(node.words) == 2 or name == "error_log"):
                self.say(f"{name}:path", node.words[1], node.source)
                if name == "error_log" and len(node.words) > 2:
                    self.say("error_log:level", node.words[2], node.source)
            else:
                self.lose(
                    f"{' '.join(node.words)} (a log elsewhere, or with a format)", node.source
                )
        balancers = [node.words[1] for node in all_of(self.main["nodes"], "set_real_ip_from")]
        if balancers:
            header = last(self.main["nodes"], "real_ip_header")
            source = all_of(self.main["nodes"], "set_real_ip_from")[0].source
            self.say("load_balancer:addresses", balancers, source)
            self.say(
                "load_balancer:header",
                header.words[1] if header else "X-Real-IP",
                header.source if header else source,
            )

    # --- locations ---------------------------------------------------------------------------------
    def _locations(self) -> None:
        found = main_pass(self.main)
        for node in all_of(self.main["nodes"], "location"):
            inside = node.inside or []
            if found and node is found["location"]:
                self._application(node)
            elif is_challenge(node):
                self._raw(node)
            elif not self._served(node, inside) and not self._moved(node, inside):
                if is_root(node) or (found and node.words[1:] == ("/",)):
                    self._at_root(node, inside)
                elif node.words[-1] in ("/favicon.ico", "/robots.txt") and not any(
                    one.name in ("root", "alias", "return", "try_files") for one in inside
                ):
                    self.lose(
                        f"location {node.words[-1]}: the application is asked for it", node.source
                    )
                else:
                    self._raw(node)

    def _application(self, node: Node) -> None:
        for one in node.inside or []:
            if one.name in _GUARDS:
                self._raw(one, "holds for the static files, too")
            elif one.name == "uwsgi_param" and re.fullmatch(r"[A-Z][A-Z0-9_]*", one.words[1]):
                # Those of the distribution's file are in the formula's as well.
                if not one.path.endswith("uwsgi_params"):
                    self.say(f"uwsgi:params:{one.words[1]}", one.words[2], one.source)
            elif one.name == "add_header":
                self.lose(f"the header {one.words[1]} of location / alone", one.source)
            elif one.name not in _PASSED and one.name not in _OURS:
                self.lose(" ".join(one.words) + " in location /", one.source)
            elif one.name == "proxy_set_header" and one.words[1].lower() not in (
                "host", "x-real-ip", "x-forwarded-for", "x-forwarded-proto", "connection", "upgrade",
            ):  # fmt: skip
                self.lose(
                    f"the header {one.words[1]} to the application: see uwsgi:params", one.source
                )

    def _directory(self, node: Node, inside: list[Node]) -> tuple[str, str] | None:
        """URL and directory of a location that serves files and does nothing else."""
        alias = last(inside, "alias")
        root = last(inside, "root") or (None if alias else last(self.main["nodes"], "root"))
        words = [word for word in node.words[1:] if word != "^~"]
        known = {
            "alias",
            "root",
            "expires",
            "access_log",
            "try_files",
            "autoindex",
            "add_header",
            "log_not_found",
        }
        if len(words) > 2 or words[0] in ("~", "~*") or not (alias or root):
            return None
        if any(one.name not in known for one in inside) or not (alias or last(inside, "root")):
            return None
        tries = last(inside, "try_files")
        if tries and tries.words[-1] not in ("=404", "$uri/", "$uri"):
            return None
        url = words[-1]
        if words[0] != "=" and not url.endswith("/"):
            url += "/"
        base = alias.words[1] if alias else root.words[1] + url  # type: ignore[union-attr]
        return url, os.path.realpath(base)

    def _served(self, node: Node, inside: list[Node]) -> bool:
        found = self._directory(node, inside)
        if found is None:
            return False
        url, path = found
        expires = last(inside, "expires")
        for one in inside:
            if one.name in ("autoindex", "add_header"):
                self.lose(" ".join(one.words), one.source)
        if url == self.django.get("static_url") and path == os.path.realpath(
            self.django.get("static_root") or "/"
        ):
            self.static = (url, path, node.source)
            return True
        if not re.fullmatch(PATH, path):
            self.lose(f"location {url} with {path}, which no pillar can write", node.source)
            return True
        entry = {"url": url, "path": path}
        if expires and re.fullmatch(r"-?[0-9]{1,9}[smhdwMy]?|max|epoch|off", expires.words[1]):
            entry["expires"] = expires.words[1]
        self.media.append(entry)
        return True

    def _moved(self, node: Node, inside: list[Node]) -> bool:
        if len(inside) != 1 or inside[0].name != "return" or len(inside[0].words) != 3:
            return False
        status, target = inside[0].words[1:]
        target = target.removesuffix("$is_args$args")
        exact = node.words[1] == "="
        if status not in ("301", "302", "307", "308") or "$" in target or not exact:
            return False
        if not re.fullmatch(r"(?:https?://[A-Za-z0-9.:-]+)?/[A-Za-z0-9._~/@+-]*", target):
            return False
        key = ("sites", self.name, "redirects")
        entry = {"from": node.words[2], "to": target, "status": status}
        for number, one in enumerate(self.entries):
            if one.keys == key:
                self.entries[number] = one._replace(
                    value=[*one.value, entry], comment=f"{one.comment}, {node.source}"
                )
                return True
        self.entries.append(Entry(key, [entry], node.source))
        return True

    def _at_root(self, node: Node, inside: list[Node]) -> None:
        root = last(inside, "root") or last(self.main["nodes"], "root")
        tries = last(inside, "try_files")
        if root and tries and re.fullmatch(PATH, root.words[1]):
            self.media.append(
                {"url": "/", "path": os.path.realpath(root.words[1]), "missing": "app"}
            )
        else:
            self.lose("location / with files before the application", node.source)

    def _raw(self, node: Node, remark: str = "") -> None:
        """A directive that goes into the site's snippet as it stands, where nothing holds it back."""
        names = [
            word
            for word in self.defined
            if re.search(rf"\b{re.escape(word.lstrip('$'))}\b", node.text)
        ]
        what = f"{' '.join(node.words)}{' {…}' if node.inside is not None else ''}"
        if names:
            self.lose(
                f"{what}, which needs {names[0]} of {self.defined[names[0]]}: see nginx:snippet",
                node.source,
            )
            return
        # A comment may hold a brace; the text is whole, as nginx has read it.
        self.snippets.append((node.text, f"{node.source}{f' ({remark})' if remark else ''}"))

    # --- what is left ------------------------------------------------------------------------------
    def _rest(self) -> None:
        for node in self.main["nodes"]:
            if node.name == "if" and "https://" in node.text and "return" in node.text:
                continue  # tls:redirect
            if node.name == "return" or node.name in _OURS:
                continue
            self._raw(node)
        for server in self.servers:
            if server is self.main:
                continue
            for node in filter(is_challenge, server["nodes"]):
                # Plain HTTP leads the authority to the encrypted server, and it follows.
                if not any(is_challenge(one) for one in self.main["nodes"]):
                    self._raw(node, "for renewals by certbot --webroot")
            if redirect(server):
                continue
            for node in server["nodes"]:
                if node.name == "if" and "https://" in node.text:
                    continue
                if node.name not in (*_OURS, "return"):
                    self.lose(f"{' '.join(node.words)} of a further server", node.source)
