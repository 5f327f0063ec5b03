"""
What a rollout from the master asks of the host it is at: what is there and how it does, a copy of
what would have to be put back, and putting it back.

``salt-run rollout.apply`` calls these; an operator may too.

.. versionadded:: 0.1.0
"""

import json
import os
import re
import shutil
import socket
import time
import urllib.parse
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import durable_file, nginx_user, process_facts, uwsgi_protocol

__virtualname__ = "rollout_host"

# How many rollouts' copies stay on the host.
_KEEP = 3
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# The status of a line of an access log: after the quoted request, as in nginx's own format
# "combined" and all that begin like it, or by name, as in logs of JSON objects.
_STATUS = re.compile(rb'" (\d{3}) |"status": ?"?(\d{3})\b')
# More of a log than this is not read for one window.
_LOG_MOST = 64 << 20


def __virtual__() -> str:
    return __virtualname__


def _settings() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()


def _sites() -> dict[str, dict[str, Any]]:
    return {name: site for name, site in _settings()["sites"].items() if not site["absent"]}


# --- What there is, and how it does --------------------------------------------------------------


def _address() -> str | None:
    """The address of this host that its master sees, by the route that leads there."""
    master = __opts__.get("master_ip")
    if not master:
        return None
    family = socket.AF_INET6 if ":" in master else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Of a datagram socket this only chooses a route: nothing is sent.
            probe.connect((master, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _from_outside(visit: dict[str, Any], address: str | None) -> dict[str, Any] | None:
    """A visit as the master can make it; None where nginx listens to this host alone."""
    bound = visit["listen"].strip("[]")
    if address is None or bound.startswith("127.") or bound == "::1":
        return None
    # To addresses of the other family the master may have no way.
    if (":" in bound) != (":" in address):
        return None
    host = address if bound in ("", "*", "0.0.0.0", "::") else bound
    parts = urllib.parse.urlsplit(visit["url"])
    host = f"[{host}]" if ":" in host else host
    url = parts._replace(netloc=host + (f":{parts.port}" if parts.port else "")).geturl()
    # The master is not the load balancer: nginx does not believe it what this host may say.
    return {
        **{key: value for key, value in visit.items() if key != "source"},
        "url": url,
        "secure": parts.scheme == "https",
    }


def look(grain: str | None = None) -> dict[str, Any]:
    """
    The host as a rollout sees it.

    grain
        also tell the value of this grain

    Returns a dictionary: ``address`` (of this host, as its master reaches it; None when unknown),
    ``grain``, ``limits`` (the pillar's ``rollout``), ``migrates`` (the sites whose database this
    host migrates for all) and ``sites`` by name, each with ``generation`` (the digest that runs;
    None), ``visits`` (what the master may ask nginx, as :py:func:`site_health.visits` describes it;
    empty when the site listens to this host alone) and ``why`` (what is wrong with the site, seen
    from inside; None when nothing is).

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' rollout_host.look
        salt '*' rollout_host.look grain=zone
    """
    address = _address()
    asked = __salt__["nginx_uwsgi_django.status"]()["sites"]
    sites = {}
    migrates = []
    for name, site in _sites().items():
        sites[name] = {
            "generation": asked[name]["generation"],
            "visits": [
                outside
                for visit in __salt__["site_health.visits"](name)
                if (outside := _from_outside(visit, address))
            ],
            "why": _wrong(name, asked[name]),
        }
        migrate = site["project"]["migrate"]
        if isinstance(migrate, dict) and migrate.get("host") == __grains__["id"]:
            migrates.append(name)
    return {
        "address": address,
        "grain": __grains__.get(grain) if grain else None,
        "limits": _settings()["rollout"],
        "migrates": migrates,
        "sites": sites,
    }


def _wrong(name: str, asked: dict[str, Any]) -> str | None:
    """Why a site is not well, from inside: its generation, uWSGI's answer, nginx's answer."""
    try:
        changes = __salt__["uwsgi_generation.diff"](name)["changes"]
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        return f"{error}"
    if changes:
        return f"uWSGI is not as it should be: {', '.join(sorted(changes))}"
    return None if asked["healthy"] else str(asked["why"])


# --- Real requests over a while ------------------------------------------------------------------


def _access_logs() -> dict[str, int]:
    """The files that nginx appends to, and how long they are: its logs, whatever they are called."""
    master = __salt__["nginx_process.pid"]()
    return process_facts.appended_files(master) if master else {}


def _answers(logs: dict[str, int], closed: bool = False) -> tuple[int, int]:
    """
    How many requests the logs have more than they had, and how many of them the server failed.

    closed
        a site of this host is under maintenance: 503 is what its visitors are to get, and a line does
        not say which site it is of
    """
    requests = errors = 0
    for path, size in logs.items():
        try:
            with open(path, "rb") as stream:
                # Shorter than it was: another file, all of it new.
                stream.seek(size if os.stat(path).st_size >= size else 0)
                text = stream.read(_LOG_MOST)
        except FileNotFoundError:
            continue
        for plain, named in _STATUS.findall(text):
            status = plain or named
            requests += 1
            errors += status.startswith(b"5") and not (closed and status == b"503")
    return requests, errors


def _worked(generation: str | None, name: str) -> tuple[int, float, int]:
    """
    How many requests a generation has answered, the seconds that they took, and the bytes of memory
    that its workers have now.
    """
    if generation is None:
        return 0, 0.0, 0
    try:
        told = uwsgi_protocol.stats(f"/run/uwsgi-{name}@{generation}/stats.sock")
    except CommandExecutionError:
        return 0, 0.0, 0
    workers = told["workers"]
    # uwsgi_close_request() of core/utils.c adds each request's microseconds to running_time.
    return (
        sum(worker["requests"] for worker in workers),
        sum(worker["running_time"] for worker in workers) / 1e6,
        sum(process_facts.resident(worker["pid"]) for worker in workers),
    )


def measure(seconds: float) -> dict[str, Any]:
    """
    Watch the requests that come for a while, without adding any.

    seconds
        how long

    Returns ``requests`` and ``errors`` (of all sites: lines that nginx added to its access logs, and
    those among them with a status of 500 and more) and ``sites`` by name, each with ``requests``
    and ``mean`` (seconds that uWSGI took for one; None without requests).

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' rollout_host.measure 10
    """
    units = {name: __salt__["uwsgi_generation.list"](name) for name in _sites()}
    running = {
        name: next((one["digest"] for one in there if one["state"] == "active"), None)
        for name, there in units.items()
    }
    logs = _access_logs()
    before = {name: _worked(running[name], name) for name in running}
    time.sleep(seconds)
    closed = any(site["maintenance"] for site in _sites().values())
    requests, errors = _answers(logs, closed)
    sites = {}
    for name in running:
        count, took, memory = _worked(running[name], name)
        count, took = count - before[name][0], took - before[name][1]
        mean = took / count if count > 0 else None
        sites[name] = {"requests": count, "mean": mean, "memory": memory}
    return {"requests": requests, "errors": errors, "sites": sites}


# --- What would have to be put back --------------------------------------------------------------


def _folder(rollout: str) -> str:
    if not _ID.fullmatch(rollout):
        raise SaltInvocationError(f"{rollout!r} is not the ID of a rollout")
    return f"{_settings()['lookup']['state_dir']}/rollouts/{rollout}"


def _kept(rollout: str) -> dict[str, Any] | None:
    text = durable_file.read(f"{_folder(rollout)}/host.json")
    return None if text is None else json.loads(text)


def kept() -> list[str]:
    """
    The rollouts from before which this host has a copy, the oldest first.

    Returns their IDs.

    CLI Example:

    .. code-block:: bash

        salt '*' rollout_host.kept
    """
    home = os.path.dirname(_folder("any"))
    there = os.listdir(home) if os.path.isdir(home) else []
    return sorted(name for name in there if _ID.fullmatch(name) and _kept(name) is not None)


def _socket_units(name: str) -> dict[str, str | None]:
    """The text of the units that hold a site's socket, by path."""
    texts = {}
    for path in __salt__["uwsgi_socket.unit_files"](name):
        text = durable_file.read(path)
        texts[path] = None if text is None else text.decode("utf-8", "replace")
    return texts


def keep(rollout: str) -> dict[str, str | None]:
    """
    Copy what a rollout may change, before it does: which generations run, which release is current,
    and nginx's whole tree.

    Of one rollout there is one copy, the first: the same rollout asking again changes nothing, so
    that one which was killed and resumed still goes back to where it began.

    rollout
        its ID

    Returns the generation (its digest; None) of each site that was there.

    Raises SaltInvocationError for an ID that is none, CommandExecutionError when the pillar is not
    valid or somebody keeps writing to nginx's tree.

    CLI Example:

    .. code-block:: bash

        salt '*' rollout_host.keep by-hand
    """
    there = _kept(rollout)
    if there is None:
        folder = _folder(rollout)
        for path in (os.path.dirname(folder), folder):
            durable_file.directory(path, mode="0700")
        tree = f"{_settings()['lookup']['nginx_dir']}/nginx.conf"
        there = {"nginx": os.path.exists(tree), "sites": {}}
        for name, site in _sites().items():
            running = [
                one["digest"]
                for one in __salt__["uwsgi_generation.list"](name)
                if one["state"] == "active" and one["enabled"]
            ]
            link = os.path.join(site["project"]["path"], "current")
            there["sites"][name] = {
                "generation": running[0] if running else None,
                "current": [link, os.readlink(link)] if os.path.islink(link) else None,
                "socket": _socket_units(name),
            }
        if there["nginx"]:
            __salt__["nginx_tree.keep"](f"{folder}/nginx.tar")
        # Last: with it the copy is whole.
        durable_file.write(f"{folder}/host.json", json.dumps(there), mode="0600")
        _prune()
    return {name: site["generation"] for name, site in there["sites"].items()}


def _prune() -> None:
    """Remove all but the newest copies, and halves of copies that a killed run left."""
    home = os.path.dirname(_folder("any"))

    def age(name: str) -> float:
        return os.stat(os.path.join(home, name)).st_mtime

    whole = sorted(kept(), key=age)
    for name in os.listdir(home):
        if name not in whole[-_KEEP:]:
            shutil.rmtree(os.path.join(home, name))


def revert(rollout: str) -> dict[str, Any]:
    """
    Put the host back to where it was before a rollout: its generations, the link to the current
    release, nginx's tree; each by the checks that any change goes through.

    What is not undone, because nothing could: migrations of a database, upgrades of packages,
    changes of accounts and of files outside nginx's tree; a site that was removed; a site's socket
    whose units have changed. Where one of the last two happened, it is an error here; and a site
    whose database has had what Django cannot undo stays as it is, which is an error, too. The next
    ``state.apply`` brings what the pillar says.

    rollout
        its ID

    Returns ``done`` (a list of what was put back, empty when all was as before) and ``errors`` (a
    list of what could not be). One thing that cannot be put back does not keep the others from it.

    Raises CommandExecutionError when there is no copy from before the rollout.

    CLI Example:

    .. code-block:: bash

        salt web1 rollout_host.revert 20261125-103000-4f2a
    """
    there = _kept(rollout)
    if there is None:
        raise CommandExecutionError(
            f"there is no copy from before the rollout {rollout} on this host"
        )
    done: list[str] = []
    errors: list[str] = []
    for name, site in there["sites"].items():
        if site["generation"] is None:
            continue
        try:
            with __salt__["release_record.alone"](name, "rollout_host.revert"):
                _revert_site(name, site, done, errors)
        except (CommandExecutionError, SaltInvocationError, OSError) as error:
            errors.append(f"{name}: {error}")
    try:
        if there["nginx"]:
            changes = __salt__["nginx_tree.restore"](f"{_folder(rollout)}/nginx.tar")["changes"]
            done += [f"{path} is as before" for path in sorted(changes)]
            # The tree from before may name another user of nginx's workers.
            closed = [name for name in _sites() if __salt__["uwsgi_socket.opened"](name)]
            if closed:
                __salt__["uwsgi_socket.admit"](closed)
            tree = __salt__["site_pillar.settings"]()["lookup"]["nginx_dir"]
            user = nginx_user.configured(os.path.realpath(tree))
            if user:
                __salt__["nginx_temporary.shared"](user[0])
            _let_nginx_follow()
    except (CommandExecutionError, OSError) as error:
        errors.append(f"nginx: {error}")
    if not there["nginx"]:
        errors.append("nginx was not installed before: nothing to go back to")
    return {"done": done, "errors": errors}


def _revert_site(name: str, site: dict[str, Any], done: list[str], errors: list[str]) -> None:
    release = os.path.basename(site["current"][1]) if site["current"] else None
    if release and release != __salt__["uwsgi_generation.serving"](name):
        lasting = __salt__["site_rollback.irreversible"](name, release)
        if lasting:
            # Only a person can tell whether the release works with that.
            errors.append(f"{name}: not put back to the release {release}: {lasting}")
            return
    if _socket_units(name) != site["socket"]:
        errors.append(f"{name}: the units of its socket are others than before")
    switched = __salt__["uwsgi_generation.switch"](name, site["generation"])
    if switched["changes"]:
        done.append(f"{name}: generation {switched['digest']} runs again")
    if site["current"] and durable_file.link(*site["current"]):
        done.append(f"{name}: current is {os.path.basename(site['current'][1])} again")


def _let_nginx_follow() -> None:
    due = __salt__["nginx_process.diff"]()
    for act in ("start", "upgrade", "reload"):
        if act in due:
            __salt__[f"nginx_process.{act}"]()
            return
