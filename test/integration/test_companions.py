"""
A real Celery worker as a site's companion, through the whole formula: over its switches and back.

The queue is Celery's own file system transport, so that no broker is to be installed for it.
"""

import json

import pytest

from ..functional.uwsgi_site import eventually

pytestmark = pytest.mark.long

NAME = "shop.example"
UNIT = "django-shop.worker.service"
DATA = "/srv/shop/shared/data"
SETTINGS = """
import os

SECRET_KEY = "x" * 60
ALLOWED_HOSTS = ["shop.example"]
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "shop.urls"
DATA = os.environ["DJANGO_DATA_DIR"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA + "/db"}}
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "data_folder_in": DATA + "/queue",
    "data_folder_out": DATA + "/queue",
    "control_folder": DATA + "/control",
}
"""
CELERY = """
import time
from pathlib import Path
from celery import Celery
from django.conf import settings

VERSION = "one"
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
for folder in ("queue", "control"):
    Path(settings.DATA, folder).mkdir(exist_ok=True)


@app.task
def pack(name):
    Path(settings.DATA, name + "-began").write_text(VERSION)
    while not Path(settings.DATA, "go").exists():
        time.sleep(0.1)
    time.sleep(2)
    Path(settings.DATA, name + "-packed").write_text(VERSION)
"""
URLS = """
from django.http import HttpResponse
from django.urls import path
from shop.celery import VERSION, pack

urlpatterns = [
    path("", lambda request: HttpResponse(VERSION)),
    path("pack/<name>", lambda request, name: HttpResponse(pack.delay(name).id)),
]
"""
PROJECT = {
    "requirements.txt": "Django>=5.2,<5.3\ncelery>=5.5,<6\n",
    "shop/__init__.py": "from .celery import app\n",
    "shop/settings.py": SETTINGS,
    "shop/celery.py": CELERY,
    "shop/urls.py": URLS,
    "shop/wsgi.py": "from django.core.wsgi import get_wsgi_application\n"
    "application = get_wsgi_application()\n",
}
RUN = "shop: companions"


def pillar(**companions):
    worker = {"command": "celery -A shop worker --concurrency 2", "settle": 5, "stop_timeout": 60}
    site = {
        "server_names": [NAME],
        "project": {
            "source": {"salt": "salt://shop"},
            "wsgi": "shop.wsgi:application",
            "settings": "shop.settings",
            "check": {"deploy": None},
        },
        "uwsgi": {"processes": 1},
        "companions": {"worker": worker, **companions},
    }
    return {"nginx_uwsgi_django": {"nginx": {"repo": "distro"}, "sites": {"shop": site}}}


def pid(host):
    return host.run("systemctl", "show", "-P", "MainPID", UNIT).stdout.strip()


def there(host, name):
    return eventually(lambda: host.exists(f"{DATA}/{name}"), 30)


@pytest.fixture(scope="module")
def applied(host):
    for path, text in PROJECT.items():
        host.write(f"/srv/salt/shop/{path}", text)
    run = host.apply(pillar=pillar(), timeout=900)
    assert run.ok, run.errors
    return host


def test_a_task_is_done_by_the_worker(applied):
    applied.write(f"{DATA}/go", "")
    assert applied.get("/pack/first", NAME)[0] == 200
    assert there(applied, "first-packed"), applied.run(f"journalctl -u {UNIT}").stdout
    again = applied.apply()
    assert again.ok and again.changed == []
    told = applied.salt_call("django_command.manage", "shop", "check")
    assert told["retcode"] == 0, told


def test_a_task_that_runs_during_a_switch_is_finished_by_the_old_worker(applied):
    applied.run(f"rm {DATA}/go")
    applied.get("/pack/second", NAME)
    assert there(applied, "second-began")
    old = pid(applied)
    applied.write("/srv/salt/shop/shop/celery.py", CELERY.replace('"one"', '"two"'))
    # Only when the worker is asked to end may the task go on.
    applied.run(
        "systemd-run --quiet sh -c 'while [ $(systemctl show -P ActiveState "
        f"{UNIT}) = active ]; do sleep 0.1; done; touch {DATA}/go'"
    )
    run = applied.apply()
    assert run.ok, run.errors
    assert set(run.by_id[RUN].changes) == {"worker"}
    assert applied.read(f"{DATA}/second-packed") == "one"
    assert pid(applied) != old
    assert applied.get("/", NAME)[2] == b"two"
    applied.get("/pack/third", NAME)
    assert there(applied, "third-packed")
    assert applied.read(f"{DATA}/third-packed") == "two"


def test_a_rollback_takes_the_worker_along_and_back(applied):
    two = applied.salt_call("uwsgi_generation.serving", "shop")
    for task, said, release in (("fourth", "one", None), ("fifth", "two", two)):
        before = pid(applied)
        words = ["shop", *([release] if release else [])]
        answer = applied.salt_call("site_rollback.rollback", *words)
        assert set(answer["changes"]) >= {"generation", "current", "worker"}, answer
        now = pid(applied)
        assert now != before
        running = applied.run(f"readlink /proc/{now}/cwd").stdout.strip()
        assert running == f"/srv/shop/releases/{answer['release']['new']}"
        assert applied.get("/", NAME)[2] == said.encode()
        applied.get(f"/pack/{task}", NAME)
        assert there(applied, f"{task}-packed")
        assert applied.read(f"{DATA}/{task}-packed") == said
        settled = applied.apply()
        assert settled.ok and settled.changed == [], settled
        assert pid(applied) == now


def test_one_that_does_not_come_up_leaves_what_is_served(applied):
    before = pid(applied)
    broken = {"command": "celery -A nowhere worker", "settle": 10}
    run = applied.apply(pillar=pillar(broken=broken))
    assert {result.id for result in run.failed} == {"sites: deployed and running", RUN}
    assert "broken: django-shop.broken.service does not stay up" in run.by_id[RUN].comment
    assert "nowhere" in run.by_id[RUN].comment.split("journal")[1]
    assert pid(applied) == before
    assert applied.get("/", NAME)[2] == b"two"
    again = applied.apply(pillar=pillar())
    assert again.ok, again.errors
    assert again.by_id[RUN].changes["broken"]["new"] is None


def test_it_comes_back_after_a_reboot_and_goes_with_the_site(applied):
    applied.reboot()
    assert eventually(lambda: pid(applied) != "0", 30)
    settled = applied.apply()
    assert settled.ok and settled.changed == [], json.dumps(settled.changed, default=str)
    run = applied.apply("nginx_uwsgi_django.clean")
    assert run.ok, run.errors
    assert applied.run("ls /etc/systemd/system | grep ^django-", check=False).stdout == ""
    assert applied.run("pgrep -f celery", check=False).stdout == ""
