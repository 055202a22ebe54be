package launcher

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/agenticverz/vaultexec/internal/notify"
)

// commandNotify is the NOTIFY_SOCKET of the command: one socket of vaultexec's own for all commands of a run. There is one
// only where somebody listens: for --restart-order start-first, and for a --ready that hears READY=1 (wantsNotify). A
// command that finds NOTIFY_SOCKET behaves as under systemd, so that nobody gets one who has not asked for it; and with
// --pass-notify the command has systemd's.
//
// One goroutine receives. Who may speak is known by the process group: afterFork adds the one of a command, forget takes
// it out. Messages come out in their order, and none is dropped: if the main goroutine is busy, those who speak wait.
// All methods of a nil one do nothing.
type commandNotify struct {
	receiver *notify.Receiver
	out      chan said
	over     chan struct{}
	done     chan struct{}

	mu     sync.Mutex // held during a fork: a command may speak before vaultexec knows its process
	groups []int
}

// said is a message and the process group of who has sent it. The main goroutine closes it.
type said struct {
	notify.Message
	group int
}

const saidWaiting = 16 // messages that the main goroutine has not taken yet

// wantsNotify reports whether the command of a supervised run gets a socket of vaultexec's.
func (l *launch) wantsNotify() bool {
	return !l.PassNotify && l.Ready.hears() && (l.Ready.Given || l.StartFirst)
}

// listenToCommand makes the socket; nil where there can be none.
func listenToCommand() *commandNotify {
	r, err := notify.Listen(false)
	if err != nil {
		return nil
	}
	n := &commandNotify{receiver: r, out: make(chan said, saidWaiting), over: make(chan struct{}),
		done: make(chan struct{})}
	go n.run()
	return n
}

// run receives until close.
func (n *commandNotify) run() {
	defer close(n.done)
	for {
		group := 0
		m, err := n.receiver.Receive(func(pid int) bool {
			group = n.groupOf(pid)
			return group != 0
		})
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // short of memory: the next may be had
			select {
			case <-n.over:
				return
			default:
				continue
			}
		}
		select {
		case n.out <- said{m, group}:
		case <-n.over:
			m.Close()
			return
		}
	}
}

// groupOf is the known group that a process is in; 0 for none.
func (n *commandNotify) groupOf(pid int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, g := range n.groups {
		if notify.InGroup(g)(pid) {
			return g
		}
	}
	return 0
}

// said delivers what the commands say.
func (n *commandNotify) said() <-chan said {
	if n == nil {
		return nil
	}
	return n.out
}

// beforeFork has messages wait until afterFork.
func (n *commandNotify) beforeFork() {
	if n != nil {
		n.mu.Lock()
	}
}

// afterFork lets the processes of a group speak; 0 if there was no fork.
func (n *commandNotify) afterFork(group int) {
	if n == nil {
		return
	}
	if group > 0 && !slices.Contains(n.groups, group) {
		n.groups = append(n.groups, group)
	}
	n.mu.Unlock()
}

// forget no longer hears a group, whose number may soon be another's.
func (n *commandNotify) forget(group int) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.groups = slices.DeleteFunc(n.groups, func(g int) bool { return g == group })
}

// environ is the command's environment with the socket's name, and how often systemd wants a sign of life; 0 for never.
func (n *commandNotify) environ(env []string, watchdog time.Duration) []string {
	if n == nil {
		return env
	}
	env = append(withoutNotify(env), "NOTIFY_SOCKET="+n.receiver.Address())
	if watchdog > 0 && executable(selfExe) == nil { // the stub has it name the command
		env = append(env, fmt.Sprintf("WATCHDOG_PID=%d", os.Getpid()),
			fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds()))
	}
	return env
}

// close ends the socket. What was not taken is let go.
func (n *commandNotify) close() {
	if n == nil {
		return
	}
	close(n.over)
	n.receiver.Close()
	<-n.done
	for {
		select {
		case m := <-n.out:
			m.Close()
		default:
			return
		}
	}
}
