package cli

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/launcher"
)

// watching reads what a change leads to, which counts for a lease without --watch, too, and with --watch how the secrets
// are looked at.
func watching(s *settings, environ []string) launcher.Watching {
	known := len(s.faults)
	w := launcher.Watching{
		Interval: s.duration("interval"), Settle: s.duration("settle"), Splay: s.duration("splay"),
		MinUptime: s.duration("min-uptime"), Probation: s.duration("probation"), Rollback: !s.bool("no-rollback"),
		Hook: s.str("on-change-hook"), OnChange: onChange(s), Margin: s.duration("lease-margin"),
	}
	if !s.bool("watch") {
		w.Interval = 0
	} else if w.Interval < 100*time.Millisecond && len(s.faults) == known {
		s.bad(s.one("interval"), "shorter than 100ms", "write 1s or more: every look is one request for each path")
	}
	if v := s.one("refresh-signal"); v.text != "" && s.bool("watch") {
		w.Refresh = signalOption(s, v, v.text)
		switch sig := w.Refresh; {
		case sig == unix.SIGTERM, sig == unix.SIGPIPE, sig != 0 && !launcher.IsCaught(sig):
			s.bad(v, "that signal has another meaning, or cannot be caught", "take HUP, USR1 or USR2")
		}
	}
	if w.Hook != "" && s.bool("watch") {
		if err := launcher.CheckHelper(w.Hook, environ); err != nil {
			s.bad(s.one("on-change-hook"), fault.Of(err).Why, fault.Of(err).Hint)
		}
	}
	return w
}

func onChange(s *settings) launcher.OnChange {
	v := s.one("on-change")
	word, rest, more := strings.Cut(v.text, ":")
	switch {
	case word == "restart" && !more:
		return launcher.OnChange{Do: launcher.ReactRestart}
	case word == "none" && !more:
		return launcher.OnChange{Do: launcher.ReactNone}
	case word == "signal" && rest != "":
		return launcher.OnChange{Do: launcher.ReactSignal, Signal: signalOption(s, v, rest)}
	case word == "exit" && !more:
		return launcher.OnChange{Do: launcher.ReactExit, Code: fault.Changed.Code()}
	case word == "exit":
		if code, err := strconv.Atoi(rest); err == nil && code >= 0 && code <= 255 {
			return launcher.OnChange{Do: launcher.ReactExit, Code: code}
		}
	}
	s.bad(v, "not restart, signal:NAME, exit, exit:CODE or none", "")
	return launcher.OnChange{}
}
