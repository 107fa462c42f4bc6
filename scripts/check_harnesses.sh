#!/usr/bin/env bash
# Asks a running server as evaluation harnesses and chains do, unmodified: lm-eval, inspect-ai and LangChain, ten items each.
#
#   scripts/check_harnesses.sh [BINARY]        (default: target/release/multiway)
#
# Takes minutes and half a gigabyte of packages, so that it is not among the checks of every change; docs/evaluate.md has what it said.
# Needs python3 with venv, and PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."

binary="${1:-${CARGO_TARGET_DIR:-target}/release/multiway}"
work="${CARGO_TARGET_DIR:-target}/harnesses"
packages=('lm-eval[api]==0.4.13' inspect-ai==0.3.285 openai==3.57.0 langchain-openai==1.7.4)

[[ -x $binary ]] || { printf "check_harnesses: there is no '%s': build it first\n" "$binary" >&2; exit 1; }
mkdir -p "$work"
work="$(cd "$work" && pwd)"
if [[ ! -f $work/venv/installed ]]; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
    touch "$work/venv/installed"
fi

source scripts/serving.sh
serve address --api-key s3cret
address="$(cat "$work/address")"

# No network but the server's: neither for data nor for news of the packages.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 DO_NOT_TRACK=1 NO_COLOR=1
export MULTIWAY_BASE_URL="$address/v1" MULTIWAY_API_KEY=s3cret OPENAI_API_KEY=s3cret
scripts="$PWD/scripts" pictures="$PWD/examples/pictures"
cd "$work"
venv/bin/python "$scripts/check_harnesses.py" files "$pictures"
venv/bin/lm_eval --model local-chat-completions --tasks ten --include_path "$work" --apply_chat_template \
    --model_args "model=multiway:infill,base_url=$address/v1/chat/completions,num_concurrent=2,tokenizer_backend=None" \
    >lm_eval.log 2>&1 || { cat lm_eval.log >&2; exit 1; }
grep -E '^\|ten' lm_eval.log
venv/bin/inspect eval "$scripts/check_inspect.py@captions" --model openai-api/multiway/multiway:caption \
    -T pictures="$pictures" --display plain --log-dir inspect >inspect.log 2>&1 || { cat inspect.log >&2; exit 1; }
grep -E '^accuracy' inspect.log | sed 's/^/inspect-ai: /; s/ *$//'
venv/bin/python "$scripts/check_harnesses.py" langchain "$pictures"
printf 'check_harnesses: %s are answered\n' "${packages[*]}"
