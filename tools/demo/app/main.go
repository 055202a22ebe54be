// Command app is the demo's sample web app. It tells the names of the variables that it was given, never a value, and
// knows nothing of Vault: that is the point. It listens on the socket that it is given (sd_listen_fds(3)), or on a port of
// its own. On SIGTERM it answers what it has accepted, and ends by that signal.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	l, err := listener()
	if err != nil {
		log.Fatalf("app: cannot listen: %v", err)
	}
	fmt.Printf("http://%s/\n", l.Addr()) // the first line tells where
	var accepted sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(names), ReadHeaderTimeout: 5 * time.Second,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				accepted.Add(1)
			case http.StateClosed:
				accepted.Done()
			}
		},
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		srv.SetKeepAlivesEnabled(false)
		_ = l.Close()
	}()
	_ = srv.Serve(l)
	// Not Shutdown, which closes what was accepted a moment ago without an answer.
	accepted.Wait()
	// Whoever asks how it ended is told the truth.
	signal.Reset(syscall.SIGTERM)
	_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
	select {}
}

// listener is the first socket that this process was given, or a new one.
func listener() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != fmt.Sprint(os.Getpid()) {
		return net.Listen("tcp", "127.0.0.1:0")
	}
	f := os.NewFile(3, "socket")
	defer func() { _ = f.Close() }()
	return net.FileListener(f)
}

func names(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Process", fmt.Sprint(os.Getpid()))
	var all []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		all = append(all, name)
	}
	slices.Sort(all)
	_, _ = fmt.Fprintln(w, strings.Join(all, "\n"))
}
