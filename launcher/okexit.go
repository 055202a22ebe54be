package launcher

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// OKExit says which ends of the command count as another: by exit code, and for a death by signal by 128 + its number.
type OKExit map[int]int

// ParseOKExit reads CODE or CODE=CODE.
func ParseOKExit(text string) (from, to int, err error) {
	code, as, given := strings.Cut(text, "=")
	from, ok := exitCode(code)
	if ok && given {
		to, ok = exitCode(as)
	}
	if !ok {
		return 0, 0, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q", text),
			Why:  "not an exit code from 0 to 255",
			Hint: "write it as 143, which then counts as 0, or 143=1; a death by signal has 128 + the signal's number"}
	}
	return from, to, nil
}

func exitCode(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 8)
	return int(n), err == nil
}

// of returns what an end of the command counts as.
func (o OKExit) of(status unix.WaitStatus) (int, bool) {
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	to, ok := o[code]
	return to, ok
}

// counted is outcome as --ok-exit has it. An end by a signal that vaultexec received between two commands, or while one
// was stopping, counts like the command's own. Whoever sent it sees only that the run ended.
func (s *supervisor) counted(err error) error {
	var code int
	switch e := err.(type) {
	case *Exited:
		if s.machine.ownCode() { // --on-change exit names its own code
			return err
		}
		code = e.Code
	case *Killed:
		code = 128 + int(e.Signal)
	default:
		return err
	}
	to, ok := s.Supervision.OKExit[code]
	if !ok {
		return err
	}
	s.Log.Info("the end of the command counts as another, as --ok-exit asks", "code", code, "as", to)
	return &Exited{Code: to}
}
