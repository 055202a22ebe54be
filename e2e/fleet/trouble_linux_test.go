package fleet

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// What goes wrong with a holder or with the engine makes a rotation late, and never loses it or a request.

const (
	few    = 6
	isLost = "the place in the restart lock is lost"
)

// serve starts n members that serve, each with a client that asks it all the time. Its failures are counted until the test ends.
func (f *fleet) serve(n int, args ...string) (failed *atomic.Int64) {
	f.t.Helper()
	failed = &atomic.Int64{}
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	f.t.Cleanup(func() { // before the members are told to stop: cleanups run last first
		cancel()
		clients.Wait()
	})
	var addresses []string
	for range n {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(vaulttest.FreePort()))
		addresses = append(addresses, address)
		f.launch(nil, append([]string{"--listen", address, "--restart-order", "start-first"}, args...)...)
	}
	f.until("all run", func() bool { return f.have("first") == n })
	f.t.Cleanup(func() {
		cancel()
		clients.Wait()
	})
	for i, address := range addresses {
		p := f.list[i]
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for tick := time.NewTicker(20 * time.Millisecond); ; {
				select {
				case <-ctx.Done():
					return
				case <-p.done:
					return
				case <-tick.C:
				}
				r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
				resp, err := client.Do(r)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				select {
				case <-p.done:
				case <-ctx.Done():
				default:
					if err != nil && !p.gone.Load() {
						failed.Add(1)
					}
				}
			}
		})
	}
	return failed
}

// holder waits until a member holds a place for a restart, and returns it.
func (f *fleet) holder() (p *process) {
	f.t.Helper()
	f.until("a place is taken", func() bool {
		for _, q := range f.list {
			text := q.said()
			if strings.Contains(text, isTaken) && !strings.Contains(text, "is given back") {
				p = q
				return true
			}
		}
		return false
	})
	return p
}

func (f *fleet) noneFailed(failed *atomic.Int64) {
	f.t.Helper()
	if n := failed.Load(); n > 0 {
		f.t.Errorf("%d requests failed", n)
	}
}

// A holder that is killed takes its place with it for a while, and no longer.
func TestHolderKilled(t *testing.T) {
	onEach(t, 1, false, func(t *testing.T, l lock) {
		f := newFleet(t, l)
		failed := f.serve(few)
		f.put("good-2")
		p := f.holder()
		p.kill()
		f.until("the others have the new secret", func() bool { return f.without(p, "good-2") == few-1 })
		f.noneFailed(failed)
	})
}

// without counts the members that have a value, but for one.
func (f *fleet) without(p *process, value string) (n int) {
	last := map[string]string{}
	for _, e := range f.notes() {
		if e.what == "start" && e.id != p.id {
			last[e.id] = e.value
		}
	}
	for _, v := range last {
		if v == value {
			n++
		}
	}
	return n
}

// A holder that is stopped for longer than a place lives says that it has lost it, and ends what it had begun.
func TestHolderStopped(t *testing.T) {
	onEach(t, 1, false, func(t *testing.T, l lock) {
		f := newFleet(t, l)
		failed := f.serve(few, "--probation", "10s")
		f.put("good-2")
		p := f.holder()
		_ = p.cmd.Process.Signal(syscall.SIGSTOP)
		before := f.saying(isTaken)
		f.until("another has the place", func() bool { return f.saying(isTaken) > before })
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		f.until("all have the new secret", func() bool { return f.have("good-2") == few })
		f.until("it says what it lost", func() bool { return strings.Contains(p.said(), isLost) })
		f.noneFailed(failed)
	})
}

// The engine is killed in the middle of a rotation, and started again.
func TestEngineRestarts(t *testing.T) {
	onEach(t, 2, true, func(t *testing.T, l lock) {
		f := newFleet(t, l)
		failed := f.serve(few)
		f.put("good-2")
		f.holder()
		l.engine().Kill()
		f.until("somebody misses it", func() bool { return f.saying("cannot be used now") > 0 })
		l.engine().Restart(t)
		f.until("all have the new secret", func() bool { return f.have("good-2") == few })
		f.until("nobody has a place any more", func() bool { return len(l.holders()) == 0 })
		if n := f.saying("made without a place"); n > 0 {
			t.Errorf("%d went on without a place", n)
		}
		f.noneFailed(failed)
	})
}

// The engine is away, or does not answer, for longer than anybody waits: the change is made without a place.
func TestEngineAway(t *testing.T) {
	for name, away := range map[string]func(engine){"killed": engine.Kill, "frozen": engine.Freeze} {
		t.Run(name, func(t *testing.T) {
			onEach(t, 1, true, func(t *testing.T, l lock) {
				f := newFleet(t, l)
				failed := f.serve(few, "--restart-lock-wait", "3s")
				away(l.engine())
				t.Cleanup(l.engine().Thaw)
				f.put("good-2")
				f.until("all have the new secret", func() bool { return f.have("good-2") == few })
				if n := f.saying("made without a place"); n != few {
					t.Errorf("%d said that they go on without a place", n)
				}
				f.noneFailed(failed)
			})
		})
	}
}

// With --restart-lock-required nothing is changed without a place, and everything as soon as there is one.
func TestEngineAwayAndRequired(t *testing.T) {
	onEach(t, 1, true, func(t *testing.T, l lock) {
		f := newFleet(t, l)
		failed := f.serve(few, "--restart-lock-wait", "1s", "--restart-lock-required")
		l.engine().Freeze()
		thawed := false
		t.Cleanup(func() {
			if !thawed {
				l.engine().Thaw()
			}
		})
		f.put("good-2")
		f.until("all have waited in vain", func() bool { return f.saying("goes on waiting") == few })
		if n := f.tried("good-2"); n > 0 {
			t.Errorf("%d restarted without a place", n)
		}
		l.engine().Thaw()
		thawed = true
		f.until("all have the new secret", func() bool { return f.have("good-2") == few })
		f.noneFailed(failed)
	})
}

// The one that tries a change dies before it knows: another tries it.
func TestCanaryKilled(t *testing.T) {
	onEach(t, 2, false, func(t *testing.T, l lock) {
		f := newFleet(t, l)
		f.start(few, "--canary", "--probation", "10s")
		f.put("good-2")
		f.until("one tries it", func() bool { return f.tried("good-2") == 1 })
		p := f.holder()
		p.kill()
		f.until("the others have the new secret", func() bool { return f.without(p, "good-2") == few-1 })
	})
}
