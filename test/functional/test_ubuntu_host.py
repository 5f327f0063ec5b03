"""
The Ubuntu host: Salt takes it for Ubuntu, and apt for a customer of a signed archive.
"""

import pytest

from ..hosts.repository import SigningKey
from ..hosts.ubuntu import JammyHost, ResoluteHost, UbuntuHost

pytestmark = pytest.mark.long

SOURCE = """\
Types: deb
URIs: {uri}
Suites: noble
Components: main
Signed-By: /etc/apt/keyrings/ppa.asc
"""


def test_salt_takes_it_for_ubuntu(ubuntu_host: UbuntuHost) -> None:
    for salt in ("3006", "3007", "3008"):
        grains = ubuntu_host.salt_call("grains.items", salt=salt)
        said = {key: grains[key] for key in ("os", "os_family", "oscodename", "osrelease")}
        assert said == {
            "os": "Ubuntu",
            "os_family": "Debian",
            "oscodename": "noble",
            "osrelease": "24.04",
        }


@pytest.mark.parametrize(("kind", "release"), [(JammyHost, "22.04"), (ResoluteHost, "26.04")])
def test_salt_takes_the_others_for_theirs(kind: type[UbuntuHost], release: str) -> None:
    with kind.create(f"ubuntu-{kind.codename}-{kind.tag()}") as host:
        grains = host.salt_call("grains.items")
    assert (grains["os"], grains["osrelease"]) == ("Ubuntu", release)
    assert grains["oscodename"] == kind.codename


def test_nginx_comes_from_the_archive(ubuntu_host: UbuntuHost) -> None:
    ppa = ubuntu_host.ppa
    fetch = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    key = ubuntu_host.run("python3", "-c", fetch, ppa.key_url).stdout
    ubuntu_host.write("/etc/apt/keyrings/ppa.asc", key)
    ubuntu_host.write("/etc/apt/sources.list.d/ppa.sources", SOURCE.format(uri=ppa.uri))
    ubuntu_host.run("apt-get -q update && apt-get -q -y install nginx", timeout=300)
    version = ubuntu_host.run("dpkg-query", "-W", "-f", "${Version}", "nginx").stdout
    assert version == ppa.version
    assert ubuntu_host.get("/")[0] == 200


def test_apt_refuses_the_archive_when_another_key_signs_it(ubuntu_host: UbuntuHost) -> None:
    ppa = ubuntu_host.ppa
    stranger = SigningKey("a stranger")
    ppa.repository.publish(stranger)
    done = ubuntu_host.run(
        "apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any", check=False
    )
    ppa.repository.publish(ppa.key)
    stranger.close()
    assert done.returncode != 0
    assert "NO_PUBKEY" in done.stdout + done.stderr
