// Command probe is the child of tests: it tells what happens to it. It is static, so that it runs in an empty image, too.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// commands are the things that probe can be told to do.
var commands = map[string]func(args []string) int{
	"signals":  signals,
	"exit":     func(args []string) int { n, _ := strconv.Atoi(args[0]); return n },
	"die":      die,
	"orphans":  orphans,
	"naive":    naive,
	"activate": activate,
	"activated": func([]string) int {
		return activated()
	},
	"pid1":   pid1,
	"refuse": refuse,
	"listen": listen,
	"linger": linger,
	"web":    web,
	"serve":  serve,
	"fds":    descriptors,
	"notify": notify,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "probe: what?")
		os.Exit(125)
	}
	os.Exit(commands[os.Args[1]](os.Args[2:]))
}

// fail ends the probe with a code that no test expects.
func fail(err error) {
	fmt.Fprintln(os.Stderr, "probe:", err)
	os.Exit(99)
}

// notify TEXT says something by the protocol of sd_notify(3), and stays until it was heard, as systemd-notify does: who
// has ended cannot be found any more.
func notify(args []string) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		fail(err)
	}
	heard, barrier, err := os.Pipe()
	if err != nil {
		fail(err)
	}
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	if err := unix.Sendto(fd, []byte(args[0]), 0, to); err != nil {
		fail(err)
	}
	if err := unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(barrier.Fd())), to, 0); err != nil {
		fail(err)
	}
	_ = barrier.Close()
	_, _ = heard.Read(make([]byte, 1))
	return 0
}

// last is the signal that ends "probe signals", with code 42. Whoever sends it after another signal, and then finds one line
// of the other, knows that it came once.
const last = syscall.Signal(64)

// signals LOG [NUMBER...] catches every signal but the numbered ones and writes a line for each into LOG: its number. Go's
// runtime sends SIGURG to itself unless it runs with GODEBUG=asyncpreemptoff=1, which the test sets.
func signals(args []string) int {
	log, err := os.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fail(err)
	}
	not := map[string]bool{}
	for _, n := range args[1:] {
		not[n] = true
	}
	ch := make(chan os.Signal, 2000)
	for n := 1; n <= int(last); n++ {
		if !not[strconv.Itoa(n)] {
			signal.Notify(ch, syscall.Signal(n))
		}
	}
	fmt.Fprintf(log, "ready %d\n", os.Getpid())
	for sig := range ch {
		fmt.Fprintf(log, "%d\n", sig)
		if sig == last {
			return 42
		}
	}
	return 0
}

// die NUMBER dies by that signal, whatever the Go runtime has in mind with it.
func die(args []string) int {
	n, _ := strconv.Atoi(args[0])
	// The shell's kill resets nothing, but Go has handlers: a shell has none.
	return execve("/bin/sh", "sh", "-c", "kill -"+strconv.Itoa(n)+" $$; sleep 10")
}

func execve(path string, argv ...string) int {
	fail(unix.Exec(path, argv, os.Environ()))
	return 99
}

// orphans N CODE makes N orphans that end at once and N more that end a little later, and exits with CODE when told so by a
// line on standard input.
func orphans(args []string) int {
	script := `i=0; while [ $i -lt "$1" ]; do (true & sleep 0.05 & ); i=$((i+1)); done; echo made; read line; exit "$2"`
	return execve("/bin/sh", "sh", "-c", script, "sh", args[0], args[1])
}

// naive COMMAND... is a launcher as they are usually written, and fails every check: it shares its child's process group,
// forwards whatever it gets, reports a death by signal as 255, waits only for its child and tells it nothing when it dies.
func naive(args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stdout
	cmd.ExtraFiles = []*os.File{os.Stdin}
	ch := make(chan os.Signal, 100)
	signal.Notify(ch)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "naive:", err)
		return 1
	}
	go func() {
		for sig := range ch {
			time.Sleep(20 * time.Millisecond) // or the kernel merges what it sends with what the terminal has sent
			_ = cmd.Process.Signal(sig)
		}
	}()
	var exit *exec.ExitError
	switch err := cmd.Wait(); {
	case errors.As(err, &exit):
		return exit.ExitCode() & 0xff
	case err != nil:
		return 1
	}
	return 0
}

// activate ADDRESS COMMAND... does what systemd does for a socket unit: the socket is descriptor 3, LISTEN_PID is the
// process that is started, which here is this one, by exec.
func activate(args []string) int {
	network := "unix"
	if strings.Contains(args[0], ":") {
		network = "tcp"
	}
	l, err := net.Listen(network, args[0])
	if err != nil {
		fail(err)
	}
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		fail(err)
	}
	if err := unix.Dup2(int(f.Fd()), 3); err != nil { // without close-on-exec
		fail(err)
	}
	pid := strconv.Itoa(os.Getpid())
	env := append(os.Environ(), "LISTEN_PID="+pid, "LISTEN_FDS=1", "WATCHDOG_PID="+pid, "WATCHDOG_USEC=1000000", "LISTEN_PIDFDID="+pidfdID())
	path, err := exec.LookPath(args[1])
	if err != nil {
		fail(err)
	}
	fail(unix.Exec(path, args[1:], env))
	return 99
}

// activated is the service: it answers one connection if the variables name it, as sd_listen_fds(3) and
// sd_watchdog_enabled(3) check.
func activated() int {
	pid := strconv.Itoa(os.Getpid())
	if os.Getenv("LISTEN_PID") != pid || os.Getenv("LISTEN_FDS") != "1" || os.Getenv("WATCHDOG_PID") != pid {
		fail(fmt.Errorf("not for %s: LISTEN_PID=%s LISTEN_FDS=%s WATCHDOG_PID=%s", pid, os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("WATCHDOG_PID")))
	}
	if id := os.Getenv("LISTEN_PIDFDID"); id != pidfdID() {
		fail(fmt.Errorf("LISTEN_PIDFDID=%s is not for %s", id, pidfdID()))
	}
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		fail(err)
	}
	c, err := l.Accept()
	if err != nil {
		fail(err)
	}
	_, _ = c.Write([]byte("served\n"))
	_ = c.Close()
	return 0
}

// listen ADDRESS LOG takes a port, hands it to a helper as well, writes a line into LOG, "bound" or what was in the way, and
// waits. The helper keeps the port for a while after SIGTERM, in the same process group.
func listen(args []string) int {
	log, err := os.OpenFile(args[1], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		fail(err)
	}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		fmt.Fprintln(log, err)
		return 1
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		fail(err)
	}
	self, _ := os.Executable()
	helper := exec.Command(self, "linger")
	helper.ExtraFiles = []*os.File{f}
	ready, err := helper.StdoutPipe()
	if err == nil {
		err = helper.Start()
	}
	if err != nil {
		fail(err)
	}
	_, _ = ready.Read(make([]byte, 1))
	fmt.Fprintln(log, "bound")
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGTERM)
	<-ch
	return 0
}

// linger ends a while after its first SIGTERM.
func linger([]string) int {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGTERM)
	fmt.Println("ready")
	<-ch
	time.Sleep(15 * time.Millisecond)
	return 0
}

// pid1 is the command of a container test: it reports on standard output who is process 1, leaves orphans behind,
// counts the zombies after a second, and then waits for SIGTERM, after which it exits with 42.
func pid1([]string) int {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGTERM)
	name, _ := os.ReadFile("/proc/1/comm")
	fmt.Printf("pid1 %s", name)
	fmt.Printf("parent %d\n", os.Getppid())
	if err := exec.Command("/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do (true &); done").Run(); err != nil {
		fail(err)
	}
	deadline := time.Now().Add(time.Second)
	n := zombies()
	for n > 0 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
		n = zombies()
	}
	fmt.Printf("zombies %d\n", n)
	fmt.Println("ready")
	<-ch
	fmt.Println("told")
	return 42
}

// zombies counts those of this PID namespace.
func zombies() int {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		fail(err)
	}
	n := 0
	for _, d := range dirs {
		b, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue
		}
		text := string(b)
		if strings.HasPrefix(text[strings.LastIndexByte(text, ')')+1:], " Z") {
			n++
		}
	}
	return n
}
