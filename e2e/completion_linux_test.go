package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// completionRig is a Vault with names to be completed, and the environment of a shell that has a token for it.
type completionRig struct {
	mount, dir string
	env        []string
	proxy      *vaulttest.Proxy
}

func newCompletionRig(t *testing.T) *completionRig {
	t.Helper()
	srv := vaulttest.Dev(t)
	sc := srv.Scope(t)
	r := &completionRig{mount: sc.Mount(2), dir: t.TempDir(), proxy: vaulttest.NewProxy(t, srv)}
	for _, path := range []string{"app-prod", "app-prod", "team/alpha", "team/beta", "odd@name", "two words"} {
		srv.PutKV(t, r.mount, path, map[string]string{"API_KEY": vaulttest.Canary("key"), "MODE": vaulttest.Canary("mode")})
	}
	for _, name := range hostileNames {
		srv.PutKV(t, r.mount, name, map[string]string{"KEY": vaulttest.Canary("key")})
	}
	policy := sc.Policy(strings.ReplaceAll(`path "M/metadata" { capabilities = ["list"] }
path "M/metadata/*" { capabilities = ["list"] }
path "M/metadata/app-prod" { capabilities = ["read"] }
path "M/data/*" { capabilities = ["read"] }`, "M", r.mount))
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{policy}, NoDefault: true})
	bin := filepath.Join(r.dir, "bin")
	for path, mode := range map[string]os.FileMode{"bin/only-here": 0o755, "ca-file.pem": 0o644, "bundle/x": 0o644} {
		file := filepath.Join(r.dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	r.env = []string{
		"PATH=" + filepath.Dir(vaulttest.BuildStatic(t, ".")) + ":" + bin + ":" + os.Getenv("PATH"), "HOME=" + r.dir, "GORACE=" + vaulttest.Gorace,
		"VAULT_ADDR=" + r.proxy.Addr, "VAULT_TOKEN=" + token, "VAULTEXEC_MOUNT=" + r.mount, "TERM=vt100", "PS1=" + ptytest.Prompt, "LC_ALL=C.UTF-8",
	}
	return r
}

// cases are command lines, and what TAB makes of them. A name that the shell has to quote is quoted in its own way.
func (r *completionRig) cases() [][2]string {
	return [][2]string{
		{"vaultexec uns", "vaultexec unseal "},
		{"vaultexec --optional-p", "vaultexec --optional-path "},
		{"vaultexec check --keep-e", "vaultexec check --keep-existing "},
		{"vaultexec --on-collision la", "vaultexec --on-collision last "},
		{"vaultexec --on-change sig", "vaultexec --on-change signal:"},
		{"vaultexec --on-change signal:SIGW", "vaultexec --on-change signal:SIGWINCH "},
		{"vaultexec --auth=kub", "vaultexec --auth=kubernetes "},
		{"vaultexec help exit", "vaultexec help exit-codes "},
		{"vaultexec help --interv", "vaultexec help --interval "},
		{"vaultexec completion fi", "vaultexec completion fish "},
		{"vaultexec completion inst", "vaultexec completion install "},
		{"vaultexec completion install z", "vaultexec completion install zsh "},
		{"vaultexec completion bash z", "vaultexec completion bash z"},
		{"vaultexec --ca-cert ca-f", "vaultexec --ca-cert ca-file.pem "},
		{"vaultexec --ca-cert=ca-f", "vaultexec --ca-cert=ca-file.pem "},
		{"vaultexec --ca-path bun", "vaultexec --ca-path bundle/"},
		{"vaultexec --mount " + r.mount[:len(r.mount)-1], "vaultexec --mount " + r.mount + " "},

		{"vaultexec --path app", "vaultexec --path app-prod "},
		{"vaultexec --path=app", "vaultexec --path=app-prod "},
		{"vaultexec --path app-prod --path tea", "vaultexec --path app-prod --path team/"},
		{"vaultexec run --path team/al", "vaultexec run --path team/alpha "},
		{"vaultexec --path odd", "vaultexec --path odd%40name "},
		{"vaultexec --path odd%40n", "vaultexec --path odd%40name "},
		{`vaultexec --path "app`, `vaultexec --path "app-prod" `},
		{`vaultexec --path "app-prod" --env 'DB=app-prod#MO`, `vaultexec --path "app-prod" --env 'DB=app-prod#MODE' `},
		{"vaultexec --path two", `vaultexec --path two\ words `},
		{"vaultexec --mount nothing --path /" + r.mount + "/ap", "vaultexec --mount nothing --path /" + r.mount + "/app-prod "},
		{"vaultexec --env DB=app", "vaultexec --env DB=app-prod#"},
		{"vaultexec --env DB=app-prod#A", "vaultexec --env DB=app-prod#API_KEY "},
		{"vaultexec --env=DB=app-prod@1#MO", "vaultexec --env=DB=app-prod@1#MODE "},
		{"vaultexec get team/alpha#MO", "vaultexec get team/alpha#MODE "},
		{"vaultexec list te", "vaultexec list team/"},
		{"vaultexec diff app-prod team/al", "vaultexec diff app-prod team/alpha "},
		{"vaultexec diff ca-f", "vaultexec diff ca-file.pem "},
		{"vaultexec list app", "vaultexec list app"}, // no folder
		{"vaultexec install bun", "vaultexec install bundle/"},
		{"vaultexec rotate app-prod MO", "vaultexec rotate app-prod MODE "},
		{"vaultexec set app-prod MODE=- AP", "vaultexec set app-prod MODE=- API_KEY "},
		{"vaultexec set app-prod --delete MO", "vaultexec set app-prod --delete MODE "},
		{"vaultexec rollback app-prod --key MO", "vaultexec rollback app-prod --key MODE "},
		{"vaultexec rollback app-prod --to ", "vaultexec rollback app-prod --to 1 "},

		// What stands after -- is not vaultexec's.
		{"vaultexec --path x -- only-h", "vaultexec --path x -- only-here "},
		{"vaultexec -- vaultexec --keep-e", "vaultexec -- vaultexec --keep-existing "}, // it is that program's
		{"vaultexec -- only-here --pat", "vaultexec -- only-here --pat"},
		{"vaultexec -- only-here rot", "vaultexec -- only-here rot"},
		{"vaultexec --path=-- --keep-e", "vaultexec --path=-- --keep-existing "},

		{"vaultexec --no-such --pat", "vaultexec --no-such --pat"},
		{"vaultexec --path nothing", "vaultexec --path nothing"},
		{"vaultexec --path ../x", "vaultexec --path ../x"},
	}
}

// patience is for a machine so busy that Vault's time is over before it could answer: a person would press TAB again.
const patience = 20 * time.Second

const (
	killLine = "\x15"
	showLine = "\x18l" // the key that each shell's set-up makes print the line, as <line>
)

// run types each line and TAB, and compares what is then in the shell's line editor.
func (r *completionRig) run(t *testing.T, p *ptytest.Terminal, same func(got, want string) bool) {
	t.Helper()
	for _, c := range r.cases() {
		got := ""
		ok := wait.For(patience, func() bool {
			p.Type(killLine + c[0] + "\t" + showLine)
			got = strings.Trim(p.Expect(`<vaultexec[^<>\r\n]*>`), "<>")
			return same(got, c[1])
		})
		if !ok {
			t.Errorf("%q became %q, want %q", c[0], got, c[1])
		}
	}
	if out := p.Output(); strings.Contains(out, "vaultexec: ") || vaulttest.Redact(out) != out {
		t.Errorf("something was said\n%s", p)
	}
}

// hostileNames are names of secrets by whose beginning a line is completed, and that would leave a trace if a shell ran them.
var hostileNames = map[string]string{
	"zd": "zd$(touch ran)x", "zb": "zb`touch ran`x", "ze": `ze"$(touch ran)"x`, "zs": "zs'$(touch ran)'x", "zk": `zk\$(touch ran)`, "zi": "zi;touch ran;", "zg": "zg*x", "zp": "zp|touch ran",
}

// runHostile has the names completed in no quotes and in both kinds, and runs what the line is then.
func (r *completionRig) runHostile(t *testing.T, p *ptytest.Terminal, shell string) {
	t.Helper()
	for begin, name := range hostileNames {
		for _, quote := range []string{"", `"`, "'"} {
			typed, got := "vaultexec --path "+quote+begin, ""
			if !wait.For(patience, func() bool {
				p.Type(killLine + typed + "\t" + showLine)
				got = strings.TrimSuffix(strings.TrimPrefix(p.Expect(`<vaultexec[^\r\n]*>`), "<"), ">")
				return got != typed || quote != "" // in quotes a name may be left out
			}) {
				t.Errorf("%s is not completed", typed)
				continue
			}
			line := strings.Replace(got, "vaultexec --path", "printf %s", 1)
			cmd := exec.Command(shell, "-c", line)
			cmd.Dir, cmd.Env = r.dir, append(r.env, "PATH="+os.Getenv("PATH"))
			out, _ := cmd.Output() // of an open quote the shell complains
			if vaulttest.Exists(filepath.Join(r.dir, "ran")) {
				t.Fatalf("%s: the name of a secret was run: %s became %s", shell, typed, got)
			}
			if want := vault.EscapePath(name); got != typed && string(out) != want {
				t.Errorf("%s: %s became %s, which is %q, want %q", shell, typed, got, out, want)
			}
		}
	}
}

func TestCompletionBash(t *testing.T) {
	r := newCompletionRig(t)
	for _, name := range []string{"plain", "bash-completion"} {
		t.Run(name, func(t *testing.T) {
			more := ""
			if name != "plain" {
				const script = "/usr/share/bash-completion/bash_completion"
				if !vaulttest.Exists(script) {
					needs.Missing(t, "bash-completion, which is not installed")
				}
				more = "source " + script + "; "
			}
			p := ptytest.Open(t, time.Minute, r.env, needs.Program(t, "bash"), "--norc", "--noprofile", "-i")
			p.Expect(regexp.QuoteMeta(ptytest.Prompt))
			p.Run("cd; bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; " + more + "source <(vaultexec completion bash); " +
				`show() { printf '<%s>\n' "$READLINE_LINE"; }; bind -x '"\C-xl": show'; echo rea""dy`)
			p.Expect("ready")
			r.runHostile(t, p, "bash")
			r.run(t, p, func(got, want string) bool {
				// bash alone knows no more of the program after -- than its name.
				return got == want || name == "plain" && want == "vaultexec -- vaultexec --keep-existing " && got == "vaultexec -- vaultexec --keep-e"
			})
		})
	}
}

func TestCompletionZsh(t *testing.T) {
	r := newCompletionRig(t)
	// Sourced, and where the packages put it.
	if err := os.Mkdir(filepath.Join(r.dir, "functions"), 0o755); err != nil {
		t.Fatal(err)
	}
	zsh, err := os.ReadFile("internal/cli/completion/_vaultexec")
	if err != nil {
		t.Fatal(err)
	}
	vaulttest.WriteFile(t, filepath.Join(r.dir, "functions", "_vaultexec"), string(zsh), 0o644)
	for name, load := range map[string]string{
		"sourced":   "compinit -u -d dump1; source <(vaultexec completion zsh)",
		"installed": "fpath=(~/functions $fpath); compinit -u -d dump2",
	} {
		t.Run(name, func(t *testing.T) {
			p := ptytest.Open(t, time.Minute, r.env, needs.Program(t, "zsh"), "-f", "-i")
			p.Expect(regexp.QuoteMeta(ptytest.Prompt))
			p.Run("cd; unset zle_bracketed_paste; setopt nobeep nolistbeep; autoload -Uz compinit; " + load +
				`; show() { print -r -- "<$BUFFER>" >$TTY }; zle -N show; bindkey -e; bindkey '^Xl' show; echo rea""dy`)
			p.Expect("ready")
			// zsh writes a backslash before # and =, which some of its options give a meaning.
			plain := strings.NewReplacer(`\#`, "#", `\=`, "=")
			r.runHostile(t, p, "zsh")
			r.run(t, p, func(got, want string) bool { return plain.Replace(got) == want })
		})
	}
}

// fish says what it would offer without a terminal.
func TestCompletionFish(t *testing.T) {
	fish := needs.Program(t, "fish")
	r := newCompletionRig(t)
	for _, c := range r.cases() {
		word := strings.NewReplacer(`\`, "", `"`, "", "'", "").Replace(strings.TrimSuffix(c[1][len(c[0][:strings.LastIndexByte(c[0], ' ')+1]):], " "))
		var got []string
		ok := wait.For(patience, func() bool {
			cmd := exec.Command(fish, "--no-config", "-c", "vaultexec completion fish | source; complete -C $argv[1]", c[0])
			cmd.Dir, cmd.Env = r.dir, append(r.env, "XDG_CONFIG_HOME="+r.dir, "XDG_DATA_HOME="+r.dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%q: %v\n%s", c[0], err, vaulttest.Redact(string(out)))
			}
			got = nil
			for line := range strings.Lines(string(out)) {
				candidate, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
				got = append(got, strings.ReplaceAll(candidate, `\`, ""))
			}
			if c[0] == c[1] {
				return len(got) == 0
			}
			return slices.Contains(got, word)
		})
		if !ok {
			t.Errorf("%q offers %q, want %q", c[0], vaulttest.Redact(fmt.Sprint(got)), word)
		}
	}
}

// What a completion may not do, whatever is configured: it says nothing, asks nothing, starts no login and no program.
func TestCompletionIsSilent(t *testing.T) {
	r := newCompletionRig(t)
	program := filepath.Join(filepath.Dir(vaulttest.BuildStatic(t, ".")), "vaultexec")
	set := func(env []string, name, value string) []string {
		env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		if value == "" {
			return env
		}
		return append(env, name+"="+value)
	}
	complete := func(env []string, words ...string) (out string) {
		t.Helper()
		cmd := exec.Command(program, append([]string{"__complete"}, words...)...)
		cmd.Dir, cmd.Env = r.dir, env
		var stderr strings.Builder
		cmd.Stderr = &stderr
		b, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%v: %v, %q on standard error", words, err, vaulttest.Redact(stderr.String()))
		}
		return string(b)
	}
	// Nothing came where nothing was to come: no answer from Vault, or its time was over.
	nothing := func(got string) bool { return got == "words\n" || got == "" }
	var got string
	if !wait.For(patience, func() bool { got = complete(r.env, "--path", "app"); return got == "words\napp-prod\n" }) {
		t.Fatalf("with a token: %q", got)
	}
	// Only where that is accepted does a token leave the machine unencrypted: here by way of an HTTP proxy, which is ours.
	remote := append(set(r.env, "VAULT_ADDR", "http://vault.invalid:8200"), "HTTP_PROXY="+r.proxy.Addr)
	r.proxy.Forget()
	if got := complete(remote, "--path", "app"); !nothing(got) || len(r.proxy.Requests()) > 0 {
		t.Errorf("clear text: %q, %d requests", got, len(r.proxy.Requests()))
	}
	if !wait.For(patience, func() bool { complete(remote, "--allow-http", "--path", "app"); return len(r.proxy.Requests()) > 0 }) {
		t.Error("clear text: not with --allow-http either")
	}
	r.proxy.Forget()
	noToken := set(r.env, "VAULT_TOKEN", "")
	ran := filepath.Join(r.dir, "helper-ran")
	helper := filepath.Join(r.dir, "helper")
	if err := os.WriteFile(helper, []byte("#!/bin/sh\n: >"+ran+"\necho x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string][]string{
		"no token":       noToken,
		"approle":        append(noToken, "VAULTEXEC_ROLE_ID=x", "VAULTEXEC_SECRET_ID=y"),
		"wrapped":        append(noToken, "VAULTEXEC_WRAPPED_TOKEN=hvs.x"),
		"wrong":          set(r.env, "VAULTEXEC_WAIT", "soon"),
		"not an address": set(r.env, "VAULT_ADDR", "ftp://x"),
	} {
		if got := complete(env, "--path", "app"); !nothing(got) && name != "wrong" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, ".vault"), []byte(`token_helper = "`+helper+`"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := complete(noToken, "--path", "app"); !nothing(got) || vaulttest.Exists(ran) {
		t.Errorf("token helper: %q, ran: %v", got, vaulttest.Exists(ran))
	}
	for _, req := range r.proxy.Requests() {
		if strings.Contains(req.Path, "auth/") || strings.Contains(req.Path, "wrapping") {
			t.Errorf("a request to %s", req.Path)
		}
	}
	if got := complete(set(r.env, "VAULT_TOKEN", "hvs.not-a-token"), "--path", "app"); !nothing(got) {
		t.Errorf("a token that is not valid: %q", got)
	}
	// A token's file that never ends is left behind like everything that blocks.
	if err := exec.Command("mkfifo", filepath.Join(r.dir, "pipe")).Run(); err != nil {
		t.Fatal(err)
	}
	if got := complete(noToken, "--token-file", "pipe", "--path", "app"); got != "" {
		t.Errorf("a pipe: %q", got)
	}
	// urfave/cli's own completion is off.
	cmd := exec.Command(program, "--generate-bash-completion")
	cmd.Env = r.env
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "no option --generate-bash-completion") {
		t.Errorf("%v %s", err, out)
	}
}

// A Vault that does not answer is given up while an ordinary command still waits for it.
func TestCompletionEndsWithoutVault(t *testing.T) {
	r := newCompletionRig(t)
	r.proxy.Set(vaulttest.BlackHole)
	program := filepath.Join(filepath.Dir(vaulttest.BuildStatic(t, ".")), "vaultexec")
	start := func(args ...string) (*exec.Cmd, *strings.Builder, chan struct{}) {
		cmd := exec.Command(program, args...)
		cmd.Env = append(r.env, "VAULTEXEC_TIMEOUT=10m")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := vaulttest.StartTied(cmd); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
		return cmd, &out, done
	}
	_, _, listed := start("list")
	r.proxy.WaitRequests(t, 1)
	cmd, out, completed := start("__complete", "--path", "app")
	wait.Until(t, time.Minute, "the completion's end", func() bool {
		select {
		case <-completed:
			return true
		default:
			return false
		}
	})
	if r.proxy.WaitRequests(t, 2); out.Len() > 0 || !cmd.ProcessState.Success() {
		t.Errorf("%v, %q", cmd.ProcessState, vaulttest.Redact(out.String()))
	}
	select {
	case <-listed:
		t.Error("list does not wait either: this test shows nothing")
	default:
	}
	// Nobody listens there at all.
	r.env = append(slices.DeleteFunc(r.env, func(kv string) bool { return strings.HasPrefix(kv, "VAULT_ADDR=") }), "VAULT_ADDR=http://127.0.0.1:1")
	_, out, completed = start("__complete", "--path", "app")
	<-completed
	if out.String() != "words\n" && out.Len() > 0 {
		t.Errorf("%q", out)
	}
}
