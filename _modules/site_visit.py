"""
One request as a visitor sends it, and whether the answer means that the site is healthy.

Pure: what is asked stands in the visit, so that a host (:py:mod:`site_health
<_modules.site_health>`) and the master (``rollout_jobs``; ``_runners/site_visit.py`` is a link to
this file) judge by the same rule.

A visit is a dictionary:

``url``
    where nginx is asked; the host in it is an address
``host``
    the site's name: the Host header, and what the TLS handshake names (SNI)
``timeout``
    seconds
``status``
    a list of the statuses that are healthy
``names``
    the names of the site, as the pillar's ``server_names`` has them
``secure_ports``
    the ports where nginx speaks TLS for the site
``balanced``
    whether a load balancer in front may speak HTTPS in nginx's place
``secure``
    whether the application is to see this request as HTTPS
``closed``
    the answers by which nginx closes the site to visitors because the pillar says so; each with
    ``status``, ``header``, ``value`` and ``means``
``proof``
    optional: who is to answer: ``server``, the first name of the site's server in nginx, and
    ``generations``, the digests of the uWSGI generations that may answer (None: any). The templates
    show both to a request of the host itself that asks for them.

.. versionadded:: 0.1.0
"""

import concurrent.futures
import http.client
import ssl
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

__virtualname__ = "site_visit"

_PORTS = {"http": 80, "https": 443}
# The header by which a request asks who answers, and by which the site's server in nginx says it
# (http.conf.jinja).
_PROOF = "X-Nginx-Uwsgi-Django"
# Between two requests of one watcher, in seconds.
_PAUSE = 0.2


def __virtual__() -> str:
    return __virtualname__


def planned(
    site: dict[str, Any],
    url: str,
    secure: bool,
    secure_ports: Sequence[int] = (),
    balanced: bool = False,
    closed: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """
    The visit that asks whether a site is healthy.

    site
        as the pillar has it
    url, secure, secure_ports, balanced, closed
        of the visit

    Returns the visit.

    CLI Example (from another module: a site has many keys):

    .. code-block:: python

        __salt__["site_visit.planned"](site, "http://127.0.0.1/", False)
    """
    health = site["health"]
    return {
        "url": url,
        "host": health["host"],
        "timeout": health["timeout"],
        "status": list(health["status"]),
        "names": [*site["server_names"], *site["redirect_from"]],
        "secure_ports": list(secure_ports),
        "balanced": balanced,
        "secure": secure,
        "closed": list(closed),
    }


def _is_named(host: str, names: list[str]) -> bool:
    """Whether a host is one of a site's names, as nginx compares them: exact, or by an asterisk."""
    for name in names:
        lower = name.lower()
        if host == lower or (lower.startswith(".") and f".{host}".endswith(lower)):
            return True
        if lower.startswith("*.") and host.endswith(lower[1:]):
            return True
        if lower.endswith(".*") and host.startswith(lower[:-1]):
            return True
    return False


def _netloc(visit: dict[str, Any]) -> str:
    """The site as a visitor's browser names it: with the port, where that is not the usual one."""
    parts = urllib.parse.urlsplit(visit["url"])
    # A load balancer has ports of its own.
    if visit["balanced"] or parts.port in (None, _PORTS[parts.scheme]):
        return str(visit["host"])
    return f"{visit['host']}:{parts.port}"


def _redirected(visit: dict[str, Any], location: str, sets_cookie: bool) -> tuple[str | None, bool]:
    """
    Where a redirect leads a visitor.

    Returns why it leads nowhere (or None), and whether it is the step from plain HTTP to the site's
    own HTTPS, which says nothing about the application.
    """
    parts = urllib.parse.urlsplit(visit["url"])
    scheme = "https" if visit["secure"] else parts.scheme
    typed = parts._replace(scheme=scheme, netloc=_netloc(visit), path=parts.path or "/")
    target = urllib.parse.urlsplit(urllib.parse.urljoin(typed.geturl(), location))
    try:
        port = target.port
    except ValueError:
        return f"is redirected to {location}, which is not an address", False
    if target._replace(path=target.path or "/", fragment="") == typed and not sets_cookie:
        return f"is redirected to itself ({location})", False
    host = (target.hostname or "").lower()
    own = host == visit["host"].lower() or _is_named(host, visit["names"])
    # Another site's page, such as that of a single sign-on, is an answer like any other.
    if typed.scheme == "https" or target.scheme != "https" or not own:
        return None, False
    if visit["balanced"] or (port or 443) in visit["secure_ports"]:
        return None, True
    if not visit["secure_ports"]:
        return (
            f"is redirected to {location}, and neither nginx (tls) nor a load balancer (load_balancer) "
            "speaks HTTPS for the site",
            False,
        )
    ports = ", ".join(f"{number}" for number in visit["secure_ports"])
    return (
        f"is redirected to {location}, and nginx speaks HTTPS for the site on port {ports} alone",
        False,
    )


def fault(visit: dict[str, Any], status: int, headers: Mapping[str, str]) -> str | None:
    """
    Why an answer does not mean that a site is healthy.

    visit
        what was asked
    status
        of the answer
    headers
        of the answer, names in lower case

    Returns a part of a sentence ("is answered with 500, not one of 200"); None when the answer is right. A redirect
    from plain HTTP to the site's own HTTPS is right where HTTPS is spoken, and says nothing about
    the application. A good answer of another server or process than ``proof`` names is not right.

    CLI Example:

    .. code-block:: bash

        salt '*' site_visit.fault '{"url": "http://127.0.0.1/", "host": "www.example.org", "status": [200], "names": [], "secure_ports": [], "balanced": false, "secure": false, "closed": []}' 500 '{}'
    """
    return _wrong_answer(visit, status, headers) or _wrong_server(visit, headers)


def _wrong_answer(visit: dict[str, Any], status: int, headers: Mapping[str, str]) -> str | None:
    if _closed(visit, status, headers):
        return None
    if 300 <= status < 400 and headers.get("location"):
        why, onward = _redirected(visit, headers["location"], "set-cookie" in headers)
        if why or onward:
            return why
    if status in visit["status"]:
        return None
    expected = ", ".join(f"{one}" for one in visit["status"])
    return f"is answered with {status}, not one of {expected}"


def _wrong_server(visit: dict[str, Any], headers: Mapping[str, str]) -> str | None:
    """Whether the answer came from elsewhere than the site's server and its generations."""
    proof = visit.get("proof")
    if not proof:
        return None
    said = headers.get(_PROOF.lower())
    if said is None:
        return "is answered by another server than the one that nginx has for the site"
    server, *rest = said.split("; ")
    if server != proof["server"]:
        return f"is answered by the server of {server}"
    told = dict(word.partition("=")[::2] for word in rest)
    # nginx may answer itself: a static file, a redirect of the pillar, maintenance.
    if proof["generations"] is None or not told["upstream"]:
        return None
    if not told["generation"]:
        return (
            "is answered by a process on the site's socket that is no uWSGI generation of the site"
        )
    if told["generation"] not in proof["generations"]:
        running = ", ".join(proof["generations"]) or "none"
        return (
            f"is answered by the uWSGI generation {told['generation']}, and systemd runs {running}"
        )
    return None


def _closed(visit: dict[str, Any], status: int, headers: Mapping[str, str]) -> str | None:
    """What it means that nginx keeps a visitor out; None where the pillar does not say so."""
    for one in visit["closed"]:
        if status == one["status"] and headers.get(one["header"]) == one["value"]:
            return str(one["means"])
    return None


def ask(visit: dict[str, Any], patience: float | None = None) -> dict[str, Any]:
    """
    Send one request, and judge the answer.

    visit
        what to ask; further keys are ``headers`` (more headers of the request) and ``source`` (the
        address of this host that the request is to come from)
    patience
        seconds, where they are fewer than the visit's timeout

    Returns a dictionary: ``url``, ``host``, ``status`` (None without an answer), ``answer`` (status,
    reason and time; or why there is no answer), ``healthy``, ``why`` (None; or why the answer is not
    right) and ``seconds``.

    CLI Example:

    .. code-block:: bash

        salt '*' site_visit.ask '{"url": "http://127.0.0.1/", "host": "www.example.org", "timeout": 10, "status": [200], "names": [], "secure_ports": [], "balanced": false, "secure": false, "closed": []}'
    """
    parts = urllib.parse.urlsplit(visit["url"])
    timeout = visit["timeout"] if patience is None else min(visit["timeout"], patience)
    source = visit.get("source")
    connection = http.client.HTTPConnection(
        parts.hostname or "",
        parts.port or _PORTS[parts.scheme],
        timeout=timeout,
        source_address=(source, 0) if source else None,
    )
    answer = {"url": visit["url"], "host": visit["host"], "status": None, "healthy": False}
    began = time.monotonic()
    try:
        connection.connect()
        if parts.scheme == "https":
            # Whether a browser takes the certificate is another question, and answered from its
            # file (site_certificate): an old one is no reason to put a release back.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection.sock = context.wrap_socket(connection.sock, server_hostname=visit["host"])
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        connection.request(
            "GET",
            path,
            headers={
                "Host": _netloc(visit),
                "User-Agent": "nginx_uwsgi_django",
                **({_PROOF: "proof"} if visit.get("proof") else {}),
                **visit.get("headers", {}),
            },
        )
        response = connection.getresponse()
        response.read()
        seconds = time.monotonic() - began
        headers = {name.lower(): value for name, value in response.getheaders()}
        why = fault(visit, response.status, headers)
        means = _closed(visit, response.status, headers)
        told = f"{response.status} {response.reason} in {seconds:.2f} s"
        answer.update(
            status=response.status,
            answer=f"{told}: {means}" if means else told,
            healthy=why is None,
            why=why,
        )
    except (OSError, http.client.HTTPException) as error:
        words = str(error) or type(error).__name__
        answer.update(answer=words, why=f"has no answer: {words}")
    finally:
        connection.close()
    return {**answer, "seconds": time.monotonic() - began}


def together(
    visits: list[dict[str, Any]], at_once: int = 16, patience: float | None = None
) -> list[dict[str, Any]]:
    """
    Send many requests at the same time.

    visits
        what to ask
    at_once
        how many requests are under way at the same time
    patience
        seconds for all of them; null: each has its own timeout

    Returns the answers, as :py:func:`ask` gives them, in the order of the visits.

    CLI Example:

    .. code-block:: bash

        salt '*' site_visit.together '[]'
    """
    deadline = None if patience is None else time.monotonic() + patience

    def one(visit: dict[str, Any]) -> dict[str, Any]:
        # A late one has a moment left, for the words of a refusal.
        return ask(visit, None if deadline is None else max(0.1, deadline - time.monotonic()))

    # By way of Salt's loader two threads would enter one context (LazyLoader.run), which Python
    # refuses: the function itself is called.
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, visits))


def watch(
    visits: list[list[dict[str, Any]]], seconds: float, at_once: int = 64
) -> list[list[dict[str, Any]]]:
    """
    Send requests for a while: each watcher one after the other, all watchers at the same time.

    visits
        of each watcher the visits that it makes in turn
    seconds
        how long
    at_once
        how many watchers are at work at the same time

    Returns of each watcher all answers, as :py:func:`ask` gives them.

    CLI Example:

    .. code-block:: bash

        salt '*' site_visit.watch '[]' 10
    """
    end = time.monotonic() + seconds

    def one(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        while turns and time.monotonic() < end:
            answers.append(ask(turns[len(answers) % len(turns)]))
            time.sleep(_PAUSE)
        return answers

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, visits))
