#!/usr/bin/env bash
# Build the fuzz targets with coverage counters, on a stable compiler, and run each for a bounded time.
#
#   fuzz/run.sh SECONDS [TARGET…]     what is found lies in fuzz/found, and ends the run with an error
#
# The flags are those of `cargo fuzz` without a sanitizer, which a stable compiler does not have: Rust's own checks find what
# matters here (panics, overflows), and the targets' allocator finds lengths that lie.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
shift || true
rust=(decode_json decode_records key_state snapshot process)
python=(manifest owner uri config headers)
targets=("$@")
((${#targets[@]})) || targets=("${rust[@]}" "${python[@]}")

host=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-target}/fuzz
counters="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"
# `--target`: so that the flags are for the targets only, and not for build scripts.
RUSTFLAGS=$counters cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$built"

.venv/bin/python fuzz/seeds.py "$built/seeds"
export GILLNET_FUZZ_PLANS=$built/seeds/plans
mkdir -p fuzz/found

# libFuzzer's own words go to a file, and are shown where something was found.
fuzz() {
    local target=$1 log=$built/$1.log
    shift
    mkdir -p "$built/grown/$target" "$built/seeds/corpus/$target"
    if "$@" -max_total_time="$seconds" -max_len=16384 -timeout=20 -rss_limit_mb=1024 -artifact_prefix="fuzz/found/$target-" \
        "$built/grown/$target" "$built/seeds/corpus/$target" >"$log" 2>&1; then
        echo "$target: $(tail -n 1 "$log"), nothing found"
    else
        tail -n 60 "$log"
        echo "$target: found something; the input is in fuzz/found, the whole log is $log"
        exit 1
    fi
}

for target in "${targets[@]}"; do
    if [[ " ${python[*]} " == *" $target "* ]]; then
        PYTHONPATH=src .venv-fuzz/bin/python fuzz/python_targets.py "$target" --seed "$built/seeds/corpus/$target"
        PYTHONPATH=src fuzz "$target" .venv-fuzz/bin/python fuzz/python_targets.py "$target"
    else
        fuzz "$target" "$built/$host/release/$target"
    fi
done
