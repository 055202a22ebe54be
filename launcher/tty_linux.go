package launcher

import "golang.org/x/sys/unix"

const (
	getTermios = unix.TCGETS
	// Not TCSETSW: it waits for whoever is writing, which lasts as long as Ctrl-S (tty_write_lock in set_termios of the
	// kernel).
	setTermios = unix.TCSETS
	fionread   = unix.TIOCINQ
)

// pipe makes a pipe that no other program inherits.
func pipe(p *[2]int) error { return unix.Pipe2(p[:], unix.O_CLOEXEC) }
