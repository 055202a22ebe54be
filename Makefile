GO          ?= go
PREFIX      ?= /usr/local
DESTDIR     ?=
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK ?= golang.org/x/vuln/cmd/govulncheck@v1.9.0
# Where govulncheck asks; empty for vuln.go.dev.
VULNDB      ?=
# The last release line whose modules are all on proxy.golang.org.
NFPM        ?= github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2

.PHONY: build test test-fast lint vault bench session demo docs install dist image dist-check release clean

# Without the parser of Markdown that urfave/cli has for its own documentation: 0.4 ms at every start. And without net/http's copy of
# HTTP/2: vault/api brings golang.org/x/net's, which is used (internal/vault/client.go); 0.5 MB. From Go 1.27 on that one needs the other,
# and this tag has to go: TestReleaseSpeaksHTTP2 tells.
TAGS        ?= urfave_cli_no_docs,nethttpomithttp2

# One static binary without debug information; it runs in an image made FROM scratch.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -tags "$(TAGS)" -ldflags "-s -w" -o vaultexec .

# Everything that must hold before a change goes in. The Vault comes first, where its progress can be seen: go test shows
# nothing of a test that still runs.
test: lint vault
	@GO="$(GO)" sh tools/test.sh

# The inner loop: the packages, and each script on KV version 2; no race detector, and what go has cached counts. Two minutes at first.
test-fast: vault
	@$(GO) vet ./... && $(GO) test -short ./launcher ./internal/... && \
		$(GO) test -short -skip '^TestDeploy|^TestLeft|^TestScripts$$/^kv1$$' .

lint:
	@GO="$(GO)" STATICCHECK="$(STATICCHECK)" GOVULNCHECK="$(GOVULNCHECK)" VULNDB="$(VULNDB)" sh tools/lint.sh

# The server that tests, demo and benchmarks talk to, kept in ~/.cache/vaultexec; minutes at the first time.
vault:
	@$(GO) run ./tools/testvault

# Some minutes, on a machine that does nothing else; it needs a C compiler. BENCHFLAGS=-check ends with an error when a bar is
# missed, '-only launch,startup' measures these sections, -record writes the figures into README.md and docs/. Peers (envconsul,
# secret-init, tini, dumb-init) are looked for in the folders of BENCH_PEERS, then in PATH.
bench: vault
	@$(GO) run ./tools/bench -tags "$(TAGS)" $(BENCHFLAGS)

# The terminal session of the README and the pictures of the guide, recorded anew.
session: vault
	@$(GO) run ./tools/session docs

# Not go run: a SIGTERM would end go and leave the demo running. KEEP=1 leaves Vault and the app running until Ctrl-C.
demo:
	@$(GO) build -buildvcs=false -o dist/demo ./tools/demo && exec dist/demo $(if $(KEEP),-keep)

# The manual pages and the table of all options, from the table that --help is made of.
docs:
	@$(GO) test -run '^TestManual(OfCommands)?$$' ./internal/cli -update

SHARE        = $(DESTDIR)$(PREFIX)/share

# The program has mode 711: what its user cannot read, the kernel makes undumpable from execve(2) on (SECURITY.md).
install: build
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(SHARE)/man/man1" "$(SHARE)/bash-completion/completions" \
		"$(SHARE)/zsh/site-functions" "$(SHARE)/fish/vendor_completions.d"
	install -m 711 vaultexec "$(DESTDIR)$(PREFIX)/bin/vaultexec"
	install -m 644 docs/vaultexec.1 docs/man/*.1 "$(SHARE)/man/man1/"
	install -m 644 internal/cli/completion/vaultexec.bash "$(SHARE)/bash-completion/completions/vaultexec"
	install -m 644 internal/cli/completion/_vaultexec "$(SHARE)/zsh/site-functions/_vaultexec"
	install -m 644 internal/cli/completion/vaultexec.fish "$(SHARE)/fish/vendor_completions.d/vaultexec.fish"

# A release of the commit that is checked out, in dist/: archives, packages, the image, lists of materials, checksums.
dist:
	@$(GO) run ./tools/dist -tags "$(TAGS)" -nfpm "$(NFPM)" -image

# Of that the binaries for Linux and the image of them: an OCI archive for linux/amd64 and linux/arm64.
image:
	@$(GO) run ./tools/dist -tags "$(TAGS)" -platforms linux/amd64,linux/arm64 -image

# The same release twice, from two clones in different folders and with nothing compiled before: minutes. make test compares
# two builds of linux/amd64 that share a build cache.
dist-check:
	@DIST_CHECK=all $(GO) test -count=1 -timeout 60m -run '^TestDist$$' ./tools/dist

# A release up to where a person signs and uploads it: make release VERSION=0.2.0. It runs make test first, unless TESTED=1 says that
# it has passed. It commits the version; it tags nothing and pushes nothing.
release:
	@$(GO) run ./tools/release -version "$(VERSION)" -tags "$(TAGS)" -nfpm "$(NFPM)" $(if $(TESTED),-tested)

# The built Vault stays; it is in ~/.cache/vaultexec.
clean:
	rm -rf vaultexec dist bench.json
