package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// watchWindow is how long processes are looked at. The Go runtime has one burst of its own in a minute.
const watchWindow = 30 * time.Second

// supervised is one vaultexec that stays beside its command.
type supervised struct {
	key, what string
	env       []string
	args      []string
	polls     bool
	rss, anon float64 // bars in MiB

	proc *running
	was  usage
}

// usage is what a process has used, by /proc.
type usage struct {
	at       time.Time
	cpu      time.Duration // by the scheduler's own clock
	switches int           // of all threads, given up by themselves: each is a wake-up
}

func supervise(s *stage) section {
	sec := section{Name: "supervise",
		Title: fmt.Sprintf("Supervise: what stays beside the command, over %v", watchWindow)}
	watch := func(st *site) []string {
		return append([]string{s.vaultexec, "--watch", "--interval", "1s", "--log-level", "error"},
			append(paths(4), "--", s.child, "wait")...)
	}
	all := []*supervised{
		{key: "idle", what: "idle, HTTP", env: s.plain.env(),
			args: append(append([]string{s.vaultexec, "--supervise"}, paths(4)...), "--", s.child, "wait"),
			rss:  12, anon: 4},
		{key: "poll-http", what: "4 paths at 1 s, HTTP", env: s.plain.env(), args: watch(s.plain),
			polls: true, rss: 12, anon: 4},
		{key: "poll-tls", what: "4 paths at 1 s, TLS with its own CA", env: s.tls.env(), args: watch(s.tls),
			polls: true, rss: 12, anon: 4},
	}
	if bundle := s.systemBundle(); bundle != "" {
		env := append(replaceEnv(s.tls.env(), "VAULT_CACERT", ""), "SSL_CERT_FILE="+bundle)
		all = append(all, &supervised{key: "poll-bundle", what: "4 paths at 1 s, TLS with the system's CA bundle",
			env: env, args: watch(s.tls), polls: true, rss: 14, anon: 5})
	}
	for _, p := range all {
		p.proc = s.startTied(p.env, p.args...)
		if _, err := p.proc.report(); err != nil {
			s.Fatalf("%v", err)
		}
	}
	time.Sleep(5 * time.Second) // the collector gives memory back, the first looks are over
	for _, p := range all {
		p.was = s.usage(p.proc.cmd.Process.Pid)
	}
	time.Sleep(watchWindow)
	for _, p := range all {
		pid := p.proc.cmd.Process.Pid
		is := s.usage(pid)
		took := is.at.Sub(p.was.at).Seconds()
		cpu, switches := ms(int64(is.cpu-p.was.cpu)), float64(is.switches-p.was.switches)
		sec.add(
			single(p.key+"-rss", p.what+": resident", "MiB", s.status(pid, "VmRSS")/1024).limit(p.rss),
			single(p.key+"-anon", p.what+": anonymous", "MiB", s.status(pid, "RssAnon")/1024).limit(p.anon),
			single(p.key+"-threads", p.what+": threads", "", s.status(pid, "Threads")).limit(8),
		)
		if p.polls {
			sec.add(
				single(p.key+"-cpu", p.what+": CPU a round of looks", "ms", cpu/took),
				single(p.key+"-cpu-path", p.what+": CPU a look", "ms", cpu/took/4).limit(1),
				single(p.key+"-wakeups", p.what+": wake-ups a round of looks", "", switches/took),
			)
		} else {
			sec.add(
				single(p.key+"-cpu", p.what+": CPU a minute", "ms", cpu*60/took),
				single(p.key+"-wakeups", p.what+": wake-ups a minute", "", switches*60/took),
			)
		}
		p.proc.stop()
	}
	sec.Absent = s.latencies(&sec)
	sec.Notes = append(sec.Notes,
		"A wake-up is a voluntary context switch of any thread; when idle only the Go runtime has one burst a minute.")
	return sec
}

// latencies measures how long a signal takes from kill(2) at the launcher to the command's sigwait(3).
func (s *stage) latencies(sec *section) (absent []string) {
	const signals = 1000
	type contestant struct {
		name string
		args []string
	}
	all := []contestant{{"the command itself", []string{s.child, "wait"}},
		{"vaultexec", []string{s.vaultexec, "--supervise", "--", s.child, "wait"}}}
	for _, name := range []string{"tini", "dumb-init"} {
		path, err := exec.LookPath(name)
		if err != nil {
			absent = append(absent, name)
			continue
		}
		all = append(all, contestant{name, []string{path, "--", s.child, "wait"}})
	}
	procs := make([]*running, len(all))
	took := make([][]float64, len(all))
	for i, c := range all {
		procs[i] = s.startTied(s.plain.env(), c.args...)
		if _, err := procs[i].report(); err != nil {
			s.Fatalf("%v", err)
		}
	}
	for range signals {
		for i, p := range procs {
			at := now()
			s.must(p.cmd.Process.Signal(syscall.SIGUSR1))
			got, err := p.report()
			s.must(err)
			took[i] = append(took[i], float64(got-at)/1000)
		}
	}
	for i, c := range all {
		sec.add(sampled("signal-"+c.name, "SIGUSR1 by way of "+c.name, "µs", took[i]))
		procs[i].stop()
	}
	return absent
}

// systemBundle returns a copy of the system's CA bundle with the bench's CA in it, "" where the system has none.
func (s *stage) systemBundle() string {
	own, err := os.ReadFile(s.tls.srv.CACert)
	s.must(err)
	for _, file := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem"} {
		if system, err := os.ReadFile(file); err == nil {
			bundle := filepath.Join(s.dir, "bundle.pem")
			s.must(os.WriteFile(bundle, append(append(system, '\n'), own...), 0o600))
			return bundle
		}
	}
	return ""
}

// usage reads what a process has used so far.
func (s *stage) usage(pid int) usage {
	u := usage{at: time.Now()}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	s.must(err)
	for _, t := range tasks {
		sched, _ := os.ReadFile(t + "/schedstat")
		if f := strings.Fields(string(sched)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			u.cpu += time.Duration(ns)
		}
		status, _ := os.ReadFile(t + "/status")
		for line := range strings.SplitSeq(string(status), "\n") {
			if rest, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(rest))
				u.switches += n
			}
		}
	}
	return u
}

// status reads a number of /proc/PID/status.
func (s *stage) status(pid int, field string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	s.must(err)
	for line := range strings.SplitSeq(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n
		}
	}
	s.Fatalf("no %s of process %d", field, pid)
	return 0
}
