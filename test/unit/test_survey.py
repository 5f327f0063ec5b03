"""What the survey of a live server reads from texts as hosts have them."""

import hypothesis
import hypothesis.strategies as st
import pytest
import yaml

import _nud_survey_app as app
import _nud_survey_nginx as nginx
import _nud_survey_process as process
from _nud_survey_pillar import Entry, Secret, render, scalar
from _nud_survey_serving import Serving
from _nud_uwsgi_ini import said

# As `nginx -T` prints it.
DUMP = """\
# configuration file /etc/nginx/nginx.conf:
user www-data;
http {
    client_max_body_size 8m;
    include /etc/nginx/mime.types;
    include /etc/nginx/sites-enabled/*;
}

# configuration file /etc/nginx/mime.types:
types { text/html html; }

# configuration file /etc/nginx/sites-enabled/a.conf:
upstream app {
    server unix:/run/a.sock;
    server 127.0.0.1:8001;
}
server {
    listen 80 default_server;
    listen [::]:80 ipv6only=off;
    server_name A.example.org .b.example.org ~^c;
    root /srv/a/public;
    location / { try_files $uri @django; }
    location @django { proxy_pass http://app; }
    location /ws/ { proxy_pass http://127.0.0.1:9000/; }
    location = /old { return 301 /new; }
    location /api/ { limit_req zone=slow; proxy_pass http://app; }
    auth_basic "Closed { to all }";
}
limit_req_zone $binary_remote_addr zone=slow:10m rate=1r/s;

"""


def read():
    return nginx.servers(DUMP)


def test_a_dump_of_nginx_is_read_with_file_and_line():
    served = read()
    assert served["user"] == ("www-data", "/etc/nginx/nginx.conf:1")
    (server,) = served["servers"]
    assert server["source"] == "/etc/nginx/sites-enabled/a.conf:5"
    assert [word for word, _ in server["names"]] == ["a.example.org", ".b.example.org", "~^c"]
    assert server["names"][0][1] == "/etc/nginx/sites-enabled/a.conf:8"


def test_the_application_is_what_the_named_location_passes_to():
    (server,) = read()["servers"]
    assert nginx.main_pass(server)["to"] == ["unix:/run/a.sock", "tcp:127.0.0.1:8001"]


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (("uwsgi_pass", "unix:///tmp/mysite.sock"), ["unix:/tmp/mysite.sock"]),
        (("uwsgi_pass", "unix:/tmp/mysite.sock"), ["unix:/tmp/mysite.sock"]),
        (("uwsgi_pass", "127.0.0.1:3031"), ["tcp:127.0.0.1:3031"]),
        (("proxy_pass", "http://unix:/run/g.sock:/sub/"), ["unix:/run/g.sock"]),
        (("proxy_pass", "http://localhost:8000/x"), ["tcp:localhost:8000"]),
        (("proxy_pass", "http://[::1]:8000"), ["tcp:[::1]:8000"]),
        (("proxy_pass", "http://$backend"), []),
    ],
)
def test_where_a_pass_leads(words, end):
    assert nginx.endpoints(nginx.Node(words, "f", 1, "", None), {}) == end


def test_what_nginx_does_becomes_keys_or_is_named():
    served = read()
    serving = Serving("a", served["servers"], served["http"], {})
    serving.read()
    keys = {":".join(entry.keys[2:]): entry.value for entry in serving.entries}
    assert keys["server_names"] == ["a.example.org", "b.example.org", "*.b.example.org"]
    # 80 is what the second one brings along, and the first has it.
    assert keys["listen"] == ["80 default_server", "[::]:80"]
    assert keys["client_max_body_size"] == "8m" and keys["charset"] == "off"
    assert keys["redirects"] == [{"from": "/old", "to": "/new", "status": "301"}]
    assert keys["files"] == [{"url": "/", "path": "/srv/a/public", "missing": "app"}]
    assert "location /ws/ { proxy_pass http://127.0.0.1:9000/; }" in keys["snippet"]
    assert 'auth_basic "Closed { to all }";' in keys["snippet"]
    # What it needs stands in the file that goes.
    lost = [what for what, _ in serving.lost]
    assert any(what.startswith("location /api/ {…}, which needs") for what in lost)
    assert "the server name ~^c, a regular expression" in lost


INI = """\
[uwsgi]
base = /srv/shop
set = name shop
chdir = %(base)
module = shop.wsgi
home = %(base)/env
workers = 4
logto = %d/log
touch-reload = %p
[other]
processes = 9
"""


def test_an_ini_of_uwsgi_is_read_as_uwsgi_does():
    told = {key: (number, value) for number, key, value in said(INI, "/etc/uwsgi/shop.ini")}
    assert told["chdir"] == (4, "/srv/shop") and told["home"] == (6, "/srv/shop/env")
    assert told["logto"] == (8, "/etc/uwsgi//log")
    assert told["touch-reload"] == (9, "/etc/uwsgi/shop.ini")
    assert "processes" not in told


@pytest.mark.parametrize(
    ("line", "options", "files"),
    [
        # The tutorial's: -i takes no value.
        ("-i /srv/p/.config/uwsgi/mysite.ini", {"single-interpreter": "true"}, ["/srv/p/.config/uwsgi/mysite.ini"]),
        ("--ini a.ini --ini /b.ini", {}, ["a.ini", "/b.ini"]),
        ("--master -p 4 --module=mysite.wsgi", {"master": "true", "processes": "4", "module": "mysite.wsgi"}, []),
        ("-H/opt/v -s /tmp/a.sock --need-app", {"home": "/opt/v", "socket": "/tmp/a.sock", "need-app": "true"}, []),
    ],
)  # fmt: skip
def test_a_command_line_of_uwsgi(line, options, files):
    found, named = app.uwsgi_options(line.split(), "unit:1")
    assert {name: value for name, value, _ in found} == options and named == files


def test_a_command_line_and_a_configuration_of_gunicorn():
    options, module = app.gunicorn_options(
        "-w3 --timeout 90 --preload -b unix:/r.sock m.wsgi".split(), "u:1"
    )
    assert module == "m.wsgi"
    assert [one[:2] for one in options] == [
        ("workers", "3"), ("timeout", "90"), ("preload", "true"), ("bind", "unix:/r.sock"),
    ]  # fmt: skip
    text = "import os\nworkers = os.cpu_count()\nbind = ['a', 'b']\nthreads = 2\n"
    assert app.gunicorn_file(text, "/g.py") == [
        ("computed", "workers", "/g.py:2"), ("bind", "a", "/g.py:3"), ("bind", "b", "/g.py:3"),
        ("threads", "2", "/g.py:4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/uwsgi.service\n", "uwsgi.service"),
        ("3:memory:/x\n1:name=systemd:/system.slice/a.service\n", "a.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service\n", None),
    ],
)
def test_the_unit_of_a_process(text, unit):
    assert process.unit_of(text) == unit


def test_a_unit_file_is_read_with_its_long_lines(tmp_path):
    path = tmp_path / "a.service"
    path.write_text("[Service]\n# no\nExecStart=/bin/a \\\n  --b \\\n# in between\n  c\nUser=d\n")
    lines = process.unit_lines([str(path)])
    assert [(one.key, one.value, one.source) for one in lines] == [
        ("ExecStart", "/bin/a  --b  c", f"{path}:3"),
        ("User", "d", f"{path}:7"),
    ]


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("SECRET_KEY", "x", True),
        ("DATABASE_URL", "postgres://u:p@db/x", True),
        ("STRIPE", "sk_live_4eC39HqLyjWDarjtT1zdp7dc", True),
        ("SENTRY_DSN", "", True),
        ("DJANGO_DEBUG", "no", False),
        ("MEDIA", "/srv/shop/shared/media/of-the-shop", False),
    ],
)
def test_what_may_be_a_secret(name, value, secret):
    assert app.is_secret(name, value) is secret


@hypothesis.given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back_from_the_pillar(text):
    assert yaml.safe_load(f"a: {scalar(text)}") == {"a": text}


def test_a_secret_is_written_only_when_asked_for():
    entries = [Entry(("sites", "a", "project", "env", "K"), Secret("s3", "K", "/etc/e:1"), "why")]
    assert "s3" not in render(entries, [], secrets=False)
    whole = yaml.safe_load(render(entries, [], secrets=True))
    assert whole["nginx_uwsgi_django"]["sites"]["a"]["project"]["env"]["K"] == "s3"


# As `certbot certonly --webroot` wants it.
WEBROOT = """\
# configuration file /etc/nginx/nginx.conf:
http {
    server {
        listen 80;
        server_name a.example.org;
        location /.well-known/acme-challenge/ { root /var/www/html; }
        location / { return 301 https://$host$request_uri; }
    }
    server {
        listen 443 ssl;
        server_name a.example.org;
        ssl_certificate /etc/ssl/a.pem;
        ssl_certificate_key /etc/ssl/a.key;
        location / { uwsgi_pass 127.0.0.1:3031; }
    }
}
"""


def test_a_renewal_by_webroot_stays_possible():
    served = nginx.servers(WEBROOT)
    first, second = served["servers"]
    assert nginx.redirect(first) == "https://$host$request_uri" and nginx.redirect(second) is None
    serving = Serving("a", [second, first], served["http"], {})
    serving.read()
    keys = {":".join(entry.keys[2:]): entry.value for entry in serving.entries}
    assert keys["snippet"] == "location /.well-known/acme-challenge/ { root /var/www/html; }"
    assert keys["tls:redirect"] is True and keys["tls:listen"] == [443] and keys["listen"] == [80]
    assert keys["server_names"] == ["a.example.org"] and "redirect_from" not in keys


def test_a_vassal_s_file_is_found_where_the_emperor_sees_it(tmp_path):
    vassals = tmp_path / "vassals"
    vassals.mkdir()
    (vassals / "shop.ini").write_text("[uwsgi]\nmodule = shop.wsgi\nworkers = 5\n")
    record = {
        "command": ["/usr/bin/uwsgi", "--ini", "shop.ini"], "executable": "/usr/bin/uwsgi",
        "cwd": "/srv", "parent": 1, "pid": 1, "lines": [],
        "environment": {"UWSGI_EMPEROR": str(vassals)},
    }  # fmt: skip
    told = app.read(record)
    assert told["kind"] == "uwsgi" and told["ini"] == [f"{vassals}/shop.ini"]
    assert told["module"] == ("shop.wsgi:application", f"{vassals}/shop.ini:2")
    assert told["processes"] == ("5", f"{vassals}/shop.ini:3")
