"""
Programs of systemd, and texts as its unit files and its answers spell them.
"""

import datetime
import re
import shutil
import subprocess
from collections.abc import Iterable

from salt.exceptions import CommandExecutionError

from _nud_cache import refuse_change

# systemctl itself answers within this many seconds or something is badly wrong.
QUERY_TIMEOUT = 30


def run(argv: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "SYSTEMD_COLORS": "0",
        "SYSTEMD_PAGER": "",
    }
    try:
        return subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise CommandExecutionError(f"there is no {argv[0]} on this system") from None


def query(argv: list[str]) -> str:
    try:
        result = run(argv, QUERY_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise CommandExecutionError(
            f"{' '.join(argv[:2])} gave no answer within {QUERY_TIMEOUT} s"
        ) from None
    if result.returncode:
        raise CommandExecutionError(
            f"{' '.join(argv[:2])} failed: {result.stderr.strip() or result.returncode}"
        )
    return result.stdout


def act(verb: str, units: str | Iterable[str], timeout: float, *options: str) -> bool:
    names = unit_names(units)
    refuse_change(f"{verb} {' '.join(names)}")
    try:
        result = run(["systemctl", verb, *options, "--", *names], timeout)
    except subprocess.TimeoutExpired:
        raise CommandExecutionError(
            f"systemctl {verb} {' '.join(names)} was not done within {timeout:g} s"
        ) from None
    if result.returncode:
        raise CommandExecutionError(
            f"systemctl {verb} {' '.join(names)} failed: "
            f"{result.stderr.strip() or f'exit code {result.returncode}'}"
        )
    return True


def unit_names(units: str | Iterable[str]) -> list[str]:
    names = [units] if isinstance(units, str) else list(units)
    if not names:
        raise CommandExecutionError("no unit is named")
    return names


def escape(value: str, words: bool = False, command: bool = False) -> str:
    """
    A value as a unit file has to spell it.

    value
        what systemd shall understand: a path, a sentence
    words
        the setting takes a list of words (``ReadWritePaths=``): put it in quotes where needed
    command
        it is a word of a command line (``ExecStart=``): as ``words``, and ``$`` is doubled

    Returns text. ``%`` is doubled, because systemd expands specifiers nearly everywhere (``%o`` in
    a path becomes the operating system's name); see systemd.unit(5) and systemd.syntax(7).

    Raises CommandExecutionError for control characters, which would begin a new line of the unit.
    """
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise CommandExecutionError(f"{value!r} cannot be written in a unit file")
    text = value.replace("%", "%%")
    if command:
        text = text.replace("$", "$$")
    if (words or command) and not re.fullmatch(r"[A-Za-z0-9_./:@%$+=,-]+", text):
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        text = f'"{text}"'
    return text


def wrong_calendar(expression: str) -> str | None:
    """
    What systemd has against a time for ``OnCalendar=``.

    expression
        as systemd.time(7) describes it

    Returns its own words; None when it is right, or there is no systemd here to ask (a container
    with nothing but a master).
    """
    if shutil.which("systemd-analyze") is None:
        return None
    result = run(["systemd-analyze", "calendar", "--", expression], QUERY_TIMEOUT)
    return result.stderr.strip() or "not understood" if result.returncode else None


def seconds(timestamp: str) -> float | None:
    """
    A time of day, as :py:func:`show` gives it, in seconds since 1970: to compare with the times of
    files.

    timestamp
        e.g. ``Sun 2026-11-22 20:10:00.123456 UTC``

    Returns a number; None for the empty text that stands for "never".
    """
    if not timestamp:
        return None
    form = "%Y-%m-%d %H:%M:%S.%f UTC"
    # The day's name is of no use, and would be read in the minion's language.
    moment = datetime.datetime.strptime(timestamp.partition(" ")[2], form)
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()
