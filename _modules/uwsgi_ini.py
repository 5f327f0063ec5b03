"""
The ini file of a uWSGI generation.

Made from the pillar alone, or from an ini that a project ships: then its comments and the order of
its lines stay, what would fight with systemd goes, and what a generation stands on is added.

.. versionadded:: 0.1.0
"""

import os
import re
from typing import Any

from salt.exceptions import SaltInvocationError

__virtualname__ = "uwsgi_ini"

# The mark in front of what is added at the end of a project's own ini.
_MARK = "# Added by nginx_uwsgi_django"

# One graceful way to stop: without this line uWSGI takes SIGTERM for "reload brutally"
# (core/master.c of 2.0.31); with it, requests in flight are finished first.
_GRACEFUL = "unix_signal:15 gracefully_kill_them_all"

# Refused in the pillar's options and taken out of a project's own ini: option -> why.
_SYSTEMD_SOCKET = "systemd holds the socket: see socket in the pillar"
_OWN_KEY = "the pillar has a key of its own for it"
_FORMULA = "the formula sets it itself"
_INCLUDE = "what another file says would not be part of the generation"
_REFUSED = {
    "socket": _SYSTEMD_SOCKET,
    "uwsgi-socket": _SYSTEMD_SOCKET,
    "suwsgi-socket": _SYSTEMD_SOCKET,
    "ssl-socket": _SYSTEMD_SOCKET,
    "s": _SYSTEMD_SOCKET,
    "raw-socket": _SYSTEMD_SOCKET,
    "puwsgi-socket": _SYSTEMD_SOCKET,
    "upload-socket": _SYSTEMD_SOCKET,
    "shared-socket": _SYSTEMD_SOCKET,
    "undeferred-shared-socket": _SYSTEMD_SOCKET,
    "fastcgi-socket": _SYSTEMD_SOCKET,
    "fastcgi-nph-socket": _SYSTEMD_SOCKET,
    "fastcgi-modifier1": _SYSTEMD_SOCKET,
    "scgi-socket": _SYSTEMD_SOCKET,
    "scgi-nph-socket": _SYSTEMD_SOCKET,
    "map-socket": _SYSTEMD_SOCKET,
    "zerg": _SYSTEMD_SOCKET,
    "zerg-pool": _SYSTEMD_SOCKET,
    "chmod": "systemd holds the socket: see socket:mode in the pillar",
    "chmod-socket": "systemd holds the socket: see socket:mode in the pillar",
    "C": "systemd holds the socket: see socket:mode in the pillar",
    "chown": "systemd holds the socket: see socket:owner and socket:group in the pillar",
    "chown-socket": "systemd holds the socket: see socket:owner and socket:group in the pillar",
    "listen": "the queue of a socket that systemd holds is socket:backlog in the pillar",
    "l": "the queue of a socket that systemd holds is socket:backlog in the pillar",
    "die-on-term": "SIGTERM would drop the requests in flight",
    "exit-on-reload": "a reload would end the generation",
    "daemonize": "systemd runs uWSGI in the foreground",
    "daemonize2": "systemd runs uWSGI in the foreground",
    "d": "systemd runs uWSGI in the foreground",
    "uid": "systemd runs uWSGI as project:user",
    "gid": "systemd runs uWSGI as project:group",
    "immediate-uid": "systemd runs uWSGI as project:user",
    "immediate-gid": "systemd runs uWSGI as project:group",
    "pidfile": "systemd knows the process",
    "pidfile2": "systemd knows the process",
    "safe-pidfile": "systemd knows the process",
    "safe-pidfile2": "systemd knows the process",
    **dict.fromkeys(
        (
            "logto",
            "logto2",
            "log-reopen",
            "log-truncate",
            "log-maxsize",
            "log-backupname",
            "logfile-chown",
            "logfile-chmod",
            "touch-logrotate",
            "touch-logreopen",
        ),
        "systemd opens the log: see uwsgi:log in the pillar",
    ),
    "emperor": "systemd looks after the site's generations",
    "lazy": "uWSGI's own documentation warns of it; lazy-apps is what is meant",
    "env": "its value would be readable here: see project:env in the pillar",
    "chdir": _OWN_KEY,
    "chdir2": _OWN_KEY,
    "home": _OWN_KEY,
    "virtualenv": _OWN_KEY,
    "venv": _OWN_KEY,
    "pyhome": _OWN_KEY,
    "H": _OWN_KEY,
    "module": _OWN_KEY,
    "wsgi": _OWN_KEY,
    "wsgi-file": _OWN_KEY,
    "file": _OWN_KEY,
    "w": _OWN_KEY,
    "callable": _OWN_KEY,
    "processes": _OWN_KEY,
    "workers": _OWN_KEY,
    "p": _OWN_KEY,
    "threads": _OWN_KEY,
    "strict": _FORMULA,
    "master": _FORMULA,
    "M": _FORMULA,
    "need-app": _FORMULA,
    "single-interpreter": _FORMULA,
    "i": _FORMULA,
    "max-apps": _FORMULA,
    "stats": _FORMULA,
    "stats-server": _FORMULA,
    "stats-http": _FORMULA,
    "ini": _INCLUDE,
    "include": _INCLUDE,
    "inherit": _INCLUDE,
    "config": _INCLUDE,
    "xml": _INCLUDE,
    "yaml": _INCLUDE,
    "yml": _INCLUDE,
    "json": _INCLUDE,
    "set": "strict mode knows no placeholders",
    "set-placeholder": "strict mode knows no placeholders",
    "set-ph": "strict mode knows no placeholders",
}

_PLUGINS = ("plugins-dir", "plugin-dir", "plugin", "plugins", "need-plugin", "need-plugins")

# A project's own ini may say these itself.
_PROJECT_MAY = {"env", "processes", "workers", "p", "threads", "chdir2"}

# Not in the short-lived instance that only answers a health request: it would do the site's
# periodic work twice, or hide its words from the journal.
_NOT_IN_PREFLIGHT = re.compile(
    r"cheap(er.*)?|idle|die-on-idle|(unique-)?(legion-)?cron2?|mule.*|farm|spooler.*|import|"
    r"(smart-|legion-)?(smart-)?attach-daemon.*|legion.*|touch-.*|fs-.*reload|"
    r"(req-|worker-)?(logger|logto2?|log-.*)|log-master|master-fifo|fifo|subscribe.*|carbon.*|"
    r"snmp.*|statsd.*|stats-push.*|processes|workers|p|disable-logging"
)


def __virtual__() -> str:
    return __virtualname__


def _canonical(key: str) -> str:
    return key.strip().replace("_", "-")


def _is_http(key: str) -> bool:
    return key.startswith("http")


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

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_ini.escape '50%'
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

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_ini.refused '{"die-on-term": true}'
    """
    errors = []
    for key, value in options.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key):
            errors.append(f"{key!r} is not the name of a uWSGI option")
            continue
        name = _canonical(key)
        if name in _REFUSED:
            errors.append(f"{key}: {_REFUSED[name]}")
            continue
        if _is_http(name):
            errors.append(f"{key}: {_SYSTEMD_SOCKET}")
            continue
        for item in value if isinstance(value, list) else [value]:
            try:
                text = escape(item)
            except SaltInvocationError as error:
                errors.append(f"{key}: {error}")
                continue
            if name == "hook-master-start" and re.search(r"unix_signal:\s*15\b", text):
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


def _usual() -> list[tuple[str, Any]]:
    """What options in the pillar, or a project's own ini, may say otherwise."""
    return [
        ("enable-threads", True),
        # nginx passes headers of 8 KiB by default and more on request; uWSGI answers 502 above it.
        ("buffer-size", 16384),
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

    Returns text. The same arguments give the same text.

    Raises SaltInvocationError for options that cannot work and values that cannot be carried.

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_ini.render '{"name": "a", "project": {"wsgi": "a.wsgi"}, "uwsgi": {}}' /srv/a
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
    if uwsgi.get("log", {}).get("to") == "file":
        # The journal has the time itself.
        fixed.append(("log-date", True))
    sized = [("processes", uwsgi.get("processes", 2)), ("threads", uwsgi.get("threads", 1))]
    if own is None:
        # Sorted: the order in which a pillar's dictionary is merged must not make a generation.
        names = set(options)
        usual = [(key, value) for key, value in _usual() if key not in names]
        lines = ["[uwsgi]", f"# The Django site {site['name']}; written once, never edited."]
        entries = [*fixed, *sized, *usual, *chosen]
    else:
        lines, said = _project(own, own_path, socket or site["socket"]["path"], set(options))
        entries = [
            (key, value)
            for key, value in [*fixed, *sized, *_usual(), *chosen]
            if (key, value) in [*plugins, *chosen] or (key not in said and key not in options)
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


def _project(
    own: str, own_path: str | None, socket: str, options: set[str]
) -> tuple[list[str], set[str]]:
    """A project's own ini without what does not go with systemd, and the options that it says."""
    lines: list[str] = []
    said: set[str] = set()
    section = ""
    place = None
    for line in _lines(own):
        text = line.strip(" \t\r")
        if text.startswith("["):
            section = text[1:-1]
        if section != "uwsgi" and text and text[0] not in ";#[":
            # Only [uwsgi] is read, so the rest may stay as it is; but ours must come in its place.
            continue
        if text.startswith("[") and section != "uwsgi":
            continue
        if text == _MARK:
            # A generation's ini taken for the project's own: the rest is said again below.
            break
        option = _split(line)
        if option is None:
            lines.append(line.rstrip("\r"))
            continue
        key = _canonical(option[0])
        is_socket = _is_http(key) or _REFUSED.get(key) == _SYSTEMD_SOCKET
        if is_socket and place is None:
            place = len(lines)
        if is_socket or key in options or (key in _REFUSED and key not in _PROJECT_MAY):
            continue
        if key == "hook-master-start" and re.search(r"unix_signal:\s*15\b", option[1]):
            continue
        said.add({"workers": "processes", "p": "processes"}.get(key, key))
        lines.append(_magic(line.rstrip("\r"), own_path) if own_path else line.rstrip("\r"))
    if not any(line.strip() == "[uwsgi]" for line in lines):
        raise SaltInvocationError("the project's ini has no section [uwsgi]")
    while lines and not lines[-1].strip():
        lines.pop()
    # Said several times, options like plugin and hook-… add up; these are the project's own.
    said -= {"hook-master-start", "plugin"}
    if place is not None:
        lines.insert(place, f"socket = {escape(socket)}")
        said.add("socket")
    return lines, said


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

    CLI Example:

    .. code-block:: bash

        salt '*' uwsgi_ini.preflight "$(cat /etc/uwsgi/mysite/4f2a9c01d7e3.ini)" /run/x/uwsgi.sock
    """
    kept = []
    for line in _lines(text):
        option = _split(line)
        key = _canonical(option[0]) if option else ""
        if key == "stats" or _NOT_IN_PREFLIGHT.fullmatch(key):
            continue
        kept.append(f"socket = {escape(socket)}" if key == "socket" else line)
    return "\n".join([*kept, "processes = 1"]) + "\n"
