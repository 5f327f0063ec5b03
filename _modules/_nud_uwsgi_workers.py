"""
The workers of a running uWSGI: whether they accept requests, and how they finish.
"""

# What uWSGI's single-threaded workers do at SIGTERM has a gap.  gracefully_kill() of core/uwsgi.c
# lets a worker finish its request if in_request is set, and else exits at once; but between
# accept4() in wsgi_req_accept() and in_request = 1 in wsgi_req_recv() (core/utils.c) a worker has
# taken a connection from the queue and not set it yet: a signal there loses the request.
# Pausing (SIGTSTP to the master) has no such gap: the handler in the worker does nothing, and the
# worker stops taking connections when it next comes to wsgi_req_setup(), its request answered.
# There it sleeps in poll(NULL, 0, 10000), where the later signal finds it idle for certain.
# The other way round, one that has passed the check in wsgi_req_setup() and not reached its wait
# for connections misses the signal, and stays in epoll_wait(); sending it the signal again wakes
# it up to the check.
# A worker with several threads is the opposite: its threads are stopped through a pipe, without a
# gap, and a paused thread never looks at it, so it must not be paused.

import contextlib
import os
import re
import signal
import time
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud_process_facts import system_call
from _nud_systemd_units import show
from _nud_uwsgi_protocol import stats


def wait(socket: str, unit: str, timeout: float) -> None:
    """
    Wait until every worker accepts requests.

    socket
        the statistics socket
    unit
        the unit of this uWSGI
    timeout
        seconds

    Raises CommandExecutionError when the unit ends or the time is over.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            waiting = [
                str(worker["id"])
                for worker in stats(socket, timeout=5)["workers"]
                if worker["status"] != "cheap" and not worker["accepting"]
            ]
            lacking = f"worker {', '.join(waiting)} does not accept requests" if waiting else None
        except CommandExecutionError as error:
            lacking = str(error)
        if lacking is None:
            return
        if show(unit, ["ActiveState"])[unit]["ActiveState"] != "active":
            raise CommandExecutionError("it ended after it had started")
        if time.monotonic() > deadline:
            raise CommandExecutionError(f"{lacking}, {timeout:g} s after the start")
        time.sleep(0.05)


def state(pid: int) -> str:
    """
    What a worker does, by the system call that it is in. A paused worker polls no descriptor for a
    while; what Python's time.sleep() may do, select(0, NULL, NULL, …), has a third argument of 0.

    pid
        of the worker

    Returns ``paused``, ``waiting`` (for a connection), ``busy``, ``gone`` or ``unknown``.
    """
    try:
        call = system_call(pid)
    except PermissionError:
        # A container whose root may not trace.
        return "unknown"
    if call is None:
        return "gone"
    if len(call) < 4:
        return "busy"
    if call[1:3] == ["0x0", "0x0"] and call[3] != "0x0":
        return "paused"
    return "waiting"


def may_be_paused(ini: bytes) -> bool:
    """
    Whether a uWSGI's workers take one request at a time, so that they have to be paused before a stop.

    ini
        its configuration

    Returns True or False.
    """
    if re.search(rb"^(async|gevent|asyncio|ugreen) *=", ini, re.MULTILINE):
        return False
    threads = re.findall(rb"^threads *= *(\d+)", ini, re.MULTILINE)
    return not (threads and int(threads[-1]) > 1)


def _open(workers: list[dict[str, Any]], paused_for: float | None) -> list[int]:
    """The workers that may still take or answer a request."""
    found = []
    for worker in workers:
        # First what uWSGI says, then what the kernel does: a worker that is at a request is busy
        # whatever it waits for.
        does = "busy" if worker["status"] == "busy" else state(worker["pid"])
        if does == "unknown" and worker["status"] == "pause":
            # Woken up that often, it has come to the check.
            does = "paused" if paused_for is not None and paused_for > 0.5 else "waiting"
        if does not in ("paused", "gone"):
            found.append(worker["pid"])
    return found


def pause(socket: str, master: int, timeout: float) -> bool:
    """
    Let the workers answer the requests that they have, and take no more.

    socket
        the statistics socket
    master
        the number of the master process
    timeout
        seconds

    Returns True when all are idle, False when requests still run at the end of the time.

    Raises CommandExecutionError when the statistics socket does not answer.
    """
    began = time.monotonic()
    told: float | None = None
    while True:
        workers = [
            worker
            for worker in stats(socket, timeout=5)["workers"]
            if worker["pid"] > 0 and worker["status"] != "cheap"
        ]
        now = time.monotonic()
        statuses = {worker["status"] for worker in workers}
        open_ = _open(workers, None if told is None else now - told)
        if not open_ and "idle" not in statuses:
            return True
        if now - began > timeout:
            return False
        # The master's signal pauses and resumes by turns, and a run that was killed may have sent
        # it before.  A worker that is not busy tells which it is; when all are busy for long, that
        # nobody has sent it is the likelier, and a worker that is idle later says otherwise.
        if ("idle" in statuses and (told is None or now - told > 1)) or (
            told is None and "pause" not in statuses and now - began > 1
        ):
            told = now
            os.kill(master, signal.SIGTSTP)
        else:
            if told is None and "pause" in statuses:
                told = now
            for pid in open_:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTSTP)
        time.sleep(0.02)
