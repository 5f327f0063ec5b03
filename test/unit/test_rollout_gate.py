"""Whether a rollout may go on."""

from typing import Any

import pytest

from _runners import rollout_gate

LIMITS = {"window": 10, "errors": 1, "slower": 100, "memory": 100}


def tag(label: str) -> str:
    return f"uwsgi_generation_|-{label}_|-mysite_|-running"


def state(label: str, result: bool | None, number: int, comment: str = "", **changes: Any) -> dict:
    return {
        "__id__": label,
        "result": result,
        "comment": comment,
        "changes": changes,
        "__run_num__": number,
    }


def test_states_that_change_and_states_that_fail_in_their_order():
    said = {
        tag("c"): state("c", False, 3, "One or more requisite failed: b"),
        tag("b"): state("b", False, 2, "uWSGI said no"),
        tag("a"): state("a", None, 1, new="x"),
        tag("z"): state("z", True, 0),
    }
    assert rollout_gate.states(said) == {"changes": ["a"], "failed": ["b: uWSGI said no"]}


def test_a_state_that_runs_others_is_told_by_them():
    said = {
        tag("all"): state("all", False, 0, "failed: b", b=["x"]),
        tag("a: x"): state("all", True, 1, new="x"),
        tag("b: x"): state("all", False, 2, "uWSGI said no"),
    }
    assert rollout_gate.states(said) == {"changes": ["a: x"], "failed": ["b: x: uWSGI said no"]}


@pytest.mark.parametrize("said", [["Rendering failed"], "ERROR: no such function", {}, None, []])
def test_whatever_is_no_run_is_a_failure(said):
    assert rollout_gate.states(said)["failed"]


def test_a_state_belongs_to_the_site_its_id_begins_with():
    assert rollout_gate.site_of("mysite: uWSGI runs: no", ["mysite"]) == "mysite"
    assert rollout_gate.site_of("nginx: its tree: no", ["mysite"]) is None


def window(requests: int = 0, errors: int = 0, **site: Any) -> dict[str, Any]:
    return {"requests": requests, "errors": errors, "sites": {"mysite": site}}


@pytest.mark.parametrize(
    ("before", "after", "site"),
    [
        (window(), window(), ...),
        (window(100, 2), window(100, 3), ...),
        (window(100, 2), window(100, 4), None),
        (window(0, 0), window(3, 3), None),
        (window(asked=50, lost=0), window(asked=50, lost=0), ...),
        (window(asked=50, lost=0), window(asked=50, lost=1), "mysite"),
        (window(asked=50, lost=50), window(asked=50, lost=50), ...),
        (window(asked=9, lost=0, median=0.1), window(asked=9, lost=0, median=0.4), ...),
        (window(asked=9, lost=0, median=0.1), window(asked=9, lost=0, median=0.5), "mysite"),
        (window(mean=1.0), window(mean=2.2), ...),
        (window(mean=1.0), window(mean=2.3), "mysite"),
        (window(mean=None), window(mean=9.0), ...),
        (window(memory=200 << 20), window(memory=528 << 20), ...),
        (window(memory=200 << 20), window(memory=529 << 20), "mysite"),
        # Nothing ran before, or runs now.
        (window(memory=0), window(memory=999 << 20), ...),
        (window(memory=200 << 20), window(memory=0), ...),
    ],
)
def test_worse_is_more_failures_or_more_time_than_the_pillar_allows(before, after, site):
    found = rollout_gate.worse(before, after, LIMITS)
    assert (found[0] if found else ...) == site


def test_a_site_that_is_new_is_not_compared():
    after = {"requests": 0, "errors": 0, "sites": {"new": {"asked": 5, "lost": 5, "median": 9}}}
    assert rollout_gate.worse({"requests": 0, "errors": 0, "sites": {}}, after, LIMITS) is None
