#!/usr/bin/env bash
# Fills build/wheels with this project and its locked dependencies, for the images' Python (3.11 on Debian bookworm).
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${1:-.venv}")/bin
WHEELS=build/wheels

rm -rf "$WHEELS.part"
mkdir -p "$WHEELS.part"
"$BIN/uv" export --frozen --no-dev --no-emit-project --quiet --output-file "$WHEELS.part/requirements.txt" >/dev/null
"$BIN/python" -m pip download --quiet --require-hashes --only-binary :all: --python-version 3.11 \
    --dest "$WHEELS.part" --requirement "$WHEELS.part/requirements.txt"
"$BIN/uv" build --quiet --wheel --no-build-isolation --python "$BIN/python" --out-dir "$WHEELS.part"
rm -f "$WHEELS.part/.gitignore"
rm -rf "$WHEELS"
mv "$WHEELS.part" "$WHEELS"
