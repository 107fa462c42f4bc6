#!/usr/bin/env bash
# Fuzzes what reads one kind of file, starting from the repository's own files of that kind; needs `cargo install cargo-fuzz`.
#
#   scripts/fuzz.sh TARGET [SECONDS]     TARGET: a file of fuzz/fuzz_targets, without `.rs`
set -euo pipefail
cd "$(dirname "$0")/.."

target="${1:?which target? $(basename -s .rs -a fuzz/fuzz_targets/*.rs | paste -sd ' ')}"
seconds="${2:-600}"

# What is found goes into the first folder, the others are only read.
corpus=("fuzz/corpus/$target")
mkdir -p "${corpus[0]}"
case "$target" in
front_matter | task_file | task_folder | template) corpus+=(prompts/tests/cases tasks/library) ;;
picture) corpus+=(tests/fixtures/images examples/pictures) ;;
tokenizer) corpus+=(runtime/tests/fixtures) ;;
esac

# libFuzzer needs flags that are for nightly compilers.
export RUSTC_BOOTSTRAP=1
cargo fuzz run "$target" "${corpus[@]}" -- -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20
