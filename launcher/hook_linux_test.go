package launcher

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// A hook that is ended for having taken too long is said to be, and one that somebody else ends is not.
func TestHookTooLong(t *testing.T) {
	t.Parallel()
	hook := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\nexec sleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, late := range map[string]bool{"too long": true, "killed by another": false} {
		var log bytes.Buffer
		env := &environ.Env{}
		s := &supervisor{
			launch:  &launch{Options: Options{Environ: []string{"PATH=/usr/bin:/bin"}, Watching: Watching{Hook: hook}, Log: slog.New(slog.NewTextHandler(&log, nil))}},
			machine: newMachine(policy{}), child: &child{runs: edition{env: env}}, next: &edition{env: env}, timer: time.NewTimer(time.Hour),
		}
		s.machine.state = hooking
		if err := s.forkHook(); err != nil {
			t.Fatal(err)
		}
		if late {
			s.hook.tooLong()
		} else {
			s.hook.kill()
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(s.hook.pid, &status, 0, nil); err != nil {
			t.Fatal(err)
		}
		s.hookEnded(status)
		if said := strings.Contains(log.String(), "killed after 30s, which is the longest that a hook may take"); said != late {
			t.Errorf("%s: %s", name, &log)
		}
	}
}
