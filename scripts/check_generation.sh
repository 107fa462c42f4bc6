#!/usr/bin/env bash
# Draws random generation settings, and compares the answers of a small random T5 with those of PyPI's `transformers`, token by token.
#
#   scripts/check_generation.sh [COUNT=320] [SEED=1]
#
# Needs python3 with venv and pip, and the package registry; what is installed goes to data/generation.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/data/generation
python=$work/venv/bin/python

if ! "$python" -c 'import torch, transformers' 2>/dev/null; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check 'transformers==4.57.6' 'torch==2.15.0' 'numpy<3'
fi
"$python" "$root/scripts/generation_reference.py" "$work/reference" "$root/tests/fixtures/cases/checkpoints/plain/tokenizer.json" "${1:-320}" "${2:-1}"
cd "$root"
MULTIWAY_GENERATION_REFERENCE=$work/reference \
  cargo test --release --test generation_reference -- --nocapture
