package launcher

import (
	"context"
	"time"
)

// farewell bounds what vaultexec does when the command has ended: the rest of its masked output, the end of the watch,
// the token's revocation. Messages that nobody reads have lastFlush on top of it. So vaultexec outlives the command by
// two seconds at the most, whatever hangs: a network, a network file system, a reader.
const farewell = time.Second

// shutDown puts everything in order after the command and its group have ended. In this order:
//
//  1. as PID 1: what an end without a command has left is told to end (pid1.go), which has its own limit
//  2. files with secrets are removed: a network file system may hang
//  3. the watch and the keeping of the token end, and the token is revoked; meanwhile
//  4. the rest of the masked output is written
//
// Messages are flushed by whoever ends the process.
func (s *supervisor) shutDown(finish func(context.Context)) {
	if !s.toldAll {
		endAll()
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	removed := make(chan struct{})
	go func() {
		defer close(removed)
		s.files.removeAll()
	}()
	select {
	case <-removed:
	case <-ctx.Done():
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		finish(ctx)
	}()
	s.out.finish(s.machine.hurried())
	select {
	case <-done:
	case <-ctx.Done():
	}
}
