"""No value becomes an option of its own: not in a generation's ini, and not in its preflight's."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from salt.exceptions import SaltInvocationError

from _nud import uwsgi_ini

from ..values import TEXTS

# What str.splitlines() takes for the end of a line, beside the newline.
SEPARATORS = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def site(value: Any) -> dict[str, Any]:
    return {
        "name": "mysite",
        "project": {"wsgi": "a.wsgi:application"},
        "uwsgi": {"processes": 2, "threads": 1, "options": {"touch-workers-reload": value}},
        "socket": {"path": "/run/uwsgi/mysite.sock"},
    }


def keys(text: str) -> list[str]:
    """As core/ini.c of uWSGI takes a file apart: lines end at a newline alone."""
    return [
        line.partition("=")[0].strip() for line in text.split("\n") if line and line[0] not in "#;["
    ]


BENIGN = uwsgi_ini.render(site("x"), "/srv/a")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(TEXTS, st.sampled_from(SEPARATORS).map(lambda mark: f"x{mark}exec-asap = id")))
def test_an_ini_has_the_same_options_whatever_the_value(value: str) -> None:
    try:
        text = uwsgi_ini.render(site(value), "/srv/a")
    except SaltInvocationError:
        return
    assert keys(text) == keys(BENIGN)
    assert f"touch-workers-reload = {value.replace('%', '%%')}\n" in text
    # The preflight leaves out what is not for it, touch-workers-reload among that, and all of it.
    private = uwsgi_ini.preflight(text, "/run/x.sock")
    assert private == uwsgi_ini.preflight(BENIGN, "/run/x.sock")


@pytest.mark.parametrize("mark", SEPARATORS)
def test_a_projects_own_ini_is_taken_apart_as_uwsgi_does(mark: str) -> None:
    own = f"[uwsgi]\n; a comment{mark}exec-asap = id\nstatic-index = a{mark}exec-asap = id\n"
    text = uwsgi_ini.render(site("x"), "/srv/a", own=own)
    assert "exec-asap" not in keys(text)
    assert text.startswith(own)
    assert "exec-asap" not in keys(uwsgi_ini.preflight(text, "/run/x.sock"))
