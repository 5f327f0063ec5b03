"""
nginx goes over to another package source, and back, under load: a PPA, nginx.org, the distribution.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.nginx_org import build
from ..hosts.ubuntu import Archive, UbuntuHost
from .nginx_host import Load, Salt, a_site, leftovers, pillar, prepare, processes

pytestmark = pytest.mark.long

SITES = {"mysite": a_site(listen=[80, 8081])}
STATES = (
    "deb822_source.present",
    "system_packages.installed",
    "nginx_tree.applied",
    "nginx_process.current",
    "nginx_package.current",
    "nginx_socket.held",
)
POLICY = "/usr/sbin/policy-rc.d"


class Sources:
    """A host with nginx of its distribution, and archives beside it."""

    def __init__(self, host: UbuntuHost, org: Archive) -> None:
        self.host, self.org = host, org
        self.salt = Salt(host)

    def wants(self, repo: str | None, **nginx: Any) -> None:
        """Set the pillar; None: it does not name a source."""
        repos = {"ppa": self.host.ppa.source(), "nginx.org": self.org.source()}
        said = {"repo": repo} if repo else {}
        self.salt.pillar = pillar(SITES, nginx={**said, **nginx}, lookup={"repos": repos})

    def run(self, test: bool = False) -> dict[str, dict[str, Any]]:
        """What the SLS files do with nginx, up to the state that fails."""
        done: dict[str, dict[str, Any]] = {}
        for function in STATES:
            done[function] = self.salt.state(function, test=test)
            if done[function]["result"] is False:
                break
        return done

    def version(self, package: str = "nginx") -> str:
        shown = self.host.run("dpkg-query", "-W", "-f", "${Version}", package, check=False)
        return str(shown.stdout)

    def converged(self) -> None:
        """Nothing to do, nothing left behind, and nginx runs what is installed."""
        serving = processes(self.host)
        for test in (True, False):
            for function, state in self.run(test).items():
                assert (state["result"], state["changes"]) == (True, {}), (function, state)
        assert processes(self.host) == serving
        assert not leftovers(self.host)
        kept = self.host.run(f"ls -A /var/lib/nginx_uwsgi_django {POLICY}*", check=False).stdout
        assert "nginx_package" not in kept and "policy" not in kept
        assert "deleted" not in self.host.run("readlink /proc/$(cat /run/nginx.pid)/exe").stdout
        assert self.host.run("dpkg", "--audit").stdout == ""

    def reach(self, repo: str) -> dict[str, dict[str, Any]]:
        """Go to a source under load; nobody notices."""
        self.wants(repo)
        with Load(self.host, 80, 8081) as load:
            done = self.run()
        assert load.failures == [] and load.answered > 50
        for function, state in done.items():
            assert state["result"] is True, (function, state["comment"])
        return done


@pytest.fixture(scope="module")
def sources(ubuntu_host: UbuntuHost) -> Iterator[Sources]:
    host = ubuntu_host
    prepare(host)
    org = Archive(host.folder / "nginx.org", "packages/ubuntu", "noble", "nginx", "nginx")
    pool = org.repository.folder / "pool/nginx/n/nginx"
    pool.mkdir(parents=True)
    org.version = "1.30.0-1~noble"
    build(host.image / "var/cache/apt/archives", pool, org.version)
    org.repository.publish(org.key)
    made = Sources(host, org)
    made.wants("distro")
    for function, state in made.run().items():
        assert state["result"] is True, (function, state["comment"])
    yield made
    made.salt.close()
    org.close()


def test_to_the_ppa_and_back(sources: Sources) -> None:
    host = sources.host
    stock = sources.version()
    automatic = host.run("apt-mark showauto").stdout
    sources.wants("ppa")
    dry = sources.run(test=True)["nginx_package.current"]
    assert dry["result"] is None and sources.version() == stock
    done = sources.reach("ppa")
    assert done["nginx_package.current"]["changes"]["nginx"] == {
        "old": stock,
        "new": host.ppa.version,
    }
    assert sources.version() == host.ppa.version == sources.version("nginx-common")
    sources.converged()

    # An older version, by the change of the source alone.
    done = sources.reach("distro")
    assert done["nginx_package.current"]["changes"]["nginx"]["new"] == stock
    assert sources.version() == stock == sources.version("nginx-common")
    assert host.run("apt-mark showauto").stdout == automatic
    sources.converged()


def test_to_nginx_org_and_back(sources: Sources) -> None:
    host = sources.host
    stock = sources.version()
    tree = host.read("/etc/nginx/nginx.conf")
    done = sources.reach("nginx.org")["nginx_package.current"]["changes"]
    assert done["nginx"]["new"] == sources.org.version
    assert done["nginx-common"] == {"old": stock, "new": ""}
    assert host.read("/etc/nginx/nginx.conf") == tree
    assert host.run("systemctl is-enabled nginx").stdout.strip() == "enabled"
    sources.converged()
    host.run("systemctl restart nginx")
    assert host.get("/", host_header="x.compute.amazonaws.com")[0] == 502
    sources.reach("distro")
    assert sources.version() == stock
    assert host.read("/etc/nginx/nginx.conf") == tree
    sources.converged()
