package launcher

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Who may read a secret file: --file …,mode=0440,owner=USER:GROUP. Nothing is in the file before both are what was asked for.

// access is the mode of a secret file and whose it is; -1 leaves the user or the group as they are.
type access struct {
	mode     os.FileMode
	uid, gid int
}

// ownAccess is what a file has without options.
var ownAccess = access{mode: 0o400, uid: -1, gid: -1}

// cutAccess takes the options off the end of a --file. What is no option there belongs to the path, which may have commas in it.
func cutAccess(text string) (rest string, a access, err error) {
	a = ownAccess
	for {
		i := strings.LastIndexByte(text, ',')
		if i < 0 || !IsFileOption(text[i+1:]) {
			return text, a, nil
		}
		name, value, _ := strings.Cut(text[i+1:], "=")
		if name == "mode" {
			a.mode, err = parseFileMode(value)
		} else {
			a.uid, a.gid, err = parseOwner(value)
		}
		if err != nil {
			return text, a, err
		}
		text = text[:i]
	}
}

// IsFileOption reports whether what follows a comma is an option of --file, and no part of a path.
func IsFileOption(text string) bool {
	name, value, ok := strings.Cut(text, "=")
	return ok && (name == "mode" || name == "owner") && !strings.Contains(value, "/")
}

// The failures of a mode and an owner; the hint is the caller's.
var (
	errMode      = errors.New("its mode is not one of 0000 to 0777, in octal")
	errModeWorld = errors.New("its mode would let everybody write the file")
)

func parseFileMode(text string) (os.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 16)
	switch {
	case err != nil, n > 0o777: // setuid, setgid and the sticky bit have no use in a secret
		return 0, errMode
	case n&0o002 != 0:
		return 0, errModeWorld
	}
	return os.FileMode(n), nil
}

// parseOwner reads USER, USER:GROUP or :GROUP, each a name or a number.
func parseOwner(text string) (uid, gid int, err error) {
	who, group, both := strings.Cut(text, ":")
	if group == "" && (who == "" || both) { // chown(1) takes the user's login group for USER:, which is easily overlooked
		return -1, -1, errors.New("its owner, or its group, is empty")
	}
	uid, err = idOf(who, "user", func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return -1, -1, err
	}
	gid, err = idOf(group, "group", func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	return uid, gid, err
}

// idOf returns the number of a user or group; -1 for "".
func idOf(text, kind string, lookup func(string) (string, error)) (int, error) {
	if text == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return int(n), nil
	}
	id, err := lookup(text)
	if err != nil {
		return -1, fmt.Errorf("there is no %s %q", kind, text)
	}
	return strconv.Atoi(id)
}

// put gives an empty file that this process has made its mode and its owner. The mode comes first: afterwards the file may be
// somebody else's. (chmod(2) is not subject to the umask.)
func (a access) put(fd int) error {
	if err := unix.Fchmod(fd, uint32(a.mode)); err != nil {
		return err
	}
	if a.uid < 0 && a.gid < 0 {
		return nil
	}
	if err := unix.Fchown(fd, a.uid, a.gid); err != nil {
		return &ownerError{err}
	}
	return nil
}

// ownerError is a failed change of the owner.
type ownerError struct{ error }

func (e *ownerError) Unwrap() error { return e.error }

// ownerFault says that a file cannot be given to somebody.
func ownerFault(where string, err *ownerError) *fault.Error {
	e := &fault.Error{Kind: fault.Usage, What: "cannot give the file " + where + " to its owner", Why: err.Error(), Err: err,
		Hint: "its file system may not know owners, or not this one"}
	if errors.Is(err, unix.EPERM) {
		e.Hint = "that takes root, or CAP_CHOWN; without, only a group that vaultexec itself is in: owner=:GROUP"
	}
	return e
}

// tryMemory is try for a file in memory.
func tryMemory(spec *FileSpec) error {
	if who := spec.who(); who.uid < 0 && who.gid < 0 {
		return nil
	}
	fd, err := sealedFile(spec.Name, "", spec.who())
	if err == nil {
		closeAll([]int{fd})
	}
	return err
}

// tryOwner makes an empty file in the folder of a path and gives it its owner, to find out whether that works there.
func tryOwner(dir *os.File, spec *FileSpec) error {
	if who := spec.who(); who.uid < 0 && who.gid < 0 {
		return nil
	}
	s, err := stageIn(dir, spec, "")
	s.drop()
	return err
}
