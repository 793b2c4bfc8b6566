#!/bin/sh
# Makes the virtual environment $1 with the locked dependencies, whose hashes are checked; installs missing system
# packages with apt.
set -eu

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install() {
    echo "bootstrap: installing $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || install mosquitto mosquitto-clients
command -v nft >/dev/null || [ -x /usr/sbin/nft ] || install nftables
command -v ip >/dev/null || [ -x /usr/sbin/ip ] || install iproute2
command -v strace >/dev/null || install strace
command -v cc >/dev/null || install gcc libc6-dev
command -v mkfs.ext4 >/dev/null || [ -x /usr/sbin/mkfs.ext4 ] || install e2fsprogs
command -v minisign >/dev/null || install minisign
python3 -m venv "$1"
"$1/bin/pip" install --quiet --only-binary :all: --require-hashes --requirement scripts/uv.txt
UV_PROJECT_ENVIRONMENT="$1" "$1/bin/uv" sync --frozen --inexact --quiet
