"""
A live server that others have built, as facts with their sources and as a pillar that takes it over.

Nothing on the host is changed: nginx prints its configuration, systemd is asked, files are read, and
each project is imported with all file systems read-only.
"""

import grp
import os
import pwd
import re
from collections.abc import Iterable
from typing import Any

from _nud_contract_patterns import PATH, RESERVED_ACCOUNT, RESERVED_GROUP, RESERVED_SITE
from _nud_survey_app import is_secret, read
from _nud_survey_around import cron, renewals, units
from _nud_survey_django import ask, may, may_reach, owner, project, settings_module
from _nud_survey_nginx import dump, main_pass, redirect, servers
from _nud_survey_pillar import Entry, Secret, render
from _nud_survey_process import behind, holders, listening
from _nud_survey_serving import Serving

_OURS = re.compile(r"uwsgi-[a-z][a-z0-9_-]*@[0-9a-f]{12}\.service")


def backends(served: dict[str, Any]) -> list[dict[str, Any]]:
    """
    What stands behind nginx's sites: one dictionary for each process that nginx passes requests to.

    served
        what ``_nud_survey_nginx.servers`` returns

    Each has what ``_nud_survey_process.behind`` returns, and ``servers`` (nginx's), ``site_files`` (path,
    and where its link leads or None), and ``app`` (see ``_nud_survey_app.read``).
    """
    sockets, pids = listening(), holders()
    found: dict[str, dict[str, Any]] = {}
    for server in served["servers"]:
        chosen = main_pass(server)
        if chosen is None or not chosen["to"]:
            continue
        if chosen["node"].name not in ("uwsgi_pass", "proxy_pass"):
            continue
        record = behind(chosen["to"][0], sockets, pids)
        if record is None:
            continue
        entry = found.setdefault(str(record["pid"]), {**record, "servers": [], "endpoints": []})
        entry["servers"].append(server)
        entry["endpoints"] += chosen["to"]
    for entry in found.values():
        entry["app"] = read(entry)
        paths = dict.fromkeys(server["path"] for server in entry["servers"])
        entry["site_files"] = _links(paths)
    return list(found.values())


def answering(names: Iterable[str]) -> list[dict[str, Any]]:
    """
    What answers for server names now: the record that a way back needs.

    names
        server names, in any case

    Returns a dictionary for each process behind them, of texts, lists, dictionaries and None, without the
    environment: ``endpoint`` (nginx's word for the socket), ``pid``, ``user``, ``group``, ``kind``, ``unit`` (None: started
    by hand), ``unit_file``, ``drop_ins``, ``enabled`` (systemd's word), ``socket_unit``, ``site_files`` and
    ``configuration`` (paths, each with what its link leads to, or None).

    Raises CommandExecutionError as :py:func:`look` does.
    """
    wanted = {name.lower() for name in names}
    keys = (
        "endpoint",
        "pid",
        "user",
        "group",
        "unit",
        "unit_file",
        "drop_ins",
        "enabled",
        "socket_unit",
    )
    return [
        {
            **{key: record[key] for key in (*keys, "site_files")},
            "kind": record["app"]["kind"],
            "configuration": _links(record["app"]["ini"]),
        }
        for record in backends(servers(dump()))
        if wanted & {word for server in record["servers"] for word, _ in server["names"]}
    ]


def _links(paths: Iterable[str]) -> dict[str, str | None]:
    return {path: os.path.realpath(path) if os.path.islink(path) else None for path in paths}


def look() -> dict[str, Any]:
    """
    All that is on the host.

    Returns a dictionary: ``sites`` (name, ``facts``, ``lost``, ``entries``, ``record``), ``left`` (sentences
    about servers that stay out), ``entries`` (of nginx itself), ``renewals``.

    Raises CommandExecutionError when nginx does not run or its configuration is not valid.
    """
    served = servers(dump())
    found: dict[str, Any] = {
        "sites": [],
        "left": [],
        "entries": [],
        "renewals": renewals(),
        "facts": [],
    }
    nginx_user, source = served["user"] or ("nobody", "nginx's default")
    found["facts"].append(("nginx's user", nginx_user, source))
    taken: list[Any] = []
    known = backends(served)
    django = []
    for record in known:
        if record["unit"] and _OURS.fullmatch(record["unit"]):
            found["left"].append(f"{_where(record)}: the formula's own site already")
            taken += record["servers"]
            continue
        path = project(record["app"], record["cwd"])
        settings = settings_module(record["app"], path) if path else None
        if path is None or settings is None:
            continue
        django.append((record, path, settings))
        taken += record["servers"]
    # The servers of the same names that only redirect.
    moving: dict[int, list[Any]] = {}
    for server in served["servers"]:
        target = redirect(server)
        if server in taken or target is None:
            continue
        words = {word for word, _ in server["names"]}
        for number, (record, _, _) in enumerate(django):
            own = {word for one in record["servers"] for word, _ in one["names"]}
            host = re.sub(r"^https?://", "", target).partition("/")[0]
            if words & own or host in own:
                moving.setdefault(number, []).append(server)
                taken.append(server)
                break
    for number, (record, path, settings) in enumerate(django):
        all_servers = [*record["servers"], *moving.get(number, [])]
        names = {site["name"]: site["user"] for site in found["sites"]}
        found["sites"].append(
            _site(record, path, settings, all_servers, served, nginx_user, names, found["renewals"])
        )
    for server in served["servers"]:
        if server not in taken:
            found["left"].append(_left_out(server, known))
    users = {site["user"] for site in found["sites"]}
    if found["sites"]:
        found["entries"].append(Entry(("nginx", "repo"), "auto", "the source that nginx is from"))
        if nginx_user in users:
            found["entries"].append(
                Entry(
                    ("nginx", "user"),
                    "www-data",
                    f"{source}: {nginx_user}, who is also a site's user. The workers run as the distribution's user instead; it has to read the static files.",
                )
            )
            nginx_user = "www-data"
        else:
            found["entries"].append(Entry(("nginx", "user"), nginx_user, source))
        if len(found["sites"]) > 1:
            found["entries"].append(
                Entry(
                    ("nginx", "catch_all"), False, "unknown names go to the first server, as today"
                )
            )
    for site in found["sites"]:
        for entry in site["entries"]:
            if entry.keys[2:] == ("files",):
                for one in entry.value:
                    if not may_reach(nginx_user, one["path"]):
                        site["lost"].append(
                            (
                                f"{one['path']} ({owner(one['path']) or 'not there'}): nginx's user {nginx_user} cannot read it",
                                "its mode and those above",
                            )
                        )
    return found


def _where(record: dict[str, Any]) -> str:
    names = [word for server in record["servers"] for word, _ in server["names"]]
    return f"{' '.join(dict.fromkeys(names)) or '(no name)'} ({record['servers'][0]['source']})"


def _left_out(server: dict[str, Any], known: list[dict[str, Any]]) -> str:
    names = " ".join(word for word, _ in server["names"]) or "(no name)"
    where = f"{names} ({server['source']})"
    chosen = main_pass(server)
    if chosen is None:
        why = "redirects" if redirect(server) else "serves files alone"
    elif chosen["node"].name == "fastcgi_pass":
        why = f"is passed to FastCGI (PHP?) at {chosen['node'].words[1]}"
    else:
        record = next((one for one in known if server in one["servers"]), None)
        why = f"is passed to {chosen['node'].words[1]}"
        if record is None:
            why += ", where no process of this host was found"
        else:
            why += f", a {record['app']['kind']} in which no Django project was found"
    return f"{where}: {why}; it stays as it is"


def _name(record: dict[str, Any], path: str, taken: Iterable[str]) -> str:
    """A site's name: that of its file, so that the formula's file takes its place."""
    file = os.path.basename(record["servers"][0]["path"]).removesuffix(".conf")
    package = record["app"]["module"][0].partition(".")[0]
    for word in (file, package, os.path.basename(path), f"{package}-site", f"{package}-2"):
        name = re.sub(r"[^a-z0-9_-]", "-", word.lower())[:31]
        refused = any(
            re.fullmatch(pattern, name)
            for pattern in (RESERVED_SITE[0], RESERVED_ACCOUNT[0], RESERVED_GROUP[0])
        )
        if re.fullmatch(r"[a-z][a-z0-9_-]*", name) and not refused and name not in taken:
            if not os.path.exists(f"/etc/systemd/system/uwsgi-{name}.service"):
                return name
    return f"site{len(list(taken)) + 1}"


def _let_go(entries: list[Entry], name: str, record: dict[str, Any]) -> None:
    """What serves the site now, and is not needed once the formula's own site is proven."""
    units = [record["unit"], record["socket_unit"]]
    going = {
        "units": [unit for unit in units if unit and unit.endswith((".service", ".socket"))],
        "files": [
            file
            for file in record["site_files"]
            if not file.endswith(f"/sites-enabled/{name}.conf")
        ],
        "sockets": [
            endpoint.removeprefix("unix:")
            for endpoint in dict.fromkeys(record["endpoints"])
            if endpoint.startswith("unix:")
        ],
    }
    why = (
        "stopped, disabled and put aside once visitors get the new answers; takeover.revert brings "
        "it back. Without the key the old server goes on running"
    )
    for key, value in going.items():
        if value:
            entries.append(Entry(("sites", name, "takeover", key), value, why))
            why = "the same"


def _site(
    record: dict[str, Any],
    path: str,
    settings: tuple[str, str],
    nginx_servers: list[dict[str, Any]],
    served: dict[str, Any],
    nginx_user: str,
    taken: dict[str, str],
    certbot: list[dict[str, Any]],
) -> dict[str, Any]:
    app = record["app"]
    name = _name(record, path, taken)
    facts: list[tuple[str, str, str]] = []
    lost: list[tuple[str, str]] = list(app["lost"])
    unit = record["unit"]
    facts.append(("process", f"{app['kind']}, {record['pid']}", record["endpoint"]))
    facts.append(
        (
            "unit",
            unit or "none: started by hand",
            record["unit_file"] or f"/proc/{record['pid']}/cgroup",
        )
    )
    if unit:
        facts.append(("unit at boot", record["enabled"] or "unknown", unit))
    user, group = record["user"], record["group"]
    facts.append(("user and group", f"{user}:{group}", f"/proc/{record['pid']}/status"))
    python, venv = _interpreter(record)
    facts.append(
        ("interpreter", python, app["venv"][1] if app["venv"] else f"/proc/{record['pid']}/exe")
    )
    facts.append(
        ("project", path, app["chdir"][1] if app["chdir"] else f"/proc/{record['pid']}/cwd")
    )
    facts.append(("module", *app["module"]))
    facts.append(("settings", *settings))
    for ini in app["ini"]:
        facts.append(("configuration", ini, app["kind"]))
    told = ask(user, group, python, path, settings[0], app)
    if "error" in told:
        lost.append((f"the project's settings could not be read: {told['error']}", settings[0]))
    else:
        facts += _settings_facts(told)
    for variable, _, where in app["environment"]:
        facts.append(("variable", variable, where))
    serving = Serving(name, nginx_servers, served["http"], told)
    serving.read()
    for url, directory, where in app["static"]:
        if re.fullmatch(PATH, directory):
            lost.append((f"uWSGI's static-map {url}: write it to files", where))
    entries = list(serving.entries)
    lost += serving.lost
    _carry_project(
        entries,
        facts,
        lost,
        name,
        record,
        path,
        settings,
        told,
        user,
        group,
        venv,
        set(taken.values()),
    )
    _carry_static(entries, lost, name, serving, told, user, path)
    _carry_server(entries, lost, name, record, path, venv, python, told)
    _around(facts, lost, user, path, venv, record)
    _certificates(facts, entries, certbot)
    _let_go(entries, name, record)
    # A mapping's keys stand together.
    order = {
        keys: number for number, keys in enumerate(dict.fromkeys(one.keys[:3] for one in entries))
    }
    entries.sort(key=lambda one: order[one.keys[:3]])
    return {
        "name": name,
        "user": next(one.value for one in entries if one.keys[-2:] == ("project", "user")),
        "facts": facts,
        "lost": lost,
        "entries": entries,
        "record": record,
    }


def _interpreter(record: dict[str, Any]) -> tuple[str, str | None]:
    """The Python of a process, and its virtual environment."""
    app = record["app"]
    venv = app["venv"][0] if app["venv"] else None
    if venv is None:
        home = os.path.dirname(os.path.dirname(record["command"][0] if record["command"] else ""))
        if os.path.isfile(os.path.join(home, "pyvenv.cfg")):
            venv = home
    if venv:
        return os.path.join(venv, "bin", "python"), venv
    return "/usr/bin/python3", None


def _settings_facts(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    where = told["file"] or "the settings"
    facts = [
        ("Django", f"{told['django']} on Python {told['python']}", "its interpreter"),
        ("DEBUG", str(told["debug"]), where),
        ("ALLOWED_HOSTS", " ".join(told["allowed_hosts"]) or "none", where),
        ("STATIC", f"{told['static_url']} {told['static_root'] or '(no STATIC_ROOT)'}", where),
        ("MEDIA", f"{told['media_url']} {told['media_root'] or '(no MEDIA_ROOT)'}", where),
        (
            "SECRET_KEY",
            f"from the variable {' '.join(told['secret_from'])}"
            if told["secret_from"]
            else "written in the settings, or computed there",
            where,
        ),
    ]
    for one in told["databases"]:
        words = [one["engine"].rpartition(".")[2], one["name"], one["user"], one["host"]]
        held = owner(one["name"]) if one["name"].startswith("/") else None
        facts.append((f"database {one['alias']}", " ".join(filter(None, [*words, held])), where))
    if told["media_root"] and owner(told["media_root"]):
        facts.append(("MEDIA_ROOT's owner", str(owner(told["media_root"])), told["media_root"]))
    return facts


def _carry_project(
    entries: list[Entry],
    facts: list[tuple[str, str, str]],
    lost: list[tuple[str, str]],
    name: str,
    record: dict[str, Any],
    path: str,
    settings: tuple[str, str],
    told: dict[str, Any],
    user: str,
    group: str,
    venv: str | None,
    others: set[str],
) -> None:
    app = record["app"]

    def say(key: str, value: Any, comment: str) -> None:
        entries.append(Entry(("sites", name, "project", *key.split(":")), value, comment))

    say("path", path, "The tree that runs today, without links on the way.")
    say("wsgi", *app["module"])
    say("settings", *settings)
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        account = None
    system = account is None or account.pw_uid < 100 or re.fullmatch(RESERVED_ACCOUNT[0], user)
    status = f"/proc/{record['pid']}/status"
    if system or user in others:
        # The contract refuses such a user: it would open other files and other powers to the site.
        say(
            "user",
            name,
            f"{status}: {user}, which is the system's or another site's. This site gets a user of its own.",
        )
        held = [one["name"] for one in told.get("databases", []) if one["name"].startswith("/")]
        places = [place for one in held for place in (os.path.dirname(one), one)]
        places += [told["media_root"]] if told.get("media_root") else []
        there = " ".join(dict.fromkeys(place for place in places if os.path.exists(place)))
        lost.append(
            (
                f"the user {user}: what it owns, the new user {name} cannot write. Before the first run: "
                f"apt-get install acl; useradd --system --user-group {name}; "
                + (f"setfacl -R -m u:{name}:rwX {there}; " if there else "")
                + "both may write then, and the old process goes on",
                status,
            )
        )
    else:
        say("user", user, status)
        primary = grp.getgrgid(account.pw_gid).gr_name if account else user
        if primary != user:
            say("group", primary, f"the user's primary group; the process has {group}")
        elif group != user:
            facts.append(("group", f"{group}; the site runs with {user}", status))
    if app["environment"]:
        for variable, value, where in app["environment"]:
            if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
                lost.append((f"the variable {variable}, a text of several lines", where))
                continue
            secret = is_secret(variable, value)
            say(
                f"env:{variable}",
                Secret(value, variable, where) if secret else value,
                f"{where}{': a secret' if secret else ''}",
            )
    if venv:
        say("venv", venv, app["venv"][1] if app["venv"] else f"/proc/{record['pid']}/cmdline")
    else:
        has_file = os.path.isfile(os.path.join(path, "requirements.txt"))
        say(
            "requirements",
            "requirements.txt" if has_file else None,
            f"no virtual environment today; the formula makes one{' from it' if has_file else ''}",
        )
        if not has_file:
            lost.append(
                (
                    "the distribution's Python packages: there is no requirements.txt to install Django from",
                    path,
                )
            )
    say("migrate", False, "The database stays as it is; true, once the formula is to migrate it.")


def _carry_static(
    entries: list[Entry],
    lost: list[tuple[str, str]],
    name: str,
    serving: Serving,
    told: dict[str, Any],
    user: str,
    path: str,
) -> None:
    def say(key: str, value: Any, comment: str) -> None:
        entries.append(Entry(("sites", name, "project", "static", key), value, comment))

    if serving.static is None:
        say("collect", False, "nginx serves no STATIC_ROOT today.")
        return
    url, directory, where = serving.static
    inside = directory.startswith(f"{path}/")
    writable = may(user, directory, 2)
    if told["collects"] and inside and writable:
        say(
            "url", url, f"{where}: STATIC_ROOT is {directory}; collectstatic writes there as {user}"
        )
        return
    say(
        "collect",
        False,
        f"{where}: {directory} is {'not writable for ' + user if inside else 'outside the project'}; collectstatic stays yours",
    )
    media = next((n for n, one in enumerate(entries) if one.keys[2:] == ("files",)), None)
    entry = {"url": url, "path": directory}
    if media is None:
        entries.append(Entry(("sites", name, "files"), [entry], where))
    else:
        entries[media] = entries[media]._replace(value=[*entries[media].value, entry])


def _carry_server(
    entries: list[Entry],
    lost: list[tuple[str, str]],
    name: str,
    record: dict[str, Any],
    path: str,
    venv: str | None,
    python: str,
    told: dict[str, Any],
) -> None:
    app = record["app"]

    def say(key: str, value: Any, comment: str) -> None:
        entries.append(Entry(("sites", name, "uwsgi", *key.split(":")), value, comment))

    own = next(
        (
            ini
            for ini in app["ini"]
            if app["kind"] == "uwsgi" and os.path.realpath(ini).startswith(f"{path}/")
        ),
        None,
    )
    if venv and not os.path.exists(f"{venv}/bin/pyuwsgi"):
        if os.path.exists(f"{venv}/bin/uwsgi"):
            say("binary", f"{venv}/bin/uwsgi", "The uWSGI of today.")
        elif os.path.realpath(python).startswith("/usr/bin/python3"):
            say(
                "package",
                "distro",
                "The environment has no uWSGI, and its Python is the distribution's.",
            )
        else:
            lost.append(
                (
                    f"the environment {venv} has no uWSGI. Before the first run: {venv}/bin/pip install pyuwsgi==2.0.30.post1",
                    venv,
                )
            )
    elif not venv and app["kind"] == "uwsgi":
        say("package", "distro", "The distribution's uWSGI, as today.")
    if own:
        say(
            "ini",
            os.path.relpath(os.path.realpath(own), path),
            "The project's own: its processes and options stay; the socket's lines become the formula's.",
        )
    else:
        processes, source = app["processes"] or ("1", f"{app['kind']}'s default")
        if processes.isdigit():
            say("processes", max(int(processes), 1), source)
        else:
            lost.append((f"processes: {processes}", source))
        if app["threads"] and app["threads"][0].isdigit():
            say("threads", int(app["threads"][0]), app["threads"][1])
        done: dict[str, Any] = {}
        for option, value, where in app["carried"]:
            if option in done:
                lost.append((f"uWSGI's {option} a second time: write a list", where))
                continue
            done[option] = value
            say(f"options:{option}", value, where)
    # No answer is asked of a site that might not have one: Django's own 404 would refuse it.
    host = next(
        (
            host
            for host in told.get("allowed_hosts", [])
            if re.fullmatch(r"[A-Za-z0-9.-]+", host) and not host.startswith(".")
        ),
        None,
    )
    names = next(one.value for one in entries if one.keys == ("sites", name, "server_names"))
    if host and not re.fullmatch(r"[A-Za-z0-9.-]+", names[0]):
        entries.append(
            Entry(("sites", name, "health", "host"), host, "a name that ALLOWED_HOSTS has")
        )


def _around(
    facts: list[tuple[str, str, str]],
    lost: list[tuple[str, str]],
    user: str,
    path: str,
    venv: str | None,
    record: dict[str, Any],
) -> None:
    places = [path, *([venv] if venv else [])]
    without = {one for one in (record["unit"], record["socket_unit"], "nginx.service") if one}
    for one in units("" if user in ("root", "www-data") else user, places, without):
        facts.append(
            ("unit beside it", f"{one['unit']} ({one['state']}): {one['command']}", one["file"])
        )
        lost.append(
            (
                f"{one['unit']} runs on as it is; see companions for a unit of the formula's",
                one["file"],
            )
        )
    for line, where in cron("-" if user == "root" else user, places):
        # What a line passes to its command may be a secret.
        command = re.sub(r"\b(\w*(?:SECRET|PASS|TOKEN|KEY)\w*)=\S+", r"\1=…", line)
        facts.append(("cron", command, where))
        lost.append(
            ("a cron line runs on as it is; see companions for a timer of the formula's", where)
        )


def _certificates(
    facts: list[tuple[str, str, str]], entries: list[Entry], certbot: list[dict[str, Any]]
) -> None:
    wanted = next((one.value for one in entries if one.keys[-2:] == ("tls", "certificate")), None)
    for one in certbot:
        if wanted and wanted == one["certificate"]:
            words = [
                f"authenticator {one['authenticator']}",
                f"installer {one['installer'] or 'none'}",
            ]
            words += [f"{domain} in {root}" for domain, root in one["webroots"]]
            facts.append(("certbot renews", ", ".join(words), one["file"]))


# --- the two texts ---------------------------------------------------------------------------------
def report(found: dict[str, Any]) -> str:
    """What was found, for a person; no value of a variable is in it."""
    lines = [f"{what}: {value}  [{source}]" for what, value, source in found["facts"]]
    for site in found["sites"]:
        lines += ["", f"{site['name']}:"]
        for server in site["record"]["servers"]:
            names = " ".join(word for word, _ in server["names"]) or "(no name)"
            lines.append(f"  nginx: {names}  [{server['source']}]")
        lines += [f"  {what}: {value}  [{source}]" for what, value, source in site["facts"]]
        if site["lost"]:
            lines.append("  not carried over, or yours to do:")
            lines += [f"    - {what}  [{source}]" for what, source in site["lost"]]
    if found["left"]:
        lines += ["", "Left out:"]
        lines += [f"  - {sentence}" for sentence in found["left"]]
    return "\n".join(lines) + "\n"


def pillar(found: dict[str, Any], secrets: bool) -> str:
    """The text of the pillar that takes the sites over."""
    head = ["Written by the survey of a live server: each value with the place where it was read."]
    if (
        any(isinstance(entry.value, Secret) for site in found["sites"] for entry in site["entries"])
        and not secrets
    ):
        head.append(
            "Secrets are left out: put each value in, or write the file with secrets. A run with this text in their place is refused."
        )
    for site in found["sites"]:
        if site["lost"]:
            head += ["", f"{site['name']}, not carried over, or yours to do:"]
            head += [f"- {what} [{source}]" for what, source in site["lost"]]
    if found["left"]:
        head += ["", "Left out:", *(f"- {sentence}" for sentence in found["left"])]
    entries = [*found["entries"], *(entry for site in found["sites"] for entry in site["entries"])]
    return render(entries, head, secrets)


def left_out(found: dict[str, Any]) -> list[str]:
    """The pillar paths of the secrets that are written only when asked for."""
    return [
        ":".join(("nginx_uwsgi_django", *entry.keys))
        for site in found["sites"]
        for entry in site["entries"]
        if isinstance(entry.value, Secret)
    ]
