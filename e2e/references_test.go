package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// References are watched like every other source: a text of two secrets, an inherited variable, one of a file. A change of a
// key that none of them names restarts nothing.
func TestWatchReferences(t *testing.T) {
	t.Parallel()
	for _, kv := range []int{1, 2} {
		t.Run(map[int]string{1: "kv1", 2: "kv2"}[kv], func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, kv)
			user, pass := vaulttest.Canary("user"), vaulttest.Canary("p")
			w.put("database", "USER="+user, "PASS="+pass)
			b, c := w.fresh("b", "K"), w.fresh("c", "K")
			vaulttest.WriteFile(t, filepath.Join(w.dir, "refs.env"), "C=vault:c#K\nA=plain\n", 0o600)
			w.env = []string{"B=[${vault:/" + w.mount + "/b#K}]"}
			w.start("--resolve-env", "--env-file", filepath.Join(w.dir, "refs.env"), "--env", "A=${database#USER}:${database#PASS|url}@${c#K}")
			text := func(pass string) string { return user + ":" + strings.ReplaceAll(pass, "/", "%2F") + "@" + c }
			w.until("the first start", func() bool { return w.last().a == text(pass) })
			if got := w.last(); got.b != "["+b+"]" || got.c != c {
				t.Error("the references of B and C are not resolved")
			}
			pass = vaulttest.Canary("p") + "/x"
			w.put("database", "USER="+user, "PASS="+pass)
			w.until("the text's change", func() bool { return w.last().a == text(pass) })
			b = w.fresh("b", "K")
			w.until("the inherited variable's change", func() bool { return w.last().b == "["+b+"]" })
			c = w.fresh("c", "K")
			w.until("the change of one in two", func() bool { return w.last().c == c && w.last().a == text(pass) })
			w.put("database", "USER="+user, "PASS="+pass, "OTHER="+vaulttest.Canary("other"))
			w.waitLog(logSame, 1)
			w.wantStarts(4)
			w.stop()
		})
	}
}
