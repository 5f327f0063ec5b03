"""
What is known of releases, and which of them a rollback leads to.
"""

import os
import signal
import threading

import pytest
from salt.exceptions import CommandExecutionError


@pytest.fixture
def record(modules, tmp_path):
    site = {
        "server_names": ["a.example"],
        "project": {"wsgi": "a.wsgi:application", "settings": "a.settings"},
    }
    other = {**site, "server_names": ["b.example"]}
    sites = {"mysite": site, "other": other}
    pillar = {"lookup": {"state_dir": str(tmp_path)}, "sites": sites}
    return modules(pillar={"nginx_uwsgi_django": pillar}).release_record


def live(record, words):
    """``A B <A``: what was live, by a source or (<) by going back."""
    for word in words.split():
        record.note_live("mysite", word.lstrip("<"), "0", word.startswith("<"))


@pytest.mark.parametrize(
    ("words", "way"),
    [
        ("", ""),
        ("A", "A"),
        ("A B C", "A B C"),
        # Another environment of the same release is no other release.
        ("A B B B", "A B"),
        ("A B C <B", "A B"),
        # Twice back goes on, and does not come back to what was left.
        ("A B C <B <A", "A"),
        ("A B C <B D", "A B D"),
        ("A B C <B D <B", "A B"),
        ("A B C <A D E <D", "A D"),
        # Forth again by hand.
        ("A B C <B <C", "A B C"),
        # What a source brought back was live in between: that is where it came from.
        ("A B A", "A B A"),
        ("A B A <B", "A B"),
        ("A B A <B <A", "A"),
    ],
)
def test_the_way_back_leaves_out_what_was_gone_back_from(record, words, way):
    live(record, words)
    assert record.way_back("mysite") == way.split()


def test_what_was_live_last_is_kept_once_each(record):
    live(record, "A B A C <A")
    assert record.recent("mysite", "release", 2) == ["A", "C"]
    assert record.recent("mysite", "release", 9) == ["A", "C", "B"]


def test_what_was_left_stays_left_until_it_is_asked_for(record):
    assert record.held("mysite") is None
    record.hold("mysite", "B", "C")
    record.hold("mysite", "A", "B")
    held = record.held("mysite")
    assert (held["release"], held["left"]) == ("A", ["B", "C"])
    record.hold("mysite", "B", None)
    assert record.held("mysite")["left"] == ["C"]
    before = record.held("mysite")
    record.hold("mysite", "C", None)
    assert record.held("mysite") is None
    record.put_back("mysite", before)
    assert record.held("mysite") == before
    record.put_back("mysite", None)
    assert record.entries("mysite") == []


def test_a_torn_record_is_none_and_a_release_gathers_what_is_known(record):
    record.add_to_release("mysite", "A", source="x")
    assert record.add_to_release("mysite", "A", migrations={}) is True
    assert record.add_to_release("mysite", "A", migrations={}) is False
    assert record.of_release("mysite", "A") == {"release": "A", "source": "x", "migrations": {}}
    with open(f"{record.directory('mysite')}/release-A.json", "w", encoding="utf-8") as stream:
        stream.write('{"rel')
    assert record.of_release("mysite", "A") == {}


def test_one_at_a_time_and_a_killed_one_holds_nothing(record):
    told, tell = os.pipe()
    holder = os.fork()
    if holder == 0:
        with record.alone("mysite", "a rollback"), record.alone("mysite", "a step of it"):
            os.write(tell, b"x")
            signal.pause()
    try:
        os.read(told, 1)
        with pytest.raises(CommandExecutionError) as refused:
            with record.alone("mysite", "another"):
                pass
        who = f"mysite is being changed by a rollback (process {holder}, since 20"
        assert who in str(refused.value)
        with record.alone("other", "a site of its own"):
            pass
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    with record.alone("mysite", "another"):
        assert record.entries("mysite") == []
    # One that ended by an exception does not, either.
    with pytest.raises(ZeroDivisionError), record.alone("mysite", "another"):
        raise ZeroDivisionError
    with record.alone("mysite", "another"):
        pass


def test_another_thread_of_one_salt_is_somebody_else(record):
    # A minion with `multiprocessing: False` runs its jobs as threads.
    refused = []

    def other():
        try:
            with record.alone("mysite", "another"):
                pass
        except CommandExecutionError as error:
            refused.append(str(error))

    with record.alone("mysite", "a rollback"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1 and "by a rollback" in refused[0]
