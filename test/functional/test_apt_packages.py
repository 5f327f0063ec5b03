"""
Packages on hosts as users have them: empty lists of apt, old lists, an archive that does not answer.
"""

import json
import subprocess
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from ..hosts import outer
from ..hosts.host import Host
from ..hosts.state_run import StateRun
from ..hosts.ubuntu import Archive
from .nginx_host import pillar

NGINX = "nginx: package"
PILLAR = pillar(nginx={"repo": "distro"})
THEIRS = "/etc/apt/sources.list.d/theirs.sources"
RECORD = "/var/lib/nginx_uwsgi_django/packages.json"
MIRRORS = sorted({str(urllib.parse.urlsplit(mirror).hostname) for mirror in outer.mirrors()})


@pytest.fixture(scope="module")
def theirs(host: Host) -> Iterator[Archive]:
    """An archive of the operator's own with a newer nginx; the host does not know it yet."""
    archive = Archive(host.folder / "theirs", "debian", "bookworm", "main", "theirs")
    archive.add_nginx(host.image, "1.90-1")
    host.write("/etc/apt/keyrings/theirs.asc", archive.key.armored)
    yield archive
    archive.close()


@pytest.fixture
def fresh(host: Host) -> Iterator[Host]:
    """The host without lists and without what the formula installs."""
    host.run(
        "apt-get -q -y autoremove --purge $(dpkg-query -W -f '${Package} ' nginx nginx-common"
        " python3-venv 2> /dev/null); apt-get clean;"
        " rm -rf /var/lib/apt/lists/* /var/lib/nginx_uwsgi_django"
    )
    assert "nginx" not in installed(host)
    yield host
    host.run(f"rm -f {THEIRS}; sed -i '/127.0.0.9/d' /etc/hosts")


def installed(host: Host) -> dict[str, str]:
    rows = host.run("dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n'").stdout
    return {row.split()[1]: row.split()[2] for row in rows.splitlines() if row.startswith("ii")}


def apply(host: Host, salt: str = "3008", test: bool = False) -> StateRun:
    return host.apply("nginx_uwsgi_django.package", pillar=PILLAR, salt=salt, test=test)


def refreshes(host: Host) -> int:
    """How often apt-get was told to refresh the lists."""
    return int(host.run("grep -c update /var/log/apt/calls", check=False).stdout or 0)


def know(host: Host, archive: Archive) -> None:
    host.write(
        THEIRS,
        f"Types: deb\nURIs: {archive.uri}\nSuites: {archive.suite}\nComponents: main\n"
        "Signed-By: /etc/apt/keyrings/theirs.asc\n",
    )


def publish(archive: Archive, image: Any, version: str) -> None:
    """Replace the version in the archive by another one."""
    for deb in archive.repository.folder.rglob("*.deb"):
        deb.unlink()
    archive.add_nginx(image, version)


@pytest.fixture(scope="module", autouse=True)
def _counted(host: Host) -> None:
    """Every call of apt-get is logged."""
    host.run(
        "dpkg-divert --quiet --local --rename --divert /usr/bin/apt-get.real --add /usr/bin/apt-get"
        ' && printf \'#!/bin/sh\\necho "$*" >> /var/log/apt/calls\\n'
        'exec /usr/bin/apt-get.real "$@"\\n\' > /usr/bin/apt-get && chmod 755 /usr/bin/apt-get'
    )


@pytest.mark.few(1)
@pytest.mark.parametrize("salt", ["3006", "3007", "3008"])
def test_empty_lists_are_refreshed_once(fresh: Host, salt: str) -> None:
    before = refreshes(fresh)
    dry = apply(fresh, salt, test=True)
    assert dry.by_id[NGINX].result is None and refreshes(fresh) == before
    run = apply(fresh, salt)
    assert run.ok, run
    assert {"nginx", "python3-venv"} <= set(installed(fresh))
    assert refreshes(fresh) == before + 1
    # Nothing to install: apt is not asked, lists or none.
    fresh.run("rm -rf /var/lib/apt/lists/*; : > /var/log/apt/calls")
    again = apply(fresh, salt)
    assert again.ok and again.changed == []
    assert fresh.read("/var/log/apt/calls") == ""


@pytest.mark.few(1)
@pytest.mark.parametrize("salt", ["3006", "3007", "3008"])
def test_an_archive_that_does_not_answer(fresh: Host, salt: str) -> None:
    before = installed(fresh)
    fresh.run(f"echo 127.0.0.9 {' '.join(MIRRORS)} >> /etc/hosts")
    run = apply(fresh, salt)
    assert run.by_id[NGINX].result is False and run.by_id[NGINX].changes == {}
    assert "Unable to locate package nginx" in run.by_id[NGINX].comment
    assert "127.0.0.9" in run.by_id[NGINX].comment
    assert installed(fresh) == before and not fresh.exists(RECORD)
    fresh.run("sed -i '/127.0.0.9/d' /etc/hosts")
    run = apply(fresh, salt)
    assert run.ok, run


@pytest.mark.few(1)
@pytest.mark.parametrize("salt", ["3006", "3007", "3008"])
def test_lists_that_name_a_version_which_is_gone(fresh: Host, theirs: Archive, salt: str) -> None:
    publish(theirs, fresh.image, "1.90-1")
    know(fresh, theirs)
    fresh.run("apt-get -q update")
    publish(theirs, fresh.image, "1.90-2")
    before = refreshes(fresh)
    run = apply(fresh, salt)
    assert run.ok, run
    assert installed(fresh)["nginx"] == "1.90-2"
    assert refreshes(fresh) == before + 1


def test_good_lists_are_not_refreshed(fresh: Host) -> None:
    fresh.run("apt-get -q update")
    before = refreshes(fresh)
    assert apply(fresh).ok
    assert refreshes(fresh) == before


@pytest.mark.long
def test_a_version_that_is_gone_and_an_archive_that_is_down(fresh: Host, theirs: Archive) -> None:
    know(fresh, theirs)
    fresh.run("apt-get -q update")
    folder = theirs.repository.folder
    away = folder.with_name("away")
    folder.rename(away)
    try:
        run = apply(fresh)
        assert run.by_id[NGINX].result is False
        assert "404" in run.by_id[NGINX].comment
        # The packages of the sites are the distribution's, and came.
        assert not {"nginx", "nginx-common"} & {*installed(fresh), *json.loads(fresh.read(RECORD))}
    finally:
        away.rename(folder)
    assert apply(fresh).ok


@pytest.mark.long
def test_a_source_that_fails_and_is_not_needed(fresh: Host, theirs: Archive) -> None:
    know(fresh, theirs)
    fresh.run(f"sed -i s/bookworm/warty/ {THEIRS}")
    run = apply(fresh)
    assert run.ok, run
    assert "warty Release" in run.by_id[NGINX].comment


def test_another_program_has_the_lock(fresh: Host) -> None:
    holder = (
        "import fcntl, time; files = [open(path, 'w') for path in ('/var/lib/apt/lists/lock',"
        " '/var/lib/dpkg/lock-frontend')]; [fcntl.lockf(file, fcntl.LOCK_EX) for file in files];"
        " open('/run/held', 'w'); time.sleep(8)"
    )
    fresh.run(f'rm -f /run/held; systemd-run --quiet python3 -c "{holder}"')
    fresh.run("until test -e /run/held; do sleep 0.1; done")
    run = apply(fresh)
    assert run.ok, run


@pytest.mark.few(1)
@pytest.mark.parametrize("moment", ["half-installed nginx-common", "half-configured nginx-common"])
def test_an_installation_that_was_killed(fresh: Host, moment: str) -> None:
    script = f"""
until test -e /var/log/dpkg.log; do sleep 0.05; done
grep -m 1 'status {moment}' < <(exec tail --pid=$$ -n 0 -F /var/log/dpkg.log)
pkill -KILL -x apt-get.real; pkill -KILL -x dpkg
"""
    killer = subprocess.Popen([*fresh.enter(), "bash", "-c", script])
    run = apply(fresh)
    killer.wait(60)
    assert run.by_id[NGINX].result is False, run
    assert {"nginx", "nginx-common"} <= set(json.loads(fresh.read(RECORD)))
    run = apply(fresh)
    assert run.ok, run
    assert fresh.run("dpkg", "--audit").stdout == ""


def test_clean_removes_what_came_along_and_nothing_else(fresh: Host) -> None:
    fresh.run("apt-get -q update && apt-get -q -y install tree libjs-jquery")
    fresh.run("apt-mark auto libjs-jquery")
    before = installed(fresh)
    run = apply(fresh)
    assert run.ok, run
    assert "nginx-common" in installed(fresh)
    # The operator has come to need one of them.
    fresh.run("apt-mark manual python3-distutils")
    dry = fresh.apply("nginx_uwsgi_django.package.clean", pillar=PILLAR, test=True)
    name = "packages: removed"
    run = fresh.apply("nginx_uwsgi_django.package.clean", pillar=PILLAR)
    assert run.ok, run
    assert set(dry.by_id[name].changes) == set(run.by_id[name].changes)
    assert installed(fresh) == before | {
        key: value for key, value in installed(fresh).items() if "python3-" in key
    }
    assert "python3-distutils" in installed(fresh) and "python3-venv" not in installed(fresh)
    # No unit is left that the next boot would try.
    fresh.reboot()
    failed = fresh.run("systemctl --failed --plain --no-legend").stdout
    assert failed == ""
    assert apply(fresh).ok
