"""
Which release a rollback leads to, what stands against it, and in which order its steps run.
"""

import pathlib

import pytest
from salt.exceptions import CommandExecutionError

RELEASED = {"source": {"salt": "salt://x"}, "path": "/srv/other"}


@pytest.fixture
def loaded(modules, tmp_path: pathlib.Path):
    """The modules for a site; keywords go to the pillar's project."""

    def load(**project):
        project = {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings", **project}
        site = {"server_names": ["mysite.example"], "project": project}
        pillar = {"lookup": {"state_dir": str(tmp_path / "state")}, "sites": {"mysite": site}}
        m = modules(pillar={"nginx_uwsgi_django": pillar})
        resolved = m.site_pillar.settings()
        m.salt["site_pillar.settings"] = lambda: resolved
        m.salt["site_pillar.site"] = lambda name: resolved["sites"][name]
        return m

    return load


@pytest.fixture
def served(loaded):
    """The modules for a site that has served the releases ``a``, ``b`` and ``c``, and serves ``c``."""
    m = loaded(**RELEASED)
    m.live = "c"
    m.salt["uwsgi_generation.list"] = lambda name: [
        {"state": "inactive", "enabled": False, "release": "a"},
        {"state": "active", "enabled": True, "release": m.live},
    ]
    for release in "abc":
        m.release_record.note_live("mysite", release, "0", False)
    return m


def test_the_way_back_starts_from_what_serves_and_not_from_what_was_noted(served):
    before = served.site_rollback._served_before
    assert before("mysite", "c") == "b"
    # A switch to d that was killed before it was noted.
    assert before("mysite", "d") == "c"
    # The same of a rollback to b: what it left is not before it.
    served.release_record.hold("mysite", "b", "c")
    assert before("mysite", "b") == "a"
    assert before("mysite", "a") == "c"
    served.release_record.note_live("mysite", "b", "0", True)
    served.release_record.note_live("mysite", "a", "0", True)
    assert before("mysite", "a") is None


def plan(**migrations):
    """What is noted of migrations; a word for what cannot be undone, a list for what is replaced."""
    return {
        f"shop.{name}": {
            "for_good": [what] if isinstance(what, str) else [],
            "replaces": [f"shop.{each}" for each in what] if isinstance(what, list) else [],
        }
        for name, what in migrations.items()
    }


@pytest.mark.parametrize(
    ("old", "new", "beyond"),
    [
        (plan(a=None), plan(a=None), {}),
        (plan(a=None), plan(a=None, b=None), {"shop.b": []}),
        (plan(a="x"), plan(a="x", b="y", c=None), {"shop.b": ["y"], "shop.c": []}),
        # Squashed in the new one: the old one knows all of it, or not.
        (plan(a=None, b="x"), plan(s=["a", "b"]), {}),
        (plan(a=None), plan(s=["a", "b"]), {"shop.s": []}),
        # Squashed in the old one, taken apart by the new one.
        (plan(s=["a", "b"]), plan(a=None, b=None), {}),
        (plan(a=None), plan(), {}),
    ],
)
def test_what_a_release_does_not_know_of_the_database_is_told(served, old, new, beyond):
    served.release_record.add_to_release("mysite", "b", migrations=old)
    served.release_record.add_to_release("mysite", "c", migrations=new)
    assert served.site_rollback._beyond("mysite", "b") == beyond


def test_what_was_gone_back_from_is_still_in_the_database(served):
    for release, what in (("a", plan()), ("b", plan(b=None)), ("c", plan(b=None, c="x"))):
        served.release_record.add_to_release("mysite", release, migrations=what)
    served.release_record.hold("mysite", "b", "c")
    served.live = "b"
    assert served.site_rollback._beyond("mysite", "a") == {"shop.b": [], "shop.c": ["x"]}


def test_what_cannot_be_gone_back_to_says_why(served):
    m = served
    m.salt["django_release.stored"] = lambda name: ["b", "c", "d"]
    m.salt["django_release.desired"] = lambda name, release: {"id": release, "path": "/srv"}
    m.salt["python_venv.diff"] = lambda name, release: None

    def why(release, **told):
        return m.site_rollback._why_not("mysite", release, **told)

    assert why("b") is None
    assert why("c") == "it is already live"
    assert why("a") == "it is not on this host"
    assert why("d") == "it was never live on this host"
    m.release_record.add_to_release("mysite", "c", migrations=plan(c="Raw SQL operation"))
    assert "shop.c (Raw SQL operation)" in why("b") and why("b", allow_irreversible=True) is None
    m.salt["python_venv.diff"] = lambda name, release: "/x is to be built"
    told = why("b", allow_irreversible=True)
    assert "/x is to be built" in told and "sites:mysite:project:release to b" in told


def test_a_tree_that_runs_where_it_is_and_a_pillar_that_names_a_release_are_not_rolled_back(
    loaded, served
):
    with pytest.raises(CommandExecutionError, match="of which there is no older copy"):
        loaded().site_rollback.rollback("mysite")
    served.salt["site_pillar.site"]("mysite")["project"]["release"] = "0123456789ab"
    with pytest.raises(CommandExecutionError, match="project:release: 0123456789ab"):
        served.site_rollback.rollback("mysite")


@pytest.fixture
def steps(served):
    """A site whose release ``b`` can be rolled back to; what a rollback calls, with the release."""
    m = served
    m.calls = []
    m.prepared = False
    m.fails = None

    def step(word, answer):
        def call(name, release):
            m.calls.append((word, release))
            if word == m.fails:
                raise CommandExecutionError(f"{word} failed")
            if word == "switch":
                m.live = "b"
            return answer

        return call

    def hook(name, points, release):
        return step(points[0], {points[0]: "ran"})(name, release)

    def hold(name, release, leave, real=m.release_record.hold):
        m.calls.append(("hold", release))
        real(name, release, leave)

    m.salt["state.running"] = list
    m.salt["django_release.stored"] = lambda name: ["a", "b", "c"]
    m.salt["django_release.desired"] = lambda name, release: {"id": release}
    m.salt["python_venv.diff"] = lambda name, release: None
    m.salt["django_preparation.is_complete"] = lambda name, release: m.prepared
    m.salt["django_preparation.ensure"] = step("prepare", {})
    m.salt["uwsgi_generation.switch"] = step("switch", {"changes": {}})
    m.salt["release_live.ensure"] = step("note", {})
    m.salt["site_companion.ensure"] = step("companions", {"changes": {}, "errors": {}})
    m.salt["release_hook.run"] = hook
    m.salt["release_record.hold"] = hold
    return m


def test_the_steps_of_a_rollback_run_in_order_and_each_is_told_the_release(steps):
    done = steps.site_rollback.rollback("mysite")
    words = ["hold", "before_migrate", "prepare", "after_migrate", "before_switch"]
    words += ["switch", "note", "after_switch", "companions"]
    assert steps.calls == [(word, "b") for word in words]
    assert done["release"] == {"old": "c", "new": "b"}
    assert done["changes"]["after_switch"] == {"old": None, "new": "ran"}
    assert steps.release_record.held("mysite")["left"] == ["c"]


def test_a_release_that_is_prepared_is_not_prepared_again(steps):
    steps.prepared = True
    steps.site_rollback.rollback("mysite")
    assert [word for word, _ in steps.calls][:3] == ["hold", "before_switch", "switch"]


@pytest.mark.parametrize("word", ["before_migrate", "prepare", "before_switch", "switch"])
def test_a_rollback_that_fails_before_the_switch_is_not_remembered(steps, word):
    steps.fails = word
    with pytest.raises(CommandExecutionError, match=f"{word} failed"):
        steps.site_rollback.rollback("mysite")
    assert steps.calls[-1] == (word, "b")
    assert steps.release_record.held("mysite") is None


@pytest.mark.parametrize("word", ["note", "after_switch", "companions"])
def test_a_rollback_that_fails_after_the_switch_is_remembered(steps, word):
    """The next run finishes it."""
    steps.fails = word
    with pytest.raises(CommandExecutionError, match=f"{word} failed"):
        steps.site_rollback.rollback("mysite")
    assert steps.release_record.held("mysite")["release"] == "b"


def test_a_dry_run_of_a_rollback_calls_no_step(steps):
    assert steps.site_rollback.rollback("mysite", test=True)["release"]["new"] == "b"
    assert steps.calls == []
