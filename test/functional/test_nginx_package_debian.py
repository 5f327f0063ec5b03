"""
nginx of a Debian host goes over to nginx.org, and back, under load.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.host import Host
from ..hosts.nginx_org import NginxOrgHost
from .nginx_host import Salt, pillar, prepare
from .test_nginx_package import SITES, Sources

pytestmark = pytest.mark.long


class DebianSources(Sources):
    """A Debian host with nginx of its distribution, and an archive as nginx.org's beside it."""

    def __init__(self, host: NginxOrgHost) -> None:
        self.host, self.org = host, host.nginx_org  # type: ignore[assignment]
        self.salt = Salt(host)

    def wants(self, repo: str | None, **nginx: Any) -> None:
        repos = {"nginx.org": self.org.source()}
        said = {"repo": repo} if repo else {}
        self.salt.pillar = pillar(SITES, nginx={**said, **nginx}, lookup={"repos": repos})


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def sources(request: pytest.FixtureRequest) -> Iterator[DebianSources]:
    name = f"nginx-debian-{Host.tag()}"
    with NginxOrgHost.create(name, release=request.param) as host:
        host.serve_nginx_org()
        prepare(host)
        made = DebianSources(host)
        made.wants("distro")
        for function, state in made.run().items():
            assert state["result"] is True, (function, state["comment"])
        yield made
        made.salt.close()


def test_to_nginx_org_and_back(sources: DebianSources) -> None:
    stock = sources.version()
    done = sources.reach("nginx.org")
    assert done["nginx_package.current"]["changes"]["nginx"]["new"] == sources.org.version
    sources.converged()
    sources.reach("distro")
    assert sources.version() == stock
    sources.converged()


def test_a_hold_is_honoured(sources: DebianSources) -> None:
    host = sources.host
    stock = sources.version()
    host.run("apt-mark hold nginx")
    try:
        sources.wants("nginx.org")
        told = sources.run()["nginx_package.current"]
        assert "on hold (apt-mark): nginx; it stays" in told["comment"]
        assert sources.version() == stock
    finally:
        host.run("apt-mark unhold nginx")
    sources.reach("distro")
    sources.converged()
