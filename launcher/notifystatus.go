package launcher

import (
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/statusserver"
)

// statusLine is what systemctl status shows of a run: which versions the command has, and since when.
func statusLine(has states, since time.Time) string {
	var list []string
	for p, m := range has {
		text := p.String()
		if m.Version != 0 || m.Absent {
			text += " " + m.String()
		}
		list = append(list, text)
	}
	slices.Sort(list)
	text := statusserver.RunningSince(since)
	if len(list) > 0 {
		text += " with " + strings.Join(list, ", ")
	}
	return text
}

// tellStatus tells systemd what runs. During a start it is what was started.
func (s *supervisor) tellStatus() { s.notify.runs(statusLine(s.starting().states, s.forkedAt)) }

// tellFirst tells systemd what the first command has, when that is known and the command is ready.
func (s *supervisor) tellFirst() { s.notify.runsFirst(statusLine(s.starting().states, s.forkedAt)) }
