"""
Sites as a whole: which of them are not yet as the pillar says, and what is left of those that go.

.. versionadded:: 0.1.0
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import cache, process_pool

__virtualname__ = "django_site"

# What says that a site is not settled: the state that it is about meets it again, and tells it.
_ERRORS = (CommandExecutionError, SaltInvocationError, OSError)

# So many sites are looked at by copies of this process, too: to make one takes as long as a few sites.
_MANY = 40


def __virtual__() -> str:
    return __virtualname__


def wanted() -> list[str]:
    """
    The sites that are to be on this host.

    Returns their names, in the pillar's order.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' django_site.wanted
    """
    sites = __salt__["site_pillar.settings"]()["sites"]
    return [name for name, site in sites.items() if not site["absent"]]


def leaving(everything: bool = False) -> list[str]:
    """
    The sites of the pillar that are not to be on this host.

    everything
        all of them are, not only those with ``absent: true``

    Returns their names, in the pillar's order.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' django_site.leaving
    """
    sites = __salt__["site_pillar.settings"]()["sites"]
    return [name for name, site in sites.items() if everything or site["absent"]]


def each(items: Iterable[Hashable], work: Callable[[Any], Any]) -> dict[Any, Any]:
    """
    Run work on every item in several processes; for states, which cannot import the library.

    items, work
        as for ``process_pool.each``

    Returns the answers by item.

    CLI Example (from a state: functions are not written on command lines):

    .. code-block:: python

        __salt__["django_site.each"](sites, lambda site: prepare(site))
    """
    return process_pool.each(items, work)


def left(names: list[str], prepared: bool = True) -> dict[str, list[str]]:
    """
    What there is on this host of sites that are not to be on it, data apart that the pillar does not
    give up (``nginx_uwsgi_django:clean:data``). The host is looked at once for all of them.

    names
        the sites
    prepared
        False: only what serves them (units, sockets, the log's rotation)

    Returns by site what was found, mostly paths and names of units; nothing of a site that is gone.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' django_site.left '["oldsite"]'
    """
    call = __salt__
    data = call["django_release.data_may_go"]()

    def seen(name: str) -> list[str]:
        found = [
            *call["site_companion.leftovers"](name),
            *call["uwsgi_generation.leftovers"](name),
            *call["uwsgi_socket.leftovers"](name),
            *call["uwsgi_log.leftovers"](name, data),
        ]
        if prepared:
            found += [
                f"virtual environment {digest}" for digest in call["python_venv.stored"](name)
            ]
            found += call["release_source.leftovers"](name)
            found += call["django_release.leftovers"](name) if data else []
            found += [
                f"{kind} {account}"
                for kind, account in call["system_account.leftovers"](name).items()
            ]
        return found

    with cache.session():
        return {name: found for name in names if (found := seen(name))}


def look(served: bool = True) -> dict[str, list[str] | None]:
    """
    Compare all sites with the pillar. The host is looked at once for all of them, and no program is
    started for any.

    served
        False: as far as their releases are prepared, and no further

    Returns by site, in the pillar's order, what :py:func:`remarks` says of one that is as the pillar
    says: every state of it would say that there is nothing to do. None of one of which something is
    not, or not surely, as the pillar says: its states are worth a run.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' django_site.look
    """

    def seen(names: Sequence[str]) -> list[list[str] | None]:
        return [
            remarks(name) if _prepared(name) and (not served or _served(name)) else None
            for name in names
        ]

    names = wanted()
    found: dict[str, list[str] | None] = dict.fromkeys(names)
    with cache.session():
        # What one look tells of all sites is seen with the first, and by the copies of this process.
        found.update(zip(names[:1], seen(names[:1]), strict=True))
        rest = names[1:]
        lanes = process_pool.processors() if len(rest) >= _MANY else 1
        told = process_pool.each([tuple(rest[at::lanes]) for at in range(lanes)], seen)
    for lane, answer in told.items():
        if not isinstance(answer, CommandExecutionError):
            found.update(zip(lane, answer, strict=True))
    return found


def _prepared(name: str) -> bool:
    call = __salt__
    try:
        return not (
            call["system_account.diff"](name)
            or call["release_source.awaits"](name)
            or call["django_release.diff"](name, refresh=True)
            or call["python_venv.diff"](name)
            or not call["django_preparation.is_complete"](name)
            or (hooked(name) and call["release_hook.due"](name))
        )
    except _ERRORS:
        return False


def _served(name: str) -> bool:
    call = __salt__
    try:
        return not (
            call["uwsgi_socket.diff"](name)
            or call["uwsgi_log.diff"](name)
            or call["uwsgi_generation.diff"](name)["changes"]
            or not call["uwsgi_health.proven"](name)
            or call["release_live.diff"](name)
            or _companions_lack(name)
        )
    except _ERRORS:
        return False


def _companions_lack(name: str) -> bool:
    if not __salt__["site_pillar.site"](name)["companions"]:
        return bool(__salt__["site_companion.leftovers"](name))
    return any(__salt__["site_companion.diff"](name).values())


def remarks(name: str) -> list[str]:
    """
    What there is to say of a site that is as the pillar says.

    name
        the site

    Returns a list of sentences, mostly empty.

    CLI Example:

    .. code-block:: bash

        salt '*' django_site.remarks mysite
    """
    said: list[str] = __salt__["uwsgi_socket.remarks"](name)
    stays = __salt__["django_release.stays"](name)
    return [*said, *__salt__["django_preparation.remarks"](name), *([stays] if stays else [])]


def hooked(name: str) -> bool:
    """
    Whether the pillar has commands to run at the steps of a site's releases.

    name
        the site

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' django_site.hooked mysite
    """
    hooks: dict[str, Any] = __salt__["site_pillar.site"](name)["project"]["hooks"]
    return any(isinstance(commands, list) and commands for commands in hooks.values())


def asking() -> list[str]:
    """
    The sites that ask an ACME authority for a certificate.

    Returns their names, in the pillar's order.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' django_site.asking
    """
    sites = __salt__["site_pillar.settings"]()["sites"]
    return [name for name in wanted() if sites[name]["tls"]["source"] == "acme"]


def is_certified(name: str) -> bool:
    """
    Whether a site surely has the certificate that it asks an authority for.

    name
        the site

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' django_site.is_certified mysite
    """
    try:
        return not __salt__["site_certificate.diff"](name)
    except _ERRORS:
        return False
