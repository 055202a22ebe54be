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
	"syscall"
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

// Another user who has seen the address cannot answer in this one's place, by whatever address and however fast they are gone.
func TestOIDCAnswerOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		needs.LeftOut(t, "root to become another user; internal/browser, TestStranger has what follows")
	}
	curl := needs.Program(t, "curl")
	r := newOIDCRig(t)
	j, address := r.waiting(t)
	state := address[strings.Index(address, "&state=")+1:]
	if i := strings.Index(state, "&"); i >= 0 {
		state = state[:i]
	}
	as := func(uid uint32, argv ...string) string {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: true}}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		if out := as(12345, curl, "-sS", "http://"+host+":"+r.port+"/oidc/callback?code=x&"+state); !strings.Contains(out, "Not for you") {
			if host == "[::1]" && strings.Contains(out, "Failed to connect") {
				continue // a machine without IPv6
			}
			t.Errorf("%s: another user gets\n%s", host, out)
		}
	}
	// Gone before anybody looks.
	as(12345, needs.Program(t, "python3"), "-c", `import socket, struct, sys
for linger in (None, struct.pack("ii", 1, 0)):
    s = socket.create_connection(("127.0.0.1", `+r.port+`))
    if linger: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    s.sendall(b"GET /oidc/callback?code=x&`+state+` HTTP/1.1\r\nHost: localhost:`+r.port+`\r\n\r\n")
    s.close()
`)
	select {
	case <-j.done:
		t.Fatalf("it has ended:\n%s", j.err)
	default:
	}
	if _, page, _ := r.person(t, address, r.ann()); !strings.Contains(page, "You are logged in") {
		t.Errorf("the right user gets\n%s", page)
	}
	j.finish("0").says(`refused why="it came from another user of this machine"`)
}

// A supervised run whose token has ended: nobody can log in for it, the log says so once, and the command runs on.
func TestOIDCTokenEnds(t *testing.T) {
	r := newOIDCRig(t)
	r.srv.Must(t, "POST", "auth/"+r.auth+"/role/short", map[string]any{"role_type": "oidc", "user_claim": "sub", "token_policies": r.policy,
		"allowed_redirect_uris": "http://localhost:" + r.port + "/oidc/callback", "token_ttl": "3s", "token_max_ttl": "3s"})
	log := filepath.Join(r.dir, "log")
	p := ptytest.Shell(t, 2*time.Minute, r.env)
	p.Run(r.bin + " --auth oidc --role short --watch --interval 1s -- sh -c 'echo it runs; exec sleep 600' 2>" + log)
	if _, page, _ := r.person(t, r.address(t), r.ann()); !strings.Contains(page, "You are logged in") {
		t.Fatalf("the browser shows\n%s", page)
	}
	p.Expect("it runs")
	said := func(text string) int {
		b, _ := os.ReadFile(log)
		return strings.Count(string(b), text)
	}
	const keeper, watcher = "warning: cannot log in with oidc", "the command keeps running with what it has: cannot log in with oidc"
	wait.Until(t, time.Minute, "the log to say that nobody can log in", func() bool { return said(keeper) > 0 && said(watcher) > 0 })
	if said(keeper) != 1 || said(watcher) != 1 || said("a person would have to do it again, with a browser") != 2 {
		b, _ := os.ReadFile(log)
		t.Errorf("it says so more than once:\n%s", b)
	}
	if n := r.proxy.Count(func(q vaulttest.Request) bool { return strings.HasSuffix(q.Path, "/auth_url") }); n != 1 {
		t.Errorf("Vault was asked %d times for an address", n)
	}
	p.Type(ptytest.CtrlC)
	p.ExpectStatus(130)
}

// A run at a terminal behind --mask, which has a terminal of its own.
func TestOIDCBehindMask(t *testing.T) {
	r := newOIDCRig(t)
	p := ptytest.Shell(t, 2*time.Minute, r.env)
	p.Run(r.bin + ` --mask --auth oidc --no-browser -- sh -c 'echo "got <$API_KEY>"'`)
	address := shown(t, func() string { return strings.ReplaceAll(p.Output(), "\r", "") })
	if _, page, _ := r.person(t, address, r.ann()); !strings.Contains(page, "You are logged in") {
		t.Fatalf("the browser shows\n%s", page)
	}
	p.Expect(`got <\*\*\*>`)
	p.ExpectStatus(0)
	if vaulttest.Exists(r.opened) {
		t.Error("--no-browser opens one")
	}
}

// The token that somebody types is checked and stored, and not shown.
func TestTypedToken(t *testing.T) {
	r := newStoreRig(t)
	r.set("VAULTEXEC_PASSWORD_FILE=", "VAULTEXEC_USERNAME=", "VAULTEXEC_AUTH_MOUNT=")
	token := r.srv.Token(t, vaulttest.TokenOpts{Policies: []string{r.policy}})
	vaulttest.Secret(token)
	for _, c := range []struct {
		typed  string
		status int
	}{{"hvs.wrong", 121}, {"two words", 125}, {"", 125}, {token, 0}} {
		p := ptytest.Shell(t, time.Minute, r.env)
		p.Run(r.bin + " login")
		p.Expect("Token \\(it is not shown\\): ")
		wait.Until(t, time.Minute, "the echo to be off", func() bool { return p.Modes().Lflag&unix.ECHO == 0 })
		p.Type(c.typed + "\n")
		p.ExpectStatus(c.status)
		if out := p.Output(); vaulttest.Redact(out) != out || p.Modes().Lflag&unix.ECHO == 0 {
			t.Errorf("the token is shown, or the echo stays off:\n%s", p)
		}
		if c.status != 0 && vaulttest.Exists(filepath.Join(r.dir, ".vault-token")) {
			t.Errorf("%q is stored", c.typed)
		}
	}
	if stored(t, r.dir) != token {
		t.Error("another token is stored")
	}
}
