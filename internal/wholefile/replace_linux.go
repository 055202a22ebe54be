package wholefile

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// create makes a file that has no name yet, so that nothing of it stays when vaultexec is killed (open(2),
// O_TMPFILE); with the name where the file system cannot do that.
func create(dir int, name string) (fd int, named bool, err error) {
	fd, err = unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return fd, false, nil
	}
	fd, err = createNamed(dir, name)
	return fd, true, err
}

// giveName gives such a file a name, for as long as a rename takes: no call puts it in the place of another.
func giveName(fd, dir int, name string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dir, name, unix.AT_SYMLINK_FOLLOW)
}
