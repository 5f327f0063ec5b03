"""What dpkg has, asked once and again only when dpkg has written."""

import os
import pathlib
import stat
from typing import Any

import pytest

from _nud import apt

from ..modules import Modules

ROWS = (
    ("nginx", "hi ", "1.22.1-9"),
    ("nginx-common", "ii ", "1.22.1-9"),
    ("libc6:amd64", "iU ", "2.36-9"),
    ("libgone", "rc ", "1.0"),
    ("libnever", "un ", ""),
    ("broken", "iHR", "3"),
)
LISTING = "".join("\t".join(row) + "\n" for row in ROWS)


@pytest.fixture
def dpkg(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    m = Modules()
    program = tmp_path / "bin" / "dpkg-query"
    program.parent.mkdir()
    (tmp_path / "status").write_text(LISTING)
    (tmp_path / "updates").mkdir()
    program.write_text(f"#!/bin/sh\necho >> {tmp_path}/asked\ncat {tmp_path}/status\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    database = (str(tmp_path / "status"), str(tmp_path / "updates"))
    monkeypatch.setattr(m.dpkg_packages, "_DATABASE", database)
    path = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    monkeypatch.setattr(apt, "environment", lambda: path)
    return m.dpkg_packages


def asked(folder: pathlib.Path) -> int:
    return len((folder / "asked").read_text().splitlines())


def test_what_is_on_the_host(dpkg: Any) -> None:
    assert dpkg.on_host() == {
        "nginx": {"version": "1.22.1-9", "whole": True, "held": True},
        "nginx-common": {"version": "1.22.1-9", "whole": True, "held": False},
        "libc6": {"version": "2.36-9", "whole": False, "held": False},
        "broken": {"version": "3", "whole": False, "held": False},
    }


@pytest.mark.parametrize("what", ["status", "updates/0001"])
def test_asked_again_when_dpkg_has_written(dpkg: Any, tmp_path: pathlib.Path, what: str) -> None:
    first = dpkg.on_host()
    assert dpkg.on_host() is first and asked(tmp_path) == 1
    new = tmp_path / "new"
    new.write_text(LISTING)
    new.rename(tmp_path / what)
    assert dpkg.on_host() == first and asked(tmp_path) == 2


def test_dpkg_that_does_not_answer(dpkg: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "bin" / "dpkg-query").write_text("#!/bin/sh\necho 'it is locked' >&2; exit 2\n")
    with pytest.raises(Exception, match="dpkg-query: it is locked"):
        dpkg.on_host()
