// Package enginetest starts what keeps the places of a restart lock, for tests: the API server of Kubernetes with its etcd, and Consul.
// Both are the real ones, built once from tools/kubeapiserver and tools/consul. It talks to them by net/http and shares no code with the
// product.
//
// A test takes a namespace or a name of its own on the server that all tests of its binary share:
//
//	k := enginetest.SharedKubernetes(t)
//	ns := k.Namespace(t)
//	k.Leases(t, ns, "api", 3)
//	pod := k.Account(t, ns, enginetest.Rule("api", 3))
//	… --restart-lock kubernetes:api --service-account pod.Dir, with the variables pod.Env
//
//	c := enginetest.SharedConsul(t)
//	… --restart-lock consul:NAME, with the variables c.Env(c.Token(t, c.Policy(NAME)))
//
// One that stops or kills its server starts one: NewKubernetes, NewConsul.
package enginetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// TB is what this package needs of *testing.T.
type TB interface {
	vaulttest.TB
	Name() string
	Skip(args ...any)
	Fatal(args ...any)
}

var toolBuild = []string{"-trimpath", "-ldflags", "-s -w"}

var (
	apiServerTool = vaulttest.Tool{Name: "the API server of Kubernetes", Dir: "kubeapiserver", Build: toolBuild}
	consulTool    = vaulttest.Tool{Name: "Consul", Dir: "consul", Build: toolBuild}
)

// BuildAll builds the servers that are not there already, so that no test has to.
func BuildAll(ctx context.Context) error {
	for _, tool := range []vaulttest.Tool{consulTool, apiServerTool} {
		if _, err := tool.Path(ctx); err != nil {
			return err
		}
	}
	return nil
}

// limit is generous: several test binaries start their servers on two busy cores.
const limit = 90 * time.Second

// shared is a server that all tests of a binary have. It ends with vaulttest.Shutdown.
type shared[T interface{ discard() }] struct {
	mu      sync.Mutex
	server  T
	started bool
}

func (s *shared[T]) get(start func() T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.server, s.started = start(), true
		vaulttest.AtShutdown(s.server.discard)
	}
	return s.server
}

// program is a server that can be stopped, killed and started again as it was.
type program struct {
	dir   string // its home, with its data
	proc  *vaulttest.Process
	start func() (*vaulttest.Process, error)
}

// command makes the command of a server, with nothing of the caller's environment.
func (p *program) command(bin string, args ...string) *exec.Cmd {
	cmd := exec.Command(bin, args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"HOME=" + p.dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + p.dir}
	return cmd
}

// Freeze stops the server with SIGSTOP: its connections stay, new ones are made by the kernel, and nothing answers. It waits until the
// last thread has stopped, which may answer once more until then.
func (p *program) Freeze() {
	p.proc.Signal(syscall.SIGSTOP)
	wait.For(limit, func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.proc.PID()))
		for _, task := range tasks { // none where there is no /proc
			b, err := os.ReadFile(task)
			// The state stands behind the name, which is in parentheses: proc_pid_stat(5).
			if _, state, found := bytes.Cut(b, []byte(") ")); err == nil && found && !bytes.HasPrefix(state, []byte("T")) {
				return false
			}
		}
		return true
	})
}

// Thaw lets it go on.
func (p *program) Thaw() { p.proc.Signal(syscall.SIGCONT) }

// Kill ends it with SIGKILL. Restart brings it back.
func (p *program) Kill() { p.proc.Kill() }

// PIDs are the processes that the server consists of.
func (p *program) PIDs() []int { return []int{p.proc.PID()} }

// Log is the end of what it printed, without secrets.
func (p *program) Log() string { return p.proc.Log() }

// Restart starts it again after Kill, with the same port and the same data.
func (p *program) Restart(t TB) {
	t.Helper()
	var err error
	wait.For(limit, func() bool { // the port is ours by custom only
		p.proc, err = p.start()
		return !errors.Is(err, vaulttest.ErrPortTaken)
	})
	if err != nil {
		t.Fatalf("cannot start the server again: %v", err)
	}
}

func (p *program) discard() {
	if p.proc != nil {
		p.proc.Kill()
	}
	_ = os.RemoveAll(p.dir)
}

// caller asks a server as its administrator.
type caller struct {
	base   string
	client *http.Client
	sign   func(http.Header)
}

func newCaller(base string, conf *tls.Config, sign func(http.Header)) caller {
	return caller{base, &http.Client{Transport: &http.Transport{TLSClientConfig: conf, MaxIdleConnsPerHost: 4}, Timeout: 30 * time.Second}, sign}
}

// Do sends a request. A body that is no []byte is sent as JSON.
func (c *caller) Do(method, path string, body any) (status int, answer []byte, err error) {
	b, ok := body.([]byte)
	if !ok && body != nil {
		if b, err = json.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	r, err := http.NewRequest(method, c.base+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	c.sign(r.Header)
	resp, err := c.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// Must is Do that fails the test for any status but 200 and 201, and decodes the answer.
func (c *caller) Must(t TB, method, path string, body any) map[string]any {
	t.Helper()
	status, answer, err := c.Do(method, path, body)
	if err != nil || status != http.StatusOK && status != http.StatusCreated {
		t.Fatalf("%s %s: status %d, %v: %s", method, path, status, err, vaulttest.Redact(string(answer)))
	}
	var m map[string]any
	_ = json.Unmarshal(answer, &m) // some answers are lists, or true
	return m
}

// write writes a file of a server's.
func write(dir, name string, b []byte) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return "", fmt.Errorf("cannot write a file of the server: %w", err)
	}
	return path, nil
}
