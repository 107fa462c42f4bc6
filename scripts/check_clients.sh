#!/usr/bin/env bash
# Asks a running server as its users' clients do: curl, and the SDKs of OpenAI for Python and JavaScript, unmodified.
#
#   scripts/check_clients.sh [BINARY]        (default: target/release/multiway)
#
# Needs curl, python3 with venv, node with npm, PyPI and npm. Where something is missing it says NOT CHECKED.
set -euo pipefail
cd "$(dirname "$0")/.."

binary="${1:-${CARGO_TARGET_DIR:-target}/release/multiway}"
work="${CARGO_TARGET_DIR:-target}/clients"
sdk=openai==3.57.0
js_sdk=openai@7.59.0

not_checked() {
    printf 'check_clients: NOT CHECKED: %s\n' "$*" >&2
    exit 0
}

command -v curl >/dev/null || not_checked "curl is missing"
[[ -x $binary ]] || { printf "check_clients: there is no '%s': build it first\n" "$binary" >&2; exit 1; }
mkdir -p "$work"
if [[ ! -f $work/venv/$sdk ]]; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv" 2>/dev/null || not_checked "python3 with venv is missing"
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$sdk" \
        || not_checked "$sdk cannot be installed"
    touch "$work/venv/$sdk"
fi

"$binary" serve --port 0 --api-key s3cret >"$work/address" 2>"$work/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 1 200); do
    [[ -s $work/address ]] && break
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
address="$(cat "$work/address")"

curl --silent --fail --show-error "$address/health" >/dev/null
[[ "$(curl --silent --output /dev/null --write-out '%{http_code}' "$address/v1/models")" == 401 ]]
curl --silent --fail --show-error -H 'x-api-key: s3cret' "$address/v1/tasks/infill" \
    -d '{"inputs": {"text": "The ___ sat."}}' | grep --quiet '"task":"infill"'
"$work/venv/bin/python" scripts/check_clients.py "$address"
asked="curl and $sdk"
if command -v node >/dev/null && command -v npm >/dev/null; then
    mkdir -p "$work/$js_sdk"
    echo '{}' >"$work/$js_sdk/package.json"
    if [[ -d $work/$js_sdk/node_modules/openai ]] \
        || npm install --silent --no-fund --no-audit --ignore-scripts --prefix "$work/$js_sdk" "$js_sdk" >/dev/null; then
        scripts="$PWD/scripts" pictures="$PWD/examples/pictures"
        (cd "$work/$js_sdk" && node "$scripts/check_clients.mjs" "$address" "$pictures")
        asked="curl, $sdk and $js_sdk"
    else
        printf 'check_clients: NOT CHECKED: %s cannot be installed\n' "$js_sdk" >&2
    fi
else
    printf 'check_clients: NOT CHECKED: JavaScript, node or npm is missing\n' >&2
fi
kill -TERM "$server"
wait "$server"
printf 'check_clients: %s are answered as they expect\n' "$asked"
