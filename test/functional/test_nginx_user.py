"""
nginx's workers get another user while they serve: who may connect to a site's socket follows them.
"""

import re

import pytest

from . import uwsgi_load as load
from . import uwsgi_site as site

UNIT = f"{site.UNIT_DIR}/uwsgi-mysite.socket"
STATES = ("sites: deployed and running", "nginx: configuration tree")


def pillar(user, **more):
    """The pillar with a user of nginx's workers, and the socket's group left to follow from it."""
    whole = site.pillar(**more)
    settings = whole["nginx_uwsgi_django"]
    settings["nginx"]["user"] = user
    settings["sites"]["mysite"]["socket"].pop("group")
    return whole


def applied(host, user, **more):
    run = host.apply(pillar=pillar(user, **more))
    assert run.ok, run.failed
    return run


@pytest.fixture(scope="module")
def web(host):
    """A host on which the site is served; the accounts are there before the formula comes."""
    site.prepare(host)
    host.run("useradd --system --user-group web")
    applied(host, "www-data")
    return host


@pytest.fixture
def serving(web):
    applied(web, "www-data")
    assert admitted(web) == ("root", "www-data", "660")
    return web


def admitted(host):
    """Owner, group and mode of the live socket."""
    return tuple(host.run("stat", "-c", "%U %G %a", site.SOCKET).stdout.split())


def written(host):
    """The same, of the next one that systemd makes."""
    found = dict(re.findall(r"^Socket(User|Group|Mode)=(.*)$", host.read(UNIT), re.MULTILINE))
    return found["User"], found["Group"], found["Mode"].lstrip("0")


def workers(host):
    """The users of nginx's workers, those that finish their requests among them."""
    return set(host.run("ps -o user:32= -p $(pgrep -d, -f '^nginx: worker')").stdout.split())


def connects(host, user):
    script = f"import socket; socket.socket(socket.AF_UNIX).connect('{site.SOCKET}')"
    return (
        host.run("runuser", "-u", user, "--", "python3", "-c", script, check=False).returncode == 0
    )


def served(host):
    return host.get("/", "www.example.org")[0]


def test_another_user_of_nginx_under_load_loses_nothing(serving):
    def change():
        for user in ("deploy", "web", "www-data"):
            run = applied(serving, user)
            assert "nginx: reloaded or upgraded if needed" in {state.id for state in run.changed}
            assert workers(serving) == {user}
            assert admitted(serving) == written(serving) == ("root", user, "660")

    told = load.under_load(serving, load.NGINX, change)
    assert told["lost"] == []
    assert min(told["kinds"].values()) > 0 and told["asked"] > 100
    assert connects(serving, "www-data")
    assert not connects(serving, "web") and not connects(serving, "deploy")
    again = serving.apply(pillar=pillar("www-data"))
    assert again.ok and again.changed == []


def test_a_tree_that_nginx_refuses_leaves_the_socket_to_both_users(serving):
    refused = pillar("web", snippet="no_such_directive on;")

    def change():
        # Red as long as the cause is there, and the same every time.
        for _ in range(2):
            run = serving.apply(pillar=refused)
            assert [state.id for state in run.failed][0] == STATES[1], run.failed
            assert workers(serving) == {"www-data"}
            assert admitted(serving) == written(serving) == ("www-data", "web", "660")
            assert connects(serving, "www-data") and connects(serving, "web")

    told = load.under_load(serving, load.NGINX, change)
    assert told["lost"] == [] and told["asked"] > 100
    # With nginx's old tree on disk its old user connects after a restart of the units, too.
    serving.run("systemctl restart uwsgi-mysite.socket uwsgi-mysite.service nginx")
    assert site.eventually(lambda: served(serving) == 200)
    again = serving.apply(pillar=refused)
    assert {state.id for state in again.changed} == set()
    # The cause is mended: nginx has its new user, and its old one has no access any more.
    applied(serving, "web")
    assert admitted(serving) == written(serving) == ("root", "web", "660")
    assert not connects(serving, "www-data")


@pytest.mark.long
def test_the_host_reboots_while_the_tree_is_refused(serving):
    serving.apply(pillar=pillar("web", snippet="no_such_directive on;"))
    serving.reboot()
    assert site.eventually(lambda: served(serving) == 200, 30)
    assert admitted(serving) == ("www-data", "web", "660")


@pytest.mark.long
def test_a_rollout_that_is_put_back_loses_nothing(serving):
    serving.salt_call("rollout_host.keep", "by-hand")

    def change():
        applied(serving, "web")
        told = serving.salt_call("rollout_host.revert", "by-hand")
        assert "nginx.conf is as before" in " ".join(told["done"]), told
        assert workers(serving) >= {"www-data"}

    told = load.under_load(serving, load.NGINX, change)
    assert told["lost"] == [] and told["asked"] > 100
    assert connects(serving, "www-data")


def test_a_dry_run_foresees_an_account_that_the_run_makes(serving):
    serving.run("chmod -R a+rwX /srv/mysite/data")
    wanted = pillar("www-data", project={"user": "webby"})
    dry = serving.apply(pillar=wanted, test=True)
    assert dry.failed == [], dry.failed
    assert dry.by_id["mysite: user and group"].result is None
    assert serving.run("getent passwd webby", check=False).returncode == 2
    run = serving.apply(pillar=wanted)
    assert run.ok, [(state.id, state.comment) for state in run.failed]
    absent = pillar("www-data", uwsgi={"package": None, "binary": "/opt/no/uwsgi"})
    for test in (True, False):
        run = serving.apply(pillar=absent, test=test)
        assert [state.id for state in run.failed if "/opt/no/uwsgi" in state.comment], run.failed
    assert served(serving) == 200
