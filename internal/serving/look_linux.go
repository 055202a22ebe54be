package serving

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Identify tells how /proc shows the socket of a descriptor.
func Identify(fd int) (Socket, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Socket{}, err
	}
	// As the kernel prints it in fdinfo: MKDEV of linux/kdev_t.h.
	dev := uint64(unix.Major(uint64(st.Dev)))<<20 | uint64(unix.Minor(uint64(st.Dev)))
	return Socket{Ino: st.Ino, Dev: dev}, nil
}

// Look looks at the processes of a group. One that cannot be found in /proc, because it has just ended, counts for
// nothing.
func Look(group int, s Socket) (Found, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		return Found{}, ErrUnknown
	}
	var all []process
	for _, dir := range dirs {
		if groupOf(dir) == group {
			all = append(all, look(dir, s))
		}
	}
	return find(all, s), nil
}

// groupOf reads the process group of /proc/PID/stat, behind a name that may have anything in it.
func groupOf(dir string) int {
	b, _ := os.ReadFile(dir + "/stat")
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // state, parent, group
	if len(f) < 3 {
		return -1
	}
	group, _ := strconv.Atoi(f[2])
	return group
}

// look reads what a process has and waits for.
func look(dir string, s Socket) process {
	p := process{}
	p.pid, _ = strconv.Atoi(filepath.Base(dir))
	fds, err := os.ReadDir(dir + "/fd")
	if os.IsPermission(err) {
		p.hidden = true
	}
	own := fmt.Sprintf("socket:[%d]", s.Ino)
	for _, fd := range fds {
		switch link, _ := os.Readlink(dir + "/fd/" + fd.Name()); link {
		case own:
			n, _ := strconv.Atoi(fd.Name())
			p.own = append(p.own, n)
		case "anon_inode:[eventpoll]":
			b, _ := os.ReadFile(dir + "/fdinfo/" + fd.Name())
			p.epolls = append(p.epolls, parseEpoll(string(b))...)
		}
	}
	if len(p.own) == 0 {
		return p
	}
	tasks, _ := os.ReadDir(dir + "/task")
	for _, task := range tasks {
		t := thread{read: func(at uint64, n int) []byte { return memory(p.pid, at, n) }}
		b, err := os.ReadFile(dir + "/task/" + task.Name() + "/syscall")
		t.call, t.args = parseSyscall(string(b), calls)
		if err != nil || calls == nil { // no permission, or a kernel without it
			b, _ := os.ReadFile(dir + "/task/" + task.Name() + "/wchan")
			t.wchan = string(b)
		}
		p.threads = append(p.threads, t)
	}
	return p
}

// memory reads of another process what it has handed to a system call.
func memory(pid int, at uint64, n int) []byte {
	b := make([]byte, n)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: n}}, 0)
	if err != nil {
		return nil
	}
	return b[:max(got, 0)]
}
