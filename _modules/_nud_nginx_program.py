"""
nginx as a program: where it is, its version, the paths that it was built with.
"""

import glob
import os
import re
import shutil
import subprocess

from salt.exceptions import CommandExecutionError

from _nud_durable_file import read
from _nud_nginx_files import text_of
from _nud_nginx_language import directives

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C"}


# `nginx -t` reads files and resolves the names of upstreams; a name server that does not answer
# costs it up to half a minute.
TIMEOUT = 120


def find() -> str | None:
    """
    The installed nginx.

    Returns its path; None where there is none.
    """
    return shutil.which("nginx", path=_PATH)


def run(*arguments: str, binary: str | None = None) -> subprocess.CompletedProcess[str]:
    """
    Run nginx.

    arguments
        of the command line
    binary
        a path; by default the installed nginx

    Returns the finished process.

    Raises CommandExecutionError when nginx is not installed.
    """
    binary = binary or find()
    if binary is None:
        raise CommandExecutionError("nginx is not installed")
    return subprocess.run(
        [binary, *arguments],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT,
        check=False,
    )


def version(binary: str | None = None) -> str:
    """
    The version of nginx, as ``nginx -v`` says it.

    binary
        a path; by default the installed nginx

    Returns e.g. ``1.22.1``.

    Raises CommandExecutionError when nginx is not installed or does not say.
    """
    result = run("-v", binary=binary)
    found = re.search(r"nginx/(\S+)", result.stderr)
    if result.returncode or not found:
        raise CommandExecutionError(f"nginx -v: {result.stderr.strip() or result.returncode}")
    return found.group(1)


def compiled(binary: str | None = None) -> dict[str, str]:
    """
    The paths that nginx was built with.

    binary
        as in :py:func:`version`

    Returns a dictionary: ``{"pid-path": "/run/nginx.pid", "error-log-path": …}``.

    Raises CommandExecutionError when nginx is not installed.
    """
    result = run("-V", binary=binary)
    if result.returncode:
        raise CommandExecutionError(f"nginx -V: {result.stderr.strip() or result.returncode}")
    return dict(re.findall(r"--([a-z-]+-path|prefix)=(\S+)", result.stderr))


def identity(binary: str) -> list[int]:
    """
    What tells a program from another at the same path.

    binary
        its path

    Returns some numbers.
    """
    seen = os.stat(binary)
    return [seen.st_dev, seen.st_ino, seen.st_size, seen.st_ctime_ns]


def temporary(base: str) -> list[str]:
    """
    The directories in which nginx's workers keep bodies of requests and answers for a moment: those
    that nginx was built with and those of the configuration on the disk.

    base
        the directory of nginx's tree

    Returns the absolute paths of those that are there, sorted.

    Raises CommandExecutionError when nginx is not installed.
    """
    paths = compiled()
    found = {path for name, path in paths.items() if name.startswith("http-") and "temp" in name}
    for pattern in ("nginx.conf", "conf.d/*.conf", "sites-enabled/*"):
        for file in glob.glob(os.path.join(glob.escape(base), pattern)):
            for directive in directives(text_of(read(os.path.realpath(file)))):
                if directive.words[0].endswith("_temp_path") and len(directive.words) > 1:
                    found.add(directive.words[1])
    prefix = paths.get("prefix", "/usr/share/nginx")
    absolute = {os.path.realpath(os.path.join(prefix, path)) for path in found}
    return sorted(path for path in absolute if os.path.isdir(path))
