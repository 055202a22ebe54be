module github.com/agenticverz/vaultexec

go 1.26

require (
	github.com/hashicorp/vault/api v1.23.0
	github.com/urfave/cli/v2 v2.27.7
	golang.org/x/sys v0.38.0
)

// tests only
require github.com/rogpeppe/go-internal v1.14.1
