// Command vaultexec starts a program with secrets from HashiCorp Vault in its environment, and nowhere else.
package main

import (
	"io"
	"log"
	"os"
	"runtime"

	"github.com/agenticverz/vaultexec/internal/cli"
	_ "github.com/agenticverz/vaultexec/internal/nodump"
	_ "github.com/agenticverz/vaultexec/internal/quit"
	"github.com/agenticverz/vaultexec/launcher"
)

// The main goroutine stays on the main thread. It forks, execs and reaps, and a parent-death signal is tied to the
// thread that forked.
func init() { runtime.LockOSThread() }

func main() {
	launcher.SetDumpable(false)
	// GODEBUG=http2debug=1, set for a Go program that is started, would make the HTTP client print the token here.
	log.SetOutput(io.Discard)
	if launcher.IsGuard(os.Args) {
		launcher.RunGuard(os.Args)
		return
	}
	if launcher.IsWitness(os.Args) {
		launcher.RunWitness()
	}
	os.Exit(cli.Main(os.Args))
}
