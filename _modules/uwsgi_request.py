"""
Requests to a uWSGI on its socket, without nginx.

.. versionadded:: 0.1.0
"""

from typing import Any

from _nud import uwsgi_protocol

__virtualname__ = "uwsgi_request"


def __virtual__() -> str:
    return __virtualname__


def get(
    socket_path: str,
    path: str = "/",
    host: str = "localhost",
    method: str = "GET",
    body: str = "",
    variables: dict[str, str] | None = None,
    timeout: float = 30,
) -> dict[str, Any]:
    """
    Send one request to a uWSGI, as nginx would.

    socket_path
        the uWSGI's socket, like ``/run/uwsgi/mysite.sock``
    path
        what is asked for, with its query string
    host
        the Host header
    method, body
        of the request
    variables
        further variables of the request, over those that this function sets
    timeout
        seconds that the whole answer may take

    Returns a mapping of ``status``, ``reason``, ``headers``, ``body`` (its beginning) and ``seconds``.

    Raises CommandExecutionError when no process listens there, when the connection is closed without
    an answer, when the time is over, or when the answer is not HTTP.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_request.get /run/uwsgi/mysite.sock / www.example.com
    """
    return uwsgi_protocol.get(
        socket_path, path, host, timeout, method=method, body=body, variables=variables
    )


def stats(socket_path: str, timeout: float = 10) -> dict[str, Any]:
    """
    Read the statistics of a uWSGI.

    socket_path
        its statistics socket
    timeout
        seconds that the answer may take

    Returns what uWSGI says, as a mapping.

    Raises CommandExecutionError when there is no answer, or not one of uWSGI's statistics.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_request.stats /run/uwsgi-mysite@4f2a9c01d7e3/stats.sock
    """
    return uwsgi_protocol.stats(socket_path, timeout)
