"""
The key `takeover` of a site, what served it before the formula, and its cross-checks.
"""

import re
from typing import Any

from _nud_contract_patterns import PATH, PATH_SAYS
from _nud_contract_schema import List, Mapping, Text, meaning_error

_OURS = "conf.d/nginx_uwsgi_django.conf"


def takeover_keys() -> Mapping:
    """What an operator lets go of once the site is proven."""
    return Mapping(
        {
            "units": List(
                Text(
                    "a unit's name that ends in .service or .socket",
                    r"[A-Za-z0-9][A-Za-z0-9:_.@-]*\.(?:service|socket)",
                    most=255,
                    refuse=(
                        (
                            r"(?:systemd-.*|dbus|ssh|sshd|cron|nginx|salt-minion|salt-master)"
                            r"\.(?:service|socket)",
                            "it is the system's own, and served no Django site",
                        ),
                    ),
                ),
                "a list of systemd units",
                unique=True,
                default=[],
                description="Units that served the site. They are stopped and disabled once "
                "visitors get the site's own answers and the units have finished their requests. "
                "Their files stay.",
                example=["uwsgi.service"],
            ),
            "files": List(
                Text(PATH_SAYS, PATH, most=1024),
                "a list of files in nginx's tree",
                unique=True,
                default=[],
                description="Files with servers for the site's names, in conf.d, sites-enabled or "
                "another place that nginx.conf includes. They leave the tree in the same step in "
                "which the site's own file comes into it, and are kept. sites-enabled/SITE.conf "
                "needs no mention.",
                example=["/etc/nginx/conf.d/old.conf"],
            ),
            "sockets": List(
                Text(f"{PATH_SAYS}; 107 bytes at most", PATH, most=107),
                "a list of paths of sockets",
                unique=True,
                default=[],
                description="Sockets of those units. The units are stopped when no connection to "
                "them is open; a socket that stays behind is renamed.",
                example=["/tmp/mysite.sock"],
            ),
        },
        description="What served the site before the formula, and goes when the site is proven: "
        "see existing-server.md. Without it the old server goes on running, and every run names it.",
    )


def check_takeover(settings: dict[str, Any], errors: list) -> None:
    """
    The servers that are taken over, against the formula's own units, files and sockets.

    settings
        the resolved pillar
    errors
        what was found wrong is added to it
    """
    sites = settings["sites"]
    own_sockets = {site["socket"]["path"]: name for name, site in sites.items()}
    service = settings["lookup"]["nginx_service"]
    tree = settings["lookup"]["nginx_dir"].rstrip("/")
    files: dict[str, str] = {}
    for name, site in sites.items():
        if site["absent"]:
            continue
        path, asked = ("sites", name, "takeover"), site["takeover"]
        for unit in asked["units"]:
            stem = unit.rpartition(".")[0]
            match = re.fullmatch(r"uwsgi-([a-z][a-z0-9_-]*)(?:@[0-9a-f]*)?", stem)
            companion = re.fullmatch(r"django-([a-z][a-z0-9_-]*)\..*", stem)
            if stem == service or any(each and each[1] in sites for each in (match, companion)):
                errors.append(
                    meaning_error(
                        (*path, "units"),
                        f"{unit!r}, a unit that the formula runs",
                        "the unit that served the site before the formula",
                    )
                )
        for file in asked["files"]:
            inside = file.removeprefix(f"{tree}/")
            whose = re.fullmatch(r"sites-enabled/([^/]+)\.conf", inside)
            other = files.setdefault(file, name)
            wrong = None
            if inside == file:
                wrong = f"{file!r}, which is not in {tree}"
            elif inside in ("nginx.conf", _OURS):
                wrong = f"{file!r}, which nginx cannot do without"
            elif inside.startswith("sites-available/"):
                wrong = f"{file!r}, which nginx does not read by that name"
            elif whose and whose[1] != name and whose[1] in sites:
                wrong = f"{file!r}, the file of the site {whose[1]}"
            elif other != name:
                wrong = f"{file!r}, which the site {other} has too"
            if wrong:
                errors.append(
                    meaning_error(
                        (*path, "files"),
                        wrong,
                        f"a file that nginx reads, such as {tree}/conf.d/old.conf or an entry of "
                        f"{tree}/sites-enabled, named by one site",
                    )
                )
        for socket in asked["sockets"]:
            if socket in own_sockets:
                errors.append(
                    meaning_error(
                        (*path, "sockets"),
                        f"{socket!r}, the socket of the site {own_sockets[socket]}",
                        "the socket of the server before; the site needs another socket:path",
                        "leave socket:path out",
                    )
                )
