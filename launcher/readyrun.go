package launcher

import (
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// --ready exec:PROGRAM is run until it ends with 0. The main goroutine forks and reaps it: when warming.wantsRun
// delivers, it calls forkReady, and tells warming.exited how it has ended.

const (
	readyRunLimit = 10 * time.Second // of one run
	readyRunAgain = time.Second      // between the end of a run and the next
)

// readyEnv is what the program of --ready exec: gets: what the command inherits, without credentials and without every
// name that Vault sets, and the command's process.
func readyEnv(inherited []string, fromVault func(name string) bool, pid int) []string {
	rest, _ := environ.WithoutCredentials(inherited)
	env := slices.DeleteFunc(rest, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return fromVault(name) || name == readyPID
	})
	return append(env, readyPID+"="+strconv.Itoa(pid))
}

const readyPID = "VAULTEXEC_PID"

// forkReady starts the program. Like a hook it leads a session of its own, and its output goes to standard error.
func forkReady(name string, inherited, env []string) (hookRun, error) {
	p, err := findProgram([]string{name}, inherited)
	if err != nil {
		return hookRun{}, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return hookRun{}, startError("/dev/null", err)
	}
	defer unix.Close(null)
	sys := &syscall.SysProcAttr{Setsid: true}
	setParentDeath(sys, unix.SIGKILL)
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{uintptr(null), 2, 2}, Sys: sys}
	pid, err := syscall.ForkExec(p.path, p.argv, attr)
	if err != nil {
		return hookRun{}, startError(p.path, err)
	}
	return hookRun{pid: pid, timer: time.NewTimer(readyRunLimit)}, nil
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
