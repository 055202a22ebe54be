package launcher

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a standard error that takes nothing until it is open.
type gate struct {
	open chan struct{}
	got  strings.Builder
}

func (g *gate) Write(b []byte) (int, error) {
	<-g.open
	return g.got.Write(b)
}

func TestMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		m := NewMessages(g)
		m.SayLost(func(n int) string { return fmt.Sprintf("lost %d\n", n) })
		m.Queue()
		begun := time.Now()
		const more = 7
		for i := range maxQueued + 1 + more { // one is being written
			if i == 1 {
				synctest.Wait()
			}
			fmt.Fprintf(m, "message %d\n", i)
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("a message waited %v for a reader", took)
		}
		m.Flush()
		if took := time.Since(begun); took != lastFlush {
			t.Errorf("a flush took %v", took)
		}
		m.Flush()
		if took := time.Since(begun); took != lastFlush {
			t.Errorf("a second flush waits again: %v", took)
		}
		close(g.open)
		synctest.Wait()
		want := fmt.Sprintf("message %d\nlost %d\n", maxQueued, more)
		if got := g.got.String(); !strings.HasPrefix(got, "message 0\nmessage 1\n") || !strings.HasSuffix(got, want) {
			t.Errorf("%.60q … %.60q", got, got[max(0, len(got)-60):])
		}
		fmt.Fprint(m, "after\n")
		synctest.Wait()
		if !strings.HasSuffix(g.got.String(), want+"after\n") {
			t.Error("it does not go on")
		}
		close(m.wake)
	})
}

// Few messages, but large ones, are bounded as well.
func TestMessagesSize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		m := NewMessages(g)
		m.Queue()
		for range 100 {
			fmt.Fprint(m, strings.Repeat("x", maxQueuedSize/10))
		}
		if m.size > maxQueuedSize {
			t.Errorf("%d bytes wait", m.size)
		}
		close(g.open)
		synctest.Wait()
		close(m.wake)
	})
}

// Before a run every message is written at once.
func TestMessagesAtOnce(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	m := NewMessages(&b)
	fmt.Fprint(m, "one\n")
	if b.String() != "one\n" || m.wake != nil {
		t.Errorf("%q", b.String())
	}
	m.Flush()
}
