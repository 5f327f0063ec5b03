"""
Users and groups of the host, each looked up once in a cache session.
"""

import grp
import pwd
import re

from _nud_cache import active, once


def _local(database: str) -> dict[str, list[str]]:
    """
    The rows of /etc/passwd or /etc/group by name, inside of a session: glibc reads the whole file for
    every question, so that a thousand sites take a thousand times as long as one.

    Empty where nsswitch.conf(5) has other sources before the files.
    """
    if not active():
        return {}

    def look() -> dict[str, list[str]]:
        try:
            with open("/etc/nsswitch.conf", encoding="utf-8", errors="replace") as sources:
                if not re.search(rf"^\s*{database}:\s*files\b", sources.read(), re.MULTILINE):
                    return {}
            with open(f"/etc/{database}", encoding="utf-8", errors="surrogateescape") as table:
                rows = [line.rstrip("\n").split(":") for line in table]
        except FileNotFoundError:
            return {}
        width, last = {"passwd": (7, 4), "group": (4, 3)}[database]
        # As in glibc, the first row of a name counts, and a malformed row is skipped.
        return {
            row[0]: row
            for row in reversed(rows)
            if len(row) == width
            and row[0][:1] not in ("", "+", "-")
            and all(number.isdigit() for number in row[2:last])
        }

    found: dict[str, list[str]] = once(("local", database), look)
    return found


def user(name: str) -> pwd.struct_passwd | None:
    """
    A user of the host.

    name
        the user's name

    Returns its entry of passwd(5); None without such a user.
    """

    def look() -> pwd.struct_passwd | None:
        row = _local("passwd").get(name)
        if row is not None:
            account, word, uid, gid, comment, home, shell = row
            return pwd.struct_passwd((account, word, int(uid), int(gid), comment, home, shell))
        try:
            return pwd.getpwnam(name)
        except KeyError:
            return None

    found: pwd.struct_passwd | None = once(("user", name), look)
    return found


def group(name: str) -> grp.struct_group | None:
    """
    A group of the host.

    name
        the group's name

    Returns its entry of group(5); None without such a group.
    """

    def look() -> grp.struct_group | None:
        row = _local("group").get(name)
        if row is not None:
            group, word, gid, members = row
            return grp.struct_group((group, word, int(gid), members.split(",") if members else []))
        try:
            return grp.getgrnam(name)
        except KeyError:
            return None

    found: grp.struct_group | None = once(("group", name), look)
    return found


def name_of(kind: str, number: int) -> str:
    """
    The name of a user or a group of the host.

    kind
        ``user`` or ``group``
    number
        its number

    Returns its name; the number itself, as text, where no account has it.
    """

    def look() -> str:
        try:
            return pwd.getpwuid(number).pw_name if kind == "user" else grp.getgrgid(number).gr_name
        except KeyError:
            return str(number)

    return str(once(("name", kind, number), look))
