"""Which hosts go when."""

import pytest
from salt.exceptions import SaltInvocationError

from _runners import rollout_plan


@pytest.mark.parametrize(
    ("words", "total", "number"),
    [(3, 10, 3), ("3", 10, 3), ("25%", 9, 2), ("25%", 3, 1), ("100%", 7, 7), ("1%", 1000, 10)],
)
def test_a_number_or_a_percentage_never_more_than_said_and_never_none(words, total, number):
    assert rollout_plan.size(words, total) == number


@pytest.mark.parametrize("words", [0, "0", "101%", "", "many", "-1", "2.5", None, True, [1]])
def test_other_words_are_refused(words):
    with pytest.raises(SaltInvocationError, match="batch is"):
        rollout_plan.size(words, 10)


def test_hosts_go_as_people_number_them_after_those_that_go_first():
    hosts = dict.fromkeys(["web10", "web2", "db1"])
    assert rollout_plan.order(hosts) == ["db1", "web2", "web10"]
    assert rollout_plan.order(hosts, ["web10", "gone"]) == ["web10", "db1", "web2"]


def test_the_canary_goes_alone_and_a_batch_is_of_all_hosts():
    hosts = dict.fromkeys(f"w{number}" for number in range(1, 10))
    made = rollout_plan.batches(hosts, 1, "25%")
    assert made == [["w1"], ["w2", "w3"], ["w4", "w5"], ["w6", "w7"], ["w8", "w9"]]


def test_no_batch_has_hosts_of_two_zones():
    hosts = {"a1": "a", "b1": "b", "a2": "a", "b2": "b", "x": None}
    assert rollout_plan.batches(hosts, 0, 2) == [["a1", "a2"], ["b1", "b2"], ["x"]]
    assert rollout_plan.batches(hosts, 1, 4) == [["a1"], ["a2"], ["b1", "b2"], ["x"]]


def test_nobody_is_no_batch():
    assert rollout_plan.batches({}, 1, "25%") == []
