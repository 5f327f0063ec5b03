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

from salt.exceptions import CommandExecutionError

from _nud_durable_file import read
from _nud_nginx_files import COMMON, Wanted, is_owned, is_secret, link_target, points_at, text_of

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
    folder = posixpath.dirname(path)
    marks = {"sites-available": "", "sites-enabled": ".enabled"}
    mark = marks.get(folder, f".{folder.replace('/', '-')}")
    return f"sites-available/{posixpath.basename(path)}{mark}{_ASIDE}"


def _kept_file(full: str, path: str, contents: bytes) -> Wanted:
    seen = os.lstat(full)
    access = (stat.S_IMODE(seen.st_mode), seen.st_gid)
    return Wanted("file", contents, secret=is_secret(path), access=access)


def site_of(path: str, was: Mapping[str, Any]) -> str:
    """
    The site that a replaced file belongs to.

    path
        of the file in the tree
    was
        its entry in the record

    Returns the site's name.
    """
    return str(was.get("site") or posixpath.basename(path).partition(".")[0])


def put_aside(
    base: str,
    shown: str,
    plan: dict[str, Wanted],
    record: dict[str, Any],
    files: Mapping[str, str],
) -> None:
    """
    Plan to take files out of the tree that served sites before, keep them and record what they were.

    base, shown
        the directory of the tree, without links and as the pillar names it
    plan
        what is to be where; it is changed
    record
        what was found here; it is changed
    files
        the sites by the path of the file

    Raises CommandExecutionError for a file of the formula's own.
    """
    for path, name in files.items():
        full = os.path.join(base, path)
        if path in plan or not os.path.lexists(full):
            continue
        contents = read(os.path.realpath(full))
        if is_owned(contents):
            raise CommandExecutionError(
                f"nginx_uwsgi_django:sites:{name}:takeover:files: {shown}/{path} is this formula's "
                "own; expected a file that served the site before"
            )
        target = link_target(base, path)
        was = {"file": _aside(path)} if target is None else {"link": target}
        if target is None:
            plan[_aside(path)] = _kept_file(full, path, contents or b"")
        record.setdefault("replaced", {})[path] = {**was, "site": name}
        plan[path] = Wanted("absent", secret=is_secret(path))


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
            new.add(path)
            record.setdefault("replaced", {}).setdefault(path, {"file": _aside(path)})
            plan[_aside(path)] = _kept_file(full, path, contents or b"")


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
        if name and site_of(path, was) != name:
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
            plan[path] = _kept_file(full, path, contents)
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
    places = {_aside(path): path for path in due if not path.endswith(_ASIDE)}
    told = []
    for path, wanted in due.items():
        place = places.get(path)
        if place is None:
            continue
        if wanted.kind == "file":
            told.append(
                f"{shown}/{place} is not this formula's: it is kept as {shown}/{path}, and comes "
                "back when the site goes"
            )
        else:
            told.append(f"{shown}/{place} is again what it was before the formula")
    return told


def forgetting(common: bytes | None, name: str) -> dict[str, Wanted]:
    """
    The plan to delete what was kept of the files that a site has replaced.

    common
        the content of COMMON
    name
        the site

    Returns what is to be where.
    """
    record = record_of(common)
    plan: dict[str, Wanted] = {}
    for path, was in list(record.get("replaced", {}).items()):
        if site_of(path, was) == name:
            del record["replaced"][path]
            if "file" in was:
                plan[was["file"]] = Wanted("absent", secret=is_secret(path))
    if not record.get("replaced", True):
        del record["replaced"]
    line = f"{line_of(record)}\n" if record else ""
    text = "".join(
        line if each.startswith(_RECORD) else each
        for each in text_of(common).splitlines(keepends=True)
    )
    if common is not None:
        plan[COMMON] = Wanted("file", text.encode("utf-8", "surrogateescape"))
    return plan
