package listen

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// holder names the process that listens on an address, as far as /proc tells: "nginx (process 12)". Of another user's
// process only root sees which socket it has; then it is "a process of user 33".
func holder(spec Spec) string {
	inode, uid := holding(spec)
	if inode == "" {
		return ""
	}
	if pid := owner(inode); pid != 0 {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return fmt.Sprintf("%s (process %d)", printable(bytes.TrimSpace(comm)), pid)
	}
	if uid != "" && uid != strconv.Itoa(os.Geteuid()) {
		return "a process of user " + uid
	}
	return ""
}

// printable is a program's name, which its process chooses: no control characters.
func printable(name []byte) string {
	text := strings.Trim(strconv.Quote(string(name)), `"`)
	if text == "" {
		return "a process"
	}
	return text
}

// holding finds the inode of the socket that has an address, and its user where that is known.
func holding(spec Spec) (inode, uid string) {
	if spec.Path != "" {
		return holdingUnix(spec.Path), ""
	}
	for f := range tcpInProc(stateListen) {
		host, port, _ := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(port, 16, 16); err == nil && uint16(n) == spec.Port && overlap(host, spec.Host) {
			return f[9], f[7]
		}
	}
	return "", ""
}

// States of /proc/net/tcp: include/net/tcp_states.h.
const (
	stateEstablished = "01"
	stateSynRecv     = "03"
	stateListen      = "0A"
)

// tcpInProc yields the sockets of a state, or of any, in /proc/net/tcp and tcp6, each with the fields of its line (proc_pid_net(5)):
// sl local_address rem_address st … uid timeout inode.
func tcpInProc(state string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for _, file := range []string{"tcp", "tcp6"} {
			b, _ := os.ReadFile("/proc/net/" + file)
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) >= 10 && (f[3] == state || state == "" && f[0] != "sl") && !yield(f) {
					return
				}
			}
		}
	}
}

// overlap reports whether a socket at an address of /proc/net/tcp keeps another from host. Both may be every address,
// and a name may be anything.
func overlap(hexAddress, host string) bool {
	wanted, err := netip.ParseAddr(host)
	has, ok := parseHex(hexAddress)
	return err != nil || !ok || has.IsUnspecified() || wanted.IsUnspecified() || has.Unmap() == wanted.Unmap().WithZone("")
}

// parseHex reads an address as the kernel writes it: words of four bytes, each in the machine's order.
func parseHex(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	if littleEndian {
		for word := range slices.Chunk(b, 4) {
			slices.Reverse(word)
		}
	}
	return netip.AddrFromSlice(b)
}

// littleEndian is this machine's order of bytes.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

func holdingUnix(path string) (inode string) {
	b, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // Num RefCount Protocol Flags Type St Inode Path
		if len(f) >= 8 && f[7] == path {
			inode = f[6] // the last one was bound last
		}
	}
	return inode
}

// owner is a process that has a socket, the one that has had the longest life.
func owner(inode string) (pid int) {
	link := "socket:[" + inode + "]"
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		n, _ := strconv.Atoi(strings.Split(dir, "/")[2])
		if pid != 0 && n > pid {
			continue
		}
		fds, _ := os.ReadDir(dir)
		for _, fd := range fds {
			if l, _ := os.Readlink(dir + "/" + fd.Name()); l == link {
				pid = n
				break
			}
		}
	}
	return pid
}
