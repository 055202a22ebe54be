package process

import (
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// While Vault is away there is no command that a signal could be for. Those that would end any program, or say that it went wrong, end
// vaultexec as the kernel would; nothing is printed of its own inside. The others change nothing.
func TestSignalsBeforeTheCommand(t *testing.T) {
	t.Parallel()
	crashes := []syscall.Signal{unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGSEGV, unix.SIGSYS, unix.SIGTRAP}
	ends := append([]syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}, crashes...)
	waiting := func(t *testing.T) *proc {
		p := start(actual{t}, []string{vaulttest.Build(t, "."), "--supervise", "--wait", "1h", "--path", "app", "--", "echo", "started"},
			func(c *exec.Cmd) { c.Env = append(c.Env, "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=any") })
		until(actual{t}, "the wait for Vault", func() bool { return strings.Contains(p.err.String(), "waiting for Vault") })
		return p
	}
	for _, sig := range ends {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			p := waiting(t)
			p.signal(sig)
			p.wantEnd("signal " + strings.TrimPrefix(unix.SignalName(sig), "SIG"))
			if s := p.err.String() + p.out.String(); strings.Contains(s, "goroutine") || strings.Contains(s, "started") {
				t.Errorf("it says\n%s", s)
			}
		})
	}
	t.Run("others", func(t *testing.T) {
		t.Parallel()
		p := waiting(t)
		for _, sig := range forwardable() {
			if !slices.Contains(ends, sig) && sig != unix.SIGTSTP && sig != unix.SIGTTIN && sig != unix.SIGTTOU {
				p.signal(sig)
			}
		}
		p.signal(unix.SIGTERM)
		p.wantEnd("signal TERM")
	})
}
