package launcher

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// The lines of the log about decisions, one for each. A line says which paths went from which version to which, which
// names, why, and how long it took. It never has a value.

// edition is one environment, the secrets that it was made of, and their states.
type edition struct {
	env    *environ.Env
	states states
	got    []environ.Fetched
	names  []string // that are set, where nothing else of it is left
}

// forgotten is what is left of an edition when its secrets are let go of.
func (e edition) forgotten() edition {
	var names []string
	for _, v := range e.env.Vars {
		names = append(names, strings.Clone(v.Name))
	}
	return edition{names: names}
}

// sets reports whether the edition sets a variable of that name.
func (e edition) sets(name string) bool {
	if e.env == nil {
		return slices.Contains(e.names, name)
	}
	return slices.ContainsFunc(e.env.Vars, func(v environ.Variable) bool { return v.Name == name })
}

// leases are what the command has that ends.
func (e edition) leases() []vault.Lease { return leases(e.got) }

// withLeasesOf is e with the present credentials of another edition in the place of its own, which may have ended.
func (e edition) withLeasesOf(now edition, build func([]environ.Fetched) (*environ.Env, error)) edition {
	present := map[vault.Path]environ.Fetched{}
	for _, g := range now.got {
		if g.Secret != nil && g.Secret.Lease.Ends() && g.Source.Path.Version == 0 {
			present[g.Source.Path] = g
		}
	}
	if len(present) == 0 {
		return e
	}
	back := edition{states: maps.Clone(e.states), got: slices.Clone(e.got)}
	for i, g := range back.got {
		if p, yes := present[g.Source.Path]; yes {
			back.got[i].Secret = p.Secret
			back.states[g.Source.Path] = now.states[g.Source.Path]
		}
	}
	var err error
	if back.env, err = build(back.got); err != nil {
		return e
	}
	return back
}

// states tells in which state each watched secret is, by its path in the order of the command line.
type states map[vault.Path]vault.Marker

// changes lists what differs between two states: "agenticverz/app-prod 3 → 4".
func (from states) changes(to states) []string {
	var list []string
	for p, m := range to {
		old, known := from[p]
		if !known { // new in its folder
			old = vault.Marker{Absent: true}
		}
		switch {
		case known && old == m, !known && m.Absent:
		case m.Version == 0 && !m.Absent: // KV version 1 has no versions, a lease neither
			list = append(list, p.String()+" changed")
		default:
			list = append(list, fmt.Sprintf("%s %s → %s", p, old, m))
		}
	}
	slices.Sort(list)
	return list
}

// paths lists which secrets differ.
func (from states) paths(to states) []string {
	var list []string
	for p, m := range to {
		if old, known := from[p]; known && old != m || !known && !m.Absent {
			list = append(list, p.String())
		}
	}
	slices.Sort(list)
	return list
}

func (from states) text(to states) string { return strings.Join(from.changes(to), ", ") }

// set names the versions to others that have the same secrets: it is made of paths, versions and times, and of no value. What has
// no version is left out. "" where nothing has one.
func (from states) set() string {
	var parts []string
	for p, m := range from {
		if m.Version > 0 || m.Absent {
			m.Digest = [32]byte{}
			parts = append(parts, fmt.Sprintf("%s=%+v", p, m))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(parts, "\n"))))[:32]
}

// logStop says why the command that runs is told to stop.
func (s *supervisor) logStop() {
	if s.machine.next == toExit {
		s.logDecision("secrets changed, ending as --on-change exit asks")
		return
	}
	s.logDecision("secrets changed, restarting the command")
}

// logDecision says what is done about the change under way.
func (s *supervisor) logDecision(text string) {
	s.Log.Info(text, "paths", s.runs.states.text(s.next.states),
		"names", strings.Join(changedNames(s.runs.env, s.next.env), ", "),
		"read", duration(s.took), "since", duration(time.Since(s.machine.since)))
}

func (s *supervisor) logAction(a action) {
	m := s.machine
	seen := func() string { return s.runs.states.text(s.known) }
	switch a {
	case actLogSettle:
		s.Log.Info("secrets changed", "paths", seen(), "settle", m.settle.String())
	case actLogWait:
		s.Log.Info("the change waits for its turn", "paths", seen(), "for", m.why,
			"in", duration(time.Until(m.deadline)))
	case actLogSame:
		s.Log.Info("the environment is the same, nothing to do", "paths", seen(), "read", duration(s.took))
	case actLogNone:
		s.logDecision("secrets changed, nothing is done as --on-change none asks")
	case actLogHurry:
		s.Log.Warn("no longer waiting for the hook: credentials of the command are about to expire", "paths", seen(),
			"hook", s.Watching.Hook)
	case actLogUndrained:
		old := s.child
		if s.other != nil {
			old = s.other
		}
		s.Log.Warn("the old command leaves connections waiting in its queue, and is told to stop anyway",
			"pid", old.pid, "after", drainLimit.String())
	case actLogTakesOver:
		s.Log.Warn("the command has ended before the new one was ready; the new one takes over",
			"status", statusText(m.otherStatus))
	case actLogBack:
		s.status.rolledBack()
		s.status.does("the new command is given up, the old one serves on")
		s.Log.Error("the new command has ended before the old one was told to stop; the old one serves on",
			"paths", s.runs.states.text(s.other.runs.states), "status", statusText(m.otherStatus))
	case actWarnOther:
		if names := processNames(liveMembers(s.other.left)); names != "" {
			s.Log.Warn("left over after SIGKILL, not waited for: " + names)
		}
	case actLogTriedBefore:
		s.Log.Info("these versions made the command fail before and are not tried again", "paths", seen(),
			"read", duration(s.took))
	case actLogRevert:
		s.status.rolledBack()
		s.status.does("going back to what worked before: " + s.runs.states.text(s.lastGood().states))
		s.Log.Error("the command failed with the changed secrets, starting it with the last good ones",
			"paths", s.runs.states.text(s.lastGood().states),
			"names", strings.Join(changedNames(s.runs.env, s.lastGood().env), ", "), "status", statusText(m.status),
			"after", duration(time.Since(m.startedAt)))
	case actRejectTried:
		s.Log.Warn("another process has tried these versions and they failed, they are not tried here", "paths", seen(), "tried_by",
			s.tried.By, "at", s.tried.At.UTC().Format(time.RFC3339))
	case actLogNoPlace:
		s.Log.Warn("no place in the restart lock in time, the change goes on waiting", "paths", seen(),
			"waited", duration(time.Since(m.queuedAt)))
	case actLogWithout:
		why := "the wait for one is over"
		if m.late(time.Now()) {
			why = "credentials of the command are about to expire"
		}
		s.Log.Warn("the change is made without a place in the restart lock", "paths", seen(), "why", why)
	case actLogLate:
		s.Log.Info("the change is not acted on, a signal ends the command", "paths", seen(), "state", m.state.String())
	}
}

// hinted is the hint of a failure for a line of the log, where there is one.
func hinted(err error) []any {
	if hint := fault.Of(err).Hint; hint != "" {
		return []any{"hint", hint}
	}
	return nil
}

// duration rounds for a log.
func duration(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// changedNames lists the variables that differ, "+" before new ones and "-" before those that go.
func changedNames(from, to *environ.Env) []string {
	var names []string
	old := map[string]vault.Text{}
	for _, v := range from.Vars {
		if !v.Unused() {
			old[v.Name] = v.Value
		}
	}
	for _, v := range to.Vars {
		if v.Unused() { // the child has the inherited one
			continue
		}
		before, had := old[v.Name]
		switch {
		case !had:
			names = append(names, "+"+v.Name)
		case !before.Equal(v.Value):
			names = append(names, v.Name)
		}
		delete(old, v.Name)
	}
	for name := range old {
		names = append(names, "-"+name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(strings.TrimLeft(a, "+-"), strings.TrimLeft(b, "+-"))
	})
	return names
}
