"""What a site may ask of nginx: what is refused, each by its path, and who is whose default."""

import copy
import pathlib
from typing import Any

import pytest

from _nud import nginx_language

from ..hosts.paths import FORMULA
from ..modules import Modules
from .test_nginx_tree import a_site, parsed, with_files


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
    assert nginx_language.flaw(text) == ""


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
    "a network's bits of maintenance": (
        {"maintenance": {"except": ["10.0.0.1/8"]}},
        "maintenance:except:0",
        "mask",
    ),
    "a page of the system's": (
        {"maintenance": {"page": "/etc/shadow"}},
        "maintenance:page",
        "system",
    ),
    "a password": ({"basic_auth": {"users": {"ann": "secret"}}}, "basic_auth:users:ann", "hash"),
    "nobody": ({"basic_auth": {"users": {}}}, "basic_auth:users", "at least one user"),
    "a log elsewhere": (
        {"access_log": {"path": "/etc/cron.d/x.log"}},
        "access_log:path",
        "/var/log/nginx",
    ),
    "a format of nobody's": (
        {"access_log": {"path": None, "format": "json"}},
        "access_log:format",
        "none of nginx:log_formats",
    ),
    "a limit that is none": (
        {"rate_limits": [{"path": "/", "rate": "fast"}]},
        "rate_limits:0:rate",
        "10r/m",
    ),
    "a limit on files": (
        {"rate_limits": [{"path": "/static/", "rate": "1r/s"}]},
        "rate_limits:0:path",
        "each once",
    ),
    "a redirect to no one name": (
        {"server_names": ["*.a.org"], "redirect_from": ["a.org"]},
        "redirect_from",
        "'*.a.org'",
    ),
    "a redirect from itself": (
        {"server_names": ["a.org"], "redirect_from": ["A.org"]},
        "redirect_from:0",
        "item 0 of server_names",
    ),
    "a redirect of a path": ({"redirect_from": ["a.org/b"]}, "redirect_from:0", "redirects"),
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


def test_a_password_is_in_no_message() -> None:
    (error,) = modules({"basic_auth": {"users": {"ann": "hunter2"}}}).site_pillar.check()
    assert "hunter2" not in str(error)


def test_the_site_without_the_new_features_is_as_it_was() -> None:
    text = modules().nginx_site.render("mysite")
    for word in (
        "auth_basic ",
        "limit_req",
        "error_page",
        "access_log",
        "keepalive",
        "geo ",
        "map ",
    ):
        assert word not in text, word


def test_other_names_are_sent_to_the_first(tmp_path: pathlib.Path) -> None:
    def moved(**site: Any) -> list[tuple[str, ...]]:
        names = {"server_names": ["www.a.org", "b.org"], "redirect_from": ["a.org", "*.a.net"]}
        path = tmp_path / "mysite.conf"
        path.write_text(modules({**names, **site}).nginx_site.render("mysite"))
        *_, last = [one for one in parsed(path) if one["directive"] == "server"]
        body = [one for one in last["block"] if "comment" not in one]
        assert ["a.org", "*.a.net"] in [one["args"] for one in body]
        listens = [tuple(one["args"]) for one in body if one["directive"] == "listen"]
        return [*listens, tuple(body[-1]["block"][0]["args"])]

    assert moved(listen=["80 default_server", 8080]) == [
        ("80",),
        ("8080",),
        ("301", "http://www.a.org$request_uri"),
    ]
    assert moved(listen=[8080])[-1] == ("301", "http://www.a.org:8080$request_uri")
    balanced = {"load_balancer": {"addresses": ["10.0.0.0/8"]}, "listen": [8080]}
    names = {"server_names": ["www.a.org"], "redirect_from": ["a.org"]}
    text = modules({**names, **balanced}).nginx_site.render("mysite")
    assert "return 301 $site_mysite_scheme://www.a.org$request_uri;" in text
    # They count where nginx sizes its table of names, and for nobody else.
    many = [f"n{n}.example.org" for n in range(300)]
    assert "server_names_hash_max_size" in modules(
        {"server_names": ["a.org"], "redirect_from": many}
    ).nginx_site.http([])
    (error,) = modules(
        {"server_names": ["a.org"], "redirect_from": ["b.org"]},
        {"other": a_site(server_names=["b.org"])},
    ).site_pillar.check()
    assert error["path"].endswith("sites:other:server_names:0")
