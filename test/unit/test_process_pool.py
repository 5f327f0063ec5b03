"""Work in several processes: all of it is done, and nothing of it is lost without a word."""

import os
import signal
import time

import pytest
from salt.exceptions import CommandExecutionError

from _nud import process_pool

MANY = [f"item{number}" for number in range(50)]


@pytest.fixture
def each(monkeypatch):
    monkeypatch.setattr(process_pool, "processors", lambda: 4)
    return process_pool.each


def test_every_item_is_done_once_and_the_answers_are_in_order(each, tmp_path):
    def work(item: str) -> dict[str, object]:
        with open(tmp_path / "done", "a", encoding="ascii") as done:
            done.write(f"{item}\n")
        return {"item": item, "list": [1, None, "ä" * 100_000]}

    answers = each(MANY, work)
    assert list(answers) == MANY
    assert all(answers[item]["item"] == item for item in MANY)
    assert answers["item7"]["list"] == [1, None, "ä" * 100_000]
    assert sorted((tmp_path / "done").read_text().split()) == sorted(MANY)


def test_it_is_done_by_others_at_the_same_time_and_by_oneself_when_it_is_one(each):
    def work(_: str) -> int:
        time.sleep(0.05)
        return os.getpid()

    pids = set(each(MANY, work).values())
    assert len(pids) > 1
    assert os.getpid() not in pids
    assert each(["alone"], work) == {"alone": os.getpid()}
    assert each([], work) == {}


def test_what_a_process_that_was_killed_did_not_answer_is_an_error_and_the_rest_is_done(each):
    def work(item: str) -> str:
        if item == "item3":
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    answers = each(MANY, work)
    assert isinstance(answers.pop("item3"), CommandExecutionError)
    assert answers == {item: item for item in MANY if item != "item3"}


def test_with_no_process_left_every_item_has_its_error(each):
    def work(item: str) -> str:
        raise ValueError(item)

    answers = each(MANY, work)
    assert list(answers) == MANY
    assert "exit code 1" in str(answers["item49"])


def test_an_interrupt_ends_them_all(each, tmp_path):
    def work(item: str) -> str:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)
        return item

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(KeyboardInterrupt):
            each(MANY, work)
    finally:
        signal.signal(signal.SIGALRM, before)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert pids
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_they_end_with_the_one_that_made_them(each, tmp_path):
    def work(item: str) -> str:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)
        return item

    process = os.fork()
    if not process:
        each(MANY, work)
        os._exit(0)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) > 1
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pids)


def alive(pids: list[int]) -> list[int]:
    """Those that are neither gone nor dead and not yet waited for."""
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
                state = stream.read().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found.append(pid)
    return found
