"""
The mark of a host that asks to be sent no more.
"""

import os

import pytest
from salt.exceptions import SaltInvocationError


@pytest.fixture
def drain(modules, monkeypatch, tmp_path):
    module = modules().host_drain
    monkeypatch.setattr(module, "_MARK", str(tmp_path / "run" / "drain"))
    return module


def test_a_host_drains_from_start_to_stop_and_says_why(drain):
    assert drain.status() == {"draining": False, "reason": None, "seconds": None}
    assert drain.start("new kernel") is True
    assert drain.start("another reason") is False, "the first one is the one to know"
    os.utime(drain.mark(), (1000, 1000))
    status = drain.status()
    assert (status["draining"], status["reason"]) == (True, "new kernel")
    assert status["seconds"] > 1_000_000
    assert drain.stop() is True
    assert drain.stop() is False
    assert drain.status()["draining"] is False


def test_anybody_can_see_the_mark_and_root_alone_makes_it(drain):
    drain.start()
    assert os.stat(drain.mark()).st_mode & 0o777 == 0o644
    assert os.stat(os.path.dirname(drain.mark())).st_mode & 0o777 == 0o755


def test_a_mark_that_an_operator_touched_counts(drain):
    os.mkdir(os.path.dirname(drain.mark()))
    open(drain.mark(), "w").close()
    assert drain.status()["draining"] is True
    assert drain.status()["reason"] == ""
    assert drain.stop() is True


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "\x1b[31m"])
def test_a_reason_is_one_line(drain, reason):
    with pytest.raises(SaltInvocationError, match="one line"):
        drain.start(reason)
    assert drain.status()["draining"] is False
