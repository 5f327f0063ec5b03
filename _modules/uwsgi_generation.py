"""
Generations of a site's uWSGI behind the one socket that systemd holds.

A generation is a unit whose instance name is the digest of all that its process is made of: the
ini, the unit, the release, the virtual environment, the environment file, the interpreter and uWSGI
itself. Its files are written once and never edited. So "does the host run what the pillar says" is
a question about the name of the unit that runs, which the host answers after a reboot, a killed run
or a hand that restarted something as truly as after a run of Salt.

The switch: the new generation answers a health request on a private socket (preflight), starts
beside the old one on the shared socket, is enabled, and only then does the old one finish its
requests and stop. Nothing of the old one is touched before that. Where none serves, the new one is
started and asked on the shared socket at once, and taken back when its answer is wrong.

.. versionadded:: 0.1.0
"""

import glob
import grp
import hashlib
import json
import os
import pwd
import re
import shlex
import signal
import time
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

# Not used here: with it, Salt's loader takes half as long for a call (docs/benchmark).
from salt.loader.dunder import __opts__  # noqa: F401

from _nud import durable_file, systemd, uwsgi_ini, uwsgi_protocol
from _nud import program as programs

__virtualname__ = "uwsgi_generation"
__func_alias__ = {"list_": "list"}

# Goes into every digest: another number makes every site's next run a new generation.
_FORMAT = 1

# How many generations' files stay on the host, the running one among them.
_KEEP = 5

# Stands for the digest in the texts that the digest is made of.
_DIGEST = "@DIGEST@"

_PROPERTIES = [
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "MainPID",
    "ExecMainStartTimestamp",
    "InvocationID",
    "DropInPaths",
]

# Under this directory, gone after a reboot, are the unit and the files of a preflight.
_RUN_UNITS = "/run/systemd/system"
_RUN = "/run/nginx_uwsgi_django"

_UP = ("active", "activating", "reloading", "deactivating")

# So many sites are stopped at once: each is some processes that end, and a host has its limits.
_AT_ONCE = 50

# A generation's unit: its site and its digest.
_UNIT = re.compile(r"uwsgi-([a-z][a-z0-9_-]*)@([0-9a-f]{12})\.service")
_PATTERN = "uwsgi-*@*.service"


def __virtual__() -> str:
    return __virtualname__


# --- What shall be -----------------------------------------------------------------------------


def _once(what: tuple[str, ...], look: Callable[[], Any]) -> Any:
    """:py:func:`host_survey.once` without Salt's loader, which takes longer than most looks here."""
    memory = __context__.get("host_survey")
    return look() if memory is None else memory.once(what, look)


def _real(path: str) -> str:
    return _once(("real", path), lambda: os.path.realpath(path))


def _site(name: str) -> dict[str, Any]:
    return _once(("site", name), lambda: __salt__["site_pillar.site"](name))


def _lookup() -> dict[str, Any]:
    return _once(("lookup",), lambda: __salt__["site_pillar.settings"]()["lookup"])


def _unit(name: str, digest: str) -> str:
    return f"uwsgi-{name}@{digest}.service"


def _twin(name: str, digest: str) -> str:
    # The dot cannot be part of a site's name, so no site's generation is ever called so.
    return f"uwsgi-{name}.preflight@{digest}.service"


def _paths(name: str, digest: str) -> dict[str, str]:
    lookup = _lookup()
    stem = f"{lookup['uwsgi_dir']}/{name}/{digest}"
    unit = _unit(name, digest)
    return {
        "unit": f"{lookup['unit_dir']}/{unit}",
        "ini": f"{stem}.ini",
        "env": f"{stem}.env",
        "parts": f"{stem}.json",
        "link": f"{lookup['unit_dir']}/uwsgi-{name}.service.wants/{unit}",
        "run": f"/run/uwsgi-{name}@{digest}",
        "stats": f"/run/uwsgi-{name}@{digest}/stats.sock",
    }


def environment_file(values: dict[str, str]) -> str:
    r"""
    The text of an ``EnvironmentFile=`` that carries values byte for byte.

    values
        name -> text

    Returns text, a line for each, in the order of their names.

    Raises SaltInvocationError for a name that is none, a newline or a NUL.

    In double quotes systemd takes ``\`` before ``\``, ``"``, ``$`` and `````, and nothing else, for
    an escape (systemd.exec(5), EnvironmentFile=), so these four are escaped and the rest is as it is.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.environment_file '{"GREETING": "hello"}'
    """
    lines = []
    for key in sorted(values):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise SaltInvocationError(f"{key!r} is not the name of an environment variable")
        if re.search(r"[\n\r\0]", values[key]):
            # The value may be a secret: it is not repeated here.
            raise SaltInvocationError(f"the value of {key} must be one line")
        escaped = re.sub(r'([\\"$`])', r"\\\1", values[key])
        lines.append(f'{key}="{escaped}"\n')
    return "".join(lines)


def content(path: str) -> str | None:
    """
    The digest of a file's content, remembered as long as the file is the same one.

    path
        a program or a library

    Returns 64 hexadecimal digits, or None where there is none.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.content /usr/bin/python3
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    memory = __context__.setdefault("uwsgi_generation.content", {})
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key not in memory:
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                digest.update(piece)
        memory[key] = digest.hexdigest()
    return memory[key]


def _programs(venv: dict[str, Any], plugin: str | None) -> dict[str, Any]:
    """What the process executes, by path and content: a file replaced underneath is another."""
    executables = [venv["uwsgi"], venv["binary"]]
    # pyuwsgi is a script of two lines around an extension module.
    executables += _sorted_glob(venv["path"], "lib/python3*/site-packages/pyuwsgi*.so")
    if plugin:
        executables += _sorted_glob("/usr/lib/uwsgi/plugins", f"{plugin}*_plugin.so")
    return {path: [os.path.realpath(path), content(path)] for path in executables if path}


def _sorted_glob(directory: str, pattern: str) -> list[str]:
    return sorted(glob.glob(f"{glob.escape(directory)}/{pattern}"))


def _within(path: str, directories: list[str]) -> bool:
    return any(path.startswith(directory.rstrip(os.sep) + os.sep) for directory in directories)


def _installation(program: str) -> list[str]:
    """A program and whatever its links lead to, each with the directory that it is installed in."""
    chain = [program]
    while os.path.islink(chain[-1]):
        target = os.path.join(os.path.dirname(chain[-1]), os.readlink(chain[-1]))
        if os.path.normpath(target) in chain:
            break
        chain.append(os.path.normpath(target))
    found = []
    for path in [*chain, os.path.realpath(program)]:
        prefix, directory = os.path.split(os.path.dirname(path))
        # PREFIX/bin/python finds its library in PREFIX/lib.
        found += [path, prefix] if directory == "bin" else [path]
    return found


def _installed(program: str) -> list[str]:
    return _once(("installation", program), lambda: _installation(program))


def _seclusion(
    site: dict[str, Any], venv: dict[str, Any], release: dict[str, Any], places: list[str]
) -> list[str]:
    """
    What keeps a site from what is another's: where sites live there is nothing but its own.

    Permissions do not do it: a tree that was copied by hand is usually everybody's to read, and
    uploads have to be nginx's. What is hidden are the places where sites are, not the other sites:
    one that comes or goes changes nobody's unit.

    places
        the site's own, that it may write to
    """
    lookup = _lookup()
    hidden = ["/srv", f"{lookup['state_dir']}/sites"]
    programs = [path for path in (venv["binary"], venv["uwsgi"]) if path]
    read = [
        release["path"],
        venv["path"],
        _real(venv["path"]),
        f"{lookup['uwsgi_dir']}/{site['name']}",
        *(path for program in programs for path in _installed(program)),
    ]

    # A path of the pillar may go through a link, like a /srv that is on another disk.
    roots = [*hidden, *map(_real, hidden)]

    def bound(key: str, paths: list[str], besides: list[str]) -> list[str]:
        kept: list[str] = []
        for path in sorted(dict.fromkeys(paths)):
            if _within(path, roots) and path not in besides and not _within(path, besides + kept):
                kept.append(path)
        escape = systemd.escape
        # An empty value would take back what the other of the two keys says.
        return [f"{key}={' '.join(escape('-' + path, words=True) for path in kept)}"] * bool(kept)

    return [
        f"TemporaryFileSystem={' '.join(f'{path}:ro' for path in hidden)}",
        *bound("BindPaths", [*places, *map(_real, places)], []),
        *bound("BindReadOnlyPaths", read, places),
        # The sockets of all sites, one's own among them, which uWSGI inherits open.
        "InaccessiblePaths=-/run/uwsgi",
    ]


def _sandbox(site: dict[str, Any], venv: dict[str, Any], release: dict[str, Any]) -> list[str]:
    """What a generation may not do, what it does not see, and where it may write."""
    words = {"words": True}
    escape = systemd.escape
    places = [
        site["project"]["path"],
        __salt__["django_release.directories"](site["name"])["shared"],
        # HOME: libraries keep caches there, and some do not start where they cannot.
        __salt__["system_account.home"](site["name"]),
        *site["uwsgi"]["sandbox"]["writable"],
    ]
    allowed = site["uwsgi"]["sandbox"]["allow"]
    writable = [
        f"-{escape(path)}" if " " not in path else escape(f"-{path}", **words)
        for path in dict.fromkeys(places)
    ]
    used = [
        *places,
        venv["path"],
        venv["uwsgi"] or "",
        release["path"],
        _real(venv["binary"]),
        _real(venv["uwsgi"] or "/"),
    ]
    homes = any(path.startswith(("/home/", "/root/", "/run/user/")) for path in used)
    public = any(path.startswith(("/tmp/", "/var/tmp/")) for path in used)
    return [
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "ProtectSystem=strict",
        # Permissions decide what of it the site's user may write.
        f"ReadWritePaths={' '.join(writable)}",
        f"ProtectHome={'read-only' if homes else 'yes'}",
        f"PrivateTmp={'no' if public else 'yes'}",
        *_seclusion(site, venv, release, places),
        *([] if "devices" in allowed else ["PrivateDevices=yes", "DevicePolicy=closed"]),
        "PrivateUsers=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "ProtectProc=invisible",
        # The files of processes stay the site's own either way.
        f"ProcSubset={'all' if 'proc' in allowed else 'pid'}",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
        + (" AF_NETLINK" if "netlink" in allowed else ""),
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        *([] if "jit" in allowed else ["MemoryDenyWriteExecute=yes"]),
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        f"SystemCallFilter=~@privileged{'' if 'resources' in allowed else ' @resources'}",
        "SystemCallErrorNumber=EPERM",
        "RemoveIPC=yes",
        "KeyringMode=private",
    ]


def confinement(name: str, limits: dict[str, str], release: str | None = None) -> list[str]:
    """
    What makes a process that runs for a site the site's alone: the lines of a unit's [Service]
    section that say how much it may have, what it may do and what it sees.

    name
        the site
    limits
        resource limits, by systemd's names
    release
        the ID of a release on the host to take instead of the desired one

    Returns lines.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.confinement mysite '{"MemoryMax": "512M"}'
    """
    venv = __salt__["python_venv.desired"](name, release=release)
    wanted = __salt__["django_release.desired"](name, release=release)
    return _confinement(_site(name), venv, wanted, limits)


def _confinement(
    site: dict[str, Any], venv: dict[str, Any], release: dict[str, Any], limits: dict[str, str]
) -> list[str]:
    return [
        "UMask=0022",
        *(f"{limit}={limits[limit]}" for limit in sorted(limits)),
        *_sandbox(site, venv, release),
    ]


def _unit_text(
    site: dict[str, Any], venv: dict[str, Any], release: dict[str, Any], digest: str
) -> str:
    name = site["name"]
    escape = systemd.escape
    paths = _paths(name, digest)
    uwsgi = site["uwsgi"]
    log = __salt__["uwsgi_log.path"](name)
    return "\n".join(
        [
            "[Unit]",
            f'Description=Django site "{name}", generation {digest}',
            f"After=network.target uwsgi-{name}.socket",
            "After=postgresql.service mariadb.service mysql.service redis-server.service",
            # So that starting, stopping and restarting uwsgi-SITE.service acts on this, and
            # waits until it is up.
            f"PartOf=uwsgi-{name}.service",
            f"Before=uwsgi-{name}.service",
            # A generation that cannot start is tried for ever, and never takes the socket down
            # with it ("service-start-limit-hit").
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            # Not the slice that systemd makes for every prefix of instances and never unmakes.
            "Slice=system.slice",
            "Type=notify",
            "NotifyAccess=main",
            f"Sockets=uwsgi-{name}.socket",
            f"User={site['project']['user']}",
            f"Group={site['project']['group']}",
            f"EnvironmentFile={escape(paths['env'])}",
            f"ExecStart={escape(venv['uwsgi'], command=True)} --ini "
            f"{escape(paths['ini'], command=True)}",
            # SIGTERM to the master alone: it lets the workers finish their requests.
            "KillMode=mixed",
            "KillSignal=SIGTERM",
            f"TimeoutStartSec={uwsgi['start_timeout']:d}",
            f"TimeoutStopSec={uwsgi['stop_timeout']:d}",
            "Restart=on-failure",
            "RestartSec=1",
            # A worker that runs out of memory dies alone, and its master makes another.
            "OOMPolicy=continue",
            f"SyslogIdentifier=uwsgi-{name}",
            # Opened by systemd, outside of the sandbox.
            *([f"StandardOutput=append:{escape(log)}", "StandardError=inherit"] if log else []),
            f"RuntimeDirectory=uwsgi-{name}@{digest}",
            "RuntimeDirectoryMode=0700",
            *_confinement(site, venv, release, uwsgi["limits"]),
            "",
            "[Install]",
            f"WantedBy=uwsgi-{name}.service",
            "",
        ]
    )


def _wanted(name: str, identity: str | None = None) -> dict[str, Any]:
    """
    The generation that the pillar and the project ask for, or the one of another release on the
    host, with the texts of its files.
    """
    site = _site(name)
    release = __salt__["django_release.desired"](name, release=identity)
    venv = __salt__["python_venv.desired"](name, release=identity)
    if not venv["uwsgi"]:
        raise CommandExecutionError(
            f"nginx_uwsgi_django:sites:{name}:uwsgi names neither a package nor a binary"
        )
    own, own_path = __salt__["site_plan.own_ini"](name, identity) or (None, None)
    stats = _paths(name, _DIGEST)["stats"]
    # Debian's uWSGI has its Python as a plugin.
    plugin = "python3" if site["uwsgi"]["package"] == "distro" else None
    ini = uwsgi_ini.render(
        site,
        release["path"],
        venv["path"],
        stats=stats,
        plugin=plugin,
        own=own,
        own_path=own_path,
        digest=_DIGEST,
    )
    environment = environment_file(__salt__["site_plan.environment"](name, identity))
    unit = _unit_text(site, venv, release, _DIGEST)
    parts = {
        "format": _FORMAT,
        "ini": hashlib.sha256(ini.encode()).hexdigest(),
        "unit": hashlib.sha256(unit.encode()).hexdigest(),
        "environment": hashlib.sha256(environment.encode()).hexdigest(),
        "release": {"id": release["id"], "path": release["path"]},
        "venv": {"digest": venv["digest"], "path": venv["path"]},
        # Of sites with one virtual environment the same.
        "programs": _once(
            ("programs", venv["path"], venv["uwsgi"], venv["binary"], plugin or ""),
            lambda: _programs(venv, plugin),
        ),
    }
    digest = _digest(parts)
    return {
        "digest": digest,
        "parts": parts,
        "ini": ini.replace(_DIGEST, digest),
        "unit": unit.replace(_DIGEST, digest),
        "environment": environment,
        "program": venv["uwsgi"],
    }


def _kept(name: str, digest: str) -> dict[str, Any]:
    """A generation whose files are still on the host."""
    if not re.fullmatch(r"[0-9a-f]{12}", digest):
        raise SaltInvocationError(f"{digest!r} is not the digest of a generation")
    paths = _paths(name, digest)
    read = {key: durable_file.read(paths[key]) for key in ("unit", "ini", "env", "parts")}
    texts = {key: text for key, text in read.items() if text is not None}
    if len(texts) < len(read):
        raise CommandExecutionError(f"the generation {digest} of {name} is not on this host")
    parts = json.loads(texts["parts"])
    release = parts["release"]
    if not os.path.isdir(release["path"]):
        raise CommandExecutionError(
            f"the generation {digest} ran {release['path']}, which is not there any more"
        )
    if not os.path.isdir(parts["venv"]["path"]):
        raise CommandExecutionError(
            f"the generation {digest} ran in {parts['venv']['path']}, which is not there any more"
        )
    now = __salt__["django_release.desired"](name)
    if now["path"] == release["path"] and now["id"] != release["id"]:
        raise CommandExecutionError(
            f"the generation {digest} ran the project in {release['path']} as it was then; "
            "it has been changed since, so there is nothing to go back to"
        )
    return {
        "digest": digest,
        "parts": parts,
        "ini": texts["ini"].decode(),
        "unit": texts["unit"].decode(),
        "environment": texts["env"].decode(),
        "program": _program(texts["unit"].decode()),
    }


def _program(unit: str) -> str:
    """What a unit starts: systemd_unit.escape() taken back."""
    found = re.search(r"^ExecStart=(.*) --ini ", unit, re.MULTILINE)
    if not found:
        raise CommandExecutionError("a generation's unit starts no uWSGI")
    return shlex.split(found[1])[0].replace("$$", "$").replace("%%", "%")


def desired(name: str) -> dict[str, Any]:
    """
    The generation that the pillar and the project ask for. Reads only.

    name
        the site

    Returns ``digest`` (12 hexadecimal digits), ``unit`` (the name of its unit) and ``parts`` (what
    the digest is made of; of texts, which may hold secrets, only a digest).

    Raises CommandExecutionError when the project or its ini is not there, SaltInvocationError for
    uWSGI options that cannot work.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.desired mysite
    """
    wanted = _wanted(name)
    return {
        "digest": wanted["digest"],
        "unit": _unit(name, wanted["digest"]),
        "parts": wanted["parts"],
    }


# --- What is -----------------------------------------------------------------------------------


def _sites() -> list[str]:
    return list(__salt__["site_pillar.settings"]()["sites"])


def _on_disk(names: list[str]) -> list[str]:
    """The generations' unit files, by unit name."""
    wanted = set(names)
    found = []
    for entry in __salt__["host_survey.entries"](_lookup()["unit_dir"]):
        match = _UNIT.fullmatch(entry)
        if match and match[1] in wanted:
            found.append(entry)
    return found


def _generations(name: str) -> dict[str, dict[str, Any]]:
    """The generations of a site that are on the host, by digest."""
    if __salt__["host_survey.going_on"]():
        return __salt__["host_survey.once"](("generations",), _glanced).get(name, {})
    return _shown([name], _unit(name, "*")).get(name, {})


def _shown(names: list[str], pattern: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The generations of some sites, by site and digest, by one question for all of them."""
    return _by_site(__salt__["systemd_unit.show"]([*_on_disk(names), pattern], _PROPERTIES))


def _by_site(units: dict[str, dict[str, str]]) -> dict[str, dict[str, dict[str, Any]]]:
    answer: dict[str, dict[str, dict[str, Any]]] = {}
    for unit, shown in units.items():
        found = _UNIT.fullmatch(unit)
        if found:
            answer.setdefault(found[1], {})[found[2]] = _described(found[1], found[2], shown)
    return answer


def _with_socket(name: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """A site's generations, and those units of its socket that are not active."""
    socket = list(__salt__["uwsgi_socket.names"](name).values())
    shown = __salt__["systemd_unit.show"](
        [*socket, *_on_disk([name]), _unit(name, "*")], _PROPERTIES
    )
    missing = [unit for unit in socket if shown[unit]["ActiveState"] != "active"]
    return _by_site(shown).get(name, {}), missing


def _described(name: str, digest: str, shown: dict[str, str]) -> dict[str, Any]:
    running = shown["ActiveState"] == "active"
    return {
        "unit": _unit(name, digest),
        "state": shown["ActiveState"],
        "active": running,
        "enabled": os.path.lexists(_paths(name, digest)["link"]),
        "pid": int(shown["MainPID"] or 0),
        "since": systemd.seconds(shown["ExecMainStartTimestamp"]) if running else None,
        "invocation": shown["InvocationID"],
        "reload": shown["NeedDaemonReload"] == "yes",
        "drop_ins": shown["DropInPaths"].split(),
    }


def _glanced() -> dict[str, dict[str, dict[str, Any]]]:
    """
    The generations of all sites, by site and digest: of each as much as tells whether all is as it
    should be, unless there is more to know than a glance shows.
    """
    seen = __salt__["uwsgi_socket.glance"]()
    if any(shown["stale"] for shown in seen.values()):
        return _shown(_sites(), _PATTERN)
    answer: dict[str, dict[str, dict[str, Any]]] = {}
    for unit in {*_on_disk(_sites()), *seen}:
        found = _UNIT.fullmatch(unit)
        if not found:
            continue
        shown = seen.get(unit, {"ActiveState": "inactive", "since": None})
        answer.setdefault(found[1], {})[found[2]] = {
            "unit": unit,
            "state": shown["ActiveState"],
            "active": shown["ActiveState"] == "active",
            "enabled": os.path.lexists(_paths(found[1], found[2])["link"]),
            "pid": None,
            "since": shown["since"],
            "reload": False,
            "drop_ins": [],
        }
    return answer


def _account(wanted: dict[str, Any]) -> tuple[str, str]:
    """The process's user and group, which has to read its ini: an older generation's may be others."""
    found = re.search(r"^User=(.*)\nGroup=(.*)$", wanted["unit"], re.MULTILINE)
    if not found:
        raise CommandExecutionError(f"the unit of {wanted['digest']} names no user and group")
    return found[1], found[2]


def _files(name: str, wanted: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Path, text, group and mode of a generation's files; root owns them all."""
    _, group = _account(wanted)
    paths = _paths(name, wanted["digest"])
    parts = json.dumps({**wanted["parts"], "site": name}, indent=1, sort_keys=True) + "\n"
    return [
        (paths["ini"], wanted["ini"], group, "0640"),
        (paths["env"], wanted["environment"], "root", "0600"),
        (paths["parts"], parts, "root", "0600"),
        # Last: it names the others.
        (paths["unit"], wanted["unit"], "root", "0644"),
    ]


def _differing(name: str, wanted: dict[str, Any]) -> list[str]:
    return [
        path
        for path, text, group, mode in _files(name, wanted)
        if durable_file.differs(path, text, "root", group, mode)
    ]


def _outdated(name: str, generation: dict[str, Any], digest: str) -> bool:
    """Whether a running generation is older than a file that it was made from."""
    paths = _paths(name, digest)
    made_from = [paths["ini"], paths["env"], paths["unit"], *generation["drop_ins"]]
    return any(
        os.stat(path).st_ctime > generation["since"] for path in made_from if os.path.lexists(path)
    ) or _writes_to_another(name, generation)


def _writes_to_another(name: str, generation: dict[str, Any]) -> bool:
    """Whether a running generation's log file was taken away under it, so that nobody reads it."""
    log = __salt__["uwsgi_log.path"](name)
    if log is None:
        return False
    pid = generation["pid"]
    if pid is None:
        unit = generation["unit"]
        pid = __salt__["systemd_unit.show"](unit, ["MainPID"])[unit]["MainPID"]
    descriptors = f"/proc/{pid}/fd"
    try:
        # What such a link leads to is the file that is open, also when it has no name any more.
        return not any(
            os.path.samefile(f"{descriptors}/{one}", log) for one in os.listdir(descriptors)
        )
    except FileNotFoundError:
        return not os.path.exists(log)


def _leftovers(name: str) -> list[str]:
    """What a preflight left behind that was killed in the middle."""
    entries = __salt__["host_survey.entries"]
    begin, end = _twin(name, "/").split("/")
    answer = [
        f"{_RUN_UNITS}/{entry}"
        for entry in entries(_RUN_UNITS)
        if entry.startswith(begin) and entry.endswith(end)
    ]
    mine = f"{_RUN}/{name}"
    answer += [f"{mine}/{entry}" for entry in entries(mine) if not entry.startswith(".")]
    return sorted(answer)


def _reasons(name: str, wanted: dict[str, Any], old: str | None) -> list[str]:
    """In what the new generation differs from the one that runs."""
    text = durable_file.read(_paths(name, old)["parts"]) if old else None
    if text is None:
        return []
    before = json.loads(text)
    after = wanted["parts"]
    reasons = [key for key in sorted(after) if before.get(key) != after[key]]
    if "environment" in reasons and old:
        shown = (durable_file.read(_paths(name, old)["env"]) or b"").decode()
        lines = [set(text.splitlines()) for text in (shown, wanted["environment"])]
        # Their names, and never a value.
        names = sorted({line.partition("=")[0] for line in lines[0] ^ lines[1]})
        reasons[reasons.index("environment")] = f"environment ({', '.join(names)})"
    return reasons


def lacks(name: str, digest: str | None = None) -> dict[str, Any]:
    """
    What is not yet as it should be: the wanted generation, and no other, runs and is enabled.

    name
        the site
    digest
        the generation to have instead of the one that the pillar asks for

    Returns ``digest`` and ``changes`` (empty when all is as it should be).

    Raises as :py:func:`desired` does, and CommandExecutionError when the generation of the digest
    is not on the host.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.lacks mysite
    """
    wanted = _kept(name, digest) if digest else _wanted(name)
    return {"digest": wanted["digest"], "changes": _lacks(name, wanted, _generations(name))}


def _lacks(name: str, wanted: dict[str, Any], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    digest = wanted["digest"]
    mine = found.get(digest)
    others = {other: shown for other, shown in found.items() if other != digest}
    up = sorted(
        (other for other, shown in others.items() if shown["state"] in _UP),
        key=lambda other: others[other]["since"] or 0,
    )
    changes: dict[str, Any] = {}
    if not mine or not mine["active"]:
        old = up[-1] if up else None
        changes["generation"] = {"old": old, "new": digest}
        reasons = _reasons(name, wanted, old)
        if reasons:
            changes["because of"] = {"old": None, "new": reasons}
    elif _differing(name, wanted) or _outdated(name, mine, digest) or mine["reload"]:
        changes["generation"] = {
            "old": f"{digest}, older than its files",
            "new": f"{digest}, restarted",
        }
    elif up:
        changes["stopped"] = {"old": up, "new": []}
    if not mine or not mine["enabled"]:
        changes["enabled"] = {"old": False, "new": True}
    still = sorted(other for other, shown in others.items() if shown["enabled"])
    # Part of every switch, and only worth a word when it is all that is left to do.
    if still and "generation" not in changes:
        changes["disabled"] = {"old": still, "new": []}
    failed = sorted(other for other, shown in others.items() if shown["state"] == "failed")
    if failed and "generation" not in changes:
        changes["forgotten failures"] = {"old": failed, "new": []}
    if _leftovers(name) and "generation" not in changes:
        changes["preflight"] = {"old": _leftovers(name), "new": []}
    return changes


# --- From what is to what shall be -------------------------------------------------------------


def switch(name: str, digest: str | None = None, release: str | None = None) -> dict[str, Any]:
    """
    Make the wanted generation run, and no other, without losing a request.

    name
        the site
    digest
        the generation to have instead of the one that the pillar asks for
    release
        the ID of a release on the host to run instead of the desired one

    Returns ``digest``, ``changes``, empty when nothing had to be done and nothing was touched, and
    ``left``, what is not as it should be for all that, mostly empty.

    Raises CommandExecutionError when the generation does not come up or does not answer as the
    pillar's ``health`` says; then it is gone again, and what ran before still runs and is enabled.
    Where nothing ran before, the socket is closed: nginx answers 502 at once, instead of keeping
    every visitor waiting in the queue of a socket that nobody reads.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.switch mysite
    """
    with __salt__["release_record.alone"](name, "uwsgi_generation.switch"):
        return _switch(name, digest, release)


def _switch(name: str, digest: str | None, release: str | None) -> dict[str, Any]:
    wanted = _kept(name, digest) if digest else _wanted(name, release)
    found, missing = _with_socket(name)
    changes = _lacks(name, wanted, found)
    if not changes:
        return {"digest": wanted["digest"], "changes": {}, "left": {}}
    _clear(name)
    if "generation" in changes:
        leaves = elsewhere(name)
        if missing and not leaves:
            raise CommandExecutionError(
                f"{missing[0]} is not active, so there is no socket for a generation to inherit"
            )
        try:
            _need_program(name, wanted)
            seconds = _taken_over(name, wanted, found, leaves)
        except CommandExecutionError:
            if not _serves(_generations(name)):
                _close(name)
            raise
        changes["health"] = {"old": None, "new": f"{_asked(name)} in {seconds:g} s"}
    elif "enabled" in changes:
        # It was started by a run that was killed before it had an answer.
        _health(_site(name), _site(name)["socket"]["path"])
    _settle(name, wanted["digest"], found)
    left = _lacks(name, wanted, _generations(name))
    if "generation" in changes or "enabled" in changes:
        _note(name)
    return {"digest": wanted["digest"], "changes": changes, "left": left}


def _serves(found: dict[str, dict[str, Any]]) -> bool:
    return any(shown["state"] in _UP for shown in found.values())


def serves(name: str) -> bool:
    """
    Whether any generation of a site is up, the one that the pillar asks for or another.

    name
        the site

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.serves mysite
    """
    return _serves(_generations(name))


def close(name: str) -> bool:
    """
    Close a site's socket where no generation reads it, so that nginx answers 502 at once instead of
    keeping every visitor waiting. :py:func:`uwsgi_socket.listening` opens it again.

    name
        the site

    Returns True when it was open.

    Raises CommandExecutionError when a generation is up, or systemd does not obey.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.close mysite
    """
    if serves(name):
        raise CommandExecutionError(f"a generation of {name} is up and reads its socket")
    shown = __salt__["uwsgi_socket.units"](name)
    opened = any(unit["ActiveState"] not in ("inactive", "failed") for unit in shown.values())
    if opened:
        _close(name)
    return opened


def _taken_over(
    name: str, wanted: dict[str, Any], found: dict[str, dict[str, Any]], leaves: list[str]
) -> float:
    """
    Bring up a generation that answers the health question.

    Where one serves, it is asked first, on a private socket. Where none does, there is nothing to
    spare: it is started where it belongs, once instead of twice, and asked there.

    found
        the site's generations
    leaves
        the sockets of those that serve, where the pillar has another path

    Returns the seconds that the answer took.
    """
    if not _serves(found):
        return _bring_up(name, wanted, found.get(wanted["digest"]), ask=True)
    seconds = _preflight(name, wanted)
    if leaves:
        __salt__["uwsgi_socket.listen"](name)
    try:
        _bring_up(name, wanted, _generations(name).get(wanted["digest"]))
    except CommandExecutionError:
        if leaves:
            __salt__["uwsgi_socket.lead"](name, leaves[-1])
        raise
    return seconds


def _close(name: str) -> None:
    """
    Stop and disable the socket that no generation reads; :py:func:`uwsgi_socket.listening` opens
    it again in the next run.
    """
    units = list(__salt__["uwsgi_socket.names"](name).values())
    # Disabled as well: after a reboot it would be open again, and nobody there.
    __salt__["systemd_unit.disable"](units)
    __salt__["systemd_unit.stop"](units)


def _need_program(name: str, wanted: dict[str, Any]) -> None:
    if not os.access(wanted["program"], os.X_OK):
        raise CommandExecutionError(f"{wanted['program']} is not there or not executable")
    why = _refusal(name, wanted)
    if why:
        raise CommandExecutionError(why)


def refusal(name: str, digest: str | None = None) -> str | None:
    """
    Why a site's uWSGI will not run its generation, as far as uWSGI itself tells without starting
    it: it is not uWSGI, cannot be executed by the site's user, has no Python or another than the
    virtual environment, or does not know an option. Changes nothing.

    name
        the site
    digest
        the generation instead of the one that the pillar asks for

    Returns a sentence; None when nothing speaks against it, or when that cannot be told yet because
    uWSGI, the virtual environment or the user is not there.

    Raises as :py:func:`desired` does.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.refusal mysite
    """
    return _refusal(name, _kept(name, digest) if digest else _wanted(name))


def _refusal(name: str, wanted: dict[str, Any]) -> str | None:
    program, venv = wanted["program"], wanted["parts"]["venv"]["path"]
    pythons = _sorted_glob(venv, "lib/python3.*")
    user, group = _account(wanted)
    site = _site(name)
    if program == site["uwsgi"]["binary"] and not os.access(program, os.X_OK):
        project = site["project"]
        hooked = any(isinstance(words, list) and words for words in project["hooks"].values())
        # A hook may install it, or a release bring it.
        if not hooked and not _within(program, [project["path"]]):
            return (
                f"nginx_uwsgi_django:sites:{name}:uwsgi:binary: found {program!r}, which is no "
                "executable file of this host; expected the path of uWSGI's executable"
            )
    if not os.access(program, os.X_OK) or not pythons:
        return None
    try:
        pwd.getpwnam(user), grp.getgrnam(group)
    except KeyError:
        return None
    where = f"{program} (nginx_uwsgi_django:sites:{name}:uwsgi)"
    names = [os.path.basename(path) for path in pythons]
    with open(program, "rb") as stream:
        first = stream.readline(256)
    if first[:2] == b"#!" and os.path.realpath(os.path.dirname(program)) != os.path.realpath(
        f"{venv}/bin"
    ):
        return (
            f"{where} is a script ({first.decode(errors='replace').strip()}), not uWSGI's own "
            "executable: pyuwsgi serves no other virtual environment than the one it is installed "
            f"in, and the site's is {venv}"
        )
    # What it said to one site it says to the next with the same configuration. What a project's own
    # ini takes from other files is not in the text.
    memory = __context__.setdefault("uwsgi_generation.accepted", set())
    text = re.sub(rf"\b{re.escape(name)}\b", "NAME", wanted["ini"].replace(wanted["digest"], ""))
    question = (json.dumps(wanted["parts"]["programs"]), tuple(names), text)
    alike = _is_for_all(program) and not _site(name)["uwsgi"]["ini"]
    if alike and question in memory:
        return None
    # Read from standard input, so that nothing has to be written; strict mode refuses an option
    # that this uWSGI or its plugins do not know while it reads, and --python-version ends it before
    # any value is looked at (a project's own ini may have a command in one).
    done = programs.run_as(
        user,
        group,
        [program, "--ini", "-", "--python-version"],
        "/",
        {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        30,
        stdin=uwsgi_ini.question(wanted["ini"]),
    )
    said = done["stdout"].strip().splitlines()
    if done["timed_out"]:
        return f"{where} does not say within 30 s which Python it has"
    if done["retcode"] in (126, 127):
        return f"{where} cannot be executed by {user}: {' '.join(said)}"
    unknown = re.search(r"unknown config directive: (\S+)", done["stdout"])
    if unknown and unknown[1] in ("home", "module"):
        return (
            f"{where} has no Python: the distribution's is run with `package: distro`, which loads "
            "its plugin"
        )
    if unknown:
        if unknown[1] in _site(name)["uwsgi"]["options"]:
            return f"{where} does not know the option {unknown[1]} (uwsgi:options)"
        return (
            f"{where} does not know the option {unknown[1]} (uwsgi:ini); a name of the project's own "
            f"is declared there by `set-placeholder = {unknown[1]}=...`"
        )
    if done["retcode"]:
        return f"{where} does not take its configuration: {' '.join(said[-3:])}"
    version = re.fullmatch(r"(3\.\d+)\.\d+\S*", said[-1] if said else "")
    if not version:
        return f"{where} is no uWSGI: asked for its Python it says {(said or ['nothing'])[-1]!r}"
    if f"python{version[1]}" not in names:
        return (
            f"{where} has Python {version[0]}, and {venv} is of {', '.join(names)}: they have to "
            "be of one version"
        )
    memory.add(question)
    return None


def _is_for_all(program: str) -> bool:
    """Whether every user may execute a program, as far as permissions tell."""
    path = os.path.realpath(program)
    folders = []
    while path != os.path.dirname(path):
        folders.append(path)
        path = os.path.dirname(path)
    return all(os.stat(each).st_mode & 0o001 for each in folders)


def _clear(name: str) -> None:
    """Remove what is left of a preflight that was killed."""
    left = _leftovers(name)
    if not left:
        return
    units = [os.path.basename(path) for path in left if path.startswith(_RUN_UNITS)]
    if units:
        __salt__["systemd_unit.stop"](units)
        __salt__["systemd_unit.reset_failed"](units)
    # systemd drops a unit that is down, not failed and not wanted by another from its memory by
    # itself: nothing is left that a daemon-reload would have to take away.
    for path in left:
        durable_file.remove(path)


def _asked(name: str) -> str:
    health = _site(name)["health"]
    return f"GET {health['path']} for {health['host']}"


def _twin_text(name: str, digest: str, unit: str, ini: str, env: str, start: int) -> str:
    """
    The unit of a preflight: the generation's own with its drop-ins, with the same sandbox, but on
    its own: without the socket and whatever ties it to the site, and not to be tried again.
    """
    escape = systemd.escape
    own = {
        "Description": f'Preflight of the Django site "{name}", generation {digest}',
        "EnvironmentFile": escape(env),
        "TimeoutStartSec": str(start),
        # Nobody's request is in it when it is stopped, and it may hang.
        "KillSignal": "SIGKILL",
        "TimeoutStopSec": "5",
        "Restart": "no",
        "RuntimeDirectory": f"uwsgi-{name}.preflight@{digest}",
    }
    kept = []
    for line in unit.split("[Install]")[0].split("\n"):
        key, _, value = line.partition("=")
        if _tied(name, key, value):
            continue
        if key == "ExecStart":
            value = re.sub(r" --ini .*$", "", value) + f" --ini {escape(ini, command=True)}"
        kept.append(f"{key}={own.get(key, value)}" if "=" in line else line)
        if key == "KillSignal":
            # That it is killed in the end is no failure that an operator should read of.
            kept.append("SuccessExitStatus=SIGKILL")
    for path in __salt__["systemd_unit.drop_ins"](_unit(name, digest)):
        text = (durable_file.read(path) or b"").decode("utf-8", "replace")
        # Lines that a backslash continues are one.
        for line in re.sub(r"\\\n", " ", text).split("[Install]")[0].split("\n"):
            key, _, value = line.partition("=")
            # What the twin has of its own stays; EnvironmentFile= adds to it.
            mine = key.strip() in {*own, "ExecStart"} - {"EnvironmentFile"}
            if not mine and not _tied(name, key.strip(), value):
                kept.append(line)
    return "\n".join(kept) + "\n"


def _tied(name: str, key: str, value: str) -> bool:
    """Whether a line of a generation's unit ties it to its site, or is of no use in a preflight."""
    return (
        key in ("PartOf", "Before", "Sockets", "OOMPolicy", "StartLimitIntervalSec")
        # Its last words are asked of the journal.
        or key.startswith("Standard")
        or (key == "After" and name in value)
    )


def _preflight(name: str, wanted: dict[str, Any]) -> float:
    """
    Ask the generation's twin for the health path on a private socket.

    Returns the seconds that the answer took; raises CommandExecutionError with what the twin said.
    """
    site = _site(name)
    digest = wanted["digest"]
    _, group = _account(wanted)
    unit = _twin(name, digest)
    socket = f"/run/uwsgi-{name}.preflight@{digest}/uwsgi.sock"
    directory = f"{_RUN}/{name}"
    ini, env = f"{directory}/{digest}.ini", f"{directory}/{digest}.env"
    start = site["uwsgi"]["start_timeout"]
    durable_file.directory(_RUN)
    durable_file.directory(directory)
    durable_file.directory(_RUN_UNITS)
    write = durable_file.write
    try:
        write(ini, uwsgi_ini.preflight(wanted["ini"], socket), "root", group, "0640")
        write(env, wanted["environment"], "root", "root", "0600")
        write(f"{_RUN_UNITS}/{unit}", _twin_text(name, digest, wanted["unit"], ini, env, start))
        __salt__["systemd_unit.read_anew"](unit)
        try:
            __salt__["systemd_unit.start"](unit, timeout=start + 15)
            return _health(site, socket)
        except CommandExecutionError as error:
            invocation = __salt__["systemd_unit.show"](unit, ["InvocationID"])[unit]
            words = __salt__["systemd_unit.journal"](
                unit, 20, invocation=invocation["InvocationID"] or None
            )
            raise CommandExecutionError(
                f"the new generation {digest} did not pass its preflight: {error}"
                + _last_words(words)
            ) from error
    finally:
        _clear(name)


def _last_words(lines: list[str]) -> str:
    return "\nThe journal's last lines:\n" + "\n".join(f"  {line}" for line in lines or ["(none)"])


def _question(site: dict[str, Any], socket: str) -> dict[str, Any]:
    """The site's question, as nginx asks it: by HTTPS where visitors come so."""
    health, secure = site["health"], site["tls"]["source"] or site["load_balancer"]
    variables = {"HTTPS": "on", "REQUEST_SCHEME": "https", "HTTP_X_FORWARDED_PROTO": "https"}
    return {
        "socket_path": socket,
        "path": health["path"],
        "host": health["host"],
        "timeout": health["timeout"],
        "variables": variables if secure else None,
    }


def question(name: str) -> dict[str, Any]:
    """
    What a site's uWSGI is asked to tell whether it is well.

    name
        the site

    Returns the arguments of :py:func:`uwsgi_request.get`, for the socket of the pillar.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.question mysite
    """
    site = _site(name)
    return _question(site, site["socket"]["path"])


def _answer(site: dict[str, Any], socket: str) -> dict[str, Any]:
    return uwsgi_protocol.get(**_question(site, socket))


def _fault(site: dict[str, Any], answer: dict[str, Any]) -> str | None:
    question = _question(site, "")
    secure = bool(question["variables"])
    visit = {
        "url": f"{'https' if secure else 'http'}://{question['host']}{question['path']}",
        "host": question["host"],
        "status": site["health"]["status"],
        "names": [*site["server_names"], *site["redirect_from"]],
        # A load balancer and nginx's own TLS are in the question: it is asked as if by HTTPS.
        "secure_ports": [],
        "balanced": False,
        "secure": secure,
        "closed": [],
    }
    why = __salt__["site_visit.fault"](visit, answer["status"], answer["headers"])
    if why and answer["status"] == 400:
        why += f" (Django's answer to a host that ALLOWED_HOSTS does not have: {visit['host']})"
    return f"{_asked(site['name'])} {why}" if why else None


def fault(name: str, answer: dict[str, Any]) -> str | None:
    """
    Why an answer of a site's uWSGI to :py:func:`question` does not mean that it is healthy.

    name
        the site
    answer
        what :py:func:`uwsgi_request.get` returned

    Returns a sentence, or None.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.fault mysite '{"status": 500, "headers": {}}'
    """
    return _fault(_site(name), answer)


def _health(site: dict[str, Any], socket: str) -> float:
    answer = _answer(site, socket)
    why = _fault(site, answer)
    if why:
        raise CommandExecutionError(why)
    return answer["seconds"]


def _proof(name: str) -> tuple[str, str]:
    """Where it is noted which health question was answered well, and the question of the pillar."""
    site = _site(name)
    question = _question(site, "")
    words = [question["host"], question["path"], bool(question["variables"])]
    return f"{_RUN}/{name}.health", json.dumps([*words, sorted(site["health"]["status"])])


def proven(name: str) -> bool:
    """
    Whether the site has answered the pillar's health question since the host was booted.

    name
        the site

    Returns False, too, where the pillar asks another question than the site has answered.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.proven mysite
    """
    path, question = _proof(name)
    return durable_file.read(path) == question.encode()


def prove(name: str, test: bool = False) -> None:
    """
    Ask the generation that runs the pillar's health question, unless it has been answered before.

    name
        the site
    test
        True: that it was answered is not noted

    Raises CommandExecutionError when the answer is not one that the pillar calls healthy.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.prove mysite
    """
    if proven(name):
        return
    _health(_site(name), _site(name)["socket"]["path"])
    if not test:
        _note(name)


def _note(name: str) -> None:
    path, question = _proof(name)
    durable_file.directory(_RUN)
    durable_file.write(path, question)


def _bring_up(
    name: str, wanted: dict[str, Any], seen: dict[str, Any] | None, ask: bool = False
) -> float:
    """
    Start a generation beside the one that runs.

    seen
        what the host has of it; None where it has nothing, so that systemd reads its unit's file
        when it is to start it
    ask
        it has passed no preflight: one that does not answer as it should is taken back

    Returns the seconds that the answer took, 0 when it was not asked.
    """
    digest = wanted["digest"]
    unit = _unit(name, digest)
    lookup = _lookup()
    timeout = _site(name)["uwsgi"]["start_timeout"]
    stop = _site(name)["uwsgi"]["stop_timeout"]
    new = not os.path.lexists(_paths(name, digest)["parts"])
    durable_file.directory(lookup["uwsgi_dir"])
    durable_file.directory(f"{lookup['uwsgi_dir']}/{name}")
    for path, text, group, mode in _files(name, wanted):
        durable_file.write(path, text, "root", group, mode)
    running = seen is not None and seen["state"] in _UP
    if seen is not None:
        __salt__["systemd_unit.read_anew"](unit)
    try:
        if running:
            # The same digest cannot run twice.  The socket is systemd's: connections wait.
            _idle(name, digest, stop)
            __salt__["systemd_unit.restart"](unit, timeout=stop + timeout + 15)
        else:
            __salt__["systemd_unit.start"](unit, timeout=timeout + 15)
        _up(name, digest, timeout)
        return _health(_site(name), _site(name)["socket"]["path"]) if ask else 0
    except CommandExecutionError as error:
        shown = __salt__["systemd_unit.show"](unit, ["InvocationID"])[unit]
        words = __salt__["systemd_unit.journal"](unit, 20, invocation=shown["InvocationID"] or None)
        if __salt__["uwsgi_log.path"](name):
            words += __salt__["uwsgi_log.tail"](name, 20)
        if not running:
            __salt__["systemd_unit.stop"](unit, timeout=stop + 15)
            __salt__["systemd_unit.reset_failed"](unit)
        if new:
            _forget(name, digest)
            __salt__["systemd_unit.daemon_reload"]()
        raise CommandExecutionError(
            f"the new generation {digest} does not run: {error}" + _last_words(words)
        ) from error


def _up(name: str, digest: str, timeout: float) -> None:
    """Wait until every worker of a generation accepts requests."""
    socket = _paths(name, digest)["stats"]
    deadline = time.monotonic() + timeout
    while True:
        try:
            workers = uwsgi_protocol.stats(socket, timeout=5)["workers"]
            waiting = [
                str(worker["id"])
                for worker in workers
                if worker["status"] != "cheap" and not worker["accepting"]
            ]
            lacking = f"worker {', '.join(waiting)} does not accept requests" if waiting else None
        except CommandExecutionError as error:
            lacking = str(error)
        if lacking is None:
            return
        state = __salt__["systemd_unit.show"](_unit(name, digest), ["ActiveState"])
        if state[_unit(name, digest)]["ActiveState"] != "active":
            raise CommandExecutionError("it ended after it had started")
        if time.monotonic() > deadline:
            raise CommandExecutionError(f"{lacking}, {timeout:g} s after the start")
        time.sleep(0.05)


def _socket_of(name: str, digest: str) -> str | None:
    """The path that a generation listens on, from its ini."""
    ini = durable_file.read(_paths(name, digest)["ini"]) or b""
    found = re.search(rb"^socket *= *(\S+)$", ini, re.MULTILINE)
    return found[1].decode() if found else None


def elsewhere(name: str) -> list[str]:
    """
    The sockets that a site's generations listen on while the pillar says another path.

    name
        the site

    Returns a list of paths.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.elsewhere mysite
    """
    wanted = _site(name)["socket"]["path"]
    directory = f"{_lookup()['uwsgi_dir']}/{name}"
    digests = [
        os.path.basename(path)[: -len(".ini")]
        for path in glob.glob(f"{glob.escape(directory)}/*.ini")
    ]
    others = {
        digest: path
        for digest in digests
        if (path := _socket_of(name, digest)) is not None and path != wanted
    }
    # Mostly there is none, and systemd need not be asked.
    found = _generations(name) if others else {}
    return sorted(
        {path for digest, path in others.items() if found.get(digest, {}).get("state") in _UP}
    )


def _lead_over(name: str, timeout: float) -> None:
    """
    Whoever asks at a path that the socket has left comes to the new one: nginx, until it is told
    the new path.  What has come to the old socket is taken by the old generation.
    """
    for path in elsewhere(name):
        durable_file.link(path, _site(name)["socket"]["path"])
        deadline = time.monotonic() + timeout
        # Nobody adds to the queue any more, but for a connect(2) that was under way.
        time.sleep(0.1)
        while __salt__["uwsgi_socket.queue"](path) and time.monotonic() < deadline:
            time.sleep(0.02)


def _settle(name: str, digest: str, found: dict[str, dict[str, Any]]) -> None:
    """
    Enable a generation that is up, then let every other finish its requests and stop.

    found
        the generations that there were before it was started
    """
    stop = _site(name)["uwsgi"]["stop_timeout"]
    if set(found) - {digest}:
        found = _generations(name)
    others = {other: shown for other, shown in found.items() if other != digest}
    paths = _paths(name, digest)
    durable_file.directory(os.path.dirname(paths["link"]))
    # What ran before: where a rollback goes.
    before = [other for other, shown in others.items() if shown["enabled"]]
    if before and os.path.lexists(_paths(name, before[0])["parts"]):
        durable_file.link(_previous(name), f"{before[0]}.json")
    # First the new link, then the old ones away: a host reset between the two has both.
    changed = durable_file.link(paths["link"], paths["unit"])
    for other in others:
        changed |= durable_file.remove(_paths(name, other)["link"])
    _sweep(name, digest, found)
    # Before anything is stopped: systemd would start again what it believes to be wanted.
    __salt__["systemd_unit.daemon_reload"](force=changed, later=not others)
    _lead_over(name, stop)
    for other, shown in others.items():
        if shown["state"] in _UP:
            if shown["state"] == "active" and not _idle(name, other, stop):
                __salt__["systemd_unit.stop"](shown["unit"], wait=False)
                __salt__["systemd_unit.kill"](shown["unit"], "SIGKILL", "all")
            __salt__["systemd_unit.stop"](shown["unit"], timeout=stop + 15)
    if others:
        __salt__["systemd_unit.reset_failed"]([shown["unit"] for shown in others.values()])


def _idle(name: str, digest: str, timeout: float) -> bool:
    """Whether a generation may be stopped gracefully; if not, its time is over."""
    try:
        return drain(name, digest, timeout)
    except CommandExecutionError:
        # It does not answer on its statistics socket, or has ended meanwhile.  Its stop is as
        # graceful as uWSGI's is, and systemd's time limit is on it.
        return True


def _previous(name: str) -> str:
    return f"{_lookup()['uwsgi_dir']}/{name}/previous"


def _created(name: str, digest: str) -> float:
    try:
        return os.stat(_paths(name, digest)["parts"]).st_mtime
    except FileNotFoundError:
        return 0.0


def _sweep(name: str, digest: str, found: dict[str, dict[str, Any]]) -> None:
    """Remove the files of all but the newest generations."""
    known = set(found)
    directory = f"{_lookup()['uwsgi_dir']}/{name}"
    for path in glob.glob(f"{glob.escape(directory)}/*.json"):
        known.add(os.path.basename(path)[: -len(".json")])
    newest = sorted(known - {digest}, key=lambda other: _created(name, other), reverse=True)
    previous = _ran_before(name)
    # False sorts first.
    newest.sort(key=lambda other: other != previous)
    for other in newest[_KEEP - 1 :]:
        if other not in found or found[other]["state"] not in _UP:
            _forget(name, other)


def _ran_before(name: str) -> str | None:
    """The generation that was enabled before the one that is."""
    try:
        return os.readlink(_previous(name)).removesuffix(".json")
    except FileNotFoundError:
        return None


def _forget(name: str, digest: str) -> None:
    paths = _paths(name, digest)
    left = _socket_of(name, digest)
    if left and os.path.islink(left):
        durable_file.remove(left)
    for key in ("link", "unit", "ini", "env", "parts"):
        durable_file.remove(paths[key])


# --- Letting a generation finish ---------------------------------------------------------------

# What uWSGI's single-threaded workers do at SIGTERM has a gap.  gracefully_kill() of core/uwsgi.c
# lets a worker finish its request if in_request is set, and else exits at once; but between
# accept4() in wsgi_req_accept() and in_request = 1 in wsgi_req_recv() (core/utils.c) a worker has
# taken a connection from the queue and not set it yet: a signal there loses the request.
# Pausing (SIGTSTP to the master) has no such gap: the handler in the worker does nothing, and the
# worker stops taking connections when it next comes to wsgi_req_setup(), its request answered.
# There it sleeps in poll(NULL, 0, 10000), where the later signal finds it idle for certain.
# The other way round, one that has passed the check in wsgi_req_setup() and not reached its wait
# for connections misses the signal, and stays in epoll_wait(); sending it the signal again wakes
# it up to the check.
# A worker with several threads is the opposite: its threads are stopped through a pipe, without a
# gap, and a paused thread never looks at it, so it must not be paused.


def _worker_state(pid: int) -> str:
    """
    ``paused``, ``waiting`` (in its wait for connections), ``busy``, ``gone`` or ``unknown``.

    By the system call that it is in, from proc(5): the number, then the arguments. A paused worker
    polls no descriptor for a while; what Python's time.sleep() may do, select(0, NULL, NULL, …),
    has a third argument of 0.
    """
    try:
        with open(f"/proc/{pid}/syscall", encoding="ascii") as stream:
            call = stream.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    except PermissionError:
        # A container whose root may not trace.
        return "unknown"
    if len(call) < 4:
        return "busy"
    if call[1:3] == ["0x0", "0x0"] and call[3] != "0x0":
        return "paused"
    return "waiting"


def drain(name: str, digest: str | None = None, timeout: float = 60) -> bool:
    """
    Let a generation answer the requests that it has and take no more: new connections stay in the
    socket's queue for another generation. It can only be stopped afterwards.

    name
        the site
    digest
        the generation; by default the one that runs
    timeout
        seconds

    Returns True when it is idle, or needs no such care (several threads in a worker), False when
    requests are still running at the end of the time.

    Raises CommandExecutionError when no such generation runs.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.drain mysite 4f2a9c01d7e3
    """
    digest, shown = _running(name, digest)
    ini = durable_file.read(_paths(name, digest)["ini"]) or b""
    threads = re.findall(rb"^threads *= *(\d+)", ini, re.MULTILINE)
    if re.search(rb"^(async|gevent|asyncio|ugreen) *=", ini, re.MULTILINE):
        return True
    if threads and int(threads[-1]) > 1:
        return True
    socket = _paths(name, digest)["stats"]
    began = time.monotonic()
    told: float | None = None
    while True:
        workers = [
            worker
            for worker in uwsgi_protocol.stats(socket, timeout=5)["workers"]
            if worker["pid"] > 0 and worker["status"] != "cheap"
        ]
        now = time.monotonic()
        statuses = {worker["status"] for worker in workers}
        # First what uWSGI says, then what the kernel does: a worker that is at a request is busy
        # whatever it waits for.
        open_ = []
        for worker in workers:
            state = "busy" if worker["status"] == "busy" else _worker_state(worker["pid"])
            if state == "unknown" and worker["status"] == "pause":
                # Woken up that often, it has come to the check.
                state = "paused" if told is not None and now - told > 0.5 else "waiting"
            if state not in ("paused", "gone"):
                open_.append(worker["pid"])
        if not open_ and "idle" not in statuses:
            return True
        if now - began > timeout:
            return False
        # The master's signal pauses and resumes by turns, and a run that was killed may have sent
        # it before.  A worker that is not busy tells which it is; when all are busy for long, that
        # nobody has sent it is the likelier, and a worker that is idle later says otherwise.
        if ("idle" in statuses and (told is None or now - told > 1)) or (
            told is None and "pause" not in statuses and now - began > 1
        ):
            told = now
            os.kill(shown["pid"], signal.SIGTSTP)
        else:
            if told is None and "pause" in statuses:
                told = now
            for pid in open_:
                _wake(pid)
        time.sleep(0.02)


def _wake(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTSTP)
    except ProcessLookupError:
        return


def _running(name: str, digest: str | None) -> tuple[str, dict[str, Any]]:
    found = _generations(name)
    if digest is None:
        up = [other for other in found if found[other]["active"]]
        if len(up) != 1:
            raise CommandExecutionError(
                f"{name} has {len(up) or 'no'} running generation{'s' if len(up) > 1 else ''}"
                + (": name one of " + ", ".join(sorted(up)) if up else "")
            )
        digest = up[0]
    if digest not in found or not found[digest]["active"]:
        raise CommandExecutionError(f"the generation {digest} of {name} does not run")
    return digest, found[digest]


# --- Questions of an operator ------------------------------------------------------------------


def _when(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def resident(pid: int) -> int:
    """
    The memory of a process; uWSGI itself looks at it only when told to.

    pid
        its number

    Returns bytes; 0 when the process is gone.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.resident 4711
    """
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def list_(name: str) -> list[dict[str, Any]]:
    """
    The generations of a site that are on the host, the newest first.

    name
        the site

    Returns a list of dictionaries: ``digest``, ``state`` (as systemd calls it), ``enabled``,
    ``since`` (when it was started, None when it does not run), ``created``, ``release`` and
    ``venv`` (their digests).

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.list mysite
    """
    answer = []
    for digest, shown in _generations(name).items():
        text = durable_file.read(_paths(name, digest)["parts"])
        parts = json.loads(text) if text else {"release": {}, "venv": {}}
        answer.append(
            {
                "digest": digest,
                "state": shown["state"],
                "enabled": shown["enabled"],
                "since": _when(shown["since"]),
                "created": _when(_created(name, digest) or None),
                "release": parts["release"].get("id"),
                "venv": parts["venv"].get("digest"),
            }
        )
    return sorted(answer, key=lambda one: one["created"] or "", reverse=True)


def made_of(name: str, digest: str) -> dict[str, Any]:
    """
    What a generation on this host was made of, and whether its files still are what they were.

    Its name is the digest of all that, so that the host itself tells what somebody has edited.

    name
        the site
    digest
        the generation

    Returns ``release`` and ``venv`` (their digests; None when that is not known any more) and
    ``drift``, by path what has become of a file.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.made_of mysite 4f2a9c01d7e3
    """
    paths = _paths(name, digest)
    texts = {key: durable_file.read(paths[key]) for key in ("parts", "ini", "env", "unit")}
    drift = {paths[key]: "is gone" for key, text in texts.items() if text is None}
    try:
        parts = json.loads(texts["parts"] or b"{}")
    except ValueError:
        parts = {}
    parts.pop("site", None)
    if texts["parts"] is not None and _digest(parts) != digest:
        drift[paths["parts"]] = "was edited"
        parts = {}
    for key, part in (("ini", "ini"), ("env", "environment"), ("unit", "unit")):
        text = texts[key]
        if text is not None and parts:
            # As it was before the digest was known.
            text = text.replace(digest.encode(), _DIGEST.encode())
            if hashlib.sha256(text).hexdigest() != parts[part]:
                drift[paths[key]] = "was edited"
    return {
        "release": parts.get("release", {}).get("id"),
        "venv": parts.get("venv", {}).get("digest"),
        "drift": drift,
    }


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def status(name: str) -> dict[str, Any]:
    """
    How a site's uWSGI is doing.

    name
        the site

    Returns ``digest`` (what runs; None when nothing does), ``unit``, ``enabled``, ``since``,
    ``version`` (of uWSGI), ``workers`` (each with ``pid``, ``status``, ``requests``,
    ``exceptions``, ``rss`` in bytes and ``average_ms``), ``requests``, ``listen_queue`` (connections
    that wait), ``socket`` (see :py:func:`uwsgi_socket.status`) and ``health`` (the status of the
    health path, or what went wrong with asking for it).

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.status mysite
    """
    found = _generations(name)
    up = sorted(
        (other for other in found if found[other]["active"]),
        key=lambda other: found[other]["since"] or 0,
    )
    held = __salt__["uwsgi_socket.status"](name)
    answer: dict[str, Any] = {"digest": None, "socket": held, "health": None}
    if not up:
        return answer
    digest = up[-1]
    shown = found[digest]
    answer.update(
        digest=digest,
        unit=shown["unit"],
        enabled=shown["enabled"],
        since=_when(shown["since"]),
    )
    if len(up) > 1:
        answer["besides"] = up[:-1]
    told = uwsgi_protocol.stats(_paths(name, digest)["stats"])
    answer.update(
        version=told["version"],
        # uWSGI's own number is 0 for every unix socket.
        listen_queue=__salt__["uwsgi_socket.queue"](held["path"]),
        requests=sum(worker["requests"] for worker in told["workers"]),
        workers=[
            {
                "pid": worker["pid"],
                "status": worker["status"],
                "requests": worker["requests"],
                "exceptions": worker["exceptions"],
                "rss": resident(worker["pid"]),
                "average_ms": worker["avg_rt"] // 1000,
            }
            for worker in told["workers"]
        ],
    )
    try:
        answer["health"] = _answer(_site(name), held["path"])["status"]
    except CommandExecutionError as error:
        answer["health"] = str(error)
    return answer


def rollback(name: str, digest: str | None = None) -> dict[str, Any]:
    """
    Go back to a generation of the same release that is still on the host, to what the pillar
    said of it then: the same way, with the same checks, as any other switch.

    The next ``state.apply`` brings what the pillar says, unless it says the same by then. The way
    back to another release is :py:func:`site_rollback.rollback`, which stays.

    name
        the site
    digest
        the generation; by default the one that ran before

    Returns ``digest`` and ``changes``.

    Raises CommandExecutionError when there is none, when it ran another release, when its virtual
    environment is gone, or as :py:func:`switch` does.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.rollback mysite
    """
    with __salt__["release_record.alone"](name, "uwsgi_generation.rollback"):
        return _rollback(name, digest)


def serving(name: str) -> str | None:
    """
    The release that the site's uWSGI runs, whatever ``current`` says.

    name
        the site

    Returns its ID; that of ``current`` when no generation runs.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.serving mysite
    """
    for generation in __salt__["uwsgi_generation.list"](name):
        if generation["state"] == "active" and generation["enabled"]:
            return generation["release"]
    return __salt__["django_release.current"](name)


def _rollback(name: str, digest: str | None) -> dict[str, Any]:
    if digest is None:
        digest = _ran_before(name)
        if digest is None:
            raise CommandExecutionError(f"no generation of {name} ran before on this host")
    release = _kept(name, digest)["parts"]["release"]["id"]
    if release != serving(name):
        raise CommandExecutionError(
            f"the generation {digest} ran another release: site_rollback.rollback {name} "
            f"{release} goes back to it"
        )
    return switch(name, digest)


def reload(name: str) -> dict[str, Any]:
    """
    Start the generation that runs anew, if it still passes its preflight: for what no file tells,
    like a worker that leaks.

    Requests in flight are finished, new connections wait until it is up again.

    name
        the site

    Returns ``digest`` and ``seconds``, the time that connections had to wait.

    Raises CommandExecutionError when not exactly one generation runs, or as :py:func:`switch` does.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.reload mysite
    """
    digest, _ = _running(name, None)
    wanted = _kept(name, digest)
    _clear(name)
    _preflight(name, wanted)
    started = time.monotonic()
    _bring_up(name, wanted, _generations(name).get(digest))
    return {"digest": digest, "seconds": round(time.monotonic() - started, 3)}


def logs(name: str, lines: int = 50, digest: str | None = None) -> list[str]:
    """
    The last lines that a site's generations wrote.

    name
        the site
    lines
        how many at most
    digest
        of this generation only, from the journal: where the pillar has a log file, the journal has
        what systemd says of the generation, and no more

    Returns a list of lines, the oldest first: of the log file where the pillar has one, else of the
    journal, with time and host.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.logs mysite 100
    """
    if digest is None and __salt__["uwsgi_log.path"](name):
        return __salt__["uwsgi_log.tail"](name, lines)
    return __salt__["systemd_unit.journal"](_unit(name, digest or "*"), lines, output="short-iso")


# --- No generation at all ----------------------------------------------------------------------


def remains(name: str) -> list[str]:
    """
    What is on the host of a site's generations: units that are up, and files.

    name
        the site

    Returns a list of unit names and paths, empty when there is nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.remains mysite
    """
    found = _generations(name)
    answer = [shown["unit"] for shown in found.values() if shown["state"] in _UP]
    lookup = _lookup()
    answer += [f"{lookup['unit_dir']}/{unit}" for unit in _on_disk([name])]
    wants = f"{lookup['unit_dir']}/uwsgi-{name}.service.wants"
    for directory in (wants, f"{lookup['uwsgi_dir']}/{name}"):
        if os.path.lexists(directory):
            answer.append(directory)
    return [*answer, *_leftovers(name)]


def remove(name: str) -> bool:
    """
    Stop all generations of a site and remove their files.

    The caller stops and disables the socket with it (:py:func:`uwsgi_socket.absent`); until then
    connections wait in its queue.

    name
        the site

    Returns True when something was removed.

    Raises CommandExecutionError when a unit does not stop; OSError when a directory holds what is
    not ours.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.remove mysite
    """
    if not remains(name):
        return False
    lookup = _lookup()
    _clear(name)
    found = _generations(name)
    for digest in found:
        durable_file.remove(_paths(name, digest)["link"])
    __salt__["systemd_unit.daemon_reload"](force=True, later=True)
    if found:
        units = [shown["unit"] for shown in found.values()]
        __salt__["systemd_unit.stop"](units, timeout=_stop_timeout(name) + 15)
        __salt__["systemd_unit.reset_failed"](units)
    directory = f"{lookup['uwsgi_dir']}/{name}"
    wants = f"{lookup['unit_dir']}/uwsgi-{name}.service.wants"
    durable_file.remove(_previous(name))
    durable_file.remove(f"{_RUN}/{name}.health")
    digests = {
        os.path.basename(path).split(".")[0] for path in glob.glob(f"{glob.escape(directory)}/*.*")
    }
    # A link may have outlived the unit that somebody has removed by hand.
    linked = map(_UNIT.fullmatch, __salt__["host_survey.entries"](wants))
    for digest in {*found, *digests, *(match[2] for match in linked if match)}:
        _forget(name, digest)
    for empty in (directory, wants, f"{_RUN}/{name}"):
        if os.path.isdir(empty):
            os.rmdir(empty)
    __salt__["systemd_unit.daemon_reload"](later=True)
    return True


def finish(names: list[str]) -> None:
    """
    Let the generations of several sites finish their requests and stop, and systemd close their
    sockets, many at once: each takes a second or more, most of which it waits.

    names
        the sites

    Raises CommandExecutionError with what systemctl says of those that do not stop, when all others
    have.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_generation.finish '["mysite", "othersite"]'
    """
    up: dict[str, list[str]] = {}
    for unit, shown in __salt__["uwsgi_socket.glance"]().items():
        if shown["ActiveState"] in _UP:
            generation = _UNIT.fullmatch(unit)
            site = generation[1] if generation else unit[len("uwsgi-") :].rpartition(".")[0]
            up.setdefault(site, []).append(unit)
    running = [name for name in names if name in up]
    errors = []
    for begin in range(0, len(running), _AT_ONCE):
        part = running[begin : begin + _AT_ONCE]
        timeout = max(_stop_timeout(name) for name in part) + 15
        try:
            __salt__["systemd_unit.stop"](
                [unit for name in part for unit in up[name]], timeout=timeout
            )
        except CommandExecutionError as error:
            errors.append(str(error))
    if errors:
        raise CommandExecutionError("; ".join(errors))


def _stop_timeout(name: str) -> int:
    try:
        return _site(name)["uwsgi"]["stop_timeout"]
    except (CommandExecutionError, SaltInvocationError, KeyError):
        # A site that the pillar no longer has, or says nothing of but that it is to go.
        return 60
