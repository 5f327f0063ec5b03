"""The whole formula, masterless, on a bare host: every step of the job, again, after a reboot, and back."""

import json

import pytest
import yaml

from test.hosts.paths import FORMULA

PILLAR = yaml.safe_load((FORMULA / "pillar.example").read_text())


def snapshot(host) -> set[str]:
    """What a run that has nothing to do must not touch: processes, and files by inode and times."""
    files = host.run(
        "find /etc /srv /var/lib/nginx_uwsgi_django /run/uwsgi -xdev "
        # The checkout: other tests run in it at the same time.
        "-path /srv/pillar -prune -o -path /srv/formula -prune -o "
        "-printf '%p %i %T@ %C@ %u:%g %m\\n'"
    ).stdout
    processes = host.run("ps -eo pid,lstart,args --no-headers").stdout
    return {
        *files.splitlines(),
        *(line for line in processes.splitlines() if "uwsgi" in line or "nginx:" in line),
    }


@pytest.fixture(scope="module")
def applied(host):
    """A bare host to which the example was applied once, with nothing of ours in Salt's cache."""
    run = host.apply(pillar=PILLAR, cold=True)
    assert run.ok, run.failed
    return host, run


def test_the_first_run_says_what_it_changed(applied):
    _, run = applied
    changed = {result.id for result in run.changed}
    assert "nginx: package" in changed
    assert "mysite: uWSGI generation" in changed
    assert "nginx: configuration tree" in changed


def test_a_second_run_changes_and_touches_nothing(applied):
    host, _ = applied
    before = snapshot(host)
    run = host.apply(pillar=PILLAR)
    assert run.ok, run.failed
    assert run.changed == []
    assert snapshot(host) ^ before == set()
    dry = host.apply(pillar=PILLAR, test=True)
    assert [result.id for result in dry.results if result.result is not True] == []


def test_nginx_is_installed_and_runs_as_the_user_of_the_pillar(applied):
    host, _ = applied
    assert host.salt_call("nginx_uwsgi_django.version", pillar=PILLAR)["nginx"]
    packaged = host.run(
        "sh -c 'cd /tmp && apt-get -q download nginx-common && dpkg-deb --fsys-tarfile nginx-common_*.deb"
        " | tar -xO ./etc/nginx/nginx.conf'"
    ).stdout
    packaged = packaged[packaged.index("user www-data;") :]
    assert host.read("/etc/nginx/nginx.conf") == packaged.replace(
        "user www-data;", "user deploy;", 1
    )
    assert host.run("stat", "-c", "%U", "/proc/" + worker(host)).stdout.strip() == "deploy"


def worker(host) -> str:
    return host.run("pgrep", "-f", "nginx: worker process").stdout.split()[0]


def test_the_site_is_linked_and_the_packaged_default_is_not(applied):
    host, _ = applied
    links = host.run("find /etc/nginx/sites-enabled -mindepth 1 -printf '%f %l\\n'").stdout
    assert links.split() == ["mysite.conf", "/etc/nginx/sites-available/mysite.conf"]
    site = host.read("/etc/nginx/sites-available/mysite.conf")
    for directive in (
        "listen 80;",
        "server_name *.compute.amazonaws.com localhost;",
        "charset utf-8;",
        "client_max_body_size 128M;",
        "include uwsgi_params;",
        "uwsgi_pass unix:/run/uwsgi/mysite.sock;",
    ):
        assert directive in " ".join(site.split()), directive


def test_the_socket_is_nginx_s_and_nobody_else_s(applied):
    host, _ = applied
    assert (
        host.run("stat", "-c", "%U:%G %a", "/run/uwsgi/mysite.sock").stdout.strip()
        == "root:deploy 660"
    )


def test_the_page_and_its_static_files_come_through_nginx(applied):
    host, _ = applied
    status, _, body = host.get("/", "ec2-13-124-186-240.ap-northeast-2.compute.amazonaws.com")
    assert status == 200, body
    assert b"<html" in body


def test_a_link_that_the_site_plants_leads_nowhere(applied):
    host, _ = applied
    host.run(
        "echo hello > /srv/mysite/shared/static/own.txt; chown mysite: /srv/mysite/shared/static/own.txt"
    )
    assert host.get("/static/own.txt")[0] == 200
    host.run(
        "runuser",
        "-u",
        "mysite",
        "--",
        "ln",
        "-s",
        "/etc/passwd",
        "/srv/mysite/shared/static/users.txt",
    )
    assert host.get("/static/users.txt")[0] == 403
    host.run(
        "runuser -u mysite -- sh -c 'cd /srv/mysite/shared && mv static kept && ln -s /etc static'"
    )
    assert host.get("/static/passwd")[0] == 403
    host.run(
        "cd /srv/mysite/shared && rm static && mv kept static && rm static/users.txt static/own.txt"
    )


def test_status_answers_what_an_operator_asks(applied):
    host, _ = applied
    status = host.salt_call("nginx_uwsgi_django.status", pillar=PILLAR)
    nginx, site = status["nginx"], status["sites"]["mysite"]
    assert (nginx["loaded"], nginx["active"], nginx["running"]) == (True, True, True)
    assert site["service"] == "loaded active running"
    assert site["socket"].startswith("loaded active")
    assert site["enabled"] is True
    assert site["healthy"] is True
    assert site["status"] == 200
    logs = host.salt_call("nginx_uwsgi_django.logs", pillar=PILLAR)
    assert logs["nginx"]["where"] == "/var/log/nginx/error.log"
    assert any("uWSGI" in line for line in logs["mysite"]["lines"])


# With nginx stopped a question waits at the socket that systemd holds, for as long as it may take.
@pytest.mark.long
def test_status_tells_when_a_site_is_down(applied):
    host, _ = applied
    digest = host.salt_call("nginx_uwsgi_django.status", pillar=PILLAR)["sites"]["mysite"][
        "generation"
    ]
    host.run("systemctl", "stop", "nginx")
    site = host.salt_call("nginx_uwsgi_django.status", pillar=PILLAR)["sites"]["mysite"]
    assert site["healthy"] is False
    assert site["generation"] == digest
    run = host.apply(pillar=PILLAR)
    assert [result.id for result in run.changed] == ["nginx: reloaded or upgraded if needed"]
    assert host.salt_call("nginx_uwsgi_django.status", pillar=PILLAR)["sites"]["mysite"]["healthy"]


def test_report_has_the_host_in_short_with_what_a_run_would_change_and_no_secret(applied):
    host, _ = applied
    other = json.loads(json.dumps(PILLAR))
    other["nginx_uwsgi_django"]["sites"]["mysite"]["project"]["env"] = {"TOKEN": "hush-hush"}
    report = host.salt_call("nginx_uwsgi_django.report", pillar=other, dry_run=True)
    assert "hush" not in json.dumps(report)
    assert (report["errors"], report["warnings"], report["drift"]) == ([], [], {})
    assert report["verdict"] == "pending"
    assert "mysite: uWSGI generation" in report["pending"]["changes"]
    assert report["pending"]["failed"] == []
    site = report["sites"]["mysite"]
    assert host.exists(f"/etc/uwsgi/mysite/{site['generation']}.ini")
    assert host.exists(f"/srv/mysite/releases/{site['release']}")
    assert site["health"] == {"nginx": 200, "socket": 200} and site["healthy"] is True
    assert (report["os"], report["uwsgi"], site["socket"]) == ("Debian 12", ["2.0.30"], "active")
    assert report["nginx"]["running"] is True and report["nginx"]["current"] is True


def test_report_tells_what_somebody_else_changed_until_it_is_put_right(applied):
    host, _ = applied
    ini = host.run("ls -t /etc/uwsgi/mysite/*.ini | head -n 1").stdout.strip()
    drop_in = "/etc/systemd/system/uwsgi-mysite.socket.d/own.conf"
    host.run("sh", "-c", f"echo '# own' | tee -a /etc/nginx/sites-available/mysite.conf {ini}")
    host.run("rm", "/etc/nginx/sites-enabled/mysite.conf")
    host.run("ln", "-sfn", "releases/other", "/srv/mysite/current")
    host.run("mkdir", "-p", drop_in.rpartition("/")[0])
    host.write(drop_in, "[Socket]\nMark=1\n")
    host.run("systemctl", "daemon-reload")
    report = host.salt_call("nginx_uwsgi_django.report", pillar=PILLAR)
    assert report["drift"] == {
        "/etc/nginx/sites-available/mysite.conf": "was edited",
        "/etc/nginx/sites-enabled/mysite.conf": "is gone",
        ini: "was edited",
        "/srv/mysite/current": "leads to other",
        drop_in: "changes a unit",
    }
    assert report["verdict"] == "warning"
    assert report["nginx"]["current"] is False
    host.run("rm", "-r", drop_in.rpartition("/")[0])
    run = host.apply(pillar=PILLAR)
    assert run.ok, run.failed
    report = host.salt_call("nginx_uwsgi_django.report")
    assert (report["verdict"], report["drift"]) == ("well", {})


def test_a_reboot_brings_the_site_back_without_salt(applied):
    host, _ = applied
    host.reboot()
    host.run(
        "sh -c 'for i in $(seq 60); do systemctl -q is-active nginx && "
        'systemctl -q is-active "uwsgi-mysite@*" && exit 0; sleep 0.5; done; exit 1\''
    )
    status, _, _ = host.get("/", "a.compute.amazonaws.com")
    assert status == 200
    run = host.apply(pillar=PILLAR)
    assert run.ok, run.failed
    assert run.changed == []


def test_a_pillar_with_errors_changes_nothing(applied):
    host, _ = applied
    broken = json.loads(json.dumps(PILLAR))
    broken["nginx_uwsgi_django"]["sites"]["mysite"]["lissten"] = [81]
    before = snapshot(host)
    run = host.apply(pillar=broken)
    assert not run.ok
    assert [result.id for result in run.failed] == ["nginx_uwsgi_django: pillar validated"]
    assert "nginx_uwsgi_django:sites:mysite:lissten" in run.failed[0].comment
    assert "listen" in run.failed[0].comment
    report = host.salt_call("nginx_uwsgi_django.report")
    assert report["verdict"] == "error" and "mysite:lissten" in report["errors"][0]
    # What runs is told nevertheless.
    assert f"uwsgi-mysite@{report['sites']['mysite']['generation']}" in " ".join(before)
    assert snapshot(host) ^ before == set()


@pytest.mark.parametrize("salt", ["3006", "3007"])
def test_the_older_salts_find_nothing_to_do_either(applied, salt):
    host, _ = applied
    run = host.apply(pillar=PILLAR, salt=salt, cold=True)
    assert run.ok, run.failed
    # That the modules arrived in the empty cache is the one thing that is new to this Salt.
    assert [result.id for result in run.changed] == []


def test_clean_takes_everything_back_and_applying_again_works(applied):
    host, _ = applied
    dry = host.apply("nginx_uwsgi_django.clean", pillar=PILLAR, test=True)
    assert dry.ok, dry.failed
    run = host.apply("nginx_uwsgi_django.clean", pillar=PILLAR)
    assert run.ok, run.failed
    for gone in (
        "/etc/systemd/system/uwsgi-mysite.socket",
        "/etc/uwsgi/mysite",
        "/etc/nginx/sites-available/mysite.conf",
        "/etc/nginx/sites-enabled/mysite.conf",
        "/var/lib/nginx_uwsgi_django/venvs/mysite",
    ):
        assert not host.exists(gone), gone
    assert host.exists("/srv/mysite/releases")
    assert host.run("getent", "passwd", "deploy", check=False).returncode == 2
    assert host.run("systemctl", "list-units", "--all", "uwsgi-*", "--no-legend").stdout == ""
    again = host.apply("nginx_uwsgi_django.clean", pillar=PILLAR)
    assert again.ok, again.failed
    assert again.changed == []
    report = host.salt_call("nginx_uwsgi_django.report")
    assert report["errors"] == [
        "nginx is not installed",
        "mysite: the formula has not made it here yet",
    ]
    assert report["drift"] == {}
    back = host.apply(pillar=PILLAR)
    assert back.ok, back.failed
    assert host.get("/", "a.compute.amazonaws.com")[0] == 200
