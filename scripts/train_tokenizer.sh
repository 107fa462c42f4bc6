#!/usr/bin/env bash
# Trains the tokenizer of the native model on training text only.
#
#   scripts/train_tokenizer.sh [TEXTS=data/prepared/texts.jsonl] [OUT=data/tokenizer/tokenizer.model]
#
# Needs python3 with venv and pip; sentencepiece is installed into data/tokenizer/venv.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
texts=${1:-$root/data/prepared/texts.jsonl}
out=${2:-$root/data/tokenizer/tokenizer.model}
venv=$root/data/tokenizer/venv

fail() { printf 'train_tokenizer: error: %s\n' "$*" >&2; exit 1; }
[[ -f $texts ]] || fail "no $texts: prepare the training data first"
command -v python3 >/dev/null || fail "'python3' is needed and was not found: install Python 3"

if ! "$venv/bin/python" -c 'from sentencepiece import sentencepiece_model_pb2' 2>/dev/null; then
  python3 -m venv "$venv" || fail "'python3 -m venv' does not run: install the venv module of Python"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'sentencepiece==0.2.1' 'protobuf>=5,<7' ||
    fail "cannot install sentencepiece: is the package registry reachable?"
fi
"$venv/bin/python" "$root/scripts/train_tokenizer.py" "$texts" "$out"
