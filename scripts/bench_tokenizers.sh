#!/usr/bin/env bash
# Times how fast texts become ids, beside PyPI's `tokenizers` on the same texts: both in turn, one thread, one text at a time, and prints medians and their ratio.
#
#   scripts/bench_tokenizers.sh [FOLDER=checkpoints/default] [ROUNDS=7]
#
# FOLDER holds a tokenizer.json. Needs python3 with venv and pip, and the package registry; what is installed goes to data/tokenizers.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/data/tokenizers
python=$work/venv/bin/python
folder=$(realpath -- "${1:-$root/checkpoints/default}")

if ! "$python" -c 'import tokenizers' 2>/dev/null; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check 'tokenizers==0.22.2'
fi
cd "$root"
cargo build --quiet --release -p multiway-runtime --features onig --bench tokenizer
bench=$(cargo build --release -p multiway-runtime --features onig --bench tokenizer --message-format json 2>/dev/null |
  "$python" -c 'import json, sys
print([line["executable"] for line in map(json.loads, sys.stdin) if line.get("executable")][-1])')
RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false "$python" - "$bench" "$folder" "$work/texts.jsonl" "${2:-7}" <<'PYTHON'
import json, pathlib, random, statistics, subprocess, sys, time
import tokenizers

bench, folder, texts_file, rounds = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
rng = random.Random(1)
words = [word for file in sorted(pathlib.Path(".").rglob("*.md")) if "target" not in file.parts and "data" not in file.parts for word in file.read_text().split()]
texts = [" ".join(words[start:start + length]) for start, length in ((rng.randrange(len(words) - 200), rng.randrange(5, 200)) for _ in range(4000))]
texts_file.write_text("".join(json.dumps(text) + "\n" for text in texts))
ours, theirs = [], []
for _ in range(rounds):
    result = json.loads(subprocess.run([bench, folder, texts_file], check=True, capture_output=True, text=True).stdout)
    ours.append(result["seconds"])
    # A fresh one each time: it keeps what it has cut.
    tokenizer = tokenizers.Tokenizer.from_file(folder + "/tokenizer.json")
    tokenizer.no_truncation()
    start = time.perf_counter()
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    theirs.append(time.perf_counter() - start)
    assert abs(tokens - result["tokens"]) <= tokens // 100, (tokens, result["tokens"])
ours, theirs = statistics.median(ours), statistics.median(theirs)
print(f"{len(texts)} texts, {tokens} tokens, {rounds} rounds: {tokens / ours / 1e6:.2f} million tokens/s, "
      f"tokenizers {tokenizers.__version__} {tokens / theirs / 1e6:.2f}: {theirs / ours:.2f} x")
PYTHON
