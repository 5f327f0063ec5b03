"""The whole formula where Salt sees Ubuntu: nginx comes from the PPA's signed archive."""

import copy

import pytest
import yaml

from ..hosts.paths import FORMULA
from ..hosts.ubuntu import PPA

EXAMPLE = yaml.safe_load((FORMULA / "pillar.example").read_text())
SOURCE = "/etc/apt/sources.list.d/nginx_uwsgi_django-ppa.sources"
KEYRING = "/etc/apt/keyrings/nginx_uwsgi_django-ppa.gpg"


@pytest.fixture(scope="module")
def pillar(ubuntu_host):
    """The example, with the archive at hand in place of Launchpad's, which no test can reach."""
    pillar = copy.deepcopy(EXAMPLE)
    whole = pillar["nginx_uwsgi_django"]
    whole.setdefault("nginx", {})["ppa"] = PPA
    whole["lookup"] = {"repos": {"ppa": ubuntu_host.ppa.source()}}
    return pillar


def test_another_key_than_the_pinned_one_changes_nothing(ubuntu_host, pillar):
    wrong = copy.deepcopy(pillar)
    wrong["nginx_uwsgi_django"]["lookup"]["repos"]["ppa"]["fingerprints"] = ["A" * 40]
    run = ubuntu_host.apply("nginx_uwsgi_django.package", pillar=wrong)
    failed = run.by_id["nginx: package source"]
    assert failed.result is False
    assert ubuntu_host.ppa.fingerprint in failed.comment.replace(" ", "")
    assert not ubuntu_host.exists(SOURCE)
    assert not ubuntu_host.exists(KEYRING)
    assert not ubuntu_host.exists("/usr/sbin/nginx")


def test_nginx_comes_from_the_ppa_and_the_site_is_served(ubuntu_host, pillar):
    run = ubuntu_host.apply(pillar=pillar)
    assert run.ok, run
    said = yaml.safe_load(ubuntu_host.read(SOURCE))
    assert said["Types"] == "deb"
    assert said["Signed-By"] == KEYRING
    assert (
        ubuntu_host.run("dpkg-query", "-W", "-f", "${Version}", "nginx").stdout
        == ubuntu_host.ppa.version
    )
    assert ubuntu_host.get("/", "a.compute.amazonaws.com")[0] == 200
    # Nothing of the old ways: no key that apt trusts for every source, no helper packages.
    assert ubuntu_host.run("find /etc/apt/trusted.gpg* -newer /etc/hostname -type f").stdout == ""
    helper = ubuntu_host.run(
        "dpkg-query", "-W", "-f", "${Status}", "software-properties-common", check=False
    )
    assert "installed" not in helper.stdout.replace("not-installed", "")


def test_a_second_run_changes_nothing(ubuntu_host, pillar):
    run = ubuntu_host.apply(pillar=pillar)
    assert run.ok, run
    assert run.changed == []


def test_clean_takes_the_source_away(ubuntu_host, pillar):
    run = ubuntu_host.apply("nginx_uwsgi_django.clean", pillar=pillar)
    assert run.ok, run
    assert not ubuntu_host.exists(SOURCE)
    assert not ubuntu_host.exists(KEYRING)
