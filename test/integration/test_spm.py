"""The formula as a package of Salt's package manager: it builds, and what it installs is applicable."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from test.hosts.paths import FORMULA


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What a user clones: the tracked files alone (spm cannot install a compiled Python file)."""
    target = tmp_path_factory.mktemp("spm") / "checkout"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=FORMULA, capture_output=True, text=True, check=True
    ).stdout
    for name in tracked.rstrip("\0").split("\0"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FORMULA / name, target / name)
    return target


def test_spm_builds_and_installs_it(checkout, tmp_path):
    root = tmp_path / "root"
    settings = {
        "root_dir": str(root),
        "spm_build_dir": str(root / "build"),
        "formula_path": str(root / "salt"),
        "pillar_path": str(root / "pillar"),
        "reactor_path": str(root / "reactor"),
        "spm_db": str(root / "packages.db"),
        "spm_cache_dir": str(root / "cache"),
        "spm_logfile": str(root / "log"),
    }
    root.mkdir()
    for name in ("spm", "minion", "master"):
        (tmp_path / name).write_text(json.dumps(settings))
    spm = [os.path.join(os.path.dirname(sys.executable), "spm"), "-c", str(tmp_path), "-y"]

    subprocess.run([*spm, "build", str(checkout)], check=True, timeout=60)
    package = root / "build" / "nginx_uwsgi_django-0.1.0-1.spm"
    assert package.exists()

    subprocess.run([*spm, "local", "install", str(package)], check=True, timeout=60)
    installed = {
        str(path.relative_to(root / "salt"))
        for path in (root / "salt").rglob("*")
        if path.is_file()
    }
    for folder in ("_modules", "_states", "nginx_uwsgi_django"):
        wanted = {
            f"{folder}/{path.relative_to(checkout / folder)}"
            for path in (checkout / folder).rglob("*")
            if path.is_file()
        }
        # spm puts what is below the top level directory into a directory of the package's name.
        assert wanted <= installed, sorted(wanted - installed)
    assert (root / "pillar/nginx_uwsgi_django.sls.orig").exists()
