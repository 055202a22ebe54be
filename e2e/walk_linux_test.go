package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// A newcomer types what the README and the guide say, in their order, in a terminal.

// snippet is a block of a document that is set in as code.
type snippet struct {
	where   string // file:line
	heading string // the section that it is in
	lines   []string
}

// snippetsOf cuts the examples out of a document. Lines that a backslash joins are one.
func snippetsOf(t *testing.T, file string) (list []snippet) {
	t.Helper()
	heading, within, n := "", false, 0
	for line := range strings.Lines(read(t, file)) {
		n++
		line = strings.TrimRight(line, "\n")
		text, indented := strings.CutPrefix(line, "    ")
		if title, ok := strings.CutPrefix(line, "## "); ok {
			heading = title
		}
		switch {
		case !indented:
			within = false
			continue
		case !within:
			list = append(list, snippet{where: fmt.Sprintf("%s:%d", file, n), heading: heading})
			within = true
		}
		e := &list[len(list)-1]
		if last := len(e.lines) - 1; last >= 0 && strings.HasSuffix(e.lines[last], `\`) {
			e.lines[last] = strings.TrimSuffix(e.lines[last], `\`) + strings.TrimSpace(text)
			continue
		}
		e.lines = append(e.lines, text)
	}
	return list
}

// standIn is what the commands start in place of servers: it says that it was started, and which of the names it has that are
// asked for. It stays when there is a file "stay".
const standIn = `#!/bin/sh
names=
for name in API_KEY POSTGRES_PASSWORD DB_PASSWORD DATABASE_URL TLS_KEY_FILE LOG_LEVEL; do
	if printenv "$name" >/dev/null; then names="$names $name"; fi
done
echo "started ${0##*/} with$names."
[ ! -e "$HOME/stay" ] || exec sleep 1000
`

// newcomer is a home folder with a shell in a terminal.
type newcomer struct {
	home string
	env  []string
	term *ptytest.Terminal
}

func newNewcomer(t *testing.T, env ...string) *newcomer {
	t.Helper()
	n := &newcomer{home: t.TempDir()}
	bin := filepath.Join(n.home, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin/npm", "bin/uvicorn", "bin/nginx", "bin/server", "server", "deploy.sh"} {
		vaulttest.WriteFile(t, filepath.Join(n.home, name), standIn, 0o755)
	}
	n.env = append([]string{"PATH=" + bin + ":" + filepath.Dir(vaulttest.BuildStatic(t, ".")) + ":" + os.Getenv("PATH"), "HOME=" + n.home,
		"GORACE=" + vaulttest.Gorace, "LC_ALL=C.UTF-8"}, env...)
	n.term = n.open(t)
	return n
}

func (n *newcomer) open(t *testing.T) *ptytest.Terminal {
	t.Helper()
	p := ptytest.Shell(t, time.Minute, n.env)
	p.Resize(24, 400) // no line is folded
	p.Run("cd")
	p.ExpectPrompt()
	return p
}

// TestReadmeSteps: the five steps of the README, as they stand, with the Vault of `make demo KEEP=1`; and what the demo says that
// one would type next. Then Ctrl-C leaves nothing.
func TestReadmeSteps(t *testing.T) {
	t.Parallel()
	git := needs.Program(t, "git")
	if _, err := vaulttest.Binary(); err != nil {
		t.Fatal(err)
	}
	demo, temp := vaulttest.BuildStatic(t, "tools/demo"), t.TempDir()
	root, err := vaulttest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	shell := ptytest.Shell(t, 5*time.Minute, append(os.Environ(), "TMPDIR="+temp, "GOTMPDIR="))
	shell.Resize(24, 400)
	shell.Run("cd '" + root + "'; " + demo + " -keep")
	shell.Expect(`run on until Ctrl-C`)
	next := strings.Fields(shell.Expect(`\. (\S+)/env +#[^\n]*\r?\n +vaultexec ps \S+\r?\n +vaultexec rotate \S+ \S+\r?\n`))
	setup := next[1]
	said := strings.ReplaceAll(shell.Output(), "\r", "")
	typed := regexp.MustCompile(`(?m)^   (\. /.*|vaultexec (?:ps|rotate) .*)$`).FindAllStringSubmatch(said, -1)
	if len(typed) != 3 {
		t.Fatalf("%q in\n%s", typed, said)
	}
	_, token, _ := strings.Cut(read(t, setup), "VAULT_TOKEN='")
	token, _, _ = strings.Cut(token, "'")
	if vaulttest.Secret(token); len(token) < 20 || strings.Contains(said, token) {
		t.Fatalf("the token is not in the file, or on the screen: %d", len(token))
	}

	n := newNewcomer(t)
	p := n.term
	for _, step := range typed {
		p.Run(step[1])
		if strings.Contains(step[1], "rotate") {
			p.Expect(`version \d+ → \d+, verified`)
		}
		p.ExpectStatus(0)
	}
	shell.Expect(`process \d+ has taken over from process \d+`)

	var steps []string
	for _, e := range snippetsOf(t, "README.md") {
		if strings.HasPrefix(e.heading, "From .env to Vault") {
			steps = append(steps, e.lines...)
		}
	}
	if len(steps) < 7 || !strings.HasPrefix(steps[0], "export VAULT_ADDR=") || !strings.HasPrefix(steps[1], "vaultexec login") {
		t.Fatalf("the steps are not what this test knows: %q", steps)
	}
	vaulttest.WriteFile(t, filepath.Join(n.home, ".env"), "API_KEY="+vaulttest.Canary("key")+"\nDATABASE_URL=postgres://x\n", 0o600)
	if out, err := exec.Command(git, "-C", n.home, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := exec.Command(git, "-C", n.home, "add", ".env").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	wants := []string{`API_KEY`, `API_KEY`, `started npm with API_KEY DATABASE_URL\.`, `rm '\.env'`, `agenticverz/app-dev#API_KEY: version 1 → 2, verified`}
	number := 0
	for _, line := range steps[2:] {
		if line == "" {
			continue
		}
		if number == len(wants) || !strings.Contains(line, fmt.Sprintf("# %d. ", number+1)) && number != 3 {
			t.Fatalf("one step more than this test knows: %s", line)
		}
		p.Run(line)
		p.Expect(regexp.QuoteMeta(strings.TrimSpace(line)) + `\r?\n(?s:.*?)` + wants[number])
		p.ExpectStatus(0)
		number++
	}
	if number != len(wants) {
		t.Errorf("%d steps of %d", number, len(wants))
	}
	if vaulttest.Exists(filepath.Join(n.home, ".env")) {
		t.Error("the .env is still there")
	}
	if out := p.Output(); vaulttest.Redact(out) != out {
		t.Error("the terminal shows a secret")
	}

	shell.Type(ptytest.CtrlC)
	shell.Expect("are gone again")
	shell.ExpectStatus(0)
	shell.Await("nothing to run any more", func(list []ptytest.Process) bool {
		return !slices.ContainsFunc(list, func(p ptytest.Process) bool { return p.PID != shell.Leads })
	})
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// foreign are lines that are not typed here, by a part of them, and what they need.
var foreign = map[string]string{
	"go install ":      "the module proxy",
	"make ":            "the checkout: TestInstall, TestDist, and this test itself",
	"vaultexec login":  "a person, or a token: oidc_test.go, store_linux_test.go",
	"--auth aws":       "an identity of AWS: aws_test.go",
	"--auth azure":     "an identity of Azure: clouds_test.go",
	"--auth gcp":       "an identity of Google Cloud: clouds_test.go",
	"/database/creds/": "PostgreSQL: TestExamples",
	"'KEY=P#":          "a PKI engine: fields_test.go",
	"/pki/issue/":      "a PKI engine: fields_test.go",
	"VAULTEXEC_JWT=":   "an issuer of JWTs: login_test.go",
	"root:ssl-cert":    "a group that only some distributions have: testdata/scripts/file-owner.txtar",
}

// typedLine matches what a person types: a program of these, after variables if any.
var typedLine = regexp.MustCompile(`^(?:\$ )?((?:[A-Z_]+=\S* )*(?:vaultexec|vault|go|make|mkdir) .*)$`)

// TestWalk types every command line of the README and the guide.
func TestWalk(t *testing.T) {
	t.Parallel()
	srv := vaulttest.NewDev(t) // the texts name the mounts
	for _, mount := range []string{"agenticverz", "agenticverz-dev"} {
		srv.MountKV(t, mount, 2)
	}
	dir, err := os.MkdirTemp("/dev/shm", "walk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	}
	// Other tests run beside this one, and this machine's own /run is not ours.
	here := strings.NewReplacer("/run/app", dir, ":8000", "127.0.0.1:"+free(), "127.0.0.1:9641", "127.0.0.1:"+free())
	n := newNewcomer(t, "VAULT_ADDR="+srv.Addr, "VAULT_TOKEN="+srv.RootToken, "VAULTEXEC_MOUNT=agenticverz")
	used, ran := map[string]bool{}, 0
	for _, file := range []string{"README.md", "docs/guide.md"} {
		for _, e := range snippetsOf(t, file) {
			if strings.HasPrefix(e.heading, "From .env to Vault") {
				continue // TestReadmeSteps
			}
			n.writeFile(t, e)
			for i, line := range e.lines {
				m := typedLine.FindStringSubmatch(line)
				if m == nil {
					continue
				}
				needsMore := false
				for part := range foreign {
					if strings.Contains(line, part) {
						used[part], needsMore = true, true
					}
				}
				if needsMore {
					continue
				}
				ran++
				prepare(t, srv, line)
				last := i+1 == len(e.lines) || !strings.HasPrefix(e.lines[i+1], "vaultexec ps ")
				n.walk(t, e.where, here.Replace(m[1]), last)
			}
		}
	}
	if ran < 15 {
		t.Errorf("only %d lines were typed", ran)
	}
	for part := range foreign {
		if !used[part] {
			t.Errorf("foreign names %q, which no line has", part)
		}
	}
	if out := n.term.Output(); vaulttest.Redact(out) != out {
		t.Error("the terminal shows a secret")
	}
}

// prepare writes the secrets that a line is about.
func prepare(t *testing.T, srv *vaulttest.Server, line string) {
	t.Helper()
	app := map[string]any{"API_KEY": vaulttest.Canary("key")}
	switch {
	case strings.HasPrefix(line, "vaultexec set "):
		for _, key := range []string{"SMTP_USER", "SMTP_PASSWORD", "TLS_KEY", "OLD_KEY"} {
			app[key] = vaulttest.Canary(key)
		}
	case strings.Contains(line, "db.password"):
		app = map[string]any{"db": map[string]string{"password": vaulttest.Canary("db")}}
	case strings.Contains(line, "--file TLS_KEY --"):
		app["TLS_KEY"] = vaulttest.Canary("tls")
	case strings.Contains(line, "MACHINE_SECRET_TOKEN"):
		app["MACHINE_SECRET_TOKEN"] = vaulttest.Canary("machine")
	}
	for _, mount := range []string{"agenticverz", "agenticverz-dev"} {
		if strings.HasPrefix(line, "vaultexec rollback ") { // to versions that have the keys
			if _, err := srv.TryMust("DELETE", mount+"/metadata/app-prod", nil); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				srv.PutKV(t, mount, "app-prod", map[string]any{"STRIPE_KEY": vaulttest.Canary("stripe")})
			}
			app["STRIPE_KEY"] = vaulttest.Canary("stripe now")
		}
		srv.PutKV(t, mount, "app-prod", app)
		srv.PutKV(t, mount, "database", map[string]string{"POSTGRES_PASSWORD": vaulttest.Canary("database")})
		srv.PutKV(t, mount, "tls", map[string]string{"TLS_KEY": vaulttest.Canary("tls")})
		srv.PutKV(t, mount, "team/alpha", map[string]string{"API_KEY": vaulttest.Canary("key")})
		srv.PutKV(t, mount, "team/beta", map[string]string{"BETA": vaulttest.Canary("beta")})
	}
}

// fileHead is the first line of an snippet that is a file: "# .env, checked in".
var fileHead = regexp.MustCompile(`^# (\.env|[\w-]+\.yaml)\b`)

func (n *newcomer) writeFile(t *testing.T, e snippet) {
	t.Helper()
	if m := fileHead.FindStringSubmatch(e.lines[0]); m != nil {
		vaulttest.WriteFile(t, filepath.Join(n.home, m[1]), strings.Join(e.lines[1:], "\n")+"\n", 0o600)
	}
}

// walk types a line. What stays is ended with Ctrl-C, after the next line if that is about it.
func (n *newcomer) walk(t *testing.T, where, line string, last bool) {
	t.Helper()
	p, stay := n.term, filepath.Join(n.home, "stay")
	started, status := `started \w[\w.]* with( \w+)+\.`, 0
	switch {
	case strings.HasPrefix(line, "vaultexec ps"): // in a second terminal, while the one before runs
		second := n.open(t)
		second.Run(line)
		second.Expect(`app-prod`)
		second.ExpectStatus(0)
		n.end(p, stay)
		return
	case strings.HasPrefix(line, "vaultexec set "):
		vaulttest.WriteFile(t, filepath.Join(n.home, "key.pem"), vaulttest.Canary("pem")+"\n", 0o600)
		p.Run(line)
		for _, key := range []string{"SMTP_USER", "SMTP_PASSWORD"} {
			p.Expect("(?i)value.*" + key + ".*: ")
			awaitEcho(t, p, false)
			p.Type(vaulttest.Canary("typed") + "\n")
		}
		p.ExpectStatus(0)
		return
	case strings.HasPrefix(line, "vaultexec diff "), strings.HasPrefix(line, "vaultexec scan "): // their status is the answer
		if file := filepath.Join(n.home, ".env"); !vaulttest.Exists(file) {
			vaulttest.WriteFile(t, file, "API_KEY="+vaulttest.Canary("key")+"\n", 0o600)
		}
		p.Run("git init -q .")
		p.ExpectPrompt()
		p.Run(line)
		p.ExpectPrompt()
		p.Run("echo status=$?")
		p.Expect(`status=[01]\r?\n`)
		p.ExpectPrompt()
		return
	case !strings.Contains(line, " -- ") && !strings.Contains(line, "--config"):
		p.Run(line)
		p.ExpectStatus(0)
		return
	case strings.Contains(line, "--watch"):
		vaulttest.WriteFile(t, stay, "", 0o600)
		status = 130
	}
	p.Run(line)
	p.Expect(regexp.QuoteMeta(line) + `(?s:.*?)` + started)
	t.Logf("%s: %s", where, line)
	switch {
	case status == 0:
		p.ExpectStatus(0)
	case last:
		n.end(p, stay)
	}
}

// end presses Ctrl-C.
func (n *newcomer) end(p *ptytest.Terminal, stay string) {
	p.AwaitState("sleep", "SR")
	p.Type(ptytest.CtrlC)
	p.ExpectStatus(130)
	_ = os.Remove(stay)
}
