"""Salt's gitfs as the way in: the formula comes from a git repository, to a minion that has nothing of it."""

import json
import time

import pytest
import yaml

from ..hosts.host import Host
from ..hosts.paths import FORMULA
from ..hosts.salts import program
from ..hosts.state_run import StateRun

PILLAR = yaml.safe_load((FORMULA / "pillar.example").read_text())
CONFIG = "/etc/salt-gitfs"
CACHE = "/var/lib/salt-gitfs/cache"
SALT = "3008"


class Minion:
    """A masterless minion whose files are those of the repository alone."""

    def __init__(self, host: Host) -> None:
        self.host = host
        # As `salt-pip install GitPython` does it for a onedir Salt; this one cannot be written.
        host.run(
            program(SALT, "pip"),
            "install",
            "-q",
            "--target",
            "/opt/gitpython",
            "GitPython",
            timeout=300,
        )
        host.run(
            "apt-get -q update && apt-get -q -y --no-install-recommends install git && "
            "git init -q -b main /srv/formula.git && cd /srv/formula.git && "
            "git config user.name operator && git config user.email operator@example.org && "
            "tar --exclude=./.git -C /srv/formula -cf - . | tar -xf - && "
            "git add -A && git commit -q -m first",
            timeout=300,
        )
        minion = {
            "id": host.name,
            "file_client": "local",
            "root_dir": "/var/lib/salt-gitfs",
            "conf_file": f"{CONFIG}/minion",
            "cachedir": "/cache",
            "extension_modules": "/cache/extmods",
            "log_file": "/log",
            "fileserver_backend": ["git"],
            "gitfs_provider": "gitpython",
            "gitfs_base": "main",
            "gitfs_remotes": ["file:///srv/formula.git"],
            "pillar_roots": {"base": ["/srv/pillar"]},
            "enable_fqdns_grains": False,
        }
        host.write(f"{CONFIG}/minion", json.dumps(minion))
        host.set_pillar(PILLAR)

    def apply(self, sls: str = "nginx_uwsgi_django") -> StateRun:
        began = time.monotonic()
        done = self.host.run(
            "env",
            "PYTHONPATH=/opt/gitpython",
            program(SALT, "salt-call"),
            "--local",
            f"--config-dir={CONFIG}",
            "--out=json",
            "--log-level=error",
            "state.apply",
            sls,
            check=False,
            timeout=900,
        )
        assert done.stdout, done.stderr
        print(f"{sls}: {time.monotonic() - began:.1f} s")
        return StateRun(json.loads(done.stdout)["local"], done.stderr)


@pytest.fixture(scope="module")
def minion(host: Host) -> Minion:
    return Minion(host)


def test_the_modules_come_along_with_an_empty_cache(minion: Minion) -> None:
    assert not minion.host.exists(CACHE)
    for _ in range(2):
        run = minion.apply("nginx_uwsgi_django.pillar")
        assert run.ok, run
        assert run.changed == []


@pytest.mark.long
def test_a_first_and_a_second_run(minion: Minion) -> None:
    minion.host.run("rm", "-rf", CACHE)
    run = minion.apply()
    assert run.ok, run
    assert minion.host.get("/", "a.compute.amazonaws.com")[0] == 200
    again = minion.apply()
    assert again.ok, again
    assert again.changed == []


@pytest.mark.long
def test_a_commit_arrives_with_the_next_run(minion: Minion) -> None:
    minion.host.run(
        "cd /srv/formula.git && echo '# changed' >>examples/mysite/mysite/urls.py && "
        "git commit -q -a -m changed"
    )
    run = minion.apply()
    assert run.ok, run
    assert "mysite: uWSGI generation" in {result.id for result in run.changed}
    again = minion.apply()
    assert again.ok and again.changed == [], again
