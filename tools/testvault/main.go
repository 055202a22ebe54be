// Command testvault builds the Vault that tests, demo and benchmarks talk to, the plugins that some tests load into it, and the servers
// that keep a restart lock, unless they are there already, and prints Vault's path. make vault calls it, so that somebody can see the
// progress of a first build, which takes minutes: go test shows nothing of a test that is still running.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/agenticverz/vaultexec/internal/enginetest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

func main() {
	// So that an interrupted build leaves nothing behind.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	path, err := vaulttest.BinaryContext(ctx)
	if err == nil {
		err = vaulttest.BuildPlugins(ctx)
	}
	if err == nil {
		err = enginetest.BuildAll(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "testvault: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
