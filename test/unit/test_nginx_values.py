"""Whatever a value is, a site's file keeps its shape: crossplane, which nobody here wrote, reads it."""

import pathlib
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from salt.exceptions import CommandExecutionError

from _nud import nginx_language

from ..hosts.paths import FORMULA
from ..modules import Modules
from ..values import TEXTS, certified, placed, sites
from .test_nginx_tree import parsed, with_files, with_nginx

# The strategies are slow to draw from; --full has its own number.
FEW = settings(suppress_health_check=list(HealthCheck), deadline=None)


@pytest.fixture(scope="module")
def m() -> Modules:
    return with_files(Modules(pillar={"nginx_uwsgi_django": {"sites": {}}}), FORMULA)


def shape(block: list[dict[str, Any]]) -> list[Any]:
    """Names of directives with what is inside them, without their values."""
    return [
        (one["directive"], shape(one["block"]) if "block" in one else None)
        for one in block
        if "comment" not in one
    ]


def words(block: list[dict[str, Any]], name: str) -> list[list[str]]:
    found = []
    for one in block:
        if one["directive"] == name:
            found.append(one["args"])
        found += words(one.get("block", []), name)
    return found


def read_back(word: str) -> str:
    """crossplane leaves the escapes that nginx takes away."""
    return re.sub(r"\\([\\\"])", r"\1", word)


@FEW
@given(value=TEXTS)
def test_a_quoted_value_is_one_parameter_or_refused(
    m: Modules, tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    unwritable = "$" in value or any(ord(char) < 32 or ord(char) == 127 for char in value)
    path = tmp_path_factory.getbasetemp() / "value.conf"
    try:
        word = nginx_language.quote(value)
    except CommandExecutionError:
        assert unwritable
        return
    assert not unwritable
    path.write_text(f"http {{ server {{ root {word}; index x; }} }}\n", encoding="utf-8")
    tree = parsed(path)
    assert shape(tree) == [("http", [("server", [("root", None), ("index", None)])])]
    assert [read_back(one) for one in words(tree, "root")[0]] == [value]


@FEW
@given(site=sites())
def test_a_site_has_the_shape_of_every_other(
    m: Modules, tmp_path_factory: pytest.TempPathFactory, site: dict[str, Any]
) -> None:
    whole = placed(site, "mysite", 8000)
    m.opts["pillar"]["nginx_uwsgi_django"] = {"sites": {"mysite": whole}}
    m.context.clear()
    if any(error["path"].endswith(("path", "0", "1", "2")) for error in m.site_pillar.check()):
        return  # names that are one to nginx, like .a.org and a.org; a path that is the system's
    path = pathlib.Path(tmp_path_factory.getbasetemp() / "site.conf")
    path.write_text(m.nginx_site.render("mysite"), encoding="utf-8")
    tree = parsed(path)
    listens = [("listen", None)] * len(whole["listen"])
    location = [
        ("include", None),
        ("uwsgi_param", None),
        ("uwsgi_param", None),
        ("uwsgi_param", None),
        ("uwsgi_pass", None),
    ]
    head = [("server_name", None), ("charset", None), ("client_max_body_size", None)]
    head += [("uwsgi_hide_header", None)] * 2 + [("add_header", None)] * 2
    assert shape(tree) == [("server", [*listens, *head, ("location", location)])]
    assert words(tree, "server_name") == [whole["server_names"]]
    assert words(tree, "listen") == [[one] for one in whole["listen"]]
    assert words(tree, "charset") == [[whole["charset"]]]
    assert words(tree, "uwsgi_pass") == [["unix:" + whole["socket"]["path"]]]


@FEW
@given(site=sites(), tls=certified())
def test_a_site_with_tls_has_its_files_and_one_way_to_its_application(
    m: Modules,
    tmp_path_factory: pytest.TempPathFactory,
    site: dict[str, Any],
    tls: dict[str, Any],
) -> None:
    whole = {**placed(site, "mysite", 8000), "tls": {**tls, "listen": [8443]}}
    m.opts["pillar"]["nginx_uwsgi_django"] = {"sites": {"mysite": whole}}
    m.context.clear()
    assume(not m.site_pillar.check())
    with_nginx(m, "1.22.1")
    path = pathlib.Path(tmp_path_factory.getbasetemp() / "tls.conf")
    path.write_text(m.nginx_site.render("mysite"), encoding="utf-8")
    tree = parsed(path)
    for directive in ("certificate", "key"):
        name = "ssl_certificate" + ("_key" if directive == "key" else "")
        assert {read_back(one[0]) for one in words(tree, name)} == {tls[directive]}
    assert words(tree, "uwsgi_pass") == [["unix:" + whole["socket"]["path"]]]
    assert bool(words(tree, "return")) == tls["redirect"]
    promised = [one for one in words(tree, "add_header") if one[0].startswith("Strict")]
    assert len(promised) == (tls["redirect"] and tls["hsts"] > 0)
