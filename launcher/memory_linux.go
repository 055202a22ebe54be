package launcher

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// releaseProgram takes the pages of vaultexec's own file out of this process. A start runs through most of the program,
// and a parent that waits needs little of it: without this the pages are 9 of its 13 MB. They stay in the kernel's
// cache and come back as they are used (madvise(2), MADV_DONTNEED). A mapping in which something was changed, as a
// dynamic linker does, stays: it would come back without the change.
func releaseProgram() {
	exe, err := os.Readlink(selfExe)
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	var start, end uintptr // of the mapping that the lines are about; 0 if it is none of the program's
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		var from, to uintptr
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s ", &from, &to, &perms); n == 3 {
			start, end = 0, 0
			if (perms == "r-xp" || perms == "r--p") && strings.HasSuffix(line, " "+exe) {
				start, end = from, to
			}
		} else if size, ok := strings.CutPrefix(line, "Anonymous:"); ok && start != 0 &&
			strings.TrimSpace(size) == "0 kB" {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}
