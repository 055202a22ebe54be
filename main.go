// Command vaultexec starts a program with secrets from HashiCorp Vault in its environment, and nowhere else.
package main

import (
	"errors"
	"io"
	"log"
	"os"
	"runtime"

	_ "github.com/agenticverz/vaultexec/internal/nodump"
	_ "github.com/agenticverz/vaultexec/internal/quit"
	"github.com/agenticverz/vaultexec/launcher"
)

// The main goroutine stays on the main thread: it forks, execs and reaps, and a parent-death signal is tied to the thread
// that forked.
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
	if launcher.IsStub(os.Args) {
		os.Exit(newUI(os.Stdout, launcher.NewMessages(os.Stderr)).fail(launcher.RunStub(os.Args, os.Environ())))
	}
	os.Exit(run(os.Args, launcher.TakeEnviron()))
}

// run turns the outcome into texts and an exit code.
func run(args, environ []string) int {
	a := newApp(environ, os.Stdout, os.Stderr)
	err := a.run(args)
	a.terminal.restore() // a signal may have ended it while a password was being typed
	defer a.messages.Flush()
	var killed *launcher.Killed
	var exited *launcher.Exited
	var stopped *interrupted
	switch {
	case err == nil:
		return 0
	case errors.As(err, &killed):
		a.messages.Flush()
		return launcher.Die(killed.Signal)
	case errors.As(err, &exited):
		return exited.Code
	case errors.As(err, &stopped):
		return launcher.Die(stopped.signal)
	}
	return a.ui.fail(err)
}
