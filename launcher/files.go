package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// files hands secrets over as files. Those with a path are written when a child is started, and when a change is acted
// on while it runs. They are removed at the end, if they are still the ones that were written. A process that ends by
// SIGKILL leaves them: nobody is there to remove them, and the next start replaces them.
type files struct {
	allowDisk bool
	allow     []int             // users whose folders they may be in
	written   map[string]placed // by path
	sets      map[string]*folderEdition
	replaced  []*folderEdition
	staged    []stagedFile // complete, and not in their places yet
	stagedFor *environ.Env
	swept     map[string]bool // by path, of a file or a set
}

// fileID tells whether a path still names the file that was written there. It holds as long as that file is open: then
// nobody else's file gets its number.
type fileID struct{ dev, ino uint64 }

// placed is a file in its place.
type placed struct {
	id   fileID
	file *os.File // open, so that its number is nobody else's; nil where it cannot be opened
}

func identify(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), uint64(st.Ino)} }

func newFiles(allowDisk bool, allow ...int) *files {
	return &files{allowDisk: allowDisk, allow: allow, written: map[string]placed{}, sets: map[string]*folderEdition{},
		swept: map[string]bool{}}
}

// handOver puts the files of env in their places and returns the environment that names them, and the descriptors of
// those in memory. They are close-on-exec here; the caller closes them once the command has them.
func (f *files) handOver(env *environ.Env) (environ []string, fds []int, err error) {
	if err := f.place(env); err != nil {
		return nil, nil, err
	}
	environ, fds, err = memoryFiles(env)
	if err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return environ, fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// childFiles says which descriptors a child gets: std as 0 to 2, sockets from 3 on, fds at their own numbers, and what
// vaultexec itself was given at any other number. They are named to syscall.ForkExec, which opens them in the child. This
// process must not take the flag off fds: the Vault CLI's token helper, which another goroutine may start at that moment,
// would have the secrets, too.
func childFiles(std, sockets []uintptr, fds []int) []uintptr {
	const closed = ^uintptr(0)
	files := slices.Concat(std, sockets)
	for fd := len(files); len(fds) > 0 && fd <= slices.Max(fds); fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if slices.Contains(fds, fd) || err == nil && flags&unix.FD_CLOEXEC == 0 {
			files = append(files, uintptr(fd))
		} else {
			files = append(files, closed)
		}
	}
	return files
}

// memoryFiles makes the files in memory and returns the environment that names their descriptors, which are
// close-on-exec.
func memoryFiles(env *environ.Env) (variables []string, fds []int, err error) {
	paths := map[string]string{}
	for _, v := range env.Files() {
		if v.File.Path != "" || v.Unused() {
			continue
		}
		fd, err := sealedFile(v.Name, v.Value.Reveal(), v.File.Access())
		if err != nil {
			f := fileFault("in memory for "+v.Name, err)
			if f.Hint == "" {
				f.Hint = fmt.Sprintf("write it to a memory file system instead: --file %s=PATH", v.Name)
			}
			return nil, fds, f
		}
		fds = append(fds, fd)
		paths[v.Name] = environ.MemoryPath(fd)
	}
	return env.StringsAt(paths), fds, nil
}

// stage completes the files of env before they are in their places. What can fail fails here, while the running child
// still has the old ones.
func (f *files) stage(env *environ.Env) error {
	if f.stagedFor == env {
		return nil
	}
	f.discard()
	for _, v := range env.Files() {
		if v.File.Path == "" {
			continue
		}
		s, err := f.write(v.File, v.Value.Reveal())
		if err != nil {
			f.discard()
			return fileFault(fmt.Sprintf("%q", v.File.Path), err)
		}
		f.staged = append(f.staged, s)
	}
	f.stagedFor = env
	return nil
}

// place makes the files of env current: each is replaced in one step, so that a reader finds the old or the new one and
// never a part of it. What env has no longer is removed.
func (f *files) place(env *environ.Env) error {
	if err := f.stage(env); err != nil {
		return err
	}
	defer f.discard()
	values := map[string]vault.Text{}
	for _, v := range env.Files() {
		values[v.File.Path] = v.Value
	}
	current := map[string]bool{}
	sets := map[string][]*stagedFile{}
	for i := range f.staged {
		s := &f.staged[i]
		path := s.spec.Path
		if set := s.spec.Set; set != "" {
			sets[set] = append(sets[set], s)
			continue
		}
		if err := s.put(values); err != nil {
			return fileFault(fmt.Sprintf("%q", path), err)
		}
		f.written[path].close()
		f.written[path] = s.placed()
		current[path] = true
	}
	for set, staged := range sets {
		if err := f.placeSet(set, staged, values); err != nil {
			return fileFault(fmt.Sprintf("%q", set), err)
		}
	}
	for path := range f.written {
		if !current[path] {
			f.remove(path)
		}
	}
	for set := range f.sets {
		if sets[set] == nil {
			f.removeSet(set)
		}
	}
	return nil
}

// write makes a complete file in the folder of a path.
func (f *files) write(spec *environ.FileSpec, content string) (stagedFile, error) {
	dir, err := f.check(spec)
	if err != nil {
		return stagedFile{}, err
	}
	if !f.swept[spec.Path] {
		f.swept[spec.Path] = true
		sweep(int(dir.Fd()), spec)
	}
	s, err := stageIn(dir, spec, content)
	if err != nil {
		s.close()
		return stagedFile{}, err
	}
	testOnlyAt("staged")
	return s, nil
}

// check looks at the place of a file before anything is written there, and opens its folder. If others put something in
// the place of that folder later, nothing is written to it.
func (f *files) check(spec *environ.FileSpec) (*os.File, error) {
	allow := f.allow
	if uid := spec.Access().UID; uid >= 0 { // to whom the file is given, who then may do with it what they like
		allow = append(slices.Clone(allow), uid)
	}
	dir, err := trust.Folder(folder(spec), allow)
	if err != nil {
		return nil, err
	}
	if err := f.checkIn(int(dir.Fd()), spec); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

func (f *files) checkIn(dir int, spec *environ.FileSpec) error {
	if !f.allowDisk {
		memory, err := inMemory(dir)
		if err != nil {
			return err
		}
		if !memory {
			return errOnDisk
		}
	}
	if spec.Set != "" {
		return checkSet(dir, filepath.Base(spec.Set))
	}
	var st unix.Stat_t
	switch err := unix.Fstatat(dir, filepath.Base(spec.Path), &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errNotRegular
	case int(st.Uid) != os.Geteuid() && int(st.Uid) != spec.Access().UID: // whom an earlier run gave it to
		return errNotOurs
	}
	return nil
}

// What check finds wrong. The kernel's own errors are passed on as they are.
var (
	errOnDisk     = errors.New("its folder is not on a memory file system")
	errNotRegular = errors.New("something is there that is not a regular file")
	errNotOurs    = errors.New("there is a file of another user")
)

// fileFault says that a file cannot be written.
func fileFault(where string, err error) *fault.Error {
	var e *fault.Error
	if errors.As(err, &e) {
		return e
	}
	var owner *ownerError
	if errors.As(err, &owner) {
		return ownerFault(where, owner)
	}
	e = &fault.Error{Kind: fault.Usage, What: "cannot write the file " + where, Why: vault.Errno(err), Err: err}
	var errno unix.Errno
	if errors.As(err, &errno) { // without the name of the temporary file
		e.Why = errno.Error()
	}
	switch {
	case errors.Is(err, errOnDisk):
		e.Why = errOnDisk.Error()
		e.Hint =
			"a disk keeps what was written there: choose a path below /run or /dev/shm, or allow it with --allow-disk"
	case errors.Is(err, errNotRegular), errors.Is(err, errNotOurs):
		e.Why = err.Error()
		e.Hint = "choose another path; only an earlier file of the same user is replaced"
	case errors.Is(err, errNotASet):
		e.Why = err.Error()
		e.Hint = "--file-set makes the folder itself: choose a name that is not taken, beside it or in it"
	case errors.Is(err, unix.ENOENT):
		e.Hint = "its folder must exist"
	default:
		e.Hint = trust.Cure(err, "")
	}
	return e
}

// CheckFilePlaces finds out before Vault is asked which files could not be written.
func CheckFilePlaces(specs []environ.FileSpec, allowDisk bool, allow ...int) error {
	f := newFiles(allowDisk, allow...)
	var faults []*fault.Error
	for _, s := range specs {
		if s.Path == "" {
			if err := checkMemoryFiles(); err != nil {
				faults = append(faults, &fault.Error{Kind: fault.Usage,
					What: "cannot hand over " + s.Name + " as a file in memory", Err: err,
					Why:  "its path would be in /proc, which is not mounted here",
					Hint: fmt.Sprintf("mount /proc, or write it to a memory file system: --file %s=PATH", s.Name)})
			} else if err := tryMemory(&s); err != nil {
				faults = append(faults, fileFault("in memory for "+s.Name, err))
			}
			continue
		}
		dir, err := f.check(&s)
		if err == nil {
			if err = unix.Access(folder(&s), unix.W_OK|unix.X_OK); err == nil {
				err = tryOwner(dir, &s)
			}
			dir.Close()
		}
		if err != nil {
			faults = append(faults, fileFault(fmt.Sprintf("%q", s.Path), err))
		}
	}
	return fault.Join(faults)
}

// discard removes what was written and will not be used.
func (f *files) discard() {
	for i := range f.staged {
		f.staged[i].close()
	}
	f.staged, f.stagedFor = nil, nil
}

// remove removes a file, unless somebody else has put another in its place.
func (f *files) remove(path string) {
	if dir, err := os.OpenFile(filepath.Dir(path), trust.FolderFlags, 0); err == nil {
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), filepath.Base(path), &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && identify(&st) == f.written[path].id {
			_ = unix.Unlinkat(int(dir.Fd()), filepath.Base(path), 0)
		}
		dir.Close()
	}
	f.written[path].close()
	delete(f.written, path)
}

// removeAll is the end.
func (f *files) removeAll() {
	f.discard()
	for path := range f.written {
		f.remove(path)
	}
	for set := range f.sets {
		f.removeSet(set)
	}
	f.removeReplaced()
}
