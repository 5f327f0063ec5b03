"""
The ``user`` directive of nginx's main configuration, of which every other byte is the distribution's.
"""

import grp
import os
import pwd
import re

from _nud_durable_file import read
from _nud_nginx_language import directives, quote


def with_user(text: str, arguments: list[str]) -> tuple[str, list[str] | None]:
    """
    nginx.conf with another ``user`` directive, and every other byte as it was.

    text
        nginx.conf
    arguments
        of the directive: a user, perhaps a group

    Returns the text, and the arguments that it had before (None: no such directive).
    """
    for directive in directives(text):
        if directive.depth == 0 and directive.words[0] == "user":
            before = list(directive.words[1:])
            if _meaning(before) == _meaning(arguments):
                return text, before
            new = " ".join(quote(argument) for argument in arguments)
            if len(directive.spans) == 1:
                end = directive.spans[0][1]
                return text[:end] + " " + new + text[end:], before
            start, end = directive.spans[1][0], directive.spans[-1][1]
            return text[:start] + new + text[end:], before
    line = "user " + " ".join(quote(argument) for argument in arguments) + ";"
    newline = "\r\n" if "\r\n" in text else "\n"
    # The packages of nginx.org's source tarball ship "#user  nobody;": the place people look at.
    commented = re.search(r"^[ \t]*#[ \t]*user[ \t][^\n]*\n?", text, re.MULTILINE)
    if commented:
        place = commented.end()
        gap = "" if commented.group().endswith("\n") else newline
        return text[:place] + gap + line + newline + text[place:], None
    return line + newline + text, None


def without_user(text: str) -> str:
    """
    nginx.conf without the line that :py:func:`with_user` added.

    text
        nginx.conf

    Returns the text.
    """
    for directive in directives(text):
        if directive.depth == 0 and directive.words[0] == "user":
            start, end = directive.spans[0][0], directive.end
            rest = re.match(r"[ \t]*\r?\n", text[end:])
            return text[:start] + text[end + (rest.end() if rest else 0) :]
    return text


def _meaning(arguments: list[str]) -> tuple[str, ...]:
    # ngx_set_user(): without a second argument the group is the one of the user's own name.
    return (arguments[0], arguments[0]) if len(arguments) == 1 else tuple(arguments)


def arguments_of(user: str) -> list[str]:
    """
    The arguments of the ``user`` directive for an account.

    user
        its name

    Returns the user, and its group where that has another name.
    """
    try:
        group = grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return [user]
    return [user] if group == user else [user, group]


def configured(base: str) -> list[str] | None:
    """
    The user that the main configuration on the disk gives to nginx's workers.

    base
        the directory of nginx's tree

    Returns a list of the user's name and the group's, as nginx takes the directive ``user``; None
    where the file or the directive is missing.
    """
    text = (read(os.path.join(base, "nginx.conf")) or b"").decode("utf-8", "surrogateescape")
    for directive in directives(text):
        if directive.depth == 0 and directive.words[0] == "user" and len(directive.words) > 1:
            return list(_meaning(list(directive.words[1:])))
    return None
