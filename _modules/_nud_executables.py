"""
Programs on the disk: what they consist of, and who may execute them.
"""

import glob
import hashlib
import os
from typing import Any

from _nud_cache import once

# The content of files by what changes with it, for as long as this process lives.
_CONTENTS: dict[tuple[int, ...], str] = {}


def content(path: str) -> str | None:
    """
    The digest of a file's content, remembered until the file changes.

    path
        a program or a library

    Returns 64 hexadecimal digits; None when there is no file, or no access to it.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key not in _CONTENTS:
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                digest.update(piece)
        _CONTENTS[key] = digest.hexdigest()
    return _CONTENTS[key]


def sorted_glob(directory: str, pattern: str) -> list[str]:
    """
    The paths below a directory that match a pattern.

    directory
        an absolute path, taken literally
    pattern
        as for glob(7)

    Returns them sorted.
    """
    return sorted(glob.glob(f"{glob.escape(directory)}/{pattern}"))


def of_uwsgi(venv: dict[str, Any], plugin: str | None) -> dict[str, list[str | None]]:
    """
    What a site's uWSGI executes. A file that is replaced is another program.

    venv
        the virtual environment, as :py:func:`python_venv.desired` describes it
    plugin
        the plugin with uWSGI's Python; None where uWSGI has it built in

    Returns the real path and the content's digest by path.
    """

    def look() -> dict[str, list[str | None]]:
        paths = [venv["uwsgi"], venv["binary"]]
        # pyuwsgi is a script of two lines around an extension module.
        paths += sorted_glob(venv["path"], "lib/python3*/site-packages/pyuwsgi*.so")
        if plugin:
            paths += sorted_glob("/usr/lib/uwsgi/plugins", f"{plugin}*_plugin.so")
        return {path: [os.path.realpath(path), content(path)] for path in paths if path}

    # The same for all sites with one virtual environment.
    key = ("programs", venv["path"], venv["uwsgi"], venv["binary"], plugin or "")
    found: dict[str, list[str | None]] = once(key, look)
    return found


def installation(program: str) -> list[str]:
    """
    A program and the targets of its links, each with the directory that it is installed in.

    program
        an absolute path

    Returns paths; a loop of links ends the list.
    """

    def look() -> list[str]:
        chain = [program]
        while os.path.islink(chain[-1]):
            target = os.path.join(os.path.dirname(chain[-1]), os.readlink(chain[-1]))
            if os.path.normpath(target) in chain:
                break
            chain.append(os.path.normpath(target))
        found = []
        for path in [*chain, os.path.realpath(program)]:
            prefix, directory = os.path.split(os.path.dirname(path))
            # PREFIX/bin/python finds its library in PREFIX/lib.
            found += [path, prefix] if directory == "bin" else [path]
        return found

    return list(once(("installation", program), look))


def is_for_all(program: str) -> bool:
    """
    Whether every user may execute a program, as far as permissions tell.

    program
        an absolute path

    Returns True or False.

    Raises FileNotFoundError when it is not there.
    """
    path = os.path.realpath(program)
    folders = []
    while path != os.path.dirname(path):
        folders.append(path)
        path = os.path.dirname(path)
    return all(os.stat(each).st_mode & 0o001 for each in folders)
