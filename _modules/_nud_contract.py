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
from _nud_contract_takeover import takeover_keys
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
            description="The host names of the site. `ec2:public-hostname`, `ec2:public-ipv4`, "
            "`ec2:local-hostname` and `ec2:local-ipv4` stand for the names of the EC2 instance. A "
            "name that the instance does not have is left out; outside EC2 all four are.",
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
            description="Names that nginx redirects to the first of `server_names`, with the same "
            "path. An ACME certificate includes them.",
            example=["example.org"],
        ),
        "listen": listen_list(
            [80],
            "Ports, or quoted addresses with a port, where nginx listens for the site. "
            "`default_server` after a port makes the site answer requests for unknown names too.",
            [80, "[::]:80"],
        ),
        "charset": Text(
            "a charset's name, or 'off'",
            r"[A-Za-z0-9][A-Za-z0-9._-]*",
            most=40,
            default="utf-8",
            description="The charset that nginx adds to the Content-Type of text responses.",
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
                    description="The path of the socket. systemd creates it. A path in /tmp works, "
                    "but every run warns: any user could create a socket with that name first.",
                    example="/run/uwsgi/mysite.sock",
                    refuse=(SYSTEM_SOCKET_PLACES,),
                ),
                "owner": Text(
                    ACCOUNT_SAYS,
                    ACCOUNT,
                    most=32,
                    default="root",
                    description="The socket's owner. While a change of `nginx:user` is in "
                    "progress, the old nginx user owns the socket.",
                    example="deploy",
                ),
                "group": Text(
                    ACCOUNT_SAYS,
                    ACCOUNT,
                    most=32,
                    default=Derived("the primary group of nginx:user"),
                    description="The socket's group. nginx's user must be a member, unless the "
                    "owner or the mode already lets nginx connect.",
                    example="deploy",
                    refuse=(
                        ("users|nogroup", "anybody may be in it, and who can connect runs code"),
                    ),
                ),
                "mode": Text(
                    "a quoted octal mode, like '0660'",
                    r"0?[0-7]{3}",
                    default="0660",
                    description="The socket's mode, quoted. Any user who can write to the socket "
                    "can run code as the site's user. With '0666' that is every user of the host, "
                    "and every run warns.",
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
                    description="How many connections may wait in the socket for a free worker.",
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
                    description="The path of the health request.",
                    example="/health/",
                ),
                "status": List(
                    Number("a status from 100 to 599", 100, 599),
                    "a list with at least one status",
                    least=1,
                    unique=True,
                    default=[200, 301, 302],
                    description="Status codes that count as healthy.",
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
                    description="The Host header of the health request. Django's ALLOWED_HOSTS "
                    "must contain it.",
                    example="www.example.org",
                ),
                "timeout": Number(
                    "seconds from 1 to 3600",
                    1,
                    3600,
                    default=30,
                    description="Seconds to wait for a response before the check fails.",
                    example=10,
                ),
            },
            description="The health request, which a new generation must answer before users' "
            "requests reach it.",
        ),
        "tls": tls_keys(),
    }


DEFAULTS_OF_SITES = Mapping(
    _site_keys(),
    description="Defaults for all sites. A site's own value replaces the default; mappings are "
    "merged key by key.",
)
SITE = Mapping(
    {
        "absent": Switch(
            default=False,
            description="true: remove the site from the host. Such a site needs no other key.",
        ),
        "takeover": takeover_keys(),
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
            description="true: remove orphaned sites, which the formula deployed and the pillar no "
            "longer names; their data stays. false: report them and leave them as they are.",
        ),
        "clean": Mapping(
            {
                "data": Switch(
                    default=False,
                    description="true: `absent: true` and `nginx_uwsgi_django.clean` also delete "
                    "the site's releases, database and uploads. false: these stay on the host.",
                ),
            },
            description="How much a removal deletes.",
        ),
        "schedule": Mapping(
            {
                "minutes": Number(
                    "a whole number of minutes from 5 to 10080 (a week)",
                    5,
                    10080,
                    nullable=True,
                    default=None,
                    description="Minutes from the end of one automatic run to the start of the "
                    "next. null: no automatic runs.",
                    example=60,
                ),
                "splay": Number(
                    "a whole number of minutes from 0 to 1440",
                    0,
                    1440,
                    default=10,
                    description="Each run starts later by a random time of up to this many "
                    "minutes, so that the hosts of a fleet do not all run at once.",
                    example=30,
                ),
            },
            description="Automatic runs by a systemd timer. Only for masterless hosts.",
        ),
        "nginx": Mapping(
            {
                "repo": Text(
                    f"{', '.join(('auto', *SOURCES))} or distro",
                    choices=("auto", *SOURCES, "distro"),
                    default=Derived("auto on Ubuntu, distro elsewhere"),
                    description="The package source of nginx: `ppa` (Ubuntu only, see "
                    "`nginx:ppa`), `nginx.org`, or `distro`, the distribution. `auto` keeps the "
                    "source of the installed nginx. On a host without nginx, `auto` takes the PPA "
                    "if it has packages for the Ubuntu release, else the distribution.",
                    example="nginx.org",
                ),
                "ppa": Text(
                    "OWNER/NAME, a PPA of Launchpad",
                    r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*",
                    most=256,
                    default=STABLE,
                    description="The PPA that `repo: ppa` uses. Any PPA other than nginx/stable "
                    "also needs its keys in `lookup:repos:ppa:fingerprints`; `deb822_source.ppa "
                    "OWNER/NAME` prints them.",
                    example="ondrej/nginx",
                ),
                "user": Text(
                    ACCOUNT_SAYS,
                    ACCOUNT,
                    most=32,
                    default="deploy",
                    description="The user that nginx's worker processes run as. The formula "
                    "creates it if it does not exist.",
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
                    description="Addresses and names that nginx answers today and that the formula "
                    "may remove. If a run would remove any other, it leaves nginx unchanged and "
                    "prints the line to add here.",
                    example=["listen *:443", "name old.example.org on *:80"],
                ),
                "catch_all": Switch(
                    nullable=True,
                    default=None,
                    description="Close connections whose Host header matches no site. null: on "
                    "when the formula manages two or more sites. Ignored on addresses where a site "
                    "is `default_server` or is named `_`.",
                    example=True,
                ),
                "health": Mapping(
                    {
                        "path": Text(
                            "a path that begins with /",
                            r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~@+-]+)+/?",
                            most=256,
                            description="The path that load balancers ask for.",
                            example="/-/health",
                        ),
                        "site": Text(
                            "the name of a site",
                            r"[a-z][a-z0-9_-]{0,30}",
                            default=Derived("the first of the sites"),
                            description="The site that answers health requests whose Host header "
                            "matches no site.",
                            example="mysite",
                        ),
                        "drain": Number(
                            "seconds from 0 to 900",
                            0,
                            900,
                            default=0,
                            description="Seconds that a shutdown of the host is delayed. During "
                            "that time health requests are answered with 503 and all other "
                            "requests are served as usual. Set it to the time that the load "
                            "balancer needs to notice. 0: no delay.",
                            example=30,
                        ),
                    },
                    required=("path",),
                    nullable=True,
                    default=None,
                    description="A health path for load balancers, which works with any Host "
                    "header. nginx passes the request to the site's `health:path` with the site's "
                    "`health:host`. While the host is drained (the file "
                    "/run/nginx_uwsgi_django/drain exists), the answer is 503.",
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
                            description="Seconds a client may take to send the request line and "
                            "headers.",
                            example=15,
                        ),
                        "keepalive": Number(
                            "seconds from 0 to 86400",
                            0,
                            86400,
                            nullable=True,
                            default=None,
                            description="Seconds that nginx keeps an idle connection open. 0: "
                            "close it after each response.",
                            example=30,
                        ),
                    },
                    description="How long nginx waits for a client. These apply before nginx knows "
                    "the site, so nginx uses the default server's values: the keys have no effect "
                    "on addresses where the default server is not the formula's. null: the value "
                    "in nginx.conf.",
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
                                description="The log line, with nginx's variables.",
                                example='$remote_addr "$request" $status',
                            ),
                            "escape": Text(
                                "default, json or none",
                                choices=("default", "json", "none"),
                                default="default",
                                description="How nginx escapes the variables' values.",
                                example="json",
                            ),
                        },
                        required=("format",),
                    ),
                    "a mapping of formats",
                    default={},
                    description="Log formats by name, for `access_log:format` of the sites.",
                    example={
                        "json": {
                            "escape": "json",
                            "format": '{"time": "$time_iso8601", "status": $status}',
                        }
                    },
                ),
                "snippet": snippet_key(
                    "into the http block", "map $http_x_kind $kind { default 0; }\n"
                ),
                "socket": Switch(
                    default=True,
                    description="systemd holds nginx's listening sockets, so that no connection is "
                    "refused while nginx restarts or its package is upgraded. Addresses with "
                    "`reuseport` are excluded. On a host where nginx already runs, this takes "
                    "effect at the next start of nginx. While nginx is stopped, clients wait and "
                    "the port stays in use; set false if another program needs the port or a load "
                    "balancer must see the refusal.",
                ),
            },
            description="Settings of nginx for the whole host.",
        ),
        "ec2": Mapping(
            {
                "metadata": Text(
                    "an http URL with a host and perhaps a port, without a path",
                    r"http://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?",
                    most=256,
                    nullable=True,
                    default=None,
                    description="The URL of the instance metadata service, which is used with "
                    "IMDSv2 only. null: 169.254.169.254, on hosts whose firmware identifies them "
                    "as EC2.",
                    example="http://[fd00:ec2::254]",
                ),
                "ingress": INGRESS,
            },
            description="Settings for EC2 instances.",
        ),
        "rollout": Mapping(
            {
                "window": Number(
                    "seconds from 0 to 3600",
                    0,
                    3600,
                    default=10,
                    description="Seconds that a host is observed before and again after the "
                    "change. 0: do not compare.",
                    example=60,
                ),
                "errors": Number(
                    "a percentage from 0 to 100",
                    0,
                    100,
                    default=1,
                    description="The allowed increase of failed requests, in percentage points.",
                    example=0,
                ),
                "slower": Number(
                    "a percentage from 0 to 10000",
                    0,
                    10000,
                    default=100,
                    description="The allowed increase of the response time, in per cent. An "
                    "increase of up to 0.25 seconds is always accepted.",
                    example=50,
                ),
                "memory": Number(
                    "a percentage from 0 to 10000",
                    0,
                    10000,
                    default=100,
                    description="The allowed growth of the memory of a site's uWSGI, in per cent. "
                    "Growth of up to 128 MiB is always accepted.",
                    example=50,
                ),
            },
            description="The limits that a changed host must stay within during `salt-run "
            "rollout.apply`.",
        ),
        "acme": acme_keys(),
        "site_defaults": DEFAULTS_OF_SITES,
        "sites": Table(
            SITE_NAME,
            SITE,
            "a mapping of sites by name, with at least one",
            least=1,
            default=REQUIRED,
            description="The sites, by name. The name is used for the units (`uwsgi-NAME`) and the "
            "nginx file, and by default for the user and the paths.",
        ),
    },
    required=("sites",),
    description="Django sites served by nginx through uWSGI.",
)


contract_schema.elsewhere = lambda key: homes().get(key, ())
