package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// server answers every connection on a socket with its number, as a command would: on a descriptor of its own.
type server struct {
	number  int64
	l       net.Listener
	asked   atomic.Int64
	stopped chan struct{}
}

func serve(t *testing.T, s *Socket, number int64) *server {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(s.FD()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	v := &server{number: number, l: l, stopped: make(chan struct{})}
	go func() {
		defer close(v.stopped)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			v.asked.Add(1)
			_, _ = fmt.Fprintln(c, number)
			go func() { // the client ends it: then nothing is left in TIME_WAIT
				_, _ = c.Read(make([]byte, 1))
				c.Close()
			}()
		}
	}()
	return v
}

// stop is the end of the command.
func (v *server) stop() {
	_ = v.l.Close()
	<-v.stopped
}

// answer reads the number, and has the connection end with a reset.
func answer(c net.Conn) (int64, error) {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return 0, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	return strconv.ParseInt(strings.TrimSpace(line), 10, 64)
}

func ask(address string) (int64, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return answer(c)
}

func newGroup(t *testing.T, spec Spec) *Group {
	t.Helper()
	sockets, err := Bind(context.Background(), []Spec{spec})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGroup(sockets[0])
	if err := g.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// steering is what a command line with a free port can show, at each kind of address. It is run as nobody, too.
func steering(t *testing.T, spec Spec, swaps int) {
	g := newGroup(t, spec)
	if g.Shared() != "" {
		t.Fatalf("shared: %s", g.Shared())
	}
	var addresses []string
	switch spec.Host {
	case "":
		addresses = []string{"127.0.0.1", "[::1]"}
	case "::1", "::":
		addresses = []string{"[::1]"}
	default:
		addresses = []string{"127.0.0.1"}
	}
	// A connection that is begun after everything was steered to the socket number n is answered by n or a later one; and by none that
	// nothing was steered to before it was over.
	var least, most atomic.Int64
	var asked, lost, wrong atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				from := least.Load()
				n, err := ask(fmt.Sprintf("%s:%d", addresses[i%len(addresses)], spec.Port))
				to := most.Load()
				switch asked.Add(1); {
				case err != nil:
					lost.Add(1)
					t.Log(err)
				case n < from || n > to:
					wrong.Add(1)
				}
			}
		})
	}
	old := serve(t, g.Current(), 0)
	limit := wait.Interval * 4000
	for n := int64(1); n <= int64(swaps); n++ {
		leaves := g.Current()
		next, err := g.Add()
		if err != nil || next == leaves {
			t.Fatal(err, g.Shared())
		}
		probe, err := NewProbe(next)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.SteerProbe(next, probe.From()); err != nil {
			t.Fatal(err)
		}
		server := serve(t, next, n)
		before := asked.Load()
		for range 5 {
			c, err := probe.Dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if got, err := answer(c); err != nil || got != n {
				t.Errorf("probe %d was answered by %d, %v", n, got, err)
			}
			c.Close()
		}
		wait.Until(t, limit, "clients beside the probes", func() bool { return asked.Load() > before+100 })
		if got := server.asked.Load(); got != 5 {
			t.Errorf("%d connections reached socket %d while it was probed 5 times", got, n)
		}
		probe.Close()
		if n%4 == 0 { // the next command did not come up
			server.stop()
			if err := g.Retire(next); err != nil {
				t.Fatal(err)
			}
			if next, err = g.Add(); err != nil {
				t.Fatal(err)
			}
			server = serve(t, next, n)
		}
		most.Store(n)
		if err := g.SteerAll(next); err != nil {
			t.Fatal(err)
		}
		least.Store(n)
		wait.Until(t, limit, "the old socket to be drained", func() bool { return g.Drained(leaves) })
		old.stop()
		if g.Drained(next) {
			t.Error("the socket that serves is said to be drained")
		}
		if err := g.Retire(leaves); err != nil {
			t.Fatal(err)
		}
		old = server
		before = asked.Load()
		wait.Until(t, limit, "clients of the new one", func() bool { return asked.Load() > before+100 })
	}
	close(stop)
	clients.Wait()
	old.stop()
	t.Logf("%d connections, %d lost, %d answered by the wrong one", asked.Load(), lost.Load(), wrong.Load())
	if lost.Load() != 0 || wrong.Load() != 0 || asked.Load() < int64(200*swaps) {
		t.Errorf("%d connections, %d lost, %d answered by the wrong one", asked.Load(), lost.Load(), wrong.Load())
	}
	if g.Shared() != "" {
		t.Errorf("shared: %s", g.Shared())
	}
}

func hosts() []string { return []string{"127.0.0.1", "0.0.0.0", "", "::1", "::"} }

// Thousands of connections during many swaps: none is lost, none is answered by the wrong one, and a probe reaches the next
// command alone.
func TestSteering(t *testing.T) {
	for _, host := range hosts() {
		t.Run("at "+host, func(t *testing.T) { steering(t, Spec{Host: host, Port: free(t)}, 12) })
	}
}

// asNobody names the variable by which this test's program is told to be the helper of TestSteeringWithoutPrivileges.
const asNobody = "VAULTEXEC_TEST_AS_NOBODY"

// No privilege is needed.
func TestSteeringWithoutPrivileges(t *testing.T) {
	if os.Getenv(asNobody) != "" {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil || os.Getuid() == 0 || !strings.Contains(string(b), "CapEff:\t0000000000000000") {
			t.Fatalf("not without privileges: %v\n%s", err, b)
		}
		steering(t, Spec{Port: free(t)}, 10)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSteeringWithoutPrivileges$", "-test.v")
	cmd.Env, cmd.Dir = append(os.Environ(), asNobody+"=1", "TMPDIR=/tmp"), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "0 lost, 0 answered by the wrong one") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Before the first change nobody else can bind the address, not even a process of the same user with SO_REUSEPORT. After it
// such a process can, gets nothing, and is noticed.
func TestGroupAndStrangers(t *testing.T) {
	port := free(t)
	g := newGroup(t, Spec{Port: port})
	stranger := func() (int, error) {
		fd, err := openTCP(&unix.SockaddrInet6{Port: int(port)}, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := reusePort(fd, true); err != nil {
			t.Fatal(err)
		}
		return fd, unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)})
	}
	if _, err := stranger(); err != unix.EADDRINUSE {
		t.Errorf("a stranger can bind the address: %v", err)
	}
	next, err := g.Add()
	if err != nil || g.Shared() != "" {
		t.Fatal(err, g.Shared())
	}
	if _, err := g.Add(); err != errTwo {
		t.Errorf("a third socket: %v", err)
	}
	if err := g.Retire(next); err != nil {
		t.Fatal(err)
	}
	if _, err := Bind(context.Background(), []Spec{{Port: port}}); !errors.Is(fault.Of(err).Err, unix.EADDRINUSE) {
		t.Errorf("another vaultexec: %v", err)
	}
	fd, err := stranger()
	if err != nil {
		t.Fatalf("this kernel lets no stranger in: %v", err)
	}
	if err := unix.Listen(fd, 9); err != nil {
		t.Fatal(err)
	}
	own := serve(t, g.Current(), 1)
	defer own.stop()
	for range 200 {
		if n, err := ask(fmt.Sprintf("127.0.0.1:%d", port)); n != 1 || err != nil {
			t.Fatalf("answered by %d, %v", n, err)
		}
	}
	if next, err := g.Add(); err != nil || next != g.Current() || g.Shared() == "" {
		t.Errorf("the stranger is not noticed: %v, %q", err, g.Shared())
	}
	for range 200 {
		if n, err := ask(fmt.Sprintf("127.0.0.1:%d", port)); n != 1 || err != nil {
			t.Fatalf("answered by %d, %v", n, err)
		}
	}
	unix.Close(fd) // it has gone: the next command has a socket of its own again
	if next, err := g.Add(); err != nil || next == g.Current() || g.Shared() != "" {
		t.Errorf("the address stays shared: %v, %q", err, g.Shared())
	}
}

// A socket of systemd's is taken only if connections come to it, and it is never closed.
func TestAdopt(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := Adopt("web", int(f.Fd()))
	if err != nil || s.String() != "unix:"+path {
		t.Fatalf("%v, %v", s, err)
	}
	s.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, network := range map[string]string{"datagrams": "udp", "a client's": "tcp"} {
		fd, err := unix.Socket(unix.AF_INET, map[string]int{"udp": unix.SOCK_DGRAM, "tcp": unix.SOCK_STREAM}[network], 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Adopt("web", fd); err == nil {
			t.Errorf("%s is taken", name)
		}
		unix.Close(fd)
	}
	if _, err := Adopt("web", -1); err == nil {
		t.Error("no socket is taken")
	}
}

// What cannot be steered is shared, and says so: unix sockets, and those of systemd.
func TestShared(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/s"
	adopted, err := Adopt("web", int(f.Fd()))
	if err != nil || adopted.String() != l.Addr().String() {
		t.Fatalf("%v, %v", adopted, err)
	}
	for _, s := range []*Socket{adopted, bound(t, Spec{Path: path})[0]} {
		g := NewGroup(s)
		if err := g.Listen(); err != nil {
			t.Fatal(err)
		}
		next, err := g.Add()
		if err != nil || next != s || g.Shared() == "" {
			t.Errorf("%v, %v, %q", next, err, g.Shared())
		}
		if err := g.SteerAll(next); !errors.Is(err, errShared) {
			t.Errorf("%v", err)
		}
		if err := g.SteerProbe(next, netip.AddrPort{}); !errors.Is(err, errShared) {
			t.Errorf("%v", err)
		}
		if err := g.Retire(next); err != nil || next.FD() < 0 || g.Drained(next) {
			t.Errorf("%v", err)
		}
		if !g.Divert(true) || g.Current() != s {
			t.Error("it is diverted")
		}
		probe, err := NewProbe(s)
		if err != nil {
			t.Fatal(err)
		}
		defer probe.Close()
		c, err := probe.Dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// A process that a command has left behind, and that has the old socket, gets nothing more.
func TestRetiredForEverybody(t *testing.T) {
	port := free(t)
	g := newGroup(t, Spec{Host: "127.0.0.1", Port: port})
	left := serve(t, g.Current(), 1)
	defer left.l.Close()
	first := g.Current()
	second, err := g.Add()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.SteerAll(second); err != nil {
		t.Fatal(err)
	}
	if err := g.Retire(first); err != nil {
		t.Fatal(err)
	}
	third, err := g.Add()
	if err != nil || g.Shared() != "" {
		t.Fatal(err, g.Shared())
	}
	a, b := serve(t, second, 2), serve(t, third, 3)
	defer a.stop()
	defer b.stop()
	for want, s := range map[int64]*Socket{2: second, 3: third} {
		if err := g.SteerAll(s); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if n, err := ask(fmt.Sprintf("127.0.0.1:%d", port)); n != want || err != nil {
				t.Fatalf("answered by %d, want %d: %v", n, want, err)
			}
		}
	}
}

// A queue that nobody takes from is not drained.
func TestDrained(t *testing.T) {
	port := free(t)
	g := newGroup(t, Spec{Host: "127.0.0.1", Port: port})
	old := g.Current()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	next, err := g.Add()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.SteerAll(next); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if g.Drained(old) {
			t.Fatal("a connection waits")
		}
	}
	v := serve(t, old, 1)
	defer v.stop()
	wait.Until(t, wait.Interval*1000, "the queue", func() bool { return g.Drained(old) })
	if n, err := answer(c); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// A connection whose handshake was under way when its socket was left is waited for. (With TCP_DEFER_ACCEPT a handshake is
// over when the client has sent something.)
func TestHandshakes(t *testing.T) {
	for _, host := range []string{"127.0.0.1", ""} {
		port := free(t)
		g := newGroup(t, Spec{Host: host, Port: port})
		old := g.Current()
		if err := unix.SetsockoptInt(old.FD(), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n := queued(old); n != 0 {
			t.Fatalf("%d connections are in the queue already", n)
		}
		if asked, read := handshakes(port), handshakesInProc(port); len(asked) != 1 || len(read) != 1 {
			t.Errorf("handshakes %v; in /proc %v", asked, read)
		}
		if other := handshakes(port - 1); len(other) != 0 {
			t.Errorf("of another port: %v", other)
		}
		next, err := g.Add()
		if err != nil || g.Shared() != "" {
			t.Fatal(err, g.Shared())
		}
		if err := g.SteerAll(next); err != nil {
			t.Fatal(err)
		}
		if g.Drained(old) {
			t.Error("a handshake is under way")
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		v := serve(t, old, 1)
		wait.Until(t, wait.Interval*1000, "the end of the handshake", func() bool { return g.Drained(old) })
		if n, err := answer(c); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		v.stop()
	}
}

// Requests that are under way on accepted connections are waited for, but not for ever: of those that nothing has come on,
// and those that have something to read. Some clients connect and send nothing.
func TestRequestsUnderWay(t *testing.T) {
	for _, host := range []string{"127.0.0.1", ""} {
		for _, diverts := range []bool{false, true} {
			port := free(t)
			g := newGroup(t, Spec{Host: host, Port: port})
			old := g.Current()
			dial := func() net.Conn {
				c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				return c
			}
			var accepted []int
			accept := func() {
				fd, _, err := unix.Accept(old.FD())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { unix.Close(fd) })
				accepted = append(accepted, fd)
			}
			read := func(fd int) {
				if n, err := unix.Read(fd, make([]byte, 8)); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
			spoken := dial()
			if _, err := spoken.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			quiet := dial()
			if n := len(underWay(port, false)); n != 2 {
				t.Errorf("%d under way, want 2", n)
			}
			if n := len(underWay(port, true)); n != 0 {
				t.Errorf("%d under way that are accepted", n)
			}
			accept()
			accept()
			if other := underWay(port-1, false); len(other) != 0 {
				t.Errorf("of another port: %v", other)
			}
			if !diverts {
				next, err := g.Add()
				if err != nil || g.Shared() != "" {
					t.Fatal(err, g.Shared())
				}
				if err := g.SteerAll(next); err != nil {
					t.Fatal(err)
				}
			} else if !g.Divert(true) || g.Current() == old {
				t.Fatalf("not diverted: %q", g.Shared())
			}
			later := dial() // waits for the next command
			if _, err := later.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			stays := func(d time.Duration) { g.left = time.Now().Add(d) }
			stays(time.Hour)
			if g.Drained(old) {
				t.Error("two requests are under way")
			}
			read(accepted[0])
			if g.Drained(old) {
				t.Error("one has not come")
			}
			if _, err := quiet.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if g.Drained(old) {
				t.Error("one was not read")
			}
			stays(-silentTime)
			if !g.Drained(old) {
				t.Error("one that is never read is waited for")
			}
			stays(time.Hour)
			read(accepted[1])
			if !g.Drained(old) {
				t.Error("both were read")
			}
		}
	}
}

// What is new waits for the next command only when the one that serves keeps up: when nothing waits for it, or no more than
// it was seen to accept. A queue that nobody takes from is left alone; it is the next command's.
func TestDivert(t *testing.T) {
	port := free(t)
	g := newGroup(t, Spec{Host: "127.0.0.1", Port: port})
	old := g.Current()
	var waiting []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		waiting = append(waiting, c)
	}
	accept := func() {
		fd, _, err := unix.Accept(old.FD())
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		_, _ = unix.Write(fd, []byte("1\n"))
	}
	for i := range 10 {
		if g.Divert(i == 0) || g.Current() != old {
			t.Fatal("three wait, and none was accepted")
		}
	}
	accept()
	if g.Divert(false) || g.Current() != old {
		t.Fatal("two wait, and one was accepted")
	}
	accept()
	if !g.Divert(false) || g.Current() == old || !g.Divert(false) {
		t.Fatal("one waits, and two were accepted")
	}
	if g.Drained(old) {
		t.Error("one still waits")
	}
	accept()
	if !g.Drained(old) {
		t.Error("nothing waits any more")
	}
	for _, c := range waiting {
		if n, err := answer(c); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)) // there is no next command yet
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	next := g.Current()
	if err := g.Retire(old); err != nil {
		t.Fatal(err)
	}
	v := serve(t, next, 2)
	defer v.stop()
	if n, err := answer(c); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if !g.Divert(true) || g.Current() == next {
		t.Error("not a second time")
	}
}
