// Package statusserver is the HTTP server of --status: whether vaultexec is alive, whether its command is ready, what it is
// doing and what it has counted. It answers from a Snapshot that the launcher publishes, and knows nothing of how a run works.
//
//	/livez     whether the main loop responds
//	/readyz    whether the command is ready, and its secrets were looked at recently
//	/status    the snapshot, as JSON
//	/metrics   the same for Prometheus
//	/refresh   POST, over a unix socket: look at the secrets now
//
// A Snapshot has no secrets: only names, versions, times and texts that are in the log, too.
package statusserver

import (
	"encoding/json"
	"time"
)

// Form is the version of the format of /status. It changes when a key is removed, or gets another meaning.
const Form = 1

// Snapshot is the state of a run at one moment. It is never changed after it was published.
type Snapshot struct {
	Form    int      `json:"version"`
	Program string   `json:"vaultexec"` // its version
	PID     int      `json:"pid"`
	Phase   Phase    `json:"phase"`
	Command Command  `json:"command"`
	Next    *Next    `json:"next"` // the new command of a handover that is not ready yet
	Change  *Change  `json:"change"`
	Refused []string `json:"refused"`  // why what is new in Vault is not used
	Copy    *Copy    `json:"fallback"` // the last-good copy, while the command has what is in it
	Paths   []Path   `json:"paths"`
	Token   *Token   `json:"token"`
	Leases  []Lease  `json:"leases"`
	Files   []File   `json:"files"`

	Watches bool   `json:"-"` // somebody looks at the paths
	Counts  Counts `json:"-"` // for /metrics
}

// Phase is where a run stands.
type Phase string

// The phases.
const (
	Starting   Phase = "starting"   // there is no command yet
	Running    Phase = "running"    // a command runs
	Restarting Phase = "restarting" // one command is ending, and another follows
	Ending     Phase = "ending"     // nothing follows the command
)

// Command is the one that serves.
type Command struct {
	Name      string `json:"name"`
	PID       int    `json:"pid"` // 0 while there is none
	Started   Time   `json:"started"`
	Ready     bool   `json:"ready"`
	NotReady  string `json:"not_ready"` // why it is not; "" when it is
	Restarts  int    `json:"restarts"`
	Rollbacks int    `json:"rollbacks"`
	LastExit  *Exit  `json:"last_exit"`
}

// Exit is the end of a command.
type Exit struct {
	At     Time   `json:"time"`
	Status string `json:"status"` // "exit code 1", "killed by SIGTERM"
}

// Next is the new command of a handover, which does not serve yet.
type Next struct {
	PID     int  `json:"pid"`
	Started Time `json:"started"`
}

// Change is what is under way.
type Change struct {
	State string `json:"state"` // one of States
	Text  string `json:"text"`  // what changes, or what is done
	Since Time   `json:"since"`
	Until Time   `json:"until"` // when this step ends at the latest; zero if that is not known
}

// States are those of a change.
var States = []string{"settling", "waiting", "queueing", "reading", "hook", "draining", "stopping", "starting", "handover", "postponed"}

// Copy is the last-good copy that a command was started with.
type Copy struct {
	Written Time `json:"written"`
}

// Path is a secret.
type Path struct {
	Path        string   `json:"path"`
	Version     int      `json:"version"`        // that the command has; 0 for a secret without versions
	Newest      int      `json:"newest_version"` // that Vault had at the last look
	State       string   `json:"state"`          // of the newest: "", "absent", "deleted" or "destroyed"
	Created     Time     `json:"created_time"`   // of the version that the command has
	Watched     bool     `json:"watched"`
	LastLook    Time     `json:"last_look"` // that Vault answered
	LastFailure *Failure `json:"last_failure"`
	Failing     bool     `json:"failing"` // the last failure is not over
}

// Failure is the last thing that went wrong.
type Failure struct {
	At   Time   `json:"time"`
	Kind string `json:"kind"` // one of Kinds
	Text string `json:"text"`
}

// Token is the token that vaultexec uses.
type Token struct {
	Method      string   `json:"method"`
	Ends        Time     `json:"ends"` // unless it is renewed; zero for one that never expires
	Renewals    int      `json:"renewals"`
	LastFailure *Failure `json:"last_failure"`
	Failing     bool     `json:"failing"`
}

// Lease is a secret that expires by itself.
type Lease struct {
	Path string `json:"path"`
	Ends Time   `json:"ends"` // unless it is renewed
}

// File is one that vaultexec has written for the command.
type File struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// Time is a time of the wall clock, in UTC and cut to milliseconds. The zero time is null.
type Time struct{ time.Time }

// At makes one.
func At(t time.Time) Time {
	if t.IsZero() {
		return Time{}
	}
	return Time{t.Round(0).UTC().Truncate(time.Millisecond)}
}

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(t.Format(time.RFC3339Nano))
}

// JSON is what /status answers.
func (s *Snapshot) JSON() []byte {
	full := *s // an empty list is [], not null
	full.Form = Form
	full.Refused, full.Paths = orEmpty(s.Refused), orEmpty(s.Paths)
	full.Leases, full.Files = orEmpty(s.Leases), orEmpty(s.Files)
	b, err := json.Marshal(full)
	if err != nil { // cannot happen: it has only texts, numbers and times
		return []byte("{}\n")
	}
	return append(b, '\n')
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// OldestLook is the watched path whose last look is the longest ago; ok is false if there is none. A path that Vault has
// never answered for is no secret of the command: it is new in its folder, and refused.
func (s *Snapshot) OldestLook() (oldest Path, ok bool) {
	for _, p := range s.Paths {
		if p.Watched && !p.LastLook.IsZero() && (!ok || p.LastLook.Before(oldest.LastLook.Time)) {
			oldest, ok = p, true
		}
	}
	return oldest, ok
}

// RunningSince are the words for a command that runs, in systemd's status line and in vaultexec ps.
func RunningSince(t time.Time) string { return "running since " + t.Local().Format(time.DateTime) }
