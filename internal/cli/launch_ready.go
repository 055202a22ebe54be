package cli

import (
	"slices"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/launcher"
)

// startFirst reads --restart-order. It says how a restart goes, whatever leads to one: with another --on-change than
// restart, a lease or a change that a signal cannot bring does.
func startFirst(s *settings) bool {
	v := s.one("restart-order")
	first := s.choice("restart-order") == "start-first"
	if first && s.bool("replace") {
		s.bad(v, "with --replace nobody starts another command", "give one of them")
	}
	return first
}

// readiness reads --ready and what belongs to it.
func readiness(s *settings, listens []listen.Spec, environ []string) launcher.Ready {
	v := s.one("ready")
	r, err := launcher.ParseReady(v.text)
	if err != nil {
		s.fail(v, err)
	}
	r.Given, r.Timeout = v.from != "", s.duration("ready-timeout")
	if t := s.one("ready-timeout"); r.Timeout == 0 && s.option("ready-timeout").mismatch(t.text) == "" {
		s.bad(t, "it must be longer than 0", "write it as 60s")
	}
	a := s.one("ready-address")
	if a.text != "" {
		var aerr error
		if r.Address, aerr = launcher.ParseReadyAddress(a.text); aerr != nil {
			s.fail(a, aerr)
		}
	}
	isTCP := func(spec listen.Spec) bool { return spec.Path == "" }
	switch {
	case err != nil:
	case a.text != "" && !r.Asks():
		s.bad(a, "only --ready http:PATH and --ready tcp use it", "give one of these, or leave it out")
	case r.By == launcher.ReadyNotify && s.bool("pass-notify"):
		s.bad(v, "with --pass-notify vaultexec cannot hear the command",
			"leave --pass-notify out: with it the command speaks to systemd itself")
	case r.Asks() && a.text == "" && !slices.ContainsFunc(listens, isTCP):
		s.bad(v, "there is no --listen HOST:PORT to connect to", "give one, or name the address with --ready-address 127.0.0.1:9000")
	case r.By == launcher.ReadyAfter && r.After >= r.Timeout && r.Timeout > 0:
		s.bad(v, "it is not shorter than --ready-timeout", "give a longer --ready-timeout")
	case r.By == launcher.ReadyExec:
		if err := launcher.CheckHelper(r.Program, environ); err != nil {
			s.bad(v, fault.Of(err).Why, fault.Of(err).Hint)
		}
	}
	return r
}
