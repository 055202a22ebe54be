package launcher

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/serving"
)

// ReadyBy is the way in which a command is known to be ready.
type ReadyBy uint8

// The ways of --ready.
const (
	ReadyAuto   ReadyBy = iota // what it says and what is seen of it
	ReadyNotify                // READY=1 (sd_notify(3))
	ReadyHTTP                  // an answer to a request
	ReadyTCP                   // it accepts a connection
	ReadyAfter                 // time has passed
	ReadyExec                  // a program says so
)

// Ready is --ready: when a command counts as ready. warming waits for it.
type Ready struct {
	By      ReadyBy
	Path    string        // of ReadyHTTP
	After   time.Duration // of ReadyAfter
	Program string        // of ReadyExec

	Given   bool          // by --ready, and not by default: systemd is told READY=1 when the first command is ready
	Timeout time.Duration // --ready-timeout
	Address *listen.Spec  // --ready-address, where ReadyHTTP and ReadyTCP ask; nil for the sockets of --listen
}

const readyForms = "auto, notify, http:/PATH, tcp, after:DURATION or exec:PROGRAM"

// ParseReady reads a value of --ready.
func ParseReady(text string) (Ready, error) {
	bad := func(why, hint string) (Ready, error) {
		return Ready{}, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q", text), Why: why, Hint: hint}
	}
	word, rest, more := strings.Cut(text, ":")
	simple := map[string]ReadyBy{"auto": ReadyAuto, "notify": ReadyNotify, "tcp": ReadyTCP}
	by, isSimple := simple[word]
	switch {
	case isSimple && !more:
		return Ready{By: by}, nil
	case word == "http" && strings.HasPrefix(rest, "/"):
		if strings.ContainsFunc(rest, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			return bad("an HTTP path is ASCII without spaces", "write other characters as %20 and the like")
		}
		return Ready{By: ReadyHTTP, Path: rest}, nil
	case word == "http":
		return bad("it needs a path, which begins with /", "write it as http:/healthz; --ready-address names another address")
	case word == "after":
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return bad("not a duration", "write it as after:5s")
		}
		return Ready{By: ReadyAfter, After: d}, nil
	case word == "exec" && rest != "":
		return Ready{By: ReadyExec, Program: rest}, nil
	}
	return bad("not a readiness check", "write "+readyForms)
}

// ParseReadyAddress reads --ready-address.
func ParseReadyAddress(text string) (*listen.Spec, error) {
	spec, err := listen.Parse(text)
	why := ""
	switch {
	case err != nil:
		why = fault.Of(err).Why
	case spec.Name != "" || spec.Mode != 0:
		why = "it takes neither a name nor a mode"
	default:
		return &spec, nil
	}
	return nil, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q", text), Why: why,
		Hint: "write it as 127.0.0.1:9000 or unix:/run/app/ready.sock"}
}

// Asks reports whether it takes an address.
func (r Ready) Asks() bool { return r.By == ReadyHTTP || r.By == ReadyTCP }

// hears reports whether a command's own READY=1 counts.
func (r Ready) hears() bool { return r.By == ReadyAuto || r.By == ReadyNotify }

// accepts reports whether a status of HTTP is that of a command which is ready. A path that somebody named has to be
// there. Where nobody did, any answer will do: one that does not exist, or that needs a login, is served all the same.
func (r Ready) accepts(status int) bool {
	if r.By == ReadyHTTP {
		return status >= 200 && status < 400
	}
	return status >= 200 && status < 500
}

// seen is what is known of one address of a command that is waited for.
type seen struct {
	name string
	serving.Signs
	never  bool   // what its processes wait for can never be seen
	blind  bool   // it cannot be seen now: a process is another user's, or undumpable
	probed bool   // a connection reaches this command alone
	last   string // what came of the last probe
}

func (s seen) hidden() bool { return s.never || s.blind }

// evidence is all that is known of a command that is waited for.
type evidence struct {
	sockets []seen
	says    bool   // READY=1
	told    bool   // it has a NOTIFY_SOCKET of vaultexec's
	over    bool   // the time of ReadyAfter
	ran     bool   // the program of ReadyExec has ended with 0
	last    string // what came of that program
}

// isReady decides.
//
// READY=1 alone is not enough where there are sockets: gunicorn's master says it before a worker has loaded the
// application. It is enough for a socket of which nothing else could be known.
func (r Ready) isReady(e evidence) bool {
	switch r.By {
	case ReadyNotify:
		return e.says
	case ReadyAfter:
		return e.over
	case ReadyExec:
		return e.ran
	case ReadyHTTP:
		return len(e.sockets) > 0 && !slices.ContainsFunc(e.sockets, func(s seen) bool { return !s.Answered })
	case ReadyTCP:
		return len(e.sockets) > 0 && !slices.ContainsFunc(e.sockets, func(s seen) bool { return !s.Accepted })
	}
	if len(e.sockets) == 0 {
		return e.says
	}
	return !slices.ContainsFunc(e.sockets, func(s seen) bool {
		return !s.Serves() && (!e.says || !s.hidden() || s.probed)
	})
}

const readyElse = "--ready after:10s waits for that long instead, and --ready exec:PROGRAM asks a program"

// hopeless says why it will never be known whether the command is ready; nil where it may be.
func (r Ready) hopeless(e evidence) error {
	why, hint := "", readyElse
	switch {
	case r.By == ReadyNotify && !e.told:
		why = "vaultexec cannot hear it: this system does not identify the sender of a message, or --pass-notify lets the command speak to systemd"
	case r.Asks() && len(e.sockets) == 0:
		why = "there is no socket to connect to"
		hint = "--ready-address names an address that only the new command has; or " + readyElse
	case r.Asks():
		if i := slices.IndexFunc(e.sockets, func(s seen) bool { return !s.probed }); i >= 0 {
			why = "both commands share the socket of " + e.sockets[i].name + ", and the old one may answer"
			hint = "--ready-address names an address that only the new command has; or " + readyElse
		}
	case r.By == ReadyAuto && !e.told:
		i := slices.IndexFunc(e.sockets, func(s seen) bool { return s.never && !s.probed && !s.Serves() })
		switch {
		case len(e.sockets) == 0:
			why = "there is no socket to judge by, and vaultexec cannot hear its READY=1"
		case i >= 0:
			why = "what its processes wait for cannot be seen, and both commands share the socket of " + e.sockets[i].name
		}
	}
	if why == "" {
		return nil
	}
	return &fault.Error{Kind: fault.Usage, What: "cannot tell whether the command is ready", Why: why, Hint: hint}
}

// late is the failure of a command that is not ready in time. It says what is missing.
func (r Ready) late(e evidence, after time.Duration) error {
	why, hint := r.lacks(e)
	return &fault.Error{Kind: fault.Usage, What: "the command is not ready after " + duration(after), Why: why, Hint: hint}
}

func (r Ready) lacks(e evidence) (why, hint string) {
	more := "--ready-timeout gives it more time"
	switch r.By {
	case ReadyNotify:
		return "no READY=1 came from a process of its group", more
	case ReadyAfter:
		return "the time is longer than --ready-timeout", more
	case ReadyExec:
		if e.last == "" {
			return r.Program + " has not ended yet", more
		}
		return r.Program + ": " + e.last, more
	case ReadyAuto:
		if len(e.sockets) == 0 {
			return "no READY=1 came from it, and there is no socket to judge by", readyElse
		}
	}
	for _, s := range e.sockets {
		switch {
		case r.By == ReadyHTTP && !s.Answered:
			return fmt.Sprintf("GET %s at %s: %s", r.Path, s.name, orElse(s.last, "no answer")), more
		case r.By == ReadyTCP && !s.Accepted:
			return fmt.Sprintf("a connection to %s: %s", s.name, orElse(s.last, "nobody accepts it")), more
		case r.By != ReadyAuto || s.Serves():
		case s.hidden() && !s.probed:
			return "no READY=1 came from it, and what its processes wait for cannot be seen", readyElse
		case s.last != "":
			return fmt.Sprintf("none of its processes waits for connections at %s, and a request there: %s", s.name, s.last), more
		default:
			return "none of its processes waits for connections at " + s.name,
				more + "; the command has to take the socket (see help listening)"
		}
	}
	return "nothing is known of it", more
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
