package launcher

import (
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// Where there is no command no signal is sent: for kill(2), process 0 is the group of the caller, which is that of a script or of CI.
func TestNoCommandNoSignal(t *testing.T) {
	came := make(chan os.Signal, 8)
	signal.Notify(came, unix.SIGCONT, unix.SIGWINCH) // neither of them does anything to the rest of this group
	defer signal.Stop(came)
	for _, group := range []bool{false, true} {
		(&supervisor{child: &child{}}).signalChild(unix.SIGCONT, group)
		if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil {
			t.Fatal(err)
		}
		if sig := <-came; sig != unix.SIGWINCH {
			t.Fatalf("this process got %v, which was meant for the command", sig)
		}
	}
}
