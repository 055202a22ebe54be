package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fallback"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Fallback is what --fallback asks for: an encrypted copy of the secrets as they were read last, for a start while Vault is away.
type Fallback struct {
	File   string // "" for none
	Key    fallback.Key
	MaxAge time.Duration
}

// lastGood keeps the copy. All methods of a nil one do nothing. The start and then the watcher use it; --status asks for it, too.
type lastGood struct {
	Fallback
	client  *vault.Client
	sources []environ.Source
	log     *slog.Logger

	mu     sync.Mutex
	inUse  *fallback.Header // what the command was started with; nil when it came from Vault
	warned bool             // that the copy cannot be written, or removed
}

func (l *launch) newLastGood() *lastGood {
	if l.Fallback.File == "" || len(l.Sources) == 0 {
		return nil
	}
	return &lastGood{Fallback: l.Fallback, client: l.Session.Client, sources: l.Sources, log: l.Log}
}

// used is the copy that the command was started with, as long as Vault has not been read since.
func (g *lastGood) used() *fallback.Header {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inUse
}

// copied is one path in the payload.
type copied struct {
	Path   vault.Path      `json:"path"`
	Secret json.RawMessage `json:"secret,omitempty"`
	Folder *vault.Folder   `json:"folder,omitempty"`
	Absent *vault.Marker   `json:"absent,omitempty"` // what an optional path was
}

// keep writes the copy after a good read of everything.
func (g *lastGood) keep(got []environ.Fetched) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inUse != nil {
		g.log.Info("Vault answers again: the last-good copy is no longer in use")
		g.inUse = nil
	}
	now := time.Now()
	h := fallback.Header{Address: g.client.Where(), Namespace: g.client.Namespace(), Paths: g.paths(), Versions: map[string]int{},
		Written: now.UTC().Truncate(time.Second), Seen: now.UTC().Truncate(time.Second)}
	payload, err := pack(got, h.Versions)
	hint := "only secrets of KV engines are kept: have a command of its own use the other paths, without --fallback"
	if err == nil {
		defer clear(payload)
		g.replaces()
		err, hint = g.write(h, payload, nil), writeHint
	}
	if err != nil {
		g.warn("cannot write the last-good copy: "+err.Error(), hint)
	} else {
		g.warned = false
	}
}

const writeHint = "without a copy, a start has to wait for Vault; --fallback needs a file of its own, in a folder that this user may write"

// warn says once that something is wrong with the file, until it is right again.
func (g *lastGood) warn(text, hint string) {
	if !g.warned {
		g.log.Warn(text, "hint", hint)
	}
	g.warned = true
}

// replaces says it when the copy takes the place of another run's, whose start will not have it.
func (g *lastGood) replaces() {
	file, err := fallback.Read(g.File)
	if err != nil {
		return
	}
	if h, err := fallback.Peek(file); err == nil {
		if whose := g.foreign(h); whose != "" {
			g.log.Warn("the last-good copy of another run is replaced: "+whose, "file", g.File, "hint", "runs with different paths need a --fallback file each")
		}
	}
}

// write writes the copy; with read only in the place of what was read.
func (g *lastGood) write(h fallback.Header, payload, read []byte) error {
	file, err := fallback.Seal(g.Key, h, payload)
	if err != nil {
		return err
	}
	if read != nil {
		err = fallback.Rewrite(g.File, file, read)
	} else {
		err = fallback.Write(g.File, file)
	}
	if err != nil && !errors.Is(err, fallback.ErrOther) {
		return fmt.Errorf("%q: %s", g.File, vault.Errno(err))
	}
	return err
}

// forget lets go of the key: nothing will be written any more.
func (g *lastGood) forget() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Fallback, g.client, g.sources = Fallback{}, nil, nil
}

// paths are the paths that were asked for.
func (g *lastGood) paths() []string {
	var list []string
	for _, s := range g.sources {
		list = append(list, s.Path.String())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// pack writes down what was read, and notes its versions. Only what lives in a KV engine is kept: what ends by itself would be of no
// use, or of too much.
func pack(got []environ.Fetched, versions map[string]int) ([]byte, error) {
	var list []copied
	seen := map[vault.Path]bool{}
	for _, f := range got {
		p := f.Source.Path
		if seen[p] {
			continue
		}
		seen[p] = true
		c := copied{Path: p, Folder: f.Folder}
		switch {
		case f.Folder != nil:
		case f.Secret != nil:
			raw, err := f.Secret.Pack()
			if err != nil {
				return nil, fmt.Errorf("%s: %s", p, err)
			}
			if c.Secret = raw; f.Secret.Version > 0 {
				versions[p.String()] = f.Secret.Version
			}
		default:
			m, _ := vault.MarkerOf(f.Absence)
			c.Absent = &m
		}
		list = append(list, c)
	}
	return json.Marshal(list)
}

// instead gives what the copy holds in place of what could not be read, if that is because Vault is away. Where the copy cannot be used
// the failure says why.
func (g *lastGood) instead(failure error) ([]environ.Fetched, error) {
	if g == nil || !isAway(failure) {
		return nil, failure
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	h, got, err := g.open(time.Now())
	if err != nil {
		return nil, because(failure, err)
	}
	g.inUse = &h
	g.log.Warn("Vault is away: the command gets the last-good copy of its secrets", "age", duration(h.Age(time.Now())),
		"versions", versionText(h.Versions), "why", fault.Of(failure).Why)
	return got, nil
}

// isAway reports whether all that failed is that Vault cannot be asked: exit code 120.
func isAway(err error) bool {
	all := fault.All(err)
	for _, f := range all {
		if f.Code() != fault.Away.Code() {
			return false
		}
	}
	return len(all) > 0
}

// because adds to a failure why the copy does not help.
func because(failure, why error) error {
	f := *fault.Of(failure)
	hint := f.Hint
	f.Hint = "the last-good copy cannot be used: " + why.Error()
	if hint != "" {
		f.AddHint(hint)
	}
	return &f
}

// open reads the copy and judges it. The time of its use is kept in it, so that a clock which goes back makes it no younger.
func (g *lastGood) open(now time.Time) (fallback.Header, []environ.Fetched, error) {
	var none fallback.Header
	file, err := g.readFile()
	if err != nil {
		return none, nil, err
	}
	h, payload, err := fallback.Open(g.Key, file)
	if err != nil {
		return none, nil, err
	}
	defer clear(payload)
	if why := g.foreign(h); why != "" {
		return none, nil, errors.New(why)
	}
	age := h.Age(now)
	if now.After(h.Seen) {
		h.Seen = now.UTC().Truncate(time.Second)
		if err := g.write(h, payload, file); err != nil && !errors.Is(err, fallback.ErrOther) {
			g.warn("cannot note the time in the last-good copy: "+err.Error(), writeHint)
		}
	}
	got, err := g.judge(h, payload, age)
	return h, got, err
}

// judge is what the copy gives at an age.
func (g *lastGood) judge(h fallback.Header, payload []byte, age time.Duration) ([]environ.Fetched, error) {
	if age > g.MaxAge {
		return nil, fmt.Errorf("it is %s old, and --fallback-max-age is %s", duration(age), g.MaxAge)
	}
	return g.unpack(payload, h.Written.Add(age))
}

var errNoCopy = errors.New("there is none yet")

func (g *lastGood) readFile() ([]byte, error) {
	file, err := fallback.Read(g.File)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errNoCopy
	case err != nil:
		return nil, errors.New(vault.Errno(err))
	}
	return file, nil
}

func (g *lastGood) read() (fallback.Header, []byte, error) {
	file, err := g.readFile()
	if err != nil {
		return fallback.Header{}, nil, err
	}
	return fallback.Open(g.Key, file)
}

// foreign says in what a copy is none of this run; "" when it is one.
func (g *lastGood) foreign(h fallback.Header) string {
	return h.Mismatch(g.client.Where(), g.client.Namespace(), g.paths())
}

// unpack makes of the payload what a read would have given at that time.
func (g *lastGood) unpack(payload []byte, now time.Time) ([]environ.Fetched, error) {
	broken := errors.New("it does not hold what these paths need")
	var list []copied
	if json.Unmarshal(payload, &list) != nil {
		return nil, broken
	}
	f := &fetcher{sources: g.sources, again: true, keep: map[vault.Path]content{}, log: slog.New(slog.DiscardHandler)}
	for _, c := range list {
		var k content
		switch {
		case c.Secret != nil:
			secret, err := vault.Unpack(c.Secret)
			if err != nil {
				return nil, broken
			}
			if k.absence = secret.EndedBy(now); k.absence == nil {
				k.secret = secret
			}
		case c.Folder != nil:
			k.folder = c.Folder
		case c.Absent != nil:
			k.absence = &fault.Error{Kind: fault.Missing, What: "cannot read " + c.Path.String(), Why: "it was not there when the copy was made",
				Err: &vault.Gone{Marker: *c.Absent}}
		}
		f.keep[c.Path] = k
	}
	reads := plan(g.sources)
	for i := 0; i < len(reads); i++ { // the secrets of a folder follow it
		c, there := f.keep[reads[i].path]
		switch {
		case !there:
			return nil, broken
		case c.absence != nil && !reads[i].optional:
			return nil, c.absence
		}
		f.one(context.Background(), reads[i]) // it is kept: nothing is asked
		f.members(&reads)
	}
	judgeFolders(reads)
	if err := failures(reads); err != nil {
		return nil, broken
	}
	return f.collect(reads), nil
}

// drop removes the copy when Vault has said that the secrets are not for this run any more: a policy denies one, or one is gone. A login
// that is refused says nothing: it looks the same while the auth method's own server is away. A copy of other paths, of another Vault
// or another key is not this run's to remove.
func (g *lastGood) drop(err error) {
	if g == nil || !slices.ContainsFunc(fault.All(err), func(f *fault.Error) bool {
		return f.Kind == fault.Denied || f.Kind == fault.Missing || f.Kind == fault.Deleted
	}) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, payload, ours := g.ours(); ours {
		clear(payload)
		g.remove(err)
	}
}

// prune removes the copy when it holds a secret that a read has not found, and nothing else takes its place: what was found
// makes no environment.
func (g *lastGood) prune(got []environ.Fetched) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, payload, ours := g.ours()
	if !ours {
		return
	}
	defer clear(payload)
	found := map[vault.Path]bool{}
	for _, f := range got {
		found[f.Source.Path] = found[f.Source.Path] || f.Secret != nil
	}
	var list []copied
	_ = json.Unmarshal(payload, &list) // it is authentic
	for _, c := range list {
		if c.Secret != nil && !found[c.Path] {
			g.remove(goneFault(c.Path, vault.Marker{Absent: true}))
			return
		}
	}
}

// ours opens the copy. It reports whether it is one of this run.
func (g *lastGood) ours() (fallback.Header, []byte, bool) {
	h, payload, err := g.read()
	return h, payload, err == nil && g.foreign(h) == ""
}

// remove removes the copy, and says why.
func (g *lastGood) remove(why error) {
	there, failed := fallback.Remove(g.File)
	switch {
	case failed != nil:
		g.warn(fmt.Sprintf("cannot remove the last-good copy %q: %s", g.File, vault.Errno(failed)), "remove it: it would be used once more")
	case there:
		g.log.Warn("the last-good copy is removed: "+fault.Of(why).Error(), "file", g.File)
	}
}

// goneFault is the failure to read what is not there.
func goneFault(p vault.Path, m vault.Marker) *fault.Error {
	f := vault.NoSecret("cannot read " + p.String())
	switch {
	case m.Destroyed:
		f.Kind, f.Why = fault.Deleted, fmt.Sprintf("version %d is destroyed", m.Version)
	case m.Deleted:
		f.Kind, f.Why = fault.Deleted, fmt.Sprintf("version %d is deleted", m.Version)
	}
	return f
}

// versionText lists versions for the log.
func versionText(versions map[string]int) string {
	var list []string
	for _, p := range slices.Sorted(maps.Keys(versions)) {
		list = append(list, fmt.Sprintf("%s@%d", p, versions[p]))
	}
	return strings.Join(list, ", ")
}
