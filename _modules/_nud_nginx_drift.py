"""
What other people change in the formula's own part of nginx's tree: a note of it, and the difference.
"""

import hashlib
import json
import os

from _nud_durable_file import directory, read, remove, write
from _nud_nginx_files import COMMON, Wanted, entries, is_owned, link_target


def _in_a_word(base: str, path: str, contents: bytes | None = None) -> str | None:
    """
    An entry of the tree in a word: where a link leads, the digest of a file, None for nothing.

    contents
        what is in the file, where that is known
    """
    target = link_target(base, path)
    if target is not None:
        return f"-> {target}"
    contents = read(os.path.join(base, path)) if contents is None else contents
    return None if contents is None else hashlib.sha256(contents).hexdigest()


def note(path: str, base: str, shown: str, plan: dict[str, Wanted]) -> None:
    """
    Note what of the tree is the formula's, right after it was put in place.

    path
        the file of the note
    base, shown
        the directory of the tree, without links and as the pillar names it
    plan
        what was put in place: none of its files has to be read again
    """
    noted = {}
    # Not the certificates: certbot renews them between two runs.
    for name in [*entries(base, "sites-available"), COMMON]:
        if name.endswith(".pem"):
            continue
        contents = plan[name].contents if name in plan else read(os.path.join(base, name))
        if is_owned(contents):
            noted[name] = _in_a_word(base, name, contents)
    leads = {f"-> {shown}/{name}" for name in noted}
    for name in entries(base, "sites-enabled"):
        if (now := _in_a_word(base, name)) in leads:
            noted[name] = now
    if not noted:
        remove(path)
        return
    directory(os.path.dirname(path))
    write(path, json.dumps(noted, indent=1) + "\n", mode="0600")


def drift(path: str, base: str, shown: str) -> dict[str, str]:
    """
    What of the noted files and links is not what it was.

    path
        the file of the note
    base, shown
        the directory of the tree, without links and as the pillar names it

    Returns by path what became of it; empty also without a note.
    """
    try:
        noted = json.loads(read(path) or b"{}")
    except ValueError as error:
        return {path: f"cannot be read: {error}"}
    found = {}
    for name, was in noted.items():
        now = _in_a_word(base, name)
        if now is None:
            found[f"{shown}/{name}"] = "is gone"
        elif now != was:
            leads = now.startswith("-> ")
            found[f"{shown}/{name}"] = f"leads to {now[3:]}" if leads else "was edited"
    return found
