"""
A caching proxy of the package index for the hosts of a test run.

Every host installs the same few packages anew. Through the proxy each file crosses the outside
network once, and a mirror that stalls in the middle of a file costs a host nothing that pip would
not try again.
"""

import ctypes
import fcntl
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from . import network, outer
from .paths import HostError, cache
from .tools import environment, shared_locks

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _folder() -> pathlib.Path:
    """The files' directory: the machine's own, or a fresh one while another run has that."""
    shared = cache() / "index"
    shared.mkdir(parents=True, exist_ok=True)
    handle = os.open(shared, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return pathlib.Path(tempfile.mkdtemp(prefix="index-"))
    # Held by the proxy too, as long as it lives.
    shared_locks.add(handle)
    return shared


def serve(python: pathlib.Path) -> None:
    """
    Start the proxy and leave its address in the environment; it ends with this process.

    python
        the interpreter of an environment with proxpi

    Nothing is started where this machine's own index is a directory.

    Raises HostError when the proxy does not answer within half a minute.
    """
    upstream = outer.index_url()
    if not upstream.startswith(("http://", "https://")):
        return
    address = network.gateway()
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    folder = _folder()
    said = folder / ".proxy.log"
    with open(said, "wb") as log:
        process = subprocess.Popen(
            [str(python), "-m", "flask", "--app", "proxpi.server", "run"]
            + [f"--host={address}", f"--port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                **environment(),
                "PROXPI_INDEX_URL": upstream,
                "PROXPI_CACHE_DIR": str(folder / "files"),
                "PROXPI_CONNECT_TIMEOUT": "20",
                "PROXPI_READ_TIMEOUT": "30",
                # A file is handed out once it is whole; a client waits longer than that.
                "PROXPI_DOWNLOAD_TIMEOUT": "120",
            },
            pass_fds=tuple(shared_locks),
            preexec_fn=_die_with_parent,
        )
    url = f"http://{address}:{port}"
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                break
        except urllib.error.HTTPError:
            break  # It answers.
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                words = said.read_text("utf-8", errors="replace").strip()[-1000:]
                raise HostError(f"the package index's proxy does not answer: {words}") from None
            time.sleep(0.1)
    os.environ[outer.INDEX] = f"{url}/index/"
