package launcher

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// workdir is the folder that the command is started in, by the name that somebody knows it by. It is "" if the folder
// was gone from the beginning. A deploy often removes it: /srv/app/current then leads to another release, and this
// process is still in the old one.
type workdir string

// currentWorkdir names the current folder as the shell does: by $PWD, where that leads to it.
func currentWorkdir(environ []string) workdir {
	here, err := os.Stat(".")
	if err != nil || gone() {
		return ""
	}
	for _, kv := range environ {
		if pwd, ok := strings.CutPrefix(kv, "PWD="); ok && strings.HasPrefix(pwd, "/") {
			if there, err := os.Stat(pwd); err == nil && os.SameFile(here, there) {
				return workdir(pwd)
			}
			break
		}
	}
	path, err := unix.Getwd()
	if err != nil {
		return ""
	}
	return workdir(path)
}

// gone reports whether the current folder was removed. The kernel says so to who asks for its path (getcwd(2)).
func gone() bool {
	_, err := unix.Getwd()
	return errors.Is(err, unix.ENOENT)
}

// check returns a failure when the folder is no longer there.
func (f workdir) check() error {
	if f == "" || !gone() {
		return nil
	}
	e := &fault.Error{Kind: fault.NotFound, What: "cannot start the command",
		Why: fmt.Sprintf("its folder %q was removed", string(f)),
		Hint: fmt.Sprintf(
			"start vaultexec again; with --chdir %s each start enters the folder that the path leads to then",
			string(f))}
	if _, err := os.Stat(string(f)); err == nil {
		e.Why += ", and the path leads to another one now"
	}
	return e
}
