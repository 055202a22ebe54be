package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Every exit code of the command is vaultexec's, in both modes.
func TestEveryExitCode(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher, codes []int) {
		env := environ(t)
		wrong := make(chan string, len(codes))
		inParallel(4, len(codes), func(i int) {
			cmd := exec.Command(v[0], v.cmd("sh", "-c", fmt.Sprint("exit ", codes[i]))[1:]...)
			cmd.Env = env
			out, _ := cmd.CombinedOutput()
			if got := ending(cmd.ProcessState); got != fmt.Sprint(codes[i]) || len(out) > 0 {
				wrong <- fmt.Sprintf("exit %d: ended with %s, %q", codes[i], got, out)
			}
		})
		if len(wrong) > 0 {
			t.Fatalf("%d wrong, the first: %s", len(wrong), <-wrong)
		}
	}
	var all []int
	for n := range 256 {
		all = append(all, n)
	}
	release := vaulttest.BuildStatic(t, ".") // the detector's build starts ten times as slowly, and ends in the same way
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, launcher{release, "--supervise", "--"}, all) })
	t.Run("replace", func(t *testing.T) { t.Parallel(); check(actual{t}, launcher{release, "--"}, all) })
	mustFail(t, "one for all", func(t T) { check(t, script(t, `"$@" || exit 1`), []int{0, 1, 2, 3}) })
}

// A command that dies by a signal makes vaultexec die by it: a shell shows 128+n, a loop ends, systemd tells. There is no
// core of vaultexec, even where cores are wanted, and no Go stack.
func TestEveryDeath(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher, sigs []syscall.Signal, core bool) {
		for _, sig := range sigs {
			p := start(t, append([]string{"prlimit", "--core=unlimited"}, v.cmd(probe(t), "die", fmt.Sprint(int(sig)))...), func(c *exec.Cmd) {
				c.Dir = t.TempDir()
			})
			got := p.ended()
			if core {
				got = strings.TrimSuffix(got, " and a core")
			}
			if want := "signal " + signalName(sig); got != want {
				t.Fatalf("ended with %s, want %s", got, want)
			}
			if s := p.err.String() + p.out.String(); s != "" {
				t.Fatalf("signal %d: it says %q", sig, s)
			}
		}
	}
	var all []syscall.Signal
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch sig {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU: // not deadly
		case 32, 33: // no shell sends them
		default:
			all = append(all, sig)
		}
	}
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t), all, false) })
	t.Run("replace", func(t *testing.T) { t.Parallel(); check(actual{t}, vaultexec(t), all, true) })
	mustFail(t, "naive", func(t T) { check(t, naive(t), all, true) })
	mustFail(t, "a core", func(t T) { check(t, vaultexec(t), []syscall.Signal{unix.SIGQUIT}, false) })
}

// As PID 1, which no signal without a handler ends, it is 128+n.
func TestDeathsAsPID1(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL, unix.SIGSEGV, unix.SIGQUIT, 64} {
		p := start(actual{t}, asPID1(vaultexec(t).cmd(probe(t), "die", fmt.Sprint(int(sig)))...))
		p.wantEnd(fmt.Sprint(128 + int(sig)))
		if s := p.err.String() + p.out.String(); s != "" {
			t.Errorf("signal %d: it says %q", sig, s)
		}
	}
}

// Execvp's own search and errors.
func TestCannotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for _, f := range []struct {
		path string
		mode os.FileMode
		text string
	}{
		{first + "/both", 0o644, "#!/bin/sh\n"},
		{second + "/both", 0o755, "#!/bin/sh\nexit 7\n"},
		{first + "/denied", 0o644, "#!/bin/sh\n"},
		{first + "/noformat", 0o755, "echo hello\n"},
		{first + "/empty", 0o755, ""},
		{first + "/nointerpreter", 0o755, "#!/no/such/interpreter -x\n"},
		{first + "/dos", 0o755, "#!/bin/sh\r\necho hello\r\n"},
		{first + "/deniedinterpreter", 0o755, "#!/etc/passwd\n"},
		{first + "/foreign", 0o755, "\x7fELF\x02\x01\x01\x00" + strings.Repeat("\x01\x00", 100)},
		{first + "/folder/file", 0o755, ""},
		{dir + "/here", 0o755, "#!/bin/sh\nexit 8\n"},
	} {
		if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.path, []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, v := range map[string]launcher{"supervise": supervise(t), "replace": vaultexec(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range []struct{ command, end, says string }{
				{"both", "7", ""},
				{"here", "8", ""}, // an empty element of PATH is the current folder
				{"absent", "127", `cannot start "absent": command not found`},
				{"denied", "126", "permission denied"},
				{"noformat", "126", "no #! line"},
				{"empty", "126", "no #! line"},
				{"nointerpreter", "127", `interpreter "/no/such/interpreter"`},
				{"dos", "127", "carriage return"},
				{"deniedinterpreter", "126", `interpreter "/etc/passwd"`},
				{"foreign", "126", "not a program for this machine"},
				{first + "/folder", "126", "permission denied"},
				{first + "/both/file", "127", "not a directory"},
				{"./absent", "127", "no such file or directory"},
				{"", "127", "its name is empty"},
			} {
				p := start(actual{t}, v.cmd(c.command), func(cmd *exec.Cmd) {
					cmd.Dir = dir
					i := slices.IndexFunc(cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") })
					cmd.Env[i] = "PATH=" + first + ":" + second + "::/usr/bin:/bin"
				})
				p.wantEnd(c.end)
				if s := p.err.String(); !strings.Contains(s, c.says) || c.says == "" && s != "" {
					t.Errorf("%q: it says %q, want %q", c.command, s, c.says)
				}
			}
		})
	}
}

// A program file that somebody still writes is waited for by a vaultexec that stays: a compiler's output, a deployment.
// With LISTEN_PID it is the stub that waits.
func TestBusyProgram(t *testing.T) {
	t.Parallel()
	check := func(t T, argv func(program string) []string) {
		program := filepath.Join(t.TempDir(), "program")
		b, err := os.ReadFile("/bin/true")
		if err != nil {
			t.Fatalf("%v", err)
		}
		f, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o700)
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer f.Close()
		if _, err := f.Write(b); err != nil {
			t.Fatalf("%v", err)
		}
		p := start(t, argv(program))
		if wait.For(2*time.Second, p.gone) {
			t.Fatalf("it ended at once with %s\n%s", p.ended(), p.err)
		}
		_ = f.Close()
		p.wantEnd("0")
		if s := p.err.String(); s != "" {
			t.Fatalf("it says %q", s)
		}
	}
	t.Run("supervise", func(t *testing.T) {
		t.Parallel()
		check(actual{t}, func(program string) []string { return supervise(t).cmd(program) })
	})
	t.Run("activated", func(t *testing.T) {
		t.Parallel()
		check(actual{t}, func(program string) []string {
			return append([]string{probe(t), "activate", filepath.Join(t.TempDir(), "s")}, supervise(t).cmd(program)...)
		})
	})
	mustFail(t, "shell", func(t T) { check(t, func(program string) []string { return script(t, `exec "$@"`).cmd(program) }) })
}

// asPID1 puts a command into a PID namespace of its own.
func asPID1(argv ...string) []string {
	return append(append([]string{"unshare"}, unshareOptions()...), argv...)
}

func unshareOptions() []string {
	options := []string{"--pid", "--fork", "--mount-proc", "--kill-child"}
	if os.Getuid() != 0 {
		options = append(options, "--user", "--map-root-user")
	}
	return options
}

func needsNamespaces(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("unshare", append(unshareOptions(), "true")...).CombinedOutput(); err != nil {
		needs.Missing(t, fmt.Sprintf("PID namespaces, which are not to be had here: %v %s", err, vaulttest.Redact(string(out))))
	}
}
