#!/bin/bash
# uWSGI's ini placeholders change most of the secret keys that Django generates.
#
# Versions: pyuwsgi 2.0.30, Django 5.2.8 (PyPI). Debian's uWSGI reads its ini files in the same way.
#
# Expected: `env = SECRET_KEY=...` in a uWSGI ini hands the text to the application, as systemd's
# Environment= or a shell's quotes would after one rule of escaping. A key is letters, digits and
# punctuation, without a space, a quote or a backslash: nothing to escape.
#
# What happens: django.core.management.utils.get_random_secret_key() draws 50 characters out of
# "abc...xyz0123456789!@#$%^&*(-_=+)". uWSGI replaces "%" and the letter after it (its magic variables: host
# name, time, PID, path of the ini file, ...; an unknown one simply vanishes). About six generated keys of
# ten reach the application as another text, without a word in the log. Some of the placeholders differ from
# one start to the next ("%t" is the time, "%p" the PID), so every session ends with every restart, and two
# generations of one site do not accept each other's cookies. With "@(" in the key uWSGI opens the rest as a
# file and does not start.
#
# Why it matters: the fault appears by chance, for some sites of a fleet and not for others, long after the
# ini's template was tested. Write "%%" for "%", refuse "$(", "@(" and "%(", or use an environment file.
#
# Reference: "Magic variables" and "Placeholders" in uWSGI's documentation of configuration files.
#
# Seen on 2026-11-30:
#   keys of 400 that arrive changed: 257
#   a key with %t, started twice: differs
#   the same key with %% arrives as: r%t0g
#   a key with @( in it: does not start

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

venv py pyuwsgi==2.0.30 Django==5.2.8

# exec-pre-app runs with the environment that `env` has set.
cat >write.py <<'PY'
import json
import random
import sys

import django.utils.crypto
from django.core.management.utils import get_random_secret_key

# The generator's own code, with a seed: each run of this script sees the same keys.
django.utils.crypto.secrets = random.Random(2026)
keys = [key for key in (get_random_secret_key() for _ in range(450)) if "@(" not in key][:400]
json.dump(keys, open("keys.json", "w"))
with open("keys.ini", "w") as ini:
    print("[uwsgi]", f"socket = {sys.argv[1]}/keys.sock", "need-app = true", sep="\n", file=ini)
    for number, key in enumerate(keys):
        print(f"env = KEY{number}={key}", file=ini)
    print("exec-pre-app = env -0 >seen", file=ini)
PY
cat >compare.py <<'PY'
import json

keys = json.load(open("keys.json"))
seen = dict(entry.split("=", 1) for entry in open("seen").read().split("\0") if "=" in entry)
print(sum(seen.get(f"KEY{number}") != key for number, key in enumerate(keys)))
PY

# start INI: uWSGI leaves at once, because it has no application.
start() {
    "$work/py/bin/uwsgi" --ini "$1" >"$1.log" 2>&1 || true
}

one() {
    printf '[uwsgi]\nsocket = %s/one.sock\nneed-app = true\nenv = KEY=%s\nexec-pre-app = printenv KEY >one\n' \
        "$work" "$1" >one.ini
    rm -f one
    start one.ini
    cat one 2>/dev/null || echo "does not start"
}

py/bin/python write.py "$work"
start keys.ini
number=$(py/bin/python compare.py)
echo "keys of 400 that arrive changed: $number"
same "more than half of them" yes "$([ "$number" -gt 200 ] && echo yes || echo no)"
first=$(one 'r%t0g')
sleep 1.1
second=$(one 'r%t0g')
same "a key with %t, started twice" differs "$([ "$first" = "$second" ] && echo equal || echo differs)"
same "the same key with %% arrives as" 'r%t0g' "$(one 'r%%t0g')"
same "a key with @( in it" "does not start" "$(one '@(q0z)k')"
verdict
