#!/bin/bash
# `<<: [*a, *b]` with one key in both: Salt refuses the file, and PyYAML's releases choose different values.
#
# Versions: Salt 3006.28 and 3008.3; PyYAML 6.0.2 and 6.0.4; yamllint 1.37.1 (PyPI).
#
# Expected: in a list of merged mappings the earlier one wins (yaml.org/type/merge.html: "Keys in mapping nodes
# earlier in the sequence override keys specified in later mapping nodes"). So a pillar may give a site several
# presets, the most specific first.
#
# What happens: Salt has a loader of its own that treats a repeated key as an error ("found conflicting ID") so
# that no state is declared twice. It removes merged keys that the mapping itself has, and does not compare the
# merged mappings with each other. A pillar of this form fails to render. yamllint --strict, an editor's schema
# and PyYAML accept the file. Those who render such data outside Salt get `True` from PyYAML 6.0.2 and
# `False` from 6.0.4: a change of precedence within a patch release.
# The comparison is by the text of the key, not by its value: beside the merged key 2, a key "2" of the mapping
# itself removes the 2, as another key of another type.
#
# Why it matters: presets shared by sites through anchors, and CI that checks pillars with anything but Salt.
#
# Seen on 2026-11-30:
#   Salt 3006.28, 3008.3: found conflicting ID 'redirect'; ['2']
#   PyYAML 6.0.2: True; [2, '2']
#   PyYAML 6.0.4: False; [2, '2']
#   yamllint --strict: accepts

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

cat >pillar.yaml <<'YAML'
---
https: &https
  redirect: true
small: &small
  processes: 2
  redirect: false
site:
  <<: [*https, *small]
  name: mysite
YAML
cat >keys.yaml <<'YAML'
---
base: &base
  2: two
site:
  <<: *base
  '2': other
YAML
cat >load.py <<'PY'
import sys

try:
    from salt.utils.yaml import safe_load
except ImportError:
    from yaml import safe_load
import yaml

if sys.argv[1:] == ["pyyaml"]:
    safe_load = yaml.safe_load
try:
    first = str(safe_load(open("pillar.yaml").read())["site"]["redirect"])
except yaml.YAMLError as error:
    first = error.problem
print(first + ";", list(safe_load(open("keys.yaml").read())["site"]))
PY

for version in 3006.28 3008.3; do
    venv "salt-$version" "salt==$version"
    same "Salt $version" "found conflicting ID 'redirect'; ['2']" "$("salt-$version/bin/python" load.py)"
done
venv old PyYAML==6.0.2
same "PyYAML 6.0.2" "True; [2, '2']" "$(old/bin/python load.py pyyaml)"
venv new PyYAML==6.0.4 yamllint==1.37.1
same "PyYAML 6.0.4" "False; [2, '2']" "$(new/bin/python load.py pyyaml)"
same "yamllint --strict" accepts "$(new/bin/yamllint --strict pillar.yaml keys.yaml && echo accepts || echo refuses)"
verdict
