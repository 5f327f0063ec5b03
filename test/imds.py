"""
An instance metadata service of the tests' own, on an address of this machine: EC2's is never asked.
"""

import http.server
import json
import threading
import time

_TOKEN = "a-token"

#: What an instance with a public name answers.
INSTANCE = {
    "/latest/dynamic/instance-identity/document": json.dumps(
        {
            "instanceId": "i-0123456789abcdef0",
            "region": "eu-central-1",
            "accountId": "123456789012",
            "availabilityZone": "eu-central-1a",
        }
    ),
    "/latest/meta-data/mac": "0a:00:00:00:00:01",
    "/latest/meta-data/network/interfaces/macs/0a:00:00:00:00:01/security-group-ids": "sg-1\nsg-2",
    "/latest/meta-data/tags/instance": "Name\nrole",
    "/latest/meta-data/tags/instance/Name": "web 1",
    "/latest/meta-data/tags/instance/role": "web",
    "/latest/meta-data/public-hostname": "ec2-192-0-2-7.eu-central-1.compute.amazonaws.com",
    "/latest/meta-data/public-ipv4": "192.0.2.7",
    "/latest/meta-data/local-hostname": "ip-10-0-0-7.eu-central-1.compute.internal",
    "/latest/meta-data/local-ipv4": "10.0.0.7",
    "/latest/meta-data/instance-id": "i-0123456789abcdef0",
}


class Imds:
    """
    A running service: ``endpoint``, ``asked`` (method and path of each request, in order),
    ``answers`` (by path, to be changed), ``v1`` (whether it answers without a token), ``delay``
    (seconds before each answer), ``token_status``, ``broken`` (paths that are answered with 500).
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.answers = dict(INSTANCE)
        self.asked: list[tuple[str, str]] = []
        self.ttl: str | None = None
        self.v1 = False
        self.delay = 0.0
        self.token_status = 200
        self.broken: set[str] = set()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def say(self, status: int, text: str = "") -> None:
                time.sleep(service.delay)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_PUT(self) -> None:
                service.asked.append(("PUT", self.path))
                service.ttl = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                self.say(service.token_status if service.ttl else 400, _TOKEN)

            def do_GET(self) -> None:
                service.asked.append(("GET", self.path))
                if self.headers["X-aws-ec2-metadata-token"] != _TOKEN and not service.v1:
                    self.say(401)
                elif self.path in service.broken:
                    self.say(500)
                elif self.path not in service.answers:
                    self.say(404, "not found")
                else:
                    self.say(200, service.answers[self.path])

            def log_message(self, *_: object) -> None:
                """Nothing: `asked` has it."""

        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://{address}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
