"""
What the formula found in nginx's tree and will give back: files of other people at a site's place, the
distribution's welcome page, the former user.
"""

import hashlib
import json
import os
import posixpath
import stat
from collections.abc import Mapping
from typing import Any

from _nud_durable_file import read
from _nud_nginx_files import Wanted, is_owned, is_secret, link_target, points_at, text_of

# What was found, in a line of COMMON: it comes and goes in the same transaction as its subject.
_RECORD = "# Found here before: "


# How the name of a file ends that is kept aside, because a site needs its place.
_ASIDE = ".nginx_uwsgi_django"


def pristine(path: str) -> bool:
    """
    Whether a configuration file is byte by byte the one of its Debian package.

    path
        its absolute path

    Returns True or False.
    """
    contents = read(path)
    if contents is None:
        return False
    digest = hashlib.md5(contents, usedforsecurity=False).hexdigest()
    try:
        with open("/var/lib/dpkg/status", encoding="utf-8", errors="replace") as status:
            return any(line.split()[:2] == [path, digest] for line in status if path in line)
    except FileNotFoundError:
        return False


def record_of(common: bytes | None) -> dict[str, Any]:
    """
    What the formula found here.

    common
        the content of COMMON, the formula's own file in ``conf.d``

    Returns ``user`` (the former arguments of that directive; None without), ``default_link``,
    ``default_conf`` and ``replaced``, each where there was such a thing.
    """
    for line in text_of(common).splitlines():
        if line.startswith(_RECORD):
            try:
                found = json.loads(line[len(_RECORD) :])
            except ValueError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def displace_defaults(
    base: str, shown: str, plan: dict[str, Wanted], record: dict[str, Any]
) -> None:
    """
    Plan to take the distribution's welcome page out of what nginx reads, and record it.

    base, shown
        the directory of the tree, without links and as the pillar names it
    plan
        what is to be where; it is changed
    record
        what was found here; it is changed
    """
    default = "sites-enabled/default"
    if points_at(base, shown, default, "sites-available/default"):
        record["default_link"] = link_target(base, default)
        plan[default] = Wanted("absent")
    stock = os.path.join(base, "conf.d/default.conf")
    if os.path.lexists(stock) and pristine(stock):
        record["default_conf"] = True
        plan["conf.d/default.conf"] = Wanted("absent")
        plan[f"conf.d/default.conf{_ASIDE}"] = Wanted("file", read(stock) or b"")


def replace_defaults(base: str, plan: dict[str, Wanted], record: Mapping[str, Any]) -> None:
    """
    Plan to put back what :py:func:`displace_defaults` took out.

    base
        the directory of the tree
    plan
        what is to be where; it is changed
    record
        what was found here
    """
    link = "sites-enabled/default"
    available = os.path.lexists(os.path.join(base, "sites-available/default"))
    if record.get("default_link") and available and not os.path.lexists(os.path.join(base, link)):
        plan[link] = Wanted("link", target=record["default_link"])
    aside = f"conf.d/default.conf{_ASIDE}"
    contents = read(os.path.join(base, aside))
    if record.get("default_conf") and contents is not None:
        plan[aside] = Wanted("absent")
        if not os.path.lexists(os.path.join(base, "conf.d/default.conf")):
            plan["conf.d/default.conf"] = Wanted("file", contents)


def line_of(record: dict[str, Any]) -> str:
    """
    The record as a line of COMMON.

    record
        as :py:func:`record_of` returns it

    Returns the line.
    """
    return _RECORD + json.dumps(record, sort_keys=True)


def _aside(path: str) -> str:
    """Where a file of the tree is kept: where nginx reads nothing, whatever it includes."""
    mark = ".enabled" if posixpath.dirname(path) == "sites-enabled" else ""
    return f"sites-available/{posixpath.basename(path)}{mark}{_ASIDE}"


def keep_aside(base: str, shown: str, plan: dict[str, Wanted], record: dict[str, Any]) -> None:
    """
    Plan to keep what is in the place of a site's file or link and is not the formula's, and record
    what it was.

    base, shown
        the directory of the tree, without links and as the pillar names it
    plan
        what is to be where; it is changed
    record
        what was found here; it is changed
    """
    new = set()
    for path, wanted in list(plan.items()):
        full = os.path.join(base, path)
        if wanted.kind not in ("file", "link") or posixpath.dirname(path) not in (
            "sites-available",
            "sites-enabled",
        ):
            continue
        target = link_target(base, path)
        if target is not None:
            available = f"sites-available/{posixpath.basename(path)}"
            ours = wanted.kind == "link" and points_at(base, shown, path, available)
            # A link to a file that is kept aside comes back with it, as it was written.
            if not ours or available in new:
                new.add(path)
                record.setdefault("replaced", {}).setdefault(path, {"link": target})
        elif os.path.isfile(full) and not is_owned(contents := read(full)):
            seen = os.lstat(full)
            new.add(path)
            record.setdefault("replaced", {}).setdefault(path, {"file": _aside(path)})
            plan[_aside(path)] = Wanted(
                "file",
                contents or b"",
                secret=is_secret(path),
                access=(stat.S_IMODE(seen.st_mode), seen.st_gid),
            )


def give_back(base: str, plan: dict[str, Wanted], record: dict[str, Any], name: str = "") -> None:
    """
    Plan to put back what was kept aside, where the plan takes away what the formula had put in its
    place; what is given back is struck off the record.

    base
        the directory of the tree
    plan
        what is to be where; it is changed
    record
        what was found here; it is changed
    name
        the site whose files these are; every site's by default
    """
    for path, was in list(record.get("replaced", {}).items()):
        if name and posixpath.basename(path).partition(".")[0] != name:
            continue
        there = os.path.lexists(os.path.join(base, path))
        if there and (path not in plan or plan[path].kind != "absent"):
            continue  # not the formula's any more
        if "link" in was:
            plan[path] = Wanted("link", target=was["link"])
        else:
            full = os.path.join(base, was["file"])
            contents = read(full)
            if contents is None:
                continue
            seen = os.lstat(full)
            access = (stat.S_IMODE(seen.st_mode), seen.st_gid)
            plan[path] = Wanted("file", contents, secret=is_secret(path), access=access)
            plan[was["file"]] = Wanted("absent", secret=is_secret(path))
        del record["replaced"][path]
    if not record.get("replaced", True):
        del record["replaced"]


def sentences(shown: str, due: dict[str, Wanted]) -> list[str]:
    """
    What is kept aside and what is given back with a change.

    shown
        the directory of the tree, as the pillar names it
    due
        the change

    Returns sentences.
    """
    told = []
    for path, wanted in due.items():
        if not path.endswith(_ASIDE) or posixpath.dirname(path) != "sites-available":
            continue
        name = posixpath.basename(path).removesuffix(_ASIDE)
        place = f"sites-available/{name}"
        if name.endswith(".enabled"):
            place = f"sites-enabled/{name.removesuffix('.enabled')}"
        if wanted.kind == "file":
            told.append(
                f"{shown}/{place} is not this formula's: it is kept as {shown}/{path}, and comes "
                "back when the site goes"
            )
        elif place in due:
            told.append(f"{shown}/{place} is again what it was before the formula")
    return told
