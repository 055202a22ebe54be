package trust

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// FolderFlags open a folder as a place to work in, which takes no permission to read it.
const FolderFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

// adminGroup is none here.
const adminGroup = -1

// hasACL reports whether a file has an access control list: the bits of the group then are the most that any of its
// entries gives (acl(5)).
func hasACL(path string) bool {
	n, err := unix.Lgetxattr(path, "system.posix_acl_access", nil)
	return err == nil && n > 0
}

// mountedReadOnly reports whether a file or folder is the top of a mount that is read-only. It is asked only about what
// would be refused otherwise. Not every read-only mount will do: ProtectSystem=strict of systemd mounts / so, and what
// others may write in there outside of that unit, they still may.
func mountedReadOnly(path string) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil || fs.Flags&unix.ST_RDONLY == 0 {
		return false
	}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	var here, above unix.Stat_t // before Linux 5.8
	return unix.Lstat(path, &here) == nil && unix.Lstat(filepath.Dir(path), &above) == nil && here.Dev != above.Dev
}

// usersUnmapped reports whether this is a user namespace in which some users of the machine have no number.
var usersUnmapped = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	mapped := uint64(0)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 {
			n, _ := strconv.ParseUint(f[2], 10, 64)
			mapped += n
		}
	}
	return mapped < 1<<32-1
})
