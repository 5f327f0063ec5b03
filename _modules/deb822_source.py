"""
A signed package source of apt, proven before it counts.

Salt's ``pkgrepo.managed`` writes keys that apt then trusts for every source, asks Launchpad at
apply time, or never converges with a ``.sources`` file, depending on the release.  This writes
three files and needs no ``apt-key``, no ``software-properties-common`` and no Python binding:

- ``/etc/apt/sources.list.d/nginx_uwsgi_django-KIND.sources``, in deb822 form, whose ``Signed-By``
  names
- ``/etc/apt/keyrings/nginx_uwsgi_django-KIND.gpg``, with no key whose full fingerprint the pillar
  does not pin, and
- ``/etc/apt/preferences.d/nginx_uwsgi_django.pref``, so that nginx comes from there.

Which sources exist is a table of :py:mod:`site_pillar <_modules.site_pillar>`.  Whether one has a
suite for this host's release, its archive is asked: a release that is too new or too old is refused
before anything changes.

Before any of them is written apt itself has updated from the staged source, in directories of its
own: a wrong address, suite or signature changes nothing on the host.

.. versionadded:: 0.1.0
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import salt.utils.http
from salt.exceptions import CommandExecutionError

from _nud import apt, durable_file, nginx_origin, openpgp

__virtualname__ = "deb822_source"

_NAME = "nginx_uwsgi_django"
_MARKER = f"# Managed by the Salt formula {_NAME}: changes made here are overwritten."
_PREFERENCES = f"/etc/apt/preferences.d/{_NAME}.pref"

_PINNED = "nginx nginx-* libnginx-mod-*"
# Above the 500 of any other source; below 1000, so that nothing is ever downgraded for it.
_PRIORITY = 900

_UPDATE_TIMEOUT = 300
_LARGEST_KEY = 4 << 20

_HELPER = "/usr/lib/apt/apt-helper"
_LAUNCHPAD = "https://api.launchpad.net/1.0"
_PPA = re.compile(r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*")


def __virtual__() -> str | tuple[bool, str]:
    if not shutil.which("apt-get"):
        return False, "there is no apt-get on this system"
    return __virtualname__


# --- keys --------------------------------------------------------------------------------------


def fingerprints(path: str) -> list[str]:
    """
    The full fingerprints of the primary keys in a key file, computed without gpg.

    path
        an OpenPGP file, armoured or not

    Returns a list of upper-case hexadecimal texts (40 digits; 64 for version 6).

    Raises CommandExecutionError when it is not a file of whole public keys; OSError when it cannot
    be read.

    CLI Example:

    .. code-block:: bash

        salt '*' deb822_source.fingerprints /usr/share/keyrings/debian-archive-keyring.gpg
    """
    with open(path, "rb") as stream:
        return openpgp.primary_keys(openpgp.dearmoured(stream.read()))


def _checked(data: bytes, pinned: list[str], where: str) -> bytes:
    """
    The keyring that a key file makes, if every key in it is pinned.

    Not every pinned key has to be in it: an archive that retires one of its keys is no danger, and
    one that is signed by a key that is missing here does not get past apt.
    """
    try:
        packets = openpgp.dearmoured(data)
        found = openpgp.primary_keys(packets)
    except CommandExecutionError as error:
        raise CommandExecutionError(f"{where}: {error}") from error
    wanted = [fingerprint.upper() for fingerprint in pinned]
    strange = [fingerprint for fingerprint in found if fingerprint not in wanted]
    if strange:
        raise CommandExecutionError(
            f"{where}: it holds a key that is not pinned: {', '.join(strange)} "
            f"(pinned: {', '.join(wanted)})"
        )
    return packets


def _fetched(source: str, saltenv: str) -> bytes:
    """A key file, from the place that the pillar names."""
    if source.startswith("/"):
        return _read_file(source)
    if source.startswith("salt://"):
        cached = __salt__["cp.cache_file"](source, saltenv=saltenv)
        if not cached:
            raise CommandExecutionError(f"{source} is not on the fileserver")
        return _read_file(cached)
    return _asked(source, "a key file")


def _asked(address: str, what: str) -> bytes:
    """What an HTTP server answers."""
    bundle = salt.utils.http.get_ca_bundle(__opts__)
    context = ssl.create_default_context(cafile=bundle) if bundle else ssl.create_default_context()
    request = urllib.request.Request(address, headers={"User-Agent": _NAME})
    for attempt in range(3):
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                data: bytes = answer.read(_LARGEST_KEY + 1)
            break
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or attempt == 2:
                raise CommandExecutionError(f"{address}: {error}") from error
            time.sleep(2)
    if len(data) > _LARGEST_KEY:
        raise CommandExecutionError(f"{address}: this is too large for {what}")
    return data


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_LARGEST_KEY)
    except OSError as error:
        raise CommandExecutionError(f"{path}: {error.strerror}") from error


def _is_local(source: str) -> bool:
    return source.startswith(("/", "salt://", "file://"))


# --- files -------------------------------------------------------------------------------------


def _paths(kind: str) -> tuple[str, str]:
    return (
        f"/etc/apt/sources.list.d/{_NAME}-{kind}.sources",
        f"/etc/apt/keyrings/{_NAME}-{kind}.gpg",
    )


def _repos() -> dict[str, dict[str, Any]]:
    repos: dict[str, dict[str, Any]] = __salt__["site_pillar.settings"]()["lookup"]["repos"]
    return repos


def _kind(name: str) -> str:
    if name == "nginx":
        return str(choice()["kind"])
    if name not in (*_repos(), "distro"):
        kinds = ", ".join(_repos())
        raise CommandExecutionError(f"a source is {kinds} or distro, not {name!r}")
    return name


def _suite(repo: dict[str, Any]) -> str:
    suite = repo["suites"] or __grains__.get("oscodename")
    if not suite:
        raise CommandExecutionError("the release's codename is unknown: set lookup:repos:…:suites")
    return str(suite)


def _sources_text(repo: dict[str, Any], keyring: str, digest: str) -> str:
    suite = _suite(repo)
    lines = [
        _MARKER,
        # Makes a keyring that was tampered with, or is of an older key, a difference that is
        # seen without fetching the key again.
        f"# SHA-256 of the keyring: {digest}",
        "Types: deb",
        f"URIs: {repo['uris']}",
        f"Suites: {suite}",
    ]
    # sources.list(5): a suite that ends in a slash is an exact path and has no components.
    if not suite.endswith("/"):
        lines.append(f"Components: {' '.join(repo['components'])}")
    lines.append(f"Signed-By: {keyring}")
    return "\n".join(lines) + "\n"


def _preferences_text(repo: dict[str, Any]) -> str:
    host = urllib.parse.urlsplit(repo["uris"]).hostname
    pins = [f"release o={repo['origin']}"]
    if host and host != repo["home"]:
        # A mirror, which may have an origin of its own.
        pins.append(f'origin "{host}"')
    stanzas = [f"Package: {_PINNED}\nPin: {pin}\nPin-Priority: {_PRIORITY}\n" for pin in pins]
    return f"{_MARKER}\n" + "\n".join(stanzas)


def _existing(path: str) -> bytes | None:
    return durable_file.read(path)


def _others(kind: str) -> list[str]:
    """The files of the formula's other sources."""
    paths = [path for other in _repos() if other != kind for path in _paths(other)]
    if kind == "distro":
        paths.append(_PREFERENCES)
    return [path for path in paths if os.path.lexists(path)]


def _wanted(kind: str, saltenv: str) -> dict[str, bytes]:
    """
    Every file of a source with its content.

    The key is fetched when the keyring is not the one that was proven last, and compared on every
    run when it is near (a file, the fileserver).
    """
    repo = _repos()[kind]
    sources, keyring = _paths(kind)
    present = _existing(keyring)
    packets = None
    if present is not None and not any(map(_is_local, repo["keys"])):
        with contextlib.suppress(CommandExecutionError):
            candidate = _checked(present, repo["fingerprints"], keyring)
            stated = f"# SHA-256 of the keyring: {hashlib.sha256(present).hexdigest()}\n"
            if stated.encode() in (_existing(sources) or b""):
                packets = candidate
    if packets is None:
        packets = b"".join(
            _checked(_fetched(key, saltenv), repo["fingerprints"], key) for key in repo["keys"]
        )
    digest = hashlib.sha256(packets).hexdigest()
    return {
        keyring: packets,
        _PREFERENCES: _preferences_text(repo).encode(),
        # Last: from here on apt reads it, and all that it needs is there.
        sources: _sources_text(repo, keyring, digest).encode(),
    }


# --- apt ---------------------------------------------------------------------------------------


def _update(configuration: str) -> None:
    """``apt-get update`` with a configuration file; raises with apt's own words."""
    command = ["apt-get", "--config-file", configuration, "-q", "update"]
    result = apt.run(command, "apt-get update", _UPDATE_TIMEOUT)
    output = result.stdout
    # Warnings that mean failure: a component that is not there is never more than one, and apt
    # before 2.3 knows no Error-Mode.
    failed = r"E:|Err:|W: (Failed to fetch|GPG error|Skipping acquire .* component )"
    bad = [line.strip() for line in output.splitlines() if re.match(failed, line)]
    if result.returncode or bad:
        words = [line.strip() for line in output.splitlines() if line.startswith(("E:", "W:"))]
        told = words or bad or [f"exit code {result.returncode}"]
        raise CommandExecutionError("apt refuses the source:\n" + "\n".join(told))


_CLEAR = """
APT::Update::Error-Mode "any";
APT::Get::List-Cleanup "0";
Acquire::Retries "2";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def _try(kind: str, files: dict[str, bytes]) -> None:
    """Let apt update from the source as it would be, and leave nothing behind."""
    sources, keyring = _paths(kind)
    with tempfile.TemporaryDirectory(prefix=f"{_NAME}-apt-") as stage:
        # apt drops its privileges for the download and for reading the key.
        os.chmod(stage, 0o755)
        for folder in ("parts", "lists", "lists/partial"):
            os.mkdir(os.path.join(stage, folder), 0o755)
        staged = os.path.join(stage, "key.gpg")
        text = files[sources].replace(
            f"Signed-By: {keyring}\n".encode(), f"Signed-By: {staged}\n".encode()
        )
        configuration = (
            _CLEAR + f'Dir::Etc::sourcelist "/dev/null";\n'
            f'Dir::Etc::sourceparts "{stage}/parts";\n'
            f'Dir::State::lists "{stage}/lists";\n'
            'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        )
        for name, content in (
            ("key.gpg", files[keyring]),
            (f"parts/{_NAME}.sources", text),
            ("apt.conf", configuration.encode()),
        ):
            path = os.path.join(stage, name)
            with open(path, "wb") as stream:
                stream.write(content)
            os.chmod(path, 0o644)
        _update(os.path.join(stage, "apt.conf"))


def _refresh(kind: str) -> None:
    """Fetch the indexes of the source that is now in place, and of no other."""
    with tempfile.TemporaryDirectory(prefix=f"{_NAME}-apt-") as stage:
        path = os.path.join(stage, "apt.conf")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(
                _CLEAR + f'Dir::Etc::sourcelist "{_paths(kind)[0]}";\n'
                'Dir::Etc::sourceparts "/dev/null";\n'
            )
        _update(path)


# --- which source ----------------------------------------------------------------------------------


def _placed(kind: str) -> dict[str, str]:
    """The fields of a source's file, where it is there."""
    text = (_existing(_paths(kind)[0]) or b"").decode("utf-8", "replace")
    return dict(re.findall(r"^(URIs|Suites): (.+)$", text, re.MULTILINE))


def _has_suite(repo: dict[str, Any]) -> bool:
    """
    Whether an archive has the suite: it says so itself, asked by apt, with apt's proxies.

    Raises CommandExecutionError, with apt's own words, when it gives no answer.
    """
    suite = _suite(repo)
    folder = suite.rstrip("/") if suite.endswith("/") else f"dists/{suite}"
    address = f"{repo['uris'].rstrip('/')}/{folder}/InRelease"
    with tempfile.TemporaryDirectory(prefix=f"{_NAME}-apt-") as stage:
        options = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=30"]
        options += ["-o", "Acquire::https::Timeout=30"]
        command = [_HELPER, *options, "download-file", address, os.path.join(stage, "InRelease")]
        result = apt.run(command, address, _UPDATE_TIMEOUT)
    if not result.returncode:
        return True
    words = [line.strip() for line in result.stdout.splitlines() if line.startswith("E:")]
    # A file: address has no status code.
    if any(re.search(r" (404|410) |File not found", line) for line in words):
        return False
    raise CommandExecutionError("\n".join(words) or f"{address}: exit code {result.returncode}")


def _release() -> str:
    return f"{__grains__.get('os')} {__grains__.get('osrelease')}"


def _no_suite(kind: str) -> str:
    repo = _repos()[kind]
    return f"{repo['title']} ({repo['uris']}) has no suite {_suite(repo)} for {_release()}"


def choice() -> dict[str, str]:
    """
    The source that nginx is to come from on this host.

    With ``nginx:repo: auto`` (the default on Ubuntu) a host stays with the source that it uses.  A
    host without nginx gets the PPA where its archive has the release's suite, else the
    distribution's nginx.

    Returns ``kind`` (``ppa``, ``nginx.org`` …, or ``distro``) and ``why``, a sentence.

    Raises CommandExecutionError when the PPA's archive has to be asked and gives no answer.

    CLI Example:

    .. code-block:: bash

        salt '*' deb822_source.choice
    """
    settings = __salt__["site_pillar.settings"]()
    kind = settings["nginx"]["repo"]
    if kind != "auto":
        return {"kind": kind, "why": f"nginx:repo is {kind}."}
    for placed in _repos():
        if _placed(placed):
            return {"kind": placed, "why": f"nginx:repo is auto, and {placed} is the source here."}
    if settings["lookup"]["nginx_package"] in __salt__["dpkg_packages.on_host"]():
        return {"kind": "distro", "why": "nginx:repo is auto, and nginx is installed: it stays."}
    if __grains__.get("os") != "Ubuntu":
        return {"kind": "distro", "why": f"nginx:repo is auto, and this is {_release()}."}
    repo = _repos()["ppa"]
    try:
        there = _has_suite(repo)
    except CommandExecutionError as error:
        raise CommandExecutionError(
            f"nginx_uwsgi_django:nginx:repo is auto, and whether {repo['title']} has the suite "
            f"{_suite(repo)} cannot be known: its archive gives no answer. Nothing is changed. "
            f"nginx:repo: distro (or nginx.org) does without it.\n{error}"
        ) from error
    if there:
        return {"kind": "ppa", "why": f"{repo['title']} has the suite {_suite(repo)}."}
    return {"kind": "distro", "why": f"{_no_suite('ppa')}: nginx comes from the distribution."}


def _check_suite(kind: str) -> None:
    """Refuse a source that has nothing for this release, before anything is changed for it."""
    repo = _repos()[kind]
    if _placed(kind) == {"URIs": repo["uris"], "Suites": _suite(repo)}:
        return
    try:
        there = _has_suite(repo)
    except CommandExecutionError as error:
        raise CommandExecutionError(
            f"{repo['title']} gives no answer; nothing is changed:\n{error}"
        ) from error
    if not there:
        others = [other for other in _repos() if other != kind]
        ways = [f"nginx:repo: {other}" for other in others if other != "ppa"]
        if __grains__.get("os") == "Ubuntu":
            ways.append("another PPA that has it (nginx:ppa: OWNER/NAME)")
        raise CommandExecutionError(
            f"{_no_suite(kind)}; nothing is changed. Ways out: "
            f"{', '.join(ways)}, or the distribution's nginx (nginx:repo: distro)"
        )


def ppa(name: str) -> dict[str, Any]:
    """
    Ask Launchpad which key signs a PPA.  Nothing is trusted or written: compare the fingerprint with
    the PPA's page, and paste the lines into the pillar.

    name
        ``OWNER/NAME``, e.g. ``ondrej/nginx``

    Returns ``fingerprints``, the keys ``in_place`` on this host for its PPA, ``advice``, and
    ``pillar``, the lines to paste.

    Raises CommandExecutionError when Launchpad does not answer, or has no such PPA.

    CLI Example:

    .. code-block:: bash

        salt-call --local deb822_source.ppa ondrej/nginx
    """
    name = name.removeprefix("ppa:")
    if not _PPA.fullmatch(name):
        raise CommandExecutionError(f"a PPA is OWNER/NAME, e.g. ondrej/nginx, not {name!r}")
    owner, _, short = name.partition("/")
    # https://api.launchpad.net/1.0/#archive
    address = f"{_LAUNCHPAD}/~{owner}/+archive/ubuntu/{short}"
    try:
        said = json.loads(_asked(address, "an answer of Launchpad"))
        found = said["signing_key_fingerprint"] if isinstance(said, dict) else None
    except (KeyError, ValueError) as error:
        raise CommandExecutionError(f"{address}: not the description of a PPA") from error
    if not isinstance(found, str) or not re.fullmatch(
        r"[0-9A-Fa-f]{40}(?:[0-9A-Fa-f]{24})?", found
    ):
        raise CommandExecutionError(f"{address}: it names no key: nothing was published there yet")
    found = found.upper()
    keyring = _existing(_paths("ppa")[1])
    return {
        "ppa": f"https://launchpad.net/~{owner}/+archive/ubuntu/{short}",
        "fingerprints": [found],
        "in_place": openpgp.primary_keys(openpgp.dearmoured(keyring)) if keyring else [],
        # https://discourse.ubuntu.com/t/42854
        "advice": (
            f"Compare it with the page of the PPA, and pin {found} alone: since August 2024 Launchpad "
            "signs a PPA that had a key of RSA-1024 with a second one of RSA-4096 too, and gives out "
            "that. apt of Ubuntu 24.04 and newer refuses RSA-1024 or soon will."
        ),
        "pillar": (
            "nginx_uwsgi_django:\n"
            "  nginx:\n"
            "    repo: ppa\n"
            f"    ppa: {name}\n"
            "  lookup:\n"
            "    repos:\n"
            "      ppa:\n"
            f"        fingerprints: [{found}]\n"
        ),
    }


def weak() -> list[str]:
    """
    The keys of the source in place that apt accepts no more, or soon will not: RSA below 2048 bits,
    DSA.

    Returns their full fingerprints.

    CLI Example:

    .. code-block:: bash

        salt '*' deb822_source.weak
    """
    found = []
    for kind in _repos():
        content = _existing(_paths(kind)[1])
        if content:
            found += openpgp.weak(openpgp.dearmoured(content))
    return found


# --- what the state calls ----------------------------------------------------------------------


def in_place() -> str:
    """
    Which source is in place.

    Returns ``ppa`` or ``nginx.org`` and its address, or ``distro`` where none of the formula's is.

    CLI Example:

    .. code-block:: bash

        salt '*' deb822_source.in_place
    """
    for kind in _repos():
        fields = _placed(kind)
        if "URIs" in fields:
            return f"{kind} {fields['URIs']}"
    return "distro"


def wanted(name: str) -> str:
    """
    Which source is to be in place, as :py:func:`in_place` says it.

    name
        as in :py:func:`diff`

    CLI Example:

    .. code-block:: bash

        salt '*' deb822_source.wanted nginx
    """
    kind = _kind(name)
    if kind == "distro":
        return kind
    return f"{kind} {_repos()[kind]['uris']}"


def diff(name: str, saltenv: str = "base") -> dict[str, Any]:
    """
    What :py:func:`ensure` would write and remove.

    name
        ``ppa``, ``nginx.org``, ``distro``; ``nginx`` is the one of :py:func:`choice`
    saltenv
        the fileserver's environment for a key at ``salt://``

    Returns the changes by path: old and new text, ``(a keyring …)`` for a keyring.

    Raises CommandExecutionError when the key cannot be had or is not the pinned one.

    CLI Example:

    .. code-block:: bash

        salt '*' deb822_source.diff nginx
    """
    kind = _kind(name)
    files = _wanted(kind, saltenv) if kind != "distro" else {}
    return _told(files, _others(kind))


def _note_origin() -> None:
    """
    Note which source an installed nginx came from, before the source changes. A note that exists
    stays: nginx is then still from the source that it names.
    """
    lookup = __salt__["site_pillar.settings"]()["lookup"]
    installed = lookup["nginx_package"] in __salt__["dpkg_packages.on_host"]()
    if installed and not nginx_origin.noted(lookup["state_dir"]):
        nginx_origin.note(lookup["state_dir"], in_place())


def _right(path: str, content: bytes) -> bool:
    return not durable_file.differs(path, content)


def _told(files: dict[str, bytes], superfluous: list[str]) -> dict[str, Any]:
    def shown(path: str, content: bytes | None) -> str | None:
        if content is None or not path.endswith(".gpg"):
            return None if content is None else content.decode("utf-8", "backslashreplace")
        try:
            return f"(a keyring: {', '.join(openpgp.primary_keys(openpgp.dearmoured(content)))})"
        except CommandExecutionError:
            return "(not a keyring)"

    changes: dict[str, Any] = {}
    for path, content in files.items():
        if not _right(path, content):
            old, new = shown(path, _existing(path)), shown(path, content)
            if old == new:
                old = f"{old}, with another content, owner or mode"
            changes[path] = {"old": old, "new": new}
    for path in superfluous:
        changes[path] = {"old": shown(path, _existing(path)) or "not a file", "new": None}
    return changes


def ensure(name: str, saltenv: str = "base", test: bool = False) -> dict[str, Any]:
    """
    Make a source the one that nginx comes from, if apt accepts it.

    name, saltenv
        as in :py:func:`diff`
    test
        fetch the key and let apt try the source, but change nothing

    Returns the changes by path, empty when all was right (apt is not asked then).

    Raises CommandExecutionError, with apt's own words, when the source does not work; nothing on
    the host has changed then.

    CLI Example:

    .. code-block:: bash

        salt '*' deb822_source.ensure ppa test=True
    """
    kind = _kind(name)
    if kind != "distro":
        _check_suite(kind)
    files = _wanted(kind, saltenv) if kind != "distro" else {}
    superfluous = _others(kind)
    changes = _told(files, superfluous)
    if not changes:
        return {}
    if any(path in changes for path in files):
        _try(kind, files)
    if test:
        return changes
    if in_place() != wanted(kind):
        _note_origin()
    before = {path: _existing(path) for path in [*files, *superfluous]}
    try:
        for path, content in files.items():
            durable_file.directory(os.path.dirname(path))
            durable_file.write(path, content)
        for path in superfluous:
            durable_file.remove(path)
        if files:
            _refresh(kind)
    except (CommandExecutionError, OSError):
        for path, old in reversed(before.items()):
            if old is None:
                durable_file.remove(path)
            else:
                durable_file.write(path, old)
        raise
    return changes


def remove(name: str, test: bool = False) -> dict[str, Any]:
    """
    Remove the formula's source, its keyring and its preferences.

    name
        ``ppa`` or ``nginx.org``; ``nginx`` is both
    test
        change nothing

    Returns the changes by path.

    CLI Example:

    .. code-block:: bash

        salt '*' deb822_source.remove nginx
    """
    kinds = tuple(_repos()) if name == "nginx" else (_kind(name),)
    paths = [path for kind in kinds for path in _paths(kind)]
    left = {path for kind in _repos() for path in _paths(kind)} - set(paths)
    if not any(os.path.lexists(path) for path in left):
        paths.append(_PREFERENCES)
    there = [path for path in paths if os.path.lexists(path)]
    changes = _told({}, there)
    if not test:
        # The sources before the keyrings that they name.
        for path in sorted(there, key=lambda path: not path.endswith(".sources")):
            durable_file.remove(path)
        nginx_origin.forget(__salt__["site_pillar.settings"]()["lookup"]["state_dir"])
    return changes
