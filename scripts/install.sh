#!/bin/sh
# Installs the locked dependencies and the project into the virtual environment $2, with manual pages and the scripts
# for completion; $1 is the one of this tree, and $3 names optional dependencies (api metrics postgresql). Everything is
# compiled, whatever pip's configuration says: users who cannot write there would compile it again at each start.
set -eu
BIN=$(realpath "$1")/bin
PARTS=$(mktemp -d)
trap 'rm -rf "$PARTS"' EXIT

EXTRAS=$(for extra in ${3:-}; do printf -- '--extra %s ' "$extra"; done)
# shellcheck disable=SC2086  # words, one for each option
"$BIN/uv" export --frozen $EXTRAS --no-dev --no-emit-project --quiet --output-file "$PARTS/requirements.txt" >/dev/null
"$BIN/uv" build --quiet --wheel --no-build-isolation --python "$BIN/python" --out-dir "$PARTS"
python3 -m venv "$2"
"$2/bin/pip" install --compile --quiet --only-binary :all: --require-hashes --requirement "$PARTS/requirements.txt"
"$2/bin/pip" install --compile --quiet --no-index --no-deps "$PARTS"/*.whl

"$BIN/python" -m scripts.manpages "$2/share/man/man1"
mkdir -p "$2/share/bash-completion/completions" "$2/share/zsh/site-functions" "$2/share/fish/vendor_completions.d"
for program in acm acm-agent; do
    "$2/bin/$program" completion bash >"$2/share/bash-completion/completions/$program"
    "$2/bin/$program" completion zsh >"$2/share/zsh/site-functions/_$program"
    "$2/bin/$program" completion fish >"$2/share/fish/vendor_completions.d/$program.fish"
done
