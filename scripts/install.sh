#!/bin/sh
# Installs the locked dependencies and the project into the virtual environment $2; $1 is the one of this tree, and $3
# names an optional dependency (postgresql).
set -eu
BIN=$(realpath "$1")/bin
PARTS=$(mktemp -d)
trap 'rm -rf "$PARTS"' EXIT

"$BIN/uv" export --frozen ${3:+--extra "$3"} --no-dev --no-emit-project --quiet --output-file "$PARTS/requirements.txt" >/dev/null
"$BIN/uv" build --quiet --wheel --no-build-isolation --python "$BIN/python" --out-dir "$PARTS"
python3 -m venv "$2"
"$2/bin/pip" install --quiet --only-binary :all: --require-hashes --requirement "$PARTS/requirements.txt"
"$2/bin/pip" install --quiet --no-index --no-deps "$PARTS"/*.whl
