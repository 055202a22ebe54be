package notify

import (
	"errors"
	"net"
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
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// limit is generous: the machine may be busy.
const limit = time.Minute

func receiver(t *testing.T, inFile bool) *Receiver {
	t.Helper()
	r, err := Listen(inFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if err := r.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return r
}

// group starts a program as the leader of a process group, with NOTIFY_SOCKET.
func group(t *testing.T, r *Receiver, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+r.Address())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd
}

// receive takes the next message, which has to be there or to come.
func receive(t *testing.T, r *Receiver, group int) Message {
	t.Helper()
	m, err := r.Receive(InGroup(group))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const sender3 = `
import os, socket, sys
def send(text, fds=()):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = os.environ["NOTIFY_SOCKET"]
    s.connect("\0" + name[1:] if name[0] == "@" else name)
    socket.send_fds(s, [text], list(fds))
`

// A message of any process of the group counts; one of a stranger does not, though it knows the name.
func TestReceiveFromGroup(t *testing.T) {
	python := needs.Program(t, "python3")
	for _, inFile := range []bool{false, true} {
		r := receiver(t, inFile)
		if inFile {
			if info, err := os.Stat(filepath.Dir(r.Address())); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v", info, err)
			}
		} else if !strings.HasPrefix(r.Address(), "@") {
			t.Errorf("%q is not abstract", r.Address())
		}
		stranger, err := net.Dial("unixgram", r.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		for range 3 {
			if _, err := stranger.Write([]byte("READY=1")); err != nil { // of this process, in another group
				t.Fatal(err)
			}
		}
		cmd := group(t, r, "sh", "-c", `"$@" & wait`, "sh", python, "-c", sender3+`
import signal
send(b"STATUS=of a child\nMAINPID=1")
signal.pause()
`)
		m := receive(t, r, cmd.Process.Pid)
		if m.Status != "of a child" || m.Ready || m.PID == cmd.Process.Pid {
			t.Errorf("%+v", m)
		}
		m.Close()
		// The control: who asks nobody takes the stranger's.
		if _, err := stranger.Write([]byte("READY=1")); err != nil {
			t.Fatal(err)
		}
		if m, err := r.Receive(func(int) bool { return true }); err != nil || !m.Ready || m.PID != os.Getpid() {
			t.Errorf("%+v, %v", m, err)
		}
		r.Close()
		if _, err := r.Receive(InGroup(1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(r.Address()); inFile && err == nil {
			t.Error("the socket is left behind")
		}
	}
}

// systemd-notify waits until everything that it has said was dealt with: its barrier is answered by Close, and not before.
func TestReceiveFromSystemdNotify(t *testing.T) {
	program := needs.Program(t, "systemd-notify")
	r := receiver(t, false)
	cmd := group(t, r, "sh", "-c", program+` --ready --status="all is well"; exec sleep 77`)
	m := receive(t, r, cmd.Process.Pid)
	if !m.Ready || m.Status != "all is well" || m.Barrier {
		t.Fatalf("%+v", m)
	}
	m.Close()
	m = receive(t, r, cmd.Process.Pid)
	if !m.Barrier || m.Ready {
		t.Fatalf("%+v", m)
	}
	waits := func() bool {
		return slices.ContainsFunc(ptytest.All(), func(p ptytest.Process) bool {
			return p.Parent == cmd.Process.Pid && p.Name == "systemd-notify" && p.State != "Z"
		})
	}
	if !waits() {
		t.Error("systemd-notify did not wait for its barrier")
	}
	m.Close()
	wait.Until(t, limit, "the end of systemd-notify", func() bool { return !waits() })
}

// Descriptors arrive with FDSTORE=1, close-on-exec, and are closed in every other case.
func TestReceiveFiles(t *testing.T) {
	python := needs.Program(t, "python3")
	r := receiver(t, false)
	open := func() (list []string) {
		names, _ := filepath.Glob("/proc/self/fd/*")
		for _, n := range names {
			if link, err := os.Readlink(n); err == nil && strings.HasPrefix(link, "pipe:") {
				list = append(list, link)
			}
		}
		slices.Sort(list)
		return list
	}
	before := open()
	cmd := group(t, r, python, "-c", sender3+`
a, b = os.pipe()
send(b"READY=1", [a, b])
send(b"FDSTORE=1\nFDSTOREREMOVE=1\nSTATUS=2", [a, b])
send(b"BARRIER=1", [a, b])
send(b"BARRIER=1\nSTATUS=4", [a])
send(b"STATUS=no UTF-8 \xff", [a])
send(b"STATUS=" + b"x" * 5000, [a])
send(b"FDSTORE=1\nSTATUS=5")
send(b"FDSTORE=1\nFDNAME=pair\nSTATUS=6", [a, b])
send(b"FDSTORE=1\nSTATUS=7", [a] * 253)
send(b"STATUS=last")
import signal
signal.pause()
`)
	var stored []int
	var names []string
	for {
		m := receive(t, r, cmd.Process.Pid)
		if m.Barrier || m.Store != (m.Status == "6" || m.Status == "7") {
			t.Errorf("%+v", m)
		}
		if m.Status == "6" {
			stored = m.Files()
			names = append(names, m.Name)
		}
		m.Close()
		if m.Status == "last" {
			break
		}
	}
	if len(stored) != 2 || !slices.Equal(names, []string{"pair"}) {
		t.Fatalf("%v %v", stored, names)
	}
	if _, err := unix.Write(stored[1], []byte("x")); err != nil {
		t.Error(err)
	}
	for _, fd := range stored {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
			t.Errorf("flags %d, %v", flags, err)
		}
		unix.Close(fd)
	}
	if after := open(); !slices.Equal(before, after) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
}
