package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/enginetest"
	"github.com/agenticverz/vaultexec/internal/restartlock"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// So many vaultexec processes wait for a place in one restart lock.
const (
	waiters     = 200
	lockPlaces  = 3
	fleetSettle = 70 * time.Second // until each looks at one place each time
	fleetWindow = time.Minute
)

// lockServer is a real engine with a lock in it.
type lockServer struct {
	key, name string
	args, env []string
	spec      string
	account   string
	pids      []int
	requests  func() float64 // that it has answered so far
}

// Name is for tests; a bench has none.
func (s *stage) Name() string { return "bench" }

// Skip and Fatal end the run.
func (s *stage) Skip(args ...any)  { s.Fatalf("%s", fmt.Sprint(args...)) }
func (s *stage) Fatal(args ...any) { s.Fatalf("%s", fmt.Sprint(args...)) }

// fleet has real vaultexec processes wait for a place while all are held, which is what a restart lock costs its engine.
func fleet(s *stage) section {
	sec := section{Name: "fleet",
		Title: fmt.Sprintf("Fleet: %d vaultexec that wait for one of %d places in a restart lock, over %v", waiters, lockPlaces, fleetWindow)}
	for _, open := range []func() *lockServer{s.kubernetesLock, s.consulLock} {
		s.fleetOn(&sec, open())
	}
	return sec
}

func (s *stage) fleetOn(sec *section, l *lockServer) {
	srv, err := vaulttest.StartDev()
	s.must(err)
	st := s.fill(srv)
	var holders []restartlock.Engine
	for i := range lockPlaces {
		spec, err := restartlock.Parse(l.spec)
		s.must(err)
		e, err := restartlock.Open(spec, enginetest.Getenv(l.env), l.account, nil)
		s.must(err)
		_, err = e.Look(context.Background(), i)
		s.must(err)
		if taken, err := e.Take(context.Background(), i); err != nil || !taken {
			s.Fatalf("place %d is not taken: %v", i, err)
		}
		holders = append(holders, e)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for tick := time.NewTicker(4 * time.Second); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
				for i, e := range holders {
					_ = e.Renew(context.Background(), i)
				}
			}
		}
	}()
	args := append([]string{s.vaultexec, "--watch", "--interval", "30s", "--settle", "0", "--min-uptime", "0", "--log-level", "error", "--restart-lock", l.spec,
		"--restart-limit", strconv.Itoa(lockPlaces), "--restart-lock-wait", "0", "--refresh-signal", "HUP"}, l.args...)
	args = append(append(args, paths(1)...), "--", s.child, "wait")
	env := append(st.env(), l.env...)
	all := make([]*running, waiters)
	for i := range all {
		all[i] = s.startTied(env, args...)
		_, err := all[i].report()
		s.must(err)
	}
	idle := s.coresOf(l.pids, 10*time.Second)
	srv.PutKV(s, "secret", "app-0", map[string]string{"KEY_0_0": vaulttest.Canary("bench")})
	for _, p := range all {
		_ = p.cmd.Process.Signal(syscall.SIGHUP)
	}
	time.Sleep(fleetSettle)
	before, begin := l.requests(), time.Now()
	cpu := s.coresOf(l.pids, fleetWindow)
	requests, took := l.requests()-before, time.Since(begin).Seconds()
	anon := 0.0
	for _, p := range all {
		anon += s.status(p.cmd.Process.Pid, "RssAnon") / 1024
	}
	for _, p := range all {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range all {
		_, _ = p.wait()
	}
	holding := 2.0 * lockPlaces / 4 // those of the holders, at the most
	perSecond := requests/took - holding
	sec.add(
		single(l.key+"-requests", l.name+": requests a second", "/s", perSecond),
		single(l.key+"-each", l.name+": from one request of a waiter to the next", "s", waiters/perSecond),
		single(l.key+"-cpu", l.name+": its CPU a request", "ms", (cpu-idle)*1000/perSecond),
		single(l.key+"-anon", l.name+": anonymous memory of a waiter, the mean", "MiB", anon/waiters),
	)
}

// coresOf is how many cores processes keep busy for a while.
func (s *stage) coresOf(pids []int, during time.Duration) (cores float64) {
	was := time.Duration(0)
	for _, pid := range pids {
		was += s.usage(pid).cpu
	}
	begin := time.Now()
	time.Sleep(during)
	is := time.Duration(0)
	for _, pid := range pids {
		is += s.usage(pid).cpu
	}
	return (is - was).Seconds() / time.Since(begin).Seconds()
}

func (s *stage) kubernetesLock() *lockServer {
	k := enginetest.NewKubernetes(s)
	ns := k.Namespace(s)
	k.Leases(s, ns, "api", lockPlaces)
	pod := k.Account(s, ns, enginetest.Rule("api", lockPlaces))
	return &lockServer{key: "kubernetes", name: "API server with etcd", spec: "kubernetes:api", account: pod.Dir, env: pod.Env,
		args: []string{"--service-account", pod.Dir}, pids: k.PIDs(), requests: func() float64 {
			_, b, err := k.Do("GET", "/metrics", nil)
			s.must(err)
			n := 0.0
			for lines := bufio.NewScanner(strings.NewReader(string(b))); lines.Scan(); {
				line := lines.Text()
				if strings.HasPrefix(line, "apiserver_request_total{") && strings.Contains(line, `resource="leases"`) {
					v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
					s.must(err)
					n += v
				}
			}
			return n
		}}
}

func (s *stage) consulLock() *lockServer {
	c := enginetest.NewConsul(s)
	name := c.Name()
	l := &lockServer{key: "consul", name: "Consul", spec: "consul:" + name, env: c.Env(c.Token(s, enginetest.Policy(name))), pids: c.PIDs()}
	var (
		mu    sync.Mutex
		seen  = map[string]bool{}
		total float64
	)
	count := func() { // of the ten seconds that were over last
		_, b, err := c.Do("GET", "/v1/agent/metrics", nil)
		var m struct {
			Timestamp string
			Samples   []struct {
				Name  string
				Count float64
			}
		}
		if err != nil || json.Unmarshal(b, &m) != nil || seen[m.Timestamp] {
			return
		}
		seen[m.Timestamp] = true
		mu.Lock()
		defer mu.Unlock()
		for _, v := range m.Samples {
			if v.Name == "consul.api.http" {
				total += v.Count
			}
		}
	}
	go func() {
		for range time.NewTicker(4 * time.Second).C {
			count()
		}
	}()
	l.requests = func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return total
	}
	return l
}
