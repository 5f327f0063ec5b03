"""
A project's own ways with uWSGI on a real host: its own ini, the sandbox and where it is wider.
"""

import json

import pytest

from test.functional import uwsgi_site as site

URLS = '''
import ctypes, json, mmap, os, socket, subprocess, sys
from django.http import HttpResponse, JsonResponse
from django.urls import path

def home(request):
    return HttpResponse("ok")

def environ(request):
    return JsonResponse(dict(os.environ))

def child(request):
    """A process of the interpreter that Django runs in, by its own word."""
    done = subprocess.run(
        [sys.executable, "-c", "import django, sys; print(sys.prefix)"], capture_output=True, text=True
    )
    return HttpResponse(done.stdout.strip() or done.stderr)

def netlink():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()

def executable():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()

def written(where):
    os.makedirs(where, exist_ok=True)
    with open(where + "/tried", "w") as file:
        file.write("x")

def sandbox(request):
    told = {}
    for name, act in {
        "proc": lambda: open("/proc/meminfo").read(),
        "netlink": netlink,
        "jit": executable,
        "resources": lambda: os.setpriority(os.PRIO_PROCESS, 0, 5),
        "devices": lambda: os.stat("/dev/console"),
        "home": lambda: written(os.path.expanduser("~/.cache/own")),
        "media": lambda: written("/mnt/efs/media"),
        "beside": lambda: written("/srv/uploads"),
    }.items():
        try:
            act()
            told[name] = True
        except OSError:
            told[name] = False
    return JsonResponse(told)

urlpatterns = [
    path("", home), path("environ", environ), path("child", child), path("sandbox", sandbox)
]
'''

TUTORIAL = """\
[uwsgi]
project = mysite
uid = deploy
base = /home/%(uid)
chdir = %(base)/%(project)
home = %(base)/Env/%(project)
module = %(project).wsgi:application
master = true
processes = 1
socket = /run/uwsgi/%(project).sock
chown-socket = %(uid):www-data
vacuum = true
procname-prefix = %(project)-%(uid)-
env = P_VERSION=%(project) 50%% "x"
env = LANG=C
"""


@pytest.fixture(scope="module")
def up(host):
    """The site, with views that tell what they can do."""
    site.prepare(host)
    site.project(host, urls=URLS)
    host.set_pillar(site.pillar())
    assert site.state(host, "uwsgi_socket.listening")["result"] is True
    host.run("mkdir -p /mnt/efs/media /srv/uploads && chown mysite: /mnt/efs/media /srv/uploads")
    return host


def running(up, **uwsgi):
    up.set_pillar(site.pillar(uwsgi=uwsgi))
    done = site.running(up)
    assert done["result"] is True, done["comment"]
    return done


def test_a_process_that_a_view_starts_has_the_environment(up):
    running(up)
    assert site.ask(up, "/child")["body"] == site.VENV


def test_a_copied_tutorial_s_ini_works(up):
    up.write("/srv/mysite/uwsgi.ini", TUTORIAL)
    up.set_pillar(site.pillar(uwsgi={"ini": "uwsgi.ini"}))
    assert site.running(up, test=True)["result"] is None
    running(up, ini="uwsgi.ini")
    ini = up.read(f"/etc/uwsgi/mysite/{site.active(up).split('@')[1].split('.')[0]}.ini")
    assert "\nprocname-prefix = %(project)-deploy-\n" in ini
    environ = json.loads(site.ask(up, "/environ")["body"])
    assert environ["P_VERSION"] == 'mysite 50% "x"' and environ["LANG"] == "C"
    # The same for management commands.
    shown = up.salt_call(
        "django_command.manage", "mysite", "shell -c 'import os; print(os.environ[\"P_VERSION\"])'"
    )
    assert shown["stdout"].strip().endswith('mysite 50% "x"')


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("projekt = mysite", "set-placeholder = projekt=..."),
        ("env = A=$(HOME)", "env = A"),
        ("env = UWSGI_HTTP=:80", "UWSGI_HTTP"),
    ],
)
def test_an_ini_that_cannot_work_is_refused_in_a_dry_run_too(up, line, words):
    up.write("/srv/mysite/uwsgi.ini", f"[uwsgi]\n{line}\nprocesses = 1\n")
    up.set_pillar(site.pillar(uwsgi={"ini": "uwsgi.ini"}))
    kept = site.pids(up), site.files(up)
    for test in (True, False):
        refused = site.running(up, test=test)
        assert refused["result"] is False and words in refused["comment"], refused["comment"]
        assert "uwsgi:ini" in refused["comment"]
    assert (site.pids(up), site.files(up)) == kept
    up.run("rm /srv/mysite/uwsgi.ini")


def test_lazy_apps_may_be_said_in_the_pillar_too(up):
    done = running(up, options={"lazy-apps": True})
    text = up.read(f"/etc/uwsgi/mysite/{done['comment'].split()[1]}.ini")
    assert "lazy-apps = true" in text and site.ask(up)["status"] == 200


CLOSED = {"proc", "netlink", "jit", "resources", "devices", "media", "beside"}


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["proc", "netlink", "jit", "resources", "devices"])
def test_the_sandbox_is_wider_by_name(up, name):
    running(up, sandbox={"allow": [name]})
    seen = json.loads(site.ask(up, "/sandbox")["body"])
    assert {key for key, value in seen.items() if not value} == CLOSED - {name}


def test_more_directories_are_writable(up):
    running(up, sandbox={"writable": ["/mnt/efs/media", "/srv/uploads"]})
    seen = json.loads(site.ask(up, "/sandbox")["body"])
    assert {key for key, value in seen.items() if not value} == CLOSED - {"media", "beside"}
