package launcher

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Signal is a signal's number.
type Signal = syscall.Signal

// Killed says that a signal ends vaultexec: its own, or that of its child, which it passes on.
type Killed struct {
	Signal syscall.Signal
}

// Error names the signal.
func (k *Killed) Error() string { return fmt.Sprintf("ended by %s", SignalName(k.Signal)) }

// Exited says that the child ended with a code of its own.
type Exited struct {
	Code int
}

// Error tells the code.
func (e *Exited) Error() string { return fmt.Sprintf("the command exited with %d", e.Code) }

// deadly end vaultexec while there is no child. SIGQUIT is among them because Go would print a stack.
var deadly = []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}

// signals receives this process's signals. There is one for the life of the process. Only the main goroutine reads it,
// which also forks and execs, so that nothing is lost in between.
type signals struct {
	ch      chan os.Signal
	second  chan os.Signal          // registered for the same and never read; see stopForExec
	ignored map[syscall.Signal]bool // inherited as ignored, and left so: nohup works
	caught  []syscall.Signal
	left    leftSignals   // to the kernel
	rest    chan struct{} // closed when catchMeanwhile has caught its signals; nil where it was not called
}

func newSignals() *signals {
	s := &signals{ch: make(chan os.Signal, 512), second: make(chan os.Signal, 1), ignored: map[syscall.Signal]bool{},
		left: leftSignals{}}
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN,
		unix.SIGTTOU} {
		// Of the ignored signals Go keeps these six until they are caught.
		s.ignored[sig] = isIgnored(sig)
	}
	return s
}

// catchDeadly begins to catch the signals that end vaultexec, and SIGPIPE, so that a vanished reader of its messages
// does not end it. The terminal's stop signals keep their default until a child exists: Ctrl-Z stops a vaultexec that
// waits for Vault.
func catchDeadly() *signals {
	s := newSignals()
	s.catch(deadly...)
	s.catch(unix.SIGPIPE)
	return s
}

// leaveDeadly leaves the signals that end vaultexec to the kernel, which ends it at once. It is for a run that has
// nothing to put in order then. Every signal that is caught costs the main thread, which is locked, two changes of
// thread now and as many before the exec. Together that is 0.8 ms of a start of 10 ms, and four times that beside other
// load.
func leaveDeadly() *signals {
	s := newSignals()
	for _, sig := range deadly {
		if !s.ignored[sig] {
			s.left.leave(sig)
		}
	}
	return s
}

// survivePipe keeps SIGPIPE from ending vaultexec when the reader of its messages is gone.
func survivePipe() { signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE) }

// messages is a log that calls survivePipe before its first message. It is for a run that begins with leaveDeadly and
// mostly says nothing.
type messages struct {
	slog.Handler
	first *sync.Once
}

// Handle implements slog.Handler.
func (m messages) Handle(ctx context.Context, r slog.Record) error {
	m.first.Do(survivePipe)
	return m.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (m messages) WithAttrs(attrs []slog.Attr) slog.Handler {
	return messages{m.Handler.WithAttrs(attrs), m.first}
}

// WithGroup implements slog.Handler.
func (m messages) WithGroup(name string) slog.Handler {
	return messages{m.Handler.WithGroup(name), m.first}
}

// isDeadly reports whether sig ends vaultexec while there is no child.
func isDeadly(sig syscall.Signal) bool { return slices.Contains(deadly, sig) }

// isCrash reports whether sig is what the kernel ends a program with that did something wrong. One that somebody sends
// ends vaultexec like any other program while there is no child.
func isCrash(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGSEGV, unix.SIGSYS, unix.SIGTRAP:
		return true
	}
	return false
}

// catchMeanwhile does, while Vault answers, what a child needs and what takes time: it catches what a child gets, and
// makes the reserve of threads. Each signal that the runtime begins to catch costs two changes of thread, 1.3 ms for
// all. Before there is a child nobody acts on these signals (watched), as Go's own handlers do nothing then. The
// terminal's stop signals are left out, so that Ctrl-Z stops a vaultexec that waits for Vault.
func (s *signals) catchMeanwhile() {
	s.rest = make(chan struct{})
	go func() {
		defer close(s.rest)
		for sig := range forwarded {
			if sig != unix.SIGTSTP && sig != unix.SIGTTIN && sig != unix.SIGTTOU && !isDeadly(sig) && !s.ignored[sig] {
				s.notify(sig)
			}
		}
		reserveThreads()
	}()
}

// catchAll catches everything that can be caught and forwarded.
func (s *signals) catchAll() {
	if s.rest != nil {
		<-s.rest
	}
	for sig := range forwarded {
		if !slices.Contains(s.caught, sig) {
			s.catch(sig)
		}
	}
}

// forwarded yields the signals that a child gets.
func forwarded(yield func(syscall.Signal) bool) {
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		if IsCaught(sig) && !yield(sig) {
			return
		}
	}
}

// IsCaught reports whether vaultexec gets to see a signal at all while it supervises. SIGCHLD has a channel of its own,
// SIGURG is the Go runtime's, and of SIGPROF and 32 to 34 os/signal delivers nothing (32 and 33 are the C library's).
func IsCaught(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPROF, 32, 33, 34:
		return false
	}
	return true
}

func (s *signals) catch(sigs ...syscall.Signal) {
	for _, sig := range sigs {
		if !s.ignored[sig] {
			s.caught = append(s.caught, sig)
			s.notify(sig)
			s.left.take(sig)
		}
	}
}

func (s *signals) notify(sig syscall.Signal) {
	signal.Notify(s.ch, sig)
	signal.Notify(s.second, sig)
}

// release lets go of all signals.
func (s *signals) release() {
	signal.Stop(s.ch)
	signal.Stop(s.second)
}

// stopForExec gives every signal its default action back and returns a deadly one that was caught before, or 0.
//
// Of signal.Stop only the waiting for deliveries that are under way is needed. It would also disable each signal in the
// runtime, by way of another thread: 0.2 ms apiece. The second channel keeps it from that.
func (s *signals) stopForExec() syscall.Signal {
	if len(s.caught) == 0 {
		return 0
	}
	for _, sig := range s.caught {
		setDefault(sig)
	}
	awaitHandlers()
	signal.Stop(s.ch)
	for {
		select {
		case sig := <-s.ch:
			if isDeadly(sig.(syscall.Signal)) {
				return sig.(syscall.Signal)
			}
		default:
			return 0
		}
	}
}

// Die ends this process by sig, as a child that it stands for ended, so that a shell, a loop or systemd sees the same
// as without vaultexec. No core is written: it would hold secrets. It returns the exit code 128+sig as PID 1, which the
// kernel protects from signals without a handler, and where the signal does not work.
func Die(sig syscall.Signal) int {
	if os.Getpid() != 1 {
		setDumpable(false)
		setDefault(sig)
		unblock(sig)
		if unix.Kill(os.Getpid(), sig) == nil {
			time.Sleep(time.Second) // never over: the signal arrives before kill returns, or at another thread at once
		}
	}
	return 128 + int(sig)
}

// StopSelf is what Ctrl-Z does: this process stops until SIGCONT, unless nobody could send it (the kernel's rule for
// orphaned process groups).
func StopSelf() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stopSelf(unix.SIGTSTP)
}

// SignalName returns "SIGTERM" and the like, "SIGRTMIN+3" for real-time signals.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	if sig >= rtMin {
		return fmt.Sprintf("SIGRTMIN+%d", sig-rtMin)
	}
	return fmt.Sprintf("signal %d", int(sig))
}

// perThread is the signal by which Go's runtime reaches each of its threads (awaitHandlers). Without its handler it is
// deadly.
const perThread syscall.Signal = 33

// rtMin is the C library's SIGRTMIN.
const rtMin syscall.Signal = 34

// ParseSignal reads a signal as kill(1) does: SIGTERM, TERM, term, 15, RTMIN+3.
func ParseSignal(s string) (syscall.Signal, bool) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return syscall.Signal(n), n > 0 && syscall.Signal(n) <= lastSignal
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		n := uint64(0)
		if rest != "" {
			var err error
			if n, err = strconv.ParseUint(strings.TrimPrefix(rest, "+"), 10, 8); err != nil || rest[0] != '+' {
				return 0, false
			}
		}
		return rtMin + syscall.Signal(n), rtMin+syscall.Signal(n) <= lastSignal
	}
	sig := unix.SignalNum("SIG" + name)
	return sig, sig != 0
}
