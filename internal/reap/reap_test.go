package reap

import (
	"syscall"
	"testing"
)

// How a child ended is told, whoever the kernel told it first, and when it ends before its number is known.
func TestEnd(t *testing.T) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	reapAll := func() {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err != nil || pid <= 0 {
				return
			}
			Ended(pid, status)
		}
	}
	start := func(want int) {
		wait, err := Start("/bin/sh", []string{"sh", "-c", "exit 3"}, &syscall.ProcAttr{})
		if err != nil {
			t.Fatal(err)
		}
		if status, ok := wait(); !ok || status.ExitStatus() != want {
			t.Fatalf("status %v %t, want exit code %d", status, ok, want)
		}
	}
	start(3) // nobody else reaps
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				reapAll()
			}
		}
	}()
	for range 100 {
		start(3)
	}
	if _, err := Start("/no/such/program", []string{"x"}, &syscall.ProcAttr{}); err != syscall.ENOENT {
		t.Errorf("%v", err)
	}
	close(stop)
	<-stopped
	if len(awaited) != 0 || len(early) != 0 || starting != 0 {
		t.Errorf("left: %v %v %d", awaited, early, starting)
	}
}
