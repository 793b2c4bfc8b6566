#!/bin/sh
# Starts the agent that is installed in this file's directory. While a new release is on trial, the one before it
# runs first: it starts the new one as its child, and goes back to itself when the new one does not prove itself.
set -eu
root=$(dirname "$(readlink -f "$0")")
if [ "${1-}" = run ] && [ -f "$root/watcher/bin/acm-agent" ]; then
    exec "$root/$(readlink "$root/watcher")/bin/acm-agent" watch-upgrade --root "$root" -- "$@"
fi
exec "$root/$(readlink "$root/current")/bin/acm-agent" "$@"
