"""
What the test machine knows about reaching packages, passed on to a host: its Debian mirror, its
apt and pip settings, the certificate authorities it trusts, its name servers.

On a machine with plain internet access nearly all of it is empty.
"""

import configparser
import os
import pathlib
import re
import urllib.parse

from .tools import run

DEBIAN_MIRROR = "http://deb.debian.org/debian"
DEBIAN_SECURITY = "http://deb.debian.org/debian-security"

#: The environment variable that holds the address of a test run's own package index (index.py).
INDEX = "NGINX_UWSGI_DJANGO_INDEX"

# apt settings that say how to reach a mirror; everything else is the test machine's own affair.
_APT_SETTING = re.compile(
    r"^Acquire::(?:https?::[^ ]+|Retries|Check-Valid-Until|Check-Date|ForceIPv[46]) "
)
# pip settings that say where packages come from and how to get there.
_PIP_SETTINGS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
    "disable-pip-version-check",
)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def _apt_entries() -> list[tuple[str, str]]:
    """All (URI, suite) pairs of binary packages in the machine's apt sources."""
    entries = []
    files = [pathlib.Path("/etc/apt/sources.list")]
    files += sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))
    for path in files:
        if path.suffix == ".sources" and path.is_file():
            for stanza in re.split(r"\n\s*\n", path.read_text("utf-8")):
                fields: dict[str, str] = {}
                key = ""
                for line in stanza.splitlines():
                    if line.startswith("#"):
                        continue
                    if line[:1] in " \t":
                        fields[key] = f"{fields.get(key, '')} {line.strip()}"
                    elif ":" in line:
                        key, _, value = line.partition(":")
                        key = key.strip().lower()
                        fields[key] = value.strip()
                if fields.get("enabled", "yes").lower() in ("no", "false"):
                    continue
                if "deb" in fields.get("types", "").split():
                    entries += [
                        (uri, suite)
                        for uri in fields.get("uris", "").split()
                        for suite in fields.get("suites", "").split()
                    ]
        elif path.suffix == ".list" and path.is_file():
            for line in path.read_text("utf-8").splitlines():
                found = re.match(r"\s*deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", line)
                if found:
                    entries.append((found[1], found[2]))
    return entries


def mirrors() -> tuple[str, str]:
    """The (archive, security archive) of Debian that this machine uses, or the public ones."""
    archive, security = "", ""
    for uri, suite in _apt_entries():
        if not uri.startswith(("http://", "https://")):
            continue
        if re.fullmatch(r"(bookworm|trixie|forky|stable|testing|sid|bullseye)", suite):
            archive = archive or uri
        elif re.fullmatch(r"(bookworm|trixie|forky|stable|testing|bullseye)-security", suite):
            security = security or uri
    return archive.rstrip("/") or DEBIAN_MIRROR, security.rstrip("/") or DEBIAN_SECURITY


def apt_sources(release: str) -> str:
    """The content of a host's ``debian.sources``."""
    archive, security = mirrors()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return (
        f"Types: deb\nURIs: {archive}\nSuites: {release} {release}-updates\n"
        f"Components: main\nSigned-By: {keyring}\n\n"
        f"Types: deb\nURIs: {security}\nSuites: {release}-security\n"
        f"Components: main\nSigned-By: {keyring}\n"
    )


def apt_settings() -> list[str]:
    """The lines of ``apt-config dump`` that a host needs to reach the mirrors."""
    lines = run("apt-config", "dump").stdout.splitlines()
    return [line for line in lines if _APT_SETTING.match(line) and not line.endswith('"";')]


def _pip_settings() -> dict[str, str]:
    """pip's settings on this machine: its configuration files, then PIP_* on top."""
    home = pathlib.Path.home()
    files: list[str | pathlib.Path] = [
        "/etc/pip.conf",
        "/etc/xdg/pip/pip.conf",
        home / ".pip/pip.conf",
    ]
    files.append(pathlib.Path(os.environ.get("XDG_CONFIG_HOME", home / ".config")) / "pip/pip.conf")
    if os.environ.get("PIP_CONFIG_FILE"):
        files.append(os.environ["PIP_CONFIG_FILE"])
    parser = configparser.RawConfigParser()
    parser.read(files, encoding="utf-8")
    found = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    for key, value in os.environ.items():
        if key.startswith("PIP_"):
            found[key[4:].lower().replace("_", "-")] = value
    return {key: found[key] for key in _PIP_SETTINGS if found.get(key)}


def index_url() -> str:
    """The package index of this machine."""
    return _pip_settings().get("index-url", "https://pypi.org/simple/")


def pip_conf() -> str:
    """The content of a host's ``/etc/pip.conf``: where this machine gets its packages."""
    settings = {"timeout": "60", "retries": "10", **_pip_settings()}
    proxy = os.environ.get(INDEX)
    if proxy:
        settings["index-url"] = proxy
        host = urllib.parse.urlsplit(proxy).hostname or ""
        settings["trusted-host"] = f"{settings.get('trusted-host', '')} {host}"
    lines = [f"{key} = " + "\n    ".join(value.split()) for key, value in settings.items()]
    return "\n".join(["[global]", *lines, ""])


def pip_directories() -> list[str]:
    """Directories of this machine that pip takes packages from."""
    words = []
    for key in ("index-url", "extra-index-url", "find-links"):
        words += _pip_settings().get(key, "").split()
    paths = set()
    for word in words:
        if word.startswith("file://"):
            word = urllib.parse.unquote(urllib.parse.urlsplit(word).path)
        if word.startswith("/") and os.path.isdir(word):
            paths.add(word.rstrip("/"))
    # An index (…/simple) links to its files next to it (../files), so the parent goes along.
    return sorted({os.path.dirname(path) if path.endswith("/simple") else path for path in paths})


def certificates() -> list[str]:
    """The certificate authorities this machine trusts, as PEM blocks."""
    found: dict[str, None] = {}
    names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    paths = [os.environ.get(name, "") for name in names]
    for path in [*paths, "/etc/ssl/certs/ca-certificates.crt"]:
        if path and os.path.isfile(path):
            text = pathlib.Path(path).read_text("utf-8", errors="replace")
            found.update(dict.fromkeys(_CERTIFICATE.findall(text)))
    return list(found)


def name_servers() -> list[str]:
    """Name servers that can be asked from another network namespace (no loopback ones)."""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        if os.path.isfile(path):
            text = pathlib.Path(path).read_text("utf-8", errors="replace")
            servers = re.findall(r"^\s*nameserver\s+([0-9.]+)\s*$", text, re.MULTILINE)
            servers = [server for server in servers if not server.startswith("127.")]
            if servers:
                return servers
    return ["9.9.9.9", "1.1.1.1"]
