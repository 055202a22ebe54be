package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// The example restarts a server three times under load, and no request fails; without what it shows, some do.
func TestExampleZeroDowntime(t *testing.T) {
	t.Parallel()
	needs.Program(t, "curl")
	if _, err := exec.LookPath("python3"); err != nil {
		needs.Missing(t, "python3, which is not installed")
	}
	result := regexp.MustCompile(`(?m)^(\d+) requests, (\d+) failed$`)
	for _, c := range []struct {
		name   string
		start  []string
		failed bool
	}{
		{"as it is", []string{"examples/zero-downtime/run.sh"}, false},
		{"without", []string{"vaultexec", "--path", "app", "--watch", "--", "examples/zero-downtime/server"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := vaulttest.Dev(t)
			scope := srv.Scope(t)
			mount := scope.Mount(2)
			srv.PutKV(t, mount, "app", map[string]string{"API_KEY": vaulttest.Canary("app")})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
			_ = l.Close()
			bin := t.TempDir()
			if err := os.Symlink(vaulttest.BuildStatic(t, "."), filepath.Join(bin, "vaultexec")); err != nil {
				t.Fatal(err)
			}
			env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "GORACE=" + vaulttest.Gorace,
				"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + srv.RootToken, "VAULTEXEC_MOUNT=" + mount, "PORT=" + port,
				"VAULTEXEC_INTERVAL=200ms", "VAULTEXEC_SETTLE=0", "VAULTEXEC_MIN_UPTIME=0"}
			run := exec.Command(lookPath(env, c.start[0]), c.start[1:]...)
			run.Env = env
			var log strings.Builder
			run.Stderr = &log
			if err := vaulttest.StartTied(run); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- run.Wait() }()
			stop := func() {
				_ = run.Process.Signal(syscall.SIGTERM)
				select {
				case <-ended:
				case <-time.After(limit):
					_ = run.Process.Kill()
					t.Error("the server does not end")
				}
			}
			curl := exec.Command("curl", "-fsS", "--retry", "60", "--retry-delay", "1", "--retry-connrefused", "-o", "/dev/null", "http://127.0.0.1:"+port)
			if out, err := curl.CombinedOutput(); err != nil {
				stop()
				t.Fatalf("the server does not answer: %s\n%s", out, vaulttest.Redact(log.String()))
			}
			rotate := exec.Command("examples/zero-downtime/rotate.sh")
			rotate.Env = env
			out, err := rotate.CombinedOutput()
			stop()
			m := result.FindSubmatch(out)
			if m == nil || strings.Count(string(out), "rotation ") != 3 {
				t.Fatalf("it says\n%s%s", out, vaulttest.Redact(log.String()))
			}
			if failed := string(m[2]) != "0"; failed != c.failed || (err != nil) != c.failed {
				t.Errorf("%v, it says\n%s%s", err, out, vaulttest.Redact(log.String()))
			}
			t.Logf("%s", m[0])
		})
	}
}
