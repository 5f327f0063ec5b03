"""bin/apply as a newcomer runs it: on a machine that is not fit, without systemd, and again."""

import os
import re
import subprocess
import urllib.request

import pytest

from ..hosts.host import Host
from ..hosts.paths import FORMULA

APPLY = "/srv/formula/bin/apply"


def output(outcome) -> str:
    return outcome.stdout + outcome.stderr


@pytest.fixture(scope="module")
def applied():
    """
    A bare host to which bin/apply was applied. Where systemd does not run, as on a machine that
    builds, that is the throwaway host of bin/apply itself; else one is made for it.
    """
    name = f"apply-{Host.tag()}"
    try:
        if os.path.isdir("/run/systemd/system"):
            outcome = Host.create(name, keep=True, salt=False).run(APPLY, timeout=900, check=False)
        else:
            outcome = subprocess.run(
                [FORMULA / "bin/apply", "--host", name],
                text=True,
                capture_output=True,
                timeout=900,
                check=False,
            )
            assert "not systemd" in outcome.stdout, output(outcome)
            assert f"test.hosts down {name}" in outcome.stdout
        assert outcome.returncode == 0, output(outcome)
        yield Host.find(name), outcome
    finally:
        subprocess.run(
            ["python3", "-m", "test.hosts", "down", name], cwd=FORMULA, check=True, timeout=60
        )


def test_refusals_are_one_sentence_and_change_nothing(host):
    before = host.run("find / -xdev -newer /etc/hostname -type f -path '/var/lib/nginx*'").stdout

    missing = host.run(APPLY, "/nowhere.sls", check=False)
    assert missing.returncode == 1
    assert "/nowhere.sls" in missing.stderr
    assert "Traceback" not in output(missing)

    host.run("useradd", "--create-home", "visitor")
    plain = host.run(
        "setpriv", "--reuid=visitor", "--regid=visitor", "--clear-groups", APPLY, check=False
    )
    assert plain.returncode == 1
    assert "Root is needed" in plain.stderr

    release = host.read("/etc/os-release")
    host.write("/usr/lib/os-release", 'ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n')
    other = host.run(APPLY, check=False)
    assert other.returncode == 1
    assert "Fedora Linux 43" in other.stderr
    host.write("/usr/lib/os-release", release)

    route = host.run("ip route show default").stdout.strip()
    host.run("ip", "link", "set", "host0", "down")
    offline = host.run(APPLY, check=False, timeout=300)
    host.run("ip", "link", "set", "host0", "up")
    host.run(f"ip route replace {route}")
    assert offline.returncode == 1
    assert len(offline.stderr.strip().splitlines()) == 1, offline.stderr
    assert (
        host.run("find / -xdev -newer /etc/hostname -type f -path '/var/lib/nginx*'").stdout
        == before
    )
    assert not host.exists("/etc/nginx")


@pytest.mark.long
def test_an_older_salt_stands_in_where_the_index_lacks_what_the_newest_needs(host):
    """As on a mirror that is behind: the certificates of the newest two Salts are not there."""
    host.write("/root/constraints", "certifi<2026.10.19\n")
    pip = host.read("/etc/pip.conf")
    host.write("/etc/pip.conf", f"{pip}constraint = /root/constraints\n")
    host.write("/root/bad.sls", "nginx_uwsgi_django: {sites: {}}\n")
    first = host.run(APPLY, "/root/bad.sls", check=False, timeout=900)
    host.write("/etc/pip.conf", pip)
    for version in ("3008.5", "3008.4"):
        assert f"Salt {version} cannot be installed from this package index: " in first.stdout
    assert "certifi" in first.stdout
    assert "Salt 3008.3 is installed." in first.stdout
    assert "nginx_uwsgi_django:sites" in first.stderr
    # The next run asks no index.
    again = host.run(APPLY, "/root/bad.sls", check=False)
    assert "nstall" not in output(again)


def test_a_bare_host_ends_with_an_address_that_answers(applied):
    host, outcome = applied
    print(outcome.stdout)
    assert re.search(r"^Salt 3008\.\d is installed\.$", outcome.stdout, re.MULTILINE)
    assert re.search(r"\[ ?\d+/\d+\] mysite: uWSGI generation", outcome.stdout)
    url = re.search(r"mysite: (http://\S+) answers \(200 ", outcome.stdout)[1]
    with urllib.request.urlopen(url, timeout=10) as page:
        assert page.status == 200


def test_a_second_run_changes_nothing_and_says_so(applied):
    host, _ = applied
    outcome = host.run(APPLY, timeout=120)
    assert "nothing to change" in outcome.stdout
    assert " answers (200 " in outcome.stdout


def test_a_dry_run_is_a_plan_with_diffs_by_site_and_a_count(applied):
    host, _ = applied
    text = (FORMULA / "pillar.example").read_text()
    host.write("/root/other.sls", text.replace("body_size: 128M", "body_size: 7M"))
    before = host.read("/etc/nginx/sites-available/mysite.conf")
    plan = host.run(APPLY, "--test", "/root/other.sls", timeout=120).stdout
    head, _, plan = plan.partition("\n\nnginx\n")
    assert plan.startswith("  ~ configuration tree\n")
    assert "-    client_max_body_size 128M;" in plan and "+    client_max_body_size 7M;" in plan
    assert "\n  ~ reloaded or upgraded if needed\n" in plan
    assert re.search(r"^Nothing was changed. Of \d+ states 2 would act: 2 change\.$", plan, re.M)
    assert host.read("/etc/nginx/sites-available/mysite.conf") == before
    assert "nothing to change" in host.run(APPLY, "--test", timeout=120).stdout
    # One fault, and not a line for each state that it keeps from running.
    host.write("/etc/nginx/conf.d/broken.conf", "no_such_directive on;\n")
    refused = host.run(APPLY, "--test", "/root/other.sls", check=False, timeout=120)
    host.run("rm", "/etc/nginx/conf.d/broken.conf")
    assert refused.returncode == 1
    assert refused.stdout.count("FAILED") == 1 and "no_such_directive" in refused.stdout


def test_a_function_is_called_with_the_pillar(applied):
    host, _ = applied
    called = host.run(APPLY, "--call", "site_rollback.releases", "mysite", timeout=120)
    assert re.search(r"^ +release:\n +[0-9a-f]{12}$", called.stdout, re.M), called.stdout
    refused = host.run(APPLY, "--call", "takeover.revert", "mysite", check=False, timeout=120)
    assert refused.returncode != 0 and "mysite" in output(refused)
    assert host.get("/", "a.compute.amazonaws.com")[0] == 200


def test_a_pillar_with_errors_is_told_by_its_path(applied):
    host, _ = applied
    host.write(
        "/root/bad.sls", "nginx_uwsgi_django:\n  sites:\n    mysite:\n      listen: eighty\n"
    )
    outcome = host.run(APPLY, "/root/bad.sls", check=False)
    assert outcome.returncode == 1
    assert "nginx_uwsgi_django:sites:mysite:listen" in outcome.stderr
    assert "Traceback" not in output(outcome)
    host.write("/root/worse.sls", "nginx_uwsgi_django:\n  sites: [\n")
    outcome = host.run(APPLY, "/root/worse.sls", check=False)
    assert outcome.returncode == 1
    assert "Traceback" not in output(outcome)
    assert host.get("/", "a.compute.amazonaws.com")[0] == 200
