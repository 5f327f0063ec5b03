"""
Errors that no schema can see: between two values, and between a value and the host.
"""

import grp
import json
import os
import pwd
import re
import stat
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import uwsgi_ini
from _nud_contract_host import SOURCES, STABLE, check_ingress
from _nud_contract_project import check_project
from _nud_contract_resolve import groups_of, may_connect
from _nud_contract_schema import listing, meaning_error, parents
from _nud_contract_serving import check_listen, check_serving, check_snippet
from _nud_contract_takeover import check_takeover
from _nud_contract_tls import check_tls
from _nud_contract_uwsgi import check_companion, check_limits


def check_host(raw: dict, grains: dict, errors: list) -> None:
    family, system = grains.get("os_family"), grains.get("os")
    if family != "Debian":
        errors.append(
            meaning_error(
                (),
                f"a host of the os_family {family or 'unknown'} ({system or 'unknown'})",
                "Debian or Ubuntu, the systems that the formula supports",
            )
        )
    nginx = raw.get("nginx")
    repo = nginx.get("repo") if isinstance(nginx, dict) else None
    only = SOURCES.get(repo, {}).get("system") if isinstance(repo, str) else None
    if only and system != only:
        errors.append(
            meaning_error(
                ("nginx", "repo"),
                f"{repo!r} on {system or 'an unknown system'}",
                f"nginx.org or distro: Launchpad builds the PPA for {only} alone",
            )
        )
    ppa = nginx.get("ppa", STABLE) if isinstance(nginx, dict) else STABLE
    tree: Any = raw
    for key in ("lookup", "repos", "ppa", "fingerprints"):
        tree = tree.get(key) if isinstance(tree, dict) else None
    if isinstance(ppa, str) and ppa != STABLE and tree is None:
        errors.append(
            meaning_error(
                ("lookup", "repos", "ppa", "fingerprints"),
                f"nothing, where nginx:ppa is {ppa!r}",
                "the full fingerprints of that PPA's keys, which "
                f"'salt-call --local deb822_source.ppa {ppa}' prints",
            )
        )


def _check_site(name: str, site: dict, nginx: dict, errors: list) -> None:
    """One site in itself."""
    path = ("sites", name)
    project, uwsgi, socket = site["project"], site["uwsgi"], site["socket"]
    if project["user"] == nginx["user"]:
        errors.append(
            meaning_error(
                (*path, "project", "user"),
                f"{project['user']!r}, the user of nginx",
                "a user of the site's own, so that nginx's workers and the site cannot read "
                "each other's files",
                "set project:user, or another nginx:user",
            )
        )
    elif project["group"] == nginx["group"]:
        errors.append(
            meaning_error(
                (*path, "project", "group"),
                f"{project['group']!r}, the group of nginx's workers",
                "a group of the site's own: nginx's group may connect to the sockets of all sites, "
                "and who connects there runs code as their users",
                "leave project:group out, or set another nginx:user",
            )
        )
    if uwsgi["binary"] and uwsgi["package"]:
        errors.append(
            meaning_error(
                (*path, "uwsgi", "binary"),
                "an executable as well as a package",
                "one of uwsgi:package and uwsgi:binary",
                "write package: null where site_defaults names one",
            )
        )
    if not uwsgi["binary"] and not uwsgi["package"]:
        errors.append(
            meaning_error(
                (*path, "uwsgi", "package"),
                "nothing (null), without a binary",
                "a package, or the path of an executable in uwsgi:binary",
            )
        )
    check_project(path, project, errors)
    mode = int(socket["mode"], 8)
    if not (mode & 0o022 or (mode & 0o200 and socket["owner"] == nginx["user"])):
        errors.append(
            meaning_error(
                (*path, "socket", "mode"),
                f"{socket['mode']!r}, with which nginx cannot connect",
                "a mode that lets the group write, like '0660'",
            )
        )
    elif not may_connect(
        nginx["user"],
        # The usual group: with a thousand sites /etc/group is not read for each.
        [nginx["group"]] if socket["group"] == nginx["group"] else groups_of(nginx["user"]),
        socket,
    ):
        errors.append(
            meaning_error(
                (*path, "socket", "group"),
                f"{socket['group']!r}, with which nginx's user {nginx['user']!r} cannot connect: "
                f"it is no member, or the mode {socket['mode']!r} does not let it write",
                f"{nginx['group']!r}, the primary group of nginx:user, or another group of it",
                "leave socket:group out: it follows nginx:user",
            )
        )
    check_limits((*path, "uwsgi", "limits"), uwsgi["limits"], errors)
    for option, value in uwsgi["options"].items():
        for why in uwsgi_ini.refused({option: value}):
            errors.append(
                meaning_error(
                    (*path, "uwsgi", "options", option),
                    "an option that cannot be set",
                    f"another one: {why.removeprefix(f'{option}: ')}",
                )
            )
    if project["env"].get("PYTHON_JIT", "0") != "0" and "jit" not in uwsgi["sandbox"]["allow"]:
        errors.append(
            meaning_error(
                (*path, "project", "env", "PYTHON_JIT"),
                "Python's compiler switched on, whose memory the sandbox does not let it execute",
                "uwsgi:sandbox:allow with jit, or no PYTHON_JIT",
            )
        )
    for name, companion in site["companions"].items():
        check_companion((*path, "companions", name), companion, errors)


#: Where a distribution, its packages and a run of theirs put units; /lib is a link to /usr/lib.
_UNIT_PLACES = ("/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/etc/init.d")


def _unit_files(settings: dict) -> dict[str, list[str]]:
    """What other units and scripts are called like a site's: the name behind uwsgi-, and where."""
    found: dict[str, list[str]] = {}
    for place in (settings["lookup"]["unit_dir"], *_UNIT_PLACES):
        try:
            entries = os.listdir(place)
        except OSError:
            continue
        for entry in entries:
            match = re.fullmatch(r"uwsgi-([^@.]+)@?(?:\.(?:service|socket))?", entry)
            if match:
                found.setdefault(match[1], []).append(f"{place}/{entry}")
    return found


def _is_ours(path: str, name: str) -> bool:
    """Whether a unit file is the formula's, by the sentence that each of them holds."""
    if os.path.islink(path):
        return False
    try:
        with open(path, "rb") as stream:
            return f'Django site "{name}"'.encode() in stream.read(4096)
    except OSError:
        return False


def _check_units(name: str, there: dict[str, list[str]], errors: list) -> None:
    """No site takes the place of a unit that somebody else put on the host."""
    others = [path for path in there.get(name, []) if not _is_ours(path, name)]
    if others:
        errors.append(
            meaning_error(
                ("sites", name),
                f"a name whose unit would hide {listing(sorted(others))}, which the formula did "
                "not make",
                "a name that is free, or that unit gone",
            )
        )


def _allocated(number: int) -> bool:
    """
    Whether a user or group number is a fixed one: Debian's policy (9.2.2) allocates 0 to 99 and
    60000 to 64999 itself; 65534 is nobody's, 65535 is none.
    """
    return number < 100 or 60000 <= number <= 65535


def _local_numbers(path: str) -> dict[str, int]:
    """The users of passwd(5), or the groups of group(5), with their numbers."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as table:
            rows = [line.split(":") for line in table]
    except FileNotFoundError:
        return {}
    return {row[0]: int(row[2]) for row in rows if len(row) > 3 and row[2].isdigit()}


def _account_numbers() -> dict[str, Any]:
    """
    How the numbers of users and groups are found. glibc reads the whole file for every question:
    with a thousand sites it is read once.
    """
    users, groups = _local_numbers("/etc/passwd"), _local_numbers("/etc/group")
    return {
        "user": lambda name: users.get(name) or pwd.getpwnam(name).pw_uid,
        "group": lambda name: groups.get(name) or grp.getgrnam(name).gr_gid,
    }


def _check_account(name: str, site: dict, numbers: dict[str, Any], errors: list) -> None:
    """No site runs as a user that the distribution itself defines, whatever it is called."""
    project = site["project"]
    for key, find in numbers.items():
        try:
            number = find(project[key])
        except KeyError:
            continue
        if _allocated(number):
            errors.append(
                meaning_error(
                    ("sites", name, "project", key),
                    f"{project[key]!r}, which has the number {number} on this host",
                    f"a {key} of the site's own: that number is one of the system's",
                )
            )


def _check_place(name: str, site: dict, errors: list) -> None:
    """
    Releases are written by root: to a directory that only root can put another one, or a link,
    in the place of.
    """
    path = site["project"]["path"]
    if not site["project"]["source"]:
        return
    for place in dict.fromkeys((path, os.path.realpath(path))):
        for step in (*parents(place), place):
            try:
                status = os.lstat(step)
            except OSError:
                break
            if stat.S_ISLNK(status.st_mode):
                writable = status.st_uid != 0
            else:
                writable = bool(
                    status.st_uid != 0
                    or status.st_mode & stat.S_IWOTH
                    or (status.st_mode & stat.S_IWGRP and status.st_gid != 0)
                )
            if writable:
                errors.append(
                    meaning_error(
                        ("sites", name, "project", "path"),
                        f"{path!r}, while others than root may change {step!r}",
                        "with a source, a directory that root alone can change, like "
                        f"/srv/{name}: root writes the releases there",
                    )
                )
                return


def _check_layout(name: str, site: dict, state_dir: str, errors: list) -> None:
    """No release is written among those of another deployment, nor inside those of a site."""
    path = site["project"]["path"]
    if not site["project"]["source"]:
        return
    for step in (*parents(path), path):
        place, inside = os.path.split(step)
        if inside in ("current", "releases", "shared") and _is_layout(place):
            errors.append(
                meaning_error(
                    ("sites", name, "project", "path"),
                    f"{path!r}, inside the releases or the data of what is deployed at {place!r}",
                    "with a source, a directory of the site's own",
                    f"name {place} itself, or another directory",
                )
            )
            return
    foreign = _foreign_layout(name, site, state_dir)
    if foreign:
        errors.append(
            meaning_error(
                ("sites", name, "project", "path"),
                f"{path!r}, which has {listing(foreign)} of a deployment that this formula did not "
                "make",
                "with a source, a directory without another deployment's releases",
                f"name another directory and copy the database and the uploads to its shared/data "
                f"and shared/media; or leave out project:source and name {path}/current, to run "
                "what is there; or move the old deployment away first",
            )
        )


def _is_layout(place: str) -> bool:
    return os.path.islink(f"{place}/current") and os.path.isdir(f"{place}/releases")


def _foreign_layout(name: str, site: dict, state_dir: str) -> list[str]:
    """What of releases, current and shared at a site's path is another deployment's."""
    path = site["project"]["path"]
    folder = f"{state_dir}/prepared/{name}"
    try:
        live = os.readlink(f"{path}/current")
    except OSError:
        live = f"{path}/current" if os.path.lexists(f"{path}/current") else ""
    ours = re.fullmatch(r"releases/([0-9a-f]{12})", live)
    try:
        with open(f"{folder}/places.json", encoding="utf-8") as stream:
            noted = path in json.load(stream)
    except (OSError, ValueError):
        # A formula that kept no such record has left one of each release.
        noted = ours is not None and os.path.exists(f"{folder}/release-{ours[1]}.json")
    if noted:
        return []
    found = []
    if live and not ours:
        found.append("current")
    try:
        with os.scandir(f"{path}/releases") as scan:
            others = [
                entry.name
                for entry in scan
                if not entry.name.startswith(".")
                and not entry.is_symlink()
                and (
                    not re.fullmatch(r"[0-9a-f]{12}", entry.name)
                    or entry.stat(follow_symlinks=False).st_uid != 0
                )
            ]
    except OSError:
        others = []
    found += [f"releases/{each}" for each in sorted(others)[:3]]
    if os.path.isdir(f"{path}/shared") and (owner := _owner(f"{path}/shared")):
        if owner not in ("root", site["project"]["user"]):
            found.append(f"shared (of {owner})")
    return found


def _owner(path: str) -> str | None:
    """The user that a file belongs to; None where its number is no account's."""
    try:
        return pwd.getpwuid(os.lstat(path).st_uid).pw_name
    except (KeyError, OSError):
        return None


def _check_lookup(lookup: dict, errors: list) -> None:
    """What root writes is not written where any user may put a file first."""
    for key in ("nginx_dir", "uwsgi_dir", "state_dir", "unit_dir"):
        try:
            status = os.stat(lookup[key])
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IWOTH:
            errors.append(
                meaning_error(
                    ("lookup", key),
                    f"{lookup[key]!r}, which is no directory, or one where any user may write",
                    "a directory that root alone can change",
                )
            )


def _homes_of_accounts() -> dict[str, str]:
    """The homes of this host's accounts, each with a user."""
    return {account.pw_dir.rstrip("/"): account.pw_name for account in pwd.getpwall()}


def _check_home(name: str, site: dict, homes: dict[str, str], errors: list) -> None:
    """No project is at a home, which holds more than a project."""
    path, user = site["project"]["path"], site["project"]["user"]
    owner = homes.get(path)
    # An account of the project's own may have its home there; a person's is below /home.
    if re.fullmatch(r"/home/[^/]+", path) or (owner and owner != user):
        errors.append(
            meaning_error(
                ("sites", name, "project", "path"),
                f"{path!r}, the home of {owner or 'a user'}",
                "a directory that holds the project and nothing else",
                f"name a directory in it, like {path}/{name}, or /srv/{name}",
            )
        )


def check_across(raw: dict, settings: dict, errors: list) -> None:
    """The sites against each other, against nginx and against what else is on the host."""
    _check_lookup(settings["lookup"], errors)
    check_ingress(settings["ec2"]["ingress"], ("ec2", "ingress"), errors)
    units = _unit_files(settings)
    listening: dict = {}
    folded: dict[str, str] = {}
    owned: dict[tuple[str, str], str] = {}
    paths: dict[str, str] = {}
    numbers = _account_numbers()
    homes = _homes_of_accounts()
    for name, site in settings["sites"].items():
        path = ("sites", name)
        plain = name.replace("_", "-")
        other = folded.setdefault(plain, name)
        if other != name:
            errors.append(
                meaning_error(
                    path,
                    f"a name that differs from the site {other} in - and _ alone",
                    "names that nobody mistakes for each other",
                )
            )
        _check_units(name, units, errors)
        if site["absent"]:
            continue
        _check_site(name, site, settings["nginx"], errors)
        check_tls(name, site, settings["acme"], errors)
        _check_account(name, site, numbers, errors)
        _check_place(name, site, errors)
        _check_home(name, site, homes, errors)
        _check_layout(name, site, settings["lookup"]["state_dir"], errors)
        check_listen(name, site, listening, errors)
        check_serving(name, site, settings["nginx"], errors)
        for keys, what in (
            (("project", "user"), "a user"),
            (("socket", "path"), "a socket"),
        ):
            value = site[keys[0]][keys[1]]
            other = owned.setdefault((what, value), name)
            if other != name:
                errors.append(
                    meaning_error(
                        (*path, *keys),
                        f"{value!r}, which the site {other} has too",
                        f"{what} of the site's own",
                    )
                )
        paths.setdefault(site["project"]["path"], name)
        if paths[site["project"]["path"]] != name:
            errors.append(
                meaning_error(
                    (*path, "project", "path"),
                    f"{site['project']['path']!r}, which the site "
                    f"{paths[site['project']['path']]} has too",
                    "a directory of the site's own",
                )
            )
    _check_nested(settings, paths, errors)
    check_takeover(settings, errors)
    check_snippet(("nginx", "snippet"), settings["nginx"]["snippet"], errors)
    health = settings["nginx"]["health"]
    there = [name for name, site in settings["sites"].items() if not site["absent"]]
    if health and there and health["site"] not in there:
        errors.append(
            meaning_error(
                ("nginx", "health", "site"),
                f"{health['site']!r}, which is no site",
                f"one of {listing(there, 'or')}",
            )
        )


def _check_nested(settings: dict, paths: dict[str, str], errors: list) -> None:
    """No site's project inside another's, and none in what a removal with its data removes."""
    for path, name in paths.items():
        for parent in parents(path):
            if parent in paths:
                errors.append(
                    meaning_error(
                        ("sites", name, "project", "path"),
                        f"{path!r}, inside {parent!r} of the site {paths[parent]}",
                        "a directory outside the other sites' projects",
                    )
                )
    if not settings["clean"]["data"]:
        return
    going = {
        site["project"]["path"]: name for name, site in settings["sites"].items() if site["absent"]
    }
    for path, name in paths.items():
        for parent in (path, *parents(path)):
            if parent in going:
                errors.append(
                    meaning_error(
                        ("sites", name, "project", "path"),
                        f"{path!r}, which goes with the absent site {going[parent]}, as "
                        "clean:data is true",
                        "a directory that stays",
                    )
                )


def name_by_instance(taken: dict, errors: list, facts: Callable[..., dict[str, Any]]) -> None:
    """
    Put the names that an EC2 instance has in the place of ``ec2:...``.

    facts
        ``ec2_instance.facts``; called only where a name begins so
    """
    defaults = taken.get("site_defaults", {})
    places: list[tuple[tuple[str, ...], dict]] = [(("site_defaults",), defaults)]
    places += [(("sites", name), site) for name, site in taken.get("sites", {}).items()]
    names: dict[str, str | None] | None = None
    for path, place in places:
        wanted = place.get("server_names", [])
        if place.get("absent") or not any(one.startswith("ec2:") for one in wanted):
            continue
        if names is None:
            try:
                endpoint = taken.get("ec2", {}).get("metadata")
                names = facts(endpoint).get("names", {})
            except CommandExecutionError as error:
                # Not without them: a site that lost its names would answer nobody.
                number = next(n for n, one in enumerate(wanted) if one.startswith("ec2:"))
                here = (*path, "server_names", number)
                errors.append(meaning_error(here, repr(wanted[number]), "an answer", str(error)))
                return
        found = [names.get(one[4:]) if one.startswith("ec2:") else one for one in wanted]
        # An instance's name may be written out beside it too.
        place["server_names"] = [one for one in dict.fromkeys(found) if one is not None]
        if not place["server_names"]:
            errors.append(
                meaning_error(
                    (*path, "server_names"),
                    f"{listing(wanted)}, none of which this host has",
                    "at least one name that it has",
                    "" if names else "the firmware does not say that it is an EC2 instance",
                )
            )
