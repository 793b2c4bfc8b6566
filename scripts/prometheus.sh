#!/usr/bin/env bash
# Ensures that Prometheus and promtool exist: installs Debian's package as root with apt where it is missing. Tests start
# instances of their own, so the service that the package would start is not wanted.
set -euo pipefail

log() { echo "prometheus.sh: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
    log "installing prometheus"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null
    if [ -d /run/systemd/system ]; then as_root systemctl disable --now --quiet prometheus; fi
fi
command -v promtool >/dev/null || { log "apt-get install prometheus left no promtool"; exit 1; }
