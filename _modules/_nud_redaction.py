"""
Hiding the secrets of a site's environment in what its programs print.
"""

import json
import re
import urllib.parse
from typing import Any

_HIDDEN = "**********"


def redact(env: dict[str, Any], text: str) -> str:
    """
    Hide the values of a site's environment that could be secrets.

    env
        the pillar's ``project:env`` of the site
    text
        what a program of the site printed

    Returns the text with ``**********`` in the place of each such value.
    """
    secrets = set()
    for key, value in env.items():
        value = value if isinstance(value, str) else json.dumps(value)
        if _is_address(key, value):
            continue
        secrets |= {value, repr(value)[1:-1]}
        try:
            password = urllib.parse.urlsplit(value).password
        except ValueError:
            password = None
        if password:
            secrets |= {password, urllib.parse.unquote(password)}
    # Hiding `1`, `True` or `en` would protect nothing and make the rest unreadable.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 4 and secret.lower() not in ("false", "debug"):
            text = text.replace(secret, _HIDDEN)
    return text


def _is_address(key: str, value: str) -> bool:
    """Whether a variable is a path or a host, by its name and its value: messages need those."""
    path = bool(re.fullmatch(r"/[A-Za-z0-9._/-]*", value))
    if re.search(r"(?i)(?:HOST|PORT|ADDR)$", key):
        return path or bool(re.fullmatch(r"[A-Za-z0-9.:-]+", value))
    return path and bool(re.search(r"(?i)(?:DIR|PATH|FILE|ROOT|SOCKET|HOME)$", key))
