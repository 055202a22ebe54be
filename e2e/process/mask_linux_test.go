package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/ptytest"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// masked is vaultexec that gives the command KEY, and LINES_ of three lines.
type masked struct {
	with, without launcher
	env           []string
	values        []string // each of which must not be seen
}

func newMasked(t *testing.T, options ...string) masked {
	t.Helper()
	srv := vaulttest.Dev(t)
	scope := srv.Scope(t)
	mount := scope.Mount(2)
	m := masked{values: []string{vaulttest.Canary("KEY"), vaulttest.Canary("FIRST"), vaulttest.Canary("SECOND")}}
	srv.PutKV(t, mount, "app-prod", map[string]any{"KEY": m.values[0], "LINES_": m.values[1] + "\nabc\n" + m.values[2]})
	token := srv.Token(t, vaulttest.TokenOpts{Policies: []string{scope.ReadPolicy(mount, "app-prod")}, NoDefault: true})
	m.env = []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token}
	options = append([]string{"--mount", mount, "--path", "app-prod"}, options...)
	m.with, m.without = vaultexec(t, append(options, "--mask")...), vaultexec(t, append(options, "--supervise")...)
	return m
}

func (m masked) shown(text string) bool {
	return slices.ContainsFunc(m.values, func(v string) bool { return strings.Contains(text, v) })
}

// On a terminal, alone, in a script, in a pipeline whose standard error it is, and with another standard input.
func TestMaskOnTerminal(t *testing.T) {
	t.Parallel()
	m := newMasked(t)
	show := `sh -c 'echo "[$KEY] [$LINES_]" >&%d; stty -opost <&2; echo "[$LINES_]" >&%d; stty opost <&2; printf "\n[$KEY]" >&%d; echo " en""d" >&%d'`
	for name, line := range map[string]string{
		"alone":             "$V " + fmt.Sprintf(show, 1, 1, 1, 1),
		"script":            "sh -c '\"$@\"; true' sh $V " + fmt.Sprintf(show, 1, 1, 1, 1),
		"error of pipeline": "$V " + fmt.Sprintf(show, 2, 2, 2, 2) + " | cat",
		"end of pipeline":   "true | $V " + fmt.Sprintf(show, 1, 1, 1, 1),
		"other input":       "$V " + fmt.Sprintf(show, 1, 2, 1, 2) + " </dev/null",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := actual{t}
			p := shell(r, m.with, m.env...)
			p.Run(line)
			// In a pipeline what the command does to the modes of its output adds to what the terminal does.
			p.Expect(`\[\*\*\*\] \[\*\*\*\]\r\n\[\*\*\*\]\r?\n\r*\n\[\*\*\*\] end\r+\n`)
			p.ExpectStatus(0)
			if m.shown(p.Output()) {
				t.Fatalf("a value is shown\n%s", p)
			}
			// The control: the same without --mask shows all of it.
			p = shell(r, m.without, m.env...)
			p.Run(line)
			p.Expect(" end\r\n")
			for _, v := range m.values {
				if strings.Count(p.Output(), v) != 2 {
					t.Fatalf("without --mask %d times\n%s", strings.Count(p.Output(), v), p)
				}
			}
		})
	}
}

// References in variables reach the command by way of the vaultexec in front, which has resolved them for itself only.
func TestMaskReferences(t *testing.T) {
	t.Parallel()
	m := newMasked(t, "--resolve-env")
	for _, v := range []launcher{m.with, m.without} {
		p := shell(actual{t}, v, append(m.env, "REF=key ${vault:app-prod#KEY}")...)
		p.Run(`$V sh -c '[ "$REF" = "key $KEY" ] && echo sa""me'`)
		p.Expect("same\r\n")
		p.ExpectStatus(0)
	}
}

// Programs find with --mask what they find without: terminals of the same size and modes, no descriptor more, and they show
// the same.
func TestMaskIsNotSeen(t *testing.T) {
	t.Parallel()
	needs.Program(t, "less")
	v := map[string]launcher{"with": vaultexec(t, "--mask"), "without": supervise(t)}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("a line of text\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		line string
		do   func(p *ptytest.Terminal)
	}{
		"terminals":  {`$V sh -c 'for i in 0 1 2; do test -t $i && echo terminal; done; tty -s && echo input; : >/dev/tty && echo its own; ls /proc/self/fd; stty -a'`, nil},
		"script":     {`sh -c '$V stty -a; echo rc $?'`, nil},
		"progress":   {`$V sh -c 'for i in 10 50 90 100; do printf "\r\033[32m%3d %%\033[0m" $i; done; echo'`, nil},
		"raw output": {`$V sh -c 'stty raw; printf "a\nb\r\nc"; stty -raw; printf "d\ne\n"'`, nil},
		"binary":     {`$V sh -c 'printf "\000\001\200\377\n"'`, nil},
		"shell":      {`$V bash --norc --noprofile --noediting -c 'set -m; sleep 0 & wait; jobs; echo $-'`, nil},
		"echo stays": {`sh -c '$V stty -echo; stty -a'; stty echo`, nil},
		"password": {`$V bash -c 'read -rsp "Pass""word: " x </dev/tty; echo; echo got ${#x}'`, func(p *ptytest.Terminal) {
			p.Expect("Password: ")
			p.Type("opensesame\n")
			p.Expect("got 10")
		}},
		"keys": {`$V sh -c 'stty -icanon -echo; printf rea""dy; dd bs=1 count=3 2>/dev/null | od -An -tx1; stty icanon echo'`, func(p *ptytest.Terminal) {
			p.Expect("ready")
			p.Type("\x01\x1bZ")
			p.Expect("01 1b 5a")
		}},
		"flow control": {`$V sh -c 'echo rea""dy; read x; echo got $x'`, func(p *ptytest.Terminal) {
			p.Expect("ready")
			p.Type("\x13abc")
			p.Type("\x11\n")
			p.Expect("got abc")
		}},
		"less": {"$V less " + text, func(p *ptytest.Terminal) {
			p.Expect("\x1b\\[7m.*text\x1b") // its last line is the file's name
			p.Type(" ")
			p.Expect(":")
			p.Type("q")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, modes := map[string]string{}, map[string]unix.Termios{}
			for which, l := range v {
				p := shell(actual{t}, l, "LESS=")
				p.Resize(31, 97)
				p.Run(c.line)
				if c.do != nil {
					c.do(p)
				}
				p.ExpectPrompt()
				out[which], modes[which] = p.Output(), p.Modes()
			}
			if out["with"] != out["without"] {
				t.Errorf("with --mask %q\nwithout %q", out["with"], out["without"])
			}
			if modes["with"] != modes["without"] {
				t.Errorf("modes are left different: %+v and %+v", modes["with"], modes["without"])
			}
		})
	}
}

// Programs that take the whole screen, change its size, stop and go on.
func TestMaskFullScreen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ run, draws, leave string }{
		"top":  {"top -d 60", "load average|Tasks:", "q"},
		"nano": {"nano -I", `GNU nano(?s:.*?)\?25h`, "\x18"}, // down to the cursor: it waits for keys
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needs.Program(t, name)
			p := shell(actual{t}, vaultexec(t, "--mask"))
			modes := p.Modes()
			p.Run("TERM=xterm $V " + c.run)
			p.Expect(c.draws)
			for i := range 3 { // it draws anew, in the new size
				p.Resize(30+uint16(i), 100)
				p.Expect(c.draws)
			}
			if name == "nano" { // it binds the key itself
				p.Type("hello")
				p.Expect("hello")
				p.Type("\x14\x1a") // ^T^Z
			} else {
				p.Type(ptytest.CtrlZ)
			}
			p.Expect("Stopped")
			p.ExpectPrompt()
			if p.Modes() != modes {
				t.Fatalf("modes after a stop\n%s", p)
			}
			p.Run("fg")
			p.Expect(c.draws)
			p.Type(c.leave)
			if name == "nano" {
				p.Expect("Save modified buffer")
				p.Type("n")
			}
			p.ExpectStatus(0)
			if p.Modes() != modes {
				t.Fatalf("modes after the end\n%s", p)
			}
		})
	}
}

// Much that is typed at once arrives, and nothing of it is lost or doubled.
func TestMaskPaste(t *testing.T) {
	t.Parallel()
	p := shell(actual{t}, vaultexec(t, "--mask"))
	file := filepath.Join(t.TempDir(), "pasted")
	var text strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&text, "line %d of what was pasted, with some text in it\n", i)
	}
	p.Run("$V sh -c 'stty -echo; echo rea''dy; cat >" + file + "'")
	p.Expect("ready")
	p.Type(text.String() + ptytest.CtrlD)
	p.ExpectStatus(0)
	if b, err := os.ReadFile(file); err != nil || string(b) != text.String() {
		t.Fatalf("%d bytes of %d arrived, %v", len(b), text.Len(), err)
	}
}

// A job that is started in the background reads nothing and leaves the shell's terminal alone.
func TestMaskInBackground(t *testing.T) {
	t.Parallel()
	r := actual{t}
	p := shell(r, vaultexec(t, "--mask"))
	modes := p.Modes()
	log := newLines(r)
	p.Run("$V sh -c 'stty size; exec $PROBE signals " + log.path() + "' &")
	p.Expect(`24 80\r\n`)
	pid := log.number("ready")
	if p.Modes() != modes {
		t.Fatalf("modes with a job in the background\n%s", p)
	}
	p.Run("echo the shell''s")
	p.Expect("the shells")
	p.ExpectPrompt()
	p.Resize(40, 90)
	p.Run("fg")
	p.Await("vaultexec to have the terminal", func([]ptytest.Process) bool { return p.Modes() != modes })
	p.Type(ptytest.CtrlC)
	until(r, "the key", func() bool { return slices.Contains(log.all(), "2") })
	sendLast(r, pid)
	p.ExpectStatus(42)
}

// Whoever of the two vaultexecs is killed, the command is told, and nothing is left, whether it runs or is stopped.
func TestMaskKilled(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"vaultexec", "masking"} {
		for _, stopped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s stopped=%v", name, stopped), func(t *testing.T) {
				t.Parallel()
				p := shell(actual{t}, vaultexec(t, "--mask"))
				modes := p.Modes()
				p.Run("$V sleep 77")
				pids := append(p.AwaitState("sleep", "S"), p.AwaitState("masking", "S")...)
				if stopped {
					p.Type(ptytest.CtrlZ)
					p.Expect("Stopped")
					p.ExpectPrompt()
				}
				if err := send(p.AwaitState(name, "ST")[0], unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				until(actual{t}, "all to be gone", func() bool { return !slices.ContainsFunc(pids, alive) })
				if stopped && name == "vaultexec" {
					p.Run("/bin/true")
				} else if stopped { // the one in front is stopped, and finds out when it goes on
					p.Run("fg")
				}
				p.Expect("Killed")
				p.ExpectPrompt()
				p.Await("the modes to be as before", func([]ptytest.Process) bool { return p.Modes() == modes })
			})
		}
	}
}

// A session leader without a shell, as PID 1 of docker run -it is: status, size and end of the terminal.
func TestMaskSessionLeader(t *testing.T) {
	t.Parallel()
	m := newMasked(t)
	r := actual{t}
	run := func(command ...string) *ptytest.Terminal {
		return ptytest.Open(r, r.Limit(), append(environ(r), m.env...), m.with.cmd(command...)...)
	}
	p := run("sh", "-c", "stty size; echo [$KEY]; read x; exit 7")
	p.Expect(`24 80\r\n\[\*\*\*\]\r\n`)
	p.Run("")
	if got := ending(p.Ended()); got != "7" {
		t.Fatalf("ended with %s", got)
	}
	p = run("sleep", "77")
	sleep := p.AwaitState("sleep", "S")
	p.Close()
	if got := ending(p.Ended()); got != "signal HUP" {
		t.Fatalf("ended with %s", got)
	}
	until(r, "the command to be gone", func() bool { return !slices.ContainsFunc(sleep, alive) })
	p = run("no-such-program")
	p.Expect(`vaultexec: cannot start "no-such-program": command not found\r\nvaultexec: hint: .*\r\n`)
	if got := ending(p.Ended()); got != "127" {
		t.Fatalf("ended with %s", got)
	}
}

// PID 1 on a terminal, behind unshare, which leads the session.
func TestMaskAsPID1(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	m := newMasked(t)
	r := actual{t}
	for command, want := range map[string]string{"exit 7": "7", "kill -TERM $$": "143", "(sleep 0 &) ; exec $PROBE pid1": "42"} {
		p := ptytest.Open(r, r.Limit(), append(environ(r, "PROBE="+probe(t)), m.env...), asPID1(m.with.cmd("sh", "-c", "stty size; echo [$KEY]; "+command)...)...)
		p.Expect(`24 80\r\n\[\*\*\*\]\r\n`)
		if want == "42" {
			p.Expect(`zombies 0\r\nready\r\n`)
			if err := send(p.AwaitState("vaultexec", "S")[0], unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		if got := ending(p.Ended()); got != want {
			t.Fatalf("%s: ended with %s\n%s", command, got, p)
		}
	}
}

// Ctrl-Z while vaultexec itself asks for a password, and while it waits for Vault: once.
func TestMaskBeforeTheCommand(t *testing.T) {
	t.Parallel()
	srv := vaulttest.Dev(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("any"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ options, says string }{
		"asking":  {"--auth userpass --username ada", "assword"},
		"waiting": {"--token-file $TOKEN --address http://127.0.0.1:1", "waiting for Vault"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := shell(actual{t}, launcher{vaulttest.Build(t, "."), "--mask"}, "VAULT_ADDR="+srv.Addr, "TOKEN="+token)
			modes := p.Modes()
			p.Run("$V " + c.options + " --path app -- true")
			p.Expect("vaultexec: .*" + c.says + "|" + c.says)
			for range 3 {
				p.AwaitState("masking", "S")
				p.Type(ptytest.CtrlZ)
				p.Expect("Stopped")
				p.ExpectPrompt()
				if p.Modes() != modes {
					t.Fatalf("modes after a stop\n%s", p)
				}
				p.Run("fg")
				p.Await("it to have the terminal again", func([]ptytest.Process) bool { return p.Modes() != modes })
				if name == "asking" {
					p.Expect(c.says)
				}
			}
			p.AwaitState("masking", "S")
			p.Type(ptytest.CtrlC)
			p.ExpectStatus(130)
		})
	}
}

// Through a pipe a prompt appears while the command waits for the answer, also when it ends like the beginning of a value,
// and the value that follows is masked all the same.
func TestMaskPrompt(t *testing.T) {
	t.Parallel()
	m := newMasked(t)
	check := func(t T, l launcher, want string) {
		in, answer, err := os.Pipe()
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer answer.Close()
		p := start(t, l.cmd("bash", "-c", `printf "Password: ${KEY:0:3}"; read x; printf "${KEY:3}"; read x; echo " end"`), func(c *exec.Cmd) {
			c.Stdin, c.Env = in, append(c.Env, m.env...)
		})
		_ = in.Close()
		contents := func() string { b, _ := os.ReadFile(p.out.path()); return string(b) }
		for _, next := range strings.SplitAfter(want, "|") {
			seen := strings.ReplaceAll(want[:strings.Index(want, next)+len(next)], "|", "")
			until(t, "the prompt", func() bool { return contents() == seen })
			_, _ = answer.WriteString("\n")
		}
		p.wantEnd("0")
	}
	check(actual{t}, m.with, "Password: "+m.values[0][:3]+"|***| end\n")
	mustFail(t, "without --mask", func(t T) { check(t, m.without, "Password: "+m.values[0][:3]+"|***| end\n") })
}

// All that the command has written is out when vaultexec ends, however the command ends.
func TestMaskLastByte(t *testing.T) {
	t.Parallel()
	m := newMasked(t)
	for _, c := range []struct{ end, want string }{{"exit 0", "0"}, {"exit 255", "255"}, {"kill -9 $$", "signal KILL"}, {"kill -TERM $$", "signal TERM"}, {"kill -PIPE $$", "signal PIPE"}} {
		for range 5 {
			p := start(actual{t}, m.with.cmd("sh", "-c", `head -c 300000 /dev/zero | tr '\0' a; printf "$KEY"; printf "err $KEY" >&2; `+c.end), func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, m.env...) })
			p.wantEnd(c.want)
			out, _ := os.ReadFile(p.out.path())
			if want := strings.Repeat("a", 300_000) + "***"; string(out) != want {
				t.Fatalf("%s: %d bytes, want %d", c.end, len(out), len(want))
			}
			if b, _ := os.ReadFile(p.err.path()); string(b) != "err ***" {
				t.Fatalf("%s: standard error has %q", c.end, vaulttest.Redact(string(b)))
			}
		}
	}
}

// Whoever has left the group and keeps the output open, or writes without end, does not keep vaultexec.
func TestMaskOutputKeptOpen(t *testing.T) {
	t.Parallel()
	for _, c := range []string{"setsid sleep 3600 & echo $!; exit 3", "setsid yes & echo $! >&2; exit 3"} {
		p := start(actual{t}, vaultexec(t, "--mask").cmd("sh", "-c", c))
		p.wantEnd("3")
		for _, l := range append(p.out.all(), p.err.all()...) {
			if pid, err := strconv.Atoi(l); err == nil {
				kill(pid)
			}
		}
	}
}

// A reader that goes is the command's to notice, as it would without vaultexec: by SIGPIPE, also if nothing was written since.
func TestMaskVanishedReader(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]launcher{"with": vaultexec(t, "--mask", "--dumpable"), "without": supervise(t, "--dumpable")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needsRoot(t)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			in, keep, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer keep.Close()
			p := start(actual{t}, l.cmd("sh", "-c", "echo $$; read x; echo text; exit 0"), func(c *exec.Cmd) { c.Stdout, c.Stdin = w, in })
			_, _ = w.Close(), in.Close()
			buf := make([]byte, 100)
			n, err := r.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			child, _ := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
			pipe, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", child))
			_ = r.Close()
			until(actual{t}, "the pipe to have no reader", func() bool { return !hasReader(p.pid, pipe) })
			_, _ = keep.WriteString("\n")
			p.wantEnd("signal PIPE")
		})
	}
}

// hasReader reports whether a process has the reading end of a pipe.
func hasReader(pid int, pipe string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		link, _ := os.Readlink(filepath.Join(dir, e.Name()))
		info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, e.Name()))
		return link == pipe && regexp.MustCompile(`flags:\t0*(02)?0*4?000\n`).Match(info)
	})
}

// A reader that does not read makes the command wait, and nothing grows. SIGTERM ends both, the reader or not.
func TestMaskBackPressure(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := start(actual{t}, vaultexec(t, "--mask").cmd("yes"), func(c *exec.Cmd) { c.Stdout = w })
	_ = w.Close()
	yes := childOf(actual{t}, p.pid)
	written, same := "", 0
	until(actual{t}, "yes to wait", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", yes))
		if now := string(b); now == written && strings.Contains(now, "wchar: ") {
			same++
		} else {
			written, same = now, 0
		}
		return same == 20
	})
	if m := regexp.MustCompile(`wchar: (\d+)`).FindStringSubmatch(written); m == nil || len(m[1]) > 6 {
		t.Fatalf("the command could write on: %s", written)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}

// A full disk loses output, is said once, and does not end the command.
func TestMaskFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	p := start(actual{t}, vaultexec(t, "--mask").cmd("sh", "-c", "for i in 1 2 3; do echo text; sleep 0.05; done; exit 5"), func(c *exec.Cmd) { c.Stdout = full })
	p.wantEnd("5")
	if b, _ := os.ReadFile(p.err.path()); !regexp.MustCompile(`^vaultexec: warning: cannot write the command's standard output, what it writes is lost: no space left on device\n$`).Match(b) {
		t.Fatalf("said %q", b)
	}
}

// After a restart the new value is masked, and the old one still is: something that lives on prints it.
func TestMaskRestart(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "--mask")
	values := []string{vaulttest.Canary("OLD"), vaulttest.Canary("NEW")}
	put := func(v string) { w.srv.PutKV(t, w.mount, "app-prod", map[string]any{"KEY": v}) }
	put(values[0])
	late := filepath.Join(t.TempDir(), "go")
	command := fmt.Sprintf(`setsid sh -c 'until [ -e %s ]; do sleep 0.02; done; echo "late $KEY"' & echo "now $KEY"; exec sleep 77`, late)
	p := start(actual{t}, w.launcher.cmd("sh", "-c", command), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	p.out.await(1)
	put(values[1])
	w.refresh(t, p.pid)
	p.out.await(2)
	if err := os.WriteFile(late, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got := p.out.await(4)
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
	slices.Sort(got)
	if want := []string{"late ***", "late ***", "now ***", "now ***"}; !slices.Equal(got, want) {
		t.Fatalf("got %s", p.out)
	}
}

// Idle, nothing wakes vaultexec, and its memory is what it is without.
func TestMaskCost(t *testing.T) {
	t.Parallel()
	in, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	p := start(actual{t}, launcher{vaulttest.BuildStatic(t, "."), "--mask", "--"}.cmd("sh", "-c", "yes | head -c 50000000; echo; exec cat"), func(c *exec.Cmd) { c.Stdin, c.Stdout = in, nil })
	_ = in.Close()
	until(actual{t}, "cat", func() bool {
		return slices.ContainsFunc(ptytest.All(), func(m ptytest.Process) bool { return m.Parent == p.pid && m.Name == "cat" })
	})
	if kb := statusField(t, p.pid, "VmHWM"); kb > 20_000 {
		t.Errorf("%d KiB at most, after 50 MB", kb)
	}
}

// BenchmarkMaskPipe copies 1 GB of log lines through a pipe, with 200 values to be masked and for comparison with cat; the bar is
// a third of the speed of cat, in constant memory.
//
//	go test ./e2e/process -run XXX -bench MaskPipe -benchtime 3x
func BenchmarkMaskPipe(b *testing.B) {
	srv := vaulttest.Dev(b)
	scope := srv.Scope(b)
	mount := scope.Mount(2)
	secret := map[string]any{}
	for i := range 200 {
		secret[fmt.Sprintf("SECRET_%d", i)] = vaulttest.Canary(fmt.Sprint("value-", i))
	}
	srv.PutKV(b, mount, "app-prod", secret)
	token := srv.Token(b, vaulttest.TokenOpts{Policies: []string{scope.ReadPolicy(mount, "app-prod")}, NoDefault: true})
	var text strings.Builder
	for i := 0; text.Len() < 50_000_000; i++ {
		fmt.Fprintf(&text, "2026-11-24T15:04:05.%06dZ INFO request id=%016x path=/api/v1/items/%d status=200 took=%dms\n", i%1_000_000, uint64(i)*0x9E3779B97F4A7C15, i, i%100)
	}
	file := filepath.Join(b.TempDir(), "text")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	twenty := strings.Repeat(" "+file, 20)
	run := func(b *testing.B, line string) {
		b.SetBytes(int64(20 * text.Len()))
		for b.Loop() {
			cmd := exec.Command("bash", "-c", line)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + token}
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v %s", err, vaulttest.Redact(string(out)))
			} else if s := strings.TrimSpace(string(out)); s != "" {
				kb, _ := strconv.ParseFloat(s, 64)
				b.ReportMetric(kb/1024, "MB-of-memory")
			}
		}
	}
	v := fmt.Sprintf("%s --mount %s --path app-prod --mask --dumpable -- sh -c ", vaulttest.BuildStatic(b, "."), mount)
	b.Run("cat", func(b *testing.B) { run(b, "cat"+twenty+" | cat >/dev/null") })
	b.Run("mask", func(b *testing.B) {
		run(b, v+"'cat"+twenty+"; grep VmHWM /proc/$PPID/status | tr -dc 0-9 >&2' >/dev/null")
	})
}
