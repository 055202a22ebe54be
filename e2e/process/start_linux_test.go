package process

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
)

// What the kernel refuses of prctl(2) decides about no start. Where a promise hangs on it, that is said.
func TestRefusedPrctl(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		option int
		want   string // on standard error
	}{
		"PR_SET_PDEATHSIG":       {unix.PR_SET_PDEATHSIG, "the command gets no signal when vaultexec is killed"},
		"PR_SET_DUMPABLE":        {unix.PR_SET_DUMPABLE, "can read vaultexec's memory"},
		"PR_SET_CHILD_SUBREAPER": {unix.PR_SET_CHILD_SUBREAPER, ""},
		"PR_SET_NAME":            {unix.PR_SET_NAME, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			argv := append([]string{probe(t), "refuse", fmt.Sprint(c.option)}, supervise(t).cmd("sh", "-c", "exit 7")...)
			p := start(actual{t}, argv)
			p.wantEnd("7")
			if got := p.err.String(); c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.Count(got, "\n") > 1 {
				t.Errorf("standard error: %q", got)
			}
		})
	}
	refuse := func(argv []string) []string {
		return append([]string{probe(t), "refuse", fmt.Sprint(unix.PR_SET_PDEATHSIG)}, argv...)
	}
	t.Run("for a hook", func(t *testing.T) {
		t.Parallel()
		w := newWatched(t, "--on-change-hook", "true")
		p := start(actual{t}, refuse(w.launcher.cmd("sh", "-c", `trap "exit 7" TERM; echo "$GENERATION"; while :; do sleep 0.01; done`)), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
		p.out.await(1)
		w.change(t, 2)
		w.refresh(t, p.pid)
		p.out.await(2)
		p.signal(unix.SIGTERM)
		p.wantEnd("7")
		if got := p.err.String(); strings.Count(got, "PR_SET_PDEATHSIG") != 1 || strings.Contains(got, "hook") {
			t.Errorf("%s", got)
		}
	})
	t.Run("for a terminal of its own", func(t *testing.T) {
		t.Parallel()
		m := newMasked(t)
		r := actual{t}
		p := ptytest.Open(r, r.Limit(), append(environ(r), m.env...), refuse(m.with.cmd("sh", "-c", "exit 7"))...)
		if got := ending(p.Ended()); got != "7" {
			t.Errorf("ended with %s", got)
		}
	})
	// The program's own EPERM is still the program's.
	t.Run("and nothing else", func(t *testing.T) {
		t.Parallel()
		p := start(actual{t}, append([]string{probe(t), "refuse", fmt.Sprint(unix.PR_SET_PDEATHSIG)}, supervise(t).cmd("/dev/null")...))
		p.wantEnd("126")
	})
}

// The descriptor of a file in memory is none that a script or a service manager chooses, whatever the limit is.
func TestMemoryFileDescriptor(t *testing.T) {
	t.Parallel()
	env, options, value := secrets(t)
	v := vaultexec(t, append(options, "--file", "API_KEY")...)
	supervised := vaultexec(t, append(options, "--file", "API_KEY", "--supervise")...)
	for name, prefix := range map[string]string{"replace": "", "a low limit": "ulimit -n 64; ", "a lower one": "ulimit -n 20; ", "supervise": "", "supervise, a low limit": "ulimit -n 64; ", "supervise, a lower one": "ulimit -n 20; "} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := v
			if strings.HasPrefix(name, "supervise") {
				v = supervised
			}
			const script = `for n in 3 4 5 6 7 8 9; do eval "exec $n>/dev/null"; done; cat "$API_KEY_FILE"; echo " ${API_KEY_FILE##*/}"`
			p := start(actual{t}, append([]string{"sh", "-c", prefix + `exec "$@"`, "sh"}, v.cmd("bash", "-c", script)...), func(c *exec.Cmd) { c.Env = append(c.Env, env...) })
			p.wantEnd("0")
			got, fd, _ := strings.Cut(strings.TrimSpace(p.out.all()[0]), " ")
			if n, err := strconv.Atoi(fd); got != value || err != nil || n < 10 || prefix == "" && n < 200 {
				t.Errorf("the file is read: %t, its descriptor is %s\n%s", got == value, fd, p.err)
			}
		})
	}
}

// Without /proc nobody could open a file in memory, which is found out before Vault is asked.
func TestMemoryFileWithoutProc(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	hidden := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		hidden = append(hidden, "--user", "--map-root-user")
	}
	v := vaultexec(t, "--path", "x", "--file", "API_KEY", "--address", "http://127.0.0.1:1", "--wait", "forever", "--auth", "agent")
	p := start(actual{t}, append(append(hidden, "sh", "-c", `mount -t tmpfs none /proc && exec "$0" "$@"`), v.cmd("true")...))
	p.wantEnd("125")
	if got := p.err.String(); !strings.Contains(got, "/proc, which is not mounted here") || !strings.Contains(got, "--file API_KEY=PATH") {
		t.Errorf("%s", got)
	}
}
