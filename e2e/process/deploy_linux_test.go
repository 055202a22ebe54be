package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
)

// release writes a program that notes its starts with the secret's generation. With gone in the file's folder it removes itself
// when it is told to stop.
func release(t *testing.T, dir, log string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "app")
	text := fmt.Sprintf(`#!/bin/sh
cd . || exit 9
trap '[ ! -e %[1]s/gone ] || mv "$0" %[1]s/away; exit 3' TERM
echo "start $GENERATION $$" >>%[2]s
while :; do sleep 0.01; done
`, dir, log)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A deploy moves a link to another release and removes the old one, in which vaultexec and its command run. What the next start needs is
// looked at before the command is stopped, and the command goes on.
func TestDeployRemovesTheFolder(t *testing.T) {
	t.Parallel()
	for name, what := range map[string]struct {
		remove func(t *testing.T, dir string)
		want   string
	}{
		"the working folder": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "current")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(dir, "2"), filepath.Join(dir, "current")); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(dir, "1")); err != nil {
				t.Fatal(err)
			}
		}, `current\" was removed, and the path leads to another one now`},
		"the program": {func(t *testing.T, dir string) {
			for _, r := range []string{"1", "2"} {
				if err := os.Remove(filepath.Join(dir, r, "app")); err != nil {
					t.Fatal(err)
				}
			}
		}, "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatched(t)
			dir, log := t.TempDir(), newLines(actual{t})
			for _, r := range []string{"1", "2"} {
				release(t, filepath.Join(dir, r), log.path())
			}
			current := filepath.Join(dir, "current")
			if err := os.Symlink(filepath.Join(dir, "1"), current); err != nil {
				t.Fatal(err)
			}
			p := start(actual{t}, w.launcher.cmd(filepath.Join(current, "app")), func(c *exec.Cmd) {
				c.Dir = current
				c.Env = append(c.Env, append(w.env, "PWD="+current)...)
			})
			pid := log.number("start 1")
			what.remove(t, dir)
			w.change(t, 2)
			w.refresh(t, p.pid)
			until(actual{t}, "the warning", func() bool { return strings.Contains(strings.ReplaceAll(p.err.String(), `"`, `\"`), what.want) })
			if len(log.all()) != 1 || !alive(pid) {
				t.Errorf("the command was stopped:\n%s%s", log, p.err)
			}
			p.signal(unix.SIGTERM)
			p.wantEnd("3")
		})
	}
}

// Between two commands a program that is missing for a moment is waited for: a deploy replaces the file. Through the stub that a
// terminal needs, too.
func TestProgramIsMissingForAMoment(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (w *watched, dir, app string, log *lines) {
		w = newWatched(t)
		dir, log = t.TempDir(), newLines(actual{t})
		app = release(t, dir, log.path())
		return w, dir, app, log
	}
	replaced := func(t *testing.T, w *watched, vaultexec int, dir, app string, log *lines, ended <-chan struct{}) {
		log.await(1)
		if err := os.WriteFile(filepath.Join(dir, "gone"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.change(t, 2)
		w.refresh(t, vaultexec)
		away := filepath.Join(dir, "away")
		until(actual{t}, "the program to go", func() bool { _, err := os.Stat(away); return err == nil })
		select {
		case <-ended:
			t.Fatal("vaultexec did not wait for the program")
		case <-time.After(500 * time.Millisecond): // without the change it ends within some milliseconds
		}
		if err := os.Rename(away, app); err != nil {
			t.Fatal(err)
		}
		until(actual{t}, "the new command", func() bool { return strings.Contains(log.String(), "start 2") })
		if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("without a terminal", func(t *testing.T) {
		t.Parallel()
		w, dir, app, log := prepare(t)
		p := start(actual{t}, w.launcher.cmd(app), func(c *exec.Cmd) { c.Env = append(c.Env, w.env...) })
		replaced(t, w, p.pid, dir, app, log, p.done)
		p.signal(unix.SIGTERM)
		p.wantEnd("3")
	})
	t.Run("on a terminal", func(t *testing.T) {
		t.Parallel()
		w, dir, app, log := prepare(t)
		term := ptytest.Open(t, actual{t}.Limit(), append(environ(actual{t}), w.env...), w.launcher.cmd(app)...)
		replaced(t, w, term.Leads, dir, app, log, nil)
		if err := send(term.Leads, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if end := ending(term.Ended()); end != "3" {
			t.Errorf("ended with %s", end)
		}
	})
}

// With --chdir the next command starts where the link leads by then.
func TestDeployWithChdir(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), newLines(actual{t})
	for _, r := range []string{"1", "2"} {
		release(t, filepath.Join(dir, r), log.path())
	}
	current := filepath.Join(dir, "current")
	if err := os.Symlink(filepath.Join(dir, "1"), current); err != nil {
		t.Fatal(err)
	}
	w := newWatched(t, "--chdir", current)
	p := start(actual{t}, w.launcher.cmd("./app"), func(c *exec.Cmd) {
		c.Dir = current
		c.Env = append(c.Env, append(w.env, "PWD="+current)...)
	})
	log.number("start 1")
	if err := os.Remove(current); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "2"), current); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "1")); err != nil {
		t.Fatal(err)
	}
	w.change(t, 2)
	w.refresh(t, p.pid)
	pid := log.number("start 2")
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || got != filepath.Join(dir, "2") {
		t.Errorf("started in %s: %v", got, err)
	}
	p.signal(unix.SIGTERM)
	p.wantEnd("3")
}
