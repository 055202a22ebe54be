package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
)

// told is a command that does what files in a directory say: ready (READY=1), exit (with 3). It writes what happens to it.
const told = `trap 'echo "term $GENERATION" >>"$0"; [ "$GENERATION" = 1 ] || exit 0' TERM
trap 'echo "int $GENERATION" >>"$0"' INT
echo "start $GENERATION" >>"$0"
while :; do
	[ -e "$1/ready$GENERATION" ] && rm "$1/ready$GENERATION" && "$2" notify READY=1
	[ -e "$1/end$GENERATION" ] && exit 0
	[ -e "$1/exit$GENERATION" ] && exit 3
	sleep 0.01
done`

// toldRun is a run of such a command.
type toldRun struct {
	*proc
	w   *watched
	dir string
	log *lines
}

func startTold(t *testing.T, around func(argv []string) []string, env func(*exec.Cmd), options ...string) toldRun {
	t.Helper()
	at := actual{t}
	r := toldRun{w: newWatched(t, startFirst(options...)...), dir: t.TempDir(), log: newLines(at)}
	argv := r.w.launcher.cmd("sh", "-c", told, r.log.path(), r.dir, probe(t))
	r.proc = start(at, around(argv), func(c *exec.Cmd) { c.Env = append(c.Env, r.w.env...) }, env)
	r.has("start 1")
	return r
}

// has waits until the command has written a line.
func (r toldRun) has(line string) {
	r.t.Helper()
	until(r.t, line, func() bool { return strings.Contains(r.log.String(), line) })
}

// tell has the command do something.
func (r toldRun) tell(what string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, what), nil, 0o600); err != nil {
		r.t.Fatalf("%v", err)
	}
}

func asItIs(argv []string) []string { return argv }

// As PID 1 vaultexec ends what is left when both commands of a handover are gone, and not while the old one finishes its work.
func TestHandoverAsPID1(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	around := func(argv []string) []string { return asPID1(argv...) }
	r := startTold(t, around, func(*exec.Cmd) {}, "--ready", "after:10ms", "--log-level", "info", "--stop-timeout", "1h")
	first := childAny(r.t, r.pid)
	r.w.change(t, 2)
	r.w.refresh(t, first)
	r.has("term 1")
	if err := send(first, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(r.t, "the end of the new one", func() bool { return strings.Contains(r.err.String(), "the command has ended") })
	r.tell("end1")
	r.wantEnd("0")
	if n := strings.Count(r.log.String(), "term 1"); n != 1 {
		t.Errorf("the old command was told to stop %d times\n%s%s", n, r.log, r.err)
	}
	if n := strings.Count(r.err.String(), "exit code 0"); n != 2 {
		t.Errorf("not both ended in order\n%s", r.err)
	}
}

// systemd hears READY=1 when the command that serves is ready, whichever of a handover that is, and whenever it has said so.
func TestHandoverBeforeReady(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string]func(r toldRun){
		"the new one is": func(r toldRun) {
			r.tell("ready2")
		},
		"the new one ends, the old one is": func(r toldRun) {
			r.tell("exit2")
			until(r.t, "one command alone", func() bool { return len(childrenOf(r.pid)) == 2 })
			r.tell("ready1")
		},
		"the old one is, the new one ends": func(r toldRun) {
			r.tell("ready1")
			until(r.t, "READY=1 of the old one", func() bool {
				_, err := os.Stat(filepath.Join(r.dir, "ready1"))
				return os.IsNotExist(err)
			})
			r.tell("exit2")
		},
		"the old one ends, the new one is": func(r toldRun) {
			r.tell("end1")
			until(r.t, "one command alone", func() bool { return len(childrenOf(r.pid)) == 2 })
			r.tell("ready2")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(actual{t}, filepath.Join(t.TempDir(), "notify"))
			r := startTold(t, asItIs, m.env(), "--ready", "notify", "--ready-timeout", "1h", "--log-level", "debug")
			r.w.change(t, 2)
			r.w.refresh(t, r.pid)
			r.has("start 2")
			if n := m.count("READY=1"); n != 0 {
				t.Fatalf("READY=1 before anything was ready\n%s", m.got)
			}
			steps(r)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("systemd heard:\n%s\nthe command wrote:\n%s\nvaultexec wrote:\n%s", m.got, r.log, r.err)
				}
			})
			m.await("READY=1")
			r.signal(unix.SIGTERM)
			r.tell("end1")
			r.wantEnd("0")
			m.await("STOPPING=1")
		})
	}
}

// inGroup reports whether a process of that name is in a process group.
func inGroup(group int, name string) bool {
	return slices.ContainsFunc(ptytest.All(), func(m ptytest.Process) bool { return m.Group == group && m.Name == name })
}

// A new command that asks for the terminal while the old one has it is stopped by the kernel. It goes on when it serves. A key
// ends the run at any moment of a handover, whatever the command in front makes of it.
func TestHandoverOnATerminal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trap, ready, moment, want string
	}{
		"killed, the old one serves":           {"", "notify", "start 2", "signal INT"},
		"killed, the new one serves":           {"", "after:300ms", "has it 2", "signal INT"},
		"exit code 1, the old one serves":      {`trap 'exit 1' INT`, "notify", "start 2", "1"},
		"exit code 1, the new one serves":      {`trap 'exit 1' INT`, "after:300ms", "has it 2", "1"},
		"exit code 0, the old one serves":      {`trap 'exit 0' INT`, "notify", "start 2", "0"},
		"exit code 0, the new one serves":      {`trap 'exit 0' INT`, "after:300ms", "has it 2", "0"},
		"exit code 1, the old one still works": {`trap 'echo term >>"$0"' TERM; trap 'exit 1' INT`, "after:300ms", "term", "1"},
	} {
		for _, probation := range []string{"0", "1h"} {
			t.Run(name+" "+probation, func(t *testing.T) {
				t.Parallel()
				at := actual{t}
				w := newWatched(t, startFirst("--ready", c.ready, "--probation", probation, "--stop-timeout", "1s")...)
				log := newLines(at)
				script := c.trap + `
					echo "start $GENERATION $$" >>"$0"; stty -echo; echo "has it $GENERATION" >>"$0"; while :; do sleep 0.01; done`
				term := ptytest.Open(t, at.Limit(), append(environ(at), w.env...), w.launcher.cmd("sh", "-c", script, log.path())...)
				has := func(line string) {
					t.Helper()
					until(at, line, func() bool { return strings.Contains(log.String(), line) })
				}
				has("has it 1")
				w.change(t, 2)
				w.refresh(t, term.Leads)
				has(c.moment)
				has("start 2") // before that it has no trap yet
				until(at, "a witness of its keys, or the end of the handover", func() bool {
					return witnessOf(term) && inGroup(term.Foreground(), "exe") || probation == "0" && !alive(log.number("start 1"))
				})
				term.Type(ptytest.CtrlC)
				if got := ending(term.Ended()); got != c.want {
					t.Errorf("ended with %s, want %s\n%s%s", got, c.want, term, log)
				}
				if n := strings.Count(log.String(), "start "); n != 2 {
					t.Errorf("%d starts\n%s", n, log)
				}
				for _, m := range ptytest.All() {
					if m.Session == term.Leads && m.State != "Z" {
						t.Errorf("left over: %v", m)
					}
				}
			})
		}
	}
}
