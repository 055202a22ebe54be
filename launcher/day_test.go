package launcher

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/clock"
	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// outside does things beyond the bubble of a test: what waits for the network would keep the bubble's clock from going on. Its
// channels are made there.
type outside struct {
	mu   sync.Mutex
	work chan func()
	done chan struct{}
}

func newOutside(t *testing.T) *outside {
	o := &outside{work: make(chan func()), done: make(chan struct{})}
	go func() {
		for f := range o.work {
			f()
			o.done <- struct{}{}
		}
	}()
	t.Cleanup(func() { close(o.work) })
	return o
}

func (o *outside) do(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.work <- f
	<-o.done
}

// pipes is a listener whose connections are pipes in memory.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	end   chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), end: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.end) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bridge hands requests on to a real Vault outside of the bubble.
type bridge struct {
	out    *outside
	addr   string
	client *http.Client

	mu     sync.Mutex
	away   bool
	looks  int // requests for metadata
	missed int // those that came while it was away
}

func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	if strings.Contains(r.URL.Path, "/metadata/") {
		b.looks++
	}
	if b.away {
		b.missed++
		b.mu.Unlock()
		http.Error(w, `{"errors":["Vault is sealed"]}`, http.StatusServiceUnavailable)
		return
	}
	b.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var status int
	var answer []byte
	b.out.do(func() {
		req, err := http.NewRequest(r.Method, b.addr+r.URL.RequestURI(), bytes.NewReader(body))
		if err != nil {
			return
		}
		req.Header = r.Header.Clone()
		resp, err := b.client.Do(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		answer, _ = io.ReadAll(resp.Body)
		status = resp.StatusCode
	})
	if status == 0 {
		status = http.StatusBadGateway
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func (b *bridge) set(away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = away
}

func (b *bridge) counts() (looks, missed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.looks, b.missed
}

// footprint is what may not grow.
type footprint struct{ heap, goroutines, descriptors int }

func look() footprint {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	fds, _ := os.ReadDir("/proc/self/fd")
	return footprint{int(m.HeapAlloc), runtime.NumGoroutine(), len(fds)}
}

// TestADay watches a real Vault for 24 hours of a bubble's clock, with the watcher, the keeper of the token and the state machine,
// and without a process: a rotation an hour, and Vault away for two hours. Every rotation arrives within interval and settle time,
// the outage costs less than peace does and is two lines, and neither memory, goroutines nor descriptors grow.
func TestADay(t *testing.T) {
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	policy := sc.Policy(fmt.Sprintf("path %q { capabilities = [\"read\"] }\npath %q { capabilities = [\"read\"] }", mount+"/data/*", mount+"/metadata/*"))
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}})
	put := func(n int) { srv.PutKV(t, mount, "app", map[string]string{"N": fmt.Sprint(n)}) }
	put(0)
	out := newOutside(t)
	synctest.Test(t, func(t *testing.T) {
		const interval = 30 * time.Second
		lines := &bytes.Buffer{}
		log := slog.New(slog.NewTextHandler(lines, nil))
		b := &bridge{out: out, addr: srv.Addr, client: &http.Client{}}
		listener := newPipes()
		server := &http.Server{Handler: b}
		go func() { _ = server.Serve(listener) }()
		client, err := vault.New(vault.Config{Address: "http://vault.test", TestOnlyDial: listener.dial, TestOnlyClock: clock.New(time.Now, nil)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer func() {
			cancel()
			running.Wait()
			client.CloseIdle()
			_ = server.Close()
		}()
		l := &launch{Options: Options{
			Session: vault.NewTokenSession(client, vault.TextSource("the test's token", token)), Log: log,
			Sources:  []environ.Source{{Path: vault.Path{Mount: mount, Name: "app"}}},
			Watching: Watching{Interval: interval},
		}}
		got, err := l.fetch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		runs, err := environ.Build(got, l.Rules, nil)
		if err != nil {
			t.Fatal(err)
		}
		w := newWatcher(l, program{argv: []string{"app"}}, got)
		running.Go(func() { w.run(ctx) })
		running.Go(func() { l.Session.Keep(ctx, log) })

		begin := time.Now()
		rotated := make(chan int)
		running.Go(func() {
			for n := 1; n <= 24; n++ {
				for _, e := range []struct {
					at   time.Duration
					away bool
				}{{10*time.Hour + 30*time.Minute, true}, {12*time.Hour + 30*time.Minute, false}} {
					if now := time.Since(begin); e.at < time.Duration(n)*time.Hour && e.at >= now {
						time.Sleep(e.at - now)
						b.set(e.away)
					}
				}
				time.Sleep(time.Duration(n)*time.Hour - time.Since(begin))
				out.do(func() { put(n) })
				rotated <- n
			}
			time.Sleep(10 * time.Minute)
			close(rotated)
		})

		m := newMachine(testPolicy)
		m.on(evStarted{}, time.Now())
		timer := time.NewTimer(time.Hour)
		defer timer.Stop()
		var next *environ.Env
		var before footprint
		reads, latest, restarts := 0, 0, 0
		var since time.Time
		value := func() string { return fmt.Sprint(latest) }
		var do func(acts []action)
		do = func(acts []action) {
			for _, a := range acts {
				switch a {
				case actRead:
					reads++
					w.ask(reads)
				case actAccept:
					if next != nil {
						runs, next = next, nil
					}
				case actDrop:
					next = nil
				case actHook:
					do(m.on(evHooked{ok: true}, time.Now()))
				case actStop:
					do(m.on(evExited{status: killedStatus(unix.SIGTERM)}, time.Now()))
				case actTermGroup:
					do(m.on(evGroupGone{}, time.Now()))
				case actStart:
					restarts++
					do(m.on(evStarted{}, time.Now()))
					late := time.Since(since)
					if most := interval*11/10 + testPolicy.settle + time.Second; latest != 12 && late > most {
						t.Errorf("rotation %d arrived after %v, want %v at most", latest, late, most)
					}
					if len(runs.Vars) != 1 || runs.Vars[0].Value.Reveal() != value() {
						t.Errorf("rotation %d: the command is started with something else", latest)
					}
				}
			}
		}
		for {
			timer.Stop()
			if !m.deadline.IsZero() {
				timer.Reset(max(time.Until(m.deadline), 0))
			}
			var ok bool
			select {
			case latest, ok = <-rotated:
				if !ok {
					after := look()
					looks, missed := b.counts()
					t.Logf("%d looks, %d while Vault was away, %d restarts; %+v, then %+v", looks, missed, restarts, before, after)
					if restarts != 23 { // 11 and 12 came while Vault was away
						t.Errorf("%d restarts, want 23", restarts)
					}
					if most := int(24*time.Hour/(interval*9/10)) + 1; looks > most || looks < 2000 {
						t.Errorf("%d looks, want %d at most", looks, most)
					}
					if missed > 60 || missed < 20 { // 240 in peace
						t.Errorf("%d looks in two hours without Vault", missed)
					}
					if after.heap > before.heap+256<<10 || after.goroutines > before.goroutines+3 || after.descriptors > before.descriptors {
						t.Errorf("it grows: %+v after two hours, %+v after a day", before, after)
					}
					if text := lines.String(); strings.Count(text, "level=WARN") != 1 || strings.Count(text, "level=INFO") != 1 ||
						!strings.Contains(text, "works again\" after=2h") && !strings.Contains(text, "works again\" after=1h59m") {
						t.Errorf("the outage is not two lines:\n%s", text)
					}
					return
				}
				since = time.Now()
				if latest == 2 {
					before = look()
				}
			case ev := <-w.out:
				switch r := ev.read; {
				case r == nil:
					do(m.on(evChanged{again: ev.again}, time.Now()))
				case r.env == nil:
					do(m.on(evRead{failed: true, moving: r.moving}, time.Now()))
				default:
					next = r.env
					do(m.on(evRead{same: r.env.Equal(runs), moving: r.moving, id: r.id}, time.Now()))
				}
			case <-timer.C:
				do(m.on(evTimer{}, time.Now()))
			}
		}
	})
}
