package process

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
)

// A key that asks for the end ends a run that would restart its command: in the probation, when it could be taken for a failure of
// the new secrets, and while the old command drains, when the next one would follow.
func TestKeysEndARunThatRestarts(t *testing.T) {
	t.Parallel()
	const head = `echo "start $GENERATION $$" >>"$0"; `
	for name, c := range map[string]struct {
		script string
		key    string
		want   string
	}{
		"killed by INT":          {head + `while :; do sleep 0.01; done`, ptytest.CtrlC, "signal INT"},
		"killed by QUIT":         {head + `ulimit -c 0; while :; do sleep 0.01; done`, ptytest.CtrlBackslash, "signal QUIT"},
		"exit code 130":          {`trap 'exit 130' INT; ` + head + `while :; do sleep 0.01; done`, ptytest.CtrlC, "130"},
		"exit code 1":            {`trap 'exit 1' INT; ` + head + `while :; do sleep 0.01; done`, ptytest.CtrlC, "1"},
		"exit code 3 for QUIT":   {`trap 'exit 3' QUIT; ` + head + `while :; do sleep 0.01; done`, ptytest.CtrlBackslash, "3"},
		"it drains":              {`trap 'echo term >>"$0"' TERM; ` + head + `while :; do sleep 0.01; done`, ptytest.CtrlC, "signal INT"},
		"it drains, exit code 1": {`trap 'echo term >>"$0"' TERM; trap 'exit 1' INT; ` + head + `while :; do sleep 0.01; done`, ptytest.CtrlC, "1"},
		"it drains, exit code 0": {`trap 'echo term >>"$0"' TERM; trap 'exit 0' INT; ` + head + `while :; do sleep 0.01; done`, ptytest.CtrlC, "0"},
	} {
		for _, mode := range []string{"alone", "masked", "in a script"} {
			t.Run(name+" "+mode, func(t *testing.T) {
				t.Parallel()
				options := []string{"--probation", "1h", "--stop-timeout", "1h"}
				if mode == "masked" {
					options = append(options, "--mask")
				}
				w := newWatched(t, options...)
				log := newLines(actual{t})
				argv := w.launcher.cmd("sh", "-c", c.script, log.path())
				if mode == "in a script" { // vaultexec shares the script's group
					argv = append([]string{"sh", "-c", `echo "vaultexec $$" >>"` + log.path() + `"; "$@"; exit $?`, "script"}, argv...)
				}
				term := ptytest.Open(t, actual{t}.Limit(), append(environ(actual{t}), w.env...), argv...)
				pid := term.Leads
				until(actual{t}, "the command", func() bool { return strings.Contains(log.String(), "start 1") })
				if mode == "in a script" {
					pid = term.AwaitState("vaultexec", "SR")[0]
				}
				w.change(t, 2)
				w.refresh(t, pid)
				waitsFor := "start 2"
				if strings.HasPrefix(name, "it drains") {
					waitsFor = "term"
				}
				until(actual{t}, waitsFor, func() bool { return strings.Contains(log.String(), waitsFor) })
				starts := strings.Count(log.String(), "start ")
				if mode != "in a script" && waitsFor == "start 2" {
					until(actual{t}, "the witness", func() bool { return witnessOf(term) })
				}
				term.Type(c.key)
				end := ending(term.Ended())
				if n := strings.Count(log.String(), "start "); n != starts {
					t.Errorf("another command was started:\n%s", log)
				}
				if mode != "in a script" && end != c.want {
					t.Errorf("ended with %s, want %s", end, c.want)
				}
			})
		}
	}
}

// witnessOf reports whether the process is there that sees the keys, in the terminal's session or in the one behind it.
func witnessOf(term *ptytest.Terminal) bool {
	all := ptytest.All()
	return slices.ContainsFunc(all, func(m ptytest.Process) bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.PID))
		if !strings.HasPrefix(string(b), "vaultexec: watching for Ctrl-C") || catches(m.PID, unix.SIGQUIT) {
			return false
		}
		return m.Session == term.Leads || slices.ContainsFunc(all, func(l ptytest.Process) bool { return l.PID == m.Session && l.Parent == term.Leads })
	})
}

// The control: on a terminal, too, a command that fails with its new secrets is started again with the old ones.
func TestFailureOnATerminalIsReverted(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "--probation", "1h")
	log := newLines(actual{t})
	term := ptytest.Open(t, actual{t}.Limit(), append(environ(actual{t}), w.env...), w.launcher.cmd("sh", "-c", `echo "start $GENERATION" >>"$0"; [ "$GENERATION" = 1 ] || exit 1; while :; do sleep 0.01; done`, log.path())...)
	log.await(1)
	w.change(t, 2)
	w.refresh(t, term.Leads)
	if got := log.await(3); got[2] != "start 1" {
		t.Errorf("%q", got)
	}
	term.Type(ptytest.CtrlC)
	if end := ending(term.Ended()); end != "signal INT" {
		t.Errorf("ended with %s", end)
	}
}

// The terminal goes away while the old command drains: no other is started.
func TestHangupWhileStopping(t *testing.T) {
	t.Parallel()
	w := newWatched(t, "--stop-timeout", "1h")
	log := newLines(actual{t})
	term := ptytest.Open(t, actual{t}.Limit(), append(environ(actual{t}), w.env...), w.launcher.cmd("sh", "-c", `trap 'echo term >>"$0"' TERM; echo "start $GENERATION $$" >>"$0"; while :; do sleep 0.01; done`, log.path())...)
	log.await(1)
	w.change(t, 2)
	w.refresh(t, term.Leads)
	until(actual{t}, "the stop signal", func() bool { return strings.Contains(log.String(), "term") })
	term.Close()
	term.Ended()
	if strings.Contains(log.String(), "start 2") {
		t.Errorf("another command was started:\n%s", log)
	}
}

// A command that leaves the terminal raw leaves it to nobody: the next one finds what the first one found.
func TestModesAfterARestart(t *testing.T) {
	t.Parallel()
	for _, options := range [][]string{nil, {"--mask"}} {
		t.Run(strings.Join(append([]string{"watch"}, options...), " "), func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, options...)
			log := newLines(actual{t})
			script := `stty -a | grep -ow -e '-*echo' -e '-*icanon' | tr '\n' ' ' >>"$0"; stty raw -echo; trap 'exit 0' TERM; echo "start $GENERATION" >>"$0"; while :; do sleep 0.01; done`
			term := ptytest.Open(t, actual{t}.Limit(), append(environ(actual{t}), w.env...), w.launcher.cmd("sh", "-c", script, log.path())...)
			first := log.await(1)[0]
			if !strings.Contains(first, "icanon") || strings.Contains(first, "-icanon") {
				t.Fatalf("the first command finds %q", first)
			}
			w.change(t, 2)
			w.refresh(t, term.Leads)
			second := log.await(2)[1]
			if strings.TrimSuffix(second, "start 2") != strings.TrimSuffix(first, "start 1") {
				t.Errorf("the second command finds %q, the first %q", second, first)
			}
			_ = send(term.Leads, unix.SIGTERM)
			term.Ended()
		})
	}
}

// A key ends what is around a command, too, whatever the command makes of it: with --mask as without vaultexec.
func TestKeysEndWhatIsAround(t *testing.T) {
	t.Parallel()
	const command = `trap "exit 0" INT QUIT; echo "ready" >>"$0"; while :; do sleep 0.01; done`
	around := map[string]func(dir string, argv []string) []string{
		"sh": func(_ string, argv []string) []string {
			return append([]string{"sh", "-c", `"$@"; echo after >>"$AFTER"`, "sh"}, argv...)
		},
		"bash": func(_ string, argv []string) []string {
			return append([]string{"bash", "-c", `"$@"; echo after >>"$AFTER"`, "bash"}, argv...)
		},
		"make": func(dir string, argv []string) []string {
			var line strings.Builder
			for _, word := range argv {
				line.WriteString(" '" + strings.ReplaceAll(strings.ReplaceAll(word, "$", "$$"), "'", `'\\''`) + "'")
			}
			file := dir + "/Makefile"
			if err := os.WriteFile(file, []byte("all:\n\t@"+line.String()+"\n\t@echo after >>\"$$AFTER\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{"make", "-f", file}
		},
	}
	for name, wrap := range around {
		for _, key := range []string{ptytest.CtrlC, ptytest.CtrlBackslash} {
			t.Run(fmt.Sprintf("%s %q", name, key), func(t *testing.T) {
				t.Parallel()
				w := newWatched(t)
				outcome := func(prefix []string) string {
					log := newLines(actual{t})
					argv := wrap(t.TempDir(), append(append([]string{}, prefix...), "sh", "-c", command, log.path()))
					term := ptytest.Open(t, actual{t}.Limit(), append(environ(actual{t}, "AFTER="+log.path()), w.env...), argv...)
					until(actual{t}, "the command", func() bool { return strings.Contains(log.String(), "ready") })
					term.Type(key)
					term.Ended() // dash ends by the signal or with 2, as it happens
					return fmt.Sprintf("%d starts, after: %t", strings.Count(log.String(), "ready"), strings.Contains(log.String(), "after"))
				}
				want := outcome(nil)
				for mode, prefix := range map[string][]string{"--watch": w.launcher, "--mask": append(w.launcher[:len(w.launcher)-1:len(w.launcher)-1], "--mask", "--")} {
					if got := outcome(prefix); got != want {
						t.Errorf("%s: %s; without vaultexec: %s", mode, got, want)
					}
				}
			})
		}
	}
}
