"""
Directories that a test process shares with its hosts.
"""

import fcntl
import os
import shutil
import uuid

from .paths import cache, lock


class Folder:
    """
    A directory of this process, swept by the next run when this one is killed.

    path
        where it is; short, as sockets below it have a limit of about 100 characters
    """

    def __init__(self) -> None:
        sweep()
        with lock("fleets"):
            self.path = cache() / "fleets" / uuid.uuid4().hex[:4]
            self.path.mkdir(parents=True)
            self._owner = open(self.path / "owner", "w", encoding="utf-8")
            fcntl.flock(self._owner, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Take it away."""
        shutil.rmtree(self.path)
        self._owner.close()


def sweep() -> list[str]:
    """Remove the directories whose owner is dead; returns their names."""
    removed = []
    with lock("fleets"):
        folder = cache() / "fleets"
        for name in os.listdir(folder) if folder.is_dir() else ():
            with open(folder / name / "owner", "w", encoding="utf-8") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
            shutil.rmtree(folder / name)
            removed.append(name)
    return removed
