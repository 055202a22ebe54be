package serving

import "golang.org/x/sys/unix"

// calls are the numbers of the calls that wait for connections.
var calls = map[uint64]call{
	unix.SYS_ACCEPT: callAccept, unix.SYS_ACCEPT4: callAccept,
	unix.SYS_POLL: callPoll, unix.SYS_PPOLL: callPoll,
	unix.SYS_SELECT: callSelect, unix.SYS_PSELECT6: callSelect,
}
