package launcher

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// SetDumpable decides whether this process may dump core, be traced by its own user, and be read through /proc. vaultexec
// switches it off first thing; execve(2) gives the command its own state back. Core limits are left alone, the command would
// inherit them.
func SetDumpable(on bool) { setDumpable(on) }

func setDumpable(on bool) {
	arg := uintptr(0)
	if on {
		arg = 1
	}
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, arg, 0, 0, 0)
}

// setParentDeath has the kernel send sig to the child when vaultexec dies without having ended it.
func setParentDeath(sys *syscall.SysProcAttr, sig syscall.Signal) { sys.Pdeathsig = sig }
