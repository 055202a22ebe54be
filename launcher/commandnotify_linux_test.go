package launcher

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// A command may speak at once, and only the groups that are known are heard.
func TestCommandNotify(t *testing.T) {
	t.Parallel()
	n := listenToCommand()
	if n == nil {
		t.Fatal("no socket")
	}
	t.Cleanup(n.close)
	env := n.environ([]string{"NOTIFY_SOCKET=/run/systemd/notify", "A=b"}, 0)
	if strings.Join(env, " ") != "A=b NOTIFY_SOCKET="+n.receiver.Address() {
		t.Errorf("%q", env)
	}
	speaker := func() int {
		t.Helper()
		cmd := exec.Command(needs.Program(t, "python3"), "-c", `import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for i in range(40): s.sendto(b"STATUS=%d" % i, "\0" + os.environ["NOTIFY_SOCKET"][1:])
s.sendto(b"READY=1", "\0" + os.environ["NOTIFY_SOCKET"][1:])`)
		cmd.Env, cmd.SysProcAttr = env, &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd.Process.Pid
	}
	stranger := speaker()
	n.beforeFork()
	pid := speaker()
	ended := func(pid int) bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return strings.Contains(string(b), ") Z ")
	}
	// It cannot send all that it has: nobody takes it. What it has sent is not lost.
	wait.Until(t, warmLimit, "a full queue", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
		return ended(pid) || strings.Contains(string(b), "unix_") || strings.Contains(string(b), "sock_alloc")
	})
	n.afterFork(pid)
	for i := range 40 {
		m := nextSaid(t, n)
		if m.group != pid || m.PID != pid || m.Status != fmt.Sprint(i) {
			t.Fatalf("%d: %+v", i, m)
		}
		m.Close()
	}
	if m := nextSaid(t, n); !m.Ready {
		t.Errorf("%+v", m)
	}
	wait.Until(t, warmLimit, "the end of both", func() bool { return ended(stranger) && ended(pid) })
	n.forget(pid)
	third := speaker()
	wait.Until(t, warmLimit, "the end", func() bool { return ended(third) })
	if wait.For(50*time.Millisecond, func() bool { return len(n.out) > 0 }) {
		t.Errorf("heard: %+v", <-n.out)
	}
	var none *commandNotify
	none.beforeFork()
	none.afterFork(1)
	none.forget(1)
	none.close()
	if none.said() != nil || len(none.environ(nil, 0)) != 0 {
		t.Error("a nil one speaks")
	}
}

// nextSaid is the next message, which has to come.
func nextSaid(t *testing.T, n *commandNotify) said {
	t.Helper()
	select {
	case m := <-n.said():
		return m
	case <-time.After(warmLimit):
		t.Fatal("nothing was heard")
		return said{}
	}
}

// Closing does not wait for whoever has not taken what was said.
func TestCommandNotifyCloses(t *testing.T) {
	t.Parallel()
	n := listenToCommand()
	n.beforeFork()
	n.afterFork(unix.Getpgrp())
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.receiver.Address(), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range saidWaiting + 2 {
		if _, err := conn.Write([]byte("STATUS=x")); err != nil {
			t.Fatal(err)
		}
	}
	wait.Until(t, warmLimit, "a full channel", func() bool { return len(n.out) == saidWaiting })
	n.close()
	if _, err := conn.Write([]byte("STATUS=x")); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}

// systemd hears what is about the command, and not what is about the unit.
func TestNotifyPass(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "n")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	heard := func() (string, int) {
		t.Helper()
		b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*8))
		if err := systemd.SetReadDeadline(time.Now().Add(warmLimit)); err != nil {
			t.Fatal(err)
		}
		k, nc, _, _, err := systemd.ReadMsgUnix(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		if parts, err := unix.ParseSocketControlMessage(oob[:nc]); err == nil && len(parts) == 1 {
			fds, _ := unix.ParseUnixRights(&parts[0])
			files = len(fds)
			closeAll(fds)
		}
		return string(b[:k]), files
	}
	c := listenToCommand()
	t.Cleanup(c.close)
	c.beforeFork()
	c.afterFork(unix.Getpgrp())
	command, n := &notifier{socket: c.receiver.Address()}, &notifier{socket: name}
	for _, v := range []struct {
		text, want string
		masked     bool
		files      int
	}{
		{"READY=1\nMAINPID=7\nSTATUS=up\nWATCHDOG=1", "STATUS=up\nWATCHDOG=1", false, 0},
		{"STATUS=hidden\nEXTEND_TIMEOUT_USEC=5000000", "EXTEND_TIMEOUT_USEC=5000000", true, 0},
		{"WATCHDOG=trigger", "WATCHDOG=trigger", false, 0},
		{"FDSTORE=1\nFDNAME=db\nFDPOLL=0", "FDSTORE=1\nFDNAME=db\nFDPOLL=0", false, 2},
		{"FDSTOREREMOVE=1\nFDNAME=db", "FDSTOREREMOVE=1\nFDNAME=db", false, 0},
		{"READY=1\nSTOPPING=1\nRELOADING=1\nMAINPID=7", "", false, 0},
	} {
		command.sendFiles(v.text, []int{0, 1}[:v.files])
		m := nextSaid(t, c)
		n.pass(&m.Message, v.masked)
		m.Close()
		if v.want == "" {
			n.send("nothing before")
			v.want = "nothing before"
		}
		if got, files := heard(); got != v.want || files != v.files {
			t.Errorf("%q: %q, %d descriptors", v.text, got, files)
		}
	}

	// READY=1 waits for the command where --ready was given.
	l := &launch{Options: Options{Environ: []string{"NOTIFY_SOCKET=" + name}, Ready: Ready{Given: true, Timeout: time.Hour}, Log: slog.New(slog.DiscardHandler)}}
	l.takeNotify()
	l.notify.started()
	l.notify.live()
	if got, _ := heard(); !strings.HasPrefix(got, "EXTEND_TIMEOUT_USEC=") {
		t.Errorf("%q", got)
	}
	l.notify.begun = l.notify.begun.Add(-2 * time.Hour)
	l.notify.live() // no longer: --ready-timeout is over
	l.notify.commandReady()
	l.notify.commandReady()
	if got, _ := heard(); got != "READY=1" {
		t.Errorf("%q", got)
	}
	l.notify.ends()
	if got, _ := heard(); got != "STOPPING=1" {
		t.Errorf("%q", got)
	}
}
