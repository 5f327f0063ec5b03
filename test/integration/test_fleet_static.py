"""
Hashed static files in a fleet: a page that one host renders finds its files on every other, before,
while and after a release is rolled out, as docs/releases.md tells to do it.
"""

import re
import threading

import pytest

from ..hosts.fleet import Fleet

pytestmark = pytest.mark.long

NAME = "shop.example"
MINIONS = {"static1": ("3006", "bookworm"), "static2": ("3008", "trixie")}
PILLAR = {
    "nginx_uwsgi_django": {
        "nginx": {"repo": "distro"},
        "rollout": {"window": 2, "slower": 10000},
        "sites": {
            "shop": {
                "server_names": [NAME],
                "project": {
                    "source": {"salt": "salt://shop"},
                    "wsgi": "shop.wsgi:application",
                    "settings": "shop.settings",
                    "check": {"deploy": None},
                },
                "uwsgi": {"processes": 1},
            }
        },
    }
}
PROJECT = {
    "requirements.txt": "Django>=5.2,<5.3\n",
    "shop/__init__.py": "",
    "shop/settings.py": """
import os

SECRET_KEY = "x" * 60
ALLOWED_HOSTS = ["shop.example"]
INSTALLED_APPS = ["django.contrib.staticfiles", "shop"]
ROOT_URLCONF = "shop.urls"
STATIC_URL = "/static/"
STATIC_ROOT = os.environ["DJANGO_STATIC_ROOT"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
""",
    "shop/urls.py": """
from django.http import HttpResponse
from django.templatetags.static import static
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(static("shop/a.css")))]
""",
    "shop/wsgi.py": "from django.core.wsgi import get_wsgi_application\n"
    "application = get_wsgi_application()\n",
}


def release(fleet: Fleet, order: int) -> str:
    """Another release in the master's files; what its style sheet says."""
    style = f"a {{ order: {order} }}\n"
    for name, text in {**PROJECT, "shop/static/shop/a.css": style}.items():
        fleet.write_state(f"shop/{name}", text)
    return style


def page(fleet: Fleet, host: str) -> str:
    """The name of the style sheet in the page of a host."""
    status, _, body = fleet.hosts[host].get("/", NAME, timeout=60)
    assert status == 200, body
    return str(body.decode())


def found(fleet: Fleet, link: str) -> dict[str, bytes | None]:
    """What each host hands out by that name."""
    answers = {name: host.get(link, NAME, timeout=60) for name, host in fleet.hosts.items()}
    return {name: body if status == 200 else None for name, (status, _, body) in answers.items()}


def test_every_host_has_the_files_that_any_other_ones_page_names(fleet: Fleet) -> None:
    for name, (salt, debian) in MINIONS.items():
        fleet.add(name, salt=salt, release=debian)
    fleet.set_pillar(PILLAR)
    old_style = release(fleet, 1).encode()
    code, said, lines = fleet.runner("rollout.apply", "static*")
    assert (code, said["status"]) == (0, "done"), lines[-6000:]
    old = page(fleet, "static1")
    assert re.fullmatch(r"/static/shop/a\.[0-9a-f]{12}\.css", old)
    assert found(fleet, old) == dict.fromkeys(MINIONS, old_style)

    new_style = release(fleet, 2).encode()
    runs = fleet.apply("nginx_uwsgi_django.django", target="static*")
    assert {name: run.ok for name, run in runs.items()} == dict.fromkeys(MINIONS, True), runs
    # Nothing has switched.
    assert {page(fleet, name) for name in MINIONS} == {old}

    lost: list[object] = []
    named: dict[str, set[str]] = {name: set() for name in MINIONS}
    mixed = threading.Event()
    enough = threading.Event()

    def visit() -> None:
        while not enough.is_set():
            try:
                now = {name: page(fleet, name) for name in MINIONS}
                if len(set(now.values())) == 2:
                    mixed.set()
                for name, link in now.items():
                    named[name].add(link)
                    there = found(fleet, link)
                    if set(there.values()) != {old_style if link == old else new_style}:
                        lost.append((name, link, there))
            except (OSError, AssertionError) as error:
                lost.append(error)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        code, said, lines = fleet.runner("rollout.apply", "static*", canary=1, batch=1)
    finally:
        enough.set()
        visitor.join()
    assert (code, said["hosts"]) == (0, dict.fromkeys(MINIONS, "done")), lines[-6000:]
    assert lost == []
    new = page(fleet, "static1")
    assert new != old and page(fleet, "static2") == new
    # There was a while in which one had the new page and the other the old one.
    assert mixed.is_set() and set.union(*named.values()) == {old, new}
    # A page that somebody opened before goes on finding its own.
    assert found(fleet, old) == dict.fromkeys(MINIONS, old_style)
    assert found(fleet, new) == dict.fromkeys(MINIONS, new_style)
