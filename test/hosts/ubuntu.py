"""
An Ubuntu host, played by a Debian one: Ubuntu's release files, so that Salt's grains say Ubuntu
24.04, and a package repository laid out as the PPA nginx/stable is.
"""

import pathlib
from typing import Any

from . import network
from .host import Host
from .image import debs
from .paths import HostError
from .repository import Repository, Server, SigningKey, repack

CODENAME = "noble"
# Higher than what any supported Debian has.
VERSION = f"1.30.0-1+ppa~{CODENAME}1"

_OS_RELEASE = """\
PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
UBUNTU_CODENAME=noble
LOGO=ubuntu-logo
"""
_LSB_RELEASE = """\
DISTRIB_ID=Ubuntu
DISTRIB_RELEASE=24.04
DISTRIB_CODENAME=noble
DISTRIB_DESCRIPTION="Ubuntu 24.04.3 LTS"
"""


class Archive:
    """
    A package archive that the test machine serves to the hosts.

    uri, suite, component
        what an apt source says
    fingerprint, key_url
        of the key that signs it
    version
        of the nginx in it
    server, repository, key
        what it is made of; ``repository.publish(other_key)`` signs it anew
    """

    def __init__(
        self, folder: pathlib.Path, path: str, suite: str, component: str, origin: str
    ) -> None:
        self.suite = suite
        self.component = component
        self.version = ""
        self.key = SigningKey(origin)
        self.repository = Repository(folder / path, suite, component, origin)
        self.server = Server(network.gateway(), folder)
        self.uri = f"{self.server.url}/{path}"
        self.trust(self.key)

    def trust(self, key: SigningKey) -> None:
        """Give this key out at the archive's key server."""
        self.server.keys[key.fingerprint] = key.armored

    @property
    def fingerprint(self) -> str:
        """The signing key's, in full."""
        return self.key.fingerprint

    @property
    def key_url(self) -> str:
        """Where the signing key is given out."""
        return f"{self.server.url}/pks/lookup?op=get&options=mr&search=0x{self.fingerprint}"

    def source(self) -> dict[str, Any]:
        """The archive as the pillar's ``lookup:repos`` describes one."""
        return {
            "uris": self.uri,
            "suites": self.suite,
            "components": [self.component],
            "fingerprints": [self.fingerprint],
            "key": self.key_url,
        }

    def add_nginx(self, image: pathlib.Path, version: str) -> None:
        """Put Debian's nginx in, as another version, and publish."""
        found = sorted(debs(image).glob("nginx*.deb"))
        if len(found) != 2:
            raise HostError(f"there is no single nginx in {debs(image)}")
        pool = self.repository.folder / "pool/main/n/nginx"
        pool.mkdir(parents=True, exist_ok=True)
        for deb in found:
            # An epoch would be percent-encoded in the file name; nginx has none.
            repack(deb, pool, old=deb.name.split("_")[1], new=version)
        self.version = version
        self.repository.publish(self.key)

    def close(self) -> None:
        """Stop serving and forget the key."""
        self.server.close()
        self.key.close()


class UbuntuHost(Host):
    """
    A host that takes itself for Ubuntu 24.04.

    ppa
        the archive that stands for the PPA nginx/stable
    """

    ppa: Archive

    def _prepare(self) -> None:
        etc = self.root / "etc"
        (self.root / "usr/lib/os-release").write_text(_OS_RELEASE, "utf-8")
        (etc / "lsb-release").write_text(_LSB_RELEASE, "utf-8")
        (etc / "debian_version").write_text("trixie/sid\n", "utf-8")

    def serve_ppa(self) -> None:
        """Make and serve the archive; ends with the host, or with this process."""
        folder = self.folder / "ppa"
        self.ppa = Archive(folder, "nginx/stable/ubuntu", CODENAME, "main", "LP-PPA-nginx-stable")
        self.ppa.add_nginx(self.image, VERSION)

    def remove(self) -> None:
        """Take it away, and the archive with it."""
        if hasattr(self, "ppa"):
            self.ppa.close()
            del self.ppa
        super().remove()
