"""
Programs of apt and dpkg: how they are run, and what their output means.
"""

import os
import re
import subprocess
from collections.abc import Mapping

from salt.exceptions import CommandExecutionError

# Seconds for a question, which changes nothing and needs no lock.
_QUERY_TIMEOUT = 60

#: Options of dpkg: keep an operator's configuration files, and ask no questions.
KEEP = ("--force-confdef", "--force-confold")


class Refused(CommandExecutionError):
    """A program of apt or dpkg failed; ``output`` is everything that it printed."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def environment() -> dict[str, str]:
    """
    The environment that apt and dpkg are run in: of Salt's own only its proxies.

    Returns the variables by name.
    """
    names = ("http_proxy", "https_proxy", "no_proxy")
    proxies = {key: value for key, value in os.environ.items() if key.lower() in names}
    return {
        **proxies,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "DEBIAN_FRONTEND": "noninteractive",
        "APT_LISTBUGS_FRONTEND": "none",
        "APT_LISTCHANGES_FRONTEND": "none",
        # It would restart the services of the sites.
        "NEEDRESTART_SUSPEND": "1",
    }


def run(
    words: list[str], what: str, timeout: int, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """
    Run a program that may change packages or lists.

    words
        the command line
    what
        its name in an error message
    timeout
        seconds
    variables
        more variables of its environment

    Returns the finished process; ``stdout`` has both of its outputs.

    Raises Refused when it takes longer. Its exit code is for the caller to judge.
    """
    try:
        return subprocess.run(
            words,
            cwd="/",
            env={**environment(), **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"{what}: not done within {timeout} s") from None


def ask(*words: str, check: bool = True) -> str:
    """
    Ask a program a question that changes nothing.

    words
        the command line
    check
        a failure is an error; else its output counts as it is

    Returns its standard output.

    Raises CommandExecutionError with the program's own words when it fails or gives no answer.
    """
    what = " ".join(word for word in words[:2] if not word.startswith("-"))
    try:
        result = subprocess.run(
            words,
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_QUERY_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandExecutionError(f"{what}: no answer within {_QUERY_TIMEOUT} s") from None
    if check and result.returncode:
        raise CommandExecutionError(f"{what}: {result.stderr.strip()}")
    return result.stdout


def complaints(output: str, lines: int = 12) -> str:
    """
    What apt says about a failure.

    output
        everything that it printed
    lines
        how many of the last lines at most

    Returns its errors and warnings; all of its lines where it marks none as such.
    """
    told = [line.strip() for line in output.splitlines()]
    # Their list precedes "E: Unable to correct problems".
    unmet = [line for line in told if re.match(r"\S+ : (Pre)?Depends: |Depends: ", line)]
    bad = [line for line in told if line.startswith(("Err:", "E:", "W:", "dpkg:"))]
    return "\n".join(([*unmet, *bad] or [line for line in told if line])[-lines:])


def planned(output: str) -> tuple[dict[str, str], list[str]]:
    """
    What ``apt-get --simulate`` says that it would do.

    output
        its standard output

    Returns the version of each package that would be installed, by name, and the names of the
    packages that would be removed.
    """
    comes, goes = {}, []
    for line in output.splitlines():
        step = re.match(r"(Inst|Remv) (\S+) (?:\[\S+\] )?(?:\((\S+))?", line)
        if step and step[1] == "Inst":
            comes[step[2].partition(":")[0]] = step[3]
        elif step:
            goes.append(step[2].partition(":")[0])
    return comes, goes
