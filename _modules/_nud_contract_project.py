"""
The keys under ``project``: a site's source, its environment, its hooks, and their cross-checks.
"""

import os
import re

from _nud_contract_patterns import (
    ACCOUNT,
    ACCOUNT_SAYS,
    DOTTED,
    IDENTIFIER,
    ONE_LINE,
    OPEN_PLACES,
    PATH,
    RELATIVE,
    RELATIVE_SAYS,
    RESERVED_ACCOUNT,
    RESERVED_GROUP,
    SYSTEM_PLACES,
    TRIMMED,
    path_key,
)
from _nud_contract_schema import (
    UNSET,
    Derived,
    List,
    Mapping,
    Node,
    Number,
    Plain,
    Switch,
    Table,
    Text,
    listing,
    meaning_error,
)


def _login(what: str) -> dict[str, Node]:
    """A user's name and a password, for a server that asks."""
    return {
        "user": Text(
            "a name of letters, digits and ._@+-",
            r"[A-Za-z0-9_][A-Za-z0-9._@+-]*",
            most=256,
            nullable=True,
            default=None,
            description=f"The user name {what}.",
            example="deploy",
        ),
        "password": Text(
            "text on one line, without blanks around it",
            TRIMMED,
            most=4096,
            nullable=True,
            default=None,
            secret=True,
            description=f"The password or token {what}.",
            example="...",
        ),
    }


_REMOTE = r"[A-Za-z0-9._~:/@%+,=-]+"


def _source() -> Mapping:
    return Mapping(
        {
            "git": Mapping(
                {
                    "url": Text(
                        "an https, http, ssh or file URL without a password, or user@host:path",
                        rf"(?:https?|file)://(?!-)[A-Za-z0-9._~:/%+,=-]+|ssh://(?!-){_REMOTE}"
                        rf"|[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:(?!-){_REMOTE}",
                        most=1024,
                        private=True,
                        description="The repository.",
                        example="https://git.example.org/mysite.git",
                        advice=(
                            (
                                r"https?://[^/]*@.*",
                                "the user's name and the password have keys of their own",
                            ),
                        ),
                    ),
                    "revision": Text(
                        "a branch, a tag or a full hash",
                        r"(?![/.])(?:(?!\.\.|//|/\.|\.lock(?:/|$))[A-Za-z0-9._/+-])+(?<![./])",
                        most=256,
                        description="The branch, the tag or the full commit hash to deploy. Only a "
                        "full hash always names the same code.",
                        example="v1.4.2",
                        refuse=((r"-.*", "git would take it for an option"),),
                    ),
                    "key": Text(
                        "a private key without a passphrase, in PEM, over several lines",
                        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\n(?:[A-Za-z0-9+/=]+\n)+"
                        r"-----END (?:[A-Z]+ )*PRIVATE KEY-----\n?",
                        most=32768,
                        nullable=True,
                        default=None,
                        secret=True,
                        description="The deploy key for a private repository over ssh. The formula "
                        "never writes it to a file.",
                        advice=((r"[^\n]*", "write it after a | so that its lines are kept"),),
                    ),
                    "host_keys": List(
                        Text(
                            "a line of known_hosts, like `git.example.org ssh-ed25519 AAAA...`",
                            r"[A-Za-z0-9.,*?\[\]:|=+/-]+ (?:ssh|ecdsa|sk)-[a-z0-9@.-]+ "
                            r"[A-Za-z0-9+/]+=*",
                            most=4096,
                        ),
                        "a list of lines",
                        unique=True,
                        default=[],
                        description="The host keys of the ssh server, as `ssh-keyscan` prints "
                        "them. Other keys are rejected.",
                        example=[
                            "github.com ssh-ed25519 "
                            "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
                        ],
                    ),
                    **_login("for https"),
                },
                required=("url", "revision"),
                description="A git repository. Submodules and Git LFS files are not fetched. "
                "`project:exclude` leaves files out of the release.",
            ),
            "archive": Mapping(
                {
                    "url": Text(
                        "an https, http or file URL without a password, or a salt:// path",
                        rf"(?:https?|file)://[A-Za-z0-9._~:/?=&%+,-]+|salt:/{PATH}",
                        most=1024,
                        private=True,
                        description="The URL of a tar archive (plain, gzip, bzip2 or xz) or of a "
                        "zip archive.",
                        example="https://ci.example.org/mysite-1.4.2.tar.gz",
                        advice=(
                            (
                                r"https?://[^/]*@.*",
                                "the user's name and the password have keys of their own",
                            ),
                        ),
                    ),
                    "sha256": Text(
                        "64 digits 0-9 and a-f",
                        r"[0-9a-f]{64}",
                        description="The SHA-256 checksum of the archive. A file with another "
                        "checksum is rejected.",
                        example="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                        advice=((r"[0-9a-fA-F]{64}", "write it in small letters"),),
                    ),
                    "strip": Switch(
                        default=True,
                        description="true: if the archive contains a single top-level directory, "
                        "use the contents of that directory.",
                    ),
                    **_login("for http and https"),
                },
                required=("url", "sha256"),
                description="A tar or zip archive.",
            ),
            "salt": Text(
                "a directory on Salt's file server, like salt://examples/mysite",
                rf"salt:/{PATH}(?:\?saltenv=[A-Za-z0-9._-]+)?",
                description="A directory on Salt's file server. Add `?saltenv=NAME` to read it "
                "from another Salt environment than the one of the run.",
                example="salt://examples/mysite",
            ),
        },
        one=True,
        nullable=True,
        default=None,
        description="The source of the releases: exactly one of `git`, `archive` and `salt`. null: "
        "you copy the project to `project:path` yourself.",
        example={"salt": "salt://examples/mysite"},
    )


def _names(description: str) -> List:
    return List(
        Text("a name of letters, digits and ._-", r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"),
        "a list of names",
        unique=True,
        default=[],
        description=description,
        example=["postgres"],
    )


def _hooks() -> Mapping:
    """Commands at the steps of a release, see release_hook."""
    steps = {
        "fetch": "the release is copied to the host",
        "build": "virtual environment",
        "migrate": "migrations are applied",
        "switch": "another release goes live",
    }
    points = {
        f"{when}_{step}": List(
            List(
                Text("a word on one line", ONE_LINE, most=4096, example="python"),
                "a command: a list with at least one word",
                least=1,
            ),
            "a list of commands",
            default=[],
            description=f"Commands to run {when} {what}.",
            example=[["python", "-m", "django", "clearsessions"]],
        )
        for step, what in steps.items()
        for when in ("before", "after")
    }
    return Mapping(
        {
            **points,
            "timeout": Number(
                "seconds from 1 to 86400",
                1,
                86400,
                default=600,
                description="Seconds a command may take. After that it is stopped and counts as "
                "failed.",
                example=60,
            ),
        },
        description="Commands that run at the steps of a release. Each command is a list of words "
        "and runs without a shell, as the site's user, with the site's environment, in the "
        "release's directory. If a command fails, the run stops and the live release stays live. "
        "See [releases.md](releases.md).",
    )


def project_keys() -> Mapping:
    return Mapping(
        {
            "path": path_key(
                "With a source: the directory that contains `releases`, `current` and `shared`. "
                "Without a source: the directory that you copied the project to.",
                default=Derived("/srv/SITE"),
                example="/srv/mysite",
                refuse=(SYSTEM_PLACES, OPEN_PLACES),
            ),
            "source": _source(),
            "release": Text(
                "the ID of a release, 12 digits 0-9 and a-f",
                r"[0-9a-f]{12}",
                nullable=True,
                default=None,
                description="Pin a release that is on the host; the source is ignored while the "
                "key is set. `site_rollback.releases` lists the IDs. null: deploy what the source "
                "has.",
                example="4f2a9c01d7e3",
            ),
            "keep": Number(
                "a whole number from 1 to 100",
                1,
                100,
                default=5,
                description="The number of releases that stay on the host for a rollback, the live "
                "one included. Only releases that went live count. A release that a process still "
                "runs from is never removed.",
                example=10,
            ),
            "wsgi": Text(
                "module:callable",
                rf"{DOTTED}:{DOTTED}",
                description="The WSGI application, as `module:name`.",
                example="mysite.wsgi:application",
                advice=(
                    (
                        rf"{DOTTED}",
                        "add the callable's name, like mysite.wsgi:application",
                    ),
                    (r".*\.py.*", "a module as Python imports it, not a file"),
                ),
                refuse=(
                    (
                        r"(?:.*\.)?asgi:.*",
                        "uWSGI serves WSGI, and no websockets: name the project's wsgi module",
                    ),
                ),
            ),
            "settings": Text(
                "a Python module, like mysite.settings",
                DOTTED,
                description="Django's settings module, the value of DJANGO_SETTINGS_MODULE.",
                example="mysite.settings",
                advice=((r".*\.py|.*/.*", "a module as Python imports it, not a file"),),
            ),
            "requirements": Text(
                RELATIVE_SAYS,
                RELATIVE,
                most=1024,
                nullable=True,
                default=Derived("requirements.txt; null where venv is given"),
                description="The file that lists the project's dependencies: a pip requirements "
                "file, a pyproject.toml, or a uv.lock next to a pyproject.toml. null: no "
                "dependencies.",
                example="requirements.txt",
            ),
            "packages": List(
                Text(
                    "the name of a Debian package",
                    # apt-get takes NAME- for a word to remove NAME.
                    r"[a-z0-9][a-z0-9.+-]*[a-z0-9+]",
                    most=128,
                ),
                "a list of names of Debian packages",
                unique=True,
                default=[],
                description="Debian packages that the project needs, for example to build its "
                "dependencies. They are installed before the virtual environment is built. `clean` "
                "removes those that the formula installed.",
                example=["libpq-dev", "gcc", "gettext"],
            ),
            "extras": _names("Optional dependencies (extras) of the pyproject.toml to install."),
            "groups": _names("Dependency groups of the pyproject.toml to install."),
            "indexes": List(
                Mapping(
                    {
                        "url": Text(
                            "an https, http or file URL without a user, a password or a query",
                            r"(?:https?|file)://[A-Za-z0-9._~:/%+,=\[\]-]+",
                            most=1024,
                            private=True,
                            description="The URL of the index.",
                            example="https://pypi.example.org/simple/",
                            advice=(
                                (
                                    r"https?://[^/]*@.*",
                                    "the user's name and the password have keys of their own",
                                ),
                            ),
                        ),
                        **_login("for it"),
                    },
                    required=("url",),
                ),
                "a list of indexes",
                nullable=True,
                default=[],
                description="Package indexes that replace those in the host's pip.conf. pip gives "
                "all of them the same priority. An empty list: use pip.conf. null: use no index, "
                "only `wheels`.",
                example=[{"url": "https://pypi.example.org/simple/"}],
            ),
            "wheels": List(
                Text(f"{RELATIVE_SAYS}, or an absolute one", rf"{PATH}|{RELATIVE}", most=1024),
                "a list of directories",
                unique=True,
                default=[],
                description="Directories where pip also looks for wheels.",
                example=["/srv/wheels"],
            ),
            "env": Table(
                Text(
                    "a name of letters, digits and _, not beginning with a digit",
                    IDENTIFIER,
                    most=256,
                    refuse=(
                        ("DJANGO_SETTINGS_MODULE", "project:settings sets it"),
                        ("UWSGI_.*", "uWSGI takes variables of that name for its options"),
                        (
                            (
                                "LISTEN_(?:FDS|PID|FDNAMES)|NOTIFY_SOCKET|WATCHDOG_.*|MAINPID"
                                "|INVOCATION_ID|CREDENTIALS_DIRECTORY|RUNTIME_DIRECTORY"
                            ),
                            "systemd sets it",
                        ),
                    ),
                ),
                Text(
                    "text on one line",
                    ONE_LINE,
                    most=65536,
                    secret=True,
                    refuse=(
                        (
                            "<the value of .*>",
                            "the survey of a live server wrote this in the place of a secret: put "
                            "the value in",
                        ),
                    ),
                ),
                "a mapping of names and texts",
                description="Environment variables of the application and of its management "
                "commands. Put secrets here: the values never appear in a diff, a log or the job "
                "cache.",
                example={"SECRET_KEY": "..."},
                secret=True,
            ),
            "user": Text(
                ACCOUNT_SAYS,
                ACCOUNT,
                most=32,
                default=Derived("the site's name"),
                description="The system user that the application runs as. The formula creates it "
                "if it does not exist. Each site needs its own user, which must not be nginx's.",
                example="mysite",
                refuse=(RESERVED_ACCOUNT,),
            ),
            "group": Text(
                ACCOUNT_SAYS,
                ACCOUNT,
                most=32,
                default=Derived("the user's name"),
                description="The user's primary group. The formula creates it if it does not "
                "exist. It must not be nginx's group.",
                example="mysite",
                refuse=(RESERVED_ACCOUNT, RESERVED_GROUP),
            ),
            "python": path_key(
                "The Python interpreter of the virtual environment. With pyenv, name the "
                "interpreter in `versions`, not the shim.",
                default="/usr/bin/python3",
                example="/opt/pyenv/versions/3.12.9/bin/python",
            ),
            "venv": path_key(
                "A virtual environment that you maintain yourself, for example with pyenv. The "
                "formula installs nothing into it. null: the formula builds one.",
                nullable=True,
                default=None,
                example="/home/deploy/.pyenv/versions/mysite",
            ),
            "static": Mapping(
                {
                    "url": Text(
                        "a path that begins and ends with /",
                        r"/(?:(?!\.\.?/)[A-Za-z0-9._~@-]+/)+",
                        most=256,
                        default="/static/",
                        description="The URL path of the static files; the same as Django's "
                        "STATIC_URL.",
                        example="/assets/",
                        advice=((r"/.*[^/]", "add a / at the end"), (r"[^/].*", "begin with a /")),
                    ),
                    "collect": Switch(
                        default=True,
                        description="Run `collectstatic` once per release, if the project uses "
                        "`django.contrib.staticfiles`. The project must then set STATIC_ROOT.",
                    ),
                },
                description="How static files are collected and served.",
            ),
            "check": Mapping(
                {
                    "deploy": Text(
                        "a level of Django's checks",
                        choices=("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"),
                        nullable=True,
                        default="ERROR",
                        description="The lowest level of `manage.py check --deploy` that fails the "
                        "release. null: run `manage.py check` without `--deploy`.",
                        example="WARNING",
                    ),
                    "migrations": Switch(
                        default=False,
                        description="Fail if a model change has no migration (`makemigrations "
                        "--check`).",
                    ),
                    "hosts": Switch(
                        default=True,
                        description="Fail if ALLOWED_HOSTS does not allow one of the server names "
                        "or `health:host`.",
                    ),
                    "data": Switch(
                        default=True,
                        description="Fail if the site's user cannot write to a SQLite database or "
                        "to MEDIA_ROOT. Fail also if the release would start with a new, empty "
                        "database although the source contains one or another one was in use "
                        "before.",
                    ),
                },
                description="Checks that a release must pass before it receives requests. The WSGI "
                "application must always be importable.",
            ),
            "migrate": Plain(
                Switch(),
                Mapping(
                    {
                        "host": Text(
                            "a minion's ID",
                            r"[A-Za-z0-9][A-Za-z0-9._-]*",
                            most=253,
                            description="The ID of the minion that migrates.",
                            example="web1.example.org",
                        )
                    },
                    required=("host",),
                ),
                says="true, false, or a mapping with the host that migrates",
                default=True,
                description="true: run `migrate` when migrations are pending. `{host: MINION_ID}`: "
                "run it on that host only; the other hosts refuse a release with pending "
                "migrations until that host has applied them. false: never run it.",
                example={"host": "web1.example.org"},
            ),
            "hooks": _hooks(),
            "exclude": List(
                Text(
                    "a glob of letters, digits and ._*?[]!/@+-",
                    r"(?!-)[A-Za-z0-9._*?\[\]!/@+-]+",
                    most=256,
                ),
                "a list of globs",
                unique=True,
                default=[],
                description="Files to leave out of the release, such as uploads or a database next "
                "to the code.",
                example=["media/*", "db.sqlite3"],
            ),
        },
        description="The Django project.",
    )


#: Where a password may be sent: to this very host without TLS, too.
_PRIVATE_WAY = r"https://|http://(?:localhost|127\.0\.0\.1)(?::[0-9]+)?/"


def check_project(path: tuple, project: dict, errors: list) -> None:
    """What a project's keys say of each other."""
    source = project["source"] or {}
    path = (*path, "project")
    if len(source) > 1:
        errors.append(
            meaning_error(
                (*path, "source"),
                f"{listing(sorted(source))} together with site_defaults",
                "one source",
                "write the source in the sites alone",
            )
        )
    if project["release"] and not source:
        errors.append(
            meaning_error(
                (*path, "release"),
                f"{project['release']!r}, while the project is a tree that is run where it is",
                "null, or a source: only that has releases to go back to",
            )
        )
    git = source.get("git") or {}
    url = git.get("url")
    if isinstance(url, str) and re.match(r"ssh:|[^/]*@", url):
        if not git["host_keys"]:
            errors.append(
                meaning_error(
                    (*path, "source", "git", "host_keys"),
                    "an empty list, while the URL is one of ssh",
                    "at least one key, so that no other server can take its place",
                    "see ssh-keyscan, and compare with what the server's owner publishes",
                )
            )
    elif git.get("key"):
        errors.append(
            meaning_error(
                (*path, "source", "git", "key"),
                "a deploy key, while the URL is none of ssh",
                "an ssh:// URL or user@host:path",
            )
        )
    _check_packages(path, project, errors)
    logins: list[tuple[dict, tuple]] = [
        (source.get(kind) or {}, ("source", kind)) for kind in ("git", "archive")
    ]
    logins += [(index, ("indexes", n)) for n, index in enumerate(project["indexes"] or [])]
    for login, keys in logins:
        if login.get("url", UNSET) is UNSET:
            continue
        if bool(login.get("user")) != bool(login.get("password")):
            which = "password" if login["user"] else "user"
            errors.append(
                meaning_error(
                    (*path, *keys, which),
                    "nothing (null), while the other of user and password is there",
                    "both, or neither",
                )
            )
        elif login.get("password") and not re.match(_PRIVATE_WAY, login["url"]):
            errors.append(
                meaning_error(
                    (*path, *keys, "password"),
                    "a password, without a URL of https",
                    "a URL of https, which alone keeps it secret on the way",
                )
            )


#: Lock files that pip takes for requirements, and trips over; how each becomes a file that it reads.
_FOREIGN_LOCKS = (
    (
        r"poetry\.lock",
        "write one: poetry export -f requirements.txt -o requirements.txt (poetry-plugin-export)",
    ),
    (r"Pipfile(?:\.lock)?", "write one: pipenv requirements --hash > requirements.txt"),
    (r"pdm\.lock", "write one: pdm export -f requirements -o requirements.txt"),
    (
        r"pylock(?:\.[^.]+)?\.toml",
        "name the pyproject.toml or the uv.lock that it was made from, or export a requirements.txt",
    ),
)


def _check_packages(path: tuple, project: dict, errors: list) -> None:
    """Where a project's packages come from."""
    lock = os.path.basename(project["requirements"] or "")
    for pattern, way in _FOREIGN_LOCKS:
        if re.fullmatch(pattern, lock):
            errors.append(
                meaning_error(
                    (*path, "requirements"),
                    f"{project['requirements']!r}, a lock file that no pip of the supported systems "
                    "reads",
                    "a requirements file, a pyproject.toml or a uv.lock",
                    way,
                )
            )
    for key in ("extras", "groups"):
        if project[key] and lock not in ("pyproject.toml", "uv.lock"):
            errors.append(
                meaning_error(
                    (*path, key),
                    f"{listing(project[key])}, while requirements is {lock or 'null'}",
                    "an empty list, or a pyproject.toml or uv.lock as project:requirements",
                )
            )
    if project["indexes"] is None and not project["wheels"]:
        errors.append(
            meaning_error(
                (*path, "indexes"),
                "null, without any wheels",
                "project:wheels to install from, or an empty list for the host's own index",
            )
        )
    logins: dict[str, tuple] = {}
    for number, index in enumerate(project["indexes"] or []):
        host = re.sub(r"^[a-z]+://|[:/].*$", "", str(index["url"]))
        login = (index["user"], index["password"])
        # pip knows passwords by the host's name alone, as a .netrc does.
        if logins.setdefault(host, login) != login:
            errors.append(
                meaning_error(
                    (*path, "indexes", number),
                    "another user than an index before, on the same host",
                    "one user and password for each host",
                )
            )
