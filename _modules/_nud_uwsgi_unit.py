"""
The units of a site's generations: their names, their files, the sandbox, the texts.

A change of a text that a generation is made of makes a new generation of every site: see the golden
test in test/unit/test_uwsgi_generation.py.
"""

import os
import re
import shlex
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud_cache import once
from _nud_durable_file import read
from _nud_executables import installation
from _nud_systemd import escape

# A generation's unit: its site and its digest.
UNIT = re.compile(r"uwsgi-([a-z][a-z0-9_-]*)@([0-9a-f]{12})\.service")
PATTERN = "uwsgi-*@*.service"

# Stands for the digest in the texts that the digest is made of.
DIGEST = "@DIGEST@"


class Plan(NamedTuple):
    """
    What a generation is planned from.

    site
        the pillar's
    release, venv
        as ``django_release.desired`` and ``python_venv.desired`` describe them
    lookup
        the pillar's directories
    shared, home
        the directories of the site that outlive a release, and the home of its user
    log
        uWSGI's log file; None for the journal
    """

    site: dict[str, Any]
    release: dict[str, Any]
    venv: dict[str, Any]
    lookup: dict[str, str]
    shared: str
    home: str
    log: str | None


def named(name: str, digest: str) -> str:
    """
    The unit of a generation.

    name
        the site
    digest
        the generation, or ``*``

    Returns the unit's name.
    """
    return f"uwsgi-{name}@{digest}.service"


def twin(name: str, digest: str) -> str:
    """
    The unit of a generation's preflight.

    name, digest
        the site and the generation

    Returns the unit's name.
    """
    # A site's name has no dot, so no site's generation has such a name.
    return f"uwsgi-{name}.preflight@{digest}.service"


def paths(lookup: dict[str, str], name: str, digest: str) -> dict[str, str]:
    """
    Where the parts of a generation are on the host.

    lookup
        the pillar's directories
    name, digest
        the site and the generation

    Returns paths: ``unit``, ``ini``, ``env``, ``parts`` (what the digest is made of), ``link`` (which
    enables it), ``run`` and ``stats`` (while it runs).
    """
    stem = f"{lookup['uwsgi_dir']}/{name}/{digest}"
    unit = named(name, digest)
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

    Returns a line for each, sorted by name.

    Raises SaltInvocationError for an invalid name, a newline or a NUL.

    In double quotes systemd takes ``\`` before ``\``, ``"``, ``$`` and `````, and nothing else, for
    an escape (systemd.exec(5), EnvironmentFile=), so only these four are escaped.
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


def is_within(path: str, directories: list[str]) -> bool:
    """
    Whether a path is below one of some directories.

    path
        an absolute path
    directories
        absolute paths

    Returns True or False.
    """
    return any(path.startswith(directory.rstrip(os.sep) + os.sep) for directory in directories)


def _real(path: str) -> str:
    found: str = once(("real", path), lambda: os.path.realpath(path))
    return found


def _seclusion(plan: Plan, places: list[str]) -> list[str]:
    """
    What hides other sites: where sites live, a site sees its own files alone.

    Permissions do not do it: a tree that was copied by hand is usually readable for every user, and
    nginx has to read uploads. The directories of all sites are hidden, not each other site: so a new
    site changes no other site's unit.

    places
        the site's own, that it may write to
    """
    site, release, venv, lookup, *_ = plan
    hidden = ["/srv", f"{lookup['state_dir']}/sites"]
    programs = [path for path in (venv["binary"], venv["uwsgi"]) if path]
    readable = [
        release["path"],
        venv["path"],
        _real(venv["path"]),
        f"{lookup['uwsgi_dir']}/{site['name']}",
        *(path for program in programs for path in installation(program)),
    ]

    # A path of the pillar may go through a link, like a /srv that is on another disk.
    roots = [*hidden, *map(_real, hidden)]

    def bound(key: str, paths: list[str], besides: list[str]) -> list[str]:
        kept: list[str] = []
        for path in sorted(dict.fromkeys(paths)):
            if (
                is_within(path, roots)
                and path not in besides
                and not is_within(path, besides + kept)
            ):
                kept.append(path)
        # An empty value would take back what the other of the two keys says.
        return [f"{key}={' '.join(escape('-' + path, words=True) for path in kept)}"] * bool(kept)

    return [
        f"TemporaryFileSystem={' '.join(f'{path}:ro' for path in hidden)}",
        *bound("BindPaths", [*places, *map(_real, places)], []),
        *bound("BindReadOnlyPaths", readable, places),
        # The sockets of all sites, one's own among them, which uWSGI inherits open.
        "InaccessiblePaths=-/run/uwsgi",
    ]


def _sandbox(plan: Plan) -> list[str]:
    """What a generation may not do, what it does not see, and where it may write."""
    words = {"words": True}
    site, release, venv, *_ = plan
    places = [
        site["project"]["path"],
        plan.shared,
        # HOME: libraries keep caches there, and some do not start where they cannot.
        plan.home,
        *site["uwsgi"]["sandbox"]["writable"],
    ]
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
        *_seclusion(plan, places),
        *_restrictions(site["uwsgi"]["sandbox"]["allow"]),
    ]


def _restrictions(allowed: list[str]) -> list[str]:
    """What no site may do, but for what the pillar allows by name."""
    return [
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


def confinement(plan: Plan, limits: dict[str, str]) -> list[str]:
    """
    What confines a process that runs for a site: the lines of a unit's [Service] section with its
    limits and its sandbox.

    plan
        of the site
    limits
        resource limits, by systemd's names

    Returns lines.
    """
    return [
        "UMask=0022",
        *(f"{limit}={limits[limit]}" for limit in sorted(limits)),
        *_sandbox(plan),
    ]


def unit_text(plan: Plan, digest: str) -> str:
    """
    The unit file of a generation.

    plan
        of the site
    digest
        the generation, or ``DIGEST``

    Returns text.
    """
    site, _, venv, lookup, *_, log = plan
    name = site["name"]
    files = paths(lookup, name, digest)
    uwsgi = site["uwsgi"]
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
            f"EnvironmentFile={escape(files['env'])}",
            f"ExecStart={escape(venv['uwsgi'], command=True)} --ini "
            f"{escape(files['ini'], command=True)}",
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
            *confinement(plan, uwsgi["limits"]),
            "",
            "[Install]",
            f"WantedBy=uwsgi-{name}.service",
            "",
        ]
    )


def program(unit: str) -> str:
    """
    The program that a generation's unit starts.

    unit
        the unit file's text

    Returns a path.

    Raises CommandExecutionError when the unit starts no uWSGI.
    """
    # The reverse of escape().
    found = re.search(r"^ExecStart=(.*) --ini ", unit, re.MULTILINE)
    if not found:
        raise CommandExecutionError("a generation's unit starts no uWSGI")
    return shlex.split(found[1])[0].replace("$$", "$").replace("%%", "%")


def account(unit: str) -> tuple[str, str]:
    """
    The user and the group of a generation's process, which has to read its ini: those of an older
    generation may be others than the pillar's.

    unit
        the unit file's text

    Returns two names.

    Raises CommandExecutionError when the unit names none.
    """
    found = re.search(r"^User=(.*)\nGroup=(.*)$", unit, re.MULTILINE)
    if not found:
        raise CommandExecutionError("a generation's unit names no user and group")
    return found[1], found[2]


def twin_text(
    name: str, digest: str, unit: str, ini: str, env: str, start: int, drop_ins: list[str]
) -> str:
    """
    The unit file of a preflight: that of the generation with its drop-ins and its sandbox, without
    the socket and what else ties it to the site, and without a restart.

    name, digest
        the site and the generation
    unit
        the text of the generation's unit file
    ini, env
        the files of the preflight
    start
        how many seconds the start may take
    drop_ins
        the paths of the drop-ins for the generation's unit

    Returns text.
    """
    own = {
        "Description": f'Preflight of the Django site "{name}", generation {digest}',
        "EnvironmentFile": escape(env),
        "TimeoutStartSec": str(start),
        # It has no visitor's request when it is stopped, and it may hang.
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
            # It is always killed: no failure to tell an operator.
            kept.append("SuccessExitStatus=SIGKILL")
    for path in drop_ins:
        text = (read(path) or b"").decode("utf-8", "replace")
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
