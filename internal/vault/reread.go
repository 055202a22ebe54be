package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// readLimit bounds one wait for a credential file. A pipe that nobody writes to and a network file system whose server
// is gone do not answer, and the kernel lets nobody give up such a read. The read goes on beside, and the next try
// waits for it.
const readLimit = 10 * time.Second

// reading is one read of a credential file.
type reading struct {
	done chan struct{} // closed when what follows is set
	text Text
	err  error
	pipe bool
}

// rereadable reads a file at each call. It reads a pipe, as of --secret-id-file <(…), only once: a pipe has nothing
// more to say. No call outlasts its context or readLimit, and there is at most one read at a time.
//
//go:noinline // it would be copied, with all that it returns, to wherever a source is made: 2 kB each
func rereadable(option, path string, read func() (Text, error)) Source {
	var mu sync.Mutex
	var last *reading
	begin := func() *reading {
		mu.Lock()
		defer mu.Unlock()
		if last != nil {
			select {
			case <-last.done:
				if last.pipe && (last.err == nil || wrapInfoIn(last.err) != nil) {
					return last
				}
			default:
				return last
			}
		}
		r := &reading{done: make(chan struct{})}
		last = r
		go func() {
			defer close(r.done)
			info, err := os.Stat(path)
			r.pipe = err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeCharDevice) != 0
			r.text, r.err = read()
			if errors.Is(r.err, fs.ErrNotExist) || fault.Has(r.err, fault.Empty) {
				fault.Of(r.err).Passing = true // an init container, a sidecar or systemd may be writing it just now
			}
		}()
		return r
	}
	return func(ctx context.Context) (Text, error) {
		r := begin()
		limit := time.NewTimer(readLimit)
		defer limit.Stop()
		select {
		case <-r.done:
			return r.text, r.err
		case <-ctx.Done():
			return Text{}, noRead(option, path, ctx.Err())
		case <-limit.C:
			return Text{}, noRead(option, path, context.DeadlineExceeded)
		}
	}
}

func noRead(option, path string, err error) error {
	return &fault.Error{Kind: fault.Away, What: fmt.Sprintf("cannot read %s %q", option, path),
		Why: "the file does not answer", Err: err,
		Hint: "it may be a pipe that nobody writes to, or on a network file system whose server is away"}
}
