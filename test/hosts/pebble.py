"""
A real ACME server on a throwaway host: Debian's ``pebble``, which Let's Encrypt made for tests.
"""

import json
from typing import Any

from .host import Host

_EC = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
_CONFIG = {
    "pebble": {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": "/opt/pebble/cert.pem",
        "privateKey": "/opt/pebble/key.pem",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "certificateValidityPeriod": 90 * 86400,
    }
}


def start(host: Host, *names: str) -> dict[str, Any]:
    """
    Install it and let it run, with some names that lead to the host itself.

    Returns the pillar's ``acme``.
    """
    host.run(
        "apt-get -q update && apt-get -q -y --no-install-recommends install pebble openssl curl",
        timeout=600,
    )
    host.run(f"echo 127.0.0.1 {' '.join(names)} >> /etc/hosts && mkdir -p /opt/pebble")
    host.write("/opt/pebble/config.json", json.dumps(_CONFIG))
    host.run(
        f"cd /opt/pebble && openssl req -x509 {_EC} -subj /CN=authority -keyout ca.key -out ca.pem"
        f" && openssl req {_EC} -subj /CN=localhost -keyout key.pem -out csr.pem"
        " && echo subjectAltName=DNS:localhost > names && openssl x509 -req -in csr.pem -CA ca.pem"
        " -CAkey ca.key -CAcreateserial -days 30 -extfile names -out cert.pem"
        # It has habits to test clients with, which take time.
        " && systemd-run --unit=pebble -E PEBBLE_VA_NOSLEEP=1 -E PEBBLE_WFE_NONCEREJECT=0"
        " pebble -config /opt/pebble/config.json"
    )
    return {
        "terms_agreed": True,
        "email": "ops@example.org",
        "directory": "https://localhost:14000/dir",
        "ca": "/opt/pebble/ca.pem",
    }
