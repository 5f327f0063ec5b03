"""
What serves keeps serving: servers that were built by hand, and sites whose release fails, under load.
"""

from typing import Any

import pytest

from ..hosts.host import Host
from . import handmade as made
from . import uwsgi_load as load
from . import uwsgi_site as site

TREE = "nginx: configuration tree"
PROCESS = "nginx: reloaded or upgraded if needed"
ALL = "sites: deployed and running"
BROKEN = "raise RuntimeError('a broken setting')\n"


@pytest.fixture(scope="module")
def server(host: Host) -> Host:
    """The tutorial's server."""
    made.build(host)
    return host


def tree(host: Host) -> str:
    """All of nginx's tree, byte for byte."""
    return str(
        host.run(
            "cd /etc/nginx && find . -type f -exec sha256sum {} + | sort && find . -type l -printf '%p %l\\n' | sort"
        ).stdout
    )


def listening(host: Host, name: str) -> bool:
    return f"/run/uwsgi/{name}.sock" in host.run("ss -lx").stdout


def results(run: Any) -> dict[str, Any]:
    return {state.id: state.result for state in run.results}


def good(run: Any) -> None:
    """A run in which nothing fails."""
    assert run.ok, [f"{state.id}: {state.comment}" for state in run.failed]


def test_a_first_release_that_fails_leaves_the_hand_made_server_as_it_is(server: Host) -> None:
    made.write(server, "mysite", settings=BROKEN)
    before = tree(server)
    runs = []
    told = load.under_load(
        server,
        made.asking(),
        lambda: runs.extend(server.apply(pillar=made.pillar()) for _ in range(2)),
    )
    assert told["lost"] == [] and told["seen"] == ["v1"]
    for run in runs:
        assert run.by_id[ALL].result is False
        assert run.by_id[TREE].result is True and run.by_id[PROCESS].result is True
        assert "mysite: its part stays as it is: generation" in run.by_id[TREE].comment
        assert run.by_id[TREE].changes == {}
    assert tree(server) == before
    assert not listening(server, "mysite")


def test_nginx_by_itself_does_not_name_a_site_that_does_not_run(server: Host) -> None:
    before = tree(server)
    run = server.apply("nginx_uwsgi_django.nginx", pillar=made.pillar())
    assert tree(server) == before
    assert "mysite: its part stays as it is" in run.by_id[TREE].comment


def test_a_dry_run_says_what_a_good_release_would_change(server: Host) -> None:
    before = tree(server)
    dry = server.apply("nginx_uwsgi_django.nginx", pillar=made.pillar(), test=True)
    assert dry.by_id[TREE].result is None
    assert made.FILE in dry.by_id[TREE].changes
    assert "mysite: its part changes once its release is live" in dry.by_id[TREE].comment
    assert tree(server) == before


def test_the_release_that_comes_up_takes_over(server: Host) -> None:
    made.write(server, "mysite", "v2")
    runs = []
    told = load.under_load(
        server, made.asking(), lambda: runs.append(server.apply(pillar=made.pillar()))
    )
    good(runs[0])
    assert told["lost"] == [] and told["seen"] == ["v1", "v2"]
    assert made.served(server) == "v2"
    again = server.apply()
    assert again.ok and again.changed == []


def test_a_new_site_that_fails_takes_nothing_from_its_neighbour(server: Host) -> None:
    made.write(server, "new", settings=BROKEN)
    pillar = made.pillar({"new": made.a_site("new")}, client_max_body_size="64m")
    runs = []

    def act() -> None:
        runs.append(server.apply(pillar=pillar))

    told = load.under_load(server, made.asking(), act)
    assert told["lost"] == []
    (run,) = runs
    assert run.by_id[ALL].result is False
    # The neighbour's change is in force.
    assert run.by_id[TREE].result is True and run.by_id[PROCESS].result is True
    assert "client_max_body_size 64m;" in server.read(made.FILE)
    assert {state.id.partition(":")[0] for state in run.failed} <= {"new", "sites"}
    for state in run.failed:
        assert not state.comment.startswith("One or more requisite failed")
    assert not server.exists(f"{made.TREE}/sites-enabled/new.conf")
    # One site alone needs no server that refuses other names.
    assert "return 444" not in server.read(f"{made.TREE}/conf.d/nginx_uwsgi_django.conf")
    assert not listening(server, "new")

    made.write(server, "new", "v3")
    run = server.apply(pillar=pillar)
    good(run)
    assert made.served(server, "new.example.org") == "v3"
    assert made.served(server) == "v2"


def test_nginx_s_part_of_a_live_site_changes_with_its_release_or_not_at_all(server: Host) -> None:
    pillar = made.pillar(client_max_body_size="64m")
    pillar["nginx_uwsgi_django"]["sites"]["new"] = {"absent": True}
    good(server.apply(pillar=pillar))
    server.run("mkdir -p /srv/uploads && echo hello >/srv/uploads/a.txt")
    files = {"files": [{"url": "/old/", "path": "/srv/uploads"}]}
    pillar = made.pillar(**files)
    run = server.apply(pillar=pillar)
    good(run)
    assert server.get("/old/a.txt", made.NAME)[0] == 200
    before = server.run(f"stat -c '%i %Y' {made.FILE}; cat {made.FILE}").stdout

    # A typo in the module together with other locations and names.
    changed = made.pillar(
        files=[{"url": "/new/", "path": "/srv/uploads"}], server_names=["other.example.org"]
    )
    changed["nginx_uwsgi_django"]["sites"]["mysite"]["project"]["settings"] = "mysite.nowhere"
    changed["nginx_uwsgi_django"]["nginx"]["log_formats"] = {"short": {"format": "$status"}}
    runs = []
    told = load.under_load(
        server,
        made.asking(),
        lambda: runs.extend(server.apply(pillar=changed) for _ in range(2)),
    )
    assert told["lost"] == [] and told["seen"] == ["v2"]
    for run in runs:
        assert run.by_id[ALL].result is False and run.by_id[TREE].result is True
    # The http level is not the site's, and goes on.
    assert "log_format short" in server.read(f"{made.TREE}/conf.d/nginx_uwsgi_django.conf")
    assert server.run(f"stat -c '%i %Y' {made.FILE}; cat {made.FILE}").stdout == before
    assert server.get("/old/a.txt", made.NAME)[0] == 200

    changed["nginx_uwsgi_django"]["sites"]["mysite"]["project"]["settings"] = "mysite.settings"
    run = server.apply(pillar=changed)
    good(run)
    assert server.get("/new/a.txt", "other.example.org")[0] == 200


def test_a_log_format_stays_as_long_as_a_file_that_stays_writes_with_it(server: Host) -> None:
    pillar = made.pillar(access_log={"path": "/var/log/nginx/mysite.log", "format": "short"})
    pillar["nginx_uwsgi_django"]["nginx"]["log_formats"] = {"short": {"format": "$status"}}
    run = server.apply(pillar=pillar)
    good(run)
    changed = made.pillar()
    changed["nginx_uwsgi_django"]["sites"]["mysite"]["project"]["settings"] = "mysite.nowhere"
    run = server.apply(pillar=changed)
    assert run.by_id[TREE].result is True, run.by_id[TREE].comment
    assert "log_format short" in server.read(f"{made.TREE}/conf.d/nginx_uwsgi_django.conf")
    good(server.apply(pillar=made.pillar()))
    assert "log_format" not in server.read(f"{made.TREE}/conf.d/nginx_uwsgi_django.conf")


def test_a_socket_that_nobody_reads_is_closed(server: Host) -> None:
    made.write(server, "mysite", settings=BROKEN)
    server.run(f"systemctl stop {site.active(server)}")
    assert listening(server, "mysite")
    run = server.apply(pillar=made.pillar())
    assert run.by_id["mysite: uWSGI socket"].changes
    assert not listening(server, "mysite")
    assert server.get("/", made.NAME)[0] == 502
    made.write(server, "mysite", "v2")
    run = server.apply(pillar=made.pillar())
    good(run)
    assert made.served(server) == "v2"
