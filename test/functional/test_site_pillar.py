"""The pillar's contract on a host: in Salt's own Python, on an empty module cache, before any change."""

import pytest

from ..hosts.host import Host
from ..hosts.salts import VERSIONS
from ..hosts.state_run import StateResult

SECRET = "hunter2-correct-horse"
FORMULA = "nginx_uwsgi_django"
CHECK = "nginx_uwsgi_django: the pillar is valid"

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
    r"sites:evil\n  - cmd.run: touch /root/pwned",
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
