package launcher

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Options is everything that a run needs to know, checked already.
type Options struct {
	Argv    []string // the command, byte for byte
	Environ []string // what the command inherits of: vaultexec's own environment at its start, references resolved
	Started []string // that environment as it was
	Dir     string   // the folder that the command is started in; "" for the current one

	Session        *vault.Session
	Sources        []environ.Source
	Rules          environ.Rules
	KVVersion      int           // 1 or 2 to skip the question; 0
	Wait           time.Duration // for a Vault that is away at the start; 0 is one attempt, vault.Forever no bound
	MountIsDefault bool          // nobody chose the mount of relative paths

	Mode        Mode
	Supervision Supervision
	Masking     Masking
	Listen      []listen.Spec // sockets that the command gets
	Status      Status
	Fallback    Fallback
	PassNotify  bool     // the command of a supervised run gets systemd's NOTIFY_SOCKET
	Ready       Ready    // when a command counts as ready
	StartFirst  bool     // a restart starts the new command before it stops the old one
	Watching    Watching // the zero value looks at nothing
	RestartLock RestartLock
	AllowDisk   bool  // files with a path may be on a disk
	AllowOwner  []int // users whose folders such files may be in (internal/trust)

	Log      *slog.Logger
	Messages *Messages                               // where Log writes to
	Waits    func(text string, until time.Time) bool // shows what is waited for at the start, if it can; nil where nobody looks
	Waited   func()                                  // the wait is over
	Aside    func(stop func())                       // calls stop, which stops this process, with the terminal as it was before a question
}

// Mode says whether vaultexec becomes the command or stays as its parent.
type Mode uint8

// The modes. Auto supervises as PID 1, which would otherwise leave zombies and lose SIGTERM, and where there is a lease
// to renew.
const (
	Auto Mode = iota
	Replace
	Supervise
)

// launch is one run.
type launch struct {
	Options
	signals *signals
	inner   *inner    // nil unless this is vaultexec behind the terminal of --mask
	out     *outputs  // nil without --mask
	notify  *notifier // nil where nobody is to be told
	held    *sockets  // nil without --listen
	status  *status   // nil without --status
	last    *lastGood // nil without --fallback
	made    made      // by the reads of the start
}

// Run fetches the secrets and becomes the command, or starts it and stays as its parent. It returns a *fault.Error or
// fault.List when that failed, *Exited with the code of the command, or *Killed when a signal ended vaultexec or the
// command. It must be called on the main thread, locked.
func Run(o Options) error {
	l := &launch{Options: o, inner: parseInner(os.Args[0])}
	if l.staysBehind(nil) {
		oneProcessor() // before the first request makes threads, which never go
	}
	if !l.mayDie() {
		l.signals = catchDeadly()
		if l.staysBehind(nil) {
			l.signals.catchMeanwhile()
		}
		return l.run()
	}
	l.signals = leaveDeadly()
	l.Log = slog.New(messages{l.Log.Handler(), &sync.Once{}})
	err := l.run()
	if err != nil {
		survivePipe() // it will be printed
	}
	return err
}

// run is Run, once somebody looks after the signals.
func (l *launch) run() (err error) {
	if terminals, yes := l.relayed(); yes {
		return l.runRelay(terminals)
	}
	if l.inner != nil {
		if err := l.inner.enter(); err != nil {
			return err
		}
		l.Environ = renameProcess(l.Environ)
		l.signals.catch(unix.SIGTSTP, unix.SIGCONT)
	}
	if l.out, err = l.openOutputs(); err != nil {
		return err
	}
	defer l.out.finish(true)
	p, err := l.canStart()
	if err != nil {
		return err
	}
	if err := l.besideOnTerminal(); err != nil {
		return err
	}
	if err := l.bind(); err != nil {
		return err
	}
	defer l.held.close()
	if err := l.openStatus(); err != nil {
		return err
	}
	defer l.status.close()
	if l.staysBehind(nil) {
		l.collectLate()
		l.takeNotify()
		l.notify.wait()
	}
	l.last = l.newLastGood()
	env, got, err := l.prepare(func(env *environ.Env) error { return environ.CheckSize(env, p.argv, stackLimit()) })
	if err != nil {
		return err
	}
	if l.staysBehind(got) {
		return l.supervise(p, env, got)
	}
	return l.become(p, env, got)
}

// canStart finds the program, and finds out before Vault is asked what else would make the start fail.
func (l *launch) canStart() (p program, err error) {
	if l.Dir, err = absoluteDir(l.Dir); err != nil {
		return program{}, err
	}
	if p, err = l.program(); err != nil {
		return program{}, err
	}
	return p, CheckFilePlaces(l.Rules.Files, l.AllowDisk, l.AllowOwner...)
}

// become becomes the command. A token of this run's own is revoked first, unless leases would end with it.
func (l *launch) become(p program, env *environ.Env, got []environ.Fetched) error {
	if l.Session.Own() && len(leases(got)) == 0 {
		if _, err := watched(l, func(ctx context.Context) (struct{}, error) {
			l.Session.Revoke(ctx)
			return struct{}{}, nil
		}); err != nil {
			return err
		}
	}
	if len(leases(got)) > 0 {
		l.Log.Warn("with --replace nobody renews the leases that the command gets: they expire",
			"hint", "without --replace, vaultexec stays and renews them")
	}
	// None has a path here: somebody has to remove those.
	variables, fds, err := newFiles(l.AllowDisk, l.AllowOwner...).handOver(env)
	if err != nil {
		return err
	}
	defer closeAll(fds)
	if err := l.held.listen(); err != nil {
		return err
	}
	l.Messages.Flush()
	return replace(p, l.Dir, l.held.environ(withPWD(variables, l.Dir)), fds, l.held, l.signals)
}

// mayDie reports whether nothing is lost when the kernel ends this process before there is a command: no token to
// revoke, no terminal to restore, no path of a socket to remove, no core with secrets, and not PID 1, which it would not
// end.
func (l *launch) mayDie() bool {
	return !l.staysBehind(nil) && l.inner == nil && !l.Session.Own() && os.Getpid() != 1 && !isDumpable() &&
		!slices.ContainsFunc(l.Listen, func(s listen.Spec) bool { return s.Path != "" })
}

// oneProcessor keeps the number of threads low in a process that mostly sleeps. (Where vaultexec becomes the command it
// would not pay: it moves what the runtime has already spread over the processors, 55 page faults.)
func oneProcessor() { runtime.GOMAXPROCS(1) }

// staysBehind decides between the modes.
func (l *launch) staysBehind(got []environ.Fetched) bool {
	switch l.Mode {
	case Replace:
		return false
	case Supervise:
		return true
	}
	return os.Getpid() == 1 || len(leases(got)) > 0
}

// prepared is what prepare gives.
type prepared struct {
	env *environ.Env
	got []environ.Fetched
}

// prepare logs in, fetches, builds the environment and has it checked. When that fails, the token has no further use.
func (l *launch) prepare(check func(*environ.Env) error) (*environ.Env, []environ.Fetched, error) {
	r, err := watched(l, func(ctx context.Context) (prepared, error) {
		got, err := l.fetch(ctx)
		fresh := err == nil
		if !fresh {
			l.last.drop(err)
			got, err = l.last.instead(err)
		}
		var env *environ.Env
		if err == nil {
			env, err = environ.Build(got, l.Rules, l.Environ)
		}
		if err == nil {
			err = check(env)
		}
		switch {
		case err != nil:
			if fresh {
				l.last.prune(got)
			}
			giveBack(ctx, l.Session, l.made.all())
		case fresh:
			l.last.keep(got)
		}
		return prepared{env, got}, err
	})
	return r.env, r.got, err
}

// lastWord is how long a signal may wait for the token to be revoked, and for a login under way to give one. All has to
// end within 200 ms.
const lastWord = 150 * time.Millisecond

// watched runs f while this goroutine watches for signals. One that ends vaultexec gives *Killed.
func watched[T any](l *launch, f func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	result := make(chan outcome, 1)
	go func() {
		value, err := f(ctx)
		result <- outcome{value, err}
	}()
	ended := l.awaitOrphans()
	if ended != nil {
		defer signal.Stop(ended)
	}
	for {
		select {
		case r := <-result:
			return r.value, r.err
		case <-ended:
			reapOrphans()
		case <-l.notify.tick():
			l.notify.live()
		case <-l.status.turns():
		case sig := <-l.signals.ch:
			switch {
			case sig == unix.SIGTSTP:
				l.stopEarly()
				continue
			case sig == unix.SIGCONT && l.inner.left():
				sig = unix.SIGTERM
			case !isDeadly(sig.(syscall.Signal)) && !isCrash(sig.(syscall.Signal)):
				continue
			}
			last, done := context.WithTimeout(ctx, lastWord)
			l.Session.Revoke(last)
			done()
			l.Messages.flush(hastyFlush)
			var none T
			return none, &Killed{Signal: sig.(unix.Signal)}
		}
	}
}

// stopEarly is Ctrl-Z before the command exists, behind the terminal of --mask. Elsewhere the kernel does that, or
// whoever asks for a password.
func (l *launch) stopEarly() { l.Aside(func() { l.inner.stop() }) }

// fetch logs in and reads all secrets.
func (l *launch) fetch(ctx context.Context) ([]environ.Fetched, error) {
	if len(l.Sources) == 0 { // a plain init: neither a request nor a token
		return nil, nil
	}
	if err := l.Session.Prepare(ctx, l.patience(time.Now())); err != nil {
		return nil, err
	}
	if l.Session.Own() { // it logs in first
		l.Session.Client.Expect(len(plan(l.Sources)))
	}
	patience := l.patience(time.Now())
	if err := patience.Do(ctx, l.Session.Login); err != nil {
		return nil, err
	}
	var got []environ.Fetched
	var read error
	// What is waited for out here is only a second login, when the token ended during a long wait.
	err := patience.Do(ctx, func(ctx context.Context) error {
		return l.Session.Do(ctx, func(ctx context.Context) error {
			got, read = l.fetcher(l.Session.Client, false).fetch(ctx, patience)
			if fault.Is(read, fault.Away) {
				return nil
			}
			return read
		})
	})
	if err == nil {
		err = read
	}
	return got, err
}

// patience is how long a Vault that is away is waited for, from start on.
func (l *launch) patience(start time.Time) vault.Patience {
	shows := func(text string) bool {
		l.waitsFor(text)
		return l.Waits != nil && l.Waits(text, vault.WaitEnd(start, l.Wait))
	}
	return vault.Patience{Wait: l.Wait, Start: start, Files: true, Over: l.Waited, Notice: func(f *fault.Error) {
		switch {
		case f.Passing && !shows("waiting for a credential: "+f.Error()):
			l.Log.Warn("waiting for a credential: "+f.Error(), "wait", waitText(l.Wait))
		case !f.Passing && !shows("waiting for Vault: "+f.Why):
			l.Log.Warn("waiting for Vault: "+f.Why, "wait", waitText(l.Wait))
		}
	}}
}

func (l *launch) fetcher(client *vault.Client, noLease bool) *fetcher {
	return &fetcher{
		client: client, sources: l.Sources, mountIsDefault: l.MountIsDefault, log: l.Log, made: &l.made,
		opt: vault.ReadOptions{KVVersion: l.KVVersion, NoLease: noLease},
	}
}

func waitText(d time.Duration) string {
	if d == vault.Forever {
		return "forever"
	}
	return d.String()
}

// stackLimit is the soft RLIMIT_STACK, on which the room for arguments and environment depends.
func stackLimit() uint64 {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &r); err != nil {
		return 8 << 20
	}
	return uint64(r.Cur) // signed on FreeBSD
}
