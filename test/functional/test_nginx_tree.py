"""
nginx's tree on a real host: judged before, put in place as a whole, left alone otherwise.
"""

import json
import re
from collections.abc import Iterator

import pytest

from ..hosts.host import Host
from .nginx_host import (
    Salt,
    a_site,
    leftovers,
    pillar,
    prepare,
    processes,
    rows,
    salt_words,
    without_times,
)

TREE = "/etc/nginx"
# What `nginx -t` of a new configuration would create or give to another user.
TOUCHED = ("/etc/nginx", "/var/lib/nginx", "/var/log/nginx")


@pytest.fixture(scope="module")
def salt(host: Host) -> Iterator[Salt]:
    prepare(host)
    made = Salt(host)
    yield made
    made.close()


@pytest.fixture
def applied(host: Host, salt: Salt) -> dict[str, list]:
    """The tutorial's site is in place, and no other; the rows of the tree."""
    salt.pillar = pillar({"mysite": a_site(), "other": {"absent": True}})
    done = salt.state("nginx_tree.applied")
    assert done["result"] is True, done["comment"]
    return rows(host)


def test_a_dry_run_shows_all_and_touches_nothing(host: Host, salt: Salt) -> None:
    before, serving = rows(host, *TOUCHED), processes(host)
    beside = host.run("ls -a /etc /run").stdout
    dry = salt.state("nginx_tree.applied", test=True)
    assert dry["result"] is None, dry["comment"]
    assert set(dry["changes"]) == {
        f"{TREE}/nginx.conf",
        f"{TREE}/conf.d/nginx_uwsgi_django.conf",
        f"{TREE}/sites-available/mysite.conf",
        f"{TREE}/sites-enabled/mysite.conf",
        f"{TREE}/sites-enabled/default",
    }
    assert "-user www-data;\n+user deploy;\n" in dry["changes"][f"{TREE}/nginx.conf"]
    assert rows(host, *TOUCHED) == before
    assert processes(host) == serving
    assert host.run("ls -a /etc /run").stdout == beside


def test_a_dry_run_with_nginx_stopped_leaves_no_pid_file(host: Host, salt: Salt) -> None:
    host.run("systemctl", "stop", "nginx")
    assert not host.exists("/run/nginx.pid")
    dry = salt.state("nginx_tree.applied", test=True)
    assert dry["result"] is None, dry["comment"]
    assert not host.exists("/run/nginx.pid")
    host.run("systemctl", "start", "nginx")


def test_the_tutorials_steps(host: Host, salt: Salt) -> None:
    untouched, serving = rows(host), processes(host)
    conf = host.read(f"{TREE}/nginx.conf")
    dry = salt.state("nginx_tree.applied", test=True)
    done = salt.state("nginx_tree.applied")
    assert done["result"] is True, done["comment"]
    assert done["changes"] == dry["changes"]
    # One directive, and every other byte the distribution's.
    assert host.read(f"{TREE}/nginx.conf") == conf.replace("user www-data;", "user deploy;")
    assert host.run("readlink", f"{TREE}/sites-enabled/mysite.conf").stdout.strip() == (
        f"{TREE}/sites-available/mysite.conf"
    )
    assert host.run("ls", f"{TREE}/sites-enabled").stdout.split() == ["mysite.conf"]
    assert host.exists(f"{TREE}/sites-available/default")
    host.run("nginx", "-t")
    assert "server_name *.compute.amazonaws.com;" in host.run("nginx", "-T").stdout
    # Nobody was signalled: that is another state's work.
    assert processes(host) == serving
    # Files that were not due keep their inode and their time.
    after = rows(host)
    kept = [path for path in untouched if path in after and f"{path}" not in dry["changes"]]
    assert len(kept) > 10
    for path in kept:
        if untouched[path][7] is not None:
            assert after[path][:6] == untouched[path][:6], path
    assert not leftovers(host)


def test_a_second_run_starts_no_process_and_touches_no_file(
    host: Host, salt: Salt, applied: dict[str, list]
) -> None:
    host.set_pillar(salt.pillar)
    words = salt_words(host, "state.single", fun="nginx_tree.applied", name="nginx", unproven=True)
    trace = ["strace", "-f", "-e", "trace=execve,%file", "-o", "/root/trace"]
    ran = host.run(*trace, *words, timeout=240)
    (result,) = json.loads(ran.stdout)["local"].values()
    assert (result["result"], result["changes"]) == (True, {})
    assert rows(host) == applied
    lines = host.read("/root/trace").splitlines()
    assert len(lines) > 1000
    assert not [line for line in lines if "execve" in line and re.search("unshare|/nginx", line)]
    wrote = r"O_WRONLY|O_RDWR|O_CREAT|\b(rename|unlink|link|symlink|mkdir|rmdir|chmod|chown)\w*\("
    looked = [line for line in lines if '"/etc/nginx' in line]
    assert looked
    assert not [line for line in looked if re.search(wrote, line)]


def test_a_changed_value_is_one_rename(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    salt.pillar = pillar({"mysite": a_site(client_max_body_size="64m")})
    done = salt.state("nginx_tree.applied")
    assert done["result"] is True, done["comment"]
    assert list(done["changes"]) == [f"{TREE}/sites-available/mysite.conf"]
    diff = done["changes"][f"{TREE}/sites-available/mysite.conf"]
    assert "-    client_max_body_size 128M;\n+    client_max_body_size 64m;\n" in diff
    after = rows(host)
    changed = {path for path in after if after[path][:6] != applied[path][:6]}
    assert changed == {f"{TREE}/sites-available/mysite.conf", f"{TREE}/sites-available", TREE}


def _refused(host: Host, salt: Salt, before: dict[str, list], *words: str) -> None:
    """Red, twice, with these words; nothing live has changed and nobody was signalled."""
    serving, beside = processes(host), host.run("ls -a /etc /run").stdout
    temporary = rows(host, "/var/lib/nginx", "/var/log/nginx")
    for test in (False, False, True):
        done = salt.state("nginx_tree.applied", test=test)
        assert done["result"] is False
        for word in words:
            assert word in done["comment"]
        assert rows(host) == before
        assert processes(host) == serving
        assert rows(host, "/var/lib/nginx", "/var/log/nginx") == temporary
    assert host.run("ls -a /etc /run").stdout == beside
    assert not leftovers(host)


def test_a_broken_template_is_refused(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    # The fileserver's own override: by minion id.
    path = f"/srv/salt/nginx_uwsgi_django/files/{host.name}/site.conf.jinja"
    host.write(path, "server {\n    listen 80;\n    no_such_directive yes;\n}\n")
    try:
        _refused(
            host,
            salt,
            applied,
            'unknown directive "no_such_directive"',
            "sites:mysite, line 5: no_such_directive yes;",
        )
        host.write(path, "server {\n    listen 80;\n")
        _refused(host, salt, applied, "sites:mysite", "unexpected end of file")
    finally:
        host.run("rm", "-r", "/srv/salt/nginx_uwsgi_django")
    assert salt.state("nginx_tree.applied")["changes"] == {}


def test_a_user_that_does_not_exist(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    salt.pillar = pillar(nginx={"user": "nosuchuser"})
    for _ in range(2):
        done = salt.state("nginx_tree.applied")
        assert done["result"] is False
        assert "nosuchuser" in done["comment"] and "nginx:user" in done["comment"]
        assert rows(host) == applied
    # The whole formula makes it before: a dry run on a host without it is not a failure.
    dry = salt.state("nginx_tree.applied", test=True)
    assert dry["result"] is None
    assert "nosuchuser does not exist yet" in dry["comment"]
    assert f"{TREE}/nginx.conf" in dry["changes"]
    assert rows(host) == applied


def test_a_strangers_broken_file_is_refused_and_told(
    host: Host, salt: Salt, applied: dict[str, list]
) -> None:
    host.write(f"{TREE}/conf.d/theirs.conf", "their_mistake;\n")
    before = rows(host)
    try:
        # Nothing is due: this state does not ask nginx.  The one of the process does.
        assert salt.state("nginx_tree.applied")["changes"] == {}
        salt.pillar = pillar({"mysite": a_site(charset="koi8-r")})
        _refused(host, salt, before, 'unknown directive "their_mistake"', "not the formula's")
    finally:
        host.run("rm", f"{TREE}/conf.d/theirs.conf")


def test_logs_in_the_tree_and_in_directories_of_their_own(
    host: Host, salt: Salt, applied: dict[str, list]
) -> None:
    host.run("install -d -o www-data -g adm -m 0750 /srv/logs; mkdir -p '/srv/logs/a b/c'")
    logs = [f"{TREE}/theirs.log", "/srv/logs/theirs.log", "'/srv/logs/a b/c/theirs.log'"]
    host.write(f"{TREE}/conf.d/theirs.conf", "".join(f"access_log {log};\n" for log in logs))
    before = rows(host, TREE, "/srv/logs")
    try:
        verdict = salt.call("nginx_tree.check")
        assert (verdict["ok"], verdict["tested"]) == (True, True), verdict
        assert rows(host, TREE, "/srv/logs") == before, "nginx makes its logs elsewhere"
    finally:
        host.run(f"rm -r {TREE}/conf.d/theirs.conf /srv/logs")


def test_a_limit_of_open_files_is_foreseen(
    host: Host, salt: Salt, applied: dict[str, list]
) -> None:
    """`nginx -t` in root's shell passes here, and a reload would be dropped without a word."""
    master = host.run("cat", "/run/nginx.pid").stdout.strip()
    logs = "".join(f"access_log /var/log/nginx/many{n}.log;\n" for n in range(60))
    host.run("prlimit", f"--pid={master}", "--nofile=60:4096")
    host.write(f"{TREE}/conf.d/theirs.conf", logs)
    before = rows(host)
    try:
        salt.pillar = pillar({"mysite": a_site(charset="koi8-r")})
        _refused(host, salt, before, "Too many open files")
    finally:
        host.run(f"rm {TREE}/conf.d/theirs.conf")
        host.run("systemctl", "restart", "nginx")


def test_a_name_as_long_as_ec2_gives(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    names = ["ec2-203-0-113-250.ap-northeast-1.compute.amazonaws.com", "a" * 63, "b.example.org"]
    longest = "c" * 63 + "." + "d" * 63 + "." + "e" * 63 + ".example.org"
    # A name alone needs no table of names.
    sites = {"mysite": a_site(*names, longest), "other": a_site("other.example.org")}
    salt.pillar = pillar(sites)
    done = salt.state("nginx_tree.applied")
    assert done["result"] is True, done["comment"]
    # It is our directive that does it.
    host.run(f"sed -i 's/^server_names_hash/#&/' {TREE}/conf.d/nginx_uwsgi_django.conf")
    failed = host.run("nginx", "-t", check=False)
    assert failed.returncode != 0 and "server_names_hash" in failed.stderr
    assert salt.state("nginx_tree.applied")["result"] is True
    host.run("nginx", "-t")
    salt.pillar = pillar({**sites, "other": {"absent": True}})
    assert salt.state("nginx_tree.applied")["result"] is True


def test_a_port_that_somebody_else_holds_is_foreseen(
    host: Host, salt: Salt, applied: dict[str, list]
) -> None:
    """`nginx -t` passes, and the next reload or restart would not."""
    host.run("systemd-run --unit=squatter python3 -m http.server 8081 && sleep 1")
    squatter = host.run("systemctl show --value -p MainPID squatter").stdout.strip()
    try:
        salt.pillar = pillar({"mysite": a_site(listen=[80, 8081])})
        words = f"listen 8081: process {squatter} (python3) holds that port", "sites:mysite"
        _refused(host, salt, applied, *words)
    finally:
        host.run("systemctl stop squatter")
    done = salt.state("nginx_tree.applied")
    assert done["result"] is True, done["comment"]
    host.run("systemctl reload nginx && sleep 0.5")
    # nginx's own, now.
    salt.pillar = pillar({"mysite": a_site(listen=[80, 8081], charset="koi8-r")})
    assert salt.state("nginx_tree.applied")["result"] is True


def test_what_nginx_itself_is_in_the_way_of_is_foreseen(
    host: Host, salt: Salt, applied: dict[str, list]
) -> None:
    """It passes `nginx -t`; a reload cannot bind one address while all of them are open."""
    salt.pillar = pillar({"mysite": a_site(listen=["127.0.0.1:80"])})
    done = salt.state("nginx_tree.applied")
    assert done["result"] is False and "sites:mysite" in done["comment"]
    assert "listen 127.0.0.1:80: nginx has port 80 open on all addresses" in done["comment"]
    assert "systemctl stop nginx.service" in done["comment"]
    assert rows(host) == applied


def test_two_sites_and_one_that_goes(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    both = {"mysite": a_site(), "other": a_site("other.example.org")}
    salt.pillar = pillar(both)
    assert salt.state("nginx_tree.applied")["result"] is True
    assert host.run("ls", f"{TREE}/sites-enabled").stdout.split() == ["mysite.conf", "other.conf"]
    salt.pillar = pillar({**both, "other": {"absent": True}})
    done = salt.state("nginx_tree.applied")
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {
        # One site alone answers under any name (nginx:catch_all).
        f"{TREE}/conf.d/nginx_uwsgi_django.conf",
        f"{TREE}/sites-available/other.conf",
        f"{TREE}/sites-enabled/other.conf",
    }
    assert host.run("ls", f"{TREE}/sites-enabled").stdout.split() == ["mysite.conf"]


def test_static_files_and_nothing_else(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    static = salt.call("django_release.directories", name="mysite")["static"]
    host.run(f"mkdir -p {static}/css && cd {static} && echo body > css/a.css && useradd planter")
    host.run(f"echo SECRET > {static}/../secret && echo SECRET > {static}-secret")
    host.run(f"ln -s /etc/passwd {static}/passwd && ln -s css/a.css {static}/own")
    host.run(f"chown -hR planter {static}")
    try:
        for function in ("nginx_tree.applied", "nginx_process.current"):
            done = salt.state(function)
            assert done["result"] is True and done["changes"], done["comment"]

        def get(path: str) -> tuple[int, bytes]:
            status, _, body = host.get(path, host_header="x.compute.amazonaws.com")
            return status, body

        assert get("/static/css/a.css") == (200, b"body\n")
        assert get("/static/own") == (200, b"body\n")
        assert get("/static/passwd")[0] == 403
        for path in (
            "/static../secret",
            "/static/../secret",
            "/static/%2e%2e/secret",
            "/static-secret",
        ):
            status, body = get(path)
            assert status != 200 and b"SECRET" not in body, path
        assert get("/static/")[0] == 403
    finally:
        host.run(f"rm -r {static}/../secret {static}-secret {static}; userdel planter", check=False)
    done = salt.state("nginx_tree.applied")
    assert done["result"] is True and "-    location ^~ /static/ {" in str(done["changes"])


def test_a_warning_of_nginx_is_told(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    host.write(
        f"{TREE}/conf.d/theirs.conf", "server { listen 80; server_name twice.example.org; }\n"
    )
    salt.pillar = pillar({"mysite": a_site("twice.example.org")})
    done = salt.state("nginx_tree.applied")
    host.run("rm", f"{TREE}/conf.d/theirs.conf")
    assert done["result"] is True
    assert 'conflicting server name "twice.example.org"' in done["comment"]


def test_a_tree_on_a_mount_of_its_own(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    """A mount point does not change places: file by file then."""
    host.run(f"cp -a {TREE} /root/tree && mount -t tmpfs tree {TREE} && cp -a /root/tree/. {TREE}")
    try:
        salt.pillar = pillar({"mysite": a_site(), "other": a_site("other.example.org")})
        done = salt.state("nginx_tree.applied")
        assert done["result"] is True, done["comment"]
        assert set(done["changes"]) == {
            f"{TREE}/conf.d/nginx_uwsgi_django.conf",
            f"{TREE}/sites-available/other.conf",
            f"{TREE}/sites-enabled/other.conf",
        }
        assert host.run("ls", f"{TREE}/sites-enabled").stdout.split() == [
            "mysite.conf",
            "other.conf",
        ]
        assert not leftovers(host)
        report = salt.call("nginx_tree.ensure", unproven=True)
        assert report["changes"] == {}
    finally:
        host.run(f"umount {TREE} && rm -r /root/tree")


def test_where_no_mount_namespace_may_be_made(
    host: Host, salt: Salt, applied: dict[str, list]
) -> None:
    """Put in, tested, and taken out again."""
    shadow = "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n"
    host.write("/usr/local/sbin/unshare", shadow, mode=0o755)
    path = f"/srv/salt/nginx_uwsgi_django/files/{host.name}/site.conf.jinja"
    host.write(path, "server {\n    no_such_directive yes;\n}\n")
    try:
        failed = salt.state("nginx_tree.applied")
        assert failed["result"] is False
        assert "no_such_directive" in failed["comment"] and "sites:mysite" in failed["comment"]
        after = rows(host)
        assert {path: [*row[:6], row[7]] for path, row in after.items() if row[7]} == {
            path: [*row[:6], row[7]] for path, row in applied.items() if row[7]
        }
        dry = salt.state("nginx_tree.applied", test=True)
        assert dry["result"] is None
        assert "Operation not permitted" in dry["comment"]
        host.run("rm", "-r", "/srv/salt/nginx_uwsgi_django")
        salt.pillar = pillar({"mysite": a_site(), "other": a_site("other.example.org")})
        done = salt.state("nginx_tree.applied")
        assert done["result"] is True, done["comment"]
        assert host.run("ls", f"{TREE}/sites-enabled").stdout.split() == [
            "mysite.conf",
            "other.conf",
        ]
    finally:
        host.run("rm -rf /usr/local/sbin/unshare /srv/salt/nginx_uwsgi_django")
    assert not leftovers(host)


def test_a_read_only_etc(host: Host, salt: Salt, applied: dict[str, list]) -> None:
    salt.pillar = pillar({"mysite": a_site(), "other": a_site("other.example.org")})
    host.run("mount --bind /etc /etc && mount -o remount,ro,bind /etc")
    try:
        done = salt.state("nginx_tree.applied")
        assert done["result"] is False
        assert "Read-only file system" in done["comment"]
    finally:
        host.run("umount /etc")
    assert rows(host) == applied


def test_removed_gives_everything_back(host: Host, salt: Salt) -> None:
    salt.pillar = pillar()
    assert salt.state("nginx_tree.applied")["result"] is True
    dry = salt.state("nginx_tree.removed", test=True)
    assert dry["result"] is None
    done = salt.state("nginx_tree.removed")
    assert done["result"] is True, done["comment"]
    assert done["changes"] == dry["changes"]
    assert "user www-data;" in host.read(f"{TREE}/nginx.conf")
    assert host.run("ls", f"{TREE}/sites-enabled").stdout.split() == ["default"]
    assert host.run("ls", f"{TREE}/conf.d").stdout.split() == []
    # dpkg is the judge of its own files.
    verified = host.run("dpkg", "--verify", "nginx", "nginx-common", check=False).stdout
    assert "/etc/nginx" not in verified
    again = salt.state("nginx_tree.removed")
    assert (again["result"], again["changes"]) == (True, {})
    before = without_times(rows(host))
    assert salt.state("nginx_tree.applied")["result"] is True
    assert salt.state("nginx_tree.removed")["result"] is True
    assert without_times(rows(host)) == before


def test_without_nginx(host: Host, salt: Salt) -> None:
    host.run("apt-get -q -y purge 'nginx*' && rm -rf /etc/nginx", timeout=300)
    dry = salt.state("nginx_tree.applied", test=True)
    assert dry["result"] is None and dry["changes"]
    done = salt.state("nginx_tree.applied")
    assert done["result"] is False and "not installed" in done["comment"]
    assert salt.state("nginx_tree.removed")["result"] is True
    assert not host.exists("/etc/nginx")
