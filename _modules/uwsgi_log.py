"""
The log file of a site's uWSGI, where the pillar asks for one instead of the journal.

systemd opens the file for appending, as root, and every generation inherits it as its output. So
the file's directory is root's, what a site writes can be put nowhere else, and two generations that
run side by side during a switch write to the same file, whole lines each. logrotate copies it and
empties it in place (``copytruncate``): what has it open goes on writing to the file of that name,
without a signal to anybody.

uWSGI could reopen a file of its own (``logto`` with ``touch-logreopen``), but only with its master
as the one that writes: the workers hand it their lines through a socket that does not wait
(``create_logpipe()`` in core/logging.c of 2.0.31). Of 20,000 lines written in one go 14,261 were
lost so, each an OSError in the application, and of a line of 20 KB all but the first 8 KiB; and a
file that cannot be opened again makes uWSGI reload itself. What ``copytruncate`` can lose are lines
written in the instant between the copy's end and the emptying.

.. versionadded:: 0.1.0
"""

import glob
import grp
import os
import pwd
import re
import shutil
import stat
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import accounts, cache, durable_file

__virtualname__ = "uwsgi_log"

# As nginx's log files on Debian: the service's own, and administrators' to read.
_GROUP = "adm"
_MODE = 0o640

# No more than that of a file's end is read.
_TAIL = 1 << 20


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    found: dict[str, Any] = cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))
    return found


def _directory(name: str) -> str:
    return f"{__salt__['site_pillar.settings']()['lookup']['uwsgi_log_dir']}/{name}"


def _rotation(name: str) -> str:
    return f"/etc/logrotate.d/uwsgi-{name}"


def path(name: str) -> str | None:
    """
    The file that a site's uWSGI writes to.

    name
        the site

    Returns a path, None where it writes to the journal (``sites:SITE:uwsgi:log:to``).

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_log.path mysite
    """
    if _site(name)["uwsgi"]["log"]["to"] == "journal":
        return None
    return f"{_directory(name)}/{name}.log"


def _rules(name: str, file: str) -> str:
    keep = _site(name)["uwsgi"]["log"]["keep"]
    return f"""\
# Managed by the Salt formula nginx_uwsgi_django (site {name}); edit the pillar, not this file.
"{file}" {{
    daily
    rotate {keep:d}
    dateext
    missingok
    notifempty
    compress
    delaycompress
    # Each generation that runs has this very file open.
    copytruncate
}}
"""


def _right(name: str, file: str) -> bool:
    """Whether the file is there with its owner, group and mode."""
    try:
        status = os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    owner = accounts.user(_site(name)["project"]["user"])
    group = accounts.group(_GROUP)
    return (
        owner is not None
        and group is not None
        and stat.S_ISREG(status.st_mode)
        and (status.st_uid, status.st_gid) == (owner.pw_uid, group.gr_gid)
        and stat.S_IMODE(status.st_mode) == _MODE
    )


def diff(name: str) -> dict[str, Any]:
    """
    What differs from the pillar of a site's log: the file with its owner, and its rotation; with the
    journal there is no rotation.

    name
        the site

    Returns a dictionary of changes, empty when nothing differs.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_log.diff mysite
    """
    file, rotation = path(name), _rotation(name)
    there = os.path.lexists(rotation)
    if file is None:
        return {rotation: {"old": "there", "new": None}} if there else {}
    changes: dict[str, Any] = {}
    if not _right(name, file):
        owner = _site(name)["project"]["user"]
        changes[file] = {
            "old": "of another owner or mode" if os.path.lexists(file) else None,
            "new": f"{owner}:{_GROUP} {_MODE:04o}",
        }
    if durable_file.differs(rotation, _rules(name, file)):
        changes[rotation] = {"old": "other content" if there else None, "new": "written"}
    return changes


def ensure(name: str) -> bool:
    """
    Bring a site's log to what the pillar says. An existing file stays the same file: a process that has
    it open goes on writing to it. A change to the journal leaves the files as they are.

    name
        the site

    Returns True when something was changed.

    Raises CommandExecutionError when the site's user does not exist, or something else is where the
    file or its directory shall be; OSError as the system says it.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_log.ensure mysite
    """
    if not diff(name):
        return False
    file = path(name)
    if file is None:
        return durable_file.remove(_rotation(name))
    user = _site(name)["project"]["user"]
    durable_file.directory(os.path.dirname(_directory(name)))
    durable_file.directory(_directory(name))
    try:
        owner, group = pwd.getpwnam(user).pw_uid, grp.getgrnam(_GROUP).gr_gid
    except KeyError as error:
        raise CommandExecutionError(str(error.args[0])) from None
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.fchown(handle, owner, group)
        os.fchmod(handle, _MODE)
    finally:
        os.close(handle)
    durable_file.write(_rotation(name), _rules(name, file))
    return True


def tail(name: str, lines: int = 50) -> list[str]:
    """
    The last lines of a site's log file.

    name
        the site
    lines
        how many at most; no more than the last MiB is looked at

    Returns a list of lines, the oldest first: also of the file that was rotated last, where the
    present one has not that many. Empty when there is no file.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_log.tail mysite 100
    """
    file = f"{_directory(name)}/{name}.log"
    found: list[str] = []
    for one in (file, *sorted(glob.glob(f"{file}-*[0-9]"), reverse=True)[:1]):
        if len(found) >= lines:
            break
        try:
            with open(one, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
                text = stream.read().decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        found = [*text.splitlines(), *found][-lines:]
    return found


def leftovers(name: str, data: bool = False) -> list[str]:
    """
    What is on the host of a site's log.

    name
        the site
    data
        the log files too, which are a record like a database

    Returns a list of paths, empty when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_log.leftovers mysite data=True
    """
    wanted = [_rotation(name), *(_logs(name) if data else [])]
    return [one for one in wanted if os.path.lexists(one)]


def _logs(name: str) -> list[str]:
    """The site's log directory, or the site's own files in it where it holds others, too."""
    folder = _directory(name)
    if not os.path.isdir(folder) or os.path.islink(folder):
        return []
    entries = sorted(os.listdir(folder))
    own = [entry for entry in entries if re.fullmatch(rf"{name}\.log([.-].*)?", entry)]
    return [folder] if own == entries else [f"{folder}/{entry}" for entry in own]


def remove(name: str, data: bool = False) -> bool:
    """
    Remove the rotation of a site's log.

    name, data
        as in :py:func:`leftovers`

    Returns True when something was removed.

    Raises OSError as the system says it.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_log.remove mysite
    """
    found = leftovers(name, data)
    durable_file.remove(_rotation(name))
    for each in found:
        if each == _directory(name):
            shutil.rmtree(each)
        elif each != _rotation(name):
            os.unlink(each)
    return bool(found)
