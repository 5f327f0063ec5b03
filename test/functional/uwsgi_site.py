"""
A small Django site on a throwaway host, for the tests of uWSGI's modules.
"""

import time
from collections.abc import Callable
from typing import Any

from test.hosts.host import Host

VENV = "/opt/venv"
SOCKET = "/run/uwsgi/mysite.sock"
UNIT_DIR = "/etc/systemd/system"

SETTINGS = """
SECRET_KEY = "x"
ALLOWED_HOSTS = ["www.example.org"]
ROOT_URLCONF = "mysite.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/mysite/data/db"}}
"""

URLS = '''
import json, os, socket, sqlite3, subprocess, tempfile, time
from django.http import HttpResponse, JsonResponse
from django.urls import path

VERSION = "one"
STATE = "/var/lib/nginx_uwsgi_django/sites/mysite"

def home(request):
    time.sleep(float(request.GET.get("sleep", 0)))
    return HttpResponse(VERSION)

def echo(request):
    return HttpResponse(str(len(request.body)))

def say(request):
    """Words for the log, of the generation whose master this is."""
    print(os.getppid(), request.GET["words"], flush=True)
    return HttpResponse(str(os.getppid()))

def environ(request):
    return JsonResponse(dict(os.environ))

def who(request):
    """What the sandbox lets through, and what not."""
    told = {"uid": os.getuid()}
    for name, act in {
        "sqlite": lambda: sqlite3.connect("/srv/mysite/data/db").execute("create table if not exists t (a)"),
        "sqlite in the state directory": lambda: sqlite3.connect(STATE + "/db").execute("create table if not exists t (a)"),
        "upload": lambda: open("/srv/mysite/data/upload", "w").write("x"),
        "temporary": lambda: tempfile.NamedTemporaryFile().write(b"x"),
        "program": lambda: subprocess.run(["/bin/echo"], check=True, stdout=subprocess.DEVNULL),
        "tcp": lambda: socket.create_server(("127.0.0.1", 0)),
        "mail": lambda: socket.create_connection(("127.0.0.1", 2525)).close(),
        "names": lambda: socket.getaddrinfo("localhost", 80),
        "ctypes": lambda: __import__("ctypes").CDLL(None).getpid(),
        "etc": lambda: open("/etc/evil", "w"),
        "own ini": lambda: open("/etc/uwsgi/mysite/evil", "w"),
        "own environment": lambda: [open("/etc/uwsgi/mysite/" + f).read() for f in os.listdir("/etc/uwsgi/mysite") if f.endswith(".env")],
        "home": lambda: os.listdir("/home/mallory"),
        "suid": lambda: os.chmod("/srv/mysite/data/upload", 0o4755),
    }.items():
        try:
            act()
            told[name] = "yes"
        except OSError as error:
            told[name] = error.strerror or str(error)
        except sqlite3.Error as error:
            told[name] = str(error)
    return JsonResponse(told)

def reach(request):
    """Whether a path can be read, listed or connected to; what stands in the way."""
    wanted = request.GET["path"]
    try:
        if os.path.isdir(wanted):
            os.listdir(wanted)
        elif wanted.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(wanted)
        else:
            open(wanted, "rb").read(1)
    except OSError as error:
        return HttpResponse(error.strerror)
    return HttpResponse("yes")

urlpatterns = [
    path("", home),
    path("echo", echo),
    path("environ", environ),
    path("say", say),
    path("who", who),
    path("reach", reach),
]
'''

WSGI = """
import os
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
import mysite.urls
"""


def pillar(**site: Any) -> dict[str, Any]:
    """A pillar with the site; what is given is merged into its keys."""
    whole: dict[str, Any] = {
        "server_names": ["www.example.org"],
        "project": {
            "path": "/srv/mysite",
            "wsgi": "mysite.wsgi:application",
            "settings": "mysite.settings",
            "requirements": None,
            "venv": VENV,
            "exclude": ["data"],
        },
        "uwsgi": {"start_timeout": 10, "stop_timeout": 20},
        "socket": {"group": "www-data"},
        "health": {"timeout": 5},
    }
    for key, value in site.items():
        whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    return {
        "nginx_uwsgi_django": {
            "nginx": {"user": "www-data", "repo": "distro"},
            "sites": {"mysite": whole},
        }
    }


def prepare(host: Host) -> None:
    """Packages, accounts, the virtual environment and the project."""
    host.install("python3-venv", "strace", "sudo")
    host.run("useradd --system --user-group --home-dir /nonexistent mysite")
    host.run("useradd --create-home mallory")
    host.run("python3", "-m", "venv", VENV)
    host.run(
        f"{VENV}/bin/pip", "-q", "install", "django~=5.2.0", "pyuwsgi==2.0.30.post1", timeout=300
    )
    host.run("mkdir -p /srv/mysite/mysite")
    project(host)
    host.run("install -d -o mysite -g mysite /srv/mysite/data")
    # The home that comes with the account of a site.
    host.run("install -d -m 0751 -o mysite -g mysite /var/lib/nginx_uwsgi_django/sites/mysite")
    host.salt_call("saltutil.sync_all", pillar=pillar())


def project(
    host: Host,
    version: str = "one",
    wsgi: str = WSGI,
    urls: str = URLS,
    path: str = "/srv/mysite",
    settings: str = SETTINGS,
) -> None:
    """Write the project; another version is another release."""
    host.write(f"{path}/mysite/__init__.py", "")
    host.write(f"{path}/mysite/settings.py", settings)
    host.write(f"{path}/mysite/urls.py", urls.replace('"one"', f'"{version}"'))
    host.write(f"{path}/mysite/wsgi.py", wsgi)


def state(
    host: Host, function: str, test: bool = False, site: str = "mysite", **kwargs: Any
) -> dict[str, Any]:
    """Run one state of a site; returns what it returned."""
    (result,) = host.salt_call("state.single", function, site, test=test, **kwargs).values()
    return result


def running(host: Host, **kwargs: Any) -> dict[str, Any]:
    return state(host, "uwsgi_generation.running", **kwargs)


def ask(host: Host, path: str = "/", name: str = "www.example.org") -> dict[str, Any]:
    return host.salt_call("uwsgi_request.get", SOCKET, path, name)


def generations(host: Host) -> dict[str, str]:
    """Active state of all generations that systemd knows, asked of systemd itself."""
    lines = host.run(
        "systemctl list-units --all --no-legend --plain 'uwsgi-mysite*@*.service'"
    ).stdout.splitlines()
    return {line.split()[0]: line.split()[2] for line in lines}


def active(host: Host) -> str:
    """The unit of the one generation that is active."""
    (unit,) = [unit for unit, how in generations(host).items() if how == "active"]
    return unit


def pids(host: Host, unit: str | None = None) -> list[int]:
    """The master and its workers."""
    main = host.run("systemctl", "show", "-P", "MainPID", unit or active(host)).stdout.strip()
    return sorted([int(main), *map(int, host.run("pgrep", "-P", main).stdout.split())])


def enabled(host: Host) -> list[str]:
    return host.run(f"ls {UNIT_DIR}/uwsgi-mysite.service.wants").stdout.split()


def tree(host: Host) -> str:
    """All that systemd and the generations have on the host, with owners, modes and times."""
    return host.run(
        "find /etc/uwsgi /etc/systemd/system /run/nginx_uwsgi_django /run/systemd/system "
        "-printf '%p %i %u:%g %m %s %C@ %l\\n' 2>/dev/null | sort"
    ).stdout


def files(host: Host) -> str:
    """The same of the generations' files alone: a preflight's directories come and go."""
    return host.run(
        "find /etc/uwsgi /etc/systemd/system -printf '%p %i %u:%g %m %s %C@ %l\\n' | sort"
    ).stdout


def traces_of_preflight(host: Host) -> str:
    return host.run(
        "find /run/nginx_uwsgi_django /run/systemd/system -name '*preflight*' -o "
        "-path '/run/nginx_uwsgi_django/*/*' 2>/dev/null; ls -d /run/uwsgi-*preflight* 2>/dev/null;"
        "systemctl list-units --all --no-legend --plain '*preflight*'",
        check=False,
    ).stdout


def last_reload(host: Host) -> str:
    return host.run(
        "busctl get-property org.freedesktop.systemd1 /org/freedesktop/systemd1 "
        "org.freedesktop.systemd1.Manager UnitsLoadTimestamp"
    ).stdout


def eventually(question: Callable[[], Any], seconds: float = 10) -> Any:
    """Wait until a question is answered with something true; the answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(0.2)
