//go:build !linux

package vault

import "golang.org/x/sys/unix"

// newTokenFile makes a file that has its name from the start: only Linux has files without one.
func newTokenFile(dir int, name string) (fd int, named bool, err error) {
	fd, err = createTokenFile(dir, name)
	return fd, true, err
}

func nameTokenFile(int, int, string) error { return unix.ENOSYS }
