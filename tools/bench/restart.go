package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// How often a rotation is measured, and with which settings: small ones, so that the product's own share shows.
const (
	rotations     = 15
	watchInterval = 500 * time.Millisecond
	watchSettle   = 500 * time.Millisecond
)

// restart measures from the end of the write in Vault to the first connection that the new process answers. vaultexec's
// own log tells the steps: it has seen the change, it stops the old process (the settle time and the read of everything
// lie before that), and the new process tells when it begins.
func restart(s *stage) section {
	sec := section{Name: "restart",
		Title: "Restart: from the write in Vault to the first answer of the new process, --interval 500ms --settle 500ms"}
	port := s.freePort()
	r, w, err := os.Pipe()
	s.must(err)
	args := append([]string{s.vaultexec, "--watch", "--interval", watchInterval.String(),
		"--settle", watchSettle.String(), "--min-uptime", "0", "--probation", "0", "--log-format", "json"},
		append(paths(2), "--", s.child, "serve", strconv.Itoa(port))...)
	p := s.prepare(s.plain.env(), args)
	p.cmd.Stderr = w
	s.must(p.startBy(vaulttest.StartTied))
	s.must(w.Close())
	lines := make(chan logLine, 64)
	go readLog(r, lines)
	_, err = p.report()
	s.must(err)
	old := s.served(port, "")
	steps := map[string][]float64{}
	for i := range rotations {
		time.Sleep(time.Duration(i) * watchInterval / rotations) // any moment between two looks
		s.plain.srv.PutKV(s, "secret", "app-0", map[string]string{"KEY_0_0": vaulttest.Canary("bench")})
		written := time.Now()
		seen := s.line(lines, "secrets changed")
		decided := s.line(lines, "secrets changed, restarting the command")
		begun, err := p.report()
		s.must(err)
		start := time.Now().Add(-time.Duration(now() - begun))
		old = s.served(port, old)
		answered := time.Now()
		read, err := time.ParseDuration(decided.Read)
		s.must(err)
		add := func(step string, d time.Duration) { steps[step] = append(steps[step], ms(int64(d))) }
		add("detect", seen.Time.Sub(written))
		add("settle", decided.Time.Sub(seen.Time)-read)
		add("fetch", read)
		add("stop", start.Sub(decided.Time))
		add("start", answered.Sub(start))
		add("total", answered.Sub(written))
		add("own", answered.Sub(written)-(seen.Time.Sub(written))-watchSettle)
	}
	p.stop()
	for _, step := range []struct{ key, what string }{
		{"detect", "detect: until the next look has seen it"},
		{"settle", "settle: the 500 ms that were asked for"},
		{"fetch", "fetch: read everything anew"},
		{"stop", "stop the old process, start the new one, to its first statement"},
		{"start", "the process's own start, to its first answer"},
		{"total", "all together"},
		{"own", "all but the look's interval and the settle time"},
	} {
		sec.add(sampled(step.key, step.what, "ms", steps[step.key]))
	}
	return sec
}

// logLine is what is needed of a line of the log.
type logLine struct {
	Time time.Time `json:"time"`
	Msg  string    `json:"msg"`
	Read string    `json:"read"`
}

func readLog(r io.Reader, lines chan<- logLine) {
	defer close(lines)
	for in := bufio.NewScanner(r); in.Scan(); {
		var l logLine
		if json.Unmarshal(in.Bytes(), &l) == nil {
			lines <- l
		}
	}
}

// line waits for a line of the log.
func (s *stage) line(lines <-chan logLine, msg string) logLine {
	limit := time.After(time.Minute)
	for {
		select {
		case l, ok := <-lines:
			if !ok {
				s.Fatalf("vaultexec ended before it said %q", msg)
			}
			if l.Msg == msg {
				return l
			}
		case <-limit:
			s.Fatalf("vaultexec did not say %q", msg)
		}
	}
}

// served connects until another process than old answers, and returns its ID.
func (s *stage) served(port int, old string) string {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Microsecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(c)
		_ = c.Close()
		if pid := strings.TrimSpace(string(text)); pid != "" && pid != old {
			return pid
		}
	}
	s.Fatalf("nothing answers")
	return ""
}
