package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// pidfdID is the inode of a pidfd of this process, by which systemd 259 makes sure of LISTEN_PID.
func pidfdID() string {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
		_ = unix.Close(fd)
	}
	if err != nil {
		fail(err)
	}
	return strconv.FormatUint(st.Ino, 10)
}
