"""
Ubuntu 26.04, played by Debian 14: Ubuntu's release files, the coreutils of uutils in place of GNU's,
and sudo-rs as ``sudo``.
"""

from .host import Host

_OS_RELEASE = """\
PRETTY_NAME="Ubuntu 26.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="26.04"
VERSION="26.04.1 LTS (Resolute Raccoon)"
VERSION_CODENAME=resolute
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
SUPPORT_URL="https://help.ubuntu.com/"
BUG_REPORT_URL="https://bugs.launchpad.net/ubuntu/"
PRIVACY_POLICY_URL="https://www.ubuntu.com/legal/terms-and-policies/privacy-policy"
UBUNTU_CODENAME=resolute
LOGO=ubuntu-logo
"""
_LSB_RELEASE = """\
DISTRIB_ID=Ubuntu
DISTRIB_RELEASE=26.04
DISTRIB_CODENAME=resolute
DISTRIB_DESCRIPTION="Ubuntu 26.04.1 LTS"
"""
_SUDOERS = """\
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
%sudo ALL=(ALL:ALL) ALL
"""
# The host's package lists and caches stay as the image has them.
# Each program of GNU's makes way, by dpkg's own means, for a link to the one of uutils.
_USERLAND = """
set -e
own=/var/tmp/apt
mkdir -p $own/lists/partial $own/cache/archives/partial
apt="apt-get -q -y -o Dir::State::Lists=$own/lists -o Dir::Cache=$own/cache"
$apt update
$apt --no-install-recommends install rust-coreutils sudo-rs
for path in $(dpkg -L coreutils | grep -E '^/usr/s?bin/.'); do
    name=${path##*/}
    if coreutils --list | grep -qxF "$name"; then
        echo "$path" >>/root/replaced
    fi
done
for path in $(cat /root/replaced); do
    dpkg-divert --quiet --local --rename --divert "${path%/*}/gnu${path##*/}" --add "$path"
    gnuln=/usr/bin/gnuln
    test -e $gnuln || gnuln=ln
    $gnuln -s /usr/bin/coreutils "$path"
done
ln -s sudo-rs /usr/bin/sudo
rm -r /root/replaced $own
"""


class ResoluteHost(Host):
    """A host that takes itself for Ubuntu 26.04."""

    def _prepare(self) -> None:
        etc = self.root / "etc"
        (self.root / "usr/lib/os-release").write_text(_OS_RELEASE, "utf-8")
        (etc / "lsb-release").write_text(_LSB_RELEASE, "utf-8")
        (etc / "debian_version").write_text("forky/sid\n", "utf-8")
        (etc / "sudoers").write_text(_SUDOERS, "utf-8")
        (etc / "sudoers").chmod(0o440)

    def boot(self, timeout: float = 90) -> None:
        """Boot it, and at the first time replace its userland."""
        super().boot(timeout)
        if not self.exists("/usr/bin/sudo"):
            self.run(_USERLAND, timeout=600)
