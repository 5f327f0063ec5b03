"""The ini of a generation: what it stands on, what is refused, a project's own."""

import pytest
from salt.exceptions import SaltInvocationError

from _nud import uwsgi_ini

SITE = {
    "name": "mysite",
    "project": {"wsgi": "mysite.wsgi:application"},
    "uwsgi": {"processes": 2, "threads": 1, "options": {}},
    "socket": {"path": "/run/uwsgi/mysite.sock"},
}

OWN = """\
; made by hand, 100%% ours
[other]
x = 1
[uwsgi]
# where browsers ask
http = :8080
http-socket = :8081
master = false
module = old.wsgi
  processes = 7
chmod-socket = 666
# the end
wsgi-file = old.py
die-on-term = true
daemonize = /var/log/x.log
logto = /var/log/uwsgi/mysite/@(exec://date +%%Y-%%m-%%d).log
env = A=1
env = B=2

"""


def site(**uwsgi):
    return {**SITE, "uwsgi": {**SITE["uwsgi"], **uwsgi}}


def options(text):
    pairs = [line.partition(" = ")[::2] for line in text.splitlines() if " = " in line]
    return [(key.strip(), value) for key, value in pairs]


def test_what_a_generation_stands_on():
    said = dict(options(uwsgi_ini.render(SITE, "/srv/a", "/venv", stats="/run/s")))
    assert said["strict"] == said["master"] == said["need-app"] == "true"
    assert said["max-apps"] == "1"
    assert said["hook-master-start"] == "unix_signal:15 gracefully_kill_them_all"
    assert said["socket"] == "/run/uwsgi/mysite.sock"
    assert (said["chdir"], said["home"], said["stats"]) == ("/srv/a", "/venv", "/run/s")
    assert said["module"] == "mysite.wsgi:application"
    assert "die-on-term" not in said and "plugin" not in said


def test_each_answer_names_its_generation():
    line = "add-header = X-Uwsgi-Generation: 0a1b2c3d4e5f"
    assert line in uwsgi_ini.render(SITE, "/srv/a", digest="0a1b2c3d4e5f").splitlines()
    own = "[uwsgi]\nadd-header = X-Frame-Options: DENY\n"
    text = uwsgi_ini.render(SITE, "/srv/a", own=own, digest="0a1b2c3d4e5f")
    assert line in text and "add-header = X-Frame-Options: DENY" in text
    assert line in uwsgi_ini.preflight(text, "/run/private.sock")


def test_a_plugin_is_loaded_before_an_option_of_its_own_is_said():
    said = [key for key, _ in options(uwsgi_ini.render(SITE, "/srv/a", "/v", plugin="python3"))]
    assert said.index("plugin") < said.index("home") < said.index("module")


def test_the_order_of_the_pillars_options_makes_no_other_text():
    one = uwsgi_ini.render(site(options={"harakiri": 3, "cheaper": 1}), "/srv/a")
    two = uwsgi_ini.render(site(options={"cheaper": 1, "harakiri": 3}), "/srv/a")
    assert one == two


def test_options_come_in_place_of_the_usual_ones_and_lists_are_repeated():
    text = uwsgi_ini.render(
        site(options={"buffer-size": 8192, "route": ["a", "b"], "log-4xx": False}), "/srv/a"
    )
    said = options(text)
    assert [value for key, value in said if key == "buffer-size"] == ["8192"]
    assert [value for key, value in said if key == "route"] == ["a", "b"]
    assert [value for key, value in said if key == "log-4xx"] == ["false"]


@pytest.mark.parametrize(
    ("value", "written"),
    [(True, "true"), (False, "false"), (3, "3"), ("50%", "50%%"), ("%d", "%%d"), ("#;", "#;")],
)
def test_values_are_written_so_that_uwsgi_reads_them_back(value, written):
    assert uwsgi_ini.escape(value) == written


@pytest.mark.parametrize(
    "value",
    [
        "$(HOME)",
        "@(exec://id)",
        "%(x)",
        "a\nb",
        "a\rb",
        "a\0b",
        " a",
        "a ",
        "a\t",
        "",
        None,
        [],
        {},
    ],
)
def test_values_that_cannot_be_carried_are_refused(value):
    with pytest.raises(SaltInvocationError):
        uwsgi_ini.escape(value)


@pytest.mark.parametrize(
    "given",
    [
        {"die-on-term": True},
        {"die_on_term": True},
        {"chmod-socket": "666"},
        {"http": ":80"},
        {"https-socket": ":443"},
        {"socket": "/x"},
        {"s": "/x"},
        {"daemonize": "/x"},
        {"uid": "root"},
        {"listen": 5000},
        {"max-apps": 9},
        {"strict": False},
        {"env": "A=B"},
        {"ini": "/x"},
        {"hook-master-start": "unix_signal:15 reload"},
        {"touch-reload": "/srv/a/reload"},
        {"touch-workers-reload": "$(HOME)"},
        {"a b": "1"},
        {"a\nb": "1"},
        {3: "1"},
        {"route": ["fine", "not\nfine"]},
        {"route": [None]},
        {"disable-logging": None},
    ],
)
def test_options_that_cannot_work_are_refused(given):
    assert len(uwsgi_ini.refused(given)) == 1
    with pytest.raises(SaltInvocationError):
        uwsgi_ini.render(site(options=given), "/srv/a")


def test_good_options_are_not_refused():
    good = {"harakiri": 30, "cheaper": 1, "log-x": False, "offload-threads": "2", "route": ["a"]}
    assert uwsgi_ini.refused(good) == []


def test_a_projects_own_ini_keeps_its_order_and_its_comments():
    text = uwsgi_ini.render(SITE, "/srv/a", "/venv", own=OWN)
    assert text.startswith(
        "; made by hand, 100%% ours\n"
        "[uwsgi]\n"
        "# where browsers ask\n"
        "socket = /run/uwsgi/mysite.sock\n"
        "  processes = 7\n"
        "# the end\n"
    )
    said = options(text)
    keys = [key for key, _ in said]
    assert not {
        "http",
        "http-socket",
        "chmod-socket",
        "daemonize",
        "die-on-term",
        "wsgi-file",
        "env",
    } & set(keys)
    for once in ("socket", "processes", "module", "master", "max-apps", "chdir"):
        assert keys.count(once) == 1
    assert dict(said)["module"] == "mysite.wsgi:application"
    assert dict(said)["master"] == "true"
    assert dict(said)["processes"] == "7"


def test_bringing_it_to_the_socket_twice_is_bringing_it_once():
    once = uwsgi_ini.render(SITE, "/srv/a", "/venv", stats="/run/s", own=OWN)
    assert uwsgi_ini.render(SITE, "/srv/a", "/venv", stats="/run/s", own=once) == once


def test_an_own_ini_without_a_socket_gets_one():
    text = uwsgi_ini.render(SITE, "/srv/a", own="[uwsgi]\nprocesses = 3\n")
    assert options(text).count(("socket", "/run/uwsgi/mysite.sock")) == 1


def test_an_own_ini_without_the_section_is_refused():
    with pytest.raises(SaltInvocationError):
        uwsgi_ini.render(SITE, "/srv/a", own="[else]\nprocesses = 3\n")


def test_magic_of_an_own_ini_means_the_place_it_came_from():
    own = "[uwsgi]\nlog-prefix = %d|%p|%s|%n|%e|%c|%%d\n"
    text = uwsgi_ini.render(SITE, "/srv/a", own=own, own_path="/srv/50%off/conf/my.ini")
    assert dict(options(text))["log-prefix"] == (
        "/srv/50%%off/conf/|/srv/50%%off/conf/my.ini|my.ini|my|ini|conf|%%d"
    )


def test_the_pillars_options_win_over_an_own_ini():
    text = uwsgi_ini.render(site(options={"harakiri": 9}), "/srv/a", own="[uwsgi]\nharakiri = 3\n")
    assert [value for key, value in options(text) if key == "harakiri"] == ["9"]


TUTORIAL = """\
[uwsgi]
project = probe
uid = deploy
base = /home/%(uid)
set-placeholder = logs = /var/log/%(project)
chdir = %(base)/%(project)
home = %(base)/Env/%(project)
module = %(project).wsgi:application
master = true
processes = 5
procname-prefix = %(project)-%(uid)-
hook-post-app = exec:touch %(chdir)/up
cheaper = %(processes)
spooler = %(logs)/spool
env = P_VERSION=%(project) 50%%
env = DJANGO_SETTINGS_MODULE=probe.settings
"""


def test_names_of_an_own_ini_s_own_keep_what_they_were_written_with():
    """The most copied of all tutorials names its project and its directory like this."""
    said = options(uwsgi_ini.render(SITE, "/srv/a", "/venv", own=TUTORIAL, own_path="/srv/a/u.ini"))
    first = dict(reversed(said))
    # What the formula says otherwise is put in as it was written; the rest is uWSGI's to replace.
    assert first["procname-prefix"] == "%(project)-deploy-"
    assert first["hook-post-app"] == "exec:touch /home/deploy/probe/up"
    assert (first["cheaper"], first["spooler"]) == ("%(processes)", "%(logs)/spool")
    assert (first["chdir"], first["home"]) == ("/srv/a", "/venv")
    assert first["logs"] == "/var/log/%(project)"
    declared = [value for key, value in said if key == "declare-option"]
    assert declared == [f"{name}=own" for name in ("base", "logs", "processes", "project")]


def test_bringing_an_ini_with_names_to_the_socket_twice_is_bringing_it_once():
    once = uwsgi_ini.render(SITE, "/srv/a", "/venv", own=TUTORIAL)
    assert uwsgi_ini.render(SITE, "/srv/a", "/venv", own=once) == once


def test_the_environment_of_an_own_ini():
    assert uwsgi_ini.environment(TUTORIAL) == {
        "P_VERSION": "probe 50%",
        "DJANGO_SETTINGS_MODULE": "probe.settings",
    }
    assert uwsgi_ini.environment("[uwsgi]\nenv = A=%d\n", "/srv/50%off/u.ini") == {
        "A": "/srv/50%off/"
    }
    assert uwsgi_ini.environment("[other]\nenv = A=1\n") == {}


@pytest.mark.parametrize(
    "line", ["A=$(HOME)", "A=@(exec://id)", "A=%(unknown)", "A", "1A=x", "UWSGI_HTTP=:80"]
)
def test_an_environment_that_cannot_be_carried_is_refused_by_its_name(line):
    name = line.partition("=")[0]
    with pytest.raises(SaltInvocationError, match=f"env = {name}") as error:
        uwsgi_ini.environment(f"[uwsgi]\nenv = {line}\n")
    assert "id" not in str(error.value).split()


@pytest.mark.parametrize("value", ["%(chdir + 1)", "%(chdir)"])
def test_names_that_cannot_be_put_in_are_refused(value):
    own = f"[uwsgi]\nchdir = %(chdir)\nprocname-prefix = {value}\n"
    with pytest.raises(SaltInvocationError, match="chdir cannot be put in there"):
        uwsgi_ini.render(SITE, "/srv/a", own=own)


def test_the_question_is_strict_from_the_first_line_on():
    own = "[uwsgi]\nplugins = python3\nproject = x\nname = %(project)\n"
    text = uwsgi_ini.question(uwsgi_ini.render(SITE, "/srv/a", plugin="python3", own=own))
    head = text[: text.index("strict = true")].splitlines()
    assert head == [
        "[uwsgi]",
        "plugins = python3",
        "declare-option = project=own",
        "plugin = python3",
    ]
    # What only sometimes counts is left to uWSGI.
    own = "[uwsgi]\nif-exists = /x\nplugins = gevent\nendif =\n"
    text = uwsgi_ini.question(uwsgi_ini.render(SITE, "/srv/a", own=own))
    assert "gevent" not in text[: text.index("strict = true")]


def test_every_header_that_nginx_takes_fits():
    said = dict(options(uwsgi_ini.render(SITE, "/srv/a", "/venv")))
    assert said["buffer-size"] == "65535"
    assert said["py-executable"] == "/venv/bin/python"


def test_the_preflight_is_alone_on_its_socket():
    extra = {
        "cheaper": 1,
        "cron": "1 1 1 1 1 x",
        "mule": True,
        "spooler": "/x",
        "logger": "file:/x",
        "touch-workers-reload": "/x",
        "attach-daemon": "redis",
        "harakiri": 9,
    }
    whole = uwsgi_ini.render(site(options=extra), "/srv/a", stats="/run/s")
    said = options(uwsgi_ini.preflight(whole, "/run/private.sock"))
    keys = [key for key, _ in said]
    assert [value for key, value in said if key == "socket"] == ["/run/private.sock"]
    assert [value for key, value in said if key == "processes"] == ["1"]
    assert not (set(extra) - {"harakiri"}) & set(keys) and "stats" not in keys
    assert {"strict", "need-app", "max-apps", "module", "harakiri", "threads"} <= set(keys)
