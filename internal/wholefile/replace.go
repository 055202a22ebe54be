// Package wholefile puts a small file that nobody else may read in the place of another, as a whole: whoever looks, and whenever this
// process is killed, finds the old one or the new one.
package wholefile

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Replace writes a file with mode 0600 and gives it the name in the folder. A link that is there is replaced and not followed. The
// content is on the disk before it has its name. An error is one of the system's, without a path, or that of may, which is asked
// first while nobody else replaces or removes a file of the folder; it may be nil.
func Replace(dir *os.File, name string, content []byte, may func() error) error {
	at := int(dir.Fd())
	left := leftAfter
	if lock(at) {
		defer func() { _ = unix.Flock(at, unix.LOCK_UN) }()
		left = 0
	}
	if may != nil {
		if err := may(); err != nil {
			return err
		}
	}
	sweep(dir, name, time.Now().Add(-left))
	temp := name + "." + rand.Text()[:10] + ".tmp"
	fd, named, err := create(at, temp)
	if err != nil {
		return err
	}
	err = fill(fd, content)
	if err == nil && !named && giveName(fd, at, temp) != nil { // no /proc
		_ = unix.Close(fd)
		if fd, err = createNamed(at, temp); err != nil {
			return err
		}
		err = fill(fd, content)
	}
	_ = unix.Close(fd)
	if err == nil {
		err = unix.Renameat(at, temp, at, name)
	}
	if err != nil {
		_ = unix.Unlinkat(at, temp, 0)
		return err
	}
	_ = unix.Fsync(at) // the name; not every file system can
	return nil
}

// Remove removes a file, and not while somebody replaces it: what they looked at would come back.
func Remove(dir *os.File, name string) error {
	at := int(dir.Fd())
	if lock(at) {
		defer func() { _ = unix.Flock(at, unix.LOCK_UN) }()
	}
	return unix.Unlinkat(at, name, 0)
}

// lock waits up to a second until nobody else is at work in the folder. It reports false where that is not to be had, or not known.
func lock(dir int) bool {
	for until := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(dir, unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(until) {
			return err == nil
		}
	}
}

// leftAfter is the age from which on nobody is about to rename a file any more, where others are at work or there are no locks.
const leftAfter = time.Minute

// sweep removes what killed processes have left in the folder until then: files that did not get their name.
func sweep(dir *os.File, name string, until time.Time) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	list := os.NewFile(uintptr(fd), ".")
	defer func() { _ = list.Close() }()
	names, _ := list.Readdirnames(-1)
	for _, other := range names {
		rest, ours := strings.CutPrefix(other, name+".")
		if ok, _ := filepath.Match("??????????.tmp", rest); !ours || !ok {
			continue
		}
		var st unix.Stat_t
		if unix.Fstatat(fd, other, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && uint32(st.Mode)&unix.S_IFMT == unix.S_IFREG &&
			int(st.Uid) == os.Geteuid() && time.Unix(st.Mtim.Unix()).Before(until) {
			_ = unix.Unlinkat(fd, other, 0)
		}
	}
}

func fill(fd int, content []byte) error {
	err := unix.Fchmod(fd, 0o600) // whatever the umask
	for b := content; err == nil && len(b) > 0; {
		var n int
		if n, err = unix.Write(fd, b); err == unix.EINTR {
			err = nil
		}
		b = b[max(n, 0):]
	}
	if err == nil {
		err = unix.Fsync(fd)
	}
	return err
}

// createNamed makes a file that has a name from the start.
func createNamed(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}
