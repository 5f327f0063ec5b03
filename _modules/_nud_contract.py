"""
The pillar's contract as one tree: every key of the formula, of a site and of ``site_defaults``.
"""

import functools

import _nud_contract_schema as contract_schema
from _nud_contract_host import INGRESS, SOURCES, STABLE, lookup_keys
from _nud_contract_patterns import (
    ACCOUNT,
    ACCOUNT_SAYS,
    HOST,
    PATH,
    PATH_SAYS,
    RESERVED_ACCOUNT,
    RESERVED_GROUP,
    RESERVED_SITE,
    SYSTEM_SOCKET_PLACES,
)
from _nud_contract_project import project_keys
from _nud_contract_schema import (
    REQUIRED,
    ROOT,
    Derived,
    List,
    Mapping,
    Node,
    Number,
    Plain,
    Switch,
    Table,
    Text,
)
from _nud_contract_serving import FORMAT_NAME, listen_list, serving_keys, snippet_key
from _nud_contract_tls import acme_keys, tls_keys
from _nud_contract_uwsgi import companion_keys, uwsgi_keys


@functools.lru_cache(maxsize=1)
def homes() -> dict[str, tuple[str, ...]]:
    """Where in the definition each key lives: {"processes": ("sites:SITE:uwsgi",)}."""
    homes: dict[str, list[str]] = {}

    def walk(node: Node, path: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            for key, child in node.keys.items():
                homes.setdefault(key, []).append(":".join(path) or ROOT)
                walk(child, (*path, key))
        elif isinstance(node, Plain):
            for option in node.options:
                walk(option, path)

    for key, node in PILLAR.keys.items():
        homes.setdefault(key, []).append(ROOT)
        if key == "sites":
            walk(SITE, ("sites", "SITE"))
        elif key != "site_defaults":
            walk(node, (key,))
    return {key: tuple(paths) for key, paths in homes.items() if len(paths) <= 3}


def _site_keys() -> dict[str, Node]:
    return {
        "server_names": List(
            Text(
                "a name like www.example.org, *.example.org, www.example.*, an IPv4 address, _ or "
                "ec2:public-hostname",
                rf"_|(?:\*\.|\.)?{HOST}|{HOST}\.\*|ec2:(?:public|local)-(?:hostname|ipv4)",
                most=253,
                advice=(
                    (r"ec2:.*", "an instance has public-, local-hostname, public- and local-ipv4"),
                    (r"https?://.*", "a name alone, without http:// and without a path"),
                    (r"[^\[\]]*:[0-9]*", "a name alone; the port goes to listen"),
                    (r"~.*", "regular expressions are not supported; use a wildcard"),
                    (r".*[^\x00-\x7f].*", "write an international name in its xn-- form"),
                    (r".*/.*", "a name alone, without a path"),
                ),
            ),
            "a list with at least one name",
            least=1,
            unique=True,
            description="The names that the site answers to. `ec2:public-hostname`, "
            "`ec2:public-ipv4`, `ec2:local-hostname` and `ec2:local-ipv4` are the instance's own; "
            "one that it does not have, or any of them off EC2, adds no name.",
            example=["www.example.org", "*.example.org"],
        ),
        "redirect_from": List(
            Text(
                "a name like example.org, *.example.org or www.example.*",
                rf"(?:\*\.|\.)?{HOST}|{HOST}\.\*",
                most=253,
                advice=(
                    (r"https?://.*", "a name alone, without http:// and without a path"),
                    (r".*/.*", "a path is redirected by redirects"),
                ),
            ),
            "a list of names",
            unique=True,
            default=[],
            description="Names whose requests are redirected to the same path under the first of "
            "server_names. A certificate by ACME is for them too.",
            example=["example.org"],
        ),
        "listen": listen_list(
            [80],
            "Where nginx listens for the site: ports, or quoted texts with address and port. "
            "`default_server` after a port makes the site answer for every other name too.",
            [80, "[::]:80"],
        ),
        "charset": Text(
            "a charset's name, or 'off'",
            r"[A-Za-z0-9][A-Za-z0-9._-]*",
            most=40,
            default="utf-8",
            description="The charset in the Content-Type of texts.",
            example="utf-8",
        ),
        "client_max_body_size": Plain(
            Text("a size", r"[0-9]{1,15}|[0-9]{1,6}[kKmMgG]"),
            Number("a number of bytes", 0, 999_999_999_999_999),
            says="a size in bytes, or with k, m or g; 0 is no limit",
            as_text=True,
            default="128M",
            description="The largest request body that nginx accepts.",
            example="10m",
        ),
        **serving_keys(),
        "project": project_keys(),
        "uwsgi": uwsgi_keys(),
        "companions": companion_keys(),
        "socket": Mapping(
            {
                "path": Text(
                    f"{PATH_SAYS}; 107 bytes at most",
                    PATH,
                    most=107,  # sun_path of unix(7), less its closing NUL
                    default=Derived("/run/uwsgi/SITE.sock"),
                    description="The socket between nginx and uWSGI; systemd holds it. In /tmp, "
                    "where anybody may put a socket of that name first, it works and every run "
                    "calls it insecure.",
                    example="/run/uwsgi/mysite.sock",
                    refuse=(SYSTEM_SOCKET_PLACES,),
                ),
                "owner": Text(
                    ACCOUNT_SAYS,
                    ACCOUNT,
                    most=32,
                    default="root",
                    description="The socket's owner. While nginx goes over to another nginx:user, "
                    "its old user takes the owner's place.",
                    example="deploy",
                ),
                "group": Text(
                    ACCOUNT_SAYS,
                    ACCOUNT,
                    most=32,
                    default=Derived("the primary group of nginx:user"),
                    description="The socket's group: one that nginx's user is in, unless the "
                    "owner or the mode lets nginx connect.",
                    example="deploy",
                    refuse=(
                        ("users|nogroup", "anybody may be in it, and who can connect runs code"),
                    ),
                ),
                "mode": Text(
                    "a quoted octal mode, like '0660'",
                    r"0?[0-7]{3}",
                    default="0660",
                    description="The socket's mode, quoted. Who can write to a uWSGI socket runs "
                    "code as the site's user: with '0666' that is everybody on the host, and every "
                    "run calls it insecure.",
                    example="0660",
                    mode=True,
                    advice=(
                        (r"[0-7]{5,}|[1-7][0-7]{3}", "no special bits: three digits after the 0"),
                    ),
                ),
                "backlog": Number(
                    "a whole number from 1 to 65535",
                    1,
                    65535,
                    default=4096,
                    description="Connections that may wait for a free worker.",
                    example=1024,
                ),
            },
            description="The socket between nginx and uWSGI.",
        ),
        "health": Mapping(
            {
                "path": Text(
                    "a path that begins with /, perhaps with a query",
                    r"/[A-Za-z0-9._~/?&=+,:@-]*",
                    most=1024,
                    default="/",
                    description="What is asked for to see whether the site works.",
                    example="/health/",
                ),
                "status": List(
                    Number("a status from 100 to 599", 100, 599),
                    "a list with at least one status",
                    least=1,
                    unique=True,
                    default=[200, 301, 302],
                    description="The answers that mean yes.",
                    example=[200],
                ),
                "host": Text(
                    "a host name",
                    HOST,
                    most=253,
                    default=Derived(
                        "the first of server_names, where '*.example.org' becomes "
                        "health.example.org"
                    ),
                    description="The Host header of the question; Django's ALLOWED_HOSTS has to "
                    "allow it.",
                    example="www.example.org",
                ),
                "timeout": Number(
                    "seconds from 1 to 3600",
                    1,
                    3600,
                    default=30,
                    description="Seconds until no answer is a no.",
                    example=10,
                ),
            },
            description="How a new generation proves that it works, before any request reaches it.",
        ),
        "tls": tls_keys(),
    }


DEFAULTS_OF_SITES = Mapping(
    _site_keys(),
    description="Values for every site that does not say otherwise: mappings are merged, anything "
    "else is replaced by the site's own.",
)
SITE = Mapping(
    {
        "absent": Switch(
            default=False,
            description="true removes the site from the host; nothing else is needed then.",
        ),
        **DEFAULTS_OF_SITES.keys,
    },
    description="One site.",
)


#: What a site that is not absent has to say, itself or through site_defaults.
REQUIRED_OF_SITE = (("server_names",), ("project", "wsgi"), ("project", "settings"))


SITE_NAME = Text(
    "a site's name: 1 to 31 of a-z, 0-9, _ and -, beginning with a letter",
    r"[a-z][a-z0-9_-]{0,30}",
    refuse=(RESERVED_ACCOUNT, RESERVED_GROUP, RESERVED_SITE),
)


PILLAR = Mapping(
    {
        "lookup": lookup_keys(),
        "purge": Switch(
            default=False,
            description="true also removes sites that the formula made and the pillar no longer "
            "names, but not their data; otherwise such a site stays as it is and is reported, and "
            "a site goes only by `absent: true`.",
        ),
        "clean": Mapping(
            {
                "data": Switch(
                    default=False,
                    description="true: removing a site by `absent`, or all by "
                    "`nginx_uwsgi_django.clean`, removes its releases, database and uploads too.",
                ),
            },
            description="What a removal removes.",
        ),
        "schedule": Mapping(
            {
                "minutes": Number(
                    "a whole number of minutes from 5 to 10080 (a week)",
                    5,
                    10080,
                    nullable=True,
                    default=None,
                    description="A masterless host applies the formula to itself by a timer, this "
                    "long after it was set and after each run; null: it does not.",
                    example=60,
                ),
                "splay": Number(
                    "a whole number of minutes from 0 to 1440",
                    0,
                    1440,
                    default=10,
                    description="Each run is put off by a random time up to this many minutes, so "
                    "that hosts do not all run at once.",
                    example=30,
                ),
            },
            description="Runs that nobody starts.",
        ),
        "nginx": Mapping(
            {
                "repo": Text(
                    f"{', '.join(('auto', *SOURCES))} or distro",
                    choices=("auto", *SOURCES, "distro"),
                    default=Derived("auto on Ubuntu, distro elsewhere"),
                    description="Where nginx comes from: the PPA of `ppa` (Ubuntu only), nginx.org, "
                    "or the distribution. auto stays with the source that nginx is from; on a host "
                    "without nginx it takes the PPA where that has the release, else the "
                    "distribution.",
                    example="nginx.org",
                ),
                "ppa": Text(
                    "OWNER/NAME, a PPA of Launchpad",
                    r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*",
                    most=256,
                    default=STABLE,
                    description="The PPA of `repo: ppa`. Any but nginx/stable needs its keys in "
                    "`lookup:repos:ppa:fingerprints`; `deb822_source.ppa OWNER/NAME` prints them.",
                    example="ondrej/nginx",
                ),
                "user": Text(
                    ACCOUNT_SAYS,
                    ACCOUNT,
                    most=32,
                    default="deploy",
                    description="The user of nginx's workers; created when missing.",
                    example="www-data",
                    refuse=(("root", "nginx's workers would be root"),),
                ),
                "allow_loss": List(
                    Text(
                        "listen ADDRESS:PORT or name NAME on ADDRESS:PORT, as the refusal says it",
                        r"(?:listen|name \S+ on) \S+",
                        most=400,
                    ),
                    "a list of what may go",
                    unique=True,
                    default=[],
                    description="Addresses and names that nginx answers now and may stop answering. "
                    "A run that would end any other changes nothing of nginx, and prints the line to write here.",
                    example=["listen *:443", "name old.example.org on *:80"],
                ),
                "catch_all": Switch(
                    nullable=True,
                    default=None,
                    description="Close the connection of a request whose Host is no site's name; "
                    "null does so where nginx has more sites of the formula's than one. Not on an address where a site is the default_server, or has the name _.",
                    example=True,
                ),
                "health": Mapping(
                    {
                        "path": Text(
                            "a path that begins with /",
                            r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~@+-]+)+/?",
                            most=256,
                            description="The path.",
                            example="/-/health",
                        ),
                        "site": Text(
                            "the name of a site",
                            r"[a-z][a-z0-9_-]{0,30}",
                            default=Derived("the first of the sites"),
                            description="The site that is asked where the Host is no site's.",
                            example="mysite",
                        ),
                        "drain": Number(
                            "seconds from 0 to 900",
                            0,
                            900,
                            default=0,
                            description="How long a shutdown of the host waits, with 503 as the "
                            "answer and every other request served: as long as the load balancer "
                            "needs to notice. 0: not at all.",
                            example=30,
                        ),
                    },
                    required=("path",),
                    nullable=True,
                    default=None,
                    description="A path for load balancers, answered for any Host: the site's "
                    "health:path is asked with its health:host. While "
                    "/run/nginx_uwsgi_django/drain is there, the answer is 503.",
                    example={"path": "/-/health"},
                ),
                "timeouts": Mapping(
                    {
                        "header": Number(
                            "seconds from 1 to 86400",
                            1,
                            86400,
                            nullable=True,
                            default=None,
                            description="Seconds that a client has for a request's head.",
                            example=15,
                        ),
                        "keepalive": Number(
                            "seconds from 0 to 86400",
                            0,
                            86400,
                            nullable=True,
                            default=None,
                            description="Seconds that an idle connection is kept; 0: none is.",
                            example=30,
                        ),
                    },
                    description="How long nginx waits for a request. It knows the site only after "
                    "a request's head: what counts is the default server's word, in force where "
                    "that is one of the formula's. null is as nginx.conf says.",
                ),
                "log_formats": Table(
                    Text(
                        "a name of A-Z, a-z, 0-9 and _",
                        FORMAT_NAME,
                        most=64,
                        refuse=((r"combined", "it is nginx's own"),),
                    ),
                    Mapping(
                        {
                            "format": Text(
                                "one line of text with nginx's variables",
                                r"[^\x00-\x1f\x7f\ud800-\udfff]+",
                                most=4000,
                                description="The line.",
                                example='$remote_addr "$request" $status',
                            ),
                            "escape": Text(
                                "default, json or none",
                                choices=("default", "json", "none"),
                                default="default",
                                description="How the variables' values are written.",
                                example="json",
                            ),
                        },
                        required=("format",),
                    ),
                    "a mapping of formats",
                    default={},
                    description="Formats for the sites' access_log, by name.",
                    example={
                        "json": {
                            "escape": "json",
                            "format": '{"time": "$time_iso8601", "status": $status}',
                        }
                    },
                ),
                "snippet": snippet_key(
                    "at the level of http", "map $http_x_kind $kind { default 0; }\n"
                ),
                "socket": Switch(
                    default=True,
                    description="systemd holds nginx's listening sockets, so that a restart or an "
                    "upgrade of its package refuses no connection. Addresses with `reuseport` are "
                    "not held; one that nginx has bound by itself is taken over when nginx is "
                    "started next. While nginx is stopped, clients wait instead of being refused, "
                    "and nobody else can have the port: false, where that is not wanted.",
                ),
            },
            description="nginx as a whole.",
        ),
        "ec2": Mapping(
            {
                "metadata": Text(
                    "an http URL with a host and perhaps a port, without a path",
                    r"http://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?",
                    most=256,
                    nullable=True,
                    default=None,
                    description="Where an instance asks what it is, always by IMDSv2; null is "
                    "EC2's own IPv4 address, asked only where the firmware says EC2.",
                    example="http://[fd00:ec2::254]",
                ),
                "ingress": INGRESS,
            },
            description="The host as an EC2 instance.",
        ),
        "rollout": Mapping(
            {
                "window": Number(
                    "seconds from 0 to 3600",
                    0,
                    3600,
                    default=10,
                    description="How long a host is watched before it is changed and after; 0 "
                    "leaves the comparison out.",
                    example=60,
                ),
                "errors": Number(
                    "a percentage from 0 to 100",
                    0,
                    100,
                    default=1,
                    description="How many more of 100 requests may fail after than before.",
                    example=0,
                ),
                "slower": Number(
                    "a percentage from 0 to 10000",
                    0,
                    10000,
                    default=100,
                    description="By how many per cent a request may take longer after than before; "
                    "a quarter of a second always may be.",
                    example=50,
                ),
                "memory": Number(
                    "a percentage from 0 to 10000",
                    0,
                    10000,
                    default=100,
                    description="By how many per cent the memory of a site's uWSGI may be larger after "
                    "than before; 128 MiB always may be.",
                    example=50,
                ),
            },
            description="What `salt-run rollout.apply` demands of a host that it has changed.",
        ),
        "acme": acme_keys(),
        "site_defaults": DEFAULTS_OF_SITES,
        "sites": Table(
            SITE_NAME,
            SITE,
            "a mapping of sites by name, with at least one",
            least=1,
            default=REQUIRED,
            description="The sites, by name. The name becomes that of the unit (uwsgi-NAME), the "
            "nginx file, the user and the paths, unless they say otherwise.",
        ),
    },
    required=("sites",),
    description="Django sites served by nginx through uWSGI.",
)


contract_schema.elsewhere = lambda key: homes().get(key, ())
