package launcher

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// When PID 1 ends, the kernel kills everything that is left in its namespace, at once. So what is left when the command
// has ended is told to end first. It gets the same time as the command's group, whatever session it is in: a database
// that an entry script put into the background writes its files. Between two commands it is left alone: what moved to a
// session of its own did so to live on, and a shell of `docker exec` has nothing to do with a rotation.

// endsAll reports whether the end of the command is that of everything. While the other one of a handover has its time to
// stop it is not.
func (s *supervisor) endsAll() bool {
	return os.Getpid() == 1 && !s.machine.followed() && s.machine.companion == alone
}

// othersLeft reports whether there is any other process in the namespace of this one, which is PID 1. Zombies count.
func othersLeft() bool { return unix.Kill(-1, 0) != unix.ESRCH }

// tellAll tells everything to end. What is stopped would not see it.
func tellAll() {
	_ = unix.Kill(-1, unix.SIGTERM)
	_ = unix.Kill(-1, unix.SIGCONT)
}

// endAll tells everything to end and waits for that as long as for a group. It is for PID 1 when there is no command.
// Elsewhere it does nothing.
func endAll() {
	if os.Getpid() != 1 || !othersLeft() {
		return
	}
	tellAll()
	for begun := time.Now(); time.Since(begun) < groupGrace; time.Sleep(groupPoll) {
		if reapOrphans(); !othersLeft() {
			return
		}
	}
}

// leftovers are the processes that are being ended.
func (s *supervisor) leftovers() []process {
	if !s.endsAll() {
		return liveMembers(s.left)
	}
	if self, err := os.Readlink("/proc/self"); err != nil || self != fmt.Sprint(os.Getpid()) {
		return nil // another namespace's
	}
	var live []process
	for _, p := range processes() {
		if p.pid != os.Getpid() && !p.dead {
			live = append(live, p)
		}
	}
	return live
}
