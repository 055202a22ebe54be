package e2e

import (
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
	"github.com/agenticverz/vaultexec/internal/wait"
)

const blanks = "home of ada's"

// installRig is a home folder and a shell's environment. There is no Vault.
type installRig struct {
	home string
	env  []string
}

func newInstallRig(t *testing.T, name string) *installRig {
	t.Helper()
	r := &installRig{home: filepath.Join(t.TempDir(), name)}
	if err := os.Mkdir(r.home, 0o755); err != nil {
		t.Fatal(err)
	}
	r.env = []string{"PATH=" + filepath.Dir(vaulttest.BuildStatic(t, ".")) + ":" + os.Getenv("PATH"), "HOME=" + r.home, "GORACE=" + vaulttest.Gorace,
		"VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=" + vaulttest.Canary("token"), "TERM=vt100", "PS1=" + ptytest.Prompt, "LC_ALL=C.UTF-8"}
	return r
}

// install runs `vaultexec completion install` with some more variables and words, and returns what it says.
func (r *installRig) install(t *testing.T, code int, words ...string) (stdout, stderr string) {
	t.Helper()
	args := []string{"-"}
	args = append(args, r.env...)
	for len(words) > 0 && strings.Contains(words[0], "=") {
		args, words = append(args, words[0]), words[1:]
	}
	cmd := exec.Command("env", append(append(args, "vaultexec", "completion", "install"), words...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &errs, r.home
	cmd.Env = r.env
	_ = cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("completion install %q: exit code %d, want %d\n%s%s", words, got, code, &out, &errs)
	}
	if left, _ := filepath.Glob(filepath.Join(r.home, ".*", "*", "*", ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	return out.String(), errs.String()
}

func (r *installRig) write(t *testing.T, name, text string) {
	t.Helper()
	vaulttest.WriteFile(t, filepath.Join(r.home, name), text, 0o644)
}

// lastLine is the line that a person is to put somewhere.
func lastLine(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// completes opens a fresh shell, and reports whether TAB makes a word of the beginning of it.
func (r *installRig) completes(t *testing.T, set string, argv ...string) bool {
	t.Helper()
	p := ptytest.Open(t, time.Minute, r.env, argv...)
	p.Expect(regexp.QuoteMeta(ptytest.Prompt))
	p.Run(set + `; echo rea""dy`)
	p.Expect("ready")
	p.Type(killLine + "vaultexec uns\t" + showLine)
	got := p.Expect(`<vaultexec[^<>\r\n]*>`)
	if got != "<vaultexec unseal >" && got != "<vaultexec uns>" {
		t.Errorf("%q\n%s", got, p)
	}
	return got == "<vaultexec unseal >"
}

const (
	bashShows = `bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; show() { printf '<%s>\n' "$READLINE_LINE"; }; bind -x '"\C-xl": show'`
	zshShows  = `unset zle_bracketed_paste; setopt nobeep nolistbeep; show() { print -r -- "<$BUFFER>" >$TTY }; zle -N show; bindkey -e; bindkey '^Xl' show`
)

func TestCompletionInstallBash(t *testing.T) {
	t.Parallel()
	bash := needs.Program(t, "bash")
	const script = "/usr/share/bash-completion/bash_completion"
	if !vaulttest.Exists(script) {
		needs.Missing(t, "bash-completion, which is not installed")
	}
	for _, name := range []string{"home", blanks} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newInstallRig(t, name)
			rc := filepath.Join(r.home, ".bashrc")
			const prompt = "PS1='" + ptytest.Prompt + "'\n"
			const loading = prompt + ". " + script + "\n"
			r.write(t, ".bashrc", loading)
			fresh := []string{bash, "--noprofile", "--rcfile", rc, "-i"}
			if r.completes(t, bashShows, fresh...) {
				t.Fatal("it completes before it is installed: this test shows nothing")
			}
			out, _ := r.install(t, 0, "SHELL=/usr/bin/bash")
			file := filepath.Join(r.home, ".local/share/bash-completion/completions/vaultexec")
			if !strings.HasPrefix(out, "wrote "+file+"\n") || read(t, file) != read(t, "internal/cli/completion/vaultexec.bash") {
				t.Errorf("%s", out)
			}
			if read(t, rc) != loading {
				t.Error(".bashrc was changed")
			}
			if optional := strings.Contains(out, "Where bash-completion is not installed"); optional != (name == "home") {
				t.Errorf("%s", out)
			} else if optional && !r.completes(t, bashShows, fresh...) {
				t.Error("bash-completion does not find it")
			}
			// The line that it prints does it with bash-completion and without.
			r.write(t, ".bashrc", loading+lastLine(out)+"\n")
			if !r.completes(t, bashShows, fresh...) {
				t.Errorf("%s does not load it beside bash-completion", lastLine(out))
			}
			r.write(t, ".bashrc", prompt)
			if r.completes(t, bashShows, fresh...) {
				t.Error("it completes without bash-completion: this test shows nothing")
			}
			r.write(t, ".bashrc", prompt+lastLine(out)+"\n")
			if !r.completes(t, bashShows, fresh...) {
				t.Errorf("%s does not load it", lastLine(out))
			}
		})
	}
}

func TestCompletionInstallZsh(t *testing.T) {
	t.Parallel()
	zsh := needs.Program(t, "zsh")
	fresh := []string{zsh, "-d", "-i"}
	for name, c := range map[string]struct {
		rc, folder string
		line       string // what is printed to be added; "" for nothing
	}{
		"bare":      {"", ".zsh/completions", `fpath=(… $fpath); autoload -Uz compinit; compinit`},
		"compinit":  {"autoload -Uz compinit; compinit\n", ".zsh/completions", `fpath=(… $fpath)`},
		"folder":    {"fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit\n", ".zfunc", ""},
		"framework": {"fpath=(~/.oh-my-zsh/cache/completions ~/.oh-my-zsh/custom/completions $fpath); autoload -Uz compinit; compinit; echo noise; false\n", ".oh-my-zsh/custom/completions", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newInstallRig(t, blanks)
			rc := "PS1='" + ptytest.Prompt + "'\n" + c.rc
			r.write(t, ".zshrc", rc)
			if r.completes(t, zshShows, fresh...) {
				t.Fatal("it completes before it is installed: this test shows nothing")
			}
			out, _ := r.install(t, 0, "zsh")
			file := filepath.Join(r.home, c.folder, "_vaultexec")
			if !strings.HasPrefix(out, "wrote "+file+"\n") || read(t, file) != read(t, "internal/cli/completion/_vaultexec") {
				t.Errorf("%s", out)
			}
			if read(t, filepath.Join(r.home, ".zshrc")) != rc {
				t.Error(".zshrc was changed")
			}
			if line := lastLine(out); c.line != "" {
				quoted := `'` + strings.ReplaceAll(filepath.Join(r.home, c.folder), `'`, `'\''`) + `'`
				if line != strings.Replace(c.line, "…", quoted, 1) {
					t.Errorf("%s", line)
				}
				r.write(t, ".zshrc", "PS1='"+ptytest.Prompt+"'\n"+line+"\n"+c.rc)
			} else if strings.Contains(out, "fpath") {
				t.Errorf("%s", out)
			}
			if !r.completes(t, zshShows, fresh...) {
				t.Error("zsh does not find it")
			}
			if again, _ := r.install(t, 0, "zsh"); !strings.HasPrefix(again, "already up to date: "+file+"\nOpen a new shell") {
				t.Errorf("again: %s", again)
			}
		})
	}
	// A start-up file that never ends is given up, and its processes with it.
	t.Run("hangs", func(t *testing.T) {
		r := newInstallRig(t, blanks)
		r.write(t, ".zshrc", "echo $$ >~/pid; sleep 1000\n")
		out, _ := r.install(t, 0, "zsh")
		if !strings.HasSuffix(lastLine(out), "$fpath); autoload -Uz compinit; compinit") {
			t.Errorf("%s", out)
		}
		pid := strings.TrimSpace(read(t, filepath.Join(r.home, "pid")))
		wait.Until(t, time.Minute, "the end of zsh's session", func() bool {
			return !slices.ContainsFunc(ptytest.All(), func(p ptytest.Process) bool {
				return strconv.Itoa(p.Session) == pid && !p.Ended()
			})
		})
	})
	// No credential reaches what a start-up file starts.
	t.Run("credentials", func(t *testing.T) {
		r := newInstallRig(t, blanks)
		r.write(t, ".zshrc", "env >~/seen\n")
		r.install(t, 0, "zsh")
		if seen := read(t, filepath.Join(r.home, "seen")); !strings.Contains(seen, "HOME=") || strings.Contains(seen, "VAULT_TOKEN") {
			t.Error(vaulttest.Redact(seen))
		}
	})
}

func TestCompletionInstallFish(t *testing.T) {
	t.Parallel()
	fish := needs.Program(t, "fish")
	r := newInstallRig(t, blanks)
	offers := func() string {
		cmd := exec.Command(fish, "-c", `complete -C "vaultexec uns"`)
		cmd.Dir, cmd.Env = r.home, r.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if got := offers(); got != "" {
		t.Fatalf("%q before it is installed: this test shows nothing", got)
	}
	out, _ := r.install(t, 0, "SHELL=/usr/bin/fish")
	file := filepath.Join(r.home, ".config/fish/completions/vaultexec.fish")
	if out != "wrote "+file+"\nOpen a new shell; then TAB completes vaultexec.\n" {
		t.Errorf("%s", out)
	}
	if got := offers(); got != "unseal\n" {
		t.Errorf("%q", got)
	}
}

func TestCompletionInstallWrites(t *testing.T) {
	t.Parallel()
	r := newInstallRig(t, blanks)
	folder := filepath.Join(r.home, ".config/fish/completions")
	file := filepath.Join(folder, "vaultexec.fish")
	want := read(t, "internal/cli/completion/vaultexec.fish")

	if out, _ := r.install(t, 0, "fish", "--dry-run"); !strings.HasPrefix(out, "would write "+file+"\n") || vaulttest.Exists(filepath.Join(r.home, ".config")) {
		t.Errorf("--dry-run: %s", out)
	}
	r.install(t, 0, "fish")
	before, err := os.Stat(file)
	if err != nil || before.Mode().Perm() != 0o644 {
		t.Fatalf("%v %v", before, err)
	}
	out, _ := r.install(t, 0, "fish")
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) || after.ModTime() != before.ModTime() || !strings.HasPrefix(out, "already up to date: "+file+"\n") {
		t.Errorf("again: %v, %s", err, out)
	}
	// An older one is replaced, in one step: who reads it goes on to read the old one.
	r.write(t, ".config/fish/completions/vaultexec.fish", "old")
	old, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if out, _ := r.install(t, 0, "fish"); !strings.HasPrefix(out, "wrote ") || read(t, file) != want {
		t.Errorf("%s", out)
	}
	if b := make([]byte, 10); true {
		if n, _ := old.Read(b); string(b[:n]) != "old" {
			t.Errorf("the open file became %q", b[:n])
		}
	}
	// XDG's variables count when they are absolute.
	r.install(t, 0, "XDG_CONFIG_HOME="+r.home+"/x y", "fish")
	if read(t, filepath.Join(r.home, "x y/fish/completions/vaultexec.fish")) != want {
		t.Error("not in XDG_CONFIG_HOME")
	}
	if out, _ := r.install(t, 0, "XDG_CONFIG_HOME=rel", "fish"); !strings.Contains(out, file) || vaulttest.Exists(filepath.Join(r.home, "rel")) {
		t.Errorf("%s", out)
	}

	// A link is not followed, wherever it leads.
	r.write(t, "elsewhere", "mine")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{filepath.Join(r.home, "elsewhere"), filepath.Join(r.home, "nowhere")} {
		if err := os.Symlink(to, file); err != nil {
			t.Fatal(err)
		}
		_, said := r.install(t, 125, "fish")
		if !strings.Contains(said, "it is a symbolic link") || read(t, filepath.Join(r.home, "elsewhere")) != "mine" || vaulttest.Exists(filepath.Join(r.home, "nowhere")) {
			t.Errorf("%s: %s", to, said)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	// Nor is a folder used that others may change: a shell runs what is in it.
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, said := r.install(t, 125, "fish"); !strings.Contains(said, "others may change it") || !strings.Contains(said, "chmod go-w") || vaulttest.Exists(file) {
		t.Errorf("%s", said)
	}
	if err := os.RemoveAll(filepath.Join(r.home, ".config")); err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(r.home, "shared")
	if err := os.Mkdir(shared, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(shared, filepath.Join(r.home, ".config")); err != nil {
		t.Fatal(err)
	}
	if _, said := r.install(t, 125, "fish"); !strings.Contains(said, "others may change it") || vaulttest.Exists(filepath.Join(shared, "fish")) {
		t.Errorf("%s", said)
	}
}
