#!/bin/sh
# Known vulnerabilities that this code reaches, as make lint looks for them. What is found fails. The tool and its database come over
# the network: where they cannot be had, one line says so, and nothing fails. GO, GOVULNCHECK and VULNDB come from the Makefile.
set -eu
go=${GO:-go}

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
# Installed and not run with go run, which would hide the exit status; with GOBIN, so that nothing is left in ~/go/bin.
if ! said=$(GOBIN=$bin "$go" install "$GOVULNCHECK" 2>&1); then
	echo "lint: no look for known vulnerabilities, $GOVULNCHECK cannot be had: $(echo "$said" | tail -n 1)"
	exit 0
fi
status=0
said=$("$bin/govulncheck" ${VULNDB:+-db "$VULNDB"} ./... 2>&1) || status=$?
case $status:$said in
0:*) ;;
3:*) # govulncheck's own for "found"
	echo "$said"
	echo "lint: known vulnerabilities: go get MODULE@VERSION for what stands after \"Fixed in\", or a newer Go for the standard library"
	exit 1
	;;
*"fetching vulnerabilities: "*)
	echo "lint: no look for known vulnerabilities, the database cannot be reached (VULNDB=URL names another): ${said##*: }"
	;;
*)
	echo "$said"
	echo "lint: govulncheck failed"
	exit 1
	;;
esac
