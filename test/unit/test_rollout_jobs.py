"""Whom a rollout asks."""

import pytest
from salt.exceptions import SaltInvocationError

from _runners import rollout_jobs


@pytest.fixture
def top(monkeypatch):
    monkeypatch.setattr(rollout_jobs, "__opts__", {"order_masters": True}, raising=False)


@pytest.mark.parametrize("kind", ["glob", "grain", "compound", "nodegroup", "pcre"])
def test_a_master_of_masters_wants_names(top, kind):
    with pytest.raises(SaltInvocationError, match="would miss those that are down"):
        rollout_jobs.named("web*", kind)


@pytest.mark.parametrize("target", ["web1, web2,web1,", ["web1", "web2"]])
def test_names_are_taken_as_they_are(top, target):
    assert rollout_jobs.named(target, "list") == ["web1", "web2"]


@pytest.mark.parametrize(("target", "kind"), [("web*", "glob"), ("web1", "list")])
def test_any_other_master_has_the_keys_of_its_hosts(monkeypatch, target, kind):
    monkeypatch.setattr(rollout_jobs, "__opts__", {"order_masters": False}, raising=False)
    assert rollout_jobs.named(target, kind) is None
