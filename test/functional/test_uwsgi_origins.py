"""uWSGI from each of the places where the pillar can have it from, side by side on one host."""

import copy
import re
from typing import Any

import pytest

from ..hosts.host import Host

pytestmark = pytest.mark.long

# Where an operator keeps a compiled uWSGI, as the tutorial's pyenv does; and a ready-made one.
KEPT = "/opt/kept"
SCRIPT = "/opt/script"
# What the pillar says of uWSGI, and what runs by that.
ORIGINS: dict[str, tuple[dict[str, Any], str]] = {
    "readymade": (
        {"package": "pyuwsgi==2.0.30.post1"},
        "/var/lib/nginx_uwsgi_django/venvs/readymade/*/bin/pyuwsgi",
    ),
    "compiled": (
        {"package": "uwsgi==2.0.31"},
        "/var/lib/nginx_uwsgi_django/venvs/compiled/*/bin/uwsgi",
    ),
    "distribution": ({"package": "distro", "log": {"to": "file"}}, "/usr/bin/uwsgi"),
    "given": ({"binary": f"{KEPT}/bin/uwsgi"}, f"{KEPT}/bin/uwsgi"),
}
PILLAR = {
    "nginx_uwsgi_django": {
        "nginx": {"repo": "distro"},
        "sites": {
            name: {
                "server_names": [f"{name}.compute.amazonaws.com"],
                "project": {
                    "source": {"salt": "salt://examples/mysite"},
                    "wsgi": "mysite.wsgi:application",
                    "settings": "mysite.settings",
                },
                "uwsgi": {"processes": 1, **uwsgi},
            }
            for name, (uwsgi, _) in ORIGINS.items()
        },
    }
}


@pytest.fixture(scope="module")
def applied(host: Host) -> Host:
    host.install("python3-venv", "build-essential", "python3-dev")
    for path, package in ((KEPT, "uwsgi==2.0.31"), (SCRIPT, "pyuwsgi==2.0.30.post1")):
        host.run("python3", "-m", "venv", path)
        host.run(f"{path}/bin/pip", "-q", "install", package, timeout=900)
    run = host.apply(pillar=PILLAR, timeout=1200)
    assert run.ok, run
    return host


@pytest.mark.parametrize("name", ORIGINS)
def test_the_site_is_served_by_the_uwsgi_that_the_pillar_names(applied: Host, name: str) -> None:
    status, _, body = applied.get("/", f"{name}.compute.amazonaws.com")
    assert status == 200 and b"The install worked successfully!" in body
    told = applied.salt_call("uwsgi_status.show", name)
    assert (told["health"], told["enabled"]) == (200, True)
    started = applied.run("systemctl", "show", "-P", "ExecStart", told["unit"]).stdout
    (program,) = applied.run(f"ls {ORIGINS[name][1]}").stdout.split()
    assert f"path={program} ;" in started
    rating = applied.run("systemd-analyze", "security", "--no-pager", told["unit"]).stdout
    assert float(rating.rsplit("exposure level for", 1)[1].split(":")[1].split()[0]) <= 2.0


def test_applied_again_nothing_changes(applied: Host) -> None:
    again = applied.apply(pillar=PILLAR)
    assert again.ok, again
    assert [result.id for result in again.changed] == []


def test_what_the_formula_keeps_in_a_file_is_rotated(applied: Host) -> None:
    log = "/var/log/uwsgi/distribution/distribution.log"
    # The time of each line of uWSGI's own, as the journal would have it.
    assert re.search(r"\d\d:\d\d:\d\d 20\d\d - .*WSGI app 0", applied.read(log))
    applied.run("logrotate", "--force", "/etc/logrotate.conf")
    assert "WSGI app 0" in applied.read(applied.run(f"ls {log}-*").stdout.strip())
    assert applied.run("systemctl is-enabled logrotate.timer").stdout == "enabled\n"


# What is wrong with a site's uWSGI, and what is said of it, in a dry run as well.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such option": (
        {"package": "distro", "options": {"no-such-option": 1}},
        "/usr/bin/uwsgi (nginx_uwsgi_django:sites:distribution:uwsgi) does not know the option "
        "no-such-option",
    ),
    "a ready-made one of another environment": (
        {"binary": f"{SCRIPT}/bin/pyuwsgi"},
        f"is a script (#!{SCRIPT}/bin/python3), not uWSGI's own executable",
    ),
    "no Python": ({"binary": "/usr/bin/uwsgi"}, "has no Python"),
    "not to be executed": ({"binary": "/root/uwsgi"}, "cannot be executed by distribution"),
    "not uWSGI": ({"binary": "/bin/true"}, "is no uWSGI: asked for its Python it says 'nothing'"),
    "another Python": ({"binary": "/opt/other-python"}, "has Python 3.99.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_uwsgi_that_cannot_run_the_site_is_refused_before_anything_is_done(
    applied: Host, case: str
) -> None:
    uwsgi, words = REFUSED[case]
    applied.run(f"[ -e /root/uwsgi ] || cp {KEPT}/bin/uwsgi /root/")
    applied.run(
        "[ -e /opt/other-python ] || { echo 'int puts(const char *); "
        'int main(void) { puts("3.99.0"); return 0; }\' | cc -x c - -o /opt/other-python; }'
    )
    changed = copy.deepcopy(PILLAR)
    changed["nginx_uwsgi_django"]["sites"]["distribution"]["uwsgi"] = {"processes": 1, **uwsgi}
    before = applied.salt_call("uwsgi_status.show", "distribution")
    started = applied.run("systemctl list-units --all 'uwsgi-distribution*'").stdout
    for test in (True, False):
        (done,) = applied.salt_call(
            "state.single", "uwsgi_generation.running", "distribution", test=test, pillar=changed
        ).values()
        assert done["result"] is False and words in done["comment"], done["comment"]
        assert done["changes"] == {}
    after = applied.salt_call("uwsgi_status.show", "distribution")
    assert (after["digest"], after["since"]) == (before["digest"], before["since"])
    assert applied.run("systemctl list-units --all 'uwsgi-distribution*'").stdout == started


def test_the_distributions_plugin_may_be_loaded_into_a_given_binary(applied: Host) -> None:
    changed = copy.deepcopy(PILLAR)
    changed["nginx_uwsgi_django"]["sites"]["distribution"]["uwsgi"] = {
        "binary": "/usr/bin/uwsgi",
        "options": {"plugin": "python3"},
    }
    (done,) = applied.salt_call(
        "state.single", "uwsgi_generation.running", "distribution", test=True, pillar=changed
    ).values()
    assert done["result"] is None, done["comment"]


def test_it_is_compiled_on_a_bare_debian_14(forky_host: Host) -> None:
    """Without a compiler, headers or a cache; the project's requirements pin uWSGI, too."""
    host, source = forky_host, "/srv/salt/mysite"
    assert not host.run("command -v cc gcc python3-config", check=False).stdout
    host.run(f"mkdir -p /srv/salt && cp -r /srv/formula/examples/mysite {source}")
    host.run(f"echo 'uWSGI==2.0.31' >> {source}/requirements.txt")
    pillar = copy.deepcopy(PILLAR)
    sites = pillar["nginx_uwsgi_django"]["sites"] = {
        "compiled": pillar["nginx_uwsgi_django"]["sites"]["compiled"]
    }
    sites["compiled"]["project"]["source"] = {"salt": "salt://mysite"}
    run = host.apply(pillar=pillar, cold=True, timeout=1200)
    assert run.ok, run.failed
    status, _, body = host.get("/", "compiled.compute.amazonaws.com")
    assert status == 200 and b"The install worked successfully!" in body
    told = host.salt_call("uwsgi_status.show", "compiled")
    started = host.run("systemctl", "show", "-P", "ExecStart", told["unit"]).stdout
    (program,) = host.run(f"ls {ORIGINS['compiled'][1]}").stdout.split()
    assert f"path={program} ;" in started
    again = host.apply(pillar=pillar)
    assert again.ok and again.changed == [], again
    # What came for the build goes with the formula.
    clean = host.apply("nginx_uwsgi_django.clean", pillar=pillar)
    assert clean.ok, clean.failed
    assert not host.run("command -v cc gcc python3-config", check=False).stdout
