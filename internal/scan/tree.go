package scan

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Tree looks into the files below a folder. In a git repository these are the ones that git does not ignore; ignored
// adds those. Elsewhere all of them are looked into.
func (s *Scanner) Tree(ctx context.Context, dir string, ignored bool) error {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return cannotScan(dir, why(err), "name a folder, or - for standard input")
	}
	defer unix.Close(root)
	abs, err := realPath(dir)
	if err != nil {
		return cannotScan(dir, why(err), "name a folder that can be read")
	}
	t := &tree{scanner: s, root: root, dir: abs, ignored: ignored, work: make(chan batch)}
	top, git := GitDir(abs)
	if IsGitDir(abs) {
		return cannotScan(dir, "it is a git directory, which has no files of its own",
			"--history looks into what is stored there; for the files name the working tree")
	}
	var failed error
	go func() {
		defer close(t.work)
		if git == "" {
			t.walk(ctx, "")
		} else {
			failed = t.list(ctx, t.repo(git, top, abs, ""), "")
		}
		t.send(ctx)
		if git != "" && t.added == 0 && failed == nil && !ignored && t.hasFiles() {
			s.unread(".", "git ignores all that is in it; --ignored looks into that")
		}
	}()
	parallel(ctx, t.work, t.lookInto)
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}

func cannotScan(dir, why, hint string) error {
	return &fault.Error{Kind: fault.Usage, What: "cannot scan " + quoted(dir), Why: why, Hint: hint}
}

// tree is one folder with all that is below it.
type tree struct {
	scanner *Scanner
	root    int // its descriptor
	dir     string
	ignored bool
	added   int // files
	next    batch
	work    chan batch
}

// batch is some files of one folder.
type batch struct {
	folder string // below the root, with slashes; "" for the root
	names  []string
}

// mostBatch is how many files one goroutine takes at a time.
const mostBatch = 64

// add takes up a file, by its name below the root.
func (t *tree) add(ctx context.Context, name string) {
	folder, base := path.Split(name)
	if folder = strings.TrimSuffix(folder, "/"); folder != t.next.folder || len(t.next.names) >= mostBatch {
		t.send(ctx)
		t.next.folder = folder
	}
	t.next.names = append(t.next.names, base)
	t.added++
}

func (t *tree) send(ctx context.Context) {
	if len(t.next.names) > 0 {
		select {
		case t.work <- t.next:
		case <-ctx.Done():
		}
	}
	t.next.names = nil
}

// list asks git for the names of files. They are those below a folder of the tree, which is the top of a repository
// or lies in one.
func (t *tree) list(ctx context.Context, r *repo, folder string) error {
	asks := [][]string{{"ls-files", "-z", "--cached", "--others", "--exclude-standard"}}
	if t.ignored {
		asks = append(asks, []string{"ls-files", "-z", "--others", "--ignored", "--exclude-standard"})
	}
	last := ""
	for _, args := range asks {
		var nested []string
		err := r.lines(ctx, 0, args, func(name string) error {
			if name == last || !isLocal(strings.TrimSuffix(name, "/")) { // in a merge a name stands there several times
				return nil
			}
			last = name
			if full := path.Join(folder, name); strings.HasSuffix(name, "/") || t.isFolder(full) {
				nested = append(nested, full)
			} else {
				t.add(ctx, full)
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
		for _, full := range nested {
			if err := t.enter(ctx, full); err != nil {
				return err
			}
		}
	}
	return nil
}

// repo is the repository that lists a folder.
func (t *tree) repo(dir, top, at, folder string) *repo {
	if folder == "" {
		folder = "."
	}
	return &repo{dir: dir, top: top, at: at, environ: t.scanner.opts.Environ,
		warn: func(text string) { t.scanner.unread(folder, text) }}
}

// enter goes into a folder that git has only the name of: a submodule, or another repository. Its own git knows what
// is ignored there.
func (t *tree) enter(ctx context.Context, folder string) error {
	fd, err := t.open(folder)
	if err != nil {
		t.failed(folder, err)
		return nil
	}
	unix.Close(fd)
	at := filepath.Join(t.dir, filepath.FromSlash(folder))
	if dir, err := gitDirOf(at); err == nil && dir != "" {
		return t.list(ctx, t.repo(dir, at, at, folder), folder)
	}
	t.walk(ctx, folder)
	return nil
}

// walk takes up every regular file below a folder.
func (t *tree) walk(ctx context.Context, folder string) {
	if ctx.Err() != nil {
		return
	}
	entries, err := t.entries(folder)
	if err != nil {
		t.failed(folder, err)
	}
	var folders []string
	for _, e := range entries {
		switch name := path.Join(folder, e.Name()); {
		case e.Name() == ".git":
		case e.IsDir():
			folders = append(folders, name)
		case e.Type().IsRegular():
			t.add(ctx, name)
		}
	}
	for _, name := range folders {
		t.walk(ctx, name)
	}
}

func (t *tree) entries(folder string) ([]fs.DirEntry, error) {
	fd, err := t.open(folder)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), folder)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// hasFiles reports whether there is anything in the folder but what belongs to git.
func (t *tree) hasFiles() bool {
	entries, err := t.entries("")
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != ".git" })
}

// isFolder reports whether a name is a folder now.
func (t *tree) isFolder(name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(t.root, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// open opens a folder below the root. None of those on the way may be a symbolic link.
func (t *tree) open(folder string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := openat(t.root, ".", flags)
	if folder == "" || err != nil {
		return fd, err
	}
	for name := range strings.SplitSeq(folder, "/") {
		next, err := openat(fd, name, flags)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// lookInto searches the files of a batch.
func (t *tree) lookInto(ctx context.Context, b batch) {
	dir, err := t.open(b.folder)
	if err != nil {
		t.failed(b.folder, err)
		return
	}
	defer unix.Close(dir)
	for _, base := range b.names {
		name := path.Join(b.folder, base)
		f, err := openFile(dir, base)
		if err == nil && f == nil {
			continue
		}
		if err == nil {
			err = t.scanner.search(ctx, f, Finding{File: name})
			f.Close()
			t.scanner.count(1, 0)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.failed(name, err)
		}
	}
}

// openFile opens a regular file. It returns nil for what is none, which is not opened: a device may act on it.
func openFile(dir int, base string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, err
	}
	fd, err := openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), base), nil
}

// failed notes that something was not looked into, unless it is gone, or no longer what it was.
func (t *tree) failed(name string, err error) {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EMLINK):
	default:
		if name == "" {
			name = "."
		}
		t.scanner.unread(name, why(err))
	}
}

// isLocal reports whether a name from an index, which anybody may have made, is one of a file below the folder, and
// not of git itself.
func isLocal(name string) bool {
	return filepath.IsLocal(filepath.FromSlash(name)) && path.Clean(name) == name &&
		!slices.ContainsFunc(strings.Split(name, "/"), func(s string) bool { return strings.EqualFold(s, ".git") })
}

// why is the cause of a failure without the name of the file.
func why(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	}
	return "it cannot be read"
}
