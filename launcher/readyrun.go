package launcher

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// --ready exec:PROGRAM is run until it ends with 0. The main goroutine forks and reaps it: when warming.wantsRun
// delivers, it calls forkReady, and tells warming.exited how it has ended.

const (
	readyRunLimit = 10 * time.Second // of one run
	readyRunAgain = time.Second      // between the end of a run and the next
)

// readyEnv is what the program of --ready exec: gets: no name that Vault sets, and the command's process.
func readyEnv(inherited []string, fromVault func(name string) bool, pid int) []string {
	env := withoutSecrets(inherited, func(name string) bool { return fromVault(name) || name == readyPID })
	return append(env, readyPID+"="+strconv.Itoa(pid))
}

const readyPID = "VAULTEXEC_PID"

// forkReady starts the program, which is run like a hook.
func forkReady(name string, inherited, env []string) (hookRun, error) {
	return forkHelper(name, inherited, env, readyRunLimit)
}

// exited takes the end of a run of the program. late says that it was killed for taking too long.
func (w *warming) exited(status unix.WaitStatus, late bool) {
	text := statusText(status)
	if late {
		text = "killed after " + readyRunLimit.String() + ", which is the longest that it may take"
	}
	w.ranTo(status.Exited() && status.ExitStatus() == 0, text)
}

// notRun takes that the program could not be started. It is tried again.
func (w *warming) notRun(err error) { w.ranTo(false, err.Error()) }

func (w *warming) ranTo(ok bool, text string) {
	w.mu.Lock()
	w.is.ran, w.is.last = ok, text
	w.mu.Unlock()
	if !ok {
		w.next.Reset(readyRunAgain)
	}
	w.wake()
}
