package vaulttest

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// A parent-death signal is sent when the thread that forked ends, not when the process does. So one goroutine forks
// every server. It is locked to its thread and never returns. Another goroutine's thread could go away at any time, for
// example when some test locks a goroutine to it and lets it end.
var starter struct {
	sync.Once
	requests chan startRequest
}

type startRequest struct {
	cmd  *exec.Cmd
	done chan error
}

// StartTied starts cmd so that it does not outlive this process, however that ends (on Linux; its own children may).
// Use it for everything that a test starts and that would not end by itself.
func StartTied(cmd *exec.Cmd) error {
	starter.Do(func() {
		starter.requests = make(chan startRequest)
		go func() {
			runtime.LockOSThread()
			for r := range starter.requests {
				r.done <- r.cmd.Start()
			}
		}()
	})
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	tieToParent(cmd.SysProcAttr)
	r := startRequest{cmd: cmd, done: make(chan error, 1)}
	starter.requests <- r
	return <-r.done
}

// Process is a running server program.
type Process struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when it has been reaped
}

// StartProcess starts cmd, tied to this process and in a group of its own, and keeps the end of what it prints.
func StartProcess(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, log: &tail{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.WaitDelay = 2 * time.Second // a plugin of Vault's may hold the pipe a little longer
	// A group of its own: Ctrl-C at the terminal must not end Vault before the program under test.
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := StartTied(cmd); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", cmd.Path, err)
	}
	go func() {
		_ = cmd.Wait() // a server that we kill "fails"; why it ended stands in its log
		close(p.done)
	}()
	return p, nil
}

// StartServer starts cmd and waits until ready is content with what it prints or answers. The error is ErrPortTaken when it ends and
// has printed taken.
func StartServer(cmd *exec.Cmd, taken string, ready func(p *Process) bool) (*Process, error) {
	p, err := StartProcess(cmd)
	if err != nil {
		return nil, err
	}
	ok := wait.For(startLimit, func() bool { return p.Exited() || ready(p) })
	switch {
	case p.Exited() && p.log.contains(taken):
		return nil, ErrPortTaken
	case p.Exited():
		return nil, fmt.Errorf("%w at the start:\n%s", errExited, p.log)
	case !ok:
		p.Kill()
		return nil, fmt.Errorf("the server did not come up within %v:\n%s", startLimit, p.log)
	}
	return p, nil
}

// PID is the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Printed reports whether the program has printed a text lately.
func (p *Process) Printed(text string) bool { return p.log.contains(text) }

// Log returns the end of what the program printed, without secrets.
func (p *Process) Log() string { return p.log.String() }

// Exited reports whether the program has ended.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Signal sends sig. The process is not reaped behind our back, so that it cannot hit a recycled pid.
func (p *Process) Signal(sig syscall.Signal) {
	if !p.Exited() {
		_ = p.cmd.Process.Signal(sig)
	}
}

// Kill ends the process at once, with its group: Vault's plugins would outlive it. It waits until the process is gone.
func (p *Process) Kill() {
	if !p.Exited() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	<-p.done
}

// Stop asks first, for at most ten seconds.
func (p *Process) Stop() {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

var errExited = errors.New("the server ended")

// tail keeps the end of what a server prints: enough to tell why it did not start.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 64 << 10

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if over := len(l.buf) - tailSize; over > tailSize {
		l.buf = append(l.buf[:0], l.buf[over:]...)
	}
	return len(p), nil
}

func (l *tail) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.buf, []byte(s))
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Redact(string(l.buf))
}
