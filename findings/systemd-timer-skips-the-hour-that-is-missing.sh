#!/bin/bash
# A timer at 02:30 does not run on the day that summer time starts, and a monthly one loses a month.
#
# Versions: systemd 252 (Debian 12), 257 (Debian 13).
#
# Expected: Debian's cron runs a job of the missing hour right after the change of the clock (cron(8): jobs that
# were to run in the interval are run immediately). A calendar timer runs at 03:00 or 03:30 then, or once at the
# next occasion because of Persistent=true.
#
# What happens: OnCalendar= is a search for a local time that exists. 02:30 of that day does not, so the next
# match is the day after. Nothing has elapsed that Persistent=true could catch up with. A daily job runs
# 48 hours after its last run, a weekly one ("Sun 02:30", and the change is always on a Sunday in Europe and
# in America) after 14 days, and a monthly one that falls on it after two months. In autumn the hour that
# comes twice runs the job once, at its first occurrence.
#
# Why it matters: certificate renewals, backups and clearsessions of a site are set between 02:00 and 03:00. Give
# the time as UTC ("02:30 UTC"), or outside of the hours that change.
#
# Seen on 2026-11-30 (both versions), zone Europe/Berlin:
#   *-*-* 02:30 after 2027-03-27 12:00: Mon 2027-03-29 02:30:00 CEST
#   Sun 02:30 after 2027-03-22 12:00: Sun 2027-04-04 02:30:00 CEST
#   *-*-28 02:30 after 2027-03-01 12:00: Wed 2027-04-28 02:30:00 CEST
#   *-*-* 02:30 UTC after 2027-03-27 12:00: Sun 2027-03-28 04:30:00 CEST
#   *-*-* 02:30 after 2027-10-30 12:00, twice: Sun 2027-10-31 02:30:00 CEST, Mon 2027-11-01 02:30:00 CET

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

next() {
    TZ=Europe/Berlin deb_run "$suite" usr/bin/systemd-analyze calendar --iterations="${3:-1}" \
        --base-time="$2" "$1" | sed -n 's/^ *\(Next elapse\|Iter[^:]*#[0-9]*\): //p' | paste -sd, | sed 's/,/, /g'
}

for suite in bookworm trixie; do
    ssl=libssl3t64
    [ "$suite" != bookworm ] || ssl=libssl3
    deb_root "$suite" systemd libsystemd-shared libacl1 libaudit1 libblkid1 libc6 libcap2 libcap-ng0 libcrypt1 \
        libgcrypt20 libgpg-error0 libkmod2 liblz4-1 liblzma5 libmount1 libpam0g libpcre2-8-0 libseccomp2 \
        libselinux1 libzstd1 "$ssl"
    [ -e "$suite/usr/bin/systemd-analyze" ] || ln -s ../../bin/systemd-analyze "$suite/usr/bin/systemd-analyze"
    same "$suite: daily" "Mon 2027-03-29 02:30:00 CEST" "$(next '*-*-* 02:30' '2027-03-27 12:00')"
    same "$suite: weekly" "Sun 2027-04-04 02:30:00 CEST" "$(next 'Sun 02:30' '2027-03-22 12:00')"
    same "$suite: monthly" "Wed 2027-04-28 02:30:00 CEST" "$(next '*-*-28 02:30' '2027-03-01 12:00')"
    same "$suite: daily in UTC" "Sun 2027-03-28 04:30:00 CEST" "$(next '*-*-* 02:30 UTC' '2027-03-27 12:00')"
    same "$suite: autumn" "Sun 2027-10-31 02:30:00 CEST, Mon 2027-11-01 02:30:00 CET" \
        "$(next '*-*-* 02:30' '2027-10-30 12:00' 2)"
done
verdict
