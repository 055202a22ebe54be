// Package nodump makes this process undumpable from as early in its life as a Go program can. It writes no core file,
// and nobody of the same user reads its memory, its first environment or its descriptors. The package is imported for
// that alone.
//
// It imports nothing but syscall, because packages are initialized in the order of their imports and then of their
// names. Before it come the runtime and some ten small packages; in the main function it would be a hundred. (The
// kernel already makes undumpable in execve(2) what its user cannot read, which is why vaultexec is installed with mode
// 0711; not for root.)
package nodump

import "syscall"

func init() {
	// launcher.KeptDumpable tells when it is refused.
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0)
}
