#!/usr/bin/env bash
# Runs tests of our unsafe Rust under Miri: the thread pool, whose threads work on parts of one buffer.
#
# Kernels of vector instructions, memory maps and the C libraries are beyond Miri; what needs them is left out. Miri comes with
# nightly toolchains alone: MIRI_TOOLCHAIN names one (`nightly` without it).
set -euo pipefail
cd "$(dirname "$0")/.."

toolchain="${MIRI_TOOLCHAIN:-nightly}"
say() { printf 'check_miri: %s\n' "$*" >&2; }

if ! cargo "+$toolchain" miri --version >/dev/null 2>&1; then
    say "NOT CHECKED: the toolchain '$toolchain' has no Miri; 'rustup component add miri rust-src --toolchain $toolchain' adds it"
    exit 0
fi
cargo "+$toolchain" miri test -p multiway-model --lib --target-dir "${CARGO_TARGET_DIR:-target}/miri" -- kernels::pool
