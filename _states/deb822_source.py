"""
nginx's package source is the one of the pillar: signed by pinned keys, and tried by apt before.

.. code-block:: yaml

    'nginx: package source':
      deb822_source.present:
        - name: nginx

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "deb822_source"


def __virtual__() -> str:
    return __virtualname__


def present(name: str) -> dict[str, Any]:
    """
    The source is in place, its keyring holds pinned keys and no others, and no other source of the
    formula is there.

    name
        ``ppa``, ``nginx.org``, ``distro`` (no source of the formula); ``nginx`` is the one of the
        pillar, and the comment says why where ``nginx:repo`` is ``auto``

    Returns the usual dictionary.  When the source has no suite for this release, the key is not the
    pinned one, or apt cannot update from the source, the result is False with the reason, and nothing
    has changed.  A dry run fetches the key
    and lets apt try the source, in temporary directories.
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        chosen = __salt__["deb822_source.choice"]() if name == "nginx" else None
        kind = chosen["kind"] if chosen else name
        changes = __salt__["deb822_source.ensure"](kind, saltenv=__env__, test=test)
        if changes and not test:
            rest = __salt__["deb822_source.diff"](kind, saltenv=__env__)
            if rest:
                raise CommandExecutionError(f"this did not stay in place: {', '.join(rest)}")
    except CommandExecutionError as error:
        ret["result"], ret["comment"] = False, f"{error}"
        return ret
    except OSError as error:
        ret["result"], ret["comment"] = False, f"{error.filename}: {error.strerror}"
        return ret
    ret["changes"] = changes
    if not changes:
        ret["comment"] = "The package source is in place"
    elif test:
        ret["result"] = None
        ret["comment"] = "apt accepts the package source; it would be put in place"
    else:
        ret["comment"] = "apt accepts the package source, and it is in place"
    if changes and all(change["new"] is None for change in changes.values()):
        ret["comment"] = f"The package source {'would be' if test else 'is'} removed"
    elif not changes and kind == "distro":
        ret["comment"] = "The formula has no package source here"
    if chosen:
        ret["comment"] += f". {chosen['why']}"
    old = __salt__["deb822_source.weak"]() if not test else []
    if old:
        ret["comment"] += (
            f"\nA pinned key is RSA-1024 or DSA, which apt of Ubuntu 24.04 and newer refuses or soon "
            f"will: {', '.join(old)}. 'deb822_source.ppa OWNER/NAME' names the key that Launchpad "
            "signs with today: pin that one alone"
        )
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    The formula's source, keyring and preferences are gone.

    name
        ``ppa`` or ``nginx.org``; ``nginx`` is both

    Returns the usual dictionary.
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        ret["changes"] = __salt__["deb822_source.remove"](name, test=test)
        if ret["changes"] and not test and __salt__["deb822_source.remove"](name, test=True):
            raise CommandExecutionError("it is still there")
    except CommandExecutionError as error:
        ret["result"], ret["comment"] = False, f"{error}"
        return ret
    except OSError as error:
        ret["result"], ret["comment"] = False, f"{error.filename}: {error.strerror}"
        return ret
    if not ret["changes"]:
        ret["comment"] = "The formula has no package source here"
    elif test:
        ret["result"] = None
        ret["comment"] = "The package source would be removed"
    else:
        ret["comment"] = "The package source is removed"
    return ret
