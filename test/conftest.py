"""
What all tests share.
"""

import pytest

from .hosts.fixtures import host, trixie_host, ubuntu_host
from .modules import Modules

__all__ = ["host", "modules", "trixie_host", "ubuntu_host"]


@pytest.fixture
def modules() -> type[Modules]:
    """
    The formula's real modules, wired to each other without a host.

    ``m = modules(pillar={...}, grains={...}, test=True)`` loads fresh copies; then
    ``m.site_pillar.settings()``, ``m.salt["site_pillar.settings"]()``,
    ``m.states.nginx_tree.applied("x")``.
    """
    return Modules
