package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// fallbackRig is a rig whose runs keep a last-good copy.
type fallbackRig struct {
	*rig
	file, key string
}

func newFallbackRig(t *testing.T, srv *vaulttest.Server) fallbackRig {
	t.Helper()
	return fallbackIn(rigOn(t, srv))
}

// fallbackIn has the runs of a rig keep a copy.
func fallbackIn(of *rig) fallbackRig {
	t := of.t
	t.Helper()
	r := fallbackRig{rig: of}
	r.file, r.key = filepath.Join(t.TempDir(), "copy"), filepath.Join(t.TempDir(), "key")
	r.makeKey(r.key)
	r.set("VAULTEXEC_FALLBACK="+r.file, "VAULTEXEC_FALLBACK_KEY_FILE="+r.key, "VAULTEXEC_WAIT=0")
	return r
}

func (r fallbackRig) makeKey(file string) {
	r.t.Helper()
	r.start("fallback", "key", file).finish("0").silent()
}

// keyText is the key as it is in its file.
func (r fallbackRig) keyText() string {
	r.t.Helper()
	text, err := os.ReadFile(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// run starts a command that prints a digest of API_KEY, and wants an exit code.
func (r fallbackRig) run(want string, args ...string) *running {
	r.t.Helper()
	return r.start(append(args, "--", "sh", "-c", `printf %s "$API_KEY" | sha256sum`)...).finish(want)
}

func (r fallbackRig) there() bool { _, err := os.Stat(r.file); return err == nil }

// A host is started again while Vault is dead: the command gets what Vault had, by a new process that has the files alone.
func TestFallback(t *testing.T) {
	t.Parallel()
	srv := vaulttest.NewDev(t)
	r := newFallbackRig(t, srv)
	r.set("VAULT_ADDR=" + srv.Addr)
	good := r.run("0").out.String()
	info, err := os.Stat(r.file)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	content, err := os.ReadFile(r.file)
	if err != nil || bytes.Contains(content, []byte(r.value)) || bytes.Contains(content, []byte(r.token)) {
		t.Fatalf("a secret can be read in the file, %v", err)
	}
	r.start("fallback", "show", r.file, "--fallback-key-file", r.key).finish("0")
	r.run("121", "--path", "typo") // a word of another run
	if !r.there() {
		t.Fatal("a run with other paths has removed the copy")
	}
	srv.Kill()
	for _, slash := range []string{"", "/"} { // at the end: the same address
		r.set("VAULT_ADDR=" + srv.Addr + slash)
		j := r.run("0").says(`^vaultexec: warning: Vault is away: the command gets the last-good copy of its secrets age=`)
		if j.out.String() != good {
			t.Errorf("the command has something else:\n%s", vaulttest.Redact(j.out.String()))
		}
		if n := strings.Count(j.err.String(), "\n"); n != 1 {
			t.Errorf("%d lines", n)
		}
	}
	other := filepath.Join(t.TempDir(), "other")
	r.makeKey(other)
	for name, c := range map[string]struct {
		args []string
		env  string
		why  string
	}{
		"another key":       {[]string{"--fallback-key-file", other}, "", "the key is not the one"},
		"another address":   {nil, "VAULT_ADDR=http://127.0.0.1:1", "it is of another Vault, " + srv.Addr},
		"another namespace": {[]string{"--namespace", "team"}, "", "it is of another namespace"},
		"another path":      {[]string{"--path", "other"}, "", "it is of other paths"},
		"too old":           {[]string{"--fallback-max-age", "1ns"}, "", "old, and --fallback-max-age is 1ns"},
		"no copy":           {[]string{"--fallback", filepath.Join(t.TempDir(), "none")}, "", "there is none yet; check --address"},
	} {
		with := r
		with.rig = &rig{t: r.t, bin: r.bin, srv: r.srv, dir: r.dir, env: append(r.env[:len(r.env):len(r.env)], c.env)}
		j := with.run("120", c.args...)
		if said := j.err.String(); !strings.Contains(said, "hint: the last-good copy cannot be used: ") || !strings.Contains(said, c.why) {
			t.Errorf("%s:\n%s", name, j.err.String())
		}
	}
	if !r.there() {
		t.Error("a copy that another run cannot use is gone")
	}
	for i := 0; i < len(content); i += 7 { // all of them: internal/fallback
		bad := bytes.Clone(content)
		bad[i] ^= 4
		if err := os.WriteFile(r.file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if i%21 == 0 {
			r.run("120")
		}
	}
}

// What ends the right to a secret ends its copy, within the run that learns of it. A login that is refused does not.
func TestFallbackIsRemoved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(fallbackRig)
		want   string
		kept   bool
	}{
		"denied": {func(r fallbackRig) {
			r.srv.Must(t, "PUT", "sys/policies/acl/"+r.policy, map[string]string{"policy": "# nothing"})
		}, "121", false},
		"deleted":    {func(r fallbackRig) { r.srv.Must(t, "DELETE", r.mount+"/data/app", nil) }, "122", false},
		"gone":       {func(r fallbackRig) { r.srv.Must(t, "DELETE", r.mount+"/metadata/app", nil) }, "122", false},
		"bad token":  {func(r fallbackRig) { r.set("VAULT_TOKEN=hvs.not-a-token") }, "121", true},
		"refused":    {func(r fallbackRig) { r.set("VAULT_TOKEN=", "VAULTEXEC_ROLE_ID=nobody") }, "121", true},
		"overloaded": {func(r fallbackRig) { r.proxy.Set(vaultError(503, "overloaded")) }, "0", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFallbackRig(t, vaulttest.Dev(t))
			r.run("0")
			c.change(r)
			r.run(c.want)
			if r.there() != c.kept {
				t.Errorf("the copy is there: %v", r.there())
			}
		})
	}
}

// With --watch the command that was started with the copy is left alone when Vault has the same, and restarted when it has something
// else; and a change that is seen is in the copy.
func TestFallbackWhileWatching(t *testing.T) {
	t.Parallel()
	for _, changed := range []bool{false, true} {
		t.Run(fmt.Sprint("changed ", changed), func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, 2)
			file, key := filepath.Join(t.TempDir(), "copy"), filepath.Join(t.TempDir(), "key")
			startRun(t, w.dir, nil, w.bin, "fallback", "key", key).finish("0")
			with := []string{"--fallback", file, "--fallback-key-file", key, "--wait", "0", "--path", "one"}
			v := w.fresh("one", "A")
			w.start(with...)
			w.waitA(v)
			v = w.fresh("one", "A")
			w.waitA(v)
			w.stop()
			if changed {
				w.proxy.Set(vaultError(503, "Vault is sealed"))
			} else {
				w.proxy.Set(vaulttest.Reset)
			}
			n := len(w.starts())
			w.start(with...)
			w.waitStarts(n + 1)
			w.waitA(v)
			w.waitLog("the command gets the last-good copy", 1)
			if changed {
				v = w.fresh("one", "A")
			}
			w.proxy.Clear()
			w.waitLog("the last-good copy is no longer in use", 1)
			w.waitA(v)
			if want := n + 1; !changed && len(w.starts()) != want {
				t.Errorf("%d starts, want %d", len(w.starts()), want)
			}
			// The watch goes on as always, and a policy that is taken away removes the copy.
			v = w.fresh("one", "A")
			w.waitA(v)
			w.srv.Must(t, "PUT", "sys/policies/acl/"+w.policy, map[string]string{"policy": "# nothing"})
			w.until("the end of the copy", func() bool { _, err := os.Stat(file); return err != nil })
			w.stop()
		})
	}
}

// A clock that goes back revives no copy: the newest time that a run has seen is kept in it.
func TestFallbackClockGoesBack(t *testing.T) {
	t.Parallel()
	r := newFallbackRig(t, vaulttest.Dev(t))
	r.run("0")
	r.proxy.Set(vaulttest.Reset)
	begin := time.Now()
	for time.Since(begin) < 2100*time.Millisecond { // times are kept by the second
		r.run("0", "--fallback-max-age", "1h")
	}
	r.run("120", "--fallback-max-age", "1s")
	r.run("0", "--fallback-max-age", "1h")
}

// check says what a run would find in the file, and changes nothing.
func TestFallbackCheck(t *testing.T) {
	t.Parallel()
	r := newFallbackRig(t, vaulttest.Dev(t))
	check := func(want string, args ...string) string {
		t.Helper()
		j := r.start(append([]string{"check"}, args...)...).finish(want)
		return j.out.String() + j.err.String()
	}
	says := func(said, want string) {
		t.Helper()
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing:\n%s", want, vaulttest.Redact(said))
		}
	}
	says(check("0"), r.file+": there is none yet, a run writes it\n")
	if r.there() {
		t.Error("check writes a copy")
	}
	r.run("0")
	says(check("0"), " old, a start without Vault would use it\n")
	says(check("0", "--log-format", "json"), `"fallback":{"file":"`+r.file+`","usable":true,"age_seconds":`)
	if err := os.Rename(r.file, r.file+".right"); err != nil {
		t.Fatal(err)
	}
	vaulttest.WriteFile(t, r.file, "KEY=value\n", 0o600)
	says(check("0"), "cannot be used: it is no last-good copy\n")
	if err := os.Rename(r.file+".right", r.file); err != nil {
		t.Fatal(err)
	}
	r.proxy.Set(vaulttest.Reset)
	before, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	says(check("120"), "a run would start with the last-good copy, which is ")
	says(check("120", "--fallback-max-age", "1ns"), "hint: the last-good copy cannot be used: it is ")
	if after, err := os.ReadFile(r.file); err != nil || !bytes.Equal(after, before) {
		t.Errorf("check changes the copy, %v", err)
	}
}

// Two runs with other paths have one file: the second says that it takes the first one's place. A run as before says nothing.
func TestFallbackOfTwoRuns(t *testing.T) {
	t.Parallel()
	r := newFallbackRig(t, vaulttest.Dev(t))
	r.set("VAULT_TOKEN="+r.srv.RootToken, "VAULTEXEC_PATH=")
	r.srv.PutKV(t, r.mount, "other", map[string]any{"OTHER": vaulttest.Canary("other")})
	run := func(path string) *running {
		t.Helper()
		return r.start("--path", path, "--", "true").finish("0")
	}
	run("app").silent()
	run("app").silent()
	run("other").says(`^vaultexec: warning: the last-good copy of another run is replaced: it is of other paths: \S+/app file=`)
	run("other").silent()
}

// Folders, optional paths and references come out of the copy as they came from Vault.
func TestFallbackOfEverything(t *testing.T) {
	t.Parallel()
	r := newFallbackRig(t, vaulttest.Dev(t))
	r.set("VAULT_TOKEN="+r.srv.RootToken, "VAULTEXEC_PATH=")
	r.srv.PutKV(t, r.mount, "team/a", map[string]any{"TEAM_A": vaulttest.Canary("a"), "OBJECT": map[string]any{"b": []int{1, 2}}})
	r.srv.PutKV(t, r.mount, "team/b", map[string]any{"TEAM_B": vaulttest.Canary("b") + "\n \"'$"})
	run := func(want string) string {
		t.Helper()
		return r.start("--path", "team/*", "--optional-path", "none", "--env", "KEY=app#API_KEY", "--env", "TEXT=<${app#API_KEY|base64}>", "--clean-env",
			"--", "/bin/sh", "-c", "/usr/bin/env | /usr/bin/sort | /usr/bin/sha256sum").finish(want).out.String()
	}
	good := run("0")
	r.proxy.Set(vaulttest.Reset)
	if got := run("0"); got != good {
		t.Error("the environment differs")
	}
	r.start("fallback", "show", r.file, "--fallback-key-file", r.key).finish("0")
	r.proxy.Clear()
	r.srv.Must(t, "DELETE", r.mount+"/metadata/team/b", nil)
	if got := run("0"); got == good {
		t.Error("control: a secret less, and nothing differs")
	}
}

// What is deleted is out of the copy as soon as the watch sees it, however long the command may still run with it.
func TestFallbackIsRemovedWhileWatching(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kv   int
		with []string
		gone func(*watched)
	}{
		"deleted":          {2, []string{"--path", "one"}, func(w *watched) { w.kvCall("DELETE", "data", "one", nil) }},
		"destroyed":        {2, []string{"--path", "one"}, func(w *watched) { w.kvCall("PUT", "destroy", "one", map[string]any{"versions": []int{1}}) }},
		"metadata deleted": {2, []string{"--path", "one"}, func(w *watched) { w.kvCall("DELETE", "metadata", "one", nil) }},
		"optional":         {2, []string{"--path", "two", "--optional-path", "one"}, func(w *watched) { w.kvCall("DELETE", "data", "one", nil) }},
		"KV 1":             {1, []string{"--path", "one"}, func(w *watched) { w.srv.Must(w.t, "DELETE", w.mount+"/one", nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, c.kv)
			file, key := filepath.Join(t.TempDir(), "copy"), filepath.Join(t.TempDir(), "key")
			startRun(t, w.dir, nil, w.bin, "fallback", "key", key).finish("0")
			w.put("two", "B=b")
			v := w.fresh("one", "A")
			w.start(append([]string{"--fallback", file, "--fallback-key-file", key, "--min-uptime", "1h"}, c.with...)...)
			w.waitA(v)
			if _, err := os.Stat(file); err != nil {
				t.Fatal(err)
			}
			c.gone(w)
			w.until("the end of the copy", func() bool { _, err := os.Stat(file); return err != nil })
			w.waitLog("the last-good copy is removed: cannot read", 1)
			w.waitLog("the change waits for its turn", 1)
			if n := len(w.starts()); n != 1 {
				t.Errorf("%d starts", n)
			}
			w.stop()
		})
	}
}

// A version that deletes itself is not in what the copy gives after that time.
func TestFallbackOfWhatDeletesItself(t *testing.T) {
	t.Parallel()
	r := newFallbackRig(t, vaulttest.Dev(t))
	r.set("VAULT_TOKEN="+r.srv.RootToken, "VAULTEXEC_PATH=")
	r.srv.Must(t, "POST", r.mount+"/metadata/brief", map[string]any{"delete_version_after": "5s"})
	r.srv.PutKV(t, r.mount, "brief", map[string]any{"BRIEF": vaulttest.Canary("brief")})
	written := time.Now()
	optional := newFallbackRig(t, r.srv)
	optional.rig = r.rig
	with := func(want string, r fallbackRig, kind string) *running {
		t.Helper()
		return r.start("--fallback", r.file, "--fallback-key-file", r.key, "--path", "app", kind, "brief", "--", "sh", "-c", `test -n "$BRIEF"`).finish(want)
	}
	with("0", r, "--path")
	with("0", optional, "--optional-path")
	r.proxy.Set(vaulttest.Reset)
	wait.Until(t, time.Minute, "the end of the version", func() bool { return time.Since(written) > 6*time.Second })
	with("120", r, "--path").says(`hint: the last-good copy cannot be used: cannot read \S+/brief: version 1 was deleted at`)
	with("1", optional, "--optional-path")
}

// A copy does not keep what is deleted, only because what is left makes no environment.
func TestFallbackIsPruned(t *testing.T) {
	t.Parallel()
	r := newFallbackRig(t, vaulttest.Dev(t))
	r.set("VAULT_TOKEN="+r.srv.RootToken, "VAULTEXEC_PATH=")
	r.srv.PutKV(t, r.mount, "team/a", map[string]any{"TEAM_A": vaulttest.Canary("a")})
	r.srv.PutKV(t, r.mount, "team/b", map[string]any{"TEAM_B": vaulttest.Canary("b")})
	run := func(want string) {
		t.Helper()
		r.start("--path", "app", "--path", "team/*", "--optional-path", "more", "--", "true").finish(want)
	}
	run("0")
	r.srv.PutKV(t, r.mount, "app", map[string]any{"not a name": "1"})
	run("123")
	if !r.there() {
		t.Fatal("control: nothing is deleted, and the copy is gone")
	}
	r.srv.Must(t, "DELETE", r.mount+"/metadata/team/b", nil)
	run("123")
	if r.there() {
		t.Error("the copy still has what is deleted")
	}
}
