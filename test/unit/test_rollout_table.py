"""The state of a fleet on a terminal."""

from typing import Any

import pytest

from _runners import rollout_table

WELL: dict[str, Any] = {
    "verdict": "well",
    "salt": "3008.3",
    "os": "Debian 12",
    "nginx": {"version": "1.22.1"},
    "uwsgi": ["2.0.30"],
    "sites": {
        "a": {"healthy": True, "certificate": {"days_left": 70}},
        "b": {"healthy": True, "certificate": {"days_left": 8}},
    },
    "pending": None,
    "drift": {},
    "errors": [],
    "warnings": [],
}
REPORT: dict[str, Any] = {
    "target": "*",
    "summary": {"error": 1, "silent": 1, "well": 1},
    "hosts": {
        "web-with-a-name-as-long-as-names-of-hosts-become.example.org": {
            **WELL,
            "verdict": "error",
            "errors": ["a: nginx answers http://10.0.0.1/ for www.example.org with " + "x" * 200],
            "drift": {"/etc/nginx/sites-available/a.conf": "was edited"},
            "pending": {"changes": ["one", "two"], "failed": []},
        },
        "web2": {"verdict": "silent", "errors": ["its minion did not answer within 15 s"]},
        "web1": WELL,
    },
}


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_it_fits_and_has_every_host_with_what_is_wrong(width: int) -> None:
    lines = rollout_table.render(REPORT, width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert lines[0].split()[:4] == ["HOST", "STATE", "SITES", "PENDING"]
    assert [line.split()[:2] for line in lines if line.startswith("web")] == [
        [lines[1].split()[0], "error"],
        ["web2", "silent"],
        ["web1", "well"],
    ]
    assert "  ! its minion did not answer within 15 s" in lines
    assert lines[-1] == "3 hosts: 1 error, 1 silent, 1 well"


def test_a_wide_one_has_all_columns_and_a_narrow_one_the_important() -> None:
    wide = rollout_table.render(REPORT, 120).splitlines()
    assert wide[0].split() == [
        "HOST", "STATE", "SITES", "PENDING", "DRIFT", "CERT", "SALT", "OS", "NGINX", "UWSGI",
    ]  # fmt: skip
    assert [line for line in wide if line.startswith("web1")][0].split() == [
        "web1", "well", "2/2", "0", "8", "d", "3008.3", "Debian", "12", "1.22.1", "2.0.30",
    ]  # fmt: skip
    assert "UWSGI" not in rollout_table.render(REPORT, 80)


def test_what_a_host_says_cannot_take_over_the_terminal() -> None:
    words = "\x1b[2Jgone\r\x9b31m\u202egnp.exe\n\nweb9  well"
    report = {
        "summary": {"error": 1},
        "hosts": {"web1": {"verdict": "error", "errors": [words], "os": words}},
    }
    text = rollout_table.render(report, 100)
    assert not [one for one in text.replace("\n", "") if not one.isprintable()]
    assert len(text.splitlines()) == 4


def test_many_sentences_are_counted() -> None:
    host = {**WELL, "warnings": [f"site{number}: slow" for number in range(100)]}
    text = rollout_table.render({"summary": {"warning": 1}, "hosts": {"web1": host}}, 80)
    assert "site7: slow" in text and "site8" not in text and "and 92 more" in text
