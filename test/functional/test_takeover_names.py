"""
What nginx answers stays answered, a name is its site's or the run is red, and the way back.
"""

import pytest

from ..hosts.host import Host
from . import handmade as made
from . import uwsgi_load as load
from .test_takeover import TREE, good, tree

REACHED = "sites: reachable through nginx"
CERTIFIED = made.SITE.replace(
    "    listen 80;\n",
    "    listen 80;\n    listen 443 ssl;\n"
    "    ssl_certificate /etc/ssl/hand.pem;\n    ssl_certificate_key /etc/ssl/hand.pem;\n",
).replace("server_name www.example.org;", "server_name www.example.org old.example.org;")


@pytest.fixture(scope="module")
def server(host: Host) -> Host:
    """The tutorial's server, to which certbot's lines were added, and a name more."""
    made.build(host)
    host.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=www.example.org -days 30 "
        "-keyout /tmp/key -out /tmp/cert && cat /tmp/cert /tmp/key >/etc/ssl/hand.pem"
    )
    host.write(made.FILE, CERTIFIED)
    host.run("systemctl reload nginx")
    made.write(host, "mysite", "v2")
    return host


def by_https(host: Host) -> str:
    words = ["curl", "-sk", "--resolve", f"{made.NAME}:443:{host.address}", f"https://{made.NAME}/"]
    return str(host.run(*words, check=False).stdout)


def test_a_port_and_a_name_that_answer_are_not_let_go_without_a_word(server: Host) -> None:
    server.install("curl")
    before = tree(server)
    runs = []
    told = load.under_load(
        server,
        made.asking(),
        lambda: runs.extend(
            [server.apply(pillar=made.pillar()), server.apply(pillar=made.pillar(), test=True)]
        ),
    )
    assert told["lost"] == [] and told["seen"] == ["v1"]
    for run in runs:
        assert run.by_id[TREE].result is False
        comment = run.by_id[TREE].comment
        assert f"listen *:443 ({made.LINK}, line 2)" in comment
        assert f"name old.example.org on *:80 ({made.LINK}, line 2)" in comment
        assert (
            'nginx_uwsgi_django:nginx:allow_loss: ["name old.example.org on *:80", "listen *:443"]'
            in comment
        )
    assert tree(server) == before
    assert by_https(server) == "v1"


def test_what_the_pillar_lets_go_goes_and_the_file_is_kept(server: Host) -> None:
    pillar = made.pillar(server_names=[made.NAME, "old.example.org"])
    pillar["nginx_uwsgi_django"]["nginx"]["allow_loss"] = ["listen *:443"]
    dry = server.apply(pillar=pillar, test=True)
    assert dry.by_id[TREE].result is None
    for run in (dry, server.apply(pillar=pillar)):
        good(run)
        assert "no longer answered, by nginx:allow_loss: listen *:443" in run.by_id[TREE].comment
        assert f"it is kept as {made.FILE}.nginx_uwsgi_django" in run.by_id[TREE].comment
    assert server.read(f"{made.FILE}.nginx_uwsgi_django") == CERTIFIED
    assert made.served(server) == "v2"
    again = server.apply()
    assert again.ok and again.changed == []


def test_a_port_of_our_own_site_is_not_closed_without_a_word(server: Host) -> None:
    before = tree(server)
    pillar = made.pillar(server_names=[made.NAME, "old.example.org"], listen=["[::]:80"])
    runs = []
    told = load.under_load(
        server,
        made.asking(),
        lambda: runs.append(server.apply("nginx_uwsgi_django.nginx", pillar=pillar)),
    )
    assert told["lost"] == []
    assert runs[0].by_id[TREE].result is False
    assert "listen *:80" in runs[0].by_id[TREE].comment
    assert tree(server) == before


@pytest.mark.few(1)
@pytest.mark.parametrize("path", ["conf.d/a.conf", "sites-enabled/a"])
def test_a_name_that_another_file_has_is_red_in_every_run(server: Host, path: str) -> None:
    server.write(
        f"{made.TREE}/{path}",
        f"server {{\n    listen 80;\n    server_name {made.NAME};\n    return 200 old;\n}}\n",
    )
    server.run("systemctl reload nginx")
    pillar = made.pillar(server_names=[made.NAME, "old.example.org"])
    for test in (False, False, True):
        run = server.apply(pillar=pillar, test=test)
        assert {state.id for state in run.failed} == {REACHED}
        assert run.by_id[REACHED].comment.startswith(
            f"mysite: {made.NAME} on *:80 is answered by {made.TREE}/{path}, line 1 (not this"
        )
    # A good answer to the health question, and of another server.
    seen = server.salt_call("nginx_uwsgi_django.status")["sites"]["mysite"]
    assert seen["status"] == 200 and not seen["healthy"]
    assert f"answered by {made.TREE}/{path}, line 1" in seen["why"]
    assert server.salt_call("nginx_uwsgi_django.report")["verdict"] == "error"
    server.run(f"rm {made.TREE}/{path} && systemctl reload nginx")
    good(server.apply(pillar=pillar))
    assert server.salt_call("nginx_uwsgi_django.report")["verdict"] != "error"


def test_clean_gives_the_file_back(server: Host) -> None:
    pillar = made.pillar(server_names=[made.NAME, "old.example.org"])
    told = load.under_load(
        server,
        made.asking(),
        lambda: good(server.apply("nginx_uwsgi_django.nginx.clean", pillar=pillar)),
    )
    assert told["lost"] == [] and told["seen"] == ["v1", "v2"]
    assert server.read(made.FILE) == CERTIFIED
    assert server.run("readlink", made.LINK).stdout.strip() == made.FILE
    assert not server.exists(f"{made.FILE}.nginx_uwsgi_django")
    assert by_https(server) == "v1"
