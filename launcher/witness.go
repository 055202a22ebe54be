package launcher

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A key of the terminal that ends a command (Ctrl-C, Ctrl-\, the terminal's own end) goes to the foreground group,
// which is the command's and not vaultexec's. A command that catches it may exit with any code, and with 1 it looks
// like one that fails with its new secrets. So while a command on a terminal is in its probation, a process of ours
// lives in its group. It does nothing, and dies of what is sent to the whole group: its end is the witness of the key.
type witness struct {
	pid int // 0 while there is none
	saw bool
}

// witnessName is argv[0] of the witness, and what ps shows.
const witnessName = "vaultexec: watching for Ctrl-C"

// IsWitness reports whether vaultexec was started by itself as the witness.
func IsWitness(args []string) bool { return len(args) == 1 && args[0] == witnessName }

// RunWitness waits for a signal.
func RunWitness() {
	closeInherited()
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		if sig != perThread && !isIgnored(sig) {
			setDefault(sig)
		}
	}
	for {
		_ = pause()
	}
}

// begin starts a witness in a group. That it cannot is no failure: the key is taken for a failure of the command then.
func (w *witness) begin(group int) {
	w.end()
	w.saw = false
	sys := &syscall.SysProcAttr{Setpgid: true, Pgid: group}
	if !setParentDeath(sys, unix.SIGKILL) { // or it would outlive vaultexec
		return
	}
	if pid, err := ownProcess([]string{witnessName}, 0, sys); err == nil {
		w.pid = pid
	}
}

// end ends the witness. It is reaped as every child is.
func (w *witness) end() {
	if w.pid != 0 {
		_ = unix.Kill(w.pid, unix.SIGKILL)
		w.pid = 0
	}
}

// ended notes how the witness ended. It never exits by itself, but Go does for a SIGQUIT before main.
func (w *witness) ended(status unix.WaitStatus) {
	w.pid = 0
	w.saw = w.saw || status.Exited() || status.Signaled() && isKey(status.Signal())
}

func isKey(sig syscall.Signal) bool {
	return sig == unix.SIGINT || sig == unix.SIGQUIT || sig == unix.SIGHUP
}

// asked ends the witness and reports whether a key was seen. The kernel sends a key's signal to the whole group at
// once. So the witness is dead or dying of it, and a further SIGKILL changes nothing about how it ends. Or the key
// still waits for the processor, which /proc tells. Or Go, which has handlers there in the first milliseconds, is about
// to end it.
func (w *witness) asked() bool {
	if w.pid == 0 {
		return w.saw
	}
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		pending, handled := w.look()
		w.saw = w.saw || pending
		if !handled || time.Since(begun) > moment {
			break
		}
	}
	_ = unix.Kill(w.pid, unix.SIGKILL)
	var status unix.WaitStatus
	for {
		switch _, err := unix.Wait4(w.pid, &status, 0, nil); err {
		case unix.EINTR:
			continue
		case nil:
			w.ended(status)
		}
		w.pid = 0
		return w.saw
	}
}

// look reads from /proc whether a key waits for the witness, and whether it has a handler for one still.
func (w *witness) look() (pending, handled bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil {
		return false, false
	}
	const keys = 1<<(unix.SIGINT-1) | 1<<(unix.SIGQUIT-1) | 1<<(unix.SIGHUP-1)
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		set, _ := strconv.ParseUint(value, 16, 64)
		switch name {
		case "SigPnd", "ShdPnd":
			pending = pending || set&keys != 0
		case "SigCgt":
			handled = set&keys != 0
		}
	}
	return pending, handled
}
