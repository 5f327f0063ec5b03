"""
The whole formula with nginx from nginx.org: other files, another user, no sites-enabled.
"""

from typing import Any

import pytest
import yaml

from ..hosts.nginx_org import NginxOrgHost
from ..hosts.paths import FORMULA
from ..hosts.state_run import StateRun

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pillar(nginx_org_host: NginxOrgHost) -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((FORMULA / "pillar.example").read_text("utf-8"))
    whole["nginx_uwsgi_django"].setdefault("nginx", {})["repo"] = "nginx.org"
    repos = {"nginx.org": nginx_org_host.nginx_org.source()}
    whole["nginx_uwsgi_django"].setdefault("lookup", {})["repos"] = repos
    return whole


@pytest.fixture(scope="module")
def applied(nginx_org_host: NginxOrgHost, pillar: dict[str, Any]) -> StateRun:
    run = nginx_org_host.apply(pillar=pillar, cold=True)
    assert run.ok, str(run)
    return run


def test_the_package_is_nginx_orgs(nginx_org_host: NginxOrgHost, applied: StateRun) -> None:
    version = nginx_org_host.run("dpkg-query", "-W", "-f", "${Version}", "nginx").stdout
    assert version == nginx_org_host.nginx_org.version
    assert not nginx_org_host.exists("/var/lib/dpkg/info/nginx-common.list")


def test_the_site_answers(nginx_org_host: NginxOrgHost, applied: StateRun) -> None:
    status, headers, body = nginx_org_host.get("/", host_header="health.compute.amazonaws.com")
    assert status == 200, body
    assert b"Welcome to nginx" not in body


def test_again_nothing_changes(
    nginx_org_host: NginxOrgHost, pillar: dict[str, Any], applied: StateRun
) -> None:
    run = nginx_org_host.apply(pillar=pillar)
    assert run.ok and run.changed == [], str(run)
