// Package quit leaves SIGQUIT to the kernel from as early in the life of this process as a Go program can: Go would
// print the stacks of its goroutines. The package is imported for that alone. It imports nothing but syscall, because
// packages are initialized in the order of their imports. Before it come the runtime and some ten small packages; in
// the main function it would be a hundred.
package quit

import (
	"syscall"
	"unsafe"
)

func init() {
	var byDefault [4]uint64 // the kernel's struct sigaction, with SIG_DFL
	const setSize = 8
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGQUIT),
		uintptr(unsafe.Pointer(&byDefault)), 0, setSize, 0, 0)
}
