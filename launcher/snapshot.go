package launcher

import (
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fallback"
	"github.com/agenticverz/vaultexec/internal/statusserver"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// The snapshot that --status answers from is a pure function of these facts.

// facts are what a snapshot is made of.
type facts struct {
	program      string // vaultexec's version
	pid          int
	name         string // of the command
	machine      *machine
	serving      brief
	other        brief // in a handover
	readyTimeout time.Duration
	waits        string // what the start waits for
	doing        string // what is being done to the command, in words
	seen         string // which secrets have changed
	paths        []statusserver.Path
	leases       []leaseEnd
	refused      []string
	copy         *fallback.Header // in use
	watches      bool
	token        *statusserver.Token
	files        []statusserver.File
	tally        tally
	counts       statusserver.Counts
}

// brief is what a snapshot says of one command.
type brief struct {
	pid     int // 0 for none
	started time.Time
	ready   bool
}

func (c *child) brief() brief {
	if c == nil {
		return brief{}
	}
	return brief{c.pid, c.forkedAt, c.isReady}
}

// tally counts what has happened to the commands of a run.
type tally struct {
	restarts  [len(restartReasons)]int
	rollbacks int
	handovers statusserver.Histogram
	lastExit  *statusserver.Exit
}

// restart is why a command replaced another.
type restart uint8

const (
	byChange restart = iota
	byLease
	byRollback
)

var restartReasons = [...]string{byChange: "change", byLease: "lease", byRollback: "rollback"}

// restartOf tells a change from a mere replacement of credentials that expire.
func restartOf(from, to edition) restart {
	leased := map[vault.Path]bool{}
	for _, g := range to.got {
		leased[g.Source.Path] = g.Secret != nil && g.Secret.Lease.Ends()
	}
	reason := byChange
	for p, m := range to.states {
		if old, known := from.states[p]; known && old == m {
			continue
		}
		if !leased[p] {
			return byChange
		}
		reason = byLease
	}
	return reason
}

// snapshot is what --status answers from.
func snapshot(f facts) *statusserver.Snapshot {
	phase, why := standing(f)
	s := &statusserver.Snapshot{
		Program: f.program, PID: f.pid, Phase: phase, Watches: f.watches,
		Command: statusserver.Command{Name: f.name, PID: f.serving.pid, Ready: why == "", NotReady: why, Rollbacks: f.tally.rollbacks,
			LastExit: f.tally.lastExit},
		Change: changeOf(f), Refused: f.refused, Paths: f.paths, Token: f.token, Files: f.files, Counts: f.counts,
	}
	if f.copy != nil {
		s.Copy = &statusserver.Copy{Written: statusserver.At(f.copy.Written)}
	}
	if f.serving.pid != 0 {
		s.Command.Started = statusserver.At(f.serving.started)
	}
	s.Counts.Restarts, s.Counts.Handovers = map[string]int{}, f.tally.handovers
	for i, n := range f.tally.restarts {
		s.Counts.Restarts[restartReasons[i]] = n
		s.Command.Restarts += n
	}
	if f.machine.companion == preparing && f.other.pid != 0 {
		s.Next = &statusserver.Next{PID: f.other.pid, Started: statusserver.At(f.other.started)}
	}
	for _, l := range f.leases {
		s.Leases = append(s.Leases, statusserver.Lease{Path: l.path.String(), Ends: statusserver.At(l.ends)})
	}
	return s
}

// standing is the phase of a run, and why its command does not count as ready; "" when it does.
func standing(f facts) (phase statusserver.Phase, why string) {
	m, serving := f.machine, f.serving
	switch {
	case m.state == starting && !m.followed() && f.waits != "":
		return statusserver.Starting, f.waits
	case m.state == starting && !m.followed():
		return statusserver.Starting, "the command has not been started yet"
	case m.state == ending, m.state == ended:
		return statusserver.Ending, "the command is ending"
	case m.state != stopping && m.state != clearing && m.state != starting:
		if serving.pid != 0 && serving.ready {
			return statusserver.Running, ""
		}
		return statusserver.Running, "the command is not ready yet"
	case m.followed():
		return statusserver.Restarting, "the command is being restarted"
	}
	return statusserver.Ending, "the command is ending"
}

// changeOf is what is under way; nil for nothing.
func changeOf(f facts) *statusserver.Change {
	m := f.machine
	c := &statusserver.Change{Since: statusserver.At(m.since), Until: statusserver.At(m.deadline), Text: f.doing}
	switch {
	case m.companion != alone:
		c.State, c.Until = "handover", statusserver.At(m.otherDue)
		if m.companion == preparing && f.other.pid != 0 && m.otherDue.IsZero() {
			c.Until = statusserver.At(f.other.started.Add(f.readyTimeout))
		}
	case m.state == stopping && m.followed():
		c.State = "stopping"
	case (m.state == clearing || m.state == starting) && m.followed():
		c.State = "starting"
	case m.state == settling:
		c.State, c.Text = "settling", f.seen
	case m.state == waiting:
		c.State, c.Text = "waiting", f.seen+" (waits for "+m.why+")"
	case m.state == queueing:
		c.State, c.Text = "queueing", f.seen+" (waits for a place in the restart lock)"
	case m.state == reading:
		c.State, c.Text, c.Until = "reading", f.seen, statusserver.Time{}
	case m.state == hooking:
		c.State, c.Text = "hook", f.seen
	case m.state == diverting:
		c.State, c.Text = "draining", f.seen
	case m.state == running && m.pending:
		c.State, c.Text, c.Until = "postponed", f.seen, statusserver.Time{}
	default:
		return nil
	}
	return c
}

// hasSeen reports whether there is a change whose secrets a snapshot names.
func (m *machine) hasSeen() bool {
	return m.state == settling || m.state == waiting || m.state == queueing || m.state == reading || m.state == hooking ||
		m.state == diverting || m.pending
}

// pathsOf lists the secrets that a command has, and then those that were seen since: secrets that are new in a folder.
func pathsOf(got []environ.Fetched, v *view) []statusserver.Path {
	var list []statusserver.Path
	done := map[vault.Path]bool{}
	add := func(p vault.Path, s *vault.Secret, absence error) {
		if done[p] {
			return
		}
		done[p] = true
		is := statusserver.Path{Path: p.String()}
		marker, known := vault.Marker{}, false
		if s != nil {
			is.Version = s.Version
			if t, err := time.Parse(time.RFC3339Nano, s.CreatedTime); err == nil {
				is.Created = statusserver.At(t)
			}
		} else if absence != nil {
			marker, known = vault.MarkerOf(absence)
		}
		if v != nil {
			if g, there := v.paths[p]; there {
				marker, known = g.newest, true
				is.Watched, is.LastLook, is.LastFailure, is.Failing = g.watched, statusserver.At(g.looked), g.failure, g.failing
			}
		}
		if known {
			is.Newest, is.State = marker.Version, stateOf(marker)
		}
		list = append(list, is)
	}
	for _, g := range got {
		add(g.Source.Path, g.Secret, g.Absence)
	}
	if v != nil {
		for _, p := range v.order {
			add(p, nil, nil)
		}
	}
	return list
}

// stateOf is the state of a secret's newest version.
func stateOf(m vault.Marker) string {
	switch {
	case m.Absent:
		return "absent"
	case m.Destroyed:
		return "destroyed"
	case m.Deleted:
		return "deleted"
	}
	return ""
}
