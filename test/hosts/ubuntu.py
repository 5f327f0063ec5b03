"""
Ubuntu hosts, played by Debian ones: Ubuntu's release files, so that Salt's grains say Ubuntu, and
package archives laid out as Launchpad's.

What the archives have follows what is published: the PPA nginx/stable has no suite for Ubuntu 22.04
or anything newer, ondrej/nginx has one for 22.04 and 24.04.
"""

import pathlib
from typing import Any

from . import network
from .host import Host
from .image import debs
from .paths import HostError
from .repository import Repository, Server, SigningKey, repack

PPA = "ondrej/nginx"

# /usr/lib/os-release of the package base-files: of 22.04.5, 24.04.3 and 26.04.1, as users of these
# releases have posted them (https://manpages.ubuntu.com/os-release describes the format).
_COMMON = """\
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
"""
#: By codename: version, point release, name, and whether os-release names a logo.
RELEASES = {
    "jammy": ("22.04", "22.04.5 LTS", "Jammy Jellyfish", False),
    "noble": ("24.04", "24.04.3 LTS", "Noble Numbat", True),
    "resolute": ("26.04", "26.04.1 LTS", "Resolute Raccoon", True),
}
#: What base-files puts into /etc/debian_version.
_DEBIAN = {"jammy": "bookworm/sid", "noble": "trixie/sid", "resolute": "forky/sid"}


def release_files(codename: str) -> dict[str, str]:
    """The files below ``/`` by which an Ubuntu release is known, with their content."""
    version, point, name, logo = RELEASES[codename]
    return {
        "usr/lib/os-release": (
            f'PRETTY_NAME="Ubuntu {point}"\nNAME="Ubuntu"\nVERSION_ID="{version}"\n'
            f'VERSION="{point} ({name})"\nVERSION_CODENAME={codename}\n'
            f"{_COMMON}UBUNTU_CODENAME={codename}\n" + ("LOGO=ubuntu-logo\n" if logo else "")
        ),
        "etc/lsb-release": (
            f"DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE={version}\nDISTRIB_CODENAME={codename}\n"
            f'DISTRIB_DESCRIPTION="Ubuntu {point}"\n'
        ),
        "etc/debian_version": f"{_DEBIAN[codename]}\n",
    }


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
        self,
        folder: pathlib.Path,
        path: str,
        suite: str,
        component: str,
        origin: str,
        algorithm: str = "ed25519",
    ) -> None:
        self.suite = suite
        self.component = component
        self.version = ""
        self.key = SigningKey(origin, algorithm)
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

    codename
        of its Ubuntu
    ppa
        the archive that stands for the PPA ondrej/nginx
    """

    codename = "noble"
    ppa: Archive

    def _prepare(self) -> None:
        for path, text in release_files(self.codename).items():
            (self.root / path).write_text(text, "utf-8")

    def serve_ppa(self) -> None:
        """Make and serve the archive; ends with the host, or with this process."""
        origin = f"LP-PPA-{PPA.replace('/', '-')}"
        self.ppa = Archive(self.folder / "ppa", f"{PPA}/ubuntu", self.codename, "main", origin)
        # Higher than what any supported Debian has.
        self.ppa.add_nginx(self.image, f"1.30.0-1+ppa~{self.codename}1")

    def remove(self) -> None:
        """Take it away, and the archive with it."""
        if hasattr(self, "ppa"):
            self.ppa.close()
            del self.ppa
        super().remove()


class JammyHost(UbuntuHost):
    """A host that takes itself for Ubuntu 22.04."""

    codename = "jammy"


class ResoluteHost(UbuntuHost):
    """A host that takes itself for Ubuntu 26.04."""

    codename = "resolute"
