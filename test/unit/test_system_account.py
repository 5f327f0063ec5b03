"""
Data that changes hands.
"""

import os
import pathlib
import tempfile

import pytest


@pytest.fixture
def account(modules):
    return modules(pillar={"nginx_uwsgi_django": {"sites": {}}}).system_account


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield pathlib.Path(made)


def test_what_root_keeps_for_a_group_is_given_to_another(account, folder):
    release = folder / "release"
    (release / "shop").mkdir(parents=True)
    (release / "shop/models.py").write_text("x")
    outside = folder / "outside"
    outside.write_text("x")
    (release / "link").symlink_to(outside)
    for path in (release, release / "shop", release / "shop/models.py"):
        os.chown(path, 0, 4242)
        path.chmod(0o750)
    # A run that died in the middle: the directory itself is the last.
    os.chown(release / "shop", 0, 65534)
    assert account.regroup(str(release), "nogroup") is True
    for path in (release, release / "shop", release / "shop/models.py"):
        assert (path.stat().st_uid, path.stat().st_gid) == (0, 65534)
        assert path.stat().st_mode & 0o777 == 0o750
    assert outside.stat().st_gid == 0
    assert account.regroup(str(release), "nogroup") is False


def test_data_changes_hands_whole_and_through_no_link(account, folder):
    home = folder / "home"
    (home / "data").mkdir(parents=True)
    for name in ("data/db", "data/of-root"):
        (home / name).write_text("x")
    outside = folder / "outside"
    outside.write_text("x")
    os.chown(outside, 4242, 4242)
    (home / "link").symlink_to(outside)
    for name in ("", "data", "data/db", "link"):
        os.chown(home / name, 4242, 4242, follow_symlinks=False)
    assert account.adopt(str(home), "nobody", "nogroup") == 4
    assert (home / "data/db").stat().st_uid == 65534
    assert (home / "data/of-root").stat().st_uid == 0
    assert os.lstat(home / "link").st_uid == 65534
    assert outside.stat().st_uid == 4242
    assert account.adopt(str(home), "nobody", "nogroup") == 0
