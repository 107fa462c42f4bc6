#!/usr/bin/env bash
# Asks a running server as its users' clients do: curl, and the SDKs of OpenAI for Python and JavaScript, unmodified. Then
# schemathesis asks every route of the OpenAPI document what fits its schema, and what does not.
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
schemathesis=schemathesis==4.32.5

not_checked() {
    printf 'check_clients: NOT CHECKED: %s\n' "$*" >&2
    exit 0
}

command -v curl >/dev/null || not_checked "curl is missing"
[[ -x $binary ]] || { printf "check_clients: there is no '%s': build it first\n" "$binary" >&2; exit 1; }
mkdir -p "$work"
work="$(cd "$work" && pwd)"
if [[ ! -f $work/venv/$sdk-$schemathesis ]]; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv" 2>/dev/null || not_checked "python3 with venv is missing"
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$sdk" "$schemathesis" \
        || not_checked "$sdk and $schemathesis cannot be installed"
    touch "$work/venv/$sdk-$schemathesis"
fi

source scripts/serving.sh
serve address --api-key s3cret
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
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth
# A request may have a timeout that is too short, which is told as 504.
printf '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]\n' >"$work/schemathesis.toml"
(cd "$work" && venv/bin/schemathesis --no-color --config-file schemathesis.toml run "$address/openapi.json" \
    --header "Authorization: Bearer s3cret" --checks "$checks" \
    --max-examples 20 --seed 1 --warnings off >schemathesis.log 2>&1) \
    || { cat "$work/schemathesis.log" >&2; exit 1; }
kill -TERM "${servers[0]}"
wait "${servers[0]}"
printf 'check_clients: %s are answered as they expect, and %s finds nothing\n' "$asked" "$schemathesis"
