#!/usr/bin/env bash
# Write requirements/*.lock from pyproject.toml: every version with its hashes, for every platform. No index is named in
# them, so that whoever installs may use their own mirror.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=.venv-lock
test -x $tools/bin/uv || {
    "${PYTHON:-python3}" -m venv $tools
    $tools/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13'
}

compile() {
    local name=$1
    shift
    $tools/bin/uv pip compile pyproject.toml "$@" --universal --python-version 3.11 --generate-hashes --quiet \
        --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' \
        --output-file "requirements/$name.lock"
}

mkdir -p requirements
# Tools that look at the project from outside need nothing of it.
compile_tool() {
    local name=$1
    shift
    $tools/bin/uv pip compile --group "$name" "$@" --universal --python-version 3.11 --generate-hashes --quiet \
        --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' \
        --output-file "requirements/$name.lock"
}

compile runtime --extra all "$@"
compile dev --extra all --group dev "$@"
compile bench --extra all --group bench "$@"
compile fuzz --extra all --group fuzz "$@"
compile_tool audit "$@"
