"""
A name that is no site's is refused before a path is made of it, by every function that takes one.
"""

import inspect
import os

import pytest
from salt.exceptions import CommandExecutionError

MODULES = (
    "django_command",
    "django_preparation",
    "django_release",
    "python_venv",
    "release_hook",
    "release_live",
    "release_record",
    "release_source",
    "site_plan",
    "site_rollback",
    "system_account",
)
# What else a function has to be told.
MORE = {
    "release": "0" * 12,
    "record": "note.json",
    "value": 1,
    "what": "a test",
    "argv": ["true"],
    "timeout": 1,
    "folder": "/",
    "text": "x",
    "command": "check",
    "path": "/srv/x",
    "venv": "0" * 12,
    "back": False,
    "count": 1,
    "leave": None,
    "before": None,
    "points": ["before_fetch"],
    "keep": [],
    "user": "games",
}


def takers(m):
    for module in MODULES:
        for function, call in vars(getattr(m, module)).items():
            if not inspect.isfunction(call) or function.startswith("_"):
                continue
            # A context manager's own function is the one that is written in the module.
            if inspect.unwrap(call).__module__ != getattr(m, module).__name__:
                continue
            parameters = list(inspect.signature(call).parameters.values())
            if parameters and parameters[0].name == "name":
                required = [each for each in parameters[1:] if each.default is each.empty]
                yield f"{module}.{function}", call, required


def told(required):
    return {
        each.name: MORE.get(each.name, "x") for each in required if each.kind != each.VAR_KEYWORD
    }


@pytest.mark.parametrize("name", ["../evil", "nosuch", "/etc", "a/b", "", ".."])
def test_no_function_makes_anything_of_a_name_that_is_no_sites(modules, tmp_path, name):
    state_dir = tmp_path / "deep" / "state"
    m = modules(
        pillar={"nginx_uwsgi_django": {"lookup": {"state_dir": str(state_dir)}, "sites": {}}},
        opts={"cachedir": str(tmp_path / "deep" / "cache")},
    )
    asked = 0
    for function, call, required in takers(m):
        asked += 1
        try:
            answer = call(name, **told(required))
            if hasattr(answer, "__enter__"):
                with answer:
                    pass
        except CommandExecutionError:
            pass
        else:
            # Nothing is known of a name that could be a site's; no path is made of any other.
            assert name == "nosuch", function
        assert os.listdir(tmp_path) == [], function
    assert asked > 40
