package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// chromium is a browser without a screen, steered through two pipes (--remote-debugging-pipe: JSON with a zero byte after
// each message).
type chromium struct {
	t       *testing.T
	cmd     *exec.Cmd
	to      *os.File
	from    *bufio.Reader
	n       int
	session string
	profile string
}

func newChromium(t *testing.T) *chromium {
	t.Helper()
	c := &chromium{t: t, profile: t.TempDir()}
	toRead, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, fromWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(needs.Program(t, "chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
		"--user-data-dir="+c.profile, "--remote-debugging-pipe", "about:blank")
	c.cmd.ExtraFiles = []*os.File{toRead, fromWrite}
	c.cmd.Env = append(os.Environ(), "HOME="+c.profile, "TMPDIR="+t.TempDir())
	if err := vaulttest.StartTied(c.cmd); err != nil {
		t.Fatal(err)
	}
	toRead.Close()
	fromWrite.Close()
	c.to, c.from = to, bufio.NewReaderSize(from, 1<<20)
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		to.Close()
		from.Close()
	})
	target := c.call("Target.createTarget", map[string]any{"url": "about:blank"})
	c.session, _ = c.call("Target.attachToTarget", map[string]any{"targetId": target["targetId"], "flatten": true})["sessionId"].(string)
	return c
}

// call sends a command and returns its result.
func (c *chromium) call(method string, params map[string]any) map[string]any {
	c.t.Helper()
	c.n++
	m := map[string]any{"id": c.n, "method": method, "params": params}
	if c.session != "" && !strings.HasPrefix(method, "Browser.") {
		m["sessionId"] = c.session
	}
	b, err := json.Marshal(m)
	if err == nil {
		_, err = c.to.Write(append(b, 0))
	}
	if err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	for {
		line, err := c.from.ReadBytes(0)
		if err != nil {
			if method == "Browser.close" {
				return nil
			}
			c.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int             `json:"id"`
			Result map[string]any  `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err := json.Unmarshal(bytes.TrimSuffix(line, []byte{0}), &answer); err != nil {
			c.t.Fatalf("%s: %v", method, err)
		}
		if answer.ID == c.n {
			if answer.Error != nil {
				c.t.Fatalf("%s: %s", method, answer.Error)
			}
			return answer.Result
		}
	}
}

// eval is the value of an expression in the page, as text; "" while there is none.
func (c *chromium) eval(expression string) string {
	c.t.Helper()
	result, _ := c.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true})["result"].(map[string]any)
	if result["value"] == nil {
		return ""
	}
	return fmt.Sprint(result["value"])
}

// await waits until an expression is true in the page.
func (c *chromium) await(expression string) {
	c.t.Helper()
	wait.Until(c.t, time.Minute, expression+" in the browser", func() bool { return c.eval(expression) == "true" })
}

// logIn goes to an address, fills in the form and clicks.
func (c *chromium) logIn(address, user, password string) {
	c.t.Helper()
	c.call("Page.navigate", map[string]any{"url": address})
	c.await("document.querySelector('#go') !== null && document.readyState == 'complete'")
	c.eval(fmt.Sprintf("document.querySelector('#user').value = %q; document.querySelector('#password').value = %q; document.querySelector('#go').click()", user, password))
}

// history is everything that the browser has kept, once it has ended.
func (c *chromium) history() string {
	c.t.Helper()
	c.call("Browser.close", nil)
	_ = c.cmd.Wait()
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(c.profile, "Default", "*"))
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			all.Write(b)
		}
	}
	return all.String()
}

// From the click in the browser to the running command, at a terminal.
func TestOIDCInChromium(t *testing.T) {
	needs.Program(t, "chromium")
	r := newOIDCRig(t)
	c := newChromium(t)
	p := ptytest.Shell(t, 2*time.Minute, r.env)
	p.Run(r.bin + ` --auth oidc --supervise -- sh -c 'echo "got <$API_KEY>" >` + r.dir + `/got; echo "it runs"'`)
	address := r.address(t)
	c.logIn(address, r.user, r.password)
	p.Expect("it runs")
	p.ExpectStatus(0)
	c.await("document.title == 'vaultexec: You are logged in'")
	if n := c.eval("performance.getEntriesByType('resource').filter(e => !e.name.endsWith('/favicon.ico')).length"); n != "0" {
		t.Errorf("the page loads %s files", n)
	}
	if got, err := os.ReadFile(filepath.Join(r.dir, "got")); err != nil || string(got) != "got <"+r.value+">\n" {
		t.Errorf("the command got %q: %v", vaulttest.Redact(string(got)), err)
	}
	if vaulttest.Exists(filepath.Join(r.dir, ".vault-token")) {
		t.Error("a run stores its token")
	}
	if n := r.tokens(t); n != 0 {
		t.Errorf("%d tokens are left behind", n)
	}
	if out := p.Output(); vaulttest.Redact(out) != out {
		t.Errorf("a secret is printed:\n%s", p)
	}
	callback := c.eval("location.href")
	history := c.history()
	if !strings.Contains(history, "localhost:"+r.port+"/oidc/callback") {
		t.Fatal("the history that is looked into has nothing in it")
	}
	if vaulttest.Redact(history) != history {
		t.Error("the browser keeps a secret")
	}
	for q := range strings.SplitSeq(callback[strings.Index(callback, "?")+1:], "&") {
		if name, _, _ := strings.Cut(q, "="); name != "code" && name != "state" {
			t.Errorf("the address has %s in it", name)
		}
	}
}

// Ctrl-C while the browser is open, a closed terminal, and one that changes its size.
func TestOIDCInterrupted(t *testing.T) {
	ended := func(t *testing.T, r *oidcRig, p *ptytest.Terminal) {
		t.Helper()
		if vaulttest.Exists(filepath.Join(r.dir, ".vault-token")) || r.started() || r.tokens(t) != 0 {
			t.Error("something is left behind")
		}
	}
	t.Run("Ctrl-C", func(t *testing.T) {
		for _, line := range []string{" login --auth oidc", " --auth oidc -- touch " + "started", " check --auth oidc"} {
			r := newOIDCRig(t)
			p := ptytest.Shell(t, time.Minute, r.env)
			p.Run("cd " + r.dir)
			p.Run(r.bin + line)
			r.address(t)
			p.Resize(10, 20)
			p.Resize(50, 200)
			p.Type(ptytest.CtrlC)
			p.ExpectStatus(130)
			ended(t, r, p)
		}
	})
	t.Run("closed", func(t *testing.T) {
		r := newOIDCRig(t)
		p := ptytest.Open(t, time.Minute, r.env, r.bin, "login", "--auth", "oidc")
		r.address(t)
		p.Close()
		if ending := vaulttest.Ending(p.Ended()); ending != "signal HUP" {
			t.Errorf("it ended with %s", ending)
		}
		ended(t, r, p)
	})
	t.Run("TERM", func(t *testing.T) {
		r := newOIDCRig(t)
		j, _ := r.waiting(t)
		j.signal(unix.SIGTERM)
		j.finish("TERM")
		ended(t, r, nil)
	})
}
