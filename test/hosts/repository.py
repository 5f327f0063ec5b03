"""
Package repositories made on the test machine: really signed, served over HTTP to the hosts.
"""

import contextlib
import email.utils
import gzip
import hashlib
import http.server
import os
import pathlib
import re
import shutil
import tempfile
import threading
import urllib.parse
from typing import Any

from .paths import HostError
from .tools import run


class SigningKey:
    """
    An OpenPGP key pair of its own.

    fingerprint
        in full, 40 hexadecimal digits
    armored
        the public key as a key server sends it
    """

    def __init__(self, owner: str, algorithm: str = "ed25519") -> None:
        # Not below the cache: gpg-agent's socket path has a limit of about 100 characters.
        self._home = tempfile.mkdtemp(prefix="nudkey")
        os.chmod(self._home, 0o700)
        self._gpg("--passphrase", "", "--quick-generate-key", owner, algorithm, "sign", "never")
        listing = self._gpg("--with-colons", "--list-keys")
        self.fingerprint = re.findall(r"^fpr:+([0-9A-F]{40}):", listing, re.MULTILINE)[0]
        self.armored = self._gpg("--armor", "--export", self.fingerprint)
        self._signers = [self.fingerprint]

    def _gpg(self, *argv: str, text_input: str | None = None) -> str:
        return run(
            "gpg", "--homedir", self._home, "--batch", "--quiet", *argv, text_input=text_input
        ).stdout

    def sign(self, text: str, *how: str) -> str:
        """The text clear-signed, or with ``--detach-sign`` its signature."""
        users = [word for signer in self._signers for word in ("--local-user", signer)]
        return self._gpg("--armor", "--digest-algo", "SHA512", *users, *how, text_input=text)

    def sign_with(self, other: "SigningKey") -> None:
        """From now on sign with another key too, as Launchpad does with an old and a new one."""
        secret = other._gpg("--armor", "--export-secret-keys", other.fingerprint)
        self._gpg("--import", text_input=secret)
        self._signers.append(other.fingerprint)

    def close(self) -> None:
        """End the agent that gpg started and forget the key."""
        run("gpgconf", "--homedir", self._home, "--kill", "all")
        while os.path.exists(self._home):
            # The agent takes its sockets away while it ends.
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._home)


class Repository:
    """
    An apt repository in a directory.

    folder
        what the URI of a source points at; holds ``dists`` and ``pool``
    suite, component, origin
        as in its Release file
    """

    def __init__(self, folder: pathlib.Path, suite: str, component: str, origin: str) -> None:
        self.folder = folder
        self.suite = suite
        self.component = component
        self.origin = origin
        (folder / "pool").mkdir(parents=True)

    def publish(self, key: SigningKey) -> None:
        """Write the indices of what is in the pool, signed with this key."""
        packages = ""
        for deb in sorted((self.folder / "pool").rglob("*.deb")):
            data = deb.read_bytes()
            packages += run("dpkg-deb", "--field", deb).stdout.rstrip("\n") + "\n"
            packages += f"Filename: {deb.relative_to(self.folder)}\nSize: {len(data)}\n"
            packages += f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
        dist = self.folder / "dists" / self.suite
        where = f"{self.component}/binary-amd64"
        (dist / where).mkdir(parents=True, exist_ok=True)
        files = {
            f"{where}/Packages": packages.encode(),
            f"{where}/Packages.gz": gzip.compress(packages.encode(), mtime=0),
        }
        release = (
            f"Origin: {self.origin}\nLabel: {self.origin}\nSuite: {self.suite}\n"
            f"Codename: {self.suite}\nDate: {email.utils.formatdate(usegmt=True)}\n"
            f"Architectures: amd64\nComponents: {self.component}\nSHA256:\n"
        )
        for name, data in files.items():
            (dist / name).write_bytes(data)
            release += f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"
        (dist / "Release").write_text(release, "utf-8")
        (dist / "Release.gpg").write_text(key.sign(release, "--detach-sign"), "utf-8")
        (dist / "InRelease").write_text(key.sign(release, "--clear-sign"), "utf-8")


def repack(deb: pathlib.Path, target: pathlib.Path, old: str, new: str) -> pathlib.Path:
    """
    The same package with another version, its dependencies on its siblings following.

    deb
        the package to take
    target
        the directory to write to
    old, new
        the versions; both as in the control file

    Returns the new file.
    """
    with tempfile.TemporaryDirectory(prefix="nudrepack") as scratch:
        tree = pathlib.Path(scratch, "tree")
        run("dpkg-deb", "--raw-extract", deb, tree)
        control = tree / "DEBIAN/control"
        text = control.read_text("utf-8")
        if f"Version: {old}\n" not in text:
            raise HostError(f"{deb.name} is not version {old}")
        # Everywhere: siblings ask for (= old), or for (>= old) and (<< old.1~).
        control.write_text(text.replace(old, new), "utf-8")
        name, _, rest = deb.name.partition("_")
        made = target / f"{name}_{new}_{rest.rpartition('_')[2]}"
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made)
    return made


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files, and public keys as a key server gives them out."""

    server: "Server"

    def do_GET(self) -> None:
        """Answer with a key or a file."""
        self.server.asked.append(self.path)
        address = urllib.parse.urlsplit(self.path)
        if address.path == "/pks/lookup":
            wanted = urllib.parse.parse_qs(address.query).get("search", [""])[0]
            armored = self.server.keys.get(wanted.removeprefix("0x").upper())
            if armored is None:
                self.send_error(404, "No results found")
                return
            data = armored.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/pgp-keys; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Not on the terminal; ``Server.asked`` has it."""


class Server(http.server.ThreadingHTTPServer):
    """
    An HTTP server for the hosts, on the bridge's own address, for as long as this process lives.

    url
        its base address
    asked
        the paths that were asked for, in order
    keys
        fingerprint -> public key, given out at ``/pks/lookup``
    """

    daemon_threads = True

    def __init__(self, address: str, folder: pathlib.Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.keys: dict[str, str] = {}
        super().__init__((address, 0), _Handler)
        self.url = f"http://{address}:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve the directory this server is for, not the process's current one."""
        _Handler(request, client_address, self, directory=os.fspath(self.folder))

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        self._thread.join()
        self.server_close()
