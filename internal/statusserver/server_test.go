package statusserver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serve starts a server whose main loop turns until stop.
func serve(t *testing.T, config Config, first *Snapshot) (s *Server, client *http.Client, stop func()) {
	t.Helper()
	network, address := "tcp", "127.0.0.1:0"
	if config.Unix {
		network, address = "unix", filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s = New(l, config, first)
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			select {
			case <-s.Turns():
			case <-s.Refreshes():
			case <-ctx.Done():
				return
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); loop.Wait() })
	client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
	}}}
	t.Cleanup(func() { stop(); client.CloseIdleConnections(); s.Close() })
	return s, client, stop
}

func ask(t *testing.T, c *http.Client, method, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// Every path, method and kind of address.
func TestAnswers(t *testing.T) {
	t.Parallel()
	ready, busy := full(), full()
	busy.Command.NotReady = "the command is being restarted"
	idle := full()
	idle.Watches = false
	for _, c := range []struct {
		name, method, path string
		unix               bool
		of                 *Snapshot
		status             int
		body               string // begins with it
	}{
		{"live", "GET", "/livez", false, busy, 200, "ok\n"},
		{"live head", "HEAD", "/livez", false, busy, 200, ""},
		{"ready", "GET", "/readyz", false, ready, 200, "ok\n"},
		{"not ready", "GET", "/readyz", false, busy, 503, "the command is being restarted\n"},
		{"status", "GET", "/status", true, ready, 200, `{"version":1,"vaultexec":"v1.2.3"`},
		{"metrics", "GET", "/metrics", true, ready, 200, "# HELP vaultexec_info"},
		{"other", "GET", "/", false, ready, 404, "404"},
		{"longer", "GET", "/status/x", false, ready, 404, "404"},
		{"post", "POST", "/livez", false, ready, 405, "only GET and HEAD here\n"},
		{"delete", "DELETE", "/status", true, ready, 405, "only GET and HEAD here\n"},
		{"options", "OPTIONS", "/metrics", true, ready, 405, "only GET and HEAD here\n"},
		{"refresh", "POST", "/refresh", true, ready, 202, "looking\n"},
		{"refresh of nothing", "POST", "/refresh", true, idle, 409, "vaultexec is not watching any secret\n"},
		{"refresh over TCP", "POST", "/refresh", false, ready, 403, "only over a unix socket"},
		{"get refresh", "GET", "/refresh", true, ready, 405, "only POST here\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, client, _ := serve(t, Config{Unix: c.unix}, c.of)
			resp, body := ask(t, client, c.method, "http://localhost"+c.path)
			if resp.StatusCode != c.status || !strings.HasPrefix(body, c.body) {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, body, c.status, c.body)
			}
			if c.status == 405 != (resp.Header.Get("Allow") != "") {
				t.Errorf("Allow: %q", resp.Header.Get("Allow"))
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s lets web pages read it", name)
				}
			}
		})
	}
}

// /status is one form, whatever there is: the same keys, lists that are no null, times in UTC.
func TestStatusForm(t *testing.T) {
	t.Parallel()
	keys := func(s *Snapshot) string {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(s.JSON(), &m); err != nil {
			t.Fatal(err)
		}
		var list []string
		for k := range m {
			list = append(list, k)
		}
		return fmt.Sprint(len(list))
	}
	if a, b := keys(full()), keys(&Snapshot{}); a != b {
		t.Errorf("%s keys and %s", a, b)
	}
	empty := string((&Snapshot{}).JSON())
	for _, want := range []string{`"version":1`, `"paths":[]`, `"refused":[]`, `"leases":[]`, `"files":[]`, `"token":null`, `"change":null`, `"next":null`, `"last_exit":null`, `"started":null`} {
		if !strings.Contains(empty, want) {
			t.Errorf("no %s in %s", want, empty)
		}
	}
	s := full()
	s.Paths = s.Paths[:3] // JSON writes what is no UTF-8 in two ways
	s.Command.Started = At(noon.In(time.FixedZone("", 7200)).Add(123456789))
	if !strings.Contains(string(s.JSON()), `"started":"2026-11-30T12:00:00.123Z"`) {
		t.Errorf("%s", s.JSON())
	}
	var back Snapshot
	if err := json.Unmarshal(s.JSON(), &back); err != nil || back.Paths[0].LastFailure.Kind != "away" || !back.Token.Ends.Equal(s.Token.Ends.Time) || string(back.JSON()) != string(s.JSON()) {
		t.Errorf("%v: %s", err, back.JSON())
	}
}

// The age of looks counts from the watched path that was looked at the longest time ago.
func TestMaxAge(t *testing.T) {
	t.Parallel()
	s := full()
	for _, c := range []struct {
		most time.Duration
		want string
	}{
		{0, ""}, {91 * time.Second, ""}, {90 * time.Second, ""},
		{time.Minute, "the last successful look at kv/app was 1m30s ago, and --max-age is 1m0s"},
	} {
		if why := s.unready(noon, c.most); why != c.want {
			t.Errorf("%v: %q", c.most, why)
		}
	}
	s.Paths = append(s.Paths, Path{Path: "kv/new", Watched: true, Failing: true}) // in a folder, and never answered for
	if why := s.unready(noon, 91*time.Second); why != "" {
		t.Errorf("%q", why)
	}
	s.Paths = s.Paths[2:] // nobody looks at these
	if why := s.unready(noon, time.Second); why != "" {
		t.Errorf("%q", why)
	}
}

// A request names this machine, or it is refused: a page in a browser cannot point its own name here.
func TestHost(t *testing.T) {
	t.Parallel()
	_, tcp, _ := serve(t, Config{Host: "App.Example."}, full())
	_, unix, _ := serve(t, Config{Unix: true}, full())
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9100": 200, "127.0.0.1": 200, "10.1.2.3:80": 200, "[::1]:9100": 200, "app.example": 200, "APP.example.:9100": 200, "a.localhost": 200,
		"evil.example": 403, "evil.example:9100": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403, "app.example.evil": 403,
	} {
		if resp, body := ask(t, tcp, "GET", "http://"+host+"/livez"); resp.StatusCode != want {
			t.Errorf("%s: %d %s", host, resp.StatusCode, body)
		}
		if resp, _ := ask(t, unix, "GET", "http://"+host+"/livez"); resp.StatusCode != 200 {
			t.Errorf("%s over a unix socket: %d", host, resp.StatusCode)
		}
	}
}

// /livez fails within about a second when the loop hangs, and nothing else does.
func TestLoopHangs(t *testing.T) {
	t.Parallel()
	_, client, stop := serve(t, Config{Unix: true}, full())
	stop()
	for path, want := range map[string]int{"GET /livez": 503, "POST /refresh": 503, "GET /readyz": 200, "GET /status": 200, "GET /metrics": 200} {
		method, path, _ := strings.Cut(path, " ")
		if resp, body := ask(t, client, method, "http://localhost"+path); resp.StatusCode != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// What Prometheus and others say in Accept.
func TestAccept(t *testing.T) {
	t.Parallel()
	_, client, _ := serve(t, Config{Unix: true}, full())
	for accept, open := range map[string]bool{
		"": false, "*/*": false, "text/plain": false, "text/html,application/xhtml+xml,*/*;q=0.8": false,
		"application/openmetrics-text":                                    true,
		"application/openmetrics-text; version=1.0.0; charset=utf-8":      true,
		"application/openmetrics-text;version=2.0.0,text/plain":           false,
		"application/openmetrics-text;version=1.0.0;q=0.2,text/plain;q=1": false,
		"application/openmetrics-text;q=0":                                false,
		"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1":                                                                               true, // Prometheus 2.42
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1": true, // Prometheus 3
	} {
		resp, body := ask(t, client, "GET", "http://localhost/metrics", "Accept", accept)
		if got := resp.Header.Get("Content-Type"); open != strings.HasSuffix(body, "# EOF\n") || got != map[bool]string{true: openType, false: textType}[open] {
			t.Errorf("%q: %s", accept, got)
		}
	}
}

// Connections that ask nothing do not keep others out, and there are never more than so many.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	s, client, _ := serve(t, Config{Unix: true}, full())
	address := s.door.Addr().String()
	begun := time.Now()
	for i := range 3 * mostConns {
		if i == mostConns { // all places are taken, and nobody waits
			if resp, body := ask(t, client, "GET", "http://localhost/livez"); resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if took := time.Since(begun); took >= headerTime {
				t.Errorf("an answer after %v, when the half requests had ended by themselves", took)
			}
		}
		c, err := net.Dial("unix", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Half:")
		}
	}
	for range 3 {
		resp, body := ask(t, client, "GET", "http://localhost/livez")
		if resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		client.CloseIdleConnections()
		s.door.mu.Lock()
		if n := len(s.door.open); n > mostConns {
			t.Errorf("%d connections", n)
		}
		s.door.mu.Unlock()
	}
}

// Nor do those that announce a body which does not come, or take no answer.
func TestUntakenAnswers(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"no body":   "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		"no reader": strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 1000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, client, _ := serve(t, Config{Unix: true}, full())
			for range mostConns {
				c, err := net.Dial("unix", s.door.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				go func() { _, _ = io.WriteString(c, request) }()
			}
			begun := time.Now()
			if resp, body := ask(t, client, "GET", "http://localhost/livez"); resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if took := time.Since(begun); took >= headerTime-time.Second/2 {
				t.Errorf("an answer after %v, when the others had ended by themselves", took)
			}
		})
	}
}

// failing fails to accept at first.
type failing struct {
	net.Listener
	with []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.with) == 0 {
		return f.Listener.Accept()
	}
	err := f.with[0]
	f.with = f.with[1:]
	return nil, err
}

// A connection that cannot be accepted is not the end of the server.
func TestFailureToAccept(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.ENOMEM, syscall.ENOBUFS, syscall.EMFILE, syscall.EPERM, syscall.EHOSTUNREACH} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
			if err != nil {
				t.Fatal(err)
			}
			s := New(&failing{l, []error{&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errno)}}}, Config{Unix: true}, full())
			defer s.Close()
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
			}}}
			if resp, _ := ask(t, client, "GET", "http://localhost/readyz"); resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
		})
	}
}

// Who asks for nothing in particular has to name this machine, too.
func TestOptionsOfAll(t *testing.T) {
	t.Parallel()
	_, client, _ := serve(t, Config{}, full())
	req := &http.Request{Method: "OPTIONS", URL: &url.URL{Scheme: "http", Host: "evil.example", Opaque: "*"}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Error(resp.Status)
	}
}

// Headers of a megabyte are refused.
func TestLongHeaders(t *testing.T) {
	t.Parallel()
	s, client, _ := serve(t, Config{Unix: true}, full())
	c, err := net.Dial("unix", s.door.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 1<<20))
	}()
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, " 431 ") {
		t.Errorf("%q, %v", line, err)
	}
	if resp, _ := ask(t, client, "GET", "http://localhost/livez"); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}

// What was published last is what is answered.
func TestPublish(t *testing.T) {
	t.Parallel()
	s, client, _ := serve(t, Config{Unix: true}, full())
	ask(t, client, "GET", "http://localhost/metrics")
	next := full()
	next.Command.Rollbacks, next.Command.NotReady = 77, "it is ending"
	s.Publish(next)
	if _, body := ask(t, client, "GET", "http://localhost/metrics"); !strings.Contains(body, "vaultexec_rollbacks_total 77\n") {
		t.Errorf("%s", body)
	}
	if _, body := ask(t, client, "GET", "http://localhost/status"); !strings.Contains(body, `"rollbacks":77`) {
		t.Errorf("%s", body)
	}
	if resp, _ := ask(t, client, "GET", "http://localhost/readyz"); resp.StatusCode != 503 {
		t.Error(resp.Status)
	}
}
