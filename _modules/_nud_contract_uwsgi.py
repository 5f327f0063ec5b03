"""
The keys under ``uwsgi`` and ``companions``, and their cross-checks.
"""

import re
import shlex

from _nud import systemd
from _nud_contract_host import PIP_REQUIREMENT
from _nud_contract_patterns import (
    ONE_LINE,
    OPEN_PLACES,
    PATH,
    RELATIVE,
    RELATIVE_SAYS,
    SYSTEM_PLACES,
    TRIMMED,
    UNSAFE_OPTION,
    path_key,
)
from _nud_contract_schema import (
    Derived,
    List,
    Mapping,
    Number,
    Plain,
    Switch,
    Table,
    Text,
    meaning_error,
)


def _limits() -> Table:
    return Table(
        Text(
            "a resource limit of systemd",
            choices=(
                "CPUQuota",
                "CPUWeight",
                "IOWeight",
                "LimitAS",
                "LimitCORE",
                "LimitFSIZE",
                "LimitNOFILE",
                "LimitNPROC",
                "MemoryHigh",
                "MemoryMax",
                "MemorySwapMax",
                "TasksMax",
            ),
        ),
        Plain(
            Number("a whole number", 0, 2**63 - 1),
            Text("a size or a percentage", r"[0-9]{1,18}[KMGT%]?|infinity"),
            says="a whole number, a size like 512M, a percentage like 50% or infinity",
            as_text=True,
        ),
        "a mapping of systemd's resource limits",
        description="Resource limits of the systemd units, by systemd's names.",
        example={"MemoryMax": "512M", "LimitNOFILE": 4096},
    )


def uwsgi_keys() -> Mapping:
    scalar = Plain(
        Text(
            "text on one line, without blanks around it",
            TRIMMED,
            most=4096,
            refuse=(UNSAFE_OPTION,),
        ),
        Number("a whole number", -(2**31), 2**63 - 1),
        Switch(),
        says="text on one line, a whole number, true or false",
    )
    seconds = {"least": 1, "most": 3600}
    return Mapping(
        {
            "package": Text(
                "distro, or a requirement for pip without URL, like pyuwsgi==2.0.30.post1",
                PIP_REQUIREMENT,
                most=256,
                nullable=True,
                default=Derived("pyuwsgi==2.0.30.post1; null where binary is given"),
                description="The uWSGI to install: a pip requirement (`pyuwsgi==...` is a prebuilt "
                "wheel, `uwsgi==...` is compiled), or `distro` for the Debian packages uwsgi-core "
                "and uwsgi-plugin-python3.",
                example="uwsgi==2.0.31",
            ),
            "binary": path_key(
                "A uwsgi executable that you maintain yourself.",
                nullable=True,
                default=None,
                example="/home/deploy/.pyenv/versions/uwsgi-env/bin/uwsgi",
            ),
            "ini": Text(
                RELATIVE_SAYS,
                RELATIVE,
                most=1024,
                nullable=True,
                default=None,
                description="The project's own uWSGI ini file, as a path inside the project. Order "
                "and comments are kept. Lines for the socket, the http server and other things "
                "that systemd or the pillar control are dropped; see uwsgi.md.",
                example=".config/uwsgi/mysite.ini",
            ),
            "processes": Number(
                "a whole number from 1 to 1024",
                1,
                1024,
                default=2,
                description="The number of worker processes.",
                example=4,
            ),
            "threads": Number(
                "a whole number from 1 to 1024",
                1,
                1024,
                default=1,
                description="The number of threads per worker process.",
                example=2,
            ),
            "options": Table(
                Text(
                    "a uWSGI option by its long name, of a-z, 0-9 and -",
                    r"[a-z0-9][a-z0-9-]*",
                    most=64,
                ),
                Plain(
                    *scalar.options,
                    List(scalar, "a list with at least one value", least=1),
                    says="text on one line, a whole number, true, false, or a list of them",
                ),
                "a mapping of uWSGI options",
                description="More uWSGI options, by their long names. A list repeats the option. "
                "Options that the formula sets itself or that would break a promise of the formula "
                "are refused.",
                example={"harakiri": 30, "lazy-apps": True},
            ),
            "params": Table(
                Text(
                    "a name of A-Z, 0-9 and _, beginning with a letter",
                    r"[A-Z][A-Z0-9_]*",
                    most=64,
                    refuse=(
                        (
                            r"UWSGI_.*|SCRIPT_NAME|DOCUMENT_ROOT|PATH_INFO|REQUEST_URI|QUERY_STRING"
                            r"|REQUEST_METHOD|CONTENT_(?:TYPE|LENGTH)|SERVER_PROTOCOL",
                            "uWSGI finds the application and the request by it",
                        ),
                        (r"REMOTE_ADDR", "see load_balancer, which says whom nginx trusts with it"),
                        (
                            r"HTTPS|HTTP_X_FORWARDED_PROTO|REQUEST_SCHEME",
                            "the formula sets it: see tls and load_balancer",
                        ),
                        (r"HTTP_HOST|HTTP_PROXY", "the formula sets it, so that no client can"),
                    ),
                ),
                Text("text on one line, with nginx's variables", ONE_LINE, most=1024),
                "a mapping of names and texts",
                default={},
                description="More parameters that nginx passes with each request (`uwsgi_param`). "
                "Django shows them in `request.META`. A name that begins with `HTTP_` replaces the "
                "client's header. Values may contain nginx's variables.",
                example={"HTTP_X_REQUEST_ID": "$request_id"},
            ),
            "sandbox": Mapping(
                {
                    "allow": List(
                        Text(
                            "a name of what the sandbox closes",
                            choices=("devices", "jit", "netlink", "proc", "resources"),
                        ),
                        "a list of what the sandbox closes",
                        unique=True,
                        default=[],
                        description="Parts of the sandbox to turn off: `proc` (read the host's "
                        "statistics in /proc, as psutil does), `netlink` (list network interfaces "
                        "and routes), `jit` (execute generated code: callbacks of cffi and ctypes, "
                        "PYTHON_JIT, numba), `resources` (change priorities and CPU affinity), "
                        "`devices` (use graphics cards and other devices). See isolation.md.",
                        example=["proc", "netlink"],
                    ),
                    "writable": List(
                        path_key("", refuse=(SYSTEM_PLACES, OPEN_PLACES)),
                        "a list of absolute paths of directories",
                        unique=True,
                        default=[],
                        description="More directories that the site's processes may write to, for "
                        "example for uploads on another disk. File permissions still apply.",
                        example=["/mnt/efs/media"],
                    ),
                },
                description="Exceptions from the sandbox of the site's processes. See "
                "isolation.md.",
            ),
            "log": Mapping(
                {
                    "to": Text(
                        "journal or file",
                        choices=("journal", "file"),
                        default="journal",
                        description="Where the output of uWSGI and of the project goes: to the "
                        "journal, or to `/var/log/uwsgi/SITE/SITE.log`, which the site's user owns "
                        "and the group adm can read.",
                        example="file",
                    ),
                    "keep": Number(
                        "a whole number from 1 to 3650",
                        1,
                        3650,
                        default=14,
                        description="How many rotated log files logrotate keeps. It rotates daily.",
                        example=30,
                    ),
                },
                description="The log of uWSGI and the project.",
            ),
            "start_timeout": Number(
                "seconds from 1 to 3600",
                **seconds,
                default=60,
                description="Seconds a new generation may take to start.",
                example=120,
            ),
            "stop_timeout": Number(
                "seconds from 1 to 3600",
                **seconds,
                default=60,
                description="Seconds an old generation may take to finish its requests.",
                example=120,
            ),
            "limits": _limits(),
        },
        description="Settings of the site's uWSGI.",
    )


def companion_keys() -> Table:
    return Table(
        Text(
            "a name of 1 to 31 of a-z, 0-9, _ and -, beginning with a letter",
            r"[a-z][a-z0-9_-]{0,30}",
        ),
        Mapping(
            {
                "command": Plain(
                    Text("text on one line", TRIMMED, most=4096, private=True),
                    List(
                        Text("text on one line", ONE_LINE, most=4096, private=True),
                        "a list with at least one word",
                        least=1,
                    ),
                    says="a command on one line, or a list of words",
                    description="The command, which runs in the release's directory: a program of "
                    "the virtual environment, `manage.py` with a command, a path in the project, "
                    "or an absolute path. A text is split into words like a shell command, but no "
                    "shell runs. All users of the host can see the command, so put secrets into "
                    "`project:env`.",
                    example="celery -A mysite worker --loglevel info",
                ),
                "schedule": Text(
                    "a time as systemd.time(7) has it for OnCalendar=",
                    r"[A-Za-z0-9*][A-Za-z0-9*~:,./ _+-]*",
                    most=256,
                    nullable=True,
                    default=None,
                    description="When to run the command, which then ends on its own. null: the "
                    "command runs permanently.",
                    example="*-*-* 03:30:00",
                ),
                "settle": Number(
                    "seconds from 1 to 3600",
                    1,
                    3600,
                    default=5,
                    description="Seconds the command must run before it counts as started.",
                    example=15,
                ),
                "time_limit": Number(
                    "seconds from 1 to 604800 (a week)",
                    1,
                    604800,
                    nullable=True,
                    default=None,
                    description="Seconds a scheduled run may take before it is stopped. null: no "
                    "limit.",
                    example=3600,
                ),
                "stop_signal": Text(
                    "the name of a signal",
                    choices=("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"),
                    default="SIGTERM",
                    description="The signal that tells the command to finish its work and end.",
                    example="SIGINT",
                ),
                "stop_timeout": Number(
                    "seconds from 1 to 3600",
                    1,
                    3600,
                    default=60,
                    description="Seconds to wait after the stop signal before the command is "
                    "killed.",
                    example=300,
                ),
                "limits": _limits(),
            },
            required=("command",),
        ),
        "a mapping of names and companions",
        description="Workers and scheduled commands of the site, such as Celery. Each runs as "
        "`django-SITE.NAME.service` from the live release, with the user, environment and sandbox "
        "of the site's uWSGI. `command` is required; `schedule`, `settle`, `time_limit`, "
        "`stop_signal`, `stop_timeout` and `limits` are optional. See companions.md.",
        example={"worker": {"command": "celery -A mysite worker"}},
    )


#: What each of systemd's limits takes, where that is less than the shape allows.
_LIMIT_RULES = (
    (r"CPUQuota", r"[1-9][0-9]*%", "a percentage like 150%"),
    (r"(?:CPU|IO)Weight", r"[1-9][0-9]{0,3}|10000", "a weight from 1 to 10000"),
    (r"Limit.*", r"[0-9]+[KMGT]?|infinity", "a number, a size or infinity"),
)


def check_limits(path: tuple, limits: dict[str, str], errors: list) -> None:
    for limit, value in limits.items():
        for which, pattern, says in _LIMIT_RULES:
            if re.fullmatch(which, limit) and not re.fullmatch(pattern, value):
                errors.append(meaning_error((*path, limit), f"{value!r}", says))
                break


def check_companion(path: tuple, companion: dict, errors: list) -> None:
    """What runs beside a site's uWSGI: that its command and its schedule can be understood."""
    check_limits((*path, "limits"), companion["limits"], errors)
    command = companion["command"]
    if isinstance(command, (str, list)):
        # What the words are may be a secret: it is not repeated here.
        try:
            first = (command if isinstance(command, list) else shlex.split(command))[0]
        except (ValueError, IndexError) as error:
            found = f"a text that cannot be taken apart: {error}".lower()
            errors.append(
                meaning_error((*path, "command"), found, "a command line, or a list of words")
            )
        else:
            if not re.fullmatch(rf"{PATH}|{RELATIVE}", first):
                errors.append(
                    meaning_error(
                        (*path, "command"),
                        "a first word that is no program's name or path",
                        "the name of a program in the virtual environment, manage.py, a path in "
                        "the project, or an absolute path",
                    )
                )
    if companion["schedule"] is None:
        if companion["time_limit"] is not None:
            errors.append(
                meaning_error(
                    (*path, "time_limit"),
                    f"{companion['time_limit']}, of a companion that runs all the time",
                    "a schedule as well, or null",
                )
            )
        return
    wrong = systemd.wrong_calendar(companion["schedule"])
    if wrong:
        errors.append(
            meaning_error(
                (*path, "schedule"),
                f"{companion['schedule']!r} ({wrong})",
                "a time as systemd.time(7) has it, like 'Mon..Fri 08:00' or hourly",
            )
        )
