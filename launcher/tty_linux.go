package launcher

import "golang.org/x/sys/unix"

const (
	getTermios      = unix.TCGETS
	setTermiosDrain = unix.TCSETSW
	fionread        = unix.TIOCINQ
)

// pipe makes a pipe that no other program inherits.
func pipe(p *[2]int) error { return unix.Pipe2(p[:], unix.O_CLOEXEC) }
