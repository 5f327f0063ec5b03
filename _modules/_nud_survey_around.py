"""
What else runs for a project: units, timers and cron lines; and certbot's renewals.
"""

import glob
import os
import re
from typing import Any

from _nud_survey_process import show
from _nud_systemd import query


def cron(user: str, places: list[str]) -> list[tuple[str, str]]:
    """The cron lines of a user, and those of others that name a directory: line and source."""
    found = []
    tables = [(f"/var/spool/cron/crontabs/{user}", False), ("/etc/crontab", True)]
    tables += [(path, True) for path in sorted(glob.glob("/etc/cron.d/*"))]
    for path, named in tables:
        if not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(stream, 1):
                text = line.strip()
                if not re.match(r"[0-9*@]", text):
                    continue
                words = text.split()
                whose = words[1 if text[0] == "@" else 5 : 2 if text[0] == "@" else 6]
                if not named or user in whose or _names(text, places):
                    found.append((text, f"{path}:{number}"))
    return found


def _names(text: str, places: list[str]) -> bool:
    return any(re.search(rf"{re.escape(place)}(?:/|\b)", text) for place in places if place)


def units(user: str, places: list[str], without: set[str]) -> list[dict[str, str]]:
    """
    The services and timers that run as a user, or in a directory: ``unit``, ``file``, ``state``,
    ``command``.
    """
    listed = query(
        ["systemctl", "list-unit-files", "--no-legend", "--plain", "--type=service,timer"]
    )
    names = sorted({line.split()[0] for line in listed.splitlines() if line.split()} - without)
    names = [name for name in names if not name.endswith(("@.service", "@.timer"))]
    if not names:
        return []
    found = []
    wanted = "Id,FragmentPath,ActiveState,UnitFileState,User,WorkingDirectory,ExecStart,Unit"
    shown = {unit.get("Id", ""): unit for unit in show(names, wanted)}
    for name, unit in shown.items():
        about = shown.get(unit.get("Unit", ""), {}) if name.endswith(".timer") else unit
        text = f"{about.get('WorkingDirectory', '')} {about.get('ExecStart', '')}"
        if name in without or not (about.get("User") == user or _names(text, places)):
            continue
        command = re.search(r"argv\[\]=(.*?) ;", about.get("ExecStart", ""))
        found.append(
            {
                "unit": name,
                "file": unit.get("FragmentPath", ""),
                "state": f"{unit.get('ActiveState', '')}, {unit.get('UnitFileState', '')}",
                "command": command[1] if command else "",
            }
        )
    return found


def renewals() -> list[dict[str, Any]]:
    """
    certbot's renewals: ``file``, ``name``, ``authenticator``, ``installer``, ``certificate``, ``webroots`` (domain,
    directory).
    """
    found = []
    for path in sorted(glob.glob("/etc/letsencrypt/renewal/*.conf")):
        values: dict[str, str] = {}
        webroots = []
        section = ""
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                text = line.split("#")[0].strip()
                if text.startswith("["):
                    section = text.strip("[]")
                elif "=" in text:
                    key, _, value = (word.strip() for word in text.partition("="))
                    if section == "webroot_map":
                        webroots.append((key, value))
                    else:
                        values[key] = value
        found.append(
            {
                "file": path,
                "name": os.path.basename(path).removesuffix(".conf"),
                "authenticator": values.get("authenticator", ""),
                "installer": values.get("installer", ""),
                "certificate": values.get("fullchain", ""),
                "webroots": webroots,
            }
        )
    return found
