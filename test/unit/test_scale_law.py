"""The line through what bin/bench scale measures, and where it writes."""

import pathlib
from typing import Any

import pytest

from test.benchmark import scale
from test.hosts.paths import HostError


def test_a_straight_line_is_found_and_fits():
    found = scale.law([1, 2, 4, 8], [5.5, 6.0, 7.0, 9.0])
    assert found["fixed"] == pytest.approx(5)
    assert found["each"] == pytest.approx(0.5)
    assert found["off"] == pytest.approx(0, abs=1e-9)


def test_what_grows_as_the_square_is_no_line():
    found = scale.law([1, 2, 4, 8], [1.0, 4.0, 16.0, 64.0])
    assert found["power"] == pytest.approx(2)
    assert found["off"] > 1


def taken(count: int) -> dict[str, Any]:
    return {
        "wall": 9.0,
        "master": 1.0 + count,
        "runner": 2.0,
        "memory": 2**28 + count * 2**20,
        "sent": 100000 * count,
        "received": 50000 * count,
    }


def test_the_tables_go_between_the_marks(tmp_path: pathlib.Path):
    rows = [
        {"minions": n, "new": n, "dry": taken(n), "first": taken(n), "ping": taken(n)}
        | {"change": taken(n), "idle": {"master": 0.01, "bytes": 20}}
        for n in (1, 2, 4)
    ]
    results = {"date": "then", "machine": "there", "salt": "1", "crowd": rows, "real": rows}
    page = tmp_path / "scale.md"
    page.write_text("words\nno mark\n")
    with pytest.raises(HostError, match="has lost the marks"):
        scale.put(results, page)
    marks = ("<!-- bin/bench scale writes from here -->\n", "<!-- to here -->\n")
    page.write_text(f"before\n{marks[0]}of yesterday\n{marks[1]}after\n")
    scale.put(results, page)
    scale.put(results, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith(f"{marks[1]}after\n")
    assert "of yesterday" not in text
    assert text.count("Measured on then, there") == 1
    # One second of the processor for each minion, and one for none.
    assert "| crowd, dry run | processor, `salt-master` | 1,001 s | 10,001 s |" in text


@pytest.mark.parametrize("sizes", [[4], [2, 1], [1, 1], [0, 1]])
def test_a_line_needs_two_points(sizes: list[int]):
    with pytest.raises(HostError, match="two numbers of minions"):
        scale.measured([1, 2], sizes, print)
