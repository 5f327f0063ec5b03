"""
Where a release's files come from: a repository of git's, an archive, a directory on Salt's file
server.

Each ends in a directory of this minion's cache that holds the files and nothing else, whole or
not there. Nothing of a source runs on the way: of a repository the files are read as data
(no checkout, hence no hook, no filter and no configuration of the repository's), of an archive
regular files and links that stay inside are taken and anything else is refused.

.. versionadded:: 0.1.0
"""

import base64
import contextlib
import hashlib
import logging
import lzma
import os
import re
import shutil
import ssl
import stat
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import salt.fileserver
import salt.utils.http
from salt.exceptions import CommandExecutionError

from _nud import durable_file, program

__virtualname__ = "release_source"

log = logging.getLogger(__name__)

_GIT = "/usr/bin/git"
_SSH = "/usr/bin/ssh"
# Seconds without a byte, and seconds for all of it.
_SILENCE = 60
_ASK_TIMEOUT = 60
_FETCH_TIMEOUT = 1800
_BLOCK = 1 << 20
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# Neither history nor what tools leave behind is worth sending.
_UNWANTED = r"(^|/)(\.git|\.hg|\.svn|node_modules|__pycache__|\.venv|\.tox)(/|$)"


def __virtual__() -> str:
    return __virtualname__


def _key(name: str, rest: str) -> str:
    return f"nginx_uwsgi_django:sites:{name}:project:source:{rest}"


def _cache(name: str) -> str:
    """This site's directory in the minion's own cache, which a dry run may fill too."""
    site = __salt__["site_pillar.named"](name)
    return os.path.join(__opts__["cachedir"], "nginx_uwsgi_django", "sources", site)


def packages(source: dict[str, Any] | None) -> list[str]:
    """
    The distribution's packages that a source is fetched with.

    source
        the pillar's ``project:source`` of a site

    Returns names.

    CLI Example:

    .. code-block:: bash

        salt '*' release_source.packages '{"git": {"url": "https://git.example.org/mysite.git"}}'
    """
    git = (source or {}).get("git")
    if not git:
        return []
    return ["git", "openssh-client"] if _is_ssh(git["url"]) else ["git"]


def awaits(name: str) -> str | None:
    """
    What has to be installed before the source of a site can be asked for anything.

    name
        the site

    Returns a sentence, or None when it can be asked.

    CLI Example:

    .. code-block:: bash

        salt '*' release_source.awaits mysite
    """
    project = __salt__["site_pillar.site"](name)["project"]
    if project["release"]:
        return None
    needed = {"git": _GIT, "openssh-client": _SSH}
    for package in packages(project["source"]):
        if not os.access(needed[package], os.X_OK):
            return f"once {package} is installed, which brings {needed[package]}"
    return None


def obtain(name: str, refresh: bool = False) -> dict[str, Any]:
    """
    Have a site's source in this minion's cache, as it is now.

    name
        the site; its pillar names a ``project:source``
    refresh
        ask the source again, where this process asked it before

    Returns ``{"root", "only", "source", "revision"}``: the directory, the paths in it that count
    (None: all), and where it is from, for people: the address, and the commit or the checksum
    (None where there is neither).

    Raises CommandExecutionError with the words of git, of the server or of what is wrong with an
    archive; then nothing of it is left.

    CLI Example:

    .. code-block:: bash

        salt '*' release_source.obtain mysite
    """
    source = __salt__["site_pillar.site"](name)["project"]["source"]
    ((kind, what),) = source.items()
    known = __context__.setdefault("release_source.obtained", {})
    answer: dict[str, Any] | None = known.get(name)
    if answer is None or refresh or answer["of"] != source or not os.path.isdir(answer["root"]):
        try:
            answer = {**_WAYS[kind](name, what), "of": source}
        except OSError as error:
            # A full disk does not say which.
            raise CommandExecutionError(
                f"the source of {name} cannot be kept below {__opts__['cachedir']}: {error}"
            ) from error
        known[name] = answer
    return {key: answer[key] for key in ("root", "only", "source", "revision")}


def leftovers(name: str) -> list[str]:
    """
    What :py:func:`remove` removes: the directory in this minion's cache with a site's sources.

    name
        the site

    Returns its path; an empty list when there is none.

    CLI Example:

    .. code-block:: bash

        salt '*' release_source.leftovers mysite
    """
    return [_cache(name)] if os.path.isdir(_cache(name)) else []


def remove(name: str) -> bool:
    """
    Remove what was fetched of a site's sources. The next run fetches it again.

    name
        the site

    Returns True when something was removed.

    CLI Example:

    .. code-block:: bash

        salt '*' release_source.remove mysite
    """
    found = leftovers(name)
    for path in found:
        shutil.rmtree(path)
    return bool(found)


# --- Salt's file server ------------------------------------------------------------------------


def _from_salt(name: str, url: str) -> dict[str, Any]:
    """
    A directory of Salt's file server in Salt's own cache: where it is, and which of the files
    there are the server's now (the cache keeps what was deleted on the server).
    """
    address, _, query = url.partition("?")
    saltenv = dict(urllib.parse.parse_qsl(query)).get("saltenv") or __opts__["saltenv"] or "base"
    inside = address[len("salt://") :].strip("/")
    if __opts__.get("file_client") == "local":
        # Masterless, Salt remembers for 20 seconds which files there are (fileserver_list_cache_
        # time), and a file added meanwhile would be missing from the release.
        salt.fileserver.Fileserver(__opts__).clear_file_list_cache({"saltenv": saltenv})
    paths = __salt__["cp.cache_dir"](
        f"salt://{inside}", saltenv=saltenv, exclude_pat=f"E@{_UNWANTED}"
    )
    offered = {
        path
        for path in __salt__["cp.list_master"](saltenv, prefix=f"{inside}/")
        if path.startswith(f"{inside}/") and not re.search(_UNWANTED, path)
    }
    root = __salt__["cp.cache_dest"](f"salt://{inside}", saltenv=saltenv)
    arrived = {f"{inside}/{os.path.relpath(path, root)}" for path in paths}
    lost = sorted(
        path
        for path in offered - arrived
        # A master lists a file for a while after it was deleted.
        if __salt__["cp.hash_file"](f"salt://{path}", saltenv=saltenv)
    )
    if lost:
        raise CommandExecutionError(
            f"{url}: {len(lost)} of {len(offered)} files did not arrive from Salt's file server: "
            f"{', '.join(lost[:5])}"
        )
    if not arrived:
        raise CommandExecutionError(
            f"{url} ({_key(name, 'salt')}) holds no file: is the directory in "
            f"the file_roots of the environment {saltenv}?"
        )
    only = sorted(path[len(inside) + 1 :] for path in arrived)
    return {"root": root, "only": only, "source": url, "revision": None}


# --- A directory in the cache, whole or not there ------------------------------------------------


@contextlib.contextmanager
def _kept(name: str, identity: str) -> Iterator[tuple[str, str]]:
    """
    Directories to fill and to become the site's one source in the cache: the second is what is
    renamed to its place, and lies in the first.
    """
    folder = _cache(name)
    durable_file.directory(folder, mode="0700")
    for entry in os.listdir(folder):
        # Another source's, or what a killed run left.
        if entry != identity:
            shutil.rmtree(os.path.join(folder, entry))
    place = tempfile.mkdtemp(prefix=".", dir=folder)
    try:
        filled = os.path.join(place, "tree")
        os.mkdir(filled)
        yield place, filled
        _check_links(filled)
        # The release's name is made of what is here: after a power cut it has to be all there.
        os.sync()
        os.rename(filled, os.path.join(folder, identity))
    finally:
        shutil.rmtree(place)


def _inside(path: str) -> str:
    """A relative path of a source, or CommandExecutionError when it leads out of its tree."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or os.pardir in parts or not parts or "\0" in path:
        raise CommandExecutionError(f"{path!r} in it leads out of the project")
    return os.path.join(*parts)


def _put(root: str, path: str, content: Any, size: int | None, executable: bool) -> None:
    """
    Write a regular file of a source. Links are made after all files, so that no file is ever
    written through one.
    """
    target = os.path.join(root, _inside(path))
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        handle = os.open(
            target,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW,
            0o700 if executable else 0o600,
        )
    except (FileExistsError, NotADirectoryError):
        raise CommandExecutionError(f"{path!r} is in it twice") from None
    with os.fdopen(handle, "wb") as stream:
        while size is None or size > 0:
            block = content.read(_BLOCK if size is None else min(size, _BLOCK))
            if not block:
                break
            stream.write(block)
            size = None if size is None else size - len(block)
    if size:
        raise CommandExecutionError(f"{path!r} in it is cut off")


def _make_links(root: str, links: dict[str, str]) -> None:
    for path, target in links.items():
        where = os.path.join(root, _inside(path))
        try:
            os.makedirs(os.path.dirname(where), mode=0o700, exist_ok=True)
            os.symlink(target, where)
        except (FileExistsError, NotADirectoryError):
            raise CommandExecutionError(f"{path!r} is in it twice") from None


def _check_links(root: str) -> None:
    """Refuse a tree with a link that leads out of it."""
    real = os.path.realpath(root)
    for folder, folders, files in os.walk(root):
        for entry in (*folders, *files):
            path = os.path.join(folder, entry)
            if not os.path.islink(path):
                continue
            target = os.readlink(path)
            leads = os.path.realpath(path)
            if target.startswith("/") or not (leads + os.sep).startswith(real + os.sep):
                raise CommandExecutionError(
                    f"the link {os.path.relpath(path, root)!r} in it leads out of the project, to "
                    f"{target!r}"
                )


# --- git -----------------------------------------------------------------------------------------


def _is_ssh(url: str) -> bool:
    return url.startswith("ssh://") or "://" not in url


# git-config(1): nothing runs, only these ways lead out, and what arrives is checked. Two faults of
# old programs, known to be harmless, are in the history of many projects.
_CONFIG = f"""
[core]
    hooksPath = /dev/null
    fsmonitor = false
[gc]
    auto = 0
[maintenance]
    auto = false
[fetch]
    fsckObjects = true
[fetch "fsck"]
    zeroPaddedFilemode = ignore
    badTimezone = ignore
[protocol]
    allow = never
[protocol "https"]
    allow = always
[protocol "http"]
    allow = always
[protocol "ssh"]
    allow = always
[protocol "file"]
    allow = always
[http]
    lowSpeedLimit = 1
    lowSpeedTime = {_SILENCE}
[safe]
    directory = *
"""


class _Git:
    """git, with nothing of this host's or the repository's configuration, and a way to log in."""

    def __init__(self, what: dict[str, Any], place: str) -> None:
        self.what = what
        self.place = place
        self.handles: list[int] = []
        # A file and not the environment: the program that serves a file:// URL reads it too.
        config = os.path.join(place, "config")
        with open(config, "w", encoding="utf-8") as stream:
            stream.write(_CONFIG)
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": place,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": config,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
        }
        if what["password"]:
            pair = base64.b64encode(f"{what['user']}:{what['password']}".encode()).decode()
            server = "/".join(what["url"].split("/")[:3])
            # By the environment, which only root can read; a command line can be read by all.
            secret = {
                f"http.{server}/.extraHeader": f"Authorization: Basic {pair}",
                "http.followRedirects": "false",
            }
            self.environment["GIT_CONFIG_COUNT"] = str(len(secret))
            for number, (key, value) in enumerate(secret.items()):
                self.environment[f"GIT_CONFIG_KEY_{number}"] = key
                self.environment[f"GIT_CONFIG_VALUE_{number}"] = value
        if _is_ssh(what["url"]):
            self.environment["GIT_SSH_COMMAND"] = self._ssh()

    def _ssh(self) -> str:
        hosts = self._memory("known_hosts", "\n".join(self.what["host_keys"]) + "\n")
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "ForwardAgent": "no",
            "PasswordAuthentication": "no",
            "ConnectTimeout": str(_SILENCE),
            "ServerAliveInterval": "15",
        }
        key = self.what["key"]
        options["IdentityFile"] = (
            self._memory("key", key if key.endswith("\n") else key + "\n") if key else "none"
        )
        words = [_SSH, "-F", "/dev/null"]
        return " ".join([*words, *(f"-o {option}={value}" for option, value in options.items())])

    def _memory(self, what: str, text: str) -> str:
        """
        A file for ssh that is on no disk and gone with this process, however it ends. ssh closes
        every descriptor that it inherits, but may open this process's (memfd_create(2), proc(5)).
        """
        handle = os.memfd_create(what)
        self.handles.append(handle)
        # ssh takes no key that others could read.
        os.fchmod(handle, 0o600)
        os.write(handle, text.encode())
        return f"/proc/{os.getpid()}/fd/{handle}"

    def close(self) -> None:
        for handle in self.handles:
            os.close(handle)

    def run(self, *words: str, timeout: int = _ASK_TIMEOUT) -> str:
        """What git says; CommandExecutionError with its own words when it fails."""
        done = program.run(
            [_GIT, *words],
            self.environment,
            timeout,
            cwd=self.place,
            errors="surrogateescape",
        )
        if done["timed_out"]:
            raise CommandExecutionError(
                f"git {words[0]} of {self.what['url']} was not done within {timeout} s"
            )
        if done["retcode"]:
            raise CommandExecutionError(
                f"git {words[0]} of {self.what['url']} ended with {done['retcode']}:\n"
                + _blanked(done["stderr"].strip(), self.what)
            )
        return done["stdout"]

    def stream(self, *words: str, stdin: IO[bytes]) -> subprocess.Popen[bytes]:
        """git, to be read from while it runs."""
        return program.start([_GIT, *words], self.environment, self.place, stdin)


@contextlib.contextmanager
def _git(what: dict[str, Any], place: str) -> Iterator[_Git]:
    if not os.access(_GIT, os.X_OK):
        raise CommandExecutionError(f"{_GIT} is not there: install git")
    git = _Git(what, place)
    try:
        yield git
    finally:
        git.close()


def _blanked(text: str, what: dict[str, Any]) -> str:
    """Text without the password, should a server repeat it."""
    secret = what.get("password")
    return text.replace(secret, "**********") if secret else text


def _from_git(name: str, what: dict[str, Any]) -> dict[str, Any]:
    revision = what["revision"]
    folder = _cache(name)
    if _HASH.fullmatch(revision):
        reference = commit = revision
    else:
        durable_file.directory(folder, mode="0700")
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as place, _git(what, place) as git:
            reference, commit = _asked(name, git, revision)
    url = hashlib.sha256(what["url"].encode()).hexdigest()[:12]
    identity = f"git-{url}-{commit}"
    root = os.path.join(folder, identity)
    if not os.path.isdir(root):
        with _kept(name, identity) as (place, filled), _git(what, place) as git:
            _fetch(git, reference, commit)
            _read_commit(git, commit, filled)
    if revision != commit:
        revision = f"{revision} ({commit})"
    return {"root": root, "only": None, "source": what["url"], "revision": revision}


def _asked(name: str, git: _Git, revision: str) -> tuple[str, str]:
    """The full name of a branch or a tag, and its commit as the repository has it now."""
    url = git.what["url"]
    wanted = [f"refs/heads/{revision}", f"refs/tags/{revision}", f"refs/tags/{revision}^{{}}"]
    lines = git.run("ls-remote", "--", url, *wanted).splitlines()
    found = {reference: commit for commit, reference in (line.split("\t") for line in lines)}
    # A pattern of ls-remote's also matches the end of longer names.
    branch, tag = found.get(wanted[0]), found.get(wanted[2]) or found.get(wanted[1])
    if branch and tag:
        raise CommandExecutionError(
            f"{url} has a branch and a tag of the name {revision} ({_key(name, 'git:revision')}): "
            "name the commit by its full hash"
        )
    if branch:
        return wanted[0], branch
    if tag:
        return wanted[1], tag
    hint = ""
    if re.fullmatch(r"[0-9a-f]{4,63}", revision):
        hint = "; the hash of a commit has to be a full one, of 40 digits"
    raise CommandExecutionError(
        f"{url} has neither a branch nor a tag {revision} ({_key(name, 'git:revision')}){hint}"
    )


def _fetch(git: _Git, reference: str, commit: str) -> None:
    """Have a commit, and as little else as the server allows, in a repository of our own."""
    url = git.what["url"]
    git.run("init", "--quiet", "--bare", "--template=", "--", "repository")
    where = ["-C", os.path.join(git.place, "repository")]
    fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
    tree = f"{commit}^{{tree}}"
    log.info("git fetch of %s %s", url, reference)
    try:
        git.run(*where, *fetch, "--depth=1", "--", url, reference, timeout=_FETCH_TIMEOUT)
        git.run(*where, "rev-parse", "--quiet", "--verify", tree)
        return
    except CommandExecutionError as error:
        shallow = error
    # A server that knows no shallow history (plain files over http) or gives no commit by its
    # hash; or the branch went on meanwhile.
    log.info("%s; fetching all of it", shallow)
    everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
    try:
        git.run(*where, *fetch, "--", url, *everything, timeout=_FETCH_TIMEOUT)
    except CommandExecutionError:
        raise shallow from None
    try:
        git.run(*where, "rev-parse", "--quiet", "--verify", tree)
    except CommandExecutionError:
        raise CommandExecutionError(f"{url} has no commit {commit}") from shallow


def _read_commit(git: _Git, commit: str, root: str) -> None:
    """Write the files of a commit, read as data: no checkout, no filter, no attribute."""
    where = ["-C", os.path.join(git.place, "repository")]
    listing = git.run(*where, "ls-tree", "-r", "-z", "--full-tree", commit, timeout=_FETCH_TIMEOUT)
    entries = []
    for line in listing.split("\0")[:-1]:
        head, path = line.split("\t", 1)
        mode, kind, identity = head.split()
        if kind != "blob":
            raise CommandExecutionError(
                f"{git.what['url']} has a submodule at {path}, which is not followed: make it a "
                "requirement, or part of the repository"
            )
        entries.append((mode, identity, path))
    if not entries:
        raise CommandExecutionError(f"the commit {commit} of {git.what['url']} has no file")
    links: dict[str, str] = {}
    with tempfile.TemporaryFile(dir=git.place) as wanted:
        wanted.write("".join(f"{identity}\n" for _, identity, _ in entries).encode())
        wanted.seek(0)
        with git.stream(*where, "cat-file", "--batch", stdin=wanted) as process:
            assert process.stdout is not None
            for mode, identity, path in entries:
                answer = process.stdout.readline().split()
                if len(answer) != 3 or answer[0].decode() != identity:
                    raise CommandExecutionError(f"git has no {path} of the commit {commit}")
                size = int(answer[2])
                if mode == "120000":
                    links[path] = os.fsdecode(process.stdout.read(size))
                else:
                    _put(root, path, process.stdout, size, executable=mode == "100755")
                process.stdout.read(1)
    _make_links(root, links)


# --- An archive ----------------------------------------------------------------------------------


def _from_archive(name: str, what: dict[str, Any]) -> dict[str, Any]:
    identity = f"archive-{what['sha256']}" + ("" if what["strip"] else "-whole")
    root = os.path.join(_cache(name), identity)
    if not os.path.isdir(root):
        with _kept(name, identity) as (place, filled):
            path = os.path.join(place, "archive")
            log.info("fetching %s", what["url"])
            _download(what, path)
            found = _digest(path)
            if found != what["sha256"]:
                raise CommandExecutionError(
                    f"{what['url']} has the sha256 {found}, not the {what['sha256']} of "
                    f"{_key(name, 'archive:sha256')}: it is another file"
                )
            try:
                _unpack(path, filled)
            except (CommandExecutionError, *_BROKEN) as error:
                raise CommandExecutionError(f"the archive {what['url']}: {error}") from error
            entries = os.listdir(filled)
            only = os.path.join(filled, entries[0]) if len(entries) == 1 else ""
            if what["strip"] and os.path.isdir(only) and not os.path.islink(only):
                aside = os.path.join(place, "stripped")
                os.rename(only, aside)
                os.rmdir(filled)
                os.rename(aside, filled)
    checksum = f"sha256 {what['sha256']}"
    return {"root": root, "only": None, "source": what["url"], "revision": checksum}


# What the standard library raises for an archive that is none, or is cut off.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
)


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _download(what: dict[str, Any], path: str) -> None:
    url = what["url"]
    if url.startswith("salt://"):
        cached = __salt__["cp.cache_file"](url)
        if not cached:
            raise CommandExecutionError(f"{url} is not on Salt's file server")
        shutil.copyfile(cached, path)
        return
    bundle = salt.utils.http.get_ca_bundle(__opts__)
    context = ssl.create_default_context(cafile=bundle) if bundle else ssl.create_default_context()
    request = urllib.request.Request(url, headers={"User-Agent": "nginx_uwsgi_django"})
    if what["password"]:
        pair = base64.b64encode(f"{what['user']}:{what['password']}".encode()).decode()
        # Not for where a redirection leads to.
        request.add_unredirected_header("Authorization", f"Basic {pair}")
    for attempt in range(3):
        try:
            with (
                urllib.request.urlopen(request, timeout=_SILENCE, context=context) as answer,
                open(path, "wb") as stream,
            ):
                _copy_within(_FETCH_TIMEOUT, answer, stream)
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            local = url.startswith("file://")
            if refused or local or attempt == 2:
                raise CommandExecutionError(f"{url}: {error}") from error
            time.sleep(2)


def _copy_within(seconds: int, source: Any, target: Any) -> None:
    deadline = time.monotonic() + seconds
    while block := source.read(_BLOCK):
        target.write(block)
        if time.monotonic() > deadline:
            raise TimeoutError(f"it was not there after {seconds} s")


def _unpack(path: str, root: str) -> None:
    """Take the regular files and the links out of an archive, and refuse anything else."""
    if tarfile.is_tarfile(path):
        _unpack_tar(path, root)
    elif zipfile.is_zipfile(path):
        _unpack_zip(path, root)
    else:
        raise CommandExecutionError("it is neither a tar nor a zip archive")
    if not os.listdir(root):
        raise CommandExecutionError("it holds no file")


def _unpack_tar(path: str, root: str) -> None:
    links: dict[str, str] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isdir():
                continue
            if member.issym():
                links[member.name] = member.linkname
            elif member.isreg() or member.islnk():
                # Of a hard link, the content of the member that it names.
                content = archive.extractfile(member)
                _put(root, member.name, content, None, bool(member.mode & 0o100))
            else:
                raise CommandExecutionError(
                    f"{member.name!r} in it is neither a file nor a link nor a directory"
                )
    _make_links(root, links)


def _unpack_zip(path: str, root: str) -> None:
    links: dict[str, str] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            mode = member.external_attr >> 16
            if member.is_dir():
                continue
            if stat.S_ISLNK(mode):
                links[member.filename] = os.fsdecode(archive.read(member))
            elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
                with archive.open(member) as content:
                    _put(root, member.filename, content, None, bool(mode & 0o100))
            else:
                raise CommandExecutionError(
                    f"{member.filename!r} in it is neither a file nor a link nor a directory"
                )
    _make_links(root, links)


_WAYS: dict[str, Callable[[str, Any], dict[str, Any]]] = {
    "salt": _from_salt,
    "git": _from_git,
    "archive": _from_archive,
}
