"""
Whether a site is healthy, as its visitors see it.

Two questions make the answer. The site's uWSGI is asked for the health path on its own socket. nginx
is asked for the same path at every address where it listens for the site's visitors: by HTTPS with
the site's name where the pillar has ``tls``, by plain HTTP where visitors are served by plain HTTP.
A good answer counts only if the site's own server in nginx and a running generation of the site gave
it: both name themselves to a request of the host itself. Where another server of nginx has the site's
name, :py:func:`nginx_tree.shadowed <_modules.nginx_tree.shadowed>` says which.
``nginx_uwsgi_django.status`` and ``report``, the gate of a rollout and ``bin/apply`` all ask here;
what an answer means is said in :py:mod:`site_visit <_modules.site_visit>`.

.. versionadded:: 0.1.0
"""

import ipaddress
import re
import time
from collections.abc import Iterable
from typing import Any

import salt.utils.network
from salt.exceptions import SaltInvocationError

from _nud import durable_file, uwsgi_ini, uwsgi_protocol

__virtualname__ = "site_health"

_AT_ONCE = 16
_ANY = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


def __virtual__() -> str:
    return __virtualname__


def _sites() -> dict[str, dict[str, Any]]:
    settings = __salt__["site_pillar.settings"]()
    return {name: site for name, site in settings["sites"].items() if not site["absent"]}


def _listen(word: int | str) -> tuple[str, int]:
    """The address and the port of a ``listen`` of the pillar; an IPv6 address with its brackets."""
    address, _, port = str(word).split()[0].rpartition(":")
    return address, int(port)


def _url(scheme: str, address: str, port: int, path: str) -> str:
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{address}{'' if port == usual else f':{port}'}{path}"


def _closed(site: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of nginx by which it keeps visitors out because the pillar says so."""
    found = []
    if site["maintenance"]:
        found.append(
            {
                "status": 503,
                "header": "retry-after",
                "value": f"{site['maintenance']['retry_after']}",
                "means": "under maintenance, as the pillar says",
            }
        )
    if site["basic_auth"]:
        found.append(
            {
                "status": 401,
                "header": "www-authenticate",
                "value": f'Basic realm="{site["basic_auth"]["realm"]}"',
                "means": "nginx asks for a password, as the pillar says",
            }
        )
    return found


def _trusted_source(site: dict[str, Any], address: str) -> str | None:
    """An address of this host that nginx takes for the load balancer when it is asked at another."""
    family = 6 if address.startswith("[") else 4
    networks = [
        ipaddress.ip_network(one, strict=False) for one in site["load_balancer"]["addresses"]
    ]
    mine = (
        salt.utils.network.ip_addrs6(include_loopback=True)
        if family == 6
        else salt.utils.network.ip_addrs(include_loopback=True)
    )
    for one in mine:
        if any(ipaddress.ip_address(one) in network for network in networks):
            return str(one)
    return None


def _visit(site: dict[str, Any], scheme: str, listen: int | str) -> dict[str, Any]:
    bound, port = _listen(listen)
    address = _ANY.get(bound, bound)
    secure_ports = [_listen(word)[1] for word in site["tls"]["listen"]]
    visit = {
        "listen": bound,
        **__salt__["site_visit.planned"](
            site,
            url=_url(scheme, address, port, site["health"]["path"]),
            secure=scheme == "https",
            secure_ports=secure_ports if site["tls"]["source"] else [],
            balanced=bool(site["load_balancer"]),
            closed=_closed(site),
        ),
    }
    if site["load_balancer"] and scheme == "http":
        # Visitors come to the load balancer by HTTPS; whether nginx believes that depends on where
        # the request is from.
        visit["headers"] = {"X-Forwarded-Proto": "https"}
        source = _trusted_source(site, address)
        if source:
            visit["secure"] = True
            # From one address of the host to the same one: the kernel has a way for it.
            where = address if bound not in _ANY else f"[{source}]" if ":" in source else source
            visit.update(source=source, url=_url(scheme, where, port, site["health"]["path"]))
    return visit


def visits(name: str) -> list[dict[str, Any]]:
    """
    What nginx is asked to see whether a site is healthy: a request for each of its addresses.

    name
        the site

    Returns a list of visits, as :py:mod:`site_visit <_modules.site_visit>` describes them, each also
    with ``listen``, the address of the pillar's ``listen`` or ``tls:listen``. Plain HTTP is not
    asked where nginx redirects all of it to HTTPS.

    Raises SaltInvocationError when the pillar does not have the site, CommandExecutionError when
    the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' site_health.visits mysite
    """
    sites = _sites()
    if name not in sites:
        raise SaltInvocationError(f"the pillar has no site {name!r}")
    return _visits(name, sites[name])


def _visits(name: str, site: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    encrypted = bool(site["tls"]["source"])
    if encrypted:
        found = [_visit(site, "https", listen) for listen in site["tls"]["listen"]]
    # A load balancer may speak HTTPS itself. Before the authority's first certificate nginx does
    # not redirect.
    redirects = encrypted and site["tls"]["redirect"] and not site["load_balancer"]
    if not redirects or __salt__["site_certificate.awaited"](name):
        found += [_visit(site, "http", listen) for listen in site["listen"]]
    return found


def ask(
    running: Iterable[str] | None = None,
    patience: float | None = None,
    only: Iterable[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """
    Ask every site of the pillar whether it is healthy.

    running
        the sites whose uWSGI runs, where the caller knows; the socket of another is not asked,
        where a request waits for a generation that does not come
    patience
        seconds for all questions together; null: each has the time that its site's
        ``health:timeout`` gives
    only
        the sites that are asked; null: all

    Returns a dictionary by site: ``healthy``, ``why`` (None; or a sentence), ``uwsgi`` (what uWSGI
    answers on its socket: a status or a sentence; None where it was not asked), ``uwsgi_healthy``
    (whether that is right), ``visits`` (the answers that nginx gives, as :py:func:`site_visit.ask` returns
    them), and of the first of these that is not right, or else the first of all, ``url``, ``host``,
    ``status`` and ``answer``.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' site_health.ask
    """
    sites = _sites()
    if only is not None:
        wanted = set(only)
        sites = {name: site for name, site in sites.items() if name in wanted}
    units = _units(sites)
    active = {name for name, states in units.items() if "active" in states.values()}
    if running is not None:
        active = set(running)
    up = [name for name in sites if name in active]
    began = time.monotonic()
    questions = [__salt__["uwsgi_health.question"](name) for name in up]
    limit = max([0, *(site["health"]["timeout"] for site in sites.values())])
    told = uwsgi_protocol.together(
        questions, _AT_ONCE, limit * (1 + len(up) // _AT_ONCE) if patience is None else patience
    )
    inside = {
        name: (answer.get("error") or answer["status"], _inside(name, answer))
        for name, answer in zip(up, told, strict=True)
    }
    asked = [
        (name, {**visit, "proof": _proof(name, sites[name], units[name])})
        for name in sites
        for visit in _visits(name, sites[name])
    ]
    left = None if patience is None else patience - (time.monotonic() - began)
    answers = __salt__["site_visit.together"]([visit for _, visit in asked], _AT_ONCE, left)
    by_site: dict[str, list[dict[str, Any]]] = {name: [] for name in sites}
    for (name, _), answer in zip(asked, answers, strict=True):
        by_site[name].append(answer)
    shadowed = __salt__["nginx_tree.shadowed"]() if by_site else {}
    found: dict[str, dict[str, Any]] = {}
    for name, mine in by_site.items():
        shown = next((answer for answer in mine if not answer["healthy"]), mine[0])
        uwsgi, wrong = inside.get(name, (None, "no generation of uWSGI runs"))
        why = wrong
        if not why and name in shadowed:
            # Whatever the answer is, it is another server's.
            why = f"nginx: {shadowed[name][0]}"
        if not why and not shown["healthy"]:
            why = f"nginx: {shown['url']} for {shown['host']} {shown['why']}"
        found[name] = {
            "healthy": why is None,
            "why": why,
            "uwsgi": uwsgi,
            "uwsgi_healthy": wrong is None,
            "visits": mine,
            **{key: shown[key] for key in ("url", "host", "status", "answer")},
        }
    return found


def _units(sites: Iterable[str]) -> dict[str, dict[str, str]]:
    """By site the digests of its generations that run, or start or stop, with systemd's word."""
    found: dict[str, dict[str, str]] = {name: {} for name in sites}
    units = [f"uwsgi-{name}@*.service" for name in found]
    shown = __salt__["systemd_unit.show"](units, ["ActiveState"]) if units else {}
    for unit, properties in shown.items():
        match = re.fullmatch(r"uwsgi-(.+)@([0-9a-f]+)\.service", unit)
        if match and properties["ActiveState"] not in ("inactive", "failed"):
            found[match[1]][match[2]] = properties["ActiveState"]
    return found


def _proof(name: str, site: dict[str, Any], generations: Iterable[str]) -> dict[str, Any] | None:
    """Who is to answer for a site; None where its file in nginx's tree does not say who does."""
    lookup = __salt__["site_pillar.settings"]()["lookup"]
    text = durable_file.read(f"{lookup['nginx_dir']}/sites-available/{name}.conf") or b""
    # A template of the operator's, or a file from before this version, which stays until the site's
    # release is live. An add_header in a location of the snippet takes away all others there.
    if b"add_header X-Nginx-Uwsgi-Django " not in text or "add_header" in (site["snippet"] or ""):
        return None
    # As nginx's $server_name has it (ngx_http_core_server_name).
    server = site["server_names"][0].lower().removeprefix(".")
    inis = [
        durable_file.read(f"{lookup['uwsgi_dir']}/{name}/{digest}.ini") or b""
        for digest in generations
    ]
    # A rollback may have brought back a generation from before this version.
    named = all(uwsgi_ini.GENERATION.encode() in text for text in inis)
    return {"server": server, "generations": sorted(generations) if named else None}


def _inside(name: str, answer: dict[str, Any]) -> str | None:
    """What is wrong with the answer of a site's own socket."""
    if "error" in answer:
        return f"uWSGI: {answer['error']}"
    why = __salt__["uwsgi_health.fault"](name, answer)
    return f"uWSGI: {why}" if why else None
