package fallback

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// create makes a file without a name, of which nothing stays when vaultexec is killed (open(2), O_TMPFILE); with one where the file
// system has no such files.
func create(dir *os.File, base string) (f *os.File, temp string, err error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return named(dir, base)
	}
	return os.NewFile(uintptr(fd), base), "", nil
}

// link gives such a file a name beside its place.
func link(f, dir *os.File, base string) (temp string, err error) {
	temp = besideName(base)
	_ = unix.Unlinkat(int(dir.Fd()), temp, 0)
	return temp, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), int(dir.Fd()), temp, unix.AT_SYMLINK_FOLLOW)
}
