"""
The tables and the plot that the documentation shows.
"""

import pathlib
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "docs" / "benchmark"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def converging(results: dict[str, Any]) -> str:
    """The tables of the runs of states, in Markdown."""
    lines = [f"- {tool}: {version}" for tool, version in results["versions"].items()]
    for size in results["sizes"]:
        floor = size["floor"]
        many = "sites" if size["sites"] > 1 else "site"
        lines += [
            "",
            f"### {size['sites']} {many} (floor: {_seconds(floor)} s)",
            "",
            f"Measured on {size['date']}, {size['machine']}; medians of {size['repeat']} runs, "
            "the tools by turns; the first run is one run.",
            "",
            "| | first run | nothing to do | × floor | one site changed | × nothing to do "
            "| processor | peak memory | processes | files written |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for tool, row in size["tools"].items():
            lines.append(
                f"| {tool} | {_seconds(row['first'])} s | {_seconds(row['nothing'])} s "
                f"| {row['nothing'] / floor:.1f} | {_seconds(row['changed'])} s "
                f"| {row['changed'] / row['nothing']:.2f} | {_seconds(row['cpu'])} s "
                f"| {row['memory'] / 2**20:.0f} MiB | {row['processes']} | {row['files']} |"
            )
        lines += ["", f"`manage.py check` of all sites, on its own: {_seconds(size['checks'])} s."]
    return "\n".join(lines) + "\n"


def served(results: dict[str, Any]) -> str:
    """The table of the served path, in Markdown."""
    lines = [
        f"Measured on {results['date']}, {results['machine']}; {results['seconds']} s each, "
        f"{results['connections']} connections, medians of {results['repeat']} by turns.",
        "",
        "| | " + " | ".join(f"{what}: requests/s | p99" for what in results["what"]) + " |",
        "| --- |" + " ---: | ---: |" * len(results["what"]),
    ]
    for way, row in results["ways"].items():
        cells = [
            f"{row[what]['rate']:.0f} | {row[what]['p99'] * 1000:.1f} ms"
            if row[what]["failed"] == 0
            else f"{row[what]['rate']:.0f} ({row[what]['failed']} failed) | "
            f"{row[what]['p99'] * 1000:.1f} ms"
            for what in results["what"]
        ]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any], path: pathlib.Path) -> None:
    """Nothing to do, and the first run, by the number of sites."""
    import matplotlib

    matplotlib.use("svg")
    # The same numbers give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "nginx_uwsgi_django"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.6))
    for ax, key, title in zip(
        axes, ("nothing", "first"), ("nothing to do", "first run"), strict=True
    ):
        for tool in results["versions"]:
            points = [
                (size["sites"], size["tools"][tool][key])
                for size in results["sizes"]
                if tool in size["tools"]
            ]
            ax.plot(*zip(*points, strict=True), marker="o", label=tool)
        if key == "nothing":
            floors = [(size["sites"], size["floor"]) for size in results["sizes"]]
            ax.plot(*zip(*floors, strict=True), linestyle=":", color="gray", label="floor")
        ax.set(xscale="log", yscale="log", xlabel="sites", ylabel="seconds", title=title)
        ax.grid(True, which="both", alpha=0.3)
    # Below: inside it would lie over points.
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, format="svg", metadata={"Date": None})
