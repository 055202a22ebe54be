package serving

import "golang.org/x/sys/unix"

// calls are the numbers of the calls that wait for connections. There is no poll and no select.
var calls = map[uint64]call{
	unix.SYS_ACCEPT: callAccept, unix.SYS_ACCEPT4: callAccept,
	unix.SYS_PPOLL: callPoll, unix.SYS_PSELECT6: callSelect,
}
