"""
Questions of an operator about a site's uWSGI: what runs, how it does, and what it wrote.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import (
    process_facts,
    systemd_units,
    unix_socket,
    uwsgi_files,
    uwsgi_protocol,
    uwsgi_status,
    uwsgi_unit,
)

__virtualname__ = "uwsgi_status"


def __virtual__() -> str:
    return __virtualname__


def _store(name: str) -> uwsgi_files.Store:
    return uwsgi_files.Store(__salt__["site_pillar.settings"]()["lookup"], name)


def show(name: str) -> dict[str, Any]:
    """
    What runs of a site's uWSGI, and how it does.

    name
        the site

    Returns ``digest`` (what runs; None when nothing does), ``unit``, ``enabled``, ``since``,
    ``version`` (of uWSGI), ``workers`` (each with ``pid``, ``status``, ``requests``,
    ``exceptions``, ``rss`` in bytes and ``average_ms``), ``requests``, ``listen_queue`` (connections
    that wait), ``socket`` (see :py:func:`uwsgi_socket.status`) and ``health`` (the status of the
    health path, or what went wrong with asking for it).

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_status.show mysite
    """
    store = _store(name)
    found = uwsgi_status.generations(store.lookup, name)
    up = sorted(
        (other for other in found if found[other].active), key=lambda other: found[other].since or 0
    )
    held = __salt__["uwsgi_socket.status"](name)
    answer: dict[str, Any] = {"digest": None, "socket": held, "health": None}
    if not up:
        return answer
    digest = up[-1]
    shown = found[digest]
    answer.update(
        digest=digest,
        unit=shown.unit,
        enabled=shown.enabled,
        since=uwsgi_status.timestamp(shown.since),
    )
    if len(up) > 1:
        answer["besides"] = up[:-1]
    told = uwsgi_protocol.stats(store.paths(digest)["stats"])
    answer.update(
        version=told["version"],
        # uWSGI's own number is 0 for every unix socket.
        listen_queue=unix_socket.waiting(held["path"]),
        requests=sum(worker["requests"] for worker in told["workers"]),
        workers=[_described(worker) for worker in told["workers"]],
    )
    try:
        question = {**__salt__["uwsgi_health.question"](name), "socket_path": held["path"]}
        answer["health"] = uwsgi_protocol.get(**question)["status"]
    except CommandExecutionError as error:
        answer["health"] = str(error)
    return answer


def _described(worker: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: worker[key] for key in ("pid", "status", "requests", "exceptions")},
        "rss": process_facts.resident(worker["pid"]),
        "average_ms": worker["avg_rt"] // 1000,
    }


def made_of(name: str, digest: str) -> dict[str, Any]:
    """
    What a generation on this host was made of, and which of its files were edited since.

    Its name is the digest of all that, so that the host itself tells.

    name
        the site
    digest
        the generation

    Returns ``release`` and ``venv`` (their digests; None when unknown) and
    ``drift``, by path what has become of a file.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_status.made_of mysite 4f2a9c01d7e3
    """
    return _store(name).made_of(digest)


def logs(name: str, lines: int = 50, digest: str | None = None) -> list[str]:
    """
    The last lines that a site's generations wrote.

    name
        the site
    lines
        how many at most
    digest
        of this generation only, from the journal: where the pillar has a log file, the journal has
        what systemd says of the generation, and no more

    Returns a list of lines, the oldest first: of the log file where the pillar has one, else of the
    journal, with time and host.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_status.logs mysite 100
    """
    if digest is None and __salt__["uwsgi_log.path"](name):
        return __salt__["uwsgi_log.tail"](name, lines)
    return systemd_units.journal(uwsgi_unit.named(name, digest or "*"), lines, output="short-iso")
