"""Whose a file is, by its mark alone; and that a purge which did not take is a failure."""

import pathlib
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from ..modules import Modules

SITE = {"server_names": ["a.org"], "project": {"wsgi": "a:b", "settings": "c"}}
NGINX = "# Managed by the Salt formula nginx_uwsgi_django (site {}, salt://x).\nserver {{}}\n"
UNIT = '[Unit]\nDescription=Django site "{}"\n'


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    for folder in ("nginx/sites-available", "units", "uwsgi", "state/accounts"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def modules(root: pathlib.Path, test: bool = False, **top: Any) -> Modules:
    lookup = {
        "nginx_dir": f"{root}/nginx",
        "unit_dir": f"{root}/units",
        "uwsgi_dir": f"{root}/uwsgi",
        "state_dir": f"{root}/state",
    }
    pillar = {"lookup": lookup, "sites": {"mysite": SITE}, **top}
    return Modules(pillar={"nginx_uwsgi_django": pillar}, test=test)


OURS = {
    "nginx/sites-available/old.conf": (NGINX.format("old"), "nginx"),
    "units/uwsgi-old.socket": (UNIT.format("old"), "socket"),
    "units/uwsgi-old.service": (UNIT.format("old"), "socket"),
    "units/uwsgi-old@0123456789ab.service": (UNIT.format("old"), "generation"),
    "units/django-old.worker.service": (UNIT.format("old"), "companion"),
    "units/django-old.beat.timer": (UNIT.format("old"), "companion"),
    "state/accounts/group-olds": ("nginx_uwsgi_django site old\n", "group"),
}


@pytest.mark.parametrize("path", OURS)
def test_a_site_is_found_by_any_of_its_marks(root: pathlib.Path, path: str) -> None:
    text, kind = OURS[path]
    (root / path).write_text(text)
    what = "olds" if kind == "group" else f"{root}/{path}"
    assert modules(root).site_leftovers.found() == {"old": {kind: [what]}}


def test_a_directory_of_generations_is_found_by_what_is_in_it(root: pathlib.Path) -> None:
    (root / "uwsgi/old").mkdir()
    assert modules(root).site_leftovers.found() == {}
    (root / "uwsgi/old/0123456789ab.ini").write_text("[uwsgi]\n")
    assert modules(root).site_leftovers.found() == {"old": {"generation": [f"{root}/uwsgi/old"]}}
    (root / "uwsgi/old/previous").symlink_to("0123456789ab.json")
    assert modules(root).site_leftovers.found() == {"old": {"generation": [f"{root}/uwsgi/old"]}}
    (root / "uwsgi/old/mine.ini").write_text("[uwsgi]\n")
    assert modules(root).site_leftovers.found() == {}


@pytest.mark.parametrize("target", [None, "mine.json", "../x/0123456789ab.json"])
def test_what_is_called_previous_and_leads_to_no_generation_is_somebody_elses(
    root: pathlib.Path, target: str | None
) -> None:
    (root / "uwsgi/old").mkdir()
    (root / "uwsgi/old/0123456789ab.ini").write_text("[uwsgi]\n")
    previous = root / "uwsgi/old/previous"
    previous.symlink_to(target) if target else previous.write_text("mine")
    assert modules(root).site_leftovers.found() == {}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nginx/sites-available/old.conf", "server {}\n"),
        ("nginx/sites-available/old.conf", NGINX.format("other")),
        ("nginx/sites-available/old.conf.bak", NGINX.format("old")),
        ("nginx/sites-available/Old.conf", NGINX.format("Old")),
        ("nginx/sites-available/mysite.conf", NGINX.format("mysite")),
        ("units/uwsgi-old.service", "[Unit]\nDescription=mine\n"),
        ("units/uwsgi-old.service", UNIT.format("other")),
        ("units/uwsgi-old@x.service", UNIT.format("old")),
        ("units/old.service", UNIT.format("old")),
        ("units/django-old.service", UNIT.format("old")),
        ("units/django-old.worker.service", UNIT.format("other")),
        ("state/accounts/group-x", "somebody's\n"),
    ],
)
def test_what_has_no_mark_is_somebody_elses(root: pathlib.Path, path: str, text: str) -> None:
    (root / path).write_text(text)
    assert modules(root).site_leftovers.found() == {}


def test_a_link_with_the_mark_behind_it_is_nobodys(root: pathlib.Path) -> None:
    (root / "real").write_text(UNIT.format("old"))
    (root / "units/uwsgi-old.service").symlink_to(root / "real")
    assert modules(root).site_leftovers.found() == {}


@pytest.mark.parametrize("purge", [False, True])
@pytest.mark.parametrize("test", [False, True])
def test_what_is_still_there_after_a_purge_is_a_failure(
    root: pathlib.Path, purge: bool, test: bool
) -> None:
    """nginx's file, which is for another state to remove, stands for anything that stays."""
    path = root / "nginx/sites-available/old.conf"
    path.write_text(NGINX.format("old"))
    ret = modules(root, test=test, purge=purge).states.site_leftovers.handled("x")
    assert path.exists()
    if not purge:
        assert (ret["result"], ret["changes"]) == (True, {})
        assert f"it stays as it is (nginx {path})" in ret["comment"]
    elif test:
        assert ret["result"] is None
        assert ret["changes"] == {"old": {"old": {"nginx": [str(path)]}, "new": None}}
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == f"old is still there: nginx {path}"


def test_the_account_of_a_site_in_the_pillar_is_never_removed(root: pathlib.Path) -> None:
    with pytest.raises(CommandExecutionError, match="it is no leftover"):
        modules(root).site_leftovers.remove_accounts("mysite")


def test_a_wrong_pillar_is_a_failure_in_one_sentence(root: pathlib.Path) -> None:
    ret = modules(root, purge="yes").states.site_leftovers.handled("x")
    assert ret["result"] is False
    assert "the pillar is not valid" in ret["comment"] and "Traceback" not in ret["comment"]
