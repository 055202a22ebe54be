package serving

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Check asks the next command, over connections that reach it alone (listen.Probe).
type Check struct {
	Dial func(context.Context) (net.Conn, error)

	// Queued is how many connections wait in the socket's queue; false if that cannot be told.
	Queued func() (int, bool)
}

// The reasons why a check fails.
var (
	ErrWaits    = errors.New("nobody accepts the connection")
	ErrNoHTTP   = errors.New("the answer is not HTTP")
	ErrNotReady = errors.New("the answer is an error of the server")
)

const (
	acceptPoll   = 5 * time.Millisecond
	mostInterim  = 10       // answers like 103 before the real one
	mostOfAnswer = 64 << 10 // that is read
)

// Accepted reports whether somebody takes a connection out of the queue, until ctx is over. It is for a program that does
// not speak HTTP. A connection by itself proves nothing: the kernel makes it.
func (c Check) Accepted(ctx context.Context) error {
	conn, err := c.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	tick := time.NewTicker(acceptPoll)
	defer tick.Stop()
	for {
		switch n, known := c.Queued(); {
		case !known:
			return ErrUnknown
		case n == 0:
			return nil
		}
		select {
		case <-ctx.Done():
			return ErrWaits
		case <-tick.C:
		}
	}
}

// HTTP makes a request, and reports whether the answer has a status below 500: a path that does not exist, or that needs
// a login, is served all the same.
func (c Check) HTTP(ctx context.Context, host, path string) (status int, err error) {
	conn, err := c.Dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: vaultexec\r\nConnection: close\r\n\r\n",
		path, host); err != nil {
		return 0, err
	}
	r := textproto.NewReader(bufio.NewReader(io.LimitReader(conn, mostOfAnswer)))
	for range mostInterim {
		line, err := r.ReadLine()
		if err != nil {
			return 0, err
		}
		if status = statusOf(line); status == 0 {
			return 0, ErrNoHTTP
		}
		if status >= 200 {
			break
		}
		if _, err := r.ReadMIMEHeader(); err != nil {
			return 0, err
		}
	}
	if status < 200 || status >= 500 {
		return status, ErrNotReady
	}
	return status, nil
}

// statusOf reads a status line; 0 for what is none.
func statusOf(line string) int {
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if !strings.HasPrefix(version, "HTTP/1.") || err != nil || len(code) != 3 || n < 100 {
		return 0
	}
	return n
}

// Signs are what is known of the next command.
type Signs struct {
	Waits    bool // a process of its group waits for connections on the socket
	Accepted bool // it has taken a connection that reached it alone
	Answered bool // it has answered a request that reached it alone
	SaysSo   bool // READY=1
}

// Serves decides by the signs. READY=1 alone is not enough: gunicorn's master sends it before a worker has loaded the
// application. Nor is a call of listen(2), which it makes even before that.
func (s Signs) Serves() bool { return s.Waits || s.Accepted || s.Answered }
