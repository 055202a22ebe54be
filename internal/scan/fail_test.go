package scan

import "syscall"

// failing is a file on a disk that fails.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, syscall.EIO }
