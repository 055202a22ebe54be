package environ

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Access is the mode of a secret file and whose it is; -1 leaves the user or the group as they are.
type Access struct {
	Mode     fs.FileMode
	UID, GID int
}

// ownAccess is what a file has without options.
var ownAccess = Access{Mode: 0o400, UID: -1, GID: -1}

// cutAccess takes the options off the end of a --file. What is not an option there belongs to the path, which may
// contain commas.
func cutAccess(text string, host Host) (rest string, a Access, err error) {
	a = ownAccess
	for {
		i := strings.LastIndexByte(text, ',')
		if i < 0 || !IsFileOption(text[i+1:]) {
			return text, a, nil
		}
		name, value, _ := strings.Cut(text[i+1:], "=")
		if name == "mode" {
			a.Mode, err = parseFileMode(value)
		} else {
			a.UID, a.GID, err = parseOwner(value, host)
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

func parseFileMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 16)
	switch {
	case err != nil, n > 0o777: // setuid, setgid and the sticky bit have no use in a secret
		return 0, errMode
	case n&0o002 != 0:
		return 0, errModeWorld
	}
	return fs.FileMode(n), nil
}

// parseOwner reads USER, USER:GROUP or :GROUP, each a name or a number.
func parseOwner(text string, host Host) (uid, gid int, err error) {
	who, group, both := strings.Cut(text, ":")
	// chown(1) takes the user's login group for USER:, which is easily overlooked.
	if group == "" && (who == "" || both) {
		return -1, -1, errors.New("its owner, or its group, is empty")
	}
	if uid, err = idOf(who, "user", host.UID); err != nil {
		return -1, -1, err
	}
	gid, err = idOf(group, "group", host.GID)
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
