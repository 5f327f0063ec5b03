"""
What a master takes for a rollout, by the number of minions; docs/scale.md shows it.

Two kinds of minions. *real*: a throwaway host each, with the formula's site, which a rollout changes.
*crowd*: many ``salt-minion`` processes on one host that has the site; each makes a real dry run of the
whole formula there, asked by a rollout that finds nothing to change. To a master a dry run is as much
work as a run: the same pillar, the same questions to the file server, a return of the same size.

The master has a host of its own, so what crosses that host's interface is what it says to minions (and
to the sites of real ones) and hears from them. The processor's time is that of the unit's control
group, the memory the proportional set size of its processes, looked at once a second.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from test.hosts import cgroup
from test.hosts.daemon import master_config, serve
from test.hosts.host import Host
from test.hosts.paths import FORMULA, HostError
from test.hosts.salts import VERSIONS, program

from . import measure
from .tools import SALT

PAGE = FORMULA / "docs" / "scale.md"
# How large a fleet the law is asked about.
FLEETS = (1000, 10000)
_PATIENCE = 3000
_MASTER = "salt-master"

# Without the second process that would only start the first one again.
_CROWD_UNIT = """\
[Unit]
Description=minion %i of a crowd

[Service]
LimitNOFILE=100000
ExecStart={program} --config-dir=/etc/salt/crowd/%i --disable-keepalive --log-level=error
"""


@dataclasses.dataclass
class Taken:
    """
    What a command took. Seconds: ``wall``, ``master`` (the daemon's processor time), ``runner`` (that
    of ``salt-run``). Bytes: ``memory`` (the daemon's at its most), ``sent`` and ``received`` by the
    master's host.
    """

    wall: float
    master: float
    runner: float
    memory: int
    sent: int
    received: int


class Master:
    """A master on a host of its own, and the means to see what it takes."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.host = stack.enter_context(Host.create(f"scale-master-{Host.tag()}"))
        config = master_config(worker_threads=5, timeout=60)
        self.host.write("/etc/salt/master", json.dumps(config))
        self.host.set_pillar(pillar())
        serve(self.host, _MASTER, SALT)

    def _group(self, file: str) -> str:
        for path in cgroup.paths(self.host.name):
            found = path / f"payload/system.slice/{_MASTER}.service" / file
            if found.exists():
                return found.read_text("ascii")
        raise HostError(f"the control group of {_MASTER} has no {file}")

    def processor(self) -> float:
        """The seconds of the processor that the daemon has had since it was started."""
        found = re.search(r"^usage_usec (\d+)$", self._group("cpu.stat"), re.MULTILINE)
        if not found:
            raise HostError("this machine does not count a control group's processor time")
        return int(found[1]) / 1e6

    def memory(self) -> int:
        """The bytes of memory that the daemon's processes have now, what they share counted once."""
        total = 0
        for pid in self._group("cgroup.procs").split():
            # One that has ended meanwhile has none.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
                total += sum(int(size) for size in re.findall(r"^Pss: +(\d+) kB$", text, re.M))
        return total * 1024

    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received by the host."""
        row = re.search(r"^ *host0: *(.*)$", self.host.read("/proc/net/dev"), re.MULTILINE)
        if not row:
            raise HostError("the master's host has no interface host0")
        words = row[1].split()
        return int(words[8]), int(words[0])

    @contextlib.contextmanager
    def _peak(self) -> Iterator[list[int]]:
        seen = [self.memory()]
        over = threading.Event()

        def look() -> None:
            while not over.wait(1):
                seen.append(self.memory())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()

    def take(self, function: str, *words: str) -> Taken:
        """
        ``salt-run FUNCTION``, measured.

        Raises measure.Failed, with what it said, when it does not end well or a minion is missing.
        """
        command = [program(SALT, "salt-run"), "--config-dir=/etc/salt", "--out=json", function]
        processor, (sent, received) = self.processor(), self.traffic()
        with self._peak() as seen:
            done = measure.run(self.host, [*command, *words], timeout=_PATIENCE)
        now = self.traffic()
        if ": false" in done.said:
            # A minion that rollout_jobs.find has not found: what it would take is missing.
            raise measure.Failed(f"salt-run {function}:\n{done.said}")
        return Taken(
            wall=done.wall,
            master=self.processor() - processor,
            runner=done.cpu,
            memory=max(seen),
            sent=now[0] - sent,
            received=now[1] - received,
        )

    def idle(self, seconds: float = 20) -> dict[str, float]:
        """What it takes each second while nobody asks for anything."""
        processor, traffic = self.processor(), self.traffic()
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        now = self.traffic()
        return {
            "master": (self.processor() - processor) / took,
            "bytes": (sum(now) - sum(traffic)) / took,
        }

    def wait(self, names: list[str], seconds: float = 600) -> None:
        """Until they all answer."""
        deadline = time.monotonic() + seconds
        command = [program(SALT, "salt-run"), "--config-dir=/etc/salt", "--out=json"]
        while True:
            asked = [*command, "rollout_jobs.find", ",".join(names), "list", "timeout=30"]
            there = json.loads(self.host.run(*asked, timeout=300).stdout)
            missing = [name for name in names if not there.get(name)]
            if not missing:
                return
            if time.monotonic() > deadline:
                raise HostError(f"{len(missing)} minions do not answer: {', '.join(missing[:5])}")


def pillar(processes: int = 2) -> dict[str, Any]:
    """The site of pillar.example."""
    site = {
        "server_names": ["*.compute.amazonaws.com", "localhost"],
        "client_max_body_size": "128M",
        "project": {
            "path": "/srv/mysite",
            "source": {"salt": "salt://examples/mysite"},
            "wsgi": "mysite.wsgi:application",
            "settings": "mysite.settings",
            "requirements": "requirements.txt",
            "env": {"DJANGO_ALLOWED_HOSTS": "*"},
        },
        "uwsgi": {"processes": processes},
    }
    return {
        "nginx_uwsgi_django": {
            "nginx": {"user": "deploy"},
            # What a rollout takes is asked, not how the hosts of a busy machine do meanwhile.
            "rollout": {"slower": 10000},
            "sites": {"mysite": site},
        }
    }


def _config(name: str, master: Master, **more: Any) -> str:
    return json.dumps(
        {"id": name, "master": master.host.address, "enable_fqdns_grains": False, **more}
    )


def _real(sizes: list[int], say: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    with contextlib.ExitStack() as stack:
        master = Master(stack)
        hosts: list[Host] = []
        for size in sizes:
            while len(hosts) < size:
                name = f"real{len(hosts):02d}"
                host = stack.enter_context(Host.create(f"{name}-{Host.tag()}"))
                hosts.append(host)
                host.write("/etc/salt/minion", _config(name, master))
                serve(host, "salt-minion", SALT)
                master.wait([name])
                # Brought up here, one by one: what a bare host takes is not what is measured.
                master.take("rollout.apply", name, "timeout=1800", "ping=60")
            # All have the same now, whatever the sizes before have left.
            ways = ["real*", "ping=60", "timeout=1800"]
            master.take("rollout.apply", *ways)
            row: dict[str, Any] = {"minions": size}
            row["dry"] = vars(master.take("rollout.apply", *ways, "test=True"))
            master.host.set_pillar(pillar(processes=3 + sizes.index(size) % 2))
            row["change"] = vars(master.take("rollout.apply", *ways))
            say(f"{size} real minions: {row}")
            rows.append(row)
    return rows


def _crowd(sizes: list[int], say: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    with contextlib.ExitStack() as stack:
        master = Master(stack)
        host = stack.enter_context(Host.create(f"scale-crowd-{Host.tag()}"))
        unit = _CROWD_UNIT.format(program=program(SALT, "salt-minion"))
        host.write("/etc/systemd/system/crowd@.service", unit)
        here = 0
        for size in sizes:
            new = [f"crowd{number:03d}" for number in range(here, size)]
            for name in new:
                # Each has its keys, caches and sockets below a directory of its own.
                root = f"/var/lib/crowd/{name}"
                host.run("mkdir", "-p", root)
                config = _config(name, master, root_dir=root)
                host.write(f"/etc/salt/crowd/{name}/minion", config)
            # A few at a time: all at once they would not get a processor before they give up.
            for start in range(0, len(new), 8):
                some = new[start : start + 8]
                host.run("systemctl", "start", *(f"crowd@{name}" for name in some))
                master.wait(some)
            if not here:
                # The host gets its site, by the first of them.
                master.take("rollout.apply", new[0], "timeout=1800", "ping=60")
                new = new[1:]
            here = size
            row: dict[str, Any] = {"minions": size, "new": len(new)}
            again = ["crowd*", "ping=60", "timeout=2400", "test=True"]
            if new:
                first = [",".join(new), "list", *again[1:]]
                row["first"] = vars(master.take("rollout.apply", *first))
            row["ping"] = vars(master.take("rollout_jobs.find", "crowd*", "timeout=120"))
            row["dry"] = vars(master.take("rollout.apply", *again))
            row["idle"] = master.idle()
            say(f"{size} minions in a crowd: {row}")
            rows.append(row)
    return rows


def measured(real: list[int], crowd: list[int], say: Callable[[str], None]) -> dict[str, Any]:
    """
    All of it; ``real`` and ``crowd`` are the numbers of minions, rising.

    Raises HostError for fewer than two: no line goes through one point.
    """
    for sizes in (real, crowd):
        if len(sizes) < 2 or sizes != sorted(set(sizes)) or sizes[0] < 1:
            raise HostError(f"two numbers of minions at least, rising, from 1 on: not {sizes}")
    return {
        "salt": VERSIONS[SALT],
        "crowd": _crowd(crowd, say),
        "real": _real(real, say),
    }


# --- The law -------------------------------------------------------------------------------------


def law(sizes: list[int], values: list[float]) -> dict[str, float]:
    """
    The line through what was measured, by least squares: ``fixed``, ``each`` (per minion), ``off`` (the
    largest distance of a value from the line, in parts of the value), and ``power``, the slope of the
    logarithms: near 1 at the large end where it grows as the number of minions does.
    """
    line = statistics.linear_regression(sizes, values)
    off = max(
        abs(line.intercept + line.slope * size - value) / value
        for size, value in zip(sizes, values, strict=True)
    )
    large = [pair for pair in zip(sizes, values, strict=True) if pair[0] >= max(sizes) / 8]
    power = statistics.linear_regression(
        [math.log(size) for size, _ in large], [math.log(value) for _, value in large]
    ).slope
    return {"fixed": line.intercept, "each": line.slope, "off": off, "power": power}


def laws(rows: list[dict[str, Any]], what: str) -> dict[str, dict[str, float]]:
    """The law of each quantity of a kind of command."""
    sizes = [row["minions"] for row in rows]
    columns: dict[str, Callable[[dict[str, Any]], float]] = {
        "master": lambda taken: taken["master"],
        "runner": lambda taken: taken["runner"],
        "memory": lambda taken: taken["memory"] / 2**20,
        "sent": lambda taken: taken["sent"] / 1000,
        "received": lambda taken: taken["received"] / 1000,
    }
    return {name: law(sizes, [pick(row[what]) for row in rows]) for name, pick in columns.items()}


_UNITS = {"master": "s", "runner": "s", "memory": "MiB", "sent": "kB", "received": "kB"}
_NAMES = {
    "master": "processor, `salt-master`",
    "runner": "processor, `salt-run`",
    "memory": "memory of `salt-master` at its most",
    "sent": "bytes sent by the master",
    "received": "bytes received by the master",
}
_HEAD = [
    "| minions | wall | processor, master | processor, runner | memory | sent | received "
    "| sent and received per minion |",
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
]


def _number(value: float) -> str:
    """Three digits, as people write them."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _row(count: int, taken: dict[str, Any]) -> str:
    each = (taken["sent"] + taken["received"]) / count / 1000
    return (
        f"| {count} | {_number(taken['wall'])} s | {_number(taken['master'])} s "
        f"| {_number(taken['runner'])} s | {_number(taken['memory'] / 2**20)} MiB "
        f"| {_number(taken['sent'] / 1000)} kB | {_number(taken['received'] / 1000)} kB "
        f"| {_number(each)} kB |"
    )


def table(results: dict[str, Any]) -> str:
    """All tables, in Markdown."""
    crowd, real = results["crowd"], results["real"]
    lines = [
        f"Measured on {results['date']}, {results['machine']}, Salt {results['salt']} on all hosts, "
        "five worker threads.",
        "",
        "A dry run of a crowd (`rollout.apply 'crowd*' test=True`, nothing to change):",
        "",
        *_HEAD,
        *(_row(row["minions"], row["dry"]) for row in crowd),
        "",
        "The same, asked of minions that are new (they fetch the formula's modules and files):",
        "",
        *_HEAD,
        *(_row(row["new"], row["first"]) for row in crowd if "first" in row),
        "",
        "`rollout_jobs.find`, a `test.ping` of all:",
        "",
        *_HEAD,
        *(_row(row["minions"], row["ping"]) for row in crowd),
        "",
        "Real hosts, the dry run alone:",
        "",
        *_HEAD,
        *(_row(row["minions"], row["dry"]) for row in real),
        "",
        "Real hosts, the whole rollout (`canary=1 batch=25%`, a window of 10 s before and after each "
        "batch; the number of uWSGI's processes changes on each host):",
        "",
        *_HEAD,
        *(_row(row["minions"], row["change"]) for row in real),
        "",
        "The lines through these (least squares; *off*: the largest distance of a measured value from "
        "the line; *power*: the slope of the logarithms over the larger half, 1 is proportional):",
        "",
        "| | | fixed | per minion | off | power |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    kinds = (
        ("crowd, `test.ping`", crowd, "ping"),
        ("crowd, dry run", crowd, "dry"),
        ("real, whole rollout", real, "change"),
    )
    for title, rows, what in kinds:
        for name, found in laws(rows, what).items():
            unit = _UNITS[name]
            lines.append(
                f"| {title} | {_NAMES[name]} | {_number(found['fixed'])} {unit} "
                f"| {_number(found['each'])} {unit} | {found['off']:.0%} | {found['power']:.2f} |"
            )
    quiet = crowd[-1]
    lines += [
        "",
        f"With {quiet['minions']} minions and nothing asked of them, the master takes "
        f"{quiet['idle']['master'] * 100:.1f}% of a processor and {quiet['idle']['bytes']:,.0f} "
        "bytes/s.",
        "",
        "Computed from the lines, not measured. Without the memory: how it grows with the minions and how "
        "with the jobs that the same processes have had is not told apart here.",
        "",
        "| | | " + " | ".join(f"{size:,} minions" for size in FLEETS) + " |",
        "| --- | --- |" + " ---: |" * len(FLEETS),
    ]
    for title, rows, what in kinds:
        for name, found in laws(rows, what).items():
            if name == "memory":
                continue
            cells = " | ".join(
                f"{_number(found['fixed'] + found['each'] * size)} {_UNITS[name]}"
                for size in FLEETS
            )
            lines.append(f"| {title} | {_NAMES[name]} | {cells} |")
    return "\n".join(lines) + "\n"


def put(results: dict[str, Any], page: pathlib.Path = PAGE) -> None:
    """Write the tables between the marks of the page, whose words stay."""
    text = page.read_text("utf-8")
    begin, end = "<!-- bin/bench scale writes from here -->\n", "<!-- to here -->\n"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise HostError(f"{page} has lost the marks between which the tables are")
    page.write_text(f"{before}{begin}\n{table(results)}\n{end}{after}", "utf-8")
