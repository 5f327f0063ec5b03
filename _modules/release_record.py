"""
What is known on this host of a site's releases: where each came from, which were live and when,
which one stays by a rollback; and who is changing the site now.

Small files of root's, each whole or not there. Nothing of a site is lost with them but what an
operator could look up: the next run makes them anew.

.. versionadded:: 0.1.0
"""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from salt.exceptions import CommandExecutionError

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import cache, durable_file

__virtualname__ = "release_record"

_HISTORY = 50
_LIVE = "history.json"
_HELD = "rollback.json"
_PLACES = "places.json"
# No record: its name begins with a dot.
_LOCK = ".lock"
# The sites that are held in this process, each with the thread that does.
_MINE = "release_record.alone"


def __virtual__() -> str:
    return __virtualname__


def directory(name: str) -> str:
    """
    Where the records of a site are.

    name
        the site

    Returns an absolute path.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.directory mysite
    """
    state_dir = __salt__["site_pillar.settings"]()["lookup"]["state_dir"]
    return os.path.join(state_dir, "prepared", __salt__["site_pillar.named"](name))


def entries(name: str) -> list[str]:
    """
    The records of a site.

    name
        the site

    Returns their names, sorted.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.entries mysite
    """
    try:
        return sorted(entry for entry in os.listdir(directory(name)) if not entry.startswith("."))
    except FileNotFoundError:
        return []


def read(name: str, record: str) -> Any:
    """
    What a record says.

    name
        the site
    record
        its name

    Returns what was written, or None when it is not there or cannot be read as JSON: nothing is
    lost with it, all of it can be found out again.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.read mysite history.json
    """

    def look() -> Any:
        text = durable_file.read(os.path.join(directory(name), record))
        if text is None:
            return None
        try:
            return json.loads(text)
        except ValueError:
            return None

    return cache.once(("record", name, record), look)


def write(name: str, record: str, value: Any) -> bool:
    """
    Make a record say this.

    name
        the site
    record
        its name
    value
        what JSON can hold

    Returns True when it was written, False when it said so.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.write mysite note.json '{"a": 1}'
    """
    _make_directory(name)
    text = json.dumps(value, indent=1) + "\n"
    return durable_file.write(os.path.join(directory(name), record), text, mode="0600")


def _make_directory(name: str) -> None:
    folder = directory(name)
    if not os.path.isdir(folder):
        # One that the pillar has lost has its directory; any other name is a slip.
        __salt__["site_pillar.site"](name)
    durable_file.directory(os.path.dirname(folder), mode="0700")
    durable_file.directory(folder, mode="0700")


def forget(name: str, record: str) -> bool:
    """
    Remove a record.

    name
        the site
    record
        its name

    Returns True when it was there.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.forget mysite note.json
    """
    return durable_file.remove(os.path.join(directory(name), record))


def of_release(name: str, release: str) -> dict[str, Any]:
    """
    What is known of one release.

    name
        the site
    release
        its ID

    Returns a dictionary with any of ``source`` and ``revision`` (where it was fetched from) and
    ``migrations`` (see :py:func:`django_preparation.ensure`); empty when nothing is known.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.of_release mysite 4f2a9c01d7e3
    """
    return read(name, f"release-{release}.json") or {}


def add_to_release(name: str, release: str, **known: Any) -> bool:
    """
    Note something of a release, beside what is known of it.

    name
        the site
    release
        its ID
    known
        what to note

    Returns True when it was not noted before.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.add_to_release mysite 4f2a9c01d7e3 revision=v1.4.2
    """
    value = {"release": release, **of_release(name, release), **known}
    return write(name, f"release-{release}.json", value)


def places(name: str) -> list[str]:
    """
    The directories that hold, or held, a site's releases and its shared data.

    name
        the site

    Returns absolute paths, the oldest first.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.places mysite
    """
    return read(name, _PLACES) or []


def add_place(name: str, path: str) -> bool:
    """
    Note, before anything is made there, that a directory holds a site's releases.

    name
        the site
    path
        the directory, as ``project:path`` has it

    Returns True when it was not noted before.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.add_place mysite /srv/mysite
    """
    known = places(name)
    return path not in known and write(name, _PLACES, [*known, path])


# --- One at a time ------------------------------------------------------------------------------


@contextlib.contextmanager
def alone(name: str, what: str) -> Iterator[None]:
    """
    Keep everybody else from changing a site, in a ``with`` statement. Who has this may take it
    again.

    Salt itself keeps two runs of states apart, where they have one cache directory. It does not keep a
    run from a function, a function from another, nor one Salt on the host from another one.

    name
        the site
    what
        what is being done, for those who come meanwhile

    Raises CommandExecutionError, with who it is, when somebody does. The lock is the kernel's
    (flock(2)): it ends with the process that has it, however that ends.

    CLI Example:

    .. code-block:: bash

        salt '*' site_rollback.rollback mysite
    """
    mine = __context__.setdefault(_MINE, {})
    if mine.get(name) == threading.get_ident():
        yield
        return
    _make_directory(name)
    path = os.path.join(directory(name), _LOCK)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Empty when it has the lock and has not written yet who it is.
            holder = os.read(handle, 1000).decode() or "somebody"
            raise CommandExecutionError(
                f"{name} is being changed by {holder}. Nothing was done here: try again when that "
                "has ended"
            ) from None
        try:
            os.ftruncate(handle, 0)
            os.write(handle, f"{what} (process {os.getpid()}, since {_now()})".encode())
        except OSError as error:
            # A full disk does not say which.
            error.filename = path
            raise
        mine[name] = threading.get_ident()
        try:
            yield
        finally:
            del mine[name]
    finally:
        os.close(handle)


# --- What was live ------------------------------------------------------------------------------


def history(name: str) -> list[dict[str, Any]]:
    """
    What was live, the oldest first.

    name
        the site

    Returns dictionaries: ``release``, ``venv`` (its digest), ``at`` (since when) and ``back``
    (true: by a rollback, or by ``project:release`` in the pillar).

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.history mysite
    """
    return read(name, _LIVE) or []


def note_live(name: str, release: str, venv: str, back: bool) -> None:
    """
    Note that from now on a release is live.

    name
        the site
    release, venv, back
        as in :py:func:`history`

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.note_live mysite 4f2a9c01d7e3 0c2f9b7a5d11 false
    """
    entry = {"release": release, "venv": venv, "at": _now(), "back": back}
    write(name, _LIVE, [*history(name), entry][-_HISTORY:])


def recent(name: str, what: str, count: int) -> list[str]:
    """
    The releases, or their virtual environments, that were live last.

    name
        the site
    what
        ``release`` or ``venv``
    count
        how many at most

    Returns each once, the last first.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.recent mysite release 5
    """
    newest_first = [entry[what] for entry in reversed(history(name))]
    return list(dict.fromkeys(newest_first))[:count]


def way_back(name: str) -> list[str]:
    """
    The releases that served one after the other, without those that were gone back from: after
    two rollbacks in a row the next one leads further back, and not to what the first one left.

    name
        the site

    Returns IDs, the oldest first, the live one last. One can be there twice, where its source
    brought it twice.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.way_back mysite
    """
    way: list[str] = []
    for entry in history(name):
        release = entry["release"]
        if entry.get("back") and release in way:
            while way[-1] != release:
                way.pop()
        elif way[-1:] != [release]:
            way.append(release)
    return way


# --- What stays by a rollback --------------------------------------------------------------------


def held(name: str) -> dict[str, Any] | None:
    """
    The rollback that an operator has asked for.

    name
        the site

    Returns ``{"release", "left", "at"}``: the release to stay with as long as the source has one
    of those that were left, and since when; None when there is none.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.held mysite
    """
    return read(name, _HELD)


def hold(name: str, release: str, leave: str | None) -> None:
    """
    Note that a release stays, and another does not come back by itself.

    name
        the site
    release
        the release that stays; if it was left before, it is not any more
    leave
        the release that is left; None: none is

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.hold mysite 4f2a9c01d7e3 9b1d03c2aa70
    """
    left = {*(held(name) or {"left": []})["left"], *([leave] if leave else [])} - {release}
    if left:
        write(name, _HELD, {"release": release, "left": sorted(left), "at": _now()})
    else:
        let_go(name)


def let_go(name: str) -> bool:
    """
    Note that no release stays by a rollback any more.

    name
        the site

    Returns True when one did.

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.let_go mysite
    """
    return forget(name, _HELD)


def put_back(name: str, before: dict[str, Any] | None) -> None:
    """
    Undo :py:func:`hold`.

    name
        the site
    before
        what :py:func:`held` said before

    CLI Example:

    .. code-block:: bash

        salt '*' release_record.put_back mysite null
    """
    if before is None:
        let_go(name)
    else:
        write(name, _HELD, before)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
