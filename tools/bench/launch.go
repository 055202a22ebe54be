package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// contestant is one way to have the child started. All take turns.
type contestant struct {
	key, what string
	env       []string
	args      []string
	every     int // takes part in every nth round only
	failed    error

	wall, cpu, faults []float64
}

// The bars of launches.
const (
	barBare = 1.25 // two paths against the bare program, over plain HTTP with a token
	barPeer = 0.5
	barInit = 0.25 // against secret-init
)

// launch measures from the fork of the launcher to the first statement of a static C program, and the CPU time of both.
// The bare program makes the same requests: the login and the revocation of its token with AppRole, one TLS handshake.
func launch(s *stage) section {
	sec := section{Name: "launch",
		Title: "Launch: from the start of the launcher to the first statement of the command"}
	all := []*contestant{{key: "child", what: "the command alone", env: s.plain.env(),
		args: []string{s.child}, every: 1}}
	type pair struct {
		key   string
		bar   float64
		delay bool
	}
	var pairs []pair
	for _, scheme := range []string{"http", "tls"} {
		for _, login := range []string{"token", "approle"} {
			for _, delay := range []bool{false, true} {
				for _, n := range []int{1, 2, 10, 50, 100} {
					if n == 50 && (scheme != "http" || login != "token" || delay) {
						continue
					}
					p := pair{key: fmt.Sprintf("%s-%s-%d", scheme, login, n), delay: delay}
					if p.key == "http-token-2" && !delay {
						p.bar = barBare
					}
					what := fmt.Sprintf("%d paths, %s, %s", n, map[string]string{"http": "HTTP", "tls": "TLS"}[scheme],
						map[string]string{"token": "token", "approle": "AppRole"}[login])
					if delay {
						p.key += "-delay"
						what += ", 20 ms"
					}
					every := 1
					if n == 100 || delay && n != 2 {
						every = 3
					}
					ours, bares := s.launchers(scheme, login, n, delay)
					ours.key, ours.what, ours.every = p.key, what, every
					bares.key, bares.what, bares.every = p.key+"-bare", "bare program: "+what, every
					all = append(all, ours, bares)
					pairs = append(pairs, p)
				}
			}
		}
	}
	peers, absent := s.peers()
	all, sec.Absent = append(all, peers...), absent
	for round := range s.rounds + 2 {
		for _, c := range all {
			if round%c.every == 0 && c.failed == nil {
				c.launch(s, round >= 2) // caches are warm
			}
		}
	}
	for _, c := range all {
		if c.failed != nil {
			text := c.failed.Error()
			sec.Notes = append(sec.Notes, fmt.Sprintf("%s failed: %s", c.what, text[:min(len(text), 300)]))
			continue
		}
		if len(c.wall) == 0 { // too few rounds for its turn
			continue
		}
		sec.add(sampled(c.key, c.what, "ms", c.wall), sampled(c.key+"-cpu", c.what+": CPU", "ms", c.cpu))
		if c.every == 1 && !strings.Contains(c.key, "-delay") {
			sec.add(sampled(c.key+"-faults", c.what+": page faults", "", c.faults))
		}
	}
	for i, r := range sec.Rows {
		for _, p := range pairs {
			switch r.Key {
			case p.key:
				sec.Rows[i] = sec.to(r, p.key+"-bare", p.bar)
			case p.key + "-cpu", p.key + "-faults":
				sec.Rows[i] = sec.to(r, strings.Replace(r.Key, p.key, p.key+"-bare", 1), 0)
			}
		}
	}
	for _, p := range pairs {
		if !p.delay {
			continue
		}
		near, _ := sec.row(strings.TrimSuffix(p.key, "-delay"))
		far, ok := sec.row(p.key)
		if !ok {
			continue
		}
		// Of the quickest runs: what a busy machine adds is no round trip.
		r := single(p.key+"-trips", "round trips: "+far.What, "", (far.Min-near.Min)/ms(int64(roundTrip)))
		if strings.HasSuffix(p.key, "-2-delay") {
			r = r.limit(tripsOf(p.key) + 0.5)
		}
		sec.add(r)
	}
	// Vault's own time for 48 requests more is in it; the bare program shows how much.
	for _, c := range []struct{ key, what string }{{"", ""}, {"-bare", "bare program: "}} {
		if r, ok := sec.row("http-token-50" + c.key); ok {
			r.Key, r.What = "fifty"+c.key, c.what+"50 paths, against its own time with 2"
			sec.add(sec.to(r, "http-token-2"+c.key, 0))
		}
	}
	for _, c := range peers {
		bar := barPeer
		if c.key == "secret-init" {
			bar = barInit
		}
		if _, ok := sec.row(c.key); ok && c.key != "tini" && c.key != "dumb-init" {
			r, _ := sec.row("http-token-2")
			r.Key, r.What = "against-"+c.key, r.What+", against "+c.what
			sec.add(sec.to(r, c.key, bar))
		}
	}
	sec.Notes = append(sec.Notes,
		"The delay's round trips count making the connection (1, with TLS 2), the login, the reads and the revocation of the token.")
	return sec
}

// tripsOf is what cannot be avoided: the connection, TLS, the login, one for all reads, and the token's revocation.
func tripsOf(key string) float64 {
	n := 2.0
	if strings.HasPrefix(key, "tls") {
		n++
	}
	if strings.Contains(key, "approle") {
		n += 2
	}
	return n
}

// launchers are vaultexec and the bare program for one case.
func (s *stage) launchers(scheme, login string, n int, delay bool) (ours, bares *contestant) {
	st := s.plain
	if scheme == "tls" {
		st = s.tls
	}
	env := st.env()
	if delay {
		env = replaceEnv(env, "VAULT_ADDR", st.proxyAddr)
	}
	bareEnv := env
	if login == "approle" {
		env = replaceEnv(env, "VAULT_TOKEN", "")
		bareEnv = append(env, "BARE_ROLE_ID="+st.roleID, "BARE_SECRET_ID="+st.secretID)
		env = append(env, "VAULTEXEC_ROLE_ID="+st.roleID, "VAULTEXEC_SECRET_ID="+st.secretID)
	}
	ours = &contestant{env: env, args: append(append([]string{s.vaultexec}, paths(n)...), "--", s.child)}
	bares = &contestant{env: bareEnv, args: []string{s.bare, strconv.Itoa(n), s.child}}
	return ours, bares
}

// launch has the child started once.
func (c *contestant) launch(s *stage, counts bool) {
	p := s.start(c.env, c.args...)
	at, err := p.report()
	if err != nil {
		_ = p.cmd.Process.Kill()
		_, _ = p.wait()
		c.failed = err
		return
	}
	used, err := p.wait()
	if err != nil {
		c.failed = err
		return
	}
	if counts {
		c.wall = append(c.wall, ms(at-p.began))
		c.cpu = append(c.cpu, ms(int64(used.cpu)))
		c.faults = append(c.faults, used.faults)
	}
}

// peers are the other programs that start a command with two secrets, and the inits, which have none. Those that are
// not on PATH are named. vault is the one that the tests use.
func (s *stage) peers() (all []*contestant, absent []string) {
	env := s.plain.env()
	add := func(name string, every int, make func(path string) *contestant) {
		path, err := exec.LookPath(name)
		if err != nil {
			absent = append(absent, name)
			return
		}
		c := make(path)
		c.key, c.every = name, every
		all = append(all, c)
	}
	add("envconsul", 1, func(path string) *contestant {
		args := []string{path, "-once", "-no-prefix", "-vault-renew-token=false", "-log-level", "err"}
		for i := range 2 {
			args = append(args, "-secret", "secret/app-"+strconv.Itoa(i))
		}
		return &contestant{what: "envconsul, 2 paths", env: env, args: append(args, s.child)}
	})
	add("secret-init", 1, func(path string) *contestant {
		file := filepath.Join(s.dir, "token")
		s.must(os.WriteFile(file, []byte(s.plain.token), 0o600))
		own := append(replaceEnv(env, "VAULT_TOKEN", ""), "VAULT_TOKEN_FILE="+file, "SECRET_INIT_LOG_LEVEL=error")
		for i := range 2 {
			for k := range 5 {
				own = append(own, fmt.Sprintf("KEY_%d_%d=vault:secret/data/app-%d#KEY_%d_%d", i, k, i, i, k))
			}
		}
		return &contestant{what: "secret-init, 2 paths", env: own, args: []string{path, s.child}}
	})
	for _, name := range []string{"tini", "dumb-init"} {
		add(name, 1, func(path string) *contestant {
			return &contestant{what: name + ", no secrets", env: env, args: []string{path, "--", s.child}}
		})
	}
	bin, err := vaulttest.Binary()
	s.must(err)
	agent := &contestant{key: "vault-agent", what: "vault agent, 2 paths", env: env,
		args: []string{bin, "agent", "-config=" + s.agentConfig()}, every: 10}
	return append(all, agent), absent
}

// agentConfig has vault agent start the child with the secrets of two paths.
func (s *stage) agentConfig() string {
	token := filepath.Join(s.dir, "agent-token")
	// It asks about itself: the default policy.
	own := s.plain.srv.Token(s, vaulttest.TokenOpts{Policies: []string{s.plain.policy}})
	s.must(os.WriteFile(token, []byte(own), 0o600))
	var b strings.Builder
	fmt.Fprintf(&b, `vault { address = %q }
auto_auth {
  method "token_file" { config = { token_file_path = %q } }
}
exec {
  command                   = [%q]
  restart_on_secret_changes = "never"
}
`, s.plain.srv.Addr, token, s.child)
	for i := range 2 {
		for k := range 5 {
			fmt.Fprintf(&b,
				"env_template \"KEY_%d_%d\" {\n  contents = \"{{ with secret \\\"secret/data/app-%d\\\" }}{{ .Data.data.KEY_%d_%d }}{{ end }}\"\n}\n",
				i, k, i, i, k)
		}
	}
	file := filepath.Join(s.dir, "agent.hcl")
	s.must(os.WriteFile(file, []byte(b.String()), 0o600))
	return file
}
