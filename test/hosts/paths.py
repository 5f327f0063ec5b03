"""
Where the throwaway hosts live on the test machine, and the locks that keep two runs apart.
"""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

#: The checkout: the directory that holds ``test/``.
FORMULA = pathlib.Path(__file__).resolve().parents[2]

# What the checkout holds besides the formula, for `file_ignore_regex`.
NOT_THE_FORMULA = [
    r"(^|/)\.(git|ruff_cache|mypy_cache|pytest_cache|hypothesis)($|/)",
    r"(^|/)__pycache__($|/)",
    r"^artifacts($|/)",
]


class HostError(Exception):
    """One sentence on what went wrong with a throwaway host, fit to be shown to a person."""


def cache() -> pathlib.Path:
    """
    The directory of images, virtual environments and hosts.

    ``NGINX_UWSGI_DJANGO_CACHE`` moves it; it must be on a file system that can carry an overlay.
    """
    return pathlib.Path(os.environ.get("NGINX_UWSGI_DJANGO_CACHE", "/var/cache/nginx_uwsgi_django"))


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """
    Hold the machine-wide lock of this name; the kernel drops it when the holder dies.

    name
        what is being done, e.g. ``network``
    """
    folder = cache() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
