package launcher

import (
	"slices"
	"strings"
	"time"
)

// statusLine is what systemctl status shows of a run: which versions the command has, and since when.
func (s *supervisor) statusLine() string {
	var list []string
	for p, m := range s.runs.states {
		text := p.String()
		if m.Version != 0 || m.Absent {
			text += " " + m.String()
		}
		list = append(list, text)
	}
	slices.Sort(list)
	text := "running since " + s.forkedAt.Format(time.DateTime)
	if len(list) > 0 {
		text += " with " + strings.Join(list, ", ")
	}
	return text
}

// tellStatus tells systemd what runs. During a start it is what was started.
func (s *supervisor) tellStatus() {
	was := s.runs
	s.runs = s.starting()
	s.notify.runs(s.statusLine())
	s.runs = was
}
