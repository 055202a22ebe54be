//go:build !linux

package launcher

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// Outside of Linux vaultexec is a laptop tool: it runs, forwards signals and restarts, but nothing there is a
// subreaper, tells the child of its parent's death, or keeps a process from being traced by its own user.

// SetDumpable does nothing here.
func SetDumpable(bool) {}

func setDumpable(bool) {}

// KeptDumpable is about a promise that is not made here.
func KeptDumpable() bool { return false }

// isDumpable has the signals caught that would dump core.
func isDumpable() bool { return true }

type leftSignals map[syscall.Signal]struct{}

func (leftSignals) leave(syscall.Signal) {}
func (leftSignals) take(syscall.Signal)  {}

// TakeEnviron returns the environment of this process; nothing is taken out of it here.
func TakeEnviron() []string { return os.Environ() }

// HideArgument does nothing: where the arguments lie is not known here.
func HideArgument(string) {}

func setParentDeath(*syscall.SysProcAttr, syscall.Signal) bool { return true }

// CatchQuit does nothing: Go has had SIGQUIT all the time.
func CatchQuit() {}

// ListenStays says that a run with --listen cannot become the command: its sockets would have to go where Go's runtime
// has descriptors of its own, which every thread uses.
const ListenStays = true

func ownDescriptors() {}

func dupTo(fd, to int) error { return unix.Dup2(fd, to) }

// holdFlags open a file to keep its number.
const holdFlags = unix.O_RDONLY

func becomeSubreaper() {}

func isSubreaper() bool { return false }

func childrenLeft() error { return unix.ECHILD }

func pidfdID() uint64 { return 0 }

func releaseProgram() {}

func isIgnored(sig syscall.Signal) bool { return signal.Ignored(sig) }

// setDefault goes through os/signal, which may lose a signal that arrives in the moment before an exec.
func setDefault(sig syscall.Signal) { signal.Reset(sig) }

func awaitHandlers() {}

func closeRange(uint, uint) error { return unix.ENOSYS }

// canGuard: nothing here starts this program again when its file was replaced.
func canGuard() bool { return false }

// pause: there is no witness here, which would need /proc.
func pause() error { time.Sleep(time.Hour); return nil }

// stopSelf: signal.Reset would not bring the default action back, Go keeps its handler and ignores the signal.
func stopSelf(syscall.Signal) {
	if !orphaned() {
		_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
		time.Sleep(10 * time.Millisecond) // the signal may be taken by another thread
	}
}

func unblock(syscall.Signal) {}

// isBlocked keeps the stub away: there is no /proc here.
func isBlocked(syscall.Signal) bool { return true }

// withBlocked ignores sig meanwhile, which a child started just then would inherit; none is.
func withBlocked(sig syscall.Signal, f func()) {
	signal.Ignore(sig)
	f()
	signal.Reset(sig) // it is caught anew with the next child
}

const (
	lastSignal syscall.Signal = 31
	getTermios                = unix.TIOCGETA
	setTermios                = unix.TIOCSETA
	fionread                  = 0x4004667f // ttycom.h
)

// pipe makes a pipe that no other program inherits.
func pipe(p *[2]int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Pipe(p[:]); err != nil {
		return err
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	return nil
}

func blockHere(syscall.Signal) {}

// A terminal of the command's own, for --mask, is made on Linux only; elsewhere --mask refuses a terminal.

func openPty() (master, slave int, err error) { return -1, -1, unix.ENOTSUP }

func (l *launch) relayed() (int, bool) { return 0, false }

func (l *launch) runRelay(int) error { return nil }

func (in *inner) enter() error { return nil }

func (in *inner) stop() bool { return false }

func (in *inner) inFront() bool { return true }

type process struct {
	pid, parent, group, session int
	name                        string
	dead                        bool
}

// processes cannot be listed without cgo or ps(1) here.
func processes() []process { return nil }

// liveMembers cannot tell zombies from the living here.
func liveMembers(group int) []process {
	if unix.Kill(-group, 0) != nil {
		return nil
	}
	return []process{{pid: group, group: group, name: "process group"}}
}

// checkMemoryFiles leaves it to sealedFile.
func checkMemoryFiles() error { return nil }

// sealedFile: there are no sealed files in memory here.
func sealedFile(string, string, environ.Access) (int, error) { return -1, unix.ENOSYS }

// inMemory: no file system can be told from a disk here; --allow-disk takes any.
func inMemory(int) (bool, error) { return false, nil }

// openUnnamed: no file has no name here.
func openUnnamed(int) (int, error) { return -1, unix.ENOSYS }

func linkUnnamed(int, int, string) error { return unix.ENOSYS }

// monotonic cannot be had here; there is no systemd either.
func monotonic() (time.Duration, bool) { return 0, false }
