"""
Key files and the texts that apt reads.  The judge of fingerprints is the real gpg.
"""

import base64
import http.server
import json
import pathlib
import re
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import salt.utils.yaml
from salt.exceptions import CommandExecutionError

from _nud import openpgp

from ..modules import Modules

KEYRINGS = sorted(
    path
    for folder in ("/usr/share/keyrings", "/etc/apt/trusted.gpg.d")
    for path in pathlib.Path(folder).glob("debian-archive-*")
)

PILLAR: dict[str, Any] = {
    "nginx_uwsgi_django": {
        "nginx": {"repo": "nginx.org"},
        "sites": {
            "mysite": {
                "server_names": ["www.example.org"],
                "project": {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings"},
            }
        },
    }
}


class Gpg:
    """gpg with a home of its own."""

    def __init__(self, home: pathlib.Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)

    def __call__(self, *argv: str, input: bytes | None = None) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--no-tty"]
        command += ["--pinentry-mode", "loopback", "--passphrase", ""]
        done = subprocess.run([*command, *argv], input=input, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def key(self, user: str, algorithm: str) -> str:
        self("--quick-generate-key", user, algorithm, "sign", "never")
        listing = self("--list-keys", "--with-colons", f"={user}").decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr"))


def by_gpg(path: str | pathlib.Path) -> list[str]:
    """The primary keys of a file, as gpg tells them."""
    done = subprocess.run(
        ["gpg", "--show-keys", "--with-colons", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found, primary = [], False
    for line in done.stdout.splitlines():
        fields = line.split(":")
        if fields[0] == "pub":
            primary = True
        elif fields[0] == "fpr" and primary:
            found.append(fields[9])
            primary = False
    return found


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("gpg") / "home"
    made = Gpg(home)
    yield made
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def source() -> Any:
    return Modules(pillar=PILLAR).deb822_source


@pytest.mark.parametrize("path", KEYRINGS, ids=lambda path: path.name)
def test_fingerprints_of_debians_keyrings(source: Any, path: pathlib.Path) -> None:
    expected = by_gpg(path)
    assert expected
    assert source.fingerprints(str(path)) == expected


def test_there_are_keyrings_to_compare() -> None:
    assert len(KEYRINGS) > 5


@pytest.mark.parametrize("algorithm", ["rsa2048", "rsa3072", "ed25519", "nistp256"])
def test_fingerprint_of_a_fresh_key(
    source: Any, gpg: Gpg, tmp_path: pathlib.Path, algorithm: str
) -> None:
    fingerprint = gpg.key(f"{algorithm} <{algorithm}@example.org>", algorithm)
    binary, armoured = tmp_path / "key.gpg", tmp_path / "key.asc"
    binary.write_bytes(gpg("--export", fingerprint))
    armoured.write_bytes(gpg("--armor", "--export", fingerprint))
    assert by_gpg(binary) == [fingerprint]
    assert source.fingerprints(str(binary)) == [fingerprint]
    assert source.fingerprints(str(armoured)) == [fingerprint]
    assert openpgp.dearmoured(armoured.read_bytes()) == binary.read_bytes()


@pytest.fixture(scope="module")
def pair(gpg: Gpg) -> tuple[str, str]:
    return gpg.key("one <one@example.org>", "ed25519"), gpg.key("two <two@example.org>", "ed25519")


def test_no_key_that_is_not_pinned(source: Any, gpg: Gpg, pair: tuple[str, str]) -> None:
    one, two = pair
    alone, both = gpg("--export", one), gpg("--export", one, two)
    assert source._checked(alone, [one], "here") == alone
    assert source._checked(alone, [one.lower()], "here") == alone
    assert source._checked(both, [two, one], "here") == both
    with pytest.raises(CommandExecutionError, match=f"here: .*not pinned: {two}"):
        source._checked(both, [one], "here")
    with pytest.raises(CommandExecutionError, match=f"not pinned: {one}"):
        source._checked(alone, [two], "here")
    # One of two pinned keys is retired by the archive.
    assert source._checked(alone, [one, two], "here") == alone


def test_two_armoured_blocks_are_two_keys(source: Any, gpg: Gpg, pair: tuple[str, str]) -> None:
    text = b"".join(gpg("--armor", "--export", one) for one in pair)
    assert openpgp.primary_keys(openpgp.dearmoured(text)) == list(pair)
    # A key hidden behind the one that is pinned.
    with pytest.raises(CommandExecutionError, match=f"not pinned: {pair[1]}"):
        source._checked(text, [pair[0]], "here")


def test_windows_line_ends_and_armour_headers(source: Any, gpg: Gpg, pair: tuple[str, str]) -> None:
    text = gpg("--armor", "--export", pair[0])
    headed = text.replace(b"BLOCK-----\n", b"BLOCK-----\nComment: from a keyserver\n", 1)
    for variant in (headed, text.replace(b"\n", b"\r\n"), headed.replace(b"\n", b"\r\n")):
        assert openpgp.primary_keys(openpgp.dearmoured(variant)) == [pair[0]]


def _without_packets(key: bytes, count: int) -> bytes:
    """An exported key from its packet of that number on; gpg writes lengths of one octet here."""
    for _ in range(count):
        key = key[2 + key[1] :]
    return key


def _broken(key: bytes, armoured: bytes) -> dict[str, tuple[bytes, str]]:
    lines = armoured.splitlines(keepends=True)
    letter = b"B" if lines[4][:1] != b"B" else b"C"
    return {
        "empty": (b"", "holds no key"),
        "a web page": (b"<!DOCTYPE html><title>404</title>", "not OpenPGP"),
        "cut off": (key[:-7], "cut off"),
        "cut off in a length": (key[:2], "cut off"),
        "armour cut off": (armoured[:200], "whole public key blocks"),
        "armour damaged": (b"".join([*lines[:4], letter + lines[4][1:], *lines[5:]]), "checksum"),
        "not base64": (armoured.replace(lines[4], b"?!*\n"), "malformed"),
        "signature first": (_without_packets(key, 2), "begin with a key"),
        "partial length": (b"\xc6\xe1" + b"\x04" * 40, "partial length"),
        "indeterminate length": (b"\x9b" + b"\x04" * 40, "unknown length"),
        "version 3": (b"\xc6\x0a\x03" + b"\0" * 9, "version 3"),
        "literal data": (key + b"\xcb\x02ab", "type 11"),
    }


@pytest.mark.parametrize("how", list(_broken(b"\0" * 9, b"\n" * 9)))
def test_broken_key_files_are_refused(
    source: Any, gpg: Gpg, pair: tuple[str, str], how: str
) -> None:
    key, armoured = gpg("--export", pair[0]), gpg("--armor", "--export", pair[0])
    data, message = _broken(key, armoured)[how]
    with pytest.raises(CommandExecutionError, match=f"^where: .*{message}"):
        source._checked(data, [pair[0]], "where")


def test_a_secret_key_is_refused(source: Any, gpg: Gpg, pair: tuple[str, str]) -> None:
    for options in ([], ["--armor"]):
        secret = gpg(*options, "--export-secret-keys", pair[0])
        with pytest.raises(CommandExecutionError):
            source._checked(secret, [pair[0]], "where")


def test_a_version_6_key(source: Any) -> None:
    # RFC 9580, A.3: the sample certificate and its fingerprint.
    text = """-----BEGIN PGP PUBLIC KEY BLOCK-----

xioGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laPCsQYf
GwoAAABCBYJjh3/jAwsJBwUVCg4IDAIWAAKbAwIeCSIhBssYbE8GCaaX5NUt+mxy
KwwfHifBilZwj2Ul7Ce62azJBScJAgcCAAAAAK0oIBA+LX0ifsDm185Ecds2v8lw
gyU2kCcUmKfvBXbAf6rhRYWzuQOwEn7E/aLwIwRaLsdry0+VcallHhSu4RN6HWaE
QsiPlR4zxP/TP7mhfVEe7XWPxtnMUMtf15OyA51YBM4qBmOHf+MZAAAAIIaTJINn
+eUBXbki+PSAld2nhJh/LVmFsS+60WyvXkQ1wpsGGBsKAAAALAWCY4d/4wKbDCIh
BssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce62azJAAAAAAQBIKbpGG2dWTX8
j+VjFM21J0hqWlEg+bdiojWnKfA5AQpWUWtnNwDEM0g12vYxoWM8Y81W+bHBw805
I8kWVkXU6vFOi+HWvv/ira7ofJu16NnoUkhclkUrk0mXubZvyl4GBg==
-----END PGP PUBLIC KEY BLOCK-----
"""
    expected = "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
    assert openpgp.primary_keys(openpgp.dearmoured(text.encode())) == [expected]


def test_crc24(source: Any) -> None:
    # The usual check value of CRC-24/OPENPGP.
    assert openpgp.crc24(b"123456789") == 0x21CF02
    assert base64.b64encode(openpgp.crc24(b"").to_bytes(3, "big")) == b"twTO"


def _fields(text: str) -> dict[str, str]:
    return dict(
        re.findall(r"^([A-Z][A-Za-z-]+): (.+)$", text, re.MULTILINE),
    )


def test_the_sources_file(modules: Any) -> None:
    for os_, repo, uri in (
        ("Debian", "nginx.org", "https://nginx.org/packages/debian"),
        ("Ubuntu", "ppa", "https://ppa.launchpadcontent.net/nginx/stable/ubuntu"),
    ):
        m = modules(
            pillar={
                "nginx_uwsgi_django": {**PILLAR["nginx_uwsgi_django"], "nginx": {"repo": repo}}
            },
            grains={"os": os_, "os_family": "Debian", "oscodename": "codename"},
        )
        settings = m.site_pillar.settings()["lookup"]["repos"][repo]
        sources, keyring = m.deb822_source._paths(repo)
        text = m.deb822_source._sources_text(settings, keyring, "00ff")
        assert _fields(text) == {
            "Types": "deb",
            "URIs": uri,
            "Suites": "codename",
            "Components": "nginx" if repo == "nginx.org" else "main",
            "Signed-By": keyring,
        }
        assert text.startswith("# Managed by")
        assert "00ff" in text


def test_an_exact_path_has_no_components(source: Any) -> None:
    repo = {"uris": "file:/srv/repo", "suites": "./", "components": ["main"]}
    assert "Components" not in _fields(source._sources_text(repo, "/k.gpg", "00"))


def test_preferences(source: Any) -> None:
    known = {"origin": "LP-PPA-nginx-stable", "home": "ppa.launchpadcontent.net"}
    home = source._preferences_text({**known, "uris": "https://ppa.launchpadcontent.net/x"})
    assert re.findall("^Pin: (.*)$", home, re.MULTILINE) == ["release o=LP-PPA-nginx-stable"]
    org = {"origin": "nginx", "home": "nginx.org"}
    mirror = source._preferences_text({**org, "uris": "http://mirror.example.org:80/x"})
    assert re.findall("^Pin: (.*)$", mirror, re.MULTILINE) == [
        "release o=nginx",
        'origin "mirror.example.org"',
    ]
    local = source._preferences_text({**known, "uris": "file:/srv/repo"})
    assert re.findall("^Pin: (.*)$", local, re.MULTILINE) == ["release o=LP-PPA-nginx-stable"]


def test_keys_that_apt_refuses_or_soon_will(source: Any, gpg: Gpg) -> None:
    keys = {name: gpg.key(f"{name} <weak@example.org>", name) for name in ("rsa1024", "dsa2048")}
    good = {name: gpg.key(f"{name} <good@example.org>", name) for name in ("rsa2048", "ed25519")}
    everything = gpg("--export", *keys.values(), *good.values())
    assert sorted(openpgp.weak(everything)) == sorted(keys.values())


FINGERPRINT = "4F4EA0AAE5267A6C" + "AB" * 12


class _Launchpad(http.server.BaseHTTPRequestHandler):
    """Its API, as far as it is asked: https://api.launchpad.net/1.0/#archive."""

    def do_GET(self) -> None:
        known = {
            "/~ondrej/+archive/ubuntu/nginx": {"signing_key_fingerprint": FINGERPRINT.lower()},
            "/~someone/+archive/ubuntu/empty": {"signing_key_fingerprint": None},
        }
        self.send_response(200 if self.path in known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(known.get(self.path)).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def launchpad(source: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Launchpad) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setattr(source, "_LAUNCHPAD", f"http://127.0.0.1:{server.server_address[1]}")
        yield
        server.shutdown()


@pytest.mark.usefixtures("launchpad")
def test_launchpad_is_asked_and_not_trusted(modules: Any, source: Any) -> None:
    said = source.ppa("ondrej/nginx")
    assert said == {**source.ppa("ppa:ondrej/nginx"), "fingerprints": [FINGERPRINT]}
    assert f"pin {FINGERPRINT} alone" in said["advice"]
    # The lines are a pillar that pins this key, and it is fetched by its fingerprint.
    lines = salt.utils.yaml.safe_load(said["pillar"])["nginx_uwsgi_django"]
    whole = {**PILLAR["nginx_uwsgi_django"], **lines}
    grains = {"os": "Ubuntu", "os_family": "Debian", "oscodename": "noble"}
    m = modules(pillar={"nginx_uwsgi_django": whole}, grains=grains)
    repo = m.site_pillar.settings()["lookup"]["repos"]["ppa"]
    assert repo["uris"] == "https://ppa.launchpadcontent.net/ondrej/nginx/ubuntu"
    assert repo["origin"] == "LP-PPA-ondrej-nginx" and repo["fingerprints"] == [FINGERPRINT]
    assert len(repo["keys"]) == 1 and repo["keys"][0].endswith(f"search=0x{FINGERPRINT}")


@pytest.mark.usefixtures("launchpad")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nginx", "OWNER/NAME"),
        ("../x/y", "OWNER/NAME"),
        ("ondrej/gone", "404"),
        ("someone/empty", "names no key"),
    ],
)
def test_what_launchpad_does_not_have(source: Any, name: str, message: str) -> None:
    with pytest.raises(CommandExecutionError, match=message):
        source.ppa(name)


def test_a_ppa_without_its_keys(modules: Any) -> None:
    whole = {**PILLAR["nginx_uwsgi_django"], "nginx": {"repo": "ppa", "ppa": "ondrej/nginx"}}
    grains = {"os": "Ubuntu", "os_family": "Debian", "oscodename": "noble"}
    m = modules(pillar={"nginx_uwsgi_django": whole}, grains=grains)
    with pytest.raises(CommandExecutionError) as raised:
        m.site_pillar.settings()
    assert "nginx_uwsgi_django:lookup:repos:ppa:fingerprints" in str(raised.value)
    assert "deb822_source.ppa ondrej/nginx" in str(raised.value)


def test_kind(source: Any) -> None:
    assert source._kind("nginx") == "nginx.org"
    assert source._kind("distro") == "distro"
    with pytest.raises(CommandExecutionError, match="'launchpad'"):
        source._kind("launchpad")


def test_a_key_that_is_not_there(source: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(CommandExecutionError, match="No such file"):
        source._fetched(str(tmp_path / "nothing.asc"), "base")
    with pytest.raises(
        CommandExecutionError, match="salt://keys/none.asc is not on the fileserver"
    ):
        source._fetched("salt://keys/none.asc", "base")
