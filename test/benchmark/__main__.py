"""
Run the benchmarks and write docs/benchmark: bin/bench [converging|served|scale] [--sites N ...] [--repeat N]
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from typing import Any

from test.hosts.host import Host
from test.hosts.tools import ensure_tools

from . import job, measure, report, scale, served
from .tools import TOOLS, Ansible, CheckingStock, Pyinfra, Stock, Tool, floor

# Above that many sites a run of one of these takes longer than the rest together.
_LIMITS = {Stock.name: 100, CheckingStock.name: 100, Pyinfra.name: 10, Ansible.name: 10}


def _say(words: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {words}", flush=True)


def _machine() -> str:
    with open("/proc/meminfo", encoding="ascii") as table:
        kilobytes = int(next(table).split()[1])
    return (
        f"{os.cpu_count()} processors, {kilobytes / 2**20:.0f} GiB, Linux {platform.release()}, "
        "hosts of Debian 12"
    )


def _measured(host: Host, command: list[str], into: list[measure.Taken]) -> None:
    into.append(measure.run(host, command))


def _one_size(count: int, kinds: list[type[Tool]], repeat: int) -> dict[str, Any]:
    tools: list[Tool] = []
    rows: dict[str, dict[str, Any]] = {}
    try:
        for kind in kinds:
            host = Host.create(f"bench-{kind.__name__.lower()}-{Host.tag()}")
            tool = kind(host)
            tools.append(tool)
            job.prepare(host, count)
            tool.install()
            tool.want(count)
            # What apt, pip and the making of the projects wrote is not flushed on the tool's account.
            os.sync()
            first = measure.run(host, tool.command())
            _say(f"{count} sites, {tool.name}: {first.wall:.1f} s for the first run")
            # What only a second run settles (a cache that is warm) is no news.
            measure.run(host, tool.command())
            rows[tool.name] = {"first": first.wall, "version": tool.version()}
        nothing: dict[str, list[measure.Taken]] = {tool.name: [] for tool in tools}
        changed: dict[str, list[measure.Taken]] = {tool.name: [] for tool in tools}
        floors: list[measure.Taken] = []
        for turn in range(repeat):
            _measured(tools[0].host, floor(tools[0].host), floors)
            for tool in tools:
                # Right after the run with nothing to do that it is divided by: with the other tools'
                # turns between them the ratio was that of a machine that idled and one that did not.
                _measured(tool.host, tool.command(), nothing[tool.name])
                tool.want(count, job.BODY_SIZES[(turn + 1) % 2])
                _measured(tool.host, tool.command(), changed[tool.name])
                # The next turn begins where this one ended.
        for tool in tools:
            counts = measure.counted(tool.host, tool.command())
            quiet = nothing[tool.name]
            rows[tool.name].update(
                nothing=statistics.median(one.wall for one in quiet),
                cpu=statistics.median(one.cpu for one in quiet),
                memory=statistics.median(one.memory for one in quiet),
                changed=statistics.median(one.wall for one in changed[tool.name]),
                **counts,
            )
            _say(f"{count} sites, {tool.name}: {rows[tool.name]}")
        return {
            "sites": count,
            "date": f"{datetime.date.today():%Y-%m-%d}",
            "machine": _machine(),
            "repeat": repeat,
            "floor": statistics.median(one.wall for one in floors),
            "checks": measure.run(tools[0].host, job.checks(count)).wall,
            "tools": rows,
        }
    finally:
        for tool in tools:
            tool.host.remove()


def _converging(arguments: argparse.Namespace) -> None:
    # What is not measured in this turn stays, with its date.
    known = report.FOLDER / "converging.json"
    results = json.loads(known.read_text()) if known.exists() else {"sizes": [], "versions": {}}
    for count in arguments.sites:
        kinds = [
            kind
            for kind in TOOLS
            if arguments.whole or count <= _LIMITS.get(kind.name, sys.maxsize)
        ]
        size = _one_size(count, kinds, arguments.repeat)
        for tool, row in size["tools"].items():
            results["versions"][tool] = row.pop("version")
        others = [other for other in results["sizes"] if other["sites"] != count]
        results["sizes"] = sorted([*others, size], key=lambda size: size["sites"])
        _write("converging", results, report.converging)
    report.plot(results, report.FOLDER / "converging.svg")


def _served(arguments: argparse.Namespace) -> None:
    results = served.measured(arguments.repeat, _say)
    results.update(date=f"{datetime.date.today():%Y-%m-%d}", machine=_machine())
    _write("served", results, report.served)


def _scale(arguments: argparse.Namespace) -> None:
    results = scale.measured(arguments.real, arguments.crowd, _say)
    results.update(date=f"{datetime.date.today():%Y-%m-%d}", machine=_machine())
    (report.FOLDER / "scale.json").write_text(json.dumps(results, indent=1) + "\n")
    scale.put(results)
    print(scale.table(results), flush=True)


def _write(name: str, results: dict[str, Any], table: Callable[[dict[str, Any]], str]) -> None:
    """The numbers, and the page made of them."""
    report.FOLDER.mkdir(exist_ok=True)
    (report.FOLDER / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (report.FOLDER / f"{name}.md").write_text(table(results))
    print(table(results), flush=True)


def main() -> None:
    """Do what the words say."""
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__)
    parser.add_argument("what", nargs="*", help="converging, served, scale (default: all)")
    parser.add_argument("--sites", nargs="+", type=int, default=[1, 10, 100, 1000])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--real", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--crowd", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--whole", action="store_true", help="every tool at every size: hours")
    arguments = parser.parse_args()
    ways = {"converging": _converging, "served": _served, "scale": _scale}
    unknown = set(arguments.what) - set(ways)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(ways)}")
    ensure_tools()
    for what in arguments.what or ways:
        ways[what](arguments)


if __name__ == "__main__":
    main()
