package launcher

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/reap"
)

// awaitOrphans tells when orphans may have ended: processes that became this process's children and that nobody else
// reaps. It is for the time before there is a command, as PID 1, or where an earlier program of this process was a
// subreaper. It returns nil where there can be none.
func (l *launch) awaitOrphans() (ended chan os.Signal) {
	if os.Getpid() != 1 && !(l.staysBehind(nil) && isSubreaper()) {
		return nil
	}
	ended = make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	select {
	case ended <- unix.SIGCHLD: // some may have ended before
	default:
	}
	return ended
}

// reapOrphans reaps what has ended.
func reapOrphans() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid <= 0:
			return
		default:
			reap.Ended(pid, syscall.WaitStatus(status))
		}
	}
}
