package process

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/ptytest"
)

// guardOf returns the guard of a vaultexec, or 0.
func guardOf(vaultexec int) int {
	for _, m := range ptytest.All() {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.PID)); m.Parent == vaultexec && strings.HasPrefix(string(b), "vaultexec: guarding the command\x00") {
			return m.PID
		}
	}
	return 0
}

// deaf ignores every polite signal, and has a helper that does, too.
const deaf = `trap "" TERM INT HUP QUIT; (trap "" TERM INT HUP QUIT; echo "helper $(exec sh -c 'echo $PPID')" >>"$0"; while :; do sleep 0.05; done) & echo "command $$" >>"$0"; while :; do sleep 0.05; done`

// Whatever ends vaultexec without a word ends the command as well: after the stop timeout, when the command ignores the stop signal.
func TestGuard(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(p *proc){
		"SIGKILL":              func(p *proc) { kill(p.pid) },
		"SIGKILL to the group": func(p *proc) { _ = unix.Kill(-p.pid, unix.SIGKILL) }, // supervisord's killasgroup
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := newLines(actual{t})
			argv := supervise(t, "--stop-timeout", "300ms").cmd("sh", "-c", deaf, log.path())
			p := start(actual{t}, argv)
			command, helper := log.number("command"), log.number("helper")
			until(actual{t}, "the guard", func() bool { return guardOf(p.pid) != 0 })
			guard := guardOf(p.pid)
			end(p)
			<-p.done
			for what, pid := range map[string]int{"the command": command, "its helper": helper, "the guard": guard} {
				until(actual{t}, "the end of "+what, func() bool { return !alive(pid) })
			}
		})
	}
	t.Run("it ends with its vaultexec", func(t *testing.T) {
		t.Parallel()
		p := start(actual{t}, supervise(t).cmd("sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.01; done"))
		until(actual{t}, "the guard", func() bool { return guardOf(p.pid) != 0 })
		guard := guardOf(p.pid)
		until(actual{t}, "it to close what it was given", func() bool {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", guard))
			return err == nil && len(fds) == 3
		})
		p.signal(unix.SIGTERM)
		p.wantEnd("4")
		until(actual{t}, "the end of the guard", func() bool { return !alive(guard) })
	})
}
