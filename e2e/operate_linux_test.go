package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// shellFor opens a terminal with a shell that finds vaultexec and talks to a server.
func shellFor(t *testing.T, srv *vaulttest.Server, env ...string) *ptytest.Terminal {
	t.Helper()
	path := filepath.Dir(vaulttest.BuildStatic(t, ".")) + ":" + os.Getenv("PATH")
	return ptytest.Shell(t, time.Minute, append([]string{"PATH=" + path, "HOME=" + t.TempDir(), "GORACE=" + vaulttest.Gorace, "VAULT_ADDR=" + srv.Addr}, env...))
}

func awaitEcho(t *testing.T, p *ptytest.Terminal, want bool) {
	t.Helper()
	wait.Until(t, time.Minute, fmt.Sprintf("the echo to be %v", want), func() bool { return p.Modes().Lflag&unix.ECHO != 0 == want })
}

func TestUnsealAtATerminal(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Raft(t, vaulttest.RaftOpts{})
	srv.Init(t, 3, 2)
	p := shellFor(t, srv)
	p.Run("vaultexec unseal")
	p.Expect(regexp.QuoteMeta("Key share (0/2 so far; empty to end): "))
	awaitEcho(t, p, false)
	p.Type("not-a-share\n")
	p.Expect("That is no key share")
	p.Expect("Key share")
	awaitEcho(t, p, false)
	p.Type(ptytest.CtrlC)
	p.ExpectStatus(130)
	awaitEcho(t, p, true)

	p.Run("vaultexec unseal")
	p.Expect("Key share")
	awaitEcho(t, p, false)
	p.Type(srv.Keys[0] + "\n")
	p.Expect("progress 1/2")
	p.Expect(regexp.QuoteMeta("Key share (1/2 so far"))
	awaitEcho(t, p, false)
	p.Type("\n")
	p.Expect("progress 1/2: 1 more needed")
	p.ExpectStatus(120)

	p.Run("vaultexec unseal")
	p.Expect("progress 1/2 from before")
	p.Expect("Key share")
	awaitEcho(t, p, false)
	p.Type(srv.Keys[2] + "\n")
	p.Expect(": unsealed")
	p.ExpectStatus(0)
	awaitEcho(t, p, true)
	if out := p.Output(); vaulttest.Redact(out) != out || strings.Contains(out, "not-a-share") {
		t.Errorf("what was typed is on the screen\n%s", vaulttest.Redact(out))
	}
}

func TestAtATerminal(t *testing.T) {
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Mount(2)
	value := vaulttest.Canary("typed")
	srv.PutKV(t, mount, "app", map[string]string{"KEY": vaulttest.Canary("old")})
	token := "VAULT_TOKEN=" + srv.RootToken

	p := shellFor(t, srv, token, "VAULTEXEC_MOUNT="+mount, "TERM=xterm")
	p.Run("vaultexec rotate app KEY -")
	p.Expect("New value: ")
	awaitEcho(t, p, false)
	p.Type(value + "\n")
	p.Expect("version 1 → 2, verified")
	p.ExpectStatus(0)
	p.Run("vaultexec get app#KEY; vaultexec status")
	p.Expect("sealed {7}\x1b\\[32mno\x1b\\[0m")
	p.ExpectPrompt()
	p.Run("NO_COLOR=1 vaultexec status")
	p.Expect("sealed {7}no\r\n")
	p.ExpectPrompt()
	if out := p.Output(); vaulttest.Redact(out) != out {
		t.Errorf("a value is on the screen\n%s", vaulttest.Redact(out))
	}
	p.Run("vaultexec get --reveal app#KEY")
	p.Expect(regexp.QuoteMeta(value + "\r\n" + ptytest.Prompt)) // a line of its own
}

// Everything that can be read elsewhere is read before a person is asked, and nothing is written before the last answer.
func TestSetAtATerminal(t *testing.T) {
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Mount(2)
	first, second := vaulttest.Canary("first"), vaulttest.Canary("second")
	srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("old"), "B": vaulttest.Canary("old")})
	p := shellFor(t, srv, "VAULT_TOKEN="+srv.RootToken, "VAULTEXEC_MOUNT="+mount)
	p.Run("vaultexec set app B=@missing A")
	p.Expect("cannot read \"missing\"")
	p.ExpectStatus(125)

	p.Run("vaultexec set app A B")
	p.Expect("New value of A: ")
	awaitEcho(t, p, false)
	p.Type(first + "\n")
	p.Expect("New value of B: ")
	awaitEcho(t, p, false)
	p.Type(ptytest.CtrlC)
	p.ExpectStatus(130)
	awaitEcho(t, p, true)
	if version, _ := secretAt(t, srv, mount, "app"); version != "1" {
		t.Errorf("version %s, and B has no value yet", version)
	}

	p.Run("vaultexec set app A B=-") // at a terminal - asks, as for rotate
	p.Expect("New value of A: ")
	awaitEcho(t, p, false)
	p.Type(first + "\n")
	p.Expect("New value of B: ")
	awaitEcho(t, p, false)
	p.Type(second + "\n")
	p.Expect("version 1 → 2, verified, 2 changed")
	p.ExpectStatus(0)
	out := p.Output()
	if vaulttest.Redact(out) != out {
		t.Errorf("a value is on the screen\n%s", vaulttest.Redact(out))
	}
	if n := strings.Count(out, "New value of A"); n != 2 {
		t.Errorf("asked %d times for A, want 2: a file was missing the first time", n)
	}
	if _, data := secretAt(t, srv, mount, "app"); data["A"] != first || data["B"] != second {
		t.Error("what was typed is not what was written")
	}
}

// No command leaves a file, and what it starts (git) sees neither values nor credentials.
func TestNothingIsLeftBehind(t *testing.T) {
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Mount(2)
	home, bin := t.TempDir(), t.TempDir()
	value, password := vaulttest.Canary("value"), vaulttest.Canary("password")
	dotenv := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(dotenv, []byte("KEY="+value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := filepath.Join(t.TempDir(), "seen")
	git := fmt.Sprintf("#!/bin/sh\n{ printf '%%s\\n' \"$@\"; env; } >>'%s'\nexit 1\n", seen)
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(git), 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + srv.RootToken, "VAULTEXEC_MOUNT=" + mount, "VAULTEXEC_PASSWORD=" + password,
		"TMPDIR=" + home, "HOME=" + home, "PATH=" + bin + ":" + os.Getenv("PATH")}
	secrets := []string{value, password, srv.RootToken}
	for _, c := range []invocation{
		{args: []string{"import", "app", dotenv}},
		{args: []string{"diff", dotenv, "app", "--all"}}, {args: []string{"diff", "app@1", "app", "--json"}},
		{args: []string{"import", "app", dotenv, "--json", "--log-format", "json"}},
		{args: []string{"rotate", "app", "KEY", "-"}, stdin: value},
		{args: []string{"set", "app", "KEY=@" + dotenv}}, {args: []string{"set", "app", "KEY=-", "--json", "--log-level", "debug"}, stdin: value},
		{args: []string{"rollback", "app"}}, {args: []string{"rollback", "app", "--to", "1", "--key", "KEY", "--json"}},
		{args: []string{"rotate", "app", "KEY", "--from-file", dotenv}},
		{args: []string{"rotate", "app", "KEY", value}},
		{args: []string{"rotate", "app", "KEY", "-", "--json", "--log-level", "debug"}, stdin: value},
		{args: []string{"get", "app"}}, {args: []string{"get", "app#KEY"}}, {args: []string{"get", "app", "--versions"}},
		{args: []string{"list"}}, {args: []string{"status"}}, {args: []string{"status", "--json"}}, {args: []string{"unseal"}},
	} {
		c.env, c.dir = append(env, "GODEBUG=http2debug=1"), home
		e := c.must(t)
		for _, s := range secrets {
			for _, form := range vaulttest.Forms(s) {
				if strings.Contains(e.out+e.errOut, form) {
					t.Errorf("vaultexec %s shows a secret", c.args[0])
				}
			}
		}
		if left, _ := os.ReadDir(home); len(left) > 0 {
			t.Errorf("vaultexec %s left %s", c.args[0], left[0].Name())
		}
	}
	if _, err := os.Stat(seen); err == nil {
		t.Error("git was run: a folder of somebody else's making chooses what that does")
	}
}

// No file is opened for writing, not even one that is gone again when the command ends.
func TestNoFileIsWritten(t *testing.T) {
	strace := needs.Program(t, "strace")
	srv := vaulttest.Dev(t)
	mount := srv.Scope(t).Mount(2)
	dir := t.TempDir()
	dotenv := filepath.Join(dir, ".env")
	if err := os.WriteFile(dotenv, []byte("KEY="+vaulttest.Canary("value")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"import", "app", dotenv}, {"diff", dotenv, "app"}, {"rotate", "app", "KEY"},
		{"set", "app", "KEY=@" + dotenv}, {"rollback", "app"}, {"unseal"}} {
		log := filepath.Join(dir, "strace")
		cmd := exec.Command(strace, append([]string{"-f", "-qq", "-e", "trace=open,openat,creat,memfd_create,execve", "-o", log, vaulttest.BuildStatic(t, ".")}, args...)...)
		cmd.Env = []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + srv.RootToken, "VAULTEXEC_MOUNT=" + mount, "HOME=" + dir, "PATH=/nowhere"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, vaulttest.Redact(string(out)))
		}
		b, err := os.ReadFile(log)
		if err != nil || !strings.Contains(string(b), "execve(") {
			t.Fatalf("strace saw nothing: %v", err)
		}
		for line := range strings.Lines(string(b)) {
			writes := strings.Contains(line, "O_WRONLY") || strings.Contains(line, "O_RDWR") || strings.Contains(line, "O_CREAT") || strings.Contains(line, "memfd_create")
			if writes && !strings.Contains(line, `"/dev/null"`) {
				t.Errorf("vaultexec %s: %s", args[0], line)
			}
		}
	}
}
