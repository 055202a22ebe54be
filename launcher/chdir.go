package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// --chdir: the folder that the command is started in. vaultexec itself stays where it is, so that the names of its own
// files mean what they did. The child enters the folder by its name at each start, and so follows a name that leads
// elsewhere by then. The program is looked up as if vaultexec were in that folder, as env -C does it.

// absoluteDir makes DIR of --chdir absolute without following its links.
func absoluteDir(dir string) (string, error) {
	if dir == "" || filepath.IsAbs(dir) {
		return dir, nil
	}
	here, err := os.Getwd()
	if err != nil {
		return "", dirError(dir, unix.ENOENT)
	}
	return here + "/" + dir, nil // not filepath.Join: link/.. is not the folder that link stands in
}

// program looks the command up, where it will be started.
func (l *launch) program() (program, error) {
	if err := checkDir(l.Dir); err != nil {
		return program{}, err
	}
	return findProgramIn(l.Dir, l.Argv, l.Environ)
}

// inDir is the name of a path for who is elsewhere.
func inDir(dir, path string) string {
	if dir == "" || filepath.IsAbs(path) {
		return path
	}
	return dir + "/" + path
}

// checkDir returns a failure when the folder cannot be entered.
func checkDir(dir string) error {
	if dir == "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return dirError(dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return dirError(dir, unix.ENOTDIR)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS); err != nil {
		return dirError(dir, err)
	}
	return nil
}

func dirError(dir string, err error) error {
	e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot enter the folder of --chdir, %q", dir),
		Why: err.Error(), Err: err,
		Hint: "it must be a folder that is there before the command is started"}
	if errors.Is(err, unix.EACCES) {
		e.Hint = "the user that vaultexec runs as needs execute permission on it, and on every folder above it"
	}
	return e
}

// enterDir changes the folder of this process, just before it becomes the command.
func enterDir(dir string) error {
	if dir == "" {
		return nil
	}
	if err := unix.Chdir(dir); err != nil {
		return dirError(dir, err)
	}
	return nil
}

// withPWD has PWD name the folder, where there is one: an inherited PWD would name another.
func withPWD(environ []string, dir string) []string {
	if dir == "" {
		return environ
	}
	for i, kv := range environ {
		if strings.HasPrefix(kv, "PWD=") {
			environ[i] = "PWD=" + dir
		}
	}
	return environ
}
