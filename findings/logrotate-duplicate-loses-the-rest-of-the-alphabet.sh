#!/bin/bash
# One log file named in two rule files: the logs of the second file's pattern that sort after it are not rotated.
#
# Versions: logrotate 3.21.0 (Debian 12), 3.22.0 (Debian 13).
#
# Expected: "error: duplicate log entry for ..." is about that one log: the first rule counts, the duplicate is
# left out and the rest of the pattern is rotated; or, as the message "found error in file ..., skipping" says,
# nothing of the second file is.
#
# What happens: the expansion of the pattern ends at the duplicate, and what was expanded so far stays in
# force. Of /var/log/sites/*.log those logs are rotated that sort before the duplicate. Those after it grow for
# ever. Which ones these are depends on the name of the site whose rule was added. logrotate exits with 1.
#
# Why it matters: a package or a colleague has /etc/logrotate.d/sites with `*.log`, a tool adds a rule for one site
# (a file name that sorts earlier): a disk fills up with the logs of the other sites. `ignoreduplicates`
# (logrotate >= 3.21) gives the expected behaviour, in the first of the two rules: in the second, the one that
# names the duplicate, it does nothing.
#
# Reference: config.c, readConfigFile(), the loop over globResult.
#
# Seen on 2026-11-30 (both versions), rule a for middle.log, rule b for *.log of early, late, middle, zoo:
#   rotated: early late middle, exit code 1
#   with ignoreduplicates in rule b: early late middle, exit code 1
#   with ignoreduplicates in rule a: early late middle zoo, exit code 0

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

rotate() {
    local code=0 log
    rm -rf logs rules state
    mkdir -m 755 logs rules
    for log in early late middle zoo; do
        head -c 5000 /dev/zero >"logs/$log.log"
    done
    printf '%s/logs/middle.log {\n size 1k\n rotate 3\n%s}\n' "$work" "$1" >rules/a
    printf '%s/logs/*.log {\n size 1k\n rotate 3\n%s}\n' "$work" "$2" >rules/b
    echo "include $work/rules" >rules.conf
    chmod 644 rules/* rules.conf
    deb_run "$suite" usr/sbin/logrotate --state "$work/state" "$work/rules.conf" >log 2>&1 || code=$?
    echo "$(cd logs && echo *.1 | sed 's/\.log\.1//g'), exit code $code"
}

for suite in bookworm trixie; do
    deb_root "$suite" logrotate libacl1 libc6 libpcre2-8-0 libpopt0 libselinux1
    same "$suite: rotated" "early late middle, exit code 1" "$(rotate '' '')"
    grep "duplicate log entry" log
    option='ignoreduplicates
'
    same "$suite: with ignoreduplicates in rule b" "early late middle, exit code 1" "$(rotate '' "$option")"
    same "$suite: with ignoreduplicates in rule a" "early late middle zoo, exit code 0" "$(rotate "$option" '')"
done
verdict
