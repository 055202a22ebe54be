#!/bin/sh
# Unit tests, scripts and process tests with the race detector, as make test runs them.
set -eu
go=${GO:-go}

# Tests that need one of these are left out where it is missing, and fail with CI=true. Servers lie beside PATH on Debian.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
for dir in /usr/lib/postgresql/*/bin; do
	PATH=$PATH:$dir
done
there() { command -v "$1" >/dev/null; }
missing=
for program in bash busybox chromium curl dpkg-deb dumb-init fish git groff gunicorn haproxy hypercorn jq less make mandoc nginx node npm podman \
	postgres puma python3 qemu-aarch64-static redis-server rpm runc slapd socat strace tini uvicorn vim zsh; do
	there "$program" || { [ "$program" = vim ] && there vim.tiny; } || missing="$missing $program"
done
if [ -n "$missing" ]; then
	echo "test: not installed, so that tests with them are left out:$missing"
fi

race=-race
if ! command -v "$("$go" env CC)" >/dev/null; then
	# The race detector needs cgo, and cgo a C compiler.
	echo "test: no C compiler ($("$go" env CC)), so that the tests run without the race detector"
	[ "${CI-}" != true ] || exit 1
	race=
fi

VAULTEXEC_SKIPPED=$(mktemp)
export VAULTEXEC_SKIPPED
trap 'rm -f "$VAULTEXEC_SKIPPED"' EXIT

# The race detector looks where goroutines share something: in the packages that start them, and in the program that the tests
# of the others start. A test binary that does no more than start it and look at it is left without: that costs several times the
# processor time and finds nothing in the program (house_test.go holds the list).
alone=$(sed 's/ *#.*//' tools/alone.txt | tr '\n' ' ')
together=
for package in $("$go" list ./...); do
	path=./${package#*/*/*/}
	[ "$path" != "./$package" ] || path=.
	case " $alone " in
	*" $path "*) ;;
	*) together="$together $path" ;;
	esac
done

# Not from the cache: what is tested is a machine with processes and servers, not only the code. Four tests at
# a time, on two processors too, because half of them wait at any moment: for a child, a clock, a Vault.
status=0
# shellcheck disable=SC2086 # they are lists of words
CGO_ENABLED=${race:+1} "$go" test ${race:+"$race"} -count=1 -parallel 4 -timeout 25m $together || status=$?
# A fleet has a hundred processes and two servers of its own: nothing else runs beside it.
others=
for path in $alone; do
	[ "$path" = ./e2e/fleet ] || others="$others $path"
done
# shellcheck disable=SC2086
VAULTEXEC_TEST_RACE=${race:+1} "$go" test -count=1 -parallel 4 -timeout 25m $others || status=$?
"$go" test -count=1 -parallel 4 -timeout 25m ./e2e/fleet || status=$?

if [ -s "$VAULTEXEC_SKIPPED" ]; then
	echo "test: $(sort -u "$VAULTEXEC_SKIPPED" | wc -l) tests were left out:"
	sort -u "$VAULTEXEC_SKIPPED" | sed 's/^/  /'
elif [ "$status" -eq 0 ]; then
	echo "test: ok, none left out for want of a program"
fi
exit "$status"
