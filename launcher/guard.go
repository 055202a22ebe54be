package launcher

import (
	"encoding/binary"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The command has a process group of its own, so that a SIGKILL for vaultexec's group does not reach it: supervisord's
// killasgroup, GNU timeout -k, a CI runner. The kernel then sends the command the stop signal (the parent-death
// signal). A command that ignores it would run on, with its secrets and its port. So a guard looks on: a second
// process, in a session of its own, that holds the other end of a pipe. When vaultexec is gone without a word, the
// guard gives the command's group the stop timeout and then SIGKILL. No guard is needed where the child shares
// vaultexec's group, or where vaultexec is PID 1, with which the kernel ends everything.
type guard struct {
	pid  int // 0 while there is none
	pipe int // the end that vaultexec writes the command's group to
}

// guardName is argv[0] of the guard, and what ps shows. The stop timeout follows.
const guardName = "vaultexec: guarding the command"

// settleDelay is how long a run goes on before its command gets a guard, and before memory is given back. Most commands
// that end sooner are small ones of scripts, and are not to wait for that.
const settleDelay = 200 * time.Millisecond

// IsGuard reports whether vaultexec was started by itself as the guard.
func IsGuard(args []string) bool { return len(args) == 2 && args[0] == guardName }

// RunGuard waits for the end of vaultexec and ends the command's group after the stop timeout. Standard input is the
// pipe.
func RunGuard(args []string) {
	closeInherited()
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return
	}
	var groups []int
	for b := make([]byte, 8); ; {
		n, err := unix.Read(0, b)
		switch {
		case err == unix.EINTR:
			continue
		case n == len(b):
			groups = []int{int(int32(binary.NativeEndian.Uint32(b))), int(int32(binary.NativeEndian.Uint32(b[4:])))}
			continue
		}
		break
	}
	for end := time.Now().Add(limit); ; time.Sleep(groupPoll) {
		groups = slices.DeleteFunc(groups, func(g int) bool { return g <= 1 || unix.Kill(-g, 0) == unix.ESRCH })
		if len(groups) == 0 {
			return
		}
		if time.Now().After(end) {
			for _, g := range groups {
				_ = unix.Kill(-g, unix.SIGKILL)
			}
			return
		}
	}
}

// closeInherited closes what a process of ours was given and has no use for: a lock, a socket or a pipe that others
// wait for.
func closeInherited() { _ = closeRange(3, math.MaxInt32) }

// ownProcess starts this program again for a purpose of vaultexec's own.
func ownProcess(argv []string, stdin uintptr, sys *syscall.SysProcAttr) (int, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(null)
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null)}
	if stdin != 0 {
		files[0] = stdin
	}
	// One processor: fewer threads, and the runtime keeps no file open to look for more.
	return syscall.ForkExec(selfExe, argv, &syscall.ProcAttr{Env: []string{"GOMAXPROCS=1"}, Files: files, Sys: sys})
}

// settleDown makes a run ready for a long time: a guard for the command, and little memory.
func (s *supervisor) settleDown() {
	if s.guarded {
		s.guard.begin(s.Supervision.StopTimeout, s.child.group(), s.other.group())
	}
	if s.watch != nil {
		debug.FreeOSMemory()
	}
	releaseProgram()
}

// needsGuard is asked once, before the first command.
func (s *supervisor) needsGuard() bool { return os.Getpid() != 1 && !s.sharedGroup() && canGuard() }

// begin starts the guard. That it cannot is no failure.
func (g *guard) begin(limit time.Duration, serves, other int) {
	r, w, err := openPipe()
	if err != nil {
		return
	}
	defer unix.Close(r)
	_ = unix.SetNonblock(w, true)
	_, _ = unix.Write(w, groupBytes(serves, other)) // before there is a guard: it knows from its first moment
	pid, err := ownProcess([]string{guardName, limit.String()}, uintptr(r), &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		unix.Close(w)
		return
	}
	g.pid, g.pipe = pid, w
}

func groupBytes(serves, other int) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(int32(serves)))
	return binary.NativeEndian.AppendUint32(b, uint32(int32(other)))
}

// tell says which groups are those of commands; 0 for none, when its number may be another's soon.
func (g *guard) tell(serves, other int) {
	if g.pid != 0 {
		_, _ = unix.Write(g.pipe, groupBytes(serves, other))
	}
}

// tellGuard says which groups there are now.
func (s *supervisor) tellGuard() { s.guard.tell(s.child.group(), s.other.group()) }

// end ends the guard: there is nothing left to guard.
func (g *guard) end() {
	if g.pid != 0 {
		_ = unix.Kill(g.pid, unix.SIGKILL)
		g.ended()
	}
}

// ended: the guard has ended, or is about to.
func (g *guard) ended() {
	unix.Close(g.pipe)
	g.pid = 0
}
