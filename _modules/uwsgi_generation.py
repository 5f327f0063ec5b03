"""
Generations of a site's uWSGI behind the one socket that systemd holds.

A generation is a unit whose instance name is the digest of all that its process is made of: the
ini, the unit, the release, the virtual environment, the environment file, the interpreter and uWSGI
itself. Its files are written once and never edited. So "does the host run what the pillar says" is
a question about the name of the unit that runs, which the host answers after a reboot, a killed run
or a hand that restarted something as truly as after a run of Salt.

The switch: the new generation answers a health request on a private socket (preflight), starts
beside the old one on the shared socket, is enabled, and only then does the old one finish its
requests and stop. Nothing of the old one is touched before that. Where none serves, the new one is
started and asked on the shared socket at once, and taken back when its answer is wrong.

.. versionadded:: 0.1.0
"""

import os
import time
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import (
    cache,
    durable_file,
    systemd_units,
    uwsgi_files,
    uwsgi_ini,
    uwsgi_preflight,
    uwsgi_refusal,
    uwsgi_status,
    uwsgi_switch,
    uwsgi_unit,
)

__virtualname__ = "uwsgi_generation"
__func_alias__ = {"list_": "list"}

# So many sites are stopped at once: each is some processes that end, and a host has its limits.
_AT_ONCE = 50


def __virtual__() -> str:
    return __virtualname__


# --- The generation that the pillar asks for ------------------------------------------------------


def _site(name: str) -> dict[str, Any]:
    found: dict[str, Any] = cache.once(("site", name), lambda: __salt__["site_pillar.site"](name))
    return found


def _lookup() -> dict[str, str]:
    found: dict[str, str] = cache.once(
        ("lookup",), lambda: __salt__["site_pillar.settings"]()["lookup"]
    )
    return found


def _store(name: str) -> uwsgi_files.Store:
    return uwsgi_files.Store(_lookup(), name)


def _generations(name: str) -> dict[str, uwsgi_status.Status]:
    return uwsgi_status.generations(_lookup(), name)


def _times(name: str) -> uwsgi_switch.Times:
    uwsgi = _site(name)["uwsgi"]
    return uwsgi_switch.Times(uwsgi["start_timeout"], uwsgi["stop_timeout"])


def _plan(name: str, release: str | None = None) -> uwsgi_unit.Plan:
    return uwsgi_unit.Plan(
        site=_site(name),
        release=__salt__["django_release.desired"](name, release=release),
        venv=__salt__["python_venv.desired"](name, release=release),
        lookup=_lookup(),
        shared=__salt__["django_release.directories"](name)["shared"],
        home=__salt__["system_account.home"](name),
        log=__salt__["uwsgi_log.path"](name),
    )


def confinement(name: str, limits: dict[str, str], release: str | None = None) -> list[str]:
    """
    What confines a process that runs for a site: the lines of a unit's [Service] section with its
    limits and its sandbox.

    name
        the site
    limits
        resource limits, by systemd's names
    release
        the ID of a release on the host to take instead of the desired one

    Returns lines.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.confinement mysite '{"MemoryMax": "512M"}'
    """
    return uwsgi_unit.confinement(_plan(name, release), limits)


def _wanted(name: str, release: str | None = None) -> uwsgi_files.Generation:
    """
    The generation that the pillar and the project ask for, or that of another release on the host,
    with the texts of its files.
    """
    plan = _plan(name, release)
    if not plan.venv["uwsgi"]:
        raise CommandExecutionError(
            f"nginx_uwsgi_django:sites:{name}:uwsgi names neither a package nor a binary"
        )
    own, own_path = __salt__["site_plan.own_ini"](name, release) or (None, None)
    # Debian's uWSGI has its Python as a plugin.
    plugin = "python3" if plan.site["uwsgi"]["package"] == "distro" else None
    ini = uwsgi_ini.render(
        plan.site,
        plan.release["path"],
        plan.venv["path"],
        stats=uwsgi_unit.paths(plan.lookup, name, uwsgi_unit.DIGEST)["stats"],
        plugin=plugin,
        own=own,
        own_path=own_path,
        digest=uwsgi_unit.DIGEST,
    )
    environment = uwsgi_unit.environment_file(__salt__["site_plan.environment"](name, release))
    return uwsgi_files.planned(plan, ini, environment, plugin)


def _kept(name: str, digest: str) -> uwsgi_files.Generation:
    """A generation whose files are still on the host."""
    kept = _store(name).kept(digest)
    release, now = kept.parts["release"], __salt__["django_release.desired"](name)
    if now["path"] == release["path"] and now["id"] != release["id"]:
        raise CommandExecutionError(
            f"the generation {digest} ran the project in {release['path']} as it was then; "
            "it has been changed since, so there is nothing to go back to"
        )
    return kept


def desired(name: str) -> dict[str, Any]:
    """
    The generation that the pillar and the project ask for. Reads only.

    name
        the site

    Returns ``digest`` (12 hexadecimal digits), ``unit`` (the name of its unit) and ``parts`` (what
    the digest is made of; of texts, which may hold secrets, only a digest).

    Raises CommandExecutionError when the project or its ini is not there, SaltInvocationError for
    uWSGI options that cannot work.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.desired mysite
    """
    wanted = _wanted(name)
    return {
        "digest": wanted.digest,
        "unit": uwsgi_unit.named(name, wanted.digest),
        "parts": wanted.parts,
    }


def diff(name: str, digest: str | None = None) -> dict[str, Any]:
    """
    What differs from the goal: the wanted generation, and no other, runs and is enabled.

    name
        the site
    digest
        the generation to have instead of the one that the pillar asks for

    Returns ``digest`` and ``changes`` (empty when nothing differs).

    Raises as :py:func:`desired` does, and CommandExecutionError when the generation of the digest
    is not on the host.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.diff mysite
    """
    wanted = _kept(name, digest) if digest else _wanted(name)
    return {"digest": wanted.digest, "changes": _diff(name, wanted, _generations(name))}


def _diff(
    name: str, wanted: uwsgi_files.Generation, found: dict[str, uwsgi_status.Status]
) -> dict[str, Any]:
    store, digest = _store(name), wanted.digest
    mine = found.get(digest)
    others = {other: status for other, status in found.items() if other != digest}
    up = sorted(
        (other for other, status in others.items() if status.up),
        key=lambda other: others[other].since or 0,
    )
    changes: dict[str, Any] = {}
    if not mine or not mine.active:
        old = up[-1] if up else None
        changes["generation"] = {"old": old, "new": digest}
        reasons = store.reasons(wanted, old)
        if reasons:
            changes["because of"] = {"old": None, "new": reasons}
    elif (
        store.differing(wanted)
        or uwsgi_status.is_outdated(store, digest, mine, __salt__["uwsgi_log.path"](name))
        or mine.reload
    ):
        changes["generation"] = {
            "old": f"{digest}, older than its files",
            "new": f"{digest}, restarted",
        }
    elif up:
        changes["stopped"] = {"old": up, "new": []}
    if not mine or not mine.enabled:
        changes["enabled"] = {"old": False, "new": True}
    if "generation" in changes:
        # A switch does the rest by the way.
        return changes
    still = sorted(other for other, status in others.items() if status.enabled)
    if still:
        changes["disabled"] = {"old": still, "new": []}
    failed = sorted(other for other, status in others.items() if status.state == "failed")
    if failed:
        changes["forgotten failures"] = {"old": failed, "new": []}
    if left := uwsgi_preflight.leftovers(name):
        changes["preflight"] = {"old": left, "new": []}
    return changes


# --- The switch -----------------------------------------------------------------------------------


def switch(name: str, digest: str | None = None, release: str | None = None) -> dict[str, Any]:
    """
    Make the wanted generation run, and no other, without losing a request.

    name
        the site
    digest
        the generation to have instead of the one that the pillar asks for
    release
        the ID of a release on the host to run instead of the desired one

    Returns ``digest``, ``changes`` (empty when nothing was changed) and ``left`` (what still differs
    afterwards, usually empty).

    Raises CommandExecutionError when the generation does not come up or does not answer as the
    pillar's ``health`` says; then it is gone again, and what ran before still runs and is enabled.
    Where nothing ran before, the socket is closed: nginx answers 502 at once. Visitors would wait in
    the queue of a socket that no process reads.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.switch mysite
    """
    with __salt__["release_record.alone"](name, "uwsgi_generation.switch"):
        return _switch(name, digest, release)


def _switch(name: str, digest: str | None, release: str | None) -> dict[str, Any]:
    wanted = _kept(name, digest) if digest else _wanted(name, release)
    units = list(__salt__["uwsgi_socket.names"](name).values())
    found, inactive = uwsgi_status.with_units(_lookup(), name, units)
    changes = _diff(name, wanted, found)
    if not changes:
        return {"digest": wanted.digest, "changes": {}, "left": {}}
    uwsgi_preflight.clear(name)
    if "generation" in changes:
        leaves = __salt__["uwsgi_socket.elsewhere"](name)
        if inactive and not leaves:
            raise CommandExecutionError(
                f"{inactive[0]} is not active, so there is no socket for a generation to inherit"
            )
        try:
            _need_program(name, wanted)
            seconds = _take_over(name, wanted, found, leaves)
        except CommandExecutionError:
            if not serves(name):
                _close(name)
            raise
        asked = __salt__["uwsgi_health.spelled"](name)
        changes["health"] = {"old": None, "new": f"{asked} in {seconds:g} s"}
    elif "enabled" in changes:
        # It was started by a run that was killed before it had an answer.
        __salt__["uwsgi_health.ask"](name)
    socket, limit = _site(name)["socket"]["path"], _times(name).stop
    uwsgi_switch.settle(_store(name), wanted.digest, found, socket, limit)
    left = _diff(name, wanted, _generations(name))
    if "generation" in changes or "enabled" in changes:
        __salt__["uwsgi_health.note"](name)
    return {"digest": wanted.digest, "changes": changes, "left": left}


def serves(name: str) -> bool:
    """
    Whether any generation of a site is up, the one that the pillar asks for or another.

    name
        the site

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.serves mysite
    """
    return any(status.up for status in _generations(name).values())


def close(name: str) -> bool:
    """
    Close a site's socket that no generation reads, so that nginx answers 502 at once instead of
    keeping visitors waiting. The state :py:func:`uwsgi_socket.listening` opens it again.

    name
        the site

    Returns True when it was open.

    Raises CommandExecutionError when a generation is up, or systemctl fails.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.close mysite
    """
    if serves(name):
        raise CommandExecutionError(f"a generation of {name} is up and reads its socket")
    shown = __salt__["uwsgi_socket.units"](name)
    opened = any(unit["ActiveState"] not in ("inactive", "failed") for unit in shown.values())
    if opened:
        _close(name)
    return opened


def _close(name: str) -> None:
    units = list(__salt__["uwsgi_socket.names"](name).values())
    # Disabled as well: after a reboot it would be open again, without a generation.
    systemd_units.disable(units)
    systemd_units.stop(units)


def _take_over(
    name: str,
    wanted: uwsgi_files.Generation,
    found: dict[str, uwsgi_status.Status],
    leaves: list[str],
) -> float:
    """
    Bring up a generation that answers the health question.

    Where a generation serves, the new one is asked first, on a private socket. Where none does, no
    request can be lost: the new one is started in its place, once instead of twice, and asked there.

    found
        the site's generations
    leaves
        the sockets of those that serve, where the pillar has another path

    Returns the seconds that the answer took.
    """
    if not any(status.up for status in found.values()):
        return _bring_up(name, wanted, found, ask=True)
    seconds = _preflight(name, wanted)
    if leaves:
        __salt__["uwsgi_socket.ensure"](name)
    try:
        _bring_up(name, wanted, _generations(name))
    except CommandExecutionError:
        if leaves:
            __salt__["uwsgi_socket.lead"](name, leaves[-1])
        raise
    return seconds


def _preflight(name: str, wanted: uwsgi_files.Generation) -> float:
    return uwsgi_preflight.run(
        name, wanted, _times(name).start, lambda socket: __salt__["uwsgi_health.ask"](name, socket)
    )


def _bring_up(
    name: str,
    wanted: uwsgi_files.Generation,
    found: dict[str, uwsgi_status.Status],
    ask: bool = False,
) -> float:
    logged = __salt__["uwsgi_log.path"](name) is not None
    return uwsgi_switch.bring_up(
        _store(name),
        wanted,
        found.get(wanted.digest),
        _times(name),
        (lambda: __salt__["uwsgi_log.tail"](name, 20)) if logged else None,
        (lambda: __salt__["uwsgi_health.ask"](name)) if ask else None,
    )


def _need_program(name: str, wanted: uwsgi_files.Generation) -> None:
    if not os.access(wanted.program, os.X_OK):
        raise CommandExecutionError(f"{wanted.program} is not there or not executable")
    why = uwsgi_refusal.reason(_site(name), wanted)
    if why:
        raise CommandExecutionError(why)


def refusal(name: str, digest: str | None = None) -> str | None:
    """
    Why a site's uWSGI will not run its generation, as far as uWSGI itself tells without starting
    it: it is not uWSGI, cannot be executed by the site's user, has no Python or another than the
    virtual environment, or does not know an option. Changes nothing.

    name
        the site
    digest
        the generation instead of the one that the pillar asks for

    Returns a sentence; None when nothing speaks against it, or when that cannot be told yet because
    uWSGI, the virtual environment or the user is not there.

    Raises as :py:func:`desired` does.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.refusal mysite
    """
    wanted = _kept(name, digest) if digest else _wanted(name)
    return uwsgi_refusal.reason(_site(name), wanted)


def list_(name: str) -> list[dict[str, Any]]:
    """
    The generations of a site that are on the host, the newest first.

    name
        the site

    Returns a list of dictionaries: ``digest``, ``state`` (as systemd calls it), ``enabled``,
    ``since`` (when it was started, None when it does not run), ``created``, ``release`` and
    ``venv`` (their digests).

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.list mysite
    """
    store = _store(name)
    answer = []
    for digest, status in _generations(name).items():
        parts = store.parts(digest) or {"release": {}, "venv": {}}
        answer.append(
            {
                "digest": digest,
                "state": status.state,
                "enabled": status.enabled,
                "since": uwsgi_status.timestamp(status.since),
                "created": uwsgi_status.timestamp(store.created(digest)),
                "release": parts["release"].get("id"),
                "venv": parts["venv"].get("digest"),
            }
        )
    return sorted(answer, key=lambda one: one["created"] or "", reverse=True)


def rollback(name: str, digest: str | None = None) -> dict[str, Any]:
    """
    Go back to a generation of the same release that is still on the host: the settings that the
    pillar had then. The checks are those of any other switch.

    The next ``state.apply`` goes forward again, unless the pillar was changed. To go back to another
    release, and stay there, use :py:func:`site_rollback.rollback`.

    name
        the site
    digest
        the generation; by default the one that ran before

    Returns ``digest`` and ``changes``.

    Raises CommandExecutionError when there is none, when it ran another release, when its virtual
    environment is gone, or as :py:func:`switch` does.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.rollback mysite
    """
    with __salt__["release_record.alone"](name, "uwsgi_generation.rollback"):
        return _rollback(name, digest)


def serving(name: str) -> str | None:
    """
    The release that the site's uWSGI runs, whatever ``current`` says.

    name
        the site

    Returns its ID; that of ``current`` when no generation runs.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.serving mysite
    """
    for generation in __salt__["uwsgi_generation.list"](name):
        if generation["state"] == "active" and generation["enabled"]:
            return generation["release"]
    return __salt__["django_release.current"](name)


def _rollback(name: str, digest: str | None) -> dict[str, Any]:
    if digest is None:
        digest = _store(name).previous()
        if digest is None:
            raise CommandExecutionError(f"no generation of {name} ran before on this host")
    release = _kept(name, digest).parts["release"]["id"]
    if release != serving(name):
        raise CommandExecutionError(
            f"the generation {digest} ran another release: site_rollback.rollback {name} "
            f"{release} goes back to it"
        )
    return switch(name, digest)


def reload(name: str) -> dict[str, Any]:
    """
    Restart the running generation, if it still passes its preflight: for what no file tells, such as
    a worker that leaks memory.

    Requests in flight are finished, new connections wait until it is up again.

    name
        the site

    Returns ``digest`` and ``seconds``, the time that connections had to wait.

    Raises CommandExecutionError when not exactly one generation runs, or as :py:func:`switch` does.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.reload mysite
    """
    digest, _ = _running(name, None)
    wanted = _kept(name, digest)
    uwsgi_preflight.clear(name)
    _preflight(name, wanted)
    started = time.monotonic()
    _bring_up(name, wanted, _generations(name))
    return {"digest": digest, "seconds": round(time.monotonic() - started, 3)}


def drain(name: str, digest: str | None = None, timeout: float = 60) -> bool:
    """
    Let a generation answer the requests that it has and take no more: new connections stay in the
    socket's queue for another generation. It can only be stopped afterwards.

    name
        the site
    digest
        the generation; by default the one that runs
    timeout
        seconds

    Returns True when it is idle, or needs no such care (several threads in a worker), False when
    requests are still running at the end of the time.

    Raises CommandExecutionError when no such generation runs.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.drain mysite 4f2a9c01d7e3
    """
    digest, status = _running(name, digest)
    return uwsgi_switch.drained(_store(name), digest, status.pid or 0, timeout)


def _running(name: str, digest: str | None) -> tuple[str, uwsgi_status.Status]:
    found = _generations(name)
    if digest is None:
        up = [other for other in found if found[other].active]
        if len(up) != 1:
            raise CommandExecutionError(
                f"{name} has {len(up) or 'no'} running generation{'s' if len(up) > 1 else ''}"
                + (": name one of " + ", ".join(sorted(up)) if up else "")
            )
        digest = up[0]
    if digest not in found or not found[digest].active:
        raise CommandExecutionError(f"the generation {digest} of {name} does not run")
    return digest, found[digest]


# --- No generation at all -------------------------------------------------------------------------


def leftovers(name: str) -> list[str]:
    """
    What is on the host of a site's generations: units that are up, and files.

    name
        the site

    Returns a list of unit names and paths, empty when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.leftovers mysite
    """
    store = _store(name)
    found = [status.unit for status in _generations(name).values() if status.up]
    found += [
        f"{store.lookup['unit_dir']}/{unit}" for unit in uwsgi_status.unit_files(_lookup(), name)
    ]
    found += [each for each in (store.wants, store.directory) if os.path.lexists(each)]
    return [*found, *uwsgi_preflight.leftovers(name)]


def remove(name: str) -> bool:
    """
    Stop all generations of a site and remove their files.

    The caller stops and disables the socket with it (:py:func:`uwsgi_socket.absent`); until then
    connections wait in its queue.

    name
        the site

    Returns True when something was removed.

    Raises CommandExecutionError when a unit does not stop; OSError when a directory holds what is
    not ours.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.remove mysite
    """
    if not leftovers(name):
        return False
    store = _store(name)
    uwsgi_preflight.clear(name)
    found = _generations(name)
    for digest in found:
        durable_file.remove(store.paths(digest)["link"])
    systemd_units.daemon_reload(force=True, later=True)
    if found:
        units = [status.unit for status in found.values()]
        systemd_units.stop(units, timeout=_stop_timeout(name) + 15)
        systemd_units.reset_failed(units)
    store.remember(None)
    __salt__["uwsgi_health.forget"](name)
    # A link may have outlived the unit that somebody has removed by hand.
    linked = map(uwsgi_unit.UNIT.fullmatch, cache.entries(store.wants))
    for digest in {*found, *store.digests("*"), *(match[2] for match in linked if match)}:
        store.forget(digest)
    for empty in (store.directory, store.wants, f"{uwsgi_preflight.RUN}/{name}"):
        if os.path.isdir(empty):
            os.rmdir(empty)
    systemd_units.daemon_reload(later=True)
    return True


def finish(names: list[str]) -> None:
    """
    Stop the generations of several sites when their requests are finished, and close their sockets:
    many at once, as each takes a second or more of waiting.

    names
        the sites

    Raises CommandExecutionError with what systemctl says of those that do not stop, when all others
    have.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.finish '["mysite", "othersite"]'
    """
    up: dict[str, list[str]] = {}
    for unit, shown in uwsgi_status.glance().items():
        if uwsgi_status.is_up(shown["ActiveState"]):
            generation = uwsgi_unit.UNIT.fullmatch(unit)
            site = generation[1] if generation else unit[len("uwsgi-") :].rpartition(".")[0]
            up.setdefault(site, []).append(unit)
    running = [name for name in names if name in up]
    errors = []
    for begin in range(0, len(running), _AT_ONCE):
        part = running[begin : begin + _AT_ONCE]
        timeout = max(_stop_timeout(name) for name in part) + 15
        try:
            systemd_units.stop([unit for name in part for unit in up[name]], timeout=timeout)
        except CommandExecutionError as error:
            errors.append(str(error))
    if errors:
        raise CommandExecutionError("; ".join(errors))


def _stop_timeout(name: str) -> int:
    try:
        return _times(name).stop
    except (CommandExecutionError, SaltInvocationError, KeyError):
        # A site that the pillar does not have any more, or has only as absent.
        return 60
