"""
nginx's package follows its source, on a server that goes on serving.

When the pillar names another source (``nginx:repo``), the installed package is the old one's still,
and ``pkg.installed`` calls that right.  This brings nginx to what apt prefers of the new source,
newer or older, and nothing else is ever upgraded: a newer version of the same source is left to
``apt upgrade``.

- *When.*  :py:mod:`deb822_source <_modules.deb822_source>` notes, before it changes the source,
  where nginx came from.  The note stays until nginx is from the pillar's source, so a run that was
  killed is finished by the next; without one nothing here asks apt anything.
- *Which version.*  The one of the highest priority, what is installed left aside: apt's own rule for
  a package that is not there (apt_preferences(5)).  So every pin counts, but for apt's unwillingness
  to go back, which is what a change of the source to an older one asks for.
- *Tried before.*  The packages are downloaded and unpacked aside, and the nginx in them tests the
  tree, without the modules whose packages apt would remove.  The tree is first written as both
  versions understand it (``http2``): whichever nginx is started in between, it serves.
- *The running nginx goes on.*  The packages' scripts stop and start it (115 to 159 requests lost) by
  way of ``policy-rc.d``, which says no for the time, to the scripts of this one apt and to no others:
  they are told by a variable of their environment.  Then the new binary takes over from the old one
  (:py:func:`nginx_process.upgrade`).

.. versionadded:: 0.1.0
"""

import contextlib
import fnmatch
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError

from _nud import apt, durable_file, nginx_origin

__virtualname__ = "nginx_package"

_MARKER = "# Managed by the Salt formula nginx_uwsgi_django: changes made here are overwritten."
_PATTERNS = ("nginx", "nginx-*", "libnginx-mod-*")
_PILLAR = "nginx_uwsgi_django:nginx:repo"

_POLICY = "/usr/sbin/policy-rc.d"
# An operator's own, while ours is in its place.
_THEIRS = f"{_POLICY}.nginx_uwsgi_django"
_VARIABLE = "NGINX_UWSGI_DJANGO_SWITCH"

# In an image being built, on a slow mirror.
_APT_TIMEOUT = 1800
_LOCK_TIMEOUT = 120


class _Package(NamedTuple):
    version: str
    whole: bool  # unpacked and configured
    held: bool


class _Unknown(CommandExecutionError):
    """apt's lists are missing, or older than the archive."""


# A version that apt knows: its priority, and the addresses that it can be had from.
_Row = tuple[str, int, list[str]]


def __virtual__() -> str | tuple[bool, str]:
    if not shutil.which("apt-get"):
        return False, "there is no apt-get on this system"
    return __virtualname__


def _settings() -> dict[str, Any]:
    settings: dict[str, Any] = __salt__["site_pillar.settings"]()
    return settings


def _state_dir() -> str:
    return str(_settings()["lookup"]["state_dir"])


# --- what dpkg and apt say ---------------------------------------------------------------------


def _packages() -> dict[str, _Package]:
    """nginx's packages that are on the host, by name."""
    return {
        name: _Package(**package)
        for name, package in __salt__["dpkg_packages.on_host"]().items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in _PATTERNS)
    }


def _policy(names: list[str]) -> dict[str, list[_Row]]:
    """The versions that apt knows of packages, newest first."""
    found: dict[str, list[_Row]] = {}
    rows: list[_Row] = []
    for line in apt.ask("apt-cache", "policy", *names).splitlines():
        name = re.fullmatch(r"(\S+):", line)
        version = re.match(r" (?:\*\*\*|   ) (\S+) (-?\d+)", line)
        source = re.match(r" {7,}-?\d+ (\S+)", line)
        if name:
            rows = found.setdefault(name[1], [])
        elif version:
            rows.append((version[1], int(version[2]), []))
        elif source and source[1] != "/var/lib/dpkg/status":
            rows[-1][2].append(source[1])
    return found


def _is_of(kind: str, addresses: list[str]) -> bool:
    """Whether a version can be had from a source; the distribution's are all the others."""
    if kind == "distro":
        return bool(addresses)
    wanted = _settings()["lookup"]["repos"][kind]["uris"].rstrip("/")
    return any(address.rstrip("/") == wanted for address in addresses)


def _preferred(rows: list[_Row]) -> _Row | None:
    """What apt would take if nothing were installed: of the highest priority the newest."""
    wanted = [row for row in rows if row[2] and row[1] > 0]
    return max(wanted, key=lambda row: row[1]) if wanted else None


def held() -> list[str]:
    """
    nginx's packages that are on hold (``apt-mark hold``).

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_package.held
    """
    return sorted(name for name, package in _packages().items() if package.held)


def diff() -> dict[str, Any]:
    """
    What it takes for nginx to be from the pillar's source.

    Returns ``{}`` when it is, else: ``package``, ``kind`` (the source), ``old`` and ``new`` (the
    versions), ``pins`` (the version of each of nginx's packages, by name), ``names`` (what apt is
    asked for).

    Raises CommandExecutionError when it cannot or may not be: a package is on hold, a pin prefers
    another source.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_package.diff
    """
    note, settings = nginx_origin.noted(_state_dir()), _settings()
    if not note:
        return {}
    kind, package = __salt__["deb822_source.choice"]()["kind"], settings["lookup"]["nginx_package"]
    found = _packages()
    if package not in found:
        return {}
    if note["from"] == __salt__["deb822_source.wanted"](kind) and not note["installing"]:
        return {}
    installed = found[package]
    table = _policy(sorted(found))
    ours = {name: [row[0] for row in rows if _is_of(kind, row[2])] for name, rows in table.items()}
    if installed.whole and installed.version in ours.get(package, []):
        return {}
    told = f"{_PILLAR} is {kind}, and {package} {installed.version} is not from there"
    kept = sorted(name for name, one in found.items() if one.held)
    if kept:
        raise CommandExecutionError(
            f"{told}: on hold (apt-mark): {', '.join(kept)}; it stays. "
            f"'apt-mark unhold {' '.join(kept)}' lets it follow"
        )
    row = _preferred(table.get(package, []))
    if not ours.get(package) or row is None:
        raise _Unknown(f"{told}: apt knows no {package} of that source")
    new = row[0]
    if new not in ours[package]:
        raise CommandExecutionError(
            f"{told}: apt prefers {new} of {', '.join(row[2])}, by its priority {row[1]}, which a "
            "pin in /etc/apt/preferences or /etc/apt/preferences.d sets; it stays "
            f"(see 'apt-cache policy {package}')"
        )
    pins = {}
    for name in found:
        best = _preferred(table.get(name, []))
        if best is not None and best[0] in ours[name]:
            pins[name] = best[0]
    # Those that were not asked for by name come along as dependencies, and stay marked as such.
    automatic = apt.ask("apt-mark", "showauto", *found, check=False).split()
    return {
        "package": package,
        "kind": kind,
        "old": installed.version,
        "new": new,
        "pins": pins,
        "names": sorted({package, *(name for name in pins if name not in automatic)}),
    }


# --- apt ---------------------------------------------------------------------------------------


def _stage() -> str:
    return os.path.join(_state_dir(), ".nginx_package")


@contextlib.contextmanager
def _staged(pins: dict[str, str]) -> Iterator[str]:
    """A directory for the downloads, and for the pins that let apt go back."""
    stage = _stage()
    if os.path.lexists(stage):
        shutil.rmtree(stage)
    durable_file.directory(os.path.dirname(stage))
    try:
        # apt downloads as a user of its own.
        for folder in ("", "archives", "archives/partial", "tree"):
            os.mkdir(os.path.join(stage, folder), 0o755)
            os.chmod(os.path.join(stage, folder), 0o755)
        # Above 1000, where apt goes back.  The first record that fits counts: before the host's own.
        text = "".join(
            f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n"
            for name, version in pins.items()
        )
        own = durable_file.read("/etc/apt/preferences") or b""
        with open(os.path.join(stage, "preferences"), "wb") as stream:
            stream.write(text.encode() + own)
        yield stage
    finally:
        shutil.rmtree(stage)


def _run(words: list[str], what: str, lines: int = 12) -> str:
    """A program that changes packages; raises with its last words."""
    result = apt.run(words, what, _APT_TIMEOUT, {_VARIABLE: "1"})
    if result.returncode:
        told = [line for line in result.stdout.splitlines() if line.startswith(("E:", "dpkg:"))]
        told = told or result.stdout.strip().splitlines()
        raise CommandExecutionError(f"{what}:\n" + "\n".join(told[-lines:]))
    return result.stdout


def _apt(stage: str, *words: str) -> str:
    options = [
        f"Dir::Etc::preferences={stage}/preferences",
        f"Dir::Cache::archives={stage}/archives",
        f"DPkg::Lock::Timeout={_LOCK_TIMEOUT}",
        "Dpkg::Use-Pty=0",
        *(f"Dpkg::Options::={option}" for option in apt.KEEP),
    ]
    command = ["apt-get", "-q", "-y", "--allow-downgrades"]
    command += [word for option in options for word in ("-o", option)]
    return _run([*command, *words], f"apt-get {' '.join(words)}")


def _planned(stage: str, names: list[str]) -> tuple[dict[str, str], list[str]]:
    """What apt would do: the new version of each package, and which would be removed."""
    return apt.planned(_apt(stage, "--simulate", "install", *names))


def _modules_of(packages: list[str]) -> list[str]:
    """The paths in nginx's tree with which packages' modules are loaded."""
    folder = "modules-enabled"
    base = os.path.realpath(_settings()["lookup"]["nginx_dir"])
    files: set[str] = set()
    if packages:
        files.update(apt.ask("dpkg-query", "--listfiles", *packages, check=False).splitlines())
    try:
        names = os.listdir(os.path.join(base, folder))
    except FileNotFoundError:
        return []
    return [
        f"{folder}/{name}"
        for name in sorted(names)
        if os.path.realpath(os.path.join(base, folder, name)) in files
    ]


def _foreseen(stage: str, goes: list[str], saltenv: str) -> dict[str, Any]:
    """What the nginx that was downloaded says to the tree."""
    tree = os.path.join(stage, "tree")
    for name in sorted(os.listdir(os.path.join(stage, "archives"))):
        if name.endswith(".deb") and name.startswith(("nginx", "libnginx-mod-")):
            _run(["dpkg-deb", "--extract", os.path.join(stage, "archives", name), tree], name)
    binary = os.path.join(tree, "usr/sbin/nginx")
    if not os.path.exists(binary):
        raise CommandExecutionError("there is no /usr/sbin/nginx in what apt would install")
    modules = os.path.join(tree, "usr/lib/nginx/modules")
    answer: dict[str, Any] = __salt__["nginx_tree.foresee"](
        binary, modules if os.path.isdir(modules) else None, _modules_of(goes), saltenv
    )
    return answer


# --- the scripts of the packages ---------------------------------------------------------------


def _policy_text() -> str:
    return f"""\
#!/bin/sh
{_MARKER}
# https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt: 101 is no.
# nginx goes on while its package is replaced; nobody but that apt has the variable.
if [ -n "${_VARIABLE}" ]; then
    case " $* " in
        *" nginx status "*) ;;
        *" nginx "* | *" nginx.service "*) exit 101 ;;
    esac
fi
[ ! -x {_THEIRS} ] || exec {_THEIRS} "$@"
"""


def _is_ours() -> bool:
    return _MARKER.encode() in (durable_file.read(_POLICY) or b"")


def _unguard() -> None:
    if os.path.lexists(_THEIRS):
        os.rename(_THEIRS, _POLICY)
    elif _is_ours():
        durable_file.remove(_POLICY)


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """While this lasts, the scripts of the packages leave the running nginx alone."""
    _unguard()
    if os.path.lexists(_POLICY):
        os.link(_POLICY, _THEIRS, follow_symlinks=False)
    try:
        durable_file.write(_POLICY, _policy_text(), mode="0755")
        yield
    finally:
        _unguard()


# --- acting ------------------------------------------------------------------------------------


def settle() -> bool:
    """
    Finish what a killed run left half-way: packages that are unpacked and not configured, and those
    that were to come with them.

    Returns True when there was something.

    Raises CommandExecutionError, with dpkg's and apt's words, when it cannot be finished.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_package.settle
    """
    installing = nginx_origin.noted(_state_dir()).get("installing")
    if installing:
        _wait_for_the_killed()
    _unguard()
    if os.path.lexists(_stage()):
        shutil.rmtree(_stage())
    if not installing or not _interrupted():
        return False
    with _guarded():
        _configure()
        # With the pins, or apt would rather remove what is newer than what it would go back to.  And
        # with no names: what apt is asked for by name must not be broken.
        with _staged(diff().get("pins", {})) as stage:
            _apt(stage, "--fix-broken", "install")
    return True


def _configure() -> None:
    """Configure what is unpacked; packages that need another one, not yet unpacked, wait."""
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            _run(["dpkg", "--configure", "--pending", *apt.KEEP], "dpkg --configure")
            return
        except CommandExecutionError as error:
            # Another dpkg is at work.
            locked = "lock" in f"{error}" and time.monotonic() < deadline
            if not locked and "depend" in f"{error}":
                return
            if not locked:
                raise
            time.sleep(1)


def _wait_for_the_killed() -> None:
    """
    Wait for what a killed run left at work: its apt, its dpkg, or a package's script alone, which
    holds debconf's lock and would restart nginx without the policy.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while found := _at_work():
        if time.monotonic() > deadline:
            raise CommandExecutionError(
                f"an earlier run left this at work, for more than {_LOCK_TIMEOUT} s: "
                + "; ".join(f"{words} (process {pid})" for pid, words in found.items())
            )
        time.sleep(0.2)


def _at_work() -> dict[int, str]:
    """The apt and dpkg that this module has started, and their scripts: command lines by process."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as stream:
                ours = f"{_VARIABLE}=1".encode() in stream.read().split(b"\0")
            if ours:
                with open(f"/proc/{pid}/cmdline", "rb") as stream:
                    found[int(pid)] = stream.read().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            # It has ended meanwhile.
            continue
    return found


def _interrupted() -> bool:
    """Whether dpkg has begun something that it has not finished."""
    audit = apt.ask("dpkg", "--audit", check=False).strip()
    journal = any(name.isdigit() for name in os.listdir("/var/lib/dpkg/updates"))
    return bool(audit) or journal


def ensure(saltenv: str = "base", test: bool = False) -> dict[str, Any]:
    """
    Install nginx from the pillar's source, under a running nginx that goes on.

    saltenv
        the fileserver's environment to take templates from
    test
        download the packages and let the nginx in them test the tree, but change nothing

    Returns ``{"changes": the packages' versions, "warnings": …}``, without changes when nginx is
    from there.  The binary that is on the disk is then to take over: :py:func:`nginx_process.diff`.

    Raises CommandExecutionError as :py:func:`diff` does; when apt would remove a package that is not
    nginx's, or nginx refuses the tree (nothing has changed then); with apt's own words.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_package.ensure test=True
    """
    report: dict[str, Any] = {"changes": {}, "warnings": []}
    try:
        plan = diff()
    except _Unknown:
        if test or not _refreshed(report):
            raise
        plan = diff()
    if not plan:
        if not test:
            nginx_origin.forget(_state_dir())
        return report
    try:
        return _switched(plan, report, saltenv, test)
    except _Unknown as error:
        if test:
            # A dry run changes no lists.
            report["warnings"].append(f"A run would refresh apt's lists first: {error}")
            report["changes"] = {plan["package"]: {"old": plan["old"], "new": plan["new"]}}
            return report
        if not _refreshed(report):
            raise
    plan = diff()
    return _switched(plan, report, saltenv, test) if plan else report


def _refreshed(report: dict[str, Any]) -> bool:
    """Refresh apt's lists, unless this run has; what apt could not fetch becomes a warning."""
    if __salt__["apt_packages.refreshed"]():
        return False
    failed = __salt__["apt_packages.refresh"]()
    if failed:
        report["warnings"].append(f"apt's lists are refreshed, but for these:\n{failed}")
    return True


def _switched(
    plan: dict[str, Any], report: dict[str, Any], saltenv: str, test: bool
) -> dict[str, Any]:
    before = _packages()
    with _staged(plan["pins"]) as stage:
        comes, goes = _planned(stage, plan["names"])
        strangers = [name for name in goes if name not in before]
        if strangers:
            raise CommandExecutionError(
                f"{_PILLAR} is {plan['kind']}, and with nginx from there apt would remove "
                f"{', '.join(strangers)}: remove it first, or keep the source"
            )
        report["changes"] = {
            **{name: {"old": before[name].version, "new": ""} for name in goes},
            **{
                name: {"old": before[name].version if name in before else "", "new": version}
                for name, version in comes.items()
            },
        }
        try:
            _apt(stage, "--download-only", "install", *plan["names"])
        except CommandExecutionError as error:
            raise _Unknown(str(error)) from error
        verdict = _foreseen(stage, goes, saltenv)
        if verdict["errors"] and verdict["tested"]:
            lost = [name for name in goes if name.startswith("libnginx-mod-")]
            without = f", without {', '.join(lost)}, which apt would remove" if lost else ""
            raise CommandExecutionError(
                f"{_PILLAR} is {plan['kind']}, and the nginx from there ({plan['new']}{without}) "
                "refuses the tree; nothing was changed:\n" + "\n".join(verdict["errors"])
            )
        report["warnings"] += [f"not tested before: {words}" for words in verdict["errors"]]
        if test:
            return report
        older = __salt__["nginx_tree.ensure"](saltenv, version=verdict["version"])
        if older["changes"] and __salt__["nginx_process.status"](lines=0)["running"]:
            __salt__["nginx_process.reload"]()
        if plan["package"] in __salt__["apt_packages.recorded"]():
            present = __salt__["dpkg_packages.on_host"]()
            __salt__["apt_packages.record"]([name for name in comes if name not in present])
        origin = nginx_origin.noted(_state_dir())["from"]
        nginx_origin.note(_state_dir(), origin, installing=True)
        with _guarded():
            _apt(stage, "--no-download", "install", *plan["names"])
    rest = diff()
    if rest:
        raise CommandExecutionError(
            f"{plan['package']} is {rest['old']} after apt-get, not {plan['new']}"
        )
    nginx_origin.forget(_state_dir())
    return report
