"""
Whether a site's uWSGI is healthy: the health question of the pillar, asked at a socket without nginx.

What an answer means is said in :py:mod:`site_visit <_modules.site_visit>`. A good answer is noted under
``/run``, together with the question: a later run asks again when the pillar has another question, or
when the host was booted since.

.. versionadded:: 0.1.0
"""

import json
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import cache, durable_file, uwsgi_preflight, uwsgi_protocol

__virtualname__ = "uwsgi_health"


def __virtual__() -> str:
    return __virtualname__


def _site(name: str) -> dict[str, Any]:
    found: dict[str, Any] = cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))
    return found


def question(name: str) -> dict[str, Any]:
    """
    The health question of a site, as nginx asks it: by HTTPS where visitors come by HTTPS.

    name
        the site

    Returns the arguments of :py:func:`uwsgi_request.get`, for the socket of the pillar.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_health.question mysite
    """
    site = _site(name)
    health, secure = site["health"], site["tls"]["source"] or site["load_balancer"]
    variables = {"HTTPS": "on", "REQUEST_SCHEME": "https", "HTTP_X_FORWARDED_PROTO": "https"}
    return {
        "socket_path": site["socket"]["path"],
        "path": health["path"],
        "host": health["host"],
        "timeout": health["timeout"],
        "variables": variables if secure else None,
    }


def spelled(name: str) -> str:
    """
    The health question of a site in words.

    name
        the site

    Returns text.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_health.spelled mysite
    """
    health = _site(name)["health"]
    return f"GET {health['path']} for {health['host']}"


def fault(name: str, answer: dict[str, Any]) -> str | None:
    """
    Why an answer to the health question does not mean that a site's uWSGI is healthy.

    name
        the site
    answer
        what :py:func:`uwsgi_request.get` returned

    Returns a sentence; None for a healthy answer.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_health.fault mysite '{"status": 500, "headers": {}}'
    """
    site, asked = _site(name), question(name)
    secure = bool(asked["variables"])
    url = f"{'https' if secure else 'http'}://{asked['host']}{asked['path']}"
    # The request itself says whether it came by HTTPS, whoever speaks it: nginx or a load balancer.
    visit = __salt__["site_visit.planned"](site, url, secure)
    why = __salt__["site_visit.fault"](visit, answer["status"], answer["headers"])
    if why and answer["status"] == 400:
        why += f" (Django's answer to a host that ALLOWED_HOSTS does not have: {visit['host']})"
    return f"{spelled(name)} {why}" if why else None


def ask(name: str, socket: str | None = None) -> float:
    """
    Ask a site's uWSGI the health question.

    name
        the site
    socket
        the socket to ask at; by default that of the pillar

    Returns the seconds that the answer took.

    Raises CommandExecutionError when there is no answer, or not a healthy one.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_health.ask mysite
    """
    asked = question(name)
    answer = uwsgi_protocol.get(**{**asked, "socket_path": socket or asked["socket_path"]})
    why = fault(name, answer)
    if why:
        raise CommandExecutionError(why)
    seconds: float = answer["seconds"]
    return seconds


# --- The note of a good answer ------------------------------------------------------------------


def _note(name: str) -> tuple[str, str]:
    """The file that has the question which was answered well, and the question of the pillar."""
    asked = question(name)
    words = [asked["host"], asked["path"], bool(asked["variables"])]
    text = json.dumps([*words, sorted(_site(name)["health"]["status"])])
    return f"{uwsgi_preflight.RUN}/{name}.health", text


def proven(name: str) -> bool:
    """
    Whether a site has answered the pillar's health question since the host was booted.

    name
        the site

    Returns True or False; False, too, where the pillar has another question than was answered.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_health.proven mysite
    """
    path, text = _note(name)
    return durable_file.read(path) == text.encode()


def note(name: str) -> None:
    """
    Note that a site has answered the pillar's health question.

    name
        the site

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_health.note mysite
    """
    path, text = _note(name)
    durable_file.directory(uwsgi_preflight.RUN)
    durable_file.write(path, text)


def forget(name: str) -> None:
    """
    Remove the note of a site's good answer, so that the next run asks again.

    name
        the site; the pillar need not have it any more

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_health.forget mysite
    """
    durable_file.remove(f"{uwsgi_preflight.RUN}/{name}.health")


def prove(name: str, test: bool = False) -> None:
    """
    Ask the running generation the pillar's health question, unless it was answered before.

    name
        the site
    test
        True: a good answer is not noted

    Raises CommandExecutionError when the answer is not healthy.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_health.prove mysite
    """
    if proven(name):
        return
    ask(name)
    if not test:
        note(name)
