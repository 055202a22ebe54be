package launcher

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct sigaction on 64-bit Linux but MIPS (include/linux/signal_types.h).
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	sigDfl = 0
	sigIgn = 1
)

// rtSigaction goes past os/signal, which keeps books of its own and cannot set a plain SIG_DFL.
func rtSigaction(sig syscall.Signal, set, old *sigaction) {
	const setSize = 8
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(old)), setSize, 0, 0)
}

func isIgnored(sig syscall.Signal) bool {
	var old sigaction
	rtSigaction(sig, nil, &old)
	return old.handler == sigIgn
}

// setDefault gives sig its default action.
func setDefault(sig syscall.Signal) { rtSigaction(sig, &sigaction{handler: sigDfl}, nil) }

// leftSignals are those that have their default action, with Go's handlers for them. The runtime does not know.
type leftSignals map[syscall.Signal]sigaction

func (l leftSignals) leave(sig syscall.Signal) {
	var old sigaction
	rtSigaction(sig, &sigaction{handler: sigDfl}, &old)
	if old.handler == sigDfl { // internal/quit
		old = goHandler()
	}
	l[sig] = old
}

// take gives a signal that was left back to Go.
func (l leftSignals) take(sig syscall.Signal) {
	if old, ok := l[sig]; ok {
		rtSigaction(sig, &old, nil)
		delete(l, sig)
	} else if sig == unix.SIGQUIT {
		CatchQuit()
	}
}

// CatchQuit gives SIGQUIT back to Go, from which internal/quit has taken it. The runtime does not know that it is gone,
// and signal.Notify would not bring it back.
func CatchQuit() {
	var now sigaction
	if rtSigaction(unix.SIGQUIT, nil, &now); now.handler == sigDfl {
		now = goHandler()
		rtSigaction(unix.SIGQUIT, &now, nil)
	}
}

// goHandler is the runtime's, which is the same for every signal. It always has SIGSEGV.
func goHandler() (a sigaction) {
	rtSigaction(unix.SIGSEGV, nil, &a)
	return a
}

// closeRange closes all descriptors from first to last.
func closeRange(first, last uint) error { return unix.CloseRange(first, last, 0) }

// canGuard: /proc/self/exe starts this program again.
func canGuard() bool { return executable(selfExe) == nil }

// pause waits until a handler has run, which is never where there is none.
func pause() error { return unix.Pause() }

// awaitHandlers returns when every handler that the kernel has entered, on whatever thread, has run. A handler may have
// the signal already and not have run: its thread can have lost the processor at the very first instruction. The
// runtime makes each thread do a system call by sending it a signal, which handlers keep waiting, since they block all
// others. With cgo it cannot do so; only the race detector's build has cgo.
func awaitHandlers() { _, _, _ = syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0) }

// withDefault calls f while sig has its default action.
func withDefault(sig syscall.Signal, f func()) {
	var old sigaction
	rtSigaction(sig, &sigaction{handler: sigDfl}, &old)
	f()
	rtSigaction(sig, &old, nil)
}

// raise sends sig to this thread, so that it acts before the next statement.
func raise(sig syscall.Signal) { _ = unix.Tgkill(unix.Getpid(), unix.Gettid(), sig) }

// stopSelf stops this process as sig does by default: until SIGCONT, and not at all where nobody could send it. It must
// be called on a locked thread.
func stopSelf(sig syscall.Signal) { withDefault(sig, func() { raise(sig) }) }

// unblock takes sig out of the mask of this thread.
func unblock(sig syscall.Signal) { changeMask(unix.SIG_UNBLOCK, sig) }

// withBlocked calls f while sig is blocked on this thread, which must be locked.
func withBlocked(sig syscall.Signal, f func()) {
	changeMask(unix.SIG_BLOCK, sig)
	f()
	changeMask(unix.SIG_UNBLOCK, sig)
}

// blockHere blocks sig on this thread, which must be locked and end with its goroutine.
func blockHere(sig syscall.Signal) { changeMask(unix.SIG_BLOCK, sig) }

// isBlocked reports whether sig is blocked on this thread, which must be locked.
func isBlocked(sig syscall.Signal) bool {
	var none, old unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &none, &old)
	return old.Val[(sig-1)/64]&(1<<((sig-1)%64)) != 0
}

func changeMask(how int, sig syscall.Signal) {
	var set unix.Sigset_t
	set.Val[(sig-1)/64] |= 1 << ((sig - 1) % 64)
	_ = unix.PthreadSigmask(how, &set, nil)
}

// lastSignal is the kernel's _NSIG.
const lastSignal syscall.Signal = 64
