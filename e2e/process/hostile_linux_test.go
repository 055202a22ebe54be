package process

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// Whatever answers in Vault's place, vaultexec stays within 64 MiB, and the command runs on: it is what the kernel would end
// together with vaultexec. Each answer is given to every request, and then to the reads of the secret alone, for which the look
// before has found something new.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[http2], func(t *testing.T) {
			t.Parallel()
			testHostileAnswers(t, http2)
		})
	}
}

func testHostileAnswers(t *testing.T, http2 bool) {
	r := actual{t}
	w := newWatched(t, "--timeout", "2s", "--log-level", "debug")
	w.launcher[0] = vaulttest.BuildStatic(t, ".") // the race detector takes several times the memory
	target, err := url.Parse(w.srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	vault := httputil.NewSingleHostReverseProxy(target)
	var hostile atomic.Pointer[vaulttest.Hostility]
	var reads atomic.Bool // only these are answered so
	var served atomic.Int64
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		if http2 != (req.ProtoMajor == 2) {
			t.Errorf("a request by %s", req.Proto)
		}
		h := hostile.Load()
		if h == nil || reads.Load() && !strings.Contains(req.URL.Path, "/data/") {
			vault.ServeHTTP(rw, req)
			return
		}
		served.Add(1)
		h.Serve(rw, req)
	}))
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if http2 {
		front.EnableHTTP2 = true
		front.StartTLS()
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		front.Start()
	}
	defer front.Close()
	defer front.CloseClientConnections()
	p := start(r, w.launcher.cmd("sh", "-c", `echo up $GENERATION; while :; do sleep 0.01; done`), func(c *exec.Cmd) {
		c.Env = append(c.Env, w.env...)
		c.Env = append(c.Env, "VAULT_ADDR="+front.URL)
		if http2 {
			c.Env = append(c.Env, "VAULT_CACERT="+ca)
		}
	})
	p.out.await(1)
	child := childOf(r, p.pid)
	var worst []string
	most := 0
	all := func() {
		for _, h := range vaulttest.Hostile() {
			before := served.Load()
			hostile.Store(&h)
			w.refresh(t, p.pid)
			until(r, "a request that is answered with "+h.Name, func() bool { return served.Load() > before })
			if kb := statusField(t, p.pid, "VmHWM"); kb > most {
				most = kb
				worst = append(worst, fmt.Sprintf("%d kB after %s", kb, h.Name))
			}
			if !alive(child) {
				t.Fatalf("after %s the command is no longer there: %s", h.Name, vaulttest.Redact(p.err.String()))
			}
		}
	}
	all()
	reads.Store(true)
	w.change(t, 2)
	all()
	if most > 64<<10 {
		t.Errorf("it took %d kB, want 64 MiB at most:\n%s", most, strings.Join(worst, "\n"))
	}
	t.Logf("%d kB at the most", most)
	for _, line := range strings.Split(p.err.String(), "\n") {
		if len(line) > 3<<10 {
			t.Errorf("a line of %d bytes: %s…", len(line), vaulttest.Redact(line[:200]))
		}
	}
	if !alive(child) {
		t.Error("the command was restarted")
	}
	hostile.Store(nil)
	w.refresh(t, p.pid)
	if got := p.out.await(2); got[1] != "up 2" {
		t.Errorf("at last it said %q", got[1])
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}
