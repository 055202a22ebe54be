package scan

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// A FIFO where git expects a file ends the scan with a cause, and git does not wait on: as a list of names to ignore, in the
// tree or in the repository, or named by the configuration.
func TestRepositoryWithFIFO(t *testing.T) {
	t.Parallel()
	for name, place := range map[string]func(t *testing.T, dir string) string{
		"in the tree":       func(_ *testing.T, dir string) string { return filepath.Join(dir, ".gitignore") },
		"in the repository": func(_ *testing.T, dir string) string { return filepath.Join(dir, ".git", "info", "exclude") },
		"by configuration": func(t *testing.T, dir string) string {
			fifo := filepath.Join(t.TempDir(), "fifo")
			git(t, dir, "config", "core.excludesFile", fifo)
			return fifo
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			git(t, dir, "init", "-q")
			write(t, dir, "file", "plain "+hidden)
			fifo := place(t, dir)
			_ = os.Remove(fifo)
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			err := New(secretOf(hidden)).Tree(t.Context(), dir, false)
			if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "FIFO") {
				t.Errorf("%v", err)
			}
		})
	}
}

// A process that works, or that nobody waits for, is not stuck; one that sleeps is, when its output is waited for.
func TestStuck(t *testing.T) {
	t.Parallel()
	const limit = time.Second
	for name, c := range map[string]struct {
		script string
		reads  bool
		want   bool
	}{
		"sleeps":            {"exec sleep 1000", true, true},
		"sleeps, unwatched": {"exec sleep 1000", false, false},
		"works":             {"while :; do :; done", true, false},
		"writes":            {"while :; do echo; sleep 0.01; done", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cmd := exec.CommandContext(ctx, "sh", "-c", c.script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			a := &awaited{out: out}
			over, ended := make(chan struct{}), make(chan struct{})
			go a.stuck(cmd.Process.Pid, limit, over, func() { close(ended) })
			if c.reads {
				go func() {
					b := make([]byte, 1)
					for {
						if _, err := a.Read(b); err != nil {
							return
						}
					}
				}()
			}
			is := func() bool {
				select {
				case <-ended:
					return true
				default:
					return false
				}
			}
			if c.want && !wait.For(time.Minute, is) || !c.want && wait.For(3*limit, is) {
				t.Errorf("stuck: %v, want %v", is(), c.want)
			}
			close(over)
			cancel()
			_ = cmd.Wait()
		})
	}
}

// An object that a commit names and that is not there is told: a repository of which a part is missing is not clean.
func TestMissingObject(t *testing.T) {
	t.Parallel()
	for _, of := range []string{"HEAD:old", "HEAD:folder", "HEAD~1"} {
		dir := t.TempDir()
		git(t, dir, "init", "-q")
		write(t, dir, "old", "harmless")
		write(t, dir, "folder/x", "x")
		git(t, dir, "add", ".")
		git(t, dir, "commit", "-q", "-m", "one")
		write(t, dir, "new", "new")
		git(t, dir, "add", ".")
		git(t, dir, "commit", "-q", "-m", "two")
		if r := history(t, secretOf(hidden), dir); len(r.Unread) != 0 {
			t.Fatalf("%+v", r.Unread)
		}
		cmd := exec.Command("git", "-C", dir, "rev-parse", of)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		id := strings.TrimSpace(string(out))
		if err := os.Remove(filepath.Join(dir, ".git", "objects", id[:2], id[2:])); err != nil {
			t.Fatal(err)
		}
		s := New(secretOf(hidden))
		err = s.History(t.Context(), dir)
		if r := s.Result(); err == nil && len(r.Unread) == 0 {
			t.Errorf("without %s it is clean", of)
		}
	}
	empty := t.TempDir()
	git(t, empty, "init", "-q")
	if r := history(t, secretOf(hidden), empty); len(r.Unread) != 0 {
		t.Errorf("an empty repository: %+v", r.Unread)
	}
}
