"""
A site that the pillar loses stays and is reported; with `purge` it goes, and its data stays. And
whatever the site's user puts in root's way, root does not follow.
"""

from typing import Any

import pytest

from ..hosts.host import Host
from ..hosts.state_run import StateResult

pytestmark = pytest.mark.long

VENV = "/opt/venv"
HANDLED = "sites: orphans reported or purged"


def site(name: str, **project: Any) -> dict[str, Any]:
    return {
        "server_names": [f"{name}.compute.amazonaws.com"],
        "project": {
            "source": {"salt": "salt://examples/mysite"},
            "wsgi": "mysite.wsgi:application",
            "settings": "mysite.settings",
            "requirements": None,
            "venv": VENV,
            **project,
        },
        "uwsgi": {"processes": 1, "stop_timeout": 10},
    }


STAYS = {"stays": site("stays")}
WAITS = ["python", "-c", "import time; time.sleep(9999)"]
LEAVES = {
    "leaves": {
        **site("leaves", user="leaver", group="leavers"),
        "companions": {"waits": {"command": WAITS, "settle": 1}},
    }
}


def pillar(sites: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {"nginx_uwsgi_django": {"nginx": {"repo": "distro"}, "sites": sites, **top}}


@pytest.fixture(scope="module")
def both(host: Host) -> Host:
    """A host with both sites, and with what looks like one and is somebody else's."""
    host.install("python3-venv")
    host.run("python3", "-m", "venv", VENV)
    packages = ("Django>=5.2,<5.3", "whitenoise>=6.9,<7", "pyuwsgi==2.0.30.post1")
    host.run(f"{VENV}/bin/pip", "-q", "install", *packages, timeout=300)
    run = host.apply(pillar=pillar({**STAYS, **LEAVES}))
    assert run.ok, run
    assert run.by_id[HANDLED].comment == "every site that this formula made is in the pillar"
    host.write("/etc/systemd/system/uwsgi-theirs.service", "[Service]\nExecStart=/bin/true\n")
    host.run("systemctl daemon-reload")
    host.run("mkdir -p /etc/uwsgi/apps-available /etc/uwsgi/theirs")
    host.write("/etc/uwsgi/apps-available/x.ini", "[uwsgi]\n")
    host.write("/etc/nginx/sites-available/theirs.conf", "# mine\n")
    host.run("useradd --system --comment 'nginx_uwsgi_django sites' theirs")
    return host


def serves(host: Host, name: str) -> bool:
    status, _, body = host.get("/", f"{name}.compute.amazonaws.com")
    return status == 200 and b"<html" in body


def units(host: Host, name: str) -> list[str]:
    lines = host.run(f"systemctl list-units --all --plain --no-legend 'uwsgi-{name}*'").stdout
    return [line.split()[0] for line in lines.splitlines()]


def handled(host: Host, sites: dict[str, Any], **given: Any) -> StateResult:
    """Apply all of the formula; nothing but the leftovers may have anything to do."""
    test = given.pop("test", False)
    run = host.apply(pillar=pillar(sites, **given), test=test)
    assert run.ok or test, run
    others = [one for one in run.results if one.result is not True or one.changes]
    assert {one.id for one in others} <= {HANDLED, *NGINX}, others
    return run.by_id[HANDLED]


NGINX = ("nginx: configuration tree", "nginx: reloaded or upgraded if needed")


def test_a_site_that_the_pillar_loses_stays_as_it_is_and_is_reported(both: Host) -> None:
    result = handled(both, STAYS)
    assert (result.result, result.changes) == (True, {})
    assert result.comment.startswith("leaves is on this host and not in the pillar; it stays")
    assert "user leaver" in result.comment and "group leavers" in result.comment
    assert "companion /etc/systemd/system/django-leaves.waits.service" in result.comment
    assert "theirs" not in result.comment and "apps-available" not in result.comment
    assert serves(both, "leaves") and serves(both, "stays")


def test_a_dry_run_with_purge_says_what_would_go(both: Host) -> None:
    result = handled(both, STAYS, purge=True, test=True)
    assert result.result is None
    assert set(result.changes) == {"leaves"}
    assert result.changes["leaves"]["old"]["user"] == ["leaver"]
    assert serves(both, "leaves")


def test_with_purge_it_goes_and_its_data_and_all_that_is_others_stays(both: Host) -> None:
    result = handled(both, STAYS, purge=True)
    assert result.result is True, result
    assert set(result.changes) == {"leaves"}
    assert serves(both, "stays")
    assert units(both, "leaves") == []
    for gone in (
        "/etc/systemd/system/uwsgi-leaves.socket",
        "/etc/systemd/system/uwsgi-leaves.service",
        "/etc/systemd/system/uwsgi-leaves.service.wants",
        "/etc/systemd/system/django-leaves.waits.service",
        "/var/lib/nginx_uwsgi_django/companions/leaves.env",
        "/etc/uwsgi/leaves",
        "/etc/nginx/sites-available/leaves.conf",
        "/etc/nginx/sites-enabled/leaves.conf",
        "/run/uwsgi/leaves.sock",
        "/var/lib/nginx_uwsgi_django/accounts/group-leavers",
    ):
        assert not both.exists(gone), gone
    for account in ("passwd leaver", "group leavers"):
        assert both.run(f"getent {account}", check=False).returncode == 2
    for kept in (
        "/srv/leaves/current",
        "/srv/leaves/shared/data/db.sqlite3",
        "/etc/systemd/system/uwsgi-theirs.service",
        "/etc/uwsgi/theirs",
        "/etc/uwsgi/apps-available/x.ini",
        "/etc/nginx/sites-available/theirs.conf",
    ):
        assert both.run("test", "-e", kept, check=False).returncode == 0, kept
    assert both.run("getent passwd theirs stays", check=False).stdout.count("\n") == 2


def test_purge_again_finds_nothing(both: Host) -> None:
    result = handled(both, STAYS, purge=True)
    assert (result.result, result.changes) == (True, {})


# --- Links -------------------------------------------------------------------------------------

VICTIMS = "find /etc/victim -printf '%p %y %u:%g %m %T@ %C@\\n' -exec cat {} + 2>/dev/null"


@pytest.fixture
def victim(both: Host) -> Host:
    both.run("rm -rf /etc/victim && mkdir -m 0700 /etc/victim && echo root > /etc/victim/file")
    return both


@pytest.mark.parametrize(
    ("kind", "target"),
    [("data", "/etc/victim"), ("static", "/etc/victim/file"), ("media", "/etc/victim/new")],
)
def test_a_link_in_the_place_of_a_sites_directory_is_not_followed(
    victim: Host, kind: str, target: str
) -> None:
    before = victim.run(VICTIMS, check=False).stdout
    place = f"/srv/stays/shared/{kind}"
    as_the_site = ("runuser", "-u", "stays", "--")
    victim.run(*as_the_site, "mv", place, f"{place}.aside")
    victim.run(*as_the_site, "ln", "-s", target, place)
    try:
        with pytest.raises(Exception, match="is to be a directory of the site's, and .* in it is"):
            victim.salt_call("django_release.ensure", "stays", pillar=pillar(STAYS))
    finally:
        victim.run("rm", place)
        victim.run("mv", f"{place}.aside", place)
    assert victim.run(VICTIMS, check=False).stdout == before


def test_removing_data_removes_links_and_not_what_they_lead_to(victim: Host) -> None:
    victim.run("ln -s /etc/victim /srv/leaves/shared/media/out")
    victim.run("ln -s /etc/victim/file /srv/leaves/shared/data/file")
    before = victim.run(VICTIMS, check=False).stdout
    gone = {"leaves": {"absent": True, "project": LEAVES["leaves"]["project"]}}
    run = victim.apply(pillar=pillar({**STAYS, **gone}, clean={"data": True}))
    assert run.ok, run
    assert not victim.exists("/srv/leaves")
    assert victim.run(VICTIMS, check=False).stdout == before
    assert serves(victim, "stays")


def test_releases_are_not_written_below_a_directory_of_somebody_elses(both: Host) -> None:
    """Root would make directories, give them away and write files wherever a link leads."""
    both.run("useradd --create-home mallory && mkdir /etc/prey")
    both.run("runuser", "-u", "mallory", "--", "ln", "-s", "/etc/prey", "/home/mallory/site")
    whole = {**STAYS, "third": site("third", path="/home/mallory/site")}
    (error,) = both.salt_call("site_pillar.check", pillar=pillar(whole))
    assert error["path"] == "nginx_uwsgi_django:sites:third:project:path"
    assert "'/home/mallory'" in error["found"] and "root alone" in error["expected"]
    assert both.run("ls", "-A", "/etc/prey").stdout == ""
