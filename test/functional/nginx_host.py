"""
What the tests of nginx on a real host share.
"""

import contextlib
import http.client
import json
import re
import subprocess
import threading
import time
from collections.abc import Container, Iterator
from typing import Any

from ..hosts.host import Host
from ..hosts.salts import program

EMERGENCY = "/var/log/nginx/error.log"

# Everything about everything in the tree, with the times of change: what a run that touches nothing
# leaves exactly as it was.
_ROWS = """
import hashlib, json, os, sys
rows = {}
for root in sys.argv[1:]:
    for folder, folders, files in os.walk(root):
        for name in ["", *folders, *files]:
            path = os.path.join(folder, name) if name else folder
            seen = os.lstat(path)
            content = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = hashlib.sha256(open(path, "rb").read()).hexdigest()
            rows[path] = [seen.st_ino, seen.st_mode, seen.st_uid, seen.st_gid, seen.st_size,
                          seen.st_mtime_ns, seen.st_ctime_ns, content]
print(json.dumps(rows))
"""


def a_site(*names: str, **more: Any) -> dict[str, Any]:
    return {
        "server_names": list(names or ["*.compute.amazonaws.com"]),
        "project": {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings"},
        **more,
    }


# The ports that these tests open and close again.
_PORTS = [
    f"listen {host}:{port}"
    for port in (80, 443, 8080, 8081, 8082, 8083, 8443)
    for host in ("*", "127.0.0.1", "[::]")
]


def pillar(sites: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    top["nginx"] = {"allow_loss": _PORTS, **top.get("nginx", {})}
    return {"nginx_uwsgi_django": {"sites": sites or {"mysite": a_site()}, **top}}


class Killed(AssertionError):
    """Salt ended in the middle of a call."""


# Salt, loaded once: a call of salt-call takes a second and more before it does anything.
_CALLER = """
import json, sys
import salt.client, salt.config
opts = salt.config.minion_config(sys.argv[1])
caller = salt.client.Caller(mopts=opts)
for line in sys.stdin:
    function, given = json.loads(line)
    # Else a pillar is laid over the last one.
    caller.opts["pillar"] = caller.sminion.opts["pillar"] = {}
    caller.sminion.gen_modules(initial_load=True)
    try:
        answer = ["returned", caller.sminion.functions[function](**given)]
    except Exception as error:
        answer = ["raised", f"{type(error).__name__}: {error}"]
    print("=> " + json.dumps(answer), flush=True)
"""


class Salt:
    """Masterless Salt on a host, kept running between calls."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.pillar = pillar()
        self.start()

    def start(self) -> None:
        """Begin, or begin again after it was killed."""
        words = [program("3008", "python"), "-c", _CALLER, f"{self.host.salt_config()}/minion"]
        self.process = subprocess.Popen(
            [*self.host.enter(), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @contextlib.contextmanager
    def traced(self, *options: str) -> Iterator[None]:
        """With strace at it, whose counts of calls begin here; what it says is in /root/trace."""
        pid = self.host.run("pgrep", "-f", "salt.client.Caller").stdout.strip()
        script = 'echo $$ >/root/strace.pid; exec strace -o /root/trace -p "$@"'
        words = [*self.host.enter(), "sh", "-c", script, "sh", pid, *options]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            assert "attached" in strace.stderr.readline()
            yield
            # It has ended already when Salt has.
            self.host.run("kill $(cat /root/strace.pid)", check=False)

    def call(self, function: str, **given: Any) -> Any:
        """
        What an execution function returns; what it raises is an AssertionError, and Killed when
        Salt has ended.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([function, given]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("=> "):
                how, answer = json.loads(line[3:])
                assert how == "returned", answer
                return answer
        raise Killed(f"Salt ended with {self.process.wait()}")

    def state(self, function: str, test: bool = False, **given: Any) -> dict[str, Any]:
        """One state, by itself, with the pillar that is set: its result."""
        # As a file: given with the call it would be merged into the one that is there.
        self.host.set_pillar(self.pillar)
        name = given.pop("name", "nginx")
        if function in ("nginx_tree.applied", "site_certificate.issued"):
            # No uWSGI runs on these hosts.
            given.setdefault("unproven", True)
        (result,) = self.call(
            "state.single", **{"fun": function, "name": name, "test": test, **given}
        ).values()
        return dict(result)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


class Load:
    """Requests, one after another, each on a connection of its own."""

    def __init__(self, host: Host, port: int = 8080, path: str = "/", name: str = "") -> None:
        self.address, self.port, self.path = host.address, port, path
        self.headers = {"Host": name} if name else {}
        self.answers: list[bytes] = []
        self.failures: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                connection = http.client.HTTPConnection(self.address, self.port, timeout=10)
                connection.request("GET", self.path, headers=self.headers)
                answer = connection.getresponse()
                self.answers.append(answer.read())
                if answer.status != 200:
                    self.failures.append(f"{answer.status}")
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            time.sleep(0.005)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.3)
        self._over.set()
        self._thread.join()


def prepare(host: Host, *packages: str) -> None:
    """nginx as the distribution packages it, the workers' user, and the formula's modules."""
    host.run(
        "apt-get -q update && apt-get -q -y --no-install-recommends install nginx strace "
        + " ".join(packages),
        timeout=600,
    )
    host.run("useradd --system --shell /usr/sbin/nologin deploy")
    host.salt_call("saltutil.sync_all", pillar=pillar())


def rows(host: Host, *roots: str) -> dict[str, list[Any]]:
    """Every file under some directories with everything that is known about it."""
    return dict(json.loads(host.run("python3", "-c", _ROWS, *(roots or ("/etc/nginx",))).stdout))


def without_times(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Kind, owner and content."""
    return {path: [*row[1:5], row[7]] for path, row in found.items()}


def processes(host: Host) -> dict[int, str]:
    """nginx's processes by pid: the title, without the pids that the host gives no one else."""
    listing = host.run("pgrep", "--list-full", "nginx", check=False).stdout
    return {int(line.split()[0]): line.split(" ", 1)[1] for line in listing.splitlines()}


def workers(host: Host) -> set[int]:
    return {pid for pid, title in processes(host).items() if title == "nginx: worker process"}


def sites(host: Host) -> set[str]:
    return set(host.run("ls", "/etc/nginx/sites-enabled").stdout.split())


def leftovers(host: Host) -> str:
    places = "/etc /run/nginx_uwsgi_django /var/lib/nginx_uwsgi_django"
    names = "-name '.nginx_uwsgi_django*' -o -name '*.durable-*'"
    return str(host.run(f"find {places} {names} 2>/dev/null", check=False).stdout)


def salt_words(host: Host, function: str, **given: Any) -> list[str]:
    """The words of a masterless call, for running it under another program."""
    words = [program("3008", "salt-call"), "--local", f"--config-dir={host.salt_config()}"]
    words += ["--out=json", "--retcode-passthrough", "--log-level=warning", function]
    return [*words, *(f"{key}={value}" for key, value in given.items())]


def calls_of(trace: str, names: Container[str]) -> Iterator[tuple[str, int, str]]:
    """The calls of these names in a trace of strace's: name, which one of its name, and the rest."""
    counts: dict[str, int] = {}
    for line in trace.splitlines():
        seen = re.match(r"(\w+)\((.*)", line)
        if seen and seen[1] in names:
            counts[seen[1]] = counts.get(seen[1], 0) + 1
            yield seen[1], counts[seen[1]], seen[2]


class Clients:
    """Requests on new connections, from several clients at once."""

    def __init__(self, host: Host, *ports: int) -> None:
        self.address, self.ports = host.address, ports
        self.answered = 0
        self.failures: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(port,)) for port in ports * 2]

    def _work(self, port: int) -> None:
        while not self._over.is_set():
            connection = http.client.HTTPConnection(self.address, port, timeout=30)
            try:
                connection.request("GET", "/", headers={"Host": "x.compute.amazonaws.com"})
                answer = connection.getresponse()
                answer.read()
                # No uWSGI is behind it: 502 is nginx's own.
                assert answer.status == 502
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{port}: {error!r}")
            finally:
                connection.close()
            time.sleep(0.005)

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)
        self._over.set()
        for thread in self._threads:
            thread.join()
