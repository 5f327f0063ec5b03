#!/bin/bash
# With Debian's uwsgi_params, Django refuses all forms of a site on another port than 80 and 443.
#
# Versions: nginx 1.22.1-9+deb12u11 (Debian 12), 1.26.3-3+deb13u11 (Debian 13); pyuwsgi 2.0.30, Django 5.2.8
# (PyPI). The control is the same file without the line.
#
# Expected: /etc/nginx/uwsgi_params is a fixed list of CGI variables, the same everywhere. The Host header goes
# to the application as the client sent it, port included.
#
# What happens: Debian's security update of the stable releases ends the file with
# `uwsgi_param HTTP_HOST $host;`. $host has no port. On port 8080 Django's request.get_host() is "example.org"
# instead of "example.org:8080": build_absolute_uri() leads to port 80, and CsrfViewMiddleware compares the
# browser's Origin "http://example.org:8080" with "http://example.org" and answers 403 to each form. GETs go on, so
# a health check does not see it. A file that is only included changes its meaning by an unattended upgrade.
# (Debian 14 has nginx 1.30 and says $host$is_request_port$request_port there: no such fault.)
#
# Why it matters: staging sites and internal tools on ports. A line of the site's own after the include helps:
# nginx sends both, and the later one wins in uWSGI.
#
# Reference: the comment above that line in Debian's file; nginx-common's changelog.
#
# Seen on 2026-11-30:
#   bookworm, trixie, without the line: POST 200
#   bookworm, trixie: POST 403; the site calls itself http://127.0.0.1/
#   bookworm, trixie, with `uwsgi_param HTTP_HOST $http_host` after the include: POST 200

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

venv py pyuwsgi==2.0.30 Django==5.2.8
cat >forms.py <<'PY'
from django.conf import settings

settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
)

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.urls import path


def form(request):
    if request.GET:
        return HttpResponse(request.build_absolute_uri("/"))
    return HttpResponse(get_token(request))


urlpatterns = [path("", form)]
application = get_wsgi_application()
PY
background py/bin/uwsgi --socket "$work/app.sock" --chmod-socket=666 --wsgi-file forms.py --die-on-term \
    --logto uwsgi.log
until_true test -S app.sock

post() {
    local token
    token=$(curl --silent --cookie-jar jar "$url$1")
    curl --silent --output /dev/null --write-out '%{http_code}' --cookie jar --request POST --data '' \
        --header "Origin: $url" --header "X-CSRFToken: $token" "$url$1"
}

for suite in bookworm trixie; do
    nginx_packages "$suite"
    port=$(free_port)
    params=$work/$suite/etc/nginx/uwsgi_params
    grep -v '^uwsgi_param *HTTP_HOST' "$params" >stock_params
    nginx_conf nginx.conf "$work/run-$suite" "$(root_if_root)" <<CONF
server {
    listen 127.0.0.1:$port;
    location = / { include $params; uwsgi_pass unix:$work/app.sock; }
    location /stock/ { include $work/stock_params; uwsgi_param PATH_INFO /; uwsgi_pass unix:$work/app.sock; }
    location /own/ {
        include $params;
        uwsgi_param PATH_INFO /;
        uwsgi_param HTTP_HOST \$http_host;
        uwsgi_pass unix:$work/app.sock;
    }
}
CONF
    nginx_start "$suite" nginx.conf "$work/run-$suite"
    url=http://127.0.0.1:$port
    same "$suite: POST without the line" 200 "$(post /stock/)"
    same "$suite: POST" 403 "$(post /)"
    same "$suite: the site's own address" "http://127.0.0.1/" "$(curl --silent "$url/?x=1")"
    same "$suite: POST with the site's own line after it" 200 "$(post /own/)"
done
verdict
