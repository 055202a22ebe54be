package launcher

import (
	"io"
	"sync"
	"time"
)

const (
	maxQueued     = 1000        // messages that wait for a reader of standard error
	maxQueuedSize = 1 << 20     // and their bytes
	lastFlush     = time.Second // for what waits at the end
	hastyFlush    = 40 * time.Millisecond
)

// Messages is where vaultexec's own messages go: standard error, which may be a pipe or a terminal that nobody reads
// just now (a log driver that hangs, Ctrl-S). While a command is supervised nobody may wait for it: neither the main
// goroutine, which forwards signals, nor those that watch secrets and keep the token. So one goroutine writes, and the
// others hand their messages to it. What does not fit into the queue is lost. How much that was is said as soon as
// somebody reads again.
//
// Until Queue is called every message is written at once, by whoever has it: in the order of what is printed on
// standard output, and without a goroutine.
type Messages struct {
	out  io.Writer
	lost func(n int) string // the text that says so; set before the queue is used

	mu     sync.Mutex
	queued bool
	queue  [][]byte
	size   int
	missed int
	wake   chan struct{} // something is in the queue; nil until there is a goroutine
	idle   *sync.Cond    // the queue is empty and nothing is being written
	busy   bool
	stuck  bool // nobody reads: a flush has waited in vain
}

// NewMessages returns the messages that go to stderr.
func NewMessages(stderr io.Writer) *Messages {
	m := &Messages{out: background(stderr), lost: func(int) string { return "" }}
	m.idle = sync.NewCond(&m.mu)
	return m
}

// SayLost sets the text that says how many messages were lost.
func (m *Messages) SayLost(text func(n int) string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost = text
}

// Queue has messages written by a goroutine of their own from now on, which is made when there is one.
func (m *Messages) Queue() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queued = true
}

// Write implements io.Writer. b is one message.
func (m *Messages) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.queued {
		return m.out.Write(b)
	}
	if len(m.queue) >= maxQueued || m.size+len(b) > maxQueuedSize {
		m.missed++
		return len(b), nil
	}
	m.queue = append(m.queue, append([]byte(nil), b...))
	m.size += len(b)
	if m.wake == nil {
		m.wake = make(chan struct{}, 1)
		go m.run()
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return len(b), nil
}

// run writes what is in the queue.
func (m *Messages) run() {
	for range m.wake {
		for b := m.take(); b != nil; b = m.take() {
			_, _ = m.out.Write(b)
		}
	}
}

// take returns the next message, or what says how many were lost just behind the last one.
func (m *Messages) take() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = true
	switch {
	case len(m.queue) > 0:
		b := m.queue[0]
		m.queue[0], m.queue = nil, m.queue[1:]
		m.size -= len(b)
		return b
	case m.missed > 0:
		text := m.lost(m.missed)
		m.missed = 0
		return []byte(text)
	}
	m.queue, m.busy = nil, false
	m.idle.Broadcast()
	return nil
}

// Flush waits until everything is written, and no longer than a second: whoever does not read then will not read later.
func (m *Messages) Flush() { m.flush(lastFlush) }

func (m *Messages) flush(limit time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wake == nil || m.stuck {
		return
	}
	over := false
	timer := time.AfterFunc(limit, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		over = true
		m.idle.Broadcast()
	})
	defer timer.Stop()
	for !over && (len(m.queue) > 0 || m.busy) {
		m.idle.Wait()
	}
	m.stuck = over
}
