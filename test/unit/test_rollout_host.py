"""What a host puts back after a rollout, and what it leaves as it is."""

import copy
from typing import Any

import pytest

from ..modules import Modules
from .test_nginx_tree import a_site

OLD, NEW = "a" * 12, "b" * 12


def serves(m: Modules, release: str) -> None:
    m.salt["uwsgi_generation.serving"] = m.uwsgi_generation.serving = lambda name: release


@pytest.fixture
def m(monkeypatch: pytest.MonkeyPatch) -> Modules:
    """The release NEW serves, where OLD did before the rollout."""
    made = Modules(pillar={"nginx_uwsgi_django": {"sites": {"mysite": copy.deepcopy(a_site())}}})
    link = ["/srv/mysite/current", f"/srv/mysite/releases/{OLD}"]
    kept = {
        "nginx": False,
        "sites": {"mysite": {"generation": "1" * 12, "current": link, "socket": {}}},
    }
    monkeypatch.setattr(made.rollout_host, "_kept", lambda rollout: kept)
    monkeypatch.setattr(made.rollout_host, "_socket_units", lambda name: {})
    serves(made, NEW)
    monkeypatch.setattr(made.rollout_host.durable_file, "link", lambda path, target: True)
    made.switched = []

    def switch(name: str, digest: str) -> dict[str, Any]:
        made.switched.append(digest)
        return {"digest": digest, "changes": {"generation": digest}}

    made.salt["uwsgi_generation.switch"] = switch
    return made


def known(m: Modules, **migrations: list[str]) -> None:
    """Migrations of the release that serves, each with what Django cannot undo of it."""
    of = {
        NEW: {name: {"replaces": [], "for_good": for_good} for name, for_good in migrations.items()}
    }
    m.salt["release_record.of_release"] = lambda name, release: {"migrations": of.get(release, {})}
    m.salt["release_record.held"] = lambda name: None


def test_a_release_is_put_back(m: Modules) -> None:
    known(m, shop_0002=[])
    done = m.rollout_host.revert("20261125-103000-4f2a")
    assert m.switched == ["1" * 12]
    assert f"mysite: current is {OLD} again" in done["done"]


def test_what_django_cannot_undo_is_not_gone_back_from(m: Modules) -> None:
    known(m, shop_0002=["RunPython"])
    done = m.rollout_host.revert("20261125-103000-4f2a")
    assert m.switched == [] and done["done"] == []
    assert "shop_0002 (RunPython)" in done["errors"][0]
    # Another host has come back to it already, or never left it.
    serves(m, OLD)
    assert m.rollout_host.revert("20261125-103000-4f2a")["done"] != []


def test_the_503_of_maintenance_is_not_an_error_of_the_server(m: Modules, tmp_path) -> None:
    log = tmp_path / "access.log"
    lines = [f'1.2.3.4 - - [x] "GET / HTTP/1.1" {one} 5 "-" "-"\n' for one in (200, 503, 502)]
    log.write_text("".join(lines))
    assert m.rollout_host._answers({f"{log}": 0}) == (3, 2)
    assert m.rollout_host._answers({f"{log}": 0}, closed=True) == (3, 1)


@pytest.mark.parametrize(
    ("listen", "address", "url"),
    [
        ("80 default_server", "10.0.0.5", "http://10.0.0.5/"),
        ("8080", "10.0.0.5", "http://10.0.0.5:8080/"),
        ("*:80", "10.0.0.5", "http://10.0.0.5/"),
        ("10.0.0.9:80", "10.0.0.5", "http://10.0.0.9/"),
        ("[::]:80", "fd00::5", "http://[fd00::5]/"),
        ("[fd00::9]:80", "fd00::5", "http://[fd00::9]/"),
        # The master may have no way there.
        ("[::]:80", "10.0.0.5", None),
        ("80", "fd00::5", None),
        ("127.0.0.1:80", "10.0.0.5", None),
        ("[::1]:80", "fd00::5", None),
        ("80", None, None),
    ],
)
def test_the_master_asks_where_it_can_reach_the_host(
    listen: str, address: str | None, url: str | None
) -> None:
    pillar = {"nginx_uwsgi_django": {"sites": {"mysite": {**a_site(), "listen": [listen]}}}}
    made = Modules(pillar=pillar)
    (visit,) = made.site_health.visits("mysite")
    outside = made.rollout_host._from_outside(visit, address)
    assert (outside and outside["url"]) == url
