package fallback

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/wholefile"
)

// mostFile is in bytes. Vault takes values of a megabyte, and environments have a few.
const mostFile = 64 << 20

var (
	errIrregular = errors.New("it is no regular file")
	errTooLarge  = errors.New("it is too large")
)

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
		return nil, errIrregular
	case info.Size() > mostFile:
		return nil, errTooLarge
	}
	return io.ReadAll(io.LimitReader(f, mostFile+1))
}

// ErrOther is the failure to write a file in the place of one that is no longer there.
var ErrOther = errors.New("another run has written or removed it meanwhile")

// Write puts a file in its place. What is there has to be a copy: anything else was put there for something else, and so
// was, for all that is known, what cannot be read.
func Write(path string, content []byte) error { return write(path, content, nil) }

// Rewrite does so as long as what is there is still what was read. What another run has removed must not come back, and
// what it has written is newer.
func Rewrite(path string, content, read []byte) error { return write(path, content, read) }

func write(path string, content, read []byte) error {
	if len(content) > mostFile { // it could not be read
		return errTooLarge
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	name := filepath.Base(path)
	return wholefile.Replace(dir, name, content, func() error {
		if read != nil {
			if is, err := Read(path); errors.Is(err, unix.ENOENT) || err == nil && !bytes.Equal(is, read) {
				return ErrOther
			}
		}
		return replaceable(dir, name)
	})
}

// replaceable reports why a name in a folder must be left alone; nil for a copy, or the beginning of one, and for none.
func replaceable(dir *os.File, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EMLINK), errors.Is(err, unix.ENXIO): // a link (EMLINK: FreeBSD); a socket
		return errIrregular
	case err != nil:
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errIrregular
	}
	head, err := io.ReadAll(io.LimitReader(f, int64(len(magic))))
	if err == nil && !strings.HasPrefix(magic, string(head)) {
		err = ErrNoCopy
	}
	return err
}

// Remove removes a file; that there is none is no failure.
func Remove(path string) (there bool, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err == nil {
		defer func() { _ = dir.Close() }()
		err = wholefile.Remove(dir, filepath.Base(path))
	}
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
