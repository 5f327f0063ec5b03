"""
nginx's language, the plan, and the two ways of putting it in place.  crossplane, which nobody here
wrote, reads what we write.
"""

import io
import json
import os
import pathlib
import re
import socket
import stat
import tarfile
import tempfile
import types
from collections.abc import Callable
from typing import Any

import crossplane
import pytest
from salt.exceptions import CommandExecutionError

from _nud import (
    nginx_archive,
    nginx_files,
    nginx_judge,
    nginx_kept,
    nginx_language,
    nginx_plan,
    nginx_ports,
    nginx_swap,
    nginx_user,
)

from ..hosts.paths import FORMULA
from ..modules import Modules

DEBIAN = """\
user www-data;
worker_processes auto;
pid /run/nginx.pid;
include /etc/nginx/modules-enabled/*.conf;

events {
\tworker_connections 768;
\t# multi_accept on;
}

http {
\tsendfile on;
\t# server_names_hash_bucket_size 64;
\tinclude /etc/nginx/mime.types;
\taccess_log /var/log/nginx/access.log;
\tinclude /etc/nginx/conf.d/*.conf;
\tinclude /etc/nginx/sites-enabled/*;
}
"""

NGINX_ORG = """
user  nginx;
worker_processes  auto;

error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;

events {
    worker_connections  1024;
}

http {
    include       /etc/nginx/mime.types;
    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '"$http_user_agent" "$http_x_forwarded_for"';
    include /etc/nginx/conf.d/*.conf;
}
"""


def a_site(**more: Any) -> dict[str, Any]:
    return {
        "server_names": ["*.compute.amazonaws.com"],
        "project": {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings"},
        **more,
    }


def with_files(modules: Modules, root: pathlib.Path) -> Modules:
    """
    Let a directory be the fileserver.  Salt's own takes a second to load; on the hosts of the
    functional tests it is Salt's.
    """
    modules.salt["cp.hash_file"] = lambda url, saltenv: (
        {"hsum": "any"} if (root / url.removeprefix("salt://")).is_file() else ""
    )
    modules.salt["cp.list_master"] = lambda saltenv, prefix: [
        str(path.relative_to(root)) for path in (root / prefix).rglob("*") if path.is_file()
    ]
    modules.salt["cp.get_file_str"] = lambda url, saltenv: (
        root / url.removeprefix("salt://")
    ).read_text()
    return modules


def with_nginx(modules: Modules, version: str) -> Modules:
    """Let nginx_site write for this version of nginx; on the hosts it asks the installed one."""
    modules.nginx_site.nginx_program = types.SimpleNamespace(version=lambda: version)
    return modules


class Tree:
    """A tree under a temporary directory, with the formula's real modules over it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.base = folder / "etc" / "nginx"
        for name in ("conf.d", "sites-available", "sites-enabled", "snippets"):
            (self.base / name).mkdir(parents=True)
        self.write("nginx.conf", DEBIAN)
        self.write("sites-available/default", "server { listen 80 default_server; }\n")
        self.write("snippets/mine.conf", "# mine\n")
        os.symlink(self.base / "sites-available/default", self.base / "sites-enabled/default")

    def write(self, path: str, text: str) -> None:
        (self.base / path).write_text(text, newline="")

    def read(self, path: str) -> str:
        return (self.base / path).read_bytes().decode()

    def modules(self, sites: dict[str, Any] | None = None, **top: Any) -> Modules:
        pillar = {
            "lookup": {"nginx_dir": str(self.base)},
            "nginx": {"user": "nosuchuser"},
            "sites": {"mysite": a_site()} if sites is None else sites,
            **top,
        }
        return with_files(Modules(pillar={"nginx_uwsgi_django": pillar}), FORMULA)

    def rows(self) -> dict[str, Any]:
        """Everything about everything in the tree but change times."""
        found = {}
        for folder, folders, files in os.walk(self.base):
            for name in [*folders, *files]:
                path = os.path.join(folder, name)
                seen = os.lstat(path)
                content = os.readlink(path) if os.path.islink(path) else None
                if content is None and os.path.isfile(path):
                    content = pathlib.Path(path).read_text()
                row = [seen.st_mode, seen.st_uid, seen.st_gid, content]
                if not stat.S_ISDIR(seen.st_mode):
                    row += [seen.st_ino, seen.st_mtime_ns]
                found[os.path.relpath(path, self.base)] = row
        return found


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture(scope="module")
def m() -> Any:
    return Modules(pillar={"nginx_uwsgi_django": {"sites": {"mysite": a_site()}}}).nginx_tree


def parsed(path: pathlib.Path | str, strict: bool = True) -> list[dict[str, Any]]:
    """What crossplane makes of a file, without the places of things; in a map it knows no names."""
    payload = crossplane.parse(
        str(path), single=True, strict=strict, check_ctx=False, check_args=strict, comments=True
    )
    assert payload["status"] == "ok", payload["errors"]

    def plain(block: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = ("directive", "args", "comment")
        return [
            {
                **{key: one[key] for key in kept if key in one},
                **({"block": plain(one["block"])} if "block" in one else {}),
            }
            for one in block
        ]

    return plain(payload["config"][0]["parsed"])


def words_of(path: pathlib.Path, strict: bool = True) -> list[tuple[str, ...]]:
    def flat(block: list[dict[str, Any]]) -> list[tuple[str, ...]]:
        found = []
        for one in block:
            if "comment" not in one:
                found.append((one["directive"], *one["args"]))
                found += flat(one.get("block", []))
        return found

    return flat(parsed(path, strict))


# --- the language ------------------------------------------------------------------------------


TEXTS = {
    "debian": DEBIAN,
    "nginx.org": NGINX_ORG,
    "quotes": "http { add_header X \"a; } { # b\" always; log_format l '\"$a\" \\'x\\' ;'; }\n",
    "comment signs": "http { server { return 200 a#b; } # a { comment } ;\n }\n#",
    "variables": "http { server { return 301 https://${host}$request_uri; } }\n",
    "regular expressions": 'http { server { location ~ "^/a{1,3}$" { deny all; } } }\n',
    "one line": "user a;events{}http{server{listen 80;}}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_directives_are_the_ones_that_crossplane_finds(
    m: Any, tmp_path: pathlib.Path, name: str
) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(TEXTS[name])
    assert [d.words for d in nginx_language.directives(TEXTS[name])] == words_of(path)


def test_escapes_are_read_as_nginx_reads_them(m: Any) -> None:
    # ngx_conf_read_token(): a backslash before these; before anything else it is itself.
    text = "return 200 \"a\\\"b\\\\c\\td\\de\" f\\;g 'h\\'i';"
    assert nginx_language.directives(text)[0].words == (
        "return",
        "200",
        'a"b\\c\td\\de',
        "f\\;g",
        "h'i",
    )


def test_directives_know_where_they_are(m: Any) -> None:
    text = "# user a;\nuser  'www-data' b ;\nhttp {\n  include x;\n}\n"
    user, http, include = nginx_language.directives(text)
    assert user.depth == 0 and user.words == ("user", "www-data", "b")
    assert [text[a:b] for a, b in user.spans] == ["user", "'www-data'", "b"]
    assert text[user.spans[0][0] : user.end] == "user  'www-data' b ;"
    assert http.block == () and include.block == ("http",)


@pytest.mark.parametrize(
    "text", ["user a", "http {", "}}}", "a 'unclosed", 'b "', "\\", "a\\", "{"]
)
def test_broken_text_ends(m: Any, text: str) -> None:
    # Judging it is nginx's work; ours is not to hang or to raise.
    assert isinstance(nginx_language.directives(text), list)


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "a b",
        'a"b',
        "a'b",
        "a;b",
        "a{b}c",
        "#a",
        "a#b",
        "a\\b",
        "a\\nb",
        "",
        "[::]:80",
        "é",
    ],
)
def test_a_quoted_value_is_read_as_itself(m: Any, tmp_path: pathlib.Path, value: str) -> None:
    path = tmp_path / "a.conf"
    text = f"http {{ server {{ root {nginx_language.quote(value)}; }} }}\n"
    path.write_text(text)
    assert nginx_language.directives(text)[2].words == ("root", value)
    if "\\" not in value:
        # crossplane leaves escapes as they are written.
        found = parsed(path)[0]["block"][0]["block"][0]
        assert found["directive"] == "root"
        assert [arg.replace('\\"', '"') for arg in found["args"]] == [value]


@pytest.mark.parametrize(
    "value", ["a\nb", "a\rb", "a\0b", "a\tb", "\x7f", "$host", "${a}", True, None]
)
def test_what_nginx_cannot_write_is_refused(m: Any, value: Any) -> None:
    with pytest.raises(CommandExecutionError):
        nginx_language.quote(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a ${b}{ c;", ["a", "${b}", "{", "c", ";"]),
        ("a $${{b;", ["a", "$${{b", ";"]),
        (r"a \${b;", ["a", "\\$", "{", "b", ";"]),
        (r"a \;b\ c;", ["a", "\\;b\\ c", ";"]),
        ("a b#c\"d'e};", ["a", "b#c\"d'e}", ";"]),
        ("a#b;\n#c;\n#d", ["a#b", ";"]),
        ('a "b;{#\\"\\t" ;', ["a", 'b;{#"\t', ";"]),
        ("a 'b\"';}", ["a", 'b"', ";", "}"]),
        (r"a b\\;", ["a", "b\\", ";"]),
        # Nothing behind it says that it ends here.
        ("a b", ["a", "broken b"]),
        ("a b\\", ["a", "broken b\\"]),
        ("a 'b", ["a", "broken b"]),
        ("a 'b'c;", ["a", "b", "broken "]),
    ],
)
def test_words(m: Any, text: str, words: list[str]) -> None:
    found = [
        {"word": token.word, "broken": f"broken {token.word}"}.get(token.kind, token.kind)
        for token in nginx_language.tokens(text)
    ]
    assert found == words


# --- the user directive ------------------------------------------------------------------------


USERS = {
    "as packaged": ("user www-data;\nevents {}\n", "user deploy;\nevents {}\n"),
    "nginx.org": ("\nuser  nginx;\n", "\nuser  deploy;\n"),
    "user and group": ("user www-data www-data;\n", "user deploy;\n"),
    "indented": ("\t user\twww-data ;  # who\n", "\t user\tdeploy ;  # who\n"),
    "quoted": ("user 'www-data';\n", "user deploy;\n"),
    "over two lines": ("user\n  www-data;\n", "user\n  deploy;\n"),
    "in the middle": ("pid /x;\nuser a;\nevents{}\n", "pid /x;\nuser deploy;\nevents{}\n"),
    "behind another": ("pid /x; user a; events{}", "pid /x; user deploy; events{}"),
    "only commented": (
        "\n#user  nobody;\nevents {}\n",
        "\n#user  nobody;\nuser deploy;\nevents {}\n",
    ),
    "commented and real": ("# user a;\nuser b;\n", "# user a;\nuser deploy;\n"),
    "missing": ("events {}\n", "user deploy;\nevents {}\n"),
    "empty": ("", "user deploy;\n"),
    "windows": ("user a;\r\nevents {}\r\n", "user deploy;\r\nevents {}\r\n"),
    "windows, missing": ("events {}\r\n", "user deploy;\r\nevents {}\r\n"),
    "not the one of a block": (
        "http { user inside; }\n",
        "user deploy;\nhttp { user inside; }\n",
    ),
    "not a longer name": ("user_agent x;\n", "user deploy;\nuser_agent x;\n"),
    "not one in quotes": ("env 'user a;';\nuser b;\n", "env 'user a;';\nuser deploy;\n"),
}


@pytest.mark.parametrize("name", USERS)
def test_one_directive_is_edited(m: Any, name: str) -> None:
    text, expected = USERS[name]
    edited, before = nginx_user.with_user(text, ["deploy"])
    assert edited == expected
    assert nginx_user.with_user(edited, ["deploy"])[0] == edited
    # And back: what was recorded restores every byte, but for the way the words were written.
    back = nginx_user.with_user(edited, before)[0] if before else nginx_user.without_user(edited)
    assert [d.words for d in nginx_language.directives(back)] == [
        d.words for d in nginx_language.directives(text)
    ]
    if "'" not in text.split("\n")[0]:
        assert back == text


def test_the_rest_of_debians_file_is_the_distributions(m: Any, tmp_path: pathlib.Path) -> None:
    for text in (DEBIAN, NGINX_ORG):
        edited, before = nginx_user.with_user(text, ["deploy"])
        old, new = tmp_path / "old.conf", tmp_path / "new.conf"
        old.write_text(text)
        new.write_text(edited)
        was, now = parsed(old), parsed(new)
        at = [one["directive"] for one in was].index("user")
        assert now[at] == {"directive": "user", "args": ["deploy"]}
        was.pop(at), now.pop(at)
        assert was == now
        assert before in (["www-data"], ["nginx"])


def test_the_same_user_in_other_words_is_left_alone(m: Any) -> None:
    assert nginx_user.with_user("user  deploy deploy;", ["deploy"]) == (
        "user  deploy deploy;",
        ["deploy"] * 2,
    )
    assert nginx_user.with_user("user deploy;", ["deploy", "web"])[0] == "user deploy web;"


# --- the plan ----------------------------------------------------------------------------------


def test_the_tutorials_site(tree: Tree) -> None:
    changes = tree.modules().nginx_tree.diff()
    base = tree.base
    assert set(changes) == {
        f"{base}/nginx.conf",
        f"{base}/conf.d/nginx_uwsgi_django.conf",
        f"{base}/sites-available/mysite.conf",
        f"{base}/sites-enabled/mysite.conf",
        f"{base}/sites-enabled/default",
    }
    assert changes[f"{base}/nginx.conf"].count("\n-") == 1
    assert changes[f"{base}/sites-enabled/default"]["new"] is None
    assert (
        "+    server_name *.compute.amazonaws.com;\n"
        in changes[f"{base}/sites-available/mysite.conf"]
    )
    # Looking changes nothing.
    assert tree.read("nginx.conf") == DEBIAN


def put_in_place(m: Any, due: dict[str, Any], accepts: Any = lambda part: True) -> str:
    base = m._base()
    return nginx_swap.swap(base, due, nginx_swap.snapshot(base), [], accepts)


def apply(modules: Modules) -> Any:
    """Put the plan in place as it would be once nginx has accepted it."""
    m = modules.nginx_tree
    plan, _ = m._plan("base")
    base = m._base()
    due = nginx_files.outstanding(base, plan)
    how = put_in_place(m, due) if due else None
    assert nginx_files.outstanding(base, m._plan("base")[0]) == {}
    return how


def test_the_site_file(tree: Tree) -> None:
    apply(
        tree.modules(
            {"mysite": a_site(listen=[80, "[::]:8080"], server_names=["a.org", "*.b.org"])}
        )
    )
    server = parsed(tree.base / "sites-available/mysite.conf")[-1]
    assert server["directive"] == "server"
    body = [(one["directive"], *one["args"]) for one in server["block"] if "comment" not in one]
    assert body == [
        ("listen", "80"),
        ("listen", "[::]:8080"),
        ("server_name", "a.org", "*.b.org"),
        ("charset", "utf-8"),
        ("client_max_body_size", "128M"),
        ("uwsgi_hide_header", "X-Content-Type-Options"),
        ("uwsgi_hide_header", "X-Uwsgi-Generation"),
        ("add_header", "X-Content-Type-Options", "nosniff", "always"),
        ("add_header", "X-Nginx-Uwsgi-Django", "$nginx_uwsgi_django_proof", "always"),
        ("location", "/"),
    ]
    location = next(one for one in server["block"] if one["directive"] == "location")
    assert [
        (one["directive"], *one["args"]) for one in location["block"] if "comment" not in one
    ] == [
        ("include", "uwsgi_params"),
        ("uwsgi_param", "HTTP_HOST", "$nginx_uwsgi_django_host"),
        ("uwsgi_param", "HTTP_PROXY", ""),
        ("uwsgi_param", "HTTP_X_FORWARDED_PROTO", "$scheme"),
        ("uwsgi_pass", "unix:/run/uwsgi/mysite.sock"),
    ]


def test_static_files_cannot_leak(tree: Tree) -> None:
    root = tree.base.parent / "srv/shared/static"
    modules = tree.modules()
    modules.salt["django_release.directories"] = lambda name: {"static": str(root)}
    assert "location ^~" not in modules.nginx_site.render("mysite")
    root.mkdir(parents=True)
    assert "location ^~" not in modules.nginx_site.render("mysite"), "an empty directory"
    (root / "a.css").write_text("")
    path = tree.base / "rendered.conf"
    path.write_text(modules.nginx_site.render("mysite"))
    static = parsed(path)[-1]["block"][-1]
    assert static["args"] == ["^~", "/static/"]
    found = {one["directive"]: one["args"] for one in static["block"] if "args" in one}
    assert found["alias"] == [f"{root}/"]
    # Of the way there is left out what root alone can change: pytest's directory is in the world's /tmp.
    assert found["disable_symlinks"] == ["if_not_owner", f"from=/{root.parts[1]}"]


def test_a_link_is_looked_for_from_where_root_alone_can_make_one(
    tmp_path: pathlib.Path, modules: Callable[..., Modules]
) -> None:
    way = modules().nginx_site._beyond_root
    assert way("/usr/share/doc/") == " from=/usr/share/doc"
    assert way("/usr/share/nowhere/at all") == " from=/usr/share/nowhere"
    # The world may write into /tmp, and a user into what is his.
    assert way(f"{tmp_path}/static/") == f" from=/{tmp_path.parts[1]}"
    with tempfile.TemporaryDirectory(dir="/var/lib") as made:
        home = pathlib.Path(made)
        (home / "site/static").mkdir(parents=True)
        assert way(f"{home}/site/static/") == f" from={home}/site/static"
        os.chown(home / "site", 65534, 65534)
        assert way(f"{home}/site/static/") == f" from={home}/site"
        home.chmod(0o775)
        assert way(f"{home}/site/static/") == f" from={home}"


def test_a_second_plan_has_nothing_due_and_keeps_the_record(tree: Tree) -> None:
    modules = tree.modules()
    assert apply(modules) == "exchange"
    before = tree.rows()
    record = nginx_kept.record_of((tree.base / "conf.d/nginx_uwsgi_django.conf").read_bytes())
    assert record == {"user": ["www-data"], "default_link": f"{tree.base}/sites-available/default"}
    assert tree.modules().nginx_tree.diff() == {}
    assert tree.modules().nginx_tree.ensure()["changes"] == {}
    assert tree.rows() == before
    # Another user later: what was there first is still what is given back.
    apply(tree.modules(nginx={"user": "otheruser"}))
    assert "user otheruser;" in tree.read("nginx.conf")
    again = nginx_kept.record_of((tree.base / "conf.d/nginx_uwsgi_django.conf").read_bytes())
    assert again == record


def test_removing_gives_back_what_was_there(tree: Tree) -> None:
    before = {path: row[:4] for path, row in tree.rows().items()}
    modules = tree.modules()
    apply(modules)
    m = modules.nginx_tree
    due = nginx_files.outstanding(m._base(), nginx_plan.removed(m._base(), m._shown()))
    put_in_place(m, due)
    assert {path: row[:4] for path, row in tree.rows().items()} == before
    assert nginx_plan.removed(m._base(), m._shown()) == {}


def test_removing_does_not_give_back_what_the_formula_did_not_take(tree: Tree) -> None:
    os.unlink(tree.base / "sites-enabled/default")
    tree.write("nginx.conf", DEBIAN.replace("www-data", "nosuchuser"))
    modules = tree.modules()
    apply(modules)
    m = modules.nginx_tree
    put_in_place(m, nginx_files.outstanding(m._base(), nginx_plan.removed(m._base(), m._shown())))
    assert tree.read("nginx.conf").startswith("user nosuchuser;")
    assert os.listdir(tree.base / "sites-enabled") == []


def test_a_strangers_default_stays(tree: Tree) -> None:
    os.unlink(tree.base / "sites-enabled/default")
    tree.write("sites-enabled/default", "# mine\n")
    apply(tree.modules())
    assert tree.read("sites-enabled/default") == "# mine\n"
    os.unlink(tree.base / "sites-enabled/default")
    tree.write("sites-available/other", "# mine\n")
    os.symlink("../sites-available/other", tree.base / "sites-enabled/default")
    report = tree.modules().nginx_tree.ensure(test=True)
    assert report["changes"] == {}
    assert report["strangers"] == [f"{tree.base}/sites-enabled/default"]


def test_a_relative_default_link_is_the_distributions_too(tree: Tree) -> None:
    os.unlink(tree.base / "sites-enabled/default")
    os.symlink("../sites-available/default", tree.base / "sites-enabled/default")
    apply(tree.modules())
    assert sorted(os.listdir(tree.base / "sites-enabled")) == ["mysite.conf"]
    m = tree.modules().nginx_tree
    put_in_place(m, nginx_files.outstanding(m._base(), nginx_plan.removed(m._base(), m._shown())))
    assert os.readlink(tree.base / "sites-enabled/default") == "../sites-available/default"


def test_absent_and_forgotten_sites(tree: Tree) -> None:
    other = a_site(server_names=["other.example.org"])
    apply(tree.modules({"mysite": a_site(), "other": other}))
    tree.write("sites-available/handmade.conf", "# mine\n")
    os.symlink("../sites-available/handmade.conf", tree.base / "sites-enabled/handmade.conf")
    apply(tree.modules({"mysite": a_site(), "other": {**other, "absent": True}}))
    assert sorted(os.listdir(tree.base / "sites-enabled")) == ["handmade.conf", "mysite.conf"]
    assert "other.conf" not in os.listdir(tree.base / "sites-available")

    apply(tree.modules({"mysite": a_site(), "other": other}))
    report = tree.modules().nginx_tree.ensure(test=True)
    assert report["changes"] == {}
    # What the pillar has lost is the formula's all the same: purge.sls tells of it.
    assert report["strangers"] == [f"{tree.base}/sites-enabled/handmade.conf"]
    apply(tree.modules(purge=True))
    assert sorted(os.listdir(tree.base / "sites-enabled")) == ["handmade.conf", "mysite.conf"]
    assert tree.read("sites-available/handmade.conf") == "# mine\n"


def test_an_absent_sites_name_on_a_strangers_file(tree: Tree) -> None:
    tree.write("sites-available/other.conf", "# mine\n")
    os.symlink("../sites-available/other.conf", tree.base / "sites-enabled/other.conf")
    apply(tree.modules({"mysite": a_site(), "other": {"absent": True}}))
    assert tree.read("sites-enabled/other.conf") == "# mine\n"


def test_the_layout_of_nginx_org(tree: Tree) -> None:
    for path in ("sites-available/default", "sites-enabled/default"):
        os.unlink(tree.base / path)
    os.rmdir(tree.base / "sites-available"), os.rmdir(tree.base / "sites-enabled")
    tree.write("nginx.conf", NGINX_ORG)
    tree.write("conf.d/default.conf", "server { listen 80; server_name localhost; }\n")
    modules = tree.modules()
    apply(modules)
    common = tree.read("conf.d/nginx_uwsgi_django.conf")
    assert f"include {tree.base}/sites-enabled/*.conf;" in common
    # Not dpkg's: nobody knows whose it is.
    assert os.path.exists(tree.base / "conf.d/default.conf")
    assert os.path.realpath(tree.base / "sites-enabled/mysite.conf") == str(
        tree.base / "sites-available/mysite.conf"
    )


def test_a_pristine_default_conf_is_moved_aside_and_back(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = "server { listen 80; server_name localhost; }\n"
    tree.write("nginx.conf", NGINX_ORG)
    tree.write("conf.d/default.conf", stock)
    modules = tree.modules()
    m = modules.nginx_tree
    # dpkg's own answer is asked for on a host; here it is the test's.
    monkeypatch.setattr(nginx_kept, "pristine", lambda path: path.endswith("default.conf"))
    apply(modules)
    assert not os.path.exists(tree.base / "conf.d/default.conf")
    assert tree.read("conf.d/default.conf.nginx_uwsgi_django") == stock
    assert m.diff() == {}
    put_in_place(m, nginx_files.outstanding(m._base(), nginx_plan.removed(m._base(), m._shown())))
    assert tree.read("conf.d/default.conf") == stock
    assert os.listdir(tree.base / "conf.d") == ["default.conf"]


def test_nginx_conf_that_reads_no_conf_d(tree: Tree) -> None:
    tree.write("nginx.conf", DEBIAN.replace("include /etc/nginx/conf.d/*.conf;", ""))
    with pytest.raises(CommandExecutionError, match="does not include conf.d"):
        tree.modules().nginx_tree.diff()


@pytest.mark.parametrize("place", ["nginx.conf", "conf.d/other.conf"])
def test_a_directive_that_somebody_else_sets_is_not_set_twice(tree: Tree, place: str) -> None:
    if place == "nginx.conf":
        tree.write(place, DEBIAN.replace("# server_names_hash", "server_names_hash"))
    else:
        tree.write(place, "server_names_hash_bucket_size 256;\n")
    apply(tree.modules())
    assert "bucket_size" not in tree.read("conf.d/nginx_uwsgi_django.conf")


def test_hash_sizes() -> None:
    m = Modules().nginx_site
    # The limits as nginx 1.22 had them with 64 and 128: 46 fits and 47 does not, 110 and 111.
    assert m._hash_sizes(["a"]) == {"server_names_hash_bucket_size": 128}
    assert m._hash_sizes(["a" * 110]) == {"server_names_hash_bucket_size": 128}
    assert m._hash_sizes(["a" * 111]) == {"server_names_hash_bucket_size": 256}
    assert m._hash_sizes(["a" * 253]) == {"server_names_hash_bucket_size": 512}
    assert m._hash_sizes([str(n) for n in range(1200)])["server_names_hash_max_size"] == 4096


def test_a_directory_that_is_a_link_is_refused(tree: Tree, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.rename(tree.base / "sites-available", tmp_path / "real")
    os.symlink(tmp_path / "elsewhere", tree.base / "sites-available")
    with pytest.raises(CommandExecutionError, match="sites-available.* is a link|is in the way"):
        tree.modules().nginx_tree.diff()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(
    tree: Tree, tmp_path: pathlib.Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    os.symlink(victim, tree.base / "sites-available/mysite.conf")
    apply(tree.modules())
    assert victim.read_text() == "precious\n"
    assert not os.path.islink(tree.base / "sites-available/mysite.conf")


# --- templates ---------------------------------------------------------------------------------


@pytest.fixture
def rooted(tree: Tree, tmp_path: pathlib.Path) -> Callable[..., Modules]:
    def make(files: dict[str, str], **grains: str) -> Modules:
        root = tmp_path / "roots"
        for path, text in files.items():
            target = root / "nginx_uwsgi_django/files" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        pillar = {
            "lookup": {"nginx_dir": str(tree.base)},
            "sites": {"mysite": a_site(), "other": a_site(server_names=["o.org"])},
        }
        made = Modules(
            pillar={"nginx_uwsgi_django": pillar},
            grains={"id": "web1.example.org", "os": "Debian", "os_family": "Debian", **grains},
        )
        return with_files(made, root)

    return make


def test_the_most_special_template_wins(rooted: Callable[..., Modules]) -> None:
    files = {"default/site.conf.jinja": "# default {{ site.name }}\n"}
    assert rooted(files).nginx_site.render("mysite").endswith("# default mysite\n")
    files["Debian/site.conf.jinja"] = "# family {{ site.name }}\n"
    assert rooted(files).nginx_site.render("mysite").endswith("# family mysite\n")
    files["web1.example.org/site.conf.jinja"] = "# minion {{ site.name }}\n"
    assert rooted(files).nginx_site.render("mysite").endswith("# minion mysite\n")
    files["web1.example.org/mysite.conf.jinja"] = "# this one {{ site.name }}\n"
    assert rooted(files).nginx_site.render("mysite").endswith("# this one mysite\n")
    assert rooted(files).nginx_site.render("other").endswith("# minion other\n")


def test_each_template_is_asked_for_once_whatever_the_number_of_sites(
    rooted: Callable[..., Modules],
) -> None:
    files = {f"default/{name}.conf.jinja": "# {{ nginx.repo }}\n" for name in ("site", "http")}
    files["Debian/other.conf.jinja"] = "# its own\n"
    modules = rooted(files)
    asked: list[str] = []
    for name in ("cp.hash_file", "cp.list_master"):
        function = modules.salt[name]

        def counting(*words: str, function: Any = function, **given: str) -> Any:
            asked.append(" ".join([*words, given.get("prefix", "")]).strip())
            return function(*words, **given)

        modules.salt[name] = counting
    plan = modules.nginx_tree._plan("base")[0]
    assert b"its own" in plan["sites-available/other.conf"].contents
    assert b"its own" not in plan["sites-available/mysite.conf"].contents
    assert len(asked) == len(set(asked)), "none twice"
    assert asked.count("nginx_uwsgi_django/files") == 1
    assert [url for url in asked if "mysite" in url] == []


@pytest.mark.parametrize("listed", [[], "", ["nginx_uwsgi_django/files/default/other.conf.jinja"]])
def test_a_list_without_the_formulas_own_templates_is_not_relied_on(
    rooted: Callable[..., Modules], listed: Any
) -> None:
    files = {"default/site.conf.jinja": "# all\n", "default/mysite.conf.jinja": "# its own\n"}
    modules = rooted(files)
    modules.salt["cp.list_master"] = lambda saltenv, prefix: listed
    assert modules.nginx_site.render("mysite").endswith("# its own\n")
    assert modules.nginx_site.render("other").endswith("# all\n")


def test_a_listed_template_that_is_gone(rooted: Callable[..., Modules]) -> None:
    modules = rooted({"default/site.conf.jinja": "# all\n"})
    listed = [f"nginx_uwsgi_django/files/default/{name}.conf.jinja" for name in ("site", "mysite")]
    modules.salt["cp.list_master"] = lambda saltenv, prefix: listed
    assert modules.nginx_site.render("mysite").endswith("# all\n")


def test_an_undefined_name_is_an_error(rooted: Callable[..., Modules]) -> None:
    m = rooted({"default/site.conf.jinja": "a;\n{{ site.nmae }};\n"}).nginx_site
    with pytest.raises(
        CommandExecutionError, match="^sites:mysite: salt://.*site.conf.jinja.*nmae"
    ):
        m.render("mysite")
    m = rooted({"default/site.conf.jinja": "a;\n{% if %}\n"}).nginx_site
    with pytest.raises(CommandExecutionError, match="^sites:mysite: salt://.*, line 2: "):
        m.render("mysite")
    m = rooted({"default/site.conf.jinja": "{{ '$x' | nginx }}"}).nginx_site
    with pytest.raises(CommandExecutionError, match="^sites:mysite: .*dollar"):
        m.render("mysite")


def test_no_template_at_all(rooted: Callable[..., Modules]) -> None:
    with pytest.raises(CommandExecutionError, match="^sites:mysite: no template mysite"):
        rooted({"default/unrelated": ""}).nginx_site.render("mysite")


def test_a_template_cannot_drop_the_marker(rooted: Callable[..., Modules]) -> None:
    text = rooted({"default/site.conf.jinja": "server {}\n"}).nginx_site.render("mysite")
    assert text.startswith("# Managed by the Salt formula nginx_uwsgi_django (site mysite")


# --- messages ----------------------------------------------------------------------------------


def test_messages(m: Any) -> None:
    output = (
        'nginx: [warn] conflicting server name "a" on 0.0.0.0:80, ignored\n'
        'nginx: [emerg] unknown directive "x" in /etc/nginx/sites-enabled/mysite.conf:7\n'
        "nginx: configuration file /etc/nginx/nginx.conf test failed\n"
    )
    errors, warnings = nginx_judge.messages(output)
    assert errors == ['[emerg] unknown directive "x" in /etc/nginx/sites-enabled/mysite.conf:7']
    assert warnings == ['[warn] conflicting server name "a" on 0.0.0.0:80, ignored']
    # And once the log is open, if that is the terminal: with the time, and perhaps both ways.
    logged = (
        '2026/11/22 21:02:15 [warn] 13#13: conflicting server name "a" on 0.0.0.0:80, ignored\n'
    )
    assert nginx_judge.messages(output + logged) == (errors, warnings)
    good = "nginx: the configuration file /x syntax is ok\n"
    assert nginx_judge.messages(f"{good}nginx: configuration file /x test is successful") == (
        [],
        [],
    )


def test_whose_a_message_is(m: Any) -> None:
    plan = {
        "sites-available/mysite.conf": nginx_files.Wanted(
            "file", b"a\nbad directive here;\n/the/cert.pem\n"
        ),
        "sites-available/other.conf": nginx_files.Wanted("file", b"a\n"),
        "nginx.conf": nginx_files.Wanted("file", b""),
    }

    def whose(message: str) -> str:
        return str(nginx_judge.whose("/etc/nginx", "/etc/nginx", plan, "deploy", message))

    said = whose('unknown directive "bad" in /etc/nginx/sites-enabled/mysite.conf:2')
    assert "sites:mysite, line 2: bad directive here;" in said
    assert "sites:mysite" in whose('cannot load certificate "/the/cert.pem": no such file')
    assert "nginx:user" in whose('getpwnam("deploy") failed')
    assert "nginx:user" in whose('getpwnam("deploy") failed in /etc/nginx/nginx.conf:1')
    assert "not the formula's" in whose('unknown directive "y" in /etc/nginx/conf.d/x.conf:1')
    assert whose("something else") == "something else"


# --- putting it in place -----------------------------------------------------------------------


def _due(m: Any) -> tuple[str, dict[str, Any], Any]:
    base = m._base()
    return base, nginx_files.outstanding(base, m._plan("base")[0]), nginx_swap.snapshot(base)


def test_the_exchange_keeps_untouched_files(tree: Tree) -> None:
    os.chmod(tree.base / "snippets", 0o750)
    os.chmod(tree.base / "nginx.conf", 0o640)
    before = tree.rows()
    time_of_directory = os.stat(tree.base / "snippets").st_mtime_ns
    modules = tree.modules()
    assert apply(modules) == "exchange"
    after = tree.rows()
    touched = {
        "nginx.conf",
        "conf.d/nginx_uwsgi_django.conf",
        "sites-available/mysite.conf",
        "sites-enabled/mysite.conf",
        "sites-enabled/default",
    }
    assert {p: r for p, r in after.items() if p not in touched} == {
        p: r for p, r in before.items() if p not in touched
    }
    assert stat.S_IMODE(after["nginx.conf"][0]) == 0o640
    assert after["nginx.conf"][4] != before["nginx.conf"][4], "written through a hard link"
    assert os.stat(tree.base / "snippets").st_mtime_ns == time_of_directory
    assert os.listdir(tree.base.parent) == ["nginx"]


def test_one_change_is_one_rename(tree: Tree) -> None:
    apply(tree.modules())
    inode = os.stat(tree.base).st_ino
    assert apply(tree.modules({"mysite": a_site(charset="koi8-r")})) == "renames"
    assert os.stat(tree.base).st_ino == inode
    assert not [name for name in os.listdir(tree.base) if name.startswith(".")]


@pytest.mark.parametrize("way", ["exchange", "renames"])
@pytest.mark.parametrize("what", ["a new file", "an edit", "a replacement", "a removal"])
def test_a_third_partys_write_is_not_lost(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, way: str, what: str
) -> None:
    """Somebody writes at the worst moment: after the last look, before the swap."""
    m = tree.modules().nginx_tree
    base, due, seen = _due(m)
    target = tree.base / "sites-available/mysite.conf"
    existing = tree.base / "nginx.conf"

    def third_party() -> None:
        if what == "a new file":
            target.write_text("# theirs\n")
        elif what == "an edit":
            existing.write_text(DEBIAN + "# theirs\n")
        elif what == "a replacement":
            (tree.base / "x").write_text(DEBIAN + "# theirs\n")
            os.rename(tree.base / "x", existing)
        else:
            os.unlink(existing)

    real = nginx_swap._renameat2 if way == "exchange" else nginx_swap._flush
    done: list[int] = []

    def interfere(*given: Any) -> None:
        if not done:
            done.append(1)
            third_party()
        real(*given)

    if way == "exchange":
        monkeypatch.setattr(nginx_swap, "_renameat2", interfere)
        with pytest.raises(nginx_files.Raced):
            nginx_swap._exchange(base, due, seen)
    else:
        monkeypatch.setattr(nginx_swap, "_flush", interfere)
        with pytest.raises(nginx_files.Raced):
            nginx_swap.one_by_one(base, due, seen, nginx_swap.ranked(base, due))
    assert done
    if what == "a new file":
        assert target.read_text() == "# theirs\n"
        assert existing.read_text() == DEBIAN
    elif what == "a removal":
        assert not existing.exists()
    else:
        assert existing.read_text() == DEBIAN + "# theirs\n"
    assert os.path.islink(tree.base / "sites-enabled/default")
    assert not nginx_swap.leftovers(base)


def test_renames_are_taken_back_when_one_fails(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    m = tree.modules().nginx_tree
    base, due, seen = _due(m)
    before = tree.rows()
    count = 0

    def refuse() -> None:
        nonlocal count
        count += 1
        assert "user nosuchuser" in tree.read("nginx.conf")
        raise CommandExecutionError("nginx says no")

    with pytest.raises(CommandExecutionError, match="nginx says no"):
        nginx_swap.one_by_one(base, due, seen, nginx_swap.ranked(base, due), refuse)
    assert count == 1
    assert tree.rows() == before
    real, calls = os.rename, []

    def failing(old: str, new: str) -> None:
        if old.endswith(".new"):
            calls.append(new)
            if len(calls) == 3:
                raise OSError(28, "No space left on device", new)
        real(old, new)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        nginx_swap.one_by_one(base, due, seen, nginx_swap.ranked(base, due))
    assert len(calls) == 3
    assert tree.rows() == before
    assert not nginx_swap.leftovers(base)


def test_the_order_of_renames(tree: Tree) -> None:
    other = a_site(server_names=["other.example.org"])
    apply(tree.modules({"old": a_site(), "kept": other}))
    m = tree.modules(
        {"old": {"absent": True}, "kept": {**other, "charset": "koi8-r"}, "new": a_site()}
    ).nginx_tree
    base, due, _ = _due(m)
    assert nginx_swap.ranked(base, due) == [
        "sites-available/new.conf",
        "sites-enabled/old.conf",
        "sites-available/kept.conf",
        "sites-enabled/new.conf",
        "sites-available/old.conf",
    ]


@pytest.mark.parametrize("number", [18, 16, 22])
def test_where_directories_cannot_be_exchanged(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def not_here(old: str, new: str, flags: int) -> None:
        raise OSError(number, os.strerror(number), old)

    modules = tree.modules()
    monkeypatch.setattr(nginx_swap, "_renameat2", not_here)
    assert apply(modules) == "renames"
    assert not nginx_swap.leftovers(str(tree.base))


def test_a_step_that_nginx_refuses_waits_for_others(tree: Tree) -> None:
    apply(tree.modules({"old": a_site(), "kept": a_site(server_names=["kept.example.org"])}))
    m = tree.modules({"old": {"absent": True}, "kept": {"absent": True}}).nginx_tree
    base, due, _ = _due(m)
    common, last = "conf.d/nginx_uwsgi_django.conf", "sites-enabled/old.conf"
    assert nginx_swap.ranked(base, due)[0] == common
    warnings: list[str] = []
    order = nginx_swap._acceptable(
        base, due, warnings, lambda done: common not in done or last in done
    )
    assert order.index(common) == order.index(last) + 1
    assert (sorted(order), warnings) == (sorted(due), [])
    refused = nginx_swap._acceptable(base, due, warnings, lambda done: False)
    assert refused == nginx_swap.ranked(base, due)
    assert "no order in which nginx accepts every step" in warnings[0]


def test_disk_full_is_not_mistaken_for_it(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = tree.modules()
    before = tree.rows()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space"):
        apply(modules)
    assert tree.rows() == before
    assert os.listdir(tree.base.parent) == ["nginx"]


# --- what nginx -t would touch -----------------------------------------------------------------


def test_covered_directories(m: Any, tmp_path: pathlib.Path) -> None:
    body, logs, cache = tmp_path / "lib/body", tmp_path / "logs", tmp_path / "cache"
    for folder in (body, logs, cache, logs / "deep"):
        folder.mkdir(parents=True)
    text = f"proxy_cache_path {cache} keys_zone=a:1m; access_log {logs}/a; error_log {logs}/deep/b;"
    text += f"uwsgi_temp_path {tmp_path}/not-there; access_log off; access_log syslog:server=x;"
    paths = {"http-client-body-temp-path": str(body), "error-log-path": "stderr", "prefix": "/usr"}
    covered = nginx_judge._covered(nginx_language.directives(text), paths, "/usr/share/nginx")
    assert covered == sorted(str(path) for path in (body, logs, cache))
    assert (
        nginx_judge._covered(
            nginx_language.directives("error_log /dev/stderr; access_log /run/x;"), {}, "/usr"
        )
        == []
    )


def test_directories_that_are_alone_in_another_are_covered_with_it(
    m: Any, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "own" / "deep").mkdir(parents=True)
    for folder in ("nginx/body", "nginx/proxy", "shared/body", "shared/proxy", "shared/others"):
        (tmp_path / folder).mkdir(parents=True)
    names = ("nginx/body", "nginx/proxy", "shared/body", "shared/proxy", "own/deep")
    paths = {f"http-{name}-temp-path": str(tmp_path / name) for name in names}
    assert nginx_judge._covered([], paths, "/usr/share/nginx") == [
        str(tmp_path / name) for name in ("nginx", "own/deep", "shared/body", "shared/proxy")
    ]


def test_directories_without_what_is_in_them(m: Any, tmp_path: pathlib.Path) -> None:
    top = tmp_path / "logs"
    (top / "a b" / "c").mkdir(parents=True)
    (top / "a b" / "error.log").write_text("x")
    (top / "elsewhere").symlink_to(tmp_path)
    os.chmod(top, 0o2750)
    os.chown(top, 33, 4)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        nginx_archive.pack_directories(archive, str(top))
        nginx_archive.pack_directories(archive, str(tmp_path / "gone"))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        rows = {row.name: (row.type, row.mode, row.uid, row.gid) for row in archive}
    name = str(top).lstrip("/")
    assert rows == {
        name: (tarfile.DIRTYPE, 0o2750, 33, 4),
        f"{name}/a b": (tarfile.DIRTYPE, 0o755, 0, 0),
        f"{name}/a b/c": (tarfile.DIRTYPE, 0o755, 0, 0),
    }


def test_one_directory_inside_another(m: Any) -> None:
    assert nginx_judge._outermost(["/a/b", "/a/bc", "/a/b/c", "/a/b", "/d"]) == [
        "/a/b",
        "/a/bc",
        "/d",
    ]


def test_addresses_of_listen(m: Any) -> None:
    text = "listen 80; listen *:81 default_server; listen 127.0.0.1:82; listen [::]:83 ipv6only=on;"
    text += "listen unix:/run/x; listen a.example.org:84; # listen 85;\n"
    assert nginx_ports.addresses(nginx_language.directives(text)) == [
        ("80", "0.0.0.0", 80),
        ("*:81", "0.0.0.0", 81),
        ("127.0.0.1:82", "127.0.0.1", 82),
        ("[::]:83", "::", 83),
    ]


def conflicts(m: Any, plan: dict[str, Any], master: int | None = None) -> list[str]:
    """What is said of a plan that nginx has accepted."""
    parsed = {
        path: nginx_language.directives(wanted.contents.decode()) for path, wanted in plan.items()
    }
    return nginx_ports.conflicts(plan, parsed, [], master, "nginx", list)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_that_is_held(m: Any, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as holder:
        holder.bind((address, 0))
        holder.listen()
        port = holder.getsockname()[1]
        word = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        plan = {"sites-available/a.conf": nginx_files.Wanted("file", f"listen {word};".encode())}
        (told,) = conflicts(m, plan)
        assert told.startswith(f"listen {word}: process {os.getpid()} (") and "sites:a" in told
        assert conflicts(m, plan, os.getpid()) == [], "it is nginx's own"
        other = {"sites-available/a.conf": nginx_files.Wanted("file", b"listen 203.0.113.7:80;")}
        assert conflicts(m, other) == [], "an address of another host"
    assert conflicts(m, plan) == []


def test_all_addresses_of_a_port_and_one_of_them(m: Any) -> None:
    """nginx does not close one before it opens the other."""

    def told(word: str, *more: str) -> str:
        lines = "".join(f"listen {one}:{port};" for one in (word, *more))
        plan = {"sites-available/a.conf": nginx_files.Wanted("file", lines.encode())}
        return "\n".join(conflicts(m, plan, os.getpid()))

    with socket.create_server(("0.0.0.0", 0)) as own:
        port = own.getsockname()[1]
        assert told("*") == told("0.0.0.0") == told("127.0.0.1", "*") == ""
        assert f"listen 127.0.0.1:{port}: nginx has port {port} open on all" in told("127.0.0.1")
        assert "systemctl stop nginx.service`" in told("127.0.0.1")
    with socket.create_server(("127.0.0.1", port)):
        assert told("127.0.0.1") == told("127.0.0.2") == ""
        assert f"listen *:{port}: nginx has port {port} open on some" in told("*", "127.0.0.1")


def test_limits_of_a_running_master(m: Any) -> None:
    soft, hard = nginx_judge.limits_of({"MainPID": str(os.getpid())})
    assert 16 <= soft <= hard
    assert nginx_judge.limits_of(
        {"MainPID": "0", "LimitNOFILESoft": "1024", "LimitNOFILE": "4096"}
    ) == (
        1024,
        4096,
    )
    assert nginx_judge.limits_of({}) is None


def test_global_directives_of_the_unit(m: Any) -> None:
    line = (
        "{ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx -g daemon on; master_process on; ; "
        "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }"
    )
    assert nginx_judge._global_directives({"ExecStart": line}) == [
        "-g",
        "daemon on; master_process on;",
    ]
    assert (
        nginx_judge._global_directives(
            {"ExecStart": line.replace("-g daemon on; master_process on;", "")}
        )
        == []
    )


def test_the_common_file_is_plain(tree: Tree) -> None:
    apply(tree.modules())
    path = tree.base / "conf.d/nginx_uwsgi_django.conf"
    assert words_of(path, strict=False) == [
        ("server_names_hash_bucket_size", "128"),
        ("server_tokens", "off"),
        ("map", "$host $http_host", "$nginx_uwsgi_django_host"),
        ("default", "$host"),
        (r"~*^([^ ]+) (\1\.?(?::[0-9]+)?)$", "$2"),
        ("map", "$http_x_nginx_uwsgi_django", "$nginx_uwsgi_django_proof"),
        ("default", ""),
        ("proof", "$nginx_uwsgi_django_answered"),
        ("map", "$remote_addr $server_addr", "$nginx_uwsgi_django_answered"),
        ("default", ""),
        (
            r"~^([^ ]+) \1$",
            "$server_name; generation=$upstream_http_x_uwsgi_generation; upstream=$upstream_status",
        ),
    ]
    record = re.search("^# Found here before: (.*)$", path.read_text(), re.MULTILINE)
    assert record and json.loads(record.group(1))["user"] == ["www-data"]


# --- what a person had there before --------------------------------------------------------------


HANDMADE = "server { listen 80; server_name *.compute.amazonaws.com; }\n"


@pytest.mark.parametrize("link", ["../sites-available/mysite.conf", None])
def test_a_file_of_a_person_is_kept_and_given_back(tree: Tree, link: str | None) -> None:
    tree.write("sites-available/mysite.conf", HANDMADE)
    (tree.base / "sites-available/mysite.conf").chmod(0o640)
    if link:
        os.symlink(link, tree.base / "sites-enabled/mysite.conf")
    before = {path: row[:4] for path, row in tree.rows().items()}
    dry = tree.modules().nginx_tree
    kept = nginx_kept.sentences(
        str(tree.base), nginx_files.outstanding(dry._base(), dry._plan("base")[0])
    )
    aside = tree.base / "sites-available/mysite.conf.nginx_uwsgi_django"
    assert kept == [
        f"{tree.base}/sites-available/mysite.conf is not this formula's: it is kept as {aside}, "
        "and comes back when the site goes"
    ]
    apply(tree.modules())
    apply(tree.modules({"mysite": a_site(client_max_body_size="64m")}))
    assert aside.read_text() == HANDMADE
    m = tree.modules().nginx_tree
    put_in_place(m, nginx_files.outstanding(m._base(), nginx_plan.removed(m._base(), m._shown())))
    assert {path: row[:4] for path, row in tree.rows().items()} == before


def test_a_file_that_was_written_into_sites_enabled_is_given_back_by_absent(tree: Tree) -> None:
    tree.write("sites-enabled/mysite.conf", HANDMADE)
    apply(tree.modules())
    assert os.path.islink(tree.base / "sites-enabled/mysite.conf")
    other = a_site(server_names=["other.example.org"])
    apply(tree.modules({"mysite": {"absent": True}, "other": other}))
    assert tree.read("sites-enabled/mysite.conf") == HANDMADE
    assert sorted(os.listdir(tree.base / "sites-available")) == ["default", "other.conf"]
    assert "replaced" not in tree.read("conf.d/nginx_uwsgi_django.conf")


def test_a_link_of_a_person_is_given_back(tree: Tree, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.conf").write_text(HANDMADE)
    os.symlink(tmp_path / "mine.conf", tree.base / "sites-enabled/mysite.conf")
    before = {path: row[:4] for path, row in tree.rows().items()}
    apply(tree.modules())
    m = tree.modules().nginx_tree
    put_in_place(m, nginx_files.outstanding(m._base(), nginx_plan.removed(m._base(), m._shown())))
    assert {path: row[:4] for path, row in tree.rows().items()} == before


def test_a_held_site_is_left_as_it_is(tree: Tree) -> None:
    m = tree.modules().nginx_tree
    before = tree.rows()
    # A site that nginx does not name yet: nothing at all.
    assert nginx_files.outstanding(m._base(), m._plan("base", None, ["mysite"])[0]) == {}
    apply(tree.modules())
    named = tree.rows()
    assert named != before
    # One that it names: its file stays, with what the http level has of it.
    changed = {
        "mysite": a_site(
            server_names=[".".join(["a" * 60] * 2) + ".org"], listen=["8080 default_server"]
        ),
        "other": a_site(server_names=["other.example.org"]),
    }
    m = tree.modules(changed).nginx_tree
    plan = m._plan("base", None, ["mysite"])[0]
    assert not [path for path in plan if "mysite" in path]
    common = plan["conf.d/nginx_uwsgi_django.conf"].contents.decode()
    assert "server_names_hash_bucket_size 128;" in common
    assert "listen 80 default_server;" in common and "8080" not in common
