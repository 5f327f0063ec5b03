"""
The hosts' package index: a proxy that ends with the run that started it.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest

from ..hosts import outer
from ..hosts.paths import FORMULA

# Starts the proxy, says where it is, and waits to be killed.
_RUN = """
import os, pathlib, sys, time
from test.hosts.index import serve
serve(pathlib.Path(sys.executable))
print(os.environ["NGINX_UWSGI_DJANGO_INDEX"], flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not outer.index_url().startswith("http"), reason="the index is a directory")
def test_it_serves_the_index_and_dies_with_the_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "NGINX_UWSGI_DJANGO_CACHE": str(tmp_path)}
    environment.pop(outer.INDEX, None)
    run = subprocess.Popen(
        [sys.executable, "-c", _RUN],
        cwd=FORMULA,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stdout is not None
        url = run.stdout.readline().strip()
        monkeypatch.setenv(outer.INDEX, url)
        assert f"index-url = {url}\n" in outer.pip_conf()
        question = urllib.request.Request(f"{url}asgiref/", headers={"Accept": "text/html"})
        with urllib.request.urlopen(question, timeout=60) as page:
            assert b"asgiref-" in page.read()
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    address = urllib.parse.urlsplit(url)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address.hostname or "", address.port or 0)).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.1)
    raise AssertionError(f"{url} still answers")
