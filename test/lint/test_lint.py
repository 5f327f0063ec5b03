"""
The linters, as tests: the run's closing line speaks for them too.
"""

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from .. import matrix
from ..hosts.paths import FORMULA
from ..hosts.salts import VERSIONS

BIN = pathlib.Path(sys.executable).parent


def lint(*words: str) -> None:
    """Run a linter in the checkout; its findings are the failure's message."""
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        cwd=FORMULA,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"


def tracked(*patterns: str) -> list[str]:
    """The files of these patterns, without what git ignores."""
    words = ["git", "-c", f"safe.directory={FORMULA}", "ls-files", "--cached", "--others"]
    done = subprocess.run(
        [*words, "--exclude-standard", "--", *patterns],
        cwd=FORMULA,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [name for name in done.stdout.splitlines() if (FORMULA / name).is_file()]
    assert found, f"nothing matches {patterns}: the linter would look at nothing"
    return found


def python_files() -> list[str]:
    """Every Python file, those without a suffix too."""
    scripts = [
        name
        for name in tracked("bin")
        if (FORMULA / name).read_bytes().split(b"\n")[0].endswith(b"python3")
    ]
    return [*tracked("*.py"), *scripts]


def test_ruff_finds_nothing() -> None:
    lint("ruff", "check", *python_files())


def test_ruff_would_format_nothing() -> None:
    lint("ruff", "format", "--check", "--diff", *python_files())


def test_mypy_finds_nothing() -> None:
    lint("mypy", *tracked("_modules/*.py", "_states/*.py", "_runners/*.py", "test/hosts/*.py"))


@pytest.mark.parametrize("script", ["bin/test", "bin/bench", "bin/apply", "bin/adopt"])
def test_mypy_finds_nothing_in_the_commands(script: str) -> None:
    if (FORMULA / script).read_bytes().split(b"\n")[0].endswith(b"python3"):
        lint("mypy", "--scripts-are-modules", script)


def test_salt_lint_finds_nothing() -> None:
    # 205 wants every file of states to end in .sls; ours with .jinja are included, not applied.
    lint("salt-lint", "-x", "205", *tracked("*.sls", "*.jinja"))


def test_yamllint_finds_nothing() -> None:
    # Files with Jinja in them are no YAML before they are rendered: salt-lint's business.
    plain = [
        name
        for name in tracked("*.yaml", "*.yml", "pillar.example", "FORMULA")
        if "{%" not in (FORMULA / name).read_text("utf-8")
    ]
    lint("yamllint", "--strict", *plain)


def test_ruff_finds_nothing_in_the_script_of_the_user_data(tmp_path: pathlib.Path) -> None:
    text = (FORMULA / "examples/cloud-init/user-data").read_text("utf-8")
    assert len(text) < 16384, "EC2 takes no more"
    script = tmp_path / "bootstrap.py"
    script.write_text(yaml.safe_load(text)["write_files"][1]["content"], "utf-8")
    for how in (["check"], ["format", "--check", "--diff"]):
        lint("ruff", *how, "--config", str(FORMULA / "pyproject.toml"), str(script))


def test_readme_has_the_table_of_what_is_tested() -> None:
    """`python3 -m test.matrix` prints it."""
    assert matrix.table() in (FORMULA / "README.md").read_text("utf-8")


def test_bin_apply_installs_the_salt_that_is_tested() -> None:
    assert f'SALT_VERSIONS = ("{VERSIONS["3008"]}", ' in (FORMULA / "bin/apply").read_text("utf-8")
