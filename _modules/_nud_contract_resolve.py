"""
From a pillar to settings: the platform's values, the pillar's over them, and what follows from both.
"""

import contextlib
import grp
import os
import pwd
import re
from typing import Any

from _nud_contract import PILLAR, REQUIRED_OF_SITE, SITE, SITE_NAME
from _nud_contract_host import GRAINS, KEYSERVER, PLATFORMS, SOURCES
from _nud_contract_schema import UNSET, Node, missing_error, safe_key
from _nud_contract_serving import listen_address


# --- From the pillar to the settings ----------------------------------------------------------
def _laid_over(base: Any, over: Any) -> Any:
    """``over`` merged over ``base``: mappings key by key, anything else replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        merged = dict(base)
        for key, value in over.items():
            merged[key] = _laid_over(base[key], value) if key in base else value
        return merged
    return over


def platform_values(grains: dict) -> dict:
    """What the platform says, by its grains, in the pillar's own shape."""
    values: dict = {}
    for each in GRAINS:
        for grain, wanted, more in PLATFORMS:
            if grain == each and grains.get(grain) == wanted:
                values = _laid_over(values, more)
    return values


def _primary_group(user: str) -> str:
    """
    The primary group of a user. One that does not exist yet will get a group of its own name
    (system_account makes it so).
    """
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def groups_of(user: str, group: str = "") -> list[str]:
    """
    The groups that a process has which runs as a user, as initgroups(3) gives them.

    user
        a name; one that does not exist yet will have a group of its own name
    group
        the name of the process's group; by default the user's primary group

    Returns their names, sorted.
    """
    first = group or _primary_group(user)
    try:
        numbers = os.getgrouplist(user, grp.getgrnam(first).gr_gid)
    except KeyError:
        return [first]
    found = {first}
    for number in numbers:
        with contextlib.suppress(KeyError):
            found.add(grp.getgrgid(number).gr_name)
    return sorted(found)


def may_connect(user: str, groups: list[str], socket: dict[str, Any]) -> bool:
    """
    Whether a process may connect to a socket, by the socket's owner, group and mode (unix(7)).

    user, groups
        the names of the process's user and of its groups
    socket
        ``owner``, ``group`` and ``mode`` (a quoted octal string)

    Returns True or False.
    """
    mode = int(socket["mode"], 8)
    # As the kernel does: only the first class that the process is in counts.
    if user == socket["owner"]:
        return user == "root" or bool(mode & 0o200)
    return user == "root" or bool(mode & (0o020 if socket["group"] in groups else 0o002))


def _concrete(name: str) -> str:
    """A host name that a server name answers to."""
    if name == "_":
        return "localhost"
    if name.startswith("*."):
        return f"health{name[1:]}"
    if name.endswith(".*"):
        return f"{name[:-2]}.localhost"
    return name.lstrip(".")


def _tls_source(tls: dict) -> str | None:
    """Where a site's certificate comes from: acme, pillar, path; None: it has none."""
    if tls["acme"]:
        return "acme"
    if tls["certificate"] is None:
        return None
    return "path" if tls["certificate"].startswith("/") else "pillar"


def _with_port(listen: int | str, port: int) -> int | str:
    """The same address, and the same default_server, on another port."""
    return port if isinstance(listen, int) else re.sub(r"[0-9]+( |$)", rf"{port}\1", listen)


def _derive(name: str, site: dict, nginx_group: str) -> dict:
    """Put in what follows from other values, and the name."""
    project, uwsgi, socket, health = (
        site["project"],
        site["uwsgi"],
        site["socket"],
        site["health"],
    )
    if project["path"] is UNSET:
        project["path"] = f"/srv/{name}"
    if project["user"] is UNSET:
        project["user"] = name
    if project["group"] is UNSET:
        project["group"] = project["user"]
    if project["requirements"] is UNSET:
        project["requirements"] = None if project["venv"] else "requirements.txt"
    if uwsgi["package"] is UNSET:
        uwsgi["package"] = None if uwsgi["binary"] else "pyuwsgi==2.0.30.post1"
    if socket["path"] is UNSET:
        socket["path"] = f"/run/uwsgi/{name}.sock"
    if socket["group"] is UNSET:
        socket["group"] = nginx_group
    if site["server_names"] is UNSET:
        site["server_names"] = []
    if health["host"] is UNSET:
        names = site["server_names"]
        health["host"] = _concrete(names[0]) if names else "localhost"
    site["tls"]["source"] = _tls_source(site["tls"])
    if site["tls"]["listen"] is UNSET:
        site["tls"]["listen"] = [
            _with_port(listen, 443)
            for listen in site["listen"]
            if listen_address(listen)[1] == "80"
        ] or [443]
    # An absent site need not say what it runs.
    for key in ("wsgi", "settings"):
        if project[key] is UNSET:
            project[key] = None
    return {"name": name, **site}


def _derive_source(repo: dict, source: dict, ppa: str) -> None:
    """What a package source's description leaves open, and what messages call it."""
    words = {"ppa": ppa, "name": ppa.replace("/", "-")}
    if repo["uris"] is UNSET:
        repo["uris"] = source["address"].format(**words)
    repo["keys"] = [repo["key"]] if repo["key"] else []
    if not repo["keys"]:
        repo["keys"] = [KEYSERVER.format(fingerprint) for fingerprint in repo["fingerprints"]]
    default = source["address"].format(**words) if source["address"] else source["uris"]
    repo["home"] = default.split("/")[2]
    repo["title"], repo["origin"] = (source[key].format(**words) for key in ("title", "origin"))


def resolve(taken: dict, grains: dict) -> dict:
    """The settings: the platform's values, the pillar's over them, and the defaults beneath."""
    values = _laid_over(platform_values(grains), taken)
    nginx = PILLAR.keys["nginx"].fill(values.get("nginx", {}))
    if nginx["repo"] is UNSET:
        nginx["repo"] = "distro"
    present = [
        name for name, site in values.get("sites", {}).items() if not site.get("absent", False)
    ]
    if nginx["health"] and nginx["health"]["site"] is UNSET:
        nginx["health"]["site"] = present[0] if present else None
    lookup = PILLAR.keys["lookup"].fill(values.get("lookup", {}))
    for kind, source in SOURCES.items():
        _derive_source(lookup["repos"][kind], source, nginx["ppa"])
    group = nginx["group"] = _primary_group(nginx["user"])
    defaults = values.get("site_defaults", {})
    sites = {}
    for name, site in values.get("sites", {}).items():
        sites[name] = _derive(name, SITE.fill(_laid_over(defaults, site)), group)
    return {
        "lookup": lookup,
        "purge": values.get("purge", False),
        "clean": PILLAR.keys["clean"].fill(values.get("clean", {})),
        "schedule": PILLAR.keys["schedule"].fill(values.get("schedule", {})),
        "nginx": nginx,
        "ec2": PILLAR.keys["ec2"].fill(values.get("ec2", {})),
        "rollout": PILLAR.keys["rollout"].fill(values.get("rollout", {})),
        "acme": PILLAR.keys["acme"].fill(values.get("acme", {})),
        "site_defaults": defaults,
        "sites": sites,
    }


# --- Errors that no schema can see ------------------------------------------------------------
def missing_of_sites(raw: dict, errors: list) -> None:
    """What a site needs and neither it nor site_defaults says."""
    defaults = raw.get("site_defaults")

    def there(tree: Any, keys: tuple[str, ...]) -> bool:
        for key in keys:
            if not isinstance(tree, dict) or key not in tree:
                return False
            tree = tree[key]
        return True

    wanted = [keys for keys in REQUIRED_OF_SITE if not there(defaults, keys)]
    for name, site in raw["sites"].items():
        if not isinstance(site, dict) or site.get("absent") is True:
            continue
        if not isinstance(name, str) or SITE_NAME.wrong(name):
            continue  # the name has been reported, and what is under it may be anything
        for keys in wanted:
            if there(site, keys):
                continue
            parent: Any = site
            for key in keys[:-1]:
                parent = parent.get(key, {}) if isinstance(parent, dict) else None
            if not isinstance(parent, dict):
                continue  # its wrong type has been reported
            node: Node = SITE
            for key in keys:
                node = node.keys[key]  # type: ignore[attr-defined]
            errors.append(missing_error(("sites", safe_key(name), *keys), node))
