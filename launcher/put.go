package launcher

import (
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// How the files of a change get to where they belong.

// ready is the last step before a change is acted on: its files are written.
func (s *supervisor) ready() {
	if s.queue.expired() {
		s.happened(evTurnLost{})
	}
	s.happened(evHooked{ok: !s.machine.awaitsHook() || s.machine.queuesAgain(time.Now()) || s.putFiles()})
}

// putFiles writes the new files beside the old ones, or in their places where no restart follows. --on-change signal
// can bring a change to the running command only in files with a path: its environment and its files in memory stay
// what they are for as long as it lives. When something else has changed, too, the command is restarted instead of
// signalled. Otherwise it would run on with a mixture of old and new, and nobody would notice before the old value
// ends.
func (s *supervisor) putFiles() (ok bool) {
	if s.machine.insteadOfSignal() {
		s.Log.Warn(
			"a signal cannot bring this change to the command, it is restarted: only a --file NAME=PATH can change under it",
			"names", strings.Join(changedBesideFiles(s.runs.env, s.next.env), ", "))
	}
	put := s.files.stage
	if s.machine.bySignal() { // the signal follows at once
		s.out.add(s.next.env)
		put = s.files.place
	}
	if err := put(s.next.env); err != nil {
		s.Log.Warn("the change is postponed: "+err.Error(), hinted(err)...)
		return false
	}
	return true
}

// rewrite puts the files of env in their places while the command runs.
func (s *supervisor) rewrite(env *environ.Env) {
	s.out.add(env)
	if err := s.files.place(env); err != nil {
		s.Log.Warn("the files are not replaced: "+err.Error(), hinted(err)...)
	}
}

// changedBesideFiles lists the names that differ and are no --file NAME=PATH.
func changedBesideFiles(from, to *environ.Env) []string {
	fixed := map[string]bool{} // for as long as the command lives
	for _, e := range []*environ.Env{from, to} {
		for _, v := range e.Vars {
			if !v.Unused() && (v.File == nil || v.File.Path == "") {
				fixed[v.Name] = true
			}
		}
	}
	return slices.DeleteFunc(changedNames(from, to), func(n string) bool { return !fixed[strings.TrimLeft(n, "+-")] })
}
