package launcher

import (
	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// holdFlags open a file to keep its number, whatever its mode.
const holdFlags = unix.O_PATH

// sealedFile makes a file in memory that holds content and that nobody can change. It is sealed, and read-only by its
// mode, which also holds for whoever opens /proc/PID/fd/N. It is close-on-exec, at a high descriptor, and its offset is
// 0. (memfd_create(2), fcntl(2) F_ADD_SEALS. MFD_NOEXEC_SEAL is of Linux 6.3; older kernels say EINVAL. The mode comes
// before the seals, because with that flag a later change of the x bits is refused.)
func sealedFile(name, content string, who environ.Access) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return -1, err
	}
	err = func() error {
		if err := putAccess(fd, who); err != nil {
			return err
		}
		for b := []byte(content); len(b) > 0; {
			n, err := unix.Write(fd, b)
			if err != nil && err != unix.EINTR {
				return err
			}
			b = b[max(n, 0):]
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS,
			unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
			return err
		}
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		return err
	}()
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return moveHigh(fd), nil
}

// openUnnamed opens a new file in a folder that has no name there, if the file system can do that.
func openUnnamed(dir int) (int, error) {
	return unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o400)
}

// linkUnnamed gives such a file a name. (By way of /proc: an empty name takes CAP_DAC_READ_SEARCH on most kernels.)
func linkUnnamed(fd, dir int, name string) error {
	return unix.Linkat(unix.AT_FDCWD, environ.MemoryPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
}

// inMemory reports whether a folder is on a file system that lives in memory (statfs(2)). What is there may still be
// swapped out, like all memory.
func inMemory(dir int) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err != nil {
		return false, err
	}
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return true, nil
	}
	return false, nil
}

// firstHigh is the lowest descriptor that a file in memory has. Scripts choose theirs from 3 on (exec 9>lock; flock 9),
// and systemd and its like pass theirs from 3 on. They would meet a file at the lowest free one.
const firstHigh = 200

// highRoom is what stays free above the descriptors of files in memory where the limit is low. syscall.ForkExec moves
// its own there.
const highRoom = 4

// moveHigh moves a descriptor to a high number: from firstHigh on, or to the highest that the limit leaves.
func moveHigh(fd int) int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return fd
	}
	for from := int(min(r.Cur, firstHigh+highRoom)) - highRoom; from > fd; from-- {
		moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, from)
		if err != nil {
			continue
		}
		if uint64(moved)+highRoom <= r.Cur {
			unix.Close(fd)
			return moved
		}
		unix.Close(moved)
	}
	return fd
}

// checkMemoryFiles finds out whether a file in memory could be opened: by its path, which /proc has.
func checkMemoryFiles() error {
	var st unix.Stat_t
	return unix.Stat("/proc/self/fd", &st)
}
