#!/usr/bin/env bash
# Ensures that the shells exist whose completion is tested: installs Debian's packages as root with apt where they are
# missing.
set -euo pipefail

log() { echo "shells.sh: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
for shell in zsh fish; do
    command -v "$shell" >/dev/null || missing+=("$shell")
done
[ ${#missing[@]} = 0 ] && exit 0
log "installing ${missing[*]}"
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
