package launcher

import (
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// becomeSubreaper makes orphaned descendants this process's children, so that it can reap them and zombies do not count
// as living members of a group. The command must never inherit that, so becomeSubreaper is not called before a
// replacing exec.
func becomeSubreaper() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// isSubreaper reports whether this process is one, as what ran in it before may have arranged.
func isSubreaper() bool {
	var is int32
	return unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&is)), 0, 0, 0) == nil && is != 0
}

// childrenLeft returns ECHILD when there are none. Nothing is reaped.
func childrenLeft() error {
	return unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
}

// process is one line of /proc/PID/stat, as far as it is needed here.
type process struct {
	pid, parent, group, session int
	front                       int // foreground group of its terminal
	name                        string
	dead                        bool // a zombie or about to be
}

// processes lists all processes that can be seen.
func processes() []process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var list []process
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			if p, ok := readProcess(pid); ok {
				list = append(list, p)
			}
		}
	}
	return list
}

// readProcess reads /proc/PID/stat: "pid (name) state ppid pgrp session …", where name may hold anything
// (proc_pid_stat(5)).
func readProcess(pid int) (process, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	text := string(b)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	f := strings.Fields(text[end+1:])
	if len(f) < 18 {
		return process{}, false
	}
	// A leader whose other threads have not ended yet is shown as a zombie, too, and the process still has its
	// descriptors: a port that it listens on cannot be bound. num_threads tells.
	p := process{pid: pid, name: text[open+1 : end], dead: f[0] == "X" || f[0] == "Z" && (f[17] == "0" || f[17] == "1")}
	p.parent, _ = strconv.Atoi(f[1])
	p.group, _ = strconv.Atoi(f[2])
	p.session, _ = strconv.Atoi(f[3])
	p.front, _ = strconv.Atoi(f[5])
	return p, true
}

// liveMembers returns the processes of a group that are no zombies. An image may have no /proc, or one that is mounted
// with hidepid. Where /proc does not show any member, the kernel's word counts: our own zombies are reaped in a moment.
func liveMembers(group int) []process {
	if err := unix.Kill(-group, 0); err == unix.ESRCH {
		return nil
	}
	var live []process
	shown := false
	for _, p := range processes() {
		if p.group == group {
			shown = true
			if !p.dead {
				live = append(live, p)
			}
		}
	}
	if !shown {
		return []process{{pid: group, group: group, name: "process group"}}
	}
	return live
}

// pidfdID returns the inode of a pidfd of this process, which no other process has until the next boot, or 0 where
// pidfds have none (before Linux 6.9 all share one, and systemd does not use it).
func pidfdID() uint64 {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}
