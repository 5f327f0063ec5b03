"""Without a minion: salt-ssh on one host applies the formula to another, over a real sshd."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ..hosts.host import Host
from ..hosts.paths import FORMULA, HostError
from ..hosts.salts import program
from ..hosts.state_run import StateRun

# The example's project comes from Salt's file server, so it has to travel, too.
PILLAR = yaml.safe_load((FORMULA / "pillar.example").read_text())
CONFIG = "/etc/salt-ssh"
INSTALL = "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install "
# The newer Debians' Pythons are for the newest Salt alone.
TARGETS = [("3006", "bookworm"), ("3007", "bookworm"), ("3008", "trixie"), ("3008", "forky")]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def control(host: Host) -> Host:
    host.run(f"{INSTALL} --no-install-recommends openssh-client", timeout=300)
    host.run("install -d -m 0700 /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id")
    host.set_pillar(PILLAR)
    return host


@pytest.fixture(scope="module", params=TARGETS, ids="-".join)
def web(request: Any, control: Host) -> Iterator["Web"]:
    salt, release = request.param
    with Host.create(f"web{salt}-{Host.tag()}", release=release, salt=False) as target:
        yield Web(control, target, salt)


class Web:
    """A host with sshd and Python, and how the control node reaches it by one of the Salts."""

    def __init__(self, control: Host, target: Host, salt: str) -> None:
        self.target = target
        self._control = control
        self._program = program(salt, "salt-ssh")
        self._config = f"{CONFIG}-{salt}"
        # Nothing of the formula is there but what salt-ssh brings.
        target.run("umount", "/srv/formula")
        target.run(f"{INSTALL} --no-install-recommends openssh-server python3", timeout=300)
        if target.release == "forky":
            # It does not come with the server any more.
            target.run("apt-get -q -y install openssh-client", timeout=300)
        target.write("/root/.ssh/authorized_keys", control.read("/root/.ssh/id.pub"), 0o600)
        kind, key, *_ = target.read("/etc/ssh/ssh_host_ed25519_key.pub").split()
        control.write("/root/.ssh/known_hosts", f"{target.address} {kind} {key}\n")
        master = {
            "root_dir": f"/var/lib/salt-ssh-{salt}",
            "file_roots": {"base": ["/srv/formula"]},
            "pillar_roots": {"base": ["/srv/pillar"]},
        }
        roster = {"web1": {"host": target.address, "user": "root", "priv": "/root/.ssh/id"}}
        control.write(f"{self._config}/master", json.dumps(master))
        control.write(f"{self._config}/roster", json.dumps(roster))

    def call(self, function: str, *words: str) -> Any:
        """``salt-ssh web1 FUNCTION``: what the host returned."""
        done = self._control.run(
            self._program,
            f"--config-dir={self._config}",
            "--out=json",
            "--log-level=error",
            "web1",
            function,
            *words,
            check=False,
            timeout=600,
        )
        try:
            return json.loads(done.stdout)["web1"]
        except (ValueError, KeyError):
            raise HostError(f"`salt-ssh web1 {function}`: {done.stdout}{done.stderr}") from None

    def apply(self, *words: str) -> StateRun:
        """``salt-ssh web1 state.apply nginx_uwsgi_django``."""
        return StateRun(self.call("state.apply", "nginx_uwsgi_django", *words))


def test_a_bare_host_serves_and_the_second_run_changes_nothing(web: Web) -> None:
    dry = web.apply("test=True")
    assert dry.ok, dry
    assert dry.changed and not web.target.exists("/etc/nginx")

    first = web.apply()
    assert first.ok, first
    status, _, body = web.target.get("/", "a.compute.amazonaws.com")
    assert (status, b"Congratulations" in body) == (200, True)

    second = web.apply()
    assert second.ok and second.changed == [], second


def test_a_function_has_the_pillar_when_a_state_calls_it(web: Web) -> None:
    # salt-ssh gives the pillar to states alone.
    assert "found no such key in the pillar" in str(web.call("nginx_uwsgi_django.status"))
    said = web.call("state.single", "module.run", "name=status", "nginx_uwsgi_django.status=[]")
    run = StateRun(said)
    assert run.ok, run
    status = run.results[0].changes["nginx_uwsgi_django.status"]
    assert status["sites"]["mysite"]["status"] == 200
