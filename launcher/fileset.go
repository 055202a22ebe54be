package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// A set is a folder whose files change together: a certificate, its key and its chain. The folder of --file-set is a
// link to another beside it, which holds one edition of the files. The next edition is complete before it has the
// name: one rename(2) of a new link puts all of it in the place of the last one.
//
// Whoever opens the folder once, and the files from there (cd, openat(2)), has the files of one edition. Whoever opens
// two files one after the other by their whole paths may have one of each, if the rename comes in between; no file
// system can keep that from happening. A program that is sent a signal gets it when the new edition is in its place.
//
// RENAME_EXCHANGE of two folders could do without the link. But it would carry off what somebody else has put into the
// folder, and is of Linux alone. A link within the folder for each file, as Kubernetes has them, would have the files
// be links, which some programs refuse for a key.

// folderEdition is a folder with one edition of the files of a set.
type folderEdition struct {
	parent *os.File
	name   string   // in parent
	dir    *os.File // locked: somebody lives who will remove it
	files  map[string]placed
	gone   sync.Once
	done   atomic.Bool // it is gone
}

// keepEdition is for how long an edition stays that has been replaced, for those who have just opened its folder.
var keepEdition = 10 * time.Second

var errNotASet = errors.New("something is there that is not the folder of an earlier --file-set")

// folder is where a file is made: beside the folder of its set, which only the rename puts in its place.
func folder(spec *environ.FileSpec) string {
	if spec.Set != "" {
		return filepath.Dir(spec.Set)
	}
	return filepath.Dir(spec.Path)
}

// checkSet looks at what has the name of a set.
func checkSet(parent int, base string) error {
	var st unix.Stat_t
	switch err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFLNK || int(st.Uid) != os.Geteuid() || !isBeside(linkAt(parent, base), base):
		return errNotASet
	}
	return nil
}

// linkAt is where a link leads, "" for what is none.
func linkAt(dir int, name string) string {
	buf := make([]byte, unix.NAME_MAX+2)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil || n == len(buf) {
		return ""
	}
	return string(buf[:n])
}

// placeSet makes the staged files of one set its next edition.
func (f *files) placeSet(set string, staged []*stagedFile, values map[string]vault.Text) error {
	base := filepath.Base(set)
	e, err := newFolderEdition(staged[0].dir, base)
	if err != nil {
		return err
	}
	err = func() error {
		for _, s := range staged {
			s.into = e.dir
			if err := s.put(values); err != nil {
				return err
			}
			e.files[filepath.Base(s.spec.Path)] = s.placed()
		}
		if err := unix.Fchmod(int(e.dir.Fd()), 0o755); err != nil { // the names are no secret
			return err
		}
		testOnlyAt("filled")
		return e.show(base)
	}()
	if err != nil {
		e.remove()
		return err
	}
	if last := f.sets[set]; last != nil {
		time.AfterFunc(keepEdition, last.remove)
		f.replaced = slices.DeleteFunc(f.replaced, func(e *folderEdition) bool { return e.done.Load() })
		f.replaced = append(f.replaced, last)
	}
	f.sets[set] = e
	if !f.swept[set] {
		f.swept[set] = true
		var names []string
		for _, s := range staged {
			names = append(names, filepath.Base(s.spec.Path))
		}
		sweepSet(int(e.parent.Fd()), base, names)
	}
	return nil
}

// newFolderEdition makes a folder that nobody looks into yet.
func newFolderEdition(parent *os.File, base string) (*folderEdition, error) {
	fd, err := unix.FcntlInt(parent.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	e := &folderEdition{parent: os.NewFile(uintptr(fd), parent.Name()), files: map[string]placed{}}
	for range maxNameTries {
		e.name = besideName(base)
		err = unix.Mkdirat(fd, e.name, 0o700)
		if err == unix.EEXIST {
			continue
		}
		if err != nil {
			break
		}
		var dir int
		dir, err = unix.Openat(fd, e.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT { // another vaultexec has taken it for left behind in the moment before the lock
			continue
		}
		if err != nil {
			break
		}
		e.dir = os.NewFile(uintptr(dir), e.name)
		if err = lock(e.dir); err == nil && e.isThere() {
			return e, nil
		}
		e.dir.Close()
	}
	e.parent.Close()
	if err == nil {
		err = unix.EEXIST
	}
	return nil, err
}

// isThere reports whether the name of the edition is still that of its folder.
func (e *folderEdition) isThere() bool {
	var named, open unix.Stat_t
	return unix.Fstatat(int(e.parent.Fd()), e.name, &named, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstat(int(e.dir.Fd()), &open) == nil && identify(&named) == identify(&open)
}

// show gives the edition the name of its set, in one step.
func (e *folderEdition) show(base string) error {
	parent := int(e.parent.Fd())
	err := checkSet(parent, base)
	for range maxNameTries {
		if err != nil {
			return err
		}
		link := besideName(base)
		err = unix.Symlinkat(e.name, parent, link)
		if err == unix.EEXIST {
			err = nil
			continue
		}
		if err == nil {
			testOnlyAt("linked")
			err = unix.Renameat(parent, link, parent, base)
		}
		switch err {
		case nil:
			return nil
		case unix.ENOENT: // another vaultexec has taken the link for left behind
			err = nil
		default:
			_ = unix.Unlinkat(parent, link, 0)
		}
	}
	return unix.EEXIST
}

// remove removes the edition, unless something is in its folder that vaultexec has not put there.
func (e *folderEdition) remove() {
	e.gone.Do(func() {
		dir := int(e.dir.Fd())
		for name, p := range e.files {
			var st unix.Stat_t
			if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && identify(&st) == p.id {
				_ = unix.Unlinkat(dir, name, 0)
			}
			p.close()
		}
		if e.isThere() {
			_ = unix.Unlinkat(int(e.parent.Fd()), e.name, unix.AT_REMOVEDIR)
		}
		e.dir.Close()
		e.parent.Close()
		e.done.Store(true)
	})
}

// removeSet takes the folder away, if it is still the one that was shown last.
func (f *files) removeSet(set string) {
	e := f.sets[set]
	delete(f.sets, set)
	if parent, base := int(e.parent.Fd()), filepath.Base(set); linkAt(parent, base) == e.name {
		_ = unix.Unlinkat(parent, base, 0)
	}
	e.remove()
}

// removeReplaced removes the editions that stayed for a moment, at the end.
func (f *files) removeReplaced() {
	for _, e := range f.replaced {
		e.remove()
	}
	f.replaced = nil
}

// sweepSet removes the editions that killed runs have left: folders of this user, with a name that vaultexec gives, at
// which nobody is at work. What is in them under another name than those of the set stays, and so does its folder.
func sweepSet(parent int, base string, names []string) {
	eachName(parent, func(name string) {
		if !isBeside(name, base) {
			return
		}
		var st unix.Stat_t
		if unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || int(st.Uid) != os.Geteuid() {
			return
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if isBeside(linkAt(parent, name), base) {
				_ = unix.Unlinkat(parent, name, 0)
			}
		case unix.S_IFDIR:
			removeFolder(parent, name, names)
		}
	})
}

func removeFolder(parent int, name string, names []string) {
	dir, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	if unix.Flock(dir, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			_ = unix.Unlinkat(dir, name, 0)
		}
	}
	_ = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}
