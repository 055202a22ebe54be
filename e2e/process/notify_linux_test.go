package process

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
)

// manager is systemd's end of sd_notify(3).
type manager struct {
	socket string
	got    *lines
	said   *messages
}

// message is one datagram, and the process that the kernel says has sent it. It is by this one that NotifyAccess= goes.
type message struct {
	pid  int
	text string
}

type messages struct {
	mu   sync.Mutex
	list []message
}

func (m *messages) add(one message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, one)
}

func (m *messages) all() []message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list)
}

func newManager(t T, socket string) manager {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatalf("%v", err)
	}
	raw, err := l.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	m := manager{socket, newLines(t), &messages{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
		for {
			n, nc, _, _, err := l.ReadMsgUnix(b, control)
			if err != nil {
				return
			}
			m.said.add(message{senderOf(control[:nc]), string(b[:n])})
			fmt.Fprintf(m.got.file, "%s\n", b[:n])
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return m
}

// senderOf is the process in a message's credentials; 0 for none.
func senderOf(control []byte) int {
	parts, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(parts) == 0 {
		return 0
	}
	cred, err := unix.ParseUnixCredentials(&parts[0])
	if err != nil {
		return 0
	}
	return int(cred.Pid)
}

// env is what systemd gives to the main process of a unit with WatchdogSec.
func (m manager) env(more ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.Env = append(c.Env, append(more, "NOTIFY_SOCKET="+m.socket)...) }
}

func (m manager) await(what string) {
	m.got.t.Helper()
	until(m.got.t, what, func() bool { return slices.Contains(m.got.all(), what) })
}

func (m manager) count(what string) (n int) {
	for _, line := range m.got.all() {
		if line == what {
			n++
		}
	}
	return n
}

// A vaultexec that stays speaks to systemd, and its command does not: that it runs, that it lives, that it ends.
func TestNotify(t *testing.T) {
	t.Parallel()
	const show = `trap 'exit 0' TERM; echo "[$NOTIFY_SOCKET] [$WATCHDOG_USEC]"; while :; do sleep 0.01; done`
	for name, c := range map[string]struct {
		socket   string
		watchdog bool
	}{
		"path":     {filepath.Join(t.TempDir(), "notify"), true},
		"abstract": {fmt.Sprintf("@vaultexec-test-%d", os.Getpid()), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := actual{t}
			m := newManager(r, c.socket)
			var more []string
			if c.watchdog {
				more = []string{"WATCHDOG_USEC=400000"}
			}
			p := start(r, supervise(t).cmd("sh", "-c", show), m.env(more...))
			p.out.await(1)
			m.await("READY=1")
			if c.watchdog {
				until(r, "signs of life", func() bool { return m.count("WATCHDOG=1") >= 3 })
			}
			p.signal(unix.SIGTERM)
			p.wantEnd("0")
			m.await("STOPPING=1")
			if m.count("READY=1") != 1 || m.count("STOPPING=1") != 1 || !c.watchdog && m.count("WATCHDOG=1") != 0 {
				t.Errorf("%s", m.got)
			}
			if got := p.out.String(); got != "[] []\n" {
				t.Errorf("the command has %s", got)
			}
			if !strings.Contains(p.err.String(), "--pass-notify") {
				t.Errorf("not said: %s", p.err)
			}
		})
	}
	// Who asks for it, and who is the main process itself, has the socket, and vaultexec sends nothing.
	for name, v := range map[string]launcher{"passed on": supervise(t, "--pass-notify"), "replaced": vaultexec(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := actual{t}
			m := newManager(r, filepath.Join(t.TempDir(), "notify"))
			p := start(r, v.cmd("sh", "-c", `echo "[$NOTIFY_SOCKET] [$WATCHDOG_USEC]"`), m.env("WATCHDOG_USEC=400000"))
			p.wantEnd("0")
			if got := p.out.String(); got != "["+m.socket+"] [400000]\n" || p.err.String() != "" {
				t.Errorf("the command has %s%s", got, p.err)
			}
			if got := m.got.String(); got != "" {
				t.Errorf("sent: %s", got)
			}
		})
	}
	t.Run("another's watchdog", func(t *testing.T) {
		t.Parallel()
		r := actual{t}
		m := newManager(r, filepath.Join(t.TempDir(), "notify"))
		p := start(r, supervise(t).cmd("sleep", "0.3"), m.env("WATCHDOG_USEC=100000", "WATCHDOG_PID=1"))
		p.wantEnd("0")
		m.await("STOPPING=1")
		if m.count("WATCHDOG=1") != 0 {
			t.Errorf("%s", m.got)
		}
	})
	// While Vault is away the start takes longer than systemd allows, and the watchdog has its signs of life.
	t.Run("waiting for Vault", func(t *testing.T) {
		t.Parallel()
		r := actual{t}
		m := newManager(r, filepath.Join(t.TempDir(), "notify"))
		v := supervise(t, "--address", "http://127.0.0.1:"+freePort(r), "--wait", "forever", "--path", "app")
		p := start(r, v.cmd("true"), m.env("WATCHDOG_USEC=400000", "VAULT_TOKEN=x"))
		until(r, "two signs of life", func() bool { return m.count("WATCHDOG=1") >= 2 && m.count("EXTEND_TIMEOUT_USEC=30000000") >= 2 })
		p.signal(unix.SIGTERM)
		p.wantEnd("signal TERM")
		if m.count("READY=1") != 0 {
			t.Errorf("%s", m.got)
		}
	})
}

// haproxy -Ws tells systemd that it is the main process. As the command of a run that restarts it, it is not.
func TestNotifyHaproxy(t *testing.T) {
	t.Parallel()
	haproxy := needs.Program(t, "haproxy")
	conf := filepath.Join(t.TempDir(), "haproxy.cfg")
	port := freePort(actual{t})
	if err := os.WriteFile(conf, []byte("defaults\n timeout client 1s\n timeout server 1s\n timeout connect 1s\nfrontend f\n bind 127.0.0.1:"+port+"\n mode http\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]string{"kept": nil, "passed on": {"--pass-notify"}} {
		t.Run(name, func(t *testing.T) {
			w := newWatched(t, options...)
			r := actual{t}
			m := newManager(r, filepath.Join(t.TempDir(), "notify"))
			p := start(r, w.launcher.cmd(haproxy, "-Ws", "-f", conf), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) }, m.env())
			m.await("READY=1")
			listens := func() bool {
				c, err := net.Dial("tcp", "127.0.0.1:"+port)
				if err != nil {
					return false
				}
				return c.Close() == nil
			}
			until(r, "haproxy", listens)
			first := childOf(r, p.pid)
			w.change(t, 2)
			w.refresh(t, p.pid)
			until(r, "the next haproxy", func() bool { return !alive(first) && listens() })
			p.signal(unix.SIGTERM)
			p.ended()
			if got := strings.Contains(m.got.String(), "MAINPID"); got != (options != nil) {
				t.Errorf("haproxy is the main process: %t\n%s%s", got, m.got, p.err)
			}
		})
	}
}
