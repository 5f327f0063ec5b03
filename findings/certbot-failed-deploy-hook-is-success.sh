#!/bin/bash
# A deploy hook that fails once leaves the old certificate in use until it expires, and certbot reports success.
#
# Versions: certbot 5.8.0 (PyPI), pebble 2.6.0 (Debian 13).
#
# Expected: the hook that reloads nginx is a part of the renewal: where it fails, `certbot renew` exits with 1,
# certbot.service is failed, a monitor of failed units sees it, and the next run of the timer tries the hook again.
#
# What happens: certbot prints "Hook 'deploy-hook' reported error code 7", then "Congratulations, all renewals
# succeeded", and exits with 0. For the next run the certificate is not due, so no hook runs until the next
# renewal, two months later. If the hook fails then as well, the certificate that nginx still has in memory
# expires. The files in /etc/letsencrypt/live are new, so a check of the files is green.
#
# Why it matters: a hook `nginx -t && systemctl reload nginx` fails on any fault of any site at that moment. Check
# what nginx answers with, not the files; or compare both and reload on each run.
#
# Seen on 2026-11-30:
#   certonly with a hook that exits with 7: exit code 0, hook ran 1 time
#   renew (forced): exit code 0, hook ran 2 times, "Congratulations, all renewals succeeded"
#   renew, the next run of the timer: exit code 0, hook ran 2 times

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

venv py certbot==5.8.0
deb_root trixie pebble libc6
port=$(free_port)
management=$(free_port)
challenge=$(free_port)
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 3 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null
cat >pebble.json <<JSON
{"pebble": {"listenAddress": "127.0.0.1:$port", "managementListenAddress": "127.0.0.1:$management",
  "certificate": "$work/cert.pem", "privateKey": "$work/key.pem", "httpPort": $challenge, "tlsPort": $challenge}}
JSON
printf '#!/bin/sh\necho ran >>%s/ran\nexit 7\n' "$work" >hook
chmod +x hook

export PEBBLE_VA_ALWAYS_VALID=1 PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0
deb_words trixie usr/bin/pebble
background "${words[@]}" -config pebble.json >pebble.log 2>&1
until_true curl --silent --cacert cert.pem "https://127.0.0.1:$port/dir"

certbot() {
    local code=0
    REQUESTS_CA_BUNDLE=$work/cert.pem py/bin/certbot "$@" --non-interactive --config-dir "$work/config" \
        --work-dir "$work/lib" --logs-dir "$work/log" >output 2>&1 || code=$?
    echo "exit code $code, hook ran $(wc -l <ran)"
}

same certonly "exit code 0, hook ran 1" "$(certbot certonly --server "https://127.0.0.1:$port/dir" --agree-tos \
    --register-unsafely-without-email --standalone --http-01-port "$challenge" -d site.example.test \
    --deploy-hook "$work/hook")"
same "renew, forced" "exit code 0, hook ran 2" "$(certbot renew --force-renewal --no-random-sleep-on-renew)"
same "its output" "Hook 'deploy-hook' reported error code 7 / Congratulations, all renewals succeeded" \
    "$(grep -o "^Hook .*\|^Congratulations, all renewals succeeded" output | paste -sd/ | sed 's,/, / ,')"
same "renew, the next run" "exit code 0, hook ran 2" "$(certbot renew --no-random-sleep-on-renew)"
verdict
