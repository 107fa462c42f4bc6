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
# A first byte says the format.
records)
    for file in data/tests/fixtures/*.parquet; do
        { printf '\4' && cat "$file"; } >"${corpus[0]}/$(basename "$file")"
    done
    printf '\0{"a": [1, {"b": null}]}\n' >"${corpus[0]}/lines"
    printf '\1a,b\n"1, 2",three\n' >"${corpus[0]}/rows"
    { printf '\3' && tar -c -C data/tests/fixtures make.py; } >"${corpus[0]}/tar"
    ;;
tokenizer) corpus+=(runtime/tests/fixtures) ;;
esac

# libFuzzer needs flags that are for nightly compilers.
export RUSTC_BOOTSTRAP=1
cargo fuzz run "$target" "${corpus[@]}" -- -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20
