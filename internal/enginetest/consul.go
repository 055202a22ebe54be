package enginetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// Consul is one server of Consul's with ACLs that deny what no policy allows. It answers on a port without TLS, on one with, and on a
// socket. Sessions may have a TTL of a second and more (session_ttl_min).
type Consul struct {
	program
	caller
	Addr    string // host:port, as CONSUL_HTTP_ADDR
	TLSAddr string // host:port
	Socket  string // path
	CA      *vaulttest.CA

	admin string
}

var sharedConsul shared[*Consul]

// SharedConsul is the server that all tests of this binary share, each with a Name of its own. It ends with vaulttest.Shutdown.
func SharedConsul(t TB) *Consul {
	t.Helper()
	return sharedConsul.get(func() *Consul { return startConsul(t) })
}

// NewConsul starts a server for this test alone.
func NewConsul(t TB) *Consul {
	t.Helper()
	c := startConsul(t)
	t.Cleanup(c.discard)
	return c
}

func startConsul(t TB) *Consul {
	t.Helper()
	bin, err := consulTool.Path(context.Background())
	if err != nil {
		t.Fatalf("%v", err)
	}
	c := &Consul{admin: uuid()}
	vaulttest.Secret(c.admin)
	if err := c.boot(t, bin); err != nil {
		c.discard()
		t.Fatalf("cannot start Consul: %v", err)
	}
	return c
}

func (c *Consul) boot(t TB, bin string) (err error) {
	if c.dir, err = vaulttest.TempDir("consul"); err != nil {
		return err
	}
	c.CA = vaulttest.NewCA(t, "consul CA")
	pair := c.CA.Server(t, vaulttest.CertOpts{})
	c.CA.File = filepath.Join(c.dir, "ca.pem")
	key, err := os.ReadFile(pair.KeyFile)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{"ca.pem": c.CA.PEM, "cert.pem": pair.CertPEM, "key.pem": key} {
		if _, err := write(c.dir, name, b); err != nil {
			return err
		}
	}
	c.Socket = filepath.Join(c.dir, "s")
	return vaulttest.WithPort(func(port int) error {
		more, serf := vaulttest.FreePort(), vaulttest.FreePort()
		if more == 0 || serf == 0 {
			return vaulttest.ErrPortTaken
		}
		c.Addr, c.TLSAddr = "127.0.0.1:"+strconv.Itoa(port), "127.0.0.1:"+strconv.Itoa(port+1)
		conf, err := json.Marshal(object{
			"server": true, "bootstrap_expect": 1, "node_name": "test", "data_dir": filepath.Join(c.dir, "data"),
			"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "addresses": object{"http": "127.0.0.1 unix://" + c.Socket},
			"ports": object{"http": port, "https": port + 1, "server": more, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1,
				"grpc_tls": -1},
			"tls":                  object{"https": object{"ca_file": c.CA.File, "cert_file": filepath.Join(c.dir, "cert.pem"), "key_file": filepath.Join(c.dir, "key.pem")}},
			"acl":                  object{"enabled": true, "default_policy": "deny", "tokens": object{"initial_management": c.admin, "agent": c.admin}},
			"performance":          object{"raft_multiplier": 1},
			"connect":              object{"enabled": false},
			"session_ttl_min":      "1s",
			"disable_update_check": true, "leave_on_terminate": false, "log_level": "warn",
		})
		if err != nil {
			return err
		}
		file, err := write(c.dir, "consul.json", conf)
		if err != nil {
			return err
		}
		c.caller = newCaller("http://"+c.Addr, nil, func(h http.Header) { h.Set("X-Consul-Token", c.admin) })
		c.start = func() (*vaulttest.Process, error) {
			_ = os.Remove(c.Socket)
			return vaulttest.StartServer(c.command(bin, "agent", "-config-file="+file), "address already in use", func(*vaulttest.Process) bool {
				// It has a leader, its ACLs are set up, and the node that sessions belong to is in the catalogue.
				status, b, err := c.Do("GET", "/v1/catalog/node/test?consistent", nil)
				return err == nil && status == http.StatusOK && strings.Contains(string(b), `"test"`)
			})
		}
		c.proc, err = c.start()
		return err
	})
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Name is a name for a lock that no other test has.
func (c *Consul) Name() string {
	b := make([]byte, 5)
	_, _ = rand.Read(b)
	return "t" + hex.EncodeToString(b) + "/api"
}

// Policy is the documented policy for a lock.
func Policy(name string) string {
	return KeyRule(name) + "\n" + SessionRule
}

// KeyRule is the half of it that is about keys, SessionRule the other one.
func KeyRule(name string) string { return `key_prefix "` + name + `/" { policy = "write" }` }

// SessionRule is the half of Policy that is about sessions.
const SessionRule = `session_prefix "" { policy = "write" }`

// Token makes a token with a policy of these rules.
func (c *Consul) Token(t TB, rules string) string {
	t.Helper()
	name := "p" + strings.ReplaceAll(uuid(), "-", "")
	c.Must(t, "PUT", "/v1/acl/policy", object{"Name": name, "Rules": rules})
	made := c.Must(t, "PUT", "/v1/acl/token", object{"Policies": []object{{"Name": name}}})
	token := made["SecretID"].(string)
	vaulttest.Secret(token)
	return token
}

// Revoke deletes a token.
func (c *Consul) Revoke(t TB, token string) {
	t.Helper()
	r, err := http.NewRequest("GET", c.base+"/v1/acl/token/self", nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	r.Header.Set("X-Consul-Token", token)
	resp, err := c.client.Do(r)
	if err != nil {
		t.Fatalf("cannot ask for a token: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	var self struct{ AccessorID string }
	if err := json.NewDecoder(resp.Body).Decode(&self); err != nil || self.AccessorID == "" {
		t.Fatalf("cannot ask for a token: status %d", resp.StatusCode)
	}
	c.Must(t, "DELETE", "/v1/acl/token/"+self.AccessorID, nil)
}

// Env are the variables of a client with a token.
func (c *Consul) Env(token string) []string {
	return []string{"CONSUL_HTTP_ADDR=" + c.Addr, "CONSUL_HTTP_TOKEN=" + token}
}

// Pair is a key as Consul has it.
type Pair struct {
	Key, Session string
	Value        []byte
	ModifyIndex  uint64
}

// Key reads a key; its zero value when there is none. It is for several goroutines, too.
func (c *Consul) Key(key string) (Pair, error) {
	status, b, err := c.Do("GET", "/v1/kv/"+key+"?consistent", nil)
	if err != nil || status == http.StatusNotFound {
		return Pair{}, err
	}
	var list []Pair
	if err := json.Unmarshal(b, &list); err != nil || len(list) != 1 {
		return Pair{}, fmt.Errorf("status %d and no key", status)
	}
	return list[0], nil
}

// Holders are the holders of the places 0 … n-1 by what Consul says, "" for a place that nobody holds.
func (c *Consul) Holders(name string, n int) ([]string, error) {
	holders := make([]string, n)
	for i := range holders {
		p, err := c.Key(name + "/" + strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		var h struct{ Holder string }
		if p.Session != "" && json.Unmarshal(p.Value, &h) == nil {
			holders[i] = h.Holder
		}
	}
	return holders, nil
}

// Sessions lists the names of all sessions that there are.
func (c *Consul) Sessions(t TB) []string {
	t.Helper()
	status, b, err := c.Do("GET", "/v1/session/list?consistent", nil)
	var list []struct{ Name string }
	if err != nil || status != http.StatusOK || json.Unmarshal(b, &list) != nil {
		t.Fatalf("no list of sessions: status %d, %v", status, err)
	}
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = s.Name
	}
	return names
}

// Destroy ends every session of a name, as an operator may.
func (c *Consul) Destroy(t TB, name string) {
	t.Helper()
	_, b, err := c.Do("GET", "/v1/session/list?consistent", nil)
	var list []struct{ ID, Name string }
	if err != nil || json.Unmarshal(b, &list) != nil {
		t.Fatalf("no list of sessions: %v", err)
	}
	for _, s := range list {
		if s.Name == name {
			c.Must(t, "PUT", "/v1/session/destroy/"+s.ID, nil)
		}
	}
}

// Getenv returns a function that looks variables up in env.
func Getenv(env []string) func(string) string {
	return func(name string) string { return lookup(env, name) }
}
