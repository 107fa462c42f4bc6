#!/usr/bin/env bash
# Installs what the build needs beside Rust and a C++ compiler: cmake, which builds SentencePiece.
# Does nothing where cmake is already there.
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Runs a command as root: directly where we are root, through sudo otherwise.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "cannot run '$*': it needs root, and there is no sudo"
    fi
}

install_cmake() {
    if command -v apt-get >/dev/null; then
        say "cmake is missing; installing it with apt-get"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cmake
    elif command -v brew >/dev/null; then
        say "cmake is missing; installing it with brew"
        brew install cmake
    else
        fail "cmake is missing, and there is neither apt-get nor brew: install cmake by hand, then run this again"
    fi
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust first (rustup does it), then run this again"
command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null \
    || fail "no C++ compiler found: install g++ or clang, then run this again"
command -v cmake >/dev/null || install_cmake
say "all is there: $(cargo --version), $(cmake --version | head -n 1)"
