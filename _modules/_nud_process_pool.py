"""
Work on several things at once, each in a process of its own.

What a run waits for is mostly other programs (pip, ``manage.py``, systemd), and a host has several
processors. Salt's own `parallel` is for states that stand in an SLS; these are called by a state.
"""

import ctypes
import logging
import os
import selectors
import signal
import struct
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import salt.payload
from salt.exceptions import CommandExecutionError

log = logging.getLogger(__name__)

# prctl(2): the signal that a process gets when the one that made it ends.
_PR_SET_PDEATHSIG = 1

# Which item is next, as it goes through a pipe: a pipe's 64 KiB have room for 32,768.
_NUMBER = struct.Struct("=H")


def processors() -> int:
    """
    How many processors this process may use.

    Returns a number.
    """
    return len(os.sched_getaffinity(0))


def each(items: Iterable[Hashable], work: Callable[[Any], Any]) -> dict[Any, Any]:
    """
    Do something for every item, for one more at once than there are processors (one of them is
    mostly waiting for systemd or the disk), in processes that are copies of this one and end with
    it. Nothing that the work leaves in memory comes back but its answer. For one item it is done
    here.

    items
        whatever tells them apart
    work
        is called with an item and answers with what msgpack can hold. It must not use a connection
        that was open before (Salt's to its master)

    Returns the answers by item. That of an item whose process ended before it had one is a
    CommandExecutionError that says so: of this item and, if no process is left, of those after it.
    """
    todo = list(items)
    count = min(len(todo), processors() + 1)
    if count < 2:
        return {item: work(item) for item in todo}
    queue = _queue(len(todo))
    answers: dict[int, Any] = {}
    workers: dict[int, int] = {}
    try:
        for _ in range(count):
            process, stream = _start(queue, todo, work)
            workers[stream] = process
        ends = _collect(workers, answers)
    except BaseException:
        for process in workers.values():
            os.kill(process, signal.SIGKILL)
        raise
    finally:
        os.close(queue)
        for stream in list(workers):
            _end(workers, stream)
    why = "the process that did this ended before it was done"
    if ends:
        why += f" ({', '.join(ends)})"
    return {item: answers.get(place, CommandExecutionError(why)) for place, item in enumerate(todo)}


def _queue(count: int) -> int:
    """A pipe with the numbers of all items in it: a process that reads one has it alone."""
    queue, entrance = os.pipe()
    os.write(entrance, b"".join(map(_NUMBER.pack, range(count))))
    os.close(entrance)
    return queue


def _start(queue: int, todo: list[Any], work: Callable[[Any], Any]) -> tuple[int, int]:
    """Start a process; its number, and where its answers come from."""
    parent = os.getpid()
    stream, out = os.pipe()
    try:
        process = os.fork()
    except OSError:
        os.close(stream)
        os.close(out)
        raise
    if process:
        os.close(out)
        return process, stream
    # From here on in the copy, which must not come back: what called this is another's to go on
    # with.
    try:
        # SIGKILL, as a handler of Python's would be the one of whoever was copied.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            _work(queue, out, todo, work)
        os._exit(0)
    except KeyboardInterrupt:
        os._exit(1)
    except BaseException:
        log.exception("a process of side_by_side ends")
        os._exit(1)


def _work(queue: int, out: int, todo: list[Any], work: Callable[[Any], Any]) -> None:
    with open(out, "wb", buffering=0) as answers:
        while number := os.read(queue, _NUMBER.size):
            place = _NUMBER.unpack(number)[0]
            answer = salt.payload.dumps([place, work(todo[place])])
            answers.write(len(answer).to_bytes(8, "big") + answer)


def _collect(workers: dict[int, int], answers: dict[int, Any]) -> list[str]:
    """Read all answers until the last process has ended; how those ended that did not do it well."""
    ends = []
    heard = {stream: bytearray() for stream in workers}
    with selectors.DefaultSelector() as selector:
        for stream in workers:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                buffer = heard[key.fd]
                buffer += data
                while len(buffer) >= 8 and len(buffer) >= 8 + (
                    size := int.from_bytes(buffer[:8], "big")
                ):
                    place, answer = salt.payload.loads(bytes(buffer[8 : 8 + size]))
                    answers[place] = answer
                    del buffer[: 8 + size]
                if not data:
                    selector.unregister(key.fd)
                    status = _end(workers, key.fd)
                    if status:
                        ends.append(f"signal {-status}" if status < 0 else f"exit code {status}")
    return ends


def _end(workers: dict[int, int], stream: int) -> int:
    os.close(stream)
    return os.waitstatus_to_exitcode(os.waitpid(workers.pop(stream), 0)[1])
