package launcher

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/notify"
	"github.com/agenticverz/vaultexec/internal/serving"
)

// warmSocket is a socket of a command that is waited for, and the group that it is in. Where the group is shared, the
// command that serves has the same socket.
type warmSocket struct {
	socket *listen.Socket
	group  *listen.Group
}

// warmup is what there is to know about a command that is waited for.
type warmup struct {
	want    Ready
	pid     int
	sockets []warmSocket
	first   bool // no other command runs: whoever answers is this one
	told    bool // it has a NOTIFY_SOCKET of vaultexec's: heard will be called
}

// warming is a command that was started and is not ready yet. One goroutine looks at it, and one for each address asks
// it. They never fork, reap or signal, and touch no group: all steering is done here, by the main goroutine, before they
// begin. What supervisor calls is for the main goroutine: ready, heard, wantsRun, exited, notRun and end.
//
// end has to come before the command's sockets are closed. The groups may be steered and the other command's socket may
// be closed at any time.
type warming struct {
	warmup
	begun   time.Time
	group   int // of processes
	targets []*target
	out     chan error
	stop    context.CancelFunc
	done    chan struct{}
	kick    chan struct{} // there is news for the goroutine
	next    *time.Timer   // of ReadyExec; nil otherwise

	mu       sync.Mutex
	is       evidence // sockets in the order of targets
	deadline time.Time
}

// target is an address where the command is looked at.
type target struct {
	id     *serving.Socket // nil where it cannot be looked at
	source *listen.Probe   // nil where a connection proves nothing
	dial   func(context.Context) (net.Conn, error)
	queued func() (int, bool) // nil for --ready-address
}

const (
	lookFirst  = 10 * time.Millisecond // between two looks, at first
	lookMost   = 100 * time.Millisecond
	probeAfter = 2 * time.Second        // auto asks when looking alone has shown nothing for so long
	blindAfter = 300 * time.Millisecond // what vaultexec itself does in the new process cannot be looked at
	probeFirst = time.Second            // limit of one connection, at first
	probeMost  = 10 * time.Second
	probePause = 200 * time.Millisecond
)

// newWarming begins to wait for a command that was just started.
func newWarming(u warmup) *warming {
	ctx, stop := context.WithCancel(context.Background())
	w := &warming{warmup: u, group: u.pid, out: make(chan error, 1), stop: stop, done: make(chan struct{}),
		kick: make(chan struct{}, 1), begun: time.Now()}
	w.deadline = w.begun.Add(u.want.Timeout)
	w.is.told = u.told
	if g, err := unix.Getpgid(u.pid); err == nil {
		w.group = g
	}
	switch w.want.By {
	case ReadyAuto:
		for _, s := range u.sockets {
			w.addSocket(s)
		}
	case ReadyHTTP, ReadyTCP:
		w.addAsked()
	case ReadyExec:
		w.next = time.NewTimer(0)
	case ReadyNotify, ReadyAfter:
	}
	go w.run(ctx)
	return w
}

// addAsked adds where a request is to go: to --ready-address, or to the sockets of --listen. HTTP is spoken at one of
// them: at the first that the command does not share.
func (w *warming) addAsked() {
	if a := w.want.Address; a != nil {
		network, addr := "tcp", net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) // without a host it is this machine
		if a.Path != "" {
			network, addr = "unix", a.Path
		}
		w.targets = append(w.targets, &target{dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}})
		w.is.sockets = append(w.is.sockets, seen{name: a.String(), probed: true})
		return
	}
	sockets := w.sockets
	if w.want.By == ReadyHTTP && len(sockets) > 0 {
		i := max(slices.IndexFunc(sockets, func(s warmSocket) bool { return w.first || s.group.Shared() == "" }), 0)
		sockets = sockets[i : i+1]
	}
	for _, s := range sockets {
		w.addSocket(s)
	}
}

// addSocket adds a held socket, and has connections from a source of vaultexec's own reach this command alone.
func (w *warming) addSocket(s warmSocket) {
	t := &target{queued: s.socket.Queued}
	is := seen{name: s.socket.String()}
	shared := !w.first && s.group.Shared() != ""
	// In a shared terminal, both commands are in vaultexec's own group.
	if id, err := serving.Identify(s.socket.FD()); err == nil && (!shared || w.group == w.pid) {
		t.id = &id
	}
	if !shared {
		if p, err := listen.NewProbe(s.socket); err == nil {
			if !w.first {
				err = s.group.SteerProbe(s.socket, p.From())
			}
			if err == nil {
				t.source, t.dial, is.probed = p, p.Dial, true
			} else {
				p.Close()
			}
		}
	}
	is.never = t.id == nil
	w.targets, w.is.sockets = append(w.targets, t), append(w.is.sockets, is)
}

// ready delivers once: nil when the command is ready, or why that cannot be known or did not come in time.
func (w *warming) ready() <-chan error {
	if w == nil {
		return nil
	}
	return w.out
}

// heard takes what a process of the command has said.
func (w *warming) heard(m notify.Message) {
	w.mu.Lock()
	w.is.says = w.is.says || m.Ready
	if until := time.Now().Add(m.Extend); m.Extend > 0 && until.After(w.deadline) {
		w.deadline = until
	}
	w.mu.Unlock()
	w.wake()
}

// wantsRun delivers when the program of --ready exec: is to be run: once, until exited or notRun is called.
func (w *warming) wantsRun() <-chan time.Time {
	if w == nil || w.next == nil {
		return nil
	}
	return w.next.C
}

// end stops the waiting and gives back what it has. It waits for a look that is under way, which is short. On a nil one
// it does nothing.
func (w *warming) end() {
	if w == nil {
		return
	}
	w.stop()
	<-w.done
	if w.next != nil {
		w.next.Stop()
	}
	for _, t := range w.targets {
		if t.source != nil {
			t.source.Close()
			t.source = nil
		}
	}
}

func (w *warming) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// run waits until it is known, or until end.
func (w *warming) run(ctx context.Context) {
	defer close(w.done)
	var probes sync.WaitGroup
	defer probes.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	begun := time.Now()
	probing := make([]bool, len(w.targets))
	delay := lookFirst
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		took := w.look(ctx)
		w.mu.Lock()
		w.is.over = w.want.By == ReadyAfter && time.Since(begun) >= w.want.After
		is, deadline := w.is, w.deadline
		is.sockets = slices.Clone(is.sockets)
		w.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return
		case w.want.isReady(is):
			w.out <- nil
			return
		}
		if err := w.want.hopeless(is); err != nil {
			w.out <- err
			return
		}
		if !time.Now().Before(deadline) {
			w.out <- w.want.late(is, time.Since(begun))
			return
		}
		for i, t := range w.targets {
			if t.dial != nil && !probing[i] && w.mayProbe(is.sockets[i], time.Since(begun)) {
				probing[i] = true
				probes.Go(func() { w.probe(ctx, i) })
			}
		}
		wait.Reset(w.pause(delay, took, begun, deadline))
		delay = min(delay*3/2, lookMost)
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
		case <-wait.C:
		}
	}
}

// pause is how long to wait for the next look. A look at many processes takes its time: no more than a fifth of one
// processor goes into them.
func (w *warming) pause(delay, took time.Duration, begun, deadline time.Time) time.Duration {
	left := time.Until(deadline)
	switch w.want.By {
	case ReadyAfter:
		return max(min(left, time.Until(begun.Add(w.want.After))), 0)
	case ReadyAuto:
		if len(w.targets) > 0 {
			return max(min(left, max(delay, 4*took)), 0)
		}
	case ReadyNotify, ReadyHTTP, ReadyTCP, ReadyExec:
	}
	return max(left, 0)
}

// mayProbe reports whether it is time to ask at an address. auto looks first: a request would be in the command's log.
func (w *warming) mayProbe(s seen, after time.Duration) bool {
	return w.want.Asks() || s.never || s.blind && after >= blindAfter || after >= probeAfter
}

// look looks for processes of the command that wait for connections, and says how long that took.
func (w *warming) look(ctx context.Context) time.Duration {
	start := time.Now()
	if w.want.By != ReadyAuto {
		return 0
	}
	for i, t := range w.targets {
		if t.id == nil || ctx.Err() != nil {
			continue
		}
		w.mu.Lock()
		known := w.is.sockets[i].Waits
		w.mu.Unlock()
		if known {
			continue
		}
		f, err := serving.Look(w.group, *t.id)
		w.mu.Lock()
		w.is.sockets[i].Waits = err == nil && f.How != serving.None
		w.is.sockets[i].never = err != nil
		w.is.sockets[i].blind = f.How == serving.None && f.Hidden > 0
		w.mu.Unlock()
	}
	return time.Since(start)
}

// probe asks at an address until the answer is good.
func (w *warming) probe(ctx context.Context, i int) {
	for limit := probeFirst; ; limit = min(2*limit, probeMost) {
		answered, accepted, last := w.ask(ctx, w.targets[i], limit)
		w.mu.Lock()
		s := &w.is.sockets[i]
		s.Answered, s.Accepted, s.last = s.Answered || answered, s.Accepted || accepted, last
		w.mu.Unlock()
		w.wake()
		if answered || accepted {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(probePause):
		}
	}
}

// ask makes one connection. last says in words what came of one that proves nothing.
func (w *warming) ask(ctx context.Context, t *target, limit time.Duration) (answered, accepted bool, last string) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	check := serving.Check{Dial: t.dial, Queued: t.queued}
	if w.want.By == ReadyTCP {
		if t.queued == nil { // who listens there has opened the socket itself
			c, err := t.dial(ctx)
			if err == nil {
				c.Close()
			}
			return false, err == nil, dialText(err)
		}
		err := check.Accepted(ctx)
		return false, err == nil, dialText(err)
	}
	path := "/"
	if w.want.By == ReadyHTTP {
		path = w.want.Path
	}
	status, err := check.HTTP(ctx, "localhost", path)
	switch {
	case w.want.accepts(status):
		return true, false, ""
	case status != 0:
		return false, false, fmt.Sprintf("status %d", status)
	case w.want.By == ReadyHTTP:
		return false, false, dialText(err)
	}
	// No HTTP: that somebody has taken the connection has to do.
	n, known := t.queued()
	return false, known && n == 0, dialText(err)
}

// dialText is why a probe has failed, in short. Nothing of an answer is in it.
func dialText(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return ""
	case errors.Is(err, serving.ErrWaits), errors.Is(err, serving.ErrNoHTTP), errors.Is(err, serving.ErrUnknown):
		return err.Error()
	case errors.As(err, &errno):
		return errno.Error()
	}
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	return "the connection was closed"
}
