package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Secret is what one read gave.
type Secret struct {
	Path   Path // with the real mount
	Engine Engine
	Values map[string]Value

	// Version 2 only.
	Version     int
	CreatedTime string // RFC 3339, the server's clock
	Destroyed   bool
	DeletedTime string // "" while the version lives; may lie in the future under delete_version_after

	Lease Lease     // of a dynamic secret
	Date  time.Time // the server's clock when it answered; zero when it did not say
}

// ReadOptions change how a secret is read.
type ReadOptions struct {
	KVVersion int  // 1 or 2 to skip the question; 0 to find out
	NoLease   bool // do not read paths of engines that create a lease by being read, or may; Values stays nil
}

// Read reads a secret of a KV engine of either version, or of any engine that answers a read.
//
// The version is found by guess, proof and question. The path is read as if the mount were version 2. An answer that
// proves itself costs nothing more. Otherwise the client asks for the mount, once in its life, at
// sys/internal/ui/mounts. Every token that may do anything below the mount may ask there, and it uses up no use of a
// token.
func (c *Client) Read(ctx context.Context, p Path, opt ReadOptions) (*Secret, error) {
	engine, known := identityToken(p)
	if !known && inReserved(p) {
		return nil, &fault.Error{Kind: fault.Usage, What: cannotRead(p), Why: "it is not in a secrets engine",
			Hint: mountsHint}
	}
	if !known {
		engine, known = c.mounts.find(p)
	}
	if !known && p.Fields == "" && p.Mount != "" && opt.KVVersion != 0 {
		engine, known = Engine{Mount: p.Mount, Type: "kv", KV: opt.KVVersion}, true
	}
	switch {
	case known:
		return c.readFrom(ctx, engine, p, opt)
	case p.Mount != "" && p.Fields == "":
		return c.readGuessing(ctx, p, opt)
	}
	engine, err := c.askFor(ctx, p, opt)
	if err != nil {
		return nil, err
	}
	return c.readFrom(ctx, engine, p, opt)
}

// readFrom reads a secret of an engine that is known.
func (c *Client) readFrom(ctx context.Context, engine Engine, p Path, opt ReadOptions) (*Secret, error) {
	p = p.within(engine.Mount)
	if p.Fields != "" {
		return c.readMade(ctx, p, engine, opt)
	}
	if engine.KV != 2 {
		return c.readPlain(ctx, p, engine, opt)
	}
	a, err := c.readData(ctx, p)
	return c.finishV2(p, a, err)
}

// readGuessing reads the path as if its mount were version 2. It asks for the mount when the answer does not prove
// that.
func (c *Client) readGuessing(ctx context.Context, p Path, opt ReadOptions) (*Secret, error) {
	guess, guessErr := c.readData(ctx, p)
	switch {
	case guessErr == nil && provesV2(guess):
		c.mounts.add(Engine{Mount: p.Mount, Type: "kv", KV: 2})
		return secretV2(p, guess)
	case guessErr != nil && !fault.Is(guessErr, fault.Denied, fault.Missing, fault.Usage):
		return nil, guessErr // nothing that another question could put right
	}
	engine, err := c.askFor(ctx, p, opt)
	switch {
	case fault.Is(err, fault.Denied) && fault.Has(guessErr, fault.NoMount):
		return nil, guessErr
	case err != nil:
		return nil, err
	case engine.KV == 2 && engine.Mount == p.Mount:
		return c.finishV2(p, guess, guessErr)
	}
	return c.readFrom(ctx, engine, p, opt)
}

// askFor finds the engine of p, whose version the options may know better.
func (c *Client) askFor(ctx context.Context, p Path, opt ReadOptions) (Engine, error) {
	engine, err := c.ask(ctx, p)
	if err == nil && opt.KVVersion != 0 && engine.Type == "kv" {
		engine.KV = opt.KVVersion
	}
	return engine, err
}

func cannotRead(p Path) string { return "cannot read " + p.String() }

// cannot is the text of what fails when the mount of p is not found.
func (p Path) cannot() string {
	if p.Folder {
		return cannotList(p)
	}
	return cannotRead(p)
}

// whole is the path from the root, with the mount.
func (p Path) whole() string {
	if p.Mount == "" {
		return p.Name
	}
	return p.Mount + "/" + p.Name
}

// Place is the path in the one form that tells whether two name the same.
func (p Path) Place() Path {
	p.Mount, p.Name = "", p.whole()
	return p
}

// within splits the whole path at the end of its real mount.
func (p Path) within(mount string) Path {
	p.Mount, p.Name = mount, strings.TrimPrefix(p.whole(), mount+"/")
	return p
}

// Within gives a path the real mount of its engine.
func Within(p Path, e Engine) Path { return p.within(e.Mount) }

func (c *Client) readData(ctx context.Context, p Path) (*Answer, error) {
	r := request{what: cannotRead(p), path: p.Mount + "/data/" + p.Name, secret: true}
	r.denied = func(f *fault.Error) {
		if f.Hint = superfluous(p); f.Hint == "" {
			needs(r.path, "read")(f)
		}
	}
	if p.Version > 0 {
		r.query = url.Values{"version": {strconv.Itoa(p.Version)}}
	}
	return c.do(ctx, r)
}

// dataV2 is the data of a version 2 answer.
type dataV2 struct {
	Data     map[string]Value `json:"data"`
	Metadata *struct {
		Version      int    `json:"version"`
		CreatedTime  string `json:"created_time"`
		DeletionTime string `json:"deletion_time"`
		Destroyed    *bool  `json:"destroyed"`
	} `json:"metadata"`
}

// provesV2 reports whether the answer can only come from version 2: a version 1 secret has a lease_duration above 0, or
// shows a key ttl or lease beside the two that version 2 has.
func provesV2(a *Answer) bool {
	if a.LeaseID != "" || a.LeaseDuration != 0 || a.Wrapped {
		return false
	}
	var keys map[string]json.RawMessage
	var d dataV2
	if a.Data.into(&keys) != nil || len(keys) != 2 || a.Data.into(&d) != nil {
		return false
	}
	_, hasData := keys["data"]
	m := d.Metadata
	return hasData && m != nil && m.Version > 0 && m.CreatedTime != "" && m.Destroyed != nil
}

// finishV2 turns an answer of a mount that is version 2 into a secret or the failure that it means.
func (c *Client) finishV2(p Path, a *Answer, err error) (*Secret, error) {
	if err == nil {
		return secretV2(p, a)
	}
	f := fault.Of(err)
	var d dataV2
	switch {
	case f.Kind == fault.Missing && a != nil && a.Data.into(&d) == nil && d.Metadata != nil:
		return nil, deleted(p, d)
	case f.Cause == fault.NoSecret && p.Version > 0:
		f.Why = "no such secret, or no such version of it"
	}
	if f.Kind == fault.Missing && f.Hint == "" {
		f.Hint = superfluous(p)
	}
	return nil, f
}

// superfluous finds a data/ or metadata/ that belongs to the API and not to the path.
func superfluous(p Path) string {
	for _, prefix := range []string{"data/", "metadata/"} {
		if rest, ok := strings.CutPrefix(p.Name, prefix); ok && rest != "" {
			return fmt.Sprintf("leave %q out: it belongs to Vault's API, write %q", prefix,
				"/"+p.Mount+"/"+EscapePath(rest))
		}
	}
	return ""
}

func deleted(p Path, d dataV2) error {
	m := Marker{Version: d.Metadata.Version, Created: d.Metadata.CreatedTime}
	m.Destroyed = d.Metadata.Destroyed != nil && *d.Metadata.Destroyed
	m.Deleted = !m.Destroyed
	e := &fault.Error{Kind: fault.Deleted, What: cannotRead(p), Err: &Gone{m}}
	if m.Destroyed {
		e.Why = fmt.Sprintf("version %d is destroyed", d.Metadata.Version)
		e.Hint = "write a new version, or name an older one as PATH@VERSION"
		return e
	}
	e.Why = fmt.Sprintf("version %d was deleted at %s", d.Metadata.Version, d.Metadata.DeletionTime)
	e.Hint = fmt.Sprintf(
		"`vault kv undelete -mount=%s -versions=%d %s` brings it back; PATH@VERSION names an older one",
		p.Mount, d.Metadata.Version, p.Name)
	return e
}

func secretV2(p Path, a *Answer) (*Secret, error) {
	var d dataV2
	if err := a.Data.into(&d); err != nil || a.Wrapped || d.Metadata == nil {
		return nil, notUnderstood(cannotRead(p), a)
	}
	s := &Secret{
		Path: p, Engine: Engine{Mount: p.Mount, Type: "kv", KV: 2}, Values: d.Data, Date: a.Date,
		Version: d.Metadata.Version, CreatedTime: d.Metadata.CreatedTime, DeletedTime: d.Metadata.DeletionTime,
	}
	if d.Metadata.Destroyed != nil {
		s.Destroyed = *d.Metadata.Destroyed
	}
	if s.Values == nil {
		s.Values = map[string]Value{}
	}
	return s, nil
}

func notUnderstood(what string, a *Answer) error {
	if a.Wrapped {
		return wrappedAnswer(what)
	}
	return notVaults(what, "no secret in it")
}

// readPlain reads <mount>/<name>: KV version 1 and every engine that is not KV.
func (c *Client) readPlain(ctx context.Context, p Path, engine Engine, opt ReadOptions) (*Secret, error) {
	if p.Version > 0 {
		return nil, &fault.Error{Kind: fault.Usage, What: cannotRead(p), Why: "only KV version 2 keeps versions",
			Hint: fmt.Sprintf("the mount %s is %s: leave @%d out", engine.Mount, engine, p.Version)}
	}
	s := &Secret{Path: p, Engine: engine}
	if opt.NoLease && engine.Creates(p) != "" {
		return s, nil
	}
	r := request{what: cannotRead(p), path: p.Mount + "/" + p.Name, secret: true}
	r.denied = needs(r.path, "read")
	a, err := c.do(ctx, r)
	if err != nil {
		notReadable(fault.Of(err), engine, p)
		return nil, err
	}
	return s, s.take(a)
}

// take fills s with what an engine that is not KV version 2 answered.
func (s *Secret) take(a *Answer) error {
	if a.Wrapped || len(a.Data.raw()) == 0 || a.Data.into(&s.Values) != nil {
		return notUnderstood(cannotRead(s.Path), a)
	}
	s.Date = a.Date
	s.Lease = s.ownLife()
	if a.LeaseID != "" {
		s.Lease = Lease{ID: a.LeaseID, Duration: lifeOf(a.LeaseDuration), Renewable: a.Renewable,
			Token: a.token}
	}
	return nil
}
