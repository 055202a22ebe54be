package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Engine says what a mount holds.
type Engine struct {
	Mount string // real path of the mount, without the slash at its end
	Type  string // "kv", "database", …
	KV    int    // 1 or 2 for a KV engine, else 0
}

// reserved mounts hold no secrets for programs, and a cubbyhole could imitate the proof of KV version 2.
var reserved = []string{"cubbyhole", "identity", "sys", "auth"}

const mountsHint = "`vaultexec list /` shows the mounts that the token can see"

func inReserved(p Path) bool {
	root, _, _ := strings.Cut(p.whole(), "/")
	return slices.Contains(reserved, root)
}

// mountDenied explains the denial of the question for the mount of p, which a token may ask that may do anything there.
func (p Path) mountDenied(f *fault.Error) {
	switch {
	case p.Fields != "":
		f.Err = &missingRule{policyRule(p.whole(), "update")}
	case p.Mount == "":
		f.Err = &missingRule{fmt.Sprintf("path %q { capabilities = [\"read\"] } (on KV version 2 with data/ after the mount)", p.Name)}
	case p.Folder:
		f.Err = &missingRule{fmt.Sprintf("path %q { capabilities = [\"list\"] } and path %q { capabilities = [\"read\"] } on KV version 2, path %q { capabilities = [\"list\", \"read\"] } on version 1",
			p.Mount+"/metadata/"+p.Name, p.Mount+"/data/"+p.Name+"*", p.Mount+"/"+p.Name+"*")}
	default:
		f.Err = &missingRule{fmt.Sprintf("path %q { capabilities = [\"read\"] } on KV version 2, path %q on version 1",
			p.Mount+"/data/"+p.Name, p.Mount+"/"+p.Name)}
	}
	f.Hint = f.Err.Error()
}

// String names the engine as people do: "kv version 2", "database".
func (e Engine) String() string {
	if e.KV != 0 {
		return "kv version " + strconv.Itoa(e.KV)
	}
	return e.Type
}

// mountCache remembers what is known of mounts, for the life of the process.
type mountCache struct {
	mu      sync.Mutex
	engines map[string]Engine
	asking  map[string]*question
}

// question is one request for a mount that several reads wait for.
type question struct {
	done   chan struct{}
	engine Engine
	err    error
}

func (m *mountCache) add(e Engine) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.engines == nil {
		m.engines = map[string]Engine{}
	}
	m.engines[e.Mount] = e
}

// find looks for the mount of p. Vault does not nest mounts, so that at most one is a prefix.
func (m *mountCache) find(p Path) (Engine, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full := p.whole()
	for i := range len(full) {
		if full[i] == '/' {
			if e, ok := m.engines[full[:i]]; ok {
				return e, true
			}
		}
	}
	return Engine{}, false
}

// ask finds the engine of p by sys/internal/ui/mounts. Reads of one mount ask together.
func (c *Client) ask(ctx context.Context, p Path) (Engine, error) {
	if e, ok := c.mounts.find(p); ok {
		return e, nil
	}
	key := p.Mount
	if key == "" {
		key = "\x00" + p.Name
	}
	q, mine := c.mounts.question(key)
	if mine {
		q.engine, q.err = c.askServer(ctx, p)
		c.mounts.answered(key, q)
		return q.engine, q.err
	}
	select {
	case <-q.done:
	case <-ctx.Done():
		return Engine{}, c.transportError(request{what: p.cannot()}, ctx.Err())
	}
	if q.err == nil {
		return q.engine, nil
	}
	f := *fault.Of(q.err)
	f.What = p.cannot() // the text names its own path
	var lacks *missingRule
	if p.Folder && errors.As(f.Err, &lacks) {
		p.mountDenied(&f) // a folder takes more than the secret that was asked for
	}
	return Engine{}, &f
}

// question returns the question that is under way, or a new one, which is the caller's to ask.
func (m *mountCache) question(key string) (q *question, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if q, asked := m.asking[key]; asked {
		return q, false
	}
	q = &question{done: make(chan struct{})}
	if m.asking == nil {
		m.asking = map[string]*question{}
	}
	m.asking[key] = q
	return q, true
}

// answered lets go of those who wait for the answer, and keeps it if it is one.
func (m *mountCache) answered(key string, q *question) {
	if q.err == nil {
		m.add(q.engine)
	}
	m.mu.Lock()
	delete(m.asking, key)
	m.mu.Unlock()
	close(q.done)
}

func (c *Client) askServer(ctx context.Context, p Path) (Engine, error) {
	full := p.whole()
	r := request{what: p.cannot(), path: "sys/internal/ui/mounts/" + full, denied: p.mountDenied}
	a, err := c.do(ctx, r)
	if err != nil {
		f := fault.Of(err)
		if a != nil && a.Status == http.StatusForbidden && f.Cause == fault.NotVault {
			f.Kind, f.Hint = fault.Address,
				"something in front of Vault does not let /v1/sys/ through: give the version of the mount with --kv-version 2 (or 1), so that Vault need not be asked"
		}
		return Engine{}, f
	}
	var m mountWire
	if a.Data.into(&m) != nil || m.Type == "" {
		return Engine{}, notUnderstood(r.what, a)
	}
	e := m.engine(m.Path)
	if !strings.HasPrefix(full, e.Mount+"/") {
		// Namespaces: the answer may or may not begin with the one that the path or the header named.
		e.Mount = p.Mount
		if e.Mount == "" {
			return Engine{}, &fault.Error{Kind: fault.Usage, What: r.what,
				Why:  fmt.Sprintf("the mount %q is not at the start of it", strings.TrimSuffix(m.Path, "/")),
				Hint: mountsHint}
		}
	}
	switch m.Type {
	case "cubbyhole", "system", "identity", "ns_system", "ns_identity", "ns_cubbyhole":
		return Engine{}, &fault.Error{Kind: fault.Usage, What: r.what,
			Why: fmt.Sprintf("%s holds no secrets for programs", e.Mount), Hint: mountsHint}
	}
	return e, nil
}

// mountWire is what Vault says of a mount.
type mountWire struct {
	Path    string `json:"path"` // not in a list of several
	Type    string `json:"type"`
	Options struct {
		Version string `json:"version"`
	} `json:"options"`
}

func (m mountWire) engine(path string) Engine {
	e := Engine{Mount: strings.TrimSuffix(path, "/"), Type: m.Type}
	if m.Type == "kv" || m.Type == "generic" {
		e.Type, e.KV = "kv", 1
		if m.Options.Version == "2" {
			e.KV = 2
		}
	}
	return e
}

// List returns the names below dir (which is empty or ends in a slash) of a KV mount. Names of folders end in a slash.
func (c *Client) List(ctx context.Context, engine Engine, dir string) ([]string, error) {
	path := engine.Mount + "/"
	if engine.KV == 2 {
		path += "metadata/"
	}
	// path.Join in vault/api drops the slash at the end, which Vault does not need for a LIST.
	r := request{what: fmt.Sprintf("cannot list %s/%s", engine.Mount, dir), method: "LIST", path: path + dir,
		denied: needs(path+dir, "list")}
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	var d struct {
		Keys []string `json:"keys"`
	}
	if a.Data.into(&d) != nil {
		return nil, notVaults(r.what, "")
	}
	return d.Keys, nil
}

// VisibleMounts returns the secrets engines on which the token may do anything.
func (c *Client) VisibleMounts(ctx context.Context) ([]Engine, error) {
	a, err := c.do(ctx, request{what: "cannot list the mounts", path: "sys/internal/ui/mounts"})
	if err != nil {
		return nil, err
	}
	var d struct {
		Secret map[string]mountWire `json:"secret"`
	}
	if a.Data.into(&d) != nil {
		return nil, notVaults("cannot list the mounts", "")
	}
	engines := make([]Engine, 0, len(d.Secret))
	for path, m := range d.Secret {
		engines = append(engines, m.engine(path))
	}
	sort.Slice(engines, func(i, j int) bool { return engines[i].Mount < engines[j].Mount }) // slices.SortFunc would be 12 kB of code
	return engines, nil
}

// Engine returns what is known of the mount of p without asking.
func (c *Client) Engine(p Path) (Engine, bool) { return c.mounts.find(p) }
