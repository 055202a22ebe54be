package launcher

import (
	"fmt"
	"os"
	"strings"
)

// inner says that this is vaultexec behind the terminal that it made for the command (relay_linux.go), and what it got
// from the one in front: the terminal's two ends, and which of the standard descriptors lead to the terminal in front.
type inner struct {
	master, slave int
	terminals     int // bits 0 to 2
	relay         int // process ID of the one in front
}

// innerName is argv[0] of that vaultexec; the numbers follow.
const innerName = "vaultexec: behind a terminal of its own"

// parseInner returns nil for a vaultexec that somebody else started.
func parseInner(argv0 string) *inner {
	rest, ok := strings.CutPrefix(argv0, innerName+" ")
	if !ok {
		return nil
	}
	in := &inner{}
	if n, err := fmt.Sscan(rest, &in.relay, &in.master, &in.slave, &in.terminals); n != 4 || err != nil {
		return nil
	}
	return in
}

// IsInner reports whether this is vaultexec behind the terminal of --mask.
func IsInner(args []string) bool { return len(args) > 0 && parseInner(args[0]) != nil }

func (in *inner) name() string {
	return fmt.Sprintf("%s %d %d %d %d", innerName, in.relay, in.master, in.slave, in.terminals)
}

// ours reports whether a standard descriptor leads to the terminal in front.
func (in *inner) ours(fd int) bool { return in.terminals&(1<<fd) != 0 }

// left reports whether the one in front is gone.
func (in *inner) left() bool { return in != nil && os.Getppid() != in.relay }
