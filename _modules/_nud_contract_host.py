"""
The keys about the host: package sources, platforms, the security group on EC2.
"""

import ipaddress
from typing import Any

from _nud_contract_patterns import PATH, path_key
from _nud_contract_schema import UNSET, Derived, List, Mapping, Number, Text, meaning_error

_PIP_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
PIP_REQUIREMENT = (
    rf"{_PIP_NAME}(?:\[{_PIP_NAME}(?:,{_PIP_NAME})*\])?"
    r"(?: ?(?:===?|~=|!=|<=?|>=?) ?[A-Za-z0-9.*+!_-]+"
    r"(?:, ?(?:===?|~=|!=|<=?|>=?) ?[A-Za-z0-9.*+!_-]+)*)?"
)
_URL = r"(?:https?|file)://[A-Za-z0-9._~:/\[\]-]+"


def _repository(default: dict[str, Any], description: str) -> Mapping:
    return Mapping(
        {
            "uris": Text(
                "an http, https or file URL without a user, a password or a query",
                _URL,
                default=default["uris"],
                description="The URL of the repository.",
                example="https://mirror.example.org/nginx/ubuntu",
            ),
            "suites": Text(
                "the name of a suite",
                r"[A-Za-z0-9][A-Za-z0-9._/-]*",
                nullable=True,
                default=None,
                description="The suite. null: the codename of the host's release.",
                example="noble",
            ),
            "components": List(
                Text("the name of a component", r"[A-Za-z0-9][A-Za-z0-9._/-]*"),
                "a list with at least one component",
                least=1,
                unique=True,
                default=default["components"],
                description="The components of the repository.",
                example=default["components"],
            ),
            "fingerprints": List(
                Text(
                    "a full fingerprint of 40 or 64 digits 0-9 and A-F",
                    r"[0-9A-F]{40}(?:[0-9A-F]{24})?",
                ),
                "a list with at least one full fingerprint",
                least=1,
                unique=True,
                default=default["fingerprints"],
                description="Full fingerprints of the keys that may sign the repository. Other "
                "keys are rejected.",
                example=default["fingerprints"][:1],
            ),
            "key": Text(
                "an http, https or file URL, a salt:// path or an absolute path",
                rf"(?:https?|file)://[A-Za-z0-9._~:/?=&%+\[\]-]+|salt:/{PATH}|{PATH}",
                default=default["key"],
                nullable=True,
                description="Where to download the keys. Their fingerprints are checked. null: "
                "download each key from keyserver.ubuntu.com.",
                example="salt://keys/nginx.asc",
            ),
        },
        description=description,
    )


#: nginx's package sources besides the distribution, by the value of `nginx:repo`.  A further source
#: is one more entry.  ``{ppa}`` is the pillar's `nginx:ppa`, ``{name}`` the same with a hyphen.
#: ``title`` is for messages, ``origin`` is what its Release files carry, ``system`` the only one that
#: it has packages for.
SOURCES: dict[str, dict[str, Any]] = {
    "ppa": {
        "title": "the PPA {ppa}",
        "origin": "LP-PPA-{name}",
        "system": "Ubuntu",
        "uris": Derived("https://ppa.launchpadcontent.net/OWNER/NAME/ubuntu"),
        "address": "https://ppa.launchpadcontent.net/{ppa}/ubuntu",
        "components": ["main"],
        # Of nginx/stable.  Another PPA has other keys: the pillar pins them.
        "fingerprints": ["8B3981E7A6852F782CC4951600A6F0A3C300EE8C"],
        "key": None,
    },
    # https://nginx.org/en/linux_packages.html: the key of 2011 and the two that nginx.org added in
    # 2024.
    "nginx.org": {
        "title": "nginx.org",
        "origin": "nginx",
        "system": None,
        "uris": "https://nginx.org/packages/debian",
        "address": None,
        "components": ["nginx"],
        "fingerprints": [
            "573BFD6B3D8FBC641079A6ABABF5BD827BD9BF62",
            "8540A6F18833A80E9C1653A42FD21310B49F6B46",
            "9E9BE90EACBCDE69FE9B204CBCDCD8A38D88A2B3",
        ],
        "key": "https://nginx.org/keys/nginx_signing.key",
    },
}
STABLE = "nginx/stable"


# Gives out one key for each question, whatever else its owner has.
KEYSERVER = "https://keyserver.ubuntu.com/pks/lookup?op=get&options=mr&search=0x{}"


#: The grains that choose a platform's values, the most particular last.
GRAINS = ("os_family", "os", "osfinger")


#: What differs between platforms, laid over the defaults: by grain and its value.
PLATFORMS: tuple[tuple[str, str, dict], ...] = (
    ("os_family", "Debian", {"nginx": {"repo": "distro"}}),
    (
        "os",
        "Ubuntu",
        {
            "nginx": {"repo": "auto"},
            "lookup": {"repos": {"nginx.org": {"uris": "https://nginx.org/packages/ubuntu"}}},
        },
    ),
)


def lookup_keys() -> Mapping:
    package = r"[a-z0-9][a-z0-9.+-]+"
    return Mapping(
        {
            "nginx_dir": path_key("The directory of nginx's configuration.", default="/etc/nginx"),
            "nginx_package": Text(
                "the name of a Debian package",
                package,
                default="nginx",
                description="The Debian package of nginx.",
                example="nginx-full",
            ),
            "nginx_service": Text(
                "the name of a unit without .service",
                r"[A-Za-z0-9][A-Za-z0-9_.-]*",
                default="nginx",
                description="The systemd unit of nginx.",
            ),
            "uwsgi_dir": path_key(
                "The directory of the sites' uWSGI configuration.", default="/etc/uwsgi"
            ),
            "uwsgi_log_dir": path_key(
                "The directory of the sites' uWSGI log files.", default="/var/log/uwsgi"
            ),
            "state_dir": path_key(
                "The directory of the formula's own files, such as virtual environments and "
                "records.",
                default="/var/lib/nginx_uwsgi_django",
            ),
            "unit_dir": path_key(
                "The directory that systemd units are written to.", default="/etc/systemd/system"
            ),
            "repos": Mapping(
                {
                    kind: _repository(source, f"The source of `nginx:repo: {kind}`.")
                    for kind, source in SOURCES.items()
                },
                description="The package sources that `nginx:repo` chooses from.",
            ),
        },
        description="Names and paths of the platform. Rarely needed.",
    )


def _ingress() -> Mapping:
    return Mapping(
        {
            "minion": Text(
                "a minion's ID",
                r"[A-Za-z0-9][A-Za-z0-9._@-]*",
                most=253,
                description="The ID of the one minion that manages the group. All other minions "
                "leave it alone.",
                example="web1",
            ),
            "group": Text(
                "a security group's ID, like sg-0123456789abcdef0",
                r"sg-[0-9a-f]{8,17}",
                description="The ID of the security group.",
                example="sg-0123456789abcdef0",
            ),
            "region": Text(
                "a region's name",
                r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}",
                nullable=True,
                default=None,
                description="The region of the group. null: the region of the instance.",
                example="eu-central-1",
                advice=((r".*[0-9][a-z]", "that is an availability zone; leave its letter out"),),
            ),
            "ports": List(
                Number("a port from 1 to 65535", 1, 65535),
                "a list with at least one port",
                least=1,
                unique=True,
                default=[80, 443],
                description="The TCP ports to open.",
                example=[443],
            ),
            "ranges": List(
                Text("an address or a network", r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?"),
                "a list with at least one address or network",
                least=1,
                unique=True,
                default=["0.0.0.0/0", "::/0"],
                description="The IPv4 and IPv6 networks that may connect.",
                example=["192.0.2.0/24", "2001:db8::/32"],
            ),
            "description": Text(
                "1 to 255 letters, digits, blanks and ._-:/()#,@[]+=&;{}!$*",
                r"[A-Za-z0-9._:/()#,@\[\]+=&;{}!$*-](?:[A-Za-z0-9 ._:/()#,@\[\]+=&;{}!$*-]*"
                r"[A-Za-z0-9._:/()#,@\[\]+=&;{}!$*-])?",
                most=255,
                default="Django sites (nginx_uwsgi_django)",
                description="The description of each rule in the AWS console.",
                example="public web",
            ),
            "endpoint": Text(
                "an http or https URL with a host and perhaps a port, without a path",
                r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?",
                most=256,
                nullable=True,
                default=None,
                description="The URL of the EC2 API. null: the public endpoint of the region.",
                example="https://vpce-0123456789abcdef0.ec2.eu-central-1.vpce.amazonaws.com",
            ),
        },
        required=("minion", "group"),
        nullable=True,
        default=None,
        description="Manage the ingress rules of a security group, see ec2.md. null: the formula "
        "does not contact AWS.",
        example={"minion": "web1", "group": "sg-0123456789abcdef0"},
    )


INGRESS = _ingress()


def check_ingress(ingress: dict | None, path: tuple, errors: list) -> None:
    """What no pattern sees of ranges, and one range that is written twice."""
    ranges = (ingress or {"ranges": []})["ranges"]
    seen: dict[Any, int] = {}
    for number, text in enumerate([] if ranges is UNSET else ranges):
        here = (*path, "ranges", number)
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            errors.append(
                meaning_error(
                    here,
                    f"{text!r}: {error}",
                    "an address, or a network without bits behind its mask",
                )
            )
            continue
        if seen.setdefault(network, number) != number:
            errors.append(
                meaning_error(here, repr(text), f"no range that item {seen[network]} is too")
            )
