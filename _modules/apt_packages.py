"""
Debian packages, installed and removed by apt.

Salt's ``pkg.installed``, called from another state, never refreshes apt's lists: on a fresh cloud
image, whose lists are empty or months old, the first installation fails.  Here the lists are
refreshed when they are the reason: apt cannot plan the installation (a package is unknown, or one
that it depends on), or a planned version is no longer in the archive.  Never otherwise, and once in
a run.

An installation has three steps: apt plans it, downloads all of it, and installs without the network.
Until the last step nothing on the host has changed but apt's lists and its cache.

The packages that an installation brought, those that were asked for and those that came along, are
recorded: ``clean`` removes these and no others.

.. versionadded:: 0.1.0
"""

import json
import os
import re
import shutil
import time
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import apt, durable_file

__virtualname__ = "apt_packages"

_REFRESHED = "apt_packages.refreshed"

_UPDATE_TIMEOUT = 600
# In an image being built, on a slow mirror.
_INSTALL_TIMEOUT = 1800
# unattended-upgrades and cloud-init hold the lock for minutes on the first boot.
_LOCK_TIMEOUT = 600
_LOCKED = re.compile(
    r"^(E: (Could not get lock|Unable to (acquire|lock))|dpkg: error: .* lock was locked)",
    re.MULTILINE,
)
# What apt says after a dpkg that was killed.
_INTERRUPTED = "dpkg was interrupted"


def __virtual__() -> str | tuple[bool, str]:
    if not shutil.which("apt-get"):
        return False, "there is no apt-get on this system"
    return __virtualname__


# --- running apt -------------------------------------------------------------------------------


def _run(command: list[str], what: str, timeout: int) -> str:
    """
    A program that waits for the locks of another one; raises Refused with the program's own words.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        result = apt.run(command, what, timeout)
        if not result.returncode:
            return result.stdout
        told = apt.complaints(result.stdout)
        # `apt-get update` does not wait for the lock of the lists, whatever DPkg::Lock::Timeout is.
        if not _LOCKED.search(result.stdout):
            raise apt.Refused(f"{what}:\n{told}", result.stdout)
        if time.monotonic() > deadline:
            raise apt.Refused(
                f"{what}: another program has held the lock for {_LOCK_TIMEOUT} s:\n{told}",
                result.stdout,
            )
        time.sleep(1)


def _apt(*words: str, timeout: int = _INSTALL_TIMEOUT) -> str:
    options = ["DPkg::Lock::Timeout=0", "Dpkg::Use-Pty=0", "Acquire::Retries=2"]
    options += [f"Dpkg::Options::={option}" for option in apt.KEEP]
    command = ["apt-get", "-q", "-y", *(word for option in options for word in ("-o", option))]
    return _run([*command, *words], "apt-get " + " ".join(words), timeout)


def refresh() -> str:
    """
    Refresh apt's lists, once in a run of Salt.

    Returns what apt could not fetch, in its own words; an empty text where there is nothing to tell,
    or the run has refreshed them before.  A source that fails is no error here: the packages that
    are wanted may come from another one.

    CLI Example:

    .. code-block:: bash

        salt '*' apt_packages.refresh
    """
    if _REFRESHED in __context__:
        return ""
    __context__[_REFRESHED] = True
    try:
        output = _apt("update", timeout=_UPDATE_TIMEOUT)
    except apt.Refused as error:
        return str(error)
    # apt ends with 0 when it falls back to lists that it has.
    return apt.complaints(output) if re.search(r"^(Err:|W:)", output, re.MULTILINE) else ""


def refreshed() -> bool:
    """
    Whether this run of Salt has refreshed apt's lists.

    CLI Example:

    .. code-block:: bash

        salt '*' apt_packages.refreshed
    """
    return _REFRESHED in __context__


# --- the record of what the formula brought ------------------------------------------------------


def _record() -> str:
    return os.path.join(__salt__["site_pillar.settings"]()["lookup"]["state_dir"], "packages.json")


def recorded() -> list[str]:
    """
    The packages that the formula has brought to this host, whether they are there still or not.

    Returns their names, sorted.

    CLI Example:

    .. code-block:: bash

        salt '*' apt_packages.recorded
    """
    content = durable_file.read(_record())
    return sorted(json.loads(content)) if content else []


def record(names: list[str]) -> None:
    """
    Record that the formula brings packages.

    names
        the packages, none of which was on the host before

    CLI Example:

    .. code-block:: bash

        salt '*' apt_packages.record '[libnginx-mod-http-geoip]'
    """
    known = recorded()
    wanted = sorted({*known, *names})
    if wanted != known:
        durable_file.directory(os.path.dirname(_record()))
        durable_file.write(_record(), json.dumps(wanted) + "\n")


def forget() -> None:
    """
    Forget which packages the formula brought: they are the operator's from now on.

    CLI Example:

    .. code-block:: bash

        salt '*' apt_packages.forget
    """
    durable_file.remove(_record())


# --- installing --------------------------------------------------------------------------------


def _planned(*words: str) -> tuple[dict[str, str], list[str]]:
    """What apt would do: the version of each package that comes, and the packages that go."""
    return apt.planned(_apt("--simulate", *words))


def _fetched(names: list[str]) -> dict[str, str]:
    """Plan and download; returns the version of each package that comes."""
    comes, _ = _planned("install", *names)
    try:
        _apt("--download-only", "install", *names)
    except apt.Refused as error:
        if _INTERRUPTED not in error.output:
            raise
        # By a run of ours, or by the operator: either way the advice is apt's own.
        _run(
            ["dpkg", "--configure", "--pending", *apt.KEEP],
            "dpkg --configure --pending",
            _INSTALL_TIMEOUT,
        )
        _apt("--download-only", "install", *names)
    return comes


def install(names: list[str]) -> dict[str, Any]:
    """
    Install packages that are not on the host, and record what came.

    names
        the packages

    Returns ``changes`` (old and new version by package) and ``warnings``, a list: sources that
    could not be refreshed where the lists had to be.

    Raises CommandExecutionError, with apt's own words, when it fails.  Where a package is unknown or
    cannot be downloaded, nothing has been installed.

    CLI Example:

    .. code-block:: bash

        salt '*' apt_packages.install '[logrotate, openssl]'
    """
    before = __salt__["dpkg_packages.on_host"]()
    warnings = []
    try:
        comes = _fetched(names)
    except apt.Refused:
        if refreshed():
            raise
        failed = refresh()
        try:
            comes = _fetched(names)
        except apt.Refused as error:
            told = f"\nThe lists were refreshed before, where apt said:\n{failed}" if failed else ""
            raise CommandExecutionError(f"{error}{told}") from error
        if failed:
            warnings.append(f"apt's lists are refreshed, but for these:\n{failed}")
    # Before installing: a run that is killed in between still knows that they were ours.
    record([name for name in comes if name not in before])
    _apt("--no-download", "install", *names)
    after = __salt__["dpkg_packages.on_host"]()
    missing = [name for name in names if not after.get(name, {}).get("whole")]
    if missing:
        raise CommandExecutionError(f"not installed, though apt-get ended with 0: {missing}")
    return {"changes": _difference(before, after), "warnings": warnings}


def _difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, str]]:
    changes = {}
    for name in sorted({*before, *after}):
        old, new = (side.get(name, {}).get("version", "") for side in (before, after))
        if old != new:
            changes[name] = {"old": old, "new": new}
    return changes


# --- removing ----------------------------------------------------------------------------------


def leftovers() -> list[str]:
    """
    The packages that :py:func:`remove` would remove: those that the formula asked for, and those
    that came along and that no other package on the host needs.

    Returns their names, sorted.

    Raises CommandExecutionError, with apt's own words, when apt cannot tell.

    CLI Example:

    .. code-block:: bash

        salt '*' apt_packages.leftovers
    """
    there = __salt__["dpkg_packages.on_host"]()
    ours = [name for name in recorded() if name in there]
    if not ours:
        return []
    automatic = _automatic()
    asked = [name for name in ours if name not in automatic]
    if not asked:
        # Only autoremove knows which of them nothing needs.
        _, goes = _planned("autoremove")
        return sorted(set(goes) & set(ours))
    # Besides ours, --auto-remove names what the operator left behind.
    _, unneeded = _planned("--auto-remove", "remove", *asked)
    _, goes = _planned("remove", *asked)
    return sorted({*goes, *(name for name in unneeded if name in ours)})


def _automatic() -> set[str]:
    """The packages that came along with others."""
    return {line.partition(":")[0] for line in apt.ask("apt-mark", "showauto").splitlines()}


def remove() -> dict[str, dict[str, str]]:
    """
    Remove the packages that the formula brought, and forget them.  Configuration files stay, as with
    ``apt-get remove``.

    Returns old and new version by package.

    Raises CommandExecutionError, with apt's own words, when it fails.

    CLI Example:

    .. code-block:: bash

        salt '*' apt_packages.remove
    """
    before = __salt__["dpkg_packages.on_host"]()
    names = leftovers()
    if names:
        _apt("remove", *names)
    after = __salt__["dpkg_packages.on_host"]()
    left = [name for name in names if name in after]
    if left:
        raise CommandExecutionError(f"still present after removal: {', '.join(left)}")
    forget()
    return _difference(before, after)
