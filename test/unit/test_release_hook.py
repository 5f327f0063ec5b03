"""
Which hooks of a release are due, and what is noted of them.
"""

import pytest
from salt.exceptions import CommandExecutionError

HOOKS = {"before_fetch": [["a"]], "after_fetch": [["b"], ["c"]], "after_switch": [["d"]]}


@pytest.fixture
def load(modules, tmp_path):
    """``load(work, hooks)``: the modules for a site whose steps in ``work`` are to be done."""

    def load(work, hooks=HOOKS, test=False):
        project = {"wsgi": "a.wsgi:application", "settings": "a.settings", "hooks": hooks}
        site = {"server_names": ["a.example"], "project": project}
        pillar = {"lookup": {"state_dir": str(tmp_path)}, "sites": {"mysite": site}}
        m = modules(pillar={"nginx_uwsgi_django": pillar}, test=test)
        m.ran = []
        m.fails = None

        def run(name, argv, timeout, folder, more, release):
            m.ran.append(argv[0])
            retcode = 3 if argv[0] == m.fails else 0
            return {"retcode": retcode, "stdout": f"{argv[0]}\n", "timed_out": False}

        m.salt["django_command.run"] = run
        m.salt["django_release.desired"] = lambda name, release=None: {
            "id": m.id,
            "path": str(tmp_path),
        }
        m.id = "0123456789ab"
        m.work = set(work)
        m.release_hook._has_work = lambda name, step, release: step in m.work
        return m

    return load


FETCH = ["before_fetch", "after_fetch"]


def test_a_step_with_nothing_to_do_has_no_hooks(load):
    m = load([])
    assert m.release_hook.run("mysite", list(m.release_hook.POINTS)) == {}
    assert m.ran == [] and m.release_record.entries("mysite") == []


def test_hooks_run_before_a_step_that_is_to_be_done_and_after_it(load):
    m = load(["fetch"])
    assert m.release_hook.run("mysite", ["before_fetch"]) == {"before_fetch": "a"}
    m.work.clear()
    assert m.release_hook.run("mysite", ["after_fetch"]) == {"after_fetch": "b\nc"}
    assert m.ran == ["a", "b", "c"]
    assert m.release_hook.run("mysite", FETCH) == {}
    assert m.release_hook.last("mysite")["after_fetch"]["output"] == ["b", "c"]


def test_a_hook_that_fails_stops_with_its_words_and_runs_again(load):
    m = load(["fetch"])
    m.fails = "c"
    m.release_hook.run("mysite", ["before_fetch"])
    m.work.clear()
    for _ in range(2):
        with pytest.raises(CommandExecutionError, match="hooks:after_fetch:1 ended with 3") as said:
            m.release_hook.run("mysite", ["after_fetch"])
        assert str(said.value).endswith("\nb\nc")
    assert m.release_hook.last("mysite")["after_fetch"]["failed"] is True
    m.fails = None
    assert "after_fetch" in m.release_hook.run("mysite", ["after_fetch"])
    assert m.release_hook.run("mysite", ["after_fetch"]) == {}


def test_what_was_begun_for_another_release_is_not_gone_on_with(load):
    m = load(["switch"])
    m.release_hook.run("mysite", ["before_switch"])
    m.work.clear()
    assert m.release_hook.due("mysite", ["after_switch"]) == ["after_switch"]
    m.id = "ba9876543210"
    assert m.release_hook.due("mysite", ["after_switch"]) == []


def test_a_dry_run_names_those_on_both_sides_of_a_step_and_notes_nothing(load):
    m = load(["fetch"], test=True)
    assert m.release_hook.due("mysite", FETCH) == FETCH
    told = m.states.release_hook.ran("mysite", FETCH)
    assert told["result"] is None and set(told["changes"]) == set(FETCH)
    assert m.ran == [] and m.release_record.entries("mysite") == []


def test_there_is_no_other_point(load):
    with pytest.raises(CommandExecutionError, match="before_lunch"):
        load([]).release_hook.commands("mysite", "before_lunch")
