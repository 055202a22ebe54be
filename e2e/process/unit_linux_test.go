package process

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// words are what a message says of some names, in its order.
func words(text string, names ...string) (list []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, _, _ := strings.Cut(line, "="); slices.Contains(names, name) {
			list = append(list, line)
		}
	}
	return list
}

// A unit with Type=notify and NotifyAccess=main sees one main process through its whole life: it has started, reloads with each
// rotation, is there again, and stops. All of that vaultexec says itself. Its command, which says such things to whoever
// listens and calls itself the main process, reaches systemd with its STATUS alone, by way of vaultexec.
func TestUnitThroughRotation(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]string{
		"start-first": startFirst("--listen"),
		"stop-first":  {"--ready", "notify", "--listen"},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); unitThroughRotation(t, actual{t}, options) })
	}
	// With --pass-notify the command has systemd's socket.
	mustFail(t, "passed on", func(c T) { unitThroughRotation(c.(*control).T, c, []string{"--pass-notify", "--listen"}) })
}

func unitThroughRotation(t *testing.T, at T, options []string) {
	port := freePort(at)
	w := newWatched(t, append(options, "127.0.0.1:"+port)...)
	m := newManager(at, filepath.Join(at.TempDir(), "notify"))
	v := w.launcher
	p := start(at, v.cmd(probe(at), "serve"), m.env("WATCHDOG_USEC=1000000"), func(c *exec.Cmd) { c.Env = append(append(c.Env, w.env...), "SAYS=1") })
	times := func(line string) (n int) {
		for _, one := range m.said.all() {
			if one.pid != p.pid {
				at.Fatalf("process %d, and not vaultexec (%d), says %q", one.pid, p.pid, one.text)
			}
			n += strings.Count("\n"+one.text+"\n", "\n"+line+"\n")
		}
		return n
	}
	// The command's own words, which vaultexec passes on.
	until(at, "the first command", func() bool { return times("STATUS=the command of generation 1") == 1 })
	until(at, "READY=1", func() bool { return times("READY=1") == 1 })
	before := monotonicUsec(at)
	w.change(t, 2)
	w.refresh(t, p.pid)
	until(at, "READY=1 again", func() bool { return times("READY=1") == 2 })
	// systemd has heard that the next command was started. One that takes no SIGTERM yet would die of it.
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	until(at, "the next command", func() bool {
		answer, err := client.Get("http://127.0.0.1:" + port)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		return err == nil && strings.HasPrefix(string(b), "2 ")
	})
	until(at, "the end of the first command", func() bool { return len(childrenOf(p.pid)) == 2 })
	until(at, "a sign of life", func() bool { return times("WATCHDOG=1") > 0 })
	after := monotonicUsec(at)
	p.signal(unix.SIGTERM)
	p.wantEnd("0")
	until(at, "STOPPING=1", func() bool { return times("STOPPING=1") > 0 })

	var order []string
	for _, one := range m.said.all() {
		order = append(order, words(one.text, "READY", "RELOADING", "STOPPING", "MAINPID")...)
		if len(words(one.text, "RELOADING")) == 0 {
			continue
		}
		var usec int64
		if stamp := words(one.text, "MONOTONIC_USEC"); len(stamp) != 1 {
			at.Fatalf("without one time: %q", one.text)
		} else if _, err := fmt.Sscanf(stamp[0], "MONOTONIC_USEC=%d", &usec); err != nil || usec < before || usec > after {
			at.Fatalf("%d, and not between %d and %d: %v", usec, before, after, err)
		}
	}
	if want := []string{"READY=1", "RELOADING=1", "READY=1", "STOPPING=1"}; !slices.Equal(order, want) {
		at.Fatalf("systemd hears %v, want %v\n%s%s", order, want, m.got, p.err)
	}
}

// monotonicUsec is the clock of MONOTONIC_USEC.
func monotonicUsec(t T) int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatalf("%v", err)
	}
	return now.Nano() / 1000
}

// systemd hears which version the first command has, as soon as that is ready; what a command says of itself stays.
func TestFirstStatus(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options []string
		env     string
		own     bool
	}{
		"started":            {nil, "", false},
		"ready":              {[]string{"--ready", "auto"}, "", false},
		"ready by own words": {[]string{"--ready", "notify"}, "SAYS=1", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := actual{t}
			port := freePort(at)
			w := newWatched(t, append(c.options, "--listen", "127.0.0.1:"+port)...)
			m := newManager(at, filepath.Join(at.TempDir(), "notify"))
			p := start(at, w.launcher.cmd(probe(at), "serve"), m.env(), func(cmd *exec.Cmd) { cmd.Env = append(append(cmd.Env, w.env...), c.env) })
			get(at, p, port)
			ours := " with " + w.mount + "/app-prod 1"
			m.await("READY=1")
			if c.own {
				m.await("STATUS=the command of generation 1")
			} else {
				until(at, "the version\n"+p.err.String(), func() bool { return strings.Contains(m.got.String(), ours) })
			}
			p.signal(unix.SIGTERM)
			p.wantEnd("0")
			m.await("STOPPING=1")
			if said := m.got.String(); c.own && strings.Contains(said, ours) {
				t.Errorf("the command's own words are gone:\n%s", said)
			}
		})
	}
}
