"""
Accounts on a real host: made, left alone, and only what is ours removed.
"""

import pytest

STATE_DIR = "/var/lib/nginx_uwsgi_django"


def pillar(nginx_user="deploy", **project):
    site = {
        "server_names": ["mysite.example"],
        "project": {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings", **project},
    }
    return {"nginx_uwsgi_django": {"nginx": {"user": nginx_user}, "sites": {"mysite": site}}}


@pytest.fixture(scope="module", autouse=True)
def _modules(host):
    host.salt_call("saltutil.sync_all", pillar=pillar())


def state(host, function, name="mysite", test=False, wanted=None):
    if wanted is not None:
        host.set_pillar(wanted)
    ran = host.salt_call("state.single", f"system_account.{function}", name=name, test=test)
    (result,) = ran.values()
    return result


def account(host, name):
    line = host.run("getent", "passwd", name, check=False).stdout.strip()
    return line.split(":") if line else None


def test_a_dry_run_makes_no_account_and_a_run_makes_it_once(host):
    before = host.run("sha256sum /etc/passwd /etc/group /etc/shadow").stdout
    dry = state(host, "present", test=True, wanted=pillar())
    assert dry["result"] is None
    assert set(dry["changes"]) == {"user", "group", "home"}
    assert host.run("sha256sum /etc/passwd /etc/group /etc/shadow").stdout == before
    assert not host.exists(STATE_DIR)

    made = state(host, "present")
    assert made["result"] is True, made["comment"]
    assert made["changes"] == dry["changes"]
    _, _, uid, _, _, home, shell = account(host, "mysite")
    assert int(uid) < 1000
    assert shell == "/usr/sbin/nologin"
    assert home == f"{STATE_DIR}/sites/mysite"
    assert host.run("stat", "-c", "%U:%G %a", home).stdout.strip() == "mysite:mysite 751"
    assert host.run("passwd", "--status", "mysite").stdout.split()[1] == "L"

    again = state(host, "present")
    assert (again["result"], again["changes"]) == (True, {})


def test_the_user_of_nginx_has_no_home(host):
    made = state(host, "present", name="nginx", wanted=pillar())
    assert made["result"] is True, made["comment"]
    assert account(host, "deploy")[5:] == ["/nonexistent", "/usr/sbin/nologin"]
    assert state(host, "present", name="nginx")["changes"] == {}


def test_an_account_that_somebody_made_is_left_as_it_is_and_never_removed(host):
    host.run("useradd --create-home --shell /bin/bash --comment 'Ann, of the team' ann")
    line = account(host, "ann")
    for name, wanted in (("nginx", pillar(nginx_user="ann")), ("mysite", pillar(user="ann"))):
        assert state(host, "present", name=name, wanted=wanted)["result"] is True
        assert account(host, "ann") == line
        gone = state(host, "absent", name=name)
        assert (gone["result"], gone["changes"]) == (True, {})
        assert account(host, "ann") == line


def test_root_is_refused_by_whatever_name(host):
    host.run("useradd --non-unique --uid 0 --gid 0 --no-create-home toor")
    refused = state(host, "present", wanted=pillar(user="toor"))
    assert refused["result"] is False
    assert "nginx_uwsgi_django:sites:mysite:project:user" in refused["comment"]


def test_a_group_of_another_name_comes_and_goes_with_the_site(host):
    wanted = pillar(user="web-a", group="web-all")
    made = state(host, "present", wanted=wanted)
    assert made["result"] is True, made["comment"]
    assert host.run("id -gn web-a").stdout.strip() == "web-all"
    gone = state(host, "absent")
    assert gone["changes"] == {
        "user": {"old": "web-a", "new": None},
        "group": {"old": "web-all", "new": None},
    }
    assert host.run("getent group web-all", check=False).returncode
    # The same name, made by somebody else this time.
    host.run("groupadd web-all")
    state(host, "present")
    assert set(state(host, "absent")["changes"]) == {"user"}
    assert host.run("getent group web-all").stdout


def test_what_a_process_still_runs_as_is_not_removed_and_the_state_says_so(host):
    state(host, "present", wanted=pillar())
    host.run("systemd-run --unit=busy --uid=mysite sleep 300")
    stays = state(host, "absent")
    assert stays["result"] is False
    assert "userdel" in stays["comment"] and "used by process" in stays["comment"]
    assert account(host, "mysite")
    host.run("systemctl stop busy")
    assert state(host, "absent", test=True)["result"] is None
    assert account(host, "mysite")
    assert state(host, "absent")["changes"] == {"user": {"old": "mysite", "new": None}}
    assert account(host, "mysite") is None
    assert state(host, "absent")["changes"] == {}


def test_data_that_outlived_its_account_belongs_to_the_next_one(host):
    state(host, "present", wanted=pillar())
    old = account(host, "mysite")[2]
    home = f"{STATE_DIR}/sites/mysite"
    host.run(
        f"su -s /bin/sh mysite -c 'mkdir {home}/data; echo x > {home}/data/db; ln -s /etc/shadow "
        f"{home}/data/link'; echo root > {home}/data/of-root"
    )
    assert state(host, "absent")["result"] is True
    assert host.exists(f"{home}/data/db")
    # Somebody else has the number by now.
    host.run(f"useradd --uid {old} --no-create-home other")
    assert state(host, "present")["result"] is True
    assert account(host, "mysite")[2] != old
    assert host.run(f"find {home} -user other").stdout == ""
    assert host.run("stat", "-c", "%U", f"{home}/data/db").stdout.strip() == "mysite"
    assert host.run("stat", "-c", "%U", f"{home}/data/of-root").stdout.strip() == "root"
    assert host.run("stat", "-c", "%U:%a", "/etc/shadow").stdout.strip() == "root:640"


def test_the_numbers_of_an_account_that_left_data_behind_are_given_to_no_other_site(host):
    def numbers(name):
        return [int(word) for word in account(host, name)[2:4]]

    assert state(host, "present", wanted=pillar())["result"] is True
    left = numbers("mysite")
    # A project that was copied to the host, in which the site wrote.
    host.run("install -d -o mysite -g mysite /srv/mysite")
    assert state(host, "absent")["result"] is True
    host.run(f"rm -r {STATE_DIR}/sites/mysite")
    others = {"nginx_uwsgi_django": {"sites": {}}}
    for name in ("another", "athird"):
        others["nginx_uwsgi_django"]["sites"][name] = {
            **pillar(group=f"{name}-all")["nginx_uwsgi_django"]["sites"]["mysite"],
            "server_names": [f"{name}.example"],
        }
    host.set_pillar(others)
    for name in ("another", "athird"):
        made = state(host, "present", name=name)
        assert made["result"] is True, made["comment"]
        assert not {*numbers(name)} & {*left}
        assert numbers(name)[0] < 1000
    # Back, it has its own again, and with them its files.
    assert state(host, "present", wanted=pillar())["result"] is True
    assert numbers("mysite") == left
    # So it is with a site that the pillar has lost, and of which all is purged but its data.
    keeper = {
        "server_names": ["keeper.example"],
        "project": {"wsgi": "a.wsgi:application", "settings": "a.settings"},
    }
    host.set_pillar({"nginx_uwsgi_django": {"sites": {"keeper": keeper}, "purge": True}})
    for name in ("another", "athird", "mysite"):
        host.salt_call("site_leftovers.remove_accounts", name)
    host.run(f"rm -r {STATE_DIR}/sites/another")
    assert state(host, "present", wanted=pillar(user="newcomer"))["result"] is True
    assert numbers("newcomer") == left
    others["nginx_uwsgi_django"]["sites"] = {
        "fourth": {
            **others["nginx_uwsgi_django"]["sites"]["another"],
            "project": {"wsgi": "a.wsgi:application", "settings": "a.settings"},
        }
    }
    host.set_pillar(others)
    assert state(host, "present", name="fourth")["result"] is True
    assert not {*numbers("fourth")} & {*left}
    for name, wanted in (("fourth", others), ("mysite", pillar(user="newcomer"))):
        host.set_pillar(wanted)
        assert state(host, "absent", name=name)["result"] is True
    host.run(f"rm -r /srv/mysite {STATE_DIR}/sites")


def test_more_sites_than_there_are_numbers_for_accounts_of_the_system(host):
    limits = "".join(f"SYS_{kind}_{end} 998\n" for kind in ("UID", "GID") for end in ("MIN", "MAX"))
    host.run("cp /etc/login.defs /root/; cat >>/etc/login.defs", input=limits)
    # The numbers that the site had before would be its own again.
    host.run(f"rm -rf /srv/mysite {STATE_DIR}/accounts/numbers-mysite")
    host.run("getent passwd 998 >/dev/null || useradd --system --user-group filler")
    assert host.run("useradd --system one-more", check=False).returncode
    try:
        made = state(host, "present", wanted=pillar(user="late", group="late-all"))
        assert made["result"] is True, made["comment"]
        assert 1000 < int(account(host, "late")[2]) < 60000
        assert host.run("passwd", "--status", "late").stdout.split()[1] == "L"
        assert 1000 < int(host.run("getent group late-all").stdout.split(":")[2]) < 60000
        assert set(state(host, "absent")["changes"]) == {"user", "group"}
    finally:
        host.run("mv /root/login.defs /etc/login.defs")
