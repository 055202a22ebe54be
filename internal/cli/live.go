package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// live is one line on a terminal that says what is waited for, for how long already, and until when. It is gone when the
// wait is over. What is printed meanwhile stands above it. The line ends with a line break, so that a shell's prompt has a
// line of its own if a signal ends the wait.
type live struct {
	out io.Writer // standard error

	mu      sync.Mutex
	columns func() int // of its terminal; nil where there is none
	text    string     // what is waited for, and after a colon why; "" for nothing
	since   time.Time
	until   time.Time // zero for no end
	drawn   bool
	stop    chan struct{}
}

const (
	lineUp    = "\r\x1b[1A\x1b[2K"
	liveEvery = time.Second
)

// Write implements io.Writer: a message.
func (l *live) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.erase()
	n, err := l.out.Write(b)
	l.draw()
	return n, err
}

// begin shows what is waited for, or another cause of the same wait. It reports whether there is a terminal for that.
func (l *live) begin(text string, until time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.columns == nil || !inFront() {
		return false
	}
	l.erase()
	l.text, l.until = oneLine(withoutPasswords(text)), until
	if l.stop == nil {
		l.since, l.stop = time.Now(), make(chan struct{})
		go l.run(l.stop)
	}
	l.draw()
	return true
}

// end takes the line away.
func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		close(l.stop)
		l.stop = nil
	}
	l.erase()
	l.text = ""
}

// run keeps the line true.
func (l *live) run(stop chan struct{}) {
	again := time.NewTicker(liveEvery)
	defer again.Stop()
	for {
		select {
		case <-stop:
			return
		case <-again.C:
			l.mu.Lock()
			if l.stop == stop {
				l.erase()
				l.draw()
			}
			l.mu.Unlock()
		}
	}
}

// inFront reports whether this process has its terminal's foreground: what runs behind a shell's prompt draws nothing.
func inFront() bool {
	group, err := unix.IoctlGetInt(int(os.Stderr.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func (l *live) erase() {
	if l.drawn {
		_, _ = io.WriteString(l.out, lineUp)
		l.drawn = false
	}
}

func (l *live) draw() {
	if l.text == "" || !inFront() {
		return
	}
	what, why, _ := strings.Cut(l.text, ": ")
	passed := shortly(time.Since(l.since))
	if !l.until.IsZero() {
		passed += ", until " + l.until.Format(time.TimeOnly)
	}
	_, _ = io.WriteString(l.out, fit(fmt.Sprintf("%s (%s): %s", what, passed, why), l.columns()-1)+"\n")
	l.drawn = true
}
