#!/bin/bash
# `timeout -s KILL` exits with 137 under GNU and with 124 under uutils, the coreutils of Ubuntu 26.04.
#
# Versions: GNU coreutils 9.1 (Debian 12), rust-coreutils of Debian 14 (0.12.0 when this was written; a suite in
# development, so the version is whatever it has).
#
# Expected: the same exit codes. uutils runs GNU's test suite, and the codes of timeout are its interface.
#
# What happens: GNU documents 137 for `timeout -s KILL`, for the signal cannot be caught and timeout
# reports it. uutils answers 124 as for any other signal. With `-k` (TERM first, KILL later) both answer 137.
#
# Why it matters: a script that tells "out of time, ended by TERM" (124) from "killed" (137: something may be half
# done) takes the second for the first after an upgrade of the release.
#
# Reference: "timeout invocation" in the manual of GNU coreutils, exit status.
#
# Seen on 2026-11-30:
#   timeout -s KILL: GNU 137, uutils 124
#   timeout -k: GNU 137, uutils 137
#   timeout: GNU 124, uutils 124

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

deb_root bookworm coreutils libc6
deb_root forky rust-coreutils libacl1 libattr1 libc6 libgcc-s1 libonig5 libpcre2-8-0 libselinux1 libsystemd0 libcap2 \
    libgmp10

code() {
    local code=0
    "$@" 2>/dev/null || code=$?
    echo "$code"
}
both() {
    echo "GNU $(code deb_run bookworm usr/bin/timeout "$@"), uutils $(code deb_run forky usr/bin/coreutils timeout "$@")"
}

deb_run forky usr/bin/coreutils --version || true
same "timeout -s KILL" "GNU 137, uutils 124" "$(both -s KILL 0.3 sleep 5)"
# shellcheck disable=SC2016
same "timeout -k" "GNU 137, uutils 137" "$(both -k 0.3 0.3 sh -c 'trap "" TERM; while :; do sleep 0.1; done')"
same "timeout" "GNU 124, uutils 124" "$(both 0.3 sleep 5)"
verdict
