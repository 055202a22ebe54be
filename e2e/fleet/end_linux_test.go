package fleet

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// loggedIn is where members log in, so that each has a token of its own.
type loggedIn struct {
	srv   *vaulttest.Server
	mount string
	args  []string
}

func (f *fleet) login() *loggedIn {
	f.t.Helper()
	scope := f.srv.Scope(f.t)
	mount, _, roleID, secretID := scope.AppRole(scope.Policy("path \"" + f.mount + "/*\" { capabilities = [\"read\"] }"))
	file := filepath.Join(f.dir, "secret-id")
	if err := os.WriteFile(file, []byte(secretID), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return &loggedIn{srv: f.srv, mount: mount, args: []string{"--auth", "approle", "--auth-mount", mount, "--role-id", roleID, "--secret-id-file", file}}
}

// tokens counts those that came from there.
func (l *loggedIn) tokens(t *testing.T) (n int) {
	t.Helper()
	_, list := l.srv.Do(t, "LIST", "auth/token/accessors", nil)
	data, _ := list["data"].(map[string]any)
	keys, _ := data["keys"].([]any)
	for _, key := range keys {
		_, out := l.srv.Do(t, "POST", "auth/token/lookup-accessor", map[string]any{"accessor": key})
		if found, _ := out["data"].(map[string]any); found["path"] == "auth/"+l.mount+"/login" {
			n++
		}
	}
	return n
}

// An engine that does not answer any more takes nothing from the end of a process that holds a place: its token is revoked.
func TestEndWhileTheEngineIsFrozen(t *testing.T) {
	onEach(t, 1, true, func(t *testing.T, l lock) {
		f := newFleet(t, l)
		in := f.login()
		f.token = ""
		p := f.launch(nil, append(in.args, "--probation", "60s")...)
		f.until("it runs", func() bool { return f.have("first") == 1 })
		f.put("good-2")
		f.until("it has the new secret, with a place", func() bool { return f.have("good-2") == 1 && len(l.holders()) == 1 })
		if n := in.tokens(t); n != 1 {
			t.Fatalf("%d tokens while it runs", n)
		}
		l.engine().Freeze()
		t.Cleanup(l.engine().Thaw)
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		<-p.done
		if n := in.tokens(t); n != 0 {
			t.Errorf("%d tokens after the end", n)
		}
	})
}
