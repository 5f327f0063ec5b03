"""
A Salt master on the test machine and minions inside throwaway hosts, as salt-factories daemons.

Needs the test dependencies, unlike the rest of this package.
"""

import json
import os
import pathlib
import subprocess
import sys
import uuid
from typing import Any

import attr
from saltfactories.daemons.master import SaltMaster
from saltfactories.daemons.minion import SaltMinion
from saltfactories.manager import FactoriesManager

from . import network
from .host import Host
from .paths import FORMULA, NOT_THE_FORMULA, HostError
from .salts import program
from .state_run import StateRun

# The daemon dies with the process that started it, and all its children with it, however that
# process ends: a namespace of process ids is gone when its first process is.
_MORTAL = (
    "setpriv",
    "--pdeathsig=KILL",
    "unshare",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--mount-proc",
)


@attr.s(kw_only=True, slots=True)
class MortalMaster(SaltMaster):
    """A salt-master that does not outlive the tests, not even a kill -9 of them."""

    def cmdline(self, *args: str) -> list[str]:
        """How it is started."""
        return [*_MORTAL, *super().cmdline(*args)]


@attr.s(kw_only=True, slots=True)
class HostMinion(SaltMinion):
    """A salt-minion inside a throwaway host."""

    host: Host = attr.ib()

    def cmdline(self, *args: str) -> list[str]:
        """How it is started."""
        return [*self.host.enter(), *super().cmdline(*args)]


class Fleet:
    """
    A running master, and the minions that were added to it.

    hosts
        the throwaway hosts by minion id
    master
        salt-factories' daemon, for what the methods here do not cover
    """

    def __init__(self, factories: FactoriesManager, folder: pathlib.Path) -> None:
        self._factories = factories
        self._folder = folder
        self.hosts: dict[str, Host] = {}
        self.daemons: dict[str, HostMinion] = {}
        self._gateway = network.gateway()
        tag = uuid.uuid4().hex[:4]
        self._base = folder / f"base-{tag}"
        for name in ("states", "pillar"):
            (self._base / name).mkdir(parents=True)
        self._pillars: dict[str, Any] = {}
        self.master = factories.salt_master_daemon(
            f"master-{tag}",
            overrides={
                "interface": self._gateway,
                "auto_accept": True,
                "worker_threads": 3,
                "timeout": 30,
                "runner_dirs": [os.fspath(FORMULA / "_runners")],
                "file_roots": {"base": [os.fspath(self._base / "states"), os.fspath(FORMULA)]},
                "pillar_roots": {"base": [os.fspath(self._base / "pillar")]},
                "file_ignore_regex": NOT_THE_FORMULA,
            },
            factory_class=MortalMaster,
            start_timeout=120,
        )
        self.set_pillar({})

    def start(self) -> None:
        """Start the master."""
        self.master.start()

    def add(self, name: str | None = None, salt: str = "3008", release: str = "bookworm") -> Host:
        """
        Boot a host with a minion of this Salt version that talks to the master.

        name
            the host's name and the minion's id
        salt
            ``3006``, ``3007`` or ``3008``
        release
            of the host's Debian
        """
        shared = os.fspath(self._folder)
        # Its pytest plugins are read by the minion from where salt-factories is installed here.
        binds = [(shared, f"{shared}:rw"), (sys.prefix, sys.prefix)]
        name = name or f"minion-{Host.tag()}"
        host = Host.create(name, release=release, binds=binds)
        self.hosts[name] = host
        outside = {"host": self._gateway}
        minion = self.master.salt_minion_daemon(
            name,
            overrides={
                "master": self._gateway,
                "pytest-minion": {"log": outside, "returner_address": outside},
                "enable_fqdns_grains": False,
            },
            factory_class=HostMinion,
            start_timeout=120,
            host=host,
        )
        minion.python_executable = program(salt, "python")
        self.daemons[name] = minion
        minion.start()
        return host

    def set_pillar(self, pillar: dict[str, Any], target: str = "*") -> None:
        """
        Make this the pillar of the minions that match, beside that of other targets.

        target
            a minion id or a glob
        """
        self._pillars[target] = pillar
        folder = self._base / "pillar"
        top: dict[str, list[str]] = {}
        for number, (glob, values) in enumerate(self._pillars.items()):
            (folder / f"p{number}.sls").write_text(f"#!json\n{json.dumps(values)}\n", "utf-8")
            top[glob] = [f"p{number}"]
        (folder / "top.sls").write_text(f"#!json\n{json.dumps({'base': top})}\n", "utf-8")

    def set_top(self, top: dict[str, list[str]]) -> None:
        """The master's top file: target -> list of SLS."""
        text = f"#!json\n{json.dumps({'base': top})}\n"
        (self._base / "states" / "top.sls").write_text(text, "utf-8")

    def write_state(self, name: str, text: str) -> None:
        """A file among the master's states, besides the formula."""
        path = self._base / "states" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def call(
        self, function: str, *args: Any, target: str = "*", timeout: int = 300, **kwargs: Any
    ) -> dict[str, Any]:
        """
        ``salt TARGET FUNCTION ...``: what each minion returned, by its id.

        Raises HostError when Salt itself says nothing that can be understood.
        """
        words = [f"--timeout={timeout}", "--static", "--out=json", function, *args]
        done = self.master.salt_cli(timeout=timeout + 60).run(
            *words, minion_tgt=target, _timeout=timeout + 60, **kwargs
        )
        try:
            said = json.loads(done.stdout)
        except ValueError:
            raise HostError(
                f"`salt {target} {function}` ended with {done.returncode}: {done.stdout}"
                f"{done.stderr}"
            ) from None
        return dict(said)

    def apply(
        self, sls: str | None = None, target: str = "*", test: bool = False, timeout: int = 600
    ) -> dict[str, StateRun]:
        """
        ``salt TARGET state.apply``: each minion's run, by its id.

        sls
            None applies what the top file says
        """
        words = [] if sls is None else [sls]
        extra = {"test": True} if test else {}
        said = self.call("state.apply", *words, target=target, timeout=timeout, **extra)
        return {name: StateRun(states) for name, states in said.items()}

    def runner_command(self, function: str, *args: str, **kwargs: Any) -> list[str]:
        """``salt-run --out=json FUNCTION ...``, to be started by the caller."""
        words = ["salt-run", f"--config-dir={self.master.config_dir}", "--out=json", function]
        words += [*args, *(f"{key}={json.dumps(value)}" for key, value in kwargs.items())]
        return [os.path.join(os.path.dirname(sys.executable), words[0]), *words[1:]]

    def runner(
        self, function: str, *args: str, timeout: float = 600, **kwargs: Any
    ) -> tuple[int, Any, str]:
        """
        ``salt-run FUNCTION``: its exit code, what it returned, and what it wrote to standard error.

        Raises HostError when standard output is not JSON alone.
        """
        done = subprocess.run(
            self.runner_command(function, *args, **kwargs),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        try:
            return done.returncode, json.loads(done.stdout), done.stderr
        except ValueError:
            raise HostError(f"`salt-run {function}` said: {done.stdout}{done.stderr}") from None

    def close(self) -> None:
        """Stop the minions and the master, remove the hosts."""
        for name, host in self.hosts.items():
            self.daemons[name].terminate()
            host.remove()
        self.master.terminate()
