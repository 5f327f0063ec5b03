"""
The pytest fixtures of throwaway hosts; ``test/conftest.py`` imports them.

A module that uses one gets a fresh host of its own, removed when the module is done.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .host import Host
from .nginx_org import NginxOrgHost
from .ubuntu import JammyHost, ResoluteHost, UbuntuHost


def _name(request: Any) -> str:
    """A hostname that says whose it is; xdist's workers may run one module's name twice."""
    module = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    word = re.sub("[^a-z0-9]+", "-", module.lower()).strip("-")[:14] or "module"
    return f"{word}-{Host.tag()}"


@pytest.fixture(scope="module")
def host(request: Any) -> Iterator[Host]:
    """
    A booted throwaway host, fresh for this module: Debian 12.

    For both releases: ``@pytest.mark.parametrize("host", ["bookworm", "trixie"], indirect=True,
    scope="module")``.
    """
    with Host.create(_name(request), release=getattr(request, "param", "bookworm")) as made:
        yield made


@pytest.fixture(scope="module")
def trixie_host(request: Any) -> Iterator[Host]:
    """A booted throwaway host, fresh for this module: Debian 13."""
    with Host.create(_name(request), release="trixie") as made:
        yield made


@pytest.fixture(scope="module")
def forky_host(request: Any) -> Iterator[Host]:
    """A booted throwaway host, fresh for this module: Debian 14."""
    with Host.create(_name(request), release="forky") as made:
        yield made


@pytest.fixture(scope="module")
def ubuntu_host(request: Any) -> Iterator[UbuntuHost]:
    """
    A booted throwaway host, fresh for this module, that takes itself for Ubuntu 24.04; for another,
    ``parametrize`` it with the codename (``jammy``, ``resolute``), as ``host`` above.

    Its ``ppa`` is a signed archive, laid out and served as the PPA ondrej/nginx: ``uri``,
    ``suite``, ``fingerprint``, ``key_url``, ``version``; ``ppa.source()`` for the pillar.
    """
    kinds = {kind.codename: kind for kind in (JammyHost, UbuntuHost, ResoluteHost)}
    with kinds[getattr(request, "param", "noble")].create(_name(request)) as made:
        made.serve_ppa()
        yield made


@pytest.fixture(scope="module")
def nginx_org_host(request: Any) -> Iterator[NginxOrgHost]:
    """
    A booted Debian 12 host, fresh for this module, with an archive laid out as nginx.org's.

    ``nginx_org_host.nginx_org.source()`` is for the pillar's ``lookup:repos:nginx.org``.
    """
    with NginxOrgHost.create(_name(request)) as made:
        made.serve_nginx_org()
        yield made
