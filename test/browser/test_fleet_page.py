"""
The page of `salt-run rollout.report html=…` in a real browser, with a fleet that says hostile things.
"""

import base64
import copy
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from _runners import rollout_page

from .chromium import Chromium

HOSTILE = (
    "<script>window.taken = 1; alert(1)</script>",
    "<img src=http://192.0.2.1/x onerror=alert(2)>",
    "'\"><svg/onload=alert(3)>",
    "</td></table></script><style>body{display:none}</style>",
    '" autofocus onfocus="alert(4)',
    "&lt;b&gt; \x1b[31m \x00 \ud800 \u202e end",
)


def site(**more: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "generation": "4f2a9c01d7e3",
        "release": "0a1b2c3d4e5f",
        "uwsgi": "2.0.30",
        "since": "Wed 2026-11-25 17:39:22.967501 UTC",
        "socket": "active",
        "queue": 0,
        "health": {"nginx": 200, "socket": 200},
        "healthy": True,
        "certificate": None,
    }
    return {**whole, **more}


def host(verdict: str, **more: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "verdict": verdict,
        "salt": "3008.3",
        "os": "Debian 12",
        "nginx": {"version": "1.22.1", "running": True, "current": True},
        "uwsgi": ["2.0.30"],
        "sites": {"mysite": site()},
        "pending": None,
        "drift": {},
        "errors": [],
        "warnings": [],
    }
    return {**whole, **more}


REPORT: dict[str, Any] = {
    "target": HOSTILE[0],
    "at": "2026-11-25T18:00:00+0000",
    "summary": {"error": 2, "silent": 1, "warning": 1, "well": 2},
    "hosts": {
        HOSTILE[1]: host(
            "error",
            errors=list(HOSTILE),
            sites={
                words: site(
                    health={"nginx": words, "socket": words},
                    healthy=False,
                    since=words,
                    certificate={"error": words},
                )
                for words in HOSTILE
            },
        ),
        "web10": host("error", errors=["mysite: nginx answers with 502 Bad Gateway"]),
        "web3": {"verdict": "silent", "errors": ["its minion did not answer within 15 s"]},
        "web1": host(
            "warning",
            warnings=["mysite: its certificate ends at 2026-12-01T00:00:00Z"],
            sites={"mysite": site(certificate={"days_left": 6, "not_after": ""})},
        ),
        "web2": host(
            "well", sites={"mysite": site(certificate={"days_left": 70, "not_after": ""})}
        ),
        "web9": host(
            "well", pending={"changes": ["nginx: reloaded or upgraded if needed"], "failed": []}
        ),
    },
}
HOSTS = "[...document.querySelectorAll('table')[0].tBodies[0].rows]"
FIRST = f"{HOSTS}.filter(row => !row.hidden).map(row => row.cells[0].textContent)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made = tmp_path_factory.mktemp("fleet")
    (made / "fleet.html").write_text(rollout_page.render(copy.deepcopy(REPORT)), "utf-8")
    return made


@pytest.fixture(scope="module")
def chromium(folder: pathlib.Path) -> Iterator[Chromium]:
    with Chromium(folder) as browser:
        yield browser


@pytest.fixture
def page(chromium: Chromium, folder: pathlib.Path) -> Chromium:
    """The page, just loaded."""
    chromium.requests.clear()
    chromium.told.clear()
    chromium.call("Emulation.setEmulatedMedia", media="", features=[])
    chromium.open((folder / "fleet.html").as_uri())
    return chromium


def test_hostile_words_are_shown_and_do_nothing(page: Chromium, folder: pathlib.Path) -> None:
    # No dialog, nothing that the policy had to stop, no request but the one for the page.
    assert page.told == []
    assert [urllib.parse.unquote(one) for one in page.requests] == [
        (folder / "fleet.html").as_uri()
    ]
    assert page.run("window.taken") is None
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("document.querySelectorAll('style').length") == 1
    assert page.run("document.querySelectorAll('img, svg, b, [onfocus], [onerror]').length") == 0
    assert page.run("document.title").startswith("Fleet <script>window.taken = 1;")
    shown = page.run("document.querySelectorAll('table')[0].tBodies[0].rows[0].textContent")
    for words in HOSTILE[:-1]:
        assert words in shown
    assert page.run("document.querySelectorAll('table')[0].tBodies[0].rows.length") == 6


def test_should_escaping_ever_fail_the_policy_stops_the_script(
    chromium: Chromium, folder: pathlib.Path
) -> None:
    text = (folder / "fleet.html").read_text("utf-8")
    text = text.replace("502 Bad Gateway", f"{HOSTILE[0]}{HOSTILE[1]}{HOSTILE[3]}")
    (folder / "broken.html").write_text(text, "utf-8")
    chromium.requests.clear()
    chromium.told.clear()
    chromium.open((folder / "broken.html").as_uri())
    assert chromium.run("window.taken") is None
    assert chromium.run("getComputedStyle(document.body).display") == "block"
    assert not [one for one in chromium.told if one.startswith("dialog")]
    # What the browser says of each thing that it did not do.
    assert len([one for one in chromium.told if "Content Security Policy" in one]) >= 3


def test_the_worst_is_first_and_a_click_or_a_key_sorts(page: Chromium) -> None:
    assert page.run(FIRST)[1:] == ["web10", "web3", "web1", "web2", "web9"]
    button = "table thead th:nth-child({}) button"
    page.click(button.format(1))
    # As people count: web9 before web10.
    assert page.run(FIRST)[1:] == ["web1", "web2", "web3", "web9", "web10"]
    assert page.run("document.querySelector('thead th').getAttribute('aria-sort')") == "ascending"
    page.click(button.format(1))
    assert page.run(FIRST)[:2] == ["web10", "web9"]
    assert page.run("document.querySelector('thead th').getAttribute('aria-sort')") == "descending"
    # By the certificate's days, those without one last; by the keyboard.
    page.run(f"document.querySelector('{button.format(8)}').focus()")
    page.key("Enter", 13)
    assert page.run(FIRST)[:3] == [HOSTILE[1], "web1", "web2"]
    assert page.run("document.querySelectorAll('[aria-sort]').length") == 1
    page.click(button.format(2))
    assert page.run(FIRST)[-2:] == ["web2", "web9"]


def test_the_filter_leaves_the_rows_with_all_of_its_words(page: Chromium) -> None:
    assert page.run("document.getElementById('count').textContent") == (
        "6 of 6 hosts, 10 of 10 sites"
    )
    page.click("#filter")
    page.type("502 GATEWAY")
    assert page.run(FIRST) == ["web10"]
    assert page.run("document.getElementById('count').textContent") == (
        "1 of 6 hosts, 0 of 10 sites"
    )
    page.run("document.querySelector('#filter').select()")
    page.type("web2")
    assert page.run(FIRST) == ["web2"]


def colours(page: Chromium) -> tuple[int, int]:
    """How bright background and text are, each from 0 to 255."""
    found = page.run("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    back, text = (sum(map(int, re.findall(r"\d+", one)[:3])) // 3 for one in found)
    return back, text


def test_light_dark_and_paper(page: Chromium) -> None:
    def emulate(media: str, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", media=media, features=features)

    emulate("screen", "light")
    back, text = colours(page)
    assert back > 240 and text < 60
    emulate("screen", "dark")
    back, text = colours(page)
    assert back < 40 and text > 200
    # On paper dark on white whatever the screen is, all rows, no controls.
    emulate("print", "dark")
    back, text = colours(page)
    assert back > 240 and text < 60
    assert page.run("getComputedStyle(document.querySelector('.tools')).display") == "none"
    assert page.run("getComputedStyle(document.querySelector('thead')).display") == (
        "table-header-group"
    )


def test_who_cannot_see_it_can_read_it(page: Chromium) -> None:
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = [
        (one["role"]["value"], one.get("name", {}).get("value")) for one in nodes if "role" in one
    ]
    assert ("table", "Hosts") in roles and ("table", "Sites") in roles
    assert ("searchbox", "Filter") in roles
    assert ("columnheader", "Certificate") in roles and ("rowheader", "web10") in roles
    assert ("button", "State") in roles
    # A state is told in words, not by its colour alone.
    states = f"{HOSTS}.map(row => row.cells[1].textContent)"
    assert page.run(states) == ["error", "error", "silent", "warning", "well", "well"]


def test_a_picture_of_it_is_kept(page: Chromium) -> None:
    artifacts = pathlib.Path(__file__).resolve().parent.parent.parent / "artifacts"
    artifacts.mkdir(exist_ok=True)
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=1300,
        height=800,
        deviceScaleFactor=1,
        mobile=False,
    )
    taken = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
    content = base64.b64decode(taken["data"])
    (artifacts / "fleet.png").write_bytes(content)
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 8000
    assert os.path.getsize(artifacts / "fleet.png") == len(content)
