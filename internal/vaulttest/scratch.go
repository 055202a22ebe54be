package vaulttest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A test binary that panics runs no clean-up. So everything that this package puts on disk lies in one folder for each
// process, locked while its owner lives, and the next run removes folders whose lock is free.
var scratch struct {
	sync.Mutex
	dir  string
	lock *os.File
}

const scratchPattern = "vaultexec-test-"

// TempDir returns a new folder inside this process's scratch folder.
func TempDir(name string) (string, error) {
	scratch.Lock()
	defer scratch.Unlock()
	if scratch.dir == "" {
		sweep()
		dir, err := os.MkdirTemp("", scratchPattern)
		if err != nil {
			return "", fmt.Errorf("cannot make a scratch folder: %w", err)
		}
		lock, err := lockFile(filepath.Join(dir, "lock"), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != nil {
			return "", err
		}
		scratch.dir, scratch.lock = dir, lock
	}
	return os.MkdirTemp(scratch.dir, name+"-")
}

// removeScratch removes what TempDir made.
func removeScratch() {
	scratch.Lock()
	defer scratch.Unlock()
	if scratch.dir == "" {
		return
	}
	_ = os.RemoveAll(scratch.dir)
	_ = scratch.lock.Close()
	scratch.dir, scratch.lock = "", nil
}

// sweep removes the scratch folders of processes that are gone.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), scratchPattern+"*"))
	for _, dir := range dirs {
		// A folder this young may belong to a process that is about to lock it.
		if fi, err := os.Stat(dir); err != nil || time.Since(fi.ModTime()) < time.Minute {
			continue
		}
		lock, err := lockFile(filepath.Join(dir, "lock"), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}
}

// lockFile opens path, creating it, and takes the lock on it. The lock ends with the file or the process.
func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	return f, nil
}
