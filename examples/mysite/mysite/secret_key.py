"""A secret key that is generated once and then stays, shared by all processes of the site."""

import contextlib
import os
import pathlib
import secrets
import tempfile


def kept_in(folder: pathlib.Path) -> str:
    """
    The key in a directory; made there, readable by the site's user alone, when there is none.

    Two processes that start at once agree: the first to link its file in place wins.
    """
    path = folder / "secret_key"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text("ascii")
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    # Whole before it has the name that others look for, and 0600 as mkstemp makes it.
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".secret_key-")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(48))
            stream.flush()
            os.fsync(handle)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    return path.read_text("ascii")
