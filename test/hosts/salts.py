"""
The Salt versions that the formula supports, installed once for all hosts.

They run on Debian 12's Python on every host, as a onedir Salt brings its own.
"""

import pathlib
import shutil

from .image import image
from .paths import HostError, cache, lock

# Where the hosts see them.
DIRECTORY = "/opt/salt"
#: Release line -> the version that the tests run, the newest of its line.
VERSIONS = {"3006": "3006.30", "3007": "3007.17", "3008": "3008.5"}
# An older version of each line, whose requirements stand in for those of the newest where the package
# index does not have them yet.
_OLDER = {"3006.30": "3006.28", "3007.17": "3007.15", "3008.5": "3008.3"}


def _folder() -> pathlib.Path:
    return cache() / "salt"


def program(salt: str, name: str) -> str:
    """
    The path of a program of a Salt version inside a host.

    salt
        ``3006``, ``3007`` or ``3008``
    name
        e.g. ``salt-call``
    """
    if salt not in VERSIONS:
        raise HostError(f"Salt {salt!r} is not one of {', '.join(VERSIONS)}")
    return f"{DIRECTORY}/{VERSIONS[salt]}/bin/{name}"


def ensure_salts() -> pathlib.Path:
    """
    The directory to be bound into hosts at :py:data:`DIRECTORY`, made first if need be.

    Building takes some minutes once: some of Salt's requirements have no wheel, so it happens in
    a throwaway host with a compiler.
    """
    folder = _folder()
    if not _missing(folder):
        return folder
    with lock("salt"):
        if _missing(folder):
            _build(folder)
    return folder


def _missing(folder: pathlib.Path) -> list[str]:
    # Not the directory: it is a mount point while its virtual environment is being built.
    return [
        version
        for version in VERSIONS.values()
        if not (folder / version / "bin" / "salt-call").is_file()
    ]


def _build(folder: pathlib.Path) -> None:
    from .host import Host

    folder.mkdir(parents=True, exist_ok=True)
    for half in folder.glob(".*"):
        shutil.rmtree(half)
    if not (folder / "python").is_dir():
        base = image("bookworm")
        half = folder / ".python"
        (half / "bin").mkdir(parents=True)
        shutil.copy2(base / "usr/bin/python3.11", half / "bin/python3.11")
        shutil.copytree(base / "usr/lib/python3.11", half / "lib/python3.11", symlinks=True)
        half.rename(folder / "python")
    missing = _missing(folder)
    with Host.create(release="bookworm", binds=[(folder, f"{DIRECTORY}:rw")], salt=False) as host:
        host.run("apt-get", "-q", "update", timeout=300)
        host.run(
            "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "
            "python3-venv python3-dev gcc libc6-dev",
            timeout=600,
        )
        python = f"{DIRECTORY}/python/bin/python3.11"
        if not (folder / "python/lib/python3.11/ensurepip").is_dir():
            host.run(f"cp -a /usr/lib/python3.11/ensurepip {DIRECTORY}/python/lib/python3.11/")
        for version in missing:
            print(f"installing Salt {version}", flush=True)
            # A virtual environment knows its path: it is built at that path on a file system of
            # the builder's own, and only moved to the shared directory when it is complete.
            building = f"{DIRECTORY}/.{version}"
            target = f"{DIRECTORY}/{version}"
            host.run("mkdir", "-p", building, target)
            host.run("mount", "--bind", building, target)
            host.run(python, "-m", "venv", target)
            pip = f"{target}/bin/pip install -q"
            if host.run(f"{pip} salt=={version}", check=False, timeout=1200).returncode:
                host.run(f"{pip} salt=={_OLDER[version]}", timeout=1200)
                host.run(f"{pip} --no-deps salt=={version}", timeout=1200)
            host.run(f"{target}/bin/salt-call", "--version")
            host.run("umount", target)
            (folder / version).rmdir()
            (folder / f".{version}").rename(folder / version)
