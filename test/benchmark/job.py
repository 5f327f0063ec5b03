"""
The job that every tool does: N sites, each with a user, a socket and a service of systemd's, an ini of
uWSGI's, a server of nginx's and the link to it. The projects, their virtual environment and nginx
are on the host before.
"""

from typing import Any

from test.hosts.host import Host

VENV = "/opt/venv"
# What "one site changed" changes, so that nothing but nginx is concerned.
BODY_SIZES = ("8m", "9m")

_SETTINGS = """
SECRET_KEY = "x" * 60
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "app.urls"
"""
_URLS = """
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
"""
# In uWSGI the callable imports nothing: a thousand Django projects do not fit into a small machine,
# and what they take to start is not what is measured.
_WSGI = """
try:
    import uwsgi
except ImportError:
    import django
    django.setup()
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def names(count: int) -> list[str]:
    """The sites' names."""
    return [f"s{number:04d}" for number in range(count)]


def prepare(host: Host, count: int) -> None:
    """What is on the host before a tool's turn: nginx, the virtual environment and the projects."""
    if not host.exists(VENV):
        host.install("nginx-light", "python3-venv", "strace", recommends=False)
        host.run("rm", "-f", "/etc/nginx/sites-enabled/default")
        host.run("python3", "-m", "venv", VENV)
        wanted = ("django~=5.2.0", "pyuwsgi==2.0.30.post1")
        host.run(f"{VENV}/bin/pip", "-q", "install", *wanted, timeout=600)
    for name in names(count):
        for file, text in {
            "__init__": "",
            "settings": _SETTINGS,
            "urls": _URLS,
            "wsgi": _WSGI,
        }.items():
            path = host.root / f"srv/{name}/app/{file}.py"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)


def checks(count: int) -> list[str]:
    """The projects' own checks and nothing else, as many at once as there are processors."""
    command = (
        f"seq -f %04.0f 0 {count - 1} | xargs -P $(nproc) -I NUMBER env -C /srv/sNUMBER "
        f"DJANGO_SETTINGS_MODULE=app.settings PYTHONPATH=. {VENV}/bin/python -m django check"
    )
    return ["sh", "-c", command]


def pillar(count: int, body_size: str = BODY_SIZES[0]) -> dict[str, Any]:
    """The formula's pillar; the first site has the body size."""
    sites: dict[str, Any] = {
        name: {"server_names": [f"{name}.example.org"], "project": {"path": f"/srv/{name}"}}
        for name in names(count)
    }
    sites[names(1)[0]]["client_max_body_size"] = body_size
    return {
        "nginx_uwsgi_django": {
            "nginx": {"user": "www-data", "repo": "distro"},
            "site_defaults": {
                "client_max_body_size": BODY_SIZES[0],
                "uwsgi": {"processes": 1},
                "project": {
                    "wsgi": "app.wsgi:application",
                    "settings": "app.settings",
                    "requirements": None,
                    "venv": VENV,
                    "migrate": False,
                    "static": {"collect": False},
                },
            },
            "sites": sites,
        }
    }


def files(name: str, body_size: str) -> dict[str, str]:
    """What another tool writes for a site, by path: as plain as the job allows."""
    return {
        f"/etc/systemd/system/{name}.socket": f"""\
[Socket]
ListenStream=/run/bench/{name}.sock
SocketGroup=www-data
SocketMode=0660

[Install]
WantedBy=sockets.target
""",
        f"/etc/systemd/system/{name}.service": f"""\
[Unit]
Requires={name}.socket
After={name}.socket

[Service]
Type=notify
NotifyAccess=main
User={name}
ExecStart={VENV}/bin/pyuwsgi --ini /etc/uwsgi-bench/{name}.ini
KillSignal=SIGQUIT

[Install]
WantedBy=multi-user.target
""",
        f"/etc/uwsgi-bench/{name}.ini": f"""\
[uwsgi]
strict = true
master = true
need-app = true
processes = 1
chdir = /srv/{name}
home = {VENV}
module = app.wsgi:application
socket = /run/bench/{name}.sock
""",
        f"/etc/nginx/sites-available/{name}.conf": f"""\
server {{
    listen 80;
    server_name {name}.example.org;
    client_max_body_size {body_size};
    location / {{
        include uwsgi_params;
        uwsgi_pass unix:/run/bench/{name}.sock;
    }}
}}
""",
    }
