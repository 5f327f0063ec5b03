"""
The switch from servers as people build them, each by hand as its own documentation says: under load, and
back again by `clean`. A second server on the host, of another origin, stays as it is.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from ..hosts.host import Host
from ..hosts.nginx_org import NginxOrgHost
from . import handmade as made
from . import uwsgi_load as load
from . import uwsgi_site as site
from .test_takeover import good, tree

SETTLED = "takeover: former services stopped"
UNITS = "/etc/systemd/system"
FOREIGN = """\
server {
    listen 80;
    server_name foreign.example.org;
    location / { proxy_pass http://127.0.0.1:9000; }
}
"""
FOREIGN_UNIT = """\
[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /srv/foreign 9000
"""

# https://www.digitalocean.com/community/tutorials/how-to-set-up-django-with-postgres-nginx-and-gunicorn-on-ubuntu
GUNICORN_SOCKET = """\
[Unit]
Description=gunicorn socket

[Socket]
ListenStream=/run/gunicorn.sock

[Install]
WantedBy=sockets.target
"""
GUNICORN = f"""\
[Unit]
Description=gunicorn daemon
Requires=gunicorn.socket
After=network.target

[Service]
User=deploy
Group=www-data
WorkingDirectory=/srv/old
Environment=DJANGO_SETTINGS_MODULE=mysite.settings
ExecStart={site.VENV}/bin/gunicorn --access-logfile - --workers 3 --bind unix:/run/gunicorn.sock mysite.wsgi:application

[Install]
WantedBy=multi-user.target
"""
GUNICORN_SITE = """\
upstream app_server {
    server unix:/run/gunicorn.sock fail_timeout=0;
}
server {
    listen 80;
    server_name www.example.org;
    client_max_body_size 1m;
    location / {
        proxy_set_header Host $http_host;
        proxy_redirect off;
        proxy_pass http://app_server;
    }
}
"""

# /usr/share/doc/uwsgi/README.Debian.gz
DEBIAN_APP = f"""\
[uwsgi]
plugins = python3
chdir = /srv/old
virtualenv = {site.VENV}
env = DJANGO_SETTINGS_MODULE=mysite.settings
module = mysite.wsgi
"""

# What `certbot --nginx` makes of the tutorial's file.
CERTIFIED = (
    made.SITE.replace(
        "    listen 80;\n",
        """\
    listen 443 ssl http2; # managed by Certbot
    ssl_certificate /etc/letsencrypt/live/www.example.org/fullchain.pem; # managed by Certbot
    ssl_certificate_key /etc/letsencrypt/live/www.example.org/privkey.pem; # managed by Certbot
""",
    )
    + """\
server {
    if ($host = www.example.org) {
        return 301 https://$host$request_uri;
    } # managed by Certbot
    listen 80;
    server_name www.example.org;
    return 404; # managed by Certbot
}
"""
)
CERTIFICATE = (
    "mkdir -p /etc/letsencrypt/live/www.example.org && cd /etc/letsencrypt/live/www.example.org && "
    "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=www.example.org "
    "-addext subjectAltName=DNS:www.example.org -days 30 -keyout privkey.pem -out fullchain.pem"
)
DATABASE = """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent.parent
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
MEDIA_URL = "/media/"
MEDIA_ROOT = BASE_DIR / "media"
"""


@dataclasses.dataclass
class World:
    """A hand-made server: what builds it, what the pillar says of it, and what it is made of."""

    build: Callable[[Host], None]
    consent: dict[str, list[str]]
    files: dict[str, str]
    site: dict[str, Any] = dataclasses.field(default_factory=dict)
    name: str = "mysite"
    client: str = made.asking()
    # Of nginx's workers, before and in the pillar.
    users: tuple[str, str] = ("deploy", "deploy")
    # What an operator does after the first run, which is red.
    between: Callable[[Host], None] | None = None


def by_hand(host: Host, units: dict[str, str], files: dict[str, str], start: list[str]) -> None:
    """Write a server's units and nginx's files, start it."""
    for path, text in {
        **{f"{UNITS}/{name}": text for name, text in units.items()},
        **files,
    }.items():
        host.write(path, text)
        if "/sites-available/" in path:
            host.run(f"ln -sf {path} {path.replace('sites-available', 'sites-enabled')}")
    host.run("systemctl daemon-reload")
    if start:
        host.run("systemctl", "enable", "--now", *start)
    host.run("nginx -t && systemctl restart nginx")


def tutorial(host: Host) -> None:
    by_hand(host, {"uwsgi.service": made.UNIT}, {made.FILE: made.SITE}, ["uwsgi.service"])


def certified(host: Host) -> None:
    host.run(CERTIFICATE)
    by_hand(host, {"uwsgi.service": made.UNIT}, {made.FILE: CERTIFIED}, ["uwsgi.service"])


def gunicorn(host: Host) -> None:
    units = {"gunicorn.socket": GUNICORN_SOCKET, "gunicorn.service": GUNICORN}
    by_hand(host, units, {f"{made.TREE}/conf.d/old.conf": GUNICORN_SITE}, list(units))


def debian(host: Host) -> None:
    host.install("uwsgi", "uwsgi-plugin-python3")
    host.write("/etc/uwsgi/apps-available/old.ini", DEBIAN_APP)
    host.run("ln -sf ../apps-available/old.ini /etc/uwsgi/apps-enabled/ && systemctl restart uwsgi")
    text = made.SITE.replace("/tmp/mysite.sock", "/run/uwsgi/app/old/socket")
    by_hand(host, {}, {f"{made.TREE}/sites-available/mysite": text}, [])


def releases(host: Host) -> None:
    host.write("/srv/old/mysite/settings.py", made.SETTINGS + DATABASE)
    host.run(
        "mkdir -p /srv/old/media && echo upload >/srv/old/media/a.txt && cd /srv/old && "
        "sqlite3 db.sqlite3 'create table people (name); insert into people values (1)' && "
        "chown -R deploy: . && mkdir -p /srv/salt && rm -rf /srv/salt/project && cp -a . /srv/salt/project && "
        'sed -i \'s/"v1"/"v2"/\' /srv/salt/project/mysite/urls.py'
    )
    tutorial(host)


def carried_over(host: Host) -> None:
    """What docs/releases.md says of data that are there."""
    host.run(
        "cd /srv/mysite/shared && "
        "install -o mysite -g mysite -m 0640 /srv/old/db.sqlite3 data/db.sqlite3 && "
        "install -o mysite -g mysite -m 0644 /srv/old/media/a.txt media/a.txt && "
        "rm -rf /srv/salt/project/db.sqlite3 /srv/salt/project/media"
    )


UWSGI = {"units": ["uwsgi.service"], "sockets": ["/tmp/mysite.sock"]}
HTTPS = load.NGINX.replace(
    'http.client.HTTPConnection("127.0.0.1", 80, timeout=60)',
    'http.client.HTTPSConnection("www.example.org", 443, timeout=60, '
    "context=__import__('ssl')._create_unverified_context())",
)
WORLDS = {
    "another name": World(
        tutorial,
        {**UWSGI, "files": [made.LINK]},
        {made.FILE: made.SITE},
        {"server_names": [made.NAME]},
        name="webapp",
    ),
    "releases": World(
        releases,
        UWSGI,
        {made.FILE: made.SITE},
        {
            "server_names": [made.NAME],
            "project": {
                "path": "/srv/mysite",
                "source": {"salt": "salt://project"},
                "exclude": [".config/*"],
            },
        },
        between=carried_over,
        users=("deploy", "www-data"),
    ),
    "debian": World(
        debian,
        {
            "units": ["uwsgi.service"],
            "sockets": ["/run/uwsgi/app/old/socket"],
            "files": [f"{made.TREE}/sites-enabled/mysite"],
        },
        {f"{made.TREE}/sites-available/mysite": ""},
        {"server_names": [made.NAME]},
        users=("www-data", "www-data"),
    ),
    "gunicorn": World(
        gunicorn,
        {
            "units": ["gunicorn.socket", "gunicorn.service"],
            "sockets": ["/run/gunicorn.sock"],
            "files": [f"{made.TREE}/conf.d/old.conf"],
        },
        {f"{made.TREE}/conf.d/old.conf": GUNICORN_SITE},
        {"server_names": [made.NAME]},
    ),
    "certbot": World(
        certified,
        UWSGI,
        {made.FILE: CERTIFIED},
        {
            "server_names": [made.NAME],
            "tls": {
                "certificate": "/etc/letsencrypt/live/www.example.org/fullchain.pem",
                "key": "/etc/letsencrypt/live/www.example.org/privkey.pem",
            },
        },
        client=HTTPS,
    ),
}


def foreign(host: Host) -> str:
    """The other server's answer and its file, byte for byte."""
    found = host.run(
        "cd /etc/nginx && find . -name 'foreign.conf' -exec stat -c '%n %i %Y' {} + -exec cat {} +"
    )
    status, _, body = host.get("/", "foreign.example.org")
    return f"{status} {body.decode()} {found.stdout}"


def with_foreign(host: Host, folder: str) -> None:
    host.write("/srv/foreign/index.html", "foreign")
    units = {"foreign.service": FOREIGN_UNIT}
    by_hand(host, units, {f"{made.TREE}/{folder}/foreign.conf": FOREIGN}, [])
    host.run("systemctl start foreign && systemctl restart nginx")


@pytest.fixture(scope="module")
def server(host: Host) -> Host:
    made.prepare(host, "curl", "sqlite3")
    # For the client of TLS, which says the name before it says anything else.
    host.run(f"echo 127.0.0.1 {made.NAME} >>/etc/hosts")
    host.run("cp -a /srv/old /root/old; rm /etc/nginx/sites-enabled/default")
    with_foreign(host, "sites-available")
    return host


def switch(host: Host, world: World, nginx: dict[str, Any]) -> None:
    """Build it, take it over under load, and give it back."""
    host.run(f"sed -i 's/^user .*/user {world.users[0]};/' /etc/nginx/nginx.conf")
    world.build(host)
    whole = made.a_site(world.name, takeover=world.consent, **world.site)
    served_by = {"user": world.users[1], "repo": "distro", **nginx.get("nginx", {})}
    pillar = {"nginx_uwsgi_django": {**nginx, "nginx": served_by, "sites": {world.name: whole}}}
    if "source" not in whole["project"]:
        made.write(host, world.name, "v2")
    before, beside = tree(host), foreign(host)
    runs = []
    if world.between:
        told = load.under_load(host, world.client, lambda: runs.append(host.apply(pillar=pillar)))
        assert told["lost"] == [] and told["seen"] == ["v1"]
        assert not runs.pop().ok and tree(host) == before
        world.between(host)
    told = load.under_load(host, world.client, lambda: runs.append(host.apply(pillar=pillar)))
    good(runs[0])
    assert told["lost"] == [] and told["seen"] == ["v1", "v2"]
    assert set(runs[0].by_id[SETTLED].changes[world.name]) >= set(world.consent["units"])
    for unit in world.consent["units"]:
        assert host.run(f"systemctl is-active {unit}", check=False).stdout == "inactive\n"
        assert host.run(f"systemctl is-enabled {unit}", check=False).stdout == "disabled\n"
    assert foreign(host) == beside
    entries = host.run(
        "ls /etc/nginx/sites-enabled /etc/nginx/conf.d 2>/dev/null", check=False
    ).stdout
    assert set(entries.split()) <= {
        *("/etc/nginx/sites-enabled:", "/etc/nginx/conf.d:", "foreign.conf"),
        *(f"{world.name}.conf", "nginx_uwsgi_django.conf", "default.conf.nginx_uwsgi_django"),
    }
    if world.users[0] != world.users[1]:
        # The old user keeps its access while a worker of its is at a request.
        good(host.apply(pillar=pillar))
    again = host.apply(pillar=pillar)
    good(again)
    assert again.changed == [], [f"{state}" for state in again.changed]

    told = load.under_load(
        host,
        world.client,
        lambda: runs.append(host.apply("nginx_uwsgi_django.clean", pillar=pillar)),
    )
    good(runs[1])
    assert told["lost"] == [] and told["seen"] == ["v1", "v2"]
    assert tree(host) == before and foreign(host) == beside
    for unit in world.consent["units"]:
        assert host.run(f"systemctl is-enabled {unit}").stdout == "enabled\n"


@pytest.mark.long
@pytest.mark.parametrize("kind", WORLDS)
def test_a_server_is_taken_over_and_given_back(server: Host, kind: str) -> None:
    world = WORLDS[kind]
    try:
        switch(server, world, {})
    finally:
        units = " ".join(world.consent["units"])
        server.run(
            f"systemctl disable --now {units}; rm -rf /srv/mysite /srv/webapp /srv/old", check=False
        )
        for path in world.files:
            server.run(f"rm -f {path} {path.replace('sites-available', 'sites-enabled')}")
        server.run(f"cd {UNITS} && rm -f uwsgi.service gunicorn.*; cp -a /root/old /srv/old")
        server.run("apt-get -q -y purge uwsgi uwsgi-core", check=False)
        server.run("systemctl daemon-reload; systemctl restart nginx")


@pytest.mark.long
def test_nginx_from_nginx_org(nginx_org_host: NginxOrgHost) -> None:
    host = nginx_org_host
    source = host.nginx_org.source()
    # In the place of the formula's own, which it writes as it is.
    list_file = "/etc/apt/sources.list.d/nginx.list"
    host.write(list_file, f"deb [trusted=yes] {source['uris']} bookworm nginx\n")
    host.write("/etc/apt/preferences.d/nginx", "Package: nginx\nPin: origin *\nPin-Priority: 900\n")
    made.prepare(host, "curl", "sqlite3")
    host.run(f"rm -f /etc/nginx/conf.d/default.conf {list_file}")
    with_foreign(host, "conf.d")
    path = f"{made.TREE}/conf.d/mysite.conf"

    def build(host: Host) -> None:
        by_hand(host, {"uwsgi.service": made.UNIT}, {path: made.SITE}, ["uwsgi.service"])

    world = World(
        build,
        {**UWSGI, "files": [path]},
        {},
        {"server_names": [made.NAME]},
        users=("nginx", "nginx"),
    )
    nginx = {
        "nginx": {"repo": "nginx.org"},
        "lookup": {"repos": {"nginx.org": source}},
    }
    switch(host, world, nginx)
