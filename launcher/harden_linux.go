package launcher

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// SetDumpable decides whether this process may dump core, be traced by its own user, and be read through /proc.
// vaultexec switches it off first thing; execve(2) gives the command its own state back. Core limits are left alone:
// the command would inherit them.
func SetDumpable(on bool) { setDumpable(on) }

func setDumpable(on bool) {
	arg := uintptr(0)
	if on {
		arg = 1
	}
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, arg, 0, 0, 0)
}

// KeptDumpable reports whether the kernel has refused to make this process undumpable, as a seccomp filter can have it
// do.
func KeptDumpable() bool { return isDumpable() }

func isDumpable() bool {
	on, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return err != nil || on != 0
}

// setParentDeath has the kernel send sig to the child when vaultexec dies without having ended it, and reports whether
// it would. That is a courtesy, and no start depends on it. Where the kernel refuses it, as a seccomp filter can have
// it do, the child is started without. It is tried on this thread, with the value that the thread has: a child that was
// refused it could only fail, with an error that looks like the program's.
func setParentDeath(sys *syscall.SysProcAttr, sig syscall.Signal) bool {
	var now int32
	if unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&now)), 0, 0, 0) != nil ||
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(now), 0, 0, 0) != nil {
		return false
	}
	sys.Pdeathsig = sig
	return true
}

// TakeEnviron returns the environment of this process as it was at the start, and takes the credentials in it out of
// the process: os.Getenv does not find them any more, /proc/PID/environ does not show them, and the Go runtime, which
// has kept copies of its own, has none. The values are overwritten in place, since nothing else reaches them.
func TakeEnviron() []string {
	variables := os.Environ()
	for i, kv := range variables {
		name, value, _ := strings.Cut(kv, "=")
		if !environ.IsCredential(name) && !environ.HasPassword(name, value) {
			continue
		}
		variables[i] = strings.Clone(kv)
		os.Unsetenv(name)
		if environ.IsProxy(name) { // which net/http asks for
			os.Setenv(name, strings.Clone(value))
		}
		clear(unsafe.Slice(unsafe.StringData(value), len(value)))
	}
	for rest := environBlock(); len(rest) > 0; {
		var kv []byte
		kv, rest, _ = bytes.Cut(rest, []byte{0})
		name, value, _ := bytes.Cut(kv, []byte{'='})
		if environ.IsCredential(string(name)) || environ.HasPassword(string(name), string(value)) {
			clear(value)
		}
	}
	return variables
}

// HideArgument overwrites an argument of this process where everybody can read it, in /proc/PID/cmdline. The runtime
// does not copy os.Args, so they are that very place. Whoever shares the string has the stars, too: make a copy before.
func HideArgument(arg string) {
	if environBlock() == nil { // the arguments are not where they should be
		return
	}
	at := slices.IndexFunc(os.Args, func(a string) bool {
		return len(a) == len(arg) && unsafe.StringData(a) == unsafe.StringData(arg)
	})
	if at < 1 || len(arg) == 0 {
		return
	}
	place := unsafe.Slice(unsafe.StringData(arg), len(arg))
	for i := range place {
		place[i] = '*'
	}
}

// environBlock is what /proc/PID/environ shows: the block that execve(2) put on the stack, for as long as the process
// lives. A variable that was given twice is there twice, and Go knows only the first. The kernel says where the block
// is (proc_pid_stat(5)). os.Args, which the runtime does not copy, lie just before it. It is nil where that does not
// hold.
func environBlock() []byte {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil || len(os.Args) == 0 {
		return nil
	}
	const argStart, argEnd, envStart, envEnd = 48, 49, 50, 51
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from field 3 on
	if len(fields) <= envEnd-3 {
		return nil
	}
	at := func(field int) uintptr {
		n, _ := strconv.ParseUint(string(fields[field-3]), 10, 64)
		return uintptr(n)
	}
	arg := unsafe.Pointer(unsafe.StringData(os.Args[0]))
	if from := uintptr(arg); from < at(argStart) || from >= at(argEnd) || from >= at(envStart) ||
		at(envStart) >= at(envEnd) {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(arg, at(envStart)-uintptr(arg))), at(envEnd)-at(envStart))
}
