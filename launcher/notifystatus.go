package launcher

import (
	"slices"
	"strings"
	"time"
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
	text := "running since " + since.Format(time.DateTime)
	if len(list) > 0 {
		text += " with " + strings.Join(list, ", ")
	}
	return text
}

// tellStatus tells systemd what runs. During a start it is what was started.
func (s *supervisor) tellStatus() { s.notify.runs(statusLine(s.starting().states, s.forkedAt)) }
