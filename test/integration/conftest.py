"""
A master on the test machine and minions inside throwaway hosts.
"""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.fleet import Fleet
from ..hosts.folder import Folder


@pytest.fixture(scope="session")
def fleet_folder() -> Iterator[Folder]:
    """What the master, the minions and this process share."""
    folder = Folder()
    yield folder
    folder.remove()
    # The daemons' log server still has words when pytest has closed the file they go to.
    logging.raiseExceptions = False


@pytest.fixture(scope="session")
def salt_factories_config(fleet_folder: Folder) -> dict[str, Any]:
    """salt-factories' settings: all below our own directory."""
    # Its default for code_dir, the site-packages of this Python, would make every minion run the
    # master's Salt.
    return {
        "root_dir": fleet_folder.path,
        "code_dir": fleet_folder.path / "code",
        "inject_sitecustomize": False,
        "slow_stop": False,
        # At its default every debug line of every daemon crosses the network to this process.
        "log_server_level": "error",
    }


@pytest.fixture(scope="module")
def fleet(salt_factories: Any, fleet_folder: Folder) -> Iterator[Fleet]:
    """
    A running master for this module; ``fleet.add("web1", salt="3006")`` adds a minion in a fresh
    host, ``fleet.apply()``, ``fleet.call()`` and ``fleet.set_pillar()`` work on all of them.
    """
    made = Fleet(salt_factories, fleet_folder.path)
    try:
        made.start()
        yield made
    finally:
        made.close()
