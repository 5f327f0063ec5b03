"""
The text of a pillar: keys in order, a comment for each choice, secrets left out where they are to be.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_BARE = re.compile(r"[A-Za-z/][A-Za-z0-9_./@-]*")
# What YAML has no place for, or takes for the end of a line.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_WORDS = re.compile(r"(?i)y|n|yes|no|on|off|true|false|null|none")


class Secret(NamedTuple):
    """A value that is written only when asked for, and where it was read."""

    value: str
    name: str
    source: str

    def shown(self, secrets: bool) -> str:
        # The contract refuses this text: a site must not run with it (_nud_contract_project.py).
        return self.value if secrets else f"<the value of {self.name} in {self.source}>"


class Entry(NamedTuple):
    """A key of the pillar, below ``nginx_uwsgi_django``, its value and why."""

    keys: tuple[str, ...]
    value: Any
    comment: str


def scalar(value: Any) -> str:
    """A value in YAML, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(scalar(one) for one in value) + "]"
    text = str(value)
    if _BARE.fullmatch(text) and not _WORDS.fullmatch(text):
        return text
    if _UNPRINTABLE.search(text):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + _UNPRINTABLE.sub(lambda one: f"\\u{ord(one[0]):04x}", escaped) + '"'
    return "'" + text.replace("'", "''") + "'"


def comment(text: str, indent: str) -> list[str]:
    """A comment, broken into lines."""
    lines: list[str] = []
    line = ""
    for word in " ".join(text.split()).split(" "):
        if line and len(indent) + len(line) + len(word) > 95:
            lines.append(f"{indent}# {line}")
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, f"{indent}# {line}"]


def render(entries: Iterable[Entry], head: Iterable[str], secrets: bool) -> str:
    """
    The pillar's text.

    entries
        the keys, those of one mapping one after another
    head
        paragraphs that come first
    secrets
        whether secrets are written; else a text that says where each stands
    """
    # No Jinja: what stands on the host may hold its braces.
    lines = ["#!yaml"]
    for text in head:
        lines += comment(text, "") if text else [""]
    lines += ["", "nginx_uwsgi_django:"]
    above: tuple[str, ...] = ()
    for entry in entries:
        keys = entry.keys
        same = 0
        while same < min(len(above), len(keys) - 1) and above[same] == keys[same]:
            same += 1
        for depth in range(same, len(keys) - 1):
            lines.append(f"{'  ' * (depth + 1)}{scalar(keys[depth])}:")
        above = keys[:-1]
        indent = "  " * len(keys)
        if entry.comment:
            lines += comment(entry.comment, indent)
        value = entry.value
        if isinstance(value, Secret):
            value = value.shown(secrets)
        key = f"{indent}{scalar(keys[-1])}:"
        if isinstance(value, str) and "\n" in value:
            lines.append(f"{key} |")
            lines += [f"{indent}  {line}".rstrip() for line in value.rstrip("\n").split("\n")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(key)
            lines += [f"{indent}  - {scalar(one)}" for one in value]
        else:
            lines.append(f"{key} {scalar(value)}")
    return "\n".join(lines) + "\n"
