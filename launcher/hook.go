package launcher

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// hookLimit is how long --on-change-hook may take.
const hookLimit = 30 * time.Second

// hookRun is the hook that runs now, if pid is not 0. It leads a session of its own: after `stty tostop`, a process
// that writes to the terminal from outside the foreground group is stopped. A stopped hook would never end.
type hookRun struct {
	pid   int
	timer *time.Timer
	late  bool // it has taken too long, and was killed for it
}

// over delivers when the hook has taken too long.
func (h *hookRun) over() <-chan time.Time {
	if h.timer == nil {
		return nil
	}
	return h.timer.C
}

// tooLong ends a hook that has taken too long.
func (h *hookRun) tooLong() {
	h.late = true
	h.kill()
}

func (h *hookRun) kill() {
	if h.pid != 0 {
		_ = unix.Kill(-h.pid, unix.SIGKILL)
	}
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

// CheckHook finds out before Vault is asked whether there is such a hook.
func CheckHook(name string, environ []string) error {
	_, err := findProgram([]string{name}, environ)
	return err
}

func (s *supervisor) forkHook() error {
	hook, err := findProgram([]string{s.Watching.Hook}, s.Environ)
	if err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return startError("/dev/null", err)
	}
	defer unix.Close(null)
	sys := &syscall.SysProcAttr{Setsid: true}
	setParentDeath(sys, unix.SIGKILL)
	attr := &syscall.ProcAttr{Env: s.hookEnv(), Files: []uintptr{uintptr(null), 2, 2}, Sys: sys}
	pid, err := syscall.ForkExec(hook.path, hook.argv, attr)
	if err != nil {
		return startError(hook.path, err)
	}
	s.hook = hookRun{pid: pid, timer: time.NewTimer(hookLimit)}
	return nil
}

// hookEnv is what vaultexec was started with, without credentials and without every name that Vault sets.
func (s *supervisor) hookEnv() []string {
	rest, _ := environ.WithoutCredentials(s.Environ)
	env := slices.DeleteFunc(rest, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return s.fromVault(name)
	})
	return append(env,
		"VAULTEXEC_CHANGED_PATHS="+strings.Join(s.runs.states.paths(s.next.states), "\n"),
		"VAULTEXEC_CHANGED_VERSIONS="+strings.Join(s.runs.states.changes(s.next.states), "\n"),
		"VAULTEXEC_CHANGED_NAMES="+strings.Join(changedNames(s.runs.env, s.next.env), "\n"))
}

// fromVault reports whether Vault sets a variable of that name, or did for the child that runs.
func (s *supervisor) fromVault(name string) bool {
	is := func(v environ.Variable) bool { return v.Name == name }
	return slices.ContainsFunc(s.next.env.Vars, is) || slices.ContainsFunc(s.runs.env.Vars, is)
}

// hookEnded: only a hook that succeeds lets the change go on.
func (s *supervisor) hookEnded(status unix.WaitStatus) {
	pid, late := s.hook.pid, s.hook.late
	s.hook.timer.Stop()
	s.hook = hookRun{}
	_ = unix.Kill(-pid, unix.SIGKILL) // what it may have left behind
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
