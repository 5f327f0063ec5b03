"""
What a visitor waits for: nginx and an application server in front of the same Django project.
"""

import re
import statistics
from collections.abc import Callable
from typing import Any

from test.hosts.host import Host

_VENV = "/opt/venv"
_SECONDS = 8
_CONNECTIONS = 32
_BYTES = 1 << 20

_PROJECT = {
    "__init__": "",
    "settings": """
import os
SECRET_KEY = "x" * 60
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "app.urls"
MIDDLEWARE = []
INSTALLED_APPS = ["django.contrib.staticfiles"]
STATIC_URL = "/static/"
DATA_UPLOAD_MAX_MEMORY_SIZE = None
STATIC_ROOT = os.environ.get("DJANGO_STATIC_ROOT", "/srv/static")
STATICFILES_DIRS = [os.path.join(os.path.dirname(os.path.dirname(__file__)), "files")]
""",
    "urls": """
from django.http import HttpResponse
from django.urls import path
urlpatterns = [
    path("", lambda request: HttpResponse(b"")),
    path("upload", lambda request: HttpResponse(str(len(request.body)))),
]
""",
    "wsgi": """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "app.settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
""",
}

# How often the application alone answers, called as a server calls it, on one processor.
_ALONE = """
import io, sys, time
sys.path.insert(0, "/srv/bench")
from app.wsgi import application
def ask():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80",
               "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http", "HTTP_HOST": "x"}
    b"".join(application(environ, lambda status, headers: None))
ask()
began, count = time.perf_counter(), 0
while time.perf_counter() - began < 2:
    ask()
    count += 1
print(count / 2)
"""

_UPLOAD = f"""
wrk.method = "POST"
wrk.body = string.rep("x", {_BYTES})
wrk.headers["Content-Type"] = "application/octet-stream"
"""

# As the tutorial has it: one process, its log in a file, the socket in /tmp for everybody.
_TUTORIAL = f"""
[uwsgi]
chdir = /srv/bench
home = {_VENV}
module = app.wsgi:application
socket = /tmp/tutorial.sock
chmod-socket = 666
master = true
enable-threads = true
vacuum = true
logger = file:/tmp/tutorial.log
"""

_SERVER = """
server {{
    listen {port};
    client_max_body_size 128M;
    location / {{
        {there}
    }}
    location /static/ {{ alias /srv/static/; }}
}}
"""

_SERVICE = """
[Service]
ExecStart={command}
WorkingDirectory=/srv/bench
[Install]
WantedBy=multi-user.target
"""

WHAT = {
    "an empty view": ("/", ""),
    "a static file of 20 kB": ("/static/file.txt", ""),
    "an upload of 1 MB": ("/upload", "-s /root/upload.lua"),
}


def _pillar() -> dict[str, Any]:
    ways: dict[str, dict[str, Any]] = {
        "usual": {},
        "one": {"processes": 1},
        "four": {"processes": 4},
        "threads": {"threads": 4},
    }
    return {
        "nginx_uwsgi_django": {
            "nginx": {"user": "www-data", "repo": "distro"},
            "site_defaults": {
                "project": {
                    "wsgi": "app.wsgi:application",
                    "settings": "app.settings",
                    "requirements": None,
                    "venv": _VENV,
                }
            },
            "sites": {
                name: {
                    "server_names": [f"{name}.example.org"],
                    "listen": [8000 + number],
                    "project": {"path": f"/srv/{name}"},
                    "uwsgi": uwsgi,
                }
                for number, (name, uwsgi) in enumerate(ways.items())
            },
        }
    }


def _prepare(host: Host) -> dict[str, str]:
    """Everything at once on one host, idle until it is asked; the address of each way."""
    host.install("nginx-light", "python3-venv", "wrk", recommends=False)
    host.run("python3", "-m", "venv", _VENV)
    wanted = ("django~=5.2.0", "pyuwsgi==2.0.30.post1", "gunicorn==23.*")
    host.run(f"{_VENV}/bin/pip", "-q", "install", *wanted, timeout=600)
    pillar = _pillar()
    for name in ("bench", *pillar["nginx_uwsgi_django"]["sites"]):
        for file, text in _PROJECT.items():
            host.write(f"/srv/{name}/app/{file}.py", text)
        host.write(f"/srv/{name}/files/file.txt", "x" * 20000)
    host.write("/srv/static/file.txt", "x" * 20000)
    host.write("/root/upload.lua", _UPLOAD)
    run = host.apply(pillar=pillar)
    if not run.ok:
        raise RuntimeError(str(run.failed))
    host.write("/etc/tutorial.ini", _TUTORIAL)
    processes = 2
    commands = {
        "tutorial": f"{_VENV}/bin/pyuwsgi -i /etc/tutorial.ini",
        "gunicorn": f"{_VENV}/bin/gunicorn -w {processes} --bind unix:/tmp/gunicorn.sock "
        "--umask 0 app.wsgi:application",
    }
    there = {
        "tutorial": "uwsgi_pass unix:///tmp/tutorial.sock; include uwsgi_params;",
        "gunicorn": "proxy_pass http://unix:/tmp/gunicorn.sock; proxy_set_header Host $http_host;",
    }
    for number, (name, command) in enumerate(commands.items()):
        host.write(f"/etc/systemd/system/{name}.service", _SERVICE.format(command=command))
        text = _SERVER.format(port=8100 + number, there=there[name])
        host.write(f"/etc/nginx/conf.d/{name}.conf", text)
    host.run("systemctl daemon-reload; systemctl enable --now tutorial gunicorn; nginx -s reload")
    sites = list(pillar["nginx_uwsgi_django"]["sites"])
    return {
        "this formula (2 processes)": f"http://{sites[0]}.example.org:8000",
        "this formula, 1 process": f"http://{sites[1]}.example.org:8001",
        "this formula, 4 processes": f"http://{sites[2]}.example.org:8002",
        "this formula, 2 processes of 4 threads": f"http://{sites[3]}.example.org:8003",
        "the tutorial's settings": "http://tutorial.example.org:8100",
        "gunicorn, 2 processes": "http://gunicorn.example.org:8101",
    }


def _ask(host: Host, url: str, more: str) -> dict[str, float]:
    said = host.run(
        f"wrk -t2 -c{_CONNECTIONS} -d{_SECONDS}s --latency --timeout 30 {more} {url}",
        timeout=_SECONDS + 60,
    ).stdout
    rate = re.search(r"Requests/sec: +([0-9.]+)", said)
    p99 = re.search(r"99% +([0-9.]+)(us|ms|s|m)\b", said)
    if not rate or not p99:
        raise RuntimeError(said)
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[p99[2]]
    failed = sum(int(number) for number in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said
    )
    failed += sum(map(int, errors.groups())) if errors else 0
    return {"rate": float(rate[1]), "p99": float(p99[1]) * unit, "failed": float(failed)}


def measured(repeat: int, say: Callable[[str], None]) -> dict[str, Any]:
    """
    Requests per second and the 99th percentile, by way and by what is asked for.

    repeat
        how often each is measured, by turns
    say
        told what is done
    """
    with Host.create(f"bench-served-{Host.tag()}") as host:
        ways = _prepare(host)
        hosts = " ".join(url.split("/")[2].partition(":")[0] for url in ways.values())
        host.run(f"echo 127.0.0.1 {hosts} >>/etc/hosts")
        alone = float(host.run(f"{_VENV}/bin/python", "-c", _ALONE).stdout)
        say(f"the application alone: {alone:.0f} requests/s on one processor")
        runs: dict[str, dict[str, list[dict[str, float]]]] = {
            way: {what: [] for what in WHAT} for way in ways
        }
        for _ in range(repeat):
            for what, (path, more) in WHAT.items():
                for way, url in ways.items():
                    runs[way][what].append(_ask(host, url + path, more))
                    say(f"{what}, {way}: {runs[way][what][-1]}")
    return {
        "seconds": _SECONDS,
        "connections": _CONNECTIONS,
        "repeat": repeat,
        "alone": alone,
        "what": list(WHAT),
        "ways": {
            way: {
                what: {
                    key: statistics.median(one[key] for one in some)
                    for key in ("rate", "p99", "failed")
                }
                for what, some in row.items()
            }
            for way, row in runs.items()
        },
    }
