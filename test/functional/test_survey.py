"""
A live server that others have built is read without a trace, and the pillar of it takes it over.
"""

import json
import re
from typing import Any

import pytest
import yaml

from ..hosts.host import Host
from ..hosts.salts import VERSIONS
from . import handmade as made
from . import uwsgi_load as load
from .test_takeover import good

FILE = "/root/adopted.sls"
REACHED = "sites: reachable through nginx"


@pytest.fixture(scope="module")
def server(host: Host) -> Host:
    """The tutorial's server, with a blog behind gunicorn and two sites that are no Django."""
    made.build(host)
    made.add_gunicorn(host)
    host.salt_call("saltutil.sync_modules")
    return host


def snapshot(host: Host) -> str:
    """All files of what is served and configured, the units and the processes."""
    return str(
        host.run(
            "find /etc /srv /home /tmp /var/www /opt/venv /run/systemd/system /var/log/nginx -xdev "
            "-printf '%p %T@ %C@ %m %u %l\\n' | grep -v '/var/log/nginx/.*log ' | sort; "
            "systemctl list-units --all --no-legend --plain --type=service,socket,timer | "
            "awk '{print $1, $3, $4}' | grep -v -E 'systemd-tmpfiles|apt-daily|dpkg-db|e2scrub|fstrim'; "
            "ps -eo pid,args | grep -E 'nginx|uwsgi|gunicorn' | grep -v grep"
        ).stdout
    )


def survey(host: Host, *words: Any, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = host.salt_call("nginx_uwsgi_django.survey", *words, **more)
    return told


def written(host: Host) -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load(host.read(FILE))
    return whole


def test_the_survey_changes_nothing(server: Host) -> None:
    server.run("find /srv/old /home/sammy/blog -name __pycache__ -exec rm -r {} +")
    before = snapshot(server)
    told = survey(server)
    assert snapshot(server) == before
    assert told["errors"] == [] and told["written"] is None
    for text in (told["report"], told["pillar"]):
        assert made.BLOG_SECRET not in text and "abc123" not in text


def test_it_says_what_was_found_and_where(server: Host) -> None:
    report = survey(server)["report"]
    for line in (
        "nginx's user: deploy  [/etc/nginx/nginx.conf:1]",
        f"nginx: www.example.org  [{made.LINK}:2]",
        "unit: uwsgi.service  [/etc/systemd/system/uwsgi.service]",
        "project: /srv/old  [/etc/systemd/system/uwsgi.service:7]",
        "unit: blog.service  [/etc/systemd/system/blog.service]",
        "variable: DJANGO_SECRET_KEY  [/etc/blog.env:2]",
        "SECRET_KEY: from the variable DJANGO_SECRET_KEY  [/home/sammy/blog/mysite/settings.py]",
        "database default: sqlite3 /home/sammy/blog/db.sqlite3 sammy:sammy 0644",
        "authenticator nginx, installer nginx  [/etc/letsencrypt/renewal/blog.example.org.conf]",
        "cron: 5 4 * * * sammy cd /home/sammy/blog && API_TOKEN=… ./sweep  [/etc/cron.d/blog:1]",
        f"pictures.example.org ({made.TREE}/sites-enabled/others.conf:1): serves files alone; it stays",
        "shop.example.org (/etc/nginx/sites-enabled/others.conf:6): is passed to FastCGI (PHP?)",
        "location /favicon.ico: the application is asked for it",
    ):
        assert line in report, report


def test_what_answers_for_a_name_is_a_record_of_plain_values(server: Host) -> None:
    python = f"/opt/salt/{VERSIONS['3008']}/bin/python"
    asked = (
        "import json, sys; sys.path.insert(0, '/srv/formula/_modules'); from _nud import survey; "
    )
    asked += f"print(json.dumps(survey.answering(['{made.NAME.upper()}'])))"
    (record,) = json.loads(server.run(python, "-B", "-c", asked).stdout)
    assert record.pop("pid") > 1
    assert record == {
        "endpoint": "unix:/tmp/mysite.sock",
        "user": "deploy",
        "group": "deploy",
        "kind": "uwsgi",
        "unit": "uwsgi.service",
        "unit_file": "/etc/systemd/system/uwsgi.service",
        "drop_ins": [],
        "enabled": "enabled",
        "socket_unit": None,
        "site_files": {made.LINK: made.FILE},
        "configuration": {},
    }


def test_the_pillar_has_the_values_of_the_server(server: Host) -> None:
    told = survey(server, FILE)
    assert told["errors"] == [] and told["written"] == FILE
    assert server.run("stat", "-c", "%a %U", FILE).stdout.strip() == "600 root"
    tree = written(server)["nginx_uwsgi_django"]
    assert tree["nginx"] == {"repo": "auto", "user": "www-data", "catch_all": False}
    assert set(tree["sites"]) == {"mysite", "blog"}
    mysite, blog = tree["sites"]["mysite"], tree["sites"]["blog"]
    assert mysite["server_names"] == ["www.example.org"] and mysite["listen"] == [80]
    assert mysite["client_max_body_size"] == "128M" and mysite["charset"] == "utf-8"
    assert mysite["uwsgi"] == {"processes": 4}
    assert mysite["takeover"] == {"units": ["uwsgi.service"], "sockets": ["/tmp/mysite.sock"]}
    assert blog["takeover"]["units"][0] == "blog.service"
    assert blog["takeover"]["files"] == ["/etc/nginx/sites-enabled/blog"]
    assert mysite["project"] == {
        "path": "/srv/old",
        "wsgi": "mysite.wsgi:application",
        "settings": "mysite.settings",
        "user": "deploy",
        "venv": "/opt/venv",
        "migrate": False,
        "static": {"collect": False},
    }
    live = "/etc/letsencrypt/live/blog.example.org"
    assert blog["tls"] == {
        "certificate": f"{live}/fullchain.pem",
        "key": f"{live}/privkey.pem",
        "listen": ["[::]:443", 443],
        "redirect": True,
        "hsts": 0,
    }
    assert blog["listen"] == [80, "[::]:80"] and blog["client_max_body_size"] == "1m"
    assert blog["files"] == [{"url": "/media/", "path": "/home/sammy/blog/media"}]
    assert "location /old { deny all; }" in blog["snippet"]
    assert blog["project"]["path"] == "/home/sammy/blog" and blog["project"]["user"] == "sammy"
    assert blog["project"]["venv"] == "/home/sammy/env" and "group" not in blog["project"]
    assert blog["uwsgi"] == {"package": "distro", "processes": 3, "options": {"harakiri": 120}}
    assert blog["project"]["env"] == {
        "DJANGO_DEBUG": "no",
        "DJANGO_SECRET_KEY": "<the value of DJANGO_SECRET_KEY in /etc/blog.env:2>",
    }


def test_no_run_takes_the_text_that_stands_for_a_secret(server: Host) -> None:
    (error,) = server.salt_call("site_pillar.check", pillar=written(server))
    assert error["path"] == "nginx_uwsgi_django:sites:blog:project:env:DJANGO_SECRET_KEY"
    assert "put the value in" in error["hint"] + error["expected"]


def test_a_file_is_overwritten_only_when_told_so(server: Host) -> None:
    before = server.read(FILE)
    refused = server.salt_run("nginx_uwsgi_django.survey", FILE, secrets=True)
    assert refused.returncode and "which is there already" in refused.stdout + refused.stderr
    assert server.read(FILE) == before
    survey(server, FILE, secrets=True, force=True)
    assert written(server)["nginx_uwsgi_django"]["sites"]["blog"]["project"]["env"] == {
        "DJANGO_DEBUG": "no",
        "DJANGO_SECRET_KEY": made.BLOG_SECRET,
    }
    assert server.run("stat", "-c", "%a", FILE).stdout.strip() == "600"


def test_bin_adopt_prints_and_writes_the_same(server: Host) -> None:
    path = f"/opt/salt/{VERSIONS['3008']}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = f"PATH={path} /srv/formula/bin/adopt /root/by-adopt.sls"
    done = server.run(f"umask 022; {command}")
    assert survey(server)["report"] in done.stdout
    assert (
        "To be put in: nginx_uwsgi_django:sites:blog:project:env:DJANGO_SECRET_KEY" in done.stdout
    )
    assert "bin/apply --test /root/by-adopt.sls" in done.stdout
    assert made.BLOG_SECRET not in done.stdout + done.stderr
    assert server.read("/root/by-adopt.sls") == survey(server)["pillar"]
    assert server.run("stat", "-c", "%a", "/root/by-adopt.sls").stdout.strip() == "600"
    refused = server.run(command, check=False)
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "bin/adopt: /root/by-adopt.sls is there already; --force overwrites it."
    ]


def test_the_pillar_takes_the_server_over_without_losing_a_request(server: Host) -> None:
    pillar = written(server)
    dry = server.apply(pillar=pillar, test=True)
    good(dry)
    assert any(made.FILE in str(state.changes) for state in dry.results)
    runs = []
    told = load.under_load(server, made.asking(), lambda: runs.append(server.apply(pillar=pillar)))
    assert told["lost"] == [] and told["seen"] == ["v1"]
    good(runs[0])
    assert not server.exists("/etc/nginx/sites-enabled/blog")
    stopped = server.run("systemctl is-active uwsgi blog", check=False).stdout.split()
    assert stopped == ["inactive", "inactive"]
    good(server.apply(pillar=pillar))
    again = survey(server)
    assert "the formula's own site already" in again["report"]
    assert yaml.safe_load(again["pillar"])["nginx_uwsgi_django"] is None
    health = server.salt_call("nginx_uwsgi_django.status")["sites"]
    assert {name: one["healthy"] for name, one in health.items()} == {"mysite": True, "blog": True}


@pytest.mark.long
def test_debian_s_own_uwsgi(trixie_host: Host) -> None:
    host = trixie_host
    made.build_packaged(host)
    host.salt_call("saltutil.sync_modules")
    told = survey(host, FILE, secrets=True)
    assert told["errors"] == [], told
    tree = written(host)["nginx_uwsgi_django"]
    assert tree["nginx"]["user"] == "www-data"
    site = tree["sites"]["mysite"]
    assert site["uwsgi"] == {
        "package": "distro",
        "processes": 3,
        "threads": 2,
        "options": {"harakiri": 40},
    }
    assert site["project"]["path"] == "/srv/pack"
    assert site["project"]["wsgi"] == "mysite.wsgi:application"
    assert site["project"]["env"] == {"API_TOKEN": "0a1b2c3d4e"}
    assert site["project"]["user"] == "mysite"
    # What is closed stays closed.
    assert "auth_basic_user_file /etc/nginx/users;" in site["snippet"]
    report = told["report"]
    assert "0a1b2c3d4e" not in report
    assert "configuration: /etc/uwsgi/apps-enabled/mysite.ini" in report
    assert re.search(r"unit: uwsgi\.service  \[/etc/init\.d/uwsgi\]", report)
    assert "the user www-data: what it owns, the new user mysite cannot write" in report
    assert "there is no requirements.txt to install Django from" in report
    # The old file, mysite without .conf, would be read before the formula's: it goes with its site.
    assert site["takeover"]["files"] == [f"{made.TREE}/sites-enabled/mysite"]
    dry = host.apply(pillar=written(host), test=True)
    assert REACHED not in {state.id for state in dry.failed}, [each.comment for each in dry.failed]
    assert host.get("/", made.NAME)[0] == 401
