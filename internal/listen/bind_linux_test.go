package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// free is a port that nobody has just now, on every address.
func free(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func bound(t *testing.T, specs ...Spec) []*Socket {
	t.Helper()
	sockets, err := Bind(context.Background(), specs)
	if err != nil {
		t.Fatal(err, fault.Of(err).Err)
	}
	t.Cleanup(func() {
		for _, s := range sockets {
			s.Close()
		}
	})
	return sockets
}

// accepts reports whether a connection is accepted at an address.
func accepts(address string) bool {
	c, err := net.Dial("tcp", address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// One socket for both families, each family alone, and nothing before Listen.
func TestBindFamilies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		host      string
		four, six bool
	}{
		{"", true, true}, {"::", false, true}, {"0.0.0.0", true, false}, {"127.0.0.1", true, false}, {"localhost", true, false}, {"::1", false, true},
	} {
		port := free(t)
		s := bound(t, Spec{Host: c.host, Port: port})[0]
		if accepts(fmt.Sprintf("127.0.0.1:%d", port)) || accepts(fmt.Sprintf("[::1]:%d", port)) {
			t.Errorf("%q: open before Listen", c.host)
		}
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		if four, six := accepts(fmt.Sprintf("127.0.0.1:%d", port)), accepts(fmt.Sprintf("[::1]:%d", port)); four != c.four || six != c.six {
			t.Errorf("%q: IPv4 %v, IPv6 %v", c.host, four, six)
		}
		if flags, err := unix.FcntlInt(uintptr(s.FD()), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
			t.Errorf("%q: flags %d, %v", c.host, flags, err)
		}
		fd, _, err := unix.Accept(s.FD()) // a connection of before
		if err != nil {
			t.Fatal(err)
		}
		if nodelay, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || nodelay == 0 {
			t.Errorf("no TCP_NODELAY: %v", err)
		}
		unix.Close(fd)
	}
}

// All or nothing, and every reason at once.
func TestBindAllOrNone(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	path, port := filepath.Join(t.TempDir(), "s"), free(t)
	_, err = Bind(context.Background(), []Spec{
		{Port: port}, {Path: path}, {Host: "127.0.0.1", Port: uint16(taken.Addr().(*net.TCPAddr).Port)}, {Path: filepath.Dir(path)},
	})
	faults := fault.All(err)
	if len(faults) != 2 || !errors.Is(faults[0], unix.EADDRINUSE) || !errors.Is(faults[1], errNoSocket) {
		t.Fatalf("%v", err)
	}
	if want := fmt.Sprintf("(process %d)", os.Getpid()); !strings.Contains(faults[0].Why, want) {
		t.Errorf("%q does not name %s", faults[0].Why, want)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket of a failed Bind is left behind")
	}
	bound(t, Spec{Port: port})
}

// Whoever has the descriptor and calls listen(2) or shutdown(2) is noticed, and Listen mends both.
func TestTouchedByListen(t *testing.T) {
	t.Parallel()
	port := free(t)
	s := bound(t, Spec{Port: port})[0]
	look := func(want bool) {
		t.Helper()
		if touched, known := s.TouchedByListen(); !known || touched != want {
			t.Errorf("touched %v, known %v, want %v", touched, known, want)
		}
	}
	listen := func() {
		t.Helper()
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		look(false)
	}
	if _, known := s.TouchedByListen(); known {
		t.Error("known before Listen")
	}
	listen()
	for _, backlog := range []int{0, 1, 5, 100, 128, 511, 2048, 4096, 1 << 20, -1} {
		if err := unix.Listen(s.FD(), backlog); err != nil {
			t.Fatal(err)
		}
		look(true)
		listen()
	}
	if err := syscall.Shutdown(s.FD(), syscall.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	look(true)
	listen()
	if !accepts(fmt.Sprintf("127.0.0.1:%d", port)) {
		t.Error("closed for good")
	}
}

// A file that is no longer the socket's own is left alone.
func TestUnixFileOfOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	s := bound(t, Spec{Path: path})[0]
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error("somebody else's file was removed")
	}
}

// While a stale socket is replaced, the path always leads to one. The long path has no room for another name.
func TestUnixReplaced(t *testing.T) {
	t.Parallel()
	for _, length := range []int{0, maxPath} {
		dir := t.TempDir()
		path := filepath.Join(dir, "s")
		if length > len(path) {
			dir, _ = os.MkdirTemp("", "v")
			defer os.RemoveAll(dir)
			dir += "/" + strings.Repeat("d", length-len(dir)-3)
			path = dir + "/s"
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			s := bound(t, Spec{Path: path, Mode: 0o600})[0]
			if err := s.Listen(); err != nil {
				t.Fatal(err)
			}
			if c, err := net.Dial("unix", path); err != nil {
				t.Error(err)
			} else {
				c.Close()
			}
			if _, err := Bind(context.Background(), []Spec{{Path: path}}); !errors.Is(fault.Of(err).Err, errServed) {
				t.Errorf("a second one: %v", err)
			}
			unix.Close(s.fd) // as after SIGKILL
			s.fd = -1
		}
		if left, _ := filepath.Glob(dir + "/{.,}*"); len(left) > 1 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// A full queue is served all the same.
func TestUnixFullQueue(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	s := bound(t, Spec{Path: path})[0]
	if err := unix.Listen(s.FD(), 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := Bind(context.Background(), []Spec{{Path: path}}); !errors.Is(fault.Of(err).Err, errServed) {
			t.Errorf("%v", err)
		}
		fd, err := newSocket(unix.AF_UNIX)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		_ = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
}

// The kernel's spelling of addresses.
func TestOverlap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hex, host string
		want      bool
	}{
		{"0100007F", "127.0.0.1", littleEndian}, {"0100007F", "127.0.0.2", false}, {"0100007F", "", true},
		{"00000000", "127.0.0.2", true}, {"00000000000000000000000000000000", "127.0.0.2", true},
		{"00000000000000000000000001000000", "::1", littleEndian}, {"00000000000000000000000001000000", "::2", false},
		{"0000000000000000FFFF00000100007F", "127.0.0.1", littleEndian},
		{"0100007F", "0.0.0.0", true}, {"0100007F", "a.name", true},
	} {
		if got := overlap(c.hex, c.host); got != c.want {
			t.Errorf("%s and %q: %v", c.hex, c.host, got)
		}
	}
}

// Who accepts in this process has a descriptor of its own, which no other program inherits.
func TestListener(t *testing.T) {
	t.Parallel()
	for _, spec := range []Spec{{Host: "127.0.0.1", Port: free(t)}, {Path: filepath.Join(t.TempDir(), "s")}} {
		s := bound(t, spec)[0]
		l, err := s.Listener()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := in.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
				t.Errorf("%s: flags %d, %v", spec, flags, err)
			}
		})
		c.Close()
		in.Close()
		l.Close()
		if spec.Path != "" {
			if _, err := os.Lstat(spec.Path); err != nil {
				t.Error("the file went with the listener")
			}
		}
		if _, err := unix.FcntlInt(uintptr(s.FD()), unix.F_GETFD, 0); err != nil {
			t.Errorf("%s: the socket went with the listener", spec)
		}
		s.Close()
		if _, err := os.Lstat(spec.Path); spec.Path != "" && err == nil {
			t.Error("the file is left behind")
		}
	}
}
