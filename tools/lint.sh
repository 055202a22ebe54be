#!/bin/sh
# gofmt, go vet, staticcheck and govulncheck, as make lint runs them. GO, STATICCHECK and GOVULNCHECK come from the Makefile.
set -eu
go=${GO:-go}

unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	echo "lint: not formatted (run gofmt -w):"
	echo "$unformatted"
	exit 1
fi
"$go" vet ./...
# The other system that is promised to work compiles, tests included.
GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 "$go" vet ./...
# Pinned, and run from the module cache: a linter has no place in the product's go.mod.
"$go" run "$STATICCHECK" ./...
# The image has a module of its own, whose library knows the format.
"$go" -C tools/image vet ./...
"$go" -C tools/image run "$STATICCHECK" ./...
tools/vulncheck.sh
if command -v shellcheck >/dev/null; then
	shellcheck .ci/run tools/*.sh
elif [ "${CI-}" = true ]; then
	echo "lint: shellcheck is missing"
	exit 1
fi
echo "lint: ok"
