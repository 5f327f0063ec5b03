"""
``python3 -m test.hosts``: throwaway hosts by hand.
"""

import argparse
import signal
import sys

from .host import Host, all_hosts, clean
from .image import RELEASES
from .network import remove_bridge
from .paths import HostError, lock
from .tools import ensure_tools
from .ubuntu import UbuntuHost


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m test.hosts", description="Throwaway Debian hosts with a real systemd."
    )
    acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")
    up = acts.add_parser("up", help="make a host, boot it, print its address")
    up.add_argument("name", metavar="NAME")
    up.add_argument("--release", choices=RELEASES, default="bookworm")
    up.add_argument("--ubuntu", action="store_true", help="it says that it is Ubuntu 24.04")
    up.add_argument(
        "--keep",
        action="store_true",
        help="it stays until `down NAME` (without: until this command is interrupted)",
    )
    up.add_argument(
        "--no-salt", action="store_true", help="do not put the pinned Salt versions into it"
    )
    acts.add_parser("list", help="what hosts there are")
    inside = acts.add_parser("run", help="run a command in a host, as root")
    inside.add_argument("name", metavar="NAME")
    inside.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    down = acts.add_parser("down", help="remove a host")
    down.add_argument("name", metavar="NAME")
    acts.add_parser("clean", help="remove the hosts whose owner is dead; kept ones stay")
    return parser


def _up(arguments: argparse.Namespace) -> int:
    kind = UbuntuHost if arguments.ubuntu else Host
    host = kind.create(
        arguments.name,
        release=arguments.release,
        keep=arguments.keep,
        salt=not arguments.no_salt,
    )
    print(host.address, flush=True)
    if arguments.keep:
        return 0
    try:
        print("interrupt me to remove it", file=sys.stderr, flush=True)
        host.wait()
    except KeyboardInterrupt:
        pass
    finally:
        host.remove()
    return 0


def main(argv: list[str]) -> int:
    """Do what the words say; returns the exit code."""
    arguments = _parser().parse_args(argv)
    ensure_tools()
    if arguments.act == "up":
        return _up(arguments)
    if arguments.act == "list":
        for host in all_hosts():
            condition = "up" if host.alive() else "down"
            owner = "kept" if host.kept else "owned" if host.owned() else "orphan"
            print(f"{host.name}\t{host.release}\t{host.address}\t{condition}\t{owner}")
        return 0
    if arguments.act == "run":
        words = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
        if not words:
            raise HostError("say which command to run: run NAME -- COMMAND")
        return Host.find(arguments.name).execute(*words)
    if arguments.act == "down":
        host = Host.find(arguments.name)
        if host.owned():
            raise HostError(f"the host {host.name} is in use by process {host.owner}")
        host.remove()
    else:
        for name in clean():
            print(f"removed {name}")
    with lock("hosts"):
        if not all_hosts():
            remove_bridge()
    return 0


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Told to end, it ends as if interrupted: the host is removed.
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        sys.exit(main(sys.argv[1:]))
    except HostError as error:
        print(f"test.hosts: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
