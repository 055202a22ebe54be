// Command vault is the real HashiCorp Vault server and CLI, built from its Go module.
//
// The tests, the demo and the benchmarks of vaultexec talk to it. It lives in a module of its own so that Vault's
// several hundred dependencies never reach the go.mod of the product. Build it with CGO_ENABLED=0 and -tags minimal:
// raft and in-memory storage, kv, approle, cert, jwt, userpass, pki and transit, which is all that the tests need.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
