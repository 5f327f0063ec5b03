"""
The state of a fleet as one page of HTML that needs nothing else: no server, no network. Shows only:
asks nobody.

What hosts say may be hostile: every word of it is escaped, and should that ever fail, the page's
own policy lets no script and no style in but the two that are written here, known by their digests.

.. versionadded:: 0.1.0
"""

import base64
import hashlib
import html
from typing import Any

__virtualname__ = "rollout_page"

_STYLE = """
:root {
  color-scheme: light dark;
  --back: #fff; --text: #1b1f24; --faint: #57606a; --line: #d0d7de; --head: #f3f5f7;
  --error: #b3141d; --warning: #8a5300; --pending: #0b5cad; --well: #19692c;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --back: #14171b; --text: #e4e8ec; --faint: #9aa5b1; --line: #363d45; --head: #1e2329;
    --error: #ff8b85; --warning: #f0b45a; --pending: #7fb8ff; --well: #7fd394;
  }
}
body { margin: 1.5rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; }
p { margin: .25rem 0 1rem; color: var(--faint); }
.tools { margin: 0 0 1rem; display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; }
.tools[hidden] { display: none; }
input { font: inherit; padding: .25rem .5rem; width: 18rem; max-width: 100%; color: inherit;
  background: var(--back); border: 1px solid var(--faint); border-radius: 4px; }
.scroll { overflow-x: auto; margin-bottom: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { position: sticky; top: 0; background: var(--head); }
tbody th, .told { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
td.told:last-child { min-width: 24rem; }
tbody th { font-weight: 600; }
thead button { all: unset; cursor: pointer; font-weight: 600; }
thead button:focus-visible, input:focus-visible { outline: 2px solid var(--pending);
  outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
ul { margin: 0; padding: 0; list-style: none; }
code { font: .9em ui-monospace, monospace; }
.error, .silent { color: var(--error); font-weight: 600; }
.warning { color: var(--warning); font-weight: 600; }
.pending { color: var(--pending); font-weight: 600; }
.well { color: var(--well); font-weight: 600; }
.unmanaged { color: var(--faint); }
@media print {
  body { margin: 0; font-size: 9pt; }
  .tools { display: none; }
  .scroll { overflow: visible; }
  thead { display: table-header-group; }
  thead th { position: static; }
  th, td { white-space: normal; padding: .2rem .3rem; }
  td.told:last-child { min-width: 0; }
  tr { break-inside: avoid; }
}
"""

_SCRIPT = """
"use strict";
const order = new Intl.Collator(undefined, {numeric: true, sensitivity: "base"});
const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((one, two) =>
      order.compare(key(one, head.cellIndex), key(two, head.cellIndex)) * (down ? -1 : 1));
    body.append(...rows);
  });
}
const filter = document.getElementById("filter");
const count = document.getElementById("count");
const apply = () => {
  const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const seen = [];
  for (const body of document.querySelectorAll("tbody")) {
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    seen.push(`${shown} of ${body.rows.length} ${body.dataset.what}`);
  }
  count.textContent = seen.join(", ");
};
filter.addEventListener("input", apply);
document.querySelector(".tools").hidden = false;
apply();
"""


def __virtual__() -> str:
    return __virtualname__


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(value: Any) -> str:
    """Any value as text of the page; what is no character of HTML becomes U+FFFD."""
    words = "" if value is None else str(value)
    kept = "".join(
        one if one in "\n\t" or (one.isprintable() or one == " ") else "\ufffd" for one in words
    )
    return html.escape(kept, quote=True)


def _cell(value: Any, sort: Any = None, tag: str = "td", kind: str = "") -> str:
    attributes = "" if sort is None else f' data-sort="{_text(sort)}"'
    attributes += f' class="{_text(kind)}"' if kind else ""
    attributes += ' scope="row"' if tag == "th" else ""
    return f"<{tag}{attributes}>{_text(value)}</{tag}>"


def _listed(groups: dict[str, list[str]]) -> str:
    """A cell with sentences, each marked by a word for what it is."""
    items = [
        f'<li><span class="{kind}">{kind}:</span> {_text(words)}</li>'
        for kind, sentences in groups.items()
        for words in sentences
    ]
    return f'<td class="told"><ul>{"".join(items)}</ul></td>'


def _certificate(site: dict[str, Any]) -> str:
    end = site.get("certificate")
    if not end:
        return _cell("", sort=10**6)
    if "error" in end:
        return _cell("missing", sort=-(10**6))
    return _cell(f"{end['days_left']} days", sort=end["days_left"])


def _soonest(host: dict[str, Any]) -> str:
    sites = [site for site in host.get("sites", {}).values() if site.get("certificate")]
    return _certificate(
        min(sites, key=lambda site: site["certificate"].get("days_left", -(10**6)), default={})
    )


def _host(name: str, host: dict[str, Any], rank: int) -> str:
    verdict = host["verdict"]
    sites = host.get("sites", {})
    asked = [site for site in sites.values() if site.get("healthy") is not None]
    well = sum(bool(site["healthy"]) for site in asked)
    nginx = host.get("nginx", {})
    pending = host.get("pending")
    told = {
        "error": host.get("errors", []),
        "warning": host.get("warnings", []),
        "pending": (pending or {}).get("changes", []),
    }
    return "".join(
        [
            "<tr>",
            _cell(name, tag="th"),
            _cell(verdict, sort=rank, kind=verdict),
            _cell(
                f"{well} of {len(sites)} well" if asked else len(sites) or "",
                sort=well - len(sites),
            ),
            _cell(host.get("salt")),
            _cell(host.get("os")),
            _cell(nginx.get("version")),
            _cell(" ".join(host.get("uwsgi", []))),
            _soonest(host),
            _cell("not asked" if pending is None else len(pending["changes"])),
            _cell(len(host["drift"]) if "drift" in host else ""),
            _listed(told),
            "</tr>",
        ]
    )


def _site(name: str, label: str, site: dict[str, Any]) -> str:
    healthy = site.get("healthy")
    verdict = "" if healthy is None else "well" if healthy else "error"
    health = site.get("health") or {}
    return "".join(
        [
            "<tr>",
            _cell(label, tag="th"),
            _cell(name, kind="told"),
            _cell(verdict or "not asked", kind=verdict),
            _cell(health.get("nginx"), kind="told"),
            _cell(health.get("socket"), kind="told"),
            f"<td><code>{_text(site.get('generation'))}</code></td>",
            f"<td><code>{_text(site.get('release'))}</code></td>",
            _cell(site.get("uwsgi")),
            _cell(site.get("socket")),
            _cell(site.get("queue")),
            _cell(site.get("since")),
            _certificate(site),
            "</tr>",
        ]
    )


def _table(caption: str, what: str, heads: list[str], rows: list[str]) -> str:
    columns = "".join(
        f'<th scope="col"><button type="button">{_text(head)}</button></th>' for head in heads
    )
    return (
        f'<div class="scroll"><table><caption>{_text(caption)}</caption>'
        f'<thead><tr>{columns}</tr></thead><tbody data-what="{_text(what)}">\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n"
    )


def render(report: dict[str, Any]) -> str:
    """
    The page.

    report
        what ``rollout.report`` returns

    Returns HTML.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_page.render '{"target": "*", "at": "", "hosts": {}, "summary": {}}'
    """
    hosts = report["hosts"]
    policy = (
        f"default-src 'none'; style-src 'sha256-{_digest(_STYLE)}'; "
        f"script-src 'sha256-{_digest(_SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    counted = ", ".join(f"{number} {verdict}" for verdict, number in report["summary"].items())
    title = f"Fleet {report['target']}: {counted or 'no host'}"
    host_heads = [
        "Host", "State", "Sites", "Salt", "System", "nginx", "uWSGI", "Certificate", "Pending",
        "Drift", "What there is to say",
    ]  # fmt: skip
    site_heads = [
        "Site", "Host", "State", "Through nginx", "On its socket", "Generation", "Release",
        "uWSGI", "Socket", "Queue", "Since", "Certificate",
    ]  # fmt: skip
    # The summary has the worst first.
    ranks = list(report["summary"])
    rows = [_host(name, host, ranks.index(host["verdict"])) for name, host in hosts.items()]
    sites = [
        _site(name, label, site)
        for name, host in hosts.items()
        for label, site in host.get("sites", {}).items()
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_text(title)}</h1>\n<p>Asked at {_text(report['at'])}</p>\n"
        '<div class="tools" hidden><label for="filter">Filter</label>'
        '<input id="filter" type="search" autocomplete="off">'
        '<output id="count" for="filter" aria-live="polite"></output></div>\n'
        + _table("Hosts", "hosts", host_heads, rows)
        + _table("Sites", "sites", site_heads, sites)
        + f"</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )
