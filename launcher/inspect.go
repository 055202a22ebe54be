package launcher

import (
	"context"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Report is what a run would find, looked at without starting anything.
type Report struct {
	Server     vault.ServerInfo // empty when it does not tell
	Token      vault.Info
	TokenFault *fault.Error // why nothing is known of the token; nil when something is
	Paths      []PathReport
	Env        *environ.Env     // what the command would get; nil when some secret could not be read
	Unread     []environ.Source // leased: reading them makes a lease, which only a run does
	Copy       *CopyReport      // nil without --fallback
	Faults     []*fault.Error
}

// PathReport is one secret.
type PathReport struct {
	Path     vault.Path    // with its real mount, where that is known
	Secret   *vault.Secret // nil when there is none; without values when Leased
	Leased   bool          // not read, because reading it makes something
	Optional bool
	Folder   *vault.Folder // what a folder has in it; each secret of it has a report of its own
	Member   bool          // only a folder names it
	Absent   *fault.Error  // why an optional secret is left out
	Fault    *fault.Error  // why the run would fail

	API  string   // path in policies; "" where the engine is not known
	Caps []string // what the token may do with it; nil when not known

	Metadata string   // path of the versions; "" on version 1
	MetaCaps []string // nil when not known
}

// Inspect logs in, reads what a run would read, except leased secrets, and builds the environment that a command would
// get. It fails only where there is nothing to report: Vault is away or refuses the login. The report's Faults say why
// a run would not work. Like Run it must be called on the main thread, and returns *Killed when a signal ended it. It
// gives the token back before it returns: a reader that goes away may end whoever prints the report.
func Inspect(o Options) (*Report, error) {
	l := &launch{Options: o, signals: catchDeadly()}
	defer l.signals.release()
	return watched(l, func(ctx context.Context) (*Report, error) {
		r, err := l.inspect(ctx)
		l.Session.Revoke(ctx)
		return r, err
	})
}

func (l *launch) inspect(ctx context.Context) (*Report, error) {
	o := l.Options
	if err := l.Session.Prepare(ctx, l.patience(time.Now())); err != nil {
		return nil, err
	}
	r := &Report{Copy: l.newLastGood().report(time.Now())}
	patience := l.patience(time.Now())
	if err := patience.Do(ctx, l.Session.Login); err != nil {
		return nil, r.Copy.instead(err)
	}
	if len(o.Argv) > 0 {
		if _, err := l.program(); err != nil {
			r.Faults = append(r.Faults, fault.All(err)...)
		}
	}
	f := l.fetcher(l.Session.Client, true)
	var reads []*read
	err := patience.Do(ctx, func(ctx context.Context) error {
		return l.Session.Do(ctx, func(ctx context.Context) error {
			reads = plan(o.Sources)
			return f.round(ctx, &reads)
		})
	})
	if fault.Is(err, fault.Away) {
		return nil, r.Copy.instead(err)
	}
	for _, rd := range reads {
		r.Paths = append(r.Paths, l.report(ctx, rd))
	}
	if r.Token, err = l.Session.Info(ctx); err != nil {
		r.TokenFault = fault.Of(err)
	}
	if !r.Token.Known || r.Token.Uses == 0 { // the rest of a use-limited token is for the run
		l.ask(ctx, r)
		l.tryUnread(ctx, r, reads)
	}
	for i := range r.Paths {
		if p := &r.Paths[i]; p.Fault != nil {
			r.Faults = append(r.Faults, p.Fault)
		}
	}
	r.build(f.collect(reads), o)
	r.Server, _ = l.Session.Client.Server(ctx)
	return r, nil
}

// report turns a read into its part of the report.
func (l *launch) report(ctx context.Context, rd *read) PathReport {
	p := PathReport{Path: rd.path, Secret: rd.secret, Folder: rd.folder, Member: rd.member,
		Optional: rd.optional && !rd.member}
	if rd.absence != nil {
		p.Absent = fault.Of(rd.absence)
	}
	if rd.err != nil {
		p.Fault = fault.Of(rd.err)
		l.Session.Client.Advise(ctx, rd.path, p.Fault, l.MountIsDefault)
	}
	engine, known := l.Session.Client.Engine(rd.path)
	if rd.folder != nil {
		engine, known = rd.folder.Engine, true
	}
	if rd.secret != nil {
		engine, known, p.Path = rd.secret.Engine, true, rd.secret.Path
		p.Leased = rd.secret.Unread()
	}
	if known {
		p.Path = vault.Within(p.Path, engine)
		p.API, p.Metadata = engine.APIPath(p.Path), engine.MetadataPath(p.Path)
	}
	return p
}

// ask finds out what the token may do with the paths. A leased one, which is not read, can only be judged by that.
func (l *launch) ask(ctx context.Context, r *Report) {
	var paths []string
	for _, p := range r.Paths {
		for _, path := range []string{p.API, p.Metadata} {
			if path != "" {
				paths = append(paths, path)
			}
		}
	}
	if len(paths) == 0 {
		return
	}
	caps, err := l.Session.Client.Capabilities(ctx, paths)
	if err != nil {
		l.Log.Debug("the token may not ask for its capabilities", "why", fault.Of(err).Error())
		return
	}
	for i := range r.Paths {
		p := &r.Paths[i]
		p.Caps, p.MetaCaps = caps[p.API], caps[p.Metadata]
		if p.Path.Fields == "" {
			p.mustAllow("read")
		}
	}
}

// mustAllow finds out whether the token may have what was not read.
func (p *PathReport) mustAllow(capability string) {
	if p.Leased && p.Caps != nil && !vault.Allows(p.Caps, capability) {
		p.Fault = &fault.Error{Kind: fault.Denied, What: "cannot read " + p.Path.String(), Why: "permission denied",
			Hint: vault.PolicyHint(p.API, capability)}
	}
}

// tryUnread finds the paths among those that were not read that nobody can read, or not this token. What fields take is
// known only from the engine.
func (l *launch) tryUnread(ctx context.Context, r *Report, reads []*read) {
	for i, rd := range reads {
		p := &r.Paths[i]
		if !p.Leased || p.Fault != nil {
			continue
		}
		capability, f := l.Session.Client.CanBeRead(ctx, rd.secret)
		switch {
		case f == nil && p.Path.Fields != "" && capability != "":
			p.mustAllow(capability)
		case f == nil:
		case p.Optional && forgivable(f):
			p.Absent, p.Leased, rd.absence, rd.secret = f, false, f, nil
		default:
			p.Fault = f
		}
	}
}

// build makes the environment, when everything that can be read was read.
func (r *Report) build(got []environ.Fetched, o Options) {
	for _, p := range r.Paths {
		if p.Fault != nil && !p.Leased {
			return
		}
	}
	for i, g := range got {
		if g.Secret != nil && g.Secret.Unread() {
			r.Unread = append(r.Unread, g.Source)
			got[i].Secret = nil
		}
	}
	rules := o.Rules
	rules.Require = environ.Judgeable(rules.Require, r.Unread)
	rules.Files = environ.JudgeableFiles(rules.Files, r.Unread)
	env, err := environ.Build(got, rules, o.Environ)
	if err == nil && len(o.Argv) > 0 {
		err = environ.CheckSize(env, o.Argv, stackLimit())
	}
	if err != nil {
		r.Faults = append(r.Faults, fault.All(err)...)
		return
	}
	r.Env = env
}
