package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// So many watchers have one Vault.
const (
	watchers      = 1000
	scaleInterval = 30 * time.Second
	pathsEach     = 4
	scaleWindow   = 2 * scaleInterval
)

// scale has real vaultexec processes look at one real Vault whose audit log is on, from which the requests are counted.
func scale(s *stage) section {
	sec := section{Name: "scale",
		Title: fmt.Sprintf("Scale: %d vaultexec with %d paths at %v and one Vault, over %v",
			watchers, pathsEach, scaleInterval, scaleWindow)}
	srv, err := vaulttest.StartDev()
	s.must(err)
	st := s.fill(srv)
	audit := filepath.Join(s.dir, "audit.log")
	srv.Must(s, "PUT", "sys/audit/file", map[string]any{
		"type": "file", "options": map[string]string{"file_path": audit}})
	args := append([]string{s.vaultexec, "--watch", "--interval", scaleInterval.String(), "--log-level", "error"},
		append(paths(pathsEach), "--", s.child, "wait")...)
	idle := s.vaultCPU(srv.PID(), 5*time.Second)
	all := make([]*running, watchers)
	for i := range all { // one after the other, as an orchestrator starts them
		all[i] = s.startTied(st.env(), args...)
		_, err := all[i].report()
		s.must(err)
	}
	time.Sleep(scaleInterval * 11 / 10) // everybody has looked, at a pace of its own
	before := s.ownCPU(all)
	begin, size := time.Now(), fileSize(s, audit)
	cpu := s.vaultCPU(srv.PID(), scaleWindow)
	end := time.Now()
	bytes := float64(fileSize(s, audit) - size)
	own, anon := s.ownCPU(all)-before, 0.0
	for _, p := range all {
		anon += s.status(p.cmd.Process.Pid, "RssAnon") / 1024
	}
	for _, p := range all {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range all {
		_, _ = p.wait()
	}
	perSecond, lines := s.audited(audit, begin, end)
	requests, most, squares := 0.0, 0.0, 0.0
	for _, n := range perSecond {
		requests += n
		most = max(most, n)
	}
	mean := requests / float64(len(perSecond))
	for _, n := range perSecond {
		squares += (n - mean) * (n - mean)
	}
	took := end.Sub(begin).Seconds()
	sec.add(
		single("requests", "requests a second", "/s", requests/took),
		single("per-path", "requests for each path and interval", "",
			requests/took*scaleInterval.Seconds()/watchers/pathsEach).limit(1.05),
		single("cpu-request", "Vault's CPU a request, audit log on", "ms", (cpu-idle)*1000/(requests/took)),
		single("cpu", "Vault's CPU at this load", "cores", cpu),
		single("own-cpu", "CPU of all the watchers together", "cores", own/took),
		single("own-anon", "anonymous memory of a watcher, the mean", "MiB", anon/watchers),
		single("lines-request", "audit lines a request", "", lines/requests),
		single("bytes-request", "audit bytes a request", "B", bytes/requests),
		single("peak", "busiest second against the mean", "×", most/mean),
		single("dispersion", "variance of the seconds against their mean (looks at random: 4)", "",
			squares/float64(len(perSecond)-1)/mean),
	)
	sec.Notes = append(sec.Notes, "Vault is the one of the tests, with storage in memory; the log is a file.")
	return sec
}

// ownCPU is what all of them have used so far, in seconds.
func (s *stage) ownCPU(all []*running) (seconds float64) {
	for _, p := range all {
		seconds += s.usage(p.cmd.Process.Pid).cpu.Seconds()
	}
	return seconds
}

// vaultCPU is how many cores a process keeps busy for a while.
func (s *stage) vaultCPU(pid int, during time.Duration) float64 {
	was := s.usage(pid)
	time.Sleep(during)
	is := s.usage(pid)
	return (is.cpu - was.cpu).Seconds() / is.at.Sub(was.at).Seconds()
}

func fileSize(s *stage, path string) int64 {
	info, err := os.Stat(path)
	s.must(err)
	return info.Size()
}

// audited counts the requests of each second, and all lines, between two moments.
func (s *stage) audited(file string, begin, end time.Time) (perSecond []float64, lines float64) {
	f, err := os.Open(file)
	s.must(err)
	defer f.Close()
	perSecond = make([]float64, int(end.Sub(begin).Seconds()))
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var l struct {
			Time time.Time `json:"time"`
			Type string    `json:"type"`
		}
		if json.Unmarshal(in.Bytes(), &l) != nil || l.Time.Before(begin) || l.Time.After(end) {
			continue
		}
		lines++
		if i := int(l.Time.Sub(begin).Seconds()); l.Type == "request" && i < len(perSecond) {
			perSecond[i]++
		}
	}
	s.must(in.Err())
	return perSecond, lines
}

// costs is the table of docs/scale.md.
func (r *report) costs() string {
	figure := func(key string) float64 {
		f, _ := r.find("scale", key)
		return f.Median
	}
	var b strings.Builder
	fmt.Fprintf(&b,
		"Measured %s on %s: %s ms of Vault's CPU and %s audit lines of %s bytes together for each request.\n\n",
		r.Date, r.Machine, number(figure("cpu-request")), number(figure("lines-request")),
		number(figure("bytes-request")))
	b.WriteString(
		"| instances × paths | interval | requests/s | Vault's CPU, cores | audit lines a day | audit log a day |\n|---|---|---|---|---|---|\n")
	for _, n := range []float64{1000, 10000, 100000} {
		for _, interval := range []float64{30, 60, 300} {
			perSecond := n * pathsEach / interval
			day := perSecond * 86400
			fmt.Fprintf(&b, "| %s × %d | %.0f s | %s | %s | %s | %s |\n", grouped(n), pathsEach, interval,
				grouped(perSecond), number(perSecond*figure("cpu-request")/1000),
				millions(day*figure("lines-request")), gigabytes(day*figure("bytes-request")))
		}
	}
	return b.String()
}

// grouped writes 10,000 and keeps a digit of small numbers.
func grouped(v float64) string {
	if v < 100 {
		return number(v)
	}
	s := strconv.FormatInt(int64(v+.5), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func millions(v float64) string  { return number(v/1e6) + " million" }
func gigabytes(v float64) string { return number(v/1e9) + " GB" }
