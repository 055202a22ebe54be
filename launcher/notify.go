package launcher

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// notifier tells systemd about a run in which vaultexec stays (sd_notify(3)). The command of such a run does not get
// the socket: systemd knows one main process, which is vaultexec. A command that says MAINPID, as haproxy -Ws does,
// would be taken for it, and the unit would end with the first restart. Nor would anybody answer the watchdog while
// there is no command. All methods of a nil notifier do nothing.
type notifier struct {
	socket   string
	watchdog time.Duration // between two signs of life; 0 for none
	ticker   *time.Ticker
	alive    time.Time // of the last sign of life
	ready    bool
	stopping bool

	waits time.Duration // --ready-timeout, where READY=1 waits for the command's own readiness; 0 otherwise
	begun time.Time     // when the first command was started, for that

	reloading bool // a restart is under way
	speaks    bool // the command that serves has sent a STATUS of its own
	keeps     bool // the command sends signs of life of its own, which count in place of vaultexec's
}

// notifyVariables are what systemd gives to the main process for this. (A program that gets WATCHDOG_USEC and no socket
// may warn.)
var notifyVariables = []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}

const (
	startBeat   = 5 * time.Second  // while Vault is waited for
	startExtend = 30 * time.Second // of the time that systemd allows for a start, with each
	notifyLimit = 200 * time.Millisecond
)

// takeNotify takes the notification socket from what the command inherits, unless it was asked to have it.
func (l *launch) takeNotify() {
	socket := variable(l.Environ, "NOTIFY_SOCKET")
	if l.PassNotify || socket == "" || l.notify != nil {
		return
	}
	n := &notifier{socket: socket}
	if l.Ready.Given {
		n.waits = l.Ready.Timeout
	}
	usec, err := strconv.ParseInt(variable(l.Environ, "WATCHDOG_USEC"), 10, 64)
	if pid := variable(l.Environ, "WATCHDOG_PID"); err == nil && usec > 0 &&
		(pid == "" || pid == fmt.Sprint(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond / 2
	}
	l.Environ = withoutNotify(l.Environ)
	l.notify = n
	l.Log.Info(
		"vaultexec tells systemd when the command runs, NOTIFY_SOCKET is not handed on (--pass-notify hands it on)")
}

func variable(environ []string, name string) string {
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// withoutNotify returns a copy without systemd's variables.
func withoutNotify(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(notifyVariables, name)
	})
}

// wait begins with the signs of life of a start, which may wait for Vault for longer than systemd does for a start.
func (n *notifier) wait() {
	if n == nil {
		return
	}
	every := startBeat
	if n.watchdog != 0 {
		every = min(every, n.watchdog)
	}
	n.ticker = time.NewTicker(every)
}

// every is what systemd allows between two signs of life; 0 for any time.
func (n *notifier) every() time.Duration {
	if n == nil {
		return 0
	}
	return 2 * n.watchdog
}

// tick delivers when a sign of life is due.
func (n *notifier) tick() <-chan time.Time {
	if n == nil || n.ticker == nil {
		return nil
	}
	return n.ticker.C
}

// live is a sign of life of the main goroutine.
func (n *notifier) live() {
	if n == nil || n.ready && n.watchdog == 0 {
		return
	}
	if n.ready && time.Since(n.alive) < n.watchdog/2 {
		return
	}
	n.alive = time.Now()
	var words []string
	if !n.ready && (n.begun.IsZero() || time.Since(n.begun) < n.waits) {
		words = append(words, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startExtend.Microseconds()))
	}
	if n.watchdog != 0 && !n.keeps {
		words = append(words, "WATCHDOG=1")
	}
	if len(words) > 0 {
		n.send(strings.Join(words, "\n"))
	}
}

// started tells that there is a command, for the first time. With --ready it is not ready yet: commandReady tells that.
func (n *notifier) started() {
	if n == nil || n.ready {
		return
	}
	if n.waits > 0 {
		if n.begun.IsZero() {
			n.begun = time.Now()
		}
		return
	}
	n.commandReady()
}

// awaitsCommand reports whether somebody has to find out whether the first command is ready.
func (n *notifier) awaitsCommand() bool { return n != nil && !n.ready && n.waits > 0 }

// commandReady tells that the command is ready, for the first time.
func (n *notifier) commandReady() {
	if n == nil || n.ready {
		return
	}
	n.ready = true
	n.send("READY=1")
	if n.ticker != nil {
		n.ticker.Stop()
		n.ticker = nil
	}
	if n.watchdog != 0 {
		n.ticker = time.NewTicker(n.watchdog)
		n.live()
	}
}

// restarts tells that the command is about to be replaced, and why.
func (n *notifier) restarts(status string) {
	if n == nil || !n.ready || n.stopping {
		return
	}
	n.reloading = true
	words := []string{"RELOADING=1"}
	if t, ok := monotonic(); ok { // systemd.service(5), Type=notify-reload, wants both at once
		words = append(words, fmt.Sprintf("MONOTONIC_USEC=%d", t.Microseconds()))
	}
	n.send(strings.Join(append(words, "STATUS="+status), "\n"))
}

// runs tells which command runs now, in one line.
func (n *notifier) runs(status string) {
	if n == nil || !n.ready || n.stopping {
		return
	}
	words := []string{"STATUS=" + status}
	if n.reloading {
		words = append([]string{"READY=1"}, words...)
	}
	n.reloading, n.keeps, n.speaks = false, false, false
	n.send(strings.Join(words, "\n"))
}

// runsFirst is runs for the first command, which may have said something better meanwhile.
func (n *notifier) runsFirst(status string) {
	if n != nil && !n.speaks {
		n.runs(status)
	}
}

// ends tells that the run is about to end.
func (n *notifier) ends() {
	if n == nil || n.stopping {
		return
	}
	n.stopping = true
	n.send("STOPPING=1")
}

// send sends one datagram. Nobody reads an answer, and there is none: a manager that is away is no reason to end
// anything.
func (n *notifier) send(text string) { n.sendFiles(text, nil) }
