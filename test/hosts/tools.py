"""
The programs that a throwaway host needs on the test machine.
"""

import os
import pathlib
import shutil
import subprocess

from .paths import HostError, lock

# program (or file) that must be there -> the Debian and Ubuntu package that brings it
NEEDED = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "gpg": "gpg",
    "gpgconf": "gpgconf",
    "gpg-agent": "gpg-agent",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}


# Locks that every program started by run() holds too. A program outlives a killed test run by some
# milliseconds; what it still does must not escape the clean-up, which waits for these locks.
shared_locks: set[int] = set()


def environment() -> dict[str, str]:
    """The environment for the tools: the machine's own, in English, with the system's paths."""
    path = os.environ.get("PATH", "")
    return {
        **os.environ,
        "PATH": f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{path}",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }


def run(
    *argv: str | os.PathLike[str],
    timeout: float = 600,
    check: bool = True,
    text_input: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """
    Run a program on the test machine.

    argv
        the program and its arguments
    timeout
        seconds
    check
        raise HostError with the program's last words when it fails
    text_input
        what to feed to it
    """
    command = [os.fspath(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=text_input,
            stdin=subprocess.DEVNULL if text_input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=environment(),
            check=False,
            pass_fds=tuple(shared_locks),
        )
    except FileNotFoundError:
        raise HostError(f"{command[0]} is not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"`{' '.join(command)}` did not end within {timeout:g} s") from None
    if check and done.returncode:
        words = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise HostError(f"`{' '.join(command)}` failed with {done.returncode}: {words}")
    return done


def missing() -> list[str]:
    """The packages that have to be installed before a host can be made."""
    path = environment()["PATH"]
    return [
        package
        for program, package in NEEDED.items()
        if not (pathlib.Path(program).exists() or shutil.which(program, path=path))
    ]


def ensure_tools() -> None:
    """
    Install what is missing with apt, or say in one sentence why that is not possible.
    """
    if os.geteuid() != 0:
        raise HostError("throwaway hosts need root: run this with sudo")
    if not missing():
        return
    with lock("tools"):
        packages = missing()
        if not packages:
            return
        if not shutil.which("apt-get", path=environment()["PATH"]):
            raise HostError(
                f"throwaway hosts need {', '.join(packages)}, and this machine has no apt-get"
            )
        run("apt-get", "-q", "update")
        run("apt-get", "-q", "-y", "--no-install-recommends", "install", *packages)
        left = missing()
        if left:
            raise HostError(f"installing {', '.join(left)} did not bring the programs they promise")
