package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// ended is what a run of the built program left.
type ended struct {
	code        int // -1 when a signal ended it
	out, errOut string
}

// invocation is a run of the built program with an environment of its own.
type invocation struct {
	args  []string
	env   []string
	stdin string
	dir   string
}

// start starts the program. What it prints is in the two buffers when Wait has returned.
func (i invocation) start(t *testing.T) (cmd *exec.Cmd, out, errOut *bytes.Buffer) {
	t.Helper()
	cmd = exec.Command(vaulttest.BuildStatic(t, "."), i.args...)
	cmd.Dir = i.dir
	if cmd.Dir == "" {
		cmd.Dir = t.TempDir()
	}
	cmd.Env = append([]string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "GORACE=" + vaulttest.Gorace}, i.env...)
	cmd.Stdin = strings.NewReader(i.stdin)
	out, errOut = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errOut
	if err := vaulttest.StartTied(cmd); err != nil {
		t.Fatal(err)
	}
	return cmd, out, errOut
}

func (i invocation) run(t *testing.T) ended {
	t.Helper()
	cmd, out, errOut := i.start(t)
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ended{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// must runs and fails the test unless the program ends with 0.
func (i invocation) must(t *testing.T) ended {
	t.Helper()
	e := i.run(t)
	if e.code != 0 {
		t.Fatalf("vaultexec %s ended with %d\n%s%s", strings.Join(i.args, " "), e.code, vaulttest.Redact(e.out), vaulttest.Redact(e.errOut))
	}
	return e
}

// secretAt reads a secret past the product.
func secretAt(t *testing.T, srv *vaulttest.Server, mount, path string) (version string, data map[string]string) {
	t.Helper()
	out := srv.Must(t, "GET", mount+"/data/"+path, nil)
	outer, _ := out["data"].(map[string]any)
	meta, _ := outer["metadata"].(map[string]any)
	values, _ := outer["data"].(map[string]any)
	data = map[string]string{}
	for k, v := range values {
		data[k], _ = v.(string)
		vaulttest.Secret(data[k])
	}
	return fmt.Sprint(meta["version"]), data
}

// Twenty rotations at once of twenty keys of one path: all arrive, whichever way the policy lets them go.
func TestTwentyRotationsAtOnce(t *testing.T) {
	srv := vaulttest.Dev(t)
	for name, capabilities := range map[string]string{
		"patch": `"read", "patch"`, "check-and-set": `"read", "update"`, "patch only": `"patch"`,
	} {
		t.Run(name, func(t *testing.T) {
			sc := srv.Scope(t)
			mount := sc.Mount(2)
			before := map[string]any{"OTHER": vaulttest.Canary("other")}
			for i := range 20 {
				before[fmt.Sprint("KEY_", i)] = vaulttest.Canary("old")
			}
			srv.PutKV(t, mount, "app", before)
			policy := sc.Policy(fmt.Sprintf("path %q { capabilities = [%s] }", mount+"/data/*", capabilities))
			token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
			var wg sync.WaitGroup
			values := make([]string, 20)
			for i := range values {
				values[i] = vaulttest.Canary("new")
				wg.Go(func() {
					e := invocation{args: []string{"rotate", "--mount", mount, "app", fmt.Sprint("KEY_", i), "-"}, stdin: values[i] + "\n",
						env: []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token}}.run(t)
					if e.code != 0 || strings.Contains(e.out+e.errOut, "canary") {
						t.Errorf("rotation %d ended with %d: %s%s", i, e.code, vaulttest.Redact(e.out), vaulttest.Redact(e.errOut))
					}
				})
			}
			wg.Wait()
			version, after := secretAt(t, srv, mount, "app")
			if version != "21" {
				t.Errorf("version %s, want 21", version)
			}
			if len(after) != 21 || after["OTHER"] != before["OTHER"] {
				t.Errorf("%d keys, want 21", len(after))
			}
			for i, v := range values {
				if after[fmt.Sprint("KEY_", i)] != v {
					t.Errorf("KEY_%d was lost", i)
				}
			}
		})
	}
}

// Ten changes by set, each of which takes a key away, too, and ten rollbacks of one key, all at once: none is lost.
func TestTwentyChangesAtOnce(t *testing.T) {
	srv := vaulttest.Dev(t)
	for name, capabilities := range map[string]string{"patch": `"read", "patch"`, "check-and-set": `"read", "update"`} {
		t.Run(name, func(t *testing.T) {
			sc := srv.Scope(t)
			mount := sc.Mount(2)
			srv.Must(t, "POST", mount+"/config", map[string]any{"max_versions": 50})
			first, second := map[string]string{}, map[string]string{"OTHER": vaulttest.Canary("other")}
			for i := range 10 {
				back, set, gone := fmt.Sprint("BACK_", i), fmt.Sprint("SET_", i), fmt.Sprint("GONE_", i)
				first[back] = vaulttest.Canary("first")
				second[back], second[set], second[gone] = vaulttest.Canary("bad"), vaulttest.Canary("old"), vaulttest.Canary("gone")
			}
			srv.PutKV(t, mount, "app", first)
			srv.PutKV(t, mount, "app", second)
			policy := sc.Policy(fmt.Sprintf("path %q { capabilities = [%s] }", mount+"/data/*", capabilities))
			token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
			want := map[string]string{"OTHER": second["OTHER"]}
			var wg sync.WaitGroup
			change := func(stdin string, args ...string) {
				wg.Go(func() {
					e := invocation{args: append([]string{"--mount", mount}, args...), stdin: stdin,
						env: []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token}}.run(t)
					if e.code != 0 || strings.Contains(e.out+e.errOut, "canary") || !strings.Contains(e.out, ", verified") {
						t.Errorf("%s ended with %d: %s%s", args, e.code, vaulttest.Redact(e.out), vaulttest.Redact(e.errOut))
					}
				})
			}
			for i := range 10 {
				back, set := fmt.Sprint("BACK_", i), fmt.Sprint("SET_", i)
				want[back], want[set] = first[back], vaulttest.Canary("new")
				change(want[set], "set", "app", set+"=-", "--delete", fmt.Sprint("GONE_", i))
				change("", "rollback", "app", "--to", "1", "--key", back)
			}
			wg.Wait()
			version, after := secretAt(t, srv, mount, "app")
			if version != "22" {
				t.Errorf("version %s, want 22", version)
			}
			for key, value := range want {
				if after[key] != value {
					t.Errorf("%s was lost", key)
				}
			}
			if len(after) != len(want) {
				t.Errorf("%d keys, want %d", len(after), len(want))
			}
		})
	}
}

// A SIGKILL at any point leaves the old or the new version, whole. What is changed in Vault is changed by a request, so that
// the points are: before each request, and after it with its answer unread.
func TestKilledAtAnyPoint(t *testing.T) {
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	dotenv := filepath.Join(t.TempDir(), ".env")
	for _, c := range []struct {
		name, capabilities string
		args               []string
		file, earlier      bool // what is wanted is in a file, or was in the version before
	}{
		{"rotate by patch", `"read", "patch"`, []string{"rotate", "app", "A", "-"}, false, false},
		{"rotate by check-and-set", `"read", "update"`, []string{"rotate", "app", "A", "-"}, false, false},
		{"set by patch", `"read", "patch"`, []string{"set", "app", "A=-"}, false, false},
		{"set by check-and-set", `"read", "update"`, []string{"set", "app", "A=-"}, false, false},
		{"rollback by patch", `"read", "patch"`, []string{"rollback", "app"}, false, true},
		{"rollback by check-and-set", `"read", "update"`, []string{"rollback", "app"}, false, true},
		{"import", `"read", "update"`, []string{"import", "app", dotenv, "--overwrite"}, true, false},
		{"import --replace", `"read", "update"`, []string{"import", "app", dotenv, "--replace"}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			mount := sc.Mount(2)
			policy := sc.Policy(fmt.Sprintf("path %q { capabilities = [%s] }", mount+"/data/*", c.capabilities))
			token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
			old := map[string]string{"A": vaulttest.Canary("A"), "B": vaulttest.Canary("B")}
			outcomes := map[bool]int{}
			for point := 0; ; point++ {
				wanted := map[string]string{"A": vaulttest.Canary("newA"), "B": old["B"]}
				if c.file || c.earlier {
					wanted["B"] = vaulttest.Canary("newB")
				}
				if c.earlier {
					srv.PutKV(t, mount, "app", wanted)
				}
				srv.PutKV(t, mount, "app", old)
				at, _ := secretAt(t, srv, mount, "app")
				if c.file {
					text := fmt.Sprintf("A=%s\nB=%s\n", wanted["A"], wanted["B"])
					if err := os.WriteFile(dotenv, []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				reached := killAt(t, srv, point, func(addr string) *exec.Cmd {
					cmd, _, _ := invocation{args: append([]string{"--mount", mount}, c.args...), stdin: wanted["A"],
						env: []string{"VAULT_ADDR=" + addr, "VAULT_TOKEN=" + token}}.start(t)
					return cmd
				})
				version, data := secretAt(t, srv, mount, "app")
				switch {
				case version == at && data["A"] == old["A"] && data["B"] == old["B"] && len(data) == 2:
					outcomes[false]++
				case version != at && data["A"] == wanted["A"] && data["B"] == wanted["B"] && len(data) == 2:
					outcomes[true]++
				default:
					t.Errorf("killed at point %d it is neither old nor new (version %s, before %s)", point, version, at)
				}
				if !reached {
					break
				}
			}
			if outcomes[false] == 0 || outcomes[true] < 2 {
				t.Errorf("%d times old and %d times new: the points do not cover the write", outcomes[false], outcomes[true])
			}
		})
	}
}

// killAt runs a program against a proxy and kills it at a point: an even one is before a request is handed on, an odd one
// after. It reports whether the program got there.
func killAt(t *testing.T, srv *vaulttest.Server, point int, start func(addr string) *exec.Cmd) bool {
	t.Helper()
	proxy := vaulttest.NewProxy(t, srv)
	var (
		mu      sync.Mutex
		n       int
		cmd     *exec.Cmd
		reached bool
	)
	proxy.Set(func(_ *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		defer mu.Unlock()
		kill := func(p int) {
			if p == point {
				reached = true
				_ = cmd.Process.Kill()
				panic(http.ErrAbortHandler)
			}
		}
		kill(2 * n)
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		kill(2*n + 1)
		n++
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
	mu.Lock()
	cmd = start(proxy.Addr)
	mu.Unlock()
	err := cmd.Wait()
	mu.Lock()
	defer mu.Unlock()
	if !reached && err != nil {
		t.Errorf("not killed, and ended with %v", err)
	}
	return reached
}

// The answer to the write is lost. It was carried out, and is not done twice.
func TestLostAnswerIsNotWrittenTwice(t *testing.T) {
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	for _, command := range [][]string{{"rotate", "app", "A"}, {"set", "app", "A=-"}, {"rollback", "app"}} {
		for _, capabilities := range []string{`"read", "patch"`, `"read", "update"`} {
			lostAnswer(t, srv, sc, command, capabilities)
		}
	}
}

func lostAnswer(t *testing.T, srv *vaulttest.Server, sc *vaulttest.Scope, command []string, capabilities string) {
	t.Helper()
	mount := sc.Mount(2)
	for range 2 {
		srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("A"), "B": vaulttest.Canary("B")})
	}
	policy := sc.Policy(fmt.Sprintf("path %q { capabilities = [%s] }", mount+"/data/*", capabilities))
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
	proxy := vaulttest.NewProxy(t, srv)
	lose := func(p *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		if rec.Code != http.StatusOK { // a PATCH that the policy denies
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
			return
		}
		vaulttest.Reset(p, w, r, next)
	}
	writes := func(r *http.Request) bool { return r.Method == "PATCH" || r.Method == "POST" }
	n := 2 // the denied PATCH comes first
	if strings.Contains(capabilities, "patch") {
		n = 1
	}
	proxy.On(writes, vaulttest.First(n, lose, vaulttest.Pass))
	e := invocation{args: append([]string{"--mount", mount}, command...), stdin: vaulttest.Canary("typed"), env: []string{"VAULT_ADDR=" + proxy.Addr, "VAULT_TOKEN=" + token}}.must(t)
	if version, _ := secretAt(t, srv, mount, "app"); version != "3" || !regexp.MustCompile(`version 2 → 3,.* verified`).MatchString(e.out) {
		t.Errorf("%s, %s: version %s, and it says %s", command[0], capabilities, version, e.out)
	}
}

// Somebody else writes between our read and our write: we lose the race, look again, and keep their key.
func TestLostRaceKeepsTheOthersKey(t *testing.T) {
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("A")})
	policy := sc.Policy(fmt.Sprintf(`path %q { capabilities = ["read", "update"] }`, mount+"/data/*"))
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
	proxy := vaulttest.NewProxy(t, srv)
	theirs := vaulttest.Canary("theirs")
	interfere := func(p *vaulttest.Proxy, w http.ResponseWriter, r *http.Request, next http.Handler) {
		_, data := secretAt(t, srv, mount, "app")
		data["THEIRS"] = theirs
		srv.PutKV(t, mount, "app", data)
		next.ServeHTTP(w, r)
	}
	proxy.On(func(r *http.Request) bool { return r.Method == "POST" }, vaulttest.First(3, interfere, vaulttest.Pass))
	e := invocation{args: []string{"rotate", "--mount", mount, "app", "A"}, env: []string{"VAULT_ADDR=" + proxy.Addr, "VAULT_TOKEN=" + token}}.must(t)
	if !strings.Contains(e.out, "version 4 → 5, verified") {
		t.Error(e.out)
	}
	if _, data := secretAt(t, srv, mount, "app"); data["THEIRS"] != theirs {
		t.Error("their key was lost")
	}
}

// A replica shows the new version late.
func TestReadBackWaitsForAReplica(t *testing.T) {
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("A")})
	proxy := vaulttest.NewProxy(t, srv)
	late := func(_ *vaulttest.Proxy, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		vaulttest.Errors(http.StatusNotFound)(nil, w, nil, nil)
	}
	proxy.On(func(r *http.Request) bool { return r.URL.Query().Get("version") == "2" }, vaulttest.First(3, late, vaulttest.Pass))
	e := invocation{args: []string{"rotate", "--mount", mount, "app", "A", "--json"}, env: []string{"VAULT_ADDR=" + proxy.Addr, "VAULT_TOKEN=" + srv.RootToken}}.must(t)
	var r struct {
		New      int  `json:"new_version"`
		Verified bool `json:"verified"`
	}
	if err := json.Unmarshal([]byte(e.out), &r); err != nil || !r.Verified || r.New != 2 {
		t.Error(err, e.out)
	}
}

// A signal ends a command that waits, at once and by that signal.
func TestInterrupted(t *testing.T) {
	srv := vaulttest.Dev(t)
	proxy := vaulttest.NewProxy(t, srv)
	proxy.Set(vaulttest.BlackHole)
	cmd, _, _ := invocation{args: []string{"rotate", "app", "A"}, env: []string{"VAULT_ADDR=" + proxy.Addr, "VAULT_TOKEN=" + srv.RootToken}}.start(t)
	proxy.WaitRequests(t, 1)
	start := time.Now()
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if got := vaulttest.Ending(cmd.ProcessState); got != "signal INT" || time.Since(start) > 5*time.Second {
		t.Errorf("ended with %s after %v", got, time.Since(start))
	}
}

// Writers that never stop are given up after half a minute, with nothing lost and nothing written.
func TestRaceThatIsNeverWon(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("A")})
	policy := sc.Policy(fmt.Sprintf(`path %q { capabilities = ["read", "update"] }`, mount+"/data/*"))
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
	proxy := vaulttest.NewProxy(t, srv)
	written := func(r *http.Request) bool { return r.Method == http.MethodPost }
	proxy.On(written, vaulttest.Errors(http.StatusBadRequest, "check-and-set parameter did not match the current version"))
	begin := time.Now()
	e := invocation{args: []string{"rotate", "--mount", mount, "app", "A"}, env: []string{"VAULT_ADDR=" + proxy.Addr, "VAULT_TOKEN=" + token}}.run(t)
	e.check(t, "a race that is never won", 123, "others kept changing it at the same time", "try again when they have finished")
	if d := time.Since(begin); d < 30*time.Second {
		t.Errorf("given up after %v", d)
	}
	if n := proxy.Count(func(r vaulttest.Request) bool { return r.Method == http.MethodPost }); n < 20 {
		t.Errorf("%d tries", n)
	}
	if version, _ := secretAt(t, srv, mount, "app"); version != "1" {
		t.Errorf("version %s", version)
	}
}

// A token that is used up by the write: what was written is not written again with another one.
func TestUsedUpTokenWritesOnce(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	mount := sc.Mount(2)
	srv.PutKV(t, mount, "app", map[string]string{"A": vaulttest.Canary("A")})
	auth, role, roleID, secretID := sc.AppRole(sc.Policy(fmt.Sprintf(`path %q { capabilities = ["read", "patch"] }`, mount+"/data/*")))
	srv.Must(t, "POST", "auth/"+auth+"/role/"+role, map[string]any{"token_num_uses": 2}) // the look and the write
	e := invocation{args: []string{"rotate", "--mount", mount, "--auth-mount", auth, "app", "A", "--json"},
		env: []string{"VAULT_ADDR=" + srv.Addr, "VAULTEXEC_ROLE_ID=" + roleID, "VAULTEXEC_SECRET_ID=" + secretID}}.run(t)
	e.check(t, "a token that is used up", 121, `"new_version":2`, `"verified":false`, "the token is not valid")
	if strings.Count(e.out, "\n") != 1 {
		t.Errorf("two reports:\n%s", e.out)
	}
	if version, _ := secretAt(t, srv, mount, "app"); version != "2" {
		t.Errorf("version %s, want 2", version)
	}
}
