#!/usr/bin/env bash
# Uses the server's web page in a browser, as people do: with the mouse, with the keyboard alone, with a key, on a narrow screen.
#
#   scripts/check_page.sh [BINARY]        (default: target/release/multiway)
#   MULTIWAY_UPDATE=1 scripts/check_page.sh        writes the screenshots in docs/pictures anew
#   MULTIWAY_PAGE_ONLY=choicesAreBars scripts/check_page.sh        runs one function of check_page.mjs
#
# MULTIWAY_PAGE_URL and MULTIWAY_PAGE_KEY_URL name servers that run already, the second one with the key `s3cret`; then no
# binary is needed. Needs node with npm, npm's registry and Chromium, which apt-get installs where it may. Where something
# is missing it says NOT CHECKED.
set -euo pipefail
cd "$(dirname "$0")/.."

binary="${1:-${CARGO_TARGET_DIR:-target}/release/multiway}"
mkdir -p "${CARGO_TARGET_DIR:-target}/page"
work="$(cd "${CARGO_TARGET_DIR:-target}/page" && pwd)"
puppeteer=puppeteer-core@25.16.0

not_checked() {
    printf 'check_page: NOT CHECKED: %s\n' "$*" >&2
    exit 0
}

source scripts/serving.sh

command -v node >/dev/null && command -v npm >/dev/null || not_checked "node or npm is missing"
[[ -n ${MULTIWAY_PAGE_URL:-} || -x $binary ]] || { printf "check_page: there is no '%s': build it first\n" "$binary" >&2; exit 1; }
if ! command -v chromium >/dev/null; then
    # Inter stands for the system font, so that screenshots look alike on all machines; pngquant makes them small.
    { apt-get update && apt-get install -y --no-install-recommends chromium fonts-inter pngquant; } >"$work/apt.log" 2>&1 \
        || not_checked "chromium is missing and cannot be installed"
fi
mkdir -p "$work/$puppeteer"
echo '{}' >"$work/$puppeteer/package.json"
[[ -d $work/$puppeteer/node_modules/puppeteer-core ]] \
    || npm install --silent --no-fund --no-audit --ignore-scripts --prefix "$work/$puppeteer" "$puppeteer" >/dev/null \
    || not_checked "$puppeteer cannot be installed"

cat >"$work/fonts.conf" <<'FONTS'
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <match><test name="family"><string>sans-serif</string></test><edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
  <match><test name="family"><string>system-ui</string></test><edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
</fontconfig>
FONTS

if [[ -n ${MULTIWAY_PAGE_URL:-} ]]; then
    plain="$MULTIWAY_PAGE_URL" keyed="${MULTIWAY_PAGE_KEY_URL:-}"
else
    index=()
    if "$binary" serve --help | grep --quiet -- '--index'; then
        rm -f "$work/photos.index"
        "$binary" search index examples/pictures --out "$work/photos.index" >"$work/index.log" 2>&1
        index=(--index "photos=$work/photos.index")
    else
        printf 'check_page: NOT CHECKED: search, since the server has no --index\n' >&2
    fi
    serve plain "${index[@]}"
    serve keyed --api-key s3cret --root-path /below "${index[@]}"
    plain="$(cat "$work/plain")/" keyed="$(cat "$work/keyed")/"
fi

if [[ ${MULTIWAY_UPDATE:-} == 1 ]]; then shots="$PWD/docs/pictures"; else shots="$work/pictures"; fi
mkdir -p "$shots"
scripts="$PWD/scripts" pictures="$PWD/examples/pictures"
cd "$work/$puppeteer"
FONTCONFIG_FILE="$work/fonts.conf" CHROMIUM="$(command -v chromium)" \
    nice node "$scripts/check_page.mjs" "$plain" "$keyed" "$pictures" "$shots"

if [[ ${MULTIWAY_UPDATE:-} == 1 ]]; then
    if command -v pngquant >/dev/null; then
        pngquant --force --ext .png --skip-if-larger --speed 1 --strip "$shots"/page-*.png || [[ $? == 98 ]]
    fi
    large="$(find "$shots" -name 'page-*.png' -size +150k)"
    [[ -z $large ]] || { printf 'check_page: larger than 150 kB: %s\n' "$large" >&2; exit 1; }
fi
