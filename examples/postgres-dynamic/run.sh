#!/bin/sh
# Starts your program, ./app without an argument, with a login of its own, and anew with another one before that ends.
cd "$(dirname "$0")" || exit
[ $# -gt 0 ] || set -- ./app
exec vaultexec --env PGUSER=/database/creds/app#username --env PGPASSWORD=/database/creds/app#password -- "$@"
