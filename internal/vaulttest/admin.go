package vaulttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// Call sends one request to /v1/PATH and returns the status and the decoded answer; numbers in it are json.Number. An
// answer that is not a JSON object counts as empty. The path is sent as it stands, query included; Escape makes one
// from a secret's name. A body of type string, []byte or json.RawMessage is sent as it is, so that a number keeps its
// literal; anything else is marshalled. An error means that no answer came.
func (s *Server) Call(ctx context.Context, token, method, path string, body any) (int, map[string]any, error) {
	raw, err := rawJSON(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Addr+"/v1/"+path, bytes.NewReader(raw))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Vault-Request", "true")
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	var out map[string]any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&out) != nil {
		out = nil
	}
	Secret(Credentials(out)...)
	return resp.StatusCode, out, nil
}

// Credentials returns the tokens and secret IDs that an answer of Vault holds. Call registers them with Secret.
func Credentials(answer map[string]any) []string {
	var found []string
	for _, at := range [][]string{
		{"auth", "client_token"}, {"wrap_info", "token"}, {"data", "secret_id"}, {"root_token"},
	} {
		if c := text(answer, at...); c != "" {
			found = append(found, c)
		}
	}
	return found
}

func rawJSON(body any) ([]byte, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil
	case string:
		return []byte(b), nil
	case []byte:
		return b, nil
	case json.RawMessage:
		return b, nil
	}
	return json.Marshal(body)
}

// Escape makes a request path of a mount's or secret's name.
func Escape(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// Do sends one request with the root token. It fails the test only when no answer came.
func (s *Server) Do(t TB, method, path string, body any) (int, map[string]any) {
	t.Helper()
	return s.DoAs(t, s.RootToken, method, path, body)
}

// DoAs is Do with another token, or none.
func (s *Server) DoAs(t TB, token, method, path string, body any) (int, map[string]any) {
	t.Helper()
	status, out, err := s.Call(context.Background(), token, method, path, body)
	if err != nil {
		t.Fatalf("cannot %s %s: %v", method, path, err)
	}
	return status, out
}

// Must is Do that fails the test unless Vault says 2xx. It tries again while the server is still warming up: after a
// mount, an unseal or an election.
func (s *Server) Must(t TB, method, path string, body any) map[string]any {
	t.Helper()
	out, err := s.TryMust(method, path, body)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// TryMust is Must outside of a test.
func (s *Server) TryMust(method, path string, body any) (map[string]any, error) {
	var (
		status int
		out    map[string]any
		err    error
	)
	wait.For(30*time.Second, func() bool {
		status, out, err = s.Call(context.Background(), s.RootToken, method, path, body)
		return err != nil || !warmingUp(status, out)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot %s %s: %w", method, path, err)
	}
	if status/100 != 2 {
		return nil, fmt.Errorf("cannot %s %s: status %d, %s", method, path, status, Redact(fmt.Sprint(out["errors"])))
	}
	return out, nil
}

func warmingUp(status int, out map[string]any) bool {
	text := fmt.Sprint(out["errors"])
	for _, s := range []string{
		"Upgrading from non-versioned", "Waiting for the primary to upgrade",
		"local node not active but active cluster node not found",
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return status == http.StatusServiceUnavailable && !strings.Contains(text, "sealed")
}

// MountKV mounts a KV engine, version 1 or 2, and waits until it takes requests.
func (s *Server) MountKV(t TB, path string, version int) {
	t.Helper()
	if err := s.TryMountKV(path, version); err != nil {
		t.Fatalf("%v", err)
	}
}

// TryMountKV is MountKV outside of a test.
func (s *Server) TryMountKV(path string, version int) error {
	body := map[string]any{"type": "kv", "options": map[string]string{"version": fmt.Sprint(version)}}
	if _, err := s.TryMust("POST", "sys/mounts/"+Escape(path), body); err != nil {
		return err
	}
	if version == 2 {
		// A new version 2 mount "upgrades" itself in the background and refuses requests until then.
		if _, err := s.TryMust("GET", Escape(path)+"/config", nil); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mounts == nil {
		s.mounts = map[string]int{}
	}
	s.mounts[path] = version
	return nil
}

// kvVersion returns the version of a mount, asking Vault about one that MountKV did not make.
func (s *Server) kvVersion(mount string) (int, error) {
	s.mu.Lock()
	v := s.mounts[mount]
	s.mu.Unlock()
	if v != 0 {
		return v, nil
	}
	out, err := s.TryMust("GET", "sys/internal/ui/mounts/"+Escape(mount), nil)
	if err != nil {
		return 0, err
	}
	data, _ := out["data"].(map[string]any)
	options, _ := data["options"].(map[string]any)
	if options["version"] == "2" {
		return 2, nil
	}
	return 1, nil
}

// PutKV writes a secret and returns its version, 0 on a version 1 mount. The data is a map, or JSON text of an object.
// Strings in it are registered with Secret.
func (s *Server) PutKV(t TB, mount, path string, data any) int {
	t.Helper()
	v, err := s.TryPutKV(mount, path, data)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return v
}

// TryPutKV is PutKV outside of a test.
func (s *Server) TryPutKV(mount, path string, data any) (int, error) {
	raw, err := rawJSON(data)
	if err != nil {
		return 0, fmt.Errorf("cannot marshal the secret %s/%s", mount, path) // not the cause, which may quote a value
	}
	Secret(Values(raw)...)
	version, err := s.kvVersion(mount)
	if err != nil {
		return 0, err
	}
	if version == 1 {
		_, err = s.TryMust("POST", Escape(mount+"/"+path), raw)
		return 0, err
	}
	out, err := s.TryMust("POST", Escape(mount)+"/data/"+Escape(path), `{"data":`+string(raw)+`}`)
	if err != nil {
		return 0, err
	}
	meta, _ := out["data"].(map[string]any)
	n, _ := meta["version"].(json.Number)
	written, err := n.Int64()
	if err != nil {
		return 0, fmt.Errorf("cannot put %s/%s: Vault names no version", mount, path)
	}
	return int(written), nil
}

// Values returns every string and number inside a JSON text.
func Values(raw []byte) []string {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil
	}
	var found []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			found = append(found, v)
		case json.Number:
			found = append(found, v.String())
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return found
}

// Policy writes an ACL policy.
func (s *Server) Policy(t TB, name, hcl string) {
	t.Helper()
	s.Must(t, "PUT", "sys/policies/acl/"+Escape(name), map[string]string{"policy": hcl})
}

// TokenOpts describes a token. The zero value makes one with the default policy and the server's default life.
type TokenOpts struct {
	Policies    []string
	NoDefault   bool          // without the default policy: not even lookup-self
	NumUses     int           // 0 is unlimited
	TTL         time.Duration // 0 is the server's default
	ExplicitMax time.Duration // 0 is none
	Period      time.Duration // 0 makes no periodic token
	Type        string        // "service" (default) or "batch"
	NotRenew    bool          // not renewable
}

// Token makes a token.
func (s *Server) Token(t TB, o TokenOpts) string {
	t.Helper()
	token, err := s.TryToken(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return token
}

// TryToken is Token outside of a test.
func (s *Server) TryToken(o TokenOpts) (string, error) {
	if o.Policies == nil {
		o.Policies = []string{"default"} // none at all would mean those of the parent, which is root
	}
	body := map[string]any{"policies": o.Policies, "no_default_policy": o.NoDefault}
	if o.Type != "" {
		body["type"] = o.Type
	}
	if o.Type != "batch" {
		body["renewable"] = !o.NotRenew
	}
	if o.NumUses > 0 {
		body["num_uses"] = o.NumUses
	}
	for name, d := range map[string]time.Duration{"ttl": o.TTL, "explicit_max_ttl": o.ExplicitMax, "period": o.Period} {
		if d > 0 {
			body[name] = d.String()
		}
	}
	out, err := s.TryMust("POST", "auth/token/create", body)
	if err != nil {
		return "", err
	}
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if token == "" {
		return "", fmt.Errorf("cannot make a token: Vault's answer holds none")
	}
	return token, nil
}

// Scope is a test's own corner of a server: names that no other test uses, gone when the test ends.
type Scope struct {
	Prefix string

	srv *Server
	t   TB
	n   int
}

// Scope returns a new corner.
func (s *Server) Scope(t TB) *Scope {
	return &Scope{Prefix: "t" + random(5), srv: s, t: t}
}

// Name returns a new name that starts with the prefix.
func (c *Scope) Name(kind string) string {
	c.n++
	return fmt.Sprintf("%s-%s%d", c.Prefix, kind, c.n)
}

// Mount mounts a KV engine under a name of its own.
func (c *Scope) Mount(version int) string {
	c.t.Helper()
	path := c.Name("kv")
	c.srv.MountKV(c.t, path, version)
	c.forget("sys/mounts/" + path)
	return path
}

// Policy writes a policy under a name of its own.
func (c *Scope) Policy(hcl string) string {
	c.t.Helper()
	name := c.Name("policy")
	c.srv.Policy(c.t, name, hcl)
	c.forget("sys/policies/acl/" + name)
	return name
}

// ReadPolicy writes a policy that allows exactly to read these secrets of a mount, and nothing else.
func (c *Scope) ReadPolicy(mount string, paths ...string) string {
	c.t.Helper()
	version, err := c.srv.kvVersion(mount)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	var hcl strings.Builder
	for _, p := range paths {
		if version == 2 {
			p = "data/" + p
		}
		fmt.Fprintf(&hcl, "path %q { capabilities = [\"read\"] }\n", mount+"/"+p)
	}
	return c.Policy(hcl.String())
}

// AppRole enables an AppRole method under a name of its own, with one role that has these policies, and returns the
// method's mount, the role's name and ID and a secret ID.
func (c *Scope) AppRole(policies ...string) (mount, role, roleID, secretID string) {
	c.t.Helper()
	mount, role = c.Name("approle"), "app"
	c.srv.Must(c.t, "POST", "sys/auth/"+mount, map[string]string{"type": "approle"})
	c.forget("sys/auth/" + mount)
	at := "auth/" + mount + "/role/" + role
	c.srv.Must(c.t, "POST", at, map[string]any{"token_policies": policies})
	roleID = text(c.srv.Must(c.t, "GET", at+"/role-id", nil), "data", "role_id")
	secretID = text(c.srv.Must(c.t, "POST", at+"/secret-id", nil), "data", "secret_id")
	return mount, role, roleID, secretID
}

// text digs a string out of an answer.
func text(v any, keys ...string) string {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	s, _ := v.(string)
	return s
}

// forget deletes path at the end of the test, as far as the server is still there then.
func (c *Scope) forget(path string) {
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _, _ = c.srv.Call(ctx, c.srv.RootToken, "DELETE", path, nil)
	})
}
