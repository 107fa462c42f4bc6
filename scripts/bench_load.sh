#!/usr/bin/env bash
# Measures loading: checkpoints of real shapes with random weights, each loaded RUNS times from a warm page cache.
# Prints a line a run, with the seconds and the memory in use after a forward pass over the weights' bytes.
#
#   scripts/bench_load.sh [RUNS]
set -euo pipefail
cd "$(dirname "$0")/.."

runs="${1:-5}"
cargo build --release --example random_checkpoint --example load_time
built="${CARGO_TARGET_DIR:-target}/release/examples"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
for shape in t5-base t5-v1_1-base beit3-base; do
    "$built/random_checkpoint" "$shape" "$folder/$shape"
    for _ in $(seq "$runs"); do
        "$built/load_time" "$folder/$shape"
    done
    rm -rf "${folder:?}/$shape"
done
