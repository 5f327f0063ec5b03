"""
The directories in which nginx's workers keep request bodies and answers for a moment.

nginx gives them to the user of its configuration when it reads it (ngx_create_paths() in
src/core/ngx_file.c), the top ones and not what is below. With another ``nginx:user`` the old workers,
which finish their requests, can write to the top ones no more, and the new ones not below: large
uploads and answers fail with 500. So before nginx reads a configuration with another user, both
users get access: the new one as the owner, the old one by its group.

.. versionadded:: 0.1.0
"""

import json
import os
import pwd
import time
from typing import Any

from salt.exceptions import CommandExecutionError

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import durable_file, nginx_program, nginx_user

__virtualname__ = "nginx_temporary"


def __virtual__() -> str:
    return __virtualname__


def _note() -> str:
    """The directories that two users have access to: written before the first of them changes."""
    directory = __salt__["site_pillar.settings"]()["lookup"]["state_dir"]
    return os.path.join(directory, "nginx-temporary.json")


def _tree() -> str:
    return os.path.realpath(__salt__["site_pillar.settings"]()["lookup"]["nginx_dir"])


def _noted() -> list[str]:
    text = durable_file.read(_note())
    found: list[str] = json.loads(text) if text else []
    return found


def _former(user: str) -> dict[str, Any] | None:
    """The account that nginx runs as, where it is not this user's."""
    found = [each for each in __salt__["socket_access.accounts"]() if each["user"] != user]
    return min(found, key=lambda each: bool(each["finishing"])) if found else None


def _each(paths: list[str], act: Any) -> list[str]:
    """
    The directories at and below some paths for which an act on their descriptor was due.

    By descriptor: nginx's workers, who own the directories, may put a link in the place of one.
    """
    done = []
    for top in paths:
        if not os.path.isdir(top) or os.path.islink(top):
            continue
        for path, _, _, handle in os.fwalk(top, follow_symlinks=False):
            if act(handle, path == top):
                done.append(path)
    return done


def shared(user: str | None = None, test: bool = False) -> list[str]:
    """
    Give the user that nginx runs as and its next one access to its temporary directories.

    user
        the next one; by default the pillar's
    test
        change nothing

    Returns the directories that were changed; empty where the two are the same user.

    Raises CommandExecutionError when the next user does not exist, or systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_temporary.shared test=True
    """
    user = user or __salt__["socket_access.desired"]()["user"]
    former = _former(user)
    if former is None:
        return []
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        if test:
            return []
        raise CommandExecutionError(f"the user {user!r} does not exist") from None
    paths = [
        path
        for path in nginx_program.temporary(_tree())
        # Others are not nginx's yet: it will make them for its new user.
        if os.stat(path).st_uid in (former["uid"], uid)
    ]

    def share(handle: int, top: bool) -> bool:
        seen = os.fstat(handle)
        # The top ones nginx itself gives to the user that it starts with.
        owner = seen.st_uid if top else uid
        if (seen.st_uid, seen.st_gid, seen.st_mode & 0o770) == (owner, former["gid"], 0o770):
            return False
        if not test:
            # In this order the former user has access at every instant.
            os.fchown(handle, -1, former["gid"])
            os.fchmod(handle, 0o770)
            os.fchown(handle, owner, -1)
        return True

    if not test and paths:
        note = _note()
        durable_file.directory(os.path.dirname(note))
        text = json.dumps(sorted({*paths, *_noted()}))
        durable_file.write(note, f"{text}\n", mode="0600")
    return _each(paths, share)


def settled(user: str | None = None, test: bool = False) -> list[str]:
    """
    Take the access to nginx's temporary directories back from users that it had before.

    user
        the one that nginx runs as from now on; by default the pillar's
    test
        change nothing

    Returns the directories that were changed; empty while nginx still runs as another user.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_temporary.settled test=True
    """
    paths = _noted()
    if not paths:
        return []
    user = user or __salt__["socket_access.desired"]()["user"]
    if _former(user) is not None:
        return []
    uid = pwd.getpwnam(user).pw_uid

    def settle(handle: int, _: bool) -> bool:
        seen = os.fstat(handle)
        if (seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (uid, 0, 0o700):
            return False
        if not test:
            os.fchown(handle, uid, 0)
            os.fchmod(handle, 0o700)
        return True

    done = _each(paths, settle)
    if not test:
        durable_file.remove(_note())
    return done


def returned(timeout: float = 10) -> list[str]:
    """
    Take the access to nginx's temporary directories back from all users but the one of the
    configuration on the disk, whatever the pillar says.

    timeout
        seconds that workers of other users may take to finish their requests; where one takes longer
        its user keeps its access

    Returns the directories that were changed.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_temporary.returned timeout=30
    """
    user = nginx_user.configured(_tree())
    if user is None:
        return []
    deadline = time.monotonic() + timeout
    while _former(user[0]) is not None and time.monotonic() < deadline:
        time.sleep(0.2)
    return settled(user[0])
