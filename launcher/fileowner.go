package launcher

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
)

// Who may read a secret file: --file …,mode=0440,owner=USER:GROUP. The file stays empty until both are what was asked
// for.

// putAccess sets the mode and the owner of an empty file that this process has made. The mode comes first: afterwards
// the file may be somebody else's. (chmod(2) is not subject to the umask.)
func putAccess(fd int, a environ.Access) error {
	if err := unix.Fchmod(fd, uint32(a.Mode)); err != nil {
		return err
	}
	if a.UID < 0 && a.GID < 0 {
		return nil
	}
	if err := unix.Fchown(fd, a.UID, a.GID); err != nil {
		return &ownerError{err}
	}
	return nil
}

// ownerError is a failed change of the owner.
type ownerError struct{ error }

// Unwrap gives the errno.
func (e *ownerError) Unwrap() error { return e.error }

// ownerFault says that a file cannot be given to somebody.
func ownerFault(where string, err *ownerError) *fault.Error {
	e := &fault.Error{Kind: fault.Usage, What: "cannot give the file " + where + " to its owner", Why: err.Error(),
		Err:  err,
		Hint: "its file system may not know owners, or not this one"}
	if errors.Is(err, unix.EPERM) {
		e.Hint = "that takes root, or CAP_CHOWN; without it, only a group that vaultexec itself is in is possible: owner=:GROUP"
	}
	return e
}

// tryMemory is try for a file in memory.
func tryMemory(spec *environ.FileSpec) error {
	if who := spec.Access(); who.UID < 0 && who.GID < 0 {
		return nil
	}
	fd, err := sealedFile(spec.Name, "", spec.Access())
	if err == nil {
		closeAll([]int{fd})
	}
	return err
}

// tryOwner makes an empty file in the folder of a path and gives it its owner, to find out whether that works there.
func tryOwner(dir *os.File, spec *environ.FileSpec) error {
	if who := spec.Access(); who.UID < 0 && who.GID < 0 {
		return nil
	}
	s, err := stageIn(dir, spec, "")
	s.drop()
	return err
}

// ParseFile reads the value of --file, with what this machine knows of users and folders.
func ParseFile(text string) (environ.FileSpec, error) {
	return environ.ParseFile(text, environ.Host{
		Abs: filepath.Abs,
		UID: func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		},
		GID: func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		},
	})
}
