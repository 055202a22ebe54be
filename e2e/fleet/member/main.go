// Command member is what each vaultexec of a fleet starts: it notes when it starts and when it is told to stop, by the one clock of the
// machine, and serves in between. It fails with a value that has "bad" in it.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	value := os.Getenv("K")
	note("start", value)
	if strings.Contains(value, "bad") {
		os.Exit(3)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	if os.Getenv("LISTEN_FDS") == "" {
		<-stop
		note("stop", value)
		return
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		os.Exit(99)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, value) })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-stop
		note("stop", value)
		_ = server.Shutdown(context.Background())
	}()
	_ = server.Serve(l)
	<-done
}

// note appends a line to the record of the fleet: who, when in nanoseconds, what. One write is one line.
func note(what, value string) {
	f, err := os.OpenFile(os.Getenv("RECORD"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // which libfaketime can be told to leave alone
		_, err = fmt.Fprintf(f, "%s %d %s %s\n", os.Getenv("MEMBER"), now.Nano(), what, value)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "member:", err)
		os.Exit(99)
	}
	_ = f.Close()
}
