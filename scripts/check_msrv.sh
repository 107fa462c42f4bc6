#!/usr/bin/env bash
# Type-checks the workspace with the oldest compiler that Cargo.toml promises, `rust-version`.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'check_msrv: %s\n' "$*" >&2; }

oldest="$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)"
[ -n "$oldest" ] || { say "Cargo.toml has no rust-version"; exit 1; }

case "$(rustc --version)" in
"rustc $oldest."*)
    say "the toolchain at hand is the oldest that is promised ($oldest), so every other check is this one"
    ;;
*)
    if ! command -v rustup >/dev/null || ! rustup toolchain install "$oldest" --profile minimal >/dev/null 2>&1; then
        say "NOT CHECKED: Rust $oldest cannot be installed on this machine, which has $(rustc --version)"
        exit 0
    fi
    cargo "+$oldest" check --workspace --all-targets --target-dir "${CARGO_TARGET_DIR:-target}/msrv"
    ;;
esac
