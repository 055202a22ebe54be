//go:build !linux

package wholefile

import "golang.org/x/sys/unix"

// create makes a file that has its name from the start: only Linux has files without one.
func create(dir int, name string) (fd int, named bool, err error) {
	fd, err = createNamed(dir, name)
	return fd, true, err
}

func giveName(int, int, string) error { return unix.ENOSYS }
