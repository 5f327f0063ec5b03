"""The SLS files: whatever the pillar holds they render, and nothing of it becomes a state."""

import json

import pytest

PROJECT = {"path": "/srv/x", "wsgi": "x.wsgi:application", "settings": "x.settings"}
SITE = {"server_names": ["x.example"], "project": PROJECT}
PILLAR = {"nginx_uwsgi_django": {"sites": {"x": SITE}}}

MALFORMED = {
    "nothing": {},
    "null": {"nginx_uwsgi_django": None},
    "text": {"nginx_uwsgi_django": "sites"},
    "list": {"nginx_uwsgi_django": [{"sites": {}}]},
    "sites a list": {"nginx_uwsgi_django": {"sites": ["mysite"]}},
    "site a text": {"nginx_uwsgi_django": {"sites": {"mysite": "on"}}},
    "a project a text": {
        "nginx_uwsgi_django": {"site_defaults": ["x"], "sites": {"mysite": {"project": "hooks"}}}
    },
    "lookup a list": {"nginx_uwsgi_django": {"lookup": [], "nginx": [], "sites": {"mysite": SITE}}},
    "a name with a state in it": {
        "nginx_uwsgi_django": {
            "sites": {"x'\nevil:\n  cmd.run:\n    - name: touch /root/evil\n#": SITE}
        }
    },
    "a name with a path in it": {"nginx_uwsgi_django": {"sites": {"../../etc/cron.d/evil": SITE}}},
    "a name with a newline at its end": {"nginx_uwsgi_django": {"sites": {"mysite\n": SITE}}},
    "a name with an expression in it": {"nginx_uwsgi_django": {"sites": {"{{ 1 }}": SITE}}},
}


@pytest.mark.parametrize(
    ("sls", "case"),
    [
        *[("nginx_uwsgi_django", case) for case in MALFORMED],
        ("nginx_uwsgi_django.clean", "nothing"),
        ("nginx_uwsgi_django.clean", "a name with a state in it"),
    ],
)
def test_a_malformed_pillar_is_one_failed_state(host, sls, case):
    run = host.apply(sls, pillar=MALFORMED[case])
    assert run.errors == []
    assert [result.function for result in run.failed] == ["site_pillar.valid"], run
    assert run.changed == []
    assert "Traceback" not in run.failed[0].comment
    assert "nginx_uwsgi_django" in run.failed[0].comment
    assert not host.exists("/root/evil")
    assert not host.exists("/etc/nginx")


@pytest.mark.long
def test_every_sls_stands_alone(host):
    pillar = {"nginx_uwsgi_django": {"sites": {"x": SITE, "gone": {"absent": True}}}}
    names = host.run(
        "cd /srv/formula && find nginx_uwsgi_django -name '*.sls' | sed 's/.sls$//; s#/init$##; s#/#.#g'"
    ).stdout.split()
    assert len(names) > 10
    for name in names:
        low = host.salt_call("state.show_low_sls", name, pillar=pillar)
        assert all(isinstance(chunk, dict) for chunk in low), (name, low)


def test_modules_reach_an_empty_cache_in_a_dry_run_too(host):
    run = host.apply("nginx_uwsgi_django.pillar", pillar=PILLAR, cold=True, test=True)
    assert run.ok, run
    assert {result.function for result in run.results} == {"test.nop", "site_pillar.valid"}
    run = host.apply("nginx_uwsgi_django.pillar", pillar=PILLAR)
    assert {result.function for result in run.results} == {"site_pillar.valid"}


_CANARY = """
import pathlib

pathlib.Path("/root/imported").touch()
"""


@pytest.mark.parametrize("salt", ["3006", "3007", "3008"])
def test_a_run_with_new_modules_imports_only_those_that_it_calls(host, salt):
    # Where Salt does not know its new modules by name, it looks for each function in every module
    # that it has: a second of a first run.
    host.write("/srv/salt/_modules/nobody_calls_this.py", _CANARY)
    run = host.apply("nginx_uwsgi_django.pillar", pillar=PILLAR, cold=True, salt=salt)
    assert {result.function for result in run.results} == {"test.nop", "site_pillar.valid"}
    assert run.ok, run
    assert not host.exists("/root/imported")


NEW_MODULE = '''
def word():
    """Nothing of it was there before."""
    return "new"
'''
NEW_STATE = """
def works(name):
    return {"name": name, "result": True, "changes": {}, "comment": __salt__["brand_new.word"]()}
"""
CHECKOUT = "/srv/checkout"


@pytest.fixture
def checkout(host, request):
    """A copy of the formula that may be upgraded, as the only file root of a Salt version."""
    salt = request.param
    minion = f"{host.salt_config(salt)}/minion"
    before = host.read(minion)
    host.run(f"rm -rf {CHECKOUT}; mkdir {CHECKOUT}")
    host.run(f"cd /srv/formula && cp -r _modules _states nginx_uwsgi_django {CHECKOUT}")
    host.write(minion, json.dumps({**json.loads(before), "file_roots": {"base": [CHECKOUT]}}))
    yield salt
    host.write(minion, before)


def upgrade(host):
    """A release of the formula with a module and a state more, and an SLS that needs both."""
    host.write(f"{CHECKOUT}/_modules/brand_new.py", NEW_MODULE)
    host.write(f"{CHECKOUT}/_states/brand_new.py", NEW_STATE)
    manifest = f"{CHECKOUT}/nginx_uwsgi_django/modules.json"
    names = json.loads(host.read(manifest))
    for kind in names.values():
        kind.append("brand_new")
    host.write(manifest, json.dumps(names))
    sls = f"{CHECKOUT}/nginx_uwsgi_django/pillar.sls"
    host.write(sls, host.read(sls) + "\n'the new state':\n  brand_new.works:\n    - name: new\n")


@pytest.mark.few(1)
@pytest.mark.parametrize("checkout", ["3006", "3007", "3008"], indirect=True)
def test_an_upgrade_right_after_a_run_brings_all_of_its_modules(host, checkout):
    before = host.apply("nginx_uwsgi_django.pillar", pillar=PILLAR, salt=checkout, cold=True)
    assert before.ok, before
    # What else asks the file server for its list: a name that is new is not in it for 20 seconds.
    host.salt_call("cp.list_master", salt=checkout)
    upgrade(host)
    for test in (True, False):
        run = host.apply("nginx_uwsgi_django.pillar", pillar=PILLAR, salt=checkout, test=test)
        assert run.ok, run
        assert run.by_id["the new state"].comment == "new"
    age = host.run(
        f"echo $(( $(date +%s) - $(stat -c %Y /var/lib/salt-{checkout}/cache/file_lists/roots/base.p) ))"
    )
    assert int(age.stdout) < 20, "the list was read anew: the run proves nothing"
    # Back to the release before: what it does not have is not missed.
    host.run(f"cp -r /srv/formula/nginx_uwsgi_django {CHECKOUT}")
    assert host.apply("nginx_uwsgi_django.pillar", pillar=PILLAR, salt=checkout).ok


@pytest.mark.few(1)
@pytest.mark.parametrize("checkout", ["3006", "3008"], indirect=True)
def test_a_checkout_with_a_module_missing_is_one_sentence(host, checkout):
    host.run(f"rm {CHECKOUT}/_modules/uwsgi_socket.py")
    run = host.apply("nginx_uwsgi_django", pillar=PILLAR, salt=checkout, cold=True)
    (failed,) = run.failed
    assert "_modules/uwsgi_socket.py" in failed.comment and "run again" in failed.comment
    assert run.changed == []
