package launcher

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stubName is argv[0] of vaultexec started as a stub that sets LISTEN_PID and WATCHDOG_PID to its own process ID and
// becomes the command. Only a process itself knows its ID before it runs; socket activation compares them
// (sd_listen_fds(3)).
const stubName = "vaultexec: starting the command"

// stub is what the name says beside that.
type stub struct {
	terminal bool // SIGTSTP is to be unblocked
	again    bool // a command ran before
}

func (s stub) name() string {
	name := stubName
	if s.again {
		name += " again"
	}
	if s.terminal {
		name += " in a terminal"
	}
	return name
}

func parseStub(argv0 string) (s stub, ok bool) {
	for _, s.again = range []bool{false, true} {
		for _, s.terminal = range []bool{false, true} {
			if argv0 == s.name() {
				return s, true
			}
		}
	}
	return stub{}, false
}

// pidVariables name the process that they are meant for.
var pidVariables = []string{"LISTEN_PID", "WATCHDOG_PID"}

func namesThisProcess(env []string) bool {
	self := fmt.Sprint(os.Getpid())
	for _, kv := range env {
		for _, name := range pidVariables {
			if kv == name+"="+self {
				return true
			}
		}
	}
	return false
}

// IsStub reports whether vaultexec was started by itself as the stub.
func IsStub(args []string) bool {
	if len(args) <= 2 {
		return false
	}
	_, ok := parseStub(args[0])
	return ok
}

// RunStub becomes the command args[1] with the arguments after it. It returns only if that failed.
func RunStub(args, environ []string) error {
	// A signal that is meant for the command may come before the command exists. It does then what it would do to the
	// command. Go would print a stack for SIGQUIT, swallow others, and lose what its handler has when execve comes.
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		if sig != perThread && !isIgnored(sig) {
			setDefault(sig)
		}
	}
	awaitHandlers()
	this, _ := parseStub(args[0])
	if this.terminal {
		unblock(unix.SIGTSTP)
	}
	path, argv, env := args[1], args[2:], renameProcess(environ)
	for deadline, delay := time.Now().Add(startRetry), 10*time.Millisecond; ; delay = min(2*delay, time.Second) {
		err := unix.Exec(path, argv, env)
		if !passing(err, this.again) || !time.Now().Before(deadline) {
			return startError(path, err)
		}
		time.Sleep(delay)
	}
}

// renameProcess has the variables that name the parent name this process. LISTEN_PIDFDID of systemd 259 says the same
// as LISTEN_PID for a process ID that is used again: the inode of a pidfd.
func renameProcess(environ []string) []string {
	parent, self := fmt.Sprint(os.Getppid()), fmt.Sprint(os.Getpid())
	env := make([]string, 0, len(environ))
	listens := slices.Contains(environ, "LISTEN_PID="+parent)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case value == parent && slices.Contains(pidVariables, name):
			kv = name + "=" + self
		case listens && name == "LISTEN_PIDFDID":
			id := pidfdID()
			if id == 0 { // it need not be there
				continue
			}
			kv = fmt.Sprintf("%s=%d", name, id)
		}
		env = append(env, kv)
	}
	return env
}
