#!/usr/bin/env bash
# Ensures that the programs of PostgreSQL and PgBouncer exist: installs Debian's packages as root with apt where they are
# missing. Tests start instances of their own, so those that the packages would create and start are not wanted.
set -euo pipefail

log() { echo "postgresql.sh: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

installed() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

if ! installed; then
    log "installing postgresql"
    as_root mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
fi
if ! [ -x /usr/sbin/pgbouncer ]; then
    log "installing pgbouncer"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends pgbouncer >/dev/null
    if [ -d /run/systemd/system ]; then as_root systemctl disable --now --quiet pgbouncer; fi
fi
installed || { log "apt-get install postgresql left no /usr/lib/postgresql/*/bin/initdb"; exit 1; }
