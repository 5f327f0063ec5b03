"""
The error log of nginx.
"""

import os
import re

from salt.exceptions import CommandExecutionError

from _nud_nginx_program import compiled


def path_of(master: int | None, base: str) -> str | None:
    """
    Where nginx writes its errors: what the master has as its standard error.

    master
        the number of the process; None when nginx does not run
    base
        the directory of nginx's tree

    Returns an absolute path; None when it is not known.
    """
    if master is not None:
        try:
            path = os.readlink(f"/proc/{master}/fd/2")
        except OSError:
            path = ""
        if path.startswith("/") and not path.startswith("/dev/"):
            return path.removesuffix(" (deleted)")
    try:
        with open(os.path.join(base, "nginx.conf"), encoding="utf-8", errors="replace") as conf:
            found = re.search(r"^[ \t]*error_log[ \t]+(/[^\s;]+)", conf.read(), re.MULTILINE)
    except FileNotFoundError:
        return None
    if found:
        return found.group(1)
    try:
        path = compiled().get("error-log-path", "")
    except CommandExecutionError:
        return None
    return path if path.startswith("/") else None


def tail(path: str | None, lines: int) -> list[str]:
    """
    The end of a log.

    path
        the file; None for a log that is not known
    lines
        how many

    Returns the last lines; none of a file that cannot be read.
    """
    if path is None:
        return []
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 512 * lines))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


class Log:
    """What nginx adds to a log from now on."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.offset, self.inode = self._at()

    def _at(self) -> tuple[int, int]:
        try:
            seen = os.stat(self.path or "")
        except OSError:
            return 0, 0
        return seen.st_size, seen.st_ino

    def errors(self) -> list[str]:
        """The lines at which nginx gave up, once each, without their time and process."""
        if self.path is None:
            return []
        size, inode = self._at()
        # Rotated or truncated meanwhile: all of it is new.
        start = self.offset if inode == self.inode and size >= self.offset else 0
        try:
            with open(self.path, "rb") as stream:
                stream.seek(start)
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return []
        # "*" and a number: about a connection, not about the configuration.
        found = re.findall(r"\[emerg\] \d+#\d+: (?!\*\d)(.*)", text)
        return list(dict.fromkeys(found))
