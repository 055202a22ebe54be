package launcher

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// FileSpec is one --file: a secret that is handed over as a file and not as a variable. NAME_FILE holds the path; NAME
// itself is not set, also not with a value of vaultexec's own environment: programs that know both refuse to have both.
type FileSpec struct {
	Name   string
	Path   string // absolute; "" for a sealed file in memory
	Base64 bool   // the secret is the base64 of what the file holds

	access *access // nil without options
}

// who says who may read the file.
func (f *FileSpec) who() access {
	if f.access == nil {
		return ownAccess
	}
	return *f.access
}

// Variable is the name of the variable that holds the path.
func (f *FileSpec) Variable() string { return f.Name + "_FILE" }

// place is what the variable holds, as far as it is known before the start.
func (f *FileSpec) place() string {
	if f.Path != "" {
		return f.Path
	}
	return memoryPath(0)
}

// memoryPath names a descriptor of whoever opens the path. The number is known only when the file is made.
func memoryPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// ParseFile reads NAME[:base64][=PATH][,mode=MODE][,owner=USER[:GROUP]]. The path is made absolute: the command may change its folder.
func ParseFile(text string) (FileSpec, error) {
	bad := func(why, hint string) (FileSpec, error) {
		return FileSpec{}, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q", text), Why: why, Hint: hint}
	}
	rest, who, err := cutAccess(text)
	if err != nil {
		return bad(err.Error(), "write it as TLS_KEY=/run/app/tls.key,mode=0440,owner=app:ssl; also 1000:1000, or :ssl")
	}
	name, path, hasPath := strings.Cut(rest, "=")
	name, coding, coded := strings.Cut(name, ":")
	switch {
	case !IsName(name):
		return bad(fmt.Sprintf("%q is not a variable name", name), "write it as NAME, NAME=PATH, NAME:base64 or NAME:base64=PATH")
	case coded && coding != "base64":
		return bad(fmt.Sprintf("%q is not a coding", coding), "the only one is base64: NAME:base64")
	case hasPath && (path == "" || strings.HasSuffix(path, "/") || strings.IndexByte(path, 0) >= 0):
		return bad("its path names no file", "write it as TLS_KEY=/run/app/tls.key")
	}
	f := FileSpec{Name: name, Base64: coded}
	if who != ownAccess {
		f.access = &who
	}
	if hasPath {
		if f.Path, err = filepath.Abs(path); err != nil {
			return bad("the current folder is gone", "write an absolute path")
		}
	}
	return f, nil
}

// Files lists the secrets that are handed over as files, sorted by name.
func (e *Env) Files() []Variable {
	var files []Variable
	for _, v := range e.Vars {
		if v.File != nil {
			files = append(files, v)
		}
	}
	return files
}

// sameFiles reports whether the files of two environments hold the same.
func sameFiles(a, b []Variable) bool {
	return slices.EqualFunc(a, b, func(a, b Variable) bool {
		return a.Name == b.Name && a.unused() == b.unused() && (a.unused() || a.Value.Equal(b.Value))
	})
}

// file returns the --file of a name, or nil.
func (r *EnvRules) file(name string) *FileSpec {
	if i := slices.IndexFunc(r.Files, func(f FileSpec) bool { return f.Name == name }); i >= 0 {
		return &r.Files[i]
	}
	return nil
}

// putFile adds a secret that becomes a file: any length, any bytes.
func (b *envBuilder) putFile(v Variable, f *FileSpec) {
	if why, hint := refusal(f.Variable(), "", b.rules.AllowNames); why != "" { // its value is a path of vaultexec's own
		b.fail(fault.Value, v.Origin, why, hint)
		return
	}
	if f.Base64 {
		content, ok := decodeBase64(v.Value.Reveal())
		if !ok {
			b.fail(fault.Value, v.Origin, "the value is not base64", fmt.Sprintf("write --file %s without :base64 to hand it over as it is", f.Name))
			return
		}
		v.parts = append(v.parts, v.Value)
		v.Value = content
	}
	v.File = f
	b.insert(v)
}

// decodeBase64 reads either alphabet, with or without padding, in one line or many.
func decodeBase64(s string) (vault.Text, bool) {
	s = strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, s)
	if n := len(s); n%4 == 0 { // padding that does not fill up a group of four is a damaged value
		s = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
	}
	out, err := base64.RawStdEncoding.DecodeString(s)
	return vault.NewText(string(out)), err == nil
}

// checkFiles finds a --file that no secret gives, and a name that a file and a secret both want. An optional path that has
// nothing is forgiven its files, too: that it has nothing was said.
func (b *envBuilder) checkFiles(got []fetched) {
	forgiven := slices.ContainsFunc(got, func(g fetched) bool { return g.secret == nil && g.folder == nil && g.source.Optional })
	for i := range b.rules.Files {
		f := &b.rules.Files[i]
		if _, ok := b.byName[f.Name]; !ok {
			if !forgiven && len(b.faults) == 0 {
				b.faults = append(b.faults, &fault.Error{Kind: fault.Value, What: "cannot make the file of --file " + f.Name, Why: "no secret gives " + f.Name,
					Hint: "--dry-run without --file shows the names; --env " + f.Name + "=PATH#KEY gives it one"})
			}
			continue
		}
		if j, ok := b.byName[f.Variable()]; ok {
			b.faults = append(b.faults, &fault.Error{Kind: fault.Value, What: "cannot set " + f.Variable(), Why: fmt.Sprintf("both --file %s and %s give it", f.Name, b.vars[j].Origin),
				Hint: "leave one out with --exclude, or rename one with --env NAME=PATH#KEY or --prefix"})
		}
	}
}

// files hands secrets over as files. Those with a path are written when a child is started and when a change is acted on
// while it runs, and removed at the end, if they are still the ones that were written. A process that is ended by SIGKILL
// leaves them: nobody is there to remove them then, and the next start replaces them.
type files struct {
	allowDisk bool
	allow     []int             // users whose folders they may be in
	written   map[string]fileID // by path
	staged    []stagedFile      // complete, and not in their places yet
	stagedFor *Env
	swept     map[string]bool // by path
}

// fileID tells whether a path still names the file that was written there.
type fileID struct{ dev, ino uint64 }

func identify(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), uint64(st.Ino)} }

func newFiles(allowDisk bool, allow ...int) *files {
	return &files{allowDisk: allowDisk, allow: allow, written: map[string]fileID{}, swept: map[string]bool{}}
}

// handOver puts the files of env in their places and returns the environment that names them, and the descriptors of those in
// memory. They are close-on-exec here; the caller closes them once the command has them.
func (f *files) handOver(env *Env) (environ []string, fds []int, err error) {
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

// childFiles says which descriptors a child gets: std as 0 to 2, fds, and what vaultexec itself was given. They are named to
// syscall.ForkExec, which opens them in the child: were the flag taken off fds in this process, then the Vault CLI's token
// helper, which another goroutine may start at that moment, would have the secrets, too.
func childFiles(std []uintptr, fds []int) []uintptr {
	const closed = ^uintptr(0)
	files := slices.Clone(std)
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

// memoryFiles makes the files in memory and returns the environment that names their descriptors, which are close-on-exec.
func memoryFiles(env *Env) (environ []string, fds []int, err error) {
	paths := map[string]string{}
	for _, v := range env.Files() {
		if v.File.Path != "" || v.unused() {
			continue
		}
		fd, err := sealedFile(v.Name, v.Value.Reveal(), v.File.who())
		if err != nil {
			f := fileFault("in memory for "+v.Name, err)
			if f.Hint == "" {
				f.Hint = fmt.Sprintf("write it to a memory file system instead: --file %s=PATH", v.Name)
			}
			return nil, fds, f
		}
		fds = append(fds, fd)
		paths[v.Name] = memoryPath(fd)
	}
	return env.strings(paths), fds, nil
}

// stage makes the files of env complete before they are in their places: what can fail fails here, while the running child still
// has the old ones.
func (f *files) stage(env *Env) error {
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
func (f *files) place(env *Env) error {
	if err := f.stage(env); err != nil {
		return err
	}
	defer f.discard()
	values := map[string]vault.Text{}
	for _, v := range env.Files() {
		values[v.File.Path] = v.Value
	}
	current := map[string]bool{}
	for i := range f.staged {
		s := &f.staged[i]
		path := s.spec.Path
		err := s.name()
		if err != nil { // no /proc, or it was given to a user whose files this one may not name
			err = s.again(values[path].Reveal())
		}
		if err == nil {
			testOnlyAt("named")
			err = s.rename()
		}
		if err != nil {
			return fileFault(fmt.Sprintf("%q", path), err)
		}
		f.written[path] = s.id
		current[path] = true
	}
	for path := range f.written {
		if !current[path] {
			f.remove(path)
		}
	}
	return nil
}

// write makes a complete file in the folder of a path.
func (f *files) write(spec *FileSpec, content string) (stagedFile, error) {
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

// check looks at the place of a file before anything is written there, and opens its folder: what others put in the place of that
// later is not written to.
func (f *files) check(spec *FileSpec) (*os.File, error) {
	allow := f.allow
	if uid := spec.who().uid; uid >= 0 { // to whom the file is given, who then may do with it what they like
		allow = append(slices.Clone(allow), uid)
	}
	dir, err := trust.Folder(filepath.Dir(spec.Path), allow)
	if err != nil {
		return nil, err
	}
	if err := f.checkIn(int(dir.Fd()), spec); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

func (f *files) checkIn(dir int, spec *FileSpec) error {
	if !f.allowDisk {
		memory, err := inMemory(dir)
		if err != nil {
			return err
		}
		if !memory {
			return errOnDisk
		}
	}
	var st unix.Stat_t
	switch err := unix.Fstatat(dir, filepath.Base(spec.Path), &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errNotRegular
	case int(st.Uid) != os.Geteuid() && int(st.Uid) != spec.who().uid: // whom an earlier run gave it to
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
		e.Hint = "a disk keeps what was written there: choose a path below /run or /dev/shm, or allow it with --allow-disk"
	case errors.Is(err, errNotRegular), errors.Is(err, errNotOurs):
		e.Why = err.Error()
		e.Hint = "choose another path; only an earlier file of the same user is replaced"
	case errors.Is(err, unix.ENOENT):
		e.Hint = "its folder must exist"
	default:
		e.Hint = trust.Cure(err, "")
	}
	return e
}

// CheckFilePlaces finds out before Vault is asked which files could not be written.
func CheckFilePlaces(specs []FileSpec, allowDisk bool, allow ...int) error {
	f := newFiles(allowDisk, allow...)
	var faults []*fault.Error
	for _, s := range specs {
		if s.Path == "" {
			if err := checkMemoryFiles(); err != nil {
				faults = append(faults, &fault.Error{Kind: fault.Usage, What: "cannot hand over " + s.Name + " as a file in memory", Err: err,
					Why:  "its path would be in /proc, which is not mounted here",
					Hint: fmt.Sprintf("mount /proc, or write it to a memory file system: --file %s=PATH", s.Name)})
			} else if err := tryMemory(&s); err != nil {
				faults = append(faults, fileFault("in memory for "+s.Name, err))
			}
			continue
		}
		dir, err := f.check(&s)
		if err == nil {
			if err = unix.Access(filepath.Dir(s.Path), unix.W_OK|unix.X_OK); err == nil {
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
		if err := unix.Fstatat(int(dir.Fd()), filepath.Base(path), &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && identify(&st) == f.written[path] {
			_ = unix.Unlinkat(int(dir.Fd()), filepath.Base(path), 0)
		}
		dir.Close()
	}
	delete(f.written, path)
}

// removeAll is the end.
func (f *files) removeAll() {
	f.discard()
	for path := range f.written {
		f.remove(path)
	}
}
