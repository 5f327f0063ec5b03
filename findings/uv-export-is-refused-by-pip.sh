#!/bin/bash
# What uv exports by default for a Django project that is a package, pip refuses in both lock formats.
#
# Versions: uv 0.13.9, pip 26.3 (PyPI).
#
# Expected: `uv export` exists for installers other than uv. Its requirements.txt has a hash for each package, and
# pylock.toml (PEP 751) is the standard that both tools implement, so pip installs either.
#
# What happens: a project with a [build-system] is exported as an editable requirement of itself: "-e ." in
# requirements.txt, and `directory = { path = ".", editable = true }` in pylock.toml. The hashes of the others put pip
# into hash checking mode, in which a directory cannot be installed: pip installs nothing of the file. pip treats a
# pylock.toml in the same way, though PEP 751 gives a directory no hash and requires none. uv installs both
# files. The default export has the `dev` group as well, so the development tools come along.
#
# Why it matters: a project without [build-system] never shows it; the deployment breaks on the day that somebody adds
# one. `uv export --no-emit-project --no-dev` is what a server's pip takes.
#
# Seen on 2026-11-30:
#   requirements.txt and pylock.toml name: asgiref iniconfig project
#   pip, requirements.txt and pylock.toml: cannot be installed when requiring hashes
#   uv, requirements.txt and pylock.toml: installs asgiref iniconfig project
#   pip, with --no-emit-project --no-dev: installs asgiref

. "$(dirname "$(realpath "$0")")/lib/prelude.sh"

venv py uv==0.13.9 pip==26.3
export UV_CACHE_DIR=$work/uv-cache UV_NO_PROGRESS=1 PIP_NO_CACHE_DIR=1
uv=$work/py/bin/uv
mkdir -p project/src/project
cd project
: >src/project/__init__.py
cat >pyproject.toml <<'TOML'
[project]
name = "project"
version = "1.0"
requires-python = ">=3.10"
dependencies = ["asgiref==3.9.1"]

[dependency-groups]
dev = ["iniconfig==2.1.0"]

[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"
TOML
"$uv" lock --quiet
"$uv" export --quiet --format requirements.txt --output-file requirements.txt
"$uv" export --quiet --format pylock.toml --output-file pylock.toml

installed() {
    local names
    names=$("$uv" pip list --python "$1" --format freeze 2>/dev/null |
        sed -n 's/^\(asgiref\|iniconfig\|project\)\b.*/\1/p; s/^-e .*/project/p' | sort | paste -sd ' ')
    echo "${names:-nothing}"
}

for file in requirements.txt pylock.toml; do
    python3 -m venv --without-pip "$work/by-pip"
    reason=$("$work/py/bin/pip" --python "$work/by-pip/bin/python" install --quiet -r "$file" 2>&1 |
        grep -o 'cannot be installed when requiring hashes' | head -n 1 || true)
    same "pip, $file" "cannot be installed when requiring hashes, nothing" "$reason, $(installed "$work/by-pip")"
    rm -rf "$work/by-pip"
    "$uv" venv --quiet --no-project "$work/by-uv"
    "$uv" pip install --quiet --python "$work/by-uv" -r "$file" >"$work/uv.log" 2>&1 || cat "$work/uv.log"
    same "uv, $file" "asgiref iniconfig project" "$(installed "$work/by-uv")"
    rm -rf "$work/by-uv"
done
for format in requirements.txt pylock.toml; do
    "$uv" export --quiet --no-emit-project --no-dev --format "$format" --output-file "$format"
    python3 -m venv --without-pip "$work/by-pip"
    "$work/py/bin/pip" --python "$work/by-pip/bin/python" install --quiet -r "$format" >"$work/pip.log" 2>&1 || true
    same "pip, $format with --no-emit-project --no-dev" asgiref "$(installed "$work/by-pip")"
    rm -rf "$work/by-pip"
done
verdict
