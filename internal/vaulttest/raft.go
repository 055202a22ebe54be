package vaulttest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// RaftOpts describes a server with a configuration file and raft storage, the way people run Vault in earnest.
type RaftOpts struct {
	// TLS makes a CA and a certificate for 127.0.0.1 and localhost.
	TLS bool
	// Cert is the server's certificate, in place of the one that TLS makes. The test names the CA of it in CA.
	Cert *KeyPair
	CA   *CA
	// ClientCA has the server ask clients for a certificate of this CA, without insisting on one.
	ClientCA *CA
	// Extra is added to the configuration file.
	Extra string

	nodeID string
	joins  []int // ports of the nodes to join
	port   int   // taken as it is, when not 0
}

// Raft starts a server with raft storage for this test. It is not initialised: Init, then Unseal.
func Raft(t TB, o RaftOpts) *Server {
	t.Helper()
	bin, err := Binary()
	if err != nil {
		t.Fatalf("%v", err)
	}
	dir, err := TempDir("raft")
	if err != nil {
		t.Fatalf("%v", err)
	}
	s := &Server{bin: bin, dir: dir, client: newClient(nil)}
	t.Cleanup(s.Stop)
	scheme := "http"
	if o.TLS && o.Cert == nil {
		o.CA = NewCA(t, "vaulttest CA")
		o.Cert = o.CA.Server(t, CertOpts{})
	}
	if o.Cert != nil {
		if o.CA == nil {
			t.Fatalf("RaftOpts.Cert needs the CA that made it")
		}
		scheme, s.CACert = "https", o.CA.File
		conf, err := trust(o.CA.File)
		if err != nil {
			t.Fatalf("%v", err)
		}
		// Only this package's own requests: a test with an expired or misnamed certificate still needs to initialise
		// its server. What the product makes of the certificate is the product's affair.
		conf.InsecureSkipVerify = true
		s.client = newClient(conf)
	}
	start := func(port int) error {
		s.port, s.Addr = port, scheme+"://127.0.0.1:"+strconv.Itoa(port)
		conf := filepath.Join(dir, "vault.hcl")
		if err := os.WriteFile(conf, []byte(o.config(s)), 0o600); err != nil {
			return fmt.Errorf("cannot write the configuration: %w", err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
			return fmt.Errorf("cannot make the data folder: %w", err)
		}
		s.args = []string{"server", "-config=" + conf}
		return s.start()
	}
	if o.port != 0 {
		err = start(o.port)
	} else {
		err = WithPort(start)
	}
	if err != nil {
		t.Fatalf("cannot start Vault: %v", err)
	}
	s.register()
	if err := s.await("an answer", func(int) bool { return true }); err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// Configured starts a server for this test with a configuration file that config writes. The file has an address on
// 127.0.0.1 at port, the cluster's at the port after it, and data below dir. ca is the CA of its certificate, nil
// without TLS. The server is not initialised.
func Configured(t TB, ca *CA, config func(dir string, port int) string) *Server {
	t.Helper()
	bin, err := Binary()
	if err != nil {
		t.Fatalf("%v", err)
	}
	dir, err := TempDir("configured")
	if err != nil {
		t.Fatalf("%v", err)
	}
	s := &Server{bin: bin, dir: dir, client: newClient(nil)}
	t.Cleanup(s.Stop)
	scheme := "http"
	if ca != nil {
		conf, err := trust(ca.File)
		if err != nil {
			t.Fatalf("%v", err)
		}
		scheme, s.CACert, s.client = "https", ca.File, newClient(conf)
	}
	err = WithPort(func(port int) error {
		s.port, s.Addr = port, scheme+"://127.0.0.1:"+strconv.Itoa(port)
		conf := filepath.Join(dir, "vault.hcl")
		if err := os.WriteFile(conf, []byte(config(dir, port)), 0o600); err != nil {
			return fmt.Errorf("cannot write the configuration: %w", err)
		}
		s.args = []string{"server", "-config=" + conf}
		return s.start()
	})
	if err != nil {
		t.Fatalf("cannot start Vault: %v", err)
	}
	s.register()
	if err := s.await("an answer", func(int) bool { return true }); err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// Join starts another node for the cluster of a server without TLS. It is sealed, and joins when it is unsealed with
// that server's key shares.
func Join(t TB, leader *Server) *Server {
	t.Helper()
	s := Raft(t, RaftOpts{nodeID: "node-" + random(3), joins: []int{leader.port}})
	s.RootToken, s.Keys = leader.RootToken, leader.Keys
	return s
}

// config writes the configuration file.
func (o RaftOpts) config(s *Server) string {
	var b strings.Builder
	node := o.nodeID
	if node == "" {
		node = "node1"
	}
	fmt.Fprintf(&b, "disable_mlock = true\napi_addr = %q\ncluster_addr = \"https://127.0.0.1:%d\"\n", s.Addr, s.port+1)
	fmt.Fprintf(&b, "storage \"raft\" {\n  path = %q\n  node_id = %q\n  performance_multiplier = 1\n",
		filepath.Join(s.dir, "data"), node)
	for _, port := range o.joins {
		fmt.Fprintf(&b, "  retry_join { leader_api_addr = \"http://127.0.0.1:%d\" }\n", port)
	}
	fmt.Fprintf(&b, "}\nlistener \"tcp\" {\n  address = \"127.0.0.1:%d\"\n  cluster_address = \"127.0.0.1:%d\"\n",
		s.port, s.port+1)
	if o.Cert == nil {
		b.WriteString("  tls_disable = true\n")
	} else {
		fmt.Fprintf(&b, "  tls_cert_file = %q\n  tls_key_file = %q\n", o.Cert.CertFile, o.Cert.KeyFile)
		if o.ClientCA != nil {
			fmt.Fprintf(&b, "  tls_client_ca_file = %q\n", o.ClientCA.File)
		}
	}
	b.WriteString("}\n" + o.Extra + "\n")
	return b.String()
}

// Init initialises a new server and notes its key shares and root token. It stays sealed.
func (s *Server) Init(t TB, shares, threshold int) {
	t.Helper()
	var (
		status int
		out    map[string]any
	)
	body := map[string]int{"secret_shares": shares, "secret_threshold": threshold}
	wait.Until(t, startLimit, "Vault to take the initialisation", func() bool {
		status, out = s.DoAs(t, "", "PUT", "sys/init", body)
		return status != http.StatusInternalServerError && status != http.StatusServiceUnavailable
	})
	s.RootToken = text(out, "root_token")
	keys, _ := out["keys_base64"].([]any)
	for _, k := range keys {
		k, _ := k.(string)
		s.Keys = append(s.Keys, k)
	}
	Secret(append(s.Keys, s.RootToken)...)
	if hexKeys, ok := out["keys"].([]any); ok {
		for _, k := range hexKeys {
			k, _ := k.(string)
			Secret(k)
		}
	}
	if status != http.StatusOK || s.RootToken == "" || len(s.Keys) != shares {
		t.Fatalf("cannot initialise Vault: status %d, %v", status, out["errors"])
	}
}

// Unseal feeds the key shares and waits until the server is unsealed and, on a server that stands alone, active.
func (s *Server) Unseal(t TB) {
	t.Helper()
	s.unseal(t)
	s.WaitActive(t)
}

func (s *Server) unseal(t TB) {
	t.Helper()
	sealed := func() bool {
		status, out := s.SealStatus(t)
		return status != http.StatusOK || out["sealed"] == true
	}
	// A node that joins takes its shares only when it has reached the leader, and calls itself sealed for a moment
	// after the last one: feed, look for two seconds, feed again.
	wait.Until(t, startLimit, "Vault to be unsealed", func() bool {
		if !sealed() {
			return true
		}
		for _, k := range s.Keys {
			_, out := s.DoAs(t, "", "PUT", "sys/unseal", map[string]string{"key": k})
			if progress, ok := out["progress"].(json.Number); ok && progress == "0" {
				break // that was the last one needed
			}
		}
		return wait.For(2*time.Second, func() bool { return !sealed() })
	})
}

// WaitActive waits until the server is the active node.
func (s *Server) WaitActive(t TB) {
	t.Helper()
	if err := s.await("the server to be active", func(status int) bool { return status == http.StatusOK }); err != nil {
		t.Fatalf("%v", err)
	}
}

// SealStatus asks sys/seal-status.
func (s *Server) SealStatus(t TB) (int, map[string]any) {
	t.Helper()
	return s.DoAs(t, "", "GET", "sys/seal-status", nil)
}

// Seal seals the server and waits until it is.
func (s *Server) Seal(t TB) {
	t.Helper()
	s.Must(t, "PUT", "sys/seal", nil)
	wait.Until(t, startLimit, "Vault to be sealed", func() bool {
		status, out := s.SealStatus(t)
		return status == http.StatusOK && out["sealed"] == true
	})
}

// Nodes is a raft cluster.
type Nodes struct {
	All []*Server
}

// Cluster starts n servers, joins them to one raft cluster and unseals them. That takes about ten seconds for three
// nodes, so ask for one cluster in a test, not one in each case.
func Cluster(t TB, n int) *Nodes {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		for ports[i] == 0 {
			ports[i] = FreePort()
		}
	}
	c := &Nodes{}
	for i, port := range ports {
		var others []int
		if i > 0 {
			others = ports[:1]
		}
		c.All = append(c.All, Raft(t, RaftOpts{nodeID: fmt.Sprintf("node%d", i+1), joins: others, port: port}))
		if i == 0 {
			first := c.All[0]
			first.Init(t, 3, 2)
			first.Unseal(t)
			// New nodes have a vote only after a time of good conduct, ten seconds by default. Before that, losing the
			// leader loses the quorum.
			first.Must(t, "POST", "sys/storage/raft/autopilot/configuration",
				map[string]any{"server_stabilization_time": "1s"})
			continue
		}
		c.All[i].RootToken, c.All[i].Keys = c.All[0].RootToken, c.All[0].Keys
		c.All[i].unseal(t)
	}
	wait.Until(t, startLimit, "all nodes to have a vote", func() bool {
		_, out := c.All[0].Do(t, "GET", "sys/storage/raft/configuration", nil)
		data, _ := out["data"].(map[string]any)
		config, _ := data["config"].(map[string]any)
		servers, _ := config["servers"].([]any)
		voters := 0
		for _, s := range servers {
			if m, _ := s.(map[string]any); m["voter"] == true {
				voters++
			}
		}
		return voters == n
	})
	return c
}

// Leader waits until one of the running nodes is the active one and returns it.
func (c *Nodes) Leader(t TB) *Server {
	t.Helper()
	var leader *Server
	wait.Until(t, startLimit, "a leader", func() bool {
		for _, s := range c.All {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			status, _, err := s.Call(ctx, "", "GET", "sys/health", nil)
			cancel()
			if err == nil && status == http.StatusOK {
				leader = s
				return true
			}
		}
		return false
	})
	return leader
}

// Standby returns a running, unsealed node that is not the leader.
func (c *Nodes) Standby(t TB) *Server {
	t.Helper()
	var standby *Server
	wait.Until(t, startLimit, "a standby", func() bool {
		for _, s := range c.All {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			status, _, err := s.Call(ctx, "", "GET", "sys/health", nil)
			cancel()
			if err == nil && status == http.StatusTooManyRequests {
				standby = s
				return true
			}
		}
		return false
	})
	return standby
}

// KillLeader ends the leader with SIGKILL and returns it. Its Restart, followed by an Unseal of that node (UnsealNode),
// brings it back.
func (c *Nodes) KillLeader(t TB) *Server {
	t.Helper()
	s := c.Leader(t)
	s.Kill()
	return s
}

// UnsealNode unseals one node, which may become a standby.
func (c *Nodes) UnsealNode(t TB, s *Server) {
	t.Helper()
	s.unseal(t)
}
