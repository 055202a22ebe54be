package launcher

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// A file with a path is complete before it has a name: nothing of it stays when vaultexec is killed (open(2),
// O_TMPFILE). No call puts such a file in the place of another. So it first gets a name beside the other, for as long
// as a rename takes. Where the file system cannot do that, and outside of Linux, it has that name from the start.
// Either way the file is locked for as long as somebody is at work with it. What nobody has locked was left by a killed
// run: the next one removes it. (flock(2): the lock ends with the process, and holds across containers that share a
// folder; a process number would not.)

// stagedFile is a complete file that is not in its place yet.
type stagedFile struct {
	spec *environ.FileSpec
	dir  *os.File // the folder
	into *os.File // the folder of its place, where that is another
	file *os.File // locked, while it is not in its place
	temp string   // its name in the folder; "" for none
	id   fileID
}

// Seams for tests: what cannot be had on every file system, and the moments that matter.
var (
	testOnlyNamed bool
	testOnlyAt    = func(string) {}
)

// stageIn makes a complete file for a place in dir, which is the caller's until it has succeeded.
func stageIn(dir *os.File, spec *environ.FileSpec, content string) (stagedFile, error) {
	s := stagedFile{spec: spec, dir: dir}
	fd, err := -1, error(unix.ENOSYS)
	if !testOnlyNamed {
		fd, err = openUnnamed(int(dir.Fd()))
	}
	if err != nil {
		return s, s.again(content)
	}
	s.file = os.NewFile(uintptr(fd), spec.Path)
	return s, s.fill(content)
}

// again makes the file anew, with a name from the start.
func (s *stagedFile) again(content string) error {
	s.drop()
	file, temp, err := createNamed(int(s.dir.Fd()), filepath.Base(s.spec.Path))
	if err != nil {
		return err
	}
	s.file, s.temp = file, temp
	return s.fill(content)
}

// fill gives the file its mode and its owner, and then its content.
func (s *stagedFile) fill(content string) error {
	if err := putAccess(int(s.file.Fd()), s.spec.Access()); err != nil {
		return err
	}
	if _, err := s.file.WriteString(content); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.file.Fd()), &st); err != nil {
		return err
	}
	s.id = identify(&st)
	return nil
}

// name gives the file a name beside its place.
func (s *stagedFile) name() error {
	if s.temp != "" {
		return nil
	}
	if err := lock(s.file); err != nil {
		return err
	}
	for range maxNameTries {
		temp := besideName(filepath.Base(s.spec.Path))
		err := linkUnnamed(int(s.file.Fd()), int(s.dir.Fd()), temp)
		if err == nil {
			s.temp = temp
		}
		if err != unix.EEXIST {
			return err
		}
	}
	return unix.EEXIST
}

// put gives the file its place.
func (s *stagedFile) put(values map[string]vault.Text) error {
	if err := s.name(); err != nil { // no /proc, or it was given to a user whose files this one may not name
		if err := s.again(values[s.spec.Path].Reveal()); err != nil {
			return err
		}
	}
	testOnlyAt("named")
	base := filepath.Base(s.spec.Path)
	if err := unix.Renameat(int(s.dir.Fd()), s.temp, int(s.place().Fd()), base); err != nil {
		return err
	}
	s.temp = ""
	return nil
}

// place is the folder that the file ends up in.
func (s *stagedFile) place() *os.File {
	if s.into != nil {
		return s.into
	}
	return s.dir
}

// placed is the file once it is in its place. It is not held by the descriptor that it was written with: the kernel
// starts no program that somebody may still write to (ETXTBSY).
func (s *stagedFile) placed() placed {
	p := placed{id: s.id}
	fd, err := unix.Openat(int(s.place().Fd()), filepath.Base(s.spec.Path), holdFlags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		p.file = os.NewFile(uintptr(fd), s.spec.Path)
	}
	return p
}

func (p placed) close() {
	if p.file != nil {
		p.file.Close()
	}
}

// drop removes what is not in its place.
func (s *stagedFile) drop() {
	if s.temp != "" {
		_ = unix.Unlinkat(int(s.dir.Fd()), s.temp, 0)
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.temp = nil, ""
}

func (s *stagedFile) close() {
	s.drop()
	s.dir.Close()
}

const maxNameTries = 100

// createNamed makes a new, empty file beside base and locks it. O_EXCL does not follow a link that somebody has put
// there.
func createNamed(dir int, base string) (*os.File, string, error) {
	for range maxNameTries {
		temp := besideName(base)
		fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o400)
		switch {
		case err == unix.EEXIST, err == unix.EINTR:
			continue
		case err != nil:
			return nil, "", err
		}
		file := os.NewFile(uintptr(fd), temp)
		var st unix.Stat_t
		err = lock(file)
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err == nil && st.Nlink > 0 {
			return file, temp, nil
		}
		file.Close() // another vaultexec has taken it for left behind in the moment before the lock
		if err != nil && err != unix.EWOULDBLOCK {
			_ = unix.Unlinkat(dir, temp, 0)
			return nil, "", err
		}
	}
	return nil, "", unix.EEXIST
}

// lock marks a file as one that a living process is at work with. A file system without locks is no reason to stop: a
// sweep cannot lock there either, and removes nothing.
func lock(file *os.File) error {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS),
			errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EOPNOTSUPP):
			return nil
		case err != unix.EINTR:
			return err
		}
	}
}

// besideMark stands between the name of a file and what is random in the name that it has before it is in its place.
const besideMark = ".vaultexec-"

const besideRandom = 6 // bytes

func besideName(base string) string {
	b := make([]byte, besideRandom)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return "." + base + besideMark + hex.EncodeToString(b)
}

// isBeside reports whether besideName gives such names.
func isBeside(name, base string) bool {
	random, ok := strings.CutPrefix(name, "."+base+besideMark)
	return ok && len(random) == 2*besideRandom && strings.Trim(random, "0123456789abcdef") == ""
}

// sweep removes what killed runs have left beside the place of a file. These are regular files with a name that
// vaultexec gives. They belong to this user, or to whoever gets the file, and nobody is at work with them.
func sweep(dir int, spec *environ.FileSpec) {
	base := filepath.Base(spec.Path)
	eachName(dir, func(name string) {
		if isBeside(name, base) {
			removeLeft(dir, name, spec.Access().UID)
		}
	})
}

// eachName does something with each name in a folder.
func eachName(dir int, do func(name string)) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	list := os.NewFile(uintptr(fd), ".")
	defer list.Close()
	for {
		names, err := list.Readdirnames(1000)
		for _, name := range names {
			do(name)
		}
		if err != nil { // io.EOF
			return
		}
	}
}

func removeLeft(dir int, name string, owner int) {
	open := func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	var st unix.Stat_t
	fd, err := open()
	if err == unix.EACCES && unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		int(st.Uid) == os.Geteuid() && st.Mode&unix.S_IFMT == unix.S_IFREG { // its mode= leaves its owner out
		_ = unix.Fchmodat(dir, name, 0o600, 0)
		fd, err = open()
	}
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG ||
		int(st.Uid) != os.Geteuid() && int(st.Uid) != owner {
		return
	}
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = unix.Unlinkat(dir, name, 0)
	}
}
