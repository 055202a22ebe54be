package launcher

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/gatetest"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/notify"
	"github.com/agenticverz/vaultexec/internal/wait"
)

const warmLimit = gatetest.Limit

// warmBind binds an address and listens on it.
func warmBind(t *testing.T, spec listen.Spec) *listen.Group {
	t.Helper()
	if spec.Path == "" {
		spec.Host, spec.Port = "127.0.0.1", gatetest.FreePort(t)
	}
	sockets, err := listen.Bind(context.Background(), []listen.Spec{spec})
	if err != nil {
		t.Fatal(err)
	}
	g := listen.NewGroup(sockets[0])
	t.Cleanup(g.Close)
	if err := g.Listen(); err != nil {
		t.Fatal(err)
	}
	return g
}

// warmPair is an address that one command serves, and a second command at its gate.
func warmPair(t *testing.T, spec listen.Spec, argv ...string) (*listen.Group, *listen.Socket, *gatetest.Command) {
	t.Helper()
	g := warmBind(t, spec)
	old := gatetest.Start(t, g.Current(), t.TempDir(), needs.Program(t, "python3"), "app.py", "select", "200")
	old.Open(func() {})
	w := newWarming(warmup{want: Ready{By: ReadyHTTP, Path: "/", Timeout: warmLimit}, pid: old.PID, first: true,
		sockets: []warmSocket{{g.Current(), g}}})
	if err := <-w.ready(); err != nil {
		t.Fatalf("the old command: %v\n%s", err, old.Said())
	}
	w.end()
	s, err := g.Add()
	if err != nil {
		t.Fatal(err)
	}
	if (g.Shared() != "") != (spec.Path != "") {
		t.Fatalf("shared: %q", g.Shared())
	}
	return g, s, gatetest.Start(t, s, t.TempDir(), argv...)
}

// asked waits until a probe of the first address was in vain, while the command is not ready.
func (w *warming) asked(t *testing.T) {
	t.Helper()
	wait.Until(t, warmLimit, "a probe in vain", func() bool {
		select {
		case err := <-w.ready():
			t.Fatalf("ready, or not to be known, too early: %v", err)
		default:
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.is.sockets[0].last != ""
	})
}

// A command beside one that serves is ready when it serves itself, and not before: the answers of the old one are not
// taken for its own.
func TestWarmingServers(t *testing.T) {
	t.Parallel()
	for name, argv := range map[string][]string{
		"select":   {"python3", "app.py", "select", "200"},
		"uvicorn":  {"uvicorn", "--fd", "3", "app:asgi"},
		"gunicorn": gatetest.Gunicorn("gunicorn"),
		"node":     {"node", "-e", gatetest.Node},
		"go":       gatetest.Go,
	} {
		for _, way := range []string{"auto", "http:/", "tcp"} {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				if name != "go" {
					needs.Program(t, map[bool]string{true: "gunicorn", false: argv[0]}[name == "gunicorn"])
				}
				g, s, cmd := warmPair(t, listen.Spec{}, argv...)
				r, err := ParseReady(way)
				if err != nil {
					t.Fatal(err)
				}
				r.Timeout = warmLimit
				w := newWarming(warmup{want: r, pid: cmd.PID, sockets: []warmSocket{{s, g}}})
				defer w.end()
				cmd.Open(func() { w.asked(t) })
				if err := <-w.ready(); err != nil {
					t.Errorf("%v\n%s", err, cmd.Said())
				}
			})
		}
	}
}

// Where both have one socket, connections prove nothing. What the processes wait for does.
func TestWarmingShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g, s, cmd := warmPair(t, listen.Spec{Path: filepath.Join(dir, "s")}, needs.Program(t, "python3"), "app.py", "select", "200")
	for _, by := range []ReadyBy{ReadyHTTP, ReadyTCP} {
		w := newWarming(warmup{want: Ready{By: by, Path: "/", Timeout: warmLimit}, pid: cmd.PID, sockets: []warmSocket{{s, g}}})
		if err := <-w.ready(); err == nil || !strings.Contains(fault.Of(err).Hint, "--ready-address") {
			t.Errorf("%v", err)
		}
		w.end()
	}
	w := newWarming(warmup{want: Ready{Timeout: warmLimit}, pid: cmd.PID, sockets: []warmSocket{{s, g}}, told: true})
	defer w.end()
	w.heard(notify.Message{Ready: true}) // as gunicorn's master does
	cmd.Open(func() {
		if wait.For(time.Second, func() bool { return len(w.out) > 0 }) {
			t.Fatalf("too early: %v", <-w.ready())
		}
	})
	if err := <-w.ready(); err != nil {
		t.Errorf("%v\n%s", err, cmd.Said())
	}
}

// An answer that says that the command is not ready is none, for a path that somebody named.
func TestWarmingStatus(t *testing.T) {
	t.Parallel()
	for status, limit := range map[string]time.Duration{"503": 3 * time.Second, "404": 3 * time.Second, "204": warmLimit} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			g, s, cmd := warmPair(t, listen.Spec{}, needs.Program(t, "python3"), "app.py", "select", status)
			cmd.Open(func() {})
			// limit is long enough for the answer: the program starts before.
			w := newWarming(warmup{want: Ready{By: ReadyHTTP, Path: "/up", Timeout: limit}, pid: cmd.PID, sockets: []warmSocket{{s, g}}})
			defer w.end()
			err := <-w.ready()
			if status == "204" && err == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), "GET /up at "+s.String()+": status "+status) {
				t.Errorf("%v\n%s", err, cmd.Said())
			}
		})
	}
}

// --ready-address is asked in place of the sockets.
func TestWarmingAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, err := ParseReadyAddress(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, by := range []ReadyBy{ReadyTCP, ReadyHTTP} {
		w := newWarming(warmup{want: Ready{By: by, Path: "/x", Timeout: warmLimit, Address: address}, pid: os.Getpid()})
		w.asked(t)
		if l, err = net.Listen("tcp", address.String()); err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(a http.ResponseWriter, q *http.Request) {
			if q.URL.Path != "/x" {
				a.WriteHeader(http.StatusNotFound)
			}
		})}
		go func() { _ = server.Serve(l) }()
		if err := <-w.ready(); err != nil {
			t.Error(err)
		}
		w.end()
		server.Close()
	}
}

// What needs no address: a time, the command's own word, a program.
func TestWarmingWords(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	w := newWarming(warmup{want: Ready{By: ReadyAfter, After: 300 * time.Millisecond, Timeout: warmLimit}, pid: os.Getpid()})
	if err := <-w.ready(); err != nil || time.Since(begun) < 300*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	w.end()

	for _, r := range []Ready{{By: ReadyNotify}, {}} {
		r.Timeout = 100 * time.Millisecond
		w = newWarming(warmup{want: r, pid: os.Getpid(), told: true})
		w.heard(notify.Message{Status: "warming", Extend: warmLimit}) // it may take longer than it was given
		if wait.For(300*time.Millisecond, func() bool { return len(w.out) > 0 }) {
			t.Fatalf("%v: too early: %v", r, <-w.ready())
		}
		w.heard(notify.Message{Ready: true})
		if err := <-w.ready(); err != nil {
			t.Error(err)
		}
		w.end()
		w = newWarming(warmup{want: r, pid: os.Getpid(), told: true})
		if err := <-w.ready(); err == nil || !strings.Contains(err.Error(), "no READY=1") {
			t.Errorf("%v", err)
		}
		w.end()
	}

	w = newWarming(warmup{want: Ready{By: ReadyExec, Program: "x", Timeout: warmLimit}, pid: os.Getpid()})
	defer w.end()
	<-w.wantsRun()
	w.notRun(unix.ENOENT) // it may come later
	var status unix.WaitStatus
	for i, script := range []string{"exit 3", `test "$VAULTEXEC_PID" = 42`} {
		<-w.wantsRun()
		program := filepath.Join(t.TempDir(), "ready")
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		run, err := forkReady(program, nil, readyEnv(nil, func(string) bool { return false }, 42))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Wait4(run.pid, &status, 0, nil); err != nil {
			t.Fatal(err)
		}
		run.timer.Stop()
		w.exited(status, false)
		if i == 0 {
			w.mu.Lock()
			if w.is.ran || w.is.last != "exit code 3" {
				t.Errorf("%+v", w.is)
			}
			w.mu.Unlock()
		}
	}
	if err := <-w.ready(); err != nil {
		t.Error(err)
	}
}

// Nothing is left of a warming that has ended, at whatever moment.
func TestWarmingEnds(t *testing.T) {
	g := warmBind(t, listen.Spec{})
	s, err := g.Add()
	if err != nil {
		t.Fatal(err)
	}
	count := func() string {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d descriptors, %d goroutines", len(fds), runtime.NumGoroutine())
	}
	once := func(asks bool) {
		for _, by := range []ReadyBy{ReadyAuto, ReadyHTTP, ReadyTCP, ReadyExec, ReadyAfter} {
			w := newWarming(warmup{want: Ready{By: by, Path: "/", After: time.Hour, Timeout: warmLimit}, pid: os.Getpid(),
				sockets: []warmSocket{{s, g}}})
			if asks && w.want.Asks() {
				wait.Until(t, warmLimit, "a connection", func() bool { n, _ := s.Queued(); return n > 0 })
			}
			w.end()
			w.end()
			if len(w.out) != 0 {
				t.Errorf("%d: %v", by, <-w.out)
			}
		}
	}
	once(true) // what the runtime keeps is there from now on
	before := count()
	for range 5 {
		once(true)
		once(false)
	}
	wait.Until(t, warmLimit, before+" again", func() bool { return count() == before })
	var none *warming
	none.end()
	if none.ready() != nil || none.wantsRun() != nil {
		t.Error("a nil one delivers")
	}
}
