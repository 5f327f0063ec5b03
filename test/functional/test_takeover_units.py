"""
What served a site before the formula goes when the site is proven, and comes back: under load, by
`takeover.revert`, by `absent`, and after a reboot not at all.
"""

from typing import Any

import pytest

from ..hosts.host import CommandFailed, Host
from . import handmade as made
from . import uwsgi_load as load
from .test_takeover import good, tree

SETTLED = "takeover: former services stopped"
RETURNED = "takeover: former services of absent sites running"
REACHED = "sites: reachable through nginx"
UNIT = "/etc/systemd/system/uwsgi.service"
CONSENT = {"units": ["uwsgi.service"], "sockets": ["/tmp/mysite.sock"]}


@pytest.fixture(scope="module")
def server(host: Host) -> Host:
    """The tutorial's server, and the project where the formula takes it from."""
    made.build(host)
    made.write(host, "mysite", "v2")
    return host


def unit(host: Host, name: str = "uwsgi.service") -> str:
    """Whether a unit is active and enabled, in systemd's words."""
    words = host.run("systemctl", "show", "-P", "ActiveState", "-P", "UnitFileState", name).stdout
    return " ".join(words.split())


def under_load(host: Host, act: Any) -> list[str]:
    """Which answers came; none was lost."""
    told = load.under_load(host, made.asking(), act)
    assert told["lost"] == []
    return list(told["seen"])


def warnings(run: Any) -> list[str]:
    """The warnings of the state that stops what was taken over."""
    return [
        word
        for tag, state in run.raw.items()
        if f"_|-{SETTLED}_|-" in tag
        for word in state.get("warnings", [])
    ]


def test_without_consent_the_old_server_is_named_in_every_run(server: Host) -> None:
    for _ in range(2):
        run = server.apply(pillar=made.pillar())
        good(run)
        assert warnings(run) == [
            "mysite: uwsgi.service, which served this site before, still runs and is enabled: name "
            "it in sites:mysite:takeover:units, and the next run stops it"
        ]
    assert run.changed == []
    assert unit(server) == "active enabled"
    assert warnings(run)[0] in server.salt_call("nginx_uwsgi_django.report")["warnings"]


def test_with_consent_it_finishes_its_requests_and_goes(server: Host) -> None:
    inode = server.run("stat", "-c", "%i %h %Y", UNIT).stdout
    pillar = made.pillar(takeover=CONSENT)
    dry = server.apply(pillar=pillar, test=True)
    assert dry.by_id[SETTLED].result is None
    assert set(dry.by_id[SETTLED].changes["mysite"]) == {"uwsgi.service", "/tmp/mysite.sock"}
    assert unit(server) == "active enabled"
    runs = []
    seen = under_load(server, lambda: runs.append(server.apply(pillar=pillar)))
    good(runs[0])
    assert seen == ["v2"] and set(runs[0].by_id[SETTLED].changes["mysite"]) == {
        "uwsgi.service",
        "/tmp/mysite.sock",
    }
    assert unit(server) == "inactive disabled"
    assert server.run("stat", "-c", "%i %h %Y", UNIT).stdout == inode
    assert not server.exists("/tmp/mysite.sock")
    told = server.salt_call("takeover.status", "mysite")
    assert told["units"] == {
        "uwsgi.service": {"before": "active, enabled", "now": "stopped, not enabled"}
    }
    assert told["left"] == {} and told["reverted"] is None and told["since"]
    again = server.apply(pillar=pillar)
    good(again)
    assert again.changed == [] and warnings(again) == []


def test_the_server_comes_back_as_it_was_and_stays_until_the_operator_decides(server: Host) -> None:
    told = []
    seen = under_load(server, lambda: told.append(server.salt_call("takeover.revert", "mysite")))
    assert seen == ["v1", "v2"] and told[0]["units"] == ["uwsgi.service"]
    assert unit(server) == "active enabled"
    assert server.read(made.FILE) == made.SITE
    assert server.run("readlink", made.LINK).stdout.strip() == made.FILE
    assert "user deploy;" in server.read("/etc/nginx/nginx.conf")
    assert not server.exists(f"{made.TREE}/conf.d/nginx_uwsgi_django.conf")
    before = tree(server)
    for test in (True, False):
        run = server.apply(pillar=made.pillar(takeover=CONSENT), test=test)
        assert {state.id for state in run.failed} <= {SETTLED, REACHED}
        assert "`takeover.resume mysite` lets the next run" in run.by_id[SETTLED].comment
        assert run.changed == []
    assert tree(server) == before and made.served(server) == "v1"
    assert unit(server) == "active enabled"
    assert server.salt_call("nginx_uwsgi_django.report")["verdict"] == "error"

    assert server.salt_call("takeover.resume", "mysite") is True
    seen = under_load(server, lambda: good(server.apply()))
    assert seen == ["v1", "v2"]
    assert unit(server) == "inactive disabled"


def test_a_server_that_does_not_answer_any_more_is_not_gone_back_to(server: Host) -> None:
    before = tree(server)
    server.run("mv /srv/old/mysite/urls.py /root/")

    def act() -> None:
        with pytest.raises(CommandFailed, match="which served mysite before|uwsgi.service"):
            server.salt_call("takeover.revert", "mysite")

    assert under_load(server, act) == ["v2"]
    assert tree(server) == before
    assert unit(server) == "inactive disabled"
    server.run("mv /root/urls.py /srv/old/mysite/")
    run = server.apply()
    good(run)
    assert run.changed == []


def test_a_reboot_does_not_bring_it_back(server: Host) -> None:
    server.reboot()
    assert unit(server) == "inactive disabled"
    assert made.served(server) == "v2"


def test_an_absent_site_leaves_the_server_as_it_was(server: Host) -> None:
    pillar = made.pillar()
    pillar["nginx_uwsgi_django"]["sites"]["mysite"] = {"absent": True}
    runs = []
    seen = under_load(server, lambda: runs.append(server.apply(pillar=pillar)))
    good(runs[0])
    assert seen == ["v1", "v2"]
    assert runs[0].by_id[RETURNED].changes == {"mysite": ["uwsgi.service"]}
    assert server.read(made.FILE) == made.SITE
    assert unit(server) == "active enabled"
    assert not server.exists("/var/lib/nginx_uwsgi_django/takeover/mysite.json")
    again = server.apply(pillar=pillar)
    assert again.ok and again.changed == []


def test_finish_leaves_nothing_to_go_back_to(server: Host) -> None:
    good(server.apply(pillar=made.pillar(takeover=CONSENT)))
    told = server.salt_call("takeover.finish", "mysite")
    assert told == {"files": [f"{made.FILE}.nginx_uwsgi_django"], "record": True}
    assert not server.exists(f"{made.FILE}.nginx_uwsgi_django")
    with pytest.raises(CommandFailed, match="nothing is known of what served mysite before"):
        server.salt_call("takeover.revert", "mysite")
    run = server.apply()
    good(run)
    assert run.changed == [] and made.served(server) == "v2"


def test_another_service_may_have_the_directory_of_the_sockets(server: Host) -> None:
    """Debian's uwsgi-emperor removes /run/uwsgi when it stops."""
    server.install("uwsgi-emperor")
    # A unit that was written by hand after the last run.
    server.write(
        "/etc/systemd/system/other.service",
        "[Service]\nRuntimeDirectory=uwsgi\nExecStart=/bin/sleep infinity\n",
    )

    def act() -> None:
        server.run("systemctl restart uwsgi-emperor; systemctl stop uwsgi-emperor")
        good(server.apply())
        server.run("systemctl daemon-reload; systemctl start other; systemctl stop other")

    assert under_load(server, act) == ["v2"]
    path = "/etc/systemd/system/{}.service.d/nginx_uwsgi_django-runtime.conf"
    assert server.exists(path.format("uwsgi-emperor")) and server.exists(path.format("other"))
    good(server.apply("nginx_uwsgi_django.clean", pillar=made.pillar()))
    assert not server.exists(path.format("uwsgi-emperor"))
    assert not server.exists(path.format("other"))
