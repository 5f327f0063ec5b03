#!/bin/bash
# A requisite that names no state: Salt 3006 fails one state, 3008 applies nothing, and show_sls sees neither.
#
# Versions: Salt 3006.28, 3007.15 and 3008.3 (PyPI).
#
# Expected: `require: [{file: typo}]` fails the state that has it. The others are applied, as they always were.
# `state.show_sls`, the usual check of a formula in CI, compiles the SLS and reports such an error.
#
# What happens: 3008 looks requisites up while it compiles. A single name that is not there (a state of another
# SLS that this minion does not include, for example) makes the whole run end with a list of errors instead of
# results, and no state of any SLS is applied. On 3006 and 3007 the one state fails and all others run. On none
# of them does state.show_sls notice: it prints the data and exits with 0. On 3008 state.show_low_sls
# exits with 1; on 3006 and 3007 nothing but a run shows it.
#
# Why it matters: a top file that has worked for years, with one state red for years, stops applying
# anything after the upgrade of the minion. Search with state.show_low_sls of 3008 before upgrading.
#
# Seen on 2026-11-30:
#   Salt 3006.28, 3007.15: applied: good last; show_sls 0 show_low_sls 0
#   Salt 3008.3: applied: nothing; show_sls 0 show_low_sls 1

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"
. "$(dirname "$(realpath "$0")")/lib/salt.sh"

cat >applied.py <<'PY'
import json
import sys

found = json.load(sys.stdin)["local"]
names = [] if isinstance(found, list) else sorted(x["__id__"] for x in found.values() if x["result"])
print("applied:", *(names or ["nothing"]), end=";")
PY

for version in 3006.28 3007.15 3008.3; do
    salt "$version"
    cat >"$version/states/typo.sls" <<'SLS'
good:
  test.nop: []
bad:
  test.nop:
    - require:
      - test: another
last:
  test.nop: []
SLS
    seen=$(salt_call "$version" --out=json state.apply typo | python3 applied.py || true)
    for check in show_sls show_low_sls; do
        code=0
        salt_call "$version" "state.$check" typo >/dev/null 2>&1 || code=$?
        seen="$seen $check $code"
    done
    expected="applied: good last; show_sls 0 show_low_sls 0"
    [ "$version" != 3008.3 ] || expected="applied: nothing; show_sls 0 show_low_sls 1"
    same "Salt $version" "$expected" "$seen"
done
verdict
