package vault

import (
	"context"
	"sync"
	"time"
)

// beside does things that the kernel may hold up without an end, as it does a read of a network file system whose
// server is away. Each runs in a goroutine of its own, one at a time. Whoever asks waits no longer than it can.
type beside struct {
	mu   sync.Mutex
	busy chan struct{} // closed when what was begun has come to an end
}

// do does f, after what is under way, and reports whether f ended within patience and before ctx. If not, f goes on, or
// is not begun at all: it must touch nothing that the caller then uses.
func (b *beside) do(ctx context.Context, patience time.Duration, f func()) bool {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	ended := func(done <-chan struct{}) bool {
		select {
		case <-done:
			return true
		case <-ctx.Done():
		case <-limit.C:
		}
		return false
	}
	for {
		b.mu.Lock()
		busy := b.busy
		if busy == nil {
			break
		}
		b.mu.Unlock()
		if !ended(busy) {
			return false
		}
	}
	done := make(chan struct{})
	b.busy = done
	b.mu.Unlock()
	go func() {
		f()
		b.mu.Lock()
		b.busy = nil
		b.mu.Unlock()
		close(done)
	}()
	return ended(done)
}
