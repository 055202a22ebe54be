package launcher

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/reap"
)

// A command that was stopped may have left processes in other sessions, which are nobody's to end. They run on with the
// secrets that they were started with, and may hold the port that the next command wants. The log names each of them
// once.

const mostNamed = 10 // at one restart

// nameSurvivors is called when the group of the old command is gone and another one follows.
func (s *supervisor) nameSurvivors() {
	if !hasChildren() {
		return
	}
	named := 0
	for _, p := range s.survivors() {
		if s.named[p.pid] || named == mostNamed {
			continue
		}
		if s.named == nil {
			s.named = map[int]bool{}
		}
		s.named[p.pid] = true
		named++
		attrs := []any{"process", p.name, "pid", p.pid}
		if ports := listensOn(p.pid); len(ports) > 0 {
			attrs = append(attrs, "listens", strings.Join(ports, ", "))
		}
		s.Log.Warn(
			"a process of the stopped command lives on in another session, with the secrets that it was started with",
			append(attrs, "hint", "have the command run in the foreground, as one process group")...)
	}
}

// survivors are the live descendants of this process, which all descend from commands but for its own.
func (s *supervisor) survivors() []process {
	all := map[int]process{}
	for _, p := range processes() {
		all[p.pid] = p
	}
	self := os.Getpid()
	var list []process
	for _, p := range all {
		top := p
		for top.parent != self && top.parent != 0 {
			above, ok := all[top.parent]
			if !ok || above.pid == top.pid {
				break
			}
			top = above
		}
		helper := slices.Contains([]int{s.hook.pid, s.asks.pid, s.keys.pid, s.guard.pid}, top.pid)
		ofCommand := p.group == s.other.group() || p.group == s.child.group()
		if top.parent == self && top.pid != self && !p.dead && !helper && !ofCommand && !reap.Awaited(top.pid) {
			list = append(list, p)
		}
	}
	for pid := range s.named {
		if _, ok := all[pid]; !ok {
			delete(s.named, pid) // the number may be another's next time
		}
	}
	return list
}

// unmaskBefore ends the masking of the environment before the present one, when nothing is left that could print it: no
// process of an old command in another session, and nothing on its way. Otherwise the next restart does it.
func (s *supervisor) unmaskBefore() {
	if s.out == nil || len(s.out.before) == 0 || s.other != nil {
		return
	}
	session, err := unix.Getsid(0)
	if err != nil || len(processes()) == 0 {
		return
	}
	for _, p := range s.survivors() {
		if p.session != session {
			return
		}
	}
	s.out.forgetBefore()
}

// listensOn returns the TCP ports that a process listens on, as far as it may be looked at.
func listensOn(pid int) []string {
	dir := "/proc/" + strconv.Itoa(pid)
	names, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return nil
	}
	own := map[string]bool{} // inodes of its sockets
	for _, n := range names {
		link, _ := os.Readlink(dir + "/fd/" + n.Name())
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var ports []string
	seen := map[string]bool{}
	for _, file := range []string{"/net/tcp", "/net/tcp6"} {
		b, _ := os.ReadFile(dir + file)
		for line := range strings.Lines(string(b)) {
			// proc_pid_net(5): sl local_address rem_address st … inode, and 0A is LISTEN.
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !own[f[9]] {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && !seen[hex] {
				seen[hex] = true
				ports = append(ports, strconv.FormatUint(n, 10))
			}
		}
	}
	return ports
}

// hasChildren asks the kernel, which is cheaper than to look through /proc.
func hasChildren() bool { return childrenLeft() != unix.ECHILD }
