"""The library's cache: facts are looked up once in a session, and nothing changes meanwhile."""

import threading

import pytest
from salt.exceptions import CommandExecutionError


@pytest.fixture
def library(modules):
    modules()
    from _nud import accounts, cache, durable_file, systemd

    return {"accounts": accounts, "cache": cache, "file": durable_file, "systemd": systemd}


def test_a_session_belongs_to_its_thread(library):
    cache, seen = library["cache"], []
    with cache.session():
        other = threading.Thread(target=lambda: seen.append(cache.active()))
        other.start()
        other.join()
        assert cache.active()
    assert seen == [False]
    assert not cache.active()


def test_a_session_inside_of_another_is_refused_and_the_outer_one_goes_on(library):
    cache = library["cache"]
    with cache.session():
        with pytest.raises(RuntimeError, match="already active"):
            with cache.session():
                pass
        assert cache.active()


def test_a_session_ends_with_an_error_in_it(library):
    cache = library["cache"]
    with pytest.raises(CommandExecutionError), cache.session():
        raise CommandExecutionError("a look failed")
    assert not cache.active()


CHANGES = {
    "write": lambda file, path: file.write(f"{path}/old", "new"),
    "link": lambda file, path: file.link(f"{path}/link", "elsewhere"),
    "make": lambda file, path: file.directory(f"{path}/new"),
    "change the mode of": lambda file, path: file.directory(str(path), mode="0750"),
    "remove": lambda file, path: file.remove(f"{path}/old"),
}


@pytest.mark.parametrize("verb", CHANGES)
def test_a_session_refuses_a_change_of_a_file(library, tmp_path, verb, monkeypatch):
    # Whoever runs the tests owns these files.
    monkeypatch.setattr(library["file"], "_uid", lambda user: tmp_path.stat().st_uid)
    monkeypatch.setattr(library["file"], "_gid", lambda group: tmp_path.stat().st_gid)
    (tmp_path / "old").write_text("old")
    tmp_path.chmod(0o755)
    with library["cache"].session():
        with pytest.raises(RuntimeError, match=f"cannot {verb} {tmp_path}.*only looks"):
            CHANGES[verb](library["file"], tmp_path)
    assert (tmp_path / "old").read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["old"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_what_is_right_already_is_no_change(library, tmp_path, monkeypatch):
    file = library["file"]
    monkeypatch.setattr(file, "_uid", lambda user: tmp_path.stat().st_uid)
    monkeypatch.setattr(file, "_gid", lambda group: tmp_path.stat().st_gid)
    tmp_path.chmod(0o755)
    file.write(f"{tmp_path}/file", "text")
    file.link(f"{tmp_path}/link", "file")
    with library["cache"].session():
        assert not file.write(f"{tmp_path}/file", "text")
        assert not file.link(f"{tmp_path}/link", "file")
        assert not file.directory(str(tmp_path))
        assert not file.remove(f"{tmp_path}/gone")


def test_a_session_refuses_an_act_of_systemd(library, monkeypatch):
    monkeypatch.setattr(library["systemd"], "run", lambda *_: pytest.fail("systemctl was started"))
    with library["cache"].session():
        with pytest.raises(RuntimeError, match=r"cannot stop nginx\.service"):
            library["systemd"].act("stop", "nginx.service", 1)
