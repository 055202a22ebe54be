package ptytest

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// The keys that the terminal turns into signals.
const (
	CtrlC         = "\x03"
	CtrlD         = "\x04"
	CtrlBackslash = "\x1c"
	CtrlZ         = "\x1a"
)

// Prompt is what the shell of Shell prints. No other output of a test should hold it.
const Prompt = "prompt> "

// Terminal is a pseudo-terminal with a session behind it.
type Terminal struct {
	Limit time.Duration // of every wait
	Leads int           // process ID of the session leader

	t      vaulttest.TB
	master *os.File
	done   chan struct{} // closed when the session leader was reaped
	state  *os.ProcessState

	mu   sync.Mutex
	out  []byte
	seen int // Expect has matched up to here
}

// Shell opens a terminal with an interactive bash and waits for its prompt.
func Shell(t vaulttest.TB, limit time.Duration, env []string) *Terminal {
	t.Helper()
	// Without readline: what is typed is echoed by the terminal itself, and no escape sequences come between.
	env = append([]string{"PS1=" + Prompt, "HISTFILE=", "TERM=vt100"}, env...)
	p := Open(t, limit, env, "bash", "--norc", "--noprofile", "--noediting", "-i")
	p.Expect(regexp.QuoteMeta(Prompt))
	return p
}

// Open starts a program as the leader of a session of its own on a new terminal, as docker -it and ssh -t do.
func Open(t vaulttest.TB, limit time.Duration, env []string, argv ...string) *Terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("cannot open a terminal: %v", err)
	}
	n := 0
	err = control(master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	if err != nil {
		t.Fatalf("cannot unlock the terminal: %v", err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("cannot open the terminal's other end: %v", err)
	}
	defer slave.Close()
	p := &Terminal{Limit: limit, t: t, master: master, done: make(chan struct{})}
	p.Resize(24, 80)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = slave, slave, slave, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := vaulttest.StartTied(cmd); err != nil {
		_ = master.Close()
		t.Fatalf("cannot start %s: %v", argv[0], err)
	}
	p.Leads = cmd.Process.Pid
	reading := make(chan struct{})
	go p.read(reading)
	go func() {
		_ = cmd.Wait()
		p.state = cmd.ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		// Members of the session may have any group, and may be stopped.
		for _, m := range p.Processes() {
			_ = unix.Kill(m.PID, unix.SIGKILL)
		}
		<-p.done
		_ = master.Close()
		<-reading
	})
	return p
}

// control calls f with the descriptor without making the file blocking, as File.Fd would.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

func (p *Terminal) read(done chan struct{}) {
	defer close(done)
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.out = append(p.out, buf[:n]...)
		p.mu.Unlock()
		if err != nil { // EIO when nobody has the other end open any more
			return
		}
	}
}

// Type sends keys.
func (p *Terminal) Type(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatalf("cannot type %q: %v", keys, err)
	}
}

// Run types a command line.
func (p *Terminal) Run(line string) {
	p.t.Helper()
	p.Type(line + "\n")
}

// Expect waits for output that matches, after what was expected before, and returns it.
func (p *Terminal) Expect(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	found := ""
	ok := wait.For(p.Limit, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		loc := re.FindIndex(p.out[p.seen:])
		if loc == nil {
			return false
		}
		found = string(p.out[p.seen+loc[0] : p.seen+loc[1]])
		p.seen += loc[1]
		return true
	})
	if !ok {
		p.t.Fatalf("waited %v in vain for %q on the terminal\n%s", p.Limit, pattern, p)
	}
	return found
}

// ExpectPrompt waits for the shell's next prompt.
func (p *Terminal) ExpectPrompt() {
	p.t.Helper()
	p.Expect(regexp.QuoteMeta(Prompt))
}

// ExpectStatus waits for the prompt and then for the shell's $? to be want.
func (p *Terminal) ExpectStatus(want int) {
	p.t.Helper()
	p.ExpectPrompt()
	p.Run("echo status=$?")
	if got := p.Expect(`status=\d+`); got != "status="+strconv.Itoa(want) {
		p.t.Fatalf("%s, want %d\n%s", got, want, p)
	}
	p.ExpectPrompt()
}

// Await waits until cond holds for the processes of the session.
func (p *Terminal) Await(what string, cond func([]Process) bool) {
	p.t.Helper()
	if !wait.For(p.Limit, func() bool { return cond(p.Processes()) }) {
		p.t.Fatalf("waited %v in vain for %s\n%s", p.Limit, what, p)
	}
}

// AwaitState waits until every process of that name, of which there must be one, is in one of the states (letters of
// proc_pid_stat(5); S and R are both running), and returns their process IDs.
func (p *Terminal) AwaitState(name, states string) []int {
	p.t.Helper()
	var pids []int
	p.Await(fmt.Sprintf("%s to be in state %s", name, states), func(list []Process) bool {
		pids = nil
		for _, m := range list {
			if m.Name != name {
				continue
			}
			if !strings.Contains(states, m.State) {
				return false
			}
			pids = append(pids, m.PID)
		}
		return len(pids) > 0
	})
	return pids
}

// AwaitGone waits until no process of that name is left in the session.
func (p *Terminal) AwaitGone(name string) {
	p.t.Helper()
	p.Await(name+" to be gone", func(list []Process) bool {
		for _, m := range list {
			if m.Name == name {
				return false
			}
		}
		return true
	})
}

// Ended waits for the end of the session leader.
func (p *Terminal) Ended() *os.ProcessState {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(p.Limit):
		p.t.Fatalf("waited %v in vain for the end of the session\n%s", p.Limit, p)
	}
	return p.state
}

// Close takes the terminal away, as a window that is closed does.
func (p *Terminal) Close() { _ = p.master.Close() }

// Foreground returns the process group that has the terminal.
func (p *Terminal) Foreground() int {
	group := 0
	_ = control(p.master, func(fd int) (err error) {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return group
}

// Resize changes the size of the window.
func (p *Terminal) Resize(rows, cols uint16) {
	err := control(p.master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if err != nil {
		p.t.Fatalf("cannot change the window: %v", err)
	}
}

// Modes returns the terminal's modes.
func (p *Terminal) Modes() unix.Termios {
	var modes unix.Termios
	err := control(p.master, func(fd int) error {
		m, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			modes = *m
		}
		return err
	})
	if err != nil {
		p.t.Fatalf("cannot read the terminal's modes: %v", err)
	}
	return modes
}

// Output returns all that was printed.
func (p *Terminal) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.out)
}

// String tells what a person would want to know when a test fails.
func (p *Terminal) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "foreground group %d, processes:\n", p.Foreground())
	for _, m := range p.Processes() {
		fmt.Fprintf(&b, "  %+v\n", m)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(&b, "output:\n%q\nnot yet expected:\n%q", p.out[:p.seen], p.out[p.seen:])
	return vaulttest.Redact(b.String())
}

// Process is one process of the session.
type Process struct {
	PID, Parent, Group, Session int
	Name, State                 string // State is Z when the main thread has ended; Ended tells whether all have
	Threads                     int
}

// Ended reports whether its parent can reap it. The main thread of a process that is killed is often a zombie before the others.
func (m Process) Ended() bool { return m.State == "Z" && m.Threads <= 1 }

// Processes returns the processes of the session, and of sessions that its processes have begun: a program may put another
// terminal between.
func (p *Terminal) Processes() []Process {
	all := All()
	within := map[int]bool{p.Leads: true}
	for grown := true; grown; {
		grown = false
		for _, m := range all {
			if within[m.Parent] && !within[m.PID] {
				within[m.PID], grown = true, true
			}
		}
	}
	return slices.DeleteFunc(all, func(m Process) bool { return m.Session != p.Leads && !within[m.PID] })
}

// All returns all processes, zombies included.
func All() []Process {
	entries, _ := os.ReadDir("/proc")
	var list []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		text := string(b)
		open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		if open < 0 || end < open {
			continue
		}
		f := strings.Fields(text[end+1:])
		m := Process{PID: pid, Name: text[open+1 : end], State: f[0]}
		m.Parent, _ = strconv.Atoi(f[1])
		m.Group, _ = strconv.Atoi(f[2])
		m.Session, _ = strconv.Atoi(f[3])
		m.Threads, _ = strconv.Atoi(f[17])
		list = append(list, m)
	}
	return list
}
