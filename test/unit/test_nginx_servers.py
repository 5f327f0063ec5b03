"""What a tree of nginx serves, what another one does not, and whose a name is."""

import os
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from _nud import nginx_files, nginx_servers

from ..modules import Modules
from .test_nginx_tree import Tree, a_site, apply, tree, with_nginx  # noqa: F401

NAME = "www.example.org"


def server(*addresses: str, names: tuple[str, ...] = (NAME,), **more: Any) -> dict[str, Any]:
    return {
        "path": "sites-enabled/a",
        "line": 1,
        "addresses": list(addresses),
        "names": list(names),
        "own": False,
        **more,
    }


def what(now: list[dict[str, Any]], then: list[dict[str, Any]]) -> list[str]:
    return [loss["what"] for loss in nginx_servers.losses(now, then)]


@pytest.mark.parametrize(
    ("now", "then", "lost"),
    [
        (server("*:80"), server("*:80"), []),
        (server("*:80"), server("[::]:80"), ["listen *:80"]),
        (server("10.0.0.1:80"), server("*:80"), []),
        (server("[2001:db8::1]:80"), server("*:80"), ["listen [2001:db8::1]:80"]),
        (server("*:80", "*:443"), server("*:80"), ["listen *:443"]),
        (server("*:80", names=("old.org", NAME)), server("*:80"), ["name old.org on *:80"]),
        (server("*:80", names=("old.org",), own=True), server("*:80"), []),
        (server("*:80", own=True), server("*:8080"), ["listen *:80"]),
        (server("*:80", names=("_", "")), server("*:80"), []),
        (server("*:80", names=("a.x.org",)), server("*:80", names=("*.x.org",)), []),
        (server("*:80", names=("x.org",)), server("*:80", names=(".x.org",)), []),
        (server("*:80", names=("*.x.org",)), server("*:80", names=("a.x.org",)), ["name *.x.org on *:80"]),
        (server("*:80", names=("a.x.org",)), server("*:80", names=(r"~^a\.x",)), []),
        (server("unix:/run/a.sock"), server("*:80"), ["listen unix:/run/a.sock"]),
    ],
)  # fmt: skip
def test_losses(now: dict[str, Any], then: dict[str, Any], lost: list[str]) -> None:
    assert what([now], [then]) == lost


def test_the_servers_in_the_order_in_which_nginx_reads_them(tree: Tree) -> None:  # noqa: F811
    tree.write("snippets/ssl.conf", "ssl_certificate /etc/ssl/a.pem;\n")
    tree.write(
        "conf.d/b.conf",
        "server {\n    listen 443 ssl;\n    server_name A.example.org;\n"
        "    include snippets/ssl.conf;\n    location / { return 200 listen; }\n}\n"
        "server { listen [::]:8080 ipv6only=off; server_name b; }\n",
    )
    tree.write("conf.d/.hidden.conf", "server { listen 1; }\n")
    tree.write("sites-available/c", "# a comment\nserver { server_name c; }\n")
    os.symlink("../sites-available/c", tree.base / "sites-enabled/c")
    os.unlink(tree.base / "sites-enabled/default")
    m = tree.modules().nginx_tree
    found = nginx_servers.of_tree(m._base(), m._shown(), nginx_files.live(m._base()))
    rows = [(one["path"], one["line"], one["addresses"], one["names"]) for one in found]
    assert rows == [
        ("conf.d/b.conf", 1, ["*:443"], ["a.example.org"]),
        ("conf.d/b.conf", 7, ["[::]:8080", "*:8080"], ["b"]),
        ("sites-enabled/c", 2, ["*:80"], ["c"]),
    ]
    assert found[0]["certificate"] == "/etc/ssl/a.pem" and found[0]["encrypted"] == ["*:443"]


@pytest.mark.parametrize(
    ("path", "text", "whose"),
    [
        ("conf.d/a.conf", "server { listen 80; server_name www.example.org; }\n", "line 1 (not this"),
        ("sites-enabled/a", "\nserver { server_name www.example.org; }\n", "line 2 (not this"),
        ("sites-enabled/zzz", "server { server_name www.example.org; }\n", None),
        ("sites-enabled/zzz", "server { listen 10.1.1.1:80; server_name www.example.org; }\n", "line 1"),
        ("conf.d/a.conf", "server { listen 81; server_name www.example.org; }\n", None),
        ("conf.d/a.conf", "server { listen 80; server_name *.example.org; }\n", None),
    ],
)  # fmt: skip
def test_a_name_that_another_file_has(tree: Tree, path: str, text: str, whose: str | None) -> None:  # noqa: F811
    sites = {"mysite": a_site(server_names=[NAME])}
    apply(tree.modules(sites))
    assert tree.modules(sites).nginx_tree.shadowed() == {}
    tree.write(path, text)
    found = tree.modules(sites).nginx_tree.shadowed()
    if whose is None:
        assert found == {}
        return
    (told,) = found["mysite"]
    assert told.startswith(f"{NAME} on ") and f"{tree.base}/{path}, {whose}" in told


def test_a_name_that_a_site_has_which_the_pillar_has_lost(tree: Tree) -> None:  # noqa: F811
    apply(tree.modules({"mysite": a_site(server_names=[NAME])}))
    modules = tree.modules({"site": a_site(server_names=[NAME])})
    # As it would be, and as it is.
    foreseen = modules.nginx_tree.shadowed("base")
    apply(modules)
    found = modules.nginx_tree.shadowed()
    assert found == foreseen
    (told,) = found["site"]
    assert "sites-enabled/mysite.conf" in told and "`absent: true` under sites:mysite" in told


def test_what_is_lost_is_refused_with_the_line_that_allows_it(tree: Tree) -> None:  # noqa: F811
    loss = {"what": "listen *:443", "path": "sites-enabled/a.conf", "line": 3}
    with pytest.raises(CommandExecutionError) as refused:
        tree.modules().nginx_tree._allowed("/etc/nginx", [loss])
    assert "listen *:443 (/etc/nginx/sites-enabled/a.conf, line 3)" in str(refused.value)
    assert 'nginx_uwsgi_django:nginx:allow_loss: ["listen *:443"]' in str(refused.value)
    modules = tree.modules(nginx={"user": "nosuchuser", "allow_loss": ["listen *:443"]})
    assert modules.nginx_tree._allowed("/etc/nginx", [loss]) == [
        "no longer answered, by nginx:allow_loss: listen *:443 (/etc/nginx/sites-enabled/a.conf, line 3)"
    ]


@pytest.mark.parametrize("redirects", [True, False])
def test_a_live_certificate_stays_until_the_authority_has_sent_one(
    tree: Tree,  # noqa: F811
    redirects: bool,
) -> None:
    live = tree.base / "live.pem"
    live.write_text("a certificate and a key\n")
    plain = "return 301 https://$host$request_uri;" if redirects else ""
    tree.write(
        "sites-enabled/hand",
        f"server {{ listen 80; server_name {NAME}; {plain} }}\n"
        f"server {{ listen 443 ssl; server_name {NAME};\n"
        f"  ssl_certificate {live}; ssl_certificate_key {live}; }}\n",
    )

    def modules() -> Modules:
        made = tree.modules(
            {"mysite": a_site(server_names=[NAME], tls={"acme": True})},
            acme={"email": "ops@example.org", "terms_agreed": True},
        )
        return with_nginx(made, "1.22.1")

    apply(modules())
    os.unlink(tree.base / "sites-enabled/hand")
    # From the formula's own file, from now on.
    assert modules().nginx_tree.diff() == {}
    text = tree.read("sites-available/mysite.conf")
    assert f"ssl_certificate {live};" in text and f"ssl_certificate_key {live};" in text
    assert ("return 301 https://" in text) is redirects
    assert "Strict-Transport-Security" not in text
    os.unlink(live)
    apply(modules())
    assert "sites-available/mysite.pem;" in tree.read("sites-available/mysite.conf")
