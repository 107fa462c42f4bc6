#!/usr/bin/env bash
# Type-checks the Rust side of the features `cuda` and `flash-attn` on a machine without CUDA.
#
# The build scripts of candle's CUDA crates run nvcc over their kernels and fetch CUTLASS by git. Two stand-ins, first on
# the PATH, answer instead: an nvcc that writes empty outputs, and a git that knows the commit it is asked for. Nothing that
# is built this way can run; `cargo check` never links it.
#
#   scripts/check_cuda.sh [CARGO CHECK ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."

stand_ins="$(mktemp -d)"
trap 'rm -rf "$stand_ins"' EXIT
mkdir "$stand_ins/bin" "$stand_ins/home"

cat >"$stand_ins/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
set -euo pipefail
case "${1:-}" in
--version) printf 'nvcc: NVIDIA (R) Cuda compiler driver\n-\n-\nCuda compilation tools, release 13.0, V13.0.88\n'; exit 0 ;;
--list-gpu-code) printf 'sm_80\nsm_90\n'; exit 0 ;;
esac
out='' folder='.' ptx='' previous='' sources=()
for argument in "$@"; do
    case "$previous" in
    -o | --output-file) out="$argument" ;;
    -odir | --output-directory) folder="$argument" ;;
    esac
    case "$argument" in
    -ptx | --ptx) ptx=1 ;;
    *.cu) sources+=("$argument") ;;
    esac
    previous="$argument"
done
mkdir -p "$folder"
case "$out" in
*.o) : | c++ -x c++ -c -o "$out" - ;;
*.a) ar rcs "$out" ;;
?*) : >"$out" ;;
'') if [ -n "$ptx" ]; then for source in "${sources[@]}"; do : >"$folder/$(basename "$source" .cu).ptx"; done; fi ;;
esac
NVCC

cat >"$stand_ins/bin/git" <<'GIT'
#!/usr/bin/env bash
# `clone` makes the folder, `checkout COMMIT` remembers the commit, `rev-parse HEAD` tells it.
set -euo pipefail
case "$1" in
clone) mkdir -p "${@: -1}/include" ;;
checkout) printf '%s\n' "$2" >COMMIT ;;
rev-parse) cat COMMIT 2>/dev/null || echo none ;;
esac
GIT
chmod +x "$stand_ins/bin/nvcc" "$stand_ins/bin/git"

# What the stand-ins make must stay neither in the real home nor among real builds; cargo and rustup keep their homes.
export CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}"
export HOME="$stand_ins/home" PATH="$stand_ins/bin:$PATH" CUDA_COMPUTE_CAP=80
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/cuda-check"
cargo check --features flash-attn "$@"
