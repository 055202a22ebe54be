package fallback

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/wholefile"
)

// mostFile is in bytes. Vault takes values of a megabyte, and environments have a few.
const mostFile = 64 << 20

// Read reads a file. Who wrote it does not matter: it opens with the key only.
func Read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case info.Size() > mostFile:
		return nil, errors.New("it is too large")
	}
	return io.ReadAll(io.LimitReader(f, mostFile+1))
}

// Write puts a file in its place. What is there has to be a copy: anything else was put there for something else.
func Write(path string, content []byte) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return errors.New("what is there is no regular file")
	}
	if was, err := Read(path); err == nil {
		if _, err := Peek(was); errors.Is(err, ErrNoCopy) {
			return err
		}
	}
	return wholefile.Replace(dir, filepath.Base(path), content)
}

// Remove removes a file; that there is none is no failure.
func Remove(path string) (there bool, err error) {
	err = os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
