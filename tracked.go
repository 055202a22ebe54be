package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/index"
	"golang.org/x/sys/unix"
)

// maxIndex bounds what is read of a repository's index: a million files take about a hundred bytes each.
const maxIndex = 128 << 20

// gitTracks reports whether a file is in the index of the git repository that it lies in. git is not asked: in a folder that
// somebody else has made it runs what that folder's configuration names, a transport that fetches missing objects among it.
// The index alone is read, as data. What cannot be read (another format, a split index) counts as not tracked.
func gitTracks(file string) bool {
	abs, err := filepath.Abs(file)
	if err != nil {
		return false
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	top, dir := gitDir(filepath.Dir(abs))
	if dir == "" {
		return false
	}
	name, err := filepath.Rel(top, abs)
	if err != nil {
		return false
	}
	f, err := openRegular(filepath.Join(dir, "index"))
	if err != nil {
		return false
	}
	defer f.Close()
	var idx index.Index
	if index.NewDecoder(io.LimitReader(f, maxIndex)).Decode(&idx) != nil {
		return false
	}
	_, err = idx.Entry(filepath.ToSlash(name))
	return err == nil
}

// gitDir finds the work tree that a folder lies in, and its git directory: .git itself, or where a .git file says, as a linked
// work tree and a submodule have it (gitrepository-layout(5)).
func gitDir(folder string) (top, dir string) {
	for {
		dir = filepath.Join(folder, ".git")
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return folder, dir
		case err == nil:
			return folder, linkedDir(folder, dir)
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

// linkedDir reads "gitdir: PATH".
func linkedDir(folder, file string) string {
	f, err := openRegular(file)
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

// openRegular opens a file that somebody else may have prepared: a FIFO or a device is not waited for.
func openRegular(path string) (*os.File, error) {
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
