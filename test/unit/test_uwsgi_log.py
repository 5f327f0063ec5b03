"""
A site's log: its files go with its data, and nobody else's do.
"""

import pytest


@pytest.fixture
def log(modules, tmp_path, monkeypatch):
    site = {
        "server_names": ["a.example"],
        "project": {"wsgi": "a.wsgi:application", "settings": "a.settings"},
    }
    pillar = {"lookup": {"uwsgi_log_dir": str(tmp_path)}, "sites": {"mysite": site}}
    module = modules(pillar={"nginx_uwsgi_django": pillar}).uwsgi_log
    monkeypatch.setattr(module, "_rotation", lambda name: str(tmp_path / f"uwsgi-{name}"))
    (tmp_path / "mysite").mkdir()
    (tmp_path / "uwsgi-mysite").write_text("")
    for name in ("mysite.log", "mysite.log.1", "mysite.log.2.gz"):
        (tmp_path / "mysite" / name).write_text("line\n")
    return module


def test_a_log_that_is_all_the_sites_goes_with_its_directory(log, tmp_path):
    assert log.leftovers("mysite") == [f"{tmp_path}/uwsgi-mysite"]
    assert log.remove("mysite", data=True) is True
    assert list(tmp_path.iterdir()) == []
    assert log.remove("mysite", data=True) is False


def test_what_somebody_else_logs_there_stays(log, tmp_path):
    (tmp_path / "mysite" / "access.log").write_text("theirs\n")
    (tmp_path / "mysite" / "mysite.logs").mkdir()
    log.remove("mysite", data=True)
    assert log.leftovers("mysite", data=True) == []
    left = sorted(path.name for path in (tmp_path / "mysite").iterdir())
    assert left == ["access.log", "mysite.logs"]
