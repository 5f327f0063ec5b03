"""
A control group of its own for every host.

Without it all hosts would share one (systemd-nspawn started outside of a unit makes ``payload``
next to itself), and their systemds would sort processes into each other's units. It also is how
every process of a host is found again after its owner was killed.
"""

import contextlib
import os
import pathlib
import signal
import time

from .paths import HostError

_PARENT = "nginx_uwsgi_django_hosts"
_ROOT = "/sys/fs/cgroup"
# In a mount namespace of its own: the unified hierarchy where systemd looks for it.
_UNIFIED = f'umount -R -l {_ROOT} && mount -t cgroup2 cgroup2 {_ROOT} && exec "$@"'


def _hierarchies() -> list[pathlib.Path]:
    """The unified hierarchy and, on a hybrid machine, systemd's named one."""
    found = []
    for line in pathlib.Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            path = pathlib.Path(target)
            if path not in found:
                found.append(path)
    if not found:
        raise HostError("a throwaway host needs cgroups, and none are mounted on this machine")
    return found


def unified() -> list[str]:
    """
    The words before a command that make it see the unified hierarchy alone at ``/sys/fs/cgroup``,
    as a Debian or an Ubuntu has it; none where this machine has it, too.

    systemd 258 and newer boot in no other.
    """
    for line in pathlib.Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, target, kind, *_ = line.split()
        if (target, kind) == (_ROOT, "cgroup2"):
            return []
    return ["unshare", "--mount", "sh", "-c", _UNIFIED, "sh"]


def paths(name: str) -> list[pathlib.Path]:
    """The host's control groups, whether they exist or not."""
    return [root / _PARENT / name for root in _hierarchies()]


def create(name: str) -> list[pathlib.Path]:
    """Make the host's control groups."""
    made = paths(name)
    for path in made:
        path.mkdir(parents=True, exist_ok=True)
    return made


def processes(name: str) -> list[int]:
    """All processes of a host, as this machine numbers them."""
    found: set[int] = set()
    for group in paths(name):
        for folder, _, files in os.walk(group):
            if "cgroup.procs" in files:
                try:
                    text = pathlib.Path(folder, "cgroup.procs").read_text("ascii")
                except OSError:
                    # The group went away with its last process.
                    continue
                found.update(int(word) for word in text.split())
    # 0 is a process of a namespace that cannot be seen from here; there is none such.
    return sorted(found - {0})


def destroy(name: str) -> None:
    """Kill what is left in a host's control groups and remove them."""
    deadline = time.monotonic() + 20
    while any(group.exists() for group in paths(name)):
        for pid in processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for group in paths(name):
            for folder, _, _ in os.walk(group, topdown=False):
                # Busy while a process that was just killed is being buried, or another one came.
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        if time.monotonic() > deadline:
            raise HostError(f"processes {processes(name)} of the host {name} do not die")
        time.sleep(0.005)
