package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// overlaps counts the replacements during which the database had both roles: that of the old command and that of the new one,
// after the new one had started.
func overlaps(samples []sample, starts []started) (n int) {
	for i := 1; i < len(starts); i++ {
		for _, s := range samples {
			if s.at.After(starts[i].at()) && fmt.Sprint(s.roles) == fmt.Sprint([]string{starts[i-1].a, starts[i].a}) {
				n++
				break
			}
		}
	}
	return n
}

// TestOverlaps: the check sees what it is for.
func TestOverlaps(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	starts := []started{{a: "a", c: begin.Format(time.RFC3339Nano)}, {a: "b", c: begin.Add(10 * time.Second).Format(time.RFC3339Nano)}}
	for _, c := range []struct {
		at    int
		roles string
		want  int
	}{{11, "a b", 1}, {9, "a b", 0}, {11, "b", 0}, {11, "a", 0}, {11, "x b", 0}, {11, "a b c", 0}} {
		if got := overlaps([]sample{{begin.Add(time.Duration(c.at) * time.Second), strings.Fields(c.roles)}}, starts); got != c.want {
			t.Errorf("roles %q at %d: %d", c.roles, c.at, got)
		}
	}
}

// unserved looks into a record for a command that had ended before the next one had an answer. It returns what was wrong, or "".
func unserved(record string, starts []started) string {
	lines := strings.Split(record, "\n")
	for i := 1; i < len(starts); i++ {
		ended := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, fmt.Sprintf("end %d|", starts[i-1].pid)) })
		answered := slices.IndexFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, "asked ") && strings.HasSuffix(l, "|"+starts[i].a)
		})
		if ended < 0 || answered < 0 || ended < answered {
			return fmt.Sprintf("command %d ended in line %d of the record, and the next had its first answer in line %d", i, ended+1, answered+1)
		}
	}
	return ""
}

// TestUnserved: the check sees what it is for.
func TestUnserved(t *testing.T) {
	t.Parallel()
	starts := []started{{pid: 1, a: "a"}, {pid: 2, a: "b"}}
	for record, bad := range map[string]bool{
		"start 1|a||\nasked x|a\nstart 2|b||\nasked x|b\nend 1|a|20|0": false,
		"start 1|a||\nasked x|a\nstart 2|b||\nend 1|a|20|0\nasked x|b": true,
		"start 1|a||\nasked x|a\nstart 2|b||\nasked x|b":               true,
		"start 1|a||\nend 1|a|20|0\nstart 2|b||\nasked x|a":            true,
	} {
		if got := unserved(record, starts); (got != "") != bad {
			t.Errorf("%q: %q", record, got)
		}
	}
}

// TestPostgresHandover: the command with new credentials is started beside the one with the old ones, which goes when the new
// one has had an answer. No question fails, at any moment one of the two asks, there is no role but theirs, and none at the
// end. With VAULTEXEC_TEST_SOAK=1 it takes ten minutes.
func TestPostgresHandover(t *testing.T) {
	t.Parallel()
	ttl, most, length, want := 8*time.Second, 24*time.Second, 80*time.Second, 3
	if soak {
		ttl, most, length, want = 20*time.Second, 60*time.Second, 10*time.Minute, 9
	}
	l := newLeased(t, inMemory, false, ttl, most)
	// Ready is a command that has had an answer: its start tells its user, and the answer names that.
	ready := filepath.Join(l.dir, "ready")
	vaulttest.WriteFile(t, ready, `#!/bin/sh
user=$(sed -n "s/^start $VAULTEXEC_PID|\([^|]*\)|.*/\1/p" `+l.record()+`)
[ -n "$user" ] && grep -q "^asked .*|$user\$" `+l.record()+"\n", 0o700)
	starts, list := l.replaces(length, want, "--restart-order", "start-first", "--ready", "exec:"+ready, "--ready-timeout", "2s")
	if n := overlaps(list, starts); n < len(starts)-1 {
		t.Errorf("in %d of %d replacements both roles lived", n, len(starts)-1)
	}
	if what := unserved(read(t, l.record()), starts); what != "" {
		t.Error(what)
	}
}
