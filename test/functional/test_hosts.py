"""
Throwaway hosts: what every other test on a host stands on.
"""

import pytest

from ..hosts.host import CommandFailed, Host


def test_it_is_a_debian_host_run_by_systemd(host: Host) -> None:
    assert host.run("systemctl", "is-system-running").stdout.strip() == "running"
    assert host.run("cat", "/proc/1/comm").stdout.strip() == "systemd"
    assert "VERSION_CODENAME=bookworm" in host.read("/etc/os-release")
    assert host.run("hostname").stdout.strip() == host.name


def test_a_failing_command_raises_with_its_output(host: Host) -> None:
    with pytest.raises(CommandFailed, match="Unit no-such-unit.service not found"):
        host.run("systemctl", "start", "no-such-unit.service")


def test_salt_call(host: Host) -> None:
    assert host.salt_call("grains.get", "oscodename") == "bookworm"
    assert host.salt_call("test.echo", "a # b: [c]") == "a # b: [c]"
