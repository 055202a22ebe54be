package scan

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// A repository may have a FIFO where git expects a file: in the place of .gitignore, or named in its configuration. git
// opens it and waits for a writer, without end.

// stuckAfter is how long git may do nothing while its output is waited for. A file system that is slow does not count:
// git is in uninterruptible sleep then.
const stuckAfter = 5 * time.Second

// errStuck ends a git that waits for something that is in the repository.
var errStuck = errors.New("git waits without end; is there a FIFO in the place of a file?")

// awaited is git's output, and since when a read of it has been waiting.
type awaited struct {
	out   io.Reader
	since atomic.Int64 // Unix nanoseconds; 0 while nobody reads
}

// Read implements io.Reader.
func (a *awaited) Read(b []byte) (int, error) {
	a.since.Store(time.Now().UnixNano())
	defer a.since.Store(0)
	return a.out.Read(b)
}

// stuck calls end when git, a process, has slept for limit with its output waited for and without doing anything. Where
// there is no /proc, that cannot be known.
func (a *awaited) stuck(pid int, limit time.Duration, over <-chan struct{}, end func()) {
	again := time.NewTicker(limit / 5)
	defer again.Stop()
	last, idle := "", time.Now()
	for {
		select {
		case <-over:
			return
		case now := <-again.C:
			since := a.since.Load()
			used := asleep(pid)
			if since == 0 || used == "" || used != last {
				last, idle = used, now
				continue
			}
			if now.Sub(idle) >= limit && now.Sub(time.Unix(0, since)) >= limit {
				end()
				return
			}
		}
	}
}

// asleep is the processor time that a process has used, if it is in interruptible sleep; "" otherwise.
func asleep(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 || f[0] != "S" {
		return ""
	}
	return f[11] + " " + f[12]
}

// buffered reads git's output in large pieces.
func (a *awaited) buffered() *bufio.Reader { return bufio.NewReaderSize(a, 64<<10) }
