#!/bin/sh
# Starts your server, ./server without an argument, and beside it the next one when the secret app has changed.
cd "$(dirname "$0")" || exit
[ $# -gt 0 ] || set -- ./server
exec vaultexec --path app --watch --listen "127.0.0.1:${PORT:-8000}" --restart-order start-first -- "$@"
