"""
nginx goes over to another package source, and back, under load: a PPA, nginx.org, the distribution.
"""

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts.image import debs
from ..hosts.nginx_org import build
from ..hosts.ubuntu import PPA, Archive, UbuntuHost
from .nginx_host import Clients, Killed, Salt, a_site, leftovers, pillar, prepare, processes

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
        said = {"repo": repo, "ppa": PPA} if repo else {"ppa": PPA}
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
        with Clients(self.host, 80, 8081) as load:
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
    build(debs(host.image), pool, org.version)
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

    sources.wants("distro")
    assert sources.salt.state("deb822_source.present")["result"] is True
    serving = processes(host)
    dry = sources.salt.state("nginx_package.current", test=True)
    assert dry["result"] is None and processes(host) == serving
    assert dry["changes"]["nginx"] == {"old": host.ppa.version, "new": stock}
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


def test_a_hold_is_honoured(sources: Sources) -> None:
    host, salt = sources.host, sources.salt
    stock = sources.version()
    host.run("apt-mark hold nginx-common")
    try:
        sources.wants("distro")
        done = sources.run()["nginx_package.current"]
        assert (done["result"], done["changes"]) == (True, {})
        assert "on hold (apt-mark), and not touched: nginx-common" in done["comment"]
        sources.wants("ppa")
        dry = salt.state("nginx_package.current", test=True)
        assert dry["result"] is False and "on hold" in dry["comment"]
        serving = processes(host)
        for _ in range(2):
            done = sources.run()["nginx_package.current"]
            assert (done["result"], done["changes"]) == (False, {})
            assert "nginx_uwsgi_django:nginx:repo is ppa" in done["comment"]
            assert "'apt-mark unhold nginx-common' lets it follow" in done["comment"]
        assert sources.version() == stock and processes(host) == serving
        # Back in the pillar, all is well: nothing is owed.
        sources.wants("distro")
        assert all(state["result"] is True for state in sources.run().values())
    finally:
        host.run("apt-mark unhold nginx-common")
    sources.converged()


def test_a_pin_is_honoured(sources: Sources) -> None:
    host = sources.host
    stock = sources.version()
    # Its name comes before the formula's file's.
    theirs = "/etc/apt/preferences.d/00mine"
    host.write(theirs, f"Package: nginx\nPin: version {stock}\nPin-Priority: 950\n")
    serving = processes(host)
    try:
        sources.wants("ppa")
        done = sources.run()["nginx_package.current"]
        assert (done["result"], done["changes"]) == (False, {})
        assert f"apt prefers {stock} of http" in done["comment"]
        assert "by its priority 950" in done["comment"]
        assert sources.version() == stock and processes(host) == serving
    finally:
        host.run("rm", theirs)
    # What was asked for is still owed.
    sources.reach("ppa")
    assert sources.version() == host.ppa.version
    sources.reach("distro")
    sources.converged()


def test_an_older_version_that_nobody_asked_for(sources: Sources) -> None:
    """The operator has a newer one of their own, and the pillar names no source."""
    host, salt = sources.host, sources.salt
    host.run("mkdir -p /root/own && cd /root/own && apt-get -q download nginx nginx-common")
    script = """
set -e
cd /root/own
for deb in *.deb; do
    dpkg-deb --raw-extract $deb tree
    sed -i 's/1[.]22[.]1-9+deb12u[0-9]*/9.0-1/g' tree/DEBIAN/control
    dpkg-deb --root-owner-group -Zgzip --build tree new-$deb
    rm -r tree
done
dpkg --install new-*.deb
"""
    host.run(script)
    assert sources.version() == "9.0-1"
    sources.wants(None)
    done = sources.run()
    assert all(state["result"] is True for state in done.values())
    assert "nginx is installed: it stays" in done["deb822_source.present"]["comment"]
    assert sources.version() == "9.0-1"
    sources.converged()
    # Nobody else's version is replaced where the pillar does not ask for another source.
    sources.wants("distro")
    assert all(state["result"] is True for state in sources.run().values())
    sources.converged()
    assert sources.version() == "9.0-1"
    sources.reach("ppa")
    assert sources.version() == host.ppa.version
    sources.reach("distro")
    sources.converged()
    assert salt.call("nginx_package.diff") == {}


@pytest.mark.parametrize("used", [True, False])
def test_a_module_that_would_be_lost(sources: Sources, used: bool) -> None:
    host = sources.host
    stock = sources.version()
    host.run("apt-get -q -y install libnginx-mod-http-geoip", timeout=300)
    theirs = "/etc/nginx/conf.d/geo.conf"
    if used:
        host.write(theirs, "geoip_proxy 10.0.0.0/8;\n")
    try:
        sources.wants("distro")
        assert all(state["result"] is True for state in sources.run().values())
        if used:
            sources.wants("nginx.org")
            serving = processes(host)
            for test in (False, True, False):
                done = sources.run(test)["nginx_package.current"]
                assert (done["result"], done["changes"]) == (False, {})
                assert "without libnginx-mod-http-geoip, which apt would remove" in done["comment"]
                assert 'unknown directive "geoip_proxy"' in done["comment"]
            assert sources.version() == stock and processes(host) == serving
            assert sources.version("libnginx-mod-http-geoip")
            sources.wants("distro")
            sources.run()
        else:
            done = sources.reach("nginx.org")["nginx_package.current"]
            assert done["changes"]["libnginx-mod-http-geoip"]["new"] == ""
            sources.converged()
            sources.reach("distro")
    finally:
        host.run("rm", "-f", theirs)
        host.run("apt-get -q -y purge libnginx-mod-http-geoip", timeout=300)
        sources.run()
    sources.converged()


def test_their_policy_is_asked_and_given_back(sources: Sources) -> None:
    host = sources.host
    theirs = '#!/bin/sh\necho "$*" >> /run/asked\nexit 0\n'
    host.write(POLICY, theirs)
    host.run("chmod", "755", POLICY)
    try:
        sources.reach("ppa")
        assert host.read(POLICY) == theirs
        assert "nginx status" in host.read("/run/asked")
        assert "nginx.service" not in host.read("/run/asked")
        assert not host.exists(f"{POLICY}.nginx_uwsgi_django")
    finally:
        host.run("rm", POLICY)
    sources.reach("distro")
    sources.converged()


# What dpkg writes to its log before a step: one package taken away or unpacked and the other not;
# both unpacked and none configured; in the middle of a script.
MOMENTS = ("status half-installed nginx", "status unpacked nginx", "status half-configured nginx")


@pytest.mark.parametrize("repo", ["ppa", "nginx.org", "distro"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_the_middle(sources: Sources, moment: str, repo: str) -> None:
    """apt and dpkg are killed: the old nginx serves on, and the next run finishes it."""
    host, salt = sources.host, sources.salt
    sources.reach("ppa" if repo == "distro" else "distro")
    before = sources.version()
    sources.wants(repo)
    for function in STATES[:4]:
        assert salt.state(function)["result"] is True
    script = f"""
grep -m 1 '{moment}' < <(exec tail --pid=$$ -s 0.01 -n 0 -F /var/log/dpkg.log)
pkill -KILL -x apt-get; pkill -KILL -x dpkg
"""
    killer = subprocess.Popen([*host.enter(), "bash", "-c", script])
    time.sleep(0.5)
    with Clients(host, 80, 8081) as load:
        done = salt.state("nginx_package.current")
        killer.wait(60)
        assert done["result"] is False, done["comment"]
        for function, state in sources.run().items():
            assert state["result"] is True, (function, state["comment"])
    assert load.failures == [] and load.answered > 100
    assert sources.version() != before
    assert sources.version() in (sources.org.version, host.ppa.version) or repo == "distro"
    sources.converged()


def test_a_script_that_outlives_the_killed_run_is_waited_for(sources: Sources) -> None:
    """It holds debconf's lock, which the same script of the next run would not get."""
    host, salt = sources.host, sources.salt
    sources.reach("distro")
    sources.wants("ppa")
    for function in STATES[:4]:
        assert salt.state(function)["result"] is True
    # A program that the script starts takes its time, once.
    program = "/usr/sbin/update-rc.d"
    host.run(f"mv {program} {program}.real")
    host.write(program, f"#!/bin/sh\nrm /run/slow && sleep 25\nexec {program}.real $*\n", 0o755)
    host.run("touch /run/slow")
    script = """
until pgrep -f -x 'sleep 25'; do sleep 0.1; done
pkill -KILL -x apt-get; pkill -KILL -x dpkg; pkill -KILL -f salt.client.Calle[r]
"""
    killer = subprocess.Popen([*host.enter(), "bash", "-c", script])
    time.sleep(0.5)
    try:
        with Clients(host, 80, 8081) as load:
            with pytest.raises(Killed):
                salt.state("nginx_package.current")
            killer.wait(60)
            assert "nginx-common.postinst" in host.run("pgrep -af postinst").stdout
            salt.start()
            done = salt.state("system_packages.installed")
            assert done["result"] is True, done["comment"]
            assert done["changes"]["dpkg"] == {"old": "interrupted", "new": "finished"}
    finally:
        host.run(f"mv {program}.real {program}; rm -f /run/slow")
    for function, state in sources.run().items():
        assert state["result"] is True, (function, state["comment"])
    assert load.failures == [] and load.answered > 100
    assert sources.version() == host.ppa.version
    sources.converged()
