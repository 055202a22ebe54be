package launcher

import "golang.org/x/sys/unix"

// ListenStays says that a run with --listen cannot become the command.
const ListenStays = false

// ownDescriptors gives the calling thread, which must be locked, a table of descriptors of its own. (close_range(2)
// first, on a range that nobody uses: Docker's seccomp filter refuses unshare(2). Where neither works, what comes next
// takes microseconds, and Go's runtime looks at its descriptors every 10 ms.)
func ownDescriptors() {
	const unused = 1<<31 - 1
	if unix.CloseRange(unused, unused, unix.CLOSE_RANGE_UNSHARE) != nil {
		_ = unix.Unshare(unix.CLONE_FILES)
	}
}

// dupTo makes descriptor to the same as fd. The command inherits it.
func dupTo(fd, to int) error { return unix.Dup3(fd, to, 0) }
