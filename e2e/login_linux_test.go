package e2e

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// A person is asked for the password without echo; what follows belongs to the command; whatever ends or stops the question,
// the terminal is as before.
func TestPasswordPrompt(t *testing.T) {
	r := newRig(t)
	sc := r.srv.Scope(t)
	mount := sc.Name("userpass")
	password := vaulttest.Canary("pass word")
	r.srv.Must(t, "POST", "sys/auth/"+mount, map[string]any{"type": "userpass"})
	r.srv.Must(t, "POST", "auth/"+mount+"/users/ann", map[string]any{"password": password, "token_policies": sc.ReadPolicy(r.mount, "app")})
	r.set("VAULT_TOKEN=", "VAULTEXEC_AUTH=userpass", "VAULTEXEC_AUTH_MOUNT="+mount, "VAULTEXEC_USERNAME=ann")
	echo := func(p *ptytest.Terminal) bool { return p.Modes().Lflag&unix.ECHO != 0 }
	const question = "Password of ann for userpass: "
	ask := func(t *testing.T) *ptytest.Terminal {
		t.Helper()
		p := ptytest.Shell(t, time.Minute, r.env)
		p.Run(r.bin + ` -- sh -c 'read line; echo "got <$line>"'`)
		p.Expect(question)
		wait.Until(t, time.Minute, "the echo to be off", func() bool { return !echo(p) })
		return p
	}
	answer := func(t *testing.T, p *ptytest.Terminal) {
		t.Helper()
		p.Type(password + "\nnext\n")
		p.Expect(`got <next>`)
		p.ExpectPrompt()
		if !echo(p) {
			t.Error("the echo stays off")
		}
		if out := p.Output(); vaulttest.Redact(out) != out {
			t.Errorf("the password is shown:\n%s", p)
		}
	}
	t.Run("answered", func(t *testing.T) { answer(t, ask(t)) })
	t.Run("interrupted", func(t *testing.T) {
		p := ask(t)
		p.Type(ptytest.CtrlC)
		p.ExpectStatus(130)
		if !echo(p) {
			t.Error("the echo stays off")
		}
	})
	t.Run("stopped", func(t *testing.T) {
		p := ask(t)
		p.Type(ptytest.CtrlZ)
		p.Expect("Stopped")
		p.ExpectPrompt()
		p.Run("fg")
		p.Expect(question)
		wait.Until(t, time.Minute, "the echo to be off again", func() bool { return !echo(p) })
		answer(t, p)
	})
	// Nobody could resume it: the kernel does not stop it, and neither does vaultexec. It asks again.
	t.Run("not stopped without a shell", func(t *testing.T) {
		p := ptytest.Open(t, time.Minute, r.env, r.bin, "check")
		p.Expect(question)
		wait.Until(t, time.Minute, "the echo to be off", func() bool { return !echo(p) })
		p.Type(ptytest.CtrlZ)
		p.Expect(question)
		wait.Until(t, time.Minute, "the echo to be off again", func() bool { return !echo(p) })
		p.Type(password + "\n")
		if ending := vaulttest.Ending(p.Ended()); ending != "0" {
			t.Errorf("it ended with %s\n%s", ending, p)
		}
	})
	t.Run("ended without a shell", func(t *testing.T) {
		p := ptytest.Open(t, time.Minute, r.env, r.bin, "check")
		p.Expect(question)
		wait.Until(t, time.Minute, "the echo to be off", func() bool { return !echo(p) })
		if err := unix.Kill(p.Leads, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if ending := vaulttest.Ending(p.Ended()); ending != "signal TERM" {
			t.Errorf("it ended with %s", ending)
		}
		if !echo(p) {
			t.Error("the echo stays off")
		}
	})
}
