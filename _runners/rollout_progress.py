"""
What a person sees of a rollout while it runs: a bar on a terminal, plain lines anywhere else.

It goes to standard error: standard output has the result alone, whatever ``--out`` it is wanted in.

.. versionadded:: 0.1.0
"""

import shutil
import sys
import time
from typing import Any

__virtualname__ = "rollout_progress"

_WIDTH = 24


def __virtual__() -> str:
    return __virtualname__


def bar(total: int, done: int, failed: int, seconds: float) -> str:
    """
    A bar with the hosts that are done, those that failed, those that are left, and the time.

    total, done, failed
        numbers of hosts
    seconds
        since the first host was begun

    CLI Example:

    .. code-block:: bash

        salt-run rollout_progress.bar 10 4 0 60
    """
    over = done + failed
    filled = _WIDTH * over // total if total else 0
    words = f"{done} done, {failed} failed, {total - over} left"
    if 0 < over < total:
        words += f", about {_span(seconds / over * (total - over))}"
    return f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {over}/{total}  {words}"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def begin(total: int) -> dict[str, Any]:
    """
    Begin to show.

    total
        how many hosts there are

    Returns what the other functions want.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_progress.begin 10
    """
    return {
        "total": total,
        "done": 0,
        "failed": 0,
        "began": time.monotonic(),
        "terminal": sys.stderr.isatty(),
    }


def show(progress: dict[str, Any], line: str | None = None) -> None:
    """
    Show a line, and on a terminal the bar below it.

    progress
        from :py:func:`begin`
    line
        what happened; None: only the numbers have changed

    CLI Example:

    .. code-block:: bash

        salt-run rollout_progress.show '{"total": 1, "done": 0, "failed": 0, "began": 0, "terminal": false}' hello
    """
    if not progress["terminal"]:
        if line is not None:
            print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
        return
    # Back to the beginning of the line, and what is on it away.
    text = "\r\x1b[K" + (f"{line}\n" if line is not None else "")
    if progress["total"]:
        seconds = time.monotonic() - progress["began"]
        shown = bar(progress["total"], progress["done"], progress["failed"], seconds)
        text += shown[: shutil.get_terminal_size().columns - 1]
    print(text, end="", file=sys.stderr, flush=True)


def end(progress: dict[str, Any]) -> None:
    """
    Leave the bar as it is and go on below it.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_progress.end '{"terminal": false}'
    """
    if progress["terminal"]:
        print(file=sys.stderr, flush=True)
