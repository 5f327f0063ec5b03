"""The whole formula on a bare host with a certificate by ACME: one run, and one more with nothing to do."""

import copy

import pytest
import yaml

from test.hosts import pebble
from test.hosts.paths import FORMULA

pytestmark = pytest.mark.long

NAME = "www.example.org"
PILLAR = yaml.safe_load((FORMULA / "pillar.example").read_text())


def test_one_run_from_bare_to_https(host):
    pillar = copy.deepcopy(PILLAR)
    pillar["nginx_uwsgi_django"]["acme"] = pebble.start(host, NAME)
    pillar["nginx_uwsgi_django"]["sites"]["mysite"].update(server_names=[NAME], tls={"acme": True})
    dry = host.apply(pillar=pillar, cold=True, test=True)
    assert dry.ok, dry.failed
    run = host.apply(pillar=pillar)
    assert run.ok, run.failed
    # pebble's root is made anew at each start, and handed out by itself.
    host.run(
        "curl -s --cacert /opt/pebble/ca.pem https://localhost:15000/roots/0 > /opt/pebble/root.pem"
    )
    page = host.run("curl", "-s", "--cacert", "/opt/pebble/root.pem", f"https://{NAME}/").stdout
    assert "<html" in page
    answer = host.run("curl", "-s", "-D", "-", f"http://{NAME}/").stdout
    assert f"Location: https://{NAME}/" in answer
    again = host.apply(pillar=pillar)
    assert again.ok and again.changed == [], again.changed
    clean = host.apply("nginx_uwsgi_django.clean", pillar=pillar)
    assert clean.ok, clean.failed
    assert host.exists("/etc/letsencrypt/live/nginx_uwsgi_django-mysite/fullchain.pem")
    assert not host.exists("/etc/nginx/sites-available/mysite.pem")
    # Back, and the authority is not asked again.
    orders = host.run("journalctl -u pebble | grep -c 'Issued certificate'").stdout
    back = host.apply(pillar=pillar)
    assert back.ok, back.failed
    assert host.run("journalctl -u pebble | grep -c 'Issued certificate'").stdout == orders
    page = host.run("curl", "-s", "--cacert", "/opt/pebble/root.pem", f"https://{NAME}/").stdout
    assert "<html" in page
