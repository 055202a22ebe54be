package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// The tests of --watch: the built program, a real Vault, a proxy in between that counts and misbehaves. The numbers that they
// carry are those of the demands. Times are short here and never the verdict: what is waited for has a generous cap, and
// that something did not happen is known when a later thing has.

const limit = 60 * time.Second // for whatever must happen

// quick are options that make a change arrive within a second.
var quick = []string{"--watch", "--interval", "200ms", "--settle", "300ms", "--min-uptime", "500ms", "--timeout", "2s", "--log-level", "debug", "--log-format", "json"}

// watched is one vaultexec that watches.
type watched struct {
	t      *testing.T
	srv    *vaulttest.Server
	proxy  *vaulttest.Proxy
	scope  *vaulttest.Scope
	mount  string
	kv     int
	policy string
	token  string
	dir    string
	env    []string // added to vaultexec's
	bin    string

	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	text strings.Builder // standard error
}

// watchOn prepares a mount, a policy for everything in it and a token of srv.
func watchOn(t *testing.T, srv *vaulttest.Server, kv int) *watched {
	t.Helper()
	w := &watched{t: t, srv: srv, scope: srv.Scope(t), kv: kv, dir: t.TempDir()}
	w.proxy = vaulttest.NewProxy(t, srv)
	w.mount = w.scope.Mount(kv)
	w.policy = w.scope.Policy(w.rules(true))
	w.token = srv.Token(t, vaulttest.TokenOpts{Policies: []string{w.policy}, NoDefault: true})
	w.bin = vaulttest.Build(t, ".")
	return w
}

func newWatched(t *testing.T, kv int) *watched {
	t.Helper()
	return watchOn(t, vaulttest.Dev(t), kv)
}

// rules allows to read everything in the mount, with the metadata or without.
func (w *watched) rules(metadata bool) string {
	if w.kv == 1 {
		return fmt.Sprintf("path \"%s/*\" { capabilities = [\"read\"] }", w.mount)
	}
	hcl := fmt.Sprintf("path \"%s/data/*\" { capabilities = [\"read\"] }\n", w.mount)
	if metadata {
		hcl += fmt.Sprintf("path \"%s/metadata/*\" { capabilities = [\"read\"] }\n", w.mount)
	}
	return hcl
}

// put writes KEY=VALUE pairs.
func (w *watched) put(path string, pairs ...string) {
	w.t.Helper()
	data := map[string]string{}
	for _, kv := range pairs {
		k, v, _ := strings.Cut(kv, "=")
		data[k] = v
	}
	w.srv.PutKV(w.t, w.mount, path, data)
}

// fresh writes one key with a new canary and returns it.
func (w *watched) fresh(path, key string) string {
	w.t.Helper()
	v := vaulttest.Canary(key)
	w.put(path, key+"="+v)
	return v
}

// kvCall administers a secret: delete, undelete, destroy, metadata.
func (w *watched) kvCall(method, what, path string, body any) {
	w.t.Helper()
	w.srv.Must(w.t, method, w.mount+"/"+what+"/"+path, body)
}

// noter is a command that notes its start and the variables A, B and C in a file, and then waits.
const noter = `printf 'start %s|%s|%s|%s\n' $$ "${A-}" "${B-}" "${C-}" >>"$RECORD"; exec sleep 100000`

func shell(script string) []string { return []string{"--", "/bin/sh", "-c", script} }

// start starts vaultexec with quick's options, further ones, and the noter unless args name a command.
func (w *watched) start(args ...string) *watched {
	w.t.Helper()
	w.launch(append(slices.Clone(quick), args...)...)
	return w
}

func (w *watched) launch(args ...string) {
	w.t.Helper()
	if !slices.Contains(args, "--") {
		args = append(args, shell(noter)...)
	}
	r, out, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	w.cmd = exec.Command(w.bin, append([]string{"--mount", w.mount}, args...)...)
	w.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "GORACE=" + vaulttest.Gorace,
		"VAULT_ADDR=" + w.proxy.Addr, "RECORD=" + w.record()}, w.env...)
	if w.token != "" && !slices.Contains(args, "--token-file") {
		w.cmd.Env = append(w.cmd.Env, "VAULT_TOKEN="+w.token)
	}
	w.cmd.Stderr = out
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := vaulttest.StartTied(w.cmd); err != nil {
		w.t.Fatal(err)
	}
	_ = out.Close()
	w.done = make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadString('\n')
			w.mu.Lock()
			w.text.WriteString(line)
			w.mu.Unlock()
			if err != nil {
				_ = r.Close()
				return
			}
		}
	}()
	cmd, done := w.cmd, w.done
	go func() {
		_ = cmd.Wait()
		<-read
		close(done)
	}()
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		w.kill()
		if w.t.Failed() {
			w.t.Logf("standard error:\n%s", vaulttest.Redact(w.stderr()))
			w.t.Logf("starts: %v", vaulttest.Redact(fmt.Sprint(w.starts())))
		}
		w.noSecret()
	})
}

func (w *watched) record() string { return filepath.Join(w.dir, "record") }

func (w *watched) stderr() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// noSecret: no value that this test binary wrote into any Vault, and no token, stands in what vaultexec printed.
func (w *watched) noSecret() {
	w.t.Helper()
	if text := w.stderr(); vaulttest.Redact(text) != text {
		w.t.Errorf("standard error shows a secret:\n%s", vaulttest.Redact(text))
	}
}

// started is one start of the noter.
type started struct {
	pid     int
	a, b, c string
}

func (w *watched) starts() []started {
	text, _ := os.ReadFile(w.record())
	var list []started
	for line := range strings.SplitSeq(string(text), "\n") {
		rest, ok := strings.CutPrefix(line, "start ")
		f := strings.Split(rest, "|")
		if ok && len(f) == 4 {
			pid, _ := strconv.Atoi(f[0])
			list = append(list, started{pid, f[1], f[2], f[3]})
		}
	}
	return list
}

func (w *watched) last() started {
	list := w.starts()
	if len(list) == 0 {
		return started{}
	}
	return list[len(list)-1]
}

// kill ends what a failed test has left.
func (w *watched) kill() {
	for _, s := range w.starts() {
		if w.lives(s.pid) {
			_ = syscall.Kill(s.pid, syscall.SIGKILL)
		}
	}
}

// lives reports whether a command of this test has that number. It may belong to another process by now, or to a thread of this one.
func (w *watched) lives(pid int) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && alive(pid) && strings.Contains(string(environ), "RECORD="+w.record()+"\x00")
}

// alive does not count zombies.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

func (w *watched) until(what string, cond func() bool) {
	w.t.Helper()
	wait.Until(w.t, limit, what, func() bool {
		select {
		case <-w.done:
			return cond() || w.early(what)
		default:
			return cond()
		}
	})
}

func (w *watched) early(what string) bool {
	w.t.Helper()
	w.t.Fatalf("vaultexec ended (%s) before %s", vaulttest.Ending(w.cmd.ProcessState), what)
	return false
}

func (w *watched) waitStarts(n int) {
	w.t.Helper()
	w.until(fmt.Sprintf("start %d", n), func() bool { return len(w.starts()) >= n })
}

// waitA waits until a child runs whose A has this value.
func (w *watched) waitA(v string) {
	w.t.Helper()
	w.until("a child with the new value", func() bool { return w.last().a == v })
}

// waitLog waits for the nth line with that text.
func (w *watched) waitLog(text string, n int) {
	w.t.Helper()
	w.until(fmt.Sprintf("%q for the %d. time", text, n), func() bool { return strings.Count(w.stderr(), text) >= n })
}

// looks waits until n more rounds of looking at all paths have passed.
func (w *watched) looks(n, paths int) {
	w.t.Helper()
	before := len(w.proxy.Requests())
	w.until("further looks", func() bool { return len(w.proxy.Requests()) >= before+n*paths })
}

func (w *watched) wantStarts(n int) {
	w.t.Helper()
	if got := len(w.starts()); got != n {
		w.t.Errorf("%d starts, want %d", got, n)
	}
}

func (w *watched) signal(sig syscall.Signal) {
	w.t.Helper()
	if err := w.cmd.Process.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
}

// finish waits for the end of vaultexec and checks how it ended, and that nothing is left.
func (w *watched) finish(how string) {
	w.t.Helper()
	select {
	case <-w.done:
	case <-time.After(limit):
		w.t.Fatal("vaultexec does not end")
	}
	if got := vaulttest.Ending(w.cmd.ProcessState); got != how {
		w.t.Errorf("ended with %s, want %s", got, how)
	}
	for _, s := range w.starts() {
		if w.lives(s.pid) {
			w.t.Errorf("child %d is left", s.pid)
		}
	}
}

func (w *watched) stop() {
	w.t.Helper()
	w.signal(syscall.SIGTERM)
	w.finish("signal TERM")
}

// logLine is one line of the JSON log.
type logLine map[string]any

func (l logLine) str(key string) string { s, _ := l[key].(string); return s }

// lines returns the lines of the log with that text.
func (w *watched) lines(text string) []logLine {
	w.t.Helper()
	var list []logLine
	for _, raw := range strings.Split(w.stderr(), "\n") {
		var l logLine
		if strings.HasPrefix(raw, "{") && json.Unmarshal([]byte(raw), &l) == nil && strings.Contains(l.str("msg"), text) {
			list = append(list, l)
		}
	}
	return list
}

func (w *watched) wantLines(n int, text string) {
	w.t.Helper()
	if got := len(w.lines(text)); got != n {
		w.t.Errorf("%d lines with %q, want %d", got, text, n)
	}
}

const (
	logRestart = "secrets changed, restarting the command"
	logSame    = "the environment is the same"
	logTrouble = "cannot look at the secrets"
	logOver    = "looking at the secrets works again"
	logUnused  = "the change is not used"
	logUsable  = "the secrets can be used again"
)

// A rotation arrives, on both versions of the engine, and the log says from where to where and which names, in text and
// in JSON, without a value.
func TestWatchRotation(t *testing.T) {
	t.Parallel()
	for _, kv := range []int{1, 2} {
		for _, format := range []string{"text", "json"} {
			t.Run(fmt.Sprintf("kv%d %s", kv, format), func(t *testing.T) {
				t.Parallel()
				w := newWatched(t, kv)
				first := w.fresh("app", "A")
				w.put("other", "B="+vaulttest.Canary("B"))
				w.start("--log-format", format, "--path", "app", "--path", "other")
				w.waitA(first)
				second := vaulttest.Canary("A")
				w.put("app", "A="+second, "C="+vaulttest.Canary("C"))
				w.waitA(second)
				w.waitLog(logRestart, 1)
				w.stop()
				w.wantStarts(2)
				for _, want := range []string{logRestart, "+C", w.mount + "/app", map[int]string{1: "changed", 2: "1 → 2"}[kv]} {
					if !strings.Contains(w.stderr(), want) {
						t.Errorf("the log does not say %q", want)
					}
				}
				if format == "json" {
					l := w.lines(logRestart)[0]
					if l.str("names") != "A, +C" || l.str("read") == "" || l.str("since") == "" || strings.Contains(l.str("paths"), "other") {
						t.Errorf("the decision: %v", l)
					}
				}
			})
		}
	}
}

// A rotation of three paths, spread over several looks, is one restart with the final values.
func TestWatchSettles(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	for _, k := range []string{"A", "B", "C"} {
		w.fresh(k, k)
	}
	w.launch("--watch", "--interval", "150ms", "--settle", "2s", "--min-uptime", "0", "--log-format", "json", "--log-level", "debug", "--path", "A", "--path", "B", "--path", "C")
	w.waitStarts(1)
	a := w.fresh("A", "A")
	w.looks(2, 3) // at least one whole round in between
	b := w.fresh("B", "B")
	w.looks(2, 3)
	c := w.fresh("C", "C")
	w.waitStarts(2)
	if got := w.last(); got.a != a || got.b != b || got.c != c {
		t.Error("the new child has not the final values")
	}
	w.looks(8, 3)
	w.wantStarts(2)
	if l := w.lines(logRestart); len(l) != 1 || strings.Count(l[0].str("paths"), "1 → 2") != 3 {
		t.Errorf("%v", l)
	}
	w.stop()
}

// Equal values, metadata, custom metadata, an unselected key and a restored version restart nothing.
func TestWatchOnlyTheEnvironmentCounts(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	v := vaulttest.Canary("A")
	w.put("app", "A="+v, "UNUSED=x")
	w.start("--path", "app", "--exclude", "UNUSED")
	w.waitStarts(1)
	for i, change := range []func(){
		func() { w.put("app", "A="+v, "UNUSED=x") },
		func() { w.put("app", "UNUSED=y", "A="+v) },
		func() { w.put("app", "A="+v) },
		func() { // deleted and brought back between two looks or not, it is the same in the end
			w.kvCall("DELETE", "data", "app", nil)
			w.kvCall("POST", "undelete", "app", map[string]any{"versions": []int{4}})
			w.put("app", "A="+v)
		},
		func() { // up to the same version number, with the same values
			w.kvCall("DELETE", "metadata", "app", nil)
			for range 5 {
				w.put("app", "A="+v)
			}
		},
	} {
		change()
		w.waitLog(logSame, i+1)
		w.looks(4, 1)
	}
	// What changes no version is not even news.
	news := len(w.lines(logSame))
	w.kvCall("POST", "metadata", "app", map[string]any{"custom_metadata": map[string]string{"owner": "team-a"}, "max_versions": 7})
	w.looks(5, 1)
	if got := len(w.lines(logSame)); got != news {
		t.Errorf("custom metadata is taken for a change")
	}
	w.wantStarts(1)
	w.stop()
}

// A secret that goes away leaves the child alone, with one warning, and one line when it is back; what comes back is taken.
func TestWatchGone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		away func(w *watched)
		back func(w *watched) string
		why  string
	}{
		"delete, undelete": {
			func(w *watched) { w.kvCall("DELETE", "data", "app", nil) },
			func(w *watched) string {
				w.kvCall("POST", "undelete", "app", map[string]any{"versions": []int{1}})
				return ""
			}, "deleted",
		},
		"delete, write": {
			func(w *watched) { w.kvCall("DELETE", "data", "app", nil) },
			func(w *watched) string { return w.fresh("app", "A") }, "deleted",
		},
		"destroy": {
			func(w *watched) { w.kvCall("POST", "destroy", "app", map[string]any{"versions": []int{1}}) },
			func(w *watched) string { return w.fresh("app", "A") }, "destroyed",
		},
		"delete_version_after": {
			func(w *watched) {
				w.kvCall("POST", "metadata", "app", map[string]any{"delete_version_after": "1s"})
				w.fresh("app", "A") // lives for a second
			},
			func(w *watched) string {
				w.kvCall("POST", "metadata", "app", map[string]any{"delete_version_after": "0s"})
				return w.fresh("app", "A")
			}, "deleted",
		},
		"metadata delete, rewrite to the same number": {
			func(w *watched) { w.kvCall("DELETE", "metadata", "app", nil) },
			func(w *watched) string { return w.fresh("app", "A") }, "no such secret",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, 2)
			w.fresh("app", "A")
			w.start("--path", "app")
			w.waitStarts(1)
			c.away(w)
			w.waitLog(logUnused, 1)
			w.looks(6, 1)
			n := len(w.starts()) // delete_version_after may have let the new version be seen
			if n > 1 && name != "delete_version_after" {
				t.Errorf("%d starts", n)
			}
			pid := w.last().pid
			v := c.back(w)
			w.waitLog(logUsable, 1)
			if v != "" {
				w.waitA(v)
			}
			w.looks(3, 1)
			if v == "" && w.last().pid != pid {
				t.Error("restarted without a reason")
			}
			w.stop()
			w.wantLines(1, logUnused)
			w.wantLines(1, logUsable)
			if l := w.lines(logUnused)[0]; !strings.Contains(l.str("msg"), c.why) || l.str("paths") == "" {
				t.Errorf("%v", l)
			}
		})
	}
}

// The same number after a metadata delete, with other data, between two looks: current_version alone would not tell.
func TestWatchRewrittenToTheSameVersion(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.fresh("app", "A")
	w.start("--path", "app", "--interval", "3s", "--refresh-signal", "USR1")
	w.waitStarts(1)
	w.looks(1, 1)
	w.kvCall("DELETE", "metadata", "app", nil)
	v := w.fresh("app", "A")
	w.signal(syscall.SIGUSR1)
	w.waitA(v)
	w.wantLines(0, logUnused)
	if l := w.lines(logRestart)[0]; !strings.Contains(l.str("paths"), "1 → 1") {
		t.Errorf("%v", l)
	}
	w.stop()
}

// A pinned version is left alone; an optional secret that appears later is taken, and one that goes away is left out.
func TestWatchPinnedAndOptional(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	a := w.fresh("pinned", "A")
	b := w.fresh("app", "B")
	w.start("--path", "pinned@1", "--path", "app", "--optional-path", "later")
	w.waitStarts(1)
	w.fresh("pinned", "A")
	w.looks(4, 2)
	w.wantStarts(1)
	c := w.fresh("later", "C")
	w.until("the optional secret", func() bool { return w.last().c == c })
	if got := w.last(); got.a != a || got.b != b {
		t.Error("the pinned version is not the one that was pinned")
	}
	if l := w.lines(logRestart)[0]; !strings.Contains(l.str("paths"), "later absent → 1") {
		t.Errorf("%v", l)
	}
	w.kvCall("DELETE", "data", "later", nil)
	w.until("a child without it", func() bool { return len(w.starts()) == 3 && w.last().c == "" })
	if n := w.proxy.Count(func(r vaulttest.Request) bool { return strings.Contains(r.Path, "metadata/pinned") }); n > 0 {
		t.Errorf("the pinned path was looked at %d times", n)
	}
	w.stop()
}

// Where the policy forbids the metadata the data is looked at, and the metadata is not asked for again and again.
func TestWatchWithoutMetadata(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.srv.Policy(t, w.policy, w.rules(false))
	w.fresh("app", "A")
	w.start("--path", "app")
	w.waitStarts(1)
	w.looks(6, 1)
	v := w.fresh("app", "A")
	w.waitA(v)
	w.looks(6, 1)
	isMeta := func(r vaulttest.Request) bool { return strings.Contains(r.Path, "/metadata/") }
	if n := w.proxy.Count(isMeta); n != 1 {
		t.Errorf("the metadata was asked for %d times, want 1", n)
	}
	w.wantLines(0, logTrouble)
	w.stop()
}

// The cost of watching is one request for each path and interval, on kept connections, and all looks go to the
// metadata.
func TestWatchCost(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	paths := []string{"A", "B", "C", "D"}
	var args []string
	for _, p := range paths {
		w.fresh(p, p)
		args = append(args, "--path", p)
	}
	w.start(args...)
	w.waitStarts(1)
	w.looks(1, 4)
	w.proxy.Forget()
	begin := time.Now()
	w.looks(20, len(paths))
	took := time.Since(begin)
	counts := map[string]int{}
	for _, r := range w.proxy.Requests() {
		counts[r.Path]++
	}
	for path, n := range counts {
		if !strings.Contains(path, "/metadata/") {
			t.Errorf("%s was asked for", path)
		}
		if most := int(took/(180*time.Millisecond)) + 2; n > most {
			t.Errorf("%s: %d requests in %v, want %d at most", path, n, took, most)
		}
	}
	if n := w.proxy.Conns(); n > len(paths) {
		t.Errorf("%d new connections for %d looks", n, 20)
	}
	t.Logf("%d requests and %d new connections in %v for 4 paths at 200 ms", len(w.proxy.Requests()), w.proxy.Conns(), took.Round(time.Millisecond))
	w.stop()
}

// --refresh-signal looks at once and is not forwarded.
func TestWatchRefreshSignal(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.fresh("app", "A")
	w.start("--interval", "1h", "--refresh-signal", "HUP", "--path", "app")
	w.waitStarts(1)
	for range 3 {
		v := w.fresh("app", "A")
		w.signal(syscall.SIGHUP)
		w.waitA(v)
	}
	w.wantStarts(4) // SIGHUP would have ended the noter
	w.stop()
}

// The random delay is visible in the log, and SIGTERM cancels it.
func TestWatchSplay(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.fresh("app", "A")
	w.start("--splay", "24h", "--path", "app")
	w.waitStarts(1)
	w.fresh("app", "A")
	w.waitLog("waits for its turn", 1)
	l := w.lines("waits for its turn")[0]
	d, err := time.ParseDuration(l.str("in"))
	if err != nil || d > 24*time.Hour || l.str("for") != "splay" || !strings.Contains(l.str("paths"), "1 → 2") {
		t.Errorf("%v", l)
	}
	w.stop()
	w.wantStarts(1)
	w.wantLines(1, "a signal ends the command")
}

// --on-change exit: the child is stopped and vaultexec ends with 124, or the code that was asked for.
func TestWatchOnChangeExit(t *testing.T) {
	t.Parallel()
	for arg, code := range map[string]string{"exit": "124", "exit:0": "0", "exit:75": "75"} {
		t.Run(arg, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, 2)
			w.fresh("app", "A")
			w.start("--on-change", arg, "--path", "app")
			w.waitStarts(1)
			w.fresh("app", "A")
			w.finish(code)
			w.wantStarts(1)
			w.wantLines(1, "ending as --on-change exit asks")
		})
	}
}

// --on-change none tells of each change once and does nothing.
func TestWatchOnChangeNone(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.fresh("app", "A")
	w.start("--on-change", "none", "--path", "app")
	w.waitStarts(1)
	for n := 1; n <= 2; n++ {
		w.fresh("app", "A")
		w.waitLog("nothing is done as --on-change none asks", n)
		w.looks(4, 1)
		w.wantLines(n, "nothing is done")
	}
	if l := w.lines("nothing is done"); !strings.Contains(l[1].str("paths"), "2 → 3") {
		t.Errorf("%v", l)
	}
	w.wantStarts(1)
	w.stop()
}

// A child that ends by itself ends vaultexec with its code, whatever Vault does meanwhile: here it takes every
// request and answers none.
func TestWatchChildEnds(t *testing.T) {
	t.Parallel()
	w := newWatched(t, 2)
	w.fresh("app", "A")
	if err := syscall.Mkfifo(filepath.Join(w.dir, "end"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(append([]string{"--timeout", "1h", "--path", "app"}, shell(`echo "start $$|||" >>"$RECORD"; read x <"$HOME/end"; exit 7`)...)...)
	w.waitStarts(1)
	w.proxy.Set(vaulttest.BlackHole)
	w.looks(1, 1)
	if err := os.WriteFile(filepath.Join(w.dir, "end"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.finish("7")
}
