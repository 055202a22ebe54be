package e2e

import (
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// opens lets connections to an address through to a server, from now on.
func opens(t *testing.T, address, server string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", server)
			if err != nil {
				_ = c.Close()
				return
			}
			go func() { _, _ = io.Copy(to, c); _ = to.Close() }()
			go func() { _, _ = io.Copy(c, to); _ = c.Close() }()
		}
	}()
}

// While a run waits for Vault at a terminal, one line says what it waits for, for how long, and until when; it is gone when
// the wait is over. Ctrl-C ends the wait, and the prompt has a line of its own. Elsewhere a line of the log says so once.
func TestLiveLine(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Mount(2)
	srv.PutKV(t, mount, "app", map[string]string{"KEY": vaulttest.Canary("live")})
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	address := free()
	log := filepath.Join(t.TempDir(), "log")
	p := shellFor(t, srv, "VAULT_ADDR=http://"+address, "VAULT_TOKEN="+srv.RootToken, "VAULTEXEC_MOUNT="+mount, "TERM=xterm")
	const shown = `waiting for Vault \(\ds, until \d\d:\d\d:\d\d\): connection refused \(http://[0-9.:]+[)…]+\r\n`
	for _, c := range []string{"vaultexec --path app --wait 5m -- echo started", "vaultexec get --wait 5m app#KEY"} {
		p.Run(c)
		p.Expect(shown)
		p.Expect(`\r\x1b\[1A\x1b\[2K` + shown) // a second later
		p.Type(ptytest.CtrlC)
		p.ExpectStatus(130)
	}
	for name, c := range map[string]string{
		"no cursor":   "TERM=dumb vaultexec --path app --wait 1s -- echo started",
		"a file":      "vaultexec --path app --wait 1s -- echo started 2>" + log + "; cat " + log,
		"for machine": "vaultexec --log-format json --path app --wait 1s -- echo started",
	} {
		before := len(p.Output())
		p.Run(c)
		p.Expect("waiting for Vault: ")
		p.Expect("for 1s")
		p.ExpectPrompt()
		if out := p.Output()[before:]; strings.Contains(out, "until ") || strings.Contains(out, "\x1b") {
			t.Errorf("%s: %q", name, out)
		}
	}
	before := len(p.Output())
	p.Run("vaultexec --quiet --path app --wait 1s -- echo started")
	p.ExpectStatus(120)
	if out := p.Output()[before:]; strings.Contains(out, "waiting for Vault") {
		t.Errorf("with --quiet: %q", out)
	}
	for _, mode := range []string{"--replace", "--supervise"} {
		address = free()
		p.Run("export VAULT_ADDR=http://" + address + "; vaultexec " + mode + " --path app --wait 5m -- echo started")
		p.Expect(shown)
		opens(t, address, strings.TrimPrefix(srv.Addr, "http://"))
		p.Expect(`\r\x1b\[1A\x1b\[2Kstarted`)
		p.ExpectStatus(0)
	}
	p.Run("vaultexec --quiet rotate app KEY; vaultexec --quiet check --path app; echo over")
	p.Expect("over\r\n" + regexp.QuoteMeta(ptytest.Prompt))
	if out := p.Output(); vaulttest.Redact(out) != out {
		t.Error("a value is on the screen")
	}
}

// What is printed for a person fits a terminal of 80 columns, and a narrower one.
func TestFitsTheTerminal(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Mount(2)
	keys := map[string]string{}
	for _, name := range strings.Fields("AOS_API_KEY MACHINE_SECRET_TOKEN OIDC_CLIENT_SECRET POSTGRES_PASSWORD SMTP_PASSWORD STRIPE_WEBHOOK_SECRET") {
		keys[name] = vaulttest.Canary("fits")
	}
	srv.PutKV(t, mount, "app", keys)
	p := shellFor(t, srv, "VAULT_TOKEN="+srv.RootToken, "VAULTEXEC_MOUNT="+mount, "TERM=xterm")
	escapes := regexp.MustCompile(`\x1b\[[0-9;]*m`)
	for _, columns := range []uint16{80, 60} {
		p.Resize(24, columns)
		for _, c := range []string{"status", "check --path app --path other", "get app", "list"} {
			before := len(p.Output())
			p.Run("vaultexec " + c + " 2>/dev/null")
			p.ExpectPrompt()
			for line := range strings.Lines(escapes.ReplaceAllString(p.Output()[before:], "")) {
				if line = strings.TrimRight(line, "\r\n"); strings.Contains(line, "vaultexec ") || strings.HasPrefix(line, ptytest.Prompt) {
					continue
				}
				if n := utf8.RuneCountInString(line); n > int(columns) {
					t.Errorf("%s: %d columns of %d: %s", c, n, columns, line)
				}
			}
		}
	}
}
