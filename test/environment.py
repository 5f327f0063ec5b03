"""
What the tests and the benchmarks need on this machine, installed where it is missing.

Read by whatever Python starts them: nothing here is newer than 3.6.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import time
from typing import NoReturn

ROOT = pathlib.Path(__file__).resolve().parent.parent
REQUIREMENTS = [ROOT / "test" / "requirements.txt", ROOT / "test" / "constraints.txt"]


def fail(sentence: str) -> NoReturn:
    """One sentence, and out."""
    print(os.path.basename(sys.argv[0]) + ": " + sentence, file=sys.stderr)
    sys.exit(2)


def become_able() -> None:
    """Be root and be run by a Python that is new enough, or say what is missing."""
    if sys.version_info < (3, 10):  # noqa: UP036  that is what it is for
        system = "/usr/bin/python3"
        if os.access(system, os.X_OK) and os.path.realpath(system) != sys.executable:
            if not os.environ.get("NGINX_UWSGI_DJANGO_SYSTEM_PYTHON"):
                os.environ["NGINX_UWSGI_DJANGO_SYSTEM_PYTHON"] = "1"
                os.execv(system, [system, sys.argv[0], *sys.argv[1:]])
        fail("Python 3.10 or newer is needed, and this is {}.{}".format(*sys.version_info[:2]))
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if not sudo:
            fail("throwaway hosts need root: run this as root, there is no sudo here")
        keep = "--preserve-env=PATH,NGINX_UWSGI_DJANGO_CACHE"
        os.execv(sudo, [sudo, keep, str(sys.executable), sys.argv[0], *sys.argv[1:]])


def install(*packages: str) -> None:
    """Install Debian packages."""
    from test.hosts.tools import run

    print("installing " + ", ".join(packages), flush=True)
    run("apt-get", "-q", "update")
    run("apt-get", "-q", "-y", "--no-install-recommends", "install", *packages, timeout=1200)


def system_packages() -> None:
    """The packages that the tests need on this machine besides those of the hosts."""
    version = "{}.{}".format(*sys.version_info[:2])
    missing = []
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append(f"python{version}-venv")
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        # One of Salt's requirements, timelib, comes as source for some versions of Python.
        missing.append(f"python{version}-dev")
    for program, package in (
        ("gcc", "gcc"),
        ("git", "git"),
        ("strace", "strace"),
        ("chromium", "chromium"),
    ):
        if not shutil.which(program):
            missing.append(package)
    if "gcc" in missing:
        missing.append("libc6-dev")
    if missing:
        install(*missing)


def development_python() -> pathlib.Path:
    """The interpreter of a virtual environment with the test dependencies."""
    from test.hosts.paths import cache, lock

    recipe = b"".join(path.read_bytes() for path in REQUIREMENTS)
    recipe += f"{sys.version} {sys.base_prefix}".encode()
    folder = cache() / "venvs" / hashlib.sha256(recipe).hexdigest()[:12]
    python = folder / "bin" / "python"
    complete = folder / ".complete"
    if complete.exists():
        return python
    with lock("venv"):
        if complete.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        for old in folder.parent.glob("*/.complete"):
            # Not a younger one: another checkout may be testing with it.
            if time.time() - old.stat().st_mtime > 30 * 86400:
                shutil.rmtree(old.parent)
        print(f"installing the test dependencies into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        requirements, constraints = map(str, REQUIREMENTS)
        pip = [str(python), "-m", "pip", "install", "--quiet", "-r", requirements]
        for _ in range(3):
            # Again: this Python's pip gives up when a mirror stalls in the middle of a file.
            done = subprocess.run(
                pip + ["-c", constraints], capture_output=True, text=True, check=False
            )
            if not done.returncode:
                break
        else:
            fail("the test dependencies cannot be installed: " + done.stderr.strip()[-1500:])
        complete.touch()
    return python


def prepare() -> pathlib.Path:
    """Everything, once; the interpreter that has the test dependencies."""
    from test.hosts.image import RELEASES, image
    from test.hosts.index import serve
    from test.hosts.paths import HostError
    from test.hosts.salts import ensure_salts
    from test.hosts.tools import ensure_tools

    try:
        system_packages()
        python = development_python()
        ensure_tools()
        for release in RELEASES:
            image(release)
        serve(python)
        ensure_salts()
    except HostError as error:
        fail(str(error))
    return python
