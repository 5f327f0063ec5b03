"""
What an EC2 instance knows about itself, by IMDSv2 and nothing else: a session token first, never a
question without one, and never a proxy in between.

Off EC2 nothing is asked at all: the firmware's tables say whose machine it is. On EC2 all answers
together take less than a second or are an error. They are kept under ``/run``, which a reboot
empties, for five minutes: a public name changes while an instance runs when an elastic address is
moved.

The token's answer has a hop limit, 1 by default: a question from a container behind a bridge is
never answered. See docs/ec2.md.

.. versionadded:: 0.1.0
"""

import http.client
import json
import os
import time
import urllib.parse
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import durable_file

__virtualname__ = "ec2_instance"

_ENDPOINT = "http://169.254.169.254"
_CACHE = "/run/nginx_uwsgi_django/ec2_instance.json"
_CACHED = 300
#: Seconds for all questions together.
_LIMIT = 0.9
#: Seconds that a token is good for: it is used at once and forgotten.
_TOKEN_TTL = 30

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html: Nitro has the
# vendor, Xen the BIOS version "4.11.amazon" or the hypervisor's UUID.
_FIRMWARE = (
    ("/sys/class/dmi/id/sys_vendor", "amazon ec2"),
    ("/sys/class/dmi/id/bios_version", "amazon"),
    ("/sys/hypervisor/uuid", "ec2"),
)
_NAMES = ("public-hostname", "public-ipv4", "local-hostname", "local-ipv4")


def __virtual__() -> str:
    return __virtualname__


def is_ec2() -> bool:
    """
    Whether the firmware says that this is an EC2 instance. Nothing is asked over the network.

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' ec2_instance.is_ec2
    """
    for path, word in _FIRMWARE:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                if word in stream.read(256).lower():
                    return True
        except OSError:
            continue  # no such table on this kind of machine
    return False


class _Metadata:
    """A conversation with the metadata service, over one connection and within one time limit."""

    def __init__(self, endpoint: str) -> None:
        parts = urllib.parse.urlsplit(endpoint)
        if parts.scheme != "http" or not parts.hostname:
            raise CommandExecutionError(f"a metadata endpoint is an http URL, not {endpoint!r}")
        self.endpoint = endpoint
        self.until = time.monotonic() + _LIMIT
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_LIMIT)
        self.headers: dict[str, str] = {}

    def ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        try:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self.connection.timeout = left
            if self.connection.sock is not None:
                self.connection.sock.settimeout(left)
            self.connection.request(method, path, headers=headers)
            answer = self.connection.getresponse()
            return answer.status, answer.read(65536).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise CommandExecutionError(
                f"the instance metadata at {self.endpoint} did not answer {method} {path} within "
                f"{_LIMIT} s: {error or type(error).__name__} (is the metadata endpoint enabled, "
                "and its hop limit high enough for this place?)"
            ) from None

    def begin(self) -> None:
        status, token = self.ask(
            "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL)}
        )
        if status != 200:
            raise CommandExecutionError(
                f"the instance metadata at {self.endpoint} gave no token: {status}"
                + (" (the endpoint is disabled for this instance)" if status == 403 else "")
            )
        self.headers = {"X-aws-ec2-metadata-token": token}

    def get(self, path: str) -> str | None:
        """What is there; None when the instance has no such thing."""
        status, text = self.ask("GET", path, self.headers)
        if status == 404:
            return None
        if status != 200:
            raise CommandExecutionError(
                f"the instance metadata at {self.endpoint} answered {status} for {path}"
            )
        return text


def _gathered(endpoint: str) -> dict[str, Any]:
    service = _Metadata(endpoint)
    try:
        service.begin()
        identity = json.loads(service.get("/latest/dynamic/instance-identity/document") or "{}")
        meta = "/latest/meta-data"
        interface = f"{meta}/network/interfaces/macs/{service.get(f'{meta}/mac')}"
        groups = service.get(f"{interface}/security-group-ids")
        # 404 unless the instance lets its tags be read there (InstanceMetadataTags).
        tags = service.get(f"{meta}/tags/instance")
        facts = {
            "instance_id": identity.get("instanceId"),
            "region": identity.get("region"),
            "account": identity.get("accountId"),
            "availability_zone": identity.get("availabilityZone"),
            "security_groups": groups.split() if groups else [],
            "tags": {
                # A key in the metadata has neither a blank nor a slash.
                key: service.get(f"{meta}/tags/instance/{urllib.parse.quote(key)}") or ""
                for key in (tags or "").split()
            },
            "names": {name: service.get(f"{meta}/{name}") or None for name in _NAMES},
        }
        # Last, as it needs no token where IMDSv1 is still on.
        facts["imdsv1"] = service.ask("GET", f"{meta}/instance-id", {})[0] == 200
    except (ValueError, AttributeError) as error:
        raise CommandExecutionError(
            f"what answers at {endpoint} is no instance metadata: {error}"
        ) from None
    finally:
        service.connection.close()
    return facts


def facts(endpoint: str | None = None, refresh: bool = False) -> dict[str, Any]:
    """
    What the instance knows about itself.

    endpoint
        an http URL to ask instead of EC2's own, such as ``http://[fd00:ec2::254]``; it is asked
        whatever the firmware says
    refresh
        ask again, although the last answer is not five minutes old

    Returns an empty dictionary off EC2, else ``instance_id``, ``region``, ``account``,
    ``availability_zone``, ``security_groups`` (IDs, of the first interface), ``tags`` (a mapping;
    empty unless the instance shows them in its metadata), ``names`` (``public-hostname``,
    ``public-ipv4``, ``local-hostname``, ``local-ipv4``; None for one that it does not have) and
    ``imdsv1`` (whether the metadata can be read without a token, which it should not).

    Raises CommandExecutionError when the metadata does not answer within a second, refuses a token,
    or is something else.

    CLI Example:

    .. code-block:: bash

        salt '*' ec2_instance.facts
        salt '*' ec2_instance.facts refresh=True
    """
    if endpoint is None:
        if not is_ec2():
            return {}
        endpoint = _ENDPOINT
    if not refresh:
        kept = _kept(endpoint)
        if kept is not None:
            return kept
    found = _gathered(endpoint.rstrip("/"))
    durable_file.directory(os.path.dirname(_CACHE))
    durable_file.write(
        _CACHE, json.dumps({"endpoint": endpoint, "at": time.time(), "facts": found}), mode="0600"
    )
    return found


def _kept(endpoint: str) -> dict[str, Any] | None:
    content = durable_file.read(_CACHE)
    if content is None:
        return None
    kept = json.loads(content)
    if kept["endpoint"] != endpoint or not 0 <= time.time() - kept["at"] < _CACHED:
        return None
    return kept["facts"]
