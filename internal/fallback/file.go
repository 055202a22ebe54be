package fallback

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
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

// Write puts a file in its place, whole, with mode 0600: what was there before stays until the new one is on the disk.
func Write(path string, content []byte) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := lock(int(dir.Fd())); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return errors.New("what is there is no regular file")
	}
	f, temp, err := create(dir, filepath.Base(path))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	err = fill(f, content)
	if err == nil && temp == "" {
		temp, err = link(f, dir, filepath.Base(path))
	}
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), temp, int(dir.Fd()), filepath.Base(path))
	}
	if err != nil {
		if temp != "" {
			_ = unix.Unlinkat(int(dir.Fd()), temp, 0)
		}
		return err
	}
	return dir.Sync()
}

// lock keeps two runs with one file apart. The lock of the folder ends with its descriptor. Where a file system has no locks, they are
// not kept apart.
func lock(dir int) error {
	for until := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(dir, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("another run has been writing there for a second")
		}
	}
}

func fill(f *os.File, content []byte) error {
	if err := f.Chmod(0o600); err != nil { // whatever the umask
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// named makes a file with a name beside its place. There is one name, so that what a killed run leaves behind is replaced by the next.
func named(dir *os.File, base string) (*os.File, string, error) {
	temp := besideName(base)
	_ = unix.Unlinkat(int(dir.Fd()), temp, 0)
	fd, err := unix.Openat(int(dir.Fd()), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, "", &os.PathError{Op: "create", Path: temp, Err: err}
	}
	return os.NewFile(uintptr(fd), temp), temp, nil
}

func besideName(base string) string { return "." + base + ".new" }

// Remove removes a file; that there is none is no failure.
func Remove(path string) (there bool, err error) {
	err = os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
