#!/bin/bash
# The same ini gives Django its settings module under Debian's uWSGI and not under pyuwsgi.
#
# Versions: uWSGI 2.0.21 (Debian 12: uwsgi-core, uwsgi-plugin-python3), pyuwsgi 2.0.30 (PyPI).
#
# Expected: pyuwsgi is uWSGI as a wheel, so `env = DJANGO_SETTINGS_MODULE=mysite.settings` (the line of most
# tutorials) works as before when a host moves from the distribution's package to the wheel.
#
# What happens: the option is accepted and the variable is set, but in the C library's environment only.
# pyuwsgi is an extension module: Python runs, and has copied the environment to os.environ, before uWSGI reads
# its ini. Debian's uWSGI sets the variables first and starts Python afterwards. os.environ of the application
# lacks the variable, while C code in the same process sees it. Nothing is logged.
#
# Why it matters: DJANGO_SETTINGS_MODULE fails loudly; a DEBUG=0 or DATABASE_URL with a default in the settings
# fails silently. Set the environment outside of uWSGI (systemd's EnvironmentFile=).
#
# Seen on 2026-11-30:
#   Debian's uwsgi: os.environ has mysite.settings, getenv() of C has mysite.settings
#   pyuwsgi: os.environ has nothing, getenv() of C has mysite.settings

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

deb_root bookworm uwsgi-core uwsgi-plugin-python3 libpython3.11 libpython3.11-stdlib libpython3.11-minimal \
    libc6 libcap2 libexpat1 libgcc-s1 libicu72 libjansson4 liblzma5 libpcre2-8-0 libpcre3 libselinux1 \
    libssl3 libstdc++6 libuuid1 libxml2 libyajl2 libyaml-0-2 libcrypt1 zlib1g
venv py pyuwsgi==2.0.30

cat >app.py <<'PY'
import ctypes
import os

getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
name = "DJANGO_SETTINGS_MODULE"
with open("seen", "w") as seen:
    here, there = os.environ.get(name, "nothing"), (getenv(name.encode()) or b"nothing").decode()
    print(f"os.environ has {here}, getenv() of C has {there}", file=seen)
PY
# No `application` in app.py: with need-app uWSGI leaves at once.
cat >site.ini <<INI
[uwsgi]
socket = $work/site.sock
need-app = true
env = DJANGO_SETTINGS_MODULE=mysite.settings
wsgi-file = app.py
INI

deb_words bookworm usr/bin/uwsgi-core
PYTHONHOME="$work/bookworm/usr" "${words[@]}" --plugins-dir "$work/bookworm/usr/lib/uwsgi/plugins" \
    --plugin python311 --ini site.ini >log 2>&1 || true
same "Debian's uwsgi" "os.environ has mysite.settings, getenv() of C has mysite.settings" "$(cat seen)"
rm seen
py/bin/uwsgi --ini site.ini >log 2>&1 || true
same pyuwsgi "os.environ has nothing, getenv() of C has mysite.settings" "$(cat seen)"
verdict
