"""
States of a change of nginx's user (``nginx_uwsgi_django:nginx:user``), which loses no request.

Workers of the old user finish their requests while those of the new one take new connections. Both
need the sites' sockets and nginx's temporary directories, from before nginx reads the new user until
the last of the old workers has ended. Which users nginx has is read from its processes and from its
configuration on disk, never from what a run did: so a run may be killed at any instant, and nginx
may refuse the tree.

.. versionadded:: 0.1.0
"""

import time
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "nginx_user"


def __virtual__() -> str:
    return __virtualname__


def admitted(name: str) -> dict[str, Any]:
    """
    nginx has access as the user that it runs as, as the one of its configuration on disk and as the
    one of the pillar. To come before nginx's tree changes.

    name
        a label

    .. code-block:: yaml

        'nginx: socket access for the old and the new user':
          nginx_user.admitted:
            - name: nginx

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        with __salt__["host_survey.begun"]():
            changes = _sockets(narrow=False)
            shared = _shared()
        if changes and not test:
            __salt__["uwsgi_socket.admit"](list(changes))
        directories = __salt__["nginx_temporary.shared"](test=test)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    return _told(ret, changes, shared, directories)


def narrowed(name: str, timeout: float = 10) -> dict[str, Any]:
    """
    nginx has access as the user that it runs as, and no user that it had before has. To come after
    nginx has reloaded its tree.

    name
        a label
    timeout
        seconds that workers of the old user may take to finish their requests. Where one takes
        longer, the old user keeps its access until the next run.

    Where nginx has refused the tree or the reload, nothing changes.

    .. code-block:: yaml

        'nginx: socket access for its user only':
          nginx_user.narrowed:
            - name: nginx

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        deadline = time.monotonic() + (0 if test else timeout)
        while True:
            with __salt__["host_survey.begun"]():
                changes = _sockets(narrow=True)
                shared = _shared()
                finishing = shared and __salt__["socket_access.finishing"]()
            if not finishing or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if changes and not test:
            __salt__["uwsgi_socket.admit"](list(changes))
        directories = __salt__["nginx_temporary.settled"](test=test)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    return _told(ret, changes, shared, directories)


def returning(name: str) -> dict[str, Any]:
    """
    nginx has access to its temporary directories as the user that it had before the formula. To come
    before the formula's files leave nginx's tree, and the ``user`` line with them.

    name
        a label

    .. code-block:: yaml

        'nginx: socket access for the packaged user':
          nginx_user.returning:
            - name: nginx

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        before = __salt__["nginx_before.user"]()
        directories = __salt__["nginx_temporary.shared"](before[0], test=test) if before else []
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    return _told(ret, {}, {}, directories)


def returned(name: str, timeout: float = 10) -> dict[str, Any]:
    """
    Only the user that nginx had before the formula has access to its temporary directories. To come
    after nginx has read the tree without the formula.

    name
        a label
    timeout
        seconds that workers of the other user may take to finish their requests

    .. code-block:: yaml

        'nginx: socket access for the packaged user only':
          nginx_user.returned:
            - name: nginx

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    test = bool(__opts__["test"])
    try:
        directories = [] if test else __salt__["nginx_temporary.returned"](timeout)
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    return _told(ret, {}, {}, directories)


def _sites() -> list[str]:
    settings = __salt__["site_pillar.settings"]()["sites"]
    return [site for site, wanted in settings.items() if not wanted["absent"]]


def _sockets(narrow: bool) -> dict[str, Any]:
    """What has to change of the sites' sockets, by site."""
    opened = __salt__["uwsgi_socket.opened"]
    return {site: change for site in _sites() if (change := opened(site, narrow))}


def _shared() -> dict[str, list[str]]:
    """The users besides the pillar's that have access to a site's socket, by site."""
    shared = __salt__["uwsgi_socket.shared"]
    return {site: users for site in _sites() if (users := shared(site))}


def _told(
    ret: dict[str, Any],
    changes: dict[str, Any],
    shared: dict[str, list[str]],
    directories: list[str],
) -> dict[str, Any]:
    ret["changes"] = dict(changes)
    if directories:
        ret["changes"]["temporary directories"] = directories
    if shared:
        users = ", ".join(sorted({user for names in shared.values() for user in names}))
        ret["comment"] = (
            f"{users} has access as well, as nginx runs or would start as that user: "
            + ", ".join(shared)
        )
    else:
        ret["comment"] = "nginx's user has access, and no other user that it had"
    if ret["changes"] and __opts__["test"]:
        ret["result"] = None
    return ret
