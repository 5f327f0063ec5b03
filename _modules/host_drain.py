"""
A host that goes on serving and asks to be sent no more: the mark that a health location of nginx
looks for.

While ``/run/nginx_uwsgi_django/drain`` is there, a load balancer's health question is answered with
503, and every other request as before. The mark is one file, so that a person, Salt, a unit that
runs at shutdown and the operator's own tools can all set it, and whoever sees 503 finds the reason
in it. ``/run`` is empty after a boot: a host that comes back is no longer draining.

.. versionadded:: 0.1.0
"""

import os
import time
from typing import Any

from salt.exceptions import SaltInvocationError

__virtualname__ = "host_drain"

_MARK = "/run/nginx_uwsgi_django/drain"


def __virtual__() -> str:
    return __virtualname__


def mark() -> str:
    """
    The file that means: send no more.

    Returns its absolute path.

    CLI Example:

    .. code-block:: bash

        salt '*' host_drain.mark
    """
    return _MARK


def start(reason: str = "by hand") -> bool:
    """
    Ask to be sent no more requests; those that come are still served.

    reason
        one line for whoever wonders later

    Returns True when the mark was set, False when the host was draining already: the first reason
    and its time stay.

    Raises SaltInvocationError when the reason is not one line; OSError as the system says it.

    CLI Example:

    .. code-block:: bash

        salt web1 host_drain.start 'new kernel'
    """
    if not reason.strip() or not reason.isprintable():
        raise SaltInvocationError(f"the reason is one line of text, not {reason!r}")
    if os.path.lexists(_MARK):
        return False
    # Anybody may look: nginx's workers do.
    __salt__["durable_file.directory"](os.path.dirname(_MARK))
    return __salt__["durable_file.write"](_MARK, f"{reason.strip()}\n")


def stop() -> bool:
    """
    Take requests again.

    Returns True when the mark was taken away, False when there was none.

    Raises OSError when something that is no file has its name.

    CLI Example:

    .. code-block:: bash

        salt web1 host_drain.stop
    """
    return __salt__["durable_file.remove"](_MARK)


def status() -> dict[str, Any]:
    """
    Whether the host is draining.

    Returns ``draining`` (True or False), ``reason`` (text; None when it is not draining) and
    ``seconds`` (since when; None when it is not draining).

    CLI Example:

    .. code-block:: bash

        salt '*' host_drain.status
    """
    try:
        since = os.lstat(_MARK).st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return {"draining": False, "reason": None, "seconds": None}
    # A mark that `touch` made is empty.
    reason = (__salt__["durable_file.read"](_MARK) or b"").decode("utf-8", "replace").strip()
    return {"draining": True, "reason": reason, "seconds": int(max(0, time.time() - since))}
