#!/bin/bash
# nginx answers 413 to an upload that it has accepted and that the application has already stored.
#
# Versions: nginx 1.22.1 (Debian 12) and 1.26.3 (Debian 13); pyuwsgi 2.0.30 (PyPI).
#
# Expected: client_max_body_size is checked once, against the location that the request came to, before the
# body is read. Once nginx has passed the body on, 413 is no longer possible.
#
# What happens: nginx checks the length again at every internal redirect, against the limit of the location
# that it redirects to (ngx_http_core_find_config_phase() runs again). `location /upload` allows 10 MB, and the
# location with the files or the error page has the default of 1 MB:
#   - The application stores the upload and answers with X-Accel-Redirect (say, the picture it made of it). The
#     client gets 413. It tries again, and the upload is stored twice.
#   - The application is down, error_page leads to a page of the site. A GET gets 502 and the page; a large
#     POST gets 413 and nginx's own text. The error counts as the client's (4xx), so a monitor of 5xx is
#     silent.
# A limit at the server level (or equal limits) avoids it.
#
# Seen on 2026-11-30 (both versions):
#   upload of 3 MB, answered with X-Accel-Redirect: 413; the application has read 3000000 bytes
#   GET, application down: 502
#   upload of 3 MB, application down: 413

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

venv py pyuwsgi==2.0.30
mkdir files
echo picture >files/picture
head -c 3000000 /dev/zero >body
cat >app.py <<'PY'
def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    with open("stored", "w") as stored:
        print(len(body), file=stored)
    start_response("200 OK", [("X-Accel-Redirect", "/files/picture")])
    return [b""]
PY
background py/bin/uwsgi --socket "$work/app.sock" --chmod-socket=666 --wsgi-file app.py --die-on-term \
    --logto uwsgi.log
until_true test -S app.sock

answer() {
    curl --silent --output answer --write-out '%{http_code}' "$@"
}

for suite in bookworm trixie; do
    nginx_packages "$suite"
    port=$(free_port)
    nginx_conf nginx.conf "$work/run-$suite" "$(root_if_root)" <<CONF
server {
    listen 127.0.0.1:$port;
    include $work/$suite/etc/nginx/uwsgi_params;
    location /upload { client_max_body_size 10m; uwsgi_pass unix:$work/app.sock; }
    location /down { client_max_body_size 10m; uwsgi_pass unix:$work/none.sock; error_page 502 /files/page; }
    location /files/ { internal; root $work; }
}
CONF
    echo "page" >files/page
    nginx_start "$suite" nginx.conf "$work/run-$suite"
    url=http://127.0.0.1:$port
    rm -f stored
    same "$suite: upload, X-Accel-Redirect" 413 "$(answer --data-binary @body "$url/upload")"
    same "$suite: bytes that the application has read" 3000000 "$(cat stored)"
    same "$suite: GET, application down" "502 page" "$(answer "$url/down") $(cat answer)"
    same "$suite: upload, application down" 413 "$(answer --data-binary @body "$url/down")"
done
verdict
