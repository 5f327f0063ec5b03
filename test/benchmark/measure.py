"""
What a command on a host takes.
"""

import dataclasses
import json
import re
from typing import Any

from test.hosts.host import Host

# Runs in the host: what its children took is the command's, whatever it starts and waits for.
_TIMED = r"""
import json, resource, subprocess, sys, time
began = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
wall = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "wall": wall,
    "cpu": used.ru_utime + used.ru_stime,
    "memory": used.ru_maxrss * 1024,
    "retcode": done.returncode,
    "said": done.stdout.decode(errors="replace"),
}))
"""


@dataclasses.dataclass
class Taken:
    """One run: seconds, seconds of the processor, bytes of the largest process, what it printed."""

    wall: float
    cpu: float
    memory: int
    said: str


class Failed(Exception):
    """A tool did not do its job."""


def run(host: Host, command: list[str], timeout: float = 7200) -> Taken:
    """Run a command on a host and measure it."""
    told: dict[str, Any] = json.loads(
        host.run("python3", "-c", _TIMED, *command, timeout=timeout).stdout
    )
    if told.pop("retcode"):
        raise Failed(f"{' '.join(command)}:\n{told['said'][-3000:]}")
    return Taken(**told)


def counted(host: Host, command: list[str], timeout: float = 7200) -> dict[str, int]:
    """
    What a command starts and writes, counted by strace in a run of its own: ``processes`` and
    ``files`` (opened to be written, by different paths; not in /proc, /dev and /tmp).
    """
    trace = "/root/trace"
    calls = "trace=execve,open,openat,creat"
    host.run(
        *("strace", "-f", "-qq", "-e", calls, "-e", "signal=none", "-o", trace, *command),
        timeout=timeout,
    )
    processes, files = 0, set()
    for line in host.read(trace).splitlines():
        if " execve(" in line and line.endswith("= 0"):
            processes += 1
        written = re.search(r'"([^"]+)", [^,]*O_(?:WRONLY|RDWR)', line)
        if written and not re.match(r"/(?:proc|dev|tmp|sys)/", written[1]):
            files.add(written[1])
    # The first one is the command itself.
    return {"processes": processes - 1, "files": len(files)}
