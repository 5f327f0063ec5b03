"""
The network of the hosts: one bridge on the test machine, one network namespace per host.

Traffic between the hosts and the test machine stays on the bridge; what goes further leaves with
the test machine's address.
"""

import ipaddress
import json
import pathlib
import re

from .paths import HostError, lock
from .tools import run

BRIDGE = "nudhosts0"
# A bridge without an address of its own takes the lowest of its ports', and another one when that port
# goes: the hosts then send to one that nobody has, until they ask anew (10 s and more).
_BRIDGE_MAC = "02:6e:75:64:00:01"
TABLE = "nginx_uwsgi_django_hosts"
# The first of these that the machine has no route into becomes the hosts' network.
_CANDIDATES = ("10.77.0.0/16", "10.213.0.0/16", "172.29.0.0/16", "192.168.236.0/22")


def _bridge_network() -> ipaddress.IPv4Network | None:
    done = run("ip", "-j", "-4", "address", "show", "dev", BRIDGE, check=False)
    if done.returncode:
        return None
    for link in json.loads(done.stdout):
        for address in link.get("addr_info", []):
            return ipaddress.ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)  # type: ignore[return-value]
    return None


def _free_network() -> ipaddress.IPv4Network:
    taken = []
    for route in json.loads(run("ip", "-j", "-4", "route", "show", "table", "all").stdout):
        if re.fullmatch(r"[0-9./]+", route.get("dst", "")):
            taken.append(ipaddress.IPv4Network(route["dst"], strict=False))
    for candidate in _CANDIDATES:
        network = ipaddress.IPv4Network(candidate)
        if not any(network.overlaps(other) for other in taken if other.prefixlen):
            return network
    raise HostError(f"no free network for the hosts: {', '.join(_CANDIDATES)} are all in use")


def ensure() -> ipaddress.IPv4Network:
    """
    The hosts' network, with its bridge, forwarding and masquerading made when missing.
    """
    with lock("network"):
        network = _bridge_network()
        if network is None:
            network = _free_network()
            run("ip", "link", "del", BRIDGE, check=False)
            run("ip", "link", "add", BRIDGE, "address", _BRIDGE_MAC, "type", "bridge")
            run("ip", "address", "add", f"{network[1]}/{network.prefixlen}", "dev", BRIDGE)
            run("ip", "link", "set", BRIDGE, "up")
        forward = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
        if forward.read_text("ascii").strip() != "1":
            forward.write_text("1", "ascii")
        # One transaction: declared, emptied and filled again, whatever was there.
        rules = (
            f"table ip {TABLE} {{}}\n"
            f"flush table ip {TABLE}\n"
            f"table ip {TABLE} {{\n"
            "  chain postrouting {\n"
            "    type nat hook postrouting priority 100;\n"
            f'    ip saddr {network} oifname != "{BRIDGE}" masquerade\n'
            "  }\n"
            "}\n"
        )
        if run("nft", "list", "table", "ip", TABLE, check=False).returncode:
            run("nft", "-f", "-", text_input=rules)
    return network


def gateway() -> str:
    """The test machine's own address on the bridge."""
    return str(ensure()[1])


def connect(namespace: str, slot: int) -> str:
    """
    Make a host's network namespace and plug it into the bridge.

    namespace
        its name
    slot
        a number that no other host has; it becomes the address

    Returns the host's IPv4 address.
    """
    network = ensure()
    address = str(network[slot + 10])
    outside, inside = f"nudhost{slot}", f"nudpeer{slot}"
    run("ip", "netns", "add", namespace)
    run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
    run("ip", "link", "set", outside, "master", BRIDGE, "up")
    run("ip", "link", "set", inside, "netns", namespace, "name", "host0")
    inner = ("ip", "-n", namespace)
    run(*inner, "link", "set", "lo", "up")
    run(*inner, "address", "add", f"{address}/{network.prefixlen}", "dev", "host0")
    run(*inner, "link", "set", "host0", "up")
    run(*inner, "route", "add", "default", "via", str(network[1]))
    return address


def plug(slot: int, state: str) -> None:
    """Pull a host's plug out of the bridge (``down``), or put it back (``up``)."""
    run("ip", "link", "set", f"nudhost{slot}", state)


def disconnect(namespace: str, slot: int) -> None:
    """Remove a host's namespace and its plug, as far as they are there."""
    if pathlib.Path("/run/netns", namespace).exists():
        run("ip", "netns", "delete", namespace)
    for link in (f"nudhost{slot}", f"nudpeer{slot}"):
        if pathlib.Path("/sys/class/net", link).exists():
            # The namespace may take the pair away by itself while we look.
            if run("ip", "link", "delete", link, check=False).returncode:
                if pathlib.Path("/sys/class/net", link).exists():
                    raise HostError(f"the network link {link} cannot be removed")


def remove_bridge() -> None:
    """Take the bridge and the masquerading down; for when no host is left."""
    with lock("network"):
        if pathlib.Path("/sys/class/net", BRIDGE).exists():
            run("ip", "link", "delete", BRIDGE)
        if not run("nft", "list", "table", "ip", TABLE, check=False).returncode:
            run("nft", "delete", "table", "ip", TABLE)
