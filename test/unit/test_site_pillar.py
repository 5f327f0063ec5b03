"""The pillar's contract: what it resolves to, and what each slip in it is answered with."""

import copy
import grp
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import time

import pytest
import salt.utils.yaml
from salt.exceptions import CommandExecutionError

from _modules import site_pillar
from _nud import (
    contract,
    contract_checks,
    contract_host,
    contract_resolve,
    contract_schema,
    uwsgi_ini,
)
from _states import site_pillar as state
from test.hosts.paths import FORMULA

DEBIAN = {"os": "Debian", "os_family": "Debian"}
UBUNTU = {"os": "Ubuntu", "os_family": "Debian"}
SECRET = "hunter2-correct-horse"


def _self_signed():
    """A certificate and its key, as openssl makes them."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-subj", "/CN=a.org", "-keyout", "/dev/stdout", "-out", "/dev/stdout"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    end = text.index("-----BEGIN CERTIFICATE-----")
    return text[end:], text[:end]


PAIR = _self_signed()
KEYS = (PAIR[1], _self_signed()[1])
NO_KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


def pillar_of(text):
    """A pillar as Salt's own YAML reader makes it."""
    return {"nginx_uwsgi_django": salt.utils.yaml.safe_load(text)}


def a_site(**more):
    name = more.pop("host", "www.example.org")
    return {
        "server_names": [name],
        "project": {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings"},
        **more,
    }


def with_site(site, **top):
    return {"nginx_uwsgi_django": {"sites": {"mysite": site}, **top}}


def with_value(path, value):
    """A pillar that is right but for one value of its site."""
    site = a_site()
    *parents, last = path.split(":")
    node = site
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return with_site(site)


@pytest.fixture
def use(monkeypatch):
    """Give the module a minion: its pillar and its grains."""

    def given(pillar, grains=DEBIAN):
        monkeypatch.setattr(site_pillar, "__pillar__", pillar, raising=False)
        monkeypatch.setattr(site_pillar, "__grains__", dict(grains), raising=False)
        monkeypatch.setattr(site_pillar, "__context__", {}, raising=False)
        monkeypatch.setattr(site_pillar, "__salt__", {}, raising=False)
        return site_pillar

    given({})
    return given


@pytest.fixture
def errors(use):
    def of(pillar, grains=DEBIAN):
        use({}, grains)
        return site_pillar.check(pillar)

    return of


def only(found, path):
    assert [error["path"] for error in found] == [f"nginx_uwsgi_django:{path}".rstrip(":")], found
    return found[0]


# --- What a pillar resolves to ----------------------------------------------------------------


def test_the_shortest_pillar_has_every_default(use):
    settings = use(with_site(a_site(server_names=["*.compute.amazonaws.com"]))).settings()
    site = settings["sites"]["mysite"]
    assert settings["nginx"] == {
        "repo": "distro",
        "ppa": "nginx/stable",
        "user": "deploy",
        "allow_loss": [],
        "catch_all": None,
        "health": None,
        "timeouts": {"header": None, "keepalive": None},
        "log_formats": {},
        "snippet": None,
        "socket": True,
        "group": "deploy",
    }
    assert (settings["purge"], settings["clean"]) == (False, {"data": False})
    assert site["name"] == "mysite"
    assert site["absent"] is False
    assert site["listen"] == [80]
    assert site["client_max_body_size"] == "128M"
    assert site["project"]["path"] == "/srv/mysite"
    assert site["project"]["user"] == site["project"]["group"] == "mysite"
    assert site["project"]["requirements"] == "requirements.txt"
    assert site["uwsgi"]["package"] == "pyuwsgi==2.0.30.post1"
    assert site["socket"] == {
        "path": "/run/uwsgi/mysite.sock",
        "owner": "root",
        "group": "deploy",
        "mode": "0660",
        "backlog": 4096,
    }
    assert site["health"]["host"] == "health.compute.amazonaws.com"
    assert settings["lookup"]["repos"]["nginx.org"]["uris"] == "https://nginx.org/packages/debian"


def test_the_platform_decides_what_it_should(use):
    settings = use(with_site(a_site()), UBUNTU).settings()
    assert settings["nginx"]["repo"] == "auto"
    assert settings["lookup"]["repos"]["nginx.org"]["uris"] == "https://nginx.org/packages/ubuntu"
    assert settings["lookup"]["repos"]["nginx.org"]["components"] == ["nginx"]


def test_the_more_particular_grain_has_the_last_word(use, monkeypatch):
    more = (
        ("osfinger", "Ubuntu-24.04", {"lookup": {"nginx_package": "nginx-full"}}),
        ("os_family", "Debian", {"lookup": {"nginx_package": "x", "nginx_service": "family"}}),
    )
    monkeypatch.setattr(contract_resolve, "PLATFORMS", (*more, *contract_host.PLATFORMS))
    module = use(with_site(a_site()), {**UBUNTU, "osfinger": "Ubuntu-24.04"})
    lookup = module.settings()["lookup"]
    assert (lookup["nginx_package"], lookup["nginx_service"]) == ("nginx-full", "family")
    assert module.show()["lookup:nginx_package"] == {"value": "nginx-full", "origin": "platform"}
    over = use(with_site(a_site(), lookup={"nginx_package": "mine"}), module.__grains__)
    assert over.show()["lookup:nginx_package"] == {"value": "mine", "origin": "lookup"}


def test_lookup_lies_over_the_platform(use):
    lookup = {"nginx_dir": "/opt/nginx", "repos": {"nginx.org": {"uris": "http://mirror/nginx"}}}
    settings = use(with_site(a_site(), lookup=lookup), UBUNTU).settings()
    assert settings["lookup"]["nginx_dir"] == "/opt/nginx"
    assert settings["lookup"]["uwsgi_dir"] == "/etc/uwsgi"
    assert settings["lookup"]["repos"]["nginx.org"]["uris"] == "http://mirror/nginx"
    assert len(settings["lookup"]["repos"]["nginx.org"]["fingerprints"]) == 3


def test_site_defaults_lie_under_each_site(use):
    pillar = with_site(
        {"server_names": ["a.org"], "project": {"env": {"B": "site"}}, "uwsgi": {"threads": 3}},
        site_defaults={
            "server_names": ["never.org", "used.org"],
            "project": {"wsgi": "w:a", "settings": "s", "env": {"A": "all", "B": "all"}},
            "uwsgi": {"processes": 8},
        },
    )
    site = use(pillar).settings()["sites"]["mysite"]
    assert site["server_names"] == ["a.org"]
    assert site["project"]["wsgi"] == "w:a"
    assert site["project"]["env"] == {"A": "all", "B": "site"}
    assert (site["uwsgi"]["processes"], site["uwsgi"]["threads"]) == (8, 3)


def test_null_takes_a_default_away(use):
    pillar = with_value("project:requirements", None)
    assert use(pillar).site("mysite")["project"]["requirements"] is None
    pillar = with_value("project:venv", "/srv/venv")
    assert use(pillar).site("mysite")["project"]["requirements"] is None


def test_an_executable_takes_the_place_of_the_package(use):
    site = use(with_value("uwsgi:binary", "/opt/bin/uwsgi")).site("mysite")
    assert (site["uwsgi"]["binary"], site["uwsgi"]["package"]) == ("/opt/bin/uwsgi", None)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("*.example.org", "health.example.org"),
        (".example.org", "example.org"),
        ("www.example.*", "www.example.localhost"),
        ("_", "localhost"),
        ("www.example.org", "www.example.org"),
    ],
)
def test_the_health_question_has_a_host_that_the_site_answers_to(use, name, host):
    assert use(with_site(a_site(host=name))).site("mysite")["health"]["host"] == host


def test_the_socket_has_the_primary_group_that_nginx_has_on_the_host(use):
    settings = use(with_site(a_site(), nginx={"user": "games"})).settings()
    import grp
    import pwd

    assert (
        settings["sites"]["mysite"]["socket"]["group"]
        == grp.getgrgid(pwd.getpwnam("games").pw_gid).gr_name
    )
    settings = use(with_site(a_site(), nginx={"user": "nobody-knows"})).settings()
    assert settings["sites"]["mysite"]["socket"]["group"] == "nobody-knows"


@pytest.mark.parametrize(
    ("socket", "user"),
    [
        ({"group": "web"}, "nobody-knows"),
        ({"group": "web"}, "www-data"),
        ({"group": "no-such-group"}, "www-data"),
        # The owner's rights count, and not the group's.
        ({"owner": "www-data", "mode": "0460"}, "www-data"),
        # Who is in the group has the group's rights alone.
        ({"mode": "0602"}, "www-data"),
    ],
)
def test_a_socket_that_nginx_cannot_connect_to(errors, socket, user):
    error = only(
        errors(with_site(a_site(socket=socket), nginx={"user": user})), "sites:mysite:socket:group"
    )
    assert f"nginx's user {user!r} cannot connect" in error["found"]
    assert "the primary group of nginx:user" in error["expected"]


@pytest.mark.parametrize(
    "socket",
    [
        {"group": "www-data"},
        {"group": "web", "mode": "0666"},
        {"group": "web", "owner": "www-data", "mode": "0600"},
    ],
)
def test_a_socket_that_nginx_can_connect_to(errors, socket):
    assert errors(with_site(a_site(socket=socket), nginx={"user": "www-data"})) == []


def test_the_group_of_a_site_is_not_nginxs(errors):
    project = {**PROJECT, "user": "mine", "group": "deploy"}
    pillar = with_site(a_site(project=project), nginx={"user": "deploy"})
    error = only(errors(pillar), "sites:mysite:project:group")
    assert "the group of nginx's workers" in error["found"]
    assert "the sockets of all sites" in error["expected"]


def test_defaults_are_not_shared_between_sites(use):
    sites = {"a": a_site(host="a.org"), "b": a_site(host="b.org")}
    values = use({"nginx_uwsgi_django": {"sites": sites}}).settings()["sites"]
    assert values["a"]["listen"] is not values["b"]["listen"]
    assert values["a"]["project"]["static"] is not values["b"]["project"]["static"]


def test_an_absent_site_needs_nothing_else(use):
    site = use(with_site({"absent": True})).site("mysite")
    assert site["absent"] is True
    assert site["project"]["path"] == "/srv/mysite"


def test_whole_numbers_with_a_point_and_sizes_have_one_type(use):
    pillar = with_value("uwsgi:processes", 3.0)
    pillar["nginx_uwsgi_django"]["sites"]["mysite"]["client_max_body_size"] = 0
    site = use(pillar).site("mysite")
    assert site["uwsgi"]["processes"] == 3
    assert type(site["uwsgi"]["processes"]) is int
    assert site["client_max_body_size"] == "0"


# --- Asking for what is not there -------------------------------------------------------------


def test_settings_of_a_wrong_pillar_say_the_first_error_and_how_many(use):
    site = a_site(listen=[True], charset=3.1)
    module = use(with_site(site))
    for call in (module.settings, lambda: module.site("mysite")):
        with pytest.raises(CommandExecutionError, match=r"listen:0: found True .* \(and 1 more"):
            call()


def test_a_site_that_the_pillar_does_not_have(use):
    with pytest.raises(CommandExecutionError, match="no site 'mysit'.*did you mean mysite"):
        use(with_site(a_site())).site("mysit")


# --- Empty and missing ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pillar", "path", "words"),
    [
        ({}, "", "at least one site"),
        ({"nginx_uswgi_django": {}}, "", "is it nginx_uswgi_django?"),
        ({"nginx_uwsgi_django": None}, "", "nothing (null)"),
        ({"nginx_uwsgi_django": []}, "", "an empty list"),
        ({"nginx_uwsgi_django": "text"}, "", "a string (not shown)"),
        ({"nginx_uwsgi_django": {}}, "sites", "no such key"),
        ({"nginx_uwsgi_django": {"sites": None}}, "sites", "nothing (null)"),
        ({"nginx_uwsgi_django": {"sites": {}}}, "sites", "at least one"),
        ({"nginx_uwsgi_django": {"sites": ["mysite"]}}, "sites", "a list of 1"),
        ({"nginx_uwsgi_django": {"sites": {"mysite": None}}}, "sites:mysite", "nothing (null)"),
    ],
)
def test_empty_and_missing_pillars(use, pillar, path, words):
    module = use(pillar)
    for found in (module.check(), module.check(pillar)):
        assert words in site_pillar._sentence(only(found, path))
    with pytest.raises(CommandExecutionError):
        module.settings()


def test_a_pillar_that_did_not_render_is_said_without_its_text(use):
    pillar = {"_errors": [f"Rendering SLS 'x' failed: {SECRET}"]}
    report = use(pillar).report()
    assert "did not render" in report
    assert SECRET not in report
    # Nor is a verdict kept from before the pillar broke.
    good = with_site(a_site())
    use(good).settings()
    good["_errors"] = ["again"]
    assert "did not render" in site_pillar.report()


@pytest.mark.parametrize("missing", ["server_names", "project", "project:wsgi", "project:settings"])
def test_a_site_without_what_it_needs(errors, missing):
    site = a_site()
    *parents, last = missing.split(":")
    node = site
    for key in parents:
        node = node[key]
    del node[last]
    paths = [error["path"] for error in errors(with_site(site))]
    wanted = ["project:wsgi", "project:settings"] if missing == "project" else [missing]
    assert paths == [f"nginx_uwsgi_django:sites:mysite:{path}" for path in wanted]


# --- What YAML makes of it --------------------------------------------------------------------

SITE = """
sites:
  mysite:
    server_names: [www.example.org]
    project: {{wsgi: 'mysite.wsgi:application', settings: mysite.settings}}
    {line}
"""


@pytest.mark.parametrize(
    ("line", "path", "words"),
    [
        ("charset: off", "charset", "False (boolean)|reads an unquoted on, off|quote it"),
        ("charset: 3.10", "charset", "3.1 (number)|3.10 as the number 3.1: quote it"),
        ("charset: 22:22", "charset", "1342 (integer)|if 22:22 was meant|base 60"),
        ("charset: 190:20:30", "charset", "685230 (integer)|if 190:20:30 was meant"),
        ("charset: ~", "charset", "nothing (null)|write a value"),
        ("charset:", "charset", "nothing (null)|nothing, ~ or null stands after the colon"),
        ("charset: [utf-8]", "charset", "a list of 1|one value, not a list"),
        ("charset: {utf: 8}", "charset", "a mapping of 1|quote it"),
        ("charset: ''", "charset", "'' (string)|it is empty"),
        ('charset: "utf-8\\n"', "charset", r"'utf-8\n' (string)|a blank or a newline"),
        ("socket: {mode: 0640}", "socket:mode", "640 (integer)|0640 as the number 640"),
        ("socket: {mode: '4660'}", "socket:mode", "'4660' (string)|no special bits"),
        ("listen: [on]", "listen:0", "True (boolean)|reads an unquoted on"),
        ("listen: [080]", "listen:0", "'080' (string)|no octal digits: write 80"),
        ("listen: [8080:80]", "listen:0", "'8080:80' (string)|address:port"),
        ("listen: [70:00]", "listen:0", None),
        ("listen: [20:00:00]", "listen:0", "72000 (integer)|if 20:00:00 was meant"),
        ("listen: ['0']", "listen:0", "'0' (string)"),
        ("listen: 80", "listen", "80 (integer)|write it as a list"),
        ("listen: '80'", "listen", "'80' (string)|write it as a list"),
        ("listen: []", "listen", "an empty list|at least one"),
        ("listen: [1, on]", "listen:1", "True (boolean)|expected a port"),
        ("listen: [80, 80]", "listen:1", "80 (integer)|item 0 is the same"),
        ("uwsgi: {processes: '4'}", "uwsgi:processes", "'4' (string)|remove the quotes"),
        ("uwsgi: {processes: 089}", "uwsgi:processes", "'089' (string)|write 89"),
        ("uwsgi: {processes: 1e2}", "uwsgi:processes", "'1e2' (string)|1e3 as text"),
        ("uwsgi: {processes: true}", "uwsgi:processes", "True (boolean)|expected a whole number"),
        ("uwsgi: {processes: 2.5}", "uwsgi:processes", "2.5 (number)|without the point"),
        ("uwsgi: {processes: 0}", "uwsgi:processes", "0 (integer)|from 1 to 1024"),
        ("absent: 'true'", "absent", "'true' (string)|remove the quotes"),
        ("absent: y", "absent", "'y' (string)|reads y and n as text"),
        ("absent: 1", "absent", "1 (integer)|write true or false"),
        ("server_names: www.a.org", "server_names", "(string)|write it as a list"),
        ("health: {status: {200: x}}", "health:status", "a mapping of 1|a list has a dash"),
        ("health: [path, /]", "health", "a list of 2|keys with colons"),
    ],
)
def test_the_traps_of_yaml_by_name(errors, line, path, words):
    text = SITE.format(line=line)
    if line.startswith("server_names"):
        text = text.replace("    server_names: [www.example.org]\n", "")
    found = errors(pillar_of(text))
    if words is None:  # 70:00 is 4200 by the time anybody can look: a port like another
        assert found == []
        return
    sentence = site_pillar._sentence(only(found, f"sites:mysite:{path}"))
    for word in words.split("|"):
        assert word in sentence


def test_a_key_written_twice_does_not_render():
    """What the module cannot see, Salt's reader refuses."""
    with pytest.raises(Exception, match="onflicting ID|onflicting"):
        salt.utils.yaml.safe_load("a: 1\na: 2\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sites: {on: {}}", "a key that is a boolean: True|quote the key"),
        ("sites: {~: {}}", "nothing (null)|before the colon"),
        ("sites: {22: {}}", "a key that is an integer: 22"),
        ("sites: {Mysite: {}}", "the key 'Mysite'|beginning with a letter"),
        ("sites: {my.site: {}}", "the key 'my.site'"),
        ("sites: {'../../cron.d/evil': {}}", "the key '../../cron.d/evil'"),
        ('sites: {"a\\nb": {}}', r"the key 'a\nb'"),
        ("sites: {'-rf': {}}", "the key '-rf'"),
        ("sites: {'%i': {}}", "the key '%i'"),
        ("sites: {'$(id)': {}}", "the key '$(id)'"),
        ("sites: {" + "a" * 32 + ": {}}", "1 to 31"),
        ("sites: {www-data: {}}", "belongs to the system"),
        ("sites: {nginx: {}}", "belongs to the system"),
        ("sites: {ubuntu: {}}", "cloud image's first user"),
        ("sites: {systemd-network: {}}", "belongs to the system"),
        ("sites: {emperor: {}}", "another service's"),
        ("sites: {a-preflight: {}}", "another service's"),
    ],
)
def test_names_that_no_site_can_have(errors, text, words):
    found = errors(pillar_of(text))
    assert len(found) == 1, found
    for word in words.split("|"):
        assert word in site_pillar._sentence(found[0])


# --- Typos ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("server_name", "did you mean server_names?"),
        ("serverNames", "did you mean server_names?"),
        ("projekt", "did you mean project?"),
        ("client-max-body-size", "did you mean client_max_body_size?"),
        ("uwsgi:process", "did you mean processes?"),
        ("uwsgi:start-timeout", "did you mean start_timeout?"),
        ("project:wsgi_module", ""),
        ("processes", "processes belongs to sites:SITE:uwsgi"),
        ("socket:wsgi", "wsgi belongs to sites:SITE:project"),
        ("utterly_unknown", ""),
    ],
)
def test_an_unknown_key_names_the_nearest(errors, path, hint):
    error = only(errors(with_value(path, "x")), f"sites:mysite:{path}")
    assert error["found"] == "an unknown key with a string"
    assert error["hint"] == hint
    assert error["expected"].startswith("one of ")


def test_a_choice_names_the_nearest(errors):
    error = only(errors(with_site(a_site(), nginx={"repo": "nginx-org"})), "nginx:repo")
    assert error["hint"] == "did you mean nginx.org?"


def test_all_errors_are_in_one_report(errors):
    pillar = with_site(
        a_site(listen=[0], charset=True, socket={"mode": 660}, uwsgi={"processes": "x", "y": 1}),
        nginx={"user": "mysite", "repo": "ppa"},
        purge="yes",
        extra=1,
    )
    paths = {error["path"].removeprefix("nginx_uwsgi_django:") for error in errors(pillar)}
    assert paths == {
        "purge",
        "extra",
        "nginx:repo",
        "sites:mysite:listen:0",
        "sites:mysite:charset",
        "sites:mysite:socket:mode",
        "sites:mysite:uwsgi:processes",
        "sites:mysite:uwsgi:y",
        "sites:mysite:project:user",
    }


# --- Secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "site",
    [
        a_site(project={"env": {"KEY": f"{SECRET}\n"}, "wsgi": "a:b", "settings": "s"}),
        a_site(project={"env": {"KEY": [SECRET]}, "wsgi": "a:b", "settings": "s"}),
        a_site(project={"env": SECRET, "wsgi": "a:b", "settings": "s"}),
        a_site(project={"env": [f"KEY={SECRET}"], "wsgi": "a:b", "settings": "s"}),
        a_site(project={"evn": {"KEY": SECRET}, "wsgi": "a:b", "settings": "s"}),
        a_site(project={"env": {"1KEY": SECRET}, "wsgi": "a:b", "settings": "s"}),
        a_site(project=SECRET),
        a_site(project=[{"env": {"KEY": SECRET}}]),
        a_site(tls=SECRET),
        a_site(tls={"key": SECRET}),
        a_site(password=SECRET),
        [{"project": {"env": {"KEY": SECRET}}}],
        SECRET,
    ],
)
def test_no_error_shows_what_may_be_a_secret(use, site):
    module = use(with_site(site))
    assert module.check()
    assert SECRET not in module.report()
    with pytest.raises(CommandExecutionError) as raised:
        module.settings()
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(run_state(module)["comment"])


def test_a_number_among_the_secrets_is_not_shown_either(errors):
    for value, words in ((8675309, "an integer (not shown)"), (2.5, "a number (not shown)")):
        error = only(
            errors(with_value("project:env", {"PIN": value})), "sites:mysite:project:env:PIN"
        )
        assert error["found"] == words
        assert str(value) not in site_pillar._sentence(error)


# --- Values that no language can be broken with -----------------------------------------------

HOSTILE = [
    "a\n",
    "\na",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\x1bb",
    "\x7f",
    "a;b",
    "a b;",
    "a{b}",
    "a}",
    'a"b',
    "a'b",
    "a\\b",
    "$(id)",
    "${x}",
    "a$b",
    "%d",
    "@(exec://id)",
    "`id`",
    "a|b",
    "a#b",
    "../a",
    "/../etc/passwd",
    "/a/../b",
    "/a/./b",
    "/a//b",
    "/a/",
    "-rf",
    "/a b",
    "/a\tb",
    "\u2028",
    "ü",
]
# What is no danger where it stands: the language is quoted by who writes it, and tested there.
FREE = {
    "project:env:*",
    "uwsgi:options:*",
    # They go into a header, in base64.
    "project:source:git:password",
    "project:source:archive:password",
    # They go into a .netrc, in quotes.
    "project:indexes:0:password",
    "headers:*",
    "uwsgi:params:*",
    # In quotes; what begins a variable there is meant to.
    "basic_auth:realm",
    "nginx:log_formats:*:format",
    # Words, none of which is given to a shell.
    "companions:*:command",
    "companions:*:command:0",
    # Words of a command that no shell reads.
    *(
        f"project:hooks:{when}_{step}:0:0"
        for when in ("before", "after")
        for step in ("fetch", "build", "migrate", "switch")
    ),
}
# Raw lines of nginx's language, by the operator's explicit word: nginx_language.flaw and nginx judge them.
RAW = {value for value in HOSTILE if not re.search(r"[\r\0\x1b\x7f]", value)}
# And single characters that are part of a key's own grammar.
HARMLESS = {
    "project:exclude:0": {"../a", "/a/./b", "/a/../b", "/../etc/passwd", "/a//b", "/a/"},
    "health:path": {"/../etc/passwd", "/a/../b", "/a/./b", "/a//b", "/a/"},
    "project:static:url": {"/a/"},
    "files:0:url": {"/a/"},
    "redirects:0:from": {"/a/"},
    "rate_limits:0:path": {"/a/"},
    # What is said to a browser.
    "redirects:0:to": {"/a/", "/a//b"},
    "nginx:health:path": {"/a/"},
    "snippet": RAW,
    "nginx:snippet": RAW,
}


def texts(node, path=()):
    if isinstance(node, contract_schema.Mapping):
        for key, child in node.keys.items():
            yield from texts(child, (*path, key))
    elif isinstance(node, contract_schema.Table):
        yield from texts(node.value, (*path, "*"))
    elif isinstance(node, contract_schema.List):
        yield from texts(node.items, (*path, "0"))
    elif isinstance(node, contract_schema.Plain):
        for option in node.options:
            yield from texts(option, path)
    elif isinstance(node, contract_schema.Text):
        yield ":".join(path), node


@pytest.mark.parametrize(
    ("path", "node"),
    [
        *texts(contract.SITE),
        *texts(contract.PILLAR.keys["lookup"], ("lookup",)),
        *texts(contract.PILLAR.keys["nginx"], ("nginx",)),
    ],
)
def test_hostile_values_are_refused_wherever_a_text_stands(path, node):
    free = path in FREE or path.startswith("uwsgi:options:")
    for value in HOSTILE:
        if value in HARMLESS.get(path, ()):
            continue
        if free and re.fullmatch(r"[^\n\r\0\x1b\x7f]*", value):
            continue
        assert node.wrong(value) is not None, (path, value)


@pytest.mark.parametrize("value", ["%d", "a%b", "$(HOME)", "@(exec://id)", "a\nb", " a", "a ", ""])
def test_uwsgi_option_values_that_uwsgi_would_replace(errors, value):
    path = "sites:mysite:uwsgi:options:x"
    error = only(errors(with_value("uwsgi:options", {"x": value})), path)
    if {"%", "("} & set(value):
        assert "uWSGI replaces %, $( and @(" in error["expected"]
    only(errors(with_value("uwsgi:options", {"x": ["fine", value]})), f"{path}:1")


@pytest.mark.parametrize(
    "name",
    [
        "harakiri",
        "lazy-apps",
        "buffer-size",
        "max-requests",
        "plugins",
        "plugin",
        "enable-threads",
        "offload-threads",
        "cheaper",
        "post-buffering",
        "log-format",
        "static-map",
        "cron2",
        "spooler",
        "attach-daemon2",
        "disable-logging",
        "pythonpath",
        "py-autoreload",
        "memory-report",
        "ignore-sigpipe",
    ],
)
def test_ordinary_uwsgi_options_are_free(errors, name):
    assert errors(with_value("uwsgi:options", {name: True})) == []
    assert uwsgi_ini.refused({name: True}) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("daemonize", "foreground"),
        ("uid", "project:user"),
        ("gid", "project:group"),
        ("chmod-socket", "socket:mode"),
        ("http", "systemd holds"),
        ("http-socket", "systemd holds"),
        ("socket", "systemd holds"),
        ("die-on-term", "finishes its requests"),
        ("master", "finishes its requests"),
        ("lazy", "lazy-apps is what is meant"),
        ("listen", "socket:backlog"),
        ("logto", "uwsgi:log"),
        ("strict", "the formula sets it"),
        ("env", "project:env"),
        ("ini", "uwsgi:ini"),
        ("chmod_socket", "a-z, 0-9 and -"),
    ],
)
def test_refused_uwsgi_options_say_why(errors, name, words):
    error = only(
        errors(with_value("uwsgi:options", {name: "x"})), f"sites:mysite:uwsgi:options:{name}"
    )
    assert words in error["expected"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("HTTP_HOST", "no client can"),
        ("HTTPS", "load_balancer"),
        ("UWSGI_FILE", "finds the application"),
        ("REMOTE_ADDR", "load_balancer"),
        ("http_x", "A-Z, 0-9 and _"),
    ],
)
def test_refused_parameters_say_why(errors, name, words):
    error = only(
        errors(with_value("uwsgi:params", {name: "x"})), f"sites:mysite:uwsgi:params:{name}"
    )
    assert words in error["expected"]


def test_parameters_in_a_snippet_that_would_be_lost_are_told(errors):
    lost = "uwsgi_param HTTP_X_REQUEST_ID $request_id;"
    error = only(errors(with_value("snippet", lost)), "sites:mysite:snippet")
    assert "uwsgi_param" in error["found"] and "uwsgi:params" in error["expected"]
    own = "location /x { include uwsgi_params; uwsgi_param A b; uwsgi_pass unix:/run/x; }"
    assert errors(with_value("snippet", own)) == []


@pytest.mark.parametrize("value", ["proc", ["everything"], ["proc", "proc"]])
def test_only_what_the_sandbox_closes_can_be_allowed(errors, value):
    assert errors(with_value("uwsgi:sandbox", {"allow": value})) != []


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/etc/mysite", "/var/lib/other", "/usr/lib", "media"]
)
def test_a_place_of_the_system_does_not_become_writable(errors, path):
    only(
        errors(with_value("uwsgi:sandbox", {"writable": [path]})),
        "sites:mysite:uwsgi:sandbox:writable:0",
    )


def test_pythons_compiler_needs_the_sandbox_to_allow_it(errors):
    site = with_value("project:env", {"PYTHON_JIT": "1"})
    error = only(errors(site), "sites:mysite:project:env:PYTHON_JIT")
    assert "uwsgi:sandbox:allow" in error["expected"]
    assert errors(with_value("project:env", {"PYTHON_JIT": "0"})) == []
    site["nginx_uwsgi_django"]["sites"]["mysite"]["uwsgi"] = {"sandbox": {"allow": ["jit"]}}
    assert errors(site) == []


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("DJANGO_SETTINGS_MODULE", "project:settings"),
        ("UWSGI_HTTP", "uWSGI takes"),
        ("NOTIFY_SOCKET", "systemd sets it"),
        ("LISTEN_FDS", "systemd sets it"),
        ("1A", "not beginning with a digit"),
        ("A-B", "letters, digits and _"),
        ("A=B", "letters, digits and _"),
        ("A\n", "letters, digits and _"),
        ("", "letters, digits and _"),
    ],
)
def test_environment_names_that_are_refused(errors, key, words):
    found = errors(with_value("project:env", {key: "x"}))
    assert len(found) == 1
    assert words in found[0]["expected"]


@pytest.mark.parametrize("value", ["", " a ", "a%b$c", "ü😀", "\t", "'\"\\", "#", "x" * 65536])
def test_environment_values_are_any_text_on_a_line(errors, value):
    assert errors(with_value("project:env", {"KEY": value})) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("project:path", "/"),
        ("project:path", "/etc"),
        ("project:path", "/etc/mysite"),
        ("project:path", "/srv"),
        ("project:path", "/home"),
        ("project:path", "/var/lib"),
        ("project:path", "/usr/bin/x"),
        ("project:path", "/tmp/mysite"),
        ("project:path", "srv/mysite"),
        ("socket:path", "/dev/mysite.sock"),
        ("socket:path", "/tmp/../etc/mysite.sock"),
        ("socket:path", "/tmp/my site.sock"),
        ("socket:path", "/run/systemd/notify"),
        ("socket:path", "/run/" + "a" * 103),
        ("project:static:root", "/srv/static"),
        ("project:source", {"salt": "salt://a?saltenv=b&c=d"}),
        ("socket:group", "users"),
        ("project:user", "root"),
        ("project:user", "www-data"),
        ("project:user", "_apt"),
        ("project:user", "1abc"),
        ("project:user", "a" * 33),
        ("project:group", "sudo"),
        ("project:wsgi", "mysite.wsgi"),
        ("project:wsgi", "mysite/wsgi.py"),
        ("project:settings", "mysite/settings.py"),
        ("project:requirements", "/etc/passwd"),
        ("project:requirements", "--index-url=x"),
        ("project:requirements", "../requirements.txt"),
        ("project:source", {}),
        ("project:source", {"git": "x"}),
        ("project:source", {"salt": "salt://../x"}),
        ("uwsgi:package", "https://evil.example.org/x.whl"),
        ("uwsgi:package", "uwsgi; python_version < '3'"),
        ("uwsgi:package", "-r x"),
        ("uwsgi:limits", {"MemoryMax": "lots"}),
        ("uwsgi:limits", {"memory_max": 1}),
        ("uwsgi:limits", {"CPUQuota": 50}),
        ("uwsgi:limits", {"CPUWeight": 0}),
        ("uwsgi:limits", {"LimitNOFILE": "50%"}),
        ("uwsgi:binary", "uwsgi"),
        ("uwsgi:package", None),
        ("server_names", ["http://a.org"]),
        ("server_names", ["a.org:80"]),
        ("server_names", ["~^a"]),
        ("server_names", ["*.a.*"]),
        ("server_names", ["a..b"]),
        ("server_names", ["a.org", "A.ORG"]),
        ("server_names", ["a.org", ".a.org"]),
        ("listen", ["256.0.0.1:80"]),
        ("listen", ["[::g]:80"]),
        ("listen", ["[1:2]:80"]),
        ("listen", ["unix:/x"]),
        ("listen", ["80 ssl"]),
        ("listen", [65536]),
        ("listen", [80, "*:80"]),
        ("listen", ["[::]:80", "[0::0]:80"]),
        ("client_max_body_size", "128MB"),
        ("client_max_body_size", -1),
        ("health:path", "health"),
        ("health:status", [99]),
        ("health:host", "*.a.org"),
        ("socket:mode", "0400"),
        ("socket:mode", "0600"),
        ("socket:mode", "0644"),
        ("socket:mode", "1666"),
        ("socket:mode", "666\n"),
        ("socket:mode", "0668"),
        ("tls", {"certificate": "/x"}),
        ("tls", {"key": "/x"}),
        ("tls", {"certificate": "/x", "key": None}),
        ("tls", {"certificate": "x", "key": "y"}),
        ("tls", {"protocols": ["TLSv1.3"]}),
    ],
)
def test_values_that_are_refused(errors, path, value):
    found = errors(with_value(path, value))
    assert found
    for error in found:
        assert error["path"].startswith(f"nginx_uwsgi_django:sites:mysite:{path}"), found
        assert error["found"]
        assert error["expected"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("project:path", "/srv/My_Site-2.0"),
        ("project:path", "/home/deploy/site"),
        ("project:path", "/var/www/site"),
        ("project:path", "/opt/site"),
        ("socket:path", "/run/" + "a" * 102),
        ("socket:path", "/srv/mysite/shared/run/mysite.sock"),
        ("socket:mode", "660"),
        # What many a tutorial has: every run says that it is insecure.
        ("socket:path", "/tmp/mysite.sock"),
        ("socket:mode", "0666"),
        ("socket:mode", "666"),
        ("tls", {}),
        ("tls", {"certificate": None, "key": None}),
        # Not there yet: nginx is the one to say so.
        ("tls", {"certificate": "/x", "key": "/y"}),
        ("server_names", ["_"]),
        ("server_names", ["a.org", "*.a.org"]),
        (
            "server_names",
            ["192.0.2.1", "xn--bcher-kva.example", "ec2-13-124-186-240.amazonaws.com"],
        ),
        ("listen", ["80 default_server", "[::]:80 default_server", 443]),
        ("listen", ["127.0.0.1:8080", "127.0.0.2:8080"]),
        ("uwsgi:package", "distro"),
        ("uwsgi:package", "uwsgi==2.0.31"),
        ("uwsgi:package", "uwsgi[x] >=2.0.28, <2.1"),
        ("uwsgi:options", {"harakiri": 30, "static-map": ["/a=/srv/a", "/b=/srv/b"]}),
        ("uwsgi:limits", {"MemoryMax": "512M", "CPUQuota": "150%", "LimitNOFILE": 4096}),
        ("client_max_body_size", 0),
        ("client_max_body_size", "10m"),
        ("health:path", "/health/?full=1"),
        ("project:exclude", ["media/*", "*.sqlite3"]),
        ("project:source", {"salt": "salt://sites/shop?saltenv=prod"}),
    ],
)
def test_values_that_are_fine(errors, path, value):
    assert errors(with_value(path, value)) == []


# --- Across sites, and against the host -------------------------------------------------------


def two(first, second, **top):
    first = {**a_site(host="a.example.org"), **first}
    second = {**a_site(host="b.example.org"), **second}
    return {"nginx_uwsgi_django": {"sites": {"one": first, "two": second}, **top}}


PROJECT = {"wsgi": "a.wsgi:application", "settings": "a.settings"}


@pytest.mark.parametrize(
    ("pillar", "path", "words"),
    [
        (
            two({}, {"server_names": ["b.org", "A.example.org"]}),
            "sites:two:server_names:1",
            "'A.example.org', which the site one has on port 80 too",
        ),
        (
            two(
                {"listen": [80, "127.0.0.1:81"]},
                {"listen": ["127.0.0.1:81"], "server_names": ["a.example.org"]},
            ),
            "sites:two:server_names:0",
            "127.0.0.1:81",
        ),
        (
            two({"server_names": [".x.org"]}, {"server_names": ["*.x.org"]}),
            "sites:two:server_names:0",
            "which the site one has",
        ),
        (
            two({"listen": ["80 default_server"]}, {"listen": ["*:80 default_server"]}),
            "sites:two:listen:0",
            "the site one is the default",
        ),
        (
            two({}, {"socket": {"path": "/run/uwsgi/one.sock"}}),
            "sites:two:socket:path",
            "which the site one has too",
        ),
        (
            two({}, {"project": {**PROJECT, "user": "one"}}),
            "sites:two:project:user",
            "which the site one has too",
        ),
        (
            two({}, {"project": {**PROJECT, "path": "/srv/one"}}),
            "sites:two:project:path",
            "which the site one has too",
        ),
        (
            two({}, {"project": {**PROJECT, "path": "/srv/one/inside"}}),
            "sites:two:project:path",
            "inside '/srv/one' of the site one",
        ),
        (
            two({"project": {**PROJECT, "path": "/srv/two/inside"}}, {}),
            "sites:one:project:path",
            "inside '/srv/two' of the site two",
        ),
        (
            two(
                {},
                {"project": {**PROJECT, "path": "/srv/one"}, "absent": True},
                clean={"data": True},
            ),
            "sites:one:project:path",
            "goes with the absent site two",
        ),
        (
            two({"project": {**PROJECT, "user": "deploy"}}, {}),
            "sites:one:project:user",
            "the user of nginx",
        ),
        (two({}, {}, nginx={"user": "two"}), "sites:two:project:user", "the user of nginx"),
        (
            two({"uwsgi": {"binary": "/x/uwsgi", "package": "uwsgi"}}, {}),
            "sites:one:uwsgi:binary",
            "as well as a package",
        ),
    ],
)
def test_sites_that_do_not_go_together(errors, pillar, path, words):
    error = only(errors(pillar), path)
    assert words in error["found"]
    assert error["rule"] == "meaning"


@pytest.mark.parametrize(
    ("tls", "path", "words"),
    [
        ({"certificate": "/x"}, "tls:key", "the other of certificate and key"),
        ({"key": "/x"}, "tls:certificate", "the other of certificate and key"),
        ({"certificate": "/x", "key": KEYS[0]}, "tls:key", "both as paths, or both as texts"),
        ({"certificate": PAIR[0], "key": KEYS[1]}, "tls:key", "a key that is not the certificate"),
        ({"certificate": PAIR[0], "key": NO_KEY}, "tls:key", "does not take for a certificate"),
        ({"acme": True, "certificate": "/x", "key": "/y"}, "tls:acme", "either tls:acme, or"),
    ],
)
def test_a_certificate_has_one_source_and_the_key_that_is_its_own(errors, tls, path, words):
    pillar = with_site(a_site(tls=tls), acme={"terms_agreed": True})
    error = only(errors(pillar), f"sites:mysite:{path}")
    assert words in site_pillar._sentence(error)
    assert error["rule"] == "meaning"
    assert not any(line in repr(error) for line in KEYS[0].splitlines()[1:-1])


def test_a_pair_is_taken_as_text_and_as_files(errors, use, tmp_path):
    assert errors(with_site(a_site(tls=dict(zip(("certificate", "key"), PAIR, strict=True))))) == []
    for name, text in zip(("a.pem", "a.key", "b.key"), (*PAIR, KEYS[1]), strict=True):
        (tmp_path / name).write_text(text)
    tls = {"certificate": f"{tmp_path}/a.pem", "key": f"{tmp_path}/a.key"}
    assert errors(with_site(a_site(tls=tls))) == []
    tls["key"] = f"{tmp_path}/b.key"
    only(errors(with_site(a_site(tls=tls))), "sites:mysite:tls:key")


def test_a_key_is_shown_nowhere(use):
    tls = dict(zip(("certificate", "key"), PAIR, strict=True))
    shown = use(with_site(a_site(tls=tls))).show()
    assert shown["sites:mysite:tls:key"]["value"] == "*" * 10
    assert not any(line in repr(shown) for line in PAIR[1].splitlines()[1:-1])


@pytest.mark.parametrize(
    ("listen", "tls"),
    [
        ([80], [443]),
        ([8080], [443]),
        ([80, "[::]:80 default_server", 8000], [443, "[::]:443 default_server"]),
        (["192.0.2.1:80"], ["192.0.2.1:443"]),
    ],
)
def test_tls_listens_beside_plain_http(use, listen, tls):
    settings = use(with_site(a_site(listen=listen))).settings()
    assert settings["sites"]["mysite"]["tls"]["listen"] == tls


@pytest.mark.parametrize("name", ["*.example.org", ".example.org", "192.0.2.1", "_", "localhost"])
def test_acme_certifies_whole_names_alone(errors, name):
    pillar = with_site(a_site(host=name, tls={"acme": True}), acme={"terms_agreed": True})
    assert "by HTTP" in only(errors(pillar), "sites:mysite:server_names:0")["expected"]


def test_nothing_is_asked_for_without_agreement(errors):
    pillar = with_site(a_site(tls={"acme": True}))
    assert "agreed" in only(errors(pillar), "acme:terms_agreed")["expected"]


def test_one_port_speaks_one_protocol(errors):
    tls = {"certificate": "/x", "key": "/y"}
    error = only(errors(with_site(a_site(listen=[443], tls=tls))), "sites:mysite:tls:listen:0")
    assert "item 0 of listen again" in error["found"]
    whole = with_site(a_site(tls=tls))
    whole["nginx_uwsgi_django"]["sites"]["other"] = a_site(host="o.example.org", listen=[443])
    assert "speaks TLS there" in only(errors(whole), "sites:other:listen:0")["found"]


def test_a_certificate_from_the_defaults_meets_the_sites_key(errors):
    whole = with_site(a_site(tls={"key": "/y"}), site_defaults={"tls": {"certificate": "/x"}})
    assert errors(whole) == []


# --- What else is on the host -----------------------------------------------------------------


@pytest.fixture
def units(monkeypatch, tmp_path):
    """Two directories of units that the module takes for the host's."""
    monkeypatch.setattr(contract_checks, "_UNIT_PLACES", (str(tmp_path / "usr"),))
    for name in ("usr", "etc"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("usr/uwsgi-mysite.service", ""),
        ("usr/uwsgi-mysite.socket", ""),
        ("usr/uwsgi-mysite@.service", ""),
        ("usr/uwsgi-mysite", "#!/bin/sh\n"),
        ("etc/uwsgi-mysite.service", "[Unit]\nDescription=made by hand\n"),
        ("etc/uwsgi-mysite.socket", '[Unit]\nDescription=Django site "other"\n'),
        ("etc/uwsgi-mysite.service", None),
    ],
)
@pytest.mark.parametrize("absent", [False, True])
def test_a_site_hides_no_unit_of_somebody_elses(errors, units, file, text, absent):
    if text is None:  # masked
        (units / file).symlink_to("/dev/null")
    else:
        (units / file).write_text(text)
    lookup = {"unit_dir": str(units / "etc")}
    site = {"absent": True} if absent else a_site()
    error = only(errors(with_site(site, lookup=lookup)), "sites:mysite")
    assert file.rpartition("/")[2] in error["found"]


def test_the_units_of_the_site_itself_and_of_others_are_in_nobodys_way(errors, units):
    for file in ("uwsgi-mysite.service", "uwsgi-mysite.socket"):
        (units / "etc" / file).write_text('[Unit]\nDescription=Django site "mysite"\n')
    for file in ("uwsgi-mysite-2.service", "uwsgi-my.service", "uwsgi.service", "mysite.service"):
        (units / "usr" / file).write_text("")
    lookup = {"unit_dir": str(units / "etc")}
    assert errors(with_site(a_site(), lookup=lookup)) == []


@pytest.mark.parametrize(
    ("user", "group", "path"),
    [
        ((77, 1001), 1001, "project:user"),
        ((0, 0), 1001, "project:user"),
        ((61000, 61000), 1001, "project:user"),
        ((65534, 1001), 1001, "project:user"),
        ((1001, 1001), 42, "project:group"),
        ((999, 999), 999, None),
        ((1001, 1001), 1001, None),
        ((70000, 70000), 70000, None),
    ],
)
def test_no_site_runs_as_an_account_with_one_of_the_systems_numbers(
    errors, monkeypatch, user, group, path
):
    monkeypatch.setattr(
        contract_checks.pwd,
        "getpwnam",
        lambda name: pwd.struct_passwd((name, "x", *user, "", "/", "/bin/sh")),
    )
    monkeypatch.setattr(
        contract_checks.grp, "getgrnam", lambda name: grp.struct_group((name, "x", group, []))
    )
    found = [one for one in errors(with_site(a_site())) if "nginx" not in one["path"][18:]]
    assert [one["path"][len("nginx_uwsgi_django:sites:mysite:") :] for one in found] == (
        [path] if path else []
    )


@pytest.mark.parametrize("source", [None, {"salt": "salt://x"}])
@pytest.mark.parametrize(
    ("what", "refused"),
    [("theirs", True), ("everybodys", True), ("link", True), ("roots", False), ("missing", False)],
)
def test_root_writes_releases_only_where_nobody_else_can_change_the_way(
    errors, monkeypatch, tmp_path, source, what, refused
):
    home = tmp_path / "home"
    home.mkdir()
    path = home / "site"
    if what == "theirs":
        os.chown(home, 1001, 1001)
    elif what == "everybodys":
        home.chmod(0o777)
    elif what == "link":
        (tmp_path / "elsewhere").mkdir()
        os.chown(tmp_path / "elsewhere", 1001, 1001)
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "roots":
        path.mkdir()
    # pytest's own directory is below /tmp, which everybody may write to.
    real, top = os.lstat, str(tmp_path)
    monkeypatch.setattr(
        contract_checks.os,
        "lstat",
        lambda step: real(step) if str(step).startswith(top) else real("/"),
    )
    project = {**PROJECT, "path": str(path), "source": source}
    monkeypatch.setattr(contract.SITE.keys["project"].keys["path"], "_refuse", [])
    monkeypatch.setattr(contract.SITE.keys["project"].keys["path"], "_pattern", None)
    found = errors(with_site(a_site(project=project)))
    if refused and source:
        assert "others than root may change" in only(found, "sites:mysite:project:path")["found"]
    else:
        assert found == []


def test_names_that_are_easily_mistaken(errors):
    sites = {"my-site": a_site(host="a.org"), "my_site": a_site(host="b.org")}
    error = only(errors({"nginx_uwsgi_django": {"sites": sites}}), "sites:my_site")
    assert "differs from the site my-site in - and _ alone" in error["found"]


@pytest.mark.parametrize(
    "pillar",
    [
        two({"listen": [80]}, {"listen": [81], "server_names": ["a.example.org"]}),
        two({"listen": ["80 default_server"]}, {"listen": ["81 default_server"]}),
        two(
            {"listen": ["127.0.0.1:80"]},
            {"listen": ["127.0.0.2:80"], "server_names": ["a.example.org"]},
        ),
        two({}, {"absent": True, "server_names": ["a.example.org"]}),
        two({"absent": True}, {"project": {**PROJECT, "path": "/srv/one"}}),
        two({}, {"project": {**PROJECT, "path": "/srv/one-more"}}),
        two({"socket": {"mode": "0600", "owner": "deploy"}}, {}),
    ],
)
def test_sites_that_do(errors, pillar):
    assert errors(pillar) == []


def test_the_ppa_is_for_ubuntu(errors):
    pillar = with_site(a_site(), nginx={"repo": "ppa"})
    error = only(errors(pillar), "nginx:repo")
    assert error["found"] == "'ppa' on Debian"
    assert "Launchpad builds the PPA for Ubuntu alone" in error["expected"]
    assert errors(pillar, UBUNTU) == []


def test_a_system_that_is_not_supported(errors):
    error = only(errors(with_site(a_site()), {"os": "Rocky", "os_family": "RedHat"}), "")
    assert error["found"] == "a host of the os_family RedHat (Rocky)"


def test_one_wrong_value_does_not_hide_what_is_wrong_across_sites(errors):
    pillar = two({"listen": [80, "x"]}, {"server_names": ["a.example.org"], "charset": 1})
    paths = [error["path"] for error in errors(pillar)]
    assert [path.removeprefix("nginx_uwsgi_django:sites:") for path in paths] == [
        "one:listen:1",
        "two:charset",
        "two:server_names:0",
    ]


# --- show, cache, state -----------------------------------------------------------------------


def test_show_says_where_each_value_comes_from_and_masks_secrets(use):
    pillar = with_site(
        a_site(
            project={**PROJECT, "env": {"KEY": SECRET, "EMPTY": ""}}, uwsgi={"options": {"x": 1}}
        ),
        site_defaults={"charset": "koi8-r", "uwsgi": {"processes": 7}},
        lookup={"uwsgi_dir": "/etc/uwsgi2"},
        nginx={"user": "web"},
    )
    shown = use(pillar, UBUNTU).show(defaults=True)
    assert SECRET not in repr(shown)
    assert shown["sites:mysite:project:env:KEY"] == {"value": "**********", "origin": "site"}
    assert shown["sites:mysite:charset"] == {"value": "koi8-r", "origin": "site_defaults"}
    assert shown["sites:mysite:uwsgi:processes"]["origin"] == "site_defaults"
    assert shown["sites:mysite:uwsgi:options:x"] == {"value": 1, "origin": "site"}
    assert shown["sites:mysite:uwsgi:threads"]["origin"] == "default"
    assert shown["sites:mysite:project:path"] == {"value": "/srv/mysite", "origin": "derived"}
    assert shown["sites:mysite:socket:group"] == {"value": "web", "origin": "derived"}
    assert shown["sites:mysite:project:source"] == {"value": None, "origin": "default"}
    assert shown["nginx:user"] == {"value": "web", "origin": "pillar"}
    assert shown["nginx:repo"] == {"value": "auto", "origin": "platform"}
    assert shown["lookup:uwsgi_dir"]["origin"] == "lookup"
    assert shown["lookup:repos:nginx.org:uris"]["origin"] == "platform"
    assert shown["lookup:nginx_dir"]["origin"] == "default"
    one = site_pillar.show("mysite", defaults=True)
    assert one == {path: value for path, value in shown.items() if path.startswith("sites:")}
    # What an operator wants to see: one row in five.
    assert site_pillar.show() == {
        path: row for path, row in shown.items() if row["origin"] != "default"
    }
    assert site_pillar.show("mysite") == {
        path: row for path, row in one.items() if row["origin"] != "default"
    }
    assert len(site_pillar.show()) < len(shown) / 4
    with pytest.raises(CommandExecutionError):
        site_pillar.show("other")


def many(count):
    return {
        "nginx_uwsgi_django": {
            "sites": {
                f"s{number}": {
                    "server_names": [f"s{number}.example.org", f"*.s{number}.example.org"],
                    "listen": [80, "[::]:80"],
                    "project": {**PROJECT, "env": {"KEY": "value"}},
                    "uwsgi": {"processes": 3, "options": {"harakiri": 30}},
                    "socket": {"mode": "0660"},
                }
                for number in range(count)
            }
        }
    }


def test_a_pillar_is_evaluated_once(use, monkeypatch):
    module = use(many(20))
    calls = []
    evaluate = module._evaluate
    monkeypatch.setattr(module, "_evaluate", lambda *words: calls.append(1) or evaluate(*words))
    for number in range(20):
        module.site(f"s{number}")
        module.settings()
    # A copy with the same content, as some Salt hands out.
    monkeypatch.setattr(module, "__pillar__", copy.deepcopy(module.__pillar__))
    module.settings()
    module.check()
    assert len(calls) == 1


def test_another_pillar_is_evaluated_again(use, monkeypatch):
    module = use(with_value("uwsgi:processes", 1))
    assert module.site("mysite")["uwsgi"]["processes"] == 1
    monkeypatch.setattr(module, "__pillar__", with_value("uwsgi:processes", 2))
    assert module.site("mysite")["uwsgi"]["processes"] == 2
    # 1 == True in Python, and 1 was fine.
    use(with_value("uwsgi:processes", 1)).settings()
    monkeypatch.setattr(module, "__pillar__", with_value("uwsgi:processes", True))
    with pytest.raises(CommandExecutionError, match="True \\(boolean\\)"):
        module.settings()
    # Another host, as in a test or a proxy.
    use(with_site(a_site())).settings()
    monkeypatch.setitem(module.__grains__, "os", "Ubuntu")
    assert module.settings()["nginx"]["repo"] == "auto"


def test_a_thousand_sites_take_no_time(use):
    module = use(many(1000))
    start = time.process_time()
    module.settings()
    first = time.process_time() - start
    start = time.process_time()
    for number in range(1000):
        module.site(f"s{number}")
    then = time.process_time() - start
    # 0.15 s and 0.07 s on the machine where it was written; a slip into quadratic is 100 times that.
    assert first < 1.5
    assert then < 1.0


def run_state(module, test=False):
    state.__salt__ = {
        "site_pillar.report": module.report,
        "site_pillar.settings": module.settings,
    }
    state.__opts__ = {"test": test}
    return state.valid("nginx_uwsgi_django")


@pytest.mark.parametrize("test", [False, True])
def test_the_state_is_short_and_changes_nothing(use, test):
    ret = run_state(use(two({}, {"absent": True})), test)
    assert ret == {
        "name": "nginx_uwsgi_django",
        "result": True,
        "changes": {},
        "comment": "1 site, 1 absent",
    }
    assert run_state(use(many(3)), test)["comment"] == "3 sites"


@pytest.mark.parametrize("test", [False, True])
def test_the_state_reports_every_error_on_a_line(use, test):
    ret = run_state(use(with_site(a_site(listen=[True], charset=3.1))), test)
    assert (ret["result"], ret["changes"]) == (False, {})
    lines = ret["comment"].splitlines()
    assert lines[0] == "2 errors in the pillar:"
    assert [line.split(": ")[0] for line in lines[1:]] == [
        "- nginx_uwsgi_django:sites:mysite:listen:0",
        "- nginx_uwsgi_django:sites:mysite:charset",
    ]
    assert run_state(use({}), test)["result"] is False


@pytest.mark.parametrize(
    "junk", [None, True, 0, 1.5, "", "x", [], [1], {}, {1: 2}, {None: None}, {"a": {"b": []}}]
)
def test_no_junk_anywhere_is_more_than_an_error(use, junk):
    """No traceback, whatever stands wherever."""
    paths = [
        ":".join(path) for path, _, _ in site_pillar._flat(contract.SITE, contract.SITE.fresh(), ())
    ]
    assert len(paths) > 35
    for path in {*paths, *(path.rsplit(":", 1)[0] for path in paths)}:
        pillar = with_value(path, junk)
        assert isinstance(use(pillar).report(), str)
    for key in ("lookup", "purge", "clean", "nginx", "site_defaults", "sites"):
        pillar = with_site(a_site())
        pillar["nginx_uwsgi_django"][key] = junk
        assert isinstance(use(pillar).report(), str)
        pillar = with_site(a_site())
        pillar["nginx_uwsgi_django"]["site_defaults"] = {"project": junk, "listen": junk}
        assert isinstance(use(pillar).report(), str)


# --- One definition ---------------------------------------------------------------------------


def nodes(node, path=()):
    yield path, node
    if isinstance(node, contract_schema.Mapping):
        for key, child in node.keys.items():
            yield from nodes(child, (*path, key))


@pytest.mark.parametrize(
    ("path", "node"),
    [(":".join(path), node) for path, node in nodes(contract.PILLAR) if path]
    + [(f"sites:SITE:{':'.join(path)}", node) for path, node in nodes(contract.SITE) if path],
)
def test_every_key_is_described_and_its_default_and_example_are_valid(path, node):
    assert node.description.endswith("."), path
    for value in (node.default, node.example):
        if value is contract_schema.REQUIRED or value is contract_schema.BY_KEYS or value is None:
            continue
        if isinstance(value, contract_schema.Derived):
            continue
        found = []
        node.take(value, (path,), found)
        assert found == []


def generator():
    spec = importlib.util.spec_from_file_location("generate", FORMULA / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_generated_is_in_sync():
    generate = generator()
    files = generate.generated(generate.definition())
    assert len(files) == 4
    stale = [str(path) for path, text in files.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run docs/generate.py"


def test_the_reference_names_every_key():
    page = (FORMULA / "docs/pillar.md").read_text(encoding="utf-8")
    missing = [
        ":".join(path)
        for path, _ in nodes(contract.SITE)
        if path and f"`{':'.join(path)}`" not in page
    ]
    assert missing == []


def test_no_key_is_accepted_and_ignored():
    """Each key is read by a module, a state, a runner or a template; one that does nothing lies."""
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("_modules", "_states", "_runners", "nginx_uwsgi_django")
        for path in sorted((FORMULA / folder).rglob("*"))
        if path.suffix in (".py", ".jinja", ".sls") and path.name != "site_pillar.py"
    )
    ignored = []
    for root in (contract.SITE, contract.PILLAR):
        for path, node in nodes(root):
            if not path or isinstance(node, contract_schema.Mapping):
                continue
            if path[-1] in ("sites", "site_defaults") or path[:2] == ("lookup", "repos"):
                continue
            if path == ("ec2", "metadata"):
                continue  # read by site_pillar itself: see test_ec2_names.py
            if not re.search(rf"""["'.]{re.escape(path[-1])}\b""", sources):
                ignored.append(":".join(path))
    assert ignored == []


def test_a_report_of_a_great_many_errors_stays_readable(use):
    sites = {f"s{number}": a_site(host=f"s{number}.org", charset=1) for number in range(300)}
    module = use({"nginx_uwsgi_django": {"sites": sites}})
    assert len(module.check()) == 300
    lines = module.report().splitlines()
    assert len(lines) == 202
    assert lines[0] == "300 errors in the pillar:"
    assert lines[-1] == "- and 100 more: site_pillar.check lists them all"


def test_the_defaults_file_says_what_is_in_force(use):
    text = (FORMULA / "nginx_uwsgi_django/defaults.yaml").read_text(encoding="utf-8")
    written = salt.utils.yaml.safe_load(text)
    settings = use(with_site(a_site())).settings()

    def same(said, have, path=()):
        if isinstance(said, dict) and isinstance(have, dict) and said:
            for key, value in said.items():
                same(value, have[key], (*path, key))
        elif not (isinstance(said, str) and said.startswith("<")):
            assert said == have, path

    same(written["defaults"]["sites"]["SITE"], settings["sites"]["mysite"])
    for key in ("lookup", "purge", "clean"):
        same(written["defaults"][key], settings[key])
    assert written["platforms"]["os"]["Ubuntu"]["nginx"]["repo"] == "auto"


def test_the_example_is_valid_on_both_systems(use):
    text = (FORMULA / "pillar.example").read_text(encoding="utf-8")
    pillar = salt.utils.yaml.safe_load(text)
    for grains in (DEBIAN, UBUNTU):
        assert use(pillar, grains).report() == ""
    site = site_pillar.site("mysite")
    assert site["project"]["source"] == {"salt": "salt://examples/mysite"}
    # It is rendered by Jinja before it is read.
    assert not re.search(r"\{[{%#]", text)


def test_what_the_example_comments_out_is_valid_too(use):
    """Every `# key: value` in it, put in where it stands."""
    text = (FORMULA / "pillar.example").read_text(encoding="utf-8")
    options = (
        r"(repo|site_defaults|  uwsgi|    processes|env|  SECRET_KEY|exclude|options|  harakiri)"
    )
    uncommented = re.sub(rf"(?m)^( +)# ({options}:.*)$", r"\1\2", text)
    assert uncommented.count("#") < text.count("#") - 7
    pillar = salt.utils.yaml.safe_load(uncommented)
    assert use(pillar).report() == ""
    assert site_pillar.site("mysite")["uwsgi"]["options"] == {"harakiri": 30}
    assert site_pillar.settings()["nginx"]["repo"] == "nginx.org"


@pytest.mark.parametrize("value", [{}, {"host": ""}, {"host": None}, {"hosts": "web1"}, "web1"])
def test_migrate_names_one_host_or_none(errors, value):
    path = "nginx_uwsgi_django:sites:mysite:project:migrate"
    assert errors(with_value("project:migrate", {"host": "web1.example.org"})) == []
    assert all(
        error["path"].startswith(path) for error in errors(with_value("project:migrate", value))
    )
    assert errors(with_value("project:migrate", value))


# --- Companions -------------------------------------------------------------------------------


def test_a_companion_has_every_default(use):
    text = "celery -A mysite worker"
    site = use(with_value("companions", {"worker": {"command": text}})).site("mysite")
    assert site["companions"]["worker"] == {
        "command": text,
        "schedule": None,
        "settle": 5,
        "time_limit": None,
        "stop_signal": "SIGTERM",
        "stop_timeout": 60,
        "limits": {},
    }


@pytest.mark.parametrize(
    ("companion", "key", "words"),
    [
        ({"command": "celery 'x"}, "command", "cannot be taken apart: no closing quotation"),
        ({"command": "'' x"}, "command", "no program's name or path"),
        ({"command": ["../celery"]}, "command", "no program's name or path"),
        ({"command": []}, "command", "an empty list"),
        ({"command": "x", "time_limit": 5}, "time_limit", "runs all the time"),
        ({"command": "x", "schedule": "Mondays"}, "schedule", "Failed to parse"),
        ({"command": "x", "limits": {"CPUQuota": "9"}}, "limits:CPUQuota", "'9'"),
    ],
)
def test_a_companion_that_cannot_be(errors, companion, key, words):
    if key == "schedule" and not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd here to ask")
    found = only(
        errors(with_value("companions", {"worker": companion})),
        f"sites:mysite:companions:worker:{key}",
    )
    assert words in found["found"]
    assert "'x" not in found["found"].replace("'x'", "")


@pytest.mark.parametrize("schedule", ["hourly", "Mon..Fri 08:00", "*-*-* 03:30:00 Europe/Berlin"])
def test_times_that_systemd_knows(errors, schedule):
    companions = {"nightly": {"command": "manage.py x", "schedule": schedule, "time_limit": 9}}
    assert errors(with_value("companions", companions)) == []


@pytest.mark.parametrize(
    ("site", "path", "shown"),
    [
        ({"project": {"env": {"SECRET_KEY:canary": None}}}, "project:env:SECRET_KEY...", ""),
        ({"project": {"env": {"SECRET_KEY=canary": "x"}}}, "project:env:SECRET_KEY...", ""),
        ({"basic_auth": {"users": {"ann:canary": None}}}, "basic_auth:users:ann...", ""),
        ({"project": {"password:canary": None}}, "project:password...", ""),
    ],
)
def test_a_secret_that_yaml_made_a_key_of_is_not_shown(errors, site, path, shown):
    base = a_site()
    base["project"].update(site.pop("project", {}))
    found = [each for each in errors(with_site({**base, **site})) if path in each["path"]]
    assert found
    assert "canary" not in str(errors(with_site({**base, **site})))
    if ":canary" in str({**base, **site}):
        assert found[0]["hint"] == "write a blank after the colon"


def test_a_certificate_that_is_a_directory_is_an_error_with_its_path(errors, tmp_path):
    tls = {"certificate": str(tmp_path), "key": str(tmp_path / "key.pem")}
    error = only(errors(with_site({**a_site(), "tls": tls})), "sites:mysite:tls:key")
    assert str(tmp_path) in error["found"] and "directory" in error["found"].lower()


@pytest.mark.parametrize("path", ["/home/deploy", "/var/spool/lpd", "/var/spool/news"])
def test_a_home_is_no_place_for_a_project(errors, path):
    site = a_site()
    site["project"]["path"] = path
    error = only(errors(with_site(site)), "sites:mysite:project:path")
    assert "the home of" in error["found"] and f"{path}/mysite" in error["hint"]
    site["project"]["path"] = f"{path}/mysite"
    assert errors(with_site(site)) == []


def test_a_redirect_does_not_lead_to_itself(errors):
    site = {**a_site(), "redirects": [{"from": "/a/*", "to": "/a/*"}]}
    only(errors(with_site(site)), "sites:mysite:redirects:0:to")


def test_what_root_writes_is_not_where_any_user_may_write(errors):
    for key in ("unit_dir", "state_dir", "uwsgi_dir", "nginx_dir"):
        found = errors(with_site(a_site(), lookup={key: "/tmp"}))
        assert "any user may write" in only(found, f"lookup:{key}")["found"]


def test_a_number_that_is_out_of_range_is_no_number_to_the_base_60(errors):
    site = {**a_site(), "uwsgi": {"processes": 100000}}
    assert only(errors(with_site(site)), "sites:mysite:uwsgi:processes")["hint"] == ""


@pytest.mark.parametrize(
    ("lock", "way"),
    [
        ("poetry.lock", "poetry export"),
        ("conf/Pipfile.lock", "pipenv requirements --hash"),
        ("pdm.lock", "pdm export"),
        ("pylock.toml", "uv.lock"),
        ("pylock.web.toml", "uv.lock"),
    ],
)
def test_a_lock_file_that_pip_does_not_read_is_refused_with_the_way(errors, lock, way):
    error = only(
        errors(with_value("project:requirements", lock)), "sites:mysite:project:requirements"
    )
    assert repr(lock) in error["found"] and way in error["hint"]
    assert errors(with_value("project:requirements", "uv.lock")) == []
