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


def prepare(host: Host, *packages: str) -> None:
    """What every hand-made server here is made of: nginx, a user, a virtual environment, a project."""
    host.run(
        f"apt-get -q update && apt-get -q -y install nginx python3-venv strace {' '.join(packages)}",
        timeout=600,
    )
    host.run("useradd --create-home deploy")
    host.run("python3", "-m", "venv", site.VENV)
    host.run(
        f"{site.VENV}/bin/pip", "-q", "install", "django~=5.2.0", "pyuwsgi==2.0.30.post1", "gunicorn~=23.0",
        timeout=300,
    )  # fmt: skip
    for path, text in files("v1").items():
        host.write(f"/srv/old/{path}", text)
    host.run("chown -R deploy: /srv/old")


def build(host: Host) -> None:
    """The tutorial's server, which answers with "v1" from now on."""
    prepare(host)
    # The tutorial's hard link.
    host.write("/srv/old/.config/uwsgi.service", UNIT)
    host.run("ln /srv/old/.config/uwsgi.service /etc/systemd/system/uwsgi.service")
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


# --- a server as other tutorials have it: gunicorn, a certificate by certbot, sites of other kinds ---
BLOG = """\
server {
    server_name blog.example.org;

    location = /favicon.ico { access_log off; log_not_found off; }
    location /media/ {
        alias /home/sammy/blog/media/;
    }
    location /old { deny all; }
    location / {
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_pass http://unix:/run/blog.sock;
    }

    listen [::]:443 ssl ipv6only=on; # managed by Certbot
    listen 443 ssl; # managed by Certbot
    ssl_certificate /etc/letsencrypt/live/blog.example.org/fullchain.pem; # managed by Certbot
    ssl_certificate_key /etc/letsencrypt/live/blog.example.org/privkey.pem; # managed by Certbot
}
server {
    if ($host = blog.example.org) {
        return 301 https://$host$request_uri;
    } # managed by Certbot

    listen 80;
    listen [::]:80;
    server_name blog.example.org;
    return 404; # managed by Certbot
}
"""
RENEWAL = """\
version = 2.1.0
archive_dir = /etc/letsencrypt/archive/blog.example.org
cert = /etc/letsencrypt/live/blog.example.org/cert.pem
privkey = /etc/letsencrypt/live/blog.example.org/privkey.pem
fullchain = /etc/letsencrypt/live/blog.example.org/fullchain.pem

[renewalparams]
account = 0123456789abcdef
authenticator = nginx
installer = nginx
"""
GUNICORN = """\
[Unit]
Description=gunicorn daemon
After=network.target

[Service]
User=sammy
Group=www-data
WorkingDirectory=/home/sammy/blog
EnvironmentFile=/etc/blog.env
ExecStart=/home/sammy/env/bin/gunicorn \\
          --workers 3 --timeout 120 \\
          --bind unix:/run/blog/blog.sock \\
          mysite.wsgi:application
RuntimeDirectory=blog

[Install]
WantedBy=multi-user.target
"""
# What stands in the variable, and is to be in nothing that is printed.
BLOG_SECRET = "django-insecure-0a1b2c3d4e5f6g7h8i9j"
BLOG_SETTINGS = """
import os
SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]
DEBUG = os.environ.get("DJANGO_DEBUG") == "yes"
ALLOWED_HOSTS = ["blog.example.org"]
ROOT_URLCONF = "mysite.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/home/sammy/blog/db.sqlite3"}}
MEDIA_ROOT = "/home/sammy/blog/media"
MEDIA_URL = "/media/"
"""
FOREIGN = """\
server {
    listen 80;
    server_name pictures.example.org;
    root /var/www/pictures;
}
server {
    listen 80;
    server_name shop.example.org;
    root /var/www/shop;
    location ~ \\.php$ { fastcgi_pass unix:/run/php/php-fpm.sock; }
}
"""


def add_gunicorn(host: Host) -> None:
    """A second Django site, behind gunicorn, which certbot has edited; and two of other kinds."""
    host.run("useradd --create-home sammy && chmod 755 /home/sammy")
    host.run("python3 -m venv /home/sammy/env")
    host.run("/home/sammy/env/bin/pip -q install 'django~=5.2.0' 'gunicorn~=23.0'", timeout=300)
    for path, text in files("v8", BLOG_SETTINGS).items():
        host.write(f"/home/sammy/blog/{path}", text)
    # As `django-admin startproject` has it.
    named = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")\n'
    host.write("/home/sammy/blog/mysite/wsgi.py", named + site.WSGI)
    host.run("mkdir /home/sammy/blog/media && touch /home/sammy/blog/db.sqlite3")
    host.run("chown -R sammy: /home/sammy/blog /home/sammy/env")
    host.write(
        "/etc/blog.env",
        f"# of the blog\nDJANGO_SECRET_KEY={BLOG_SECRET}\nDJANGO_DEBUG=no\n",
        mode=0o600,
    )
    host.write("/etc/systemd/system/blog.service", GUNICORN)
    live = "/etc/letsencrypt/live/blog.example.org"
    host.run(
        f"mkdir -p {live} && openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout {live}/privkey.pem "
        f"-subj /CN=blog.example.org -addext subjectAltName=DNS:blog.example.org -out {live}/fullchain.pem"
    )
    host.write("/etc/letsencrypt/renewal/blog.example.org.conf", RENEWAL)
    host.write(
        "/etc/cron.d/blog", "5 4 * * * sammy cd /home/sammy/blog && API_TOKEN=abc123 ./sweep\n"
    )
    host.write(
        f"{TREE}/sites-available/blog", BLOG.replace("/run/blog.sock", "/run/blog/blog.sock")
    )
    host.write(f"{TREE}/sites-available/others.conf", FOREIGN)
    host.run(
        f"ln -s {TREE}/sites-available/blog {TREE}/sites-available/others.conf {TREE}/sites-enabled/; "
        "systemctl daemon-reload && systemctl enable --now blog && systemctl reload nginx"
    )


# --- Debian's own uWSGI --------------------------------------------------------------------------------
APP = """\
[uwsgi]
plugin = python3
base = /srv/pack
chdir = %(base)
wsgi-file = mysite/wsgi.py
env = DJANGO_SETTINGS_MODULE=mysite.settings
env = API_TOKEN=0a1b2c3d4e
processes = 3
threads = 2
harakiri = 40
"""


def build_packaged(host: Host) -> None:
    """A server from packages alone: Debian's uWSGI with apps-enabled, all of it of www-data."""
    host.run(
        "apt-get -q update && apt-get -q -y install nginx uwsgi uwsgi-plugin-python3 python3-django",
        timeout=600,
    )
    for path, text in files("v9").items():
        host.write(f"/srv/pack/{path}", text)
    host.run("chown -R www-data: /srv/pack")
    host.write("/etc/uwsgi/apps-available/mysite.ini", APP)
    host.write(
        f"{TREE}/sites-available/mysite",
        SITE.replace("unix:///tmp/mysite.sock", "unix:/run/uwsgi/app/mysite/socket").replace(
            "    location / {\n",
            "    location / {\n        auth_basic Closed;\n"
            "        auth_basic_user_file /etc/nginx/users;\n",
        ),
    )
    host.write("/etc/nginx/users", "ann:x\n")
    host.run(
        "ln -s /etc/uwsgi/apps-available/mysite.ini /etc/uwsgi/apps-enabled/; "
        f"rm {TREE}/sites-enabled/default; ln -s {TREE}/sites-available/mysite {TREE}/sites-enabled/; "
        "systemctl restart uwsgi && systemctl reload nginx"
    )
