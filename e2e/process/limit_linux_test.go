package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// limited runs a command line as a user whom the kernel holds to a process limit, which it does not with root.
func limited(argv []string) []string {
	if os.Getuid() != 0 {
		return argv
	}
	return append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}, argv...)
}

// A command that has used up the process limit ends neither vaultexec nor itself: vaultexec makes no thread any more, whatever there
// is to do, and the next command is started as soon as there is room again.
func TestProcessLimit(t *testing.T) {
	t.Parallel()
	for _, options := range [][]string{nil, {"--mask"}} {
		t.Run(fmt.Sprint(options), func(t *testing.T) {
			t.Parallel()
			w := newWatched(t, options...)
			w.launcher[0] = vaulttest.BuildStatic(t, ".") // with the race detector it is C code that makes the threads
			r := actual{t}
			p := start(r, limited(w.launcher.cmd("sh", "-c", `trap 'exit 3' TERM; echo up $GENERATION; while :; do sleep 0.01; done`)),
				func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
			p.out.await(1)
			child := childOf(r, p.pid)
			if n := statusField(t, p.pid, "Threads"); n < 9 { // six of them in reserve
				t.Errorf("%d threads", n)
			}
			limit := func(soft string) {
				t.Helper()
				argv := limited([]string{"prlimit", "--pid", fmt.Sprint(p.pid), "--nproc=" + soft + ":"})
				if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			limit("1")
			for i := range 20 {
				w.change(t, 1+i%2) // a look finds it, with a connection that may be new
				w.refresh(t, p.pid)
				p.signal(unix.SIGWINCH)
			}
			w.change(t, 2)
			w.refresh(t, p.pid)
			until(r, "the old command to end", func() bool { return !alive(child) })
			limit("4096")
			p.out.await(2)
			p.signal(unix.SIGTERM)
			p.wantEnd("3")
		})
	}
}

// Between two commands a momentary lack of descriptors is waited for, as one of processes is.
func TestDescriptorLimit(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	r := actual{t}
	gone := filepath.Join(t.TempDir(), "end") // the command ends when it is there
	p := start(r, w.launcher.cmd("sh", "-c", `trap 'echo told; while [ ! -e "$0" ]; do sleep 0.01; done; exit 3' TERM; echo up $GENERATION; while :; do sleep 0.01; done`, gone),
		func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
	p.out.await(1)
	child := childOf(r, p.pid)
	var old unix.Rlimit
	if err := unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	limit := func(n uint64) {
		t.Helper()
		if err := unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.change(t, 2)
	w.refresh(t, p.pid)
	p.out.await(2) // told to stop
	limit(3)
	if err := os.WriteFile(gone, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(r, "the old command to end", func() bool { return !alive(child) })
	select {
	case <-p.done:
		t.Fatalf("vaultexec did not wait: %s", p.err)
	case <-time.After(300 * time.Millisecond): // without the change it ends within some milliseconds
	}
	limit(old.Cur)
	p.out.await(3)
	p.signal(unix.SIGTERM)
	p.wantEnd("3")
}
