#!/usr/bin/env bash
# Checks licences, sources and advisories of everything that we depend on, by deny.toml.
#
# cargo-deny is built once, into the target folder and unoptimised, where the machine has none. What a machine cannot reach is not checked
# there, and said.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
say() { printf 'check_deny: %s\n' "$*" >&2; }

tools="${CARGO_TARGET_DIR:-$PWD/target}/tools"
PATH="$PATH:$tools/bin"
if ! command -v cargo-deny >/dev/null; then
    say "building cargo-deny $version, once"
    if ! cargo install cargo-deny --version "$version" --locked --debug --quiet --root "$tools" --target-dir "$tools/build"; then
        say "NOT CHECKED: cargo-deny cannot be installed on this machine"
        exit 0
    fi
    rm -rf "$tools/build"
fi

cargo deny check --hide-inclusion-graph bans licenses sources
if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny check --hide-inclusion-graph advisories
else
    say "NOT CHECKED: advisories, since their database cannot be fetched from this machine"
fi
