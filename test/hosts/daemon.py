"""
Salt's daemons on throwaway hosts, run by the hosts' systemd as Salt's packages do it.
"""

from typing import Any

from .host import Host
from .paths import NOT_THE_FORMULA
from .salts import program

_UNIT = """\
[Unit]
Description={name}
After=network.target

[Service]
Type=simple
LimitNOFILE=100000
ExecStart={program} --config-dir={folder} --log-level=warning

[Install]
WantedBy=multi-user.target
"""


def serve(host: Host, name: str, salt: str, folder: str = "/etc/salt", unit: str = "") -> None:
    """
    Run a daemon of Salt on a host; restart it when it runs already.

    name
        e.g. ``salt-master``
    salt
        ``3006``, ``3007`` or ``3008``
    folder
        its configuration
    unit
        the unit's name, when it is not the daemon's
    """
    unit = unit or name
    text = _UNIT.format(name=name, program=program(salt, name), folder=folder)
    host.write(f"/etc/systemd/system/{unit}.service", text)
    host.run(
        f"systemctl daemon-reload && systemctl enable --quiet {unit} && systemctl restart {unit}"
    )


def master_config(**more: Any) -> dict[str, Any]:
    """The configuration of a master with the formula, its runners and ``/srv/pillar``."""
    return {
        "auto_accept": True,
        "worker_threads": 3,
        "timeout": 30,
        "runner_dirs": ["/srv/formula/_runners"],
        "file_roots": {"base": ["/srv/salt", "/srv/formula"]},
        "pillar_roots": {"base": ["/srv/pillar"]},
        "file_ignore_regex": NOT_THE_FORMULA,
        **more,
    }
