package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/podmantest"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// The entry point of a container, with secrets from the real Vault. The same checks run in an image made from
// scratch under podman and runc, and in a bare PID namespace.

// container is one way of having vaultexec as PID 1.
type container struct {
	// argv is the command line that runs vaultexec with options and a command in it.
	argv func(name string, options []string, command ...string) []string
	// stop tells it to end, with this much time until SIGKILL.
	stop func(t T, p *proc, name string, limit time.Duration)
	// probe is the probe's path in it.
	probe string
}

// secrets writes one secret and returns the variables with which vaultexec may read it.
func secrets(t *testing.T) (env []string, options []string, value string) {
	t.Helper()
	srv := vaulttest.Dev(t)
	scope := srv.Scope(t)
	mount := scope.Mount(2)
	value = vaulttest.Canary("API_KEY")
	srv.PutKV(t, mount, "app-prod", map[string]any{"API_KEY": value})
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{scope.ReadPolicy(mount, "app-prod")}, NoDefault: true})
	return []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token}, []string{"--mount", mount, "--path", "app-prod"}, value
}

func (c container) check(t *testing.T) {
	env, options, value := secrets(t)
	run := func(t T, name string, command ...string) *proc {
		return start(t, c.argv(name, options, command...), func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, env...) })
	}
	t.Run("PID 1", func(t *testing.T) {
		t.Parallel()
		p := run(actual{t}, "pid1", c.probe, "pid1")
		until(actual{t}, "the command to be ready", func() bool { return slices.Contains(p.out.all(), "ready") || p.gone() })
		begun := time.Now()
		c.stop(actual{t}, p, "pid1", 20*time.Second)
		p.wantEnd("42")
		if d := time.Since(begun); d > 10*time.Second {
			t.Errorf("the stop took %v", d)
		}
		if got, want := p.out.all(), []string{"pid1 vaultexec", "parent 1", "zombies 0", "ready", "told"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if s := p.err.String(); s != "" {
			t.Errorf("it says %q", s)
		}
	})
	t.Run("secret", func(t *testing.T) {
		t.Parallel()
		p := run(actual{t}, "secret", "/bin/sh", "-c", `[ "${VAULT_TOKEN-none}" = none ] && echo "$API_KEY"; exit 7`)
		p.wantEnd("7")
		if got := p.out.all(); !slices.Equal(got, []string{value}) {
			t.Errorf("the command has another value, or the token")
		}
	})
	t.Run("death", func(t *testing.T) {
		t.Parallel()
		p := run(actual{t}, "death", "/bin/sh", "-c", "kill -9 $$")
		p.wantEnd("137")
	})
	t.Run("not found", func(t *testing.T) {
		t.Parallel()
		p := run(actual{t}, "absent", "/no/such/program")
		p.wantEnd("127")
	})
}

func (p *proc) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	c := container{
		argv: func(_ string, options []string, command ...string) []string {
			return asPID1(append(vaultexec(t, options...), command...)...)
		},
		stop: func(t T, p *proc, _ string, _ time.Duration) {
			if err := send(childAny(t, p.pid), unix.SIGTERM); err != nil {
				t.Fatalf("%v", err)
			}
		},
		probe: probe(t),
	}
	c.check(t)
	mustFail(t, "naive", func(c T) {
		p := start(c, asPID1(naive(c).cmd(probe(c), "pid1")...))
		wait.Until(t, 30*time.Second, "the count of zombies", func() bool { return len(p.out.all()) >= 3 })
		if got := p.out.all()[2]; got != "zombies 0" {
			c.Fatalf("%s", got)
		}
	})
}

func TestPodman(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("podman with runc as root only; TestNamespace checks the same")
	}
	podman := podmantest.New(t)
	tool, do, dir := podman.Command, podman.Do, podman.Dir
	files := map[string]string{"vaultexec": vaulttest.BuildStatic(t, "."), "probe": probe(t), "busybox": needs.Program(t, "busybox")}
	// The final stage of Dockerfile.example in little: nothing but static programs, another user, the exec form.
	podman.Build(t, "app", `FROM scratch
COPY busybox /bin/sh
COPY vaultexec probe /usr/local/bin/
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["vaultexec"]
`, files)
	context := podman.Context(t, files)
	// The limits are named because the default ones may be above what this machine may give.
	runOptions := []string{"--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--env", "VAULT_ADDR", "--env", "VAULT_TOKEN"}
	c := container{
		argv: func(name string, options []string, command ...string) []string {
			argv := tool(append(append([]string{"run", "--rm", "--name", name}, runOptions...), "app")...)
			return append(append(append(argv, options...), "--"), command...)
		},
		stop: func(t T, p *proc, name string, limit time.Duration) {
			if out, err := do("stop", "--time", fmt.Sprint(int(limit.Seconds())), name); err != nil {
				t.Fatalf("podman stop: %v\n%s", err, out)
			}
		},
		probe: "probe",
	}
	c.check(t)

	// The final stage of Dockerfile.example, as it is written.
	t.Run("example", func(t *testing.T) {
		root, err := vaulttest.ModuleRoot()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(root, "Dockerfile.example"))
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip("no Dockerfile.example yet")
		}
		if err != nil {
			t.Fatal(err)
		}
		stage := string(text)[strings.LastIndex(string(text), "\nFROM ")+1:]
		for name, from := range map[string]string{
			"out/vaultexec": vaulttest.BuildStatic(t, "."), "out/app": vaulttest.BuildStatic(t, "tools/demo/app"),
			"etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt",
		} {
			to := filepath.Join(dir, "build", name)
			b, err := os.ReadFile(from)
			if err == nil {
				err = os.MkdirAll(filepath.Dir(to), 0o755)
			}
			if err == nil {
				err = os.WriteFile(to, b, 0o711) // as the build stage makes vaultexec
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(dir, "Containerfile.example")
		if err := os.WriteFile(file, []byte(stage), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := do("build", "--isolation", "chroot", "--tag", "example", "--build-context", "build="+dir+"/build", "--file", file, context); err != nil {
			t.Fatalf("podman build: %v\n%s", err, out)
		}
		srv := vaulttest.NewDev(t)
		srv.MountKV(t, "agenticverz", 2)
		var rules strings.Builder
		for path, key := range map[string]string{"app-prod": "API_KEY", "database": "POSTGRES_PASSWORD"} {
			srv.PutKV(t, "agenticverz", path, map[string]any{key: vaulttest.Canary(key)})
			fmt.Fprintf(&rules, "path %q { capabilities = [\"read\"] }\n", "agenticverz/data/"+path)
		}
		srv.Policy(t, "example", rules.String())
		token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{"example"}, NoDefault: true})
		p := start(actual{t}, tool(append(append([]string{"run", "--rm", "--name", "example"}, runOptions...), "example")...), func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "VAULT_ADDR="+srv.Addr, "VAULT_TOKEN="+token)
		})
		until(actual{t}, "the app", func() bool { return len(p.out.all()) > 0 || p.gone() })
		if p.gone() {
			t.Fatalf("it ended\n%s", p.err)
		}
		answer, err := http.Get(p.out.all()[0])
		if err != nil {
			t.Fatal(err)
		}
		names, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || !strings.Contains(string(names), "API_KEY\n") || !strings.Contains(string(names), "POSTGRES_PASSWORD\n") || strings.Contains(string(names), "VAULT_TOKEN") {
			t.Errorf("the app has the variables %q, %v", names, err)
		}
		begun := time.Now()
		c.stop(actual{t}, p, "example", 20*time.Second)
		p.wantEnd("143")
		if d := time.Since(begun); d > 10*time.Second {
			t.Errorf("the stop took %v", d)
		}
	})

	// podman run -it: vaultexec is the leader of the session of a terminal.
	t.Run("terminal", func(t *testing.T) {
		t.Parallel()
		r := actual{t}
		argv := tool(append(append([]string{"run", "--rm", "--interactive", "--tty"}, runOptions...), "app", "--", "/bin/sh", "-c", "exec /bin/sh")...)
		p := ptytest.Open(r, r.Limit(), environ(r, "TERM=dumb"), argv...)
		p.Expect("[$#] ")
		p.Run("trap 'echo interr''upted' INT; echo go''ing")
		p.Expect("going")
		p.Type(ptytest.CtrlZ)
		p.Type(ptytest.CtrlC)
		p.Expect("interrupted")
		p.Run("exit 9")
		if got := ending(p.Ended()); got != "9" {
			t.Fatalf("ended with %s, want 9", got)
		}
	})
}
