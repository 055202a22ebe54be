package launcher

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/statusserver"
)

// --status: a server in a goroutine of its own answers from a snapshot that the main goroutine publishes whenever something
// has happened (snapshot.go). It binds its address before vaultexec asks Vault, and answers from then on. The watcher's part
// comes as a view (looks.go). Without --status none of this exists.

// Status is what --status asks for.
type Status struct {
	Address *listen.Spec // nil for no server
	MaxAge  time.Duration
	Version string              // of vaultexec
	Clean   func(string) string // removes passwords in addresses from a text; other secrets are gone already
}

// status is the server and what the main goroutine keeps for it. All methods of a nil one do nothing.
type status struct {
	options Status
	server  *statusserver.Server
	socket  *listen.Socket
	news    chan struct{} // there is news about the token
	views   chan *view
	tally   tally
	doing   string

	seen     *view        // the watcher's newest
	of       *environ.Env // paths were made from this and with
	with     *view        // a former seen
	paths    []statusserver.Path
	requests map[string]int
}

// openStatus begins to answer.
func (l *launch) openStatus() error {
	if l.Status.Address == nil {
		return nil
	}
	sockets, err := watched(l, func(ctx context.Context) ([]*listen.Socket, error) {
		return listen.Bind(ctx, []listen.Spec{*l.Status.Address})
	})
	if err != nil {
		return err
	}
	socket := sockets[0]
	accepting, err := socket.Listener()
	if err == nil {
		err = socket.Listen()
	}
	if err != nil {
		socket.Close()
		return err
	}
	st := &status{options: l.Status, socket: socket, news: make(chan struct{}, 1), views: make(chan *view, 1)}
	l.Session.OnNews(func() {
		select {
		case st.news <- struct{}{}:
		default:
		}
	})
	config := statusserver.Config{Unix: socket.Path != "", Host: socket.Host, MaxAge: l.Status.MaxAge}
	st.server = statusserver.New(accepting, config, l.beforeStart(""))
	l.status = st
	return nil
}

// beforeStart is what --status answers until there is a command. waits is what the start waits for; "" for nothing.
func (l *launch) beforeStart(waits string) *statusserver.Snapshot {
	f := facts{program: l.Status.Version, pid: os.Getpid(), name: filepath.Base(l.Argv[0]), machine: newMachine(l.policy()),
		files: l.statusFiles(), waits: l.cleaned(waits)}
	f.counts.Requests = l.Session.Client.Requests()
	return snapshot(f)
}

// waitsFor has --status say what the start waits for.
func (l *launch) waitsFor(text string) {
	if l.status != nil {
		l.status.server.Publish(l.beforeStart(text))
	}
}

// statusFiles are the files that have a path.
func (l *launch) statusFiles() (list []statusserver.File) {
	for _, f := range l.Rules.Files {
		if f.Path != "" {
			list = append(list, statusserver.File{Name: f.Name, Path: f.Path})
		}
	}
	return list
}

// close ends the server, and removes the file of its socket.
func (st *status) close() {
	if st == nil {
		return
	}
	st.server.Close()
	st.socket.Close()
}

// turns delivers when /livez asks whether the main loop responds.
func (st *status) turns() <-chan struct{} {
	if st == nil {
		return nil
	}
	return st.server.Turns()
}

// refreshes delivers when /refresh asks for a look at the secrets.
func (st *status) refreshes() <-chan struct{} {
	if st == nil {
		return nil
	}
	return st.server.Refreshes()
}

// looks delivers views of the watcher.
func (st *status) looks() <-chan *view {
	if st == nil {
		return nil
	}
	return st.views
}

// tokens delivers when there is news about the token.
func (st *status) tokens() <-chan struct{} {
	if st == nil {
		return nil
	}
	return st.news
}

// book is what the watcher keeps for --status.
func (l *launch) book() *lookBook {
	if l.status == nil {
		return nil
	}
	return newLookBook(l.status.views, l.cleaned)
}

// cleaned is a text as the log has it.
func (l *launch) cleaned(text string) string {
	return l.Status.Clean(l.Session.Client.Secrets.Clean(text, nil))
}

// forget lets go of the secrets that the paths were made from. The paths stay as they are.
func (st *status) forget() {
	if st != nil {
		st.of = nil
	}
}

// does notes in words what is being done to the command.
func (st *status) does(text string) {
	if st != nil {
		st.doing = text
	}
}

// restarted counts a command that replaced another.
func (st *status) restarted(why restart) {
	if st != nil {
		st.tally.restarts[why]++
	}
}

// handedOver counts a handover, by how long the new command took.
func (st *status) handedOver(took time.Duration) {
	if st != nil {
		st.tally.handovers = st.tally.handovers.Add(took)
	}
}

// rolledBack counts new versions that were given up because the command failed with them.
func (st *status) rolledBack() {
	if st != nil {
		st.tally.rollbacks++
	}
}

// exited notes how a command has ended.
func (st *status) exited(status unix.WaitStatus) {
	if st != nil {
		st.tally.lastExit = &statusserver.Exit{At: statusserver.At(time.Now()), Status: statusText(status)}
	}
}

// started: a command was forked, and serves.
func (s *supervisor) started() {
	s.isReady = !s.Ready.Given
	switch {
	case s.status == nil || !s.machine.followed():
	case s.machine.goesBack():
		s.status.restarted(byRollback)
	default:
		s.status.restarted(restartOf(s.runs, s.starting()))
	}
}

// handedOver: the other command serves now.
func (s *supervisor) handedOver(old *child) {
	s.isReady = s.isReady || !s.Ready.Given
	if s.status == nil || s.machine.gaveUpNext() { // or it is the old one again
		return
	}
	s.status.restarted(restartOf(old.runs, s.runs))
	s.status.handedOver(time.Since(s.forkedAt))
	s.status.does("the old command is being stopped")
}

// replaces says what is being done to the command, in --status and in systemd's status line.
func (s *supervisor) replaces(text string) {
	s.status.does(text)
	s.notify.restarts(text)
}

// notReady: the command is not ready in time, or that cannot be known. --status keeps waiting, unless the answer came before
// the time was over: it would only come again.
func (s *supervisor) notReady(err error, begun time.Time) {
	switch {
	case s.unready: // that is in the log
	case s.notify.awaitsCommand():
		s.Log.Warn("systemd is not told that the command is ready: "+err.Error(), hinted(err)...)
	default:
		s.Log.Warn("the command does not count as ready: "+err.Error(), hinted(err)...)
	}
	s.unready = true
	if s.status != nil && time.Since(begun) >= s.Ready.Timeout {
		s.warm = s.newWarming(s.child, true)
	}
}

// publish makes the server answer with the present state.
func (s *supervisor) publish() {
	st := s.status
	if st == nil {
		return
	}
	// Once nothing looks at Vault any more, there is no edition. The paths stay as they were (forget.go).
	if s.runs.env != nil && (st.of != s.runs.env || st.with != st.seen) {
		st.of, st.with, st.paths = s.runs.env, st.seen, pathsOf(s.runs.got, st.seen)
	}
	f := facts{
		copy:    s.last.used(),
		program: st.options.Version, pid: os.Getpid(), name: s.name(), machine: s.machine, serving: s.child.brief(), other: s.other.brief(),
		readyTimeout: s.Ready.Timeout, doing: st.doing, paths: st.paths, watches: s.watches(), files: s.statusFiles(), tally: st.tally,
	}
	if s.machine.hasSeen() {
		f.seen = s.runs.states.text(s.known)
	}
	if v := st.seen; v != nil {
		f.leases, f.refused, f.counts.LookFailures = v.leases, v.refused, v.failures
	}
	if s.Session != nil {
		f.token, st.requests = s.statusToken(), s.Session.Client.Requests()
	}
	f.counts.Requests = maps.Clone(st.requests)
	st.server.Publish(snapshot(f))
}

// statusToken is what may be shown of the token; nil where there is none.
func (s *supervisor) statusToken() *statusserver.Token {
	r, ok := s.Session.Report()
	if !ok {
		return nil
	}
	t := &statusserver.Token{Method: string(r.Method), Ends: statusserver.At(r.Ends), Renewals: r.Renewals, Failing: r.Failing}
	if r.Failure != nil {
		t.LastFailure = failureOf(r.Failure, r.FailedAt, s.cleaned)
	}
	return t
}

// refresh makes the watcher look at the secrets once: for --refresh-signal and POST /refresh.
func (s *supervisor) refresh() {
	if !s.watches() {
		return
	}
	select {
	case s.watch.look <- struct{}{}:
	default: // it is about to look anyway
	}
}

// watches reports whether somebody asked for looks. Without --watch a lease may have the watcher run: that keeps it alive, and
// everything else as it was read.
func (s *supervisor) watches() bool { return s.watch != nil && s.watch.watches() }
