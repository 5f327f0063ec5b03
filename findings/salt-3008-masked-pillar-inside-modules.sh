#!/bin/bash
# On Salt 3008 a custom module gets the pillar's value or "**********" from pillar.get: it depends on the caller.
#
# Versions: Salt 3006.28 and 3008.3 (PyPI).
#
# Expected: masking is about what is printed. `salt-call pillar.items` may hide values from a terminal;
# __salt__["pillar.get"]("key") within an execution module is an internal call and returns the value.
#
# What happens: the switch is a context variable, off while an SLS is rendered and on at all other times. One function
# of one custom module gets the real list when Jinja calls it, and asterisks when the state runs it (module.run,
# or a custom state through __salt__) or a person calls it. Nothing is raised, and the types change: numbers become
# strings. A module that writes the value to a file writes asterisks, and the state is green.
#
# Why it matters: a formula moves a computation from its templates to a module and gets asterisks in a
# configuration file after the upgrade to 3008. __pillar__["key"] holds the value in all three cases.
#
# Reference: salt/modules/pillar.py and salt/utils/secret.py of 3008, mask_pillar.
#
# Seen on 2026-11-30:
#   3006.28: Jinja [8000, 8001], state [8000, 8001], by hand [8000, 8001]
#   3008.3: Jinja [8000, 8001], state ['**********', '**********'], by hand ['**********', '**********']

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"
. "$(dirname "$(realpath "$0")")/lib/salt.sh"

for version in 3006.28 3008.3; do
    salt "$version"
    mkdir "$version/states/_modules"
    cat >"$version/states/_modules/ports.py" <<'PY'
def write(path):
    with open(path, "w") as out:
        print([port for port in __salt__["pillar.get"]("ports")], file=out)
    return True
PY
    printf "base:\n  '*': [ports]\n" >"$version/pillar/top.sls"
    printf 'ports: [8000, 8001]\n' >"$version/pillar/ports.sls"
    cat >"$version/states/ports.sls" <<SLS
{% set done = salt["ports.write"]("$work/jinja") %}
write the ports:
  module.run:
    - ports.write:
      - path: $work/state
SLS
    salt_call "$version" saltutil.sync_modules >/dev/null
    salt_call "$version" state.apply ports >/dev/null
    salt_call "$version" ports.write "$work/hand" >/dev/null
    masked="[8000, 8001]"
    [ "$version" = 3006.28 ] || masked="['**********', '**********']"
    same "Salt $version" "Jinja [8000, 8001], state $masked, by hand $masked" \
        "Jinja $(cat jinja), state $(cat state), by hand $(cat hand)"
    rm jinja state hand
done
verdict
