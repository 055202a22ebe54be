package launcher

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
)

// hookLimit is how long --on-change-hook may take.
const hookLimit = 30 * time.Second

// hookRun is a program that vaultexec runs beside the command, if pid is not 0: the hook, or the program of --ready exec:.
// It leads a session of its own: after `stty tostop`, a process that writes to the terminal from outside the foreground
// group is stopped. A stopped hook would never end.
type hookRun struct {
	pid   int
	timer *time.Timer
	late  bool // it has taken too long, and was killed for it
}

// over delivers when the program has taken too long.
func (h *hookRun) over() <-chan time.Time {
	if h.timer == nil {
		return nil
	}
	return h.timer.C
}

// tooLong ends a program that has taken too long.
func (h *hookRun) tooLong() {
	h.late = true
	h.kill()
}

func (h *hookRun) kill() {
	if h.pid != 0 {
		_ = unix.Kill(-h.pid, unix.SIGKILL)
	}
}

// ended clears up after a program that has ended, and reports whether it was killed for taking too long.
func (h *hookRun) ended() (late bool) {
	late = h.late
	h.timer.Stop()
	_ = unix.Kill(-h.pid, unix.SIGKILL) // what it may have left behind
	*h = hookRun{}
	return late
}

// startHook runs the hook before the old child is touched. It looks the program up again, which may have been replaced
// or removed since. The hook is told which paths, versions and names changed. It gets no secret and no credential, and
// its output goes to standard error.
func (s *supervisor) startHook() {
	if !s.startable() {
		s.happened(evHooked{ok: false})
		return
	}
	if s.Watching.Hook == "" {
		s.ready()
		return
	}
	if err := s.forkHook(); err != nil {
		s.Log.Warn("the hook cannot be started, the change is postponed: " + err.Error())
		s.happened(evHooked{hook: true})
	}
}

// startable reports whether the command could be started now, and looks its program up anew. If something has gone
// since, that is no reason to stop a command that runs.
func (s *supervisor) startable() bool {
	p, err := s.launch.program()
	if err == nil && s.Dir == "" {
		err = s.workdir.check()
	}
	if err != nil {
		s.Log.Warn("the command could not be started again, the change is postponed: "+err.Error(), hinted(err)...)
		return false
	}
	s.program = p
	return true
}

// CheckHelper finds out before Vault is asked whether there is such a program: a hook, or that of --ready exec:.
func CheckHelper(name string, environ []string) error {
	_, err := findProgram([]string{name}, environ)
	if err == nil {
		return nil
	}
	f := *fault.Of(err)
	if f.Hint == "" {
		f.Hint = "name a file that can be executed: by its path, or one that is in PATH"
	}
	return &f
}

func (s *supervisor) forkHook() (err error) {
	s.hook, err = forkHelper(s.Watching.Hook, s.Environ, s.hookEnv(), hookLimit)
	return err
}

// forkHelper starts a program. Its output goes to standard error.
func forkHelper(name string, inherited, env []string, limit time.Duration) (hookRun, error) {
	p, err := findProgram([]string{name}, inherited)
	if err != nil {
		return hookRun{}, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return hookRun{}, startError("/dev/null", err)
	}
	defer unix.Close(null)
	sys := &syscall.SysProcAttr{Setsid: true}
	setParentDeath(sys, unix.SIGKILL)
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{uintptr(null), 2, 2}, Sys: sys}
	pid, err := syscall.ForkExec(p.path, p.argv, attr)
	if err != nil {
		return hookRun{}, startError(p.path, err)
	}
	return hookRun{pid: pid, timer: time.NewTimer(limit)}, nil
}

// withoutSecrets is what vaultexec was started with, without credentials and without the names that are left out.
func withoutSecrets(inherited []string, leftOut func(name string) bool) []string {
	rest, _ := environ.WithoutCredentials(inherited)
	return slices.DeleteFunc(rest, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return leftOut(name)
	})
}

// hookEnv is the hook's environment: no name that Vault sets, and what changed.
func (s *supervisor) hookEnv() []string {
	return append(withoutSecrets(s.Environ, s.fromVault),
		"VAULTEXEC_CHANGED_PATHS="+strings.Join(s.runs.states.paths(s.next.states), "\n"),
		"VAULTEXEC_CHANGED_VERSIONS="+strings.Join(s.runs.states.changes(s.next.states), "\n"),
		"VAULTEXEC_CHANGED_NAMES="+strings.Join(changedNames(s.runs.env, s.next.env), "\n"))
}

// fromVault reports whether Vault sets a variable of that name, or did for the child that runs.
func (s *supervisor) fromVault(name string) bool {
	return s.next.sets(name) || s.runs.sets(name)
}

// hookEnded: only a hook that succeeds lets the change go on.
func (s *supervisor) hookEnded(status unix.WaitStatus) {
	late := s.hook.ended()
	ok := status.Exited() && status.ExitStatus() == 0
	if !ok && s.machine.awaitsHook() {
		text := statusText(status)
		if late {
			text = fmt.Sprintf("killed after %s, which is the longest that a hook may take", hookLimit)
		}
		s.Log.Warn("the hook failed, the change is postponed", "hook", s.Watching.Hook, "status", text)
	}
	if !ok {
		s.happened(evHooked{hook: true})
		return
	}
	s.afterHook(!s.machine.awaitsHook() || s.startable()) // it may have taken half a minute
}

// afterHook goes on where the command can be started.
func (s *supervisor) afterHook(startable bool) {
	if startable {
		s.ready()
		return
	}
	s.happened(evHooked{})
}

func statusText(status unix.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + SignalName(status.Signal())
	}
	return fmt.Sprintf("exit code %d", status.ExitStatus())
}
