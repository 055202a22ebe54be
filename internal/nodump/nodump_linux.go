// Package nodump makes this process undumpable from as early in its life as a Go program can: no core file, and nobody of the same
// user reads its memory, its first environment or its descriptors. It is imported for that alone. It imports nothing but syscall,
// because packages are initialized in the order of their imports and then of their names: before it come the runtime and some ten
// small ones, in the main function it would be a hundred. (What its user cannot read, the kernel makes undumpable in execve(2)
// already, which is why it is installed with mode 0711; not for root.)
package nodump

import "syscall"

func init() {
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0) // launcher.KeptDumpable tells when it is refused
}
