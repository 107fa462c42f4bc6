#!/usr/bin/env bash
# Compiles the kernels with nvcc, and prints what they take of a multiprocessor as a table; fails where registers
# spill or a kernel has local memory.
#
#   NVCC=/usr/local/cuda/bin/nvcc model/kernels/resources.sh
set -euo pipefail
cd "$(dirname "$0")"
nvcc="${NVCC:-nvcc}"
made="$(mktemp -d)"
trap 'rm -rf "$made"' EXIT
wrong=0

echo "| kernel | type | head sizes | architecture | registers | static shared bytes | spilled bytes | local bytes |"
echo "|---|---|---|---|---|---|---|---|"
for source in *.cu; do
    for architecture in sm_80 sm_90; do
        if ! "$nvcc" -std=c++17 -O3 -arch="$architecture" -cubin -Xptxas -v -o "$made/cubin" "$source" \
            2>"$made/log"; then
            cat "$made/log" >&2
            exit 1
        fi
        grep -i warning "$made/log" >&2 || true
        # Names end in the type and, where there are head sizes, one of them: a line for all sizes of a type.
        awk -v architecture="$architecture" '
            function widen(key, value) {
                if (!(key in low) || value < low[key]) low[key] = value
                if (!(key in high) || value > high[key]) high[key] = value
            }
            function span(key) { return low[key] == high[key] ? low[key] : low[key] " to " high[key] }
            /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
            /bytes stack frame/ { stack = $1; spilled = $5 + $9 }
            /Used .* registers/ {
                kernel = name; size = 0
                if (match(kernel, /_[0-9]+$/)) {
                    size = substr(kernel, RSTART + 1) + 0
                    kernel = substr(kernel, 1, RSTART - 1)
                }
                match(kernel, /_b?f[0-9]+$/)
                type = substr(kernel, RSTART + 1)
                kernel = substr(kernel, 1, RSTART - 1)
                key = kernel " | " type
                if (!(key in seen)) { order[++count] = key; seen[key] = 1 }
                shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART) + 0 : 0
                match($0, /Used [0-9]+/)
                widen(key "r", substr($0, RSTART + 5, RLENGTH - 5) + 0)
                widen(key "s", shared)
                widen(key "d", size)
                widen(key "p", spilled)
                widen(key "l", stack)
                if (spilled + stack > 0) wrong = wrong " " name
            }
            END {
                for (i = 1; i <= count; i++) {
                    key = order[i]
                    sizes = high[key "d"] ? span(key "d") : "any"
                    print "| " key " | " sizes " | " architecture " | " span(key "r") " | " span(key "s") " | " \
                        span(key "p") " | " span(key "l") " |"
                }
                if (wrong) {
                    print "registers spill, or local memory is used:" wrong > "/dev/stderr"
                    exit 1
                }
            }' "$made/log" || wrong=1
    done
done
exit "$wrong"
