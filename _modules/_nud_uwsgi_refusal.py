"""
Whether uWSGI will run a generation, as far as uWSGI itself tells without being started.
"""

import grp
import json
import os
import pwd
import re
from typing import Any

from _nud_executables import is_for_all, sorted_glob
from _nud_program import Done, run_as
from _nud_uwsgi_files import Generation
from _nud_uwsgi_ini import question
from _nud_uwsgi_unit import account, is_within

# The configurations, without the sites' names, that programs have accepted.
_ACCEPTED: set[tuple[str, tuple[str, ...], str]] = set()

_TIMEOUT = 30


def reason(site: dict[str, Any], generation: Generation) -> str | None:
    """
    Why uWSGI will not run a generation: it is not uWSGI, the site's user cannot execute it, it has no
    Python or another one than the virtual environment, or it does not know an option.

    site
        the pillar's
    generation
        the generation

    Returns a sentence; None when nothing speaks against it, or when uWSGI, the virtual environment or
    the user is not there yet.
    """
    program, venv = generation.program, generation.parts["venv"]["path"]
    pythons = [os.path.basename(path) for path in sorted_glob(venv, "lib/python3.*")]
    user, group = account(generation.unit)
    why = _wrong_binary(site, program)
    if why or not os.access(program, os.X_OK) or not pythons:
        return why
    try:
        pwd.getpwnam(user), grp.getgrnam(group)
    except KeyError:
        return None
    why = _wrong_script(site["name"], program, venv)
    if why:
        return why
    # What a program said to one site it says to the next with the same configuration. What a project's
    # own ini takes from other files is not in the text.
    text = generation.ini.replace(generation.digest, "")
    text = re.sub(rf"\b{re.escape(site['name'])}\b", "NAME", text)
    asked = (json.dumps(generation.parts["programs"]), tuple(pythons), text)
    if asked in _ACCEPTED and is_for_all(program) and not site["uwsgi"]["ini"]:
        return None
    # Read from standard input, so that nothing has to be written; strict mode refuses an option
    # that this uWSGI or its plugins do not know while it reads, and --python-version ends it before
    # any value is looked at (a project's own ini may have a command in one).
    done = run_as(
        user,
        group,
        [program, "--ini", "-", "--python-version"],
        "/",
        {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        _TIMEOUT,
        stdin=question(generation.ini),
    )
    why = _objection(site, generation, done, user) or _wrong_python(
        site["name"], program, done["stdout"], venv, pythons
    )
    if not why:
        _ACCEPTED.add(asked)
    return why


def _where(name: str, program: str) -> str:
    return f"{program} (nginx_uwsgi_django:sites:{name}:uwsgi)"


def _wrong_binary(site: dict[str, Any], program: str) -> str | None:
    if program != site["uwsgi"]["binary"] or os.access(program, os.X_OK):
        return None
    project = site["project"]
    hooked = any(isinstance(words, list) and words for words in project["hooks"].values())
    # A hook may install it, or a release bring it.
    if hooked or is_within(program, [project["path"]]):
        return None
    return (
        f"nginx_uwsgi_django:sites:{site['name']}:uwsgi:binary: found {program!r}, which is no "
        "executable file of this host; expected the path of uWSGI's executable"
    )


def _wrong_script(name: str, program: str, venv: str) -> str | None:
    with open(program, "rb") as stream:
        first = stream.readline(256)
    if first[:2] != b"#!" or os.path.realpath(os.path.dirname(program)) == os.path.realpath(
        f"{venv}/bin"
    ):
        return None
    return (
        f"{_where(name, program)} is a script ({first.decode(errors='replace').strip()}), not uWSGI's "
        "own executable: pyuwsgi serves no other virtual environment than the one it is installed "
        f"in, and the site's is {venv}"
    )


def _objection(site: dict[str, Any], generation: Generation, done: Done, user: str) -> str | None:
    """What uWSGI has against its configuration."""
    where = _where(site["name"], generation.program)
    lines = done["stdout"].strip().splitlines()
    if done["timed_out"]:
        return f"{where} does not say within {_TIMEOUT} s which Python it has"
    if done["retcode"] in (126, 127):
        return f"{where} cannot be executed by {user}: {' '.join(lines)}"
    unknown = re.search(r"unknown config directive: (\S+)", done["stdout"])
    if unknown and unknown[1] in ("home", "module"):
        return (
            f"{where} has no Python: the distribution's is run with `package: distro`, which loads "
            "its plugin"
        )
    if unknown:
        if unknown[1] in site["uwsgi"]["options"]:
            return f"{where} does not know the option {unknown[1]} (uwsgi:options)"
        return (
            f"{where} does not know the option {unknown[1]} (uwsgi:ini); a name of the project's own "
            f"is declared there by `set-placeholder = {unknown[1]}=...`"
        )
    if done["retcode"]:
        return f"{where} does not take its configuration: {' '.join(lines[-3:])}"
    return None


def _wrong_python(
    name: str, program: str, output: str, venv: str, pythons: list[str]
) -> str | None:
    lines = output.strip().splitlines()
    version = re.fullmatch(r"(3\.\d+)\.\d+\S*", lines[-1] if lines else "")
    where = _where(name, program)
    if not version:
        return f"{where} is no uWSGI: asked for its Python it says {(lines or ['nothing'])[-1]!r}"
    if f"python{version[1]}" in pythons:
        return None
    return (
        f"{where} has Python {version[0]}, and {venv} is of {', '.join(pythons)}: they have to "
        "be of one version"
    )
