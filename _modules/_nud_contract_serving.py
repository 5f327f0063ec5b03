"""
The keys about what nginx does for a site, and their cross-checks.
"""

import ipaddress
import re
from typing import Any

from _nud import nginx_language
from _nud_contract_patterns import HOST, OCTET, OPEN_PLACES, PORT, SYSTEM_PLACES, path_key
from _nud_contract_schema import (
    REQUIRED,
    UNSET,
    List,
    Mapping,
    Node,
    Number,
    Plain,
    Switch,
    Table,
    Text,
    meaning_error,
    parents,
)


def listen_list(default: Any, description: str, example: list) -> List:
    return List(
        Plain(
            Number("a port from 1 to 65535", 1, 65535),
            Text(
                "a port, or address:port such as '127.0.0.1:8080' or '[::]:80', and perhaps "
                "default_server",
                rf"(?:(?:{OCTET}(?:\.{OCTET}){{3}}|\*|\[[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\]):)?{PORT}"
                r"(?: default_server)?",
                advice=(
                    (r"unix:.*", "nginx listens on ports; uWSGI's socket is socket:path"),
                    (r".*(?:ssl|http2).*", "where TLS is spoken is said by tls:listen"),
                ),
            ),
            says="a port from 1 to 65535, or a text such as '127.0.0.1:8080' or '[::]:80'",
        ),
        "a list with at least one port",
        least=1,
        unique=True,
        default=default,
        description=description,
        example=example,
    )


_SNIPPET_REFUSED = (
    r"[\s\S]*_by_lua_block[\s\S]*",
    "Lua in a block has braces of its own: put it into a file and name that",
)


def snippet_key(where: str, example: str) -> Text:
    return Text(
        "lines of nginx's configuration",
        r"[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]+",
        most=65536,
        nullable=True,
        default=None,
        refuse=(_SNIPPET_REFUSED,),
        description=f"Raw nginx configuration, inserted {where}. nginx tests it before it goes live. "
        "Braces and quotes must be balanced.",
        example=example,
    )


FORMAT_NAME = r"[A-Za-z][A-Za-z0-9_]*"


def _networks(description: str, example: list[str], least: int = 0) -> List:
    return List(
        Text("an address or a network", r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?"),
        "a list with at least one address or network"
        if least
        else "a list of addresses and networks",
        least=least,
        unique=True,
        # What has to have one has no default.
        **({} if least else {"default": []}),
        description=description,
        example=example,
    )


def _log_path(description: str, example: str, nullable: bool = True) -> Text:
    # Where the distribution's logrotate finds it; and nginx opens it as root.
    return Text(
        "a file in /var/log/nginx whose name ends in .log",
        r"/var/log/nginx/[A-Za-z0-9_][A-Za-z0-9._-]*\.log",
        most=255,
        nullable=nullable,
        description=f"{description} It is in nginx's log directory, where logrotate rotates it.",
        example=f"/var/log/nginx/{example}",
    )


def serving_keys() -> dict[str, Node]:
    """What nginx does for a site besides passing requests on."""
    # nginx compares what it has normalised: no request has . or .. there.
    path = r"/|(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~@+-]+)+/?"
    seconds = {"least": 1, "most": 86400, "nullable": True, "default": None}
    return {
        "redirects": List(
            Mapping(
                {
                    "from": Text(
                        "a path, or a path that ends with /* for all below it",
                        rf"{path}|/(?:(?!\.\.?/)[A-Za-z0-9._~@+-]+/)+\*",
                        most=1024,
                        description="The exact path, or with /* at the end every path below it.",
                        example="/blog/*",
                    ),
                    "to": Text(
                        "a path or a URL, perhaps with /* at its end",
                        rf"(?:https?://{HOST}(?::{PORT})?)?/(?!(?:[^?]*/)?\.\.?(?:/|$))"
                        r"[A-Za-z0-9._~/?&=%+@-]*\*?",
                        most=1024,
                        description="The target path or URL. A /* at the end is replaced by what "
                        "/* in `from` matched.",
                        example="/articles/*",
                    ),
                    "status": Text(
                        "301, 302, 307 or 308, quoted",
                        choices=("301", "302", "307", "308"),
                        default="301",
                        description="The status code. With 307 and 308 a POST stays a POST.",
                        example="308",
                    ),
                },
                required=("from", "to"),
            ),
            "a list of redirects",
            default=[],
            description="Paths that nginx redirects to another path or URL. The query string is "
            "kept.",
            example=[{"from": "/blog/*", "to": "/articles/*"}],
        ),
        "files": List(
            Mapping(
                {
                    "url": Text(
                        "a path that begins and ends with /, or that of one file",
                        r"/(?:(?!\.\.?/)[A-Za-z0-9._~@-]+/)*(?!\.)[A-Za-z0-9._~@-]*",
                        most=256,
                        description="The URL path of the files. Without a / at the end it is the "
                        "path of one file.",
                        example="/media/",
                    ),
                    "path": path_key(
                        "The directory or file on the host. nginx does not follow symbolic links "
                        "in it.",
                        example="/srv/mysite/shared/media",
                        refuse=(SYSTEM_PLACES, OPEN_PLACES),
                    ),
                    "missing": Text(
                        "404, quoted, app, or the name of a file in the directory",
                        r"404|app|[A-Za-z0-9_][A-Za-z0-9._-]*",
                        most=256,
                        default="404",
                        description="The response if the file does not exist: `'404'`, `app` (pass "
                        "the request to Django) or the name of a file in the directory, such as "
                        "index.html.",
                        example="app",
                    ),
                    "expires": Text(
                        "a time such as 30d, or max, epoch or off",
                        r"-?[0-9]{1,9}[smhdwMy]?|max|epoch|'?off",
                        nullable=True,
                        default=None,
                        description="How long browsers may cache the files.",
                        example="30d",
                    ),
                },
                required=("url", "path"),
            ),
            "a list of locations of files",
            default=[],
            description="Files that nginx serves without Django, such as uploads. nginx never "
            "serves hidden files, SQLite databases, Python files and backups from there.",
            example=[{"url": "/media/", "path": "/srv/mysite/shared/media"}],
        ),
        "headers": Table(
            Text(
                "a header's name",
                r"[A-Za-z][A-Za-z0-9-]*",
                most=64,
                refuse=(
                    (
                        r"(?i:Content-Length|Transfer-Encoding|Connection|Set-Cookie|Server|Date)",
                        "it is not for a configuration to set",
                    ),
                    (r"(?i:Content-Type)", "the file's own says it; see charset"),
                ),
            ),
            Text(
                "one line of printable ASCII without a dollar sign",
                r"[\x20-\x23\x25-\x7e]+",
                most=4000,
                refuse=((r" .*|.* ", "it begins or ends with a blank"),),
            ),
            "a mapping of headers",
            default={"X-Content-Type-Options": "nosniff"},
            description="Headers that nginx adds to every response, static files included. They "
            "replace the application's headers of the same name.",
            example={"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"},
        ),
        "gzip": Switch(
            nullable=True,
            default=None,
            description="true: compress text responses. false: compress nothing. null: the value "
            "in nginx.conf. With TLS, compression exposes pages that contain both a secret and "
            "user input to the BREACH attack.",
            example=True,
        ),
        "timeouts": Mapping(
            {
                "body": Number(
                    "seconds from 1 to 86400",
                    description="Seconds to wait between two reads of a request body.",
                    example=30,
                    **seconds,  # type: ignore[arg-type]
                ),
                "send": Number(
                    "seconds from 1 to 86400",
                    description="Seconds to wait between two writes of a response to the client.",
                    example=30,
                    **seconds,  # type: ignore[arg-type]
                ),
                "app": Number(
                    "seconds from 1 to 86400",
                    description="Seconds to wait for the application between two reads of its "
                    "response.",
                    example=120,
                    **seconds,  # type: ignore[arg-type]
                ),
            },
            description="How long nginx waits for the client and for the application. null: "
            "nginx's default, 60 seconds.",
        ),
        "upload_buffering": Switch(
            default=True,
            description="true: nginx receives an upload completely before it passes it to a "
            "worker. false: it passes the data on as it arrives, so a slow client occupies a "
            "worker for that time.",
        ),
        "maintenance": Mapping(
            {
                "page": path_key(
                    "An HTML file on the host, shown instead of nginx's own 503 page.",
                    nullable=True,
                    default=None,
                    example="/var/www/maintenance.html",
                    refuse=(SYSTEM_PLACES, OPEN_PLACES),
                ),
                "retry_after": Number(
                    "seconds from 1 to 86400",
                    1,
                    86400,
                    default=600,
                    description="The Retry-After header, in seconds.",
                    example=3600,
                ),
                "except": _networks(
                    "Client addresses that still reach the site, for example your own.",
                    ["203.0.113.7", "2001:db8::/32"],
                ),
            },
            nullable=True,
            default=None,
            description="Maintenance mode: answer every request with 503, except for "
            "`nginx:health` and ACME. `{}` is enough to turn it on. null: off.",
            example={"retry_after": 3600, "except": ["203.0.113.7"]},
        ),
        "basic_auth": Mapping(
            {
                "realm": Text(
                    "printable ASCII without a dollar sign and quotes",
                    r"[\x20\x21\x23\x25-\x26\x28-\x5b\x5d-\x7e]+",
                    most=200,
                    default="Restricted",
                    description="The text that the browser shows in its password dialog.",
                    example="Staging",
                ),
                "users": Table(
                    Text("a user's name", r"[A-Za-z0-9][A-Za-z0-9._@+-]*", most=64),
                    Text(
                        "the hash of a password by crypt(3), such as `openssl passwd -6` makes, or "
                        "by `htpasswd` ($apr1$)",
                        r"\$(?:apr1|5|6|y|2[aby])\$[A-Za-z0-9./$=]{10,200}",
                        secret=True,
                        advice=((r"[^$].*", "a password itself does not go into the pillar"),),
                    ),
                    "a mapping with at least one user",
                    least=1,
                    default=REQUIRED,
                    description="Password hashes by user name. Only nginx and root can read the "
                    "file on the host, and no diff shows it.",
                    example={"ann": "$6$saltsalt$" + "x" * 86},
                ),
                "except": _networks("Client addresses that need no password.", ["10.0.0.0/8"]),
            },
            required=("users",),
            nullable=True,
            default=None,
            description="Protect the site with HTTP basic authentication. `nginx:health` and ACME "
            "stay open.",
            example={"users": {"ann": "$6$saltsalt$" + "x" * 86}},
        ),
        "rate_limits": List(
            Mapping(
                {
                    "path": Text(
                        "a path; with / at its end all that is below, too",
                        path,
                        most=256,
                        description="The path to limit. `/` is the whole application.",
                        example="/accounts/login/",
                    ),
                    "rate": Text(
                        "a number per second (5r/s) or minute (10r/m)",
                        r"[1-9][0-9]{0,5}r/[sm]",
                        description="The allowed rate per client address.",
                        example="10r/m",
                    ),
                    "burst": Number(
                        "a whole number from 0 to 100000",
                        0,
                        100000,
                        default=0,
                        description="How many requests above the rate are accepted in a burst.",
                        example=5,
                    ),
                },
                required=("path", "rate"),
            ),
            "a list of limits",
            default=[],
            description="Rate limits per client address. Requests above the limit are answered "
            "with 429. If several paths match, the longest one applies.",
            example=[{"path": "/accounts/login/", "rate": "10r/m", "burst": 5}],
        ),
        "access_log": Mapping(
            {
                "path": _log_path("The path of the log. null: write no log.", "mysite.access.log"),
                "format": Text(
                    "combined or the name of one of nginx:log_formats",
                    FORMAT_NAME,
                    most=64,
                    default="combined",
                    description="The name of the log format.",
                    example="json",
                ),
            },
            required=("path",),
            nullable=True,
            default=None,
            description="The access log of the site. null: the log that nginx.conf names.",
            example={"path": "/var/log/nginx/mysite.access.log", "format": "json"},
        ),
        "error_log": Mapping(
            {
                "path": _log_path("The path of the log.", "mysite.error.log", nullable=False),
                "level": Text(
                    "a level of nginx's",
                    choices=("info", "notice", "warn", "error", "crit", "alert", "emerg"),
                    default="error",
                    description="The lowest level that is logged.",
                    example="warn",
                ),
            },
            required=("path",),
            nullable=True,
            default=None,
            description="The error log of the site. null: the log that nginx.conf names.",
            example={"path": "/var/log/nginx/mysite.error.log"},
        ),
        "load_balancer": Mapping(
            {
                "addresses": _networks(
                    "Trusted proxies. nginx accepts `header` and X-Forwarded-Proto from these "
                    "addresses only.",
                    ["10.0.0.0/16"],
                    least=1,
                ),
                "header": Text(
                    "a header's name",
                    r"[A-Za-z][A-Za-z0-9-]*",
                    most=64,
                    default="X-Forwarded-For",
                    description="The header that contains the client's address.",
                    example="X-Real-IP",
                ),
            },
            required=("addresses",),
            nullable=True,
            default=None,
            description="A load balancer in front of nginx. nginx takes the client's address and "
            "the scheme (X-Forwarded-Proto) from its headers, and ignores these headers from all "
            "other clients.",
            example={"addresses": ["10.0.0.0/16"]},
        ),
        "snippet": snippet_key(
            "at the end of the site's server block", "location = /x { return 204; }\n"
        ),
    }


def check_serving(name: str, site: dict, nginx: dict, errors: list) -> None:
    """What nginx does for a site: nothing twice, nothing that leaks, no text left open."""
    path = ("sites", name)
    places: dict[str, str] = {}
    # An entry that lacks what it needs has been reported.
    redirects = [one for one in enumerate(site["redirects"]) if UNSET not in one[1].values()]
    files = [one for one in enumerate(site["files"]) if UNSET not in one[1].values()]
    if nginx["health"]:
        places[nginx["health"]["path"]] = "nginx:health:path"
    if site["tls"]["acme"]:
        places["/.well-known/acme-challenge/"] = "tls:acme"
    if site["project"]["static"]["collect"]:
        places[site["project"]["static"]["url"]] = "project:static:url"
    limits = [one for one in enumerate(site["rate_limits"]) if UNSET not in one[1].values()]
    # The one of / is no location of its own.
    limited = [one for one in limits if one[1]["path"] != "/"]
    for key, word, entries in (
        ("redirects", "from", redirects),
        ("files", "url", files),
        ("rate_limits", "path", limited),
    ):
        for number, entry in entries:
            url = entry[word].removesuffix("*")
            other = places.setdefault(url, f"{key}:{number}:{word}")
            if other != f"{key}:{number}:{word}":
                errors.append(
                    meaning_error(
                        (*path, key, number, word), f"{url!r}, which is {other} too", "each once"
                    )
                )
    for number, entry in redirects:
        if entry["to"] == entry["from"]:
            errors.append(
                meaning_error(
                    (*path, "redirects", number, "to"),
                    f"{entry['to']!r}, which is from, too",
                    "another path, or a URL: this one leads to itself without end",
                )
            )
        if entry["to"].endswith("*") and not entry["from"].endswith("*"):
            errors.append(
                meaning_error(
                    (*path, "redirects", number, "to"),
                    f"{entry['to']!r}, while from has no /*",
                    "a * there only where from ends with /*",
                )
            )
    project = site["project"]
    package = [(project[key] or "").split(".")[0].split(":")[0] for key in ("wsgi", "settings")]
    closed = [project["path"], *(f"{project['path']}/{one}" for one in package if one)]
    closed += [f"{project['path']}/{one}" for one in ("current", "releases", ".git", "shared/data")]
    closed += [project["venv"]] if project["venv"] else []
    for number, entry in files:
        inside = [one for one in closed if entry["path"] == one or entry["path"] in parents(one)]
        if inside or any(one in closed[1:] for one in parents(entry["path"])):
            errors.append(
                meaning_error(
                    (*path, "files", number, "path"),
                    f"{entry['path']!r}, with the project's code or data",
                    "a directory with nothing but files for everybody",
                )
            )
        if not entry["url"].endswith("/") and entry["missing"] != "404":
            errors.append(
                meaning_error(
                    (*path, "files", number, "missing"),
                    f"{entry['missing']!r} of one file",
                    "'404', or a url that ends with /",
                )
            )
    for key, word in (
        ("load_balancer", "addresses"),
        ("maintenance", "except"),
        ("basic_auth", "except"),
    ):
        addresses = (site[key] or {word: []})[word]
        for number, address in enumerate([] if addresses is UNSET else addresses):
            try:
                ipaddress.ip_network(address)
            except ValueError as error:
                errors.append(
                    meaning_error(
                        (*path, key, word, number),
                        f"{address!r}: {error}",
                        "an address, or a network without bits behind its mask",
                    )
                )
    _check_log(path, site, nginx, errors)
    check_snippet((*path, "snippet"), site["snippet"], errors)
    if site["snippet"] and "uwsgi_param" in nginx_language.outermost(site["snippet"]):
        errors.append(
            meaning_error(
                (*path, "snippet"),
                "a uwsgi_param outside of a location, which never reaches the application: its "
                "location has parameters of its own",
                "the parameter in uwsgi:params",
            )
        )


def _check_log(path: tuple, site: dict, nginx: dict, errors: list) -> None:
    """A format that there is."""
    name = (site["access_log"] or {"format": "combined"})["format"]
    if name is not UNSET and name != "combined" and name not in nginx["log_formats"]:
        errors.append(
            meaning_error(
                (*path, "access_log", "format"),
                f"{name!r}, which is none of nginx:log_formats",
                f"one of {', '.join(['combined', *nginx['log_formats']])}",
            )
        )


def check_snippet(path: tuple, text: str | None, errors: list) -> None:
    if text and (flaw := nginx_language.flaw(text)):
        errors.append(meaning_error(path, f"a text that is not whole: {flaw}", "whole directives"))


def listen_address(listen: int | str) -> tuple[str, str, bool]:
    """Where nginx listens: address (* for all IPv4), port, and whether by default_server."""
    text, _, flag = str(listen).partition(" ")
    host, _, port = text.rpartition(":")
    if host in ("", "0.0.0.0"):
        host = "*"
    return host.lower(), port, bool(flag)


def check_listen(name: str, site: dict, taken: dict, errors: list) -> None:
    """One site's addresses and names against those of the sites before it (``taken``)."""
    seen: dict[tuple[str, str], tuple] = {}
    path = ("sites", name)
    words: list[tuple[tuple, int | str]] = [
        (("listen", number), listen) for number, listen in enumerate(site["listen"])
    ]
    if site["tls"]["source"]:
        words += [(("tls", "listen", n), listen) for n, listen in enumerate(site["tls"]["listen"])]
    for key, listen in words:
        host, port, default = listen_address(listen)
        if host.startswith("["):
            try:
                host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
            except ValueError:
                errors.append(
                    meaning_error(
                        (*path, *key),
                        f"{listen!r} (string)",
                        "a valid IPv6 address between the brackets",
                    )
                )
                continue
        if (host, port) in seen:
            before, same_list = seen[host, port], seen[host, port][:-1] == key[:-1]
            if same_list and dict(words)[before] == listen:
                continue  # the same word twice: the shape's own error
            errors.append(
                meaning_error(
                    (*path, *key),
                    f"{listen!r}, which is item {before[-1]} {'' if same_list else 'of listen '}again",
                    "each address and port once",
                )
            )
            continue
        seen[host, port] = key
        speaks = "TLS" if key[0] == "tls" else "plain HTTP"
        other, spoken = taken.setdefault(("protocol", host, port), (name, speaks))
        if spoken != speaks:
            errors.append(
                meaning_error(
                    (*path, *key),
                    f"{listen!r}, for {speaks}, while the site {other} speaks {spoken} there",
                    "one of the two on an address and port",
                )
            )
        if default:
            other = taken.setdefault(("default", host, port), name)
            if other != name:
                errors.append(
                    meaning_error(
                        (*path, *key),
                        f"{listen!r}, while the site {other} is the default there already",
                        "one default_server for an address and port",
                    )
                )
    written = {
        (key, number): word
        for key in ("server_names", "redirect_from")
        for number, word in enumerate(site[key])
    }
    for key, word in written.items():
        lower = word.lower()
        # nginx takes .example.org as example.org and *.example.org.
        names = [lower[1:], f"*{lower}"] if lower.startswith(".") else [lower]
        clash = None
        for host, port in seen:
            for one in names:
                other = taken.setdefault((one, host, port), (name, key))
                again = other[0] == name and other[1][0] == key[0] and written[other[1]] == word
                if other != (name, key) and not again and clash is None:
                    clash = (other, host, port)
        if clash is not None:
            (other_site, (other_key, other_number)), host, port = clash
            where = f"port {port}" if host == "*" else f"{host}:{port}"
            whose = f"the site {other_site}"
            if other_site == name:
                same_list = other_key == key[0]
                whose = f"item {other_number} of {'the same list' if same_list else other_key}"
            errors.append(
                meaning_error(
                    (*path, *key),
                    f"{word!r}, which {whose} has on {where} too",
                    "a name that is there once on its address and port",
                )
            )
    first = (site["server_names"] or ["localhost"])[0]
    if site["redirect_from"] and not re.fullmatch(HOST, first):
        errors.append(
            meaning_error(
                (*path, "redirect_from"),
                f"names, while the first of server_names is {first!r}",
                "a whole name there, as a redirect leads to it",
            )
        )
