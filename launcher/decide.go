package launcher

import (
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/vault"
)

// The lines of the log about what is decided: one each, with which paths from which version to which, which names, why, and
// how long it took; never a value.

var stopReason = map[purpose]string{
	toRestart: "secrets changed, restarting the command",
	toExit:    "secrets changed, ending as --on-change exit asks",
}

// logDecision says what is done about the change under way.
func (s *supervisor) logDecision(text string) {
	s.Log.Info(text, "paths", s.changedPaths(), "names", strings.Join(changedNames(s.env, s.next), ", "),
		"read", s.took.Round(time.Millisecond).String(), "since", time.Since(s.since).Round(time.Millisecond).String())
}

func (s *supervisor) logAction(a action) {
	m := s.machine
	switch a {
	case actLogSettle:
		s.Log.Info("secrets changed", "paths", s.changedPaths(), "settle", m.settle.String())
	case actLogWait:
		s.Log.Info("the change waits for its turn", "paths", s.changedPaths(), "in", time.Until(m.deadline).Round(time.Second).String())
	case actLogSame:
		s.Log.Info("the environment is the same, nothing to do", "paths", s.changedPaths())
		s.changes = map[vault.Path]pathChange{}
	case actLogNone:
		s.logDecision("secrets changed, nothing is done as --on-change none asks")
	case actLogTriedBefore:
		s.Log.Info("these versions made the command fail before, not tried again", "paths", s.changedPaths())
		s.changes = map[vault.Path]pathChange{}
	case actLogRevert:
		s.Log.Error("the command failed with the changed secrets, starting it with the last good ones", "status", statusText(m.status),
			"after", time.Since(m.startedAt).Round(time.Millisecond).String())
	case actLogLate:
		s.Log.Info("the change is not acted on, a signal ends the command", "state", m.state.String())
	}
}

// changedPaths lists what changed since the running child was started.
func (s *supervisor) changedPaths() string {
	var list []string
	for _, c := range s.changes {
		list = append(list, c.String())
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// changedNames lists the variables that differ, "+" before new ones and "-" before those that go.
func changedNames(from, to *Env) []string {
	var names []string
	old := map[string]vault.Text{}
	for _, v := range from.Vars {
		old[v.Name] = v.Value
	}
	for _, v := range to.Vars {
		before, had := old[v.Name]
		switch {
		case !had:
			names = append(names, "+"+v.Name)
		case before != v.Value:
			names = append(names, v.Name)
		}
		delete(old, v.Name)
	}
	for name := range old {
		names = append(names, "-"+name)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.TrimLeft(a, "+-"), strings.TrimLeft(b, "+-")) })
	return names
}
