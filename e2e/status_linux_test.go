package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/statusserver"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// The tests of --status: what /status, /metrics, /readyz and vaultexec ps say in the life of a run, and what Prometheus has
// seen of it.

// endpoint asks a run with --status.
type endpoint struct {
	w       *watched
	address string // as of --status
	client  *http.Client
}

func endpointOf(w *watched, address string) *endpoint {
	network, to := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, to = "unix", path
	}
	return &endpoint{w: w, address: address, client: &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, to)
		}}}}
}

// ask returns the status and the text of an answer, in which there is no secret.
func (e *endpoint) ask(method, path string) (int, string) {
	e.w.t.Helper()
	req, err := http.NewRequest(method, "http://localhost"+path, nil)
	if err != nil {
		e.w.t.Fatal(err)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	e.clean(path, string(b))
	return resp.StatusCode, string(b)
}

// clean: no answer has a value that was written into Vault, or a token.
func (e *endpoint) clean(what, text string) {
	e.w.t.Helper()
	if vaulttest.Redact(text) != text || e.w.token != "" && strings.Contains(text, e.w.token) {
		e.w.t.Errorf("%s shows a secret:\n%s", what, vaulttest.Redact(text))
	}
}

func (e *endpoint) status() (s statusserver.Snapshot) {
	e.w.t.Helper()
	code, text := e.ask("GET", "/status")
	if code != 0 && (code != 200 || json.Unmarshal([]byte(text), &s) != nil) {
		e.w.t.Fatalf("%d %s", code, text)
	}
	return s
}

// path is what /status says of one.
func (e *endpoint) path(name string) statusserver.Path {
	e.w.t.Helper()
	for _, p := range e.status().Paths {
		if p.Path == e.w.mount+"/"+name {
			return p
		}
	}
	return statusserver.Path{}
}

// value is a sample of /metrics, written as there.
func (e *endpoint) value(sample string) (float64, bool) {
	e.w.t.Helper()
	_, text := e.ask("GET", "/metrics")
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, sample+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return v, err == nil
		}
	}
	return 0, false
}

// ps is what vaultexec ps prints.
func (e *endpoint) ps(args ...string) string {
	e.w.t.Helper()
	cmd := exec.Command(e.w.bin, append([]string{"ps"}, args...)...)
	cmd.Env = []string{"VAULTEXEC_STATUS=" + e.address, "GORACE=" + vaulttest.Gorace}
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.w.t.Fatalf("%v: %s", err, out)
	}
	e.clean("vaultexec ps", string(out))
	for line := range strings.Lines(string(out)) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 && len(args) == 0 {
			e.w.t.Errorf("%d columns: %s", n, line)
		}
	}
	return string(out)
}

func (e *endpoint) wantPS(words ...string) {
	e.w.t.Helper()
	text := e.ps()
	for _, word := range words {
		if !strings.Contains(text, word) {
			e.w.t.Errorf("ps does not say %q:\n%s", word, text)
		}
	}
}

func (e *endpoint) untilReady(code int, line string) {
	e.w.t.Helper()
	var last string
	wait.Until(e.w.t, limit, fmt.Sprintf("%d %s of /readyz", code, line), func() bool {
		var got int
		got, last = e.ask("GET", "/readyz")
		return got == code && strings.Contains(last, line)
	})
}

// fails is a command that notes its start, and dies soon when C says so.
const fails = `printf 'start %s|%s|%s|%s\n' $$ "${A-}" "${B-}" "${C-}" >>"$RECORD"; [ "${C-}" = dies ] && exit 3; exec sleep 100000`

// life takes a run through a rotation, an outage, versions that make the command fail, and better ones. reads is called with
// samples that have to be seen by whoever scrapes.
func life(t *testing.T, address func(w *watched) string, scrape func(w *watched, address string) func(sample string) (float64, bool)) {
	w := newWatched(t, 2)
	to := address(w)
	e := endpointOf(w, to)
	value := e.value
	if scrape != nil {
		value = scrape(w, to)
	}
	reads := func(step string, want map[string]float64) {
		t.Helper()
		for sample, v := range want {
			sample = strings.ReplaceAll(sample, "PATH", fmt.Sprintf("path=%q", w.mount+"/app"))
			var got float64
			var is bool
			if !wait.For(limit, func() bool { got, is = value(sample); return is && got == v }) {
				t.Fatalf("%s: %s is %v (%v), want %v", step, sample, got, is, v)
			}
		}
	}
	version, newest := "vaultexec_secret_version{PATH}", "vaultexec_secret_newest_version{PATH}"
	first := vaulttest.Canary("A")
	w.put("app", "A="+first)
	looked := w.srv.Must(t, "POST", "auth/token/lookup", map[string]string{"token": w.token})
	data, _ := looked["data"].(map[string]any)
	accessor, _ := data["accessor"].(string)
	if accessor == "" {
		t.Fatal("no accessor")
	}
	vaulttest.Secret(accessor) // from now on it is looked for, too
	w.start(append([]string{"--status", to, "--max-age", "3s", "--probation", "1s", "--refresh-signal", "USR1", "--path", "app"}, shell(fails)...)...)
	w.waitA(first)
	e.untilReady(200, "ok")
	reads("the start", map[string]float64{version: 1, newest: 1, "vaultexec_command_ready": 1, "vaultexec_rollbacks_total": 0,
		`vaultexec_command_restarts_total{reason="change"}`: 0, `vaultexec_look_failures_total{kind="away"}`: 0})
	pid := w.last().pid
	if s := e.status(); s.Command.PID != pid || s.Phase != statusserver.Running || s.Token == nil || s.Token.Method != "token" || s.Command.Restarts != 0 || s.PID != w.cmd.Process.Pid {
		t.Errorf("%+v", s)
	}
	if p := e.path("app"); p.Version != 1 || !p.Watched || p.LastLook.IsZero() || p.Created.IsZero() || p.LastFailure != nil {
		t.Errorf("%+v", p)
	}
	e.wantPS(fmt.Sprintf("pid %d, running since ", pid), ", ready\n", "0 restarts\n", "PATH", "login: token")

	if text := e.ps("--json"); !strings.HasPrefix(text, `{"version":1,"vaultexec":"`) || strings.Count(text, "\n") != 1 {
		t.Errorf("ps --json prints\n%s", text)
	}
	follow := exec.Command(w.bin, "ps", "--follow", to)
	follow.Env = []string{"GORACE=" + vaulttest.Gorace}
	var followed output
	follow.Stdout, follow.Stderr = &followed, &followed
	if err := vaulttest.StartTied(follow); err != nil {
		t.Fatal(err)
	}
	followEnded := make(chan error, 1)
	go func() { followEnded <- follow.Wait() }()
	t.Cleanup(func() { _ = follow.Process.Kill() })
	w.until("the first block of ps --follow", func() bool { return strings.Contains(followed.String(), ", ready\n") })

	second := vaulttest.Canary("A")
	w.put("app", "A="+second)
	w.waitA(second)
	reads("a rotation", map[string]float64{version: 2, newest: 2, `vaultexec_command_restarts_total{reason="change"}`: 1, "vaultexec_change_pending": 0})
	e.untilReady(200, "ok")
	e.wantPS(", ready\n", "1 restart, last exit ", ": killed by SIGTERM\n")

	w.proxy.Set(vaulttest.Reset)
	e.untilReady(503, "the last successful look at "+w.mount+"/app was ")
	if p := e.path("app"); !p.Failing || p.LastFailure.Kind != "away" || p.LastFailure.Text == "" {
		t.Errorf("in the outage: %+v", p)
	}
	w.proxy.Set(vaulttest.Errors(500, "cannot serve "+w.token)) // it quotes what it was sent
	w.until("Vault's own words", func() bool {
		p := e.path("app")
		return p.LastFailure != nil && strings.Contains(p.LastFailure.Text, "cannot serve ***")
	})
	if v, ok := e.value(`vaultexec_look_failures_total{kind="away"}`); !ok || v < 1 {
		t.Errorf("%v failures", v)
	}
	if code, text := e.ask("GET", "/livez"); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	reads("an outage", map[string]float64{version: 2, "vaultexec_command_ready": 1})
	e.wantPS("away")
	w.wantStarts(2)

	w.proxy.Clear()
	e.untilReady(200, "ok")
	if p := e.path("app"); p.Failing || p.LastFailure == nil {
		t.Errorf("after the outage: %+v", p)
	}

	w.put("app", "A="+second, "C=dies")
	reads("a rollback", map[string]float64{version: 2, newest: 3, "vaultexec_rollbacks_total": 1, `vaultexec_command_restarts_total{reason="change"}`: 2,
		`vaultexec_command_restarts_total{reason="rollback"}`: 1})
	e.untilReady(200, "ok")
	e.wantPS("3 restarts, 1 rollback, last exit ", ": exit code 3\n", "2 → 3")

	third := vaulttest.Canary("A")
	w.put("app", "A="+third)
	w.waitA(third)
	reads("better ones", map[string]float64{version: 4, newest: 4, "vaultexec_rollbacks_total": 1, `vaultexec_command_restarts_total{reason="change"}`: 3})
	w.until("a block with the rollback", func() bool { return strings.Contains(followed.String(), "1 rollback, last exit ") })
	e.clean("ps --follow", followed.String())
	stop := func() { // and who follows the run sees that it has ended
		t.Helper()
		w.stop()
		select {
		case err := <-followEnded:
			if follow.ProcessState.ExitCode() != 125 || !strings.Contains(followed.String(), "vaultexec: cannot ask "+to+": ") {
				t.Errorf("%v: %s", err, followed.String())
			}
		case <-time.After(limit):
			t.Error("ps --follow does not end")
		}
	}
	if path, ok := strings.CutPrefix(to, "unix:"); ok {
		fourth := vaulttest.Canary("A")
		w.put("app", "A="+fourth)
		if code, text := e.ask("POST", "/refresh"); code != 202 {
			t.Errorf("%d %s", code, text)
		}
		w.waitA(fourth)
		stop()
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is left behind")
		}
		return
	}
	if code, text := e.ask("POST", "/refresh"); code != 403 {
		t.Errorf("%d %s", code, text)
	}
	stop()
}

// A watched run says at each step what it does, over either kind of address.
func TestStatusOfALife(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]func(*watched) string{
		"unix": func(w *watched) string { return "unix:" + filepath.Join(w.dir, "s") },
		"tcp":  func(w *watched) string { return freeAddress(w.t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			life(t, address, nil)
		})
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A Prometheus that scrapes the run has seen all of it.
func TestPrometheusScrapes(t *testing.T) {
	t.Parallel()
	prometheus := needs.Program(t, "prometheus")
	life(t, func(w *watched) string { return freeAddress(w.t) }, func(w *watched, address string) func(string) (float64, bool) {
		dir, api := t.TempDir(), freeAddress(t)
		config := fmt.Sprintf("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n- job_name: vaultexec\n  static_configs: [{targets: [%q]}]\n", address)
		if err := os.WriteFile(dir+"/prometheus.yml", []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		cmd := exec.Command(prometheus, "--config.file", dir+"/prometheus.yml", "--storage.tsdb.path", dir+"/data", "--web.listen-address", api)
		cmd.Stderr = &log
		if err := vaulttest.StartTied(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGKILL)
			_ = cmd.Wait()
			if t.Failed() {
				t.Logf("Prometheus: %s", &log)
			}
		})
		var result struct {
			Data struct {
				Result []struct {
					Value [2]any `json:"value"`
				} `json:"result"`
				Targets []struct {
					Error string `json:"lastError"`
				} `json:"activeTargets"`
			} `json:"data"`
		}
		get := func(path string) bool {
			resp, err := http.Get("http://" + api + "/api/v1/" + path)
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			result.Data.Result, result.Data.Targets = nil, nil
			return resp.StatusCode == 200 && json.NewDecoder(resp.Body).Decode(&result) == nil
		}
		return func(sample string) (float64, bool) {
			if get("targets") && len(result.Data.Targets) == 1 && strings.Contains(result.Data.Targets[0].Error, "pars") {
				t.Errorf("Prometheus does not understand it: %s", result.Data.Targets[0].Error)
			}
			if !get("query?query="+url.QueryEscape(sample)) || len(result.Data.Result) != 1 {
				return 0, false
			}
			text, _ := result.Data.Result[0].Value[1].(string)
			v, err := strconv.ParseFloat(text, 64)
			return v, err == nil
		}
	})
}

// A credential that ends is a lease with its end, and its replacement a restart for that reason.
func TestStatusOfALease(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	path := oidcRole(t, w, "3s")
	to := "unix:" + filepath.Join(w.dir, "s")
	e := endpointOf(w, to)
	w.start("--status", to, "--env", "B=/"+path+"#token")
	w.hideTokens()
	w.waitStarts(1)
	e.untilReady(200, "ok")
	sample := fmt.Sprintf("vaultexec_lease_expiry_timestamp_seconds{path=%q}", path)
	var first float64
	w.until("the end of the first", func() (is bool) { first, is = e.value(sample); return is })
	if s := e.status(); len(s.Leases) != 1 || s.Leases[0].Path != path || s.Leases[0].Ends.IsZero() || len(s.Paths) != 1 || s.Paths[0].Watched {
		t.Errorf("%+v, paths %+v", s.Leases, s.Paths)
	}
	e.wantPS("lease: " + path + ", expires ")
	w.waitStarts(2)
	w.until("the end of another", func() bool { next, is := e.value(sample); return is && next > first })
	w.until("the restart", func() bool { n, is := e.value(`vaultexec_command_restarts_total{reason="lease"}`); return is && n >= 1 })
	if n, _ := e.value(`vaultexec_command_restarts_total{reason="change"}`); n != 0 {
		t.Errorf("%v restarts for a change", n)
	}
	for _, page := range []string{"/status", "/metrics"} {
		_, text := e.ask("GET", page)
		for _, s := range w.starts() {
			if s.b != "" && strings.Contains(text, s.b) {
				t.Errorf("%s shows the credential", page)
			}
		}
	}
	w.stop()
}

// Without --watch a lease may have vaultexec ask Vault, but nothing is looked at: what is no lease stays as it was read.
func TestRefreshWithoutWatch(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	path := oidcRole(t, w, "1h")
	to := "unix:" + filepath.Join(w.dir, "s")
	e := endpointOf(w, to)
	w.launch("--status", to, "--env", "B=/"+path+"#token")
	w.hideTokens()
	w.waitStarts(1)
	w.until("the lease", func() bool { return len(e.status().Leases) == 1 })
	if code, text := e.ask("POST", "/refresh"); code != 409 {
		t.Errorf("%d %s", code, text)
	}
	w.stop()
}

// Another user may not ask, unless the file's mode says so.
func TestPSOfAnotherUser(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.fresh("app", "A")
	cred, bin := asNobody(t, w.bin)
	if cred == nil {
		needs.Missing(t, "root, to be another user")
	}
	for mode, code := range map[string]int{"": 125, ",mode=0666": 0} {
		path := filepath.Join(filepath.Dir(bin), fmt.Sprint("s", code))
		w.start("--status", "unix:"+path+mode, "--path", "app")
		w.until("the socket", func() bool { c, _ := endpointOf(w, "unix:"+path).ask("GET", "/livez"); return c == 200 })
		cmd := exec.Command(bin, "ps", "unix:"+path)
		cmd.Env = []string{"GORACE=" + vaulttest.Gorace}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code || code != 0 && !strings.Contains(string(out), "cannot ask unix:"+path+": permission denied\nvaultexec: hint: the socket belongs to another user") {
			t.Errorf("%q: %d %s", mode, got, out)
		}
		w.stop()
	}
}
