package process

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// SIGTERM, SIGINT and SIGKILL at any moment of a restart with held sockets: nothing runs on, nothing is started afterwards, and
// the exit status is that of the command which serves. Between two commands there is none, and the signal itself is the end.
func TestSignalAtAnyMomentOfHandover(t *testing.T) {
	for _, order := range []string{"start-first", "stop-first"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			signalAtAnyMoment(t, order)
		})
	}
}

func signalAtAnyMoment(t *testing.T, order string) {
	at := actual{t}
	w := newWatched(t)
	n := 20
	if soak {
		n = 200
	}
	put := func(generation int) {
		w.srv.PutKV(t, w.mount, "app-prod", map[string]any{"GENERATION": fmt.Sprint(generation), "END": fmt.Sprint(40 + generation)})
	}
	signals := []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGKILL}
	whole := 0 // looks into a file that a whole handover takes
	outcomes := map[string]int{}
	during := func() int {
		n := outcomes["2 started, 1 served, over false"] + outcomes["2 started, 2 served, over false"]
		if order == "stop-first" { // most of it is the time before the second start
			n += outcomes["1 started, 1 served, over false"]
		}
		return n
	}
	// A busy machine may take longer for the first one than for the others: more moments are tried then.
	for i := 0; i <= n || during() < n/10 && i < 5*n; i++ {
		sig := signals[i%len(signals)]
		put(1)
		starts, port := filepath.Join(t.TempDir(), "starts"), freePort(at)
		v := w.launcher
		v = append(v[:len(v)-1:len(v)-1], "--restart-order", order, "--listen", "127.0.0.1:"+port, "--")
		p := start(at, v.cmd(probe(t), "serve"), func(c *exec.Cmd) { c.Env = append(append(c.Env, w.env...), "STARTS="+starts) })
		get(at, p, port)
		l := newLoad(at, "tcp", "127.0.0.1:"+port, clients{fresh: 1})
		until(at, "an answer", func() bool { return l.last.Load() == 1 })
		put(2)
		w.refresh(t, p.pid)
		// A moment that depends on what happens, not on the clock: after so many looks.
		over := func() bool { return l.last.Load() == 2 && len(childrenOf(p.pid)) == 2 }
		most := 1 << 20
		if i > 0 {
			most = rand.IntN(whole*5/4 + 1)
		}
		for k := 0; k < most; k++ {
			if generations(starts); over() && i == 0 {
				whole = k
				break
			}
		}
		served := l.last.Load()
		done := over()
		p.signal(sig)
		end := p.ended()
		l.end()
		begun := generations(starts)
		p.nothingLeft()
		if len(generations(starts)) != len(begun) {
			t.Fatalf("another was started after the end: %v", generations(starts))
		}
		switch {
		case len(begun) > 2:
			t.Fatalf("started were %v", begun)
		case sig == unix.SIGKILL:
			if end != "signal KILL" {
				t.Fatalf("ended with %s", end)
			}
		case end == "41" && served == 1, end == "42" && len(begun) == 2:
		case order == "stop-first" && len(begun) == 1 && (end == "signal TERM" || end == "signal INT"):
		default:
			t.Fatalf("ended with %s after %v, when generation %d served, and %v had started\n%s", end, sig, served, begun, p.err)
		}
		outcomes[fmt.Sprintf("%d started, %d served, over %v", len(begun), served, done)]++
		switch { // the machine is not always as busy as it was the first time: a third of the signals comes after the handover
		case i == 0:
		case done:
			whole -= whole / 10
		default:
			whole += whole/20 + 1
		}
	}
	t.Logf("%v", outcomes)
	if during() < n/10 {
		t.Errorf("the moments do not cover a handover: %v", outcomes)
	}
}
