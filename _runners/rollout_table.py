"""
The state of a fleet in a table on a terminal. Shows only: asks nobody.

.. versionadded:: 0.1.0
"""

import textwrap
from typing import Any

__virtualname__ = "rollout_table"

# The narrowest host column that is worth having, and the columns that go first for it.
_HOST = 20
_SPARE = ("UWSGI", "NGINX", "OS", "DRIFT", "CERT")
# So many sentences are shown of each host; the others are in the data.
_MOST = 8


def __virtual__() -> str:
    return __virtualname__


def plain(words: Any) -> str:
    """
    What a host says, as it may be shown on a terminal: one line without control characters, which
    could rewrite the screen.

    words
        whatever it says

    CLI Example:

    .. code-block:: bash

        salt-run rollout_table.plain hello
    """
    line = " ".join(str(words).split())
    return "".join(one if one.isprintable() else "?" for one in line)


def cells(name: str, host: dict[str, Any]) -> dict[str, str]:
    """
    A host's row.

    name
        its id
    host
        what ``nginx_uwsgi_django.report`` said there, or ``verdict`` and ``errors`` alone

    Returns the cells by the heads of their columns.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_table.cells web1 '{"verdict": "silent", "errors": []}'
    """
    sites = host.get("sites", {})
    left = [
        end["days_left"]
        for end in (site.get("certificate") for site in sites.values())
        if end and "days_left" in end
    ]
    pending = host.get("pending")
    asked = [site for site in sites.values() if site.get("healthy") is not None]
    well = sum(bool(site["healthy"]) for site in asked)
    row = {
        "HOST": name,
        "STATE": host["verdict"],
        "SITES": f"{well}/{len(sites)}" if asked else f"{len(sites)}" if "sites" in host else "",
        "PENDING": "" if pending is None else f"{len(pending['changes'])}",
        "DRIFT": f"{len(host['drift'])}" if "drift" in host else "",
        "CERT": f"{min(left)} d" if left else "",
        "SALT": host.get("salt", ""),
        "OS": host.get("os", ""),
        "NGINX": host.get("nginx", {}).get("version") or "",
        "UWSGI": " ".join(host.get("uwsgi", [])),
    }
    return {head: plain(cell) for head, cell in row.items()}


def render(report: dict[str, Any], width: int = 100) -> str:
    """
    The table: a line for each host in the order of the report, and below it what is wrong there.

    report
        what ``rollout.report`` returns
    width
        columns of the terminal; with too few of them, less important columns are left out

    Returns lines of text.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_table.render '{"hosts": {}, "summary": {}}'
    """
    rows = {name: cells(name, host) for name, host in report["hosts"].items()}
    heads = list(cells("", {"verdict": ""}))

    def wide(head: str) -> int:
        return max([len(head), *(len(row[head]) for row in rows.values())])

    # A column that is empty everywhere says nothing.
    heads = [head for head in heads if any(row[head] for row in rows.values())]
    for spare in _SPARE:
        rest = sum(wide(head) + 2 for head in heads if head != "HOST")
        if rest + min(wide("HOST"), _HOST) <= width:
            break
        heads = [head for head in heads if head != spare]
    room = max(width - sum(wide(head) + 2 for head in heads if head != "HOST"), 8)

    def line(row: dict[str, str]) -> str:
        shown = []
        for head in heads:
            size = min(wide("HOST"), room) if head == "HOST" else wide(head)
            cell = row[head] if len(row[head]) <= size else f"{row[head][: size - 1]}…"
            shown.append(cell.ljust(size))
        return "  ".join(shown).rstrip()

    lines = [line({head: head for head in heads})] if rows else []
    for name, row in rows.items():
        lines.append(line(row))
        host = report["hosts"][name]
        told = [f"! {plain(words)}" for words in host.get("errors", [])]
        told += [f"- {plain(words)}" for words in host.get("warnings", [])]
        if len(told) > _MOST:
            told[_MOST:] = [f"- and {len(told) - _MOST} more"]
        for words in told:
            lines += textwrap.wrap(
                words, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
            )
    counted = ", ".join(f"{number} {verdict}" for verdict, number in report["summary"].items())
    total = len(rows)
    lines.append(f"{total} host{'' if total == 1 else 's'}: {counted or 'nothing'}")
    return "\n".join(lines)
