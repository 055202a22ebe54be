// Package serving finds out whether a command serves a listening socket that it was given, without the command's help.
//
// A connection to a held socket succeeds whether anybody serves it or not: it waits in the queue. What tells is a process
// of the command's group that waits for connections: it has the socket in an epoll set, or is in accept(2), poll(2) or
// select(2) with it (Look). Or somebody has taken a connection out of the queue, or has answered a request (Check). For
// both commands on one socket, the second proves nothing: the old one may have answered.
//
// A Go program that makes a listener of the descriptor has it in its epoll set from then on, before it calls Accept. Who
// has to be sure of such a program asks it.
package serving

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// ErrUnknown is what a system says that does not tell about processes.
var ErrUnknown = errors.New("this system does not tell what a process waits for")

// Socket is a socket as /proc shows it.
type Socket struct {
	Ino uint64 // of socket:[N]
	Dev uint64 // of its file system, in the kernel's own form
}

// How is in what a process waits for connections.
type How string

// The ways to wait. None is the zero value.
const (
	None   How = ""
	Epoll  How = "epoll"
	Accept How = "accept"
	Poll   How = "poll"
	Select How = "select"
)

// Found is what a look has found.
type Found struct {
	How    How
	PID    int // of the process that waits
	Has    int // processes that have the socket
	Hidden int // processes that may not be looked at: of another user, or undumpable
}

// process is what /proc tells of a process.
type process struct {
	pid     int
	hidden  bool
	own     []int   // its descriptors of the socket
	epolls  []entry // what is in its epoll sets
	threads []thread
}

// entry is a descriptor in an epoll set.
type entry struct{ ino, dev uint64 }

// thread is what a thread of a process is in.
type thread struct {
	call  call
	args  [3]uint64
	read  func(at uint64, n int) []byte // of the process's memory; nil for what cannot be read
	wchan string                        // where it sleeps in the kernel, if the call may not be asked for
}

// call is a system call that waits for connections.
type call uint8

const (
	callOther call = iota
	callAccept
	callPoll
	callSelect
)

// waits says how a process waits for connections on the socket.
func (p process) waits(s Socket) How {
	if slices.Contains(p.epolls, entry{s.Ino, s.Dev}) {
		return Epoll
	}
	for _, t := range p.threads {
		if how := t.waits(p.own); how != None {
			return how
		}
	}
	return None
}

// The kernel's structures of poll(2) and select(2).
const (
	pollSize = 8    // struct pollfd: the descriptor, the events asked for, and the answer
	pollIn   = 0x01 // POLLIN
	mostPoll = 4096
)

// waits says how a thread waits on one of the descriptors.
func (t thread) waits(own []int) How {
	has := func(fd uint64) bool { return slices.Contains(own, int(int32(fd))) }
	switch t.call {
	case callAccept:
		if has(t.args[0]) {
			return Accept
		}
	case callPoll: // struct pollfd *, nfds
		b := t.memory(t.args[0], int(min(t.args[1], mostPoll))*pollSize)
		for one := range slices.Chunk(b, pollSize) {
			if len(one) == pollSize && binary.NativeEndian.Uint16(one[4:])&pollIn != 0 &&
				has(uint64(binary.NativeEndian.Uint32(one))) {
				return Poll
			}
		}
	case callSelect: // nfds, fd_set * to be read
		const word = 8
		n := int(min(t.args[0], 1<<16))
		b := t.memory(t.args[1], (n+word*8-1)/(word*8)*word)
		for _, fd := range own {
			if at := fd / (word * 8) * word; fd < n && at+word <= len(b) &&
				binary.NativeEndian.Uint64(b[at:])>>(fd%(word*8))&1 == 1 {
				return Select
			}
		}
	case callOther:
		if strings.Contains(t.wchan, "accept") && len(own) > 0 { // perhaps of another socket
			return Accept
		}
	}
	return None
}

func (t thread) memory(at uint64, n int) []byte {
	if t.read == nil || at == 0 || n <= 0 {
		return nil
	}
	return t.read(at, n)
}

// find puts what was seen of several processes together.
func find(all []process, s Socket) (f Found) {
	for _, p := range all {
		if p.hidden {
			f.Hidden++
		}
		if len(p.own) > 0 {
			f.Has++
		}
		if how := p.waits(s); how != None && f.How == None {
			f.How, f.PID = how, p.pid
		}
	}
	return f
}

// parseEpoll reads the lines of an epoll descriptor in /proc/PID/fdinfo (proc_pid_fdinfo(5)):
//
//	tfd:        7 events:       19 data: 7  pos:0 ino:8a3f sdev:9
func parseEpoll(text string) (list []entry) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "tfd:") {
			continue
		}
		var e entry
		found := false
		for _, f := range strings.Fields(line) {
			name, value, _ := strings.Cut(f, ":")
			n, err := strconv.ParseUint(value, 16, 64)
			switch {
			case err != nil:
			case name == "ino":
				e.ino, found = n, true
			case name == "sdev":
				e.dev = n
			}
		}
		if found { // kernels before 4.13 do not say
			list = append(list, e)
		}
	}
	return list
}

// parseSyscall reads /proc/PID/task/TID/syscall: the number and six arguments in hexadecimal, or "running".
func parseSyscall(text string, calls map[uint64]call) (c call, args [3]uint64) {
	f := strings.Fields(text)
	if len(f) < 1+len(args) {
		return callOther, args
	}
	number, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		return callOther, args
	}
	for i := range args {
		args[i], _ = strconv.ParseUint(strings.TrimPrefix(f[1+i], "0x"), 16, 64)
	}
	return calls[number], args
}
