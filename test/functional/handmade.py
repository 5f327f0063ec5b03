"""
The tutorial's server, built by hand on a throwaway host: uWSGI by a unit of its own behind a socket
in /tmp, and a site file that a person wrote.
"""

from typing import Any

from ..hosts.host import Host
from . import uwsgi_load as load
from . import uwsgi_site as site

NAME = "www.example.org"
TREE = "/etc/nginx"
FILE = f"{TREE}/sites-available/mysite.conf"
LINK = f"{TREE}/sites-enabled/mysite.conf"

# Without a database: whose files those are is another matter.
SETTINGS = """
SECRET_KEY = "x" * 60
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "mysite.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
"""
SITE = """\
# written by hand
server {
    listen 80;
    server_name www.example.org;
    charset utf-8;
    client_max_body_size 128M;

    location / {
        uwsgi_pass  unix:///tmp/mysite.sock;
        include     uwsgi_params;
    }
}
"""
UNIT = f"""\
[Unit]
Description=uWSGI Emperor service
After=syslog.target

[Service]
Environment=DJANGO_SETTINGS_MODULE=mysite.settings
ExecStart={site.VENV}/bin/uwsgi --home {site.VENV} --chdir /srv/old --pythonpath /srv/old --module mysite.wsgi --need-app \\
    --socket /tmp/mysite.sock --chmod-socket=666 --master --processes 4 --uid deploy --gid deploy --vacuum
Restart=always
KillSignal=SIGQUIT
Type=notify
NotifyAccess=all

[Install]
WantedBy=multi-user.target
"""


def build(host: Host) -> None:
    """The server, which answers with "v1" from now on."""
    host.run("apt-get -q update && apt-get -q -y install nginx python3-venv strace", timeout=600)
    host.run("useradd --create-home deploy")
    host.run("python3", "-m", "venv", site.VENV)
    host.run(
        f"{site.VENV}/bin/pip", "-q", "install", "django~=5.2.0", "pyuwsgi==2.0.30.post1",
        timeout=300,
    )  # fmt: skip
    for path, text in files("v1").items():
        host.write(f"/srv/old/{path}", text)
    host.run("chown -R deploy: /srv/old")
    host.write("/etc/systemd/system/uwsgi.service", UNIT)
    host.run("sed -i 's/^user www-data;/user deploy;/' /etc/nginx/nginx.conf")
    host.write(FILE, SITE)
    host.run(f"rm {TREE}/sites-enabled/default; ln -s {FILE} {LINK}")
    host.run("systemctl enable --now uwsgi && systemctl restart nginx")
    assert served(host) == "v1", host.run("journalctl -u uwsgi | tail -n 30").stdout


def files(version: str, settings: str = SETTINGS) -> dict[str, str]:
    """The project's files, by path."""
    return {
        "mysite/__init__.py": "",
        "mysite/settings.py": settings,
        "mysite/urls.py": site.URLS.replace('"one"', f'"{version}"'),
        "mysite/wsgi.py": site.WSGI,
    }


def served(host: Host, name: str = NAME) -> str:
    """What a visitor gets."""
    return str(host.get("/", name)[2].decode())


def pillar(sites: dict[str, Any] | None = None, **site_keys: Any) -> dict[str, Any]:
    """The README's ten lines, for a project on the host; what is given is merged into the site."""
    first = a_site("mysite", **{"server_names": [NAME], **site_keys})
    return {
        "nginx_uwsgi_django": {
            "nginx": {"user": "deploy", "repo": "distro"},
            "sites": {"mysite": first, **(sites or {})},
        }
    }


def a_site(name: str, **keys: Any) -> dict[str, Any]:
    """A site whose project is at /srv/NAME."""
    whole: dict[str, Any] = {
        "server_names": [f"{name}.example.org"],
        "project": {
            "path": f"/srv/{name}",
            "wsgi": "mysite.wsgi:application",
            "settings": "mysite.settings",
            "requirements": None,
            "venv": site.VENV,
            "exclude": ["data"],
            "static": {"collect": False},
        },
        "uwsgi": {"processes": 2, "start_timeout": 30},
        "health": {"host": NAME},
    }
    for key, value in keys.items():
        whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    return whole


def write(host: Host, name: str, version: str = "v1", **files_given: str) -> None:
    """The project of a site; broken where the settings given are."""
    for path, text in files(version, **files_given).items():
        host.write(f"/srv/{name}/{path}", text)


# A load of requests through nginx for one name.
def asking(name: str = NAME) -> str:
    """The client of :py:mod:`uwsgi_load` that asks nginx for a name."""
    return load.NGINX.replace('"www.example.org"', f'"{name}"')
