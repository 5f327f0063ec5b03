"""
Processes of the host, by proc(5).
"""

import os
import re

# The flag of a descriptor whose writes all go to the end of the file (fdinfo has it in octal).
_APPEND = os.O_APPEND


def resident(pid: int) -> int:
    """
    The memory of a process; uWSGI itself looks at it only when told to.

    pid
        its number

    Returns bytes; 0 for a process that has ended.
    """
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def system_call(pid: int) -> list[str] | None:
    """
    The system call that a process is in.

    pid
        its number

    Returns the call's number and its arguments, as /proc/PID/syscall spells them; ``["running"]``
    outside of a call, None for a process that has ended.

    Raises PermissionError in a container whose root may not trace.
    """
    try:
        with open(f"/proc/{pid}/syscall", encoding="ascii") as stream:
            return stream.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def has_open(pid: int, path: str) -> bool | None:
    """
    Whether a process has a file open.

    pid
        the process's number
    path
        the file

    Returns True or False; None when the process or the file is not there.
    """
    descriptors = f"/proc/{pid}/fd"
    try:
        # Such a link leads to the open file itself, also when the file has no name any more.
        return any(
            os.path.samefile(f"{descriptors}/{each}", path) for each in os.listdir(descriptors)
        )
    except FileNotFoundError:
        return None


def appended_files(pid: int) -> dict[str, int]:
    """
    The regular files that a process appends to, e.g. its logs.

    pid
        its number

    Returns their size in bytes by path; an empty dictionary for a process that has ended.
    """
    found: dict[str, int] = {}
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except FileNotFoundError:
        return found
    for descriptor in descriptors:
        try:
            path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii") as stream:
                flags = int(re.findall(r"^flags:\s*([0-7]+)", stream.read(), re.MULTILINE)[0], 8)
            if flags & _APPEND and os.path.isfile(path):
                found[path] = os.stat(path).st_size
        except (FileNotFoundError, ProcessLookupError):
            # Closed or rotated meanwhile.
            continue
    return found
