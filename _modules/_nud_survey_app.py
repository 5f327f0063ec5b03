"""
What a process behind nginx runs: a uWSGI or a gunicorn, its options and their sources.
"""

import ast
import os
import re
from typing import Any

from _nud_survey_process import command, environment_file, split
from _nud_uwsgi_ini import refused, said

# Options of uWSGI's command line that take no value.
_FLAGS = (
    "master need-app vacuum die-on-term enable-threads lazy-apps single-interpreter strict "
    "thunder-lock auto-procname disable-logging no-orphans memory-report no-site no-initgroups"
).split()
_SHORT = {
    "s": "socket", "w": "module", "H": "home", "p": "processes", "M": "master", "l": "listen",
    "C": "chmod-socket", "d": "daemonize", "i": "single-interpreter", "z": "socket-timeout",
    "R": "max-requests", "t": "harakiri", "b": "buffer-size", "L": "disable-logging",
}  # fmt: skip
_ALIASES = {
    "workers": "processes", "p": "processes", "virtualenv": "home", "venv": "home",
    "pyhome": "home", "H": "home", "wsgi": "module", "w": "module", "python-path": "pythonpath",
    "pp": "pythonpath", "s": "socket", "uwsgi-socket": "socket",
}  # fmt: skip
# They say how uWSGI is started here, which is the formula's part, or what a key of its own says.
_OWN = (
    "ini autoload plugin plugins need-plugin pythonpath static-map log-date logdate log-master "
    "emperor vassal-set declare-option py-executable http-socket show-config no-site"
).split()
# systemd's, a shell's and the server's own variables.
_NOT_THE_PROJECT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|LANGUAGE|PWD|OLDPWD|SHLVL|_|TERM|MAIL|VIRTUAL_ENV\w*|"
    r"INVOCATION_ID|JOURNAL_STREAM|NOTIFY_SOCKET|SYSTEMD_\w+|LISTEN_\w+|WATCHDOG_\w+|MAINPID|"
    r"MANAGERPID|MEMORY_PRESSURE_\w+|\w+_DIRECTORY|XDG_\w+|SSH_\w+|SUDO_\w+|LS_COLORS|PS1|UWSGI_\w+|"
    r"GUNICORN_\w+|SERVER_SOFTWARE|DBUS_\w+|DJANGO_SETTINGS_MODULE|DEBIAN_FRONTEND|PYTHONPATH|"
    r"PYENV_\w+|RUNLEVEL|PREVLEVEL|UPSTART_\w+|init"
)

Option = tuple[str, str, str]


def kind(record: dict[str, Any]) -> str:
    """``uwsgi``, ``gunicorn``, or the name of another program."""
    words, _ = command(record)
    names = [os.path.basename(word) for word in words[:3]]
    if any(re.match(r"(?:py)?uwsgi", name, re.IGNORECASE) for name in names[:1]) or (
        os.path.basename(record["executable"]).startswith("uwsgi")
    ):
        return "uwsgi"
    if any(re.fullmatch(r"gunicorn(?:[0-9.]*|:.*)", name) for name in names) or names[1:3] == [
        "-m",
        "gunicorn",
    ]:
        return "gunicorn"
    return (
        names[1]
        if names[:1] and names[0].startswith("python") and names[1:]
        else "".join(names[:1])
    )


def read(record: dict[str, Any]) -> dict[str, Any]:
    """
    What a server runs.

    record
        what ``_nud_survey_process.behind`` returns

    Returns a dictionary: ``kind``, ``options`` (name, value, source), ``ini`` (the files that were
    read), ``module``, ``chdir``, ``paths`` (of Python's modules), ``venv``, ``binary``, ``processes``,
    ``threads`` (each a value and its source, or None), ``carried`` (options for ``uwsgi:options``),
    ``static`` (URL, directory, source), ``environment`` (name, value, source) and ``lost`` (what,
    source).
    """
    of = kind(record)
    app: dict[str, Any] = {
        "kind": of, "options": [], "ini": [], "module": None, "chdir": None, "paths": [],
        "venv": None, "binary": None, "processes": None, "threads": None, "carried": [],
        "static": [], "lost": [],
    }  # fmt: skip
    words, source = command(record)
    if of == "uwsgi":
        _uwsgi(app, record, words, source)
    elif of == "gunicorn":
        _gunicorn(app, record, words, source)
    app["environment"] = _environment(record, app)
    return app


# --- uWSGI -----------------------------------------------------------------------------------------
def uwsgi_options(words: list[str], source: str) -> tuple[list[Option], list[str]]:
    """The options of a command line of uWSGI, and the configuration files that it names."""
    options: list[Option] = []
    files: list[str] = []
    todo = list(words)
    while todo:
        word = todo.pop(0)
        if not word.startswith("-"):
            if word.endswith((".ini", ".xml", ".yaml", ".yml", ".json")):
                files.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            short = name[:1]
            name, value, equals = _SHORT.get(short, short), name[1:], "=" if name[1:] else ""
        name = name.replace("_", "-")
        if not equals:
            takes = name not in _FLAGS and todo and not todo[0].startswith("-")
            value = todo.pop(0) if takes else "true"
        if name == "ini":
            files.append(value)
        else:
            options.append((_ALIASES.get(name, name), value, source))
    return options, files


def _found(file: str, record: dict[str, Any], options: list[Option]) -> str | None:
    """The absolute path of a configuration file that a command line names."""
    places = ["/", record["cwd"], *(value for name, value, _ in options if name == "emperor")]
    if record["parent"] > 1:
        try:
            # A vassal's file is named as the emperor sees it.
            places.append(os.readlink(f"/proc/{record['parent']}/cwd"))
        except OSError:
            pass
    places += ["/etc/uwsgi/vassals", "/etc/uwsgi-emperor/vassals"]
    for place in places:
        path = os.path.join(place, file)
        if os.path.isfile(path):
            return path
    return None


def _uwsgi(app: dict[str, Any], record: dict[str, Any], words: list[str], source: str) -> None:
    options, files = uwsgi_options(words[1:], source)
    named: set[str] = set()
    for name, value in record["environment"].items():
        if name.startswith("UWSGI_"):
            key = name[6:].lower().replace("_", "-")
            if key == "ini":
                files.append(value)
            elif key not in ("original-proc-name", "reloads", "vassal", "emperor-fd"):
                options.append((_ALIASES.get(key, key), value, f"/proc/{record['pid']}/environ"))
    for file in files:
        path = _found(file, record, options)
        if path is None or not path.endswith(".ini"):
            app["lost"].append((f"uWSGI's configuration {file}, which is not read here", source))
            continue
        app["ini"].append(path)
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
        # A name for other lines, such as %(base), is no option.
        named |= set(re.findall(r"%\((\S+?)[ )]", text))
        lines = said(text, path)
        options += [
            (_ALIASES.get(name, name), value, f"{path}:{number}") for number, name, value in lines
        ]
    app["options"] = options
    first: dict[str, tuple[str, str]] = {}
    for name, value, where in options:
        # Debian's default.ini comes first on the command line, and an application's own is the last.
        first[name] = (value, where)
    app["chdir"] = first.get("chdir") or first.get("chdir2")
    app["venv"] = first.get("home")
    app["processes"] = first.get("processes")
    app["threads"] = first.get("threads")
    app["paths"] = [value for name, value, _ in options if name == "pythonpath"]
    app["binary"] = (
        words[0] if words[:1] and words[0].startswith("/") else record["executable"],
        source,
    )
    callable_ = first.get("callable", ("application", ""))[0]
    if "module" in first:
        value, where = first["module"]
        app["module"] = (value if ":" in value else f"{value}:{callable_}", where)
    elif "wsgi-file" in first or "file" in first:
        value, where = first.get("wsgi-file") or first["file"]
        base = (app["chdir"] or (record["cwd"], ""))[0]
        relative = os.path.relpath(os.path.join(base, value), base)
        dotted = relative.removesuffix(".py").replace("/", ".")
        app["module"] = (f"{dotted}:{callable_}", where)
    for name, value, where in options:
        if name == "static-map" and "=" in value:
            url, _, path = value.partition("=")
            app["static"].append((url, path, where))
        elif name in ("mount", "attach-daemon", "smart-attach-daemon", "cron", "spooler", "mule"):
            app["lost"].append((f"uWSGI's {name} = {value}", where))
        elif name in named or name in _OWN or name.startswith("deb-") or name == "env":
            continue
        elif not refused({name: _typed(value)}):
            app["carried"].append((name, _typed(value), where))


def _typed(value: str) -> Any:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    return int(value) if re.fullmatch(r"0|[1-9][0-9]{0,8}", value) else value


# --- gunicorn --------------------------------------------------------------------------------------
_GUNICORN = {
    "-w": "workers", "-b": "bind", "-k": "worker_class", "-t": "timeout", "-c": "config",
    "-e": "env", "-u": "user", "-g": "group", "-n": "proc_name", "-D": "daemon", "-p": "pid",
    "-m": "umask", "-R": "capture_output",
}  # fmt: skip
_GUNICORN_FLAGS = ("preload", "daemon", "reload", "capture_output", "no_sendfile", "reuse_port")
_GUNICORN_PLAIN = (
    "workers worker_class bind timeout chdir env user group umask threads max_requests "
    "max_requests_jitter access_logfile error_logfile log_level name proc_name pid pidfile config "
    "preload preload_app daemon capture_output graceful_timeout raw_env pythonpath accesslog "
    "errorlog loglevel log_file wsgi_app"
).split()


def gunicorn_options(words: list[str], source: str) -> tuple[list[Option], str | None]:
    """The options of a command line of gunicorn, and the application that it names."""
    options: list[Option] = []
    module = None
    todo = list(words)
    while todo:
        word = todo.pop(0)
        if not word.startswith("-"):
            module = word
            continue
        name, equals, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2 and not equals:
            name, value, equals = word[:2], word[2:], "="
        name = _GUNICORN.get(name, name.lstrip("-").replace("-", "_"))
        if not equals:
            value = "true" if name in _GUNICORN_FLAGS or not todo else todo.pop(0)
        options.append((name, value, source))
    return options, module


def gunicorn_file(text: str, path: str) -> list[Option]:
    """The settings of a gunicorn.conf.py that are plain values; others are not run to be known."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return [("config", "is not Python", path)]
    found: list[Option] = []
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, where = node.targets[0].id, f"{path}:{node.lineno}"
        try:
            value = ast.literal_eval(node.value)
        except ValueError:
            if name in _GUNICORN_PLAIN:
                found.append(("computed", name, where))
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            found.append((name, str(one), where))
    return found


def _gunicorn(app: dict[str, Any], record: dict[str, Any], words: list[str], source: str) -> None:
    at = next((n for n, word in enumerate(words) if re.search(r"gunicorn[0-9.]*$", word)), 0)
    options, module = gunicorn_options(words[at + 1 :], source)
    extra = record["environment"].get("GUNICORN_CMD_ARGS")
    if extra:
        options = gunicorn_options(split(extra), f"/proc/{record['pid']}/environ")[0] + options
    named = [value for name, value, _ in options if name == "config"]
    path = os.path.join(
        record["cwd"], named[-1].removeprefix("file:") if named else "gunicorn.conf.py"
    )
    if os.path.isfile(path):
        app["ini"].append(path)
        with open(path, encoding="utf-8", errors="replace") as stream:
            options = gunicorn_file(stream.read(), path) + options
    app["options"] = options
    last = {name: (value, where) for name, value, where in options}
    if module is None and "wsgi_app" in last:
        module, source = last["wsgi_app"]
    if module:
        app["module"] = (module if ":" in module else f"{module}:application", source)
    app["chdir"] = last.get("chdir")
    app["processes"] = last.get("workers") or ("1", "gunicorn's default")
    app["threads"] = last.get("threads")
    if "pythonpath" in last:
        app["paths"] = last["pythonpath"][0].split(",")
    python = words[0] if at else ""
    script = words[at] if words else ""
    for binary in (python, script):
        home = os.path.dirname(os.path.dirname(binary))
        if os.path.isfile(os.path.join(home, "pyvenv.cfg")):
            app["venv"] = (home, source)
            break
    for key, option in (("timeout", "harakiri"), ("max_requests", "max-requests")):
        if key in last and last[key][0] not in ("0", "true"):
            app["carried"].append((option, _typed(last[key][0]), last[key][1]))
    worker, where = last.get("worker_class", ("sync", source))
    if worker not in ("sync", "gthread"):
        app["lost"].append(
            (f"gunicorn's worker class {worker}: uWSGI serves WSGI by processes and threads", where)
        )
    for name, value, where in options:
        if name == "computed":
            app["lost"].append((f"gunicorn's {value}, which its configuration computes", where))


# --- the environment -------------------------------------------------------------------------------
def _environment(record: dict[str, Any], app: dict[str, Any]) -> list[Option]:
    """The project's variables: of the process, of its unit and of its server's configuration."""
    values = dict(record["environment"])
    sources: dict[str, str] = {}
    for line in record["lines"]:
        if line.key == "Environment":
            for pair in split(line.value):
                name, _, _ = pair.partition("=")
                sources[name] = line.source
        elif line.key == "EnvironmentFile":
            path = line.value.lstrip("-")
            if os.path.isfile(path):
                for name, _, where in environment_file(path):
                    sources[name] = where
    for name, value, where in app["options"]:
        if name in ("env", "raw_env") and "=" in value:
            variable, _, content = value.partition("=")
            values[variable.strip()] = content
            sources[variable.strip()] = where
    app["settings"] = (
        (values["DJANGO_SETTINGS_MODULE"], sources.get("DJANGO_SETTINGS_MODULE", "its environment"))
        if "DJANGO_SETTINGS_MODULE" in values
        else None
    )
    unknown = f"/proc/{record['pid']}/environ"
    return [
        (name, value, sources.get(name, unknown))
        for name, value in sorted(values.items())
        if not _NOT_THE_PROJECT.fullmatch(name) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    ]


_SECRET_NAME = re.compile(
    r"(?i)secret|pass|token|key|credential|dsn|private|salt|auth|cookie|signature|(?:^|_)pw(?:$|_)"
)


def is_secret(name: str, value: str) -> bool:
    """Whether a variable may be a secret, by its name and by what its value looks like."""
    if _SECRET_NAME.search(name) or re.search(r"://[^/@\s]*:[^/@\s]*@", value):
        return True
    # A word that no person has made up: long, of letters and digits.
    return any(
        len(word) >= 20 and re.search(r"[0-9]", word) and re.search(r"[A-Za-z]", word)
        for word in re.split(r"[^A-Za-z0-9+_=-]", value)
    )
