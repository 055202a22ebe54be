package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/wait"
)

// soak is true for the full length: VAULTEXEC_TEST_SOAK=1.
var soak = os.Getenv("VAULTEXEC_TEST_SOAK") == "1"

// startFirst are the options for a handover: the new command is started beside the old one.
func startFirst(more ...string) []string {
	return append([]string{"--restart-order", "start-first"}, more...)
}

// tally is what clients of one kind have seen.
type tally struct {
	asked  atomic.Int64
	failed atomic.Int64
	closed atomic.Int64 // connections that were used before and were closed before anything of the answer came
}

// load is three kinds of clients that ask without a pause: fresh ones open a connection for each request, kept ones use
// theirs again, and neither repeats anything; std is Go's own client, which repeats what is safe to repeat.
type load struct {
	fresh, kept, std tally

	last     atomic.Int64 // the highest generation that has answered
	backward atomic.Int64 // fresh connections that an older one answered

	n       clients
	dial    func() (net.Conn, error)
	stop    chan struct{}
	running sync.WaitGroup

	mu    sync.Mutex
	pids  map[int]map[int]int // answers of each generation's processes
	first []string            // of what failed
}

// clients is how many there are of each kind.
type clients struct{ fresh, kept, std int }

func newLoad(t T, network, address string, n clients) *load {
	l := &load{
		n: n, dial: func() (net.Conn, error) { return net.DialTimeout(network, address, 30*time.Second) },
		stop: make(chan struct{}), pids: map[int]map[int]int{},
	}
	run := func(n int, client func()) {
		for range n {
			l.running.Go(client)
		}
	}
	run(n.fresh, func() {
		for !l.ending() {
			least := l.last.Load()
			c, err := l.dial()
			if err == nil {
				_, err = l.exchange(c, bufio.NewReader(c), true, least)
				_ = c.Close()
			} else {
				time.Sleep(wait.Interval) // a server that starts is to have the machine
			}
			if err != nil {
				l.fail(&l.fresh, err)
			} else {
				l.fresh.asked.Add(1)
			}
		}
	})
	run(n.kept, l.keep)
	run(n.std, l.useStd)
	t.Cleanup(l.end)
	return l
}

func (l *load) ending() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// end ends the clients. It may be called again.
func (l *load) end() {
	l.mu.Lock()
	if !l.ending() {
		close(l.stop)
	}
	l.mu.Unlock()
	l.running.Wait()
}

// fail counts a request that was lost, and keeps the first few.
func (l *load) fail(of *tally, err error) {
	of.asked.Add(1)
	of.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.first) < 5 {
		l.first = append(l.first, err.Error())
	}
}

// keep asks on one connection as long as the server keeps it.
func (l *load) keep() {
	for !l.ending() {
		c, err := l.dial()
		if err != nil {
			l.fail(&l.kept, err)
			time.Sleep(wait.Interval)
			continue
		}
		r := bufio.NewReader(c)
		for used := 0; !l.ending(); used++ {
			again, err := l.exchange(c, r, false, 0)
			switch {
			case err == nil:
				l.kept.asked.Add(1)
			case used > 0 && errors.Is(err, errNothingCame):
				l.kept.closed.Add(1)
			default:
				l.fail(&l.kept, err)
			}
			if !again {
				break
			}
		}
		_ = c.Close()
	}
}

func (l *load) useStd() {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial() },
	}}
	defer client.CloseIdleConnections()
	for !l.ending() {
		answer, err := client.Get("http://x/")
		if err == nil {
			err = l.answered(answer, 0)
		}
		if err != nil {
			l.fail(&l.std, err)
			time.Sleep(wait.Interval)
			continue
		}
		l.std.asked.Add(1)
	}
}

// errNothingCame: the connection ended before the first byte of an answer.
var errNothingCame = errors.New("closed before anything came")

// exchange sends a request and reads its answer, which least is the oldest generation for. It reports whether the connection
// can be used again.
func (l *load) exchange(c net.Conn, r *bufio.Reader, last bool, least int64) (again bool, err error) {
	request := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	if last {
		request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // a server that hangs is a failure, too
	_, sent := io.WriteString(c, request)
	if _, err := r.Peek(1); err != nil { // an answer may have come even if the request did not get through
		return false, fmt.Errorf("%w: %w, %v", errNothingCame, err, sent)
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	return !answer.Close, l.answered(answer, least)
}

// answered reads an answer: a generation, and perhaps the number of the process.
func (l *load) answered(answer *http.Response, least int64) error {
	b, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	f := append(strings.Fields(string(b)), "", "")
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return fmt.Errorf("the answer %q", b)
	}
	pid, _ := strconv.Atoi(f[1])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last.Store(max(l.last.Load(), n))
	if n < least {
		l.backward.Add(1)
	}
	if l.pids[int(n)] == nil {
		l.pids[int(n)] = map[int]int{}
	}
	l.pids[int(n)][pid]++
	return nil
}

// answers returns how often each process of a generation has answered.
func (l *load) answers(generation int) (pids []int, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for pid, of := range l.pids[generation] {
		pids = append(pids, pid)
		n += of
	}
	slices.Sort(pids)
	return pids, n
}

// more waits until each kind of client has had so many further answers for each client.
func (l *load) more(t T, n int64) {
	t.Helper()
	for of, n := range map[*tally]int64{&l.fresh: n * int64(l.n.fresh), &l.kept: n * int64(l.n.kept), &l.std: n * int64(l.n.std)} {
		from := of.asked.Load()
		until(t, fmt.Sprintf("more answers, %v", l), func() bool { return of.asked.Load() >= from+n })
	}
}

func (l *load) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("fresh %d, failed %d; kept %d, failed %d, closed %d; Go's %d, failed %d; backward %d %q", l.fresh.asked.Load(), l.fresh.failed.Load(),
		l.kept.asked.Load(), l.kept.failed.Load(), l.kept.closed.Load(), l.std.asked.Load(), l.std.failed.Load(), l.backward.Load(), l.first)
}

// lost is how many requests failed.
func (l *load) lost() int64 {
	return l.fresh.failed.Load() + l.kept.failed.Load() + l.std.failed.Load()
}

// wantNothingLost: no request has failed, a reused connection was closed once for each client and restart at the most, and
// no new connection has gone to an old command.
func (l *load) wantNothingLost(t *testing.T, restarts int) {
	t.Helper()
	if l.lost() != 0 || l.kept.closed.Load() > int64(l.n.kept*restarts) || l.backward.Load() != 0 {
		t.Errorf("%v, want 0 failed, %d closed at the most, 0 backward", l, l.n.kept*restarts)
	}
	if l.fresh.asked.Load() == 0 {
		t.Error("nothing was asked")
	}
}
