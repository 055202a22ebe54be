package launcher

import "golang.org/x/sys/unix"

// byHand reports whether a command ended by a signal that people and supervisors send to end it, or exited as programs
// do that catch one (128 + its number). No secret makes a command fail like that. On a terminal vaultexec does not see
// the key, which reaches the command's group only.
func byHand(status unix.WaitStatus) bool {
	if status.Signaled() {
		return isDeadly(status.Signal())
	}
	return status.Exited() && status.ExitStatus() > 128 && isDeadly(unix.Signal(status.ExitStatus()-128))
}

// byKey is byHand for a command that vaultexec itself has told to stop: another signal than the one for that.
func (m *machine) byKey(ev evExited) bool {
	if !ev.typed || !byHand(ev.status) {
		return false
	}
	sig := ev.status.Signal()
	if ev.status.Exited() {
		sig = unix.Signal(ev.status.ExitStatus() - 128)
	}
	return sig != m.stopSignal && sig != unix.SIGTERM
}
