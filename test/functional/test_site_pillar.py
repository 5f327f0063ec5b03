"""The pillar's contract on a host: in Salt's own Python, on an empty module cache, before any change."""

import pytest

from ..hosts.host import Host
from ..hosts.salts import VERSIONS
from ..hosts.state_run import StateResult

SECRET = "hunter2-correct-horse"
FORMULA = "nginx_uwsgi_django"
CHECK = "nginx_uwsgi_django: pillar validated"

GOOD = """
nginx_uwsgi_django:
  sites:
    mysite:
      server_names: ['*.compute.amazonaws.com']
      project:
        wsgi: mysite.wsgi:application
        settings: mysite.settings
        env: {SECRET_KEY: hunter2-correct-horse}
    old:
      absent: true
"""

# What a person may well write, and what an attacker may.
WRONG = """
nginx_uwsgi_django:
  nginx: {repo: ppa}
  sites:
    mysite:
      server_names: [www.example.org]
      listen: [on]
      charset: 3.10
      projet: {env: {KEY: hunter2-correct-horse}}
      project:
        wsgi: mysite.wsgi
        env: {SECRET_KEY: "hunter2-correct-horse\\n"}
      socket: {mode: 0640}
    "evil\\n  - cmd.run: touch /root/pwned": {absent: true}
    "../../etc/cron.d/evil": {absent: true}
"""
PATHS = [
    "nginx:repo",
    "sites:mysite:listen:0",
    "sites:mysite:charset",
    "sites:mysite:projet",
    "sites:mysite:project:wsgi",
    "sites:mysite:project:settings",
    "sites:mysite:project:env:SECRET_KEY",
    "sites:mysite:socket:mode",
    # What stands behind a colon may be a value, and a secret.
    r"sites:evil\n  - cmd.run...",
    "sites:../../etc/cron.d/evil",
]


def use(host: Host, text: str) -> None:
    """The pillar as a person writes it, to be read by Salt's own YAML reader."""
    host.write("/srv/pillar/top.sls", '{"base": {"*": ["whole"]}}\n')
    host.write("/srv/pillar/whole.sls", text, mode=0o600)


def snapshot(host: Host) -> str:
    """Every file outside Salt's own caches, with its times."""
    return host.run(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /dev"
        " -o -path '/var/lib/salt*' -o -path '/var/cache/salt*' -o -path '/var/log'"
        " -o -path /srv/pillar -o -path '/var/lib/systemd' \\) -prune"
        " -o -type f -printf '%p %T@ %C@\\n' | sort"
    ).stdout


VERSION = pytest.mark.parametrize("salt", sorted(VERSIONS))


def wrong(host: Host, salt: str, test: bool) -> list[StateResult]:
    """Apply the whole formula with a wrong pillar; return the other states of the run."""
    use(host, WRONG)
    host.salt_config(salt)
    before = snapshot(host)
    run = host.apply(FORMULA, salt=salt, test=test, cold=True)
    assert not run.errors, run.errors
    result = run.by_id[CHECK]
    assert result.result is False
    lines = result.comment.splitlines()
    assert lines[0] == f"{len(PATHS)} errors in the pillar:"
    for path in PATHS:
        assert sum(line.startswith(f"- {FORMULA}:{path}: found ") for line in lines) == 1, path
    assert len(lines) == len(PATHS) + 1
    assert snapshot(host) == before
    assert not host.exists("/root/pwned")
    assert not host.exists("/etc/cron.d/evil.conf")
    assert SECRET not in result.comment + run.stderr
    assert "Traceback" not in result.comment + run.stderr
    return [one for one in run.results if one.id != CHECK and one.function != "test.nop"]


@VERSION
def test_a_wrong_pillar_stops_the_whole_formula_before_any_change(host: Host, salt: str) -> None:
    assert [str(one) for one in wrong(host, salt, test=False)] == []


@VERSION
def test_the_pillar_put_right_is_one_green_state(host: Host, salt: str) -> None:
    use(host, GOOD)
    run = host.apply(f"{FORMULA}.pillar", salt=salt)
    assert run.ok, run
    result = run.by_id[CHECK]
    assert (result.result, result.changes, result.comment) == (True, {}, "1 site, 1 absent")
    assert "Traceback" not in run.stderr


def test_a_dry_run_says_that_a_wrong_pillar_fails(host: Host) -> None:
    """Salt goes on after a failhard in a dry run: then every other state fails for want of it."""
    others = wrong(host, "3008", test=True)
    assert [str(one) for one in others if one.result is not False] == []
    assert [str(one) for one in others if "requisite" not in one.comment] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("other: {}\n", "no such key in the pillar"),
        (f"{FORMULA}: {{sites: {{}}}}\n", "at least one"),
    ],
)
def test_an_empty_or_missing_pillar_is_a_sentence(host: Host, text: str, words: str) -> None:
    use(host, text)
    run = host.apply(FORMULA)
    assert [one.id for one in run.failed] == [CHECK], run
    assert len(run.by_id[CHECK].comment.splitlines()) == 2
    assert words in run.by_id[CHECK].comment
    assert "Traceback" not in run.stderr


def test_a_key_written_twice_is_refused_by_salt_itself(host: Host) -> None:
    use(host, GOOD.replace("old:", "mysite:"))
    run = host.apply(FORMULA)
    assert not run.ok
    assert not run.results
    assert "failed to render" in " ".join(run.errors)
    assert "onflicting ID 'mysite'" in run.stderr


@VERSION
def test_secrets_arrive_whole_and_are_shown_masked(host: Host, salt: str) -> None:
    """``pillar.get`` hands out asterisks on 3008; the modules must not get those."""
    use(host, GOOD)
    site = host.salt_call("site_pillar.site", "mysite", salt=salt)
    assert site["project"]["env"] == {"SECRET_KEY": SECRET}
    shown = host.salt_call("site_pillar.show", salt=salt)
    assert SECRET not in repr(shown)
    assert shown["sites:mysite:project:env:SECRET_KEY"]["value"] == "*" * 10
    assert shown["sites:mysite:project:path"] == {"value": "/srv/mysite", "origin": "derived"}
    assert shown["nginx:repo"] == {"value": "distro", "origin": "platform"}


def test_the_socket_gets_the_group_that_nginxs_user_has_on_this_host(host: Host) -> None:
    use(host, GOOD)
    assert host.salt_call("site_pillar.site", "mysite")["socket"]["group"] == "deploy"
    host.run("groupadd", "web")
    host.run("useradd", "--system", "--gid", "web", "deploy")
    assert host.salt_call("site_pillar.site", "mysite")["socket"]["group"] == "web"


# Two files, as an operator splits them: what all hosts share, and this host's own. Both are
# templates, and lists and mappings are in both.
COMMON = """
{%- set package = {'Debian-12': 'nginx-full', 'Debian-13': 'nginx-light'} %}
nginx_uwsgi_django:
  lookup:
    nginx_package: {{ package[grains.osfinger] }}
  site_defaults:
    server_names: [all.example.org]
    project: {settings: shop.settings, env: {SHARED: hunter2-correct-horse}}
    uwsgi: {processes: 4, options: {harakiri: 30, static-index: [a, b]}}
    health: {status: [200]}
  sites:
    shop:
      project: {wsgi: shop.wsgi:application, env: {KEY: one}}
      uwsgi: {options: {harakiri: 60}}
"""
OWN = """
nginx_uwsgi_django:
  sites:
    shop:
      server_names:
        - {{ grains.get('meta-data', {}).get('public-hostname') or grains.id ~ '.example.org' }}
      project: {env: {KEY: two, MORE: hunter2-correct-horse}}
      health: {status: [404]}
    blog:
      listen: [81]
      project: {wsgi: blog.wsgi:application}
"""


@pytest.fixture(scope="module")
def synced(host: Host) -> Host:
    host.salt_call("saltutil.sync_all")
    return host


def test_pillar_files_merge_as_salts_do_and_show_tells_where_each_value_is_from(
    synced: Host,
) -> None:
    host = synced
    host.write("/srv/pillar/top.sls", '{"base": {"*": ["common", "own"]}}\n')
    host.write("/srv/pillar/common.sls", COMMON)
    host.write("/srv/pillar/own.sls", OWN)
    settings = host.salt_call("site_pillar.settings")
    assert settings["lookup"]["nginx_package"] == "nginx-full"
    shop, blog = settings["sites"]["shop"], settings["sites"]["blog"]
    # Mappings of both files and of the defaults, key by key; the later file has the last word.
    assert shop["project"]["env"] == {"KEY": "two", "MORE": SECRET, "SHARED": SECRET}
    assert shop["uwsgi"]["options"] == {"harakiri": 60, "static-index": ["a", "b"]}
    # Of lists the last one counts: a site's own stands in place of the default.
    assert shop["server_names"] == [f"{host.name}.example.org"]
    assert (shop["health"]["status"], blog["health"]["status"]) == ([404], [200])
    assert blog["server_names"] == ["all.example.org"]
    assert (blog["project"]["settings"], blog["uwsgi"]["processes"]) == ("shop.settings", 4)
    shown = host.salt_call("site_pillar.show", defaults=True)
    assert SECRET not in repr(shown)
    for path, value, origin in (
        ("lookup:nginx_package", "nginx-full", "lookup"),
        ("lookup:nginx_service", "nginx", "default"),
        ("nginx:repo", "distro", "platform"),
        ("sites:shop:uwsgi:processes", 4, "site_defaults"),
        ("sites:shop:uwsgi:threads", 1, "default"),
        ("sites:shop:project:path", "/srv/shop", "derived"),
        ("sites:shop:project:env:SHARED", "*" * 10, "site_defaults"),
        ("sites:shop:project:env:MORE", "*" * 10, "site"),
        ("sites:shop:server_names", [f"{host.name}.example.org"], "site"),
        ("sites:blog:server_names", ["all.example.org"], "site_defaults"),
        ("sites:blog:tls:key", None, "default"),
    ):
        assert shown[path] == {"value": value, "origin": origin}, path


def test_the_name_that_ec2_gives_a_host_comes_from_its_grains(synced: Host) -> None:
    host = synced
    name = "ec2-13-124-186-240.ap-northeast-2.compute.amazonaws.com"
    host.write("/srv/pillar/top.sls", '{"base": {"*": ["common", "own"]}}\n')
    host.write("/srv/pillar/common.sls", COMMON)
    host.write("/srv/pillar/own.sls", OWN)
    # As Salt's own grains module leaves it there.
    host.salt_call("grains.set", "meta-data", {"public-hostname": name}, force=True)
    try:
        assert host.salt_call("site_pillar.site", "shop")["server_names"] == [name]
    finally:
        host.salt_call("grains.delkey", "meta-data", force=True)


def test_accounts_and_units_that_the_system_has_are_no_sites(synced: Host) -> None:
    host = synced
    host.run("useradd --uid 77 --user-group legacy && groupadd --gid 88 oldies")
    host.write("/usr/lib/systemd/system/uwsgi-shop.service", "[Service]\nExecStart=/bin/true\n")
    site = {"server_names": ["a.org"], "project": {"wsgi": "a:b", "settings": "c"}}
    whole = {
        "shop": site,
        "legacy": {**site, "server_names": ["b.org"]},
        "club": {
            **site,
            "server_names": ["c.org"],
            "project": {**site["project"], "group": "oldies"},  # type: ignore[dict-item]
        },
    }
    errors = host.salt_call("site_pillar.check", pillar={FORMULA: {"sites": whole}})
    assert {
        error["path"].removeprefix(f"{FORMULA}:sites:"): error["found"] for error in errors
    } == {
        "shop": (
            "a name whose unit would hide /usr/lib/systemd/system/uwsgi-shop.service, which the "
            "formula did not make"
        ),
        "legacy:project:user": "'legacy', which has the number 77 on this host",
        "club:project:group": "'oldies', which has the number 88 on this host",
    }
