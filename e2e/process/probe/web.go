package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// web [ADDRESS] is a web server that answers with $GENERATION: at the address, or on the first of the sockets that it was
// given. SIGTERM ends it gracefully; with $DRAIN set, it says so in that file and waits until the file is gone. With
// $NOQUEUE set, it asks for a queue of one.
func web(args []string) int {
	var l net.Listener
	var err error
	if len(args) > 0 {
		l, err = net.Listen("tcp", args[0])
	} else {
		if os.Getenv("LISTEN_PID") != fmt.Sprint(os.Getpid()) {
			fail(fmt.Errorf("not for this process: LISTEN_PID=%s", os.Getenv("LISTEN_PID")))
		}
		f := os.NewFile(3, "socket")
		if os.Getenv("NOQUEUE") != "" {
			if err := unix.Listen(3, 0); err != nil {
				fail(err)
			}
		}
		l, err = net.FileListener(f)
		_ = f.Close() // or nobody is refused when the listener is closed
	}
	if err != nil {
		fail(err)
	}
	var accepted sync.WaitGroup
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			fmt.Fprintln(w, os.Getenv("GENERATION"))
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
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGTERM)
	go func() {
		<-ch
		_ = l.Close()
	}()
	_ = server.Serve(l)
	// Not Shutdown: that closes what was accepted a moment ago without an answer.
	accepted.Wait()
	if file := os.Getenv("DRAIN"); file != "" {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			fail(err)
		}
		for {
			if _, err := os.Stat(file); err != nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return 0
}

// descriptors FILE writes what it was given into FILE, in lines to compare: the variables, and the address of each socket.
func descriptors(args []string) int {
	var out []string
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "LISTEN_PID" && value == fmt.Sprint(os.Getpid()):
			out = append(out, "LISTEN_PID is mine")
		case strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "VAULTEXEC_FD"):
			out = append(out, kv)
		}
	}
	for fd := range 64 {
		sa, err := unix.Getsockname(fd)
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			out = append(out, fmt.Sprintf("%d: IPv4 %d", fd, sa.Port))
		case *unix.SockaddrInet6:
			only, _ := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			out = append(out, fmt.Sprintf("%d: IPv6 %d only %d", fd, sa.Port, only))
		case *unix.SockaddrUnix:
			out = append(out, fmt.Sprintf("%d: %s", fd, sa.Name))
		}
		if err == nil {
			flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); listens != 1 || flags != 0 {
				out = append(out, fmt.Sprintf("%d: listens %d, flags %d", fd, listens, flags))
			}
		}
	}
	slices.Sort(out)
	if err := os.WriteFile(args[0]+".new", []byte(strings.Join(out, "\n")+"\n"), 0o600); err != nil {
		fail(err)
	}
	if err := os.Rename(args[0]+".new", args[0]); err != nil {
		fail(err)
	}
	return 0
}
