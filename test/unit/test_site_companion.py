"""What a companion is made of, and what of a site's is nothing to it."""

import copy

import pytest

SITE = {
    "server_names": ["www.example.org"],
    "project": {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings"},
    "companions": {
        "worker": {"command": "celery -A mysite worker -n 'a b'", "limits": {"MemoryMax": "1G"}},
        "nightly": {"command": "manage.py clearsessions", "schedule": "hourly", "time_limit": 60},
    },
}


@pytest.fixture
def made(modules):
    """The companions that a pillar and a release make: ``made(facts)``, by name."""

    def load(change=lambda site, facts: None):
        site = copy.deepcopy(SITE)
        facts = {
            "release": {"id": "a" * 12, "path": "/srv/my%site", "source": "/srv/my%site"},
            "venv": {
                "digest": "b" * 12,
                "path": "/opt/venv",
                "binary": "/opt/venv/bin/python",
                "uwsgi": "/opt/venv/bin/uwsgi",
            },
            "environment": {"SECRET": "hunter2"},
        }
        change(site, facts)
        m = modules(pillar={"nginx_uwsgi_django": {"sites": {"mysite": site}}})
        m.salt["django_release.desired"] = lambda name, **more: facts["release"]
        m.salt["site_plan.environment"] = lambda name, release=None: facts["environment"]
        m.salt["django_release.directories"] = lambda name: {"shared": "/srv/shared"}
        m.salt["site_plan.of"] = lambda name, release=None: m.site_plan.site_plan.Plan(
            m.site_pillar.site(name),
            facts["release"],
            facts["venv"],
            facts["environment"],
            {},
            None,
        )
        m.salt["python_venv.desired"] = lambda name, release=None: facts["venv"]
        return m.site_companion._wanted("mysite")

    return load


def digests(wanted):
    return {name: one["digest"] for name, one in wanted.items()}


def change_release(site, facts):
    facts["release"]["id"] = "c" * 12


def change_venv(site, facts):
    facts["venv"]["digest"] = "c" * 12


def change_environment(site, facts):
    facts["environment"]["SECRET"] = "hunter3"


def change_user(site, facts):
    site["project"]["user"] = "other"


@pytest.mark.parametrize("change", [change_release, change_venv, change_environment, change_user])
def test_what_the_site_is_made_of_makes_other_companions(made, change):
    before, after = digests(made()), digests(made(change))
    assert all(before[name] != after[name] for name in SITE["companions"])


def test_what_is_not_its_own_changes_no_companion(made):
    def change(site, facts):
        site["uwsgi"] = {"processes": 9, "limits": {"TasksMax": 9}}
        site["server_names"] = ["other.example.org"]
        site["companions"]["worker"]["stop_timeout"] = 9
        site["companions"]["third"] = {"command": "x"}

    before, after = digests(made()), digests(made(change))
    assert before["nightly"] == after["nightly"]
    assert before["worker"] != after["worker"]


def test_the_units_say_what_the_pillar_does_and_no_secret(made):
    wanted = made()
    (worker,) = wanted["worker"]["units"].values()
    service, timer = wanted["nightly"]["units"].values()
    assert list(wanted["nightly"]["units"]) == [
        "django-mysite.nightly.service",
        "django-mysite.nightly.timer",
    ]
    assert 'ExecStart=/opt/venv/bin/celery -A mysite worker -n "a b"\n' in worker
    assert "WorkingDirectory=/srv/my%%site\n" in worker
    assert "MemoryMax=1G\n" in worker and "MemoryMax" not in service
    assert "ExecStart=/opt/venv/bin/python -m django clearsessions\n" in service
    assert "Type=oneshot\nTimeoutStartSec=60\n" in service and "[Install]" not in service
    assert "OnCalendar=hourly\n" in timer
    for text in (worker, service, timer):
        assert 'Description=Django site "mysite": ' in text
        assert "hunter2" not in text
    # One sandbox for all that runs for a site.
    assert "ProtectSystem=strict\n" in worker and "ProtectSystem=strict\n" in service
