// Package notify is the receiving side of sd_notify(3): what a command tells its supervisor. A command under vaultexec
// must not talk to systemd itself, which knows one main process (launcher/notify.go), but may well say when it is ready.
//
// The socket has no permissions, and any process of the network namespace may write to it. So a message counts only if
// the kernel says that it comes from a process that the caller knows. What a message may hold is bounded, and
// descriptors that nobody wants are closed at once.
package notify

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Message is what a process has said at once. Close it when everything has been done that it and all before it ask for.
type Message struct {
	PID int // who said it

	Ready     bool          // READY=1
	Reloading bool          // RELOADING=1
	Stopping  bool          // STOPPING=1
	Watchdog  bool          // WATCHDOG=1, a sign of life
	Trigger   bool          // WATCHDOG=trigger, the opposite
	Status    string        // STATUS=, without control characters. It may hold a secret, like all that a command prints.
	Extend    time.Duration // EXTEND_TIMEOUT_USEC=; 0 without

	Store  bool   // FDSTORE=1: keep the descriptors of Files
	Remove bool   // FDSTOREREMOVE=1: no longer keep those of that name
	Name   string // FDNAME=, for both
	NoPoll bool   // FDPOLL=0: keep them even when the other end is gone

	Barrier bool // BARRIER=1: Close is the answer that somebody waits for

	files []int
}

const (
	maxMessage = 4096 // as systemd has it (PIPE_BUF)
	maxStatus  = 512
	maxExtend  = 24 * time.Hour
	maxFiles   = 253 // SCM_MAX_FD of the kernel
	storedName = "stored"
)

// parse reads a message. Whatever is not known is left out: MAINPID= above all, since the main process is vaultexec's to
// choose. ok is false for what is no message.
func parse(b []byte) (m Message, ok bool) {
	b = bytes.TrimRight(b, "\x00") // some senders count the end of a string of C
	if len(b) == 0 || len(b) > maxMessage || bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b) {
		return Message{}, false
	}
	m.Name = storedName
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	for _, line := range lines {
		name, value, is := strings.Cut(line, "=")
		if !is {
			continue
		}
		yes := value == "1"
		switch name {
		case "READY":
			m.Ready = m.Ready || yes
		case "RELOADING":
			m.Reloading = m.Reloading || yes
		case "STOPPING":
			m.Stopping = m.Stopping || yes
		case "WATCHDOG":
			m.Watchdog = m.Watchdog || yes
			m.Trigger = m.Trigger || value == "trigger"
		case "STATUS":
			m.Status = clean(value)
		case "EXTEND_TIMEOUT_USEC":
			if n, err := strconv.ParseUint(value, 10, 64); err == nil {
				m.Extend = time.Duration(min(n, uint64(maxExtend/time.Microsecond))) * time.Microsecond
			}
		case "FDSTORE":
			m.Store = m.Store || yes
		case "FDSTOREREMOVE":
			m.Remove = m.Remove || yes
		case "FDNAME":
			if isName(value) {
				m.Name = value
			}
		case "FDPOLL":
			m.NoPoll = value == "0"
		case "BARRIER":
			m.Barrier = yes && len(lines) == 1 // sd_notify(3): it has to be alone
		}
	}
	return m, true
}

// clean makes a status short and printable.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxStatus {
		s = strings.ToValidUTF8(s[:maxStatus], "")
	}
	return strings.TrimSpace(s)
}

// isName is fdname_is_valid of systemd.
func isName(s string) bool {
	return s != "" && len(s) <= 255 &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' })
}

// admit closes the descriptors that the message has no use for.
func (m *Message) admit(files []int) {
	switch {
	case m.Store && !m.Remove && !m.Barrier, m.Barrier && len(files) == 1:
		m.files = files
	default:
		closeAll(files)
		m.Barrier = false // nobody can be answered
	}
	if len(m.files) == 0 {
		m.Store = false
	}
}

// Files hands over the descriptors of FDSTORE=1, which are close-on-exec. They are the caller's from then on.
func (m *Message) Files() []int {
	if !m.Store {
		return nil
	}
	files := slices.Clone(m.files)
	m.files = nil
	return files
}

// Close closes the descriptors that nobody has taken. For a barrier that is the answer.
func (m *Message) Close() {
	closeAll(m.files)
	m.files = nil
}

func closeAll(files []int) {
	for _, fd := range files {
		unix.Close(fd)
	}
}
