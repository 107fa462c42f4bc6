#!/usr/bin/env bash
# Measures a cold start: the released binary alone, copied into an empty folder, captions a picture given on standard
# input. Prints the time from start to the first word (median of RUNS runs) and the peak memory.
#
#   scripts/bench_start.sh [RUNS] [PICTURE]
set -euo pipefail
cd "$(dirname "$0")/.."

runs="${1:-9}"
picture="$(realpath "${2:-examples/pictures/cat.png}")"

cargo build --release --bin multiway
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cp "${CARGO_TARGET_DIR:-target}/release/multiway" "$folder/"
cd "$folder"

python3 - "$runs" "$picture" <<'PYTHON'
import os, resource, statistics, subprocess, sys, time

runs, picture = int(sys.argv[1]), sys.argv[2]
firsts, wholes, text = [], [], b""
for _ in range(runs):
    with open(picture, "rb") as stdin:
        start = time.perf_counter()
        child = subprocess.Popen(
            ["./multiway", "run", "caption", "--image", "-"], stdin=stdin, stdout=subprocess.PIPE, bufsize=0
        )
        text = os.read(child.stdout.fileno(), 65536)
        firsts.append(time.perf_counter() - start)
        while piece := os.read(child.stdout.fileno(), 65536):
            text += piece
        if child.wait() != 0:
            sys.exit(f"multiway ended with {child.returncode}")
        wholes.append(time.perf_counter() - start)

# Linux counts in KiB, macOS in bytes.
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
print(f"binary               {os.path.getsize('multiway') / 1e6:8.1f} MB")
print(f"start to first word  {statistics.median(firsts) * 1000:8.1f} ms  (median of {runs}, slowest {max(firsts) * 1000:.1f} ms)")
print(f"start to end         {statistics.median(wholes) * 1000:8.1f} ms")
print(f"peak memory          {peak / 1e6:8.1f} MB")
print(f"answer               {text.decode().strip()}")
PYTHON
