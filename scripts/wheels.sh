#!/usr/bin/env bash
# Fills build/wheels with this project and its locked dependencies, for the images' Python (3.11 on Debian bookworm).
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${1:-.venv}")/bin
WHEELS=build/wheels

rm -rf "$WHEELS.part"
mkdir -p "$WHEELS.part"
locked() { "$BIN/uv" export --frozen --no-dev --no-emit-project --quiet "$@" >/dev/null; }
locked --output-file "$WHEELS.part/requirements.txt"
locked --extra api --output-file "$WHEELS.part/server-requirements.txt" # of the image of the server alone
"$BIN/python" -m pip download --quiet --require-hashes --only-binary :all: --python-version 3.11 \
    --dest "$WHEELS.part" --requirement "$WHEELS.part/server-requirements.txt"
"$BIN/uv" build --quiet --wheel --no-build-isolation --python "$BIN/python" --out-dir "$WHEELS.part"
rm -f "$WHEELS.part/.gitignore"
rm -rf "$WHEELS"
mv "$WHEELS.part" "$WHEELS"
