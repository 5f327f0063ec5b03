"""
nginx's configuration tree, changed as a whole or not at all.

Everything that the formula owns under ``/etc/nginx`` is one transaction: the ``user`` directive of
the distribution's own ``nginx.conf``, one file and one link for each site, the distribution's
default site taken out, the certificates that the formula keeps, and one file of it in ``conf.d``.

1. The future tree is compared with the live one, byte by byte.  When they are equal nothing else
   happens: no process is started, no file is touched.
2. The installed nginx judges the future tree: it is unpacked on a tmpfs mounted over ``/etc/nginx``
   in a mount namespace of its own, so that every path is the real one and nothing of it is left
   behind, not even by a run that is killed.  The directories that ``nginx -t`` would create, or
   give to another user (it does that to its temporary directories, under the feet of the running
   workers), are covered in the same way.
3. The live tree is hard-linked into a directory beside it, the changed files are replaced there,
   everything is flushed to the disk, and the two directories change places in one system call
   (``renameat2``, ``RENAME_EXCHANGE``).  An untouched file keeps its inode and its times.
   Where that call is not possible (a mount point; a directory of a lower overlayfs layer), and
   where there is only one thing to change anyway, the files are renamed one by one, in an order in
   which nginx accepts every step, asked of it before, and renamed back when one of them fails.

The part of a site (its file, its link, its certificate) changes only when the release that the
pillar asks for is live, see :py:func:`nginx_site.unproven`. Until then the part stays as it is, and
a site that nginx does not name yet is left out, so that whatever answers its names goes on.

A tree that another program or person has broken is noticed as soon as one of our own changes is due, and
by :py:mod:`nginx_process <_modules.nginx_process>`, which finds it newer than the running workers.

.. versionadded:: 0.1.0
"""

import contextlib
import functools
import json
import os
import posixpath
import pwd
import re
import shutil
from collections.abc import Callable, Collection, Iterable
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import (
    cache,
    durable_file,
    nginx_archive,
    nginx_drift,
    nginx_files,
    nginx_judge,
    nginx_kept,
    nginx_plan,
    nginx_ports,
    nginx_program,
    nginx_servers,
    nginx_swap,
    proc,
    takeover_record,
)

__virtualname__ = "nginx_tree"

# What is to be where, what of sites-enabled is not the formula's, and which sites wait, and why.
_Planned = tuple[dict[str, nginx_files.Wanted], list[str], dict[str, str]]

# The sites that the last change of the tree in this run has left as they were, and why.
_HELD = "nginx_tree.held"


def __virtual__() -> str:
    return __virtualname__


# --- what the tree is to be --------------------------------------------------------------------
def _lookup() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()["lookup"]


def _base() -> str:
    """The tree, as a path without links: what is mounted over and what changes places."""
    return os.path.realpath(_lookup()["nginx_dir"])


def _shown() -> str:
    return str(_lookup()["nginx_dir"]).rstrip("/")


def _foreseen(
    due: dict[str, nginx_files.Wanted], warnings: list[str]
) -> dict[str, nginx_files.Wanted]:
    """
    What a dry run lets nginx judge.

    In a run the workers' user is made before the tree is; in a dry run it may be missing still,
    and nginx would refuse the tree for that alone.
    """
    user = __salt__["site_pillar.settings"]()["nginx"]["user"]
    try:
        pwd.getpwnam(user)
    except KeyError:
        warnings.append(f"the user {user} does not exist yet: judged with the one there is")
        return {path: wanted for path, wanted in due.items() if path != "nginx.conf"}
    return due


def _plan(
    saltenv: str, version: str | None = None, held: Collection[str] = ()
) -> tuple[dict[str, nginx_files.Wanted], list[str]]:
    """
    What is to be where, and which of the paths in sites-enabled are not the formula's.

    version
        of the nginx that it is written for; by default the installed one's
    held
        the sites whose part of the tree stays as it is
    """
    with cache.session():
        return nginx_plan.planned(
            nginx_plan.Order(
                base=_base(),
                shown=_shown(),
                settings=__salt__["site_pillar.settings"](),
                held=held,
                reverted=_reverted() & set(held),
                files=lambda certificates: __salt__["nginx_site.files"](
                    saltenv, version, held, certificates
                ),
                http=functools.partial(
                    __salt__["nginx_site.http"], saltenv=saltenv, version=version
                ),
                trusted=lambda contents: __salt__["site_certificate.trusted"](contents),
            )
        )


def _reverted() -> set[str]:
    """The sites that an operator has given back to what served them before."""
    return takeover_record.reverted(_lookup()["state_dir"])


def _proven_plan(
    saltenv: str, version: str | None = None, unproven: bool = False
) -> tuple[dict[str, nginx_files.Wanted], list[str], dict[str, str]]:
    """
    As :py:func:`_plan`, and the sites whose release is not live, with the reason: their part of the
    tree stays as it is.

    Only the sites whose part would change are asked for, so that a run with nothing to do asks for
    none.

    unproven
        whether the part of such a site changes all the same; no site is asked for then
    """
    plan, strangers = _plan(saltenv, version)
    held = {} if unproven else _unproven_sites(nginx_files.outstanding(_base(), plan))
    if held:
        plan, strangers = _plan(saltenv, version, held)
    return plan, strangers, held


def _sites_of(due: Iterable[str]) -> set[str]:
    """The pillar's sites, but for absent ones, that some paths of the tree are a part of."""
    sites = __salt__["site_pillar.settings"]()["sites"]
    due = list(due)
    names = {
        posixpath.basename(path).partition(".")[0]
        for path in due
        if posixpath.dirname(path) in ("sites-available", "sites-enabled")
    }
    there = [name for name, site in sites.items() if not site["absent"]]
    taken = nginx_plan.taken_over(_shown(), sites, there)
    names |= {taken[path] for path in due if path in taken}
    return {name for name in names if name in sites and not sites[name]["absent"]}


def _unproven_sites(due: Iterable[str]) -> dict[str, str]:
    """The sites whose part of the tree would change before their release is live, and why it is not."""
    names = sorted(_sites_of(due))
    if not names:
        return {}
    with cache.session():
        told = {name: __salt__["nginx_site.unproven"](name) for name in names}
    return {name: why for name, why in told.items() if why}


# --- what is answered --------------------------------------------------------------------------


def _ports() -> set[str]:
    """The ports that the running nginx has open, as text."""
    master, listening = int(_service().get("MainPID") or 0), proc.listening()
    return {
        f"{listening[inode].port}" for inode in listening.keys() & nginx_ports.sockets_of(master)
    }


def _allowed(shown: str, losses: list[dict[str, Any]]) -> list[str]:
    """
    Sentences for what the pillar lets go; what it does not let go is an error with all of it.
    """
    allowed = __salt__["site_pillar.settings"]()["nginx"]["allow_loss"]
    told = {
        loss["what"]: f"{loss['what']} ({shown}/{loss['path']}, line {loss['line']})"
        for loss in losses
    }
    refused = [what for what in told if what not in allowed]
    if refused:
        raise CommandExecutionError(
            "nginx answers this now, and would not with the tree of the pillar; nothing was changed:"
            + "".join(f"\n  {told[what]}" for what in refused)
            + "\nName it in the pillar (listen, server_names, tls), or let it go:\n"
            f"  nginx_uwsgi_django:nginx:allow_loss: {json.dumps(refused)}"
        )
    return [f"no longer answered, by nginx:allow_loss: {words}" for words in told.values()]


def _whose_server(tree: dict[str, nginx_files.Wanted], path: str) -> str:
    """To whom a server belongs that has a name of a site's, and the ways out."""
    name = posixpath.basename(path).partition(".")[0]
    available = f"sites-available/{name}.conf"
    if available in tree and nginx_files.is_owned(tree[available].contents):
        if name not in __salt__["site_pillar.settings"]()["sites"]:
            return (
                f"a site of this formula's that the pillar does not name: give it back its name in "
                f"the pillar, or take it off the host by `absent: true` under sites:{name}"
            )
        return f"the pillar's sites:{name}"
    return (
        "not this formula's: name it in the site's takeover:files, or take the name out of it and "
        "reload nginx"
    )


def shadowed(saltenv: str | None = None) -> dict[str, list[str]]:
    """
    The sites whose visitors get the answers of another server: nginx has a server for the same name
    and address that counts before the site's own.

    saltenv
        look at the tree as it would be with the pillar and the templates of this environment of the
        fileserver; by default at the one on the disk

    Returns by site sentences with file and line; nothing of a site that its visitors reach.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.shadowed
    """
    base, shown = _base(), _shown()
    due = (
        {}
        if saltenv is None
        else nginx_files.outstanding(base, _plan(saltenv, None, _reverted())[0])
    )
    tree = nginx_files.future(base, due)
    if "nginx.conf" not in tree:
        return {}
    servers = nginx_servers.of_tree(base, shown, tree)
    own = {server["path"] for server in servers if server["own"]}
    sites = {
        f"sites-enabled/{name}.conf": name
        for name, site in __salt__["site_pillar.settings"]()["sites"].items()
        if not site["absent"]
    }
    found = nginx_servers.shadowing(servers, own & set(sites))
    return {
        sites[path]: [
            f"{other['name']} on {other['address']} is answered by {shown}/{other['path']}, "
            f"line {other['line']} ({_whose_server(tree, other['path'])})"
            for other in others
        ]
        for path, others in found.items()
    }


def held(saltenv: str = "base") -> dict[str, str]:
    """
    The sites whose part of the tree is not the one of the pillar because their release is not live.

    saltenv
        the fileserver's environment to take templates from

    Returns by site the reason. Right after :py:func:`ensure` in the same run, what that has found.

    Raises CommandExecutionError when a site cannot be rendered.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.held
    """
    known: dict[str, str] | None = __context__.pop(_HELD, None)
    return _proven_plan(saltenv)[2] if known is None else known


# --- nginx's judgement -------------------------------------------------------------------------


def _service() -> dict[str, str]:
    """What nginx's unit says about the process: its limits, its global directives."""
    unit = _lookup()["nginx_service"]
    properties = ["LimitNOFILESoft", "LimitNOFILE", "ExecStart", "MainPID"]
    try:
        shown = __salt__["systemd_unit.show"]([f"{unit}.service"], properties)
    except CommandExecutionError:
        # No systemd answers (a chroot in which an image is being built): the judgement is then
        # made with this process's own limits.
        return {}
    return shown.get(f"{unit}.service", {})


def occupied() -> list[str]:
    """
    The addresses of the pillar's sites that other processes hold, on a host that has no nginx yet.

    Returns a sentence for each, which names the process.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.occupied
    """
    listening = proc.listening()
    found = []
    for name, site in __salt__["site_pillar.settings"]()["sites"].items():
        if site["absent"]:
            continue
        for listen in [*site["listen"], *(site["tls"]["listen"] if site["tls"]["source"] else [])]:
            word = str(listen).split()[0]
            place = nginx_ports.listens_at(word)
            if place and (holder := nginx_ports.holder(*place, listening)):
                found.append(f"listen {word}: {holder} (from the pillar's sites:{name})")
    return found


def foresee(
    binary: str, modules: str | None = None, gone: list[str] | None = None, saltenv: str = "base"
) -> dict[str, Any]:
    """
    Let an nginx that is not installed yet test the tree, written as both it and the installed one
    understand it.

    binary, modules
        where that nginx and the directory of its modules are
    gone
        paths in the tree that will not be there any more
    saltenv
        the fileserver's environment to take templates from

    Returns ``{"tested": bool, "errors": […], "version": the older of both}``; ``tested`` is False
    where a mount namespace may not be made, or that nginx cannot be run yet; ``errors`` then say why.

    Raises CommandExecutionError when a site cannot be rendered.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.foresee /root/unpacked/usr/sbin/nginx
    """
    base = _base()
    try:
        older = min(
            nginx_program.version(),
            nginx_program.version(binary),
            key=lambda text: [int(n) for n in re.findall(r"\d+", text)],
        )
    except (CommandExecutionError, OSError) as error:
        return {"tested": False, "errors": [f"{error}"], "version": nginx_program.version()}
    plan = _proven_plan(saltenv, older)[0]
    due = nginx_files.outstanding(base, plan) | {
        path: nginx_files.Wanted("absent") for path in gone or []
    }
    verdict = _judged(base, due, binary, modules)
    if not verdict.tested:
        return {"tested": False, "errors": [verdict.output], "version": older}
    errors = [] if verdict.ok else nginx_judge.messages(verdict.output)[0] or ["nginx -t failed"]
    told = [_whose(base, plan, message) for message in errors]
    return {"tested": True, "errors": told, "version": older}


def check() -> dict[str, Any]:
    """
    Let the installed nginx test the tree as it is on the disk.

    Unlike a bare ``nginx -t`` this writes nothing, and tests with the service's own limits.

    Returns ``{"ok": bool, "tested": bool, "errors": […], "warnings": […]}``; ``tested`` is False
    where a mount namespace may not be made, and a bare ``nginx -t`` was the judge.

    Raises CommandExecutionError when nginx is not installed.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.check
    """
    base = _base()
    verdict = _judged(base, {})
    ok, output = verdict.ok, verdict.output
    if not verdict.tested:
        result = nginx_program.run("-t")
        ok, output = result.returncode == 0, result.stderr
    errors, warnings = nginx_judge.messages(output)
    if not ok:
        plan = {
            path: nginx_files.Wanted("file", durable_file.read(os.path.join(base, path)) or b"")
            for path in nginx_files.entries(base, "sites-available")
            if nginx_files.is_owned(durable_file.read(os.path.join(base, path)))
        }
        errors = [_whose(base, plan, message) for message in errors] or ["nginx -t failed"]
    return {"ok": ok, "tested": verdict.tested, "errors": errors, "warnings": warnings}


# --- changing it -------------------------------------------------------------------------------


def _judged(
    base: str,
    due: dict[str, nginx_files.Wanted],
    binary: str | None = None,
    modules: str | None = None,
) -> nginx_judge.Verdict:
    return nginx_judge.judge(base, due, _service(), __context__, binary, modules)


def _whose(base: str, plan: dict[str, nginx_files.Wanted], message: str) -> str:
    user = __salt__["site_pillar.settings"]()["nginx"]["user"]
    return nginx_judge.whose(base, _shown(), plan, user, message)


def _conflicts(
    base: str, plan: dict[str, nginx_files.Wanted], verdict: nginx_judge.Verdict
) -> list[str]:
    return nginx_ports.conflicts(
        plan,
        verdict.parsed,
        nginx_plan.others_of(base, {f"{base}/{path}" for path in plan}),
        verdict.master,
        _lookup()["nginx_service"],
        lambda: __salt__["nginx_socket.held"](),
    )


def _refuse(base: str, plan: dict[str, nginx_files.Wanted], output: str) -> None:
    errors, _ = nginx_judge.messages(output)
    told = [_whose(base, plan, message) for message in errors] or [output or "nginx -t failed"]
    limits = nginx_judge.limits_of(_service())
    if limits and "Too many open files" in output:
        unit = f"{_lookup()['nginx_service']}.service"
        told.append(
            "a reload opens the new logs while the old ones are open: `prlimit "
            f"--nofile={limits[1]}: --pid $(systemctl show -P MainPID {unit})` gives the running "
            f"nginx more at once, LimitNOFILE= of {unit} one that starts"
        )
    raise CommandExecutionError("nginx refuses the tree as it would be:\n" + "\n".join(told))


def _transact(
    make_plan: Callable[[], _Planned], test: bool, strict: bool
) -> tuple[dict[str, Any], dict[str, nginx_files.Wanted]]:
    """
    Bring the tree to a plan; what was done, and the plan.

    strict
        refuse it where it would end what nginx answers, but for what the pillar lets go
    """
    base, shown = _base(), _shown()
    for _ in range(5):
        plan, strangers, held = make_plan()
        due = nginx_files.outstanding(base, plan)
        report: dict[str, Any] = {
            "changes": {},
            "warnings": [],
            "strangers": [f"{shown}/{path}" for path in strangers],
            "held": held,
            "kept": [],
            "tested": None,
            "how": None,
        }
        if not due and (test or not nginx_swap.leftovers(base)):
            return report, plan
        try:
            with contextlib.nullcontext() if test else nginx_swap.alone():
                for path in [] if test else nginx_swap.leftovers(base):
                    shutil.rmtree(path)
                if due:
                    _change(base, plan, due, report, test, strict)
            return report, plan
        except (nginx_files.Raced, FileNotFoundError) as error:
            # FileNotFoundError: an entry went between being listed and being read.
            if isinstance(error, FileNotFoundError) and not os.path.isdir(base):
                raise
    raise CommandExecutionError(
        f"another program kept writing to {shown} during the change; nothing was changed"
    )


def _change(
    base: str,
    plan: dict[str, nginx_files.Wanted],
    due: dict[str, nginx_files.Wanted],
    report: dict[str, Any],
    test: bool,
    strict: bool,
) -> None:
    """Judge what is due, and put it in place unless this is a dry run."""
    shown = _shown()
    report["changes"] = nginx_files.describe(base, shown, due)
    report["kept"] = nginx_kept.sentences(shown, due)
    if strict:
        report["kept"] += _allowed(shown, nginx_servers.lost(base, shown, due, _ports))
    seen = nginx_swap.snapshot(base)
    verdict = _judged(base, _foreseen(due, report["warnings"]) if test else due)
    report["tested"] = verdict.tested
    if verdict.tested:
        report["warnings"] += nginx_judge.messages(verdict.output)[1]
    if verdict.tested and not verdict.ok:
        _refuse(base, plan, verdict.output)
    conflicts = _conflicts(base, plan, verdict)
    if conflicts:
        raise CommandExecutionError("nginx could not listen as it should:\n" + "\n".join(conflicts))
    if test:
        if not verdict.tested:
            report["warnings"].append(f"not tested before: {verdict.output}")
        return
    # What was compared and tested is what must still be there.
    if not nginx_swap.same(seen, nginx_swap.snapshot(base)):
        raise nginx_files.Raced
    if verdict.tested:
        report["how"] = nginx_swap.swap(
            base, due, seen, report["warnings"], lambda part: _judged(base, part).ok
        )
    else:
        report["how"] = _unproven(base, plan, due, seen, report["warnings"])
    rest = nginx_files.outstanding(base, plan)
    if rest:
        raise CommandExecutionError(f"this did not stay in place: {', '.join(sorted(rest))}")


def _unproven(
    base: str,
    plan: dict[str, nginx_files.Wanted],
    due: dict[str, nginx_files.Wanted],
    seen: nginx_swap.Snapshot,
    warnings: list[str],
) -> str:
    """Where no namespace may be made: in, test, and out again when nginx refuses."""

    def accept() -> None:
        result = nginx_program.run("-t")
        if result.returncode:
            _refuse(base, plan, result.stderr)
        warnings.extend(nginx_judge.messages(result.stderr)[1])

    nginx_swap.one_by_one(base, due, seen, nginx_swap.ranked(base, due), accept)
    return "renames, tested afterwards"


# --- what was applied --------------------------------------------------------------------------
def _note_path() -> str:
    return f"{_lookup()['state_dir']}/nginx_tree.json"


def drift() -> dict[str, str]:
    """
    The formula's own files and links that were changed by hand since the formula was last
    applied, whatever the pillar says by now.  Of a file only the content counts, and certificates
    do not: certbot renews them.

    Returns by path what has become of it; empty also where the formula was never applied.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.drift
    """
    return nginx_drift.drift(_note_path(), _base(), _shown())


def _noted(make_plan: Callable[[], _Planned], test: bool, strict: bool = False) -> dict[str, Any]:
    report, plan = _transact(make_plan, test, strict)
    if not test:
        nginx_drift.note(_note_path(), _base(), _shown(), plan)
    return report


def diff(saltenv: str = "base") -> dict[str, Any]:
    """
    What :py:func:`ensure` would change once the releases of all sites are live, without asking nginx
    for its judgement.  Writes nothing.

    saltenv
        the fileserver's environment to take templates from

    Returns the changes: per file a unified diff, per link old and new.

    Raises CommandExecutionError when a site cannot be rendered.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.diff
    """
    base = _base()
    return nginx_files.describe(
        base, _shown(), nginx_files.outstanding(base, _plan(saltenv, None, _reverted())[0])
    )


def ensure(
    saltenv: str = "base",
    test: bool = False,
    version: str | None = None,
    unproven: bool = False,
) -> dict[str, Any]:
    """
    Bring the tree to what the pillar wants: all of it, or nothing. The part of a site whose release
    is not live stays as it is.

    saltenv
        the fileserver's environment to take templates from
    test
        judge the future tree, change nothing
    version
        write it as for this version of nginx, an older one than the installed
    unproven
        change the part of every site, also where its release is not live: nginx then answers 502
        for it

    Returns ``{"changes": …, "warnings": nginx's, "strangers": enabled but not the formula's,
    "held": by site, why its part stays as it is, "kept": what is kept aside or given back, in
    sentences, "tested": by nginx before it went in, "how": exchange or renames}``. With ``test`` the changes are those of a run in which every release
    comes up; ``held`` has the sites that this is still to be seen of.

    Raises CommandExecutionError with nginx's own words, and the pillar's path that they are about,
    when nginx refuses, and with every address and name that nginx answers now and would not any more,
    unless the pillar lets it go (``nginx:allow_loss``); the tree is then as it was.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.ensure test=True
    """

    def make_plan() -> _Planned:
        plan, strangers, held = _proven_plan(saltenv, version, unproven)
        if test and held:
            # In a run the releases come first.
            plan, strangers = _plan(saltenv, version, _reverted() & set(held))
        return plan, strangers, held

    __context__.pop(_HELD, None)
    report = _noted(make_plan, test, strict=True)
    __context__[_HELD] = report["held"]
    return report


def remove(test: bool = False) -> dict[str, Any]:
    """
    Take everything of the formula out of the tree, and give back what it took out.

    test
        judge the future tree, change nothing

    Returns what :py:func:`ensure` returns.

    Raises CommandExecutionError as :py:func:`ensure` does.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.remove test=True
    """
    return _noted(lambda: (nginx_plan.removed(_base(), _shown()), [], {}), test)


def give_back(name: str) -> dict[str, Any]:
    """
    Take the part of a site out of the tree and put back what it replaced; the parts of all other
    sites stay as they are. With the last site the formula's own settings go, and the ``user`` line
    is again what it was.

    name
        a site that :py:func:`takeover.revert` has marked

    Returns what :py:func:`ensure` returns.

    Raises CommandExecutionError as :py:func:`ensure` does, and when the site is not marked.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.give_back mysite
    """
    if name not in _reverted():
        raise CommandExecutionError(f"{name} is not given back: takeover.revert does it")
    sites = __salt__["site_pillar.settings"]()["sites"]
    held = [label for label, site in sites.items() if not site["absent"]]
    return _noted(lambda: (*_plan("base", None, held), {}), False)


def forget(name: str) -> dict[str, Any]:
    """
    Delete what was kept of the files that a site has replaced: there is no way back then.

    name
        the site

    Returns what :py:func:`ensure` returns.

    Raises CommandExecutionError as :py:func:`ensure` does.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.forget mysite
    """

    def make_plan() -> _Planned:
        common = durable_file.read(os.path.join(_base(), nginx_files.COMMON))
        return nginx_kept.forgetting(common, name), [], {}

    return _noted(make_plan, False)


def keep(path: str) -> None:
    """
    Write the whole tree, as it is, into one file that :py:func:`restore` takes.

    path
        an absolute path whose directory exists; the file is root's alone, as there may be keys in
        the tree

    Raises CommandExecutionError when another program kept writing to the tree; OSError as the system
    says it.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.keep /root/nginx.tar
    """
    base = _base()
    for _ in range(5):
        seen = nginx_swap.snapshot(base)
        try:
            archive = nginx_archive.whole(base)
        except (nginx_files.Raced, FileNotFoundError):
            continue
        if nginx_swap.same(seen, nginx_swap.snapshot(base)):
            durable_file.write(path, archive, mode="0600")
            return
    raise CommandExecutionError(f"another program kept writing to {base} while it was to be kept")


def restore(path: str, test: bool = False) -> dict[str, Any]:
    """
    Bring back the whole tree that :py:func:`keep` wrote, by the same judgement as any other change.

    What anybody else changed in the tree since then is undone too; a directory that came since then
    stays.

    path
        the file
    test
        judge the future tree, change nothing

    Returns what :py:func:`ensure` returns.

    Raises CommandExecutionError as :py:func:`ensure` does, and when there is no such file.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_tree.restore /root/nginx.tar test=True
    """
    contents = durable_file.read(path)
    if contents is None:
        raise CommandExecutionError(f"{path} does not exist: no tree was kept")
    return _noted(lambda: (nginx_archive.plan_of(contents, _base()), [], {}), test)
