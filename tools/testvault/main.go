// Command testvault builds the Vault that tests, demo and benchmarks talk to, and the plugins that some tests load into it,
// unless they are there already, and prints Vault's path. make vault calls it, so that the minutes of a first build pass
// where progress can be seen: go test shows nothing of a test that is still running.
package main

import (
	"fmt"
	"os"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func main() {
	path, err := vaulttest.Binary()
	if err == nil {
		err = vaulttest.BuildPlugins()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "testvault: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
