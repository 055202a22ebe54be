package scan

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// GitDir finds the work tree that a folder lies in, and its git directory. That is .git itself, or the place that a
// .git file names, as in a linked work tree and a submodule (gitrepository-layout(5)). dir is "" where there is none.
func GitDir(folder string) (top, dir string) {
	for {
		dir, err := gitDirOf(folder)
		switch {
		case err == nil:
			return folder, dir
		case !errors.Is(err, fs.ErrNotExist):
			return "", ""
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", ""
		}
		folder = parent
	}
}

// gitDirOf is the git directory of the work tree whose top a folder is.
func gitDirOf(folder string) (string, error) {
	dir := filepath.Join(folder, ".git")
	info, err := os.Stat(dir)
	if err != nil || info.IsDir() {
		return dir, err
	}
	return linkedDir(folder, dir), nil
}

// linkedDir reads "gitdir: PATH".
func linkedDir(folder, file string) string {
	f, err := OpenRegular(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, unix.PathMax))
	path, ok := strings.CutPrefix(strings.TrimRight(string(b), "\r\n"), "gitdir: ")
	if err != nil || !ok {
		return ""
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(folder, path)
	}
	return path
}

// IsGitDir reports whether a folder is itself a git directory: a bare repository, or a .git.
func IsGitDir(folder string) bool {
	for name, isDir := range map[string]bool{"HEAD": false, "objects": true, "refs": true} {
		info, err := os.Stat(filepath.Join(folder, name))
		if err != nil || info.IsDir() != isDir {
			return false
		}
	}
	return true
}

// OpenRegular opens a file that somebody else may have prepared: a FIFO or a device is not waited for.
func OpenRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fs.ErrInvalid)
	}
	return f, nil
}
