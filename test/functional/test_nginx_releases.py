"""
The same on Debian 13, with each Salt that the formula supports.
"""

from typing import Any

import pytest

from ..hosts.host import Host
from .nginx_host import a_site, leftovers, pillar, prepare, processes, rows

pytestmark = pytest.mark.long

SALTS = ("3006", "3007", "3008")


@pytest.fixture(scope="module")
def prepared(trixie_host: Host) -> Host:
    prepare(trixie_host)
    return trixie_host


def state(host: Host, salt: str, function: str, test: bool = False) -> dict[str, Any]:
    (result,) = host.salt_call(
        "state.single", function, name="nginx", salt=salt, test=test
    ).values()
    return dict(result)


@pytest.mark.parametrize("salt", SALTS)
def test_applied_current_and_removed(prepared: Host, salt: str) -> None:
    host = prepared
    host.set_pillar(pillar({"mysite": a_site(charset=f"x-{salt}")}))
    host.salt_call("saltutil.sync_all", salt=salt)
    for function in ("nginx_tree.applied", "nginx_process.current"):
        dry = state(host, salt, function, test=True)
        assert dry["result"] is None, dry["comment"]
        done = state(host, salt, function)
        assert done["result"] is True, done["comment"]
        assert done["changes"]
    assert host.get("/", host_header="x.compute.amazonaws.com")[0] == 502
    assert f"charset x-{salt};" in host.run("nginx", "-T").stdout
    serving, tree = processes(host), rows(host)
    for function in ("nginx_tree.applied", "nginx_process.current"):
        again = state(host, salt, function)
        assert (again["result"], again["changes"]) == (True, {})
    assert processes(host) == serving
    assert rows(host) == tree
    assert not leftovers(host)
    for function in ("nginx_tree.removed", "nginx_process.current"):
        done = state(host, salt, function)
        assert done["result"] is True, done["comment"]
        assert done["changes"]
    assert host.run("ls", "/etc/nginx/sites-enabled").stdout.split() == ["default"]


def test_a_replaced_binary_takes_over(prepared: Host) -> None:
    host = prepared
    host.run("cp -p /usr/sbin/nginx /usr/sbin/nginx.new && mv /usr/sbin/nginx.new /usr/sbin/nginx")
    done = state(host, "3008", "nginx_process.current")
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {"binary"}
    assert host.run("systemctl is-active nginx").stdout.strip() == "active"
    assert sum("master process" in title for title in processes(host).values()) == 1
    assert state(host, "3008", "nginx_process.current")["changes"] == {}
