#!/bin/bash
# `nginx -t` of a configuration that is refused breaks the uploads of the nginx that runs.
#
# Versions: nginx 1.22.1 (Debian 12) and 1.26.3 (Debian 13). Needs root: it is about chown().
#
# Expected: `nginx -t -c candidate.conf` reads. At worst it leaves an empty log file behind. A candidate that
# is refused has no effect on what runs.
#
# What happens: the test runs ngx_init_cycle() up to the listening sockets, ngx_create_paths() included. That
# creates the temporary and cache directories of the candidate and gives those that exist to the candidate's
# `user`. Only afterwards are the log files opened, where this candidate fails. The workers that run can no
# longer write to their own client_body_temp_path: each request body above client_body_buffer_size gets 500,
# while all GETs, small forms and health checks go on. Nothing in the test's output says so, and a correct
# configuration does not bring it back before the next reload.
#
# Why it matters: a configuration tool tests candidates with `nginx -t -c`. Test in a mount namespace in which
# these directories are covered.
#
# Reference: src/core/ngx_cycle.c, ngx_init_cycle(); src/core/ngx_file.c, ngx_create_paths().
#
# Seen on 2026-11-30 (both versions):
#   upload before: 200
#   nginx -t of the candidate: refused, it names the missing directory of a log
#   owner of client_body_temp_path: www-data, then nobody
#   upload after: 500

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

[ "$(id -u)" = 0 ] || {
    echo "needs root" >&2
    exit 2
}
venv py pyuwsgi==2.0.30
head -c 3000000 /dev/zero >body
cat >app.py <<'PY'
def application(environ, start_response):
    environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    start_response("200 OK", [])
    return [b"stored"]
PY
background py/bin/uwsgi --socket "$work/app.sock" --chmod-socket=666 --wsgi-file app.py --die-on-term \
    --logto uwsgi.log
until_true test -S app.sock

upload() {
    curl --silent --output /dev/null --write-out '%{http_code}' --data-binary @body "http://127.0.0.1:$port/"
}

for suite in bookworm trixie; do
    nginx_packages "$suite"
    port=$(free_port)
    run=$work/run-$suite
    servers="client_max_body_size 10m;
        server { listen 127.0.0.1:$port; include $work/$suite/etc/nginx/uwsgi_params;
                 location / { uwsgi_pass unix:$work/app.sock; } }"
    nginx_conf live.conf "$run" www-data <<<"$servers"
    nginx_conf candidate.conf "$run" "nobody nogroup" <<<"access_log $work/missing/access.log; $servers"
    nginx_start "$suite" live.conf "$run"
    same "$suite: upload before" 200 "$(upload)"
    same "$suite: owner before" www-data "$(stat -c %U "$run/client_body")"
    if deb_run "$suite" usr/sbin/nginx -e stderr -t -c "$work/candidate.conf" >test.log 2>&1; then
        verdict=accepted
    else
        verdict=refused
    fi
    same "$suite: nginx -t of the candidate" refused "$verdict"
    grep -o 'open() .* failed (2: No such file or directory)' test.log
    same "$suite: owner after" nobody "$(stat -c %U "$run/client_body")"
    same "$suite: upload after" 500 "$(upload)"
done
verdict
