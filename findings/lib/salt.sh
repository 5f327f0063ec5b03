# shellcheck shell=bash
# A masterless Salt with directories of its own. Sourced after prelude.sh.

# salt VERSION: installs it, makes $work/VERSION/{states,pillar}; salt_call VERSION WORD... then runs it.
salt() {
    venv "salt-$1" "salt==$1"
    mkdir -p "$work/$1/states" "$work/$1/pillar" "$work/$1/conf"
    cat >"$work/$1/conf/minion" <<CONF
file_client: local
id: finding
root_dir: $work/$1/root
file_roots: {base: [$work/$1/states]}
pillar_roots: {base: [$work/$1/pillar]}
enable_fqdns_grains: False
enable_gpu_grains: False
CONF
}

salt_call() {
    "$work/salt-$1/bin/salt-call" --config-dir "$work/$1/conf" --local --log-level quiet "${@:2}"
}
