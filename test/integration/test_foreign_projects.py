"""
Two more projects that nobody here wrote, as PyPI has them, each whole through the formula.

ColdFront (the allocations of a computing centre): settings in a package of split files, a `uv.lock`, a
worker of django-q, SQLite.  ephios (shifts of medical services): a `src/` layout that is installed as a
package with an extra, a user model of its own, PostgreSQL, TLS.
Its documentation wants its `build` command after an installation: what that does beside collectstatic
is two hooks here. (The third, `compilemessages`, writes into the code, which belongs to root.)
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys

import pytest

from ..functional.uwsgi_site import eventually

pytestmark = pytest.mark.long

PASSWORD = "p%40ss-w0rd"
SITES = {
    "hpc": {
        "server_names": ["hpc.example"],
        "project": {
            "wsgi": "coldfront.config.wsgi:application",
            "settings": "coldfront.config.settings",
            "requirements": "uv.lock",
            "env": {
                "SECRET_KEY": "a-key-that-is-long-enough-for-anybody-77aa55",
                "ALLOWED_HOSTS": "hpc.example",
                "DB_URL": "sqlite:////srv/hpc/shared/data/coldfront.db",
                "STATIC_ROOT": "/srv/hpc/shared/static",
            },
        },
        "companions": {"queue": {"command": "manage.py qcluster", "settle": 5}},
    },
    "shifts": {
        "server_names": ["shifts.example"],
        # Its settings send everybody to https.
        "tls": {"certificate": "/etc/shifts/cert.pem", "key": "/etc/shifts/key.pem"},
        "health": {"path": "/accounts/login/", "status": [200]},
        "project": {
            "wsgi": "ephios.wsgi:application",
            "settings": "ephios.settings",
            "requirements": "pyproject.toml",
            "extras": ["pgsql"],
            "hooks": {
                "before_switch": [
                    ["python", "-m", "django", "generate_vapid_key"],
                    ["python", "-m", "django", "compilejsi18n"],
                ]
            },
            "env": {
                "DEBUG": "False",
                "SECRET_KEY": "a-key-that-is-long-enough-for-anybody-99bb11",
                "ALLOWED_HOSTS": "shifts.example",
                "DATABASE_URL": f"postgres://shifts:{PASSWORD}@127.0.0.1:5432/shifts",
                "DATA_DIR": "/srv/shifts/shared/data",
                "STATIC_ROOT": "/srv/shifts/shared/static",
                "MEDIA_ROOT": "/srv/shifts/shared/media",
                "SITE_URL": "http://shifts.example",
                "EMAIL_URL": "consolemail://",
                "DEFAULT_FROM_EMAIL": "shifts@shifts.example",
                "SERVER_EMAIL": "shifts@shifts.example",
                "ADMINS": "Ann <ann@shifts.example>",
            },
        },
    },
}
# A visitor who logs in: the page after it, and what the pages named and how that came.
VISITOR = r"""
import http.cookiejar, json, re, ssl, urllib.parse, urllib.request

SITE = "https://shifts.example"
opener = urllib.request.build_opener(
    urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile="/etc/shifts/cert.pem")),
    urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
)


def get(path, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    asked = urllib.request.Request(SITE + path, data, {"Referer": SITE + path})
    with opener.open(asked, timeout=60) as answer:
        return answer.geturl(), answer.headers.get_content_type(), answer.read()


page = get("/accounts/login/")[2].decode()
token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
where, _, after = get(
    "/accounts/login/", csrfmiddlewaretoken=token, username="ann@shifts.example", password=PASSWORD
)
links = set(re.findall(r'(?:href|src)="(/static/[^"?]+\.(?:css|js))"', page + after.decode()))
files = {link: [get(link)[1], len(get(link)[2])] for link in links}
print(json.dumps({"where": where, "page": after.decode(), "files": files}))
"""
PACKAGES = {"hpc": "coldfront==1.1.10", "shifts": "ephios==0.27.1"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The source distributions, as their authors released them."""
    folder = tmp_path_factory.mktemp("sdists")
    found = {}
    for site, package in PACKAGES.items():
        pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", folder / site]
        name = package.split("==")[0]
        subprocess.run([*pip, f"--no-binary={name}", package], check=True, timeout=300)
        (found[site],) = (folder / site).glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def pillar(host, sources):
    for site, archive in sources.items():
        content = pathlib.Path(archive).read_bytes()
        target = host.root / f"srv/{archive.name}"
        target.write_bytes(content)
        SITES[site]["project"]["source"] = {
            "archive": {
                "url": f"file:///srv/{archive.name}",
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        }
    return {"nginx_uwsgi_django": {"nginx": {"repo": "distro"}, "sites": SITES}}


@pytest.fixture(scope="module")
def applied(host, pillar):
    """Both, with what their documentation tells the operator to install besides."""
    packages = ("postgresql", "redis-server", "gcc", "libpq-dev", "python3-dev")
    host.install(*packages, recommends=False)
    ask = "runuser -u postgres -- psql -c"
    host.run(f"{ask} \"CREATE ROLE shifts LOGIN PASSWORD 'p@ss-w0rd'\"")
    host.run(f"{ask} 'CREATE DATABASE shifts OWNER shifts'")
    host.run(
        "mkdir -m 0700 /etc/shifts && cd /etc/shifts && openssl req -x509 -newkey rsa:2048 -nodes "
        "-keyout key.pem -out cert.pem -days 90 -subj /CN=shifts.example "
        "-addext subjectAltName=DNS:shifts.example && chmod 600 key.pem"
    )
    run = host.apply(pillar=pillar, timeout=1800)
    assert run.ok, run.errors
    return host


def test_the_one_with_sqlite_answers_with_its_own_page_and_files(applied):
    status, headers, body = applied.get("/", "hpc.example")
    assert (status, headers["server"].split("/")[0]) == (200, "nginx")
    assert b"ColdFront" in body
    links = set(re.findall(r'(?:href|src)="(/static/[^"?]+\.(?:css|js))"', body.decode()))
    assert links, body
    for link in links:
        status, headers, _ = applied.get(link, "hpc.example")
        assert status == 200, link
        kind = headers["content-type"]
        assert re.match("text/css|(application|text)/javascript", kind), (link, kind)


def test_the_one_with_postgresql_has_its_tables_and_sends_to_https(applied):
    status, headers, _ = applied.get("/", "shifts.example")
    assert (status, headers["location"]) == (301, "https://shifts.example/")
    script = "from django.contrib.auth import get_user_model as m; print(m()._meta.db_table)"
    told = applied.salt_call("django_command.manage", "shifts", f'shell -c "{script}"')
    assert told["retcode"] == 0, told
    # A user model of its own: not Django's table.
    table = told["stdout"].split()[-1]
    assert re.fullmatch("[a-z_]+", table) and table != "auth_user", told["stdout"]
    question = f"SELECT count(*) FROM {table}"
    asked = applied.run("runuser", "-u", "postgres", "--", "psql", "-At", "shifts", "-c", question)
    assert asked.stdout == "0\n"


def test_who_logs_in_to_the_one_with_postgresql_sees_its_pages(applied):
    make = (
        "from ephios.core.models import UserProfile; UserProfile.all_objects.create_superuser("
        "'ann@shifts.example', 'Ann Example', '1990-01-01', 'a-pass-phrase')"
    )
    made = applied.salt_call("django_command.manage", "shifts", f'shell -c "{make}"')
    assert made["retcode"] == 0, made
    applied.run("grep -q shifts.example /etc/hosts || echo 127.0.0.1 shifts.example >>/etc/hosts")
    seen = json.loads(applied.run("python3", "-c", f"PASSWORD = 'a-pass-phrase'{VISITOR}").stdout)
    assert seen["where"] == "https://shifts.example/"
    assert "Ann Example" in seen["page"]
    # Made by the site itself at its first requests, beside the collected ones.
    assert any(link.startswith("/static/CACHE/") for link in seen["files"]), seen["files"]
    for link, (kind, size) in seen["files"].items():
        assert re.fullmatch("text/css|(application|text)/javascript", kind), (link, kind)
        assert size, link


def test_the_worker_of_the_project_works(applied):
    assert applied.run("systemctl is-active django-hpc.queue.service").stdout == "active\n"
    task = "from django_q.tasks import async_task; async_task('math.copysign', 2, -2)"
    sent = applied.salt_call("django_command.manage", "hpc", f'shell -c "{task}"')
    assert sent["retcode"] == 0, sent
    database = "/srv/hpc/shared/data/coldfront.db"
    question = f"import sqlite3; print(sqlite3.connect('{database}').execute('select success from django_q_task').fetchall())"
    assert eventually(lambda: applied.run("python3", "-c", question).stdout == "[(1,)]\n", 30), (
        applied.run("journalctl -u django-hpc.queue.service | tail -30").stdout
    )


def test_applied_again_nothing_changes(applied):
    before = applied.run("pgrep -u hpc,shifts").stdout
    again = applied.apply(timeout=900)
    assert again.ok, again.errors
    assert [result.id for result in again.changed] == []
    assert applied.run("pgrep -u hpc,shifts").stdout == before
