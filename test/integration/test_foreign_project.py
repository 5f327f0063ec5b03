"""
A project that nobody here wrote: Wagtail's, as ``wagtail start`` makes it from PyPI's package
(7.0, with long-term support; the ones after it want a newer Python than Debian 12's).

It has a settings package, apps with migrations of their own, hashed static files, and keeps its
database, its static files and its uploads beside its code. Nothing of it is adapted but what its
own documentation leaves to the operator: ``settings/local.py``.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.long

NAME = "portal.example"
# The project's README tells to keep secrets and host names there; it is read last.
LOCAL = """
import os

SECRET_KEY = os.environ["PORTAL_SECRET_KEY"]
ALLOWED_HOSTS = os.environ["PORTAL_HOSTS"].split(",")
CSRF_TRUSTED_ORIGINS = ["http://portal.example"]
"""
PILLAR = {
    "nginx_uwsgi_django": {
        "sites": {
            "portal": {
                "server_names": [NAME],
                "project": {
                    "source": {"salt": "salt://portal"},
                    "wsgi": "portal.wsgi:application",
                    "settings": "portal.settings.production",
                    "env": {
                        "PORTAL_SECRET_KEY": "a-key-that-is-long-enough-for-anybody-5f1c",
                        "PORTAL_HOSTS": NAME,
                    },
                },
            }
        }
    }
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project, made here by what ``wagtail start portal`` runs (wagtail/bin/wagtail.py)."""
    folder = tmp_path_factory.mktemp("wagtail")
    pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", folder / "wheels"]
    packages = ["wagtail>=7.0,<7.1", "Django>=5.2,<5.3", "asgiref", "sqlparse"]
    subprocess.run([*pip, *packages], check=True, timeout=300)
    for wheel in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "packages")
    (folder / "portal").mkdir()
    subprocess.run(
        [
            *(sys.executable, "-m", "django", "startproject", "portal", folder / "portal"),
            f"--template={folder / 'packages/wagtail/project_template'}",
            *("--ext=html,rst", "--name=Dockerfile"),
        ],
        env={**os.environ, "PYTHONPATH": str(folder / "packages")},
        check=True,
        timeout=120,
    )
    (folder / "portal/portal/settings/local.py").write_text(LOCAL)
    return folder / "portal"


@pytest.fixture(scope="module")
def applied(host, project):
    """The run that brought the project up."""
    shutil.copytree(project, host.root / "srv/salt/portal")
    return host.apply(pillar=PILLAR, timeout=1200)


def test_it_is_deployed_by_its_own_requirements_and_settings(host, applied):
    assert applied.ok, applied.errors
    prepared = applied.by_id["portal: checks, migrations and static files"]
    migrated = prepared.changes["migrated"]["new"]
    # Its own app, Wagtail's and Django's.
    for name in (
        "home.0001_initial",
        "wagtailcore.0001_squashed_0016_change_page_url_path_to_text_field",
        "auth.0001_initial",
    ):
        assert name in migrated
    wanted = host.read("/srv/salt/portal/requirements.txt").lower()
    path = host.salt_call("python_venv.desired", "portal")["path"]
    frozen = host.run(f"{path}/bin/python -m pip freeze").stdout.lower()
    for package in ("django", "wagtail"):
        assert re.search(rf"^{package}[<>=~]", wanted, re.MULTILINE)
        assert re.search(rf"^{package}==", frozen, re.MULTILINE)


def test_its_page_and_its_static_files_come_through_nginx(host, applied):
    status, headers, body = host.get("/", NAME)
    assert status == 200
    assert headers["server"].startswith("nginx")
    assert b"Welcome to your new Wagtail site!" in body
    links = re.findall(rb'href="(/static/[^"]+\.css)"', body)
    hashed = [link.decode() for link in links if re.search(rb"\.[0-9a-f]{12}\.css$", link)]
    assert hashed, links
    styles = [host.get(link, NAME) for link in hashed]
    for status, headers, _ in styles:
        assert (status, headers["content-type"]) == (200, "text/css")
    # One of the two is for the operator to fill.
    assert any(style for _, _, style in styles)
    status, _, body = host.get("/admin/login/", NAME)
    assert status == 200
    script = re.search(rb'src="(/static/wagtailadmin/[^"]+\.js)"', body)
    assert script, body
    assert host.get(script.group(1).decode(), NAME)[0] == 200


def test_what_it_writes_beside_its_code_outlives_its_release(host, applied):
    release = host.salt_call("django_release.desired", "portal")["path"]
    for name in ("db.sqlite3", "static", "media"):
        where = host.run(f"realpath {release}/{name}").stdout.strip()
        assert where.startswith("/srv/portal/shared/"), where
    # A user of its own is made, which a new release still knows.
    path = host.salt_call("python_venv.desired", "portal")["path"]
    host.run(
        f"cd {release} && setpriv --reuid=portal --regid=portal --clear-groups env "
        "PORTAL_SECRET_KEY=x PORTAL_HOSTS=x DJANGO_SETTINGS_MODULE=portal.settings.production "
        f"DJANGO_SUPERUSER_PASSWORD=s3cret-enough {path}/bin/python -B manage.py createsuperuser "
        "--noinput --username ann --email ann@portal.example"
    )
    host.write(
        "/srv/salt/portal/home/templates/home/home_page.html",
        '{% extends "base.html" %}{% block content %}Second edition{% endblock %}\n',
    )
    changed = host.apply(pillar=PILLAR)
    assert changed.ok, changed.errors
    assert b"Second edition" in host.get("/", NAME)[2]
    new = host.salt_call("django_release.desired", "portal")["path"]
    assert new != release
    count = host.run(
        f"python3 -c \"import sqlite3; print(sqlite3.connect('{new}/db.sqlite3')"
        ".execute('select count(*) from auth_user').fetchone()[0])\""
    )
    assert count.stdout.strip() == "1"


def test_applied_again_nothing_changes(host, applied):
    before = host.run("pgrep -u portal").stdout
    again = host.apply(pillar=PILLAR)
    assert again.ok, again.errors
    assert [result.id for result in again.changed] == []
    assert host.run("pgrep -u portal").stdout == before
