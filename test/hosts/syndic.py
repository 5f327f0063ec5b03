"""
A master of masters: one master on top, one with a syndic below it, minions below that; each on a
throwaway host of its own.
"""

import json
import time
from typing import Any

from .daemon import master_config, serve
from .host import Host
from .paths import HostError
from .salts import program


class Tree:
    """
    The hosts of one master of masters.

    salt
        the version of both masters and of the syndic
    top, lower
        their hosts
    minions
        the hosts below ``lower``, by id
    """

    def __init__(self, name: str, salt: str, top_salt: str | None = None) -> None:
        self.salt = salt
        self.top_salt = top_salt or salt
        self.minions: dict[str, Host] = {}
        self._hosts: list[Host] = []
        try:
            self.top = self._host(f"{name}-top")
            self.top.write("/etc/salt/master", json.dumps(master_config(order_masters=True)))
            serve(self.top, "salt-master", self.top_salt)
            self.lower = self._host(f"{name}-syndic")
            self.lower.write(
                "/etc/salt/master", json.dumps(master_config(syndic_master=self.top.address))
            )
            # A syndic takes its id from the minion's configuration, as there is none for it alone.
            self.lower.write("/etc/salt/minion", json.dumps({"id": self.lower.name}))
            serve(self.lower, "salt-master", salt)
            serve(self.lower, "salt-syndic", salt)
        except BaseException:
            self.close()
            raise

    def _host(self, name: str, release: str = "bookworm") -> Host:
        made = Host.create(name, release=release)
        self._hosts.append(made)
        return made

    def add(self, name: str, salt: str, release: str) -> Host:
        """A host with a minion of the lower master."""
        host = self.minions[name] = self._host(name, release)
        config = {"id": name, "master": self.lower.address, "enable_fqdns_grains": False}
        host.write("/etc/salt/minion", json.dumps(config))
        serve(host, "salt-minion", salt)
        return host

    def command(self, host: Host, name: str, *words: str) -> list[str]:
        """A command of Salt's on one of the masters, to be run in it."""
        salt = self.top_salt if host is self.top else self.salt
        return [program(salt, name), "--config-dir=/etc/salt", *words]

    def call(
        self, host: Host, target: str, function: str, *words: str, timeout: int = 60
    ) -> dict[str, Any]:
        """``salt TARGET FUNCTION`` on a master: what each minion returned, by its id."""
        options = ["--static", "--out=json", f"--timeout={timeout}"]
        command = self.command(host, "salt", *options, target, function, *words)
        done = host.run(*command, check=False, timeout=timeout + 120)
        try:
            return dict(json.loads(done.stdout))
        except ValueError:
            raise HostError(
                f"`salt {target} {function}` said: {done.stdout}{done.stderr}"
            ) from None

    def run(
        self, host: Host, function: str, *words: str, timeout: float = 900, **keywords: Any
    ) -> tuple[int, Any, str]:
        """``salt-run FUNCTION`` on a master: exit code, what it returned, what it told meanwhile."""
        given = [*words, *(f"{key}={json.dumps(value)}" for key, value in keywords.items())]
        command = self.command(host, "salt-run", "--out=json", function, *given)
        done = host.run(*command, check=False, timeout=timeout)
        try:
            return done.returncode, json.loads(done.stdout), done.stderr
        except ValueError:
            raise HostError(f"`salt-run {function}` said: {done.stdout}{done.stderr}") from None

    def wait(self, timeout: float = 180) -> None:
        """
        Until every minion answers the master on top.

        Raises HostError when one does not.
        """
        deadline = time.monotonic() + timeout
        while True:
            said = self.call(self.top, "*", "test.ping", timeout=10)
            missing = [name for name in self.minions if said.get(name) is not True]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise HostError(
                    f"{', '.join(missing)} do not answer the master of masters; it had {said}, "
                    f"the syndic's journal: {self.journal(self.lower, 'salt-syndic')}"
                )

    def journal(self, host: Host, name: str) -> str:
        """The last lines of a daemon."""
        return host.run("journalctl", "-u", name, "-n", "60", "--no-pager", "-o", "cat").stdout

    def close(self) -> None:
        """Remove all of them."""
        while self._hosts:
            self._hosts.pop().remove()
