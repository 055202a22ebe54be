package cli

import (
	"errors"
	"os"

	"github.com/agenticverz/vaultexec/launcher"
)

// Main does what a command line asks for and returns the exit code. It takes the credentials out of the process's
// environment.
func Main(args []string) int {
	if launcher.IsStub(args) {
		return newUI(os.Stdout, launcher.NewMessages(os.Stderr)).fail(launcher.RunStub(args, os.Environ()))
	}
	return run(args, launcher.TakeEnviron())
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
	if errors.As(err, &exited) || err == nil {
		if failure := a.ui.written.failure(); failure != nil {
			err = failure
		}
	}
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
