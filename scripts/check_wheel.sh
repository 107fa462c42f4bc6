#!/usr/bin/env bash
# Builds the Python wheel, installs it into an empty environment, and runs its tests there: pytest on the embedded model, the stubs
# against the compiled module, mypy on the modules, and a program of five lines.
#
#   scripts/check_wheel.sh [PYTEST ARGUMENTS]       such as `-m slow`, or `-k daft`
#
# Takes minutes, most of them to build, so that it is not among the checks of every change. The modules for Daft, Ray and lm-eval are
# tested where MULTIWAY_EXTRAS lists them, as in `MULTIWAY_EXTRAS=daft,lm-eval scripts/check_wheel.sh`.
# Needs python3 with venv, and PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}" CARGO_INCREMENTAL=0 DO_NOT_TRACK=1
work="$CARGO_TARGET_DIR/wheel"
mkdir -p "$work"
if [[ ! -f $work/tools/installed ]]; then
    rm -rf "$work/tools"
    python3 -m venv "$work/tools"
    "$work/tools/bin/python" -m pip install --quiet --disable-pip-version-check 'maturin==1.16.0'
    touch "$work/tools/installed"
fi
rm -f "$work"/*.whl
"$work/tools/bin/maturin" build --release --locked --manifest-path python/Cargo.toml --out "$work" --quiet
wheel="$(echo "$work"/*.whl)"
printf 'check_wheel: %s, %s bytes\n' "$(basename "$wheel")" "$(stat --format %s "$wheel")"

rm -rf "$work/venv"
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "$wheel[test${MULTIWAY_EXTRAS:+,$MULTIWAY_EXTRAS}]"

# Away from the sources, so that the installed package is what is tested.
tests="$PWD/python" picture="$PWD/examples/pictures/cat.png"
cd "$work"
cat >five.py <<'EOF'
import sys, time, multiway
start = time.perf_counter()
engine = multiway.Engine.open()
print(engine.run("caption", image=sys.argv[1]).text)
print(f"check_wheel: opened and answered in {time.perf_counter() - start:.2f} s", file=sys.stderr)
EOF
venv/bin/python five.py "$picture"
venv/bin/python -m mypy.stubtest multiway._multiway --concise
venv/bin/python -m mypy --strict --config-file "$tests/pyproject.toml" -p multiway
venv/bin/python -m pytest -q --rootdir "$tests" -c "$tests/pyproject.toml" "$tests/tests" "$@"
