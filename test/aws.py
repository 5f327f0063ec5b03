"""
EC2's API as the tests have it: moto's server on loopback, behind a door that notes what is asked
and can answer in moto's stead, as AWS does when it throttles.
"""

import http.client
import http.server
import json
import threading
import urllib.parse
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
_ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>
<RequestID>ea966190-f9aa-478e-9ede-example</RequestID></Response>"""


class Aws:
    """
    A running API: ``endpoint``; ``moto`` (the same without the door, and S3 too); ``actions`` (the actions asked for, in order, with ``+CreateTags``
    after one that tags what it makes), ``dry`` (those that were dry runs), ``refuse`` (from an
    action to the (status, code, message) answers that it gets, one each time, before moto is asked).
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.actions: list[str] = []
        self.dry: list[str] = []
        self.refuse: dict[str, list[tuple[int, str, str]]] = {}
        self._session = boto3.session.Session("x", "x")
        self._clients: dict[str, Any] = {}
        self._moto = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
        self._moto.start()
        host, port = self._moto.get_host_and_port()
        self.moto = f"http://{host}:{port}"
        aws = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = aws._answer(self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing: `actions` has it."""

        self._door = http.server.ThreadingHTTPServer((address, 0), Handler)
        self._door.daemon_threads = True
        self.endpoint = f"http://{address}:{self._door.server_port}"
        threading.Thread(target=self._door.serve_forever, daemon=True).start()

    def _answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        asked = dict(urllib.parse.parse_qsl(body.decode()))
        action = asked["Action"]
        self.actions.append(action)
        if asked.get("DryRun") == "true":
            self.dry.append(action)
        if any(key.startswith("TagSpecification.") for key in asked):
            self.actions.append("+CreateTags")
        if self.refuse.get(action):
            status, code, message = self.refuse[action].pop(0)
            return status, _ERROR.format(code=code, message=message).encode()
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.moto).netloc)
        # As it came, Host and all: it is signed.
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def client(self, service: str) -> Any:
        """A client of moto itself, as somebody who may do everything."""
        if service not in self._clients:
            self._clients[service] = self._session.client(
                service, region_name=REGION, endpoint_url=self.moto
            )
        return self._clients[service]

    def user(self, policy: dict[str, Any]) -> dict[str, str]:
        """The credentials, as environment variables, of a new user who may what a policy says."""
        iam = self.client("iam")
        iam.create_user(UserName="web")
        iam.put_user_policy(UserName="web", PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="web")["AccessKey"]
        return {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def enforce(self, after: int = 0) -> None:
        """From so many calls on, everybody may what their policies say, and nothing else."""
        self._control("reset-auth", str(after))

    def reset(self) -> None:
        """Forget everything."""
        self._control("reset-auth", "9999999")
        self._control("reset", "")
        self.actions, self.dry, self.refuse = [], [], {}

    def _control(self, what: str, body: str) -> None:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.moto).netloc)
        connection.request("POST", f"/moto-api/{what}", body)
        assert connection.getresponse().status == 200

    def close(self) -> None:
        """Answer no more."""
        self._door.shutdown()
        self._door.server_close()
        self._moto.stop()
