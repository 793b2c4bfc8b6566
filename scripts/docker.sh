#!/usr/bin/env bash
# Ensures that a Docker engine answers, that Compose is installed and that the image debian:bookworm-slim exists.
# Installs what is missing as root with apt; without a reachable registry it makes the image with debootstrap.
set -euo pipefail

BASE=debian:bookworm-slim
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/acm

log() { echo "docker.sh: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

engine_answers() { timeout 10 docker version >/dev/null 2>&1; }

install() {
    log "installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$CACHE/apt.log" 2>&1 ||
        { tail -20 "$CACHE/apt.log" >&2; log "apt-get install $* failed"; exit 1; }
}

ensure_engine() {
    engine_answers && return
    command -v dockerd >/dev/null || install docker.io debootstrap iptables mosquitto mosquitto-clients ca-certificates
    engine_answers && return
    log "starting dockerd (log: $CACHE/dockerd.log)"
    as_root setsid dockerd >"$CACHE/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 60); do
        engine_answers && return
        sleep 1
    done
    tail -20 "$CACHE/dockerd.log" >&2
    log "no Docker engine answers after 60 s"
    exit 1
}

make_base() {
    command -v debootstrap >/dev/null || install debootstrap ca-certificates
    log "no registry can be reached: making $BASE with debootstrap (about a minute)"
    local root
    root=$(mktemp -d)
    as_root debootstrap --variant=minbase --include=ca-certificates bookworm "$root/rootfs" >"$CACHE/debootstrap.log" 2>&1 ||
        { tail -20 "$CACHE/debootstrap.log" >&2; log "debootstrap failed"; exit 1; }
    as_root rm -rf "$root/rootfs/var/cache/apt/archives" "$root/rootfs/var/lib/apt/lists"
    as_root mkdir -p "$root/rootfs/var/cache/apt/archives/partial" "$root/rootfs/var/lib/apt/lists/partial"
    as_root tar -C "$root/rootfs" -c . >"$CACHE/bookworm-slim.tar.part"
    as_root rm -rf "$root"
    mv "$CACHE/bookworm-slim.tar.part" "$CACHE/bookworm-slim.tar"
}

ensure_compose() {
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || install docker-compose
}

ensure_base() {
    docker image inspect "$BASE" >/dev/null 2>&1 && return
    timeout 60 docker pull -q "$BASE" >/dev/null 2>&1 && return
    [ -s "$CACHE/bookworm-slim.tar" ] || make_base
    docker import --change 'CMD ["bash"]' "$CACHE/bookworm-slim.tar" "$BASE" >/dev/null
}

mkdir -p "$CACHE"
ensure_engine
ensure_compose
ensure_base
log "engine $(docker version --format '{{.Server.Version}}') and image $BASE are ready"
