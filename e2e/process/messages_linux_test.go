package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
)

// fullPipe returns both ends of a pipe that takes nothing more.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{4096, 1} {
		for b := make([]byte, size); ; {
			if _, err := unix.Write(p[1], b); err == unix.EAGAIN {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := unix.SetNonblock(p[1], false); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(p[0]), "r"), os.NewFile(uintptr(p[1]), "w")
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// noted is a shell script that notes each start and each signal in a file.
const noted = `trap 'echo usr2 >>"$0"' USR2; trap 'echo term >>"$0"; exit 3' TERM; echo "start $GENERATION $$" >>"$0"; while :; do sleep 0.01; done`

// A standard error that nobody reads (a log driver that hangs, a terminal after Ctrl-S) keeps vaultexec from nothing: a rotation is
// carried out, signals are passed on, and it ends with its command.
func TestUnreadStandardError(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]string{"watch": nil, "mask": {"--mask"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, append([]string{"--log-level", "debug"}, options...)...)
			_, full := fullPipe(t)
			log := newLines(actual{t})
			p := start(actual{t}, w.launcher.cmd("sh", "-c", noted, log.path()), func(c *exec.Cmd) {
				c.Env = append(c.Env, w.env...)
				c.Stderr = full
			})
			log.await(1)
			w.change(t, 2)
			w.refresh(t, p.pid)
			until(actual{t}, "the new command", func() bool { return strings.Contains(log.String(), "start 2") })
			p.signal(unix.SIGUSR2)
			until(actual{t}, "the signal", func() bool { return strings.Contains(log.String(), "usr2") })
			p.signal(unix.SIGTERM)
			p.wantEnd("3")
			p.nothingLeft()
		})
	}
	t.Run("a failure before the command", func(t *testing.T) {
		t.Parallel()
		r, full := fullPipe(t)
		p := start(actual{t}, vaultexec(t, "--path", "x", "--address", "http://127.0.0.1:1", "--wait", "0", "--auth", "agent").cmd("true"), func(c *exec.Cmd) { c.Stderr = full })
		p.wantEnd("120")
		r.Close()
	})
	t.Run("SIGTERM while Vault is waited for", func(t *testing.T) {
		t.Parallel()
		_, full := fullPipe(t)
		p := start(actual{t}, vaultexec(t, "--path", "x", "--address", "http://127.0.0.1:1", "--wait", "forever", "--auth", "agent", "--supervise").cmd("true"), func(c *exec.Cmd) { c.Stderr = full })
		until(actual{t}, "the handler of SIGTERM", func() bool { return catches(p.pid, unix.SIGTERM) })
		p.signal(unix.SIGTERM)
		p.wantEnd("signal TERM")
	})
}

// The same with Ctrl-S on a terminal, and what waited is there after Ctrl-Q.
func TestStoppedTerminal(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "--log-level", "info")
	log := newLines(actual{t})
	term := ptytest.Open(t, actual{t}.Limit(), append(environ(actual{t}), w.env...), w.launcher.cmd("sh", "-c", noted, log.path())...)
	log.await(1)
	term.Type("\x13")
	w.change(t, 2)
	w.refresh(t, term.Leads)
	until(actual{t}, "the new command", func() bool { return strings.Contains(log.String(), "start 2") })
	term.Type("\x11")
	term.Expect("restarting the command")
	if err := send(term.Leads, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if end := ending(term.Ended()); end != "3" {
		t.Errorf("ended with %s", end)
	}
}

// catches reports whether a process has a handler for a signal.
func catches(pid int, sig syscall.Signal) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), "\nSigCgt:\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, _ := strconv.ParseUint(line, 16, 64)
	return mask&(1<<(sig-1)) != 0
}

// After `stty tostop` a hook that prints is not stopped by the terminal.
func TestHookMayPrint(t *testing.T) {
	t.Parallel()
	hook := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho the hook prints\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	w := newWatched(t, "--on-change-hook", hook)
	log := newLines(actual{t})
	term := ptytest.Open(t, actual{t}.Limit(), append(environ(actual{t}), w.env...), w.launcher.cmd("sh", "-c", "stty tostop; "+noted, log.path())...)
	log.await(1)
	w.change(t, 2)
	w.refresh(t, term.Leads)
	term.Expect("the hook prints")
	until(actual{t}, "the new command", func() bool { return strings.Contains(log.String(), "start 2") })
}
