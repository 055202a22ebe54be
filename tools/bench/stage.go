package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// mostPaths is how many secrets there are.
const mostPaths = 100

// stage is what the sections share: programs, servers, secrets. It is the vaulttest.TB of this program.
type stage struct {
	rounds  int
	tags    string // that vaultexec is built with
	cleanup []func()

	dir                    string
	vaultexec, bare, child string
	plain, tls             *site
}

// site is a Vault with secrets in it and the ways to log in.
type site struct {
	srv              *vaulttest.Server
	policy, token    string
	roleID, secretID string
	proxyAddr        string // the same with a delay
}

// failure ends the run.
type failure struct{ text string }

func (f failure) Error() string { return f.text }

func (s *stage) Helper()                           {}
func (s *stage) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (s *stage) Fatalf(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }
func (s *stage) Cleanup(f func())                  { s.cleanup = append(s.cleanup, f) }

// must ends the run for an error.
func (s *stage) must(err error) {
	if err != nil {
		s.Fatalf("%v", err)
	}
}

func (s *stage) close() {
	for i := len(s.cleanup) - 1; i >= 0; i-- {
		s.cleanup[i]()
	}
}

// set builds the programs and starts the servers.
func (s *stage) set() {
	if peers := os.Getenv("BENCH_PEERS"); peers != "" { // folders, as in PATH
		s.must(os.Setenv("PATH", peers+string(filepath.ListSeparator)+os.Getenv("PATH")))
	}
	if _, err := exec.LookPath("cc"); err != nil {
		s.Fatalf(
			"a C compiler is needed for the command that is started: cc is not on PATH (Debian: gcc and libc6-dev)")
	}
	dir, err := os.MkdirTemp("", "vaultexec-bench-")
	s.must(err)
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.dir = dir
	s.vaultexec = s.build("vaultexec", ".", "-s -w")
	s.bare = s.build("bare", "./tools/bench/bare", "-s -w")
	s.child = filepath.Join(dir, "child")
	s.command("cc", "-O2", "-static", "-o", s.child, "tools/bench/child/child.c")

	dev, err := vaulttest.StartDev()
	s.must(err)
	s.plain = s.fill(dev)
	ca := vaulttest.NewCA(s, "bench CA")
	cert := ca.Server(s, vaulttest.CertOpts{})
	srv := vaulttest.Configured(s, ca, func(_ string, port int) string {
		return fmt.Sprintf(`disable_mlock = true
storage "inmem" {}
listener "tcp" {
  address       = "127.0.0.1:%d"
  tls_cert_file = %q
  tls_key_file  = %q
}
`, port, cert.CertFile, cert.KeyFile)
	})
	srv.Init(s, 1, 1)
	srv.Unseal(s)
	srv.MountKV(s, "secret", 2)
	s.tls = s.fill(srv)
}

// build builds as a release is built, but for the linker's flags.
func (s *stage) build(name, pkg, ldflags string) string {
	out := filepath.Join(s.dir, name)
	s.command("go", "build", "-trimpath", "-tags", s.tags, "-ldflags", ldflags, "-o", out, pkg)
	return out
}

// command runs a tool in the module's root and returns what it printed.
func (s *stage) command(name string, args ...string) string {
	root, err := vaulttest.ModuleRoot()
	s.must(err)
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = root, append(os.Environ(), "CGO_ENABLED=0"), &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// fill writes the secrets and makes a token and a role that may read them and their metadata.
func (s *stage) fill(srv *vaulttest.Server) *site {
	for i := range mostPaths {
		data := map[string]string{}
		for k := range 5 {
			data[fmt.Sprintf("KEY_%d_%d", i, k)] = vaulttest.Canary("bench")
		}
		srv.PutKV(s, "secret", "app-"+strconv.Itoa(i), data)
	}
	sc := srv.Scope(s)
	policy := sc.Policy(`path "secret/*" { capabilities = ["read"] }`)
	site := &site{srv: srv, policy: policy,
		token: srv.Token(s, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})}
	srv.Must(s, "POST", "sys/auth/approle", map[string]string{"type": "approle"})
	srv.Must(s, "POST", "auth/approle/role/app", map[string]any{"token_policies": []string{policy}})
	data := func(answer map[string]any, key string) string {
		m, _ := answer["data"].(map[string]any)
		v, _ := m[key].(string)
		return v
	}
	site.roleID = data(srv.Must(s, "GET", "auth/approle/role/app/role-id", nil), "role_id")
	site.secretID = data(srv.Must(s, "POST", "auth/approle/role/app/secret-id", nil), "secret_id")
	site.proxyAddr = s.delayed(srv.Addr)
	return site
}

// env is the environment of a program that talks to the site, with its token.
func (st *site) env() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "VAULT_ADDR=" + st.srv.Addr,
		"VAULT_TOKEN=" + st.token}
	if st.srv.CACert != "" {
		env = append(env, "VAULT_CACERT="+st.srv.CACert)
	}
	return env
}

func replaceEnv(env []string, name, value string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, name+"=") {
			out = append(out, kv)
		}
	}
	if value == "" {
		return out
	}
	return append(out, name+"="+value)
}

// paths are the options for n secrets.
func paths(n int) []string {
	var args []string
	for i := range n {
		args = append(args, "--path", "app-"+strconv.Itoa(i))
	}
	return args
}

// now reads the clock that the child reads.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // never fails with this clock
	return t.Nano()
}

// running is a program that was started with the child's reports coming in.
type running struct {
	cmd     *exec.Cmd
	began   int64
	reports *os.File
	stderr  bytes.Buffer
}

// start starts a program that ends by itself. Its descriptor 3 is the pipe for reports.
func (s *stage) start(env []string, args ...string) *running {
	return s.startBy((*exec.Cmd).Start, env, args)
}

// startTied starts a program that does not outlive this one.
func (s *stage) startTied(env []string, args ...string) *running {
	return s.startBy(vaulttest.StartTied, env, args)
}

func (s *stage) startBy(start func(*exec.Cmd) error, env, args []string) *running {
	p := s.prepare(env, args)
	s.must(p.startBy(start))
	return p
}

func (s *stage) prepare(env, args []string) *running {
	p := &running{cmd: exec.Command(args[0], args[1:]...)}
	p.cmd.Env, p.cmd.Stderr = env, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return p
}

func (p *running) startBy(start func(*exec.Cmd) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	p.reports, p.cmd.ExtraFiles = r, []*os.File{w}
	p.began = now()
	if err := start(p.cmd); err != nil {
		_ = r.Close()
		return fmt.Errorf("cannot start %s: %w", p.cmd.Path, err)
	}
	return nil
}

// report waits for the next time that the child tells.
func (p *running) report() (int64, error) {
	var b [8]byte
	if err := p.reports.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	if _, err := p.reports.Read(b[:]); err != nil {
		return 0, fmt.Errorf("%s told nothing: %w: %s", p.cmd.Args[0], err, vaulttest.Redact(p.stderr.String()))
	}
	return int64(binary.NativeEndian.Uint64(b[:])), nil
}

// spent is what a program and all that it waited for have used.
type spent struct {
	cpu    time.Duration
	faults float64 // page faults: most of a start, where they are dear
}

// wait waits for the program's end.
func (p *running) wait() (spent, error) {
	defer p.reports.Close()
	if err := p.cmd.Wait(); err != nil {
		return spent{}, fmt.Errorf("%s: %w: %s", p.cmd.Args[0], err, vaulttest.Redact(p.stderr.String()))
	}
	state := p.cmd.ProcessState
	used := spent{cpu: state.SystemTime() + state.UserTime()}
	if u, ok := state.SysUsage().(*syscall.Rusage); ok {
		used.faults = float64(u.Minflt)
	}
	return used, nil
}

// stop ends it with SIGTERM.
func (p *running) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_, _ = p.wait()
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }
