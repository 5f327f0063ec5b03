# shellcheck shell=bash
# What the findings share: a temporary folder that is removed at the end, packages from PyPI and from
# Debian's mirrors in that folder, and the verdict. Sourced by each script.

set -euo pipefail
export LC_ALL=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1

work=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
chmod 755 "$work"
started=()

cleanup() {
    local pid
    for pid in ${started[@]+"${started[@]}"}; do
        stop "$pid"
    done
    cd /
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
cd "$work"

# venv NAME REQUIREMENT...: a virtual environment $work/NAME with exactly these packages on top.
venv() {
    local name=$1
    shift
    # A pip of its own (ensurepip) would take longer than most installations.
    python3 -m venv --without-pip "$work/$name"
    python3 -m pip --python "$work/$name/bin/python" install --quiet --no-input "$@" >"$work/$name.log" 2>&1 || {
        cat "$work/$name.log" >&2
        exit 2
    }
}

# deb_root SUITE PACKAGE...: these packages of a Debian suite, unpacked below $work/SUITE. They are not
# installed: no dependency is resolved and no maintainer script runs.
deb_root() {
    local suite=$1 state="$work/apt-$1" deb security=""
    shift
    if [ ! -d "$state" ]; then
        mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/etc" "$state/debs"
        : >"$state/status"
        case $suite in
        bookworm | trixie)
            security="deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security $suite-security main"
            ;;
        esac
        printf 'deb [signed-by=%s] http://deb.debian.org/debian %s main\n%s\n' \
            /usr/share/keyrings/debian-archive-keyring.gpg "$suite" "$security" >"$state/etc/sources.list"
        cat >"$state/apt.conf" <<CONF
Dir::State "$state";
Dir::State::status "$state/status";
Dir::Cache "$state/cache";
Dir::Etc::sourcelist "$state/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
APT::Sandbox::User "";
CONF
        APT_CONFIG="$state/apt.conf" apt-get -qq update >&2
    fi
    (cd "$state/debs" && APT_CONFIG="$state/apt.conf" apt-get -qq download "$@" >&2)
    mkdir -p "$work/$suite"
    for deb in "$state/debs"/*.deb; do
        dpkg-deb -x "$deb" "$work/$suite"
        rm "$deb"
    done
}

# deb_words SUITE PROGRAM: sets the array `words` to what starts a program of deb_root with that suite's own
# C library.
deb_words() {
    local root="$work/$1" loader
    loader=$root/usr/lib64/ld-linux-x86-64.so.2
    [ -e "$loader" ] || loader=$root/lib64/ld-linux-x86-64.so.2
    words=("$loader" --library-path
        "$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu/systemd:$root/usr/lib/systemd"
        "$root/$2")
}

# deb_run SUITE PROGRAM [ARGUMENT...]: runs it to its end.
deb_run() {
    local words
    deb_words "$1" "$2"
    "${words[@]}" "${@:3}"
}

# background COMMAND...: starts a program (no shell function); its process ID is in `started`.
background() {
    "$@" &
    started+=($!)
}

# stop PID: ends it and waits for its end.
stop() {
    local turn
    kill -TERM "$1" 2>/dev/null || true
    for turn in $(seq 50); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    [ "$turn" != 50 ] || kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# nginx_packages SUITE: nginx and what it is linked with.
nginx_packages() {
    local ssl=libssl3t64
    [ "$1" != bookworm ] || ssl=libssl3
    deb_root "$1" nginx nginx-common libc6 libcrypt1 libpcre2-8-0 zlib1g "$ssl"
}

# nginx_conf FILE DIRECTORY [USER] <SERVERS: a whole configuration around these servers, with all that nginx
# writes below DIRECTORY.
nginx_conf() {
    mkdir -p "$2"
    {
        echo "daemon off; pid $2/pid; error_log $2/error.log; ${3:+user $3;} events {}"
        echo "http { access_log off;"
        for kind in client_body uwsgi proxy fastcgi scgi; do
            echo "${kind}_temp_path $2/$kind;"
        done
        cat
        echo "}"
    } >"$1"
}

# nginx_start SUITE FILE DIRECTORY: returns when it accepts connections.
nginx_start() {
    local words
    deb_words "$1" usr/sbin/nginx
    rm -f "$3/pid"
    background "${words[@]}" -e "$3/error.log" -c "$(realpath "$2")"
    until_true test -s "$3/pid"
}

root_if_root() {
    [ "$(id -u)" != 0 ] || echo root
}

# until_true COMMAND...: waits up to 20 seconds for it to succeed.
until_true() {
    local turn
    for turn in $(seq 200); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    echo "gave up waiting ($turn turns) for: $*" >&2
    return 1
}

# same WHAT EXPECTED SEEN: prints what was seen; a difference makes the verdict "changed".
changed=0
same() {
    if [ "$2" = "$3" ]; then
        printf '%s: %s\n' "$1" "$3"
    else
        printf '%s: %s\n    CHANGED: it was: %s\n' "$1" "$3" "$2"
        changed=1
    fi
}

verdict() {
    exit "$changed"
}
