"""
The preflight of a generation: its twin, a unit of its own that users cannot reach, is started and asked.
"""

import os
from collections.abc import Callable

from salt.exceptions import CommandExecutionError

from _nud_cache import entries
from _nud_durable_file import directory, remove, write
from _nud_systemd_units import drop_ins, journal, read_anew, reset_failed, show, stop
from _nud_systemd_units import start as start_unit
from _nud_uwsgi_files import Generation
from _nud_uwsgi_ini import preflight
from _nud_uwsgi_unit import account, named, twin, twin_text

#: Under these directories, gone after a reboot, are the unit and the files of a preflight.
UNITS = "/run/systemd/system"
RUN = "/run/nginx_uwsgi_django"


def leftovers(name: str) -> list[str]:
    """
    The files of preflights of a site, which only a killed run leaves.

    name
        the site

    Returns sorted paths.
    """
    begin, end = twin(name, "/").split("/")
    found = [
        f"{UNITS}/{entry}"
        for entry in entries(UNITS)
        if entry.startswith(begin) and entry.endswith(end)
    ]
    mine = f"{RUN}/{name}"
    found += [f"{mine}/{entry}" for entry in entries(mine) if not entry.startswith(".")]
    return sorted(found)


def clear(name: str) -> None:
    """
    Stop and remove the preflights of a site.

    name
        the site

    Raises CommandExecutionError when a unit does not stop.
    """
    left = leftovers(name)
    units = [os.path.basename(path) for path in left if path.startswith(UNITS)]
    if units:
        stop(units)
        reset_failed(units)
    # systemd forgets a unit that is down, not failed and not wanted by another: no daemon-reload
    # has to take it away.
    for path in left:
        remove(path)


def last_words(unit: str, more: Callable[[], list[str]] | None = None) -> str:
    """
    What a unit's last start wrote, as the end of an error message.

    unit
        its name
    more
        returns lines that are not in the journal

    Returns text that begins a new line.

    Raises CommandExecutionError when journalctl fails.
    """
    invocation = show(unit, ["InvocationID"])[unit]["InvocationID"] or None
    lines = journal(unit, 20, invocation=invocation) + (more() if more else [])
    return "\nThe journal's last lines:\n" + "\n".join(f"  {line}" for line in lines or ["(none)"])


def run(name: str, generation: Generation, start: int, ask: Callable[[str], float]) -> float:
    """
    Start the twin of a generation on a private socket and ask it.

    name
        the site
    generation
        the generation
    start
        how many seconds the start may take
    ask
        asks the health question at a socket and returns the seconds that the answer took

    Returns what ``ask`` returns. Nothing is left of the twin.

    Raises CommandExecutionError, with what the twin wrote, when it does not start or ``ask`` raises
    that.
    """
    digest = generation.digest
    _, group = account(generation.unit)
    unit = twin(name, digest)
    socket = f"/run/uwsgi-{name}.preflight@{digest}/uwsgi.sock"
    place = f"{RUN}/{name}"
    ini, env = f"{place}/{digest}.ini", f"{place}/{digest}.env"
    for each in (RUN, place, UNITS):
        directory(each)
    text = twin_text(name, digest, generation.unit, ini, env, start, drop_ins(named(name, digest)))
    try:
        write(ini, preflight(generation.ini, socket), "root", group, "0640")
        write(env, generation.environment, "root", "root", "0600")
        write(f"{UNITS}/{unit}", text)
        read_anew(unit)
        try:
            start_unit(unit, start + 15)
            return ask(socket)
        except CommandExecutionError as error:
            raise CommandExecutionError(
                f"the new generation {digest} did not pass its preflight: {error}"
                + last_words(unit)
            ) from error
    finally:
        clear(name)
