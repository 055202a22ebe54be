package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// serve [ADDRESS] is a web server of the kind that a rotation should not be noticed with: at the address, or on all sockets
// that it was given. It answers with "$GENERATION PID", keeps connections alive, and ends on SIGTERM or SIGINT when it has
// answered what it accepted. With $STARTS set, it notes "GENERATION PID MODE" in that file first. It ends with $END, or 0.
//
// With $SAYS set it tells whoever has given it NOTIFY_SOCKET more than is its to tell: that it is ready and the main process,
// and, when it is told to stop, that the unit stops.
//
// MODE says what is wrong with it: exit (at once, with 3), hang (it never listens), die (in order but with 3, when it has
// answered once and there is a file $DIE).
func serve(args []string) int {
	mode := os.Getenv("MODE")
	if file := os.Getenv("STARTS"); file != "" {
		note(file, fmt.Sprintf("%s %d %s\n", os.Getenv("GENERATION"), os.Getpid(), mode))
	}
	end, _ := strconv.Atoi(os.Getenv("END"))
	ch := make(chan os.Signal, 9)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT)
	switch mode {
	case "exit":
		return 3
	case "hang":
		<-ch
		return end
	}
	var listeners []net.Listener
	if len(args) > 0 {
		l, err := net.Listen("tcp", args[0])
		if err != nil {
			fail(err)
		}
		listeners = append(listeners, l)
	} else {
		listeners = given()
	}
	var accepted, serving sync.WaitGroup
	answered := make(chan struct{}, 1)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "%s %d\n", os.Getenv("GENERATION"), os.Getpid())
			select {
			case answered <- struct{}{}:
			default:
			}
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				accepted.Add(1)
			case http.StateClosed:
				accepted.Done()
			}
		},
	}
	for _, l := range listeners {
		serving.Go(func() { _ = server.Serve(l) })
	}
	says := func(string) {}
	if os.Getenv("SAYS") != "" {
		says = say
	}
	says(fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=the command of generation %s", os.Getpid(), os.Getenv("GENERATION")))
	died := make(chan struct{})
	if mode == "die" {
		go func() {
			<-answered
			for _, err := os.Stat(os.Getenv("DIE")); err != nil; _, err = os.Stat(os.Getenv("DIE")) {
				time.Sleep(5 * time.Millisecond)
			}
			close(died)
		}()
	}
	select {
	case <-ch:
	case <-died:
		end = 3
	}
	says("STOPPING=1")
	for _, l := range listeners {
		_ = l.Close()
	}
	serving.Wait()
	// Not Shutdown: that closes what was accepted a moment ago without an answer.
	all := make(chan struct{})
	go func() { accepted.Wait(); close(all) }()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		server.SetKeepAlivesEnabled(false) // closes what is idle
		select {
		case <-all:
			return end
		case <-tick.C:
		}
	}
}

// say is sd_notify(3).
func say(text string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		fail(errors.New("no NOTIFY_SOCKET"))
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(text))
	}
	if err != nil {
		fail(err)
	}
	_ = c.Close()
}

// given returns the sockets of LISTEN_FDS.
func given() (list []net.Listener) {
	if os.Getenv("LISTEN_PID") != fmt.Sprint(os.Getpid()) {
		fail(fmt.Errorf("not for this process: LISTEN_PID=%s", os.Getenv("LISTEN_PID")))
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for i := range n {
		f := os.NewFile(uintptr(3+i), "socket")
		l, err := net.FileListener(f)
		if err != nil {
			fail(err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		_ = f.Close() // or nobody is refused when the listener is closed
		list = append(list, l)
	}
	return list
}

// note adds a line to a file, in one write.
func note(file, line string) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fail(err)
	}
	if _, err := f.WriteString(line); err != nil {
		fail(err)
	}
	_ = f.Close()
}
