"""
What the formula is tested on: the one definition, which the tests run and README's table is made of.

``python3 -m test.matrix`` prints the table.
"""

import dataclasses

from .hosts.host import Host
from .hosts.resolute import ResoluteHost
from .hosts.salts import VERSIONS
from .hosts.ubuntu import UbuntuHost


@dataclasses.dataclass(frozen=True)
class System:
    """
    A system, and what it brings.

    name
        as README calls it
    kind, release
        the host that stands for it, and the Debian that this is made of
    systemd, nginx, python
        the versions of its own packages
    played_by
        the system whose packages it really has; empty where it is the real one
    """

    name: str
    kind: type[Host]
    release: str
    systemd: str
    nginx: str
    python: str
    played_by: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One system with one release line of Salt."""

    system: System
    salt: str

    def __str__(self) -> str:
        return f"{self.system.name.replace(' ', '-')}-salt-{self.salt}"


SYSTEMS = (
    System("Debian 12", Host, "bookworm", "252", "1.22", "3.11"),
    System("Debian 13", Host, "trixie", "257", "1.26", "3.13"),
    System("Debian 14", Host, "forky", "262", "1.30", "3.14"),
    System("Ubuntu 24.04", UbuntuHost, "bookworm", "252", "1.22", "3.11", "Debian 12"),
    System("Ubuntu 26.04", ResoluteHost, "forky", "262", "1.30", "3.14", "Debian 14"),
)
ROWS = tuple(Row(system, salt) for system in SYSTEMS for salt in VERSIONS)


def table() -> str:
    """The table of README."""
    head = ["system", "systemd", "nginx", "Python", *(f"Salt {one}" for one in VERSIONS.values())]
    lines = [head, ["---"] * len(head)]
    for system in SYSTEMS:
        name = system.name + (f", played by {system.played_by}" if system.played_by else "")
        lines.append(
            [name, system.systemd, system.nginx, system.python, *(["tested"] * len(VERSIONS))]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(table(), end="")
