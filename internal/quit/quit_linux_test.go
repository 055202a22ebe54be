package quit_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	_ "github.com/agenticverz/vaultexec/internal/quit"
	"github.com/agenticverz/vaultexec/launcher"
)

// SIGQUIT has its default action until it is caught, and Go's handler then, with which it reaches who asks for it.
func TestQuit(t *testing.T) {
	if quitAtStart || !caught(syscall.SIGUSR1) {
		t.Errorf("QUIT was caught at the start: %t, USR1 is: %t", quitAtStart, caught(syscall.SIGUSR1))
	}
	launcher.CatchQuit()
	if !caught(syscall.SIGQUIT) {
		t.Error("QUIT is not caught")
	}
}

var quitAtStart = caught(syscall.SIGQUIT)

func caught(sig syscall.Signal) bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	_, rest, _ := strings.Cut(string(b), "SigCgt:\t")
	line, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		panic(err)
	}
	return set&(1<<(sig-1)) != 0
}
