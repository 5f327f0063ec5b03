"""
What served a site before the formula: stopped once the site is proven, and given back on request.

The pillar's ``sites:NAME:takeover`` is the operator's consent. Its ``files`` leave nginx's tree in the
step in which the site's own file comes into it, see :py:mod:`nginx_tree <_modules.nginx_tree>`. Its
``units`` are stopped and disabled when visitors get the site's own answers and the units have finished
their requests. A record of each unit is written before it is touched, so that a run that is killed
anywhere leaves a way forward and a way back.

.. versionadded:: 0.1.0
"""

import contextlib
import glob
import http.client
import os
import re
import socket
import stat
import time
from collections.abc import Iterable
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import (
    backends,
    durable_file,
    nginx_files,
    nginx_workers,
    takeover_record,
    uwsgi_protocol,
)

__virtualname__ = "takeover"

_ASIDE = ".nginx_uwsgi_django"
_PROPERTIES = ["LoadState", "ActiveState", "UnitFileState", "FragmentPath", "TriggeredBy"]
_ENABLED = ("enabled", "enabled-runtime")
# systemctl stop waits for the unit's own TimeoutStopSec=, which is 90 s by default.
_STOP = 120
# Seconds that a unit has to listen where the old files pass requests to, after it was started.
_LISTEN = 30


def __virtual__() -> str:
    return __virtualname__


def _settings() -> dict[str, Any]:
    settings: dict[str, Any] = __salt__["site_pillar.settings"]()
    return settings


def _state_dir() -> str:
    return str(_settings()["lookup"]["state_dir"])


def _record(name: str) -> dict[str, Any]:
    return takeover_record.read(_state_dir(), name)


def _present() -> dict[str, dict[str, Any]]:
    return {name: site for name, site in _settings()["sites"].items() if not site["absent"]}


def _shown(units: Iterable[str]) -> dict[str, dict[str, str]]:
    names = sorted(set(units))
    found: dict[str, dict[str, str]] = {}
    if names:
        found = __salt__["systemd_unit.show"](names, _PROPERTIES)
    return {unit: shown for unit, shown in found.items() if shown["LoadState"] != "not-found"}


def _is_active(shown: dict[str, str]) -> bool:
    return shown["ActiveState"] not in ("inactive", "failed")


def _is_enabled(unit: str, shown: dict[str, str]) -> bool:
    if shown.get("UnitFileState") == "generated":
        # A script of /etc/init.d: systemd-sysv-generator(8) follows these links.
        stem = glob.escape(unit.rpartition(".")[0])
        return bool(glob.glob(f"/etc/rc[2345].d/S[0-9][0-9]{stem}"))
    return shown.get("UnitFileState") in _ENABLED


def _words(unit: str, shown: dict[str, str]) -> str:
    active = "active" if _is_active(shown) else "stopped"
    return f"{active}, {'enabled' if _is_enabled(unit, shown) else 'not enabled'}"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def lacks() -> dict[str, dict[str, dict[str, str]]]:
    """
    What of the servers that the pillar lets go is still there. The host is asked once for all sites.

    Returns by site, and by unit or by path of a socket, ``old`` and ``new``; nothing of a site whose
    servers are gone.

    Raises CommandExecutionError when the pillar is not valid or systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.lacks
    """
    asked = {name: site["takeover"] for name, site in _present().items()}
    shown = _shown(unit for each in asked.values() for unit in each["units"])
    found: dict[str, dict[str, dict[str, str]]] = {}
    for name, each in asked.items():
        for unit in each["units"]:
            if unit in shown and (_is_active(shown[unit]) or _is_enabled(unit, shown[unit])):
                change = {"old": _words(unit, shown[unit]), "new": "stopped, not enabled"}
                found.setdefault(name, {})[unit] = change
        # A socket without a unit to stop may belong to anything: it stays.
        for path in each["sockets"] if each["units"] else []:
            if _is_socket(path):
                found.setdefault(name, {})[path] = {"old": "a socket", "new": path + _ASIDE}
    return found


def reverted() -> dict[str, str]:
    """
    The sites that an operator has given back to what served them before, see :py:func:`revert`.

    Returns by site a sentence with the way on.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.reverted
    """
    return {
        name: f"{name}: takeover.revert gave it back at {since} to what served it before: "
        f"`takeover.resume {name}` lets the next run take it over again"
        for name in set(takeover_record.names(_state_dir())) & set(_present())
        if (since := _record(name)["reverted"])
    }


def remains() -> list[str]:
    """
    What still runs of the servers that the formula's sites have replaced and that the pillar does
    not let go.

    Returns sentences.

    Raises CommandExecutionError when the pillar is not valid or systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.remains
    """
    sites, replaced = _present(), __salt__["nginx_before.replaced"]()
    if not any(name in sites for name in replaced):
        return []
    own = {f"unix:{site['socket']['path']}" for site in sites.values()}
    table = backends.Table()
    found: dict[str, list[str]] = {}
    for name in sites:
        for was in replaced.get(name, {}).values():
            for _, address in was["passes"]:
                if address not in own:
                    found.setdefault(name, []).extend(table.holders(table.at(address)))
    let_go = {unit for site in sites.values() for unit in site["takeover"]["units"]}
    mine = re.compile(rf"uwsgi-(?:{'|'.join(map(re.escape, sites))})(?:@[0-9a-f]*)?\.service")
    shown = _shown(unit for units in found.values() for unit in units if unit.endswith(".service"))
    told = []
    for name, units in found.items():
        for unit in sorted(set(units)):
            if unit in let_go or mine.fullmatch(unit):
                continue
            enabled = unit in shown and _is_enabled(unit, shown[unit])
            state = "still runs and is enabled" if enabled else "still runs"
            told.append(
                f"{name}: {unit}, which served this site before, {state}: name it in "
                f"sites:{name}:takeover:units, and the next run stops it"
            )
    return told


def status(name: str) -> dict[str, Any]:
    """
    What served a site before, and what has become of it.

    name
        the site

    Returns a dictionary: ``files`` (as :py:func:`nginx_before.replaced` has them), ``user`` (the
    arguments of nginx's ``user`` line before the formula; None where it did not change it), ``units``
    (by name ``before`` and ``now``), ``sockets`` (by path where the socket is now), ``since``,
    ``reverted`` (when an operator gave the site back, or None), and ``left`` (what
    :py:func:`lacks` says of the site).

    Raises CommandExecutionError when the pillar is not valid or systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.status mysite
    """
    record = _record(name)
    shown = _shown(record["units"])
    return {
        "files": __salt__["nginx_before.replaced"]().get(name, {}),
        "user": __salt__["nginx_before.user"](),
        "units": {
            unit: {
                "before": ", ".join(
                    [
                        "active" if was["active"] else "stopped",
                        "enabled" if was["enabled"] else "not enabled",
                    ]
                ),
                "now": _words(unit, shown[unit]) if unit in shown else "gone",
            }
            for unit, was in record["units"].items()
        },
        "sockets": record["sockets"],
        "since": record["at"],
        "reverted": record["reverted"],
        "left": lacks().get(name, {}),
    }


def _sharing(name: str) -> list[str]:
    """A site, and those that were served by a unit of its."""
    units = set(_present()[name]["takeover"]["units"])
    others = [
        label
        for label, site in _present().items()
        if label != name and units & set(site["takeover"]["units"])
    ]
    return [name, *others]


def _unread(name: str) -> str | None:
    """Why nginx does not run the site's own file."""
    path = os.path.join(_settings()["lookup"]["nginx_dir"], f"sites-enabled/{name}.conf")
    if not nginx_files.is_owned(durable_file.read(os.path.realpath(path))):
        return f"{path} is not the site's own file"
    stale = __salt__["nginx_process.status"](lines=0)["stale"]
    return f"nginx does not run what is on the disk: {stale}" if stale else None


# --- the old goes ----------------------------------------------------------------------------------
def waits(name: str) -> str | None:
    """
    Why what served a site before is not to be stopped yet: its visitors do not get its own answers.

    name
        the site

    Returns a sentence; None when the site is proven.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.waits mysite
    """
    sharing = _sharing(name)
    for label in sharing:
        if why := __salt__["nginx_site.unproven"](label) or _unread(label):
            return why if label == name else f"{label}, which it served as well: {why}"
    health = __salt__["site_health.ask"](only=sharing)
    for label in sharing:
        if not health[label]["healthy"]:
            why = str(health[label]["why"])
            return why if label == name else f"{label}, which it served as well: {why}"
    return None


def _check_unneeded(units: list[str], table: backends.Table) -> None:
    """Raise an error where nginx still passes requests to a unit, or another unit would start it."""
    for each in __salt__["nginx_before.passes"]():
        for unit in table.units(table.at(each["address"])):
            if unit in units:
                raise CommandExecutionError(
                    f"{unit} still serves {each['address']}, which {each['path']}, line "
                    f"{each['line']} passes requests to: name the file in takeover:files, or take "
                    "the unit out of takeover:units"
                )
    shown = _shown(units)
    starters = sorted(
        {other for each in shown.values() for other in each.get("TriggeredBy", "").split()}
        - set(units)
    )
    active = [other for other, each in _shown(starters).items() if _is_active(each)]
    if active:
        raise CommandExecutionError(
            f"{', '.join(active)} would start {', '.join(sorted(shown))} again: name it in "
            "takeover:units, too"
        )


def _drained(sockets: list[str], units: list[str], patience: float) -> bool:
    """Wait until no request is under way at the old server; False when the time is over."""
    table = backends.Table()
    found = [each for path in sockets for each in table.at(f"unix:{path}")]
    found += [each for unit in units for each in table.of(unit)]
    deadline = time.monotonic() + patience
    while True:
        # A worker of the old configuration may still pass on a request whose body is on its way.
        master = __salt__["nginx_process.status"](lines=0)["pid"]
        titles = [words for words, _ in nginx_workers.children(master).values()] if master else []
        if not any("shutting down" in words for words in titles):
            if not backends.connections(found):
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _note(name: str, units: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Write down what the units are before they are touched; what was noted first stays."""
    record = _record(name)
    record["at"] = record["at"] or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for unit, shown in units.items():
        path = shown.get("FragmentPath", "")
        link = os.readlink(path) if os.path.islink(path) else None
        seen = {
            "enabled": _is_enabled(unit, shown),
            "active": _is_active(shown),
            "file": path,
            "link": link,
        }
        record["units"].setdefault(unit, seen)
    takeover_record.write(_state_dir(), name, record)
    return record


def ensure(name: str) -> dict[str, Any]:
    """
    Stop and disable what served a site before, and put its sockets aside.

    name
        a site of which :py:func:`waits` says None

    It waits for the requests that are under way there, for as many seconds as the site's
    ``uwsgi:stop_timeout``; then the units are stopped all the same, by their own signal.

    Returns the changes.

    Raises CommandExecutionError, with systemd's own words, when a unit does not obey; when nginx
    still passes requests to one; and when the site is not healthy without them: they run again then.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.ensure mysite
    """
    changes: dict[str, Any] = lacks().get(name, {})
    if not changes:
        return {}
    if why := waits(name):
        raise CommandExecutionError(f"it is not stopped: {why}")
    site = _present()[name]
    asked = site["takeover"]
    units = [unit for unit in asked["units"] if unit in changes]
    shown = _shown(units)
    _check_unneeded(units, backends.Table())
    for label in reversed(_sharing(name)):
        record = _note(label, shown)
    __salt__["socket_directory.ensure"]()
    if units:
        _disable(record, shown)
        _drained(asked["sockets"], units, site["uwsgi"]["stop_timeout"])
        running = [unit for unit in units if _is_active(shown[unit])]
        if running:
            __salt__["systemd_unit.stop"](running, timeout=_STOP)
            __salt__["systemd_unit.reset_failed"](running)
    _put_aside(name, record, asked["sockets"])
    if health := waits(name):
        _start(record)
        raise CommandExecutionError(
            f"without {', '.join(units)} the site was not healthy, and so they run again: {health}"
        )
    return changes


def _disable(record: dict[str, Any], shown: dict[str, dict[str, str]]) -> None:
    enabled = [unit for unit, each in shown.items() if _is_enabled(unit, each)]
    if not enabled:
        return
    __salt__["systemd_unit.disable"](enabled)
    # `systemctl disable` removes a link that is the unit's own file, too (systemctl(1)).
    _link(record, enabled)


def _link(record: dict[str, Any], units: Iterable[str]) -> None:
    """Put back the links that were units' files."""
    lost = [record["units"][unit] for unit in units]
    lost = [was for was in lost if was["link"] and not os.path.lexists(was["file"])]
    for was in lost:
        durable_file.link(was["file"], was["link"])
    if lost:
        __salt__["systemd_unit.daemon_reload"](force=True)


def _move(path: str, other: str) -> None:
    """Rename a socket in its directory, whatever a user puts in the way of the path meanwhile."""
    handle = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        old, new = os.path.basename(path), os.path.basename(other)
        if stat.S_ISSOCK(os.stat(old, dir_fd=handle, follow_symlinks=False).st_mode):
            os.rename(old, new, src_dir_fd=handle, dst_dir_fd=handle)
    finally:
        os.close(handle)


def _put_aside(name: str, record: dict[str, Any], sockets: list[str]) -> None:
    table = backends.Table()
    for path in sockets:
        if _is_socket(path) and not table.at(f"unix:{path}"):
            record["sockets"][path] = path + _ASIDE
            takeover_record.write(_state_dir(), name, record)
            _move(path, path + _ASIDE)


# --- the old comes back ----------------------------------------------------------------------------
def _start(record: dict[str, Any]) -> list[str]:
    """Let the units of a record be what they were; those that were not."""
    for path, aside in record["sockets"].items():
        if _is_socket(aside) and not os.path.lexists(path):
            _move(aside, path)
    _link(record, record["units"])
    shown = _shown(record["units"])
    missing = sorted(set(record["units"]) - set(shown))
    if missing:
        raise CommandExecutionError(
            f"{', '.join(missing)} served the site before, and systemd does not know it any more"
        )
    enable = [
        unit
        for unit, was in record["units"].items()
        if was["enabled"] and not _is_enabled(unit, shown[unit])
    ]
    start = [
        unit
        for unit, was in record["units"].items()
        if was["active"] and not _is_active(shown[unit])
    ]
    if enable:
        __salt__["systemd_unit.enable"](enable)
    if start:
        __salt__["systemd_unit.start"](start)
    return sorted({*enable, *start})


def _leaving(everything: bool) -> list[str]:
    """The sites with a record that are not to be on this host."""
    settings = _settings()
    known, purge = settings["sites"], settings["purge"]
    return [
        name
        for name in takeover_record.names(_state_dir())
        if everything or (known[name]["absent"] if name in known else purge)
    ]


def returning(everything: bool = False) -> dict[str, list[str]]:
    """
    The units that are to run again because the site that replaced them goes.

    everything
        all sites go, not only those that the pillar calls absent

    Returns the units by site; nothing of a site whose units run.

    Raises CommandExecutionError when the pillar is not valid or systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.returning everything=True
    """
    found = {}
    for name in _leaving(everything):
        units = _record(name)["units"]
        shown = _shown(units)
        due = [
            unit
            for unit, was in units.items()
            if unit not in shown
            or (was["active"] and not _is_active(shown[unit]))
            or (was["enabled"] and not _is_enabled(unit, shown[unit]))
        ]
        if due:
            found[name] = due
    return found


def give_back(name: str) -> list[str]:
    """
    Start and enable again what served a site before, as it was. nginx is not touched.

    name
        the site

    Returns the units that were started or enabled.

    Raises CommandExecutionError, with systemd's own words, when a unit does not start or is gone, and
    when it does not listen where the old files pass requests to.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.give_back mysite
    """
    started = _start(_record(name))
    wanted = [
        (directive, address)
        for was in __salt__["nginx_before.replaced"]().get(name, {}).values()
        for directive, address in was["passes"]
    ]
    own = f"unix:{__salt__['site_pillar.settings']()['sites'].get(name, {}).get('socket', {}).get('path')}"
    deadline = time.monotonic() + _LISTEN
    while True:
        table = backends.Table()
        silent = [address for _, address in wanted if address != own and not table.at(address)]
        if not silent:
            return started
        if time.monotonic() > deadline:
            raise CommandExecutionError(
                f"nothing listens on {', '.join(silent)}, where the files that served {name} before "
                "pass requests to"
            )
        time.sleep(0.2)


def forgotten(everything: bool = False) -> list[str]:
    """
    The sites that go, or have gone, whose record is left.

    everything
        as in :py:func:`returning`

    Returns their names.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.forgotten
    """
    return _leaving(everything)


def forget(name: str) -> bool:
    """
    Remove the record of what served a site before, and the sockets that were put aside.

    name
        the site

    Returns True when there was a record.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.forget mysite
    """
    for aside in _record(name)["sockets"].values():
        if _is_socket(aside):
            os.unlink(aside)
    return takeover_record.remove(_state_dir(), name)


def _site(name: str) -> dict[str, Any]:
    if name not in _present():
        raise SaltInvocationError(f"the pillar has no site {name!r}")
    return _present()[name]


def _asked(name: str) -> None:
    """Ask the old server itself; raise an error where its answer is not healthy."""
    question = __salt__["uwsgi_health.question"](name)
    for was in __salt__["nginx_before.replaced"]().get(name, {}).values():
        for directive, address in was["passes"]:
            if address == f"unix:{question['socket_path']}":
                continue
            answer = None
            if directive == "uwsgi_pass" and address.startswith("unix:"):
                path = address.removeprefix("unix:")
                answer = uwsgi_protocol.get(**{**question, "socket_path": path})
            elif directive == "proxy_pass":
                answer = _asked_by_http(address, question)
            if answer and (why := __salt__["uwsgi_health.fault"](name, answer)):
                raise CommandExecutionError(f"{address}, which served {name} before: {why}")


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _asked_by_http(address: str, question: dict[str, Any]) -> dict[str, Any]:
    timeout = float(question["timeout"])
    connection = (
        _Connection(address.removeprefix("unix:"), timeout)
        if address.startswith("unix:")
        else http.client.HTTPConnection(address, timeout=timeout)
    )
    with contextlib.closing(connection):
        try:
            secure = {"X-Forwarded-Proto": "https"} if question["variables"] else {}
            connection.request(
                "GET", question["path"], headers={"Host": question["host"], **secure}
            )
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise CommandExecutionError(f"{address} gave no answer: {error}") from None
    headers = {key.lower(): value for key, value in answer.getheaders()}
    return {"status": answer.status, "headers": headers}


def _reload() -> None:
    """nginx reads its tree, and systemd holds the sockets that it has then."""
    if __salt__["nginx_process.diff"]():
        __salt__["nginx_process.reload"]()
    if _settings()["nginx"]["socket"] and not __salt__["nginx_socket.obstacle"]():
        __salt__["nginx_socket.ensure"]()


def _visitors(name: str) -> str | None:
    """What is wrong with what nginx answers for a site that was given back."""
    visits = [{**visit, "closed": []} for visit in __salt__["site_health.visits"](name)]
    answers = __salt__["site_visit.together"](visits, 8)
    # The old server may have had no TLS, or another port.
    answered = [answer for answer in answers if answer["status"]]
    bad = [answer for answer in answered or answers if not answer["healthy"]]
    return f"{bad[0]['url']} for {bad[0]['host']} {bad[0]['why']}" if bad else None


def revert(name: str) -> dict[str, Any]:
    """
    Give a site back to what served it before: its units start and are enabled, its files are in
    nginx's tree byte for byte, and with the last site of the formula the ``user`` line is what it was.

    name
        the site

    The old server is asked itself before nginx goes back to it. Later runs leave the site with it,
    and are red, until :py:func:`resume`. The site's own uWSGI goes on without visitors, and stays up to
    date; ``absent: true`` takes it off the host.

    Returns ``units`` (started or enabled) and ``changes`` (of nginx's tree).

    Raises CommandExecutionError when there is nothing to go back to, the old server does not start or
    is not healthy, or nginx refuses its files. The site then answers as before the call.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.revert mysite
    """
    _site(name)
    record = _record(name)
    if not record["units"] and not __salt__["nginx_before.replaced"]().get(name):
        if record["reverted"]:
            return {"units": [], "changes": {}}
        raise CommandExecutionError(
            f"nothing is known of what served {name} before: the formula has replaced no file and "
            "stopped no unit for it, or takeover.finish has forgotten them"
        )
    try:
        units = give_back(name)
        _asked(name)
    except CommandExecutionError as error:
        _halt(record)
        raise CommandExecutionError(f"{error}\n{name} is served as before") from error
    record["reverted"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    takeover_record.write(_state_dir(), name, record)
    try:
        # Workers of both users finish requests whose bodies are in files.
        if before := __salt__["nginx_before.user"]():
            __salt__["nginx_temporary.shared"](before[0])
        changes = __salt__["nginx_tree.give_back"](name)["changes"]
        _reload()
        if why := _visitors(name):
            raise CommandExecutionError(f"what served {name} before does not answer: {why}")
    except CommandExecutionError as error:
        takeover_record.write(_state_dir(), name, {**record, "reverted": None})
        __salt__["nginx_tree.ensure"]()
        _reload()
        raise CommandExecutionError(f"{error}\n{name} is served as before") from error
    return {"units": units, "changes": changes}


def _halt(record: dict[str, Any]) -> None:
    """Stop units again that were started for nothing: nginx has not gone back to them."""
    shown = _shown(record["units"])
    _disable(record, shown)
    active = [unit for unit, each in shown.items() if _is_active(each)]
    if active:
        __salt__["systemd_unit.stop"](active, timeout=_STOP)
        __salt__["systemd_unit.reset_failed"](active)


def resume(name: str) -> bool:
    """
    Let the next run take a site over again after :py:func:`revert`.

    name
        the site

    Returns True when it was given back.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.resume mysite
    """
    _site(name)
    record = _record(name)
    if not record["reverted"]:
        return False
    takeover_record.write(_state_dir(), name, {**record, "reverted": None})
    return True


def finish(name: str) -> dict[str, Any]:
    """
    Forget what served a site before: the files and sockets that were kept, and the record, are
    deleted. There is no way back then. The unit's own file, its code and its data stay.

    name
        the site

    Returns ``files`` (of nginx's tree that were deleted) and ``record`` (True when there was one).

    Raises CommandExecutionError while the site is given back, or what served it before still runs.

    CLI Example:

    .. code-block:: bash

        salt '*' takeover.finish mysite
    """
    _site(name)
    if _record(name)["reverted"]:
        raise CommandExecutionError(reverted()[name])
    left = lacks().get(name, {})
    if left:
        raise CommandExecutionError(f"{', '.join(left)} is still there: apply the formula first")
    kept = __salt__["nginx_before.replaced"]().get(name, {})
    if kept:
        __salt__["nginx_tree.forget"](name)
        _reload()
    files = sorted(was["file"] for was in kept.values() if "file" in was)
    return {"files": files, "record": forget(name)}
