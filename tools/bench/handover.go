package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	handovers = 10
	clients   = 4
	quiet     = 3 * time.Second // under load, without a rotation
	least     = 20_000          // requests
	most      = time.Minute     // for these
)

const handoverApp = `import os
body = os.environ["GENERATION"].encode()
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
`

// handover counts the requests that fail while a secret is rotated ten times under load: uvicorn with four clients that
// open a connection for each request.
func handover(s *stage) section {
	sec := section{Name: "handover",
		Title: fmt.Sprintf("Rotation under load: %d rotations of uvicorn, %d clients with a connection for each request", handovers, clients)}
	uvicorn, err := exec.LookPath("uvicorn")
	if err != nil {
		sec.Absent = []string{"uvicorn"}
		return sec
	}
	s.must(os.WriteFile(filepath.Join(s.dir, "app.py"), []byte(handoverApp), 0o600))
	serve := []string{uvicorn, "--app-dir", s.dir, "--log-level", "critical", "app:app"}
	port := s.freePort()
	address := "127.0.0.1:" + strconv.Itoa(port)
	ours := func(more ...string) []string {
		return append([]string{s.vaultexec, "--path", "rolling", "--watch", "--interval", "1h", "--refresh-signal", "USR1",
			"--settle", "0", "--min-uptime", "0", "--probation", "0", "--log-level", "error"}, more...)
	}
	binds := append(serve, "--port", strconv.Itoa(port))
	takes := append(serve, "--fd", "3")
	contestants := []struct {
		key, what string
		rotate    syscall.Signal
		args      []string
	}{
		{"start-first", "vaultexec --listen --restart-order start-first", syscall.SIGUSR1,
			append(ours("--listen", address, "--restart-order", "start-first", "--"), takes...)},
		{"stop-first", "vaultexec --listen", syscall.SIGUSR1, append(ours("--listen", address, "--"), takes...)},
		{"unheld", "vaultexec, uvicorn binds the port", syscall.SIGUSR1, append(ours("--"), binds...)},
		{"envconsul", "envconsul", syscall.SIGHUP, append([]string{"envconsul", "-secret", "secret/rolling", "-no-prefix",
			"-vault-renew-token=false", "-kill-signal", "SIGTERM", "-log-level", "err"}, binds...)},
	}
	for _, c := range contestants {
		if _, err := exec.LookPath(c.args[0]); err != nil {
			sec.Absent = append(sec.Absent, c.key)
			continue
		}
		got := s.rotateUnderLoad(address, c.rotate, c.args)
		failed := single(c.key+"-failed", fmt.Sprintf("%s: failed of %d requests", c.what, got.asked), "requests", float64(got.failed))
		if strings.HasSuffix(c.key, "-first") {
			failed = failed.limit(0.5) // none
		}
		sec.add(failed, single(c.key+"-quiet", "  longest wait before the first rotation", "ms", got.quiet),
			single(c.key+"-wait", "  longest wait in the rotations", "ms", got.longest))
	}
	return sec
}

// loaded is what the clients of a contestant have seen.
type loaded struct {
	asked, failed  int64
	quiet, longest float64 // ms
}

// rotateUnderLoad starts a contestant, lets clients ask, rotates, and ends it.
func (s *stage) rotateUnderLoad(address string, rotate syscall.Signal, args []string) loaded {
	put := func(generation int) {
		s.plain.srv.PutKV(s, "secret", "rolling", map[string]string{"GENERATION": strconv.Itoa(generation)})
	}
	put(1)
	p := s.startTied(s.plain.env(), args...)
	defer p.stop()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func() (generation int64, err error) {
		answer, err := client.Get("http://" + address)
		if err != nil {
			return 0, err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(string(text), 10, 64)
	}
	var asked, failed, longest, generation atomic.Int64
	wait := func(want int64) {
		for begun := time.Now(); generation.Load() != want; time.Sleep(time.Millisecond) {
			if time.Since(begun) > time.Minute {
				s.Fatalf("%s: generation %d does not answer", args[0], want)
			}
		}
	}
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		g, err := ask()
		if err == nil {
			generation.Store(g)
			break
		}
		if time.Since(begun) > time.Minute {
			s.Fatalf("%s: nothing answers", args[0])
		}
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range clients {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				begun := time.Now()
				g, err := ask()
				took := int64(time.Since(begun))
				asked.Add(1)
				for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
				}
				if err != nil {
					failed.Add(1)
				} else if g > generation.Load() {
					generation.Store(g)
				}
			}
		})
	}
	time.Sleep(quiet)
	got := loaded{quiet: ms(longest.Swap(0))}
	for i := range handovers {
		put(i + 2)
		s.must(p.cmd.Process.Signal(rotate))
		wait(int64(i + 2))
		time.Sleep(500 * time.Millisecond) // the old one ends, or a backlog of clients is served
	}
	for begun := time.Now(); asked.Load() < least && time.Since(begun) < most; {
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	load.Wait()
	got.asked, got.failed, got.longest = asked.Load(), failed.Load(), ms(longest.Load())
	return got
}

// freePort is a port that nobody has at the moment.
func (s *stage) freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
