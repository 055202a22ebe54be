package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// T is a test, or a negative control of one.
type T interface {
	vaulttest.TB
	TempDir() string
	Limit() time.Duration // of waiting for what should happen
}

// actual is a test that is to pass.
type actual struct{ *testing.T }

// Limit is generous: the machine may be busy.
func (actual) Limit() time.Duration { return 30 * time.Second }

// control is a test that is to fail.
type control struct {
	*testing.T
	failed string
}

// Limit is short, because it is always waited for. A busy machine makes a control fail all the more.
func (*control) Limit() time.Duration { return 700 * time.Millisecond }

// Fatalf ends the control, successfully.
func (c *control) Fatalf(format string, args ...any) {
	c.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// mustFail runs a check on something that lacks what is checked.
func mustFail(t *testing.T, name string, check func(T)) {
	t.Run("control "+name, func(t *testing.T) {
		t.Parallel()
		c := &control{T: t, failed: ""}
		done := make(chan struct{})
		go func() {
			defer close(done)
			check(c)
		}()
		<-done
		if c.failed == "" {
			t.Error("the check passes without what it checks")
		} else if first, _, _ := strings.Cut(c.failed, "\n"); testing.Verbose() {
			t.Log(first)
		}
	})
}

// launcher is a command line to put in front of another.
type launcher []string

func (l launcher) cmd(args ...string) []string { return append(append([]string{}, l...), args...) }

// String is for a shell's command line.
func (l launcher) String() string { return strings.Join(l, " ") }

// vaultexec returns vaultexec with options, in front of a command.
func vaultexec(t vaulttest.TB, options ...string) launcher {
	t.Helper()
	return append(append(launcher{vaulttest.Build(t, ".")}, options...), "--")
}

func supervise(t vaulttest.TB, options ...string) launcher {
	t.Helper()
	return vaultexec(t, append([]string{"--supervise"}, options...)...)
}

// naive is the launcher that does everything wrong.
func naive(t vaulttest.TB) launcher { return launcher{probe(t), "naive"} }

// script is a launcher written in shell.
func script(t T, text string) launcher {
	t.Helper()
	file := filepath.Join(t.TempDir(), "launcher")
	if err := os.WriteFile(file, []byte("#!/bin/bash\n"+text+"\n"), 0o700); err != nil {
		t.Fatalf("%v", err)
	}
	return launcher{file}
}

func probe(t vaulttest.TB) string {
	t.Helper()
	return vaulttest.BuildStatic(t, "e2e/process/probe")
}

// environ is what everything here runs with: no Vault, and nobody's home. Supervise mode without a source needs neither.
func environ(t T, more ...string) []string {
	return append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + t.TempDir(), "LANG=C.UTF-8", "LC_ALL=C.UTF-8",
		"GORACE=" + vaulttest.Gorace,
		"GODEBUG=asyncpreemptoff=1", // for the probe: no SIGURG of its own
	}, more...)
}

// proc is a started program.
type proc struct {
	t    T
	cmd  *exec.Cmd
	pid  int
	done chan struct{}
	out  *lines
	err  *lines
}

// start starts a command line without a terminal, in a session of its own. change may alter it before.
func start(t T, argv []string, change ...func(*exec.Cmd)) *proc {
	t.Helper()
	p := &proc{t: t, done: make(chan struct{}), out: newLines(t), err: newLines(t)}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = environ(t)
	p.cmd.Stdout, p.cmd.Stderr = p.out.file, p.err.file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, f := range change {
		f(p.cmd)
	}
	if err := vaulttest.StartTied(p.cmd); err != nil {
		t.Fatalf("cannot start %s: %v", argv[0], err)
	}
	p.pid = p.cmd.Process.Pid
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.killSession()
		<-p.done
	})
	return p
}

// killSession ends whatever is left, as after a control: a command may ignore SIGTERM, and a program may stand between. Whoever
// has the number of a program that has ended is somebody else, and so is its session.
func (p *proc) killSession() {
	for left := true; left; {
		left = false
		ended := false
		select {
		case <-p.done:
			ended = true
		default:
		}
		all := ptytest.All() // after the question: one that ends just now would be taken for the next with its number
		if ended && slices.ContainsFunc(all, func(m ptytest.Process) bool { return m.PID == p.pid }) {
			return
		}
		for _, m := range all {
			if (m.PID == p.pid || m.Parent == p.pid || m.Session == p.pid) && m.State != "Z" && send(m.PID, unix.SIGKILL) == nil {
				left = true
			}
		}
	}
}

// send is kill(2) for one process. A test that fails before it learned a number has 0, and for kill(2) that is the test's own
// group: go, make and the shell that runs CI.
func send(pid int, sig syscall.Signal) error {
	if pid <= 1 {
		return unix.ESRCH
	}
	return unix.Kill(pid, sig)
}

// kill ends a process that a test may have left.
func kill(pid int) { _ = send(pid, unix.SIGKILL) }

// signal sends a signal to the program.
func (p *proc) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("cannot send signal %d: %v", sig, err)
	}
}

// ended waits for the end and says how it was: "42" or "signal TERM".
func (p *proc) ended() string {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(p.t.Limit()):
		p.t.Fatalf("waited %v in vain for the end of %s\n%s%s", p.t.Limit(), p.cmd, p.out, p.err)
	}
	return ending(p.cmd.ProcessState)
}

func (p *proc) wantEnd(want string) {
	p.t.Helper()
	if got := p.ended(); got != want {
		p.t.Fatalf("%s ended with %s, want %s\n%s%s", p.cmd, got, want, p.out, p.err)
	}
}

// wantSays checks that all of that is on standard error, or nothing at all if that is nothing.
func (p *proc) wantSays(texts ...string) {
	p.t.Helper()
	said := p.err.String()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			p.t.Fatalf("it does not say %q:\n%s", text, said)
		}
	}
	if len(texts) == 0 && said != "" {
		p.t.Fatalf("it says %q", said)
	}
}

func ending(state *os.ProcessState) string {
	ws := state.Sys().(syscall.WaitStatus)
	if !ws.Signaled() {
		return strconv.Itoa(ws.ExitStatus())
	}
	end := "signal " + signalName(ws.Signal())
	if ws.CoreDump() {
		end += " and a core"
	}
	return end
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}

// lines is a file that a program writes lines to.
type lines struct {
	t    T
	file *os.File
}

func newLines(t T) *lines {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "lines"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &lines{t, f}
}

func (l *lines) path() string { return l.file.Name() }

// all returns the finished lines.
func (l *lines) all() []string {
	b, err := os.ReadFile(l.path())
	if err != nil {
		l.t.Fatalf("%v", err)
	}
	end := bytes.LastIndexByte(b, '\n')
	if end < 0 {
		return nil
	}
	return strings.Split(string(b[:end]), "\n")
}

func (l *lines) String() string { return vaulttest.Redact(strings.Join(append(l.all(), ""), "\n")) }

// await waits until there are n lines, and returns them all.
func (l *lines) await(n int) []string {
	l.t.Helper()
	if !wait.For(l.t.Limit(), func() bool { return len(l.all()) >= n }) {
		l.t.Fatalf("waited %v in vain for line %d:\n%s", l.t.Limit(), n, l)
	}
	return l.all()
}

// number returns the number at the end of the first line that begins with word, waiting for it.
func (l *lines) number(word string) int {
	l.t.Helper()
	n := -1
	wait.For(l.t.Limit(), func() bool {
		for _, line := range l.all() {
			if rest, ok := strings.CutPrefix(line, word+" "); ok {
				n, _ = strconv.Atoi(rest)
				return true
			}
		}
		return false
	})
	if n < 0 {
		l.t.Fatalf("waited %v in vain for %q:\n%s", l.t.Limit(), word, l)
	}
	return n
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	text := string(b)
	return !strings.HasPrefix(text[strings.LastIndexByte(text, ')')+1:], " Z")
}
