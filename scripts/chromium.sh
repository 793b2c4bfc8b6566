#!/usr/bin/env bash
# Ensures that Chromium exists, in which the tests look at the page: installs Debian's package as root with apt where it
# is missing. Playwright would download a browser of its own, which is neither locked nor needed.
set -euo pipefail

log() { echo "chromium.sh: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

if ! [ -x /usr/bin/chromium ]; then
    log "installing chromium"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
[ -x /usr/bin/chromium ] || { log "apt-get install chromium left no /usr/bin/chromium"; exit 1; }
