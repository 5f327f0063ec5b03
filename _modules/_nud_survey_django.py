"""
What a Django project says of itself: its settings, asked in its own interpreter, as its own user, with
every file system read-only and a time limit.
"""

import grp
import json
import os
import pwd
import re
import stat
import subprocess
from typing import Any

_TIMEOUT = 60

_DRIVER = r"""
import json, os, sys
request = json.loads(sys.stdin.readline())
channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
os.environ.update(request["environment"])
sys.path[:0] = request["paths"]
import django
from django.conf import settings
secret = getattr(settings, "SECRET_KEY", "")
answer = {
    "django": django.get_version(),
    "python": "%d.%d" % sys.version_info[:2],
    "debug": bool(settings.DEBUG),
    "allowed_hosts": [str(host) for host in settings.ALLOWED_HOSTS],
    "static_url": str(settings.STATIC_URL or ""),
    "static_root": str(settings.STATIC_ROOT or ""),
    "media_url": str(settings.MEDIA_URL or ""),
    "media_root": str(settings.MEDIA_ROOT or ""),
    "collects": "django.contrib.staticfiles" in settings.INSTALLED_APPS,
    "wsgi": str(getattr(settings, "WSGI_APPLICATION", None) or ""),
    "secret_from": sorted(
        name for name, value in os.environ.items() if value and str(secret) == value
    ),
    "databases": [
        {"alias": alias, "engine": str(one.get("ENGINE", "")), "name": str(one.get("NAME", "")),
         "user": str(one.get("USER", "")), "host": str(one.get("HOST", ""))}
        for alias, one in settings.DATABASES.items()
    ],
    "file": str(getattr(sys.modules.get(os.environ["DJANGO_SETTINGS_MODULE"]), "__file__", "") or ""),
}
channel.write(json.dumps(answer) + "\n")
channel.close()
"""


def project(app: dict[str, Any], cwd: str) -> str | None:
    """The directory of a project: the one that its WSGI module is found in, without links."""
    if not app["module"]:
        return None
    relative = app["module"][0].partition(":")[0].replace(".", "/")
    candidates = [*([app["chdir"][0]] if app["chdir"] else []), cwd, *app["paths"]]
    for place in candidates:
        full = os.path.join(cwd, place)
        for end in (".py", "/__init__.py"):
            if os.path.isfile(os.path.join(full, relative + end)):
                return os.path.realpath(full)
    return None


def settings_module(app: dict[str, Any], path: str) -> tuple[str, str] | None:
    """The settings module and where it is named: the environment, the WSGI module or manage.py."""
    if app["settings"]:
        return (app["settings"][0], app["settings"][1])
    wsgi = app["module"][0].partition(":")[0].replace(".", "/") + ".py"
    for name in (wsgi, "manage.py"):
        full = os.path.join(path, name)
        if not os.path.isfile(full):
            continue
        with open(full, encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(stream, 1):
                found = re.search(
                    r"""["']DJANGO_SETTINGS_MODULE["']\s*[\],]\s*=?\s*["']([\w.]+)["']""", line
                )
                if found:
                    return found[1], f"{full}:{number}"
    return None


def ask(
    user: str, group: str, python: str, path: str, settings: str, app: dict[str, Any]
) -> dict[str, Any]:
    """
    A project's settings.

    Returns what the driver says; with ``error`` alone, a sentence, where they cannot be had. Values of
    the environment are in neither.
    """
    environment = {name: value for name, value, _ in app["environment"]}
    request = {
        "environment": {**environment, "DJANGO_SETTINGS_MODULE": settings},
        "paths": [path, *app["paths"]],
    }
    command = [
        "systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--uid={user}", f"--gid={group}",
        "--property=ProtectSystem=strict", "--property=ProtectHome=read-only",
        "--property=TemporaryFileSystem=/dev/shm", "--property=NoNewPrivileges=yes",
        f"--property=RuntimeMaxSec={_TIMEOUT}", f"--working-directory={path}",
        "--", python, "-B", "-c", _DRIVER,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            input=(json.dumps(request) + "\n").encode(),
            capture_output=True,
            timeout=_TIMEOUT + 15,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"{type(error).__name__} of {python}, as {user}"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    except (IndexError, ValueError):
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no answer"]
        said = words[-1]
        for value in sorted(environment.values(), key=len, reverse=True):
            if len(value) > 3:
                said = said.replace(value, "…")
        return {"error": f"{python}, as {user} in {path}: {said}"}
    return answer


def owner(path: str) -> str | None:
    """``USER:GROUP MODE`` of a file; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    names = []
    for find, number in ((pwd.getpwuid, status.st_uid), (grp.getgrgid, status.st_gid)):
        try:
            names.append(str(find(number)[0]))  # type: ignore[operator]
        except KeyError:
            names.append(str(number))
    return f"{':'.join(names)} {stat.S_IMODE(status.st_mode):04o}"


def may(user: str, path: str, bit: int) -> bool:
    """Whether a user may read (4), write (2) or enter (1) what stands at a path, by its mode."""
    if user == "root":
        return True
    try:
        account, status = pwd.getpwnam(user), os.stat(path)
    except (KeyError, OSError):
        return False
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & bit << 6)
    if status.st_gid in os.getgrouplist(user, account.pw_gid):
        return bool(status.st_mode & bit << 3)
    return bool(status.st_mode & bit)


def may_reach(user: str, path: str) -> bool:
    """Whether a user may read a directory and enter all that lead to it."""
    steps = path.rstrip("/").split("/")
    above = ["/".join(steps[: n + 1]) or "/" for n in range(len(steps) - 1)]
    return all(may(user, step, 1) for step in above) and may(
        user, path, 5 if os.path.isdir(path) else 4
    )
