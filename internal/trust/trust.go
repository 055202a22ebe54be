// Package trust decides whose files vaultexec goes by. Whoever can change a credential, a configuration file or a CA
// chooses who vaultexec is, where it sends that, and what it starts. The rule is that of sshd's StrictModes: a file and
// every folder on the way to it belong to root or to the user that vaultexec runs as, and nobody else may write them.
//
// Every folder that the kernel goes through counts, also those that links lead through. In a sticky folder, such as
// /tmp, only its owner and the owner of an entry can put something else in the entry's place. A group with the number
// of the owner is the owner's alone, by custom; no user database is asked. What was handed over open (/dev/stdin, a
// pipe of <(…), /dev/fd/3) is the affair of whoever started vaultexec.
//
// Whoever mounts a file or a folder read-only vouches for it: containers are given their files so, with the owner that
// these have outside. Then its mode does not count, and its owner counts as root within.
package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Anyone among the users that are allowed turns the checks off.
const Anyone = -1

// overflow stands for every user that a user namespace does not map (/proc/sys/kernel/overflowuid).
const overflow = 65534

// Refusal is the error for what others may change.
type Refusal struct {
	why  string
	cure string
}

// Error says who may change what.
func (r *Refusal) Error() string { return r.why }

// Cure returns what to do about a refusal, and otherwise for any other error.
func Cure(err error, otherwise string) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.cure
	}
	return otherwise
}

// Refused reports whether an error is a refusal.
func Refused(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}

// Checker looks at several paths that have folders in common. It is for one pass over files: it does not look twice.
type Checker struct {
	me      int
	allow   []int
	folders map[string]folder
	found   []finding
}

// New makes a Checker. Files and folders of the users in allow count as one's own.
func New(allow []int) *Checker {
	return &Checker{me: os.Geteuid(), allow: allow, folders: map[string]folder{}}
}

// Open opens a file for reading.
func Open(path string, allow []int) (*os.File, error) { return New(allow).Open(path) }

// folder is what a folder means for what is in it.
type folder struct {
	sticky bool // others may write it, but not replace what is not theirs
	owner  int  // for whom a read-only mount vouches; -1 for nobody
}

type finding struct {
	path string
	kind string // "folder", "link"; "" for the file itself
	uid  int
	mode uint32 // 0 when it is the owner that is wrong
}

// tries bounds how often a file may be replaced while it is looked at: Kubernetes and editors do it once in a while.
const tries = 20

// Open opens a file for reading.
func (c *Checker) Open(path string) (*os.File, error) {
	return c.open(path, func() (*os.File, error) { return os.Open(path) })
}

// Folder opens a folder that others cannot put something else in the place of, nor of what is in it.
func Folder(path string, allow []int) (*os.File, error) {
	return New(allow).open(path, func() (*os.File, error) {
		return os.OpenFile(path, FolderFlags, 0)
	})
}

// Closed is nil for a folder into which nobody else may put anything. A sticky folder is not closed: others may add
// what is not there yet. If the folder does not exist, Closed looks at the one that it would be in.
func Closed(path string, allow []int) error {
	c := New(allow)
	if c.anyone() {
		return nil
	}
	for {
		c.found = nil
		st, given, err := c.walk(path)
		switch {
		case given:
			return nil
		case err == nil:
			mode := uint32(st.Mode)
			if mode&unix.S_ISVTX != 0 && (mode&0o002 != 0 || mode&0o020 != 0 && !private(path, &st)) &&
				!mountedReadOnly(path) {
				c.found = append(c.found, finding{path: path, kind: "folder", mode: mode & 0o7777})
			}
			return c.refusal(path)
		case !errors.Is(err, unix.ENOENT) || filepath.Dir(path) == path:
			return nil // whoever opens it is told why it cannot be
		}
		path = filepath.Dir(path)
	}
}

// Program looks at a program that is going to be started. That it cannot be is for the start to say.
func Program(path string, allow []int) error {
	c := New(allow)
	if c.anyone() {
		return nil
	}
	if _, _, err := c.walk(path); err != nil {
		return nil
	}
	return c.refusal(path)
}

func (c *Checker) anyone() bool { return slices.Contains(c.allow, Anyone) }

// open looks at the path first, so that it opens nothing of anybody's making. Then it checks that this is what it
// opened. With a path that only trusted users can change it is, unless one of them changes it just now.
func (c *Checker) open(path string, open func() (*os.File, error)) (*os.File, error) {
	if c.anyone() {
		return open()
	}
	for range tries {
		c.found = nil
		want, given, missing := c.walk(path)
		if missing == nil {
			if err := c.refusal(path); err != nil {
				return nil, err
			}
		}
		f, err := open() // also of what could not be looked at: the kernel says why
		if err != nil || given {
			return f, err
		}
		var got unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &got)
		if err == nil && missing == nil && same(&got, &want) {
			return f, nil
		}
		f.Close()
		c.folders = map[string]folder{}
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: errMoving}
}

// same reports whether what was opened is what was judged.
func same(a, b *unix.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Uid == b.Uid && a.Gid == b.Gid && a.Mode == b.Mode
}

var errMoving = errors.New("it is replaced while it is looked at, again and again")

// walk goes along a path as the kernel does, one name after the other, and collects what others may change. It returns
// what is at the end, or given for a descriptor of this process.
func (c *Checker) walk(path string) (end unix.Stat_t, given bool, err error) {
	if path == "" {
		return end, false, unix.ENOENT
	}
	if !filepath.IsAbs(path) {
		if wd, err := unix.Getwd(); err == nil && filepath.IsAbs(wd) {
			if end, given, err := c.from("/", wd+"/"+path); err == nil {
				return end, given, nil
			}
			c.found = nil
		}
		// The way to the current folder is gone, or not for this user to see. The folder is still this one.
		return c.from(".", path)
	}
	return c.from("/", path)
}

const maxLinks = 40 // MAXSYMLINKS

func (c *Checker) from(dir, path string) (end unix.Stat_t, given bool, err error) {
	in, err := c.enter(dir, &end)
	rest, links := split(path), 0
	for err == nil && len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			dir = filepath.Join(dir, "..")
			in, err = c.enter(dir, &end)
			continue
		}
		at := filepath.Join(dir, name)
		if dir == "/dev/fd" || ownDescriptors(dir) {
			return end, true, nil
		}
		if err := unix.Lstat(at, &end); err != nil {
			return end, false, err
		}
		switch end.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if links++; links > maxLinks {
				return end, false, unix.ELOOP
			}
			if in.sticky && !c.owns(int(end.Uid), false) {
				c.found = append(c.found, finding{path: at, kind: "link", uid: int(end.Uid)})
			}
			target, err := os.Readlink(at)
			if err != nil {
				return end, false, err
			}
			rest = append(split(target), rest...)
			if filepath.IsAbs(target) {
				dir = "/"
				if in, err = c.enter(dir, &end); err != nil {
					return end, false, err
				}
			}
		case unix.S_IFDIR:
			known, ok := c.folders[at]
			if !ok {
				known = c.judge(at, "folder", &end, in)
				c.folders[at] = known
			}
			dir, in = at, known
		default:
			if slices.ContainsFunc(rest, func(s string) bool { return s != "" }) {
				return end, false, unix.ENOTDIR
			}
			c.judge(at, "", &end, in)
			return end, false, nil
		}
	}
	return end, false, err
}

func split(path string) []string { return strings.Split(path, "/") }

// enter looks at a folder that is not reached by its name.
func (c *Checker) enter(dir string, st *unix.Stat_t) (folder, error) {
	if err := unix.Lstat(dir, st); err != nil {
		return folder{}, err
	}
	known, ok := c.folders[dir]
	if !ok {
		known = c.judge(dir, "folder", st, folder{owner: -1})
		c.folders[dir] = known
	}
	return known, nil
}

// ownDescriptors reports whether a folder is /proc/self/fd, by the name that it has once the links are followed.
func ownDescriptors(dir string) bool {
	if !strings.HasPrefix(dir, "/proc/") || filepath.Base(dir) != "fd" {
		return false
	}
	self, err := os.Readlink("/proc/self")
	return err == nil && strings.HasPrefix(dir, "/proc/"+self+"/")
}

// judge notes what is wrong with one file or folder, and returns what it means for what is in it.
func (c *Checker) judge(path, kind string, st *unix.Stat_t, in folder) folder {
	uid, mode := int(st.Uid), uint32(st.Mode)
	sticky := false
	writable := mode&0o002 != 0 || mode&0o020 != 0 && !private(path, st)
	switch {
	case kind == "folder" && mode&unix.S_ISVTX != 0:
		sticky, writable = writable, false
	case mode&unix.S_IFMT == unix.S_IFCHR: // what is written to a terminal or to /dev/null is not what is read there
		writable = false
	}
	owned := uid == in.owner || c.owns(uid, kind == "folder")
	if owned && !writable {
		return folder{sticky: sticky, owner: in.owner}
	}
	if mountedReadOnly(path) {
		return folder{owner: uid}
	}
	if !owned {
		c.found = append(c.found, finding{path: path, kind: kind, uid: uid})
	}
	if writable {
		c.found = append(c.found, finding{path: path, kind: kind, mode: mode & 0o7777})
	}
	return folder{sticky: sticky, owner: in.owner}
}

// owns reports whether a user is one whose files count. The folders around a user namespace, from / on, mostly belong
// to the root of the machine, which the namespace has no number for.
func (c *Checker) owns(uid int, folder bool) bool {
	return uid == 0 || uid == c.me || slices.Contains(c.allow, uid) || folder && uid == overflow && usersUnmapped()
}

// private reports whether the group of a file is its owner's alone. Many systems make such a group for each user, with
// the same number. Root's group counts, too: in images for OpenShift every user is in it. An access control list may
// let others in under the same bits.
func private(path string, st *unix.Stat_t) bool {
	return (st.Gid == st.Uid || st.Gid == 0) && !hasACL(path) || int(st.Gid) == adminGroup
}

// refusal is nil when nothing was found.
func (c *Checker) refusal(path string) error {
	if len(c.found) == 0 {
		return nil
	}
	var why, chmod, users []string
	chown := map[string][]string{} // by the user that is to own them
	for _, f := range c.found {
		mode, name := fmt.Sprintf("%q has mode %04o", f.path, f.mode), f.path
		user := fmt.Sprintf("%q belongs to user %d", f.path, f.uid)
		switch f.kind {
		case "link":
			user = "the link " + user
		case "": // the path itself, which the text names already
			name, mode, user = path, fmt.Sprintf("the mode is %04o", f.mode), fmt.Sprintf("the owner is user %d", f.uid)
		}
		if f.mode != 0 {
			why = append(why, mode)
			chmod = append(chmod, quote(name))
			continue
		}
		why = append(why, user)
		owner := "root"
		if uid := os.Geteuid(); uid != 0 && f.kind == "" {
			owner = fmt.Sprint(uid)
		}
		chown[owner] = append(chown[owner], quote(name))
		if u := fmt.Sprint(f.uid); !slices.Contains(users, u) {
			users = append(users, u)
		}
	}
	var cure []string
	if len(chmod) > 0 {
		cure = append(cure, "chmod go-w "+strings.Join(chmod, " "))
	}
	for _, owner := range slices.Sorted(maps.Keys(chown)) {
		cure = append(cure, fmt.Sprintf("chown -h %s %s", owner, strings.Join(chown[owner], " ")))
	}
	text := strings.Join(cure, " && ")
	switch open := slices.ContainsFunc(c.found, func(f finding) bool { return f.kind != "" && f.mode != 0 }); {
	case open: // an emptyDir of Kubernetes is like that
		text += "; in a container that nobody else uses: --allow-owner anyone"
	case len(users) > 0 && len(chmod) > 0:
		text += " (--allow-owner alone does not allow the mode)"
	case len(users) > 0:
		text += ", or add --allow-owner " + strings.Join(users, ",")
	}
	return &Refusal{why: "others may change it: " + strings.Join(why, ", "), cure: text}
}

// quote writes a path as a shell takes it.
func quote(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-,:@%=") == "" &&
		!strings.HasPrefix(path, "-") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
