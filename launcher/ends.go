package launcher

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What the log says about ends: how the command ended and how long that took, and every SIGKILL. A run that watches
// nothing says nothing about an end that is its command's own business.

// logEnd says how the command has ended.
func (s *supervisor) logEnd(status unix.WaitStatus) {
	attrs := []any{"command", s.name(), "pid", s.pid, "status", statusText(status),
		"ran", duration(time.Since(s.forkedAt))}
	if begun := s.stopBegan(); !begun.IsZero() {
		attrs = append(attrs, "stop", duration(time.Since(begun)))
	}
	if s.watch != nil {
		s.Log.Info("the command has ended", attrs...)
	} else {
		s.Log.Debug("the command has ended", attrs...)
	}
}

// logKill says whom the SIGKILL that follows is for, and why.
func (s *supervisor) logKill() {
	began := s.stopBegan()
	switch {
	// The timer counts from a little earlier.
	case s.pid != 0 && time.Since(began)+moment/10 < s.Supervision.StopTimeout:
		s.Log.Warn("a further SIGTERM ends the wait for the command, it gets SIGKILL", "command", s.name(),
			"pid", s.pid, "after", duration(time.Since(began)))
	case s.pid != 0:
		s.Log.Warn("the command did not stop in time, it gets SIGKILL", "command", s.name(), "pid", s.pid,
			"after", duration(time.Since(began)),
			"hint", "--stop-timeout gives it more time")
	default:
		if names := processNames(s.leftovers()); names != "" {
			s.Log.Warn("what the command left behind did not stop in time, it gets SIGKILL", "processes", names,
				"after", groupGrace.String())
		}
	}
}

// stopBegan is when the command that runs was told to stop, by vaultexec or from outside; zero if it was not.
func (s *supervisor) stopBegan() time.Time {
	if s.stopAt.IsZero() {
		return s.machine.termAt
	}
	return s.stopAt
}

// name is what the command is called in the log.
func (s *supervisor) name() string { return filepath.Base(s.program.path) }

// processNames lists processes: "sleep (17), cat (18)".
func processNames(list []process) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = fmt.Sprintf("%s (%d)", p.name, p.pid)
	}
	return strings.Join(names, ", ")
}
