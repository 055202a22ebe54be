package launcher

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/statusserver"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var snapTime = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func snapAfter(d time.Duration) time.Time { return snapTime.Add(d) }

// In every state of the machine: whether the command counts as ready, and what is under way.
func TestSnapshotOfStates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		is     machine
		pid    int
		ready  bool
		phase  statusserver.Phase
		why    string
		change string // state and text
		until  time.Time
	}{
		{"before the start", machine{state: starting}, 0, false, statusserver.Starting, "the command has not been started yet", "", time.Time{}},
		{"running", machine{state: running, deadline: snapAfter(time.Second)}, 5, true, statusserver.Running, "", "", time.Time{}},
		{"not ready", machine{state: running}, 5, false, statusserver.Running, "the command is not ready yet", "", time.Time{}},
		{"settling", machine{state: settling, deadline: snapAfter(2)}, 5, true, statusserver.Running, "", "settling app 1 → 2", snapAfter(2)},
		{"waiting", machine{state: waiting, why: "splay", deadline: snapAfter(3)}, 5, true, statusserver.Running, "", "waiting app 1 → 2 (waits for splay)", snapAfter(3)},
		{"queueing", machine{state: queueing, deadline: snapAfter(600)}, 5, true, statusserver.Running, "", "queueing app 1 → 2 (waits for a place in the restart lock)", snapAfter(600)},
		{"reading", machine{state: reading}, 5, true, statusserver.Running, "", "reading app 1 → 2", time.Time{}},
		{"hooking", machine{state: hooking}, 5, true, statusserver.Running, "", "hook app 1 → 2", time.Time{}},
		{"draining", machine{state: diverting, deadline: snapAfter(4)}, 5, true, statusserver.Running, "", "draining app 1 → 2", snapAfter(4)},
		{"kept for later", machine{state: running, pending: true}, 5, true, statusserver.Running, "", "postponed app 1 → 2", time.Time{}},
		{"stopping to restart", machine{state: stopping, next: toRestart, deadline: snapAfter(4)}, 5, true, statusserver.Restarting, "the command is being restarted", "stopping done", snapAfter(4)},
		{"stopping to exit", machine{state: stopping, next: toExit}, 5, true, statusserver.Ending, "the command is ending", "", time.Time{}},
		{"told by a signal", machine{state: ending}, 5, true, statusserver.Ending, "the command is ending", "", time.Time{}},
		{"between two", machine{state: clearing, next: toRestart}, 0, false, statusserver.Restarting, "the command is being restarted", "starting done", time.Time{}},
		{"after a failure", machine{state: starting, next: toRevert, deadline: snapAfter(5)}, 0, false, statusserver.Restarting, "the command is being restarted", "starting done", snapAfter(5)},
		{"after the end", machine{state: clearing, next: toEnd}, 0, false, statusserver.Ending, "the command is ending", "", time.Time{}},
		{"ended", machine{state: ended}, 0, false, statusserver.Ending, "the command is ending", "", time.Time{}},
		{"a new one beside it", machine{state: running, companion: preparing}, 5, true, statusserver.Running, "", "handover done", snapAfter(time.Minute)},
		{"the old one leaves", machine{state: running, companion: leaving, otherDue: snapAfter(6)}, 5, true, statusserver.Running, "", "handover done", snapAfter(6)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := facts{machine: &c.is, serving: brief{c.pid, snapTime, c.ready}, doing: "done", seen: "app 1 → 2", readyTimeout: time.Minute}
			if c.is.companion != alone {
				f.other = brief{6, snapTime, false}
			}
			s := snapshot(f)
			change := ""
			var until time.Time
			if s.Change != nil {
				change, until = s.Change.State+" "+s.Change.Text, s.Change.Until.Time
				if !contains(statusserver.States, s.Change.State) {
					t.Errorf("%q is no known state", s.Change.State)
				}
			}
			if s.Phase != c.phase || s.Command.NotReady != c.why || s.Command.Ready != (c.why == "") || change != c.change || !until.Equal(c.until.Truncate(time.Millisecond)) {
				t.Errorf("%s, %q, %q until %v", s.Phase, s.Command.NotReady, change, until)
			}
			if (s.Next != nil) != (c.is.companion == preparing) || s.Next != nil && s.Next.PID != 6 || s.Command.PID != c.pid {
				t.Errorf("%+v, next %+v", s.Command, s.Next)
			}
		})
	}
}

func contains(list []string, s string) bool {
	return strings.Contains(","+strings.Join(list, ",")+",", ","+s+",")
}

// What has happened is counted.
func TestSnapshotCounts(t *testing.T) {
	t.Parallel()
	var st *status // without --status all of it does nothing
	st.restarted(byChange)
	st.rolledBack()
	st.handedOver(time.Second)
	st.exited(0)
	st.does("x")
	st.close()
	st = &status{}
	for why, n := range map[restart]int{byChange: 3, byLease: 2, byRollback: 1} {
		for range n {
			st.restarted(why)
		}
	}
	st.rolledBack()
	st.handedOver(3 * time.Second)
	st.exited(unix.WaitStatus(7 << 8))
	s := snapshot(facts{machine: &machine{}, tally: st.tally, program: "v9", pid: 4, name: "app"})
	for reason, n := range map[string]int{"change": 3, "lease": 2, "rollback": 1} {
		if s.Counts.Restarts[reason] != n || !contains(statusserver.Reasons, reason) {
			t.Errorf("%s: %d", reason, s.Counts.Restarts[reason])
		}
	}
	if s.Command.Restarts != 6 || s.Command.Rollbacks != 1 || s.Counts.Handovers.Count != 1 || s.Command.LastExit.Status != "exit code 7" || s.Program != "v9" || s.PID != 4 || s.Command.Name != "app" {
		t.Errorf("%+v", s)
	}
}

// A restart is a lease's only if nothing else has changed.
func TestRestartOf(t *testing.T) {
	t.Parallel()
	kv, db := vault.Path{Mount: "kv", Name: "app"}, vault.Path{Mount: "db", Name: "creds"}
	of := func(version int, digest byte) edition {
		return edition{states: states{kv: {Version: version}, db: {Digest: [32]byte{digest}}}, got: []environ.Fetched{
			{Source: environ.Source{Path: kv}, Secret: &vault.Secret{Version: version}},
			{Source: environ.Source{Path: db}, Secret: &vault.Secret{Lease: vault.Lease{ID: "x", Duration: time.Hour}}},
		}}
	}
	for _, c := range []struct {
		to   edition
		want restart
	}{{of(1, 2), byLease}, {of(2, 1), byChange}, {of(2, 2), byChange}, {of(1, 1), byChange}} {
		if got := restartOf(of(1, 1), c.to); got != c.want {
			t.Errorf("%v: %s", c.to.states, restartReasons[got])
		}
	}
}

// What the command has comes from the reads, the rest from the looks.
func TestSnapshotOfPaths(t *testing.T) {
	t.Parallel()
	path := func(name string) vault.Path { return vault.Path{Mount: "kv", Name: name} }
	got := []environ.Fetched{
		{Source: environ.Source{Path: path("app")}, Secret: &vault.Secret{Version: 3, CreatedTime: "2026-11-30T11:00:00.123456789Z"}},
		{Source: environ.Source{Path: path("app")}, Secret: &vault.Secret{Version: 3}}, // named twice
		{Source: environ.Source{Path: vault.Path{Mount: "kv", Name: "pinned", Version: 2}}, Secret: &vault.Secret{Version: 2}},
		{Source: environ.Source{Path: path("optional"), Optional: true}, Absence: &fault.Error{Kind: fault.Missing}},
		{Source: environ.Source{Path: path("v1")}, Secret: &vault.Secret{}},
	}
	bad := &statusserver.Failure{Kind: "denied"}
	v := &view{order: []vault.Path{path("app"), path("new")}, paths: map[vault.Path]glance{
		path("app"): {newest: vault.Marker{Version: 4, Deleted: true}, watched: true, looked: snapTime, failure: bad, failing: true},
		path("new"): {newest: vault.Marker{Version: 1}, watched: true},
	}}
	want := []statusserver.Path{
		{Path: "kv/app", Version: 3, Newest: 4, State: "deleted", Created: statusserver.At(snapAfter(-time.Hour + 123*time.Millisecond)), Watched: true, LastLook: statusserver.At(snapTime), LastFailure: bad, Failing: true},
		{Path: "kv/pinned@2", Version: 2}, {Path: "kv/optional", State: "absent"}, {Path: "kv/v1"}, {Path: "kv/new", Newest: 1, Watched: true},
	}
	list := pathsOf(got, v)
	if len(list) != len(want) {
		t.Fatalf("%+v", list)
	}
	for i, p := range list {
		if p != want[i] {
			t.Errorf("%+v\nwant %+v", p, want[i])
		}
	}
	if s := pathsOf(got, nil); len(s) != 4 || s[0].Newest != 0 || s[0].Watched {
		t.Errorf("without a watch: %+v", s)
	}
}

// The book keeps the last look and the last failure, and its texts are cleaned.
func TestLookBook(t *testing.T) {
	t.Parallel()
	app, gone, leased := vault.Path{Mount: "kv", Name: "app"}, vault.Path{Mount: "kv", Name: "gone"}, vault.Path{Mount: "db", Name: "creds/app"}
	clean := func(text string) string { return strings.ReplaceAll(text, "hunter2", "***") }
	out := make(chan *view, 1)
	b := newLookBook(out, clean)
	w := &watcher{interval: time.Second, refused: map[string]bool{"kv/x: hunter2": true}, records: records{
		sources: []environ.Source{{Path: app}, {Path: leased}}, at: map[vault.Path]*record{
			app: {path: app, newest: vault.Marker{Version: 2}}, leased: {path: leased, lease: &lease{ends: snapAfter(time.Hour)}}}}}
	b.note(app, nil, snapTime)
	b.note(gone, nil, snapTime)
	b.note(app, &fault.Error{Kind: fault.Away, What: "cannot look", Why: "hunter2"}, snapAfter(time.Minute))
	b.show(w)
	b.note(app, &fault.Error{Kind: fault.Value, What: "odd"}, snapAfter(2*time.Minute))
	b.note(app, nil, snapAfter(3*time.Minute))
	b.show(w) // replaces what was not taken
	w.records.at[app].trouble.err = &fault.Error{Kind: fault.Denied, What: "no"}
	v := <-out
	g := v.paths[app]
	if l := v.leases; len(l) != 1 || l[0].path != leased || !l[0].ends.Equal(snapAfter(time.Hour)) || v.paths[leased].watched {
		t.Errorf("leases: %+v", l)
	}
	if len(v.paths) != 2 || !g.looked.Equal(snapAfter(3*time.Minute)) || g.failing || g.failure.Kind != "other" || !g.watched || g.newest.Version != 2 {
		t.Errorf("%+v", g)
	}
	if v.failures["away"] != 1 || v.failures["other"] != 1 || v.refused[0] != "kv/x: ***" || len(b.looks) != 1 {
		t.Errorf("%+v, %d entries", v, len(b.looks))
	}
	b.note(app, &fault.Error{Kind: fault.Away, What: "cannot look", Why: "hunter2"}, snapTime)
	if text := b.looks[app].failure.Text; text != "cannot look: ***" {
		t.Errorf("%q", text)
	}
	b.show(w)
	if v := <-out; !v.paths[app].failing || v.failures["away"] != 2 {
		t.Errorf("%+v", v)
	}
	if len(out) != 0 {
		t.Error("one view too many")
	}
	var none *lookBook
	none.note(app, nil, snapTime)
	none.show(w)
}

// Without --status nothing is kept, and nothing is allocated.
func TestNoStatusCostsNothing(t *testing.T) {
	s := &supervisor{launch: &launch{}, machine: newMachine(policy{}), child: &child{}}
	var b *lookBook
	w := &watcher{}
	path := vault.Path{Mount: "kv", Name: "app"}
	if n := testing.AllocsPerRun(100, func() {
		s.publish()
		s.started()
		s.handedOver(s.child)
		s.status.does("x")
		s.status.exited(0)
		s.status.rolledBack()
		s.status.forget()
		b.note(path, nil, snapTime)
		b.show(w)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if s.status.turns() != nil || s.status.refreshes() != nil || s.status.looks() != nil || s.status.tokens() != nil || s.book() != nil {
		t.Error("something is waited for")
	}
}
