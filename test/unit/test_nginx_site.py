"""What a site may ask of nginx: what is refused, each by its path, and who is whose default."""

import copy
from typing import Any

import pytest

from ..hosts.paths import FORMULA
from ..modules import Modules
from .test_nginx_tree import a_site, with_files


def modules(site: dict[str, Any] | None = None, others: Any = None, **nginx: Any) -> Modules:
    sites = {"mysite": a_site(**(site or {})), **(others or {})}
    pillar = {"nginx_uwsgi_django": {"nginx": nginx, "sites": copy.deepcopy(sites)}}
    return with_files(Modules(pillar=pillar), FORMULA)


FLAWS = {
    "a; }": "line 1: this } closes",
    "location / {\n a;": "line 1: the block that opens here is not closed",
    "a b": "line 1: the directive is not ended",
    "a 'b;": "quote",
    # nginx opens no block behind ${ before another character came: its } closes the server.
    "set $x ${{a; }": "line 1: this } closes",
    "set $x a\\${ }\n}": "line 2: this } closes",
    ";": "nothing stands before",
}


@pytest.mark.parametrize("text", FLAWS)
def test_a_text_that_would_reach_out_of_its_block_is_refused(text: str) -> None:
    (error,) = modules({"snippet": text}).site_pillar.check()
    assert error["path"] == "nginx_uwsgi_django:sites:mysite:snippet"
    assert FLAWS[text] in error["found"]
    (error,) = modules(snippet=text).site_pillar.check()
    assert error["path"] == "nginx_uwsgi_django:nginx:snippet"


@pytest.mark.parametrize(
    "text", ["a;", "# }\na 'b}' \"{\";\n", 'location ~ "x{1}" { a; }', "a ${b}c; # end", ""]
)
def test_a_whole_text_is_none_of_our_business(text: str) -> None:
    assert modules().nginx_tree.flaw(text) == ""


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "websockets": ({"websockets": True}, "websockets", "uwsgi protocol"),
    "the project itself": (
        {"files": [{"url": "/m/", "path": "/srv/mysite"}]},
        "files:0:path",
        "nothing but files",
    ),
    "its package": (
        {"files": [{"url": "/m/", "path": "/srv/mysite/mysite/x"}]},
        "files:0:path",
        "nothing but files",
    ),
    "its data": (
        {"files": [{"url": "/m/", "path": "/srv/mysite/shared"}]},
        "files:0:path",
        "nothing but files",
    ),
    "two on one place": (
        {
            "redirects": [{"from": "/m/*", "to": "/x"}],
            "files": [{"url": "/m/", "path": "/srv/m/n"}],
        },
        "files:0:url",
        "each once",
    ),
    "static files' place": (
        {"redirects": [{"from": "/static/*", "to": "/x"}]},
        "redirects:0:from",
        "each once",
    ),
    "a network's bits": (
        {"load_balancer": {"addresses": ["10.0.0.1/8"]}},
        "load_balancer:addresses:0",
        "mask",
    ),
    "a variable": ({"headers": {"X-A": "$host"}}, "headers:X-A", "dollar"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_by_its_path(name: str) -> None:
    site, path, words = REFUSED[name]
    (error,) = modules(site).site_pillar.check()
    assert error["path"] == f"nginx_uwsgi_django:sites:mysite:{path}"
    assert words in " ".join(error.values())


def test_one_site_answers_for_every_name_and_two_do_not() -> None:
    other = {"other": a_site(server_names=["o.org"])}
    assert "444" not in modules().nginx_site.http([])
    text = modules(others=other).nginx_site.http([])
    assert "listen 80 default_server;" in text and "return 444;" in text
    assert "444" not in modules(others=other, catch_all=False).nginx_site.http([])
    # Somebody is the default there.
    assert "444" not in modules(others=other).nginx_site.http([], defaulted=[["*", "80"]])
    own = {"listen": ["80 default_server"]}
    assert "444" not in modules(own, other).nginx_site.http([])
    assert "444" not in modules({"server_names": ["_"]}, other).nginx_site.http([])


def test_the_health_site_is_one_of_the_sites() -> None:
    (error,) = modules(health={"path": "/-/h", "site": "nosuch"}).site_pillar.check()
    assert error["path"] == "nginx_uwsgi_django:nginx:health:site"
