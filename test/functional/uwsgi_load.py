"""
Requests to a site on a throwaway host, over and over, while something is done to it.
"""

import json
from collections.abc import Callable
from typing import Any

from test.hosts.host import Host

# What both clients below share: threads that ask until told to stop, each at its own pace.  An
# answer that is not complete and right is lost.
_WORK = r"""
import http.client, json, os, re, socket, struct, sys, threading, time

RIGHT = re.compile(rb"one|v[0-9]+")
BODY = b"x" * 200000
lost, began, lock, longest = [], [], threading.Lock(), 0.0
asked = dict.fromkeys(("fast", "kept", "post", "slow"), 0)
seen, reopened = set(), 0
stop = threading.Event()

def right(kind, body):
    if kind == "post":
        return body == str(len(BODY)).encode()
    seen.add(body.decode("latin-1"))
    return RIGHT.fullmatch(body)

def work(kind, pause):
    global longest
    ask = asker(kind)
    while not stop.is_set():
        before = time.monotonic()
        try:
            ask()
        except (OSError, ValueError, http.client.HTTPException) as error:
            with lock:
                lost.append(f"{kind}: {error!r}")
                began.append(before)
        with lock:
            asked[kind] += 1
            if kind == "fast":
                longest = max(longest, time.monotonic() - before)
        stop.wait(pause)

def main():
    threads = [threading.Thread(target=work, args=(kind, pause)) for kind, pause in
               [("fast", 0.01)] * 3 + [("kept", 0.01)] * 2 + [("post", 0.02), ("slow", 0.01)]]
    for thread in threads:
        thread.start()
    open("/root/loaded", "w").close()
    while not os.path.exists("/root/enough"):
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    told = {"asked": sum(asked.values()), "kinds": asked, "lost": lost, "began": began, "longest": longest,
            "seen": sorted(seen), "reopened": reopened}
    with open("/root/result.new", "w") as result:
        json.dump(told, result)
    os.rename("/root/result.new", "/root/result")
"""

# Asks the site's socket as nginx would, without nginx's patience in between.
SOCKET = (
    _WORK
    + r"""
def request(path, query="", body=b""):
    values = {"REQUEST_METHOD": "POST" if body else "GET", "PATH_INFO": path,
              "REQUEST_URI": path, "QUERY_STRING": query, "SERVER_PROTOCOL": "HTTP/1.1",
              "SERVER_NAME": "www.example.org", "SERVER_PORT": "80", "REMOTE_ADDR": "127.0.0.1",
              "HTTP_HOST": "www.example.org", "CONTENT_TYPE": "application/octet-stream",
              "CONTENT_LENGTH": str(len(body)) if body else ""}
    data = b"".join(struct.pack("<H", len(t)) + t.encode() for pair in values.items() for t in pair)
    return struct.pack("<BHB", 0, len(data), 0) + data + body

PACKETS = {"fast": request("/"), "kept": request("/"), "post": request("/echo", body=BODY),
           "slow": request("/", "sleep=1.5")}

def asker(kind):
    def ask():
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(60)
            one.connect("/run/uwsgi/mysite.sock")
            one.sendall(PACKETS[kind])
            answer = b""
            while piece := one.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or not right(kind, body):
            raise ValueError(repr(answer[:60]))
    return ask
"""
)

# Asks nginx, as users do: on new connections, and on one that is kept.
NGINX = (
    _WORK
    + r"""
def asker(kind):
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=60)
    method, path, body = {"post": ("POST", "/echo", BODY), "slow": ("GET", "/?sleep=1.5", None),
                          }.get(kind, ("GET", "/", None))
    headers = {"Host": "www.example.org"}
    if kind != "kept":
        headers["Connection"] = "close"

    def once():
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200 or not right(kind, content):
            raise ValueError(f"{answer.status} {content[:60]!r}")

    def ask():
        global reopened
        kept = connection.sock is not None
        try:
            try:
                once()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A server may close a connection that is idle, and the next request may be on its
                # way by then: a client asks again, on a new one (RFC 9112, 9.3.1 and 9.5).
                if not kept:
                    raise
                connection.close()
                with lock:
                    reopened += 1
                once()
        except BaseException:
            connection.close()
            raise
    return ask
"""
)


def under_load(host: Host, script: str, act: Callable[[], Any]) -> dict[str, Any]:
    """
    Do something under load; returns what came of the requests: how many were ``asked`` (also by
    ``kinds``), which were ``lost`` and when those ``began`` (by the monotonic clock), the ``longest`` that a fast one took in seconds, which bodies
    were ``seen``, and how many kept connections were ``reopened``.
    """
    host.write("/root/load.py", script + "\nmain()\n")
    host.run(
        "rm -f /root/enough /root/loaded /root/result; "
        "(python3 /root/load.py >/root/load.log 2>&1 &); "
        "until [ -e /root/loaded ]; do sleep 0.1; done; sleep 1"
    )
    try:
        act()
    finally:
        host.run(
            "sleep 2; touch /root/enough; for i in $(seq 900); do "
            "[ -s /root/result ] && break; sleep 0.1; done; cat /root/load.log"
        )
    told: dict[str, Any] = json.loads(host.read("/root/result"))
    return told
