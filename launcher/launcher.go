package launcher

import (
	"context"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vault"
)

// Options is everything that a run needs to know, checked already.
type Options struct {
	Argv    []string // the command, byte for byte
	Environ []string // the environment that vaultexec was started with

	Session        *vault.Session
	Sources        []Source
	Rules          EnvRules
	KVVersion      int           // 1 or 2 to skip the question; 0
	Wait           time.Duration // for a Vault that is away at the start; 0 is one attempt, vault.Forever no bound
	MountIsDefault bool          // nobody chose the mount of relative paths

	Mode        Mode
	Supervision Supervision

	Log *slog.Logger
}

// Mode says whether vaultexec becomes the command or stays as its parent.
type Mode uint8

// The modes. Auto supervises as PID 1, which would leave zombies and lose SIGTERM otherwise, and what has a lease to renew.
const (
	Auto Mode = iota
	Replace
	Supervise
)

// launch is one run.
type launch struct {
	Options
	signals *signals
}

// Run fetches the secrets and becomes the command, or starts it and stays as its parent. It returns a *fault.Error or
// fault.List when that failed, *Exited with the code of the command, *Killed when a signal ended vaultexec or the command. It
// must be called on the main thread, locked.
func Run(o Options) error {
	l := &launch{Options: o, signals: catchDeadly()}
	p, err := findProgram(o.Argv, o.Environ)
	if err != nil {
		return err
	}
	env, got, err := l.prepare(p)
	if err != nil {
		return err
	}
	if l.staysBehind(got) {
		return l.supervise(p, env)
	}
	return replace(p, env.Strings(), l.signals)
}

// staysBehind decides between the modes.
func (l *launch) staysBehind(got []fetched) bool {
	switch l.Mode {
	case Replace:
		return false
	case Supervise:
		return true
	}
	return os.Getpid() == 1 || len(leases(got)) > 0
}

// Inspect reads what a run would read, but leased secrets, and builds the environment that a command would get.
func Inspect(ctx context.Context, o Options) (*Env, error) {
	l := &launch{Options: o}
	got, err := l.fetch(ctx, true)
	if err != nil {
		return nil, err
	}
	return buildEnv(got, o.Rules, o.Environ)
}

// prepared is what the worker of prepare found.
type prepared struct {
	env *Env
	got []fetched
	err error
}

// prepare logs in, fetches and builds the environment, while this goroutine watches for signals.
func (l *launch) prepare(p program) (*Env, []fetched, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	result := make(chan prepared, 1)
	go func() {
		got, err := l.fetch(ctx, false)
		if err != nil {
			result <- prepared{err: err}
			return
		}
		env, err := buildEnv(got, l.Rules, l.Environ)
		if err == nil {
			err = checkSize(env, p.argv, stackLimit())
		}
		result <- prepared{env, got, err}
	}()
	for {
		select {
		case r := <-result:
			return r.env, r.got, r.err
		case sig := <-l.signals.ch:
			if sig == unix.SIGPIPE {
				continue
			}
			return nil, nil, &Killed{Signal: sig.(unix.Signal)}
		}
	}
}

// fetch logs in and reads all secrets.
func (l *launch) fetch(ctx context.Context, noLease bool) ([]fetched, error) {
	if len(l.Sources) == 0 { // a plain init: neither a request nor a token
		return nil, nil
	}
	patience := vault.Patience{Wait: l.Wait, Start: time.Now(), Notice: func(cause string) {
		l.Log.Warn("waiting for Vault: "+cause, "wait", waitText(l.Wait))
	}}
	if err := patience.Do(ctx, l.Session.Login); err != nil {
		return nil, err
	}
	f := &fetcher{
		client: l.Session.Client, sources: l.Sources, mountIsDefault: l.MountIsDefault, log: l.Log,
		opt: vault.ReadOptions{KVVersion: l.KVVersion, NoLease: noLease},
	}
	return f.fetch(ctx, patience)
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
	return r.Cur
}
