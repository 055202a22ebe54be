GO          ?= go
PREFIX      ?= /usr/local
DESTDIR     ?=
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build test lint vault bench session demo install clean

# Without the parser of Markdown that urfave/cli has for its own documentation: 0.4 ms at every start.
TAGS        ?= urfave_cli_no_docs

# One static binary without debug information; it runs in an image made FROM scratch.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -tags "$(TAGS)" -ldflags "-s -w" -o vaultexec .

# Everything that must hold before a change goes in. The Vault comes first, where its progress can be seen: go test shows
# nothing of a test that still runs.
test: lint vault
	@GO="$(GO)" sh tools/test.sh

lint:
	@GO="$(GO)" STATICCHECK="$(STATICCHECK)" sh tools/lint.sh

# The server that tests, demo and benchmarks talk to, kept in ~/.cache/vaultexec; minutes at the first time.
vault:
	@$(GO) run ./tools/testvault

# BENCHFLAGS=-check ends with an error when a bar is missed.
bench: vault
	@$(GO) run ./tools/bench $(BENCHFLAGS)

# The terminal session of the README, recorded anew.
session: vault
	@$(GO) run ./tools/session docs/session.svg

# Not go run: a SIGTERM would end go and leave the demo running.
demo:
	@$(GO) build -buildvcs=false -o dist/demo ./tools/demo && exec dist/demo

install: build
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 vaultexec "$(DESTDIR)$(PREFIX)/bin/vaultexec"

# The built Vault stays; it is in ~/.cache/vaultexec.
clean:
	rm -rf vaultexec dist bench.json
