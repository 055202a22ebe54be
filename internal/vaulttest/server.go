package vaulttest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// startLimit is generous: four test binaries may start their servers on two busy cores at the same time.
const startLimit = 90 * time.Second

// TB is what this package needs of *testing.T, so that scripts and benchmarks can hand in something of their own.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Server is one running Vault. Several goroutines may use its methods, but only one may use Kill, Restart and Stop.
type Server struct {
	Addr      string   // as VAULT_ADDR wants it
	RootToken string   // empty before Init
	CACert    string   // file with the CA's certificate, empty without TLS
	Keys      []string // the unseal key shares, empty in dev mode

	bin    string
	args   []string
	dir    string // home, configuration and data
	port   int
	client *http.Client
	proc   *Process

	mu     sync.Mutex
	mounts map[string]int // KV version of each mount that MountKV made
}

// live are the servers that Shutdown has to stop.
var live struct {
	sync.Mutex
	servers map[*Server]bool
}

var shared struct {
	sync.Mutex
	server *Server
}

// Main runs the tests of a package and then stops the servers that they left. It is called by TestMain:
//
//	func TestMain(m *testing.M) { vaulttest.Main(m) }
//
// Programs that the tests start ignore no signal that nohup or a shell's & had this one ignore.
func Main(m *testing.M) {
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN,
		syscall.SIGTTOU} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig) // what has a handler begins with its default
		}
	}
	code := m.Run()
	Shutdown()
	os.Exit(code)
}

// Shutdown stops every server of this process and removes its files.
func Shutdown() {
	live.Lock()
	servers := live.servers
	live.servers = nil
	live.Unlock()
	for s := range servers {
		s.proc.Kill()
	}
	atShutdown.Lock()
	calls := atShutdown.calls
	atShutdown.calls = nil
	atShutdown.Unlock()
	for _, f := range calls {
		f()
	}
	shared.Lock()
	shared.server = nil
	shared.Unlock()
	built.Lock()
	built.programs = nil
	built.Unlock()
	removeScratch()
}

// Dev returns the dev-mode server that all tests of this binary share, starting it at the first call. Tests must not
// seal or stop it, and take mounts and policies from a Scope.
func Dev(t TB) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s, err := StartDev()
		if err != nil {
			t.Fatalf("cannot start the shared Vault: %v", err)
		}
		shared.server = s
	}
	return shared.server
}

// NewDev starts a dev-mode server for this test alone.
func NewDev(t TB, args ...string) *Server {
	t.Helper()
	s, err := StartDev(args...)
	if err != nil {
		t.Fatalf("cannot start Vault: %v", err)
	}
	t.Cleanup(s.Stop)
	return s
}

// StartDev starts a dev-mode server outside of a test: in memory, unsealed, on a free port of the loopback interface,
// with a random root token. The arguments are added to the server's command line. The caller stops it.
func StartDev(args ...string) (*Server, error) {
	bin, err := Binary()
	if err != nil {
		return nil, err
	}
	dir, err := TempDir("dev")
	if err != nil {
		return nil, err
	}
	token := "root-" + random(12)
	Secret(token)
	s := &Server{RootToken: token, bin: bin, dir: dir, client: newClient(nil)}
	err = WithPort(func(port int) error {
		addr := "127.0.0.1:" + strconv.Itoa(port)
		s.port, s.Addr = port, "http://"+addr
		s.args = append([]string{"server", "-dev", "-dev-no-store-token",
			"-dev-root-token-id=" + token, "-dev-listen-address=" + addr}, args...)
		return s.start()
	})
	if err == nil {
		err = s.await("the dev server to be active", func(status int) bool { return status == http.StatusOK })
	}
	if err != nil {
		s.discard()
		return nil, err
	}
	s.register()
	return s, nil
}

// atShutdown are called by Shutdown: what other packages share between the tests of a binary.
var atShutdown struct {
	sync.Mutex
	calls []func()
}

// AtShutdown has Shutdown call f.
func AtShutdown(f func()) {
	atShutdown.Lock()
	defer atShutdown.Unlock()
	atShutdown.calls = append(atShutdown.calls, f)
}

// register notes s for Shutdown.
func (s *Server) register() {
	live.Lock()
	defer live.Unlock()
	if live.servers == nil {
		live.servers = map[*Server]bool{}
	}
	live.servers[s] = true
}

// ErrPortTaken is a server that found its port taken.
var ErrPortTaken = errors.New("the port is taken")

// WithPort calls start with free ports until it does not complain about one. Whoever looks for a free port has lost it
// by the time that somebody else listens on it. So a collision must be survived, not avoided.
func WithPort(start func(port int) error) error {
	var err error
	for range 20 {
		port := FreePort()
		if port == 0 {
			continue
		}
		if err = start(port); !errors.Is(err, ErrPortTaken) {
			return err
		}
	}
	return fmt.Errorf("no free port found: %w", err)
}

// FreePort returns a port that is free together with the next one, which Vault takes for its cluster, or 0. It stays
// below Linux's range for outgoing connections, where any connection of any process could take it.
func FreePort() int {
	port := 18000 + 2*rand.IntN(7000)
	for _, p := range []int{port, port + 1} {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p))
		if err != nil {
			return 0
		}
		_ = l.Close()
	}
	return port
}

// start starts the program and waits until it listens.
func (s *Server) start() error {
	cmd := exec.Command(s.bin, s.args...)
	cmd.Dir = s.dir
	// Nothing of the caller's: neither VAULT_ and BAO_ variables, nor a proxy, nor a home with a token in it.
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + s.dir}
	// Its own word comes after it has bound its port, so that no other server can answer in its place.
	p, err := StartServer(cmd, "address already in use", func(p *Process) bool { return p.Printed("server started!") })
	if err != nil {
		return err
	}
	s.proc = p
	return nil
}

// await polls sys/health until done is content with its status.
func (s *Server) await(what string, done func(status int) bool) error {
	status := 0
	ok := wait.For(startLimit, func() bool {
		var err error
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		status, _, err = s.Call(ctx, "", "GET", "sys/health", nil)
		return err == nil && done(status) || s.proc.Exited()
	})
	if s.proc.Exited() {
		return fmt.Errorf("%w while waiting for %s:\n%s", errExited, what, s.proc.log)
	}
	if !ok {
		return fmt.Errorf("waited %v in vain for %s (sys/health says %d):\n%s", startLimit, what, status, s.proc.log)
	}
	return nil
}

// Log returns the end of what the server printed, without secrets.
func (s *Server) Log() string { return s.proc.log.String() }

// PID returns the process ID of the server.
func (s *Server) PID() int { return s.proc.cmd.Process.Pid }

// Kill ends the server with SIGKILL. Restart brings it back.
func (s *Server) Kill() {
	s.proc.Kill()
	s.client.CloseIdleConnections()
}

// Restart starts a stopped or killed server again: same port, same data (which a dev server has none of, so that it
// comes back empty). A raft server comes back sealed.
func (s *Server) Restart(t TB) {
	t.Helper()
	if !s.proc.Exited() {
		s.proc.Stop()
	}
	s.client.CloseIdleConnections()
	var err error
	ok := wait.For(startLimit, func() bool {
		err = s.start() // the port is ours by custom only; whoever took it gives it back, or the test fails
		return !errors.Is(err, ErrPortTaken)
	})
	if !ok || err != nil {
		t.Fatalf("cannot restart Vault: %v", err)
	}
	if err := s.await("an answer after the restart", func(int) bool { return true }); err != nil {
		t.Fatalf("cannot restart Vault: %v", err)
	}
}

// Stop ends the server if it still runs, and removes its files. It may be called twice.
func (s *Server) Stop() {
	s.discard() // nothing is left that would be worth the second that an orderly end takes
}

// Shut ends the server in an orderly way but keeps its data for Restart.
func (s *Server) Shut() {
	s.proc.Stop()
	s.client.CloseIdleConnections()
}

func (s *Server) discard() {
	if s.proc != nil {
		s.proc.Kill()
	}
	s.client.CloseIdleConnections()
	_ = os.RemoveAll(s.dir)
	live.Lock()
	delete(live.servers, s)
	live.Unlock()
}

// newClient makes a client that uses no proxy and follows no redirect.
func newClient(t *tls.Config) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: t, MaxIdleConnsPerHost: 8},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
}

// trust makes a TLS configuration that knows only the CA in file.
func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return nil, fmt.Errorf("cannot read the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
