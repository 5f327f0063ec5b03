"""
What an operator asks of a host: is it up, does it answer, what do the logs say.

.. versionadded:: 0.1.0
"""

import http.client
import re
import time

__virtualname__ = "nginx_uwsgi_django"


def __virtual__() -> str:
    return __virtualname__


def version() -> dict:
    """
    The versions of what serves.

    Returns a dictionary: ``nginx`` (None when it is not installed), ``salt``, ``os``.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_uwsgi_django.version
    """
    return {
        "nginx": __salt__["nginx_tree.version"](),
        "salt": __grains__["saltversion"],
        "os": f"{__grains__['os']} {__grains__['osrelease']}",
    }


def _port_and_address(listen: int | str) -> tuple[str, int]:
    """Where on this host a listen value can be asked: an address bound to is asked itself."""
    address, _, port = str(listen).rpartition(":")
    if address.strip("[]") in ("", "*", "0.0.0.0", "::"):
        address = "127.0.0.1"
    return address.strip("[]"), int(port)


def _where(name: str) -> str:
    """Where a site's log is: a file, or the command that shows it."""
    return __salt__["uwsgi_log.path"](name) or f"journalctl --unit='uwsgi-{name}@*'"


def _ask(site: dict) -> dict:
    """One request through nginx, as a user's would come, with the site's own Host header."""
    health = site["health"]
    address, port = _port_and_address(site["listen"][0])
    answer = {
        "url": f"http://{address}:{port}{health['path']}".replace(":80/", "/"),
        "host": health["host"],
        "healthy": False,
    }
    connection = http.client.HTTPConnection(address, port, timeout=health["timeout"])
    began = time.monotonic()
    try:
        connection.request("GET", health["path"], headers={"Host": health["host"]})
        response = connection.getresponse()
        response.read()
        answer["status"] = response.status
        answer["healthy"] = response.status in health["status"]
        answer["answer"] = (
            f"{response.status} {response.reason} in {time.monotonic() - began:.2f} s"
        )
    except (OSError, http.client.HTTPException) as error:
        answer["answer"] = str(error) or type(error).__name__
    finally:
        connection.close()
    return answer


def status() -> dict:
    """
    Whether nginx and every site's uWSGI are loaded, active and running, and what each site answers.

    Returns a dictionary: ``nginx`` as ``nginx_process.status`` gives it; ``sites`` by name, each
    with ``socket`` and ``service`` (systemd's words for the socket and for the generation that
    serves), ``generation`` (its digest, None when none runs), ``enabled``, ``url``, ``host`` (the
    Host header of the request), ``answer``, ``status`` (of the HTTP response), ``healthy`` (whether
    the pillar calls that status healthy), ``log`` (the site's log file, or the command that shows its journal).

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_uwsgi_django.status
    """
    sites = {
        name: site
        for name, site in __salt__["site_pillar.settings"]()["sites"].items()
        if not site["absent"]
    }
    patterns = [f"uwsgi-{name}.socket" for name in sites]
    patterns += [f"uwsgi-{name}@*.service" for name in sites]
    units = (
        __salt__["systemd_unit.show"](
            patterns, ["LoadState", "ActiveState", "SubState", "UnitFileState"]
        )
        if sites
        else {}
    )

    def words(unit: dict) -> str:
        # As `systemctl` prints them in a row: loaded active running.
        return " ".join(
            unit.get(key, "") for key in ("LoadState", "ActiveState", "SubState")
        ).strip()

    answers = {}
    for name, site in sites.items():
        running = {
            match[1]: unit
            for unit_name, unit in units.items()
            if (match := re.fullmatch(rf"uwsgi-{re.escape(name)}@([0-9a-f]+)\.service", unit_name))
            and unit.get("ActiveState") == "active"
        }
        generation = next(iter(running), None)
        answers[name] = {
            "socket": words(units.get(f"uwsgi-{name}.socket", {})) or "not-found",
            "service": words(running[generation]) if generation else "not running",
            "generation": generation,
            "enabled": bool(generation) and running[generation].get("UnitFileState") == "enabled",
            "log": _where(name),
            **_ask(site),
        }
    return {"nginx": __salt__["nginx_process.status"](), "sites": answers}


def logs(lines: int = 20) -> dict:
    """
    The last lines of nginx's error log and of every site's uWSGI.

    lines
        how many of each at most

    Returns a dictionary: ``nginx`` and the sites' names, each with ``where`` (the file, or the
    command that shows more) and ``lines``, oldest first.

    Raises CommandExecutionError when the pillar is not valid or the journal cannot be read.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_uwsgi_django.logs
        salt '*' nginx_uwsgi_django.logs lines=100
    """
    error_log = __salt__["nginx_process.status"](lines=lines)["error_log"]
    answer = {"nginx": {"where": error_log["path"], "lines": error_log["lines"]}}
    for name, site in __salt__["site_pillar.settings"]()["sites"].items():
        if not site["absent"]:
            answer[name] = {
                "where": _where(name),
                "lines": __salt__["uwsgi_generation.logs"](name, lines),
            }
    return answer
