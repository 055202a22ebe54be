package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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

// forwardable are the signals that vaultexec forwards: all that can be caught but SIGCHLD, SIGURG and SIGPIPE, and SIGPROF and
// 32 to 34, of which Go delivers nothing. The last one ends the probe.
func forwardable() []syscall.Signal {
	var list []syscall.Signal
	for sig := syscall.Signal(1); sig < 64; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGPROF, 32, 33, 34:
		default:
			list = append(list, sig)
		}
	}
	return list
}

// sendAll sends each signal and waits until it has arrived, and then the one that ends the probe. Nothing else may come.
func sendAll(t T, pid int, log *lines, sigs []syscall.Signal) {
	t.Helper()
	var want []string
	for _, sig := range append(sigs, 64) {
		if err := send(pid, sig); err != nil {
			t.Fatalf("signal %d: %v", sig, err)
		}
		want = append(want, strconv.Itoa(int(sig)))
		if got := log.await(1 + len(want))[1:]; !slices.Equal(got, want) {
			t.Fatalf("after signal %d the command had %v", sig, got)
		}
	}
}

// Every signal reaches the command once, with and without a terminal, in both modes.
func TestEverySignal(t *testing.T) {
	t.Parallel()
	without := func(t T, v launcher) {
		log := newLines(t)
		p := start(t, v.cmd(probe(t), "signals", log.path()))
		log.number("ready")
		sendAll(t, p.pid, log, forwardable())
		p.wantEnd("42")
		if s := p.err.String() + p.out.String(); s != "" {
			t.Fatalf("it says %q", s)
		}
	}
	with := func(t T, v launcher) {
		p := shell(t, v)
		log := newLines(t)
		p.Run("$V $PROBE signals " + log.path())
		pid := log.number("ready")
		sendAll(t, launcherOf(pid), log, forwardable())
		p.ExpectStatus(42)
	}
	for name, check := range map[string]func(T, launcher){"without terminal": without, "with terminal": with} {
		t.Run("supervise "+name, func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t)) })
		t.Run("replace "+name, func(t *testing.T) { t.Parallel(); check(actual{t}, vaultexec(t)) })
		mustFail(t, name, func(t T) { check(t, script(t, `"$@"; exit $?`)) })
	}
}

// launcherOf returns the launcher of a process, or itself.
func launcherOf(pid int) int {
	all := ptytest.All()
	for _, m := range all {
		if m.PID != pid {
			continue
		}
		for _, parent := range all {
			if parent.PID == m.Parent && slices.Contains([]string{"vaultexec", "probe", "launcher"}, parent.Name) {
				return parent.PID
			}
		}
	}
	return pid
}

// What a parent gets on its own account is never forwarded.
func TestNoise(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher) {
		log := newLines(t)
		p := start(t, v.cmd(probe(t), "signals", log.path()))
		log.number("ready")
		for range 50 {
			for _, sig := range []syscall.Signal{unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE} {
				p.signal(sig)
			}
		}
		sendAll(t, p.pid, log, nil)
		p.wantEnd("42")
	}
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t)) })
	mustFail(t, "naive", func(t T) { check(t, naive(t)) })
}

// A burst of 40 signals 30 ms apart arrives as 40; a hundred at once block nothing and lose no other signal.
func TestBurst(t *testing.T) {
	t.Parallel()
	log := newLines(actual{t})
	p := start(actual{t}, supervise(t).cmd(probe(t), "signals", log.path()))
	log.number("ready")
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for i := range 40 {
		<-tick.C
		p.signal(unix.SIGUSR1)
		log.await(2 + i) // the kernel merges signals for a process that a busy machine lets wait
	}
	if got := log.await(41); len(got) != 41 {
		t.Fatalf("%d of 40 signals", len(got)-1)
	}
	for range 100 {
		p.signal(unix.SIGUSR2)
	}
	p.signal(unix.SIGTERM)
	wait.Until(t, 10*time.Second, "SIGTERM", func() bool { return slices.Contains(log.all(), "15") })
	p.signal(64)
	p.wantEnd("42")
}

// SIGTERM is passed on as --stop-signal, vaultexec stays until the command has ended, and has its code.
func TestStopSignal(t *testing.T) {
	t.Parallel()
	check := func(t T, number string, v launcher) {
		out := newLines(t)
		p := start(t, v.cmd("sh", "-c", `trap 'echo told INT; sleep 0.3; echo done; exit 42' INT; trap 'echo told TERM; exit 1' TERM; echo ready; while :; do sleep 0.02; done`),
			func(c *exec.Cmd) { c.Stdout = out.file })
		out.await(1)
		p.signal(unix.SIGTERM)
		p.wantEnd("42")
		if got := out.all(); !slices.Equal(got, []string{"ready", "told " + number, "done"}) {
			t.Fatalf("%v", got)
		}
	}
	for _, name := range []string{"INT", "SIGINT", "2", "int"} {
		t.Run(name, func(t *testing.T) { t.Parallel(); check(actual{t}, "INT", supervise(t, "--stop-signal", name)) })
	}
	mustFail(t, "without", func(t T) { check(t, "INT", supervise(t)) })
	mustFail(t, "sh", func(t T) { check(t, "INT", script(t, `"$@" & wait`)) })
}

// stubborn ignores what it is told.
const stubborn = `trap '' TERM INT; echo ready; while :; do sleep 0.02; done`

// --stop-timeout limits a received SIGTERM only when it was given.
func TestStopTimeout(t *testing.T) {
	t.Parallel()
	t.Run("given", func(t *testing.T) {
		t.Parallel()
		p := start(actual{t}, supervise(t, "--stop-timeout", "300ms").cmd("sh", "-c", stubborn))
		p.out.await(1)
		p.signal(unix.SIGTERM)
		p.wantEnd("signal KILL")
		p.wantSays("the command did not stop in time, it gets SIGKILL command=sh", "--stop-timeout gives it more time")
	})
	t.Run("a command that stops", func(t *testing.T) {
		t.Parallel()
		p := start(actual{t}, supervise(t, "--stop-timeout", "1m").cmd("sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.02; done"))
		p.out.await(1)
		p.signal(unix.SIGTERM)
		p.wantEnd("4")
		p.wantSays()
	})
	t.Run("how it ended", func(t *testing.T) {
		t.Parallel()
		p := start(actual{t}, supervise(t, "--log-level", "debug").cmd("sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.02; done"))
		p.out.await(1)
		p.signal(unix.SIGTERM)
		p.wantEnd("4")
		p.wantSays("the command has ended command=sh", `status="exit code 4"`, " stop=")
	})
	t.Run("not given", func(t *testing.T) {
		t.Parallel()
		p := start(actual{t}, supervise(t).cmd("sh", "-c", stubborn))
		p.out.await(1)
		p.signal(unix.SIGTERM)
		select {
		case <-p.done:
			t.Fatalf("ended with %s", p.ended())
		case <-time.After(10*time.Second + 500*time.Millisecond): // the default, which counts for vaultexec's own stops
		}
	})
}

// A second SIGTERM ends the wait only a second after the first: GNU timeout sends two within microseconds. SIGINT never does.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		sig    syscall.Signal
		after  time.Duration
		killed bool
	}{
		{"TERM soon", unix.SIGTERM, 0, false},
		{"TERM after a second", unix.SIGTERM, 1100 * time.Millisecond, true},
		{"INT after a second", unix.SIGINT, 1100 * time.Millisecond, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := start(actual{t}, supervise(t, "--stop-timeout", "1m").cmd("sh", "-c", `trap 'echo told' TERM INT; echo ready; while :; do sleep 0.02; done`))
			p.out.await(1)
			p.signal(unix.SIGTERM)
			p.out.await(2)
			first := time.Now() // vaultexec has it, too
			wait.For(c.after, func() bool { return time.Since(first) >= c.after })
			p.signal(c.sig)
			if c.killed {
				p.wantEnd("signal KILL")
				p.wantSays("a further SIGTERM ends the wait")
				return
			}
			select {
			case <-p.done:
				t.Fatalf("ended with %s", p.ended())
			case <-time.After(500 * time.Millisecond):
			}
		})
	}
}

// GNU timeout sends its signal to vaultexec and then to its group, also the one that it receives itself: the command keeps its
// grace. The control is a vaultexec for which the second would count: the first was sent a second before.
func TestGNUTimeout(t *testing.T) {
	t.Parallel()
	check := func(t T, p *proc) {
		p.out.await(1)
		// Of a SIGTERM before its fork has returned, timeout dies by itself (coreutils 9.1).
		until(t, "timeout to wait", func() bool { return state(p.pid) == "S" })
		p.signal(unix.SIGTERM)
		p.wantEnd("5")
	}
	argv := append([]string{"timeout", "--preserve-status", "60"}, supervise(t, "--stop-timeout", "1m")...)
	for range 5 {
		check(actual{t}, start(actual{t}, append(argv, "sh", "-c", `trap 'sleep 0.3; exit 5' TERM; echo ready; while :; do sleep 0.02; done`)))
	}
	mustFail(t, "after a second", func(t T) {
		p := start(t, append(argv, "sh", "-c", `trap 'n=$((n+1)); [ $n = 2 ] && sleep 0.3 && exit 5; echo TERM' TERM; echo ready; while :; do sleep 0.02; done`))
		p.out.await(1)
		if err := send(childAny(t, p.pid), unix.SIGTERM); err != nil {
			t.Fatalf("%v", err)
		}
		p.out.await(2) // vaultexec has had it, too
		first := time.Now()
		wait.For(2*time.Second, func() bool { return time.Since(first) > 1100*time.Millisecond })
		check(t, p)
	})
}

// SIGINT never becomes anything worse, however often.
func TestInterruptDoesNotEscalate(t *testing.T) {
	t.Parallel()
	log := newLines(actual{t})
	p := start(actual{t}, supervise(t, "--stop-timeout", "100ms").cmd(probe(t), "signals", log.path()))
	log.number("ready")
	for i := range 4 {
		p.signal(unix.SIGINT)
		log.await(2 + i)
	}
	select {
	case <-p.done:
		t.Fatalf("ended with %s", p.ended())
	case <-time.After(400 * time.Millisecond):
	}
	p.signal(64)
	p.wantEnd("42")
}

// Signals go to the command alone, or to its group with --signal-group.
func TestSignalGroup(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher) {
		first, second := newLines(t), newLines(t)
		p := start(t, v.cmd("sh", "-c", `"$1" signals "$3" & exec "$1" signals "$2"`, "sh", probe(t), first.path(), second.path()))
		first.number("ready")
		helper := second.number("ready")
		t.Cleanup(func() { kill(helper) }) // the control fails before it is ended
		p.signal(unix.SIGUSR1)
		first.await(2)
		second.await(2)
		p.signal(64)
		p.wantEnd("42")
	}
	t.Run("group", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t, "--signal-group")) })
	mustFail(t, "command alone", func(t T) { check(t, supervise(t)) })
}

// Job control goes to the whole group: a pipeline below the command stops and goes on with it, also without a terminal, where
// vaultexec itself never stops.
func TestStopAndContinue(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher) {
		p := start(t, v.cmd("sh", "-c", "sleep 77 | sleep 78"))
		group := func(states string) func() bool {
			return func() bool {
				n := 0
				for _, m := range ptytest.All() {
					if m.Session == p.pid && m.PID != p.pid {
						if !strings.Contains(states, m.State) {
							return false
						}
						n++
					}
				}
				return n >= 3
			}
		}
		until(t, "the pipeline to run", group("S"))
		for range 3 {
			p.signal(unix.SIGTSTP)
			until(t, "the group to stop", group("T"))
			if !alive(p.pid) || state(p.pid) == "T" {
				t.Fatalf("vaultexec is stopped, too")
			}
			p.signal(unix.SIGCONT)
			until(t, "the group to go on", group("S"))
		}
		p.signal(unix.SIGTERM)
		p.wantEnd("signal TERM")
	}
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t)) })
	mustFail(t, "naive", func(t T) { check(t, naive(t)) })
}

func state(pid int) string {
	for _, m := range ptytest.All() {
		if m.PID == pid {
			return m.State
		}
	}
	return ""
}

func until(t T, what string, cond func() bool) {
	t.Helper()
	if !wait.For(t.Limit(), cond) {
		t.Fatalf("waited %v in vain for %s", t.Limit(), what)
	}
}

// What somebody else stops, somebody else resumes, and vaultexec does not take a stopped command for a dead one.
func TestStoppedByOthers(t *testing.T) {
	t.Parallel()
	p := start(actual{t}, supervise(t).cmd("sleep", "77"))
	child := childOf(actual{t}, p.pid)
	for range 3 {
		_ = send(child, unix.SIGSTOP)
		until(actual{t}, "a stop", func() bool { return state(child) == "T" })
		if s := state(p.pid); s == "T" || s == "Z" || s == "" { // D is a page that is fetched
			t.Fatalf("vaultexec is in state %q", s)
		}
		_ = send(child, unix.SIGCONT)
		until(actual{t}, "an end of the stop", func() bool { return state(child) == "S" })
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("signal TERM")
}

// childOf waits for a child and returns its process ID.
func childOf(t T, pid int) int {
	t.Helper()
	child := 0
	until(t, "a child of vaultexec", func() bool {
		for _, m := range ptytest.All() {
			if m.Parent == pid && m.State != "Z" {
				// After the exec, not in between.
				link, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", m.PID))
				if err == nil && filepath.Base(link) != "vaultexec" {
					child = m.PID
					return true
				}
			}
		}
		return false
	})
	return child
}

// What the command leaves behind in its group is told to end and, after two seconds, ended. The status is the
// command's. What is in a session of its own is left alone.
func TestGroupIsCleared(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher) {
		log := newLines(t)
		begun := time.Now()
		p := start(t, v.cmd("sh", "-c", `"$1" signals "$2" & setsid sleep 77 & until [ -s "$2" ]; do sleep 0.02; done; exit 3`, "sh", probe(t), log.path()))
		left := log.number("ready")
		t.Cleanup(func() { kill(left) })
		escaped := 0
		until(t, "the one that escapes", func() bool {
			for _, m := range ptytest.All() {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", m.PID))
				if m.Name == "sleep" && m.PID == m.Group && strings.Contains(string(b), p.cmd.Env[1]) {
					escaped = m.PID
				}
			}
			return escaped != 0
		})
		t.Cleanup(func() { kill(escaped) })
		p.wantEnd("3")
		if got := log.all(); !slices.Equal(got[1:], []string{"15"}) && !slices.Equal(got[1:], []string{"15", "18"}) && !slices.Equal(got[1:], []string{"18", "15"}) {
			t.Fatalf("it had the signals %v, want 15 (and 18)", got[1:])
		}
		if d := time.Since(begun); d < 2*time.Second {
			t.Fatalf("killed after %v", d)
		}
		if alive(left) {
			t.Fatalf("a member of the group lives on")
		}
		p.wantSays("what the command left behind did not stop in time")
		if !alive(escaped) {
			t.Fatalf("what left the group was killed")
		}
	}
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t)) })
	t.Run("without /proc", func(t *testing.T) { // as in an image from scratch that nobody mounted it in
		t.Parallel()
		needsNamespaces(t)
		hidden := launcher{"unshare", "--mount"}
		if os.Getuid() != 0 {
			hidden = append(hidden, "--user", "--map-root-user")
		}
		check(actual{t}, append(append(hidden, "sh", "-c", `mount -t tmpfs none /proc && exec "$0" "$@"`), supervise(t)...))
	})
	mustFail(t, "naive", func(t T) { check(t, naive(t)) })
}

// When vaultexec is killed, the command is told within a second.
func TestKilledVaultexec(t *testing.T) {
	t.Parallel()
	check := func(t T, v launcher, want string) {
		log := newLines(t)
		p := start(t, v.cmd(probe(t), "signals", log.path()))
		child := log.number("ready")
		t.Cleanup(func() { kill(child) })
		killed := time.Now()
		p.signal(unix.SIGKILL)
		p.wantEnd("signal KILL")
		if got := log.await(2); got[1] != want {
			t.Fatalf("signal %s, want %s", got[1], want)
		}
		if d := time.Since(killed); d > time.Second && !testing.Short() {
			t.Fatalf("told after %v", d)
		}
	}
	t.Run("supervise", func(t *testing.T) { t.Parallel(); check(actual{t}, supervise(t), "15") })
	t.Run("stop signal", func(t *testing.T) {
		t.Parallel()
		check(actual{t}, supervise(t, "--stop-signal", "INT"), "2")
	})
	mustFail(t, "naive", func(t T) { check(t, naive(t), "15") })
}

// A reader of the messages that is gone does not end vaultexec. The message is had as in TestTostop.
func TestVanishedReader(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	argv := append([]string{"setpriv", "--bounding-set", "-kill"}, supervise(t).cmd("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "cat")...)
	in, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := start(actual{t}, argv, func(c *exec.Cmd) { c.Stderr, c.Stdin = w, in })
	_, _ = w.Close(), in.Close()
	until(actual{t}, "cat", func() bool {
		return slices.ContainsFunc(ptytest.All(), func(m ptytest.Process) bool { return m.Parent == p.pid && m.Name == "cat" })
	})
	_ = r.Close()
	p.signal(unix.SIGUSR1)
	// A second one comes after the first was handled.
	p.signal(unix.SIGUSR2)
	_ = keep.Close()
	p.wantEnd("0")
}

// The same while there is no command: of the wait for Vault, and of the error at the end.
func TestVanishedReaderBeforeTheCommand(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]string{
		"waiting": {"--wait", "1s", "--path", "app"},
		"error":   {"--wait", "0", "--path", "app"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			_ = r.Close()
			argv := append(append([]string{vaulttest.Build(t, ".")}, options...), "--", "true")
			p := start(actual{t}, argv, func(c *exec.Cmd) {
				c.Stderr, c.Env = w, append(c.Env, "VAULT_ADDR=http://127.0.0.1:1", "VAULT_TOKEN=any")
			})
			_ = w.Close()
			p.wantEnd("120")
		})
	}
}

// 1,000 children that end at once, and 1,000 that are signalled at a random moment of vaultexec's life: the
// right status every time, and never a hang. With -race one in four runs the detector's build, whose start costs ten times as
// much, and which has other timing.
func TestManyStarts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		n       int
		options []string
	}{{"supervise", 1000, []string{"--supervise", "--"}}, {"replace", 250, []string{"--"}}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			env := environ(actual{t})
			detector, release := vaulttest.Build(t, "."), vaulttest.BuildStatic(t, ".")
			n := c.n
			if testing.Short() {
				n /= 4
			}
			command := func(i int, argv ...string) *exec.Cmd {
				bin := release
				if i%4 == 0 {
					bin = detector
				}
				cmd := exec.Command(bin, append(slices.Clone(c.options), argv...)...)
				cmd.Env = env
				return cmd
			}
			inParallel(4, n, func(i int) {
				cmd := command(i, "sh", "-c", fmt.Sprint("exit ", i%256))
				out, _ := cmd.CombinedOutput()
				if got := ending(cmd.ProcessState); got != fmt.Sprint(i%256) || len(out) > 0 {
					t.Errorf("start %d ended with %s, %q", i, got, out)
				}
			})
			var whole [4]time.Duration // how long a start takes here and now, by i%4
			for range 4 {
				for i := range 2 {
					begun := time.Now()
					_ = command(i, "true").Run()
					whole[i] = max(whole[i], time.Since(begun))
				}
			}
			whole[2], whole[3] = whole[1], whole[1]
			inParallel(4, n, func(i int) {
				cmd := command(i, "sleep", "77")
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				if err := cmd.Start(); err != nil {
					t.Error(err)
					return
				}
				moment := time.NewTimer(whole[i%4] * 3 * time.Duration(i) / time.Duration(n) / 2)
				<-moment.C
				_ = cmd.Process.Signal(unix.SIGTERM)
				late := time.AfterFunc(time.Minute, func() {
					t.Errorf("start %d hangs", i)
					_ = cmd.Process.Kill()
				})
				_ = cmd.Wait()
				late.Stop()
				if got := ending(cmd.ProcessState); got != "signal TERM" {
					t.Errorf("start %d ended with %s", i, got)
				}
			})
		})
	}
}

// inParallel calls f with 0 to n-1 in so many goroutines.
func inParallel(workers, n int, f func(i int)) {
	work := make(chan int)
	done := make(chan struct{})
	for range workers {
		go func() {
			for i := range work {
				f(i)
			}
			done <- struct{}{}
		}()
	}
	for i := range n {
		work <- i
	}
	close(work)
	for range workers {
		<-done
	}
}

// A tini, or anybody else's parent, in front changes nothing: needed by those who cannot change their entry point.
func TestBehindTini(t *testing.T) {
	t.Parallel()
	tini := needs.Program(t, "tini")
	log := newLines(actual{t})
	p := start(actual{t}, append([]string{tini, "-s", "--"}, supervise(t).cmd(probe(t), "signals", log.path())...))
	log.number("ready")
	sendAll(actual{t}, p.pid, log, []syscall.Signal{unix.SIGTERM, unix.SIGHUP})
	p.wantEnd("42")
}
