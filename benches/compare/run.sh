#!/usr/bin/env bash
# Compares this build with other engines on this machine, and writes benches/compare/RESULTS.md.
#
#   benches/compare/run.sh [--quick] [--models NAME..] [--engines NAME..] [--threads N=2] [--rounds N=3]
#
# Everything that it makes or fetches lies in target/compare: random checkpoints of real shapes, virtual environments with the
# peers from PyPI, and a program around candle-transformers. It takes some hours and 25 GB of disk; --quick takes minutes, runs few
# cases once, on two models, and writes target/compare/QUICK.md instead. Needs python3 with venv, and an idle machine: while there is
# a file target/compare/pause it waits between two measurements. Ctrl-C ends it with a report of what was measured so far.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$here/../.."

work="${MULTIWAY_COMPARE_DIR:-$PWD/target/compare}"
built="${CARGO_TARGET_DIR:-target}/release"
python="$work/venv/bin/python"
openvino="$work/venv-openvino/bin/python"
candle="$work/candle/release/candle-peer"
models=()
all_models=(t5-v1_1-base t5-v1_1-small beit3-base beit3-base-480)
out=benches/compare/RESULTS.md
rest=()

while [[ $# -gt 0 ]]; do
    case "$1" in
        --help | -h)
            sed -n '2,9s/^# \{0,1\}//p' "$here/run.sh"
            exit 0
            ;;
        --quick)
            all_models=(t5-v1_1-small beit3-base)
            out="$work/QUICK.md"
            rest+=(--quick --rounds 1)
            shift
            ;;
        --models)
            shift
            while [[ $# -gt 0 && $1 != --* ]]; do
                models+=("$1")
                shift
            done
            ;;
        --engines | --threads | --rounds | --seed)
            rest+=("$1")
            shift
            while [[ $# -gt 0 && $1 != --* ]]; do
                rest+=("$1")
                shift
            done
            ;;
        *)
            printf "compare: unknown option '%s'; --help lists them\n" "$1" >&2
            exit 2
            ;;
    esac
done
[[ ${#models[@]} -gt 0 ]] || models=("${all_models[@]}")

say() { printf 'compare: %s\n' "$*" >&2; }

pip_install() { "$1" -m pip install --quiet --disable-pip-version-check "${@:2}"; }

install_peers() {
    local wanted=(benches/compare/requirements{,-no-deps,-onnx}.txt)
    local mark="$work/venv/installed"
    if [[ -f $mark ]] && cat "${wanted[@]}" | cmp -s - "$mark"; then
        return
    fi
    say "installing the peers"
    [[ -x $python ]] || python3 -m venv "$work/venv"
    pip_install "$python" -r "${wanted[0]}"
    pip_install "$python" --no-deps -r "${wanted[1]}"
    pip_install "$python" -r "${wanted[2]}" || say "ONNX Runtime does not install here: it is left out"
    cat "${wanted[@]}" > "$mark"
}

# Installs OpenVINO in an environment of its own: it and ONNX Runtime want different versions of optimum.
install_openvino() {
    local wanted=(benches/compare/requirements{,-no-deps,-openvino}.txt)
    local mark="$work/venv-openvino/installed"
    if [[ -f $mark ]] && cat "${wanted[@]}" | cmp -s - "$mark"; then
        return
    fi
    say "installing OpenVINO"
    rm -f "$mark"
    [[ -x $openvino ]] || python3 -m venv "$work/venv-openvino"
    if pip_install "$openvino" -r "${wanted[2]}" --constraint "${wanted[0]}" \
        && pip_install "$openvino" --no-deps -r "${wanted[1]}"; then
        cat "${wanted[@]}" > "$mark"
    else
        say "OpenVINO does not install here: it is left out"
    fi
}

# Makes a random checkpoint, and what the peers read of it, unless both are there.
make_model() {
    local name="$1"
    if [[ ! -d $work/checkpoints/$name ]]; then
        say "making $name"
        rm -rf "$work/checkpoints/$name.part"
        "$built/examples/random_checkpoint" "$name" "$work/checkpoints/$name.part"
        mv "$work/checkpoints/$name.part" "$work/checkpoints/$name"
    fi
    if [[ ! -d $work/peers/$name ]]; then
        say "converting $name for the peers"
        "$python" benches/compare/prepare.py "$work/checkpoints/$name" "$work/peers/$name"
    fi
    if [[ -f $work/venv-openvino/installed ]]; then
        # Outside CI it tells its makers what it is used for.
        CI=true "$openvino" benches/compare/prepare_openvino.py "$work/peers/$name"
    fi
    local dtype
    for dtype in bf16 int8; do
        if [[ ! -d $work/packed/$name-$dtype ]]; then
            rm -rf "$work/packed/part"
            "$built/multiway" --quiet convert "$work/checkpoints/$name" "$work/packed/part" --dtype "$dtype" --packed
            mv "$work/packed/part" "$work/packed/$name-$dtype"
        fi
    done
    if [[ $name == t5-* && ! -f $work/peers/$name/q8_0.gguf ]]; then
        "$candle" quantise --checkpoint "$work/peers/$name"
    fi
}

mkdir -p "$work/checkpoints" "$work/packed" "$work/peers"
say "building"
cargo build --release --bin multiway --example random_checkpoint
cargo build --release --manifest-path benches/compare/candle/Cargo.toml --target-dir "$work/candle"
install_peers
install_openvino
for model in "${models[@]}"; do
    make_model "$model"
done
"$python" benches/compare/compare.py --multiway "$built/multiway" --candle "$candle" \
    --openvino "$openvino" --work "$work" --out "$out" --models "${models[@]}" "${rest[@]}"
