"""
The ini file of a uWSGI generation.

Made from the pillar alone, or from an ini that a project ships: then its comments and the order of
its lines stay, what would fight with systemd goes, and what a generation stands on is added.
"""

import os
import re
from typing import Any

from salt.exceptions import SaltInvocationError

# The mark in front of what is added at the end of a project's own ini.
_MARK = "# Added by nginx_uwsgi_django"

# The header of an answer that names the generation. nginx hides it from visitors, and shows it to the
# host's own requests (site_visit).
GENERATION = "X-Uwsgi-Generation"

# One graceful way to stop: without this line uWSGI takes SIGTERM for "reload brutally"
# (core/master.c of 2.0.31); with it, requests in flight are finished first.
_GRACEFUL = "unix_signal:15 gracefully_kill_them_all"

# Refused in the pillar's options and taken out of a project's own ini: the names, and why.
_SYSTEMD_SOCKET = "systemd holds the site's one socket, behind nginx: see socket and listen"
_REFUSED = (
    (
        r"C|(?:chmod|chown)(?:-socket)?",
        "systemd makes the socket: see socket:owner, socket:group and socket:mode",
    ),
    (
        r"s|(?:[a-z]+-)?socket|(?:undeferred-)?shared-socket|fastcgi-.*|scgi-.*|raw-.*|udp|web3"
        r"|(?:socket-)?protocol|shutdown-sockets|zerg.*|http.*|sni.*|enable-proxy-protocol"
        r"|upload-progress|vhost.*",
        _SYSTEMD_SOCKET,
    ),
    (r"l|listen", "systemd makes the socket: see socket:backlog"),
    (r"d|daemonize2?", "systemd keeps uWSGI in the foreground"),
    (
        # The master executes itself anew: under pyuwsgi there is no program of its own to execute, and it
        # ends (core/uwsgi.c, uwsgi_reload()).
        r"touch-reload",
        "it ends pyuwsgi, and nothing is checked before: call uwsgi_generation.reload, which loses no "
        "request",
    ),
    (
        r"(?:immediate-)?[ug]id|add-gid|no-initgroups|chroot|cap|drop-after-(?:init|apps)",
        "the unit runs as project:user and project:group, with no powers to give up",
    ),
    (r"(?:safe-)?pidfile2?", "systemd knows the process"),
    (
        r"logto2?|log-(?:reopen|truncate|maxsize|backupname)|logfile-ch(?:own|mod)"
        r"|touch-log(?:rotate|reopen)",
        "systemd opens the log: see uwsgi:log",
    ),
    (
        r"M|master|no-master|master-as-root|die-on-term|exit-on-reload|no-orphans|vacuum|need-app",
        "the formula sets it, so that a start is proved and a stop finishes its requests",
    ),
    (r"lazy", "uWSGI's own documentation warns of it: lazy-apps is what is meant"),
    (
        r"strict|max-apps|single-interpreter|i|stats(?:-server|-http)?|notify-socket",
        "the formula sets it itself",
    ),
    (r"p|processes|workers", "see uwsgi:processes"),
    (r"threads", "see uwsgi:threads"),
    (r"w|wsgi|module|wsgi-file|file|callable|mount", "see project:wsgi"),
    (r"H|home|virtualenv|venv|pyhome", "see project:venv"),
    (r"chdir2?|force-cwd", "see project:path"),
    (r"env|unenv|envdir|early-envdir", "see project:env, which keeps secrets out of the ini"),
    (
        r"ini|ini-paste.*|paste|xml|xmlconfig|yaml|yml|json|js|include|inherit|config|config-py"
        r"|fallback-config|set|set-placeholder|set-ph|declare-option2?|for|for-.*|end-?for|if-.*"
        r"|ifexists|ifenv|ifdir|ifplugin|end-?if|(?:early-)?emperor.*|vassal.*|eval|exec-asap",
        "what it brings in would not be checked here; for a project's own ini see uwsgi:ini",
    ),
    (
        r"help|h|version|usage|exit|stop|reload|pause|suspend|resume|test|no-server|dump-options"
        r"|show-config|build-plugin|connect-and-read|extract|command-mode|pyshell.*|python-version",
        "it makes uWSGI do something else than serve",
    ),
)

_PLUGINS = ("plugins-dir", "plugin-dir", "plugin", "plugins", "need-plugin", "need-plugins")

# A project's own ini may say these itself: what they do is the project's, as its code is.
_PROJECT_MAY = re.compile(
    r"processes|workers|p|threads|chdir2|mount|unenv|envdir|early-envdir|eval|exec-asap"
    r"|declare-option2?|for|for-.*|end-?for|if-.*|ifexists|ifenv|ifdir|ifplugin|end-?if"
)

# Variables that a project's own ini cannot set.
_NOT_ENVIRONMENT = (
    r"UWSGI_.*|LISTEN_(?:FDS|PID|FDNAMES)|NOTIFY_SOCKET|WATCHDOG_.*|MAINPID|INVOCATION_ID"
    r"|CREDENTIALS_DIRECTORY|RUNTIME_DIRECTORY"
)

# They name a value for later lines; the rest of the line is a definition of its own.
_PLACEHOLDER = ("set", "set-placeholder", "set-ph")

# Not in the short-lived instance that only answers a health request: it would do the site's
# periodic work twice, or hide its words from the journal.
_NOT_IN_PREFLIGHT = re.compile(
    r"cheap(er.*)?|idle|die-on-idle|(unique-)?(legion-)?cron2?|mule.*|farm|spooler.*|import|"
    r"(smart-|legion-)?(smart-)?attach-daemon.*|legion.*|touch-.*|fs-.*reload|"
    r"(req-|worker-)?(logger|logto2?|log-.*)|log-master|master-fifo|fifo|subscribe.*|carbon.*|"
    r"snmp.*|statsd.*|stats-push.*|processes|workers|p|disable-logging"
)


def _canonical(key: str) -> str:
    return key.strip().replace("_", "-")


def _why_refused(key: str) -> str | None:
    """Why an option is refused, by its canonical name."""
    for pattern, why in _REFUSED:
        if re.fullmatch(pattern, key):
            return why
    return None


def _stops_otherwise(key: str, value: str) -> bool:
    """Whether an option takes the signal that a generation is stopped by."""
    return key == "hook-master-start" and bool(re.search(r"unix_signal:\s*15\b", value))


def escape(value: Any) -> str:
    """
    A value as uWSGI's ini reader will give it back.

    value
        text, a number, True or False

    Returns the text to write after ``key = ``.

    uWSGI replaces ``%x`` everywhere in the file (``magic_sub`` in core/utils.c), so a percent sign
    is doubled; it drops blanks around a value, takes the rest of the line whatever it is, and then
    expands ``$(…)``, ``@(…)`` (which runs commands) and ``%(…)``, for which it has no escape.

    Raises SaltInvocationError for a value that cannot be carried.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise SaltInvocationError(f"a uWSGI option's value is not a {type(value).__name__}")
    text = str(value)
    for mark in ("$(", "@(", "%("):
        if mark in text:
            raise SaltInvocationError(f"uWSGI would expand {mark}…) and knows no escape for it")
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise SaltInvocationError("a control character cannot be part of a uWSGI option's value")
    if text != text.strip():
        raise SaltInvocationError("uWSGI drops blanks around an option's value")
    if not text:
        raise SaltInvocationError("uWSGI takes an empty value for none at all")
    return text.replace("%", "%%")


def refused(options: dict[str, Any]) -> list[str]:
    """
    What is wrong with uWSGI options of the pillar.

    options
        option name -> value, or list of values for one that is said several times

    Returns a list of sentences, empty when nothing is wrong. Whether uWSGI knows the option at all
    is not seen here: its strict mode says so in the preflight.
    """
    errors = []
    for key, value in options.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key):
            errors.append(f"{key!r} is not the name of a uWSGI option")
            continue
        name = _canonical(key)
        why = _why_refused(name)
        if why:
            errors.append(f"{key}: {why}")
            continue
        for item in value if isinstance(value, list) else [value]:
            try:
                text = escape(item)
            except SaltInvocationError as error:
                errors.append(f"{key}: {error}")
                continue
            if _stops_otherwise(name, text):
                errors.append(f"{key}: SIGTERM is how systemd stops a generation gracefully")
    return errors


def _formula(
    site: dict[str, Any], release: str, venv: str | None, plugins: list[tuple[str, Any]]
) -> list[tuple[str, Any]]:
    """What a generation stands on."""
    lines: list[tuple[str, Any]] = [
        ("strict", True),
        ("master", True),
        ("need-app", True),
        ("single-interpreter", True),
        # A packet on the socket can name any file to load as an application (UWSGI_FILE): the
        # one application that is loaded at start uses up the only place.
        ("max-apps", 1),
        ("hook-master-start", _GRACEFUL),
        # Strict mode knows an option of a plugin after the plugin alone.
        *plugins,
        ("chdir", release),
    ]
    if venv:
        lines.append(("home", venv))
    lines.append(("module", site["project"]["wsgi"]))
    return lines


def _usual(venv: str | None) -> list[tuple[str, Any]]:
    """What options in the pillar, or a project's own ini, may say otherwise."""
    # Else it is uWSGI's own executable, and a process that is started by it has no Django.
    python = [("py-executable", f"{venv}/bin/python")] if venv else []
    return [
        *python,
        ("enable-threads", True),
        # The most that the protocol has. nginx takes 32 KiB of headers by default, and a URI of
        # them counts twice here; above the size the answer is 502.
        ("buffer-size", 65535),
        ("auto-procname", True),
        # nginx has written down the request already.
        ("disable-logging", True),
        ("log-4xx", True),
        ("log-5xx", True),
    ]


def render(
    site: dict[str, Any],
    release: str,
    venv: str | None = None,
    socket: str | None = None,
    stats: str | None = None,
    plugin: str | None = None,
    own: str | None = None,
    own_path: str | None = None,
    digest: str | None = None,
) -> str:
    """
    The ini of a generation, whole.

    site
        the site's settings (:py:func:`site_pillar.site`)
    release
        the directory that uWSGI runs in
    venv
        the virtual environment, if there is one
    socket
        the path of the socket that systemd holds (uWSGI finds an inherited socket by its name), by
        default the site's
    stats
        the path of uWSGI's statistics socket
    plugin
        the plugin to load, for a uWSGI that has Python as a plugin
    own
        the text of the project's own ini, instead of lines made from the pillar
    own_path
        the path that this text came from: what ``%d`` and its like in it stand for
    digest
        the generation, which each answer then names in a header

    Returns text. The same arguments give the same text.

    Raises SaltInvocationError for options that cannot work and values that cannot be carried.
    """
    uwsgi = site["uwsgi"]
    errors = refused(uwsgi.get("options") or {})
    if errors:
        raise SaltInvocationError("uwsgi:options: " + "; ".join(errors))
    options = {_canonical(key): value for key, value in (uwsgi.get("options") or {}).items()}
    chosen = _chosen(options)
    plugins = [("plugin", plugin)] * bool(plugin) + [one for one in chosen if one[0] in _PLUGINS]
    chosen = [one for one in chosen if one[0] not in _PLUGINS]
    fixed = _formula(site, release, venv, plugins)
    fixed.append(("socket", socket or site["socket"]["path"]))
    if stats:
        fixed.append(("stats", stats))
    if digest:
        fixed.append(("add-header", f"{GENERATION}: {digest}"))
    if uwsgi.get("log", {}).get("to") == "file":
        # The journal has the time itself.
        fixed.append(("log-date", True))
    sized = [("processes", uwsgi.get("processes", 2)), ("threads", uwsgi.get("threads", 1))]
    if own is None:
        # Sorted: the order in which a pillar's dictionary is merged must not make a generation.
        names = set(options)
        usual = [(key, value) for key, value in _usual(venv) if key not in names]
        lines = ["[uwsgi]", f"# The Django site {site['name']}; written once, never edited."]
        entries = [*fixed, *sized, *usual, *chosen]
    else:
        names = set(options)
        lines, said, declared = _project(own, own_path, socket or site["socket"]["path"], names)
        entries = [
            (key, value)
            for key, value in [*declared, *fixed, *sized, *_usual(venv), *chosen]
            if (key, value) in [*declared, *plugins, *chosen]
            or (key not in said and key not in names)
        ]
        lines.append(_MARK)
    lines += [f"{key} = {escape(value)}" for key, value in entries]
    return "\n".join(lines) + "\n"


def _chosen(options: dict[str, Any]) -> list[tuple[str, Any]]:
    chosen = []
    for key in sorted(options):
        value = options[key]
        chosen += [(key, item) for item in (value if isinstance(value, list) else [value])]
    return chosen


def _split(line: str) -> tuple[str, str] | None:
    """Key and value of a line, as core/ini.c of 2.0.31 takes it apart."""
    text = line.strip(" \t\r")
    if not text or text[0] in ";#[":
        return None
    key, _, value = text.partition("=")
    return key.strip(" \t\r"), value.strip(" \t\r")


def _lines(text: str) -> list[str]:
    """
    The lines that uWSGI sees. Python's splitlines() ends a line at U+2028 and others too, so that
    the rest of such a value would become an option.
    """
    return text.removesuffix("\n").split("\n")


def _own(own: str, own_path: str | None) -> tuple[list[tuple[str, Any]], set[str]]:
    """
    The lines of a project's own ini that uWSGI reads or that explain them, each with its option (key
    and value) or None, and the names that it declares as placeholders.
    """
    found: list[tuple[str, Any]] = []
    placeholders: set[str] = set()
    section = ""
    ours = False
    for line in _lines(own):
        text = line.strip(" \t\r")
        if ours:
            # A generation's ini taken for the project's own: the rest is said again below.
            name = re.fullmatch(r"declare-option = (.*)=own", text)
            placeholders |= {name[1]} if name else set()
            continue
        if text.startswith("["):
            section = text[1:-1]
        if section != "uwsgi" and text and text[0] not in ";#[":
            # Only [uwsgi] is read, so the rest may stay as it is; but ours must come in its place.
            continue
        if text.startswith("[") and section != "uwsgi":
            continue
        if text == _MARK:
            ours = True
            continue
        line = line.rstrip("\r")
        option = _split(line)
        if option and _canonical(option[0]) in _PLACEHOLDER and "=" in option[1]:
            inner = _split(option[1])
            if inner:
                placeholders.add(inner[0])
                line, option = f"{inner[0]} = {inner[1]}", inner
        if option and own_path:
            line = _magic(line, own_path)
            option = _split(line)
        found.append((line, option))
    return found, placeholders


_REFERENCE = re.compile(r"%{1,2}\(([^)]*)\)")


def _resolved(
    value: str, written: dict[str, str], names: set[str], above: tuple[str, ...] = ()
) -> str:
    """
    A value with what ``%(name)`` of these names stands for in the project's own ini.

    uWSGI computes in there, too (``%(port + 1)``), which is left to it.
    """

    def one(found: re.Match[str]) -> str:
        words = found[1].split()
        wanted = [word for word in words if word in written and word in names]
        if not wanted:
            return found[0]
        if len(words) > 1 or words[0] in above:
            raise SaltInvocationError(
                f"the project's ini says {found[0]}, and {wanted[0]} cannot be put in there: "
                "write its value"
            )
        return _resolved(written[words[0]], written, set(written), (*above, words[0]))

    return _REFERENCE.sub(one, value)


def _project(
    own: str, own_path: str | None, socket: str, options: set[str]
) -> tuple[list[str], set[str], list[tuple[str, Any]]]:
    """
    A project's own ini without what does not go with systemd, the options that it says, and
    options that declare the names of its own.
    """
    read, placeholders = _own(own, own_path)
    lines: list[str] = []
    said: set[str] = set()
    place = None
    written: dict[str, str] = {}
    gone: set[str] = set()
    for _, option in read:
        if option:
            written.setdefault(*option)
            key = _canonical(option[0])
            if key == "env" or (_why_refused(key) and not _PROJECT_MAY.fullmatch(key)):
                gone.add(option[0])
    named = placeholders & set(written)
    for line, option in read:
        if option is None:
            lines.append(line)
            continue
        key = _canonical(option[0])
        if _why_refused(key) == _SYSTEMD_SOCKET and place is None:
            place = len(lines)
        if option[0] in gone or key in options or _stops_otherwise(key, option[1]):
            continue
        said.add({"workers": "processes", "p": "processes"}.get(key, key))
        # What a line was written with, although the formula says otherwise below.
        value = _resolved(option[1], written, gone)
        lines.append(line if value == option[1] else f"{option[0]} = {value}")
        for expression in _REFERENCE.findall(value):
            named |= {word for word in expression.split() if word in written}
    if not any(line.strip() == "[uwsgi]" for line in lines):
        raise SaltInvocationError("the project's ini has no section [uwsgi]")
    # Of lines that are gone, too: they are what such a name was for.
    for name in gone:
        for expression in _REFERENCE.findall(written[name]):
            named |= {word for word in expression.split() if word in written}
    while lines and not lines[-1].strip():
        lines.pop()
    # Said several times, options like plugin and hook-… add up; these are the project's own.
    said -= {"add-header", "hook-master-start", "plugin"}
    if place is not None:
        lines.insert(place, f"socket = {escape(socket)}")
        said.add("socket")
    # uWSGI takes a name that is an option of its own for that one (uwsgi_opt_get), so that this
    # makes no difference there; any other is known by it in strict mode.
    kept = {one for one in named - gone if _canonical(one) not in options}
    return lines, said, [("declare-option", f"{one}=own") for one in sorted(kept)]


def environment(own: str, own_path: str | None = None) -> dict[str, str]:
    """
    The environment variables that a project's own ini sets (``env = NAME=value``).

    They are no lines of the generation's ini: what is set there reaches neither checks, migrations
    and companions, nor a process that uWSGI as a Python module (pyuwsgi) loads.

    own
        the ini's text
    own_path
        its path, for ``%d`` and its like

    Returns a dictionary.

    Raises SaltInvocationError for a value that uWSGI would compute, and for a variable that
    is uWSGI's or systemd's own.
    """
    read, _ = _own(own, own_path)
    written: dict[str, str] = {}
    for _, option in read:
        if option:
            written.setdefault(*option)
    values: dict[str, str] = {}
    for _, option in read:
        if not option or _canonical(option[0]) != "env":
            continue
        # The value may be a secret: no message repeats it.
        name, equals, value = option[1].partition("=")
        name = name.strip()
        where = f"the project's ini says env = {name}"
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise SaltInvocationError(f"{where}, expected NAME=value: see project:env")
        if re.fullmatch(_NOT_ENVIRONMENT, name):
            raise SaltInvocationError(f"{where}, and uWSGI or systemd sets such a variable itself")
        value = _resolved(value, written, set(written))
        if re.search(r"[$@%]\(", value):
            raise SaltInvocationError(
                f"{where} with a value that uWSGI computes: write it to project:env"
            )
        values[name] = re.sub(r"%(.)", lambda found: "%" * (found[1] == "%"), value)
    return values


def _magic(line: str, path: str) -> str:
    """Put in what ``%d`` and its like mean at the project's own path (core/uwsgi.c of 2.0.31)."""
    directory, name = os.path.split(path)
    stem, dot, extension = name.rpartition(".")
    meaning = {
        "%%": "%%",
        "%o": path,
        "%p": path,
        "%s": name,
        "%d": directory + "/",
        "%e": extension if dot else "",
        "%n": stem if dot else name,
        "%c": os.path.basename(directory),
    }
    return re.sub(
        r"%[%opsdenc]",
        lambda found: found[0] if found[0] == "%%" else meaning[found[0]].replace("%", "%%"),
        line,
    )


def preflight(text: str, socket: str) -> str:
    """
    A generation's ini turned into that of its preflight: one process on a private socket, without
    the site's periodic work, all words to the journal.

    text
        the generation's ini
    socket
        the path of the private socket

    Returns text.

    Raises SaltInvocationError when the path cannot be carried.
    """
    kept = []
    for line in _lines(text):
        option = _split(line)
        key = _canonical(option[0]) if option else ""
        if key == "stats" or _NOT_IN_PREFLIGHT.fullmatch(key):
            continue
        kept.append(f"socket = {escape(socket)}" if key == "socket" else line)
    return "\n".join([*kept, "processes = 1"]) + "\n"


def question(text: str) -> str:
    """
    A generation's ini for a uWSGI that only tells whether it knows the options: in strict mode from
    the first line on, with its plugins and the project's own names before that.

    In the ini itself strict mode comes after a project's own lines, and uWSGI asks of them when it
    has read all, which it does not do when it is only asked.

    text
        the generation's ini

    Returns text.
    """
    head, certain = [], True
    for line in _lines(text):
        option = _split(line)
        key = _canonical(option[0]) if option else ""
        if line == _MARK:
            certain = True
        elif re.fullmatch(r"if.*|for.*", key):
            # What follows may be said or not.
            certain = False
        elif certain and (key in _PLUGINS or key.startswith("declare-option")):
            head.append(line)
    return "\n".join(["[uwsgi]", *head, "strict = true", text])


def said(text: str, path: str) -> list[tuple[int, str, str]]:
    """
    What an ini says to uWSGI: the number of each line, the option and its value, with ``%d`` and its
    like, and the names of other lines, put in. A value that uWSGI computes stays as it is.

    text
        the ini's text
    path
        its path
    """
    found: list[tuple[int, str, str]] = []
    written: dict[str, str] = {}
    section = ""
    for number, line in enumerate(_lines(text), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped[1:-1]
            continue
        option = _split(_magic(line, path))
        if section != "uwsgi" or option is None:
            continue
        key, value = option
        if _canonical(key) in _PLACEHOLDER and "=" in value:
            key, value = (word.strip() for word in value.split("=", 1))
        written.setdefault(key, value)
        found.append((number, key, value))
    answer = []
    for number, key, value in found:
        try:
            value = _resolved(value, written, set(written))
        except SaltInvocationError:
            pass  # computed: the reader sees the expression
        answer.append((number, _canonical(key), value.replace("%%", "%")))
    return answer
