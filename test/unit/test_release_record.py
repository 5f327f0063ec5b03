"""
What is known of releases, and which of them a rollback leads to.
"""

import pytest


@pytest.fixture
def record(modules, tmp_path):
    site = {
        "server_names": ["a.example"],
        "project": {"wsgi": "a.wsgi:application", "settings": "a.settings"},
    }
    pillar = {"lookup": {"state_dir": str(tmp_path)}, "sites": {"mysite": site}}
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
