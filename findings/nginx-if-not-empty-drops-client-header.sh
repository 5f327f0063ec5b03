#!/bin/bash
# `uwsgi_param HTTP_X_... $value if_not_empty` removes the client's header when the value is empty.
#
# Versions: nginx 1.22.1 (Debian 12) and 1.26.3 (Debian 13); pyuwsgi 2.0.30 (PyPI).
#
# Expected: if_not_empty means "as if this line were not there when the value is empty". Without the line nginx
# passes the client's X-Request-Id on. So `uwsgi_param HTTP_X_REQUEST_ID $arg_id if_not_empty` would override the
# header when there is a value and keep the client's otherwise: a fallback.
#
# What happens: nginx decides at configuration time which of the client's headers to leave out: all for which
# a uwsgi_param HTTP_... exists, if_not_empty or not. With an empty value the application gets neither nginx's
# value nor the client's. `uwsgi_param HTTPS ... if_not_empty` of the stock uwsgi_params looks the same and does
# not show it, for no header of a client becomes HTTPS.
#
# Why it matters: request IDs, forwarded schemes and trace headers vanish on just those requests for which
# the line was meant to change nothing. A `map` whose default is the header's variable says what was meant.
#
# Reference: src/http/modules/ngx_http_uwsgi_module.c, ngx_http_uwsgi_init_params(), header_params.
#
# Seen on 2026-11-30 (both versions), client sends "X-Request-Id: client":
#   no uwsgi_param: client
#   if_not_empty, with a value: nginx
#   if_not_empty, empty: none

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

venv py pyuwsgi==2.0.30
cat >app.py <<'PY'
def application(environ, start_response):
    start_response("200 OK", [])
    return [environ.get("HTTP_X_REQUEST_ID", "none").encode()]
PY
background py/bin/uwsgi --socket "$work/app.sock" --chmod-socket=666 --wsgi-file app.py --die-on-term \
    --logto uwsgi.log
until_true test -S app.sock

for suite in bookworm trixie; do
    nginx_packages "$suite"
    port=$(free_port)
    nginx_conf nginx.conf "$work/run-$suite" "$(root_if_root)" <<CONF
server {
    listen 127.0.0.1:$port;
    location /plain { include $work/$suite/etc/nginx/uwsgi_params; uwsgi_pass unix:$work/app.sock; }
    location /ours {
        include $work/$suite/etc/nginx/uwsgi_params;
        uwsgi_param HTTP_X_REQUEST_ID \$arg_id if_not_empty;
        uwsgi_pass unix:$work/app.sock;
    }
}
CONF
    nginx_start "$suite" nginx.conf "$work/run-$suite"
    ask() {
        curl --silent --header "X-Request-Id: client" "http://127.0.0.1:$port$1"
    }
    same "$suite: no uwsgi_param" client "$(ask /plain)"
    same "$suite: if_not_empty, with a value" nginx "$(ask '/ours?id=nginx')"
    same "$suite: if_not_empty, empty" none "$(ask /ours)"
done
verdict
